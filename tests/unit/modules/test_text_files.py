# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""text_files: whole or not at all, in order, and never over what somebody edited."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from support.module import fork_module, fork_modules

FILES = {"ggen.toml": "[project]\n", "queries/deep/ä.rq": "SELECT ?s\n", ".example": "1"}


def bits(path: Path) -> str:
    return f"{stat.S_IMODE(path.stat().st_mode):04o}"


def test_all_files_in_one_execution_and_nothing_a_second_time(tmp_path: Path) -> None:
    folder = tmp_path / "above" / "folder"
    umask = os.umask(0o077)
    try:
        first = fork_module("text_files", path=str(folder), files=FILES, stamp=".example")
    finally:
        os.umask(umask)
    assert (first["changed"], first["found"], first["written"]) == (True, False, ["ggen.toml", "queries/deep/ä.rq", ".example"])
    assert {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()} == FILES
    assert [bits(folder.parent), bits(folder / "queries" / "deep"), bits(folder / "ggen.toml")] == ["0755", "0755", "0644"]
    again = fork_module("text_files", path=str(folder), files=FILES)
    assert (again["changed"], again["found"], again["written"], again["diff"]) == (False, True, [], [])


def test_a_check_run_shows_and_writes_nothing(tmp_path: Path) -> None:
    (tmp_path / "ggen.toml").write_text("old\n")
    shown = fork_module("text_files", path=str(tmp_path), files=FILES, check=True)
    assert shown["written"] == list(FILES)
    assert (shown["diff"][0]["before"], shown["diff"][0]["after"]) == ("old\n", "[project]\n")
    assert [path.name for path in tmp_path.iterdir()] == ["ggen.toml"]


def test_what_somebody_edited_stays_until_the_mark_is_another(tmp_path: Path) -> None:
    options = {"path": str(tmp_path), "stamp": ".example"}
    fork_module("text_files", files=FILES, **options)
    (tmp_path / "ggen.toml").write_text("mine\n")
    assert fork_module("text_files", files=FILES, **options)["written"] == []
    assert (tmp_path / "ggen.toml").read_text() == "mine\n"
    # The stamp comes last wherever it stands: a run that is broken off begins again.
    newer = {".example": "2", **{name: text for name, text in FILES.items() if name != ".example"}}
    assert fork_module("text_files", files=newer, **options)["written"] == ["ggen.toml", ".example"]
    assert (tmp_path / "ggen.toml").read_text() == "[project]\n"


@pytest.mark.parametrize("name", ["/etc/passwd", "../out", "a/../../out", ".", "..", "a//b", ""])
def test_a_path_that_is_not_below_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    refused = fork_module("text_files", path=str(tmp_path / "in"), files={"first": "1", name: "x"})
    assert refused["failed"]
    assert f"{name!r} is not a path below {tmp_path}/in" in refused["msg"]
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refused = fork_module("text_files", path=str(tmp_path / "file"), files={"one": "1"})
    assert refused["failed"]
    assert f"{tmp_path}/file" in refused["msg"]
    unknown = fork_module("text_files", path=str(tmp_path), files={"one": "1"}, stamp="two")
    assert "stamp: 'two' is none of the files (one)" in unknown["msg"]


def test_runs_at_the_same_time_all_succeed(tmp_path: Path) -> None:
    """Each of several controllers may be the one that makes a folder."""
    for turn in range(6):
        folder = tmp_path / f"{turn}" / "a" / "b" / "c" / "d"
        results = fork_modules("text_files", [{"path": str(folder), "files": {"installed.json": "{}"}}] * 8)
        assert [result["msg"] for result in results if result["failed"]] == []
        assert (folder / "installed.json").read_text() == "{}"
