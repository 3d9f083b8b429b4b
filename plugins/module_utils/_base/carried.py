# Copyright (c) 2026, the ggen.gvisor authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""What the two sides of a workspace's copy agree on, the controller that sends it and the host that runs on it."""

from __future__ import annotations

import os
from urllib.parse import quote, unquote_to_bytes

# Keys of an entry in the archive: its time to the nanosecond, and for another name of a file that was sent before, that one's name.
MTIME = "GGEN.mtime_ns"
SAME_AS = "GGEN.same_as"


def encode(path: str) -> str:
    """Return a path as text that is a path again after ``decode``, also where its bytes are no UTF-8."""
    return quote(os.fsencode(path), safe="/ ")


def decode(text: str) -> str:
    """Return the path that ``encode`` was given."""
    return os.fsdecode(unquote_to_bytes(text))
