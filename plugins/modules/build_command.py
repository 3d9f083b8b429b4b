#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: build_command
short_description: Run a long command, show how far it is, and survive a lost connection
version_added: 1.0.0
description:
  - Runs a command detached from the connection, its output in a log on the host, and shows a line such as V(212 of 480
    packages, 1m20s) and where the log is while it runs.
  - A command that already runs on the host (the connection was lost, or Ansible was stopped) is attached to, not
    started a second time. The same O(argv), O(env) and O(chdir) under the same O(name) are the same command.
  - Stopping Ansible (Ctrl-C) does not stop the command, since that is what a lost connection looks like; run the task
    again to attach to it, or end it, with all it started, with C(kill PID). The process id is in C(job.json) beside the
    log.
  - Whether the command is necessary is not decided here; see M(ggen.gvisor.build_cache).
options:
  name:
    description: What runs, for the lines shown. With O(state_dir), the name of the job on the host.
    type: str
    required: true
  argv:
    description: The command and its arguments. There is no shell.
    type: list
    elements: str
    required: true
  env:
    description: Environment variables to add.
    type: dict
    default: {}
  chdir:
    description: The folder to run in.
    type: path
  state_dir:
    description:
      - The folder on the host for the log and the state of jobs.
      - The default is C(ggen.gvisor/jobs) in E(XDG_CACHE_HOME), or in C(~/.cache).
    type: path
  creates:
    description:
      - What the command makes at its end, one path or several. Where all exist the command is not run.
      - Looked at when no other run of the command can be at work, so that of several runs at the same time one does it.
    type: list
    elements: path
    default: []
  network:
    description:
      - V(false) runs the command in a network namespace of its own that has nothing in it.
      - Where the host does not allow that, the command runs with the network and RV(network) says V(shared).
    type: bool
    default: true
  confinement:
    description:
      - Runs a command that is not to be trusted, such as a compile, in namespaces of its own and as a user without rights. It has no network, no process
        but its own, which all end with it, and of the environment what O(env) names.
      - Of the host's files it reads F(/usr), F(/etc), F(/opt) and what belongs to them, and no other than are named here. E(HOME) is an empty folder.
      - As root, or as a user who may make user namespaces. Needs Linux 5.12.
    type: dict
    suboptions:
      readable:
        description: More folders and files to read.
        type: list
        elements: path
        default: []
      writable:
        description: Folders to write. They are made, and as root given to the user without rights. One inside of a folder to read is written as well.
        type: list
        elements: path
        default: []
      required:
        description:
          - What a user sets to do without, for the message where the host does not allow this. The command is not run there.
          - Where it is empty the command runs all the same, without network if that can be had, and RV(confined) is V(false).
        type: str
        default: ""
      sandbox:
        description:
          - V(namespaces) is what is described above. V(gvisor) runs the command in a gVisor sandbox inside of them, so that it never speaks with the
            host's kernel, and takes 2.5 to 3 times the processor time. V(auto) does so where a runsc is found that makes a sandbox.
          - With V(gvisor) the command is never run without the sandbox.
        type: str
        choices: [namespaces, gvisor, auto]
        default: namespaces
      runsc:
        description:
          - Where gVisor's program may be on the host, as paths or shell patterns; the first that there is is used, of several that fit one pattern the last
            by its name. C({arch}) stands for the host's architecture as Go names it.
        type: list
        elements: path
        default: [/usr/local/bin/runsc]
  progress:
    description: What to count in the log.
    type: list
    elements: dict
    default: []
    suboptions:
      label:
        description: What is counted, in the plural.
        type: str
        required: true
      pattern:
        description: A regular expression; each match is one more that is done.
        type: str
        required: true
      total:
        description: How many there will be.
        type: int
  timeout:
    description: Seconds after which the command is killed.
    type: int
    default: 7200
  poll:
    description: Seconds that one remote execution waits for the command's end. The end is an event; a short command is
      not waited for longer.
    type: int
    default: 10
  run:
    description: Set by the action for its second and later remote executions, to look at a run and start nothing.
    type: str
attributes:
  check_mode:
    description: The command is not run, and the task is skipped.
    support: full
  diff_mode:
    description: There is nothing to compare.
    support: none
  idempotent:
    description: With O(creates).
    support: partial
  platform:
    description: Linux and macOS.
    platforms: posix
    support: full
author:
  - The ggen.gvisor authors (@ggen-gvisor)
notes:
  - Where systemd-logind is told to kill a user's processes at log-out (C(KillUserProcesses=yes)), a lost connection
    ends the command all the same.
"""

EXAMPLES = r"""
- name: Compile
  ggen.gvisor.build_command:
    name: hello
    argv: [go, build, -v, -mod=vendor, ./...]
    chdir: /src/hello
    env: {GOPROXY: "off"}
    network: false
    progress:
      - label: packages
        pattern: '^[\w./-]+$'
        total: 480
"""

RETURN = r"""
rc:
  description: The command's exit code; negative for the signal that ended it.
  returned: when it ended
  type: int
log:
  description: The log's path on the host.
  returned: always
  type: str
log_tail:
  description: The log's last lines.
  returned: always
  type: list
  elements: str
duration:
  description: Seconds from the command's start to its end.
  returned: always
  type: float
progress:
  description: What was counted.
  returned: always
  type: list
  elements: dict
  sample: [{label: packages, done: 212, total: 480}]
attached:
  description: Whether the command ran already.
  returned: always
  type: bool
network:
  description: V(isolated) when the command provably had no network, else V(shared).
  returned: always
  type: str
confined:
  description: Whether it provably ran in the confinement.
  returned: always
  type: bool
sandbox:
  description: In what, V(namespaces) or V(gvisor), or V(none).
  returned: always
  type: str
"""

import os
import time
from typing import Any, Dict

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ggen.gvisor.plugins.module_utils._base.module import run
from ansible_collections.ggen.gvisor.plugins.module_utils._builds.background_job import (
    UNKNOWN,
    BackgroundJob,
    Command,
    progress_of,
    tail_of,
)
from ansible_collections.ggen.gvisor.plugins.module_utils._builds.cache import cache_root
from ansible_collections.ggen.gvisor.plugins.module_utils._builds.confinement import Confinement
from ansible_collections.ggen.gvisor.plugins.module_utils._builds.sandbox import AUTO, GVISOR, NAMESPACES


def folder_of(values: Dict[str, Any]) -> str:
    """Return the folder of all jobs."""
    return os.path.abspath(values["state_dir"] or os.path.join(cache_root(), "jobs"))


def start(job: BackgroundJob, values: Dict[str, Any], environment: Dict[str, str]) -> Dict[str, Any]:
    """Start the command, or attach to it. Raises GvisorError or OSError."""
    walls = values["confinement"]
    command = Command(values["argv"], environment, values["chdir"], values["timeout"], values["network"] and walls is None)
    if walls:
        alone = Confinement(walls["readable"], walls["writable"])
        inside = alone._replace(runsc=walls["runsc"])
        required = walls["required"] or (f"sandbox: {NAMESPACES}" if walls["sandbox"] == GVISOR else "")
        command = command._replace(
            confinements={NAMESPACES: [alone], GVISOR: [inside], AUTO: [inside, alone]}[walls["sandbox"]], required=required
        )
    return job.start(command, values["creates"])


def perform(module: AnsibleModule) -> Dict[str, Any]:
    """Start the command or attach to it, wait a while, and tell how far it is. Raises GvisorError or OSError."""
    values = module.params
    if module.check_mode:
        return {"changed": False, "skipped": True, "msg": f"would run: {' '.join(values['argv'])}"}
    job = BackgroundJob(os.path.join(folder_of(values), values["name"].replace("/", "-").replace(" ", "-")))
    environment = {name: str(value) for name, value in values["env"].items()}
    progress_of("", values["progress"])  # a faulty pattern is found before anything starts
    started = job.look() if values["run"] else start(job, values, environment)
    state = {name: started.get(name, unknown) for name, unknown in UNKNOWN.items()}
    if "run" not in started:
        return {"changed": False, "rc": 0, "log": job.log, "msg": f"{', '.join(values['creates'])} exists", **state}
    end = job.wait(values["run"] or started["run"], values["poll"])
    log = job.log_text()
    return {
        "changed": True,
        "run": started["run"],
        "attached": started.get("attached", False),
        **state,
        "duration": round(end.get("ended", time.time()) - started["started"], 1),
        "progress": progress_of(log, values["progress"]),
        "log": job.log,
        "log_tail": tail_of(log),
        **{name: end[name] for name in ("running", "rc", "error") if name in end},
    }


def main() -> None:
    """Start or attach, wait a while, and tell how far it is."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "argv": {"type": "list", "elements": "str", "required": True},
            "env": {"type": "dict", "default": {}},
            "chdir": {"type": "path"},
            "state_dir": {"type": "path"},
            "creates": {"type": "list", "elements": "path", "default": []},
            "network": {"type": "bool", "default": True},
            "confinement": {
                "type": "dict",
                "options": {
                    "readable": {"type": "list", "elements": "path", "default": []},
                    "writable": {"type": "list", "elements": "path", "default": []},
                    "required": {"type": "str", "default": ""},
                    "sandbox": {"type": "str", "choices": [NAMESPACES, GVISOR, AUTO], "default": NAMESPACES},
                    "runsc": {"type": "list", "elements": "path", "default": ["/usr/local/bin/runsc"]},
                },
            },
            "progress": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "label": {"type": "str", "required": True},
                    "pattern": {"type": "str", "required": True},
                    "total": {"type": "int"},
                },
            },
            "timeout": {"type": "int", "default": 7200},
            "poll": {"type": "int", "default": 10},
            "run": {"type": "str"},
        },
        supports_check_mode=True,
    )
    run(module, perform, about=module.params["name"], place=folder_of(module.params))


if __name__ == "__main__":
    main()
