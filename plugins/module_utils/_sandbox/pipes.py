# Copyright (c) 2026, the ggen.gvisor authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""Watch pipes until they have said what they should or a deadline passes, in bounded memory and without polling."""

from __future__ import annotations

import os
import selectors
import time
from collections import deque
from typing import Callable, Deque, Dict, Optional, Tuple

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


class UntilMark:
    """Hands on a stream up to a line that begins with ``mark``; ``line`` is the rest of that line, or None if the stream ended before."""

    def __init__(self, mark: bytes, sink: Callable[[bytes], None]) -> None:
        self.line: Optional[str] = None
        self._mark = mark
        self._sink = sink
        self._rest = b""

    def __call__(self, data: bytes) -> bool:
        """Take the next bytes, or b"" at the end; returns whether there is nothing more to wait for."""
        before, mark, after = (self._rest + data).partition(self._mark)
        line, newline, _later = after.partition(b"\n")
        if mark:
            self._rest = mark + after
            self._sink(before)
        else:
            # The mark may come in two pieces.
            cut = max(len(before) - len(self._mark) + 1, 0) if data else len(before)
            self._rest = before[cut:]
            self._sink(before[:cut])
        if newline:
            self.line = line.decode().strip()
        return bool(newline or not data)


def read_until(sinks: Dict[int, Sink], others: Dict[int, Sink], deadline: float, feed: Tuple[int, bytes] = (-1, b"")) -> bool:
    """Feed what arrives to its sink until every one of ``sinks`` says that it has all, which it also has at the end of its stream (b"").

    ``others`` are descriptors watched meanwhile, and one of them that says so ends the watch. ``feed`` is a descriptor that does not block
    and what to write to it meanwhile. Returns False when another descriptor, or the deadline (time.monotonic), came first.
    """
    target, text = feed
    with selectors.DefaultSelector() as selector:
        for descriptor, sink in {**sinks, **others}.items():
            selector.register(descriptor, selectors.EVENT_READ, sink)
        if text:
            selector.register(target, selectors.EVENT_WRITE)
        waiting = set(sinks)
        while waiting:
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            for key, _events in selector.select(min(left, LONGEST_WAIT)):
                if key.fd == target:
                    try:
                        text = text[os.write(target, text) :]
                    except BrokenPipeError:  # the streams tell why
                        text = b""
                    if not text:
                        selector.unregister(target)
                    continue
                data = os.read(key.fd, 1 << 16)
                enough = key.data(data)
                if enough or not data:
                    selector.unregister(key.fd)
                    waiting.discard(key.fd)
                if enough and key.fd not in sinks:
                    return False
    return True
