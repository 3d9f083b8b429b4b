# Copyright (c) 2026, the ggen.gvisor authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""The one exception that the collection's helpers raise."""

from __future__ import annotations

import errno
import os
from typing import Any


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
