# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a workspace has beside files: folders that are empty or get other modes count as changes, and hard links stay some in copies."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox import workspace


@pytest.fixture(name="tree")
def fixture_tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "full/deep").mkdir(parents=True)
    (root / "empty").mkdir()
    (root / "full/deep/file").write_text("1")
    (root / "file").write_text("2")
    return root


def scan(path: Path, known: workspace.Scan | None = None) -> workspace.Scan:
    root = os.open(path, workspace.FOLDER)
    try:
        return workspace.scan(root, time.monotonic() + 60, known)
    finally:
        os.close(root)


def changes(before: workspace.Scan, after: workspace.Scan, *patterns: str) -> dict[str, tuple[str, str]]:
    ignored = workspace.ignore_matcher(patterns)
    paths = workspace.differences(before, after)
    rows = workspace.compare(before, after, paths, ignored)
    counted = workspace.counts(before, after, paths, ignored)
    assert [counted[key] for key in ("created", "modified", "removed")] == [
        sum(row["change"] == key for row in rows) for key in ("created", "modified", "removed")
    ]
    assert counted["ignored"] == sum(row["ignored"] for row in rows)
    assert len(workspace.diffs(before, after, paths, ignored)) == sum(not row["ignored"] for row in rows)
    return {row["path"]: (row["change"], row["kind"]) for row in rows}


def test_folders_that_nothing_else_tells_of_count(tree: Path) -> None:
    before = scan(tree)
    (tree / "new/inner").mkdir(parents=True)
    (tree / "with").mkdir()
    (tree / "with/file").touch()
    (tree / "empty").rmdir()
    (tree / "full/deep").chmod(0o700)
    after = scan(tree, before)
    assert changes(before, after) == {
        "empty": ("removed", "folder"),
        "full/deep": ("modified", "folder"),
        "new/inner": ("created", "folder"),
        "with/file": ("created", "file"),
    }
    assert changes(before=after, after=before)["new/inner"] == ("removed", "folder")
    assert changes(after, after) == {}


def test_files_and_folders_in_each_other_s_place(tree: Path) -> None:
    before = scan(tree)
    (tree / "file").unlink()
    (tree / "file").mkdir()
    (tree / "empty").rmdir()
    (tree / "empty").write_text("now a file")
    (tree / "full/deep/file").unlink()
    (tree / "full/deep").rmdir()
    (tree / "full").rmdir()
    (tree / "full").symlink_to("file")
    after = scan(tree, before)
    assert changes(before, after) == {
        "empty": ("modified", "file"),
        "file": ("modified", "folder"),
        "full": ("created", "symlink"),
        "full/deep/file": ("removed", "file"),
    }
    assert changes(before=after, after=before) == {
        "empty": ("modified", "folder"),
        "file": ("modified", "file"),
        "full": ("removed", "symlink"),
        "full/deep/file": ("created", "file"),
    }


@pytest.mark.parametrize(("pattern", "ignored"), [("new/**", True), ("new", True), ("**", True), ("other/**", False), ("new/x", False)])
def test_a_folder_is_ignored_with_what_is_in_it(tree: Path, pattern: str, ignored: bool) -> None:
    before = scan(tree)
    (tree / "new").mkdir()
    after = scan(tree, before)
    (row,) = workspace.compare(before, after, workspace.differences(before, after), workspace.ignore_matcher([pattern]))
    assert (row["path"], row["ignored"]) == ("new", ignored)
    changes(before, after, pattern)


def test_a_copy_has_the_hard_links(tree: Path, tmp_path: Path) -> None:
    os.link(tree / "full/deep/file", tree / "other")
    os.link(tree / "full/deep/file", tree / "empty/third")
    os.link(tree / "file", tmp_path / "outside")
    copy = tmp_path / "copy"
    copy.mkdir()
    reader, writer = os.open(tree, workspace.FOLDER), os.open(copy, workspace.FOLDER)
    assert workspace.copy_tree(reader, writer, time.monotonic() + 60) == []
    assert len({(copy / name).stat().st_ino for name in ("full/deep/file", "other", "empty/third")}) == 1
    assert [(copy / name).stat().st_nlink for name in ("other", "file")] == [3, 1]
    assert changes(scan(tree), scan(copy)) == {}
    (copy / "other").write_text("written once")
    assert changes(scan(tree), scan(copy)) == dict.fromkeys(("full/deep/file", "other", "empty/third"), ("modified", "file"))
    os.close(reader)
    os.close(writer)
