# Copyright (c) 2026, the ggen.gvisor authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""Processes, of which most are not our children: whether they live, when they end, and what started them."""

from __future__ import annotations

import os
import select
import socket
import struct
import threading
import time
from typing import Any, Dict, Iterable, List, Optional


def now() -> float:
    """Return the seconds since the machine started: the clock in which the kernel notes when processes start."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _stat(pid: int) -> List[str]:
    """Return the fields of /proc/PID/stat from the state on; [] when there is no such process."""
    try:
        with open("/proc/{0}/stat".format(pid), encoding="utf-8", errors="replace") as stream:
            return stream.read().rpartition(")")[2].split()
    except OSError:
        return []


def is_alive(pid: int) -> bool:
    """Tell whether the process runs; a zombie does not."""
    return (_stat(pid) or ["X"])[0] not in ("Z", "X")


def started_at(pid: int) -> float:
    """Return when the process started, in seconds since the machine did; infinity when there is no such process."""
    fields = _stat(pid)
    return int(fields[19]) / os.sysconf("SC_CLK_TCK") if fields else float("inf")


def argv_of(pid: int) -> Optional[List[str]]:
    """Return the process's command line, None when it cannot be read."""
    try:
        with open("/proc/{0}/cmdline".format(pid), "rb") as stream:
            return [os.fsdecode(part) for part in stream.read().split(b"\0")[:-1]]
    except OSError:
        return None


def shim_of(pid: int) -> int:
    """Return the containerd shim among the process's ancestors, 0 when there is none."""
    while pid > 1:
        if os.path.basename((argv_of(pid) or [""])[0]).startswith("containerd-shim"):
            return pid
        pid = int((_stat(pid) or ["", "0"])[1])
    return 0


def descendants(pid: int) -> List[int]:
    """Return the processes that ``pid`` has started, and those that these have."""
    parents: Dict[int, List[int]] = {}
    for child in (int(name) for name in os.listdir("/proc") if name.isdigit()):
        fields = _stat(child)
        if fields:
            parents.setdefault(int(fields[1]), []).append(child)
    found, todo = [], [pid]
    while todo:
        children = parents.get(todo.pop(), [])
        found += children
        todo += children
    return found


def _pidfd(pid: int) -> Optional[int]:
    """Return a descriptor that becomes readable when the process ends, None where there is no such thing.

    It needs Python 3.9 and Linux 5.3. Raises ProcessLookupError when the process has ended.
    """
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        raise
    except (AttributeError, OSError):
        return None


def wait_exit(pid: int, timeout: float) -> bool:
    """Wait until the process has ended, at most ``timeout`` seconds; tell whether it has."""
    deadline = time.monotonic() + timeout
    try:
        descriptor = _pidfd(pid)
    except ProcessLookupError:
        return True
    if descriptor is None:
        while is_alive(pid) and time.monotonic() < deadline:
            time.sleep(0.02)
        return not is_alive(pid)
    try:
        return bool(select.select([descriptor], [], [], max(0.0, timeout))[0]) or not is_alive(pid)
    finally:
        os.close(descriptor)


class Deaths:
    """Notes when processes end, while its ``with`` block runs: ``seen`` is process id → seconds since the machine's start."""

    def __init__(self, pids: Iterable[int]) -> None:
        self.seen: Dict[int, float] = {}
        self._pids = {pid for pid in pids if pid}
        self._over, self._wake = os.pipe()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Deaths:
        self._thread.start()
        return self

    def __exit__(self, *_error: Any) -> None:
        os.close(self._wake)
        self._thread.join()
        os.close(self._over)

    def _watch(self) -> None:
        watched: Dict[int, int] = {}
        polled = set()
        for pid in self._pids:
            try:
                descriptor = _pidfd(pid)
            except ProcessLookupError:
                self.seen[pid] = now()
                continue
            if descriptor is None:
                polled.add(pid)
            else:
                watched[descriptor] = pid
        over = False
        while not over:
            ready = select.select([self._over, *watched], [], [], 0.02 if polled else None)[0]
            over = self._over in ready
            for descriptor in set(ready) & set(watched):
                self.seen[watched.pop(descriptor)] = now()
                os.close(descriptor)
            for pid in [pid for pid in polled if not is_alive(pid)]:
                self.seen[pid] = now()
                polled.remove(pid)
        for descriptor in watched:
            os.close(descriptor)


def listener_pid(address: str) -> Optional[int]:
    """Return the process id that listens on the socket, None when none does (or it is in another PID namespace)."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(5)
        if client.connect_ex(address) != 0:
            return None
        pid, _uid, _gid = struct.unpack("3i", client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
        return pid or None
