#!/usr/bin/python
# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: containerd_runtime
short_description: Add, change or remove one runtime handler in containerd's configuration
version_added: 1.0.0
author: The ggen.gvisor authors (@ggen-gvisor)
description:
  - Edits the runtime handlers of containerd's CRI plugin in the configuration file that is there, whoever wrote it. Comments, order,
    spacing, quoting and line endings of everything else stay byte for byte, and O(state=absent) after O(state=present) gives the
    original file back byte for byte. One thing stays - the C(runc) that had to be added to a file whose other handlers replace the built-in
    ones without it, as containerd 1.x would not start its CRI plugin otherwise.
  - A result is judged by what the host's containerd makes of all its files together (C(config dump)), also where no file has to be changed. Where
    another file that is imported decides instead, the module fails and names it.
  - Knows the configuration versions 1 to 4 and never changes a file's version. Where a file needs more than the handler (a version
    line, an imports line, or runc, which a runtimes table on containerd 1.x would otherwise turn off), it is added with a comment, and
    O(state=absent) takes it away again.
  - Nothing is written before the host's own containerd has read the result and it is proven to mean what it should. With
    O(restart=true) the old file comes back by itself when containerd, its CRI plugin, runc or a running container does not survive the
    restart. The work on the host finishes even when the connection breaks.
  - The file is edited on the controller, which needs the Python library tomlkit. Hosts need nothing but Python.
extends_documentation_fragment:
  - ggen.gvisor.containerd
attributes:
  check_mode:
    support: full
    description: Can run in check_mode and tell what would change, with containerd's verdict on it, without changing it.
  diff_mode:
    support: full
    description: Returns the difference between the old file and the new one.
  idempotent:
    support: full
    description: A second run with the same options changes nothing.
  platform:
    support: full
    platforms: linux
    description: The systems that the module runs on.
options:
  name:
    description:
      - The handler's name. It is what the C(handler) field of a Kubernetes RuntimeClass names, so it takes lower case letters, digits and
        dashes only.
    type: str
    default: runsc
  state:
    description: Whether the handler is to be there.
    type: str
    choices: [present, absent]
    default: present
  path:
    description:
      - containerd's main configuration file. It may be missing.
      - Where it is not given and a containerd runs with another file (C(--config)), it is that one. A file that is given and that the daemon which
        runs does not read is refused.
    type: path
    default: /etc/containerd/config.toml
  runtime_type:
    description: The shim's type, such as V(io.containerd.runsc.v1). Needed for a handler that is not there yet.
    type: str
  options:
    description: Options for the shim, such as C(TypeUrl) and C(ConfigPath). Options that are not named stay as they are.
    type: dict
    default: {}
  pod_annotations:
    description: Patterns of the pod annotations that are passed on to the shim.
    type: list
    elements: str
  snapshotter:
    description: The snapshotter for this handler's containers, where it is not containerd's default one (containerd 1.7 or newer).
    type: str
  default:
    description:
      - V(true) makes the handler the default runtime. V(false) puts the earlier default back if the handler is the default.
      - Without it the default runtime stays as it is.
    type: bool
  dropin:
    description:
      - Where a new handler is written. V(auto) is a file of its own in the C(conf.d) folder beside O(path) where that is safe, which is with
        containerd 2.0 or newer and a main file that has a version line; an imports line is added if it is missing. Elsewhere it is O(path),
        as older versions of containerd let a drop-in replace whole tables.
      - V(never) is always O(path). Anything else is the drop-in's path.
      - A handler that is there already is changed where it is.
    type: str
    default: auto
  allow_newer_config_version:
    description: Treat a configuration version that this module does not know yet like the newest one that it knows.
    type: bool
    default: false
  backup:
    description: Keep a copy of each changed file beside it, with its owner, mode, labels and times.
    type: bool
    default: false
  validate:
    description: Have the host's containerd read the result before it is written. Turn this off only where containerd is not installed yet.
    type: bool
    default: true
  restart:
    description: Restart containerd after a change, see that it works, and put the old file back when it does not.
    type: bool
    default: false
  timeout:
    description: Seconds to wait for containerd to end, and to answer.
    type: float
    default: 60
  boot_config:
    description:
      - Files on the controller, for a host whose configuration is replaced by the first of them that there is at each start of the host, and by
        C([grpc] gid = 1000) where there is none. Colima does that from its version 0.10.2 on.
      - The handler is written to the first file, which is made from what would have been used where it is missing, and the host gets the same text
        at once. O(state=absent) removes a file that was made for this and that nobody else has changed.
      - The text is tried on the host before it is written here. Drop-ins are then made only where O(dropin) names one.
    type: list
    elements: str
    default: []
    version_added: 1.0.0
  address:
    description: The socket of containerd's API. Taken from the configuration when it is not given.
    type: path
  program:
    description: The containerd program, by name or path. Where it is not installed, it is the program of the daemon that runs.
    type: str
    default: containerd
  plan:
    description: Set by the action plugin, which runs this module once to read the host, once to validate and once to write. Leave it alone.
    type: dict
    default: {}
requirements:
  - tomlkit (on the controller)
notes:
  - k3s, rke2, k0s and MicroK8s write containerd's configuration anew at each of their starts. The handler is then written to what they make it from,
    a drop-in or their template, and the unit that makes it is the one that is restarted. A file that says at its head that something else makes it is
    refused. What was written is compared again after the restart.
  - The lock that serialises concurrent runs on a host is on the folder of O(path).
"""

EXAMPLES = r"""
- name: Let containerd run containers in gVisor
  ggen.gvisor.containerd_runtime:
    name: runsc
    runtime_type: io.containerd.runsc.v1
    options:
      TypeUrl: io.containerd.runsc.v1.options
      ConfigPath: /etc/containerd/runsc.toml
    restart: true

- name: A second handler, for pods that may set gVisor's flags
  ggen.gvisor.containerd_runtime:
    name: runsc-debug
    runtime_type: io.containerd.runsc.v1
    pod_annotations: ["dev.gvisor.*"]
    backup: true
    restart: true

- name: The handler in a Colima guest, for good
  ggen.gvisor.containerd_runtime:
    name: runsc
    runtime_type: io.containerd.runsc.v1
    boot_config: [~/.colima/default/containerd/config.toml, ~/.config/containerd/config.toml]
    restart: true

- name: Take the handler away again
  ggen.gvisor.containerd_runtime:
    name: runsc
    state: absent
    restart: true
"""

RETURN = r"""
file:
  description: The file that has the handler, or had it.
  returned: always
  type: str
  sample: /etc/containerd/config.toml
files:
  description: The files that were changed, or would be.
  returned: always
  type: list
  elements: str
  sample: [/etc/containerd/config.toml]
config_version:
  description: The configuration version of the main file, 1 where it has no version line.
  returned: always
  type: int
  sample: 2
containerd_version:
  description: The version of the host's containerd, empty where it is not installed.
  returned: always
  type: str
  sample: 1.7.24
validation:
  description: What the host's containerd said of the result, V(not needed) without a change.
  returned: always
  type: str
  sample: accepted by containerd 1.7.24
backup_file:
  description: The copy of the changed file.
  returned: when O(backup=true) and a file was changed
  type: str
  sample: /etc/containerd/config.toml.4242.2026-11-24@06:34:00~
restarted:
  description: Whether containerd was restarted.
  returned: always
  type: bool
  sample: true
rolled_back:
  description: Whether the old files were put back after a failure.
  returned: always
  type: bool
  sample: false
reason:
  description: What made the change fail.
  returned: when the change was rolled back
  type: str
  sample: "containerd runs but its CRI plugin does not: invalid plugin config"
journal:
  description: The last lines that containerd wrote before it failed.
  returned: when the change was rolled back
  type: str
  sample: "containerd: invalid plugin config"
boot_config:
  description: The C(file) on the controller that has the handler, the C(source) of the host's next configuration before, and whether C(file) C(changed).
  returned: with O(boot_config)
  type: dict
  sample: {file: /Users/me/.colima/default/containerd/config.toml, source: Colima's built-in default, changed: true}
cri:
  description: The state of the CRI plugin after the restart, V(ok), V(absent) where it is turned off, or what is wrong with it.
  returned: when containerd was restarted
  type: str
  sample: ok
"""

import os
from typing import Any, Dict

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._base.module import run
from ansible_collections.ggen.gvisor.plugins.module_utils._containerd.config_files import daemon_at, program_for, read_for, validate
from ansible_collections.ggen.gvisor.plugins.module_utils._containerd.config_options import ARGUMENT_SPEC
from ansible_collections.ggen.gvisor.plugins.module_utils._containerd.config_transaction import JOURNAL, recover, run_detached
from ansible_collections.ggen.gvisor.plugins.module_utils._containerd.ctr import DEFAULT_ADDRESS


def read(params: Dict[str, Any], check_mode: bool) -> Dict[str, Any]:
    """Return the configuration as it is, after undoing what a killed run has left."""
    plan = params["plan"]
    daemon = daemon_at(params["address"] or DEFAULT_ADDRESS)
    follows = plan.get("follow") and daemon["config"] and os.path.exists(daemon["config"])
    path, program = daemon["config"] if follows else params["path"], program_for(params["program"], daemon)
    folder = os.path.dirname(os.path.realpath(path))
    recovered = None
    if os.path.exists(os.path.join(folder, JOURNAL)) and not check_mode:
        recovered = recover(folder)
    found = read_for(path, program, params["name"], params["dropin"], plan.get("imports"), params["address"])
    return {"params": {**params, "path": path}, "program": program, "found": found, "recovered": recovered}


def perform(params: Dict[str, Any], check_mode: bool) -> Dict[str, Any]:
    """Do what the plan's phase says and return the result. Raises GvisorError."""
    plan = params["plan"]
    phase = plan.get("phase", "read")
    try:
        if phase == "read":
            return {"changed": False, **read(params, check_mode)}
        if phase == "validate":
            return {"changed": False, **validate(plan["program"], plan["main"], plan["others"])}
        if phase == "apply" and not check_mode:
            return {"changed": True, **run_detached(plan)}
    except OSError as error:
        raise GvisorError("{0}: {1}".format(error.filename, error.strerror)) from error
    raise GvisorError("plan: {0!r} is no phase of this module".format(phase))


def main() -> None:
    """Run the module: the phase that the action plugin asks for."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    run(module, lambda ansible: perform(ansible.params, ansible.check_mode))


if __name__ == "__main__":
    main()
