# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What runs that were killed left in Ansible's temporary folders."""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._base.files import (
    SENT_PAYLOAD,
    SENT_SECONDS,
    SENT_WORKSPACE,
    locked,
    locked_file,
    remove_stale_transfers,
    sha256_of,
    staged,
    take_lock,
)
from support.trees import nest


def test_a_staged_file_takes_its_place_whole_or_is_gone(tmp_path: Path) -> None:
    place = tmp_path / "file"
    place.write_text("old")
    with staged(str(tmp_path), "file", 0o640) as new:
        new.stream.write(b"new")
        new.stream.flush()
        assert (place.read_text(), Path(new.path).read_text(), Path(new.path).parent) == ("old", "new", tmp_path)
        new.keep(str(place))
    assert (place.read_text(), place.stat().st_mode & 0o7777) == ("new", 0o640)

    with staged(str(tmp_path), "file", 0o640) as new:
        new.stream.write(b"not kept")
    assert place.read_text() == "new"
    with pytest.raises(KeyboardInterrupt), staged(str(tmp_path), "file", 0o640):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == [place]


def test_a_write_that_fails_without_a_name_gets_the_name_of_the_place(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=f"No space left on device: '{tmp_path}/file'"), staged(str(tmp_path), "file", 0o644):
        raise OSError(28, "No space left on device")
    with pytest.raises(FileNotFoundError, match="'/other'"), staged(str(tmp_path), "file", 0o644):
        raise FileNotFoundError(2, "No such file or directory", "/other")


@pytest.mark.parametrize(("size", "read"), [(None, b"0123456789"), (4, b"0123"), (0, b""), (20, b"0123456789")])
def test_a_sha256_is_of_what_was_read_and_handed_on(size: int | None, read: bytes) -> None:
    stream, copied = io.BytesIO(b"0123456789"), io.BytesIO()
    assert sha256_of(stream, copied.write, size) == hashlib.sha256(read).hexdigest()
    assert copied.getvalue() == read
    assert stream.tell() == len(read)


def test_a_lock_on_a_folder_is_waited_for_only_so_long_and_leaves_nothing_behind(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGALRM)
    late = pytest.raises(GvisorError, match=f"another run has been changing {tmp_path} for more than 0.05 s")
    with locked(str(tmp_path)), late, locked(str(tmp_path), 0.05):
        pass
    with locked(str(tmp_path), shared=True), locked(str(tmp_path), 0.05, shared=True), late, locked(str(tmp_path), 0.05):
        pass
    with locked(str(tmp_path), 0.05):
        pass
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_a_lock_is_tried_even_without_time(tmp_path: Path) -> None:
    with (tmp_path / "lock").open("w") as one, (tmp_path / "lock").open("w") as two:
        assert take_lock(one.fileno(), fcntl.LOCK_EX, 0)
        assert not take_lock(two.fileno(), fcntl.LOCK_SH, 0)


def sent(folder: Path, name: str, age: float) -> Path:
    folder.mkdir()
    (folder / name).write_bytes(b"sent")
    os.utime(folder / name, (time.time() - age,) * 2)
    return folder


def test_only_what_killed_runs_sent_is_removed(tmp_path: Path) -> None:
    place = tmp_path / "tmp"
    place.mkdir()
    ours = sent(place / "ansible-tmp-1", "payload", 2 * SENT_SECONDS)
    stay = [
        ours,
        sent(place / "ansible-tmp-2", "payload", 0),  # another run is at work
        sent(place / "ansible-tmp-3", "somebody-s", 2 * SENT_SECONDS),
        sent(place / "other-tmp-4", "payload", 2 * SENT_SECONDS),
    ]
    for name in (SENT_PAYLOAD, SENT_WORKSPACE.format(0), SENT_WORKSPACE.format(12)):
        sent(place / f"ansible-tmp-{name}", name, 2 * SENT_SECONDS)
    (tmp_path / "elsewhere").mkdir()
    sent(tmp_path / "elsewhere" / "ansible-tmp-5", "payload", 2 * SENT_SECONDS)
    (place / "ansible-tmp-link").symlink_to(tmp_path / "elsewhere" / "ansible-tmp-5")
    remove_stale_transfers(str(ours / "payload"))
    assert sorted(place.iterdir()) == sorted([*stay, place / "ansible-tmp-link"])
    assert (tmp_path / "elsewhere" / "ansible-tmp-5" / "payload").exists()


def test_what_cannot_be_removed_keeps_nobody_from_working(tmp_path: Path) -> None:
    ours = sent(tmp_path / "ansible-tmp-1", "payload", 0)
    deep = sent(tmp_path / "ansible-tmp-2", "payload", 2 * SENT_SECONDS)
    (tmp_path / "ansible-tmp-3").write_text("a file")
    nest(deep, 1100)
    try:
        remove_stale_transfers(str(ours / "payload"))
    finally:
        subprocess.run(["rm", "-rf", deep], check=True)  # Python's own rmtree recurses, and pytest's with it


def test_nobody_else_can_hold_the_lock_on_a_file(tmp_path: Path) -> None:
    """Whoever can open a file can hold its lock."""
    before = os.umask(0)
    try:
        (tmp_path / "old").touch(0o666)
        for name in ("new", "old"):
            with locked_file(str(tmp_path / name)):
                assert (tmp_path / name).stat().st_mode & 0o777 == 0o600
    finally:
        os.umask(before)


def test_an_archive_that_nobody_sent_has_no_neighbours(tmp_path: Path) -> None:
    old = sent(tmp_path / "ansible-tmp-1", "payload", 2 * SENT_SECONDS)
    (tmp_path / "images").mkdir()
    remove_stale_transfers(str(tmp_path / "images" / "payload"))
    assert (old / "payload").exists()
