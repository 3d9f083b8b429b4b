# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is said where a host gives no sandbox without root, and what a limit can be there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._containerd.image_config import ImageConfig
from ansible_collections.ggen.gvisor.plugins.module_utils._rootless import host, limits
from ansible_collections.ggen.gvisor.plugins.module_utils._rootless.bundle import Bundle
from ansible_collections.ggen.gvisor.plugins.module_utils._rootless.engine import _escape, own_options
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.cgroup import Limits


@pytest.mark.parametrize(
    ("switch", "value", "told"),
    [
        ("kernel/apparmor_restrict_unprivileged_userns", "1", "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"),
        ("kernel/unprivileged_userns_clone", "0", "sudo sysctl -w kernel.unprivileged_userns_clone=1"),
        ("user/max_user_namespaces", "0", "sudo sysctl -w user.max_user_namespaces=15000"),
    ],
)
def test_what_forbids_user_namespaces_is_named_with_its_fix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, switch: str, value: str, told: str
):
    def refuse() -> None:
        raise PermissionError(1, "Operation not permitted", "a user namespace")

    path = tmp_path / "sys" / switch
    path.parent.mkdir(parents=True)
    path.write_text(f"{value}\n")
    monkeypatch.setattr(host, "enter", refuse)
    with pytest.raises(GvisorError) as caught:
        host.check(str(tmp_path))
    assert "(a user namespace: Operation not permitted)" in caught.value.message
    assert told in caught.value.message


def test_a_refusal_that_nothing_explains_is_told_all_the_same(tmp_path: Path):
    assert "a container or a security module forbids it" in host.reason(str(tmp_path))


def test_what_works_is_not_refused_for_what_a_file_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "sys/user").mkdir(parents=True)
    (tmp_path / "sys/user/max_user_namespaces").write_text("0")
    monkeypatch.setattr(host, "enter", lambda: None)
    monkeypatch.setattr(host, "mount", lambda *_words: None)
    host.check(str(tmp_path))


def test_processors_are_whole_ones(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 1, 2, 3})
    assert [limits.processors(cpus) for cpus in (None, 0.5, 4, 9)] == [None] * 4
    assert len(limits.processors(2.5) or []) == 2
    assert limits.unenforced(Limits(None, 2, None), watched=False) == {}
    assert limits.unenforced(Limits(None, 9.5, None), watched=False) == {}
    assert list(limits.unenforced(Limits(1 << 30, 2.5, None), watched=False)) == [f"memory={1 << 30}", "cpus=2.5"]
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert list(limits.unenforced(Limits(None, None, 100), watched=True)) == ["pids=100"]


def test_a_command_runs_as_the_caller(monkeypatch: pytest.MonkeyPatch):
    bundle = Bundle("/b/rootfs", "localhost/image:latest", ImageConfig())
    options = {"user": None, "image": "/image.tar", "state_dir": "/var/lib/ggen.gvisor"}
    monkeypatch.setattr(os, "geteuid", lambda: 7)
    monkeypatch.setattr(os, "getegid", lambda: 8)
    monkeypatch.setenv("XDG_STATE_HOME", "/s")
    assert own_options(options, bundle) == {"user": "7:8", "image": "localhost/image:latest", "state_dir": "/s/ggen.gvisor"}
    assert own_options({**options, "state_dir": "/own", "user": "7"}, bundle)["state_dir"] == "/own"
    for user in ("0:0", "7:7", "9"):
        with pytest.raises(GvisorError, match="is not possible without root"):
            own_options({**options, "user": user}, bundle)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "getegid", lambda: 0)
    assert own_options(options, bundle)["user"] is None


def test_what_was_exchanged_while_a_sandbox_started_is_not_mounted(tmp_path: Path):
    for name in ("seen", "other", "place"):
        (tmp_path / name).mkdir()
    seen = host.Seen.of(str(tmp_path / "seen"))
    assert (seen.path, seen.is_folder) == (str(tmp_path / "seen"), True)
    (tmp_path / "seen").rename(tmp_path / "moved")
    with pytest.raises(OSError, match="No such file"):
        seen.bind(str(tmp_path / "place"))
    (tmp_path / "other").rename(tmp_path / "seen")
    with pytest.raises(OSError, match="was exchanged while the sandbox started"):
        seen.bind(str(tmp_path / "place"))
    (tmp_path / "seen").rmdir()
    (tmp_path / "seen").symlink_to("moved")  # a link is not followed, even to the same
    with pytest.raises(OSError, match="was exchanged while the sandbox started"):
        seen.bind(str(tmp_path / "place"))
    assert not os.path.ismount(tmp_path / "place")


def test_a_path_with_what_an_overlay_s_options_mean_is_one_path():
    assert _escape("/a:b,c\\d") == "/a\\:b\\,c\\\\d"
