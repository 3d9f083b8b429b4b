# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Jobs and users that try to decide what root does before, during and after a run; on a real containerd, in gVisor."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import stat
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._containerd.ctr import Ctr
from ansible_collections.ggen.gvisor.plugins.module_utils._containerd.image_config import ImageConfig
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox import jobs as _jobs
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.cleaning import Cleaned, Note
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.host_tools import HostTools, prepare
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.limits import Room
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.pod import Command, Mount, Pod, PodSpec
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.supervisor import PodFolder
from ansible_collections.ggen.gvisor.plugins.modules import containerd_run
from support.containerd import Daemon
from support.module import finish_module, run_module
from support.runs import IMAGE, PATIENCE, RUNTIMES, USER, Host, own

pytest_plugins = ("support.run_fixtures",)

SET_ID = "cp /bin/busybox shell; chmod 6755 shell"
DEEP = "n=0; while [ $n -lt 1100 ]; do mkdir d && cd d; n=$((n+1)); done"


@pytest.fixture
def host(daemon: Daemon, tmp_path: Path) -> Iterator[Host]:
    one = Host(daemon, tmp_path, RUNTIMES["runsc"])
    yield one
    assert one.settle() == {}
    # Python's own rmtree recurses, and pytest's with it.
    subprocess.run(["rm", "-rf", tmp_path], check=True)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A user's folder, with a workspace in it."""
    return own(tmp_path / "home", tmp_path / "home/model").parent


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    """A folder of root's."""
    folder = tmp_path / "secrets"
    folder.mkdir(mode=0o700)
    (folder / "secret").write_text("secret\n")
    return folder


def bits(path: Path) -> str:
    return f"{stat.S_IMODE(path.stat().st_mode):04o}"


def jobs_of(host: Host, *jobs: tuple[str, Path], **params: object) -> dict:
    common = {key: value for key, value in host.params("", None).items() if key not in ("argv", "workspace")}
    listed = [{"workspace": str(folder), "argv": ["sh", "-c", script]} for script, folder in jobs]
    return run_module("containerd_run", **{**common, "jobs": listed, "fail_on_rc": False, **params})


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} never came"
        time.sleep(0.02)


OUTCOME = {
    "rc": 0,
    "why": "exit",
    "stdout": "said",
    "stderr": "",
    "stdout_bytes": 4,
    "stderr_bytes": 0,
    "truncated": False,
    "struck": [],
} | {
    "kernel": None,
    "warnings": [],
    "timings": {"pod": 0.2, "job": 0.1},
}


def job_of(workspace: Path, number: int, **params: object) -> _jobs.Job:
    """A job as the module makes it, without the module."""
    with mock.patch.object(containerd_run, "AnsibleModule", side_effect=StopIteration) as made, contextlib.suppress(StopIteration):
        containerd_run.main()
    common = {name: spec.get("default") for name, spec in made.call_args.kwargs["argument_spec"].items()}
    given = {"argv": ["true"], "image": IMAGE, "workspace": str(workspace)}
    return _jobs.Job(_jobs.Mode(check=False, diff=False), {**common, **given, **params}, number)


def no_memory(*_args: object, **_options: object) -> None:
    raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))


# Which folder it is


@pytest.mark.parametrize("pods", ["each", "one"])
def test_a_workspace_that_an_earlier_job_turned_into_a_link(host: Host, home: Path, secrets: Path, pods: str) -> None:
    sub = own(home / "model/sub")
    steal = "id -u; cat secret; touch planted"
    result = jobs_of(host, (f"mv sub old; ln -s {secrets} sub", home / "model"), (steal, sub), pods=pods)
    assert result["jobs"][0]["rc"] == 0
    assert sub.is_symlink()
    if pods == "each":
        assert "is a link" in result["jobs"][1]["msg"]
        assert "stdout" not in result["jobs"][1]
    else:  # the pod has the folder that it was
        assert result["jobs"][1]["stdout"] == f"{USER}\n"
        assert (home / "model/old/planted").exists()
    assert os.listdir(secrets) == ["secret"]
    # … and in the next run.
    again = host.run(steal, sub)
    assert again["failed"]
    assert f"{sub} is a link (to {secrets})" in again["msg"]
    assert os.listdir(secrets) == ["secret"]


def test_a_workspace_that_an_earlier_job_exchanged(host: Host, home: Path) -> None:
    sub = own(home / "model/sub")
    result = jobs_of(host, ("mv sub old; mkdir sub", home / "model"), ("true", sub))
    assert "is another folder now, or another's, than when the run began" in result["jobs"][1]["msg"]


def test_a_user_s_link_to_root_s_folder(host: Host, home: Path, secrets: Path) -> None:
    (home / "link").symlink_to(secrets)
    for path, options in ((home / "link", {}), (home / "link", {"user": "0:0"}), (home / "link/x", {})):
        result = host.run("cat secret; touch planted", path, **options)
        assert f"{home}/link is a link (to {secrets}) in a place that others than root can change" in result["msg"]
    for source in (home / "link", home / "link/secret"):
        result = host.run("cat /x /x/secret", home / "model", mounts=[{"source": str(source), "target": "/x"}])
        assert "is a link" in result["msg"]
    assert os.listdir(secrets) == ["secret"]


def test_a_folder_that_is_exchanged_all_the_time(host: Host, home: Path, secrets: Path) -> None:
    """Whenever it is looked at, it is the user's folder or nothing."""
    model, hidden, link = home / "model", home / "hidden", home / "link"
    link.symlink_to(secrets)
    over = threading.Event()

    def swap() -> None:
        while not over.is_set():
            model.rename(hidden)
            link.rename(model)
            model.rename(link)
            hidden.rename(model)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        results = [host.run("id -u; cat secret; touch planted", model, fail_on_rc=False) for _turn in range(12)]
    finally:
        over.set()
        thread.join()
    assert {result.get("stdout", f"{USER}\n") for result in results} == {f"{USER}\n"}
    assert all("is a link" in result["msg"] or "does not exist" in result["msg"] for result in results if "stdout" not in result)
    assert os.listdir(secrets) == ["secret"]


def test_a_link_of_root_s_is_followed(host: Host) -> None:
    """/home may lead to /srv/home: nobody but root can change that."""
    folder = Path("/var/lib") / host.name
    try:
        own(folder)
        os.chown(folder, 0, 0)
        own(folder / "model")
        (folder / "link").symlink_to(folder / "model")
        assert host.run("touch x", folder / "link")["rc"] == 0
        assert (folder / "model/x").stat().st_uid == USER
    finally:
        subprocess.run(["rm", "-rf", folder], check=True)


@pytest.mark.parametrize(("owner", "user"), [((0, 0), None), ((0, USER), None), ((USER, 0), None), ((0, 0), "1000")])
def test_root_is_never_chosen_by_a_folder(host: Host, home: Path, owner: tuple[int, int], user: str | None) -> None:
    os.chown(home / "model", *owner)
    result = host.run("id -u", home / "model", user=user)
    assert result["failed"]
    assert "write user" in result["msg"] or "write uid:gid" in result["msg"]
    assert host.run("id -u", home / "model", user="0:0")["stdout"] == "0\n"


def test_a_pod_has_no_descriptor_of_ours(host: Host, home: Path) -> None:
    result = host.run("ls /proc/self/fd; grep -c . /proc/self/mountinfo", home / "model")
    assert result["stdout"].split()[:4] == ["0", "1", "2", "3"]  # the last is that of ls
    assert str(host.state_dir) not in result["stdout"]


# What is left there


@pytest.mark.parametrize("check", [False, True])
def test_nested_folders_hide_nothing_and_keep_nobody_from_working(host: Host, home: Path, check: bool) -> None:
    """1,100 of them, with a set-user-id file at the end."""
    result = host.run(f"echo said; {DEEP}; {SET_ID}; exit 3", home / "model", check=check, fail_on_rc=False)
    assert (result["rc"], result["stdout"], result["failed"]) == (3, "said\n", False), result
    assert "set-user-id" in " ".join(result["warnings"])
    assert [(len(item["path"]), item["mode"]) for item in result["changed_files"]] == [(2205, "0755")]
    found = subprocess.run(["find", home, "-perm", "/6000"], capture_output=True, text=True, check=True).stdout
    assert found == ""
    again = host.run("echo again", own(home / "other"))
    assert (again["stdout"], again["warnings"]) == ("again\n", [])
    assert host.settle() == {}


def test_what_could_not_be_looked_at_fails_the_job_with_all_that_it_said(host: Host, home: Path) -> None:
    """The folder is then closed to others: nobody can come to what may be in it."""
    (home / "model").chmod(0o755)
    process = host.start(f"{SET_ID}; touch begun; while [ ! -e go ]; do sleep 0.05; done; echo said", home / "model")
    wait_for(home / "model/begun")
    subprocess.run(["chattr", "+i", home / "model/shell"], check=True)
    try:
        (home / "model/go").touch()
        os.chown(home / "model/go", USER, USER)
        result = finish_module(process)
    finally:
        subprocess.run(["chattr", "-i", home / "model/shell"], check=True)
    assert (result["rc"], result["stdout"], result["failed"], result["changed"]) == (0, "said\n", True, True)
    assert "shell: Operation not permitted" in result["msg"]
    assert result["faults"]
    assert bits(home / "model") == "0700"


def test_bits_of_a_file_with_other_bytes_do_not_stay(host: Host, home: Path) -> None:
    for name in ("same", "other"):
        (home / "model" / name).write_text("x")
        os.chown(home / "model" / name, USER, USER)
        (home / "model" / name).chmod(0o4755)
    host.run("cat /bin/busybox > other; chmod 4755 other", home / "model")
    assert (bits(home / "model/same"), bits(home / "model/other")) == ("4755", "0755")


def test_a_job_gives_bits_in_the_workspace_of_the_next(host: Host, home: Path) -> None:
    """… which would take them for what was there before."""
    first, second = own(home / "first"), own(home / "second")
    planted = "cp /bin/busybox /workspaces/{0}/shell; chmod 6755 /workspaces/{0}/shell"
    jobs_of(host, (planted.format(1), first), (planted.format(0), second), pods="one")
    assert (bits(first / "shell"), bits(second / "shell")) == ("0755", "0755")


def test_bits_in_a_writable_mount_do_not_stay(host: Host, home: Path) -> None:
    out = own(home / "out")
    (home / "file").write_text("x")
    os.chown(home / "file", USER, USER)
    mounts = [{"source": str(out), "target": "/out", "writable": True}, {"source": str(home / "file"), "target": "/file", "writable": True}]
    result = host.run("cp /bin/busybox /out/shell; chmod 4755 /out/shell /file", home / "model", mounts=mounts)
    assert result["rc"] == 0, result
    assert (bits(out / "shell"), bits(home / "file")) == ("0755", "0755")
    assert len(result["warnings"]) == 2


@pytest.mark.parametrize("both", [False, True])
def test_a_killed_module_leaves_no_bits(host: Host, home: Path, both: bool) -> None:
    """The supervisor takes them off, or, when that was killed too, the next run."""
    process = host.start(f"{SET_ID}; umask 0; echo > key; touch begun; sleep 1000", home / "model", private=["key"])
    wait_for(home / "model/begun")
    (supervisor,) = (int(word) for word in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split())
    if both:
        process.send_signal(signal.SIGSTOP)
        os.kill(supervisor, signal.SIGKILL)
    process.kill()
    process.communicate(timeout=PATIENCE)
    if both:
        assert bits(home / "model/shell") == "6755"
        result = host.run("true")
        assert any(f"had left in {home}/model were taken off 1 files: shell" in warning for warning in result["warnings"])
    assert host.settle() == {}
    assert (bits(home / "model/shell"), bits(home / "model/key")) == ("0755", "0600")


def test_rubbish_of_another_run_fails_nothing(host: Host, home: Path) -> None:
    """A pod's folder whose owner is dead, with a tree that cannot be removed at once, a broken note and a mount of somebody's folder."""
    assert host.run("true")["rc"] == 0
    stale = Path(host.state_dir) / "pods/stale-1"
    for name in ("notes", "mounts/0", "copy0/a"):
        (stale / name).mkdir(parents=True)
    (stale / "pod.json").write_text("[" * 100)
    (stale / "notes/workspace0").write_text('{"source": 1}')
    (stale / "copy0/a/stays").touch()
    (home / "model/precious").touch()
    subprocess.run(["mount", "--bind", home / "model", stale / "mounts/0"], check=True)
    subprocess.run(["chattr", "+i", stale / "copy0/a/stays"], check=True)
    try:
        result = host.run("echo fine")
    finally:
        subprocess.run(["chattr", "-i", stale / "copy0/a/stays"], check=True)
    assert (result["rc"], result["stdout"]) == (0, "fine\n")
    assert any("stays: Operation not permitted" in warning for warning in result["warnings"])
    assert (home / "model/precious").exists()
    assert "stale-1" not in Path("/proc/self/mountinfo").read_text()
    assert host.run("echo fine")["stdout"] == "fine\n"
    assert not stale.exists()


def test_nothing_of_the_sandbox_is_alive_when_cleaning_begins(host: Host, home: Path) -> None:
    """gVisor's gofer, which has the workspace open, outlived the sandbox by some milliseconds."""
    ctr = Ctr(host.daemon.address)
    folder = PodFolder(host.state_dir, f"{host.name}-0", ctr)
    mounts = [Mount(str(home / "model"), "/workspace", True)]
    pod = Pod(ctr, PodSpec(f"{host.name}-0", IMAGE, host.runtime, mounts, prepare(host.state_dir), user=f"{USER}:{USER}"), folder.path)
    try:
        pod.start()
        pod.limit()
        groups = [Path(folder, "cgroup.procs") for folder in pod.group._folders.values()]
        processes = {pid for group in groups for pid in group.read_text().split()}
        busy = f"while :; do {SET_ID}; mv shell other; done & sleep 0.5"
        pod.execute(Command(argv=["sh", "-c", busy], cwd="/workspace", env={}, timeout=60.0, max_output=1000))
        assert len(processes) > 1
        assert pod.kill()
        alive = [pid for pid in processes if Path(f"/proc/{pid}").exists() and " Z " not in Path(f"/proc/{pid}/stat").read_text()]
        assert alive == []
    finally:
        pod.remove()
        folder.remove()


def killed_run(host: Host, workspace: Path) -> None:
    """A run of which neither module nor supervisor is left; its sandbox goes on."""
    process = host.start(f"{SET_ID}; touch begun; sleep 1000", workspace)
    wait_for(workspace / "begun")
    (supervisor,) = (int(word) for word in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split())
    process.send_signal(signal.SIGSTOP)
    os.kill(supervisor, signal.SIGKILL)
    process.kill()
    process.communicate(timeout=PATIENCE)


@pytest.mark.parametrize("gone", [False, True])
def test_an_uninstall_does_not_go_through_a_mount_of_a_killed_run(host: Host, home: Path, tmp_path: Path, gone: bool) -> None:
    """The user's folder is still mounted in the state folder; ``gone``: and the containerd that had the pod is not there any more."""
    killed_run(host, home / "model")
    if gone:
        (note,) = Path(host.state_dir).glob("pods/*/pod.json")
        text = note.read_text()
        note.write_text(text.replace(host.daemon.address, f"{tmp_path}/nowhere.sock"))
    assert run_module("run_leftovers", state_dir=host.state_dir, check=True)["changed"]
    done = run_module("run_leftovers", state_dir=host.state_dir)
    assert done["changed"], done
    assert (bits(home / "model/shell"), (home / "model/begun").exists()) == ("0755", True)
    assert not Path(host.state_dir).exists()
    assert host.state_dir not in Path("/proc/self/mountinfo").read_text()
    assert not run_module("run_leftovers", state_dir=host.state_dir)["changed"]
    if gone:  # by hand what containerd's own end would have done
        (pod,) = host.daemon.ctr("containers", "ls", "-q").stdout.split()
        Pod(Ctr(host.daemon.address), PodSpec(pod, "", "", [], HostTools("", "")), host.state_dir).remove()


def test_an_uninstall_leaves_a_run_that_goes_on_alone(host: Host, home: Path) -> None:
    process = host.start("touch begun; while [ ! -e go ]; do sleep 0.05; done; echo said", home / "model")
    wait_for(home / "model/begun")
    refused = run_module("run_leftovers", state_dir=host.state_dir)
    (home / "model/go").touch()
    os.chown(home / "model/go", USER, USER)
    assert "is of a run that goes on" in refused["msg"]
    assert finish_module(process)["stdout"] == "said\n"
    assert run_module("run_leftovers", state_dir=host.state_dir)["changed"]


def test_files_of_somebody_else_after_a_run_fail_it_and_are_named(host: Host, home: Path) -> None:
    model = home / "model"
    (model / "before").touch()
    process = host.start("touch mine begun; while [ ! -e go ]; do sleep 0.05; done; echo said", model)
    wait_for(model / "begun")
    (model / "root-s").touch()
    (model / "go").touch()
    os.chown(model / "go", USER, USER)
    result = finish_module(process)
    assert (result["rc"], result["stdout"], result["failed"]) == (0, "said\n", True)
    assert f"1 files do not belong to the command's user {USER}:{USER} after it: root-s (0:0); remove them" in result["msg"]


def test_the_note_is_there_before_the_pod(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An image's own programs may run as soon as the pod does."""
    seen: list[set[str]] = []

    def start(folder: PodFolder, *_args: object) -> None:
        seen.append(set(os.listdir(f"{folder.path}/notes")))
        raise GvisorError("seen")

    monkeypatch.setattr(_jobs, "Supervisor", start)
    mounts = [{"source": str(own(home / "out")), "target": "/out", "writable": True}]
    wanted = [job_of(home / "model", number, state_dir=str(tmp_path / "state"), mounts=mounts) for number in range(2)]
    with pytest.raises(GvisorError, match="seen"):
        _jobs.PodJobs(_jobs.Engine(Ctr("/nonexistent/socket", "default")), wanted, ImageConfig())
    assert seen == [{"workspace0", "workspace1", "mount0"}]
    assert os.listdir(tmp_path / "state/pods") == [".lock"]
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()


def test_a_workspace_that_became_another_s_is_refused(home: Path, tmp_path: Path) -> None:
    """Who the command is was decided by who had it."""
    job = job_of(home / "model", 0)
    os.chown(home / "model", USER + 1, USER + 1)
    folder = PodFolder(str(tmp_path / "state"), "pod-1", Ctr("/nonexistent/socket", "default"))
    try:
        with pytest.raises(GvisorError, match="or another's, than when the run began"):
            job.place(folder, "/workspace", Room({}, 0))
    finally:
        folder.remove()


def test_one_fault_does_not_hide_another(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = job_of(home / "model", 0)
    job.source = str(home / "model")
    job._note = Note(job.source, job.source, [], USER, {}, [])
    monkeypatch.setattr(_jobs, "clean", lambda _root, _note: Cleaned([], 0, ["shell: Operation not permitted"]))
    monkeypatch.setattr(_jobs, "scan", no_memory)
    result = job.compare(OUTCOME, "pod-1")
    assert (result["rc"], result["stdout"], result["failed"]) == (0, "said", True)
    assert result["faults"] == ["shell: Operation not permitted", f"{home}/model: Cannot allocate memory"]


def test_a_folder_that_cannot_be_opened_keeps_no_other_from_being_cleaned(home: Path) -> None:
    jobs = [job_of(own(home / name), 0) for name in ("gone", "model", "last")]
    for job in jobs:
        job.source = str(job.workspace)
        job._note = Note(job.source, job.source, [], USER, {}, [])
    (home / "gone").rmdir()
    (home / "model/shell").touch()
    (home / "model/shell").chmod(0o4755)
    group = object.__new__(_jobs.PodJobs)
    group.jobs, group._shared = jobs, []
    assert group._clean_all(jobs[2]) == [f"{home}/gone: {home}/gone: No such file or directory"]
    assert bits(home / "model/shell") == "0755"


@pytest.mark.parametrize("mode", [0o777, 0o1777])
def test_a_state_folder_that_others_can_change_is_refused(host: Host, mode: int) -> None:
    """… and a run makes its own so that they cannot, whatever the umask is."""
    before = os.umask(0)
    try:
        assert host.run("true")["rc"] == 0
    finally:
        os.umask(before)
    state = Path(host.state_dir)
    reached = [path for path in [state, *state.rglob("*")] if path == state or path.parent.stat().st_mode & 0o011]
    writable = [path for path in reached if path.lstat().st_mode & 0o022]
    assert writable == []
    state.chmod(mode)
    result = host.run("true")
    state.chmod(0o755)
    assert f"{state} can be changed by others than root" in result["msg"]


# How much it may be


def test_a_huge_sparse_file_takes_no_time(host: Host, home: Path) -> None:
    begin = time.monotonic()
    result = host.run("truncate -s 6G sparse 2>/dev/null || dd if=/dev/zero of=sparse bs=1 count=1 seek=6G", home / "model", file_size="0")
    assert result["rc"] == 0, result
    assert result["changed_files"][0]["size"] >= 6 << 30
    assert host.run("true", home / "model", check=True)["rc"] == 0
    assert time.monotonic() - begin < 40


def test_what_is_listed_is_bounded_and_all_is_counted(host: Host, home: Path) -> None:
    result = host.run(
        "n=0; while [ $n -lt 5050 ]; do : > a$n; n=$((n+1)); done; : > z.backup", home / "model", ignore=["a?", "a??"], timeout=120
    )
    assert result["changed_counts"] == {"created": 5051, "modified": 0, "removed": 0, "ignored": 100}
    assert len(result["changed_files"]) == 5000
    assert {"z.backup", "a5049"} <= {item["path"] for item in result["changed_files"]}
