# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Text that came from a job, an image or a host, made safe to show."""

from __future__ import annotations

import re
from typing import Any

from ansible_collections.ggen.gvisor.plugins.module_utils._base.text import visible

LONGEST = 1200  # characters of one reason; a compiler can say megabytes


# They mean nothing, and every compiler prints them.
COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def plain(text: Any, longest: int = LONGEST) -> str:
    """Return ``text`` without colours, safe to show, and not longer than ``longest`` characters."""
    clean = visible(COLOURS.sub("", str(text)).replace("\r\n", "\n")).strip()
    return clean if len(clean) <= longest else f"{clean[:longest].rstrip()} …"
