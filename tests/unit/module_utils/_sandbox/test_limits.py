# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sizes, defaults, and what is done about limits that a host cannot enforce."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox import limits as _limits
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.limits import (
    FASTEST,
    SLOWEST,
    Room,
    bytes_of,
    check_ulimits,
    default_memory,
    judge,
    limits_of,
    size_of,
    ulimits,
)

GIB = 1 << 30
OPTIONS = {"memory": None, "cpus": None, "pids": 2048, "file_size": "4G", "keep_free": None, "limits": "required"}


@pytest.mark.parametrize(("text", "count"), [("512M", 512 << 20), ("2 GiB", 2 * GIB), ("7", 7), ("0", 0), ("1t", 1 << 40)])
def test_sizes(text: str, count: int) -> None:
    assert bytes_of(text) == count


@pytest.mark.parametrize("text", ["", "-1", "lots", "5%", "1.5G", "4X"])
def test_what_is_no_size_is_named_with_its_option(text: str) -> None:
    with pytest.raises(GvisorError, match="keep_free="):
        bytes_of(text, "keep_free")


@pytest.mark.parametrize(("count", "text"), [(0, "0"), (1023, "1023"), (1536, "1K"), (6 * GIB, "6G")])
def test_sizes_for_people(count: int, text: str) -> None:
    assert size_of(count) == text


@pytest.mark.parametrize(("gigabytes", "quarter"), [(1, 1), (2, 1), (4, 1), (64, 16)])
def test_the_default_memory(tmp_path: Path, gigabytes: int, quarter: int) -> None:
    (tmp_path / "meminfo").write_text(f"MemTotal:       {gigabytes << 20} kB\nMemFree:         1 kB\n")
    assert default_memory(str(tmp_path)) == quarter * GIB


def test_the_options() -> None:
    found = limits_of(OPTIONS)
    assert (found.group.memory, found.group.pids, found.file_size, found.keep_free, found.required) == (
        default_memory(),
        2048,
        4 * GIB,
        None,
        True,
    )
    none = limits_of({**OPTIONS, "memory": "0", "pids": 0, "file_size": "0", "keep_free": "0", "limits": "best_effort"})
    assert (none.group.memory, none.group.pids, none.file_size, none.keep_free, none.required) == (None, None, None, 0, False)


def test_what_cannot_be_enforced() -> None:
    missing = {"memory=5": "no controller", "core=0": "refused"}
    assert judge({}, True, _limits.FIXES) == []
    assert judge(missing, False, _limits.FIXES)[0] == "the limit memory=5 is not enforced on this host: no controller"
    with pytest.raises(GvisorError, match=r"memory=5 .* core=0 .*memory controller.*LimitCORE=0.*best_effort") as caught:
        judge(missing, True, _limits.FIXES)
    assert caught.value.details["unenforced"] == ["core", "memory"]


@pytest.mark.parametrize(
    ("said", "size", "missing"),
    [
        ("anything\n0\n8\n", 4096, []),
        ("0\n4\n", 4096, []),  # the host's own is less
        ("0\nunlimited\n", 4096, ["file_size=4096"]),
        ("unlimited\n9\n", 4096, ["core=0", "file_size=4096"]),
        ("0\nunlimited\n", None, []),
        ("", 4096, ["core=0", "file_size=4096"]),
    ],
)
def test_what_a_shell_says_of_its_limits(said: str, size: int | None, missing: list[str]) -> None:
    assert list(check_ulimits(said, size)) == missing


def test_a_shell_limits_itself() -> None:
    assert ulimits(1).splitlines()[1] == "ulimit -f 1"
    assert ulimits(None) == "ulimit -c 0\nulimit -c\nulimit -f\n"


def room_of(monkeypatch: pytest.MonkeyPatch, keep: int | None = None, **status: int) -> tuple[str | None, float]:
    common = {"f_blocks": 100 << 18, "f_bavail": 50 << 18, "f_frsize": 4096, "f_files": 1_000_000, "f_favail": 500_000, "f_flag": 0}
    monkeypatch.setattr(_limits.os, "fstatvfs", lambda _descriptor: SimpleNamespace(**{**common, **status}))
    with Room({"here": "/"}, keep) as room:
        return room.look()


@pytest.mark.parametrize(
    ("keep", "status", "said"),
    [
        (None, {}, None),
        (None, {"f_bavail": (1 << 18) - 1}, "here: of the 1G that must stay free there (keep_free) 1023M are left"),
        (None, {"f_blocks": 1 << 18, "f_bavail": 14 << 10}, None),  # a twentieth of a gigabyte
        (None, {"f_blocks": 1 << 18, "f_bavail": 12 << 10}, "here: of the 51M that must stay free there (keep_free) 48M are left"),
        (60 * GIB, {}, "here: of the 60G that must stay free there (keep_free) 50G are left"),
        (0, {"f_bavail": 0}, None),
        (None, {"f_favail": 9_999}, "here: of the 10000 inodes that must stay free there 9999 are left"),
        (None, {"f_files": 0, "f_favail": 0}, None),  # btrfs counts none
        (None, {"f_blocks": 0, "f_bavail": 0}, None),
        (None, {"f_bavail": 0, "f_flag": os.ST_RDONLY}, None),
    ],
)
def test_room(monkeypatch: pytest.MonkeyPatch, keep: int | None, status: dict[str, int], said: str | None) -> None:
    assert room_of(monkeypatch, keep, **status)[0] == said


def test_the_less_room_the_oftener_it_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    assert room_of(monkeypatch)[1] == SLOWEST
    assert room_of(monkeypatch, f_bavail=(1 << 18) + 1)[1] == FASTEST
    assert FASTEST < room_of(monkeypatch, f_bavail=(1 << 18) + (100 << 10))[1] < SLOWEST


def test_a_file_system_is_watched_once(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with Room({"one": str(tmp_path), "two": str(tmp_path)}, None):
        assert len(os.listdir("/proc/self/fd")) == before + 1
    assert len(os.listdir("/proc/self/fd")) == before
