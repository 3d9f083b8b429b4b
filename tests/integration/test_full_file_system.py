# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A file system that is full is named, and no half file stays."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._base.files import atomic_write
from ansible_collections.ggen.gvisor.plugins.module_utils._containerd.config_files import _candidate
from support.module import run_module


@pytest.mark.parametrize(
    "write", [lambda path: atomic_write(str(path), bytes(20000), 0o644), lambda path: _candidate(str(path.parent), bytes(20000), str(path))]
)
def test_a_full_file_system_is_named_and_no_half_file_stays(write: Callable[[Path], object], tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8k", "none", tmp_path], check=True)
    try:
        with pytest.raises((OSError, GvisorError)) as raised:
            write(tmp_path / "file")
        assert "No space left on device" in str(raised.value)
        assert f"{tmp_path}/" in str(raised.value)
        assert list(tmp_path.iterdir()) == []
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_a_full_file_system_is_named_and_no_half_build_stays(tmp_path: Path) -> None:
    source, dest = tmp_path / "source", tmp_path / "bin"
    source.mkdir()
    (source / "hello").write_bytes(bytes(5000))
    artifact = {"name": "hello", "inputs": {}, "source": str(source), "dest": str(dest)}
    options = {"cache": str(tmp_path / "cache"), "artifacts": [artifact]}
    assert not run_module("build_cache", state="stored", **options)["failed"]
    (dest / "hello").unlink()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "none", dest], check=True)
    try:
        assert run_module("build_cache", **options)["msg"] == f"{dest}/hello: No space left on device"
        assert [path.name for path in dest.iterdir() if path.is_file()] == []
    finally:
        subprocess.run(["umount", dest], check=True)
    assert run_module("build_cache", **options)["changed"]
