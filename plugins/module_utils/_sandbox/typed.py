# Copyright (c) 2026, the ggen.gvisor authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""What is typed at the caller's terminal, on its way to a command."""

from __future__ import annotations

import contextlib
import os
import select
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
