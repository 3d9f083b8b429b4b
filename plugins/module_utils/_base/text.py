# Copyright (c) 2026, the ggen.gvisor authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""Text for people: numbers, and what a job, an image or a host says, made safe to show."""

from __future__ import annotations

import re
from typing import Any, Dict, Mapping, Sequence

# Control characters drive a terminal (colours, its title, the clipboard), \r hides what a line began with, marks of direction show a text as another
# one, others show nothing at all, and a lone surrogate cannot be printed. New lines and tabs may stay; who joins letters needs U+200C and U+200D.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)
# What people are shown of a result; the rest is for programs.
SHOWN = ("msg", "warnings", "diff", "faults", "exception")
_PARTS = ("jobs", "results")  # what has results in it


def megabytes(size: int) -> str:
    """Return a number of bytes for people."""
    return f"{size / 1e6:.1f} MB"


def duration_text(seconds: float) -> str:
    """Return a duration for people: 8s, 1m20s, 1h02m."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes}m{rest:02d}s" if minutes < 60 else f"{minutes // 60}h{minutes % 60:02d}m"


def visible(text: Any) -> str:
    """Return ``text`` with escapes that people see in place of the characters that a terminal would obey, or not show."""
    return _UNSAFE.sub(_escape, str(text))


def visible_line(text: Any) -> str:
    """Return ``text``, a name for example, as ``visible`` does, in one line."""
    return visible(text).replace("\n", "\\n").replace("\t", "\\t")


def few(names: Sequence[str], most: int = 5) -> str:
    """Return the first of the names for people, and how many more there are."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def _escape(found: "re.Match[str]") -> str:
    code = ord(found.group())
    if code == 0x0D:
        return "\\r"
    if 0xDC80 <= code <= 0xDCFF:  # how Python holds a byte that is no UTF-8
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def visible_all(value: Any) -> Any:
    """Return ``value`` with all text in it, at any depth, as ``visible`` does."""
    if isinstance(value, str):
        return visible(value) if _UNSAFE.search(value) else value
    if isinstance(value, Mapping):
        return {visible_all(key): visible_all(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [visible_all(item) for item in value] if type(value) in (list, tuple) else value
    if hasattr(value, "__dataclass_fields__") and not isinstance(value, type):  # Ansible's warnings and errors, on a controller alone
        import dataclasses  # which imports much

        return dataclasses.replace(value, **{field.name: visible_all(getattr(value, field.name)) for field in dataclasses.fields(value)})
    return value


def visible_result(result: Mapping[str, Any]) -> Dict[str, Any]:
    """Return a result, and those in it, with what people are shown of it safe to show."""
    shown = {key: visible_all(result[key]) for key in SHOWN if key in result}
    parts = {
        key: [visible_result(part) if isinstance(part, Mapping) else part for part in result[key]]
        for key in _PARTS
        if isinstance(result.get(key), list)
    }
    return {**result, **shown, **parts}
