# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run may use without anybody having said so, and what becomes of one that uses more; on a real containerd."""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.limits import default_memory
from support.containerd import Daemon
from support.module import finish_module, run_module
from support.runs import PATIENCE, RUNTIMES, USER, Host, gvisor_daemon, own

pytest_plugins = ("support.run_fixtures",)

MIB = 1 << 20


@pytest.fixture(params=list(RUNTIMES))
def host(request: pytest.FixtureRequest, daemon: Daemon, tmp_path: Path) -> Iterator[Host]:
    one = Host(daemon, tmp_path, RUNTIMES[request.param])
    yield one
    assert one.settle() == {}


@contextlib.contextmanager
def small(folder: Path, options: str) -> Iterator[Path]:
    """A file system of its own at ``folder``."""
    folder.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True)
    try:
        yield own(folder)
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} never came"
        time.sleep(0.02)


def group_file(host: Host, controller: str, name: str) -> str:
    (found,) = Path("/sys/fs/cgroup").glob(f"{controller}/**/*{host.name}-*/{name}")
    return found.read_text().strip()


# Defaults


def test_defaults_are_in_force(host: Host, workspace: Path) -> None:
    """Memory and tasks in the pod's group, the sizes of files in the pod, and no core file of anything."""
    process = host.start("ulimit -f; ulimit -c; ulimit -H -f; touch begun; while [ ! -e go ]; do sleep 0.05; done", workspace)
    wait_for(workspace / "begun")
    try:
        assert int(group_file(host, "memory", "memory.limit_in_bytes")) == default_memory() // 4096 * 4096
        assert group_file(host, "pids", "pids.max") == "2048"
        pids = group_file(host, "memory", "cgroup.procs").split()
        cores = {Path(f"/proc/{pid}/limits").read_text().partition("Max core file size")[2].split()[0] for pid in pids}
        assert (bool(pids), cores) == (True, {"0"})
    finally:
        (workspace / "go").touch()
        os.chown(workspace / "go", USER, USER)
        result = finish_module(process)
    assert result["stdout"].split() == [str((4 << 30) // 512), "0", str((4 << 30) // 512)]
    assert result["warnings"] == []


def test_a_file_does_not_grow_over_its_limit(host: Host, workspace: Path) -> None:
    result = host.run("exec dd if=/dev/zero of=big bs=64k count=64", workspace, file_size="1M")
    assert result["failed"]
    assert (result["rc"], result["limits_hit"]) == (128 + 25, ["file_size"])
    assert "a file reached the limit of 1M (file_size)" in result["msg"]
    assert (workspace / "big").stat().st_size == MIB
    other = host.run("dd if=/dev/zero of=big bs=64k count=64", workspace, file_size="0")
    assert (other["rc"], (workspace / "big").stat().st_size) == (0, 4 * MIB)


def test_a_command_cannot_raise_it(host: Host, workspace: Path) -> None:
    result = host.run("ulimit -f unlimited || ulimit -f 100000000; dd if=/dev/zero of=big bs=64k count=64", workspace, file_size="1M")
    assert result["failed"]
    assert (workspace / "big").stat().st_size <= MIB


# What cannot be enforced


def without_groups(controller: str) -> list[str]:
    """Return a command's beginning that hides one of the host's controllers from it, in mounts of its own."""
    return ["unshare", "--mount", "sh", "-c", f'umount --lazy /sys/fs/cgroup/{controller}; exec "$@"', "sh"]


@pytest.mark.parametrize("limits", ["required", "best_effort"])
def test_a_host_without_a_controller(host: Host, limits: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("support.module.BEFORE", without_groups("pids"))
    result = host.run("echo ran", limits=limits)
    if limits == "required":
        assert result["failed"]
        assert "the limit pids=2048 is not enforced on this host" in result["msg"]
        assert "enable the pids controller" in result["msg"]
        assert "limits: best_effort" in result["msg"]
        assert (result["unenforced"], "stdout" in result) == (["pids"], False)
    else:
        assert (result["stdout"], len(result["warnings"])) == ("ran\n", 1)
        assert "the limit pids=2048 is not enforced on this host" in result["warnings"][0]


# Room on the disk


@pytest.mark.parametrize("script", ["cat /dev/zero > big", "n=0; while :; do n=$((n+1)); : > f$n; done"])
def test_the_disk_is_not_filled(host: Host, tmp_path: Path, script: str) -> None:
    """Neither its blocks nor its inodes; what the command had said is kept, and the next one can run."""
    with small(tmp_path / "small", "size=2g,nr_inodes=80000,mode=755") as workspace:
        result = host.run(f"echo begun; {script}", workspace, keep_free="1G", timeout=60)
        left = os.statvfs(workspace)
        assert left.f_bavail * left.f_frsize > 200 * MIB
        assert left.f_favail > 0
        assert (result["failed"], result["limits_hit"], result["stdout"]) == (True, ["space"], "begun\n"), result
        assert "rc" not in result
        assert f"too little room on the file system of the workspace {workspace}" in result["msg"]
        assert result["changed_files"]
        subprocess.run(["find", workspace, "-type", "f", "-delete"], check=True)
        assert host.run("echo again", workspace, keep_free="1G")["stdout"] == "again\n"


def test_a_full_disk_is_told_before(runsc: Host, tmp_path: Path) -> None:
    with small(tmp_path / "small", "size=64m,mode=755") as workspace:
        refused = runsc.run("echo ran", workspace, keep_free="100M")
        assert (refused["failed"], "stdout" in refused) == (True, False)
        assert "of the 100M that must stay free there (keep_free) 64M are left" in refused["msg"]
        assert "free some space, or lower keep_free" in refused["msg"]
        warned = runsc.run("echo ran", workspace, keep_free="100M", limits="best_effort")
        assert warned["stdout"] == "ran\n"
        assert "keep_free" in warned["warnings"][0]
        assert runsc.run("echo ran", workspace, keep_free="0")["stdout"] == "ran\n"


def test_the_default_is_a_share_of_the_file_system(runsc: Host, tmp_path: Path) -> None:
    with small(tmp_path / "small", "size=64m,mode=755") as workspace:
        result = runsc.run("while dd if=/dev/zero bs=64k count=1 2>/dev/null >> big; do sleep 0.01; done", workspace, timeout=90)
        assert result["limits_hit"] == ["space"], result
        assert 48 * MIB < (workspace / "big").stat().st_size < 64 * MIB


def test_a_copy_does_not_fill_the_state_folder(runsc: Host, tmp_path: Path, workspace: Path) -> None:
    (workspace / "big").write_bytes(os.urandom(40 * MIB))
    os.chown(workspace / "big", USER, USER)
    with small(tmp_path / "state", "size=64m,mode=711") as state_dir:
        os.chown(state_dir, 0, 0)
        assert runsc.run("true")["rc"] == 0
        result = runsc.run("true", workspace, check=True, keep_free="32M")
        assert result["failed"]
        assert "the file system of the state folder" in result["msg"]
        assert runsc.pods() == []


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_the_pod_s_own_root_is_watched_where_it_can_be_written(tmp_path: Path, runtime: str) -> None:
    """It lies on containerd's file system."""
    with small(tmp_path / "small", "size=1g,mode=755") as folder, gvisor_daemon(folder / "containerd") as running:
        host = Host(running, tmp_path, RUNTIMES[runtime])
        result = host.run("cat /dev/zero > /big", user="0:0", read_only=False, keep_free="512M", timeout=60)
        assert result["limits_hit"] == ["space"], result
        assert "the root file system of pod" in result["msg"]
        assert host.settle() == {}


def test_a_mount_is_watched_too(runsc: Host, tmp_path: Path) -> None:
    with small(tmp_path / "small", "size=512m,mode=755") as out:
        mounts = [{"source": str(out), "target": "/out", "writable": True}]
        result = runsc.run("cat /dev/zero > /out/big", user=f"{USER}:{USER}", mounts=mounts, keep_free="256M", timeout=60)
        assert result["limits_hit"] == ["space"], result
        assert "the mount /out" in result["msg"]


# Time and size of what is told


def test_a_sparse_file_has_the_digest_of_its_content(runsc: Host, workspace: Path) -> None:
    begin = time.monotonic()
    result = runsc.run("printf begin > sparse; truncate -s 2G sparse; printf end >> sparse", workspace)
    assert time.monotonic() - begin < 45
    (change,) = result["changed_files"]
    hasher = hashlib.sha256(b"begin")
    zeros = bytes(MIB)
    for _block in range(2 * 1024 - 1):
        hasher.update(zeros)
    hasher.update(zeros[5:] + b"end")
    assert (change["size"], change["sha256"]) == ((2 << 30) + 3, hasher.hexdigest())
    assert (workspace / "sparse").stat().st_blocks * 512 < MIB


def test_the_whole_run_ends_in_time(runsc: Host, workspace: Path) -> None:
    """The time that the command did not take is what looking has, and little more."""
    begin = time.monotonic()
    result = runsc.run("n=0; while [ $n -lt 20 ]; do n=$((n+1)); truncate -s 3G s$n; done", workspace, timeout=2, fail_on_rc=False)
    assert time.monotonic() - begin < 2 + 30 + PATIENCE / 3
    assert result["changed_counts"]["created"] == 20


def test_what_is_told_is_bounded_whatever_the_names_are(runsc: Host, workspace: Path) -> None:
    script = 'd=$(printf "%0200d" 0); for a in 1 2 3 4 5 6 7 8; do mkdir $d; cd $d; done; n=0; while [ $n -lt 1500 ]; do n=$((n+1)); : > f$n; done'
    result = runsc.run(script, workspace)
    assert result["changed_counts"]["created"] == 1500
    assert sum(len(item["path"]) for item in result["changed_files"]) <= MIB
    assert result["changed_files"]


def test_jobs_of_one_pod_each_have_their_time(runsc: Host, tmp_path: Path) -> None:
    common = {key: value for key, value in runsc.params("", None).items() if key not in ("argv", "workspace")}
    jobs = [{"argv": ["sh", "-c", "sleep 1; echo done"], "workspace": str(own(tmp_path / name))} for name in "abc"]
    result = run_module("containerd_run", **common, jobs=jobs, pods="one", timeout=2)
    assert [job["stdout"] for job in result["jobs"]] == ["done\n"] * 3
