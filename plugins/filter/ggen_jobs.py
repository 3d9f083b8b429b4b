# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: ggen_jobs
short_description: The runs of ggen that a list of workspaces asks for
version_added: 1.0.0
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
  from_controller:
    description:
      - Whether the workspaces are folders of the controller although the host is another one, so that C(~) and relative paths are the controller's.
      - One that O(mounts) show is used where it lies, of another one the run gets a copy.
    type: bool
    default: false
    version_added: 1.0.0
  mounts:
    description:
      - What a virtual machine on the controller sees of the controller's folders, a list of C(location), C(mount_point) and C(writable), as the inventory
        plugin P(ggen.gvisor.colima#inventory) tells it in C(vm_mounts). Those that cannot be written do not count.
    type: list
    elements: dict
    default: []
    version_added: 1.0.0
  program:
    description: ggen's path in the image.
    type: str
    default: /usr/local/bin/ggen
    version_added: 1.0.0
  in_place:
    description: Use a folder of O(moved) where it lies if it is here or O(mounts) show it, unless it is root's.
    type: bool
    default: false
    version_added: 1.0.0
"""

EXAMPLES = r"""
jobs: "{{ [{'path': '/srv/model'}, {'path': '/srv/other', 'timeout': 60}] | ggen.gvisor.ggen_jobs({'args': 'sync', 'timeout': 300}) }}"
"""

RETURN = r"""
_value:
  description: One dict a workspace with every option, C(args) as a list, C(manifest), the ggen.toml that will be read (or empty), and C(from), where
    the workspace is, V(host) or V(controller), and C(run), the job of M(ggen.gvisor.containerd_run).
  type: list
  elements: dict
"""

import os
from typing import Any

from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._ggen.runs import PROGRAM, run_options
from ansible_collections.ggen.gvisor.plugins.plugin_utils._base.filters import Filter, filters
from ansible_collections.ggen.gvisor.plugins.plugin_utils._fleet.colima import in_guest
from ansible_collections.ggen.gvisor.plugins.plugin_utils._ggen.jobs import jobs


def ggen_jobs(
    workspaces: list[dict[str, Any]],
    common: dict[str, Any],
    local: bool = False,
    moved: dict[str, str] | None = None,
    from_controller: bool = False,
    mounts: list[dict[str, Any]] | None = None,
    in_place: bool = False,
    program: str = PROGRAM,
) -> list[dict[str, Any]]:
    """Return the jobs; see DOCUMENTATION. Raises GvisorError."""
    places = [
        _place(entry.get("path"), moved or {}, mounts or [], in_place)
        if from_controller and not local
        else (_moved(entry.get("path"), moved or {}, local and in_place), "host")
        for entry in workspaces
    ]
    placed = [{**entry, "path": path} for entry, (path, _where) in zip(workspaces, places, strict=True)]
    found = jobs(placed, common, *((os.getcwd(), os.path.expanduser("~")) if local else ()))
    return [
        {**job, "from": where, "run": {**run_options(job, program), "workspace_from": where}}
        for job, (_path, where) in zip(found, places, strict=True)
    ]


def _moved(path: Any, moved: dict[str, str], stay: bool) -> Any:
    """Return where the host has the folder. One that may stay where it is does so unless it is root's: a command would run there as root."""
    if path in moved and stay and os.path.isdir(path) and os.stat(path).st_uid != 0:
        return path
    return moved.get(path, path)


def _place(path: Any, moved: dict[str, str], mounts: list[dict[str, Any]], in_place: bool) -> tuple[Any, str]:
    """Return where a run on another host finds a workspace of the controller, and on which of the two. Raises GvisorError when it is none."""
    if not path:
        return path, "host"
    here = os.path.realpath(os.path.expanduser(path))  # a link of the controller would lead nowhere in the guest
    real = [{**mount, "location": os.path.realpath(mount["location"])} for mount in mounts]
    there, writable = in_guest(here, real)
    if path in moved and not (in_place and writable and os.stat(here).st_uid != 0):
        return moved[path], "host"
    if there is not None and writable:
        return there, "host"
    if os.path.isdir(here):
        return here, "controller"
    raise GvisorError(f"The workspace {here} is no folder of this machine. For a folder of the host itself set ggen_run_from to host.")


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Filter]:
        """Return the filters by name."""
        return filters(ggen_jobs=ggen_jobs)
