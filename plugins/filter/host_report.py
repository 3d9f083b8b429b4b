# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: host_report
short_description: What a sandbox host has, and how it differs from what it should have
version_added: 1.0.0
description:
  - Makes the document that C(playbooks/verify.yml) and C(site.yml) leave under C(reports/).
positional: _input, plan, handler
options:
  _input:
    description: The host, as M(ggen.gvisor.containerd_info) returns it.
    type: dict
    required: true
  plan:
    description:
      - What P(ggen.gvisor.host_plan#filter) returned, and as its C(node) what P(ggen.gvisor.kubernetes_node#filter) did, so that the report of a Kubernetes
        node has its cgroup driver and what decides it.
      - Its C(members), where it has them, are what should let members of a group run C(ggen-gvisor), in the form of C(gvisor.members) of
        M(ggen.gvisor.containerd_info).
    type: dict
    required: true
  handler:
    description: The runtime handler that containerd's configuration should have, its C(name). How it differs is in the result of the module.
    type: dict
    required: true
  image:
    description: The C(references), C(digest) and C(namespaces) of the image that should be there.
    type: dict
    default: {}
  proof:
    description: What was observed of a sandbox on the host.
    type: dict
    default: {}
  runs:
    description: What ran in the sandbox.
    type: list
    elements: dict
    default: []
"""

EXAMPLES = r"""
report: "{{ host | ggen.gvisor.host_report(plan, {'name': 'runsc', 'runtime_type': 'io.containerd.runsc.v1', 'options': {}}) }}"
"""

RETURN = r"""
_value:
  description: The report. C(healthy) says whether C(drift), a list of sentences, is empty.
  type: dict
"""


from ansible_collections.ggen.gvisor.plugins.plugin_utils._base.filters import Filter, filters
from ansible_collections.ggen.gvisor.plugins.plugin_utils._gvisor.host_report import host_report


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Filter]:
        """Return the filters by name."""
        return filters(host_report=host_report)
