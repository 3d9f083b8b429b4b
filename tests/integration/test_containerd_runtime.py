"""containerd_runtime on real containerds of four releases: whole lives, proofs, and faults at every step.

The containerds are Debian's, unpacked beside each other; each test runs one of its own.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import errno
import fcntl
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tomllib
from ansible_collections.ggen.gvisor.plugins.module_utils._base import files
from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._base.processes import wait_exit
from ansible_collections.ggen.gvisor.plugins.module_utils._containerd import config_transaction as tx
from ansible_collections.ggen.gvisor.plugins.module_utils._containerd import service as _service
from ansible_collections.ggen.gvisor.plugins.module_utils._containerd.service import DaemonService
from ansible_collections.ggen.gvisor.plugins.plugin_utils._containerd import runtime_config as config
from support import fixtures
from support.adhoc import JSON_OUTPUT
from support.containerd_debs import VERSIONS, ensure
from support.containerd_runtime import ROOT, RUNSC, Host, make_host, run_action
from support.missing import MISSING

INPUTS = fixtures.inputs()
STUB = INPUTS["debian-stub-1.7.24"]
CASES = list(INPUTS)
KATA = {"name": "kata", "runtime_type": "io.containerd.kata.v2"}


def refusal(case: str, version: str) -> str | None:
    """Say why a case cannot work on a version, as the module's message does."""
    if case in ("v4-full", "default-2.3.7") and version < "2.3":
        return "config version 4 needs containerd 2.3"
    if case in ("v3-eks-like", "default-2.1.9") and version < "2":
        return "config version 3 needs containerd 2.0"
    if case == "v1-kubespray-like" and "2" < version < "2.3":  # which migrates it as it was meant
        return "handler runsc would have no effect: it ignores the CRI plugin's settings in a file without a version line"
    return None


@pytest.fixture(name="host")
def fixture_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    """A running containerd 1.7.24 with Debian's configuration and gVisor."""
    host = make_host(tmp_path, "1.7.24", STUB, monkeypatch, gvisor=True)
    try:
        yield host.start()
    finally:
        host.stop()


def plugins(host: Host) -> dict[str, str]:
    rows = (line.split() for line in host.ctr("plugins", "ls").stdout.splitlines()[1:])
    return {f"{row[0]}.{row[1]}": row[-1] for row in rows if "cri" in row[0] or row[1] == "cri"}


def loaded(host: Host) -> set[str]:
    """The runtime handlers that the running daemon has loaded, as it logged when its CRI plugin started."""
    line = [line for line in host.log().splitlines() if "tart" in line and "cri plugin" in line.lower()][-1]
    return {name for name in ("runc", "runsc", "kata") if re.search(rf'[\[{{ "\\]{name}\\?"?:', line)}


def leftovers(host: Host) -> list[str]:
    return [str(path) for path in host.root.rglob(".*ggen.gvisor*")]


# --- whole lives ---


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("case", CASES)
def test_whole_life(case: str, version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = INPUTS[case]
    host = make_host(tmp_path, version, text, monkeypatch, gvisor=True)
    original = host.text()
    try:
        options = host.options(restart=True)
        if refusal(case, version):
            result = run_action(**RUNSC, **options)
            assert result["failed"]
            assert refusal(case, version) in result["msg"]
            assert host.text() == original
            return
        host.start()
        result = run_action(**RUNSC, **options)
        assert not result["failed"], result["msg"]
        assert result["restarted"]
        assert result["phases"] == ["read", "validate", "apply"]
        off = case.startswith("docker")
        assert result["cri"] == ("absent" if off else "ok")
        assert set(plugins(host).values()) == (set() if off and version < "2" else {"ok"})
        if not off:
            assert {"runc", "runsc"} <= loaded(host)
        uses_dropin = version > "2" and case != "v2-has-runsc" and "version" in tomllib.loads(text)
        assert (result["file"] != host.config_path) == uses_dropin
        host.import_image()
        assert host.run_runc("job", "/bin/busybox", "cat", "/proc/version") == Path("/proc/version").read_text()
        assert "Starting gVisor..." in host.run_gvisor("job-in-gvisor", "/bin/dmesg")
        assert run_action(**RUNSC, **options)["phases"] == ["read"]
        result = run_action(name="runsc", state="absent", **options)
        assert not result["failed"], result["msg"]
        assert set(plugins(host).values()) == (set() if off and version < "2" else {"ok"})
        if case == "v2-has-runsc":
            assert "runsc" not in config.handlers(tomllib.loads(host.text() or ""))
        else:
            assert host.text() == original
        assert not (tmp_path / "conf.d").exists()
        assert leftovers(host) == []
        assert run_action(name="runsc", state="absent", **options)["phases"] == ["read"]
    finally:
        host.stop()


@pytest.mark.parametrize("version", VERSIONS)
def test_whole_life_without_a_file(version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No /etc/containerd at all, which is legal as long as it is not named: in a copy of /etc that only this test sees."""
    host = make_host(tmp_path, version, None, monkeypatch, gvisor=True)

    def life() -> dict:
        private_etc(tmp_path / "etc")
        host.config_path = "/etc/containerd/config.toml"
        argv = host.argv
        at = argv.index("--config")
        monkeypatch.setattr(Host, "argv", argv[:at] + argv[at + 2 :])
        try:
            host.start()
            results = [run_action(**RUNSC, **host.options(restart=True))]
            states = [sorted(loaded(host)), host.text()]
            results.append(run_action(**RUNSC, **host.options(restart=True)))
            host.import_image()
            states.append(host.run_runc("job", "/bin/busybox", "echo", "ran"))
            states.append("Starting gVisor..." in host.run_gvisor("job-in-gvisor", "/bin/dmesg"))
            results.append(run_action(name="runsc", state="absent", **host.options(restart=True)))
            states += [sorted(loaded(host)), os.path.exists("/etc/containerd/config.toml")]
            return {"results": results, "states": states}
        finally:
            host.stop()

    done = result_of(*in_child(life))
    assert done is not None
    assert [result.get("msg") for result in done["results"]] == [None, None, None]
    assert [result["changed"] for result in done["results"]] == [True, False, True]
    with_runsc, text, *rest = done["states"]
    assert with_runsc == ["runc", "runsc"]
    assert text == config.set_present(None, config.Handler(**RUNSC), config.Place(where="config.toml")).text
    assert rest == ["ran\n", True, ["runc"], False]


def private_etc(folder: Path) -> None:
    """Give this process an /etc of its own, with no /etc/containerd in it."""
    assert ctypes.CDLL(None).unshare(0x00020000) == 0  # CLONE_NEWNS
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    for name in ("upper", "work"):
        (folder / name).mkdir(parents=True)
    layers = f"lowerdir=/etc,upperdir={folder}/upper,workdir={folder}/work"
    subprocess.run(["mount", "-t", "overlay", "-o", layers, "overlay", "/etc"], check=True)
    shutil.rmtree("/etc/containerd", ignore_errors=True)


def test_a_plain_daemon_that_we_start_needs_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    default = ["containerd", "--config", _service.DEFAULT_CONFIG, "--log-level", "info"]
    monkeypatch.setattr(_service.os.path, "exists", lambda _path: False)
    assert _service._without_missing_config(default) == ["containerd", "--log-level", "info"]
    other = ["containerd", "--config", f"{tmp_path}/named.toml"]
    assert _service._without_missing_config(other) == other
    monkeypatch.undo()


def test_adding_runsc_alone_would_kill_runc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fact behind the runc table that is added on 1.x, so that a containerd without it is noticed."""
    text = f'{STUB}[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runsc]\nruntime_type = "io.containerd.runsc.v1"\n'
    host = make_host(tmp_path, "1.7.24", text, monkeypatch)
    try:
        host.start()
        assert plugins(host)["io.containerd.grpc.v1.cri"] == "error"
        result = run_action(**RUNSC, **host.options(restart=True))
        assert not result["failed"], result["msg"]
        assert plugins(host)["io.containerd.grpc.v1.cri"] == "ok"
    finally:
        host.stop()


# --- through Ansible itself ---


def ansible(host: Host, *flags: str, **args: object) -> tuple[dict, int, str]:
    """Run the module with the ansible command; return its result, the number of remote executions, and all it printed."""
    program = Path(sys.executable).parent / "ansible"
    argv = [str(program), "localhost", "-i", "localhost,", "-c", "local", "-e", f"ansible_python_interpreter={sys.executable}"]
    argv += ["-m", "ggen.gvisor.containerd_runtime", "-a", json.dumps({**args, **host.options()}), "-vvv", *flags]
    env = {**os.environ, **JSON_OUTPUT}
    done = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120, check=False, stdin=subprocess.DEVNULL)
    body = done.stdout[done.stdout.index("=> {") + 3 :]
    return json.JSONDecoder().raw_decode(body)[0], done.stdout.count(" EXEC "), done.stdout


def test_ansible_check_diff_change_and_no_op(host: Host) -> None:
    result, executions, printed = ansible(host, "--check", "--diff", **RUNSC, restart=True)
    assert (result["changed"], executions) == (True, 2)
    assert result["validation"] == "accepted by containerd 1.7.24"
    assert '\n+          runtime_type = "io.containerd.runsc.v1"\n' in printed
    assert host.text() == STUB.replace("/var/lib/containerd", f"{host.root}/lib")
    result, executions, _printed = ansible(host, **RUNSC, restart=True)
    assert (result["changed"], result["restarted"], result["cri"], executions) == (True, True, "ok", 3)
    assert "runsc" in loaded(host)
    result, executions, _printed = ansible(host, **RUNSC, restart=True)
    assert (result["changed"], result["restarted"], executions) == (False, False, 1)
    result, executions, _printed = ansible(host, "--check", **RUNSC, restart=True)
    assert (result["changed"], executions) == (False, 1)
    result, executions, _printed = ansible(host, name="runsc", state="absent", restart=True, backup=True)
    assert (result["changed"], executions) == (True, 3)
    assert Path(result["backup_file"]).exists()


def test_ansible_says_why_not(host: Host) -> None:
    Path(host.config_path).write_text("version = 2\n[plugins\n")
    result, executions, _printed = ansible(host, **RUNSC)
    assert executions == 1
    assert result["msg"].endswith(
        f"{host.config_path}, line 2: not valid TOML: Expected ']' at the end of a table declaration. Nothing was written; fix the line first."
    )
    result, _executions, _printed = ansible(host, name="runsc", runtime_typ="x")
    assert "Unsupported parameters" in result["msg"]


# --- what is checked before anything is written ---


def refuse(host: Host, words: str, **args: object) -> dict:
    before, pid = host.text(), host.pid()
    result = run_action(**{**RUNSC, **host.options(restart=True), **args})
    assert result["failed"]
    assert re.search(words, result["msg"]), result["msg"]
    assert "apply" not in result["phases"]
    assert (host.text(), host.pid(), leftovers(host)) == (before, pid, [])
    return result


def test_refuses_what_containerd_would_ignore(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = make_host(tmp_path, "1.6.20", STUB, monkeypatch)
    refuse(host, "handler runsc: snapshotter would not be in effect", snapshotter="native")


def test_refuses_an_import_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = make_host(tmp_path, "2.1.9", 'version = 3\nimports = ["gone.toml"]\n', monkeypatch)
    refuse(host, f"imports names {tmp_path}/gone.toml, which is not there")


def test_relative_imports_resolve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The candidate is checked beside the original, so that what it imports is found; a handler there is not lost."""
    text = 'version = 3\nimports = [\n  "more.toml", # ] not the end\n]\n'
    table = '[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.kata]\nruntime_type = "io.containerd.kata.v2"\n'
    (tmp_path / "more.toml").write_text(f"version = 3\n{table}")
    host = make_host(tmp_path, "2.1.9", text, monkeypatch)
    try:
        host.start()
        result = run_action(**RUNSC, **host.options(restart=True))
        assert not result["failed"], result["msg"]
        assert loaded(host) == {"runc", "runsc", "kata"}
        # A handler in an imported file is changed there.
        result = run_action(**{**KATA, "pod_annotations": ["io.katacontainers.*"]}, **host.options())
        assert result["files"] == [f"{tmp_path}/more.toml"]
        assert run_action(name="kata", state="absent", **host.options())["file"] == f"{tmp_path}/more.toml"
        assert run_action(name="runsc", state="absent", **host.options(restart=True))["restarted"]
        assert host.text() == text
        assert (tmp_path / "more.toml").read_text() == "version = 3\n"
    finally:
        host.stop()


def test_dropin_is_refused_below_2(host: Host) -> None:
    refuse(host, "dropin: conf.d/x.toml: containerd 1.7.24 lets a drop-in replace whole plugin tables", dropin="conf.d/x.toml")


def test_dropin_where_and_whether(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = make_host(tmp_path, "2.1.9", "version = 3\n", monkeypatch)
    try:
        host.start()
        assert run_action(**RUNSC, dropin="never", **host.options())["files"] == [host.config_path]
        run_action(name="runsc", state="absent", **host.options())
        named = run_action(**RUNSC, dropin="elsewhere/gvisor.toml", default=True, **host.options(restart=True))
        assert named["files"] == [f"{tmp_path}/elsewhere/gvisor.toml", host.config_path]
        assert loaded(host) == {"runc", "runsc"}
        back = run_action(**RUNSC, default=False, **host.options(restart=True))
        assert back["files"] == [f"{tmp_path}/elsewhere/gvisor.toml"]
        run_action(name="runsc", state="absent", **host.options(restart=True))
        assert host.text() == "version = 3\n"
        assert not (tmp_path / "elsewhere").exists()
        # Files that lie in conf.d and are not read yet must not come into effect by our imports line.
        (tmp_path / "conf.d").mkdir()
        (tmp_path / "conf.d/other.toml").write_text("version = 3\n")
        assert run_action(**RUNSC, check=True, **host.options())["files"] == [host.config_path]
    finally:
        host.stop()


def test_without_containerd(tmp_path: Path) -> None:
    """Where nothing is installed, check mode goes through and a real run says what is missing."""
    options = {"path": f"{tmp_path}/etc/config.toml", "program": f"{MISSING}/containerd", "address": f"{tmp_path}/none.sock"}
    result = run_action(check=True, **RUNSC, **options)
    assert (result["failed"], result["changed"], result["phases"]) == (False, True, ["read"])
    assert result["validation"] == "not possible: containerd is not installed here yet"
    result = run_action(**RUNSC, **options)
    assert f"{MISSING}/containerd was not found on this host" in result["msg"]
    assert not (tmp_path / "etc").exists()
    result = run_action(**RUNSC, **options, validate=False)
    assert (result["failed"], result["changed"]) == (False, True)
    result = run_action(name="runsc", state="absent", **options, validate=False)
    assert list((tmp_path / "etc").iterdir()) == []


# --- what a write keeps ---


def test_attributes_and_backup(host: Host) -> None:
    path = Path(host.config_path)
    os.chmod(path, 0o640)
    os.chown(path, 1234, 4321)
    os.utime(path, ns=(10**18, 10**18))
    os.setxattr(path, "user.label", b"mine")
    original = path.read_bytes()
    result = run_action(**RUNSC, **host.options(backup=True))
    for name, age in ((path, None), (Path(result["backup_file"]), 10**18)):
        status = name.stat()
        assert (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (0o640, 1234, 4321)
        assert os.getxattr(name, "user.label") == b"mine"
        assert age is None or status.st_mtime_ns == age
    assert Path(result["backup_file"]).read_bytes() == original


def test_a_symbolic_link_stays_one(host: Host) -> None:
    real = host.root / "real.toml"
    os.rename(host.config_path, real)
    os.symlink("real.toml", host.config_path)
    assert run_action(**RUNSC, **host.options(restart=True))["changed"]
    assert os.readlink(host.config_path) == "real.toml"
    assert "runsc" in real.read_text()


def test_running_containers_run_on(host: Host) -> None:
    host.import_image()
    kind = ("--runtime", "io.containerd.runsc.v1", "--annotation", "io.kubernetes.cri.container-type=sandbox")
    host.ctr("run", "-d", *kind, "localhost/busybox:1", "in-gvisor", "/usr/local/bin/catatonit", "-P")
    host.start_runc("in-runc")
    before = host.ctr("tasks", "ls").stdout
    assert before.count("RUNNING") == 2
    try:
        result = run_action(**RUNSC, **host.options(restart=True))
        assert not result["failed"], result["msg"]
        assert sorted(host.ctr("tasks", "ls").stdout.splitlines()) == sorted(before.splitlines())
    finally:
        host.ctr("tasks", "rm", "--force", "in-gvisor", check=False)


def test_without_restart_the_daemon_is_left_alone(host: Host) -> None:
    pid = host.pid()
    result = run_action(**RUNSC, **host.options())
    assert (result["changed"], result["restarted"], host.pid()) == (True, False, pid)


def test_restart_starts_a_daemon_that_was_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = make_host(tmp_path, "1.7.24", None, monkeypatch)
    text = f'version = 2\nroot = "{tmp_path}/root"\nstate = "{host.state}"\n[grpc]\naddress = "{host.address}"\n'
    Path(host.config_path).write_text(text)
    try:
        options = {**host.options(restart=True), "address": None}  # taken from the file
        result = run_action(**RUNSC, **options)
        assert not result["failed"], result["msg"]
        assert (result["restarted"], result["cri"]) == (True, "ok")
        assert int((tmp_path / "pid").read_text()) == host.pid()
    finally:
        host.stop()


# --- two at once ---


def in_child(action: Callable[[], dict]) -> tuple[int, int]:
    """Run ``action`` in a child process; return its pid and a descriptor from which its result comes as JSON."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reader)
            with os.fdopen(writer, "w") as stream:
                json.dump(action(), stream)
        finally:
            os._exit(0)
    os.close(writer)
    return child, reader


def result_of(child: int, reader: int) -> dict | None:
    with os.fdopen(reader) as stream:
        text = stream.read()
    os.waitpid(child, 0)
    return json.loads(text) if text else None


def test_concurrent_runs_do_not_mix(host: Host) -> None:
    """Runs on one host take turns; one whose file the other has changed meanwhile fails, and its next run succeeds."""
    wanted = [{**RUNSC, "name": f"handler-{number}"} for number in range(4)]
    children = [in_child(lambda args=args: run_action(**args, **host.options(restart=True))) for args in wanted]
    results = [result_of(*child) for child in children]
    assert sum(not result["failed"] for result in results) >= 1
    for args, result in zip(wanted, results):
        if result["failed"]:
            assert "was changed by someone else between reading and writing: nothing was written" in result["msg"]
        else:
            assert args["name"] in config.handlers(tomllib.loads(host.text()))
    made = set(config.handlers(tomllib.loads(host.text()))) - {"runc"}
    assert made == {args["name"] for args, result in zip(wanted, results) if not result["failed"]}
    assert plugins(host)["io.containerd.grpc.v1.cri"] == "ok"
    for args in wanted:
        assert not run_action(**args, **host.options())["failed"]
    assert len(config.handlers(tomllib.loads(host.text()))) == 5


def test_waits_for_the_lock_and_gives_up(host: Host) -> None:
    with tx.locked(str(host.root)), pytest.raises(GvisorError, match="another run has been changing"), tx.locked(
        str(host.root), timeout=0.2
    ):
        pass
    with tx.locked(str(host.root), timeout=0.2):
        pass


def test_nobody_but_root_can_hold_the_lock(host: Host) -> None:
    """Whoever can read a folder can hold its lock as long as they like: that is not the one that counts."""
    folder = os.open(host.root, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    before = os.umask(0)
    try:
        with tx.locked(str(host.root), timeout=0.2):
            places = [Path(files.LOCKS), *Path(files.LOCKS).iterdir()]
    finally:
        os.umask(before)
        os.close(folder)
    assert {(path.stat().st_uid, path.stat().st_mode & 0o077) for path in places} == {(0, 0)}


def test_a_place_for_locks_that_others_made_is_refused(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "LOCKS", str(tmp_path / "locks"))
    for mode, owner in ((0o755, 0), (0o700, 1234)):
        (tmp_path / "locks").mkdir(mode)
        os.chown(tmp_path / "locks", owner, owner)
        with pytest.raises(GvisorError, match="is not root's alone"), tx.locked(str(host.root), timeout=0.2):
            pass
        (tmp_path / "locks").rmdir()
    (tmp_path / "locks").symlink_to(tmp_path)
    with pytest.raises(OSError, match="locks"), tx.locked(str(host.root), timeout=0.2):
        pass


@pytest.mark.parametrize("step", ["locked", "observed", "staged", "backed-up"])
def test_an_edit_of_somebody_else_is_noticed(step: str, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = "# edited meanwhile\nversion = 2\n"
    at_step(monkeypatch, step, lambda: replace(host.config_path, theirs))
    pid = host.pid()
    result = run_action(**RUNSC, **host.options(restart=True))
    assert "was changed by someone else" in result["msg"]
    assert (host.text(), host.pid(), leftovers(host)) == (theirs, pid, [])


def replace(path: str, text: str) -> None:
    Path(f"{path}.theirs").write_text(text)
    os.rename(f"{path}.theirs", path)


def at_step(monkeypatch: pytest.MonkeyPatch, step: str, do: Callable[[], object]) -> None:
    """Have ``do`` run in the worker when it has reached ``step``, once."""
    original = tx.Transaction._reached

    def reached(self: tx.Transaction, name: str) -> None:
        original(self, name)
        if name == step:
            do()

    monkeypatch.setattr(tx.Transaction, "_reached", reached)


# --- killed in the middle ---

NEW_FROM = tx.STEPS.index("switched")


def check_whole(host: Host, old: str) -> str:
    """The file is one of the two whole versions; return which."""
    text = host.text()
    assert text is not None
    if text == old:
        return "old"
    assert text == config.set_present(old, config.Handler(**RUNSC), config.Place(where="config.toml")).text
    return "new"


def check_daemon(host: Host, which: str) -> None:
    """The daemon runs, with that version."""
    assert plugins(host)["io.containerd.grpc.v1.cri"] == "ok"
    assert loaded(host) == ({"runc", "runsc"} if which == "new" else {"runc"})


@pytest.mark.parametrize("step", tx.STEPS)
def test_killed_worker(step: str, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """kill -9 of the process that does the work: the module that watches it puts the old file back."""
    old = host.text()
    at_step(monkeypatch, step, lambda: os.kill(os.getpid(), signal.SIGKILL))
    result = run_action(**RUNSC, **host.options(restart=True, backup=True))
    assert "the process that was changing the configuration was killed" in result["msg"]
    which = check_whole(host, old)
    assert which == ("new" if step == "committed" else "old")
    check_daemon(host, which)
    check_no_journal(host)
    finish(host, monkeypatch)


@pytest.mark.parametrize("step", tx.STEPS)
def test_killed_module(step: str, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """kill -9 of the module, as when the connection breaks: the worker finishes what it began."""
    old, module = host.text(), os.getpid()
    done = host.root / "done"

    def kill() -> None:
        parent = os.getppid()
        assert parent != module
        os.kill(parent, signal.SIGKILL)

    at_step(monkeypatch, step, kill)
    monkeypatch.setattr(tx.os, "_exit", lambda code: (done.touch(), EXIT(code)))
    assert result_of(*in_child(lambda: run_action(**RUNSC, **host.options(restart=True)))) is None  # pylint: disable=unreachable
    wait_for(done.exists)
    assert check_whole(host, old) == "new"
    check_daemon(host, "new")
    assert leftovers(host) == []


EXIT = os._exit


@pytest.mark.parametrize("step", tx.STEPS)
def test_killed_module_and_worker(step: str, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """kill -9 of both, as when the machine goes down: the file is whole, and the next run puts all in order."""
    old, test = host.text(), os.getpid()

    def kill() -> None:
        parent = os.getppid()
        assert parent != test
        os.kill(parent, signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)

    at_step(monkeypatch, step, kill)
    assert result_of(*in_child(lambda: run_action(**RUNSC, **host.options(restart=True)))) is None
    monkeypatch.undo()
    monkeypatch.setenv("PATH", ensure("1.7.24").path)
    which = check_whole(host, old)
    assert which == ("new" if tx.STEPS.index(step) >= NEW_FROM else "old")
    # Even a run that wants nothing else repairs the host first.
    result = run_action(name="nothing", state="absent", **host.options())
    assert not result["failed"]
    if tx.STEPS.index("journaled") <= tx.STEPS.index(step) < tx.STEPS.index("committed"):
        assert "An earlier run was killed in the middle" in result["warnings"][0]
        which = "old"
    assert check_whole(host, old) == which
    check_daemon(host, which)
    check_no_journal(host)
    finish(host, monkeypatch)


def check_no_journal(host: Host) -> None:
    assert not (host.root / tx.JOURNAL).exists()


def finish(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next run does what the killed one did not, and leaves nothing of either."""
    monkeypatch.undo()
    monkeypatch.setenv("PATH", ensure("1.7.24").path)
    result = run_action(**RUNSC, **host.options(restart=True))
    assert not result["failed"], result["msg"]
    check_daemon(host, "new")
    if result["changed"]:
        assert leftovers(host) == []


def wait_for(condition: Callable[[], bool], timeout: float = 30.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


# --- a restart that fails ---


def check_rolled_back(host: Host, old: str, result: dict, words: str) -> None:
    assert result["failed"]
    assert re.search(words, result["msg"]), result["msg"]
    assert result["rolled_back"]
    assert "Rolled back: the old configuration is back and containerd runs with it again." in result["msg"]
    assert host.text() == old
    check_daemon(host, "old")
    assert leftovers(host) == []


CRI = '[plugins."io.containerd.grpc.v1.cri"'
BAD = {
    # In the dump all of these look well: only a start tells.
    "spec that is not there": f'{CRI}.containerd.runtimes.x]\nruntime_type = "io.containerd.runc.v2"\nbase_runtime_spec = "{MISSING}"\n',
    "registry twice": f'{CRI}.registry]\nconfig_path = "/a"\n{CRI}.registry.mirrors.x]\nendpoint = ["http://x"]\n',
    "unknown required plugin": None,
}


@pytest.mark.parametrize("fault", BAD)
def test_bad_option(fault: str, host: Host) -> None:
    old = host.text()
    new = f"{old}{BAD[fault]}" if BAD[fault] else f'required_plugins = ["io.containerd.nothing.v1.x"]\n{old}'
    plan = {
        "folder": str(host.root),
        "files": [{"path": host.config_path, "before": tx.sha_of(host.config_path), "after": encode(new)}],
        "restart": True,
        "timeout": 20,
        "service": {
            "config": host.config_path,
            "manager": "daemon",
            **{key: host.options()[key] for key in ("address", "pid_file", "log_file")},
        },
    }
    with pytest.raises(GvisorError) as caught:
        tx.run_detached(plan)
    result = {"failed": True, "msg": caught.value.message, **caught.value.details}
    words = "CRI plugin does not: .*" if BAD[fault] else "containerd ended before it answered"
    check_rolled_back(host, old, result, words)
    assert result["journal"]


def encode(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def test_port_in_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with contextlib.closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    text = f'{STUB}[metrics]\n  address = "127.0.0.1:{port}"\n'
    host = make_host(tmp_path, "1.7.24", text, monkeypatch)
    original, taken = DaemonService.start, []

    def start(self: DaemonService, timeout: float = 60.0) -> None:
        if taken:
            taken.pop().close()
        else:
            taken.append(socket.create_server(("127.0.0.1", port)))
        original(self, timeout)

    monkeypatch.setattr(DaemonService, "start", start)
    try:
        host.start()
        old = host.text()
        result = run_action(**RUNSC, **host.options(restart=True))
        check_rolled_back(host, old, result, "containerd ended before it answered")
        assert "address already in use" in result["journal"]
    finally:
        host.stop()


def test_killed_binary(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """containerd is killed as soon as it has been started."""
    old, original, killed = host.text(), DaemonService.start, []

    def start(self: DaemonService, timeout: float = 60.0) -> None:
        original(self, timeout)
        if not killed:
            killed.append(True)
            os.kill(int(Path(self.pid_file).read_text()), signal.SIGKILL)

    monkeypatch.setattr(DaemonService, "start", start)
    result = run_action(**RUNSC, **host.options(restart=True))
    check_rolled_back(host, old, result, "containerd ended before it answered")


def test_a_daemon_that_cannot_come_back(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """The old file is back, and the message tells both: why the change failed, and why containerd does not run."""

    def start(self: DaemonService, timeout: float = 60.0) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", self.pid_file)

    monkeypatch.setattr(DaemonService, "start", start)
    old, full = host.text(), f"{host.options()['pid_file']}: No space left on device; make room and run again"
    result = run_action(**RUNSC, **host.options(restart=True))
    assert (result["failed"], result["rolled_back"], result["reason"]) == (True, False, full)
    assert f"{full}\nRolling back failed: {full}." in result["msg"]
    assert (host.text(), host.pid(), leftovers(host)) == (old, None, [])


def test_lost_container(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.import_image()
    victim = host.start_runc("victim")
    old = host.text()
    original = DaemonService.start

    def start(self: DaemonService, timeout: float = 60.0) -> None:
        shims = host.shims()
        Host._kill(shims)
        assert all(wait_exit(pid, 5) for pid in shims)
        time.sleep(0.1)  # the kernel notes in hundredths of a second when a process starts
        original(self, timeout)

    monkeypatch.setattr(DaemonService, "start", start)
    result = run_action(**RUNSC, **host.options(restart=True))
    check_rolled_back(host, old, result, f"the restart lost running containers: default/{victim}")


def test_a_restart_that_would_end_containers_is_refused(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DaemonService, "why_containers_would_die", lambda _self: "unit x has KillMode=mixed")
    assert not run_action(**KATA, **host.options(restart=True))["failed"]  # none runs
    host.import_image()
    host.start_runc("victim")
    old, pid = host.text(), host.pid()
    result = run_action(**RUNSC, **host.options(restart=True))
    assert "restarting containerd would end 1 running containers: unit x has KillMode=mixed. Nothing was" in result["msg"]
    assert (host.text(), host.pid(), leftovers(host)) == (old, pid, [])


def test_a_container_that_ends_by_itself_is_not_lost(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.import_image()
    short = host.start_runc("short")
    at_step(monkeypatch, "switched", lambda: host.ctr("tasks", "kill", "--signal", "SIGKILL", short))
    result = run_action(**RUNSC, **host.options(restart=True))
    assert not result["failed"], result["msg"]


def test_a_file_that_was_broken_before(host: Host) -> None:
    """Somebody broke the file and has not restarted yet: our restart shows it, and the message says that it was not us."""
    broken = f"{host.text()}{BAD['registry twice']}"
    Path(host.config_path).write_text(broken)
    result = run_action(**RUNSC, **host.options(restart=True))
    assert result["failed"]
    assert "its CRI plugin does not work with that either, so it was broken before this change" in result["msg"]
    assert host.text() == broken
    assert host.pid()


def test_vanished_backup(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """The old file's second name is gone when it is needed: its content is still known."""
    os.chmod(host.config_path, 0o600)
    old = host.text()

    def vanish() -> None:
        os.unlink(tx.Change(host.config_path, None, None).old)
        raise GvisorError("no luck today")

    at_step(monkeypatch, "switched", vanish)
    result = run_action(**RUNSC, **host.options(restart=True))
    check_rolled_back(host, old, result, "no luck today")
    assert os.stat(host.config_path).st_mode & 0o777 == 0o600


# --- a file system that refuses ---


@contextlib.contextmanager
def mounted(folder: Path, options: str) -> Iterator[None]:
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def without_daemon(folder: Path, text: str) -> dict:
    (folder / "config.toml").write_text(text)
    return {"path": f"{folder}/config.toml", "validate": False, "address": f"{folder}/none.sock"}


def test_full_disk(tmp_path: Path) -> None:
    with mounted(tmp_path, "size=16k"):
        options = without_daemon(tmp_path, STUB)
        with contextlib.suppress(OSError), open(tmp_path / "ballast", "wb", buffering=0) as ballast:
            while True:
                ballast.write(b"x" * 512)
        result = run_action(**RUNSC, **options)
        assert "No space left on device; make room and run again" in result["msg"]
        assert (tmp_path / "config.toml").read_text() == STUB
        assert sorted(os.listdir(tmp_path)) == ["ballast", "config.toml"]
        os.unlink(tmp_path / "ballast")
        assert run_action(**RUNSC, **options)["changed"]


def test_read_only_file_system(tmp_path: Path) -> None:
    with mounted(tmp_path, "size=64k"):
        options = without_daemon(tmp_path, STUB)
        subprocess.run(["mount", "-o", "remount,ro", str(tmp_path)], check=True)
        result = run_action(**RUNSC, **options)
        assert "Read-only file system; mount it writable" in result["msg"]
        assert (tmp_path / "config.toml").read_text() == STUB


def test_immutable_file(tmp_path: Path) -> None:
    options = without_daemon(tmp_path, STUB)
    subprocess.run(["chattr", "+i", options["path"]], check=True)
    try:
        result = run_action(**RUNSC, **options)
        assert "it may be immutable" in result["msg"]
        assert os.listdir(tmp_path) == ["config.toml"]
    finally:
        subprocess.run(["chattr", "-i", options["path"]], check=True)
    assert (tmp_path / "config.toml").read_text() == STUB


def test_a_file_that_is_a_mount_point(tmp_path: Path) -> None:
    options = without_daemon(tmp_path, STUB)
    subprocess.run(["mount", "--bind", options["path"], options["path"]], check=True)
    try:
        result = run_action(**RUNSC, **options)
        assert result["failed"]
        assert "mount point" in result["msg"] or "Invalid cross-device link" in result["msg"]
    finally:
        subprocess.run(["umount", options["path"]], check=True)
    assert (tmp_path / "config.toml").read_text() == STUB
    assert os.listdir(tmp_path) == ["config.toml"]
