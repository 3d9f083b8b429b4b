# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Scanning, comparing and copying a workspace, also a hostile one."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
from ansible_collections.ggen.gvisor.plugins.module_utils._command.verbs import patch
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.workspace import (
    MAX_DIFF,
    MAX_DIFF_WORK,
    MAX_LISTED,
    MAX_LISTED_PATHS,
    Entry,
    contents_differ,
    counts,
    diff_work,
    differences,
    ignore_matcher,
    listed,
)
from hypothesis import given
from hypothesis import strategies as st
from support.trees import NONE, changes, compare, copy_tree, diffs, make_tree, nest, nothing, scan


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return make_tree(tmp_path / "tree")


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
    listed = compare(NONE, scan(str(tmp_path)), nothing)
    assert {item["path"] for item in listed} == {name.decode("utf-8", "backslashreplace").replace("\n", "\\n") for name in names}


def test_deep_nesting(tmp_path: Path) -> None:
    """… beyond what a path may have in characters."""
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    try:
        nest(source, 3000, "file")
        found = scan(source)
        assert [(len(path), entry.mode) for path, entry in found.items()] == [(6004, 0o4755)]
        assert found.missed == 0
        copy_tree(source, target)
        assert changes(found, scan(target)) == {}
    finally:
        subprocess.run(["rm", "-rf", source, target], check=True)  # Python's own rmtree recurses, and pytest's with it


def test_a_bound_is_told_and_what_was_not_seen_is_not_taken_for_removed(tmp_path: Path) -> None:
    for number in range(50):
        (tmp_path / f"{number}").write_text("x")
    before = scan(tmp_path)
    after = scan(tmp_path, before, most=20)
    assert (after.missed, after.problems) == (1, [": more than 20 files and folders"])
    assert changes(before, after) == {}
    late = scan(tmp_path, seconds=-1)
    assert "the time for looking was over" in late.problems[0]


def test_a_huge_sparse_file_takes_no_time(tmp_path: Path) -> None:
    """Its digest is of its data, wherever the file system has made holes."""
    sparse = tmp_path / "sparse"
    with sparse.open("wb") as stream:
        stream.truncate(1 << 40)
        stream.seek(1 << 39)
        stream.write(b"data")
    begin = time.monotonic()
    before = scan(tmp_path)
    with tempfile.TemporaryDirectory() as copy:
        copy_tree(tmp_path, copy)
        with Path(copy, "sparse").open("r+b") as stream:
            stream.seek(1 << 30)
            stream.write(b"\0" * 300000)
        assert changes(before, scan(copy)) == {}
        assert Path(copy, "sparse").stat().st_blocks * 512 < 1 << 20
    with sparse.open("r+b") as stream:
        stream.seek(1 << 38)
        stream.write(b"x")
    assert changes(before, scan(tmp_path, before)) == {"sparse": "modified"}
    assert compare(before, scan(tmp_path, before), nothing)[0]["sha256"] == ""
    assert time.monotonic() - begin < 5


@pytest.mark.parametrize(
    "pieces", [[(0, b"begin")], [(100 << 20, b"middle")], [(0, b"a"), (3 << 20, b"b" * 70000), ((200 << 20) - 1, b"z")], []]
)
def test_a_sparse_file_has_the_digest_of_its_bytes_where_it_is_asked_for(tmp_path: Path, pieces: list[tuple[int, bytes]]) -> None:
    sparse = tmp_path / "sparse"
    with sparse.open("wb") as stream:
        stream.truncate(200 << 20)
        for place, data in pieces:
            stream.seek(place)
            stream.write(data)
    whole = hashlib.sha256(sparse.read_bytes()).hexdigest()
    assert compare(NONE, scan(tmp_path, holes=200 << 20), nothing)[0]["sha256"] == whole
    assert compare(NONE, scan(tmp_path, holes=100 << 20), nothing)[0]["sha256"] == ""
    before = scan(tmp_path)
    time.sleep(0.1)
    os.utime(sparse)
    assert scan(tmp_path, before, holes=200 << 20)["sparse"].whole == ""  # the bytes are those that were there


def entry(kind: str = "file", mode: int = 0o644, digest: str = "1", owner: tuple[int, int] = (1, 1)) -> Entry:
    return Entry(kind, mode, owner, 1, digest, None, ())


@pytest.mark.parametrize(
    ("old", "new", "differ"),
    [
        (None, entry(), True),
        (entry(), None, True),
        (entry(), entry(digest="2"), True),
        (entry(), entry("symlink"), True),
        (entry("folder"), entry(), True),
        (entry(), entry("folder"), True),
        (entry(), entry(mode=0o755), True),
        (entry(), entry(mode=0o600), False),
        (entry(), entry(owner=(2, 2)), False),
        (None, entry("folder"), False),
        (entry("folder"), entry("folder", 0o700), False),
    ],
)
def test_what_git_keeps_is_a_difference_of_contents(old: Entry | None, new: Entry | None, differ: bool) -> None:
    assert contents_differ(old, new) is differ


def test_the_paths_that_are_listed_are_bounded_together() -> None:
    paths = [f"{number:05}{'x' * 3000}" for number in range(1000)]
    shown = listed(paths, lambda path: path < "00900")
    assert "00999" in {path[:5] for path in shown}
    assert 0 < sum(map(len, shown)) <= MAX_LISTED_PATHS


def test_no_more_is_listed_than_there_is_room_for(tmp_path: Path) -> None:
    for number in range(MAX_LISTED + 10):
        (tmp_path / f"{number}").touch()
    (tmp_path / "z.backup").touch()
    after = scan(tmp_path)
    ignored = ignore_matcher(["?", "??", "???"])
    paths = differences(NONE, after)
    assert counts(NONE, after, paths, ignored) == {"created": MAX_LISTED + 11, "modified": 0, "removed": 0, "ignored": 1000}
    shown = listed(paths, ignored)
    assert len(shown) == MAX_LISTED
    assert shown == sorted(shown)
    assert "z.backup" in shown


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


@given(st.text("*/?ab", max_size=10), st.text("/ab", max_size=10))
def test_patterns_mean_what_their_wildcards_mean(pattern: str, path: str) -> None:
    """As a plain expression, which may try the same places again and again."""
    table = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    words = re.split(r"(^\*\*/|(?<=/)\*\*/|\*\*|\*|\?)", pattern.lstrip("/") if "/" in pattern else f"**/{pattern}")
    plain = "".join(table.get(word) or re.escape(word) for word in words if word)
    assert ignore_matcher([pattern])(path) is bool(re.fullmatch(plain, path))


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("*a*a*a*a*a*a*a*a*b", "a" * 255),
        ("**a**a**a**a**a**a**b", "a" * 20000),
        ("**/.git/modules/**/config", ".git/modules/" * 20000 + "x"),
        ("**/a/**/a/**/a/**/b", "a/" * 20000),
        ("**/*a*a*a/**/*a*a/*a*b", ("a" * 100 + "/") * 200),
        ("**/**/**/**/**/b", "a/" * 20000),
    ],
)
def test_no_pattern_and_path_take_long(pattern: str, path: str) -> None:
    begin = time.process_time()
    assert not ignore_matcher([pattern])(path)
    assert time.process_time() - begin < 2


def test_no_patterns_ignore_nothing() -> None:
    assert not ignore_matcher([])("")
    assert not ignore_matcher([])("a")


@given(st.lists(st.text(max_size=12), max_size=4), st.text(max_size=20))
def test_any_pattern_is_possible(patterns: list[str], path: str) -> None:
    assert ignore_matcher([*patterns, "**"])(path) is True
    ignore_matcher(patterns)(path)


def test_ignored_changes_are_listed(tree: Path) -> None:
    after = scan(str(tree))
    listed = compare(NONE, after, ignore_matcher(["one"]))
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


def test_a_diff_takes_seconds_whatever_the_texts_are(tmp_path: Path) -> None:
    """Lines that are made for it: hours for difflib, here, in the action and in Ansible's output."""
    texts = {other: "".join(f"{chr(0xA1 + number % 105)}\n{other}\n" for number in range(10_000)) for other in "ab"}
    for number in range(30):
        (tmp_path / f"{number}").write_text(texts["a"])
    (tmp_path / "new").write_text("made\n")
    before = scan(tmp_path, texts=True)
    for number in range(30):
        (tmp_path / f"{number}").write_text(texts["b"])
    (tmp_path / "new").write_text("made again\n")
    shown = diffs(before, scan(tmp_path, texts=True), nothing)
    begin = time.monotonic()
    lines = list(patch({"diff": shown}))
    assert time.monotonic() - begin < 30
    assert [line for line in lines if "made" in line] == ["-made\n", "+made again\n"]
    assert sum(line.startswith("+(file of 50000 bytes, sha256 ") for line in lines) == 30


def test_usual_texts_are_compared(tmp_path: Path) -> None:
    lines = [f"    line {number % 700}\n" if number % 3 else "\n" for number in range(2000)]
    changed = [line if number % 50 else "other\n" for number, line in enumerate(lines)]
    assert diff_work("".join(lines), "".join(changed)) < MAX_DIFF_WORK / 10


def test_the_texts_of_a_diff_are_bounded(tmp_path: Path) -> None:
    for number in range(100):
        (tmp_path / f"{number}").write_text("x" * 60_000)
    shown = diffs(NONE, scan(tmp_path, texts=True), nothing)
    assert len(shown) == 100
    assert sum(len(item["after"]) for item in shown) < MAX_DIFF + 100 * 200
    assert "file of 60000 bytes" in shown[-1]["after"]
