# Copyright (c) 2026, the ggen.gvisor authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""Whether a new sandbox is gVisor's: what a container says of its kernel, and which program its process is."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import signal
import time
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Tuple

from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._base.process import Completed
from ansible_collections.ggen.gvisor.plugins.module_utils._containerd.ctr import Ctr
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox import runsc
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.host_tools import SIGN, HostTools, prepare
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.pod import explain, mount_flag

RUNC = "io.containerd.runc.v2"


WAIT = "600"  # seconds that a container waits at most


REMOVE_TIMEOUT = 10.0  # seconds in which containerd notices that a sandbox has died


# Without it gVisor's shim connects no output and waits for ever (gvisor#12198).
SANDBOX = ["--annotation", "io.kubernetes.cri.container-type=sandbox"]


class Observed(NamedTuple):
    """What a container said through ctr, how long that took in seconds, and the program of its process on the host, where it ran."""

    done: Completed
    seconds: float
    program: Optional[str]
    same: bool = True  # the program is the one that was asked for


def observe(ctr: Ctr, runtime: str, folder: str, tools: HostTools, argv: List[str], program: Optional[str] = None) -> Observed:
    """Run ``argv`` in a container that waits, on an empty folder in ``folder`` with the tools in it, and leave nothing behind.

    A container that only ran ``argv`` would be gone before anybody could see which ``program`` it is.
    """
    name = f"proof-{os.urandom(16).hex()}"
    rootfs, pid_file = os.path.join(folder, name), os.path.join(folder, f"{name}.pid")
    os.mkdir(rootfs, 0o755)
    mount = ["--mount", mount_flag("bind", tools.folder, tools.target, "rbind:ro:nosuid:nodev")]
    options = ["--detach", "--null-io", "--pid-file", pid_file, "--rootfs", "--read-only", "--runtime", runtime, *SANDBOX, *mount]
    begin = time.monotonic()
    seen, same = None, True
    try:
        done = ctr.run("run", *options, rootfs, name, *tools.argv("sleep", WAIT))
        if done.rc == 0:
            with open(pid_file, encoding="ascii") as stream:
                seen, identity = runsc.program_of(int(stream.read()))
            same = program is None or (identity is not None and identity == runsc.identity(program))
            done = ctr.run("tasks", "exec", "--exec-id", "proof", name, *argv)
        seconds = time.monotonic() - begin
    finally:
        remove(ctr, name)
    return Observed(done, round(seconds, 3), seen, same)


def remove(ctr: Ctr, name: str) -> None:
    """Remove the container, also one that was made and could not be started: runsc refuses to signal that, the kernel does not."""
    if ctr.run("tasks", "rm", "--force", name).rc != 0:
        rows = (line.split() for line in ctr.run("tasks", "ls").stdout.splitlines())
        for pid in (int(row[1]) for row in rows if row[:1] == [name]):
            if pid > 0:  # 0 would be this process and its relatives
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + REMOVE_TIMEOUT
    while "task must be stopped" in ctr.run("containers", "rm", name).stderr and time.monotonic() < deadline:
        time.sleep(0.1)  # containerd has no event for "can be removed now"


def prove(ctr: Ctr, runtime: str, program: str, state_dir: str, folder: str) -> Dict[str, Any]:
    """Return what was observed: ``kernel``, ``program``, ``runc``, ``cri`` and ``seconds``; ``program`` is the runsc that it must be, or any.

    ``folder`` is an empty one. Raises GvisorError where something is not proven.
    """
    cri = plugins_of(ctr)  # first: with a broken one no container needs to be tried
    wanted = program or runsc.installed(ctr.address) or "a runsc on the PATH of containerd"
    with proving():
        gvisor, runc = both(ctr, runtime, wanted, state_dir, folder)
    return {
        "kernel": kernel_of(gvisor, runtime, wanted),
        "program": gvisor.program,
        "runc": is_well(runc),
        "cri": cri,
        "seconds": {"gvisor": gvisor.seconds, "runc": runc.seconds},
    }


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


def both(ctr: Ctr, runtime: str, program: str, state_dir: str, folder: str) -> Tuple[Observed, Observed]:
    """Return what a gVisor and a runc container said. Raises GvisorError or OSError."""
    tools = prepare(state_dir)
    # Both at once: each is mostly waiting.
    with concurrent.futures.ThreadPoolExecutor() as pool:
        gvisor = pool.submit(observe, ctr, runtime, folder, tools, tools.argv("dmesg"), program)
        runc = observe(ctr, RUNC, folder, tools, tools.argv("dmesg", "--version"))
        return gvisor.result(), runc


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
