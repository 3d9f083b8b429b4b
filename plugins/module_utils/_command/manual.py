# Copyright (c) 2026, the ggen.gvisor authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""The manual page, made of the table."""

from __future__ import annotations

from typing import List

from ansible_collections.ggen.gvisor.plugins.module_utils._command.table import (
    DESCRIPTION,
    EXAMPLES,
    EXIT_CODES,
    FILES,
    NAME,
    SUMMARY,
    VERBS,
    usage_of,
)


def _plain(text: str) -> str:
    """Return text that roff does not take for requests, with hyphens that can be copied."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{text}" if text[:1] in (".", "'") else text


def _item(head: str, text: str) -> List[str]:
    return [".TP", f"\\fB{_plain(head)}\\fR", _plain(text)]


def manual(version: str) -> str:
    """Return the page ggen-gvisor(1) as roff."""
    lines = [f'.TH {NAME.upper()} 1 "" "ggen.gvisor {version}" "User Commands"', ".SH NAME", f"{_plain(NAME)} \\- {_plain(SUMMARY)}"]
    lines += [".SH SYNOPSIS"]
    for verb in VERBS:
        lines += [f"\\fB{_plain(usage_of(verb))}\\fR", ".br"]
    lines += [".SH DESCRIPTION"]
    for text in DESCRIPTION:
        lines += [_plain(text), ".PP"]
    lines += [".SH VERBS"]
    for verb in VERBS:
        lines += [f".SS {_plain(verb.name)}"]
        for text in verb.description:
            lines += [_plain(text), ".PP"]
        for option in verb.options:
            value = f" \\fI{_plain(option.metavar)}\\fR" if option.metavar else ""
            names = ", ".join(f"\\fB{_plain(name)}\\fR" for name in filter(None, (option.short, option.name)))
            lines += [".TP", f"{names}{value}", _plain(f"{option.help}.")]
    lines += [".SH EXIT STATUS", "Any code that is not here is the command's own.", ".PP"]
    for code, meaning in EXIT_CODES:
        lines += _item(str(code), meaning)
    lines += [".SH FILES"]
    for path, meaning in FILES:
        lines += _item(path, meaning)
    lines += [".SH EXAMPLES"]
    for command, meaning in EXAMPLES:
        lines += _item(command, meaning)
    return "\n".join(lines) + "\n"
