# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What gVisor's messages say of files: read, bounded and made safe to show, whatever a sandbox sends."""

from __future__ import annotations

import contextlib
import json
import os
import tracemalloc

import pytest
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox import trace
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.trace import (
    AT_FDCWD,
    EXECUTED,
    MAX_BYTES,
    MAX_MESSAGE,
    MAX_PATHS,
    OPENED,
    Collected,
    opened_in,
    workspace_first,
)
from hypothesis import given
from hypothesis import strategies as st

HIDDEN = ["/.own", "/etc/ld.so.preload"]


def number(value: int) -> bytes:
    low, rest = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + number(rest) if rest else bytes([low])


def message(*parts: tuple[int, int | bytes | str]) -> bytes:
    """A message of these fields as a sandbox sends it."""
    told = b""
    for field, value in parts:
        if isinstance(value, int):
            told += number(field << 3) + number(value)
        else:
            data = value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value
            told += number(field << 3 | 2) + number(len(data)) + data
    return told


def opened(path: str, flags: int = 0, cwd: str = "/workspace", **more: int | str) -> bytes:
    folder = [(4, more["fd"]), (5, more["fd_path"])] if "fd" in more else [(4, AT_FDCWD)]
    exit_ = message((2, more["error"])) if "error" in more else message((1, 3))
    return message(
        (1, message((2, 7), (8, cwd))), (2, exit_), (3, more.get("sysno", 257)), *folder, (6, path), *([(7, flags)] if flags else [])
    )


def executed(path: str) -> bytes:
    return message((1, message((8, "/workspace"))), (2, path), (3, path), (4, "SECRET=much too secret"))


def collect(*messages: tuple[int, bytes]) -> dict:
    found = Collected(HIDDEN)
    for kind, data in [(EXECUTED, executed("/bin/job")), *messages]:
        found.take(kind, data)
    return found.told()


@pytest.mark.parametrize(
    ("data", "ways", "path"),
    [
        (opened("a"), ["opened"], "/workspace/a"),
        (opened("../etc/x//y/./z"), ["opened"], "/etc/x/y/z"),
        (opened("//a"), ["opened"], "/a"),
        (opened("."), ["opened"], "/workspace"),
        (opened("a", fd=5, fd_path="/srv"), ["opened"], "/srv/a"),
        (opened("/a", fd=5, fd_path="/srv"), ["opened"], "/a"),
        (opened("a", os.O_WRONLY | os.O_CREAT), ["written"], "/workspace/a"),
        (opened("a", os.O_RDWR), ["opened", "written"], "/workspace/a"),
        (opened("a", os.O_TRUNC), ["opened", "written"], "/workspace/a"),
        (opened("a", sysno=85), ["written"], "/workspace/a"),
        (opened("a", 0o10000000), [], "/workspace/a"),
        (opened("a", error=2), [], ""),
        (opened("a\udcff"), ["opened"], "/workspace/a\udcff"),
    ],
)
def test_what_a_message_says(data: bytes, ways: list[str], path: str) -> None:
    assert opened_in(data) == (ways, path)


def test_what_is_before_the_command_or_the_pod_s_own_is_not_told() -> None:
    found = Collected(HIDDEN)
    for kind, data in [
        (OPENED, opened("/dev/null")),
        (EXECUTED, executed("/.own/env")),
        (OPENED, opened("/etc/ld.so.preload")),
        (EXECUTED, executed("/bin/job")),
        (OPENED, opened("/etc/ld.so.preload")),
        (OPENED, opened("/etc/ld.so.preloaded")),
        (EXECUTED, executed("/.own/dd")),
        (99, b"\xff"),
    ]:
        found.take(kind, data)
    assert found.told() == {"opened": ["/etc/ld.so.preloaded"], "written": [], "executed": ["/bin/job"], "truncated": False}


def test_nothing_of_the_environment_is_kept() -> None:
    assert "secret" not in json.dumps(collect((EXECUTED, executed("/bin/x"))))


def test_names_are_safe_to_show() -> None:
    found = collect((OPENED, opened("a\n/forged")), (OPENED, opened("\x1b[2J")), (OPENED, opened("\udcff")))
    assert found["opened"] == ["/workspace/\\x1b[2J", "/workspace/\\xff", "/workspace/a\\n/forged"]


def test_it_is_bounded_and_the_workspace_has_room_of_its_own() -> None:
    many = [(OPENED, opened(f"/other/{number}")) for number in range(MAX_PATHS + 5)]
    found = collect(*many, (OPENED, opened("late")))
    assert (len(found["opened"]), found["truncated"]) == (MAX_PATHS, True)  # the program is one of the others
    assert "/workspace/late" in found["opened"]
    long = [(OPENED, opened(f"/{'x' * 4000}{number}")) for number in range(1000)]
    found = collect(*long)
    assert found["truncated"]
    assert sum(map(len, found["opened"])) <= MAX_BYTES


def test_the_workspace_comes_first() -> None:
    told = {"opened": ["/a", "/workspace", "/workspace/z", "/workspaces/1/x"], "truncated": True}
    assert workspace_first(told, "/workspace") == {"opened": ["/workspace", "/workspace/z", "/a", "/workspaces/1/x"], "truncated": True}
    assert workspace_first(told, "/workspaces/1")["opened"][0] == "/workspaces/1/x"


@pytest.mark.parametrize("data", [b"\xff", b"\x80" * 20, b"\x0a\x7f", b"\x09", message((6, 5)), message((1, 5)), message((2, 5))])
def test_what_makes_no_sense_is_dropped(data: bytes) -> None:
    found = collect((OPENED, data))
    assert (found["opened"], found["executed"], found["truncated"]) == ([], ["/bin/job"], True)


@given(st.sampled_from([OPENED, EXECUTED]), st.binary(max_size=200))
def test_no_message_does_harm(kind: int, data: bytes) -> None:
    told = collect((kind, data))
    assert set(told) == {"opened", "written", "executed", "truncated"}
    json.dumps(told).encode("ascii")
    with contextlib.suppress(ValueError):
        list(trace.fields(data))


def test_messages_that_are_remembered_take_little_memory() -> None:
    """The path of the folder that a command is in is as long as the command wants, and comes with each of its messages."""
    found = Collected(HIDDEN)
    found.take(EXECUTED, executed("/bin/job"))
    folder = "/workspace/" + "x" * (MAX_MESSAGE - 100)
    tracemalloc.start()
    for count in range(400):
        found.take(OPENED, opened(f"../../{count}", cwd=folder))
    _now, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 32 << 20
