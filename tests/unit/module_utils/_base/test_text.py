# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Text that a job, an image or a host has chosen is shown and not obeyed."""

from __future__ import annotations

import unicodedata

import pytest
from ansible.module_utils._internal import _messages
from ansible_collections.ggen.gvisor.plugins.module_utils._base.text import few, visible, visible_all, visible_line, visible_result


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]52;c;ZXZpbA==\x07", r"\x1b]52;c;ZXZpbA==\x07"),
        ("\x1b]0;title\x1b\\", r"\x1b]0;title\x1b" + "\\"),
        ("\x9b2J", r"\x9b2J"),
        ("fine\rbad", r"fine\rbad"),
        ("a\u202eb\u2066c\u061cd", r"a\u202eb\u2066c\u061cd"),
        ("\udcff\ud800", r"\xff\ud800"),
        ("in\U000e0041visible\u200b", r"in\U000e0041visible\u200b"),
        ("line\u2028line\x85line\x0bline", r"line\u2028line\x85line\x0bline"),
        ("a\tb\nc", "a\tb\nc"),
        ("Grüße, 你好, مرحبا, می‌خواهم, 👩‍🔬", "Grüße, 你好, مرحبا, می‌خواهم, 👩‍🔬"),
    ],
)
def test_what_a_terminal_would_obey_is_shown(text: str, shown: str) -> None:
    assert visible(text) == shown
    assert visible(shown) == shown


def test_no_control_character_and_no_surrogate_passes() -> None:
    passed = {chr(code) for code in range(0x110000) if visible(chr(code)) == chr(code)}
    assert {letter for letter in passed if unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp")} == {"\n", "\t"}
    assert not [
        letter for letter in passed if unicodedata.bidirectional(letter) in ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
    ]
    "".join(passed).encode()


def test_a_name_is_one_line() -> None:
    assert visible_line("a\n[WARNING]: b\tc") == r"a\n[WARNING]: b\tc"


def test_what_people_are_shown_of_a_result() -> None:
    warning = _messages.WarningSummary(event=_messages.Event(msg="w\x1b"))
    part = {"msg": "\x1b", "stdout": "\x1b", "diff": [{"before": "\x1b", "after": "\r\n", "before_header": "h\x07"}]}
    result = visible_result({**part, "warnings": [warning, "\x9b"], "jobs": [part], "results": ["\x1b"], "rc": 1})
    shown = {"msg": r"\x1b", "stdout": "\x1b", "diff": [{"before": r"\x1b", "after": "\\r\n", "before_header": r"h\x07"}]}
    assert {key: value for key, value in result.items() if key != "warnings"} == {**shown, "jobs": [shown], "results": ["\x1b"], "rc": 1}
    assert result["warnings"][0].event.msg == r"w\x1b"
    assert result["warnings"][1] == r"\x9b"


def test_text_at_any_depth() -> None:
    assert visible_all({"\x1b": [("\r",), 1, None, {"a": True}]}) == {r"\x1b": [[r"\r"], 1, None, {"a": True}]}


@pytest.mark.parametrize(("count", "shown"), [(0, ""), (1, "0"), (2, "0, 1"), (3, "0, 1 and 1 more"), (9, "0, 1 and 7 more")])
def test_a_few_names_are_told_and_how_many_more_there_are(count: int, shown: str) -> None:
    assert few([str(number) for number in range(count)], 2) == shown
