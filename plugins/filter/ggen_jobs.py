# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: ggen_jobs
short_description: The runs of ggen that a list of workspaces asks for
version_added: 0.1.0
author: The ggen.gvisor authors (@ggen-gvisor)
description:
  - Lays the options of each workspace over the common ones, makes the paths absolute and splits the arguments into words without a shell.
  - An unknown key, a missing or repeated path and unbalanced quotes are errors.
positional: _input, common
options:
  _input:
    description: The workspaces; each has C(path) and may have any key of O(common).
    type: list
    elements: dict
    required: true
  common:
    description: The options of every workspace; C(args) is one of them.
    type: dict
    required: true
  local:
    description: Whether the workspaces are on the controller, so that C(~) and relative paths can be resolved here.
    type: bool
    default: false
  moved:
    description: Folders of the controller and where the host has them instead.
    type: dict
    default: {}
"""

EXAMPLES = r"""
jobs: "{{ [{'path': '/srv/model'}, {'path': '/srv/other', 'timeout': 60}] | ggen.gvisor.ggen_jobs({'args': 'sync', 'timeout': 300}) }}"
"""

RETURN = r"""
_value:
  description: One dict a workspace with every option, C(args) as a list, and C(manifest), the ggen.toml that will be read (or empty).
  type: list
  elements: dict
"""

import os
from typing import Any, Callable

from ansible.errors import AnsibleFilterError
from ansible_collections.ggen.gvisor.plugins.plugin_utils.ggen import GgenError, jobs


def ggen_jobs(
    workspaces: list[dict[str, Any]], common: dict[str, Any], local: bool = False, moved: dict[str, str] | None = None
) -> list[dict[str, Any]]:
    """Return the jobs; see DOCUMENTATION. Raises AnsibleFilterError."""
    placed = [{**entry, "path": (moved or {}).get(entry.get("path"), entry.get("path"))} for entry in workspaces]
    try:
        return jobs(placed, common, *((os.getcwd(), os.path.expanduser("~")) if local else ()))
    except GgenError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"ggen_jobs": ggen_jobs}
