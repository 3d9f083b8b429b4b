# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Trees of files, deep and hostile ones too, and what is done to a workspace, by paths instead of descriptors."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox import workspace as _workspace
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.pinned import FOLDER
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.walker import remove_tree
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.workspace import differences

NONE = _workspace.Scan()


def nothing(_path: str) -> bool:
    return False


@contextlib.contextmanager
def opened(path: object) -> Iterator[int]:
    descriptor = os.open(str(path), FOLDER)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def scan(
    path: object,
    known: object = None,
    texts: bool = False,
    seconds: float = 60,
    expected: tuple[int, int] | None = None,
    **extent: int,
) -> _workspace.Scan:
    with opened(path) as root:
        return _workspace.scan(root, time.monotonic() + seconds, known, expected, _workspace.Extent(texts, **extent))


def compare(before: dict, after: dict, ignored: object) -> list[dict]:
    return _workspace.compare(before, after, differences(before, after), ignored)


def diffs(before: dict, after: dict, ignored: object) -> list[dict]:
    return _workspace.diffs(before, after, differences(before, after), ignored)


def copy_tree(source: object, target: object, seconds: float = 60) -> list[str]:
    with opened(source) as reader, opened(target) as writer:
        return _workspace.copy_tree(reader, writer, time.monotonic() + seconds)


def changes(before: dict, after: dict) -> dict:
    return {item["path"]: item["change"] for item in compare(before, after, nothing)}


def nest(root: Path, levels: int, last: str = "") -> None:
    folder = os.open(root, os.O_RDONLY)
    for _level in range(levels):
        os.mkdir("d", dir_fd=folder)
        deeper = os.open("d", os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = deeper
    if last:
        made = os.open(last, os.O_WRONLY | os.O_CREAT, 0o600, dir_fd=folder)
        os.fchmod(made, 0o4755)
        os.close(made)
    os.close(folder)


def make_tree(root: Path) -> Path:
    """A small folder with what folders have: files, links that lead out, a pipe."""
    (root / "a/b").mkdir(parents=True)
    (root / "one").write_text("1\n")
    (root / "a/two").write_text("2\n")
    (root / "a/b/three").write_bytes(b"\0" * 200000)
    (root / "link").symlink_to("/etc/passwd")
    (root / "folder-link").symlink_to("/etc")
    os.mkfifo(root / "pipe")
    return root


def later(seconds: float = 60) -> float:
    return time.monotonic() + seconds


def remove(path: Path, seconds: float = 60) -> list[str]:
    with opened(path.parent) as above:
        return remove_tree(above, path.name, later(seconds))
