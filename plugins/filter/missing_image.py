# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: missing_image
short_description: The containerd namespaces that lack an image
version_added: 1.0.0
author: The ggen.gvisor authors (@ggen-gvisor)
description:
  - Compares by digest, so that an older image under the same name counts as missing.
positional: _input, images, references, digest, pinned
options:
  _input:
    description: The namespaces that should have the image.
    type: list
    elements: str
    required: true
  images:
    description: The images by namespace, as M(ggen.gvisor.containerd_info) returns them.
    type: dict
    required: true
  references:
    description: The names that the image should have.
    type: list
    elements: str
    required: true
  digest:
    description: Its manifest digest.
    type: str
    required: true
  pinned:
    description:
      - The names that are pinned, by namespace, as M(ggen.gvisor.containerd_info) returns them.
      - With it the namespace V(k8s.io) also counts where the image is there and not pinned under each of its names.
    type: dict
"""

EXAMPLES = r"""
missing: "{{ ['default', 'k8s.io'] | ggen.gvisor.missing_image(host.images, ['docker.io/library/ggen:latest'], digest) }}"
"""

RETURN = r"""
_value:
  description: The namespaces, in the order that they were given in.
  type: list
  elements: str
"""


from ansible_collections.ggen.gvisor.plugins.plugin_utils._base.filters import Filter, filters
from ansible_collections.ggen.gvisor.plugins.plugin_utils._gvisor.host_report import KUBERNETES, missing_images, unpinned_images


def missing_image(
    namespaces: list[str],
    images: dict[str, dict[str, str]],
    references: list[str],
    digest: str,
    pinned: dict[str, list[str]] | None = None,
) -> list[str]:
    """Return the namespaces that lack the image under one of its names, or with ``pinned`` its pin."""
    wanted = {"namespaces": namespaces, "references": references, "digest": digest}
    missing = {namespace for namespace, _name in missing_images(images, wanted)}
    if pinned is not None and unpinned_images(images, pinned, wanted):
        missing.add(KUBERNETES)
    return [namespace for namespace in dict.fromkeys(namespaces) if namespace in missing]


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Filter]:
        """Return the filters by name."""
        return filters(missing_image=missing_image)
