# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What containerd_info says of a real containerd's security fixes."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import SimpleNamespace

from ansible_collections.ggen.gvisor.plugins.action.containerd_info import ActionModule
from ansible_collections.ggen.gvisor.plugins.plugin_utils._containerd.advisories import open_advisories
from support.containerd import Daemon
from support.containerd_debs import ensure
from support.module import run_module


class Action(ActionModule):
    """The action plugin, with its module run here."""

    def __init__(self, args: dict) -> None:
        self._task = SimpleNamespace(args=args)

    def _execute_module(self, **_more: object) -> dict:
        return run_module("containerd_info", **self._task.args)


def look(daemon: Daemon) -> dict:
    return Action({"address": daemon.address, "path": daemon.config_path}).perform({})


def test_the_package_decides_which_fixes_are_there(tmp_path: Path) -> None:
    form = "${Version}"
    version = subprocess.run(["dpkg-query", "-W", f"-f={form}", "containerd"], capture_output=True, text=True, check=True).stdout
    with Daemon(tmp_path) as daemon:
        result = look(daemon)
    package = {"name": "containerd", "version": version}
    assert result["containerd"]["package"] == package
    known = [row.cve for row in open_advisories(result["containerd"]["server_version"], package)]
    assert result["containerd"]["advisories"] == known
    assert "CVE-2026-53488" in known
    assert [cve in result["warnings"][0] for cve in known] == [True] * len(known)
    assert not result["failed"]


def test_a_program_from_elsewhere_is_judged_by_its_own_version(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("PATH", ensure("2.1.9").path)
    with Daemon(tmp_path) as daemon:
        result = look(daemon)
    assert result["containerd"]["package"] is None
    assert result["containerd"]["advisories"] == ["CVE-2026-46680"]
    assert result["warnings"][0].startswith("containerd 2.1.9 is older than the fixes of CVE-2026-46680 (")
