# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each run is told in the audit trail, once, whatever became of it; on a real containerd, in gVisor."""

from __future__ import annotations

import base64
import concurrent.futures
import json
import os
import signal
import stat
import subprocess
import time
from pathlib import Path

import pytest
from ansible_collections.ggen.gvisor.plugins.module_utils._containerd.ctr import Ctr
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.limits import default_memory
from support.module import finish_module, run_module
from support.runs import IMAGE, PATIENCE, USER, Host, own

pytest_plugins = ("support.run_fixtures",)


def trail(host: Host) -> list[dict]:
    path = Path(host.state_dir) / "audit/runs.jsonl"
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]] if path.exists() else []


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} never came"
        time.sleep(0.02)


def test_what_a_line_tells(host: Host, workspace: Path) -> None:
    """Who asked, what ran where as whom, under which limits, and what came of it; of the environment no value."""
    mounts = [{"source": "/etc/hostname", "target": "/name"}]
    script = "touch a b; echo said; exit 3"
    result = host.run(
        script,
        workspace,
        env={"TOKEN": "s3cret"},
        secrets={"key": base64.b64encode(b"s3cret").decode()},
        mounts=mounts,
        cpus=1.5,
        timeout=60,
        fail_on_rc=False,
    )
    assert result["rc"] == 3, result
    (line,) = trail(host)
    assert line["image"] == IMAGE
    assert line["digest"] == Ctr(host.daemon.address).images()[IMAGE]
    assert line["digest"].startswith("sha256:")
    assert (line["run"], line["argv"], line["workspace"], line["user"]) == (
        result["pod"],
        ["sh", "-c", script],
        str(workspace),
        f"{USER}:{USER}",
    )
    assert (line["env"], line["secrets"], line["mounts"], line["check"]) == (["TOKEN"], ["key"], ["/etc/hostname:/name:ro"], False)
    assert line["limits"] == {
        "memory": default_memory(),
        "cpus": 1.5,
        "pids": 2048,
        "file_size": 4 << 30,
        "core": 0,
        "keep_free": None,
        "timeout": 60,
        "policy": "required",
    }
    assert (line["ended"], line["rc"], line["limits_hit"]) == ("exit", 3, [])
    assert line["changed_counts"] == {"created": 2, "modified": 0, "removed": 0, "ignored": 0}
    assert line["kernel"] == result["kernel"] == "Starting gVisor..."
    assert line["asked_by"]["uid"] == 0
    assert abs(time.time() - time.mktime(time.strptime(line["time"], "%Y-%m-%dT%H:%M:%SZ")) + time.timezone) < 120
    data = (Path(host.state_dir) / "audit/runs.jsonl").read_text()
    assert "s3cret" not in data
    assert "czNjcmV0" not in data


def test_it_is_root_s_alone(host: Host) -> None:
    host.run("true")
    folder = Path(host.state_dir) / "audit"
    assert [stat.S_IMODE(path.stat().st_mode) for path in (folder, folder / "runs.jsonl")] == [0o700, 0o600]


def test_hostile_names_are_one_line(host: Host, tmp_path: Path) -> None:
    workspace = own(tmp_path / 'a\n{"run": "forged"}\x1b]52;c;x\x07')
    host.run(["sh", "-c", "exit 0\n", "x\n\n\x1b[2J\x7f", "ü"], workspace, env={"A\nB": "s3cret\n"})
    (line,) = trail(host)
    assert line["workspace"] == str(workspace)
    assert line["argv"][3:] == ["x\n\n\x1b[2J\x7f", "ü"]
    assert line["env"] == ["A\nB"]
    data = (Path(host.state_dir) / "audit/runs.jsonl").read_bytes()
    assert all(32 <= byte < 127 for byte in data[:-1])


def test_how_it_ended(host: Host, workspace: Path) -> None:
    host.run("sleep 60", workspace, timeout=1)
    host.run("true", workspace, check=True)
    host.run("true", runtime="io.containerd.absent.v1")
    late, rehearsed, absent = trail(host)
    assert (late["ended"], late["rc"]) == ("timeout", None)
    assert (rehearsed["ended"], rehearsed["rc"], rehearsed["check"]) == ("exit", 0, True)
    assert (absent["ended"], absent["rc"]) == ("error", None)
    assert "does not find the runtime's shim" in absent["error"]


@pytest.mark.parametrize("pods", ["each", "one"])
def test_each_job_has_a_line(host: Host, tmp_path: Path, pods: str) -> None:
    common = {key: value for key, value in host.params("", None).items() if key not in ("argv", "workspace")}
    jobs = [{"argv": ["sh", "-c", f"exit {code}"], "workspace": str(own(tmp_path / f"{code}"))} for code in (0, 1, 2)]
    run_module("containerd_run", **common, jobs=jobs, pods=pods, fail_on_rc=False)
    lines = sorted(trail(host), key=lambda line: line["job"])
    assert [(line["job"], line["rc"]) for line in lines] == [(0, 0), (1, 1), (2, 2)]
    assert len({line["run"] for line in lines}) == (3 if pods == "each" else 1)


def test_several_runs_at_once(host: Host, tmp_path: Path) -> None:
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: host.run(f"exit {number}", own(tmp_path / f"{number}"), fail_on_rc=False), range(4)))
    assert sorted(line["rc"] for line in trail(host)) == [0, 1, 2, 3]


@pytest.mark.parametrize("both", [False, True])
def test_a_killed_run_is_told_too(host: Host, workspace: Path, both: bool) -> None:
    """By its supervisor, or, when that was killed too, by the next run."""
    process = host.start("touch begun; sleep 1000", workspace)
    wait_for(workspace / "begun")
    (supervisor,) = (int(word) for word in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split())
    if both:
        process.send_signal(signal.SIGSTOP)
        os.kill(supervisor, signal.SIGKILL)
    process.kill()
    process.communicate(timeout=PATIENCE)
    if both:
        assert trail(host) == []
        host.run("true")
    assert host.settle() == {}
    (killed,) = (line for line in trail(host) if line["ended"] == "killed")
    assert (killed["argv"], killed["workspace"], killed["rc"]) == (["sh", "-c", "touch begun; sleep 1000"], str(workspace), None)
    assert len(trail(host)) == 1 + both


def test_nothing_runs_that_would_not_be_told(host: Host, workspace: Path) -> None:
    host.run("true")
    folder = Path(host.state_dir) / "audit"
    subprocess.run(["chattr", "+i", folder / "runs.jsonl"], check=True)
    try:
        result = host.run("touch ran", workspace)
    finally:
        subprocess.run(["chattr", "-i", folder / "runs.jsonl"], check=True)
    assert result["failed"]
    assert f"the audit trail {folder}/runs.jsonl cannot be written: Operation not permitted" in result["msg"]
    assert os.listdir(workspace) == []


def test_a_line_that_cannot_be_written_in_the_end_fails_the_run(host: Host, workspace: Path) -> None:
    process = host.start("touch begun; while [ ! -e go ]; do sleep 0.05; done; echo said", workspace)
    wait_for(workspace / "begun")
    trail_file = Path(host.state_dir) / "audit/runs.jsonl"
    subprocess.run(["chattr", "+i", trail_file], check=True)
    try:
        (workspace / "go").touch()
        os.chown(workspace / "go", USER, USER)
        result = finish_module(process)
    finally:
        subprocess.run(["chattr", "-i", trail_file], check=True)
    assert (result["rc"], result["stdout"], result["failed"]) == (0, "said\n", True)
    assert f"the run could not be written down in {host.state_dir}/audit: Operation not permitted" in result["faults"]
