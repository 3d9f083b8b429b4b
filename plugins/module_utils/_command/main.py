# Copyright (c) 2026, the ggen.gvisor authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""The command ggen-gvisor: where it begins and ends."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from types import FrameType
from typing import Callable, Optional, Sequence

from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError, failure
from ansible_collections.ggen.gvisor.plugins.module_utils._command.display import Interrupted, complain
from ansible_collections.ggen.gvisor.plugins.module_utils._command.parser import parse
from ansible_collections.ggen.gvisor.plugins.module_utils._command.table import NOT_RUN
from ansible_collections.ggen.gvisor.plugins.module_utils._command.verbs import perform

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _end(number: int, _frame: Optional[FrameType]) -> None:
    for one in ENDING:
        signal.signal(one, signal.SIG_IGN)  # cleaning up is not interrupted
    raise Interrupted(number)


def open_streams() -> None:
    """Have something at 0, 1 and 2: what is opened later must not be taken for them."""
    while True:
        descriptor = os.open(os.devnull, os.O_RDWR)
        if descriptor > 2:
            os.close(descriptor)
            return


def main(version: str, argv: Optional[Sequence[str]] = None) -> int:
    """Do what the command line asks for and return the exit code."""
    open_streams()
    words = list(sys.argv[1:] if argv is None else argv)
    return ended(lambda: perform(parse(words, version)))


def ended(work: Callable[[], int]) -> int:
    """Return the exit code that ``work`` returns, or the one that says why it ended before; what is wrong is said."""
    try:
        for number in ENDING:
            if signal.getsignal(number) != signal.SIG_IGN:  # nohup, and jobs in the background of a script
                signal.signal(number, _end)
        return work()
    except Interrupted as interrupted:
        return interrupted.code
    except (GvisorError, OSError) as error:
        with contextlib.suppress(Interrupted):
            complain(failure(error)["msg"])
        return NOT_RUN
