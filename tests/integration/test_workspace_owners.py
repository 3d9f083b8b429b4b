# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What only root can give or take is kept and noticed: owners in a copy and after a run, a file system that is full."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
from pathlib import Path

import pytest
from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from support.trees import changes, copy_tree, make_tree, scan


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return make_tree(tmp_path / "tree")


def test_what_belongs_to_somebody_else_is_named(tree: Path) -> None:
    for path in [tree, *tree.rglob("*")]:
        os.lchown(path, 1000, 1000)
    os.chown(tree / "one", 2000, 2000)
    before = scan(tree)
    (tree / "one").rename(tree / "two")
    (tree / "root-s").write_text("x")
    (tree / "a/folder").mkdir()
    (tree / "mine").touch()
    os.chown(tree / "mine", 1000, 1000)
    (tree / "common").mkdir()
    os.chown(tree / "common", 1000, 4000)
    (tree / "common").chmod(0o2775)
    (tree / "common/file").touch()
    os.chown(tree / "common/file", 1000, 4000)
    after = scan(tree, before, expected=(1000, 1000))
    assert sorted(after.strangers) == ["a/folder (0:0)", "common (1000:4000)", "root-s (0:0)"]


def test_copy(tree: Path, tmp_path: Path) -> None:
    (tree / "one").chmod(0o4755)
    (tree / "a").chmod(0o555)
    os.chown(tree / "a/two", 1234, 4321)
    os.chown(tree / "link", 1234, 4321, follow_symlinks=False)
    os.utime(tree / "a", ns=(5, 7))
    (tree / "back").symlink_to(tree)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tree / "socket"))
    target = tmp_path / "copy"
    target.mkdir()
    assert copy_tree(str(tree), str(target)) == ["pipe", "socket"]
    listener.close()
    source = scan(str(tree))
    assert dict(changes(source, scan(str(target)))) == {
        "pipe": "removed",
        "socket": "removed",
    }
    assert os.stat(target / "a").st_mtime_ns == 7
    assert stat.S_IMODE(os.stat(target / "a").st_mode) == 0o555
    assert os.lstat(target / "link").st_uid == 1234
    assert os.stat(target).st_mtime_ns == os.stat(tree).st_mtime_ns


def test_a_copy_that_does_not_fit_says_so(tree: Path, tmp_path: Path) -> None:
    target = tmp_path / "copy"
    target.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", target], check=True)
    try:
        with pytest.raises(GvisorError, match="does not fit: No space left"):
            copy_tree(str(tree), str(target))
    finally:
        subprocess.run(["umount", target], check=True)


def test_a_folder_that_becomes_a_link_while_it_is_copied_leads_nowhere(tmp_path, monkeypatch):
    """A job, or the workspace's owner, swaps names while root copies: nothing outside of the copy is touched."""
    source, target, victim = (tmp_path / name for name in ("source", "target", "victim"))
    for folder in (source, target, victim):
        folder.mkdir()
    victim.chmod(0o700)
    (source / "a").symlink_to(victim)
    real = os.readlink

    def swap(name, **options):
        found = real(name, **options)
        (source / "a").unlink()
        (source / "a").mkdir(mode=0o777)
        os.chown(source / "a", 1234, 1234)
        return found

    monkeypatch.setattr(os, "readlink", swap)
    copy_tree(str(source), str(target))
    assert (victim.stat().st_mode & 0o777, victim.stat().st_uid) == (0o700, 0)
    assert list(victim.iterdir()) == []
