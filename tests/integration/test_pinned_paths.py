# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Opening what others can change: no link that they made is followed, nothing that they put there holds up its reader."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.pinned import (
    Absent,
    LinkRefused,
    acting_as,
    own_folder,
    pin,
    read_file,
    write_file,
)

USER = 1234


@pytest.fixture
def ours() -> Iterator[Path]:
    """A folder that nobody but root can change, nor any above it; those of pytest are in /tmp."""
    with tempfile.TemporaryDirectory(prefix="pinned.", dir="/var/lib") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture
def theirs(ours: Path) -> Path:
    """A user's folder."""
    folder = ours / "user"
    folder.mkdir()
    os.chown(folder, USER, USER)
    return folder


def where(path: object, **options: int) -> str:
    with pin(str(path), "workspace", **options) as pinned:
        assert pinned.identity == (os.stat(pinned.path).st_dev, os.stat(pinned.path).st_ino)
        return pinned.path


def test_a_link_of_root_s_is_followed(ours: Path, theirs: Path) -> None:
    (ours / "absolute").symlink_to(theirs)
    (ours / "relative").symlink_to("absolute")
    (ours / "up").symlink_to(f"../{ours.name}/./user")
    for name in ("absolute", "relative", "up", "user/", "./user", "../" + ours.name + "/user"):
        assert where(f"{ours}/{name}") == str(theirs)
    (theirs / "model").mkdir()
    assert where(ours / "relative/model") == str(theirs / "model")


def test_a_link_in_a_place_of_somebody_else_s_is_not(ours: Path, theirs: Path) -> None:
    (ours / "secret").mkdir()
    (theirs / "model").symlink_to(ours / "secret")
    (theirs / "self").symlink_to(theirs)
    (theirs / "below").mkdir()  # root's own, but it can be exchanged
    (theirs / "below/link").symlink_to("/etc")
    for name in ("model", "model/", "self/x", "below/link"):
        with pytest.raises(LinkRefused, match=r"is a link .* not followed; name the folder that it leads to"):
            where(theirs / name)
    with pytest.raises(GvisorError, match=r"write it without [.][.]"):
        where(f"{theirs}/../secret")
    os.lchown(theirs / "model", 0, 0)
    with pytest.raises(LinkRefused):
        where(theirs / "model")


@pytest.mark.parametrize(("mode", "owner"), [(0o775, 0), (0o757, 0), (0o1777, 0), (0o700, USER)])
def test_folders_that_others_than_root_can_change(ours: Path, mode: int, owner: int) -> None:
    folder = ours / "folder"
    folder.mkdir()
    folder.chmod(mode)
    os.chown(folder, owner, owner)
    (folder / "link").symlink_to("/etc")
    with pytest.raises(LinkRefused):
        where(folder / "link")


def test_a_link_that_somebody_else_made(ours: Path) -> None:
    """… and that root brought to a place of root's."""
    (ours / "link").symlink_to("/etc")
    os.lchown(ours / "link", USER, USER)
    with pytest.raises(LinkRefused):
        where(ours / "link")


def test_what_is_not_there(ours: Path) -> None:
    (ours / "file").touch()
    (ours / "round").symlink_to("round")
    (ours / "dangling").symlink_to("nowhere")
    for name, kind, message in (
        ("absent", Absent, "does not exist on this host: absent is missing"),
        ("x" * 4096, Absent, "does not exist"),
        ("dangling", Absent, "nowhere is missing"),
        ("round", GvisorError, "too many links"),
        ("file/x", GvisorError, "file is not a folder"),
        ("file/", GvisorError, "is not a folder"),
    ):
        with pytest.raises(kind, match=message):
            where(f"{ours}/{name}")
    with pytest.raises(GvisorError, match="no absolute path"):
        where("relative")


def test_missing_folders_are_made(ours: Path) -> None:
    mask = os.umask(0o077)
    try:
        assert where(ours / "a/b/c", make=0o755) == str(ours / "a/b/c")
    finally:
        os.umask(mask)
    assert {stat.S_IMODE(path.stat().st_mode) for path in (ours / "a").rglob("*")} == {0o755}


def test_the_descriptor_stays_with_the_folder(ours: Path, theirs: Path) -> None:
    (theirs / "model").mkdir()
    (theirs / "model/file").write_text("mine")
    with pin(str(theirs / "model"), "workspace") as pinned:
        (theirs / "model").rename(theirs / "old")
        (theirs / "model").symlink_to("/etc")
        assert os.listdir(f"/proc/self/fd/{pinned.descriptor}") == ["file"]
        assert pinned.is_folder


def test_no_descriptor_is_left_open(ours: Path, theirs: Path) -> None:
    (theirs / "link").symlink_to("/etc")
    before = os.listdir("/proc/self/fd")
    where(ours)
    for path in (theirs / "link", theirs / "absent", f"{theirs}/.."):
        with pytest.raises(GvisorError):
            where(path)
    assert os.listdir("/proc/self/fd") == before


def test_reading_as_the_owner(ours: Path, theirs: Path) -> None:
    (ours / "secret").write_text("secret")
    (ours / "secret").chmod(0o600)
    (theirs / "file").write_text("text")
    (theirs / "sub").mkdir()
    (theirs / "sub/file").write_text("below")
    (theirs / "link").symlink_to(ours / "secret")
    (theirs / "sub/up").symlink_to("..")
    os.link(ours / "secret", theirs / "hard")
    os.mkfifo(theirs / "pipe", 0o666)
    (theirs / "folder").mkdir()
    (theirs / "large").write_bytes(b"x" * 2000)
    begin = time.monotonic()
    with pin(str(theirs), "workspace") as pinned:
        assert read_file(pinned, "file") == b"text"
        assert read_file(pinned, "sub/file") == b"below"
        assert read_file(pinned, "absent") is None
        for name in ("link", "sub/up/file"):
            with pytest.raises(LinkRefused):
                read_file(pinned, name)
        for name, message in (
            ("hard", "cannot be read by the owner of .*: Permission denied"),
            ("pipe", "not a regular file|Permission denied"),
            ("folder", "not a regular file"),
        ):
            with pytest.raises(GvisorError, match=message):
                read_file(pinned, name)
        with pytest.raises(GvisorError, match="larger than 1000 bytes"):
            read_file(pinned, "large", limit=1000)
    assert time.monotonic() - begin < 1
    assert os.geteuid() == 0


def test_writing_as_the_owner(ours: Path, theirs: Path) -> None:
    (ours / "victim").write_text("victim")
    (ours / "victims").mkdir()
    (theirs / "link").symlink_to(ours / "victim")
    (theirs / "out").symlink_to(ours / "victims")
    (theirs / "root-s").mkdir()
    with pin(str(theirs), "workspace") as pinned:
        for name in ("new", "a/b/new", "link"):
            write_file(pinned, name, b"text", 0o644, 0o755)
            written = theirs / name
            assert (written.read_text(), written.is_symlink(), written.stat().st_uid) == ("text", False, USER)
        for name in ("out/new", "root-s/new"):
            with pytest.raises(OSError, match=f"{theirs}/{name}"):
                write_file(pinned, name, b"text", 0o644, 0o755)
    assert (ours / "victim").read_text() == "victim"
    assert os.listdir(ours / "victims") + os.listdir(theirs / "root-s") == []
    assert stat.S_IMODE((theirs / "a/b").stat().st_mode) == 0o755


def test_a_folder_that_becomes_a_link_while_it_is_made_leads_nowhere(ours: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder of root's that a group may write; its mode was given by the name."""
    victim, shared = ours / "victim", ours / "shared"
    victim.mkdir(mode=0o700)
    shared.mkdir()
    shared.chmod(0o777)
    real = os.mkdir

    def swap(name: str, *args: int, **options: int) -> None:
        real(name, *args, **options)
        (shared / "a").rename(shared / "b")
        (shared / "a").symlink_to(victim)

    with pin(str(shared), "workspace") as pinned:
        monkeypatch.setattr(os, "mkdir", swap)
        with pytest.raises(OSError, match=f"{shared}/a/new"):
            write_file(pinned, "a/new", b"text", 0o644, 0o755)
    assert (stat.S_IMODE(victim.stat().st_mode), list(victim.iterdir())) == (0o700, [])


def test_a_folder_that_takes_the_place_of_one_that_is_made_keeps_its_mode(
    ours: Path, theirs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user may rename what is root's in a folder of theirs, and see no more of it for that."""
    real = os.mkdir

    def swap(name: str, *args: int, **options: int) -> None:
        real(name, *args, **options)
        if name == "a":
            (theirs / "a").rename(theirs / "b")
            (theirs / "root-s").rename(theirs / "a")

    for write in (lambda: pin(f"{theirs}/a/below", "path", 0o755), lambda: write_file(pinned, "a/new", b"text", 0o644, 0o755)):
        for path in (theirs / "a", theirs / "b"):
            subprocess.run(["rm", "-rf", path], check=True)
        (theirs / "root-s").mkdir(mode=0o700)
        with pin(str(theirs), "workspace") as pinned, monkeypatch.context() as patch, contextlib.suppress(OSError, GvisorError):
            patch.setattr(os, "mkdir", swap)
            write()
        assert stat.S_IMODE((theirs / "a").stat().st_mode) == 0o700


# The folder of root's own


def test_root_s_own_folder_is_made_whatever_the_umask_is(ours: Path) -> None:
    for mask in (0, 0o077):
        before = os.umask(mask)
        try:
            assert own_folder(f"{ours}/{mask}/state/", "state_dir") == f"{ours}/{mask}/state"
        finally:
            os.umask(before)
        assert {stat.S_IMODE((ours / str(mask) / name).stat().st_mode) for name in ("", "state")} == {0o755}


def test_threads_that_make_folders_leave_the_process_its_umask(ours: Path) -> None:
    """It is the whole process': what another thread wrote meanwhile was everybody's to write, and so was all that came afterwards."""

    def umask() -> str:
        return next(line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("Umask:"))

    def make(number: int) -> list[int]:
        modes = []
        for turn in range(25):
            own_folder(f"{ours}/{number}/{turn}", "state_dir")
            (ours / f"{number}.{turn}").mkdir()
            modes.append(stat.S_IMODE((ours / f"{number}.{turn}").stat().st_mode))
        return modes

    before = os.umask(0o022)
    try:
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            assert {mode for modes in pool.map(make, range(8)) for mode in modes} == {0o755}
        assert umask() == "0022"
    finally:
        os.umask(before)


@pytest.mark.parametrize(
    ("mode", "owner", "place"), [(0o777, 0, "a"), (0o775, 0, "a/b"), (0o1777, 0, "a/b"), (0o755, USER, "a/b"), (0o755, USER, "a")]
)
def test_root_s_own_folder_is_nobody_else_s(ours: Path, mode: int, owner: int, place: str) -> None:
    (ours / "a/b").mkdir(parents=True)
    (ours / place).chmod(mode)
    os.chown(ours / place, owner, owner)
    with pytest.raises(GvisorError, match=f"{ours}/{place} can be changed by others than root"):
        own_folder(f"{ours}/a/b", "state_dir")


def test_root_s_own_folder_may_be_in_one_with_the_sticky_bit(ours: Path) -> None:
    (ours / "sticky").mkdir()
    (ours / "sticky").chmod(0o1777)
    assert own_folder(f"{ours}/sticky/state", "state_dir") == f"{ours}/sticky/state"
    os.symlink("state", ours / "sticky/link")
    with pytest.raises(LinkRefused):
        own_folder(f"{ours}/sticky/link", "state_dir")


def test_acting_as_somebody_ends(theirs: Path) -> None:
    before = (os.geteuid(), os.getegid(), os.getgroups())
    with acting_as(USER, USER):
        assert (os.geteuid(), os.getegid(), os.getgroups()) == (USER, USER, [USER])
    with pytest.raises(RuntimeError), acting_as(USER, USER):
        raise RuntimeError
    assert (os.geteuid(), os.getegid(), os.getgroups()) == before
