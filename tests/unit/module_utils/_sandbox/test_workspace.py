# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Scanning, comparing and copying a workspace, also a hostile one."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import time
from pathlib import Path

import pytest
from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.workspace import (
    compare,
    copy_tree,
    diffs,
    ignore_matcher,
    scan,
    strip_setid,
)
from hypothesis import given
from hypothesis import strategies as st


def nothing(_path: str) -> bool:
    return False


def changes(before: dict, after: dict) -> dict:
    return {item["path"]: item["change"] for item in compare(before, after, nothing)}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "a/b").mkdir(parents=True)
    (root / "one").write_text("1\n")
    (root / "a/two").write_text("2\n")
    (root / "a/b/three").write_bytes(b"\0" * 200000)
    (root / "link").symlink_to("/etc/passwd")
    (root / "folder-link").symlink_to("/etc")
    os.mkfifo(root / "pipe")
    return root


def test_created_modified_removed(tree: Path) -> None:
    before = scan(str(tree))
    (tree / "one").write_text("one\n")
    (tree / "a/two").unlink()
    (tree / "a/new").write_text("new")
    (tree / "link").unlink()
    (tree / "link").symlink_to("/etc/group")
    assert changes(before, scan(str(tree), before)) == {
        "one": "modified",
        "a/two": "removed",
        "a/new": "created",
        "link": "modified",
    }


def test_the_same_bytes_written_again_are_no_change(tree: Path) -> None:
    before = scan(str(tree))
    (tree / "one").write_text("1\n")
    os.utime(tree / "one", (1, 1))
    (tree / "a/b/three").write_bytes(b"\0" * 200000)
    assert changes(before, scan(str(tree), before)) == {}


def test_modes_and_owners_count(tree: Path) -> None:
    before = scan(str(tree))
    (tree / "one").chmod(0o600)
    assert changes(before, scan(str(tree), before)) == {"one": "modified"}


def test_a_change_in_the_same_instant_with_the_same_size_is_seen(tree: Path) -> None:
    """Time stamps are as coarse as the kernel's ticks; only an old one may be trusted."""
    for number in range(200):
        (tree / "one").write_text(f"{number:03}")
        before = scan(str(tree))
        (tree / "one").write_text(f"{number + 1:03}")
        os.utime(tree / "one", ns=(0, 0))
        assert changes(before, scan(str(tree), before)) == {"one": "modified"}


def test_unchanged_files_are_not_read_again(tree: Path) -> None:
    time.sleep(0.06)  # stamps get old enough to be trusted; there is no event for that
    before = scan(str(tree))
    began = os.stat(tree / "a/b/three").st_atime_ns
    forged = {path: entry._replace(digest="kept") if entry.kind == "file" else entry for path, entry in before.items()}
    after = scan(str(tree), forged)
    assert after["one"].digest == "kept"
    assert os.stat(tree / "a/b/three").st_atime_ns == began


def test_links_are_not_followed_and_pipes_do_not_block(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    shutil.copy("/etc/passwd", tmp_path / "outside")
    found = scan(str(tree))
    assert found["folder-link"].kind == "symlink"
    assert found["pipe"].kind == "fifo"
    assert not [path for path in found if path.startswith("folder-link/")]
    assert found["link"].digest != scan(str(tmp_path / "outside"))["passwd"].digest


def test_odd_names(tmp_path: Path) -> None:
    names = [b"line\nbreak", b"\xff\xfe", "grün".encode(), b"-rf", b" ", b"$(id)", b"\\", b"x" * 255]
    for name in names:
        Path(os.fsdecode(bytes(tmp_path) + b"/" + name)).write_text("x")
    listed = compare({}, scan(str(tmp_path)), nothing)
    assert {item["path"] for item in listed} == {name.decode("utf-8", "backslashreplace") for name in names}


def test_deep_nesting_is_an_error_or_works(tmp_path: Path) -> None:
    folder = os.open(tmp_path, os.O_RDONLY)
    for _level in range(1500):
        os.mkdir("d", dir_fd=folder)
        deeper = os.open("d", os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = deeper
    os.close(folder)
    try:
        scan(str(tmp_path))
    except GvisorError as error:
        assert "nested too deeply" in error.message
    finally:
        subprocess.run(["rm", "-rf", str(tmp_path / "d")], check=True)  # Python's own rmtree recurses, too


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(GvisorError, match="absent"):
        scan(str(tmp_path / "absent"))


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        (".ggen/**", ".ggen/keys/key", True),
        (".ggen/**", ".ggen/state.json", True),
        (".ggen/**", "sub/.ggen/state.json", False),
        (".ggen/**", ".ggenx/a", False),
        ("**/.ggen/**", "sub/.ggen/state.json", True),
        ("**/.ggen/**", ".ggen/state.json", True),
        ("*.backup", "out.backup", True),
        ("*.backup", "deep/er/out.backup", True),
        ("*.backup", "out.backup.txt", False),
        ("out/*.txt", "out/a.txt", True),
        ("out/*.txt", "out/b/a.txt", False),
        ("/out.txt", "out.txt", True),
        ("/out.txt", "sub/out.txt", False),
        ("a?c", "abc", True),
        ("a?c", "a/c", False),
        ("[x].txt", "[x].txt", True),
        ("[x].txt", "x.txt", False),
        ("*", "line\nbreak", True),
    ],
)
def test_ignore_patterns(pattern: str, path: str, matches: bool) -> None:
    assert ignore_matcher([pattern])(path) is matches


def test_no_patterns_ignore_nothing() -> None:
    assert not ignore_matcher([])("")
    assert not ignore_matcher([])("a")


@given(st.lists(st.text(max_size=12), max_size=4), st.text(max_size=20))
def test_any_pattern_is_possible(patterns: list[str], path: str) -> None:
    assert ignore_matcher([*patterns, "**"])(path) is True
    ignore_matcher(patterns)(path)


def test_ignored_changes_are_listed(tree: Path) -> None:
    after = scan(str(tree))
    listed = compare({}, after, ignore_matcher(["one"]))
    assert [item["path"] for item in listed if item["ignored"]] == ["one"]


def test_diffs(tree: Path) -> None:
    before = scan(str(tree), texts=True)
    (tree / "one").write_text("one\n")
    (tree / "a/two").unlink()
    (tree / "a/b/three").write_bytes(b"\1")
    (tree / "kept").write_text("ignored\n")
    shown = {item["before_header"]: item for item in diffs(before, scan(str(tree), before, True), ignore_matcher(["kept"]))}
    assert (shown["one"]["before"], shown["one"]["after"]) == ("1\n", "one\n")
    assert (shown["a/two"]["before"], shown["a/two"]["after"]) == ("2\n", "")
    assert shown["a/two"]["after_header"] == "a/two (absent)"
    assert "200000 bytes" in shown["a/b/three"]["before"]
    assert len(shown) == 3


def test_a_copy_that_does_not_fit_says_so(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copyfileobj", full)
    target = tmp_path / "copy"
    target.mkdir()
    with pytest.raises(GvisorError, match="does not fit: No space left"):
        copy_tree(str(tree), str(target))


def test_setid_bits_are_taken_off_new_files_only(tree: Path) -> None:
    (tree / "old").write_text("had it before")
    (tree / "old").chmod(0o4755)
    before = scan(str(tree))
    (tree / "one").chmod(0o6755)
    (tree / "a/new").write_text("x")
    (tree / "a/new").chmod(0o2755)
    after = scan(str(tree), before)
    assert strip_setid(str(tree), before, after) == ["a/new", "one"]
    assert stat.S_IMODE(os.stat(tree / "one").st_mode) == 0o755
    assert stat.S_IMODE(os.stat(tree / "old").st_mode) == 0o4755
    assert after["one"].mode == 0o755
