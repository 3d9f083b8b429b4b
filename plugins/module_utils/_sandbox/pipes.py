# Copyright (c) 2026, the ggen.gvisor authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""Watch pipes until they have said what they should or a deadline passes, in bounded memory and without polling."""

from __future__ import annotations

import os
import select
import time
from collections import deque
from typing import Callable, Deque, Mapping, Optional, Sequence, Tuple

LONGEST_WAIT = 3600.0  # seconds of one call; the kernel counts them in milliseconds, of which it takes 25 days

Sink = Callable[[bytes], bool]


class HeadAndTail:
    """The head and the tail of a stream of any length, in ``limit`` bytes of memory."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.size = 0
        self._head = bytearray()
        self._tail: Deque[bytes] = deque()
        self._tail_size = 0

    def __call__(self, data: bytes) -> None:
        self.size += len(data)
        room = self.limit - self.limit // 2 - len(self._head)
        self._head += data[: max(room, 0)]
        rest = data[max(room, 0) :]
        if rest:
            self._tail.append(rest)
            self._tail_size += len(rest)
        while self._tail and self._tail_size - len(self._tail[0]) >= self.limit // 2:
            self._tail_size -= len(self._tail.popleft())

    @property
    def truncated(self) -> bool:
        """Whether something was left out."""
        return self.size > self.limit

    def text(self) -> str:
        """Return what was kept, with a line that says how much was left out between."""
        tail = b"".join(self._tail)
        if not self.truncated:
            return (bytes(self._head) + tail).decode("utf-8", "replace")
        tail = tail[-(self.limit // 2) :] if self.limit > 1 else b""
        left = self.size - len(self._head) - len(tail)
        gap = f"\n[… {left} of {self.size} bytes left out …]\n"
        return self._head.decode("utf-8", "replace") + gap + tail.decode("utf-8", "replace")


def held_back(data: bytes, mark: bytes) -> int:
    """Return how many of the last bytes may be the beginning of ``mark``, which comes whole with the next ones, or does not."""
    start = max(len(data) - len(mark) + 1, 0)
    ours, theirs = memoryview(mark), memoryview(data)
    while True:
        start = data.find(mark[:1], start)
        if start < 0:
            return 0
        if theirs[start:] == ours[: len(data) - start]:
            return len(data) - start
        start += 1


class UntilMark:
    """Hands on a stream up to a line that begins with ``mark``; ``line`` is the rest of that line, or None if the stream ended before.

    ``rest`` is what came behind that line with it.
    """

    def __init__(self, mark: bytes, sink: Callable[[bytes], None]) -> None:
        self.line: Optional[str] = None
        self.rest = b""
        self._mark = mark
        self._sink = sink
        self._held = b""

    def __call__(self, data: bytes) -> bool:
        """Take the next bytes, or b"" at the end; returns whether there is nothing more to wait for."""
        before, mark, after = (self._held + data).partition(self._mark)
        line, newline, rest = after.partition(b"\n")
        if mark:
            self._held = mark + after
            self._sink(before)
        else:
            # The mark may come in two pieces.
            cut = len(before) - (held_back(before, self._mark) if data else 0)
            self._held = before[cut:]
            self._sink(before[:cut])
        if newline:
            self.line, self.rest = line.decode().strip(), rest
        return bool(newline or not data)


class Outlet:
    """Where a stream goes at once, too: a descriptor that does not block. While nobody takes what is there, the stream waits."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._waiting = b""
        self._gone = False

    def __call__(self, data: bytes) -> None:
        if not self._gone:
            self._waiting += data

    @property
    def waits(self) -> bool:
        """Whether there is something to be taken."""
        return bool(self._waiting)

    def write(self) -> None:
        """Hand on what is taken. Of a reader that is gone nothing is kept: the command does not end for it."""
        try:
            self._waiting = self._waiting[os.write(self.descriptor, self._waiting) :]
        except BlockingIOError:
            pass
        except OSError:
            self._waiting, self._gone = b"", True


class Inlet:
    """What goes from the descriptor ``source``, of any kind, to the descriptor ``target``, which does not block.

    It goes in frames, each behind a line with its size, and the last one has none: whoever reads there sees the end without one of the pipe's.
    """

    MOST = 1 << 20  # bytes of a frame: starting what reads one takes longer than reading it

    def __init__(self, source: int, target: int) -> None:
        self.source = source
        self.target = target
        self.open = True  # whether more can come
        self._next = b""
        self._frame = b""

    @property
    def wants(self) -> bool:
        """Whether there is room for more."""
        return self.open and len(self._next) < self.MOST

    @property
    def waits(self) -> bool:
        """Whether there is something to be taken."""
        return bool(self._frame or self._next)

    def read(self) -> None:
        """Take what there is, and see the end. A terminal that is gone is one."""
        try:
            data = os.read(self.source, self.MOST - len(self._next))
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._next += data
        if not data:
            self.open = False
            self._frame += _frame(self._next) + _frame(b"") if self._next else _frame(b"")
            self._next = b""

    def write(self) -> None:
        """Hand on what is taken; a pod that has ended takes nothing more, and its streams tell why."""
        if not self._frame:
            self._frame, self._next = _frame(self._next), b""
        try:
            self._frame = self._frame[os.write(self.target, self._frame) :]
        except BlockingIOError:
            pass
        except OSError:
            self.open, self._frame, self._next = False, b"", b""


def _frame(data: bytes) -> bytes:
    return b"%d\n%s" % (len(data), data)


def read_until(
    sinks: Mapping[int, Sink],
    others: Mapping[int, Sink],
    deadline: float,
    feed: Tuple[int, bytes] = (-1, b""),
    outlets: Optional[Mapping[int, Outlet]] = None,
    inlet: Optional[Inlet] = None,
) -> bool:
    """Feed what arrives to its sink until every one of ``sinks`` says that it has all, which it also has at the end of its stream (b"").

    ``others`` are descriptors watched meanwhile, and one of them that says so ends the watch. ``feed`` is a descriptor that does not block
    and what to write to it meanwhile; ``inlet`` what to read for it. ``outlets`` are, by descriptor, where a stream goes as well, by its sink.
    Returns False when another descriptor, or the deadline (time.monotonic), came first.
    """
    target, text = feed
    outlets = outlets or {}
    streams = {**sinks, **others}
    waiting = set(sinks)
    while waiting:
        left = deadline - time.monotonic()
        if left <= 0:
            return False
        # select.poll also takes files and devices as what a command reads.
        poll = select.poll()
        full = {descriptor for descriptor, outlet in outlets.items() if outlet.waits}
        for descriptor in set(streams) - full:
            poll.register(descriptor, select.POLLIN)
        writers = {outlets[descriptor].descriptor: outlets[descriptor].write for descriptor in full}
        if inlet is not None:
            if inlet.waits:
                writers[inlet.target] = inlet.write
            if inlet.wants:
                poll.register(inlet.source, select.POLLIN)
        for descriptor in [*writers, *([target] if text else [])]:
            poll.register(descriptor, select.POLLOUT)
        for descriptor, _event in poll.poll(min(left, LONGEST_WAIT) * 1000):
            if descriptor == target:
                try:
                    text = text[os.write(target, text) :]
                except BrokenPipeError:  # the streams tell why
                    text = b""
            elif descriptor in writers:
                writers[descriptor]()
            elif inlet is not None and descriptor == inlet.source:
                inlet.read()
            else:
                sink = streams[descriptor]
                data = os.read(descriptor, 1 << 16)
                enough = sink(data)
                if enough or not data:
                    del streams[descriptor]
                    waiting.discard(descriptor)
                if enough and descriptor not in sinks:
                    return False
    return True


def write_out(outlets: Sequence[Outlet], ending: int) -> None:
    """Write what the outlets still have, as long as their readers take, until the descriptor ``ending`` says that nobody waits for it."""
    waiting = [outlet for outlet in outlets if outlet.waits]
    while waiting:
        poll = select.poll()
        poll.register(ending, select.POLLIN)
        for outlet in waiting:
            poll.register(outlet.descriptor, select.POLLOUT)
        ready = [descriptor for descriptor, _event in poll.poll()]
        if ending in ready:
            return
        for outlet in waiting:
            if outlet.descriptor in ready:
                outlet.write()
        waiting = [outlet for outlet in waiting if outlet.waits]
