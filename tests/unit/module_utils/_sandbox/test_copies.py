# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A workspace goes to a host as it is here and is here afterwards as the run left it there: packed, unpacked, changed and written back, without a run."""

from __future__ import annotations

import os
import random
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox import copies, workspace
from ansible_collections.ggen.gvisor.plugins.plugin_utils._transfer.workspace_copy import pack, write_back
from hypothesis import given, settings
from hypothesis import strategies as st

# Characters that mean something to one of the two sides, and bytes that are no text.
NAMES = [b"a", b"b", b"c", b"\xff\xfe", "grün".encode(), b"per%20cent", b"line\nbreak", b"-rf", b" ", b"\\xff", "ü".encode() * 127]

# Whoever is not root cannot look into what they may not enter.
MODES = [0o755, 0o700, 0o777, *([0o644, 0o600, 0o444] if os.geteuid() == 0 else [])]


def everything(root: Path) -> dict[str, tuple]:
    """All that a copy must keep: kind, permissions, time, and the bytes or the target; and which names are of one file."""
    found, names = {}, {}
    for folder, folders, files in os.walk(root):
        for name in [*folders, *files]:
            path = os.path.join(folder, name)
            status = os.lstat(path)
            content: object = None
            if stat.S_ISREG(status.st_mode):
                content = Path(path).read_bytes(), names.setdefault(status.st_ino, min(_names(root, status.st_ino)))
            elif stat.S_ISLNK(status.st_mode):
                content = os.readlink(path)
            found[os.path.relpath(path, root)] = (stat.S_IFMT(status.st_mode), stat.S_IMODE(status.st_mode), status.st_mtime_ns, content)
    return found


def _names(root: Path, inode: int) -> list[str]:
    return [
        os.path.relpath(os.path.join(folder, name), root)
        for folder, _folders, files in os.walk(root)
        for name in files
        if os.lstat(os.path.join(folder, name)).st_ino == inode
    ]


class Copy:
    """A workspace here and its copy there."""

    def __init__(self, top: Path, make: Callable[[Path], object]) -> None:
        self.here, self.there = top / "here", top / "there"
        self.here.mkdir()
        make(self.here)
        archive = str(top / "archive.tar")
        self.sent = pack(str(self.here), archive)
        workspace.unpack(archive, str(self.there), os.getuid(), os.getgid())
        copies.dress(archive, str(self.there))

    def run(self, change: Callable[[Path], object]) -> tuple[list[str], list[str]]:
        """Change the copy as a run does, write back, and return the remarks and the paths that the result lists."""
        root, late = os.open(self.there, workspace.FOLDER), time.monotonic() + 60
        try:
            tree, before = copies.tree_of(root, late), workspace.scan(root, late)
            change(self.there)
            after = workspace.scan(root, late, before)
            contents = copies.changes_of(root, tree, before, after, late)
            return write_back(str(self.here), self.sent, contents), workspace.differences(before, after)
        finally:
            os.close(root)


class Hand:
    """Somebody who does anything to a folder, for ever the same for one seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)  # noqa: S311 - nothing depends on it but the test

    def make(self, root: Path) -> None:
        for _number in range(self.random.randrange(12)):
            self.step(root)

    def change(self, root: Path) -> None:
        for _number in range(self.random.randrange(1, 12)):
            self.step(root)

    def paths(self, root: Path, wanted: Callable[[str], bool]) -> list[str]:
        found = [os.path.join(folder, name) for folder, folders, files in os.walk(root) for name in [*folders, *files]]
        return sorted(path for path in found if wanted(path))

    def place(self, root: Path) -> str:
        folders = [str(root), *self.paths(root, lambda path: os.path.isdir(path) and not os.path.islink(path))]
        return os.path.join(self.random.choice(folders), os.fsdecode(self.random.choice(NAMES)))

    def step(self, root: Path) -> None:
        things = self.paths(root, lambda _path: True)
        files = [path for path in things if os.path.isfile(path) and not os.path.islink(path)]
        solid = [path for path in things if not os.path.islink(path)]
        place, data = self.place(root), self.random.randbytes(self.random.choice([0, 1, 300]))
        one, other = (self.random.choice(kind) if kind else place for kind in (files, things))
        some = self.random.choice(solid) if solid else place
        actions: list[Callable[[], object]] = [
            lambda: Path(place).write_bytes(data),
            lambda: Path(one).write_bytes(data),
            lambda: os.mkdir(place),
            lambda: shutil.rmtree(other) if os.path.isdir(other) and not os.path.islink(other) else os.unlink(other),
            lambda: os.chmod(some, self.random.choice(MODES)),
            lambda: os.utime(some, ns=(1, self.random.randrange(1, 1 << 61))),
            lambda: os.rename(other, place),
            lambda: os.replace(one, place),
            lambda: os.link(one, place),
            lambda: os.symlink(self.random.choice(["a", "b/c", "./grün", "nowhere"]), place),
            lambda: (os.unlink(one), os.mkdir(one), Path(one, "a").write_bytes(data)),
            lambda: (shutil.rmtree(some), Path(some).write_bytes(data)),
        ]
        try:
            self.random.choice(actions)()
        except OSError:
            return  # it is not there, is not empty, is in itself …: nobody said that each of them works


@settings(max_examples=250, deadline=None)
@given(st.integers(min_value=0, max_value=1 << 32))
def test_here_is_what_is_there(seed: int) -> None:
    with tempfile.TemporaryDirectory() as top:
        hand = Hand(seed)
        copy = Copy(Path(top), hand.make)
        assert everything(copy.there) == everything(copy.here)
        remarks, _paths = copy.run(hand.change)
        assert remarks == []
        assert everything(copy.here) == everything(copy.there)


@settings(max_examples=150, deadline=None)
@given(st.integers(min_value=0, max_value=1 << 32))
def test_on_a_host_each_name_that_came_or_went_is_told_folders_too(seed: int) -> None:
    with tempfile.TemporaryDirectory() as top:
        hand, root = Hand(seed), Path(top, "tree")
        root.mkdir()
        hand.make(root)
        descriptor, late = os.open(root, workspace.FOLDER), time.monotonic() + 60
        (others, folders, empty), before = names_of(root), workspace.scan(descriptor, late)
        hand.change(root)
        (others_now, folders_now, empty_now), after = names_of(root), workspace.scan(descriptor, late, before)
        os.close(descriptor)
        pairs = {path: workspace.pair(before, after, path) for path in workspace.differences(before, after)}
        came = {(path, new.kind) for path, (old, new) in pairs.items() if new and not (old and old.kind == new.kind)}
        went = {(path, old.kind) for path, (old, new) in pairs.items() if old and not (new and old.kind == new.kind)}
        assert came == (others_now - others) | (empty_now - folders)
        assert went == (others - others_now) | (empty - folders_now)


def names_of(root: Path) -> tuple[set[tuple[str, str]], ...]:
    """Return what is there but folders, with kinds; the folders; and those of them that are empty."""
    kinds = {stat.S_IFREG: "file", stat.S_IFDIR: "folder", stat.S_IFLNK: "symlink"}
    found = {(path, kinds[entry[0]]) for path, entry in everything(root).items()}
    folders = {(path, kind) for path, kind in found if kind == "folder"}
    return found - folders, folders, {(path, kind) for path, kind in folders if not os.listdir(root / path)}


@pytest.fixture(name="copy")
def fixture_copy(tmp_path: Path) -> Copy:
    def make(root: Path) -> None:
        (root / "sub/empty").mkdir(parents=True)
        (root / "sub/file").write_text("1\n")
        (root / "private").write_text("2\n")
        (root / "private").chmod(0o640)
        (root / "link").symlink_to("sub/file")
        os.utime(root / "sub/file", ns=(1, 1_234_567_890_123_456_789))

    return Copy(tmp_path, make)


def replace(path: Path, text: str, mode: int) -> None:
    path.unlink()
    path.write_text(text)
    path.chmod(mode)


def test_a_link_that_becomes_a_file_has_the_file_s_mode(copy: Copy) -> None:
    copy.run(lambda root: replace(root / "link", "secret", 0o600))
    assert (copy.here / "link").read_text() == "secret"
    assert stat.S_IMODE((copy.here / "link").lstat().st_mode) == 0o600


def test_folders_and_files_in_each_other_s_place(copy: Copy) -> None:
    def change(root: Path) -> None:
        shutil.rmtree(root / "sub")
        (root / "sub").write_text("a file now")
        (root / "private").unlink()
        (root / "private/deep").mkdir(parents=True)
        (root / "private/deep/file").write_text("3")

    copy.run(change)
    assert everything(copy.here) == everything(copy.there)


def test_git_s_folders_are_a_repository(copy: Copy) -> None:
    """Git knows a repository by folders that are empty at first."""
    copy.run(lambda root: subprocess.run(["git", "init", "-q", root / "sub"], check=True))
    done = subprocess.run(["git", "-C", copy.here / "sub", "status", "--porcelain"], check=True, capture_output=True, text=True)
    assert done.stdout == "?? file\n"
    assert (copy.here / "sub/.git/refs/tags").is_dir()


def test_a_mode_that_was_changed_is_told_once(copy: Copy, tmp_path: Path) -> None:
    def change(root: Path) -> None:
        (root / "private").chmod(0o755)

    _remarks, paths = copy.run(change)
    assert (paths, stat.S_IMODE((copy.here / "private").stat().st_mode)) == (["private"], 0o755)
    (tmp_path / "again").mkdir()
    again = Copy(tmp_path / "again", lambda root: shutil.copytree(copy.here, root, symlinks=True, dirs_exist_ok=True))
    assert again.run(change) == ([], [])


def test_what_is_newer_than_what_stays_so(copy: Copy) -> None:
    """Tools that build by time do not build anew: the times there are those here, also of what was only touched."""

    def build(root: Path) -> None:
        assert (root / "sub/file").stat().st_mtime_ns == 1_234_567_890_123_456_789
        (root / "output").write_text("of sub/file")
        (root / "private").touch()

    _remarks, paths = copy.run(build)
    assert paths == ["output"]
    assert everything(copy.here) == everything(copy.there)


def test_links_that_lead_out_stay_there_and_the_rest_comes(copy: Copy) -> None:
    def change(root: Path) -> None:
        (root / "out").symlink_to("../elsewhere")
        (root / "in").symlink_to("sub/file")
        os.mkfifo(root / "sub/pipe")

    remarks, _paths = copy.run(change)
    assert remarks == [
        "out is a symlink that may lead out of the workspace, and was not copied back",
        "sub/pipe is a fifo and was not copied back",
    ]
    assert sorted(os.listdir(copy.here)) == ["in", "link", "private", "sub"]


def test_names_of_one_file_are_such_on_both_sides(tmp_path: Path) -> None:
    def make(root: Path) -> None:
        (root / "one").write_text("1")
        os.link(root / "one", root / "two")
        os.link(root / "one", root / "three")

    def change(root: Path) -> None:
        (root / "two").write_text("through all")
        replace(root / "three", "of its own", 0o600)
        os.link(root / "three", root / "four")

    copy = Copy(tmp_path, make)
    copy.run(change)
    assert everything(copy.here) == everything(copy.there)
    assert (copy.here / "one").read_text() == "through all"
    assert (copy.here / "one").stat().st_ino == (copy.here / "two").stat().st_ino
