# Copyright (c) 2026, the ggen.gvisor authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""What bounds a sandbox where nobody may make a control group: its processors, its tasks, and a watch over its memory.

gVisor has all memory of what runs in a sandbox in one file in memory, so that one look at that file, and at the sandbox' own pages, tells how
much it is.
"""

from __future__ import annotations

import contextlib
import os
import random
import resource
import signal
import threading
import time
from typing import Dict, List, Optional, Tuple

from ansible_collections.ggen.gvisor.plugins.module_utils._base.processes import descendants, is_alive, wait_exit
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.cgroup import Limits
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.limits import FIXES

PAUSE = 0.01  # seconds between two looks at the memory
MEMORY_FILE = "runsc-memory"
# Limit → how a user who is not root comes to have it enforced.
ROOTLESS_FIXES = {
    **FIXES,
    "memory": "run with containerd (engine: containerd)",
    "cpus": "choose a whole number, or run with containerd (engine: containerd)",
    "pids": "run as another user than root, or with containerd (engine: containerd)",
    "file_size": "let this user's processes be without a limit on file sizes (ulimit -f unlimited)",
    "core": "let this user's processes leave no core files (ulimit -c 0)",
}


def processors(cpus: Optional[float]) -> Optional[List[int]]:
    """Return the processors that a sandbox of ``cpus`` may run on, None for all of them."""
    there = sorted(os.sched_getaffinity(0))
    if cpus is None or not 1 <= cpus < len(there):
        return None
    return random.sample(there, int(cpus))  # several sandboxes are not all on the first ones


def take(limits: Limits) -> None:
    """Let this process, and what it starts, have no more than the limits. Raises OSError or ValueError."""
    chosen = processors(limits.cpus)
    if chosen is not None:
        os.sched_setaffinity(0, chosen)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if limits.pids is not None:
        _soft, hard = resource.getrlimit(resource.RLIMIT_NPROC)
        most = limits.pids if hard == resource.RLIM_INFINITY else min(limits.pids, hard)
        resource.setrlimit(resource.RLIMIT_NPROC, (most, most))


def unenforced(limits: Limits, watched: bool) -> Dict[str, str]:
    """Return which of the limits ``take`` and the watch cannot keep, and why."""
    found = {}
    if limits.memory is not None and not watched:
        found[f"memory={limits.memory}"] = "the sandbox' memory cannot be looked at"
    if limits.cpus is not None and limits.cpus < len(os.sched_getaffinity(0)) and limits.cpus != int(limits.cpus):
        found[f"cpus={limits.cpus:g}"] = "without a control group there are whole processors alone"
    if limits.pids is not None and os.geteuid() == 0:
        found[f"pids={limits.pids}"] = "the kernel counts no tasks of root's"
    return found


class MemoryWatch:
    """Kills a sandbox that has more memory than it may, from a thread of its own."""

    def __init__(self, pids: List[int], limit: int) -> None:
        """Find the sandbox among the processes ``pids``. Raises ProcessLookupError where it is not there."""
        self.limit = limit
        self._struck = False
        self._over = threading.Event()
        self._pid, self._file = next(filter(None, map(_memory_of, pids)), (0, -1))
        if self._file < 0:
            raise ProcessLookupError(f"none of {pids} has a file {MEMORY_FILE}")
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def size(self) -> int:
        """Return the bytes that the sandbox has. Raises OSError when it is gone."""
        with open(f"/proc/{self._pid}/statm", encoding="ascii") as stream:
            _size, resident, shared = stream.read().split()[:3]
        return os.fstat(self._file).st_blocks * 512 + (int(resident) - int(shared)) * resource.getpagesize()

    def _watch(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            while not self._over.wait(PAUSE):
                if self.size() > self.limit:
                    self._struck = True
                    os.kill(self._pid, signal.SIGKILL)
                    return

    def struck(self) -> List[str]:
        """Return the limits that the sandbox has reached."""
        return ["memory"] if self._struck else []

    def close(self) -> None:
        """End the watch, and let go of the memory."""
        self._over.set()
        self._thread.join()
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def _memory_of(pid: int) -> Optional[Tuple[int, int]]:
    """Return the process and a descriptor of the file that has the memory of what runs in it, None for one that is no sandbox."""
    with contextlib.suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                if MEMORY_FILE in os.readlink(f"/proc/{pid}/fd/{name}"):
                    return pid, os.open(f"/proc/{pid}/fd/{name}", os.O_RDONLY | os.O_CLOEXEC)
    return None


def end_all(seconds: float) -> bool:
    """Kill all that this process has started, and wait until it is gone; tell whether it is. Orphans must have been adopted."""
    deadline = time.monotonic() + seconds
    while True:
        alive = [pid for pid in descendants(os.getpid()) if is_alive(pid)]
        for pid in alive:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        for pid in alive:
            wait_exit(pid, deadline - time.monotonic())
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if not alive:
            return True
        if time.monotonic() > deadline:
            return False
