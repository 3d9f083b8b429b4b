# Copyright (c) 2026, the ggen.gvisor authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""Watch a process and its pipes until it ends or a deadline passes, in bounded memory and without polling."""

from __future__ import annotations

import os
import selectors
import subprocess
import time
from collections import deque
from typing import Callable, Deque, Dict, Optional

Sink = Callable[[bytes], Optional[float]]


class Excerpt:
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


def watch(process: Optional[subprocess.Popen], sinks: Dict[int, Sink], others: Dict[int, Sink], deadline: float) -> bool:
    """Feed what arrives to its sink until every one of ``sinks`` is at its end and ``process`` is too.

    ``others`` are descriptors watched meanwhile; every sink gets b"" once at the end of its stream. A sink may return a new
    deadline (time.monotonic), which counts if it is earlier. Returns False when the deadline came first.
    """
    with selectors.DefaultSelector() as selector:
        for descriptor, sink in {**sinks, **others}.items():
            selector.register(descriptor, selectors.EVENT_READ, sink)
        open_sinks = set(sinks)
        while open_sinks:
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            for key, _events in selector.select(left):
                data = os.read(key.fd, 1 << 16)
                nearer = key.data(data)
                if nearer is not None:
                    deadline = min(deadline, nearer)
                if not data:
                    selector.unregister(key.fd)
                    open_sinks.discard(key.fd)
    if process is not None:
        try:
            process.wait(max(deadline - time.monotonic(), 0.2))
        except subprocess.TimeoutExpired:
            return False
    return True
