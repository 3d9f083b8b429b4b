# Copyright (c) 2026, the ggen.gvisor authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""What a command prints, on its way to the caller: without secrets, and where it goes to a terminal, safe to show."""

from __future__ import annotations

import codecs
import os
import re
import select
import signal
from typing import Dict, Sequence

from ansible_collections.ggen.gvisor.plugins.module_utils._base.text import visible
from ansible_collections.ggen.gvisor.plugins.module_utils._command.table import NAME
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.pipes import held_back
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.secret_files import MASK


class Interrupted(BaseException):
    """The caller wants an end, by this signal."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.code = 128 + number


class Masker:
    """A stream without ``words``, however it is cut. What may be the beginning of one waits for what comes."""

    def __init__(self, words: Sequence[bytes]) -> None:
        self._words = sorted(filter(None, words), key=len, reverse=True)  # of two that begin alike the longer one
        self._any = re.compile(b"|".join(map(re.escape, self._words)))
        self._held = b""

    def __call__(self, data: bytes) -> bytes:
        """Return what can be shown now; all that is left for b""."""
        if not self._words:
            return data
        text, shown, begin = self._held + data, b"", 0
        end = self._sure(text, begin) if data else len(text)
        while True:
            found = self._any.search(text, begin)
            if not found or found.start() >= end:
                break
            shown += text[begin : found.start()] + MASK.encode()
            begin = found.end()
            if begin > end:
                end = self._sure(text, begin)
        self._held = text[end:]
        return shown + text[begin:end]

    def _sure(self, text: bytes, begin: int) -> int:
        """Return where, behind ``begin``, what may be the beginning of a word begins."""
        return len(text) - max(held_back(text[begin:], word) for word in self._words)


class Display:
    """Takes what a command prints and hands it to the caller's standard output and error, of which either may be a terminal."""

    def __init__(self, words: Sequence[bytes] = ()) -> None:
        self._maskers = {stream: Masker(words) for stream in (1, 2)}
        self._decoders: Dict[int, codecs.IncrementalDecoder] = {
            stream: codecs.getincrementaldecoder("utf-8")("surrogateescape") for stream in (1, 2) if os.isatty(stream)
        }

    def __call__(self, stream: int, data: bytes) -> None:
        """Show the next bytes of standard output (1) or error (2); b"" at their end. Raises Interrupted where nobody reads them any more."""
        shown = self._maskers[stream](data)
        if stream in self._decoders:
            shown = visible(self._decoders[stream].decode(shown, not data)).encode("utf-8", "backslashreplace")
        write(stream, shown)

    def end(self) -> None:
        """Show what is left."""
        for stream in (1, 2):
            self(stream, b"")


def write(stream: int, data: bytes) -> None:
    """Write all of ``data``. Raises Interrupted where nobody reads it any more."""
    try:
        while data:
            try:
                data = data[os.write(stream, data) :]
            except BlockingIOError:  # somebody else's choice for the same pipe
                select.select([], [stream], [])
    except BrokenPipeError:
        raise Interrupted(signal.SIGPIPE) from None


def show(stream: int, text: str) -> None:
    """Write a text that came from a sandbox, to a terminal safe to show and to anything else as it is."""
    write(stream, (visible(text) if os.isatty(stream) else text).encode("utf-8", "backslashreplace"))


def say(text: str, stream: int = 1) -> None:
    """Write a line of ours, made safe to show."""
    write(stream, f"{visible(text)}\n".encode("utf-8", "backslashreplace"))


def complain(text: str) -> None:
    """Say what is wrong."""
    say(f"{NAME}: {text}", 2)
