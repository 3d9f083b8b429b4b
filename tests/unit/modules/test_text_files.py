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


def test_what_a_user_put_there_is_not_written_through(tmp_path: Path) -> None:
    """A job, or the owner, has the folder between two runs of root."""
    folder, victim, victims = tmp_path / "folder", tmp_path / "victim", tmp_path / "victims"
    for one in (folder, victims):
        one.mkdir()
    os.chown(folder, 1234, 1234)
    victim.write_text("victim")
    (folder / "ggen.toml").symlink_to(victim)
    os.mkfifo(folder / ".example")
    written = run_module("text_files", path=str(folder), files={"ggen.toml": "new", ".example": "1"})
    assert written["written"] == ["ggen.toml", ".example"]
    assert (victim.read_text(), (folder / "ggen.toml").read_text(), (folder / "ggen.toml").stat().st_uid) == ("victim", "new", 1234)
    assert "victim" not in str(written["diff"])
    (folder / "queries").symlink_to(victims)
    refused = run_module("text_files", path=str(folder), files={"queries/x": "new"})
    assert refused["failed"]
    assert f"{folder}/queries/x" in refused["msg"]
    assert list(victims.iterdir()) == []
    (folder / "link").symlink_to(victims)
    refused = run_module("text_files", path=str(folder / "link"), files={"x": "new"})
    assert "is a link" in refused["msg"]
    assert list(victims.iterdir()) == []


def test_a_folder_of_root_s_is_given_to_its_owner(tmp_path: Path) -> None:
    folder = tmp_path / "above/folder"
    options = {"path": str(folder), "files": FILES, "owner": "1234:4321"}
    shown = run_module("text_files", **options, check=True)
    assert (shown["changed"], folder.exists()) == (True, False)
    assert run_module("text_files", **options)["changed"]
    assert not run_module("text_files", **options)["changed"]
    owners = {(path.stat().st_uid, path.stat().st_gid) for path in [folder, *folder.rglob("*")]}
    assert (owners, folder.parent.stat().st_uid) == ({(1234, 4321)}, 0)
    old = tmp_path / "old"
    assert run_module("text_files", path=str(old), files=FILES)["changed"]
    other = tmp_path / "other"
    other.write_text("x")
    os.link(other, old / "hard")
    assert run_module("text_files", **{**options, "path": str(old)})["written"] == []
    assert {path.stat().st_uid for path in [old, *old.rglob("*")] if path.name != "hard"} == {1234}
    assert other.stat().st_uid == 0
    (tmp_path / "mine").mkdir()
    os.chown(tmp_path / "mine", 5, 5)
    assert run_module("text_files", **{**options, "path": str(tmp_path / "mine")})["changed"]
    assert (tmp_path / "mine/ggen.toml").stat().st_uid == 5
    assert "in numbers" in run_module("text_files", **{**options, "owner": "nobody"})["msg"]
