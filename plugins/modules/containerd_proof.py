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

import concurrent.futures
import contextlib
import tempfile
from typing import Any, Dict, Iterator, Tuple

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._base.module import run
from ansible_collections.ggen.gvisor.plugins.module_utils._containerd.ctr import DEFAULT_ADDRESS, Ctr
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.host_tools import SIGN, prepare
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.pod import explain
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.proof import RUNC, Observed, observe
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.runsc import installed


@contextlib.contextmanager
def proving() -> Iterator[None]:
    """Say of what goes wrong that it keeps the proof from being made. Raises GvisorError."""
    try:
        yield
    except (GvisorError, OSError) as error:
        raise GvisorError(f"nothing could be proven: {error}") from error


def plugins_of(ctr: Ctr) -> Dict[str, str]:
    """Return the states of containerd's CRI plugins. Raises GvisorError where one is broken, or containerd does not tell."""
    with proving():
        cri = {f"{row['type']}.{row['id']}": row["status"] for row in ctr.plugins() if "cri" in f"{row['type']}.{row['id']}".split(".")}
    broken = sorted(name for name, status in cri.items() if status == "error")
    if broken:
        raise GvisorError(f"containerd runs, and its plugin {', '.join(broken)} is in state error: Kubernetes gets no containers", cri=cri)
    return cri


def both(ctr: Ctr, module: AnsibleModule, program: str) -> Tuple[Observed, Observed]:
    """Return what a gVisor and a runc container said. Raises GvisorError or OSError."""
    parameters = module.params
    tools = prepare(parameters["state_dir"])
    # Without pipelining tmpdir belongs to the connection's user, who could not remove what root left in it. Both at once: each is mostly waiting.
    with tempfile.TemporaryDirectory(dir=module.tmpdir, prefix="proof.") as folder, concurrent.futures.ThreadPoolExecutor() as pool:
        gvisor = pool.submit(observe, ctr, parameters["runtime"], folder, tools, tools.argv("dmesg"), program)
        runc = observe(ctr, RUNC, folder, tools, tools.argv("dmesg", "--version"))
        return gvisor.result(), runc


def perform(module: AnsibleModule) -> Dict[str, Any]:
    """Judge what was observed and return the result. Raises GvisorError where something is not proven."""
    ctr = Ctr(module.params["address"], module.params["namespace"])
    cri = plugins_of(ctr)  # first: with a broken one no container needs to be tried
    program = module.params["program"] or installed(ctr.address) or "a runsc on the PATH of containerd"
    with proving():
        gvisor, runc = both(ctr, module, program)
    return {
        "changed": False,
        "kernel": kernel_of(gvisor, module.params["runtime"], program),
        "program": gvisor.program,
        "runc": is_well(runc),
        "cri": cri,
        "seconds": {"gvisor": gvisor.seconds, "runc": runc.seconds},
    }


def kernel_of(gvisor: Observed, runtime: str, program: str) -> str:
    """Return the first line of the sandbox' kernel log. Raises GvisorError where it is not gVisor's, or not of that program."""
    kernel = gvisor.done.stdout.partition("\n")[0].partition("] ")[2]
    if not kernel.startswith(SIGN):
        said = explain(gvisor.done.stderr) or kernel or "nothing"
        raise GvisorError(f"a container of {runtime} did not show gVisor's kernel: {said}", stderr=gvisor.done.stderr)
    if not gvisor.same:
        raise GvisorError(f"a new sandbox is {gvisor.program} and not {program}", program=gvisor.program)
    return kernel


def is_well(runc: Observed) -> bool:
    """Return True. Raises GvisorError where runc did not run its container."""
    if runc.done.rc != 0:
        raise GvisorError(f"gVisor works, and runc does not: {explain(runc.done.stderr)}", stderr=runc.done.stderr)
    return True


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
