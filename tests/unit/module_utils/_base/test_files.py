# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes that fail, and what runs that were killed left in Ansible's temporary folders."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible_collections.ggen.gvisor.plugins.module_utils._base.files import SENT, SENT_SECONDS, atomic_write, remove_stale_transfers
from ansible_collections.ggen.gvisor.plugins.module_utils._containerd.config_files import _candidate


@pytest.mark.host
@pytest.mark.parametrize(
    "write", [lambda path: atomic_write(str(path), bytes(20000), 0o644), lambda path: _candidate(str(path.parent), bytes(20000))]
)
def test_a_full_file_system_is_named_and_no_half_file_stays(write: Callable[[Path], object], tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8k", "none", tmp_path], check=True)
    try:
        with pytest.raises(OSError, match=f"No space left on device: '{tmp_path}/"):
            write(tmp_path / "file")
        assert list(tmp_path.iterdir()) == []
    finally:
        subprocess.run(["umount", tmp_path], check=True)


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
    for name in SENT:
        sent(place / f"ansible-tmp-{name}", name, 2 * SENT_SECONDS)
    (tmp_path / "elsewhere").mkdir()
    sent(tmp_path / "elsewhere" / "ansible-tmp-5", "payload", 2 * SENT_SECONDS)
    (place / "ansible-tmp-link").symlink_to(tmp_path / "elsewhere" / "ansible-tmp-5")
    remove_stale_transfers(str(ours / "payload"))
    assert sorted(place.iterdir()) == sorted([*stay, place / "ansible-tmp-link"])
    assert (tmp_path / "elsewhere" / "ansible-tmp-5" / "payload").exists()


def test_an_archive_that_nobody_sent_has_no_neighbours(tmp_path: Path) -> None:
    old = sent(tmp_path / "ansible-tmp-1", "payload", 2 * SENT_SECONDS)
    (tmp_path / "images").mkdir()
    remove_stale_transfers(str(tmp_path / "images" / "payload"))
    assert (old / "payload").exists()
