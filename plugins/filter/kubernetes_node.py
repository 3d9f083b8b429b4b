# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: kubernetes_node
short_description: Whether a host is a Kubernetes node, and what gVisor needs there
version_added: 1.0.0
author: The ggen.gvisor authors (@ggen-gvisor)
description:
  - Decides by the result of M(ggen.gvisor.containerd_info) which of runsc's flags fit the cgroup version and the cgroup driver of the host.
  - With containerd 2.0 and newer the driver is what containerd tells the kubelet, by its option C(SystemdCgroup) of runc; before, it is the kubelet's own.
positional: _input, wish
options:
  _input:
    description: The host, as M(ggen.gvisor.containerd_info) returns it.
    type: dict
    required: true
  wish:
    description:
      - Whether the host is a node. V(auto) takes it for one where a kubelet was found that uses this containerd's socket.
      - With V(true) and no kubelet the driver is containerd's, whatever its version.
    type: str
    choices: [auto, 'true', 'false']
    default: auto
"""

EXAMPLES = r"""
- name: Which flags does runsc need here?
  ansible.builtin.debug:
    msg: "{{ (host | ggen.gvisor.kubernetes_node).flags }}"
"""

RETURN = r"""
_value:
  description:
    - C(node) tells whether it is one, C(driver) the cgroup driver and C(by) what decides that, C(flags) runsc's flags, and C(problem) why gVisor cannot
      work there and what to do, null where it can.
  type: dict
"""


from ansible_collections.ggen.gvisor.plugins.plugin_utils._base.filters import Filter, filters
from ansible_collections.ggen.gvisor.plugins.plugin_utils._kubernetes.node import kubernetes_node


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Filter]:
        """Return the filters by name."""
        return filters(kubernetes_node=kubernetes_node)
