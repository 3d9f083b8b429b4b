# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""ggen-gvisor --rootless, the zipapp as it is installed, as a user who owns nothing else; nothing may be left after any test."""

from __future__ import annotations

import json
import os
import pty
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.ggen.gvisor.plugins.module_utils._command.table import (
    FAULTY,
    LIMIT,
    NOT_RUN,
    TIMED_OUT,
    WOULD_CHANGE,
)
from ansible_collections.ggen.gvisor.plugins.plugin_utils._command import zipapp
from support.rootless import PYTHON, User

# What ggen is to the sandbox, where no test is about ggen itself.
GGEN = """#!/bin/sh
echo "arguments: $*" > generated
"""


class Command:
    """The command beside runsc, as a release has both, and the image where it is looked for."""

    def __init__(self, user: User) -> None:
        self.user = user
        self.bin = user.folder("release")
        self.program = self.bin / "ggen-gvisor"
        zipapp.write(str(self.program))
        shutil.copy2(user.runsc, self.bin / "runsc")
        self.root = user.folder("root file system")
        (self.root / "usr/local/bin").mkdir(parents=True)
        for name in ("bin", "tmp", "workspace"):
            (self.root / name).mkdir()
        for name in ("sh", "cat"):
            shutil.copy2("/bin/busybox", self.root / "bin" / name)
        (self.root / "usr/local/bin/ggen").write_text(GGEN)
        (self.root / "usr/local/bin/ggen").chmod(0o755)
        user.own(self.root)
        self.data = user.folder("data home")
        (self.data / "ggen.gvisor").mkdir()
        shutil.copy2(user.image, self.data / "ggen.gvisor/ggen.tar")
        user.own(self.data)

    def argv(self, verb: str, *options: str, words: tuple[str, ...] = ()) -> list[str]:
        call = [PYTHON, "-IS", str(self.program), verb, "--rootless", *options, *(["--", *words] if words else [])]
        return self.user.command(f"XDG_DATA_HOME={self.data}", *call)

    def start(self, verb: str, *options: str, words: tuple[str, ...] = (), cwd: Path | None = None) -> subprocess.Popen:
        return subprocess.Popen(
            self.argv(verb, *options, words=words),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=cwd or self.user.place,
        )

    def run(self, verb: str, *options: str, words: tuple[str, ...] = (), text: str = "", cwd: Path | None = None) -> tuple[int, str, str]:
        process = self.start(verb, *options, words=words, cwd=cwd)
        out, err = process.communicate(text, timeout=120)
        return process.returncode, out, err

    def sh(self, script: str, *options: str, text: str = "") -> tuple[int, str, str]:
        return self.run("run", *options, words=("sh", "-c", script), text=text)


@pytest.fixture(scope="module")
def installed() -> Iterator[Command]:
    with tempfile.TemporaryDirectory(prefix="rootless-command-", dir="/tmp") as folder:  # root's own are closed to others
        yield Command(User(Path(folder)))


@pytest.fixture
def command(installed: Command) -> Iterator[Command]:
    yield installed
    assert installed.user.settle() == {}


@pytest.fixture
def workspace(command: Command) -> Iterator[Path]:
    folder = command.user.folder("work space")
    (folder / "input").write_text("input\n")
    command.user.own(folder)
    yield folder
    shutil.rmtree(folder)


def test_a_command_has_its_own_streams_and_exit_code(command: Command) -> None:
    assert command.sh("cat; echo err >&2; exit 7", text="in\n" * 50_000) == (7, "in\n" * 50_000, "err\n")
    assert command.sh("exit 0", text="touch hacked\n" * 1000) == (0, "", "")


def test_a_workspace_stays_the_caller_s_and_options_arrive(command: Command, workspace: Path) -> None:
    (command.user.home / "key").write_text("much too secret")
    (command.user.home / "shown").mkdir()
    command.user.own(command.user.home)
    options = ["--workspace", str(workspace), "--env", "A=b c", "--secret", f"key={command.user.home / 'key'}", "--memory", "256M"]
    options += ["--mount", f"{command.user.home / 'shown'}:/shown:ro", "--timeout", "60"]
    script = 'echo "$A" > made; cat /run/secrets/key; echo; touch /shown/x 2> /dev/null || echo read-only'
    assert command.sh(script, *options) == (0, "********\nread-only\n", "")
    made = workspace / "made"
    assert (made.read_text(), made.stat().st_uid) == ("b c\n", command.user.uid)


def test_what_it_did_with_files_is_told_and_the_host_s_counts_are_root_s(command: Command, workspace: Path) -> None:
    rc, _out, err = command.sh("cat < input > made", "--trace", "--workspace", str(workspace))
    assert (rc, err.splitlines()) == (
        0,
        [f"ggen-gvisor: {line}" for line in ("opened   /workspace/input", "written  /workspace/made", "executed /bin/busybox")],
    )
    rc, _out, err = command.sh("touch ran", "--metrics", str(command.user.home), "--workspace", str(workspace))
    assert (rc, "the host's counts are root's" in err, (workspace / "ran").exists()) == (NOT_RUN, True, False)


def test_output_comes_while_the_command_runs(command: Command) -> None:
    process = command.start("run", words=("sh", "-c", "echo ready; read answer; echo got $answer"))
    assert process.stdout.readline() == "ready\n"
    assert process.poll() is None
    process.stdin.write("this\n")
    process.stdin.flush()
    assert process.stdout.readline() == "got this\n"
    process.stdin.close()
    assert process.wait(60) == 0


def test_json_is_containerd_run_s_result(command: Command, workspace: Path) -> None:
    rc, out, err = command.sh("echo out; echo 1 > made; exit 3", "--json", "--workspace", str(workspace))
    result = json.loads(out)
    assert (rc, err, result["rc"], result["stdout"]) == (3, "", 3, "out\n")
    assert [file["path"] for file in result["changed_files"]] == ["made"]
    assert result["kernel"].startswith("Starting gVisor")
    assert result["user"] == f"{command.user.uid}:{command.user.uid}"


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--timeout", "1"], TIMED_OUT, "did not end within 1 s"),
        (["--workspace", "/etc"], NOT_RUN, "without root a command runs as the caller"),
        (["--user", "0:0"], NOT_RUN, "is not possible without root"),
        (["--image", "none.tar"], NOT_RUN, "none.tar does not exist"),
        (["--runsc", "/bin/none"], NOT_RUN, "runsc=/bin/none is no program"),
        (["--runsc", "/bin/true"], NOT_RUN, "the sandbox did not start with /bin/true"),
        (["--cpus", "0.5"], NOT_RUN, "the limit cpus=0.5 is not enforced"),
        (["--namespace", "k8s.io", "--address", "/x"], NOT_RUN, "--namespace and --address: containerd's alone"),
        (["--terminal"], NOT_RUN, "--terminal is not possible with --rootless"),
    ],
)
def test_exit_codes_of_ours(command: Command, options: list[str], code: int, said: str) -> None:
    rc, out, err = command.sh("sleep 60", *options)
    assert (rc, out) == (code, ""), err
    assert said in err


def test_a_limit_has_its_exit_code(command: Command) -> None:
    rc, _out, err = command.sh("a=x; while :; do a=$a$a; done", "--memory", "256M")
    assert rc == LIMIT, err


def test_what_a_command_may_not_change_fails_it(command: Command, workspace: Path) -> None:
    rc, _out, err = command.sh("echo 1 > other", "--workspace", str(workspace), "--output", "wanted")
    assert rc == FAULTY
    assert "not among outputs: other" in err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_the_command_and_leaves_nothing(command: Command, number: int, code: int) -> None:
    process = command.start("run", words=("sh", "-c", "echo ready; sleep 600"))
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    assert process.wait(60) == code
    assert command.user.left() == {}


def test_what_is_typed_ends_it_as_at_any_program(command: Command) -> None:
    """Ctrl-C at the caller's terminal, which sends its signal to all that is in front there."""
    pid, ours = pty.fork()
    if pid == 0:
        argv = command.argv("run", words=("sh", "-c", "echo ready; sleep 600"))
        os.execvp(argv[0], argv)  # noqa: S606
    said = b""
    while b"ready" not in said:
        said += os.read(ours, 1000)
    os.write(ours, b"\x03")
    _pid, status = os.waitpid(pid, 0)
    os.close(ours)
    assert os.waitstatus_to_exitcode(status) == 130


def test_nothing_is_left_of_one_that_is_killed(command: Command) -> None:
    process = command.start("run", words=("sh", "-c", "echo ready; sleep 600"))
    assert process.stdout.readline() == "ready\n"
    process.kill()
    process.wait(60)
    assert command.user.settle() == {}


def test_sync_runs_ggen_in_the_current_folder(command: Command, workspace: Path) -> None:
    rc, out, err = command.run("sync", "--image", str(command.root), "--json", cwd=workspace)
    result = json.loads(out)
    assert (rc, err, [file["path"] for file in result["changed_files"]]) == (0, "", ["generated"]), result
    assert (workspace / "generated").read_text() == "arguments: sync\n"
    assert (workspace / "generated").stat().st_uid == command.user.uid


def test_check_shows_what_would_change_and_changes_nothing(command: Command, workspace: Path) -> None:
    rc, out, err = command.run("check", "--image", str(command.root), cwd=workspace)
    assert (rc, out, err) == (WOULD_CHANGE, "--- /dev/null\n+++ b/generated\n@@ -0,0 +1 @@\n+arguments: sync\n", "")
    assert os.listdir(workspace) == ["input"]
    assert command.run("check", words=("true",), cwd=workspace) == (0, "", "")


def test_a_file_that_is_a_link_into_ggen_s_records_is_not_up_to_date(command: Command, workspace: Path) -> None:
    (workspace / ".ggen").mkdir()
    (workspace / ".ggen/stale").write_text("stale\n")
    (workspace / "generated").symlink_to(".ggen/stale")
    command.user.own(workspace)
    rc, out, err = command.run("check", "--image", str(command.root), cwd=workspace)
    assert (rc, out, err) == (WOULD_CHANGE, "--- a/.ggen/stale\n+++ b/.ggen/stale\n@@ -1 +1 @@\n-stale\n+arguments: sync\n", "")


def test_a_shell_is_refused_with_the_reason(command: Command) -> None:
    rc, _out, err = command.run("shell")
    assert (rc, err.startswith("ggen-gvisor: shell is not possible with --rootless: it is containerd that")) == (NOT_RUN, True), err


def test_what_is_missing_is_named_with_where_it_belongs(command: Command) -> None:
    (command.bin / "runsc").rename(command.bin / "away")
    (command.data / "ggen.gvisor/ggen.tar").rename(command.data / "away")
    try:
        rc, _out, err = command.sh("true", "--image", "x.tar")
        assert (rc, f"neither {command.bin / 'runsc'} nor a folder of PATH has it; name gVisor's program with --runsc" in err) == (
            NOT_RUN,
            True,
        )
        rc, _out, err = command.sh("true", "--runsc", "/bin/true")
        assert (rc, f"neither {command.data}/ggen.gvisor/ggen.tar nor /usr/local/share" in err) == (NOT_RUN, True)
    finally:
        (command.bin / "away").rename(command.bin / "runsc")
        (command.data / "away").rename(command.data / "ggen.gvisor/ggen.tar")
