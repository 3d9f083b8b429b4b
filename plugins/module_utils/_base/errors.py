# Copyright (c) 2026, the ggen.gvisor authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""The one exception that the collection's helpers raise, and what is said of it and of the operating system's errors."""

from __future__ import annotations

import errno
import os
from typing import Any, Dict, Union


class GvisorError(Exception):
    """What went wrong, in a sentence that names the file or value and the fix.

    ``details`` are further fields for the module's result (for example ``rc`` or ``stderr``).
    """

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.details = details


def rights_fix(error: OSError) -> str:
    """Return what to put behind a message about ``error`` where it is a refusal that root would not have met, and nothing otherwise."""
    return "; become root (become: true)" if error.errno in (errno.EACCES, errno.EPERM) and os.geteuid() != 0 else ""


def sentence(error: OSError, place: str = "") -> str:
    """Return what an error of the operating system says, with the file that it is about."""
    file = error.filename if error.filename is not None else place
    if isinstance(file, bytes):
        file = file.decode("utf-8", "backslashreplace")
    said = error.strerror or str(error)
    return f"{file}: {said}" if file else said


def failure(error: Union[GvisorError, OSError], place: str = "") -> Dict[str, Any]:
    """Return the failed result that tells of ``error``. ``place`` is the file or folder that one of the operating system is about where it names none."""
    if isinstance(error, GvisorError):
        return {**error.details, "failed": True, "msg": error.message}
    return {"failed": True, "msg": f"{sentence(error, place)}{rights_fix(error)}"}
