#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: gvisor_release
short_description: Install a release's programs from the controller, switch to it, and back
version_added: 1.0.0
description:
  - Brings programs into a folder of their own, lets links lead to them, and writes an options file. What the host has with the
    right sha256 is not sent.
  - What it lacks is sent in one transfer, compressed. The controller compresses each program once, into its build cache, also when
    many hosts ask at the same time. To the controller itself nothing is sent.
  - The host unpacks beside the programs' places, compares every sha256, and only then changes names, each by a rename. A running
    program keeps the file that it started from. A wrong sha256, damage on the way or a full disk leave no file behind.
  - The file C(installed.json) in O(releases) is the host's history - what there was before the last switch, and what was brought besides. It is
    written in the step that makes it true, under a lock, and by this module alone.
options:
  state:
    description:
      - V(present) installs O(files) in O(folder) and switches to them.
      - V(previous) goes back to what there was before the last switch, which needs nothing but what is on the host. Where nothing is noted, nothing
        changes, so a second time goes no further.
      - V(pruned) is for a switch to O(folder) that has proven itself. It removes the releases that are not O(folder)'s, not the one before, that none of
        O(links) leads to, that no process runs a file of, and that no other run is installing.
      - V(recorded) writes down what is about to be brought to the host, O(packages) and O(started), for whoever takes it away again.
    type: str
    choices: [present, previous, pruned, recorded]
    default: present
  releases:
    description: The folder that has one folder for each release, and C(installed.json). The default is the one that O(folder) is in.
    type: path
  keep_previous:
    description: Note what O(state=present) replaces, as the way back. What there was before that is forgotten with O(state=pruned).
    type: bool
    default: false
  packages:
    description: The names of packages, for O(state=recorded). Names that are written there stay.
    type: list
    elements: str
    default: []
  started:
    description: That containerd was there, did not run, and is about to be started, for O(state=recorded).
    type: bool
    default: false
  folder:
    description:
      - The release's folder on the host. It is made, and readable for everybody, which gVisor needs. O(state=present) and O(state=pruned) need it.
      - With O(state=previous), the release to leave - only a switch to it that was not followed by O(state=pruned) is taken back.
    type: path
  source:
    description: The folder on the controller that has the programs. It is read only when a host lacks one. O(state=present) needs it.
    type: path
  files:
    description: The programs. O(state=present) needs them.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: The name in O(folder).
        type: str
        required: true
      src:
        description: The file in O(source), if it has another name there.
        type: str
      sha256:
        description: The sha256 that the file must have, on the controller and on the host.
        type: str
        required: true
      mode:
        description: The permission bits, in octal and quoted.
        type: str
        default: '0755'
      made:
        description: Whether the collection makes the program of itself instead of finding it in O(source). Only C(ggen-gvisor) is such a program.
        type: bool
        default: false
        version_added: 1.0.0
  links:
    description: Symbolic links by their absolute path, each with the name of the program that it should lead to. What is at that path
      otherwise, unless it is a folder, is replaced. With O(state=pruned) they tell which release is in use.
    type: dict
    default: {}
  options:
    description: An options file to write, with mode 0644. The folder that it is in must be there. With O(state=previous) its O(options.path) alone counts.
    type: dict
    suboptions:
      path:
        description: Its path on the host.
        type: path
        required: true
      content:
        description: Its contents.
        type: str
        default: ''
  missing:
    description:
      - The names of the programs that the host is known to lack. They are sent at once, which saves the execution that would ask.
      - A host that lacks others besides gets those too.
    type: list
    elements: str
    default: []
  cache:
    description:
      - The controller's build cache, where compressed programs are kept (C(shipped/)). They may be removed at any time.
      - The default is C(ggen.gvisor) in E(XDG_CACHE_HOME), or in C(~/.cache).
    type: path
  payload:
    description: Set by the action plugin, which has sent the programs. Leave it out.
    type: list
    elements: dict
    default: []
attributes:
  check_mode:
    description: Says what would change. Nothing is read from the controller's files.
    support: full
  diff_mode:
    description: Shows sha256, mode and links that differ, and the options file.
    support: full
  idempotent:
    description: A second run changes nothing and sends nothing.
    support: full
  platform:
    description: The systems that the module runs on.
    platforms: linux
    support: full
author:
  - The ggen.gvisor authors (@ggen-gvisor)
"""

EXAMPLES = r"""
- name: Install runsc and its shim, and switch to them
  ggen.gvisor.gvisor_release:
    folder: /usr/local/lib/gvisor/20260518
    source: bin/20260518/linux_amd64
    files:
      - name: runsc
        sha256: "{{ sums.runsc }}"
      - name: containerd-shim-runsc-v1
        src: containerd-shim-runsc-v1.no-oom-score
        sha256: "{{ sums['containerd-shim-runsc-v1.no-oom-score'] }}"
    links:
      /usr/local/bin/runsc: runsc
      /usr/local/bin/containerd-shim-runsc-v1: containerd-shim-runsc-v1
    options:
      path: /etc/containerd/runsc.toml
      content: |
        binary_name = "/usr/local/lib/gvisor/20260518/runsc"
  become: true

- name: Go back to what there was before
  ggen.gvisor.gvisor_release:
    state: previous
    releases: /usr/local/lib/gvisor
    links:
      /usr/local/bin/runsc: runsc
      /usr/local/bin/containerd-shim-runsc-v1: containerd-shim-runsc-v1
    options:
      path: /etc/containerd/runsc.toml
  become: true
"""

RETURN = r"""
installed:
  description: The programs that were written, or would be.
  returned: with O(state=present)
  type: list
  elements: str
switched:
  description: The links that lead elsewhere now, or would.
  returned: with O(state=present)
  type: list
  elements: str
missing:
  description: The programs that the host still lacks; in check mode only, otherwise they were sent.
  returned: with O(state=present)
  type: list
  elements: str
sent:
  description: The bytes that went to the host.
  returned: with O(state=present)
  type: int
  sample: 26013388
previous:
  description: What the host went back to, or would; null where nothing is noted.
  returned: with O(state=previous)
  type: dict
  sample: {release: "20260518", files: {}, options: ""}
removed:
  description: The releases that were removed, or would be.
  returned: with O(state=pruned)
  type: list
  elements: str
history:
  description: What C(installed.json) says now.
  returned: with O(state=recorded)
  type: dict
  sample: {packages: [containerd, runc]}
"""

import os
from typing import Any, Dict, List, Tuple

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ggen.gvisor.plugins.module_utils._base.files import remove_stale_transfers
from ansible_collections.ggen.gvisor.plugins.module_utils._base.module import run
from ansible_collections.ggen.gvisor.plugins.module_utils._gvisor.release import (
    Payload,
    Program,
    Release,
    checked,
    difference,
    go_back,
    install,
    look,
    mode_of,
    prune,
    record,
)

ARGUMENT_SPEC = {
    "state": {"type": "str", "choices": ["present", "previous", "pruned", "recorded"], "default": "present"},
    "releases": {"type": "path"},
    "folder": {"type": "path"},
    "source": {"type": "path"},
    "files": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "name": {"type": "str", "required": True},
            "src": {"type": "str"},
            "sha256": {"type": "str", "required": True},
            "mode": {"type": "str", "default": "0755"},
            "made": {"type": "bool", "default": False},
        },
    },
    "links": {"type": "dict", "default": {}},
    "options": {
        "type": "dict",
        "options": {"path": {"type": "path", "required": True}, "content": {"type": "str", "default": ""}},
    },
    "keep_previous": {"type": "bool", "default": False},
    "packages": {"type": "list", "elements": "str", "default": []},
    "started": {"type": "bool", "default": False},
    "missing": {"type": "list", "elements": "str", "default": []},
    "cache": {"type": "path"},
    "payload": {"type": "list", "elements": "dict", "default": []},
}

Result = Tuple[Dict[str, Any], List[Dict[str, Any]]]


def release_of(params: Dict[str, Any]) -> Release:
    """Return what the options describe. Raises GvisorError for what cannot be installed."""
    programs = [Program(file["name"], file["sha256"], mode_of(file["mode"])) for file in params["files"]]
    options = params["options"]
    return checked(
        Release(
            folder=params["folder"].rstrip("/"),
            programs=programs,
            links=params["links"],
            options=(options["path"], options["content"].encode("utf-8")) if options else None,
            keep_previous=params["keep_previous"],
        )
    )


def present(params: Dict[str, Any], check_mode: bool) -> Result:
    """Look, and install what differs; return the result and the diff. Raises GvisorError or OSError."""
    release = release_of(params)
    payload = {part["name"]: Payload(*(part[name] for name in Payload._fields)) for part in params["payload"]}
    state = look(release)
    missing = [program.name for program in state.contents if program.name not in payload]
    diff = difference(release, state)
    changed = any(state)
    if changed and not missing and not check_mode:
        install(release, payload)
    for part in payload.values():
        remove_stale_transfers(part.path)
    return {
        "changed": changed and (check_mode or not missing),
        "installed": [program.name for program in state.contents],
        "switched": sorted(state.links),
        "missing": missing,
    }, diff


def previous(params: Dict[str, Any], check_mode: bool) -> Result:
    """Go back. Raises GvisorError or OSError."""
    options = params["options"]["path"] if params["options"] else None
    leave = os.path.basename(params["folder"].rstrip("/")) if params["folder"] else None
    found = go_back(releases_of(params), leave, params["links"], options, check_mode)
    return {"changed": found is not None, "previous": found}, []


def pruned(params: Dict[str, Any], check_mode: bool) -> Result:
    """Remove what nobody needs. Raises OSError."""
    gone = prune(releases_of(params), os.path.basename(params["folder"].rstrip("/")), params["links"], check_mode)
    return {"changed": bool(gone), "removed": gone}, []


def recorded(params: Dict[str, Any], check_mode: bool) -> Result:
    """Write down what is about to be brought. Raises OSError."""
    found, changed = record(releases_of(params), params["packages"], params["started"], check_mode)
    return {"changed": changed, "history": found}, []


def releases_of(params: Dict[str, Any]) -> str:
    """Return the folder of the releases."""
    return (params["releases"] or os.path.dirname(params["folder"].rstrip("/"))).rstrip("/")


STATES = {"present": present, "previous": previous, "pruned": pruned, "recorded": recorded}


def perform(module: AnsibleModule) -> Dict[str, Any]:
    """Bring about the state and return the result. Raises GvisorError or OSError."""
    result, diff = STATES[module.params["state"]](module.params, module.check_mode)
    return {**result, "diff": diff} if module._diff else result


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec=ARGUMENT_SPEC,
        required_if=[("state", "present", ["folder", "source"]), ("state", "pruned", ["folder"])],
        required_one_of=[("folder", "releases")],
        supports_check_mode=True,
    )
    run(module, perform, place=releases_of(module.params))


if __name__ == "__main__":
    main()
