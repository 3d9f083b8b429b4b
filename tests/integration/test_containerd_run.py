# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""containerd_run against a real containerd, with gVisor and with runc; nothing may be left after any test."""

from __future__ import annotations

import concurrent.futures
import hashlib
import os
import signal
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._base.process import Completed
from ansible_collections.ggen.gvisor.plugins.module_utils._containerd.ctr import Ctr
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox import pod as _pod
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.defaults import options
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.host_tools import HostTools, prepare
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.jobs import Job, Mode, PodJobs
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.pod import Command, Pod, PodSpec
from support import oci
from support.containerd import Daemon
from support.missing import MISSING
from support.module import finish_module, run_module, start_module
from support.runs import IMAGE, PATIENCE, RUNTIMES, Host, gvisor_daemon

pytest_plugins = ("support.run_fixtures",)

OWNER = 1000


@pytest.fixture(params=list(RUNTIMES))
def host(request: pytest.FixtureRequest, daemon: Daemon, tmp_path: Path) -> Iterator[Host]:
    one = Host(daemon, tmp_path, RUNTIMES[request.param])
    yield one
    assert one.left() == {}


@pytest.fixture
def runsc(daemon: Daemon, tmp_path: Path) -> Iterator[Host]:
    one = Host(daemon, tmp_path, RUNTIMES["runsc"])
    yield one
    assert one.left() == {}


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    folder = tmp_path / "job space,a=b"
    folder.mkdir()
    (folder / "input").write_text("input\n")
    (folder / "sub").mkdir()
    (folder / "sub/old").write_text("old\n")
    for path in [folder, *folder.rglob("*")]:
        os.chown(path, OWNER, OWNER)
    return folder


def files(result: dict) -> dict[str, str]:
    return {item["path"]: item["change"] for item in result["changed_files"]}


def fingerprint(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted([folder, *folder.rglob("*")]):
        status = path.lstat()
        digest.update(f"{path} {status.st_mode} {status.st_uid} {status.st_size} {status.st_mtime_ns}".encode())
        if stat.S_ISREG(status.st_mode):
            digest.update(path.read_bytes())
    return digest.hexdigest()


# What comes back


def test_a_state_folder_that_cannot_be_written_is_named(runsc: Host, tmp_path: Path) -> None:
    runsc.state_dir = str(tmp_path / "own")
    os.mkdir(runsc.state_dir)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", runsc.state_dir], check=True)
    try:
        assert runsc.run("true")["rc"] == 0
        subprocess.run(["mount", "-o", "remount,ro", runsc.state_dir], check=True)
        result = runsc.run("true")
    finally:
        subprocess.run(["umount", runsc.state_dir], check=True)
    assert result["failed"]
    assert result["msg"] == f"{runsc.state_dir}/pods/.lock: Read-only file system"


@pytest.mark.parametrize("code", [0, 1, 3, 126, 127, 128, 255])
def test_the_real_exit_code(host: Host, code: int) -> None:
    result = host.run(f"exit {code}")
    assert (result.get("rc"), result["failed"]) == (code, code != 0), result
    assert code == 0 or result["msg"] == f"sh ended with exit code {code}"


def test_output_apart(host: Host, workspace: Path) -> None:
    result = host.run("cat input; echo err >&2; pwd", workspace)
    assert (result["stdout"], result["stderr"]) == ("input\n/workspace\n", "err\n")
    assert (result["stdout_bytes"], result["output_truncated"]) == (17, False)
    assert result["duration"] > 0
    assert set(result["timings"]) == {"pod", "job", "scan_before", "scan_after", "removed", "total"}


def test_a_code_other_than_0_need_not_fail(host: Host) -> None:
    result = host.run("exit 5", fail_on_rc=False)
    assert (result["rc"], result["failed"]) == (5, False)
    assert "exit code 5" in result["msg"]


def test_the_job_dies_of_a_signal(host: Host) -> None:
    assert host.run("kill -9 $$")["rc"] == 137


def test_environment_and_arguments_come_through_unchanged(host: Host) -> None:
    words = ["a b", "$(id)", "line\nbreak", "grün", "--", "-x", "'\"", ""]
    script = 'printf "<%s>" "$@"; printf "%s" "$ODD" >&2'
    result = host.run(["sh", "-c", script, "sh", *words], env={"ODD": "x=y, 'z'\nnext"})
    assert result["stdout"] == "".join(f"<{word}>" for word in words)
    assert result["stderr"] == "x=y, 'z'\nnext"


def test_the_proof_is_gvisors_own(runsc: Host) -> None:
    assert runsc.run("true")["kernel"] == "Starting gVisor..."


def test_runc_is_not_taken_for_gvisor(runsc: Host, tmp_path: Path) -> None:
    """A shim of gVisor's name that is runc's: the job must not start."""
    fake = tmp_path / "bin"
    fake.mkdir()
    (fake / "containerd-shim-runsc-v1").symlink_to("/usr/bin/containerd-shim-runc-v2")
    (tmp_path / "ws").mkdir()
    os.chown(tmp_path / "ws", OWNER, OWNER)
    with Daemon(tmp_path / "fake", bin_dir=fake) as other:
        oci.busybox_archive(tmp_path / "busybox.tar", IMAGE)
        other.ctr("images", "import", str(tmp_path / "busybox.tar"))
        result = Host(other, tmp_path, runsc.runtime).run("touch started", tmp_path / "ws")
        assert {name: found for name, found in other.leftovers().items() if found} == {}
    assert result["failed"]
    assert "is not gVisor" in result["msg"]
    assert os.listdir(tmp_path / "ws") == []


def test_output_without_end_is_bounded(host: Host) -> None:
    result = host.run("echo begin; yes | head -c 30000000; echo end", max_output=10000)
    assert result["rc"] == 0
    assert result["stdout_bytes"] == 30000000 + 10
    assert result["output_truncated"]
    assert len(result["stdout"]) < 10100
    assert result["stdout"].startswith("begin\ny\n")
    assert result["stdout"].endswith("y\nend\n")


def test_something_left_behind_does_not_hold_the_result(host: Host) -> None:
    """A background process keeps the output open; the command's end is what counts."""
    begin = time.monotonic()
    result = host.run("sleep 1000 & echo done; exit 3", timeout=60)
    assert (result["rc"], result["stdout"], result["timed_out"]) == (3, "done\n", False)
    assert time.monotonic() - begin < 20


def test_short_commands_lose_no_output(host: Host, tmp_path: Path) -> None:
    """ctr tasks exec loses the output of about 1 in 50 such commands while the machine is busy."""

    def many(number: int) -> list[tuple[int | None, str]]:
        folder = tmp_path / f"pod{number}"
        folder.mkdir()
        spec = PodSpec(f"{host.name}-{number}", IMAGE, host.runtime, [], prepare(host.state_dir), gvisor="runsc" in host.runtime)
        pod = Pod(Ctr(host.daemon.address), spec, str(folder))
        try:
            pod.start()
            jobs = [pod.execute(Command(["/bin/busybox", "echo", "yes"], "/", {}, 60, 100)) for _turn in range(40)]
        finally:
            pod.remove()
        return [(job.rc, job.stdout.text()) for job in jobs]

    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        results = [result for some in pool.map(many, range(3)) for result in some]
    assert results == [(0, "yes\n")] * 120


# What the job may do


def test_files_belong_to_the_workspaces_owner(host: Host, workspace: Path) -> None:
    result = host.run("id -u; id -g; echo new > new; mkdir d; echo x > d/e; echo more >> input; rm sub/old", workspace)
    assert result["stdout"] == f"{OWNER}\n{OWNER}\n"
    assert result["user"] == f"{OWNER}:{OWNER}"
    assert files(result) == {"new": "created", "d/e": "created", "input": "modified", "sub/old": "removed"}
    assert result["changed"]
    assert {path.stat().st_uid for path in workspace.rglob("*")} == {OWNER}
    (new,) = [item for item in result["changed_files"] if item["path"] == "new"]
    assert new["sha256"] == hashlib.sha256(b"new\n").hexdigest()
    assert new["size"] == 4


def test_another_user(host: Host, workspace: Path) -> None:
    result = host.run("id -u; id -g; touch /workspace/x || echo refused", workspace, user="4321")
    assert result["stdout"] == f"4321\n{OWNER}\nrefused\n"
    assert host.run("id -u; id -g", user="7:8")["stdout"] == "7\n8\n"


def test_no_rights(host: Host, workspace: Path) -> None:
    """No capability, no new privilege, no way to give files away or to write outside of the workspace and /tmp."""
    os.chown(workspace, 0, 0)
    result = host.run(
        "grep -E '^Cap(Prm|Eff)' /proc/self/status; touch /etc/x /bin/x /x 2>/dev/null && echo WROTE;"
        "echo t > /tmp/t && cat /tmp/t; chown 5:5 . 2>/dev/null && echo CHOWNED; id -u",
        workspace,
        user="0:0",
    )
    assert "WROTE" not in result["stdout"]
    assert "CHOWNED" not in result["stdout"]
    assert result["stdout"].endswith("t\n0\n")
    assert result["stdout"].count("0000000000000000") == 2


def test_no_network(host: Host) -> None:
    result = host.run("ls /sys/class/net 2>/dev/null || ip -o link; wget -T 2 -q -O - http://127.0.0.1:1/ || echo none")
    assert "eth" not in result["stdout"]
    assert result["stdout"].endswith("none\n")


def test_a_writable_root_when_asked_for(host: Host) -> None:
    assert host.run("touch /x && echo yes", user="0:0", read_only=False)["stdout"] == "yes\n"


def test_setid_bits_do_not_stay(host: Host, workspace: Path) -> None:
    result = host.run("cp /bin/busybox shell; chmod 6755 shell", workspace)
    assert stat.S_IMODE((workspace / "shell").stat().st_mode) == 0o755
    assert "set-user-id" in result["warnings"][0]
    assert result["changed_files"][0]["mode"] == "0755"


def test_private_files_are_closed(host: Host, workspace: Path) -> None:
    """Whoever made them; links on the way lead nowhere."""
    (workspace / "old-key").write_text("secret")
    (workspace / "old-key").chmod(0o644)
    outside = workspace.parent / "outside"
    outside.mkdir(exist_ok=True)
    (outside / "key").write_text("not ours")
    (outside / "key").chmod(0o644)
    script = f"mkdir keys; echo secret > keys/key; chmod 664 keys/key; ln -s {outside} out; ln -s /etc/passwd link"
    result = host.run(script, workspace, private=["keys/key", "old-key", "out/key", "link", "absent"])
    assert [stat.S_IMODE((workspace / name).stat().st_mode) for name in ("keys/key", "old-key")] == [0o600, 0o600]
    assert stat.S_IMODE((outside / "key").stat().st_mode) == 0o644
    assert {item["path"]: item["mode"] for item in result["changed_files"] if item["kind"] == "file"} == {
        "keys/key": "0600",
        "old-key": "0600",
    }


def test_mounts(host: Host, workspace: Path, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "x.ttl").write_text("ontology\n")
    mounts = [{"source": str(shared), "target": "/ontologies"}]
    result = host.run("cat ../ontologies/x.ttl; touch /ontologies/y 2>/dev/null && echo WROTE", workspace, mounts=mounts)
    assert result["stdout"] == "ontology\n"
    os.chown(shared, OWNER, OWNER)
    writable = [{"source": str(shared), "target": "/out", "writable": True}]
    assert host.run("touch /out/z", workspace, mounts=writable)["rc"] == 0
    assert (shared / "z").stat().st_uid == OWNER


# What counts as a change


def test_rewriting_the_same_bytes_is_no_change(host: Host, workspace: Path) -> None:
    result = host.run("cp input copy; rm input; mv copy input; touch sub/old", workspace)
    assert (result["changed"], result["changed_files"]) == (False, [])


def test_ignored_files_are_listed_and_do_not_count(host: Host, workspace: Path) -> None:
    result = host.run("mkdir .ggen; echo s > .ggen/state; echo b > sub/x.backup", workspace, ignore=[".ggen/**", "*.backup"])
    assert not result["changed"]
    assert [(item["path"], item["ignored"]) for item in result["changed_files"]] == [
        (".ggen/state", True),
        ("sub/x.backup", True),
    ]


def test_check_mode_leaves_the_workspace_alone(host: Host, workspace: Path) -> None:
    os.mkfifo(workspace / "pipe")
    before = fingerprint(workspace)
    script = "cat input > new; echo changed > input; rm -r sub; ls -ln | grep -c 1000"
    result = host.run(script, workspace, check=True, diff=True)
    assert fingerprint(workspace) == before
    assert result["changed"]
    assert result["rc"] == 0
    assert files(result) == {"new": "created", "input": "modified", "sub/old": "removed"}
    shown = {item["before_header"]: (item["before"], item["after"]) for item in result["diff"]}
    assert shown == {"input": ("input\n", "changed\n"), "new (absent)": ("", "input\n"), "sub/old": ("old\n", "")}
    assert "pipe" in result["warnings"][0]
    real = host.run(script, workspace, diff=True)
    assert files(real) == files(result)
    assert real["diff"] == result["diff"]


# What goes wrong


def test_timeout(host: Host, workspace: Path) -> None:
    """The job ignores SIGTERM, and what it said until then is kept."""
    begin = time.monotonic()
    result = host.run("trap '' TERM INT; echo begun; echo x > new; while true; do sleep 1; done", workspace, timeout=1.5)
    assert time.monotonic() - begin < 30
    assert (result["failed"], result["timed_out"]) == (True, True)
    assert "did not end within 1.5 s" in result["msg"]
    assert result["stdout"] == "begun\n"
    assert "rc" not in result
    assert files(result) == {"new": "created"}


def test_out_of_memory(host: Host, workspace: Path) -> None:
    result = host.run("echo begun; dd if=/dev/zero of=/tmp/big bs=1M count=900", workspace, memory="150M")
    assert result["failed"]
    assert "out of memory: the pod reached its limit of 150M" in result["msg"], result
    assert result["limits_hit"] == ["memory"]
    assert result["stdout"] == "begun\n"
    assert (workspace / "input").read_text() == "input\n"


def test_a_limit_that_the_sandbox_has_passed_already_is_refused(runsc: Host, workspace: Path) -> None:
    """It was a warning once, and the command ran without a limit."""
    result = runsc.run("echo never", workspace, memory="8M")
    assert result["failed"]
    assert "less than the sandbox itself needs" in result["msg"]
    assert "stdout" not in result
    assert runsc.left() == {}


def test_enough_memory(host: Host) -> None:
    result = host.run("dd if=/dev/zero of=/tmp/big bs=1M count=50 2>/dev/null; echo done", memory="300M")
    assert (result["rc"], result["limits_hit"]) == (0, [])


def test_a_fork_bomb(host: Host) -> None:
    result = host.run("bomb() { bomb | bomb & }; bomb; sleep 5; exit 7", pids=150, timeout=15)
    assert result["limits_hit"] == ["pids"], result
    assert "limit of 150 tasks" in result.get("msg", "")


def test_cpus(runsc: Host) -> None:
    script = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done"
    free = runsc.run(script)["duration"]
    limited = runsc.run(script, cpus=0.1)["duration"]
    assert limited > 2 * free


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"argv": []}, "argv is empty"),
        ({"argv": [""]}, "argv is empty"),
        ({"argv": ["nosuch"]}, "nosuch"),
        ({"image": "localhost/absent:1"}, f"which has {IMAGE}"),
        ({"image": "--privileged"}, "no image name"),
        ({"image": "a\nb"}, "no image name"),
        ({"image": "x" * 4096}, "no image name"),
        ({"workspace": f"{MISSING}/ws"}, "does not exist"),
        ({"workspace": "/etc/passwd"}, "is not a folder"),
        ({"workspace": "/"}, "the whole host"),
        ({"workspace": "/" + "x" * 4096}, "does not exist"),
        ({"name": "a..b"}, "name='a..b'"),
        ({"name": "x" * 70}, "at most 63 characters"),
        ({"namespace": "x" * 77}, "at most 76 characters"),
        ({"namespace": "$(id)"}, "namespace='$(id)'"),
        ({"runtime": "io.containerd.absent.v1"}, "does not find the runtime's shim"),
        ({"argv": ["-c", "true"]}, "taken for an option"),
        ({"private": ["../key"]}, "no plain path from the workspace"),
        ({"private": ["/etc/shadow"]}, "no plain path from the workspace"),
        ({"argv": ["a=b"]}, "taken for an option or a variable"),
        ({"memory": "lots"}, "is no size"),
        ({"file_size": "-1"}, "file_size='-1' is no size"),
        ({"keep_free": "5%"}, "keep_free='5%' is no size"),
        ({"limits": "some"}, "must be one of: required, best_effort"),
        ({"timeout": 0}, "must be more than 0"),
        ({"cpus": 0}, "at least 0.01"),
        ({"user": "root"}, "in numbers"),
        ({"cwd": "relative"}, "absolute path"),
        ({"env": {"A=B": "x"}}, "name of a variable"),
        ({"mounts": [{"source": MISSING, "target": "/x"}]}, "not an existing"),
        ({"mounts": [{"source": "/etc", "target": "../x"}]}, "not a plain absolute path"),
        ({"mounts": [{"source": "/etc", "target": "/proc/x"}]}, "the pod itself needs"),
    ],
)
def test_bad_input(runsc: Host, params: dict, message: str) -> None:
    result = runsc.run("true", **params)
    assert result["failed"]
    assert message in result["msg"]


@pytest.mark.parametrize(
    ("params", "missing"),
    [
        ({"image": "localhost/absent:1"}, "image"),
        ({"runtime": "io.containerd.absent.v1"}, "shim"),
        ({"address": f"{MISSING}/containerd.sock"}, "containerd"),
    ],
)
def test_what_an_earlier_task_would_have_brought_is_no_error_in_check_mode(runsc: Host, params: dict, missing: str) -> None:
    rehearsed = runsc.run("true", check=True, **params)
    assert (rehearsed["failed"], rehearsed["skipped"], rehearsed["missing"]) == (False, True, missing), rehearsed
    assert runsc.run("true", **params)["missing"] == missing


def test_a_namespace_without_images(runsc: Host) -> None:
    result = runsc.run("true", namespace="empty")
    assert "has no images" in result["msg"]
    assert {name: found for name, found in runsc.daemon.leftovers("empty").items() if found} == {}


def test_no_containerd(tmp_path: Path) -> None:
    result = run_module(
        "containerd_run",
        image=IMAGE,
        argv=["true"],
        address=str(tmp_path / "no.sock"),
        state_dir=str(tmp_path / "state"),
    )
    assert "does not answer" in result["msg"]
    assert not (tmp_path / "state").exists()


# Whatever happens, nothing is left


def wait_for(path: Path, process: subprocess.Popen, timeout: float = 20) -> None:
    deadline = time.monotonic() + timeout
    while not path.exists():
        assert process.poll() is None, finish_module(process)
        assert time.monotonic() < deadline, f"{path} never came"
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_module_is_killed_during_the_job(host: Host, workspace: Path, number: int) -> None:
    process = host.start("touch begun; sleep 1000", workspace)
    wait_for(workspace / "begun", process)
    process.send_signal(number)
    process.communicate(timeout=PATIENCE)
    assert host.settle() == {}


@pytest.mark.parametrize("delay", [0.15, 0.3, 0.45, 0.6, 0.75])
def test_the_module_is_killed_at_any_moment(host: Host, workspace: Path, delay: float) -> None:
    process = host.start("sleep 0.1", workspace)
    time.sleep(delay)
    process.kill()
    process.communicate(timeout=PATIENCE)
    if set(host.settle(5)) == {"pods"}:  # killed before the pod was begun: an empty folder, which the next run sweeps
        assert host.run("true")["rc"] == 0
    assert host.settle() == {}


def test_the_connection_is_cut(runsc: Host, workspace: Path) -> None:
    """The reader of the module's output is gone, as when SSH is: the module itself is not told."""
    process = runsc.start("touch begun; sleep 1000", workspace)
    wait_for(workspace / "begun", process)
    assert process.stdout
    process.stdout.close()
    process.wait(timeout=20)
    assert runsc.settle() == {}


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_the_supervisor_is_killed(host: Host, workspace: Path) -> None:
    process = host.start("touch begun; sleep 1000", workspace)
    wait_for(workspace / "begun", process)
    (supervisor,) = children(process.pid)
    os.kill(supervisor, signal.SIGKILL)
    result = finish_module(process)
    assert "was killed; the pod was removed" in result["msg"]
    assert host.settle() == {}


def test_both_are_killed_and_the_next_run_cleans_up(host: Host, workspace: Path) -> None:
    """… without touching a pod whose owner is alive."""
    alive = host.start("touch alive; while [ ! -e stop ]; do sleep 0.1; done; echo fine", workspace)
    wait_for(workspace / "alive", alive)
    process = host.start("touch begun; sleep 1000", workspace)
    wait_for(workspace / "begun", process)
    (supervisor,) = children(process.pid)
    process.send_signal(signal.SIGSTOP)
    os.kill(supervisor, signal.SIGKILL)
    process.kill()
    process.communicate()
    assert len(host.pods()) == 2
    result = host.run("true")
    assert (result["rc"], len(host.pods())) == (0, 1)
    assert "that was killed was removed" in result["warnings"][0]
    (workspace / "stop").touch()
    assert finish_module(alive)["stdout"] == "fine\n"


def test_what_a_mount_was_put_on_is_gone_after_both_were_killed(runsc: Host, workspace: Path, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    before = sorted(workspace.rglob("*"))
    mounts = [{"source": str(tmp_path / "source"), "target": "/workspace/new/point"}]
    process = runsc.start("touch sub/begun; sleep 1000", workspace, mounts=mounts)
    wait_for(workspace / "sub/begun", process)
    assert (workspace / "new/point").stat().st_uid == OWNER
    (supervisor,) = children(process.pid)
    process.send_signal(signal.SIGSTOP)
    os.kill(supervisor, signal.SIGKILL)
    process.kill()
    process.communicate()
    assert runsc.run("true")["rc"] == 0
    assert sorted(workspace.rglob("*")) == sorted([*before, workspace / "sub/begun"])


def test_the_sandbox_is_killed(host: Host, workspace: Path) -> None:
    process = host.start("touch begun; sleep 1000", workspace)
    wait_for(workspace / "begun", process)
    (pod,) = host.pods()
    os.kill(int((Path(host.state_dir) / "pods" / pod / "pid").read_text()), signal.SIGKILL)
    result = finish_module(process)
    assert result["failed"]
    assert "rc" not in result or result["rc"] == 137


def test_the_shim_is_killed(host: Host, workspace: Path) -> None:
    process = host.start("touch begun; sleep 1000", workspace)
    wait_for(workspace / "begun", process)
    for pid, words in host.daemon.shims().items():
        if "shim" in words[0]:
            os.kill(pid, signal.SIGKILL)
    result = finish_module(process)
    assert result["failed"]
    assert host.settle() == {}


def test_containerd_is_killed_during_the_job(tmp_path: Path, workspace: Path) -> None:
    """The job goes on, whenever it was, and its result is the job's own; the pod is removed when the daemon is back."""
    with gvisor_daemon(tmp_path / "containerd") as daemon:
        host = Host(daemon, tmp_path, RUNTIMES["runsc"])
        for turn in range(8):
            begun, seen = workspace / f"begun{turn}", workspace / f"seen{turn}"
            process = host.start(f"touch {begun.name}; while [ ! -e {seen.name} ]; do sleep 0.01; done; echo done; exit {turn}", workspace)
            while not begun.exists() and process.poll() is None:
                pass
            assert daemon.process
            daemon.process.kill()
            daemon.process.wait()
            seen.touch()
            daemon.start()
            result = finish_module(process, timeout=PATIENCE)
            assert (result["rc"], result["stdout"]) == (turn, "done\n")
            assert host.settle() == {}
        assert host.run("echo again", workspace)["stdout"] == "again\n"


def test_an_image_with_a_user_of_its_own(tmp_path: Path, workspace: Path) -> None:
    """Its user could not become the workspace's owner."""
    entries, _digest = oci.oci_entries(oci.busybox_layer(), IMAGE, user="1234:1234")
    with gvisor_daemon(tmp_path / "containerd") as daemon:
        (tmp_path / "image.tar").write_bytes(oci.tar(entries))
        daemon.ctr("images", "import", str(tmp_path / "image.tar"))
        for runtime in RUNTIMES.values():
            host = Host(daemon, tmp_path, runtime)
            result = host.run("id -u; grep ^CapEff /proc/self/status | cut -c9-; exit 3", workspace, fail_on_rc=False)
            assert (result["rc"], result["stdout"]) == (3, f"{OWNER}\n0000000000000000\n")
            assert host.left() == {}


def test_a_pod_that_cannot_be_removed_does_not_take_its_jobs_result() -> None:
    """containerd does not come back, and the supervisor gives up after a minute; its messages stand in for it."""
    outcome = {"rc": 3, "why": "exit", "stdout": "said", "stderr": "", "stdout_bytes": 4, "stderr_bytes": 0, "truncated": False}
    outcome = {**outcome, "struck": [], "space": None, "kernel": None, "warnings": [], "timings": {"pod": 0.2, "job": 0.1}}

    class Messages:
        def expect(self, name: str) -> dict:
            if name == "removed":
                raise GvisorError("pod run-1 could not be removed: containerd does not answer; the next run tries again")
            return outcome

    params = options(image=IMAGE, argv=["sh"], runtime="runc", protect=[], fail_on_rc=True)
    job = Job(Mode(check=False, diff=False), params)
    group = object.__new__(PodJobs)
    group.jobs, group.pod, group.supervisor, group._shared = [job], "run-1", Messages(), []
    group.trail = type("Trail", (), {"end": lambda *_arguments: []})()
    group.folder = type("Folder", (), {"done": lambda _self, _name: None})()
    (result,) = group.results()
    assert (result["rc"], result["stdout"]) == (3, "said")
    assert "could not be removed" in job.warnings[0]


def test_two_at_once(host: Host, tmp_path: Path) -> None:
    folders = [tmp_path / f"ws{number}" for number in range(4)]
    for folder in folders:
        folder.mkdir()
        os.chown(folder, OWNER, OWNER)

    def one(folder: Path) -> dict:
        return host.run(f"echo {folder.name} > out; exit {folder.name[2:]}", folder, fail_on_rc=False)

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        results = list(pool.map(one, folders))
    assert [result["rc"] for result in results] == [0, 1, 2, 3]
    assert [(folder / "out").read_text() for folder in folders] == [f"{folder.name}\n" for folder in folders]


def test_a_shim_that_hangs_in_its_start_is_ended(tmp_path, monkeypatch):
    """It was seen once, under load: the task is not there, the container cannot go, and nothing of it takes long. The hang cannot be
    provoked, so ctr's answers stand in for it."""
    monkeypatch.setattr(_pod, "KILL_TIMEOUT", 0.1)
    alive = ["shim"]

    class Answers(_pod.Ctr):
        def run(self, *args, **_options):
            said = "" if not alive else "cannot delete a container with an existing task" if args[0] == "containers" else "not found"
            return Completed(1 if alive else 0, "", said)

    spec = PodSpec("hang-1", "image", "io.containerd.runc.v2", [], HostTools("", ""))
    pod = _pod.Pod(Answers(str(tmp_path / "none.sock")), spec, str(tmp_path))
    monkeypatch.setattr(pod, "_kill_shim", alive.clear)
    begin = time.monotonic()
    pod.remove()
    assert alive == []
    assert time.monotonic() - begin < 5


# Several commands


@pytest.fixture
def workspaces(tmp_path: Path) -> list[Path]:
    folders = [tmp_path / f"ws{number}" for number in range(4)]
    for folder in folders:
        folder.mkdir()
        os.chown(folder, OWNER, OWNER)
    return folders


def jobs_of(host: Host, folders: list[Path], script: str, **params: object) -> dict:
    """Run ``script`` in each of the folders; $0 is its number."""
    jobs = [{"workspace": str(folder), "argv": ["sh", "-c", script, str(number)]} for number, folder in enumerate(folders)]
    common = {key: value for key, value in host.params("", None).items() if key not in ("argv", "workspace")}
    return run_module("containerd_run", **{**common, "jobs": jobs, "fail_on_rc": False, **params})


@pytest.mark.parametrize("pods", ["each", "one"])
def test_several_jobs(host: Host, workspaces: list[Path], pods: str) -> None:
    """Exit codes, outputs and changes are each job's own."""
    result = jobs_of(host, workspaces, "echo $0 | tee out; echo err$0 >&2; exit $0", pods=pods)
    assert [job["rc"] for job in result["jobs"]] == [0, 1, 2, 3]
    assert [job["stdout"] for job in result["jobs"]] == ["0\n", "1\n", "2\n", "3\n"]
    assert [job["stderr"] for job in result["jobs"]] == ["err0\n", "err1\n", "err2\n", "err3\n"]
    assert [files(job) for job in result["jobs"]] == [{"out": "created"}] * 4
    assert [(folder / "out").read_text() for folder in workspaces] == ["0\n", "1\n", "2\n", "3\n"]
    assert len({job["pod"] for job in result["jobs"]}) == {"each": 4, "one": 1}[pods]
    assert (result["failed"], result["changed"]) == (False, True)


def test_one_that_fails_is_named_and_does_not_keep_the_others(host: Host, workspaces: list[Path]) -> None:
    result = jobs_of(host, workspaces, "touch out; [ $0 != 1 ]", fail_on_rc=True)
    assert result["failed"]
    assert result["msg"] == f"{workspaces[1]}: sh ended with exit code 1"
    assert [job["failed"] for job in result["jobs"]] == [False, True, False, False]
    assert all((folder / "out").exists() for folder in workspaces)


def test_jobs_with_pods_of_their_own_do_not_see_each_other(host: Host, workspaces: list[Path]) -> None:
    (workspaces[0] / "secret").write_text("secret\n")
    result = jobs_of(host, workspaces, "grep -rs secret / --include=secret; ls / | grep workspaces; true", parallel=2)
    assert [job["stdout"] for job in result["jobs"][1:]] == [""] * 3


@pytest.mark.parametrize("end", ["sleep 1000", "kill -9 -1; dd if=/dev/zero of=/tmp/big bs=1M count=400"])
def test_after_a_job_without_an_end_the_others_get_a_new_pod(runsc: Host, workspaces: list[Path], end: str) -> None:
    result = jobs_of(runsc, workspaces, f"echo $0; [ $0 != 1 ] || {{ {end}; }}", pods="one", timeout=4, memory="200M")
    assert [job.get("rc") for job in result["jobs"]] == [0, None, 0, 0]
    assert [job["failed"] for job in result["jobs"]] == [False, True, False, False]
    assert [job["stdout"] for job in result["jobs"]] == ["0\n", "1\n", "2\n", "3\n"]
    assert [len({job["pod"] for job in result["jobs"][part]}) for part in (slice(0, 2), slice(2, 4), slice(0, 4))] == [1, 1, 2]


def test_what_a_job_leaves_behind_is_gone_before_the_next(host: Host, workspaces: list[Path]) -> None:
    left = "while :; do echo left; touch /workspaces/1/left; sleep 0.01; done"
    result = jobs_of(
        host, workspaces[:2], f"if [ $0 = 0 ]; then ( {left} ) & sleep 0.1; else sleep 0.3; rm -f left; sleep 0.3; ls; fi", pods="one"
    )
    assert result["jobs"][1]["stdout"] == ""


def test_a_job_that_is_refused_does_not_keep_the_others(host: Host, workspaces: list[Path], tmp_path: Path) -> None:
    result = jobs_of(host, [tmp_path / "absent", *workspaces], "touch out")
    assert result["failed"]
    assert result["msg"] == f"{tmp_path}/absent: {result['jobs'][0]['msg']}"
    assert "does not exist on this host" in result["msg"]
    assert [job["failed"] for job in result["jobs"]] == [True, False, False, False, False]
    assert all((folder / "out").exists() for folder in workspaces)


@pytest.mark.parametrize("pods", ["each", "one"])
def test_check_mode_of_several(runsc: Host, workspaces: list[Path], pods: str) -> None:
    result = jobs_of(runsc, workspaces, "touch out", pods=pods, check=True, diff=True)
    assert [files(job) for job in result["jobs"]] == [{"out": "created"}] * 4
    assert [part["before_header"] for part in result["diff"]] == [f"{folder}/out (absent)" for folder in workspaces]
    assert not any((folder / "out").exists() for folder in workspaces)


def test_the_same_workspace_twice_is_run_in_order(host: Host, workspaces: list[Path]) -> None:
    """… though there would be room for both at once."""
    result = jobs_of(host, [workspaces[0]] * 3, "cat out; sleep 0.2; echo $0 >> out", parallel=3)
    assert [job["stdout"] for job in result["jobs"]] == ["", "0\n", "0\n1\n"]
    assert [files(job) for job in result["jobs"]] == [{"out": "created"}, {"out": "modified"}, {"out": "modified"}]


def test_the_module_is_killed_during_several(host: Host, workspaces: list[Path]) -> None:
    jobs = [{"workspace": str(folder), "argv": ["sh", "-c", "touch begun; sleep 1000"]} for folder in workspaces]
    common = {key: value for key, value in host.params("", None).items() if key not in ("argv", "workspace")}
    process = start_module("containerd_run", **common, jobs=jobs, parallel=4)
    for folder in workspaces:
        wait_for(folder / "begun", process, timeout=60)
    process.kill()
    process.communicate(timeout=PATIENCE)
    assert host.settle() == {}
