# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each run is counted once, whatever became of it and whoever runs at the same time; no run fails because of it. On a real containerd, in gVisor."""

from __future__ import annotations

import concurrent.futures
import os
import signal
import stat
import subprocess
import time
from pathlib import Path

import pytest
from ansible_collections.ggen.gvisor.plugins.module_utils._containerd.ctr import Ctr
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.metrics import FILE
from support.prometheus import read
from support.runs import IMAGE, PATIENCE, Host

pytest_plugins = ("support.run_fixtures",)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "metrics").mkdir()
    return tmp_path / "metrics"


def totals(folder: Path) -> dict[str, float]:
    """The counts, by name and what labels there are beside the image."""
    found = read((folder / FILE).read_bytes())
    return {
        " ".join([name, *(value for _label, value in labels[1:])]): value for name, rows in found.items() for labels, value in rows.items()
    }


def test_eight_runs_at_once_lose_no_count(host: Host, folder: Path) -> None:
    """Even into one folder from several state folders."""
    hosts = [Host(host.daemon, folder.parent / f"{number % 2}", host.runtime) for number in range(8)]
    for one in hosts:
        Path(one.state_dir).parent.mkdir(exist_ok=True)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda pair: pair[1].run(f"exit {pair[0] % 2}", metrics=str(folder), fail_on_rc=False), enumerate(hosts)))
    assert [result.get("rc") for result in results] == [0, 1] * 4, results
    found = totals(folder)
    assert found["ggen_gvisor_runs_total"] == found["ggen_gvisor_run_duration_seconds_count"] == 8
    assert found["ggen_gvisor_failures_total rc"] == 4
    assert found["ggen_gvisor_run_duration_seconds_sum"] == pytest.approx(sum(result["duration"] for result in results), abs=0.01)
    assert found[f"ggen_gvisor_image_info {Ctr(host.daemon.address).images()[IMAGE]}"] == 1
    assert os.listdir(folder) == [FILE]
    assert stat.S_IMODE((folder / FILE).stat().st_mode) == 0o644
    for one in hosts:
        assert one.settle() == {}


def test_causes_and_limits(host: Host, workspace: Path, folder: Path) -> None:
    common = {"metrics": str(folder)}
    host.run("sleep 60", workspace, timeout=1, **common)
    host.run("true", runtime="io.containerd.absent.v1", **common)
    host.run("head -c 2000000 /dev/zero > big", workspace, file_size="1M", **common)
    process = host.start("touch begun; sleep 1000", workspace, **common)
    while not (workspace / "begun").exists():
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=PATIENCE)
    assert host.settle() == {}
    found = totals(folder)
    assert {name: value for name, value in found.items() if "duration" not in name and "info" not in name} == {
        "ggen_gvisor_runs_total": 4,
        "ggen_gvisor_failures_total timeout": 1,
        "ggen_gvisor_failures_total error": 1,
        "ggen_gvisor_failures_total rc": 1,
        "ggen_gvisor_failures_total killed": 1,
        "ggen_gvisor_limits_hit_total file_size": 1,
    }


def test_a_full_folder_warns(host: Host, folder: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k,mode=0755", "metrics", folder], check=True)
    try:
        (folder / "other.prom").write_bytes(b"x" * 4096)
        result = host.run("echo said", metrics=str(folder))
        left = os.listdir(folder)
    finally:
        subprocess.run(["umount", folder], check=True)
    assert (result["rc"], result["stdout"], result.get("failed", False)) == (0, "said\n", False)
    assert [f"the run is not among the metrics: {folder}/{FILE}: No space left on device"] == result["warnings"]
    assert left == ["other.prom"]


def test_a_folder_of_somebody_else_warns(host: Host, folder: Path, tmp_path: Path) -> None:
    """Nothing is written by way of a user's link, or into a folder in which a user could put one."""
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs/link").symlink_to(folder)
    os.chown(tmp_path / "theirs", 1000, 1000)
    for path, why in ((tmp_path / "theirs", "no folder that root alone can write to"), (tmp_path / "theirs/link", "is not followed")):
        result = host.run("true", metrics=str(path))
        (warning,) = result["warnings"]
        assert (result["rc"], result.get("failed", False)) == (0, False)
        assert why in warning
    assert os.listdir(folder) == []
