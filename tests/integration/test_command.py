# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""ggen-gvisor, the zipapp as it is installed, on a real containerd with gVisor: each verb, exit codes, streams, signals."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.ggen.gvisor.plugins.module_utils._command.table import (
    FAULTY,
    NOT_RUN,
    TIMED_OUT,
    UNHEALTHY,
    WOULD_CHANGE,
)
from ansible_collections.ggen.gvisor.plugins.plugin_utils._command import zipapp
from support.containerd import Daemon
from support.runs import IMAGE, PATIENCE, Host, own

pytest_plugins = ("support.run_fixtures",)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = str(tmp_path_factory.mktemp("bin") / "ggen-gvisor")
    os.mkdir(f"{path}-state", 0o755)
    zipapp.write(path, f"{path}-state/code")
    return path


class Command:
    """The command against the test's own containerd."""

    def __init__(self, program: str, host: Host) -> None:
        self.program = program
        self.host = host

    def argv(self, verb: str, *options: str, words: tuple[str, ...] = ()) -> list[str]:
        where = ["--state-dir", self.host.state_dir]
        if verb != "stats":
            where += ["--address", self.host.daemon.address, *([] if "--image" in options else ["--image", IMAGE])]
        return [sys.executable, "-IS", self.program, verb, *where, *options, *(["--", *words] if words else [])]

    def start(self, verb: str, *options: str, words: tuple[str, ...] = (), **streams: object) -> subprocess.Popen:
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams}
        return subprocess.Popen(self.argv(verb, *options, words=words), **pipes)

    def run(self, verb: str, *options: str, words: tuple[str, ...] = (), text: str = "", cwd: Path | None = None) -> tuple[int, str, str]:
        process = self.start(verb, *options, words=words, stdin=subprocess.PIPE, cwd=cwd)
        out, err = process.communicate(text.encode(), timeout=120)
        return process.returncode, out.decode(), err.decode()

    def sh(self, script: str, *options: str, text: str = "") -> tuple[int, str, str]:
        return self.run("run", *options, words=("sh", "-c", script), text=text)

    def left(self) -> dict:
        found = {name: rows for name, rows in self.host.daemon.leftovers().items() if rows}
        mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if f" {self.host.state_dir}/" in line]
        return {**found, **({"pods": self.host.pods()} if self.host.pods() else {}), **({"mounts": mounts} if mounts else {})}

    def settle(self) -> dict:
        deadline = time.monotonic() + PATIENCE
        while self.left() and time.monotonic() < deadline:
            time.sleep(0.1)
        return self.left()


@pytest.fixture
def command(program: str, daemon: Daemon, tmp_path: Path) -> Iterator[Command]:
    one = Command(program, Host(daemon, tmp_path, "io.containerd.runsc.v1"))
    yield one
    assert one.settle() == {}


def line_of(process: subprocess.Popen) -> bytes:
    return process.stdout.readline()


# run


def test_a_command_has_its_own_streams_and_exit_code(command: Command) -> None:
    assert command.sh("cat; echo err >&2; exit 7", text="in\n") == (7, "in\n", "err\n")


def test_a_workspace_is_written_by_its_owner_and_options_arrive(command: Command, workspace: Path, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("much too secret")
    (tmp_path / "shared").mkdir()
    options = ["--workspace", str(workspace), "--env", "A=b c", "--secret", f"key={tmp_path / 'key'}", "--memory", "256M"]
    options += ["--mount", f"{tmp_path / 'shared'}:/shared:ro", "--timeout", "60"]
    script = (
        'echo "$A" > made; cat /run/secrets/key; printf "much too"; printf " secret\\n"; touch /shared/x 2> /dev/null || echo read-only'
    )
    assert command.sh(script, *options) == (0, "****************\nread-only\n", "")
    made = workspace / "made"
    assert (made.read_text(), made.stat().st_uid) == ("b c\n", workspace.stat().st_uid)


def test_what_it_did_with_files_is_told_on_standard_error(command: Command, workspace: Path) -> None:
    script = "cat; : > made"
    rc, out, err = command.sh(script, "--trace", "--workspace", str(workspace), text="fed\n")
    assert (rc, out, err.splitlines()) == (0, "fed\n", ["ggen-gvisor: written  /workspace/made", "ggen-gvisor: executed /bin/busybox"])
    rc, out, err = command.sh(script, "--trace", "--json", "--workspace", str(workspace))
    assert (rc, err, json.loads(out)["trace"]["written"]) == (0, "", ["/workspace/made"])


def test_output_comes_while_the_command_runs(command: Command) -> None:
    process = command.start("run", words=("sh", "-c", "echo ready; read answer; echo got $answer"), stdin=subprocess.PIPE)
    assert line_of(process) == b"ready\n"
    assert process.poll() is None
    process.stdin.write(b"this\n")
    process.stdin.flush()
    assert line_of(process) == b"got this\n"
    process.stdin.close()
    assert process.wait(60) == 0
    assert process.stderr.read() == b""


def test_much_output_arrives_whole(command: Command) -> None:
    rc, out, err = command.sh("head -c 5000000 /dev/zero | tr '\\0' x; head -c 5000000 /dev/zero | tr '\\0' y >&2")
    assert (rc, out == "x" * 5_000_000, err == "y" * 5_000_000) == (0, True, True)


def test_what_is_left_of_the_input_is_not_run(command: Command, workspace: Path) -> None:
    assert command.sh("exit 0", "--workspace", str(workspace), text="touch /workspace/hacked\n" * 1000) == (0, "", "")
    assert list(workspace.iterdir()) == []


def test_json_is_containerd_run_s_result(command: Command, workspace: Path) -> None:
    rc, out, err = command.sh("echo out; echo err >&2; echo 1 > made; exit 3", "--json", "--workspace", str(workspace))
    result = json.loads(out)
    assert (rc, err) == (3, "")
    assert (result["rc"], result["stdout"], result["stderr"], result["failed"], result["changed"]) == (3, "out\n", "err\n", True, True)
    assert [file["path"] for file in result["changed_files"]] == ["made"]
    assert result["kernel"].startswith("Starting gVisor")


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--timeout", "1"], TIMED_OUT, "did not end within 1 s"),
        (["--image", "localhost/none:1"], NOT_RUN, "localhost/none:1"),
        (["--memory", "much"], NOT_RUN, "memory='much' is no size"),
        (["--cpus", "many"], NOT_RUN, "'many' is no number"),
        (["--mount", "x"], NOT_RUN, "is not SRC:DST"),
        (["--nonsense"], NOT_RUN, "unrecognized arguments"),
        (["--address", "/nowhere.sock"], NOT_RUN, "containerd does not answer at /nowhere.sock"),
    ],
)
def test_exit_codes_of_ours(command: Command, options: list[str], code: int, said: str) -> None:
    rc, out, err = command.sh("sleep 60", *options)
    assert (rc, out) == (code, ""), err
    assert said in err


def test_what_a_command_may_not_change_fails_it(command: Command, workspace: Path) -> None:
    rc, _out, err = command.sh("echo 1 > other", "--workspace", str(workspace), "--output", "wanted")
    assert rc == FAULTY
    assert "not among outputs: other" in err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_the_command_and_leaves_nothing(command: Command, number: int, code: int) -> None:
    process = command.start("run", words=("sh", "-c", "echo ready; sleep 600"))
    assert line_of(process) == b"ready\n"
    process.send_signal(number)
    assert process.wait(60) == code
    assert command.left() == {}


def test_a_command_whose_output_nobody_reads_any_more_ends(command: Command) -> None:
    process = command.start("run", words=("sh", "-c", "while :; do echo y; done"))
    assert line_of(process) == b"y\n"
    process.stdout.close()
    assert process.wait(60) == 141
    assert command.left() == {}


def test_a_reader_that_waits_does_not_stop_the_timeout(command: Command) -> None:
    process = command.start("run", "--timeout", "3", words=("sh", "-c", "while :; do echo y; done"))
    time.sleep(8)  # nobody reads
    process.stdout.read()
    assert process.wait(60) == TIMED_OUT


def test_a_terminal_is_not_driven_by_what_a_command_prints(command: Command) -> None:
    ours, theirs = pty.openpty()
    process = command.start("run", words=("sh", "-c", r"printf '\033]0;owned\007ok\n'"), stdin=theirs, stdout=theirs)
    os.close(theirs)
    assert process.wait(60) == 0
    assert os.read(ours, 1000) == b"\\x1b]0;owned\\x07ok\r\n"
    os.close(ours)


def test_what_is_typed_reaches_the_command_and_what_comes_later_stays(command: Command) -> None:
    ours, theirs = pty.openpty()
    process = command.start("run", words=("sh", "-c", "read a; read b; echo $a $b; cat; echo end"), stdin=theirs)
    os.write(ours, b"one\ntwo\n")
    assert line_of(process) == b"one two\n"
    os.write(ours, b"three\n\x04")
    assert process.stdout.read() == b"three\nend\n"
    assert process.wait(60) == 0
    os.write(ours, b"later\n")
    assert os.read(theirs, 100) == b"later\n"
    os.close(ours)
    os.close(theirs)


def test_in_the_background_the_terminal_is_the_shell_s(command: Command, tmp_path: Path) -> None:
    """The shell starts it in a process group of its own, as an interactive one does, and then reads a line by itself."""
    out = tmp_path / "out"
    script = f'set -m; "$@" > {out} & until grep -q started {out}; do sleep 0.1; done; sleep 1; read line; echo "shell: $line"; wait; echo "rc $?"'
    pid, ours = pty.fork()
    if pid == 0:
        words = command.argv("run", words=("sh", "-c", "echo started; sleep 3; echo done"))
        os.execvp("bash", ["bash", "-c", script, "bash", *words])  # noqa: S606
    os.write(ours, b"typed\n")
    said = b""
    with contextlib.suppress(OSError):  # how a terminal whose programs are gone ends
        while data := os.read(ours, 1000):
            said += data
    os.waitpid(pid, 0)
    os.close(ours)
    assert {"shell: typed", "rc 0"} <= set(said.decode().splitlines()), said
    assert out.read_text() == "started\ndone\n"


class AtTerminal:
    """A command with a terminal of the test's."""

    def __init__(self, argv: list[str], cwd: Path | None = None) -> None:
        self.pid, self.ours = pty.fork()
        if self.pid == 0:
            os.chdir(cwd or "/")
            os.execv(argv[0], argv)  # noqa: S606
        self.said = b""

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def until(self, text: str) -> str:
        while text.encode() not in self.said:
            assert select.select([self.ours], [], [], 25)[0], f"nothing more came than {self.said!r}"
            self.said += os.read(self.ours, 1000)
        before, found, self.said = self.said.partition(text.encode())
        return (before + found).decode()

    def end(self) -> tuple[int, str]:
        with contextlib.suppress(OSError):
            while data := os.read(self.ours, 1000):
                self.said += data
        _pid, status = os.waitpid(self.pid, 0)
        os.close(self.ours)
        return os.waitstatus_to_exitcode(status), self.said.decode()


def test_a_command_has_a_terminal_with_the_right_size_and_signals(command: Command) -> None:
    script = """test -t 0 && test -t 1 && echo a terminal; echo $A $TERM; echo begin; read size; stty size; trap 'echo caught' INT; echo ready
sleep 60; stty size; cat /proc/self/status | grep -e ^Uid -e ^CapEff; exit 5"""
    one = AtTerminal(command.argv("run", "-t", "--env", "A=b", "--env", "TERM=vt100", words=("sh", "-c", script)))
    assert "a terminal\r\nb vt100\r\n" in one.until("begin\r\n")
    one.resize(33, 77)
    time.sleep(1)
    os.write(one.ours, b"now\n")
    assert "33 77" in one.until("ready\r\n")
    one.resize(44, 88)
    time.sleep(1)
    os.write(one.ours, b"\x03")
    rc, said = one.end()
    assert rc == 5
    assert "caught\r\n44 88\r\n" in said
    assert "Uid:\t65534\t65534\t65534\t65534\r\nCapEff:\t0000000000000000\r\n" in said
    assert command.left() == {}


def test_a_shell_sees_the_workspace_and_with_copy_a_copy(command: Command, workspace: Path) -> None:
    for options, kept in (([], True), (["--copy", "--trace"], False)):
        one = AtTerminal(command.argv("shell", *options), workspace)
        one.until("$ ")
        os.write(one.ours, b"echo 1 > made; exit 3\r")
        rc, said = one.end()
        assert rc == 3
        assert ("ggen-gvisor: written  /workspace/made" in said) is not kept
        assert (workspace / "made").exists() is kept
        (workspace / "made").unlink(missing_ok=True)


def test_a_shell_looks_at_a_copy_of_what_failed_last(command: Command, workspace: Path, tmp_path: Path) -> None:
    other = own(tmp_path / "other")
    assert command.sh("echo half > made; exit 4", "--workspace", str(workspace))[0] == 4
    assert command.sh("true", "--workspace", str(other))[0] == 0
    for _time in range(2):  # what a shell ends with is no failure to look at
        one = AtTerminal(command.argv("shell", "--failed"), tmp_path)
        assert f"a copy of {workspace} as it is now; sh -c echo half > made; exit 4 failed there at 2" in one.until("(rc 4, exit)")
        one.until("$ ")
        os.write(one.ours, b"cat made; echo more > made; exit 3\r")
        rc, said = one.end()
        assert (rc, "half\r\n" in said) == (3, True), said
        assert (workspace / "made").read_text() == "half\n"
    rc, _out, err = command.run("shell", "--failed", "--workspace", str(other))
    assert (rc, f"knows no run in {other} that failed" in err) == (NOT_RUN, True), err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_a_terminal_and_gives_the_caller_s_back(command: Command, number: int, code: int) -> None:
    one = AtTerminal(command.argv("run", "-t", words=("sh", "-c", "echo ready; sleep 600")))
    one.until("ready\r\n")
    held = os.open(os.readlink(f"/proc/{one.pid}/fd/0"), os.O_RDWR | os.O_NOCTTY)
    os.kill(one.pid, number)
    _pid, status = os.waitpid(one.pid, 0)
    assert os.waitstatus_to_exitcode(status) == code
    assert termios.tcgetattr(held)[3] & termios.ICANON
    os.close(held)
    os.close(one.ours)
    assert command.left() == {}


def test_a_terminal_that_is_none_is_told(command: Command) -> None:
    rc, _out, err = command.sh("true", "--terminal")
    assert rc == NOT_RUN
    assert "are one" in err


def test_the_timeout_is_that_of_a_terminal_too(command: Command) -> None:
    rc, said = AtTerminal(command.argv("run", "-t", "--timeout", "2", words=("sh", "-c", "sleep 600"))).end()
    assert rc == TIMED_OUT
    assert "did not end within 2 s" in said


@pytest.mark.parametrize("verb", ["sync", "check", "shell", "run"])
def test_a_folder_that_is_gone_is_told(command: Command, tmp_path: Path, verb: str) -> None:
    """Each of them asks where it is, before the run or for it."""
    options = {"run": ["--workspace", "."]}.get(verb, [])
    words = {"run": ("true",)}.get(verb, ())
    folder = tmp_path / "gone"
    folder.mkdir()
    argv = ["sh", "-c", 'rmdir "$PWD" && exec "$@"', "sh", *command.argv(verb, *options, words=words)]
    done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (NOT_RUN, "")
    assert done.stderr.startswith("ggen-gvisor: No such file or directory"), done.stderr


def test_streams_that_are_closed_are_no_trouble(command: Command) -> None:
    words = command.argv("run", words=("sh", "-c", "echo out"))
    done = subprocess.run(["sh", "-c", '"$@" <&- >&- 2>&-', "sh", *words], timeout=60, check=False)
    assert done.returncode == 0


# check


def test_check_shows_what_would_change_and_changes_nothing(command: Command, workspace: Path) -> None:
    own(workspace)
    (workspace / "a").write_text("one\n")
    os.chown(workspace / "a", 1000, 1000)
    os.chmod(workspace / "a", 0o644)
    before = (workspace / "a").stat().st_mtime_ns
    rc, out, err = command.run("check", words=("sh", "-c", "echo two >> a; printf new > b"), cwd=workspace)
    assert (rc, err) == (WOULD_CHANGE, "")
    assert out == (
        "--- a/a\n+++ b/a\n@@ -1 +1,2 @@\n one\n+two\n--- /dev/null\n+++ b/b\n@@ -0,0 +1 @@\n+new\n\\ No newline at end of file\n"
    )
    assert ((workspace / "a").stat().st_mtime_ns, sorted(os.listdir(workspace))) == (before, ["a"])
    (workspace / "patch").write_text(out)
    subprocess.run(["git", "apply", "--unsafe-paths", "patch"], cwd=workspace, check=True)
    assert ((workspace / "a").read_text(), (workspace / "b").read_text()) == ("one\ntwo\n", "new")


def test_check_ends_with_0_where_nothing_would_change(command: Command, workspace: Path) -> None:
    assert command.run("check", words=("true",), cwd=workspace) == (0, "", "")


def test_check_has_the_command_s_exit_code_and_what_it_said(command: Command, workspace: Path) -> None:
    assert command.run("check", words=("sh", "-c", "echo why >&2; exit 4"), cwd=workspace) == (4, "", "why\n")


# doctor


def test_doctor_tells_what_is_well_and_what_is_not(command: Command) -> None:
    rc, out, err = command.run("doctor")
    assert (rc, err) == (UNHEALTHY, "")  # the tests' gVisor is not where the collection installs it
    assert "ok   containerd " in out
    assert f"ok   the image {IMAGE} is there" in out
    assert "ok   a new sandbox is gVisor's: Starting gVisor" in out
    assert "BAD  gVisor is not" in out
    rc, out, _err = command.run("doctor", "--json", "--image", "localhost/none:1")
    found = json.loads(out)
    assert (rc, found["healthy"]) == (UNHEALTHY, False)
    assert any("localhost/none:1 is missing" in fault for fault in found["faults"])


def test_doctor_says_that_there_is_no_containerd(command: Command) -> None:
    rc, out, _err = command.run("doctor", "--address", "/nowhere.sock")
    assert rc == UNHEALTHY
    assert "BAD  containerd does not answer on /nowhere.sock" in out


# stats


def test_stats_tells_what_runs_and_what_it_uses(command: Command, workspace: Path) -> None:
    """While it runs, of each sandbox; a moment later, that there is none."""
    busy = "touch begun; i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; cat begun; touch ready; sleep 600"
    begin = time.monotonic()
    process = command.start("run", "--workspace", str(workspace), "--memory", "256M", words=("sh", "-c", busy))
    deadline = time.monotonic() + 60
    while not (workspace / "ready").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    try:
        rc, out, err = command.run("stats", "--json")
        assert (rc, err) == (0, "")
        (pod,) = json.loads(out)["pods"]
        (name,) = command.host.pods()
        assert (pod["pod"], pod["image"], pod["digest"][:7]) == (name, IMAGE, "sha256:")
        assert (pod["argv"], pod["workspace"]) == (["sh", "-c", busy], str(workspace))
        assert 0.1 < pod["age"] <= time.monotonic() - begin
        assert 1 << 20 < pod["memory"] <= 256 << 20
        assert 0 < pod["cpu_seconds"] < 120
        assert 5 < pod["pids"] < 2048
        assert pod["sandbox"]["fs_opens"] > 5
        rc, out, err = command.run("stats")
        head, row = out.splitlines()
        assert (rc, err, head.split()) == (0, "", ["POD", "IMAGE", "DIGEST", "AGE", "MEMORY", "CPU", "TASKS", "OPENS"])
        assert row.split()[:3] == [name, IMAGE, pod["digest"][7:19]]
    finally:
        process.terminate()
        process.wait(60)
    assert command.settle() == {}
    assert command.run("stats") == (0, f"no sandbox of {command.host.state_dir} runs now\n", "")
    assert json.loads(command.run("stats", "--json")[1]) == {"pods": []}


def test_stats_believes_no_folder_that_others_can_change(command: Command, tmp_path: Path) -> None:
    """A pod of theirs names a socket of theirs, and the first runsc on the PATH of who listens there ran as root."""
    folder = tmp_path / "theirs/pods/pod"
    folder.mkdir(parents=True)
    listener = "import os, socket, time; s = socket.socket(socket.AF_UNIX); s.bind('s'); s.listen(); print(flush=True); time.sleep(60)"
    (tmp_path / "theirs/runsc").write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    (tmp_path / "theirs/runsc").chmod(0o755)
    argv, env = [sys.executable, "-c", listener, "pod"], {"PATH": str(tmp_path / "theirs")}
    with subprocess.Popen(argv, cwd=folder, env=env, stdout=subprocess.PIPE) as running:
        running.stdout.readline()
        (folder / "pid").write_text(str(running.pid))
        (folder / "pod.json").write_text(json.dumps({"address": f"{folder}/s", "namespace": "default", "program": "ctr"}))
        os.chown(tmp_path / "theirs", 65534, 65534)
        rc, out, err = command.run("stats", "--state-dir", str(tmp_path / "theirs"))
        running.kill()
    assert (rc, out, "can be changed by others than root" in err, (tmp_path / "ran").exists()) == (NOT_RUN, "", True, False)
    assert command.run("stats", "--state-dir", str(tmp_path / "none"))[0] == 0
    assert not (tmp_path / "none").exists()
