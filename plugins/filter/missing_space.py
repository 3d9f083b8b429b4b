# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: missing_space
short_description: The file systems of a host that are too full for what it is to get
version_added: 1.0.0
description:
  - Compares the C(host.space) of M(ggen.gvisor.containerd_info) with what is to be written. Folders on one file system share its room.
positional: _input, needs
options:
  _input:
    description: For each folder the C(free_mb) and C(device) of its file system.
    type: dict
    required: true
  needs:
    description: What is to be written, each with C(folder), C(mb) and C(what).
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
problems: "{{ host.host.space | ggen.gvisor.missing_space([{'folder': '/usr/local/lib/gvisor', 'mb': 120, 'what': 'gVisor'}]) }}"
"""

RETURN = r"""
_value:
  description: A sentence for each file system that is too full, with its folders, what is free, what is needed, and the fix.
  type: list
  elements: str
"""


from ansible_collections.ggen.gvisor.plugins.plugin_utils._base.filters import Filter, filters
from ansible_collections.ggen.gvisor.plugins.plugin_utils._gvisor.free_space import missing_space


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Filter]:
        """Return the filters by name."""
        return filters(missing_space=missing_space)
