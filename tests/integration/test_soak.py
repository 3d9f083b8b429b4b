# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Many runs in a row and many at once: every exit code is right, and nothing leaks.

GGEN_GVISOR_SOAK is the number of runs of each kind; `tests/run soak` takes 300.
"""

from __future__ import annotations

import collections
import concurrent.futures
import os
from pathlib import Path

import pytest
from support.containerd import Daemon
from support.runs import RUNTIMES, Host

pytest_plugins = ("support.run_fixtures",)

RUNS = int(os.environ.get("GGEN_GVISOR_SOAK", "24"))
AT_ONCE = 8
WARM_UP = 4  # runs after which containerd has what it keeps for good


def counts(daemon: Daemon, host: Host) -> dict[str, int]:
    """What a leak would make grow: descriptors and threads of the daemon, mounts of the machine, control groups; memory in MiB."""
    pid = daemon.process.pid
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {
        "descriptors": len(os.listdir(f"/proc/{pid}/fd")),
        "threads": int(status["Threads"]),
        "MiB": int(status["VmRSS"].split()[0]) >> 10,
        "mounts": len(daemon.mounts()),
        "cgroups": sum(1 for _group in Path("/sys/fs/cgroup").glob(f"**/ggen.gvisor.*.{host.name}-*")),
    }


def one(host: Host, number: int, folder: Path) -> tuple[int, int | None, str]:
    """Run a job that ends with a code of its own; returns the code wanted, the code got and what it printed."""
    workspace = folder / f"w{number}"
    workspace.mkdir()
    os.chown(workspace, 1234, 1234)
    result = host.run(f"echo {number} | tee out; exit {number % 7}", workspace, fail_on_rc=False)
    return number % 7, result.get("rc"), result.get("stdout", result.get("msg", "")) + (workspace / "out").read_text()


@pytest.mark.parametrize("workers", [1, AT_ONCE])
def test_nothing_leaks_and_every_exit_code_is_right(daemon: Daemon, tmp_path: Path, workers: int) -> None:
    host = Host(daemon, tmp_path, RUNTIMES["runsc"])
    for number in range(WARM_UP):
        one(host, 10000 + number, tmp_path)
    before = counts(daemon, host)
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        done = list(pool.map(lambda number: one(host, number, tmp_path), range(RUNS)))
    wrong = [(number, found) for number, found in enumerate(done) if found != (number % 7, number % 7, f"{number}\n{number}\n")]
    assert wrong == []
    assert host.settle() == {}
    after = counts(daemon, host)
    print(f"{RUNS} runs, {workers} at a time; codes {dict(collections.Counter(code for _wanted, code, _said in done))}; {before} → {after}")
    assert after["mounts"] == before["mounts"]
    assert after["cgroups"] == before["cgroups"] == 0
    # Go's own ups and downs; a leak of one a run would be far above.
    assert after["descriptors"] <= before["descriptors"] + 5
    assert after["threads"] <= before["threads"] + 2 * AT_ONCE
    assert after["MiB"] <= before["MiB"] + 20
