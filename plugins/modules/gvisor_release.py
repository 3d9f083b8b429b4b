#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: gvisor_release
short_description: Install a release's programs from the controller, and switch to it
version_added: 0.2.0
description:
  - Brings programs into a folder of their own, lets links lead to them, and writes an options file. What the host has with the
    right sha256 is not sent.
  - What it lacks is sent in one transfer, compressed. The controller compresses each program once, into its build cache, also when
    many hosts ask at the same time. To the controller itself nothing is sent.
  - The host unpacks beside the programs' places, compares every sha256, and only then changes names, each by a rename. A running
    program keeps the file that it started from. A wrong sha256, damage on the way or a full disk leave no file behind.
options:
  folder:
    description: The release's folder on the host. It is made, and readable for everybody, which gVisor needs.
    type: path
    required: true
  source:
    description: The folder on the controller that has the programs. It is read only when a host lacks one.
    type: path
    required: true
  files:
    description: The programs.
    type: list
    elements: dict
    required: true
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
  links:
    description: Symbolic links by their absolute path, each with the name of the program that it should lead to. What is at that path
      otherwise, unless it is a folder, is replaced.
    type: dict
    default: {}
  options:
    description: An options file to write, with mode 0644. The folder that it is in must be there.
    type: dict
    suboptions:
      path:
        description: Its path on the host.
        type: path
        required: true
      content:
        description: Its contents.
        type: str
        required: true
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
"""

RETURN = r"""
installed:
  description: The programs that were written, or would be.
  returned: success
  type: list
  elements: str
switched:
  description: The links that lead elsewhere now, or would.
  returned: success
  type: list
  elements: str
missing:
  description: The programs that the host still lacks; in check mode only, otherwise they were sent.
  returned: success
  type: list
  elements: str
sent:
  description: The bytes that went to the host.
  returned: success
  type: int
  sample: 26013388
"""

from typing import Any, Dict, List, Tuple

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._base.files import remove_stale_transfers
from ansible_collections.ggen.gvisor.plugins.module_utils._gvisor.release import (
    Payload,
    Program,
    Release,
    checked,
    difference,
    install,
    look,
    mode_of,
)

ARGUMENT_SPEC = {
    "folder": {"type": "path", "required": True},
    "source": {"type": "path", "required": True},
    "files": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "name": {"type": "str", "required": True},
            "src": {"type": "str"},
            "sha256": {"type": "str", "required": True},
            "mode": {"type": "str", "default": "0755"},
        },
    },
    "links": {"type": "dict", "default": {}},
    "options": {
        "type": "dict",
        "options": {"path": {"type": "path", "required": True}, "content": {"type": "str", "required": True}},
    },
    "missing": {"type": "list", "elements": "str", "default": []},
    "cache": {"type": "path"},
    "payload": {"type": "list", "elements": "dict", "default": []},
}


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
        )
    )


def perform(params: Dict[str, Any], check_mode: bool) -> Tuple[Dict[str, Any], List[Dict[str, Any]]]:
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


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    try:
        result, diff = perform(module.params, module.check_mode)
    except GvisorError as error:
        module.fail_json(msg=error.message, **error.details)
    except OSError as error:
        module.fail_json(msg=f"{error.filename or module.params['folder']}: {error.strerror}")
    if module._diff:
        result["diff"] = diff
    module.exit_json(**result)


if __name__ == "__main__":
    main()
