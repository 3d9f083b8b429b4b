# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: image_names
short_description: What becomes of an image's names when another one is imported
version_added: 0.2.0
author: The ggen.gvisor authors (@ggen-gvisor)
description:
  - The image that a host has under the tag C(latest) is kept as C(previous) when another one is imported, and the one before it goes. This decides,
    from the result of M(ggen.gvisor.containerd_info), what that means for each of containerd's namespaces.
positional: _input, name, namespaces, digest
options:
  _input:
    description: The images by namespace, as M(ggen.gvisor.containerd_info) returns them.
    type: dict
    required: true
  name:
    description: The image's name without a tag.
    type: str
    required: true
  namespaces:
    description: The namespaces to look at.
    type: list
    elements: str
    required: true
  digest:
    description: The manifest digest of the image to import.
    type: str
    required: true
  remembered:
    description: By namespace, the digest that was latest before the host's last upgrade.
    type: dict
    default: {}
"""

EXAMPLES = r"""
names: "{{ host.images | ggen.gvisor.image_names('docker.io/library/ggen', ['default'], digest) }}"
"""

RETURN = r"""
_value:
  description:
    - C(latest), by namespace the digest of that tag; C(replaced), the namespaces where another image is latest; C(outdated), by namespace the names
      of the image before that one; C(kept), the namespaces that have the remembered image and another one as latest; C(ours), by namespace the
      names of both.
  type: dict
"""


from ansible_collections.ggen.gvisor.plugins.plugin_utils._base.filters import Filter, filters
from ansible_collections.ggen.gvisor.plugins.plugin_utils._containerd.image_names import image_names


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Filter]:
        """Return the filters by name."""
        return filters(image_names=image_names)
