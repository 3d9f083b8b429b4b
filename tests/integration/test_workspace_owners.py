# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A copy of a workspace keeps what only root may give: the owners."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.workspace import (
    compare,
    copy_tree,
    scan,
)


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
