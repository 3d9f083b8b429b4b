# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: host_faults
short_description: What is wrong on a sandbox host with what it has
version_added: 1.0.0
author: The ggen.gvisor authors (@ggen-gvisor)
description:
  - Judges the result of M(ggen.gvisor.containerd_info) by the release that the host has, whatever release it should have. A host without faults
    can be upgraded, and can go back to what it has now.
  - The configuration is judged as the module judged it for its option O(ggen.gvisor.containerd_info#module:runtime), so a host where
    M(ggen.gvisor.containerd_runtime) would change something has a fault.
positional: _input, handler, releases, built
options:
  _input:
    description: The host, as M(ggen.gvisor.containerd_info) returns it.
    type: dict
    required: true
  handler:
    description: The runtime handler that it should have, its C(name).
    type: dict
    required: true
  releases:
    description: The table of releases. The sums of a release that is not in it are not compared.
    type: dict
    required: true
  built:
    description: The files of the build that the host has, as its manifest lists them, or none where the table's sums hold.
    type: dict
    required: true
  folder:
    description: The folder on the host that holds one folder for each release.
    type: path
    required: true
  shim:
    description: The build of the shim that the host should have.
    type: str
    choices: [auto, upstream, no-oom-score]
    default: auto
"""

EXAMPLES = r"""
- name: Touch no host that is not healthy
  ansible.builtin.assert:
    that: host | ggen.gvisor.host_faults(handler, releases, {}, folder='/usr/local/lib/gvisor') == []
"""

RETURN = r"""
_value:
  description: A sentence for each fault.
  type: list
  elements: str
"""


from ansible_collections.ggen.gvisor.plugins.plugin_utils._base.filters import Filter, filters
from ansible_collections.ggen.gvisor.plugins.plugin_utils._gvisor.host_report import faults


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Filter]:
        """Return the filters by name."""
        return filters(host_faults=faults)
