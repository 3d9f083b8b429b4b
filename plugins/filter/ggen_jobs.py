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
  mounts:
    description:
      - What a virtual machine on the controller sees of the controller's folders, a list of C(location), C(mount_point) and C(writable), as the inventory
        plugin P(ggen.gvisor.colima#inventory) tells it in C(vm_mounts).
      - A workspace below a writable one is used where it lies, and C(~) and relative paths are the controller's. A folder of the controller that the
        machine does not see, or may not write, is an error. A path that is no folder of the controller is the machine's own.
    type: list
    elements: dict
    default: []
    version_added: 0.2.0
  in_place:
    description: Use a folder of O(moved) where it lies if O(mounts) show it.
    type: bool
    default: false
    version_added: 0.2.0
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
from ansible_collections.ggen.gvisor.plugins.plugin_utils.colima import in_guest
from ansible_collections.ggen.gvisor.plugins.plugin_utils.ggen import GgenError, jobs


def ggen_jobs(
    workspaces: list[dict[str, Any]],
    common: dict[str, Any],
    local: bool = False,
    moved: dict[str, str] | None = None,
    mounts: list[dict[str, Any]] | None = None,
    in_place: bool = False,
) -> list[dict[str, Any]]:
    """Return the jobs; see DOCUMENTATION. Raises AnsibleFilterError."""
    try:
        placed = [{**entry, "path": _placed(entry.get("path"), moved or {}, mounts or [], in_place)} for entry in workspaces]
        return jobs(placed, common, *((os.getcwd(), os.path.expanduser("~")) if local else ()))
    except GgenError as error:
        raise AnsibleFilterError(str(error)) from error


def _placed(path: Any, moved: dict[str, str], mounts: list[dict[str, Any]], in_place: bool) -> Any:
    """Return where the host has a workspace. Raises GgenError where a virtual machine does not see one of the controller's."""
    if not path or not mounts:
        return moved.get(path, path)
    here = os.path.realpath(os.path.expanduser(path))  # a link of the controller would lead nowhere in the guest
    real = [{**mount, "location": os.path.realpath(mount["location"])} for mount in mounts]
    there, writable = in_guest(here, real)
    if path in moved and not (in_place and writable):
        return moved[path]
    if there is not None and writable:
        return there
    if there is None and not os.path.isdir(here) and path.startswith("/"):
        return path
    shown = ", ".join(mount["location"] for mount in mounts if mount["writable"]) or "nothing"
    why = "the virtual machine does not see it" if there is None else "the virtual machine may only read it"
    raise GgenError(
        f"The workspace {here} is on this machine, and {why}. It may write {shown}: move the workspace there, or start the profile with one mount more "
        f"(colima stop, then colima start --mount {here}:w with the mounts that it has)."
    )


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"ggen_jobs": ggen_jobs}
