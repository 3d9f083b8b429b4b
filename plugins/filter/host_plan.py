# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: host_plan
short_description: What a sandbox host still needs of a gVisor release
version_added: 1.0.0
description:
  - The decision between looking at a host and changing it. Compares the result of M(ggen.gvisor.containerd_info) with a built release.
positional: _input, release, row, built
options:
  _input:
    description: The host, as M(ggen.gvisor.containerd_info) returns it.
    type: dict
    required: true
  release:
    description: The release to install.
    type: str
    required: true
  row:
    description: The release's row of C(releases.yml).
    type: dict
    required: true
  built:
    description: The sha256 of each of the release's files, by the name that it was built under.
    type: dict
    required: true
  folder:
    description: The folder on the host that holds one folder for each release.
    type: path
    required: true
  shim:
    description: The build of the shim; V(auto) takes upstream's wherever containerd has the capability that it needs.
    type: str
    choices: [auto, upstream, no-oom-score]
    default: auto
  flags:
    description: runsc's flags for the shim's options file.
    type: dict
    default: {}
  command:
    description: Whether the host should have the command C(ggen-gvisor), which is made of the collection itself.
    type: bool
    default: true
    version_added: 1.0.0
"""

EXAMPLES = r"""
plan: "{{ host | ggen.gvisor.host_plan('20260518', releases['20260518'], sums, folder='/usr/local/lib/gvisor') }}"
"""

RETURN = r"""
_value:
  description:
    - What to write (C(files), C(links), C(options)) and which link to remove (C(unwanted)), whether that is anything (C(needed)), which programs
        must be sent for it (C(missing)), and what was decided (C(shim), C(folder), C(sha256), C(programs)).
  type: dict
"""


import hashlib
from typing import Any

from ansible_collections.ggen.gvisor.plugins.plugin_utils._base.filters import Filter, filters
from ansible_collections.ggen.gvisor.plugins.plugin_utils._command.zipapp import zipapp
from ansible_collections.ggen.gvisor.plugins.plugin_utils._gvisor import host_plan as plans


def host_plan(
    info: dict[str, Any], release: str, row: dict[str, Any], built: dict[str, str], command: bool = True, **options: Any
) -> dict[str, Any]:
    """Return the plan; see DOCUMENTATION. Raises OSError."""
    return plans.host_plan(info, release, row, built, command=hashlib.sha256(zipapp()).hexdigest() if command else "", **options)


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Filter]:
        """Return the filters by name."""
        return filters(host_plan=host_plan)
