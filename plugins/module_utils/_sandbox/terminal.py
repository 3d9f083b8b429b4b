# Copyright (c) 2026, the ggen.gvisor authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""The caller's terminal: what is typed there goes to a command, or the command has a terminal of its own that is shown there."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import termios
import tty
from types import FrameType
from typing import Optional

LOOK_AGAIN = 500  # milliseconds until a caller in the background looks whether it is in front again


class Typed:
    """Reads the terminal for a pipe. The caller does that, in whose session the terminal is: in the background it leaves to the shell what is its."""

    def __init__(self, terminal: int) -> None:
        self.reading, self._writing = os.pipe()
        self._terminal = terminal
        self._waiting = b""
        self._open = True
        os.set_blocking(self._writing, False)

    def watch(self, poll: "select.poll") -> Optional[int]:
        """Have ``poll`` wait for what is next; return its timeout."""
        for descriptor in (self._terminal, self._writing):
            with contextlib.suppress(KeyError):
                poll.unregister(descriptor)
        if not self._open:
            return None
        if self._waiting:
            poll.register(self._writing, select.POLLOUT)
        elif self._in_front():
            poll.register(self._terminal, select.POLLIN)
        else:
            return LOOK_AGAIN
        return None

    def take(self, descriptor: int) -> bool:
        """Do what ``descriptor`` is ready for; return whether it is one of these."""
        if not self._open or descriptor not in (self._terminal, self._writing):
            return False
        try:
            if descriptor == self._writing:
                self._waiting = self._waiting[os.write(self._writing, self._waiting) :]
            elif self._in_front():
                self._waiting = os.read(self._terminal, 1 << 16)
                if not self._waiting:
                    self.end()
        except BlockingIOError:
            pass
        except OSError:  # the terminal, or who reads, is gone
            self.end()
        return True

    def end(self) -> None:
        """Read no more, and let the command see the end."""
        if self._open:
            self._open = False
            os.close(self._writing)

    def _in_front(self) -> bool:
        try:
            return os.tcgetpgrp(self._terminal) == os.getpgrp()
        except OSError:  # not the terminal of this session, so there is no front
            return True


class Console:
    """Another terminal, with the size of the caller's, which is raw as long as this lives: all that is typed reaches the other one, Ctrl-C too."""

    def __init__(self, terminal: int) -> None:
        self._terminal = terminal
        self._other, self.reading = os.openpty()
        tty.setraw(self.reading)
        modes = termios.tcgetattr(self.reading)
        modes[1] = 0  # of output, of which ctr turns on again what there is: the command's own terminal has done all that
        termios.tcsetattr(self.reading, termios.TCSANOW, modes)
        os.set_blocking(self._other, False)
        self._waiting = b""
        self._typing = self._shown = self._open = True
        self._before = termios.tcgetattr(terminal)
        self._resized = signal.signal(signal.SIGWINCH, self._resize)
        self._resize()
        tty.setraw(terminal)

    def _resize(self, _number: int = 0, _frame: Optional[FrameType] = None) -> None:
        with contextlib.suppress(OSError):
            fcntl.ioctl(self._other, termios.TIOCSWINSZ, fcntl.ioctl(self._terminal, termios.TIOCGWINSZ, bytes(8)))

    def watch(self, poll: "select.poll") -> Optional[int]:
        """Have ``poll`` wait for what is next; return its timeout."""
        for descriptor in (self._terminal, self._other):
            with contextlib.suppress(KeyError):
                poll.unregister(descriptor)
        if self._shown:
            poll.register(self._other, select.POLLIN | (select.POLLOUT if self._waiting else 0))
        if self._typing and not self._waiting:
            poll.register(self._terminal, select.POLLIN)
        return None

    def take(self, descriptor: int) -> bool:
        """Do what ``descriptor`` is ready for; return whether it is one of these."""
        if descriptor == self._terminal:
            self._waiting = _read(self._terminal) or b""
            self._typing = bool(self._waiting)
        elif descriptor == self._other:
            self._send()
            data = _read(self._other)
            self._shown = data != b""
            _write(self._terminal, data or b"")
        return descriptor in (self._terminal, self._other)

    def _send(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._waiting = self._waiting[os.write(self._other, self._waiting) :] if self._waiting else b""

    def end(self) -> None:
        """Show what is left, and give the caller's terminal back as it was."""
        if not self._open:
            return
        self._open = False
        while True:
            data = _read(self._other)
            if not data:
                break
            _write(self._terminal, data)
        signal.signal(signal.SIGWINCH, self._resized)
        termios.tcsetattr(self._terminal, termios.TCSADRAIN, self._before)
        os.close(self._other)


def _read(descriptor: int) -> Optional[bytes]:
    """Return what there is: nothing at the end, or where the other side of a terminal is gone, and None where there is nothing yet."""
    try:
        return os.read(descriptor, 1 << 16)
    except BlockingIOError:
        return None
    except OSError:
        return b""


def _write(descriptor: int, data: bytes) -> None:
    with contextlib.suppress(OSError):  # the terminal is gone; a signal says so
        while data:
            data = data[os.write(descriptor, data) :]
