#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: containerd_proof
short_description: Prove that containerd's sandboxes are gVisor's and that runc still runs
version_added: 0.1.0
description:
  - Starts a container with gVisor's shim and reads the kernel log inside of it, which only gVisor's kernel begins with C(Starting gVisor); starts
    another one with runc; and asks containerd for the state of its CRI plugin.
  - No image is needed. The host's own C(dmesg) is lent to the containers, read-only, with its loader and libraries.
  - Fails unless all of it was observed. A unit that systemd calls active proves none of it.
options:
  runtime:
    description: The runtime to prove.
    type: str
    default: io.containerd.runsc.v1
  address:
    description: containerd's socket.
    type: path
    default: /run/containerd/containerd.sock
  namespace:
    description: containerd's namespace for the two containers.
    type: str
    default: default
  state_dir:
    description: The folder on the host for the copy of dmesg.
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
"""

RETURN = r"""
kernel:
  description: The first line of the kernel log that a program in the sandbox read.
  returned: success
  type: str
  sample: Starting gVisor...
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
  description: How long each of the two containers took from the command to its exit.
  returned: success
  type: dict
  sample: {gvisor: 0.31, runc: 0.08}
"""

import os
import tempfile
import time
import uuid
from typing import List, NamedTuple

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ggen.gvisor.plugins.module_utils._ctr import DEFAULT_ADDRESS, Ctr
from ansible_collections.ggen.gvisor.plugins.module_utils._errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._pod import explain, mount_flag
from ansible_collections.ggen.gvisor.plugins.module_utils._process import Completed
from ansible_collections.ggen.gvisor.plugins.module_utils._proof import SIGN, TARGET, prepare

RUNC = "io.containerd.runc.v2"
# Without it gVisor's shim connects no output and waits for ever (gvisor#12198).
SANDBOX = ["--annotation", "io.kubernetes.cri.container-type=sandbox"]


class Observed(NamedTuple):
    """A container that ended: what ctr said, and how long it took in seconds."""

    done: Completed
    seconds: float


def observe(ctr: Ctr, runtime: str, rootfs: str, lent: str, argv: List[str]) -> Observed:
    """Run ``argv`` in a container on the empty folder ``rootfs``, with the folder ``lent`` at TARGET, and leave nothing behind."""
    name = f"proof-{uuid.uuid4().hex}"
    begin = time.monotonic()
    mount = ["--mount", mount_flag("bind", lent, TARGET, "rbind:ro:nosuid:nodev")]
    try:
        done = ctr.run("run", "--rm", "--rootfs", "--read-only", "--runtime", runtime, *SANDBOX, *mount, rootfs, name, *argv, timeout=60)
    finally:
        # A start that failed leaves its container despite --rm.
        ctr.run("tasks", "rm", "--force", name)
        ctr.run("containers", "rm", name)
    return Observed(done, round(time.monotonic() - begin, 3))


def main() -> None:
    """Observe a gVisor container, a runc container and the CRI plugin."""
    module = AnsibleModule(
        argument_spec={
            "runtime": {"type": "str", "default": "io.containerd.runsc.v1"},
            "address": {"type": "path", "default": DEFAULT_ADDRESS},
            "namespace": {"type": "str", "default": "default"},
            "state_dir": {"type": "path", "default": "/var/lib/ggen.gvisor"},
        },
        supports_check_mode=True,
    )
    parameters = module.params
    ctr = Ctr(parameters["address"], parameters["namespace"])
    try:
        cri = {f"{row['type']}.{row['id']}": row["status"] for row in ctr.plugins() if "cri" in f"{row['type']}.{row['id']}".split(".")}
        broken = sorted(name for name, status in cri.items() if status == "error")
        if broken:
            module.fail_json(
                msg=f"containerd runs, and its plugin {', '.join(broken)} is in state error: Kubernetes gets no containers", cri=cri
            )
        proof = prepare(parameters["state_dir"])
        if proof is None:
            module.fail_json(msg="this host has no dmesg to look into a sandbox with; install util-linux")
        # Without pipelining tmpdir belongs to the connection's user, who could not remove what root left in it.
        with tempfile.TemporaryDirectory(dir=module.tmpdir, prefix="proof.") as folder:
            rootfs = os.path.join(folder, "rootfs")
            os.mkdir(rootfs, 0o755)
            gvisor = observe(ctr, parameters["runtime"], rootfs, proof.folder, proof.argv)
            # The exit code tells nothing: the sandbox is gone before the shim can ask for it.
            kernel = gvisor.done.stdout.partition("\n")[0].partition("] ")[2]
            if not kernel.startswith(SIGN):
                said = explain(gvisor.done.stderr) or kernel or "nothing"
                module.fail_json(
                    msg=f"a container of {parameters['runtime']} did not show gVisor's kernel: {said}", stderr=gvisor.done.stderr
                )
            runc = observe(ctr, RUNC, rootfs, proof.folder, [*proof.argv, "--version"])
            if runc.done.rc != 0:
                module.fail_json(msg=f"gVisor works, and runc does not: {explain(runc.done.stderr)}", stderr=runc.done.stderr)
    except (GvisorError, OSError) as error:
        module.fail_json(msg=f"nothing could be proven: {error}")
    module.exit_json(changed=False, kernel=kernel, runc=True, cri=cri, seconds={"gvisor": gvisor.seconds, "runc": runc.seconds})


if __name__ == "__main__":
    main()
