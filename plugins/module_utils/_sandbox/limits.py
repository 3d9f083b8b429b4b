# Copyright (c) 2026, the ggen.gvisor authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""What bounds a run beside its pod's control group: the sizes of files, no core files, and room that stays free on the host's file systems."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import threading
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.cgroup import Limits
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.pinned import NAMED

LEAST_MEMORY = 1 << 30
REQUIRED, BEST_EFFORT = "required", "best_effort"
BLOCK = 512  # bytes; what POSIX counts the sizes of files in for ulimit
SIGXFSZ = 25  # what a command gets that writes a larger file
# The default of what stays free: a twentieth of the file system, at most so much.
SHARE, MOST_FREE, MOST_INODES = 20, 1 << 30, 10_000
# Seconds between two looks at the room that is left: as many as a very fast disk would take to fill it, within these.
SLOWEST, FASTEST, BYTES_A_SECOND, INODES_A_SECOND = 0.25, 0.005, 4e9, 1e6
_SIZES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
# Limit → how a host comes to enforce it.
FIXES = {
    "memory": "enable the memory controller (on some kernels cgroup_enable=memory on its command line)",
    "cpus": "enable the cpu controller",
    "pids": "enable the pids controller",
    "file_size": "let containerd itself run without a limit on file sizes (LimitFSIZE=infinity)",
    "core": "run containerd with LimitCORE=0",
    "keep_free": "free some space, or lower keep_free",
}


def bytes_of(text: str, option: str = "memory") -> int:
    """Return the bytes that ``text`` says, for example 512M; 0 is none. Raises GvisorError that names the option."""
    found = re.fullmatch(r"(\d+)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if not found:
        raise GvisorError(f"{option}={text!r} is no size; write for example 512M or 2G")
    return int(found.group(1)) * _SIZES[found.group(2).upper()]


def size_of(count: int) -> str:
    """Return the bytes as people write them, rounded down."""
    unit = next((unit for unit in "TGMK" if count >= _SIZES[unit]), "")
    return f"{count // _SIZES[unit]}{unit}"


def default_memory(proc: str = "/proc") -> int:
    """Return a quarter of the host's memory, and at least a gigabyte. Raises OSError."""
    with open(f"{proc}/meminfo", encoding="ascii") as stream:
        total = next((int(line.split()[1]) << 10 for line in stream if line.startswith("MemTotal:")), 0)
    return max(total // 4, LEAST_MEMORY)


class RunLimits(NamedTuple):
    """What a pod may use; None is no limit. JSON carries it."""

    group: Limits = Limits()
    file_size: Optional[int] = None  # bytes of the largest file
    keep_free: Optional[int] = None  # bytes that stay free; None is the default for the file system, 0 nothing
    required: bool = False  # what cannot be enforced is an error

    def told(self) -> Dict[str, Any]:
        """Return them by the names of the options."""
        return {**self.group._asdict(), "file_size": self.file_size, "core": 0, "keep_free": self.keep_free}


def limits_of(params: Mapping[str, Any]) -> RunLimits:
    """Return the limits that the module's options ask for. Raises GvisorError, or OSError."""
    memory = default_memory() if params["memory"] is None else bytes_of(params["memory"])
    group = Limits(memory or None, params["cpus"], params["pids"] or None)
    file_size = bytes_of(params["file_size"], "file_size")
    keep_free = None if params["keep_free"] is None else bytes_of(params["keep_free"], "keep_free")
    return RunLimits(group, file_size or None, keep_free, params["limits"] == REQUIRED)


def judge(unenforced: Mapping[str, str], required: bool, fixes: Mapping[str, str]) -> List[str]:
    """Return a warning for each limit that this host cannot enforce, by name with the reason. Raises GvisorError with the ``fixes`` where
    they are ``required``.
    """
    told = [f"the limit {name} is not enforced on this host: {why}" for name, why in unenforced.items()]
    if told and required:
        said = [fixes[name.partition("=")[0]] for name in unenforced]
        raise GvisorError(
            f"{'; '.join(told)}. The command was not started: {'; '.join(said)}; or run without (limits: {BEST_EFFORT})",
            unenforced=sorted(name.partition("=")[0] for name in unenforced),
        )
    return told


# Files


def ulimits(file_size: Optional[int]) -> str:
    """Return the lines with which a pod's shell limits itself and all that it starts, and says what the limits are then."""
    wanted = "" if file_size is None else f"ulimit -f {max(file_size // BLOCK, 1)}\n"
    return f"ulimit -c 0\n{wanted}ulimit -c\nulimit -f\n"


def check_ulimits(said: str, file_size: Optional[int]) -> Dict[str, str]:
    """Return which limits of files the shell that ran ``ulimits`` did not get, and why, from the end of what it said."""
    core, size = (["?", "?", *said.split()])[-2:]
    found = {} if core == "0" else {"core=0": f"in the pod it is {core}"}
    if file_size is not None and not (size.isdigit() and int(size) <= max(file_size // BLOCK, 1)):
        found[f"file_size={file_size}"] = f"in the pod it is {size} blocks"
    return found


def forbid_core(pids: Sequence[int]) -> Dict[str, str]:
    """Let none of these processes leave a core file on the host; return why where that cannot be."""
    found: Dict[str, str] = {}
    for pid in pids:
        try:
            resource.prlimit(pid, resource.RLIMIT_CORE, (0, 0))
        except ProcessLookupError:
            continue
        except OSError as error:
            found["core=0"] = f"process {pid}: {error.strerror}"
    return found


# Room


def _wanted(status: os.statvfs_result, keep: Optional[int]) -> Tuple[int, int]:
    """Return how many bytes and inodes of a file system stay free."""
    size = status.f_blocks * status.f_frsize
    inodes = 0 if keep == 0 else min(MOST_INODES, status.f_files // SHARE)
    return min(MOST_FREE, size // SHARE) if keep is None else keep, inodes


class Room:
    """The file systems that a run can fill. A context manager.

    ``places`` are paths of root's own by what to call them; ``keep`` is how many bytes stay free, None for the default.
    """

    def __init__(self, places: Mapping[str, str], keep: Optional[int]) -> None:
        """Open the places. Raises GvisorError."""
        self.keep = keep
        self._places: Dict[int, Tuple[str, int]] = {}  # device → what to call it, descriptor
        for told, path in places.items() if keep != 0 else ():
            try:
                descriptor = os.open(path, NAMED)
            except OSError as error:
                raise GvisorError(f"the room of {told} cannot be watched: {path}: {error.strerror}") from error
            device = os.fstat(descriptor).st_dev
            if device in self._places:
                os.close(descriptor)
            else:
                self._places[device] = told, descriptor

    def __enter__(self) -> Room:
        return self

    def __exit__(self, *_exc: object) -> None:
        for _told, descriptor in self._places.values():
            os.close(descriptor)

    def low(self) -> Optional[str]:
        """Return which file system has too little room, and how little, if one has. Raises OSError."""
        return self.look()[0]

    def look(self) -> Tuple[Optional[str], float]:
        """Return what ``low`` does, and the seconds in which the rest could be filled. Raises OSError."""
        seconds = SLOWEST
        for told, descriptor in self._places.values():
            status = os.fstatvfs(descriptor)
            if not status.f_blocks or status.f_flag & os.ST_RDONLY:
                continue  # nothing can fill it
            size, inodes = _wanted(status, self.keep)
            free = status.f_bavail * status.f_frsize
            if free < size:
                return f"{told}: of the {size_of(size)} that must stay free there (keep_free) {size_of(free)} are left", 0
            seconds = min(seconds, (free - size) / BYTES_A_SECOND)
            if status.f_files:
                if status.f_favail < inodes:
                    return f"{told}: of the {inodes} inodes that must stay free there {status.f_favail} are left", 0
                seconds = min(seconds, (status.f_favail - inodes) / INODES_A_SECOND)
        return None, max(seconds, FASTEST)

    def check(self) -> None:
        """Raise GvisorError where there is too little room, and OSError."""
        said = self.low()
        if said:
            raise GvisorError(f"too little room on the file system of {said}; {FIXES['keep_free']}", limits_hit=["space"])


class RoomWatch:
    """Watches the room while a command runs. ``descriptor`` can be read as soon as there is too little, and ``said`` tells where.

    A thread of its own: a file system that does not answer must not keep the command's time from ending.
    """

    def __init__(self, room: Room) -> None:
        self.said: Optional[str] = None
        self.descriptor, self._end = os.pipe()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, args=(room,), daemon=True)

    def __enter__(self) -> RoomWatch:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._over.set()
        self._thread.join(1)
        if not self._thread.is_alive():
            os.close(self.descriptor)
            os.close(self._end)

    def _watch(self, room: Room) -> None:
        pause = FASTEST
        while not self._over.wait(pause):
            with contextlib.suppress(OSError):  # a file system that was taken away cannot be filled
                self.said, pause = room.look()
            if self.said:
                os.write(self._end, b".")
                return
