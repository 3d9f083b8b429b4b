#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: containerd_proof
short_description: Prove that containerd's sandboxes are gVisor's and that runc still runs
version_added: 1.0.0
description:
  - Starts a container with gVisor's shim and reads the kernel log inside of it, which only gVisor's kernel begins with C(Starting gVisor); starts
    another one with runc; and asks containerd for the state of its CRI plugin.
  - Tells which file the sandbox's kernel is on the host, and fails where it is not O(program). What is said in a sandbox could be said by something
    else as well.
  - No image is needed. The host's own C(dmesg) and C(sleep) are tools to the containers, read-only, with their loader and libraries.
  - Fails unless all of it was observed. A unit that systemd calls active proves none of it.
options:
  runtime:
    description: The runtime to prove.
    type: str
    default: io.containerd.runsc.v1
  program:
    description: The C(runsc) that the sandbox must be. The default is the first on containerd's own PATH, which its shims start.
    type: path
    version_added: 1.0.0
  address:
    description: containerd's socket.
    type: path
    default: /run/containerd/containerd.sock
  namespace:
    description: containerd's namespace for the two containers.
    type: str
    default: default
  state_dir:
    description: The folder on the host for the copies of dmesg and sleep. One that others than root can change, or exchange, is refused.
    type: path
    default: /var/lib/ggen.gvisor
attributes:
  check_mode:
    description: Containers that prove something are no change, so they run in check mode too.
    support: full
  diff_mode:
    description: There is nothing to compare.
    support: none
  idempotent:
    support: full
    description: A second run with the same options changes nothing.
  platform:
    platforms: linux
    support: full
    description: The systems that the module runs on.
author:
  - The ggen.gvisor authors (@ggen-gvisor)
"""

EXAMPLES = r"""
- name: Prove that a sandbox is gVisor's and that runc still runs
  ggen.gvisor.containerd_proof:
  become: true
  register: proof

- name: Prove that new sandboxes are of the new release
  ggen.gvisor.containerd_proof:
    program: /usr/local/lib/gvisor/20260701/runsc
  become: true
"""

RETURN = r"""
kernel:
  description: The first line of the kernel log that a program in the sandbox read.
  returned: success
  type: str
  sample: Starting gVisor...
program:
  description: The file that the sandbox's process runs, as the host's kernel tells it.
  returned: success
  type: str
  sample: /usr/local/lib/gvisor/20260701/runsc
runc:
  description: Whether a container of runc ran.
  returned: success
  type: bool
cri:
  description: The state of each of containerd's CRI plugins. Empty where they are turned off.
  returned: success
  type: dict
  sample: {io.containerd.grpc.v1.cri: ok}
seconds:
  description: How long each of the two containers took, from the command that starts it to what it said.
  returned: success
  type: dict
  sample: {gvisor: 0.31, runc: 0.08}
"""

import tempfile
from typing import Any, Dict

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ggen.gvisor.plugins.module_utils._base.module import run
from ansible_collections.ggen.gvisor.plugins.module_utils._containerd.ctr import DEFAULT_ADDRESS, Ctr
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.proof import prove


def perform(module: AnsibleModule) -> Dict[str, Any]:
    """Return what is proven. Raises GvisorError where something is not."""
    parameters = module.params
    ctr = Ctr(parameters["address"], parameters["namespace"])
    # Without pipelining tmpdir belongs to the connection's user, who could not remove what root left in it.
    with tempfile.TemporaryDirectory(dir=module.tmpdir, prefix="proof.") as folder:
        return {"changed": False, **prove(ctr, parameters["runtime"], parameters["program"] or "", parameters["state_dir"], folder)}


def main() -> None:
    """Observe a gVisor container, a runc container and the CRI plugin."""
    module = AnsibleModule(
        argument_spec={
            "runtime": {"type": "str", "default": "io.containerd.runsc.v1"},
            "program": {"type": "path"},
            "address": {"type": "path", "default": DEFAULT_ADDRESS},
            "namespace": {"type": "str", "default": "default"},
            "state_dir": {"type": "path", "default": "/var/lib/ggen.gvisor"},
        },
        supports_check_mode=True,
    )
    run(module, perform)


if __name__ == "__main__":
    main()
