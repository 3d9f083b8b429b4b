# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Text that came from a job, an image or a host, made safe to show."""

from __future__ import annotations

import re
from typing import Any

LONGEST = 1200  # characters of one reason; a compiler can say megabytes


# Control characters could drive a terminal; marks of direction could show a text as another one.
UNSAFE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def plain(text: Any, longest: int = LONGEST) -> str:
    """Return ``text`` without what could drive a terminal or a browser's text direction, and not longer than ``longest`` characters."""
    clean = UNSAFE.sub("", str(text).replace("\r\n", "\n")).strip()
    return clean if len(clean) <= longest else f"{clean[:longest].rstrip()} …"
