# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Texts in folders of users are read and written with their owners' rights and no more."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path

import pytest
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.pinned import pin
from ansible_collections.ggen.gvisor.plugins.modules import text_files
from support.module import fork_module

FILES = {"ggen.toml": "[project]\n", "queries/deep/ä.rq": "SELECT ?s\n", ".example": "1"}


def test_each_is_read_as_its_owner(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    secret.chmod(0o600)
    tmp_path.chmod(0o755)
    for name in ("good", "absent", "link", "pipe", "hard", "large", "odd"):
        (tmp_path / name).mkdir()
        os.chown(tmp_path / name, 1234, 1234)
    (tmp_path / "good/ggen.toml").write_text("text")
    (tmp_path / "odd/ggen.toml").write_bytes(b"\xff")
    (tmp_path / "link/ggen.toml").symlink_to(secret)
    os.mkfifo(tmp_path / "pipe/ggen.toml")
    os.chown(tmp_path / "pipe/ggen.toml", 1234, 1234)
    os.link(secret, tmp_path / "hard/ggen.toml")
    (tmp_path / "large/ggen.toml").write_bytes(b"x" * (1 << 20) + b"x")
    (tmp_path / "workspace-link").symlink_to(tmp_path / "good")
    names = ("good", "absent", "link", "pipe", "hard", "large", "odd", "workspace-link", "nowhere")
    begin = time.monotonic()
    result = fork_module("workspace_texts", files={f"{tmp_path}/{name}": f"{tmp_path}/{name}/ggen.toml" for name in names})
    assert time.monotonic() - begin < 10
    found = {name: result["texts"][f"{tmp_path}/{name}/ggen.toml"] for name in names}
    assert "secret" not in str([one["text"] for one in found.values()])
    assert found["good"] == {"text": "text", "problem": "", "link": False}
    assert found["odd"]["text"] == "\ufffd"
    for name in ("absent", "nowhere"):
        assert found[name] == {"text": None, "problem": "", "link": False}
    assert (found["link"]["text"], found["link"]["link"]) == (None, True)
    for name, message in (
        ("pipe", "is not a regular file"),
        ("hard", "cannot be read by the owner"),
        ("large", "is larger than"),
        ("workspace-link", "is a link"),
    ):
        assert message in found[name]["problem"]
        assert not found[name]["link"]


def test_what_a_user_put_there_is_not_written_through(tmp_path: Path) -> None:
    """A job, or the owner, has the folder between two runs of root."""
    folder, victim, victims = tmp_path / "folder", tmp_path / "victim", tmp_path / "victims"
    for one in (folder, victims):
        one.mkdir()
    os.chown(folder, 1234, 1234)
    victim.write_text("victim")
    (folder / "ggen.toml").symlink_to(victim)
    os.mkfifo(folder / ".example")
    written = fork_module("text_files", path=str(folder), files={"ggen.toml": "new", ".example": "1"})
    assert written["written"] == ["ggen.toml", ".example"]
    assert (victim.read_text(), (folder / "ggen.toml").read_text(), (folder / "ggen.toml").stat().st_uid) == ("victim", "new", 1234)
    assert "victim" not in str(written["diff"])
    (folder / "queries").symlink_to(victims)
    refused = fork_module("text_files", path=str(folder), files={"queries/x": "new"})
    assert refused["failed"]
    assert f"{folder}/queries/x" in refused["msg"]
    assert list(victims.iterdir()) == []
    (folder / "link").symlink_to(victims)
    refused = fork_module("text_files", path=str(folder / "link"), files={"x": "new"})
    assert "is a link" in refused["msg"]
    assert list(victims.iterdir()) == []


def test_a_folder_of_root_s_is_given_to_its_owner(tmp_path: Path) -> None:
    folder = tmp_path / "above/folder"
    options = {"path": str(folder), "files": FILES, "owner": "1234:4321"}
    shown = fork_module("text_files", **options, check=True)
    assert (shown["changed"], folder.exists()) == (True, False)
    assert fork_module("text_files", **options)["changed"]
    assert not fork_module("text_files", **options)["changed"]
    owners = {(path.stat().st_uid, path.stat().st_gid) for path in [folder, *folder.rglob("*")]}
    assert (owners, folder.parent.stat().st_uid) == ({(1234, 4321)}, 0)
    old = tmp_path / "old"
    assert fork_module("text_files", path=str(old), files=FILES)["changed"]
    other = tmp_path / "other"
    other.write_text("x")
    os.link(other, old / "hard")
    (old / "link").symlink_to(other)
    assert fork_module("text_files", **{**options, "path": str(old)})["written"] == []
    assert {path.stat().st_uid for path in [old, *old.rglob("*")] if path.name not in ("hard", "link")} == {1234}
    assert (other.stat().st_uid, (old / "link").lstat().st_uid) == (0, 1234)
    (tmp_path / "mine").mkdir()
    os.chown(tmp_path / "mine", 5, 5)
    assert fork_module("text_files", **{**options, "path": str(tmp_path / "mine")})["changed"]
    assert (tmp_path / "mine/ggen.toml").stat().st_uid == 5
    assert "in numbers" in fork_module("text_files", **{**options, "owner": "nobody"})["msg"]


def test_what_is_exchanged_while_it_is_given_stays_root_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder of root's that others can write."""
    secret, folder = tmp_path / "secret", tmp_path / "folder"
    secret.touch()
    folder.mkdir()
    (folder / "file").touch()
    real = os.fstat

    def exchange(descriptor: int) -> os.stat_result:
        status = real(descriptor)
        if stat.S_ISREG(status.st_mode) and secret.exists():
            secret.rename(folder / "file")
        return status

    with pin(str(folder), "path") as pinned:
        monkeypatch.setattr(os, "fstat", exchange)
        text_files.give(pinned, 1234, 1234)
    monkeypatch.undo()
    assert (folder.stat().st_uid, (folder / "file").stat().st_uid) == (1234, 0)
