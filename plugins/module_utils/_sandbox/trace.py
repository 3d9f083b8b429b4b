# Copyright (c) 2026, the ggen.gvisor authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""Which files a command opens, writes and executes, as gVisor's kernel tells while it runs. See docs/decisions/trace.md.

The kernel sends a message for each such call, over a socket that runsc hands to it when the pod waits for its command. What the messages say is the
sandbox', and so is everything about them: they are bounded, and one that makes no sense is dropped.
"""

from __future__ import annotations

import contextlib
import json
import os
import posixpath
import select
import socket
import struct
import threading
import time
from typing import Any, Dict, Iterator, List, Optional, Sequence, Set, Tuple, Union

from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._base.process import run
from ansible_collections.ggen.gvisor.plugins.module_utils._base.text import visible_line

SOCKET, CONFIG = "trace", "trace.json"  # in the pod's folder
CREATE_TIMEOUT = 30.0
DRAIN_SECONDS = 5.0  # for what a command has said when it has ended
SLICE_SECONDS = 0.1
MAX_MESSAGE = 1 << 18  # the kernel lets nobody send more at once
MAX_PATHS = 5000  # of the workspace, and as many of all else
MAX_BYTES = 1 << 20  # of the same
MAX_SEEN, MAX_SEEN_BYTES = 50000, 16 << 20  # messages that need not be read a second time
RETRIES = 12  # with pauses that double, from 25 us to 10 ms: a command that is faster than its reader waits for it, about 40 ms at most
HANDSHAKE = b"\x08\x01"  # the first field, a version: 1
HEADER = struct.Struct("=HHI")  # its size, the kind of message, and how many could not be sent until now
EXECUTED, OPENED = 3, 7  # kinds
KINDS = ("opened", "written", "executed")
AT_FDCWD = (1 << 64) - 100
SHARED = "/workspace"  # how all paths begin that are of a workspace

# Points of the kernel, those of Intel's processors alone behind them.
_POINTS = ({"name": "syscall/openat/exit", "optional_fields": ["fd_path"]}, {"name": "sentry/execve"})
_OLD_POINTS = ({"name": "syscall/open/exit"}, {"name": "syscall/creat/exit"})
# Fields of messages, as upstream's points/*.proto number them.
_CONTEXT, _CWD = 1, 8
_PROGRAM = 2
_EXIT, _ERROR, _FOLDER, _FOLDER_PATH, _PATH, _FLAGS = 2, 2, 4, 5, 6, 7
_SYSCALL, _CREAT = 3, 85
_O_PATH = 0o10000000

Value = Union[int, bytes]


def fields(data: bytes) -> Iterator[Tuple[int, Value]]:
    """Yield the numbers and values of a message's fields; those of a kind that the kernel does not send end it. Raises ValueError."""
    place = 0

    def number() -> int:
        nonlocal place
        found = 0
        for shift in range(0, 70, 7):
            if place >= len(data):
                break
            byte = data[place]
            place += 1
            found |= (byte & 0x7F) << shift
            if byte < 0x80:
                return found
        raise ValueError("a number without an end")

    while place < len(data):
        key = number()
        value: Value = number()
        if key & 7 == 2:
            size, value = int(value), data[place : place + int(value)]
            if len(value) != size:
                raise ValueError("a text without an end")
            place += size
        elif key & 7 != 0:
            raise ValueError(f"a field of kind {key & 7}")
        yield key >> 3, value


def _bytes(value: Value) -> bytes:
    if isinstance(value, int):
        raise ValueError("a number in a text's place")
    return value


def _text(value: Value) -> str:
    return _bytes(value).decode("utf-8", "surrogateescape")


def _cwd(value: Value) -> str:
    return next((_text(inner) for number, inner in fields(_bytes(value)) if number == _CWD), "/")


def program_of(data: bytes) -> Optional[str]:
    """Return the path of the program that a message of the kind EXECUTED tells of. Its environment is not looked at. Raises ValueError."""
    return next((_text(value) for number, value in fields(data) if number == _PROGRAM), None)


def opened_in(data: bytes) -> Tuple[List[str], str]:
    """Return in which of the ways KINDS a message of the kind OPENED tells that a path was opened, none if it was not, and the path. Raises ValueError."""
    found: Dict[int, Value] = dict(fields(data))
    if any(number == _ERROR and value for number, value in fields(_bytes(found.get(_EXIT, b"")))):
        return [], ""
    folder = _cwd(found.get(_CONTEXT, b"")) if found.get(_FOLDER, AT_FDCWD) == AT_FDCWD else _text(found.get(_FOLDER_PATH, b"/"))
    flags = int(found.get(_FLAGS, 0))
    if found.get(_SYSCALL) == _CREAT and _FLAGS not in found:
        flags = os.O_WRONLY
    access = flags & os.O_ACCMODE
    ways = [] if access == os.O_WRONLY else ["opened"]
    ways += ["written"] if access != os.O_RDONLY or flags & os.O_TRUNC else []
    path = posixpath.normpath(posixpath.join("/", folder, _text(found.get(_PATH, b""))))
    return [] if flags & _O_PATH else ways, path.replace("//", "/", 1)


class Collected:
    """What the messages of one command said, bounded. What is ``hidden``, and all below it, is the pod's own."""

    def __init__(self, hidden: Sequence[str]) -> None:
        self.truncated = False
        self._hidden = tuple(f"{path}/" for path in hidden)
        self._begun = False  # whether it is the command's own program that runs; before it there is what starts that
        self._paths: Dict[str, Set[str]] = {kind: set() for kind in KINDS}
        self._left = {True: [MAX_PATHS, MAX_BYTES], False: [MAX_PATHS, MAX_BYTES]}  # by whether it is of a workspace
        self._seen: Set[bytes] = set()
        self._seen_bytes = 0  # the sandbox says how long they are

    def take(self, kind: int, data: bytes) -> None:
        """Keep what a message says of the command."""
        if data in self._seen or (kind == OPENED and not self._begun):
            return
        try:
            if kind == OPENED:
                ways, path = opened_in(data)
                if len(self._seen) < MAX_SEEN and self._seen_bytes + len(data) <= MAX_SEEN_BYTES:
                    self._seen.add(data)
                    self._seen_bytes += len(data)
            elif kind == EXECUTED:
                ways, path = ["executed"], program_of(data) or ""
            else:
                return
        except ValueError:
            self.truncated = True
            return
        if f"{path}/".startswith(self._hidden):
            return
        self._begun |= kind == EXECUTED
        for way in ways:
            self._keep(way, path)

    def _keep(self, way: str, path: str) -> None:
        if path in self._paths[way]:
            return
        left = self._left[path.startswith(SHARED)]
        left[0] -= 1
        left[1] -= len(path)
        if min(left) < 0:
            self.truncated = True
        else:
            self._paths[way].add(path)

    def told(self) -> Dict[str, Any]:
        """Return the paths by what was done with them, safe to show, and whether some are missing."""
        return {**{kind: sorted(map(visible_line, paths)) for kind, paths in self._paths.items()}, "truncated": self.truncated}


def workspace_first(told: Dict[str, Any], workspace: str) -> Dict[str, Any]:
    """Return what ``Collected.told`` has told with the paths of the ``workspace`` first."""

    def place(path: str) -> Tuple[bool, str]:
        return not f"{path}/".startswith(f"{workspace}/"), path

    return {key: value if key == "truncated" else sorted(value, key=place) for key, value in told.items()}


class Trace:
    """The trace of one pod that waits for its command, read by a thread from when this is made.

    ``folder`` is the pod's own on the host, and what is ``hidden`` its own in the sandbox.
    """

    def __init__(self, runsc: Sequence[str], pod: str, folder: str, hidden: Sequence[str]) -> None:
        """Have ``runsc``, a command line with its flags, connect the pod's kernel. Raises GvisorError."""
        self._hidden = hidden
        self._collected = Collected(hidden)
        self._lock = threading.Lock()
        self._buffer = bytearray(MAX_MESSAGE)
        self._dropped = 0
        self._socket: Optional[socket.socket] = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        try:
            self._connect([*runsc, "trace", "create", "--config", CONFIG, pod], folder)
        except OSError as error:
            raise GvisorError(f"the command cannot be traced: {error.filename or folder}: {error.strerror or error}") from error
        self._thread.start()

    def _connect(self, argv: Sequence[str], folder: str) -> None:
        points = [*_POINTS, *(_OLD_POINTS if os.uname().machine == "x86_64" else ())]
        sinks = [{"name": "remote", "config": {"endpoint": SOCKET, "retries": RETRIES}}]
        config = {"name": "Default", "points": [{**point, "context_fields": ["cwd"]} for point in points], "sinks": sinks}
        # Its path would be too long for a socket: everybody names it from the folder on, which nobody else can enter.
        with contextlib.ExitStack() as stack:
            place = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, place)
            listener = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
            listener.bind(f"/proc/self/fd/{place}/{SOCKET}")
            listener.listen(1)
            listener.settimeout(CREATE_TIMEOUT)
            with open(os.path.join(folder, CONFIG), "w", encoding="ascii") as stream:
                json.dump({"trace_session": config}, stream)
            greeter = threading.Thread(target=self._greet, args=(listener,), daemon=True)
            greeter.start()
            done = run(argv, timeout=CREATE_TIMEOUT, cwd=folder)
            os.unlink(SOCKET, dir_fd=place)
            if done.rc == 0:
                greeter.join(CREATE_TIMEOUT)
            if done.rc != 0 or self._socket is None:
                raise GvisorError(f"the command cannot be traced: {' '.join(argv[:1])} says: {visible_line(done.stderr.strip()[-500:])}")

    def _greet(self, listener: socket.socket) -> None:
        """Answer runsc, which then hands its end to the sandbox."""
        with contextlib.suppress(OSError):
            connection, _address = listener.accept()
            connection.settimeout(CREATE_TIMEOUT)
            if connection.recv(MAX_MESSAGE):
                connection.send(HANDSHAKE)
                connection.setblocking(False)
                self._socket = connection

    def _watch(self) -> None:
        poll = select.poll()
        poll.register(self._open, select.POLLIN)
        while not self._over.is_set():
            poll.poll()
            self._read(time.monotonic() + SLICE_SECONDS)

    @property
    def _open(self) -> socket.socket:
        if self._socket is None:
            raise GvisorError("the trace is not connected")
        return self._socket

    def _read(self, until: float) -> None:
        """Read what there is, not longer than ``until``."""
        with self._lock:
            while not self._over.is_set() and time.monotonic() < until:
                try:
                    size = self._open.recv_into(self._buffer)
                except BlockingIOError:
                    return
                except OSError:
                    size = 0
                if size == 0:
                    self._over.set()
                    return
                self._take(bytes(self._buffer[:size]))

    def _take(self, message: bytes) -> None:
        if len(message) < HEADER.size:
            self._collected.truncated = True
            return
        begin, kind, dropped = HEADER.unpack_from(message)
        if dropped != self._dropped:
            self._dropped, self._collected.truncated = dropped, True
        self._collected.take(kind, message[begin:])

    def end_of_command(self) -> Dict[str, Any]:
        """Return what the command that has just ended did with files, and begin anew."""
        until = time.monotonic() + DRAIN_SECONDS
        self._read(until)
        with self._lock:
            found = self._collected
            found.truncated |= time.monotonic() >= until
            self._collected = Collected(self._hidden)
        return found.told()
