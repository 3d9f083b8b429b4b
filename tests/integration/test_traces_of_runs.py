# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which files a command opened, wrote and executed: all of it, of it alone, bounded; on a real containerd, in gVisor."""

from __future__ import annotations

import base64
import os
from pathlib import Path

from support.module import run_module
from support.runs import Host, own

pytest_plugins = ("support.run_fixtures",)

TOOL = "/tmp/tool"  # noqa: S108 - in the pod
SCRIPT = r"""
cat input > made; cat ../etc/passwd > /dev/null; cat absent 2> /dev/null
printf '#!/bin/sh\nexec 5<> rw\n' > /tmp/tool; chmod +x /tmp/tool; /tmp/tool
mkdir sub; cd sub; echo > "$(printf 'a\nb\033[2J')"; ls > /dev/null
"""


def test_what_is_told(host: Host, workspace: Path) -> None:
    (workspace / "input").touch()
    result = host.run(SCRIPT, workspace, trace=True)
    assert result["trace"] == {
        "opened": ["/workspace/input", "/workspace/rw", "/workspace/sub", "/etc/passwd", TOOL],
        "written": ["/workspace/made", "/workspace/rw", "/workspace/sub/a\\nb\\x1b[2J", "/dev/null", TOOL],
        "executed": ["/bin/busybox", TOOL],
        "truncated": False,
    }, result
    assert host.settle() == {}


def test_none_is_lost_and_there_is_an_end(host: Host, workspace: Path) -> None:
    """A command that is faster than its reader waits for it; one that does not end to open files is told of in part."""
    result = host.run("i=0; while [ $i -lt 4000 ]; do i=$((i+1)); : > $i; done", workspace, trace=True)
    assert sorted(result["trace"]["written"]) == sorted(f"/workspace/{number}" for number in range(1, 4001))
    assert result["trace"]["truncated"] is False
    result = host.run("i=0; while [ $i -lt 8000 ]; do i=$((i+1)); : > /tmp/$i; done; : > last", workspace, trace=True)
    assert len(result["trace"]["written"]) < 5001
    assert result["trace"]["written"][0] == "/workspace/last"
    assert result["trace"]["truncated"] is True


def test_each_of_several_commands_in_a_pod_has_its_own(host: Host, tmp_path: Path) -> None:
    common = {key: value for key, value in host.params("", None).items() if key not in ("argv", "workspace")}
    jobs = [
        {"argv": ["sh", "-c", f": > of{number}; (while :; do :; done) &"], "workspace": str(own(tmp_path / f"{number}"))}
        for number in range(3)
    ]
    results = run_module("containerd_run", **common, jobs=jobs, pods="one", trace=True)["jobs"]
    assert [result["trace"]["written"] for result in results] == [
        [f"/workspaces/{number}/of{number}", "/dev/null"] for number in range(3)
    ], results
    assert len({result["pod"] for result in results}) == 1


def test_a_command_that_is_killed_is_told_of(host: Host, workspace: Path) -> None:
    result = host.run(": > made; sleep 100", workspace, trace=True, timeout=2)
    assert result["timed_out"]
    assert result["trace"]["written"] == ["/workspace/made"]


def test_secrets_are_not_told(host: Host, workspace: Path) -> None:
    secret = base64.b64encode(b"much too secret").decode()
    result = host.run(
        'cat /run/secrets/key; : > "much too secret"', workspace, trace=True, secrets={"key": secret}, env={"A": "hidden value"}
    )
    assert result["trace"]["written"] == ["/workspace/********"], result
    assert "much too secret" not in str(result["trace"])
    assert "hidden value" not in str(result)


def test_it_is_gvisor_s_alone(host: Host, workspace: Path) -> None:
    result = host.run("touch ran", workspace, trace=True, runtime="io.containerd.runc.v2")
    assert result["failed"]
    assert "trace is gVisor's alone" in result["msg"]
    assert os.listdir(workspace) == []
