# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Cleaning and removing trees of somebody hostile, with what only root can make there: other people's files, mounts, files that cannot be changed."""

from __future__ import annotations

import os
import stat
import subprocess
import time
from pathlib import Path

import pytest
from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox import cleaning
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.cleaning import Note, clean, clean_noted, look_for_kept
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.mount_points import make_points
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.pod import Mount
from support.trees import later, nest, opened, remove

USER = 1234


def bits(path: Path) -> str:
    return f"{stat.S_IMODE(path.lstat().st_mode):04o}"


def cleaned(root: Path, kept: dict | None = None, private: tuple[str, ...] = (), uid: int = USER) -> tuple[list[str], list[str]]:
    with opened(root) as descriptor:
        done = clean(descriptor, Note("", str(root), [], uid, kept or {}, list(private)))
    return done.stripped, done.problems


def make(path: Path, mode: int, owner: int = USER, text: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    os.chown(path, owner, owner)
    path.chmod(mode)
    return path


def test_removing_goes_on_after_trouble_and_says_so(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "a").mkdir(parents=True)
    (tree / "a/file").touch()
    (tree / "b").touch()
    subprocess.run(["chattr", "+i", tree / "a/file"], check=True)
    try:
        left = remove(tree)
    finally:
        subprocess.run(["chattr", "-i", tree / "a/file"], check=True)
    assert left[0] == "a/file: Operation not permitted"
    assert [path.name for path in tree.iterdir()] == ["a"]
    assert remove(tree) == []
    assert remove(tree) == []
    assert not tree.exists()


def test_what_is_mounted_below_is_not_emptied(tmp_path: Path) -> None:
    tree, precious = tmp_path / "tree", tmp_path / "precious"
    (tree / "mount").mkdir(parents=True)
    precious.mkdir()
    (precious / "file").touch()
    subprocess.run(["mount", "--bind", precious, tree / "mount"], check=True)
    try:
        assert "something is mounted here" in remove(tree)[0]
        assert (precious / "file").exists()
    finally:
        subprocess.run(["umount", tree / "mount"], check=True)
    assert remove(tree) == []


def test_set_id_bits_are_taken_off(tmp_path: Path) -> None:
    for name in ("same", "replaced", "rewritten", "touched"):
        make(tmp_path / name, 0o4755)
    with opened(tmp_path) as descriptor:
        kept = look_for_kept(descriptor, later())
    time.sleep(0.05)  # no two changes in one tick of the clock
    make(tmp_path / "a/new", 0o6755)
    make(tmp_path / "root-s", 0o4755, owner=0)
    make(tmp_path / "other", 0o4755, text="y").rename(tmp_path / "replaced")
    make(tmp_path / "rewritten", 0o4755, text="y")
    os.utime(tmp_path / "rewritten", ns=(0, 0))
    (tmp_path / "touched").chmod(0o755)
    (tmp_path / "touched").chmod(0o4755)
    assert cleaned(tmp_path, kept) == (["a/new", "replaced", "rewritten", "root-s", "touched"], [])
    assert bits(tmp_path / "same") == "4755"
    assert {bits(tmp_path / name) for name in ("a/new", "replaced", "rewritten", "touched", "root-s")} == {"0755"}


def test_depth_does_not_keep_a_bit(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    request.addfinalizer(lambda: subprocess.run(["rm", "-rf", tmp_path], check=True))
    nest(tmp_path, 1500, "file")
    nest(tmp_path / "d", 0, "file")
    assert len(cleaned(tmp_path)[0]) == 2
    assert cleaned(tmp_path) == ([], [])
    assert remove(tmp_path / "d") == []


def test_a_hard_link_to_somebody_else_s_file_is_named_and_left_alone(tmp_path: Path) -> None:
    system = make(tmp_path / "system", 0o4755, owner=0)
    secret = make(tmp_path / "secret", 0o644, owner=0)
    tree = tmp_path / "tree"
    make(tree / "mine", 0o4755)
    os.link(system, tree / "sudo")
    os.link(secret, tree / "key")
    tree.chmod(0o755)
    stripped, problems = cleaned(tree, private=("key",))
    assert stripped == ["mine"]
    assert any("sudo: mode 4755 was left, as the file belongs to 0 and has other names" in problem for problem in problems)
    assert any(problem.startswith("key: ") for problem in problems)
    assert (bits(system), bits(secret)) == ("4755", "0644")
    assert bits(tree) == "0700"  # nobody else comes to what could not be made harmless


def test_a_file_of_somebody_else_s_whose_names_are_all_here_loses_its_bits(tmp_path: Path) -> None:
    """An image that is root in its sandbox gives a file of root's a second name, so that it is taken for one of the system's."""
    tree = tmp_path / "tree"
    root_s = make(tree / "a/shell", 0o4755, owner=0)
    os.link(root_s, tree / "b")
    os.link(root_s, tree / "a/third")
    tree.chmod(0o755)
    assert cleaned(tree)[1] == []
    assert (bits(root_s), bits(tree)) == ("0755", "0755")


def test_private_files_are_closed_and_no_link_is_followed(tmp_path: Path) -> None:
    outside = make(tmp_path / "outside/key", 0o644)
    tree = tmp_path / "tree"
    make(tree / "keys/key", 0o664)
    (tree / "link").symlink_to(outside)
    (tree / "out").symlink_to(outside.parent)
    assert cleaned(tree, private=("keys/key", "link", "out/key", "absent", "keys/key/x")) == ([], [])
    assert (bits(tree / "keys/key"), bits(outside)) == ("0600", "0644")


def test_a_file_that_was_mounted_alone(tmp_path: Path) -> None:
    file = make(tmp_path / "file", 0o6755)
    descriptor = os.open(file, os.O_PATH)
    assert clean(descriptor, Note("", "", [], USER, {}, [])).count == 1
    os.close(descriptor)
    assert bits(file) == "0755"


def test_a_note_without_its_mount_goes_by_the_path_and_follows_no_link(tmp_path: Path) -> None:
    """… after a restart of the host."""
    home, system = tmp_path / "home", tmp_path / "system"
    home.mkdir()
    os.chown(home, USER, USER)
    make(home / "model/file", 0o4755)
    make(system / "file", 0o4755, owner=0)
    status = (home / "model").stat()
    note = Note("/nonexistent/mount", str(home / "model"), [status.st_dev, status.st_ino], USER, {}, [])._asdict()
    (home / "model").rename(home / "old")
    (home / "model").symlink_to(system)
    with pytest.raises(GvisorError, match="is a link"):
        clean_noted(note)
    (home / "model").unlink()
    (home / "model").mkdir()
    with pytest.raises(GvisorError, match="is another folder now"):
        clean_noted(note)
    (home / "model").rmdir()
    (home / "old").rename(home / "model")
    assert clean_noted(note).stripped == ["file"]
    assert bits(system / "file") == "4755"


def test_bits_come_off_where_what_is_protected_cannot_be_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shell, key = make(tmp_path / "tree/shell", 0o4755), make(tmp_path / "tree/key", 0o644)

    def fail(*_args: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(cleaning, "take_away", fail)
    guard = {"patterns": [".envrc"], "rows": {}}
    with opened(tmp_path / "tree") as descriptor:
        done = clean(descriptor, Note("", str(tmp_path / "tree"), [], USER, {}, ["key"], guard))
    assert (bits(shell), bits(key)) == ("0755", "0600")
    assert (done.stripped, done.problems) == (["shell"], ["what is protected could not be looked at: Input/output error"])


def test_a_folder_that_is_made_for_a_mount_is_not_exchanged_for_one_of_root_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The workspace's owner can rename what lies in his folder, whoever it belongs to, between two calls of root's."""
    workspace, victim = tmp_path / "workspace", tmp_path / "workspace/victim"
    make(victim / "secret", 0o600, owner=0)
    victim.chmod(0o700)
    os.chown(workspace, USER, USER)
    (tmp_path / "source").mkdir()
    mkdir = os.mkdir

    def swap(name: str, *args: object, **options: object) -> None:
        mkdir(name, *args, **options)
        (workspace / name).rmdir()
        victim.rename(workspace / name)

    monkeypatch.setattr(os, "mkdir", swap)
    mounts = [Mount(str(workspace), "/workspace", True), Mount(str(tmp_path / "source"), "/workspace/data")]
    with pytest.raises(GvisorError, match="data was exchanged while it was made"):
        make_points(str(tmp_path), mounts)
    there = (workspace / "data").stat()
    assert (there.st_uid, stat.S_IMODE(there.st_mode)) == (0, 0o700)
