# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""workspace_texts: root reads for a user, and no more than that user may."""

from __future__ import annotations

import os
import time
from pathlib import Path

from support.module import run_module


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
    result = run_module("workspace_texts", files={f"{tmp_path}/{name}": f"{tmp_path}/{name}/ggen.toml" for name in names})
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


def test_a_manifest_outside_is_not_looked_at(tmp_path: Path) -> None:
    """The sandbox does not see it there either."""
    result = run_module("workspace_texts", files={str(tmp_path): "/etc/passwd"})
    assert result["texts"]["/etc/passwd"]["text"] is None
    assert result["texts"]["/etc/passwd"]["link"]
