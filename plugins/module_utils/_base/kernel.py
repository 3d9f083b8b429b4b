# Copyright (c) 2026, the ggen.gvisor authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""System calls that Python has no function for."""

from __future__ import annotations

import ctypes
import os
from typing import Any, Optional

# From the kernel's headers, for mount.
NOSUID, NODEV, NOEXEC, BIND, REC, PRIVATE = 2, 4, 8, 0x1000, 0x4000, 1 << 18

_PR_SET_PDEATHSIG = 1


def libc() -> Any:
    """Return the C library, which keeps a call's error number for ``check_call``."""
    return ctypes.CDLL(None, use_errno=True)


def check_call(result: int, about: Optional[str] = None) -> None:
    """Raise the OSError of the last call, about that file, unless its ``result`` is 0."""
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), about)


def mount(source: Optional[str], target: str, kind: Optional[str], flags: int, options: Optional[str] = None) -> None:
    """Mount. Unlike the program of that name it looks up nothing, and takes what a descriptor holds. Raises OSError that names the target."""
    where, place, named, told = (None if word is None else os.fsencode(word) for word in (source, target, kind, options))
    check_call(libc().mount(where, place, named, ctypes.c_ulong(flags), told), target)


def die_with_parent(number: int) -> None:
    """Have this process, and what it becomes, get the signal when its parent dies."""
    libc().prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
