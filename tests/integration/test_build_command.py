# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Long commands: their progress, their end, and that nothing but a kill ends them early."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._base.text import duration_text
from ansible_collections.ggen.gvisor.plugins.module_utils._builds.background_job import (
    BackgroundJob,
    network_prefix,
    progress_line,
    progress_of,
    tail_of,
)
from conftest import ROOT
from support.module import finish_module, run_module, start_module


class Host:
    """The module with a folder for its jobs, and a FIFO that a command can be made to wait for."""

    def __init__(self, root: Path) -> None:
        self.jobs, self.gate = root / "jobs", root / "gate"
        os.mkfifo(self.gate)

    def arguments(self, *argv: str, **options: object) -> dict:
        return {"name": "test", "state_dir": str(self.jobs), "argv": list(argv), "poll": 30, **options}

    def run(self, *argv: str, **options: object) -> dict:
        return {"failed": False, **finish_module(start_module("build_command", **self.arguments(*argv, **options)))}

    @property
    def waiting(self) -> tuple[str, ...]:
        """A command that says something, waits until the gate opens, and ends with 3."""
        return ("bash", "-c", f"echo started $$; read < {self.gate}; echo opened; exit 3")

    def open(self) -> None:
        self.gate.write_text("go\n")

    def process(self) -> int:
        return json.loads((self.jobs / "test" / "job.json").read_text())["pid"]


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


LOG = "3 crates\n   Compiling a v1\n   Compiling b v2\nwarning: Compiling is slow\n"


def test_progress_counts_lines_and_knows_totals():
    patterns = [
        {"label": "crates", "pattern": r"^ *Compiling", "total": 3},
        {"label": "warnings", "pattern": "^warning", "total": 7},
        {"label": "links", "pattern": "^Linking"},
    ]
    assert progress_of(LOG, patterns) == [
        {"label": "crates", "done": 2, "total": 3},
        {"label": "warnings", "done": 1, "total": 7},
        {"label": "links", "done": 0, "total": None},
    ]


def test_a_faulty_pattern_is_named():
    with pytest.raises(GvisorError, match="crates"):
        progress_of(LOG, [{"label": "crates", "pattern": "("}])


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0s"), (59.9, "59s"), (80, "1m20s"), (3720, "1h02m")])
def test_durations(seconds, text):
    assert duration_text(seconds) == text


def test_the_line_a_person_sees():
    counts = [{"label": "packages", "done": 212, "total": 480}, {"label": "warnings", "done": 1, "total": None}]
    line = progress_line("runsc 20260224/amd64", counts, 80, "/cache/log")
    assert line == "runsc 20260224/amd64: 212 of 480 packages, 1 warnings, 1m20s, log: /cache/log"


def test_the_log_s_tail():
    assert tail_of("") == []
    assert tail_of("a\nb\nc\n", 2) == ["b", "c"]


def test_a_command_that_works(host):
    result = host.run(
        "bash",
        "-c",
        "echo out; echo err >&2; echo $LC_ALL $EXTRA; pwd; read || exit 1",
        env={"EXTRA": "1"},
        chdir="/usr",
    )
    assert (result["rc"], result["running"], result["attached"], result["network"]) == (1, False, False, "shared")
    assert result["log_tail"] == ["out", "err", "C 1", "/usr"]
    assert Path(result["log"]).read_text().startswith("out\n")


def test_the_end_is_an_event(host):
    begun = time.monotonic()
    assert host.run("true")["rc"] == 0
    assert time.monotonic() - begun < 10  # and not the 30 s that it may wait


def test_a_program_that_is_missing(host):
    result = host.run("no-such-program")
    assert result["rc"] == 127
    assert "no-such-program" in result["error"]


def test_the_job_goes_on_without_its_starter_and_is_attached_to(host):
    first = host.run(*host.waiting, poll=1)
    assert first["running"]
    assert os.getsid(host.process()) == os.getpgid(host.process()) != os.getsid(0)
    second = host.run(*host.waiting, poll=1)
    assert second["running"]
    assert second["attached"]
    assert second["run"] == first["run"]
    last = start_module("build_command", **host.arguments(*host.waiting, run=first["run"]))
    host.open()
    result = finish_module(last)
    assert (result["running"], result["rc"]) == (False, 3)
    assert result["log_tail"][-1] == "opened"
    assert host.run("true")["attached"] is False


def test_a_run_whose_end_nobody_saw_ends_as_the_same_command_s_next_run(host):
    """Two controllers ask for the same thing: the second one's start may come between the first one's end and its look at it."""
    first = host.run(*host.waiting, poll=1)
    host.open()
    BackgroundJob(str(host.jobs / "test")).wait(first["run"], 30)
    second = host.run(*host.waiting, poll=1)
    assert second["running"]
    assert second["run"] != first["run"]
    assert host.run(*host.waiting, run=first["run"], poll=1)["running"]
    last = start_module("build_command", **host.arguments(*host.waiting, run=first["run"]))
    host.open()
    result = finish_module(last)
    assert (result["running"], result["rc"], result["log_tail"][-1]) == (False, 3, "opened")
    assert host.run(*host.waiting, run=first["run"])["rc"] == 3
    host.run("true")
    assert "another command took its place" in host.run(*host.waiting, run=first["run"])["error"]


def test_another_command_of_the_same_name_is_refused_while_one_runs(host):
    host.run(*host.waiting, poll=1)
    result = host.run("true")
    assert result["failed"]
    assert f"kill {host.process()}" in result["msg"]
    host.open()
    BackgroundJob(str(host.jobs / "test")).wait(json.loads((host.jobs / "test" / "job.json").read_text())["run"], 30)


def test_two_starts_at_once_run_one_command(host, tmp_path):
    counter = tmp_path / "count"
    argv = ("bash", "-c", f"echo x >> {counter}; read < {host.gate}")
    starts = [start_module("build_command", **host.arguments(*argv, poll=2)) for _start in range(4)]
    results = [finish_module(start) for start in starts]
    assert [result.get("failed", False) for result in results] == [False] * 4, results
    assert counter.read_text() == "x\n"
    assert sorted(result["attached"] for result in results) == [False, True, True, True]
    host.open()


def test_kill_ends_the_command_and_what_it_started(host, tmp_path):
    marker = tmp_path / "child"
    argv = ("bash", "-c", f"sleep 300 & echo $! > {marker}; echo ready; wait")
    first = host.run(*argv, poll=1)
    os.kill(host.process(), signal.SIGTERM)
    result = host.run(*argv, run=first["run"])
    assert (result["running"], result["rc"]) == (False, -signal.SIGTERM)
    assert (
        not Path(f"/proc/{marker.read_text().strip()}/cmdline").exists()
        or not Path(f"/proc/{marker.read_text().strip()}/cmdline").read_bytes()
    )


def test_a_job_that_is_killed_hard_is_not_taken_for_a_running_one(host):
    first = host.run("sleep", "300", poll=1)
    child = int(Path(f"/proc/{host.process()}/task/{host.process()}/children").read_text())
    os.kill(host.process(), signal.SIGKILL)
    result = host.run("sleep", "300", run=first["run"])
    assert (result["running"], result["error"]) == (False, "it was killed from outside")
    os.kill(child, signal.SIGKILL)


def test_a_command_that_takes_too_long(host):
    result = host.run("sleep", "300", timeout=1)
    assert result["rc"] == -signal.SIGKILL
    assert "1 s" in result["error"]


def test_what_exists_is_not_made_again(host, tmp_path):
    made = tmp_path / "made"
    assert host.run("touch", str(made), creates=str(made))["changed"]
    again = host.run("touch", str(made), creates=str(made))
    assert (again["changed"], again["rc"]) == (False, 0)
    other = tmp_path / "other"
    assert host.run("touch", str(other), creates=[str(made), str(other)])["changed"], "one of two was missing"
    assert not host.run("touch", str(other), creates=[str(made), str(other)])["changed"]


@pytest.mark.skipif(network_prefix() is None, reason="this host lets nobody make a network namespace")
def test_without_network_there_is_no_network(host):
    result = host.run("cat", "/proc/net/dev", network=False)
    assert result["network"] == "isolated"
    assert [line.split(":")[0].strip() for line in result["log_tail"] if ":" in line] == ["lo"]


def test_check_mode_runs_nothing(host):
    result = run_module("build_command", check=True, **host.arguments("touch", str(host.jobs)))
    assert result["skipped"]
    assert "would run: touch" in result["msg"]
    assert not host.jobs.exists()


PLAY = """
- hosts: localhost
  gather_facts: false
  connection: local
  tasks:
    - name: Build
      ggen.gvisor.build_command:
        name: made up
        state_dir: {jobs}
        argv: [bash, -c, "for i in 1 2 3; do echo step $i; sleep 1; done; exit {rc}"]
        poll: 1
        progress: [{{label: steps, pattern: ^step, total: 3}}]
"""


def play(tmp_path: Path, rc: int, *options: str) -> subprocess.CompletedProcess:
    book = tmp_path / "play.yml"
    book.write_text(PLAY.format(jobs=tmp_path / "jobs", rc=rc))
    return subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), "-i", "localhost,", book, *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "ANSIBLE_PYTHON_INTERPRETER": sys.executable},
        check=False,
    )


def test_the_action_shows_how_far_it_is(tmp_path):
    done = play(tmp_path, 0)
    assert done.returncode == 0, done.stdout
    assert "made up: 2 of 3 steps, 1s, log: " in done.stdout or "made up: 1 of 3 steps, 1s, log: " in done.stdout
    assert "changed=1" in done.stdout


def test_the_action_explains_a_failure(tmp_path):
    done = play(tmp_path, 4)
    assert done.returncode == 2
    assert "made up failed after 3s: it ended with exit code 4. The end of its log" in done.stdout
    assert "step 3" in done.stdout


def test_the_action_in_check_mode(tmp_path):
    done = play(tmp_path, 0, "--check")
    assert done.returncode == 0
    assert "skipped=1" in done.stdout
    assert not (tmp_path / "jobs").exists()


def test_stopping_ansible_leaves_the_command_running_and_the_next_run_attaches(tmp_path):
    book = tmp_path / "play.yml"
    os.mkfifo(tmp_path / "gate")
    text = PLAY.format(jobs=tmp_path / "jobs", rc=0)
    book.write_text(text.replace("sleep 1", f"[ $i = 3 ] && read < {tmp_path / 'gate'}"))
    argv = [Path(sys.executable).with_name("ansible-playbook"), "-i", "localhost,", book]
    env = {**os.environ, "ANSIBLE_PYTHON_INTERPRETER": sys.executable, "PYTHONUNBUFFERED": "1"}
    first = subprocess.Popen(
        argv,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=env,
        start_new_session=True,
    )
    assert first.stdout
    for line in first.stdout:
        if "3 of 3 steps" in line:
            break
    # Ctrl-C, and then a closed terminal: Ansible may need the second.
    os.killpg(first.pid, signal.SIGINT)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait(timeout=60)
    job = json.loads((tmp_path / "jobs" / "made-up" / "job.json").read_text())
    assert Path(f"/proc/{job['pid']}").exists()
    second = subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env)
    assert second.stdout
    for line in second.stdout:
        if "3 of 3 steps" in line:
            break
    (tmp_path / "gate").write_text("go\n")
    out, _err = second.communicate(timeout=60)
    assert "changed=1" in out
    assert json.loads((tmp_path / "jobs" / "made-up" / "job.json").read_text())["run"] == job["run"]
