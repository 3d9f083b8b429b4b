# Copyright (c) 2026, the ggen.gvisor authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""Limits of a pod: written into the control group that its processes really are in, and read back.

The pod's group is what counts: a gVisor sandbox is a few host processes, whatever runs inside of it, and ctr has no flag for
a process limit and says nothing when a host cannot enforce one.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import signal
import time
from typing import Dict, Iterator, List, NamedTuple, Optional, Tuple

from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError

CPU_PERIOD = 100000  # microseconds; the kernel's default


class Limits(NamedTuple):
    """What a pod may use; None is no limit."""

    memory: Optional[int] = None  # bytes, swap included
    cpus: Optional[float] = None  # processors' worth of time
    pids: Optional[int] = None  # the host's tasks; gVisor needs about 30 for itself


# limit → cgroup version → (controller, files and the values to write; the first file must take it, the others may be missing)
_FILES: Dict[str, Dict[int, Tuple[str, List[Tuple[str, str]]]]] = {
    "memory": {
        1: ("memory", [("memory.limit_in_bytes", "{value}"), ("memory.memsw.limit_in_bytes", "{value}")]),
        2: ("memory", [("memory.max", "{value}"), ("memory.swap.max", "0")]),
    },
    "cpus": {
        1: ("cpu", [("cpu.cfs_quota_us", "{quota}")]),
        2: ("cpu", [("cpu.max", "{quota} {period}")]),
    },
    "pids": {1: ("pids", [("pids.max", "{value}")]), 2: ("pids", [("pids.max", "{value}")])},
}
# What tells that a limit struck: (controller, version) → file and the word before the count.
_COUNTS = {
    "memory": {1: ("memory", "memory.oom_control", "oom_kill"), 2: ("memory", "memory.events", "oom_kill")},
    "pids": {1: ("pids", "pids.events", "max"), 2: ("pids", "pids.events", "max")},
}
# What a group uses: (controller, version) → file, the word before the number where there are several, and how many of it make one.
_USED: Dict[str, Dict[int, Tuple[str, str, str, float]]] = {
    "memory": {1: ("memory", "memory.usage_in_bytes", "", 1), 2: ("memory", "memory.current", "", 1)},
    "cpu_seconds": {1: ("cpuacct", "cpuacct.usage", "", 1e9), 2: ("cpu", "cpu.stat", "usage_usec", 1e6)},
    "pids": {1: ("pids", "pids.current", "", 1), 2: ("pids", "pids.current", "", 1)},
}


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read()
    except OSError:
        return ""


def _lives(pid: str) -> bool:
    return _read(f"/proc/{pid}/stat").rpartition(")")[2].split()[:1] not in ([], ["Z"], ["X"])


def _hierarchies(proc: str) -> Iterator[Tuple[str, str, List[str]]]:
    """Yield (root, mount point, controllers) of each mounted hierarchy; version 2 has one, with the controller ""."""
    for line in _read(f"{proc}/self/mountinfo").splitlines():
        left, _dash, right = line.partition(" - ")
        kind, _source, options = right.split(None, 2)
        if kind in ("cgroup", "cgroup2"):
            root, point = left.split()[3:5]
            yield root, point, [""] if kind == "cgroup2" else options.split(",")


def leave_groups(proc: str = "/proc") -> None:
    """Take this process out of groups that others may freeze or kill, where the kernel lets it: one that is frozen with a lock stops everybody's runs."""
    for _root, point, names in _hierarchies(proc):
        if {"", "freezer"} & set(names):
            with contextlib.suppress(OSError), open(os.path.join(point, "cgroup.procs"), "w", encoding="ascii") as stream:
                stream.write("0")


class PodCgroup:
    """The control group of one pod, found through one of its processes."""

    def __init__(self, pod: str, pid: int, proc: str = "/proc") -> None:
        self.pod = pod
        self._folders: Dict[str, str] = {}  # controller (v1) or "" (v2) → folder
        groups = {}
        for line in _read(f"{proc}/{pid}/cgroup").splitlines():
            _number, controllers, path = line.split(":", 2)
            groups.update(dict.fromkeys(controllers.split(","), path))
        for root, point, names in _hierarchies(proc):
            for name in names:
                path = groups.get(name)
                # Only a group of the pod's own: a limit on a shared one would hit the host.
                if path and os.path.basename(path) == pod:
                    below = path[len(root) :] if root != "/" and path.startswith(root) else path
                    self._folders.setdefault(name, point.rstrip("/") + below)

    def _place(self, table: Dict[int, Tuple]) -> Optional[Tuple[str, Tuple]]:
        for version, key in ((1, table[1][0]), (2, "")):
            if key in self._folders:
                row = table[version]
                first = row[1] if isinstance(row[1], str) else row[1][0][0]
                if os.path.exists(os.path.join(self._folders[key], first)):
                    return self._folders[key], row
        return None

    def pids(self) -> List[int]:
        """Return the host's processes of the pod, as far as its groups tell."""
        found = {word for folder in self._folders.values() for word in _read(os.path.join(folder, "cgroup.procs")).split()}
        return sorted(map(int, found))

    def used(self) -> Dict[str, Optional[float]]:
        """Return how many bytes, the kernel's cache of files included, seconds of processors and tasks the pod has; None for what nobody counts."""
        found: Dict[str, Optional[float]] = dict.fromkeys(_USED)
        for name, table in _USED.items():
            place = self._place(table)
            if place is not None:
                folder, (_controller, file, word, unit) = place
                said = re.search(rf"^{word}\s*(\d+)$", _read(os.path.join(folder, file)), re.MULTILINE)
                if said:
                    found[name] = int(said.group(1)) if unit == 1 else round(int(said.group(1)) / unit, 3)
        return found

    def limit(self, limits: Limits) -> Dict[str, str]:
        """Put ``limits`` into force; return those that this host cannot enforce, as name=value, each with the reason.

        Raises GvisorError for a limit that the pod has passed before its command has begun.
        """
        unenforced = {}
        for name, value in limits._asdict().items():
            if value is None:
                continue
            place = self._place(_FILES[name])
            why = "the pod has no control group of its own with that controller"
            if place is not None:
                folder, row = place
                why = self._write(folder, row[1], value)
            if why:
                unenforced[f"{name}={value}"] = why
        return unenforced

    @staticmethod
    def _write(folder: str, files: List[Tuple[str, str]], value: float) -> str:
        for number, (name, form) in enumerate(files):
            data = form.format(value=value, quota=int(value * CPU_PERIOD), period=CPU_PERIOD)
            try:
                with open(os.path.join(folder, name), "w", encoding="ascii") as stream:
                    stream.write(data)
            except OSError as error:
                if error.errno == errno.EBUSY:  # the pod, still idle, already uses more
                    raise GvisorError(f"the limit of {data} in {name} is less than the sandbox itself needs; give it more") from error
                if number == 0:
                    return f"{name}: {error.strerror}"
        return ""

    def end(self, seconds: float) -> bool:
        """Kill all that is in the pod's groups; tell whether nothing of it is alive any more, within ``seconds``."""
        deadline = time.monotonic() + seconds
        while True:
            alive = {
                pid for folder in set(self._folders.values()) for pid in _read(os.path.join(folder, "cgroup.procs")).split() if _lives(pid)
            }
            if not alive:
                return True
            for pid in alive:
                with contextlib.suppress(OSError):
                    os.kill(int(pid), signal.SIGKILL)
            if time.monotonic() > deadline:
                return False
            time.sleep(0.002)

    def struck(self) -> List[str]:
        """Return the names of limits that killed or refused something in this pod so far."""
        names = []
        for name, table in _COUNTS.items():
            place = self._place(table)
            if place is None:
                continue
            folder, row = place
            counts = dict(line.split(None, 1) for line in _read(os.path.join(folder, row[1])).splitlines() if " " in line)
            if counts.get(row[2], "0").strip() != "0":
                names.append(name)
        return names


def groups_of(prefix: str) -> List[str]:
    """Return the names of all groups that begin with ``prefix``, in whatever hierarchy."""
    found = set()
    for _root, point, _names in _hierarchies("/proc"):
        with contextlib.suppress(OSError):
            found.update(name for name in os.listdir(point) if name.startswith(prefix) and os.path.isdir(os.path.join(point, name)))
    return sorted(found)


def remove_groups(group: str) -> None:
    """Remove the groups of that name, with what is in them; a shim that was killed could not."""
    folders = {os.path.join(point, group) for _root, point, _names in _hierarchies("/proc")}
    deadline = time.monotonic() + 2
    while folders and time.monotonic() < deadline:
        for folder in sorted(folders):
            for word in _read(os.path.join(folder, "cgroup.procs")).split():
                with contextlib.suppress(OSError):
                    os.kill(int(word), signal.SIGKILL)
            try:
                os.rmdir(folder)
            except FileNotFoundError:
                folders.discard(folder)
            except OSError:
                continue  # what was killed is still ending
        if folders:
            time.sleep(0.01)
