# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What action.yml runs: its inputs become a command line, and nothing that a sandbox says becomes a command of the runner's."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from ansible_collections.ggen.gvisor.plugins.module_utils._command.parser import parse
from ansible_collections.ggen.gvisor.plugins.module_utils._command.table import NAME, NOT_RUN, WOULD_CHANGE
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st

SCRIPT = ROOT / ".github/action/run.py"
DEFAULTS = {name: value["default"] for name, value in yaml.safe_load((ROOT / "action.yml").read_text())["inputs"].items()}
RESULT = {
    "rc": 0,
    "stdout": "",
    "stderr": "",
    "changed": True,
    "contents_changed": True,
    "failed": False,
    "changed_files": [
        {"path": "generated/a,b:c.py", "change": "modified", "contents": True, "ignored": False},
        {"path": "rights", "change": "modified", "contents": False, "ignored": False},
        {"path": ".ggen/log", "change": "created", "contents": True, "ignored": True},
    ],
    "changed_counts": {"created": 1, "modified": 1, "removed": 0, "ignored": 1},
    "warnings": [],
}


def load() -> SimpleNamespace:
    scope = {"__name__": "action"}
    exec(compile(SCRIPT.read_text(), SCRIPT, "exec"), scope)  # noqa: S102 - it is no module of the collection's
    return SimpleNamespace(**scope)


ACTION = load()
MEMBER = ["sudo", "-n", "ggen-gvisor-member"]


def inputs(**given: str) -> dict[str, str]:
    """Return the variables that action.yml gives."""
    return {f"GGEN_{name.upper()}": value for name, value in {**DEFAULTS, **given}.items()}


def test_its_codes_are_the_command_s():
    assert (ACTION.NOT_RUN, ACTION.WOULD_CHANGE, ACTION.PROGRAM) == (NOT_RUN, WOULD_CHANGE, NAME)


@pytest.mark.parametrize(
    ("given", "argv"),
    [
        ({}, [*MEMBER, "check", "--json", "--workspace=/w"]),
        ({"mode": "run", "workspace": "model"}, [*MEMBER, "sync", "--json", "--workspace=/w/model"]),
        (
            {"mode": "run", "sudo": "false", "options": "--memory=1G\n\n--env=A=b c\n", "command": "sh\n-c\nmake $(id); x\n"},
            [NAME, "run", "--memory=1G", "--env=A=b c", "--json", "--workspace=/w", "--", "sh", "-c", "make $(id); x"],
        ),
        ({"command": "--\n-x"}, [*MEMBER, "check", "--json", "--workspace=/w", "--", "--", "-x"]),
    ],
)
def test_inputs_become_one_command_line(given: dict, argv: list[str]):
    asked = ACTION.read_inputs(inputs(**given))
    found = ACTION.argv_of(asked, ACTION.place_of(asked, "/w"))
    assert found == argv
    parse(found[1 if found[0] == NAME else len(MEMBER) :], "1.0.0")


@pytest.mark.parametrize(
    "given", [{"mode": "sync"}, {"sudo": "yes"}, {"options": "--"}, {"options": "x"}, {"options": "--memory=1G\n-- sh"}, {"mode": ""}]
)
def test_inputs_that_mean_nothing_are_refused(given: dict):
    if given == {"options": "--memory=1G\n-- sh"}:  # an option with a blank, which the command refuses
        asked = ACTION.read_inputs(inputs(**given))
        argv = ACTION.argv_of(asked, ACTION.place_of(asked, "/w"))
        with pytest.raises(SystemExit):
            parse(argv[len(MEMBER) :], "1.0.0")
        return
    with pytest.raises(ACTION.Refused):
        ACTION.read_inputs(inputs(**given))


def test_a_file_stands_in_its_annotation_whatever_it_is_called():
    found = ACTION.command("error", "50%\n::set-env name=A::b\x1b[2J", file="a,b:c\n::stop.py", title="")
    assert found == "::error file=a%2Cb%3Ac%0A%3A%3Astop.py::50%25%0A::set-env name=A::b\\x1b[2J"


@given(st.text(), st.text())
def test_an_annotation_is_one_line_with_the_properties_that_it_was_given(message: str, name: str):
    line = ACTION.command("error", message, file=f"x{name}", title="t")
    assert not re.search("[\x00-\x1f\x7f-\x9f]", line.replace("\t", ""))
    head, told = re.fullmatch(r"::error ([^:]*)::(.*)", line, re.DOTALL).groups()
    assert [part.partition("=")[0] for part in head.split(",")] == ["file", "title"]
    assert "%" not in re.sub("%(25|0A|0D|2C|3A)", "", told)


@given(st.text())
def test_the_runner_obeys_nothing_of_an_output(text: str):
    first, *shown, last = ACTION.as_it_is(text).split("\n")
    token = first.removeprefix("::stop-commands::")
    assert re.fullmatch("[0-9a-f]{32}", token)
    assert last == f"::{token}::"
    assert token not in "".join(shown)


def test_a_long_output_is_cut():
    shown = ACTION.cut("x" * (ACTION.MAX_TEXT + 5))
    assert len(shown) < ACTION.MAX_TEXT + 100
    assert shown.endswith("\n[5 characters more, in the result]\n")


def annotations(rc: int, result: dict, **given: str) -> list[str]:
    return list(ACTION.annotations(ACTION.read_inputs(inputs(**given)), result, rc, "model"))


def test_a_check_names_each_file_that_is_not_up_to_date():
    assert annotations(WOULD_CHANGE, RESULT) == [
        "::error file=model/generated/a%2Cb%3Ac.py,title=ggen-gvisor::not up to date: this run would change it",
        "::error title=ggen-gvisor::1 files are not up to date; run the same with mode: run, or ggen-gvisor sync, and commit what it writes",
    ]


def test_a_run_tells_what_it_changed():
    assert annotations(0, RESULT, mode="run") == ["::notice file=model/generated/a%2Cb%3Ac.py,title=ggen-gvisor::modified by this run"]


def test_what_went_wrong_is_an_error():
    failed = {
        "failed": True,
        "msg": "it changed what it may not",
        "faults": [".envrc is protected"],
        "changed_files": [],
        "warnings": ["w"],
    }
    assert annotations(152, failed, mode="run") == [
        "::error title=ggen-gvisor::it changed what it may not; .envrc is protected",
        "::warning title=ggen-gvisor::w",
    ]
    assert annotations(7, {"rc": 7}, mode="run") == ["::error title=ggen-gvisor::the command ended with 7"]


def test_many_files_do_not_fill_the_log():
    many = {"changed_files": [{"path": f"f{number}", "change": "created", "contents": True, "ignored": False} for number in range(60)]}
    found = annotations(0, many, mode="run")
    assert (len(found), found[-1]) == (51, "::notice title=ggen-gvisor::10 files more; the result has all of them")


def test_a_diff_cannot_end_its_block_of_the_summary():
    part = {"before": "", "after": "````\n<script>\n", "before_header": "a (absent)", "after_header": "a"}
    text = ACTION.summary(ACTION.read_inputs(inputs()), {**RESULT, "diff": [part]}, WOULD_CHANGE)
    head, block = text.split("\n\n", 1)
    assert head == "**ggen-gvisor check**: exit code 153, 1 created, 1 modified"
    assert block.splitlines()[0] == "`````diff"
    assert block.splitlines().index("`````") == len(block.splitlines()) - 1


class Step:
    """The script as the runner starts it, with programs of the test's own instead of sudo or ggen-gvisor."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("bin", "temp", "checkout"):
            (root / name).mkdir()

    def program(self, name: str, text: str) -> None:
        path = self.root / "bin" / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def run(self, **given: str) -> tuple[int, list[str]]:
        env = {
            **inputs(**given),
            "PATH": f"{self.root / 'bin'}:/usr/bin:/bin",  # not where this machine may have the real one
            "GITHUB_WORKSPACE": str(self.root / "checkout"),
            "GITHUB_OUTPUT": str(self.root / "output"),
            "GITHUB_STEP_SUMMARY": str(self.root / "summary"),
            "RUNNER_TEMP": str(self.root / "temp"),
        }
        argv = [sys.executable, "-I", str(SCRIPT)]
        done = subprocess.run(argv, env=env, cwd=self.root / "checkout", capture_output=True, text=True, check=False)
        assert done.stderr == ""
        return done.returncode, done.stdout.splitlines()

    @property
    def outputs(self) -> dict[str, str]:
        return dict(line.split("=", 1) for line in (self.root / "output").read_text().splitlines())


@pytest.fixture
def step(tmp_path: Path) -> Step:
    return Step(tmp_path)


def test_a_step_from_its_inputs_to_its_exit_code(step: Step):
    hostile = {**RESULT, "stdout": "::set-env name=PATH::/tmp\n\x1b[31mred\n"}
    (step.root / "result").write_text(json.dumps(hostile))
    step.program("sudo", f'printf "%s\\n" "$@" > {step.root}/argv; cat {step.root}/result; exit 153')
    code, lines = step.run(workspace="model", options="--memory=1G")
    assert (step.root / "argv").read_text().split() == [
        *MEMBER[1:],
        "check",
        "--memory=1G",
        "--json",
        f"--workspace={step.root}/checkout/model",
    ]
    assert code == WOULD_CHANGE
    assert lines[0] == "::group::stdout of the command"
    assert lines[1].startswith("::stop-commands::")
    assert lines[2:4] == ["::set-env name=PATH::/tmp", "\\x1b[31mred"]
    assert lines[4] == f"::{lines[1].rpartition('::')[2]}::"
    assert lines[-1] == "ggen-gvisor check: exit code 153, 1 changed files"
    assert (step.outputs["exit-code"], step.outputs["changed"]) == ("153", "true")
    kept = json.loads(Path(step.outputs["result"]).read_text())
    assert kept == {**hostile, "exit_code": 153}
    assert (step.root / "summary").read_text().startswith("**ggen-gvisor check**: exit code 153")


def test_a_runner_that_may_not_is_told_which_option_lets_it(step: Step):
    step.program("sudo", "echo 'sudo: a password is required' >&2; exit 1")
    code, lines = step.run()
    assert code == 1
    assert lines[0].startswith("::error title=ggen-gvisor::sudo: a password is required; the runner's user must be in the group")


def test_a_host_without_the_command_is_told(step: Step):
    code, lines = step.run(sudo="false", mode="run")
    assert code == NOT_RUN
    assert lines[0] == "::error title=ggen-gvisor::ggen-gvisor: No such file or directory; is this runner on a sandbox host?"


def test_bad_inputs_are_told(step: Step):
    code, lines = step.run(mode="sync")
    assert (code, lines) == (NOT_RUN, ["::error title=ggen-gvisor::mode is 'sync'; it is check or run"])


@pytest.mark.parametrize(
    ("workspace", "link"),
    [("model", "model"), ("model/", "model"), ("./a/../model", "model"), ("model/deep/er", "model"), ("d/model", "d/model")],
)
def test_no_link_of_the_checkout_is_followed_to_the_workspace(step: Step, workspace: str, link: str):
    # Also not one that is root's, as in the checkout of a runner that is root, which the command would follow.
    (step.root / "away/deep/er").mkdir(parents=True)
    place = step.root / "checkout" / link
    place.parent.mkdir(exist_ok=True)
    place.symlink_to(step.root / "away")
    step.program("ggen-gvisor", f"touch {step.root}/ran; echo {{}}")
    code, lines = step.run(workspace=workspace, sudo="false")
    assert (code, lines[0]) == (NOT_RUN, f"::error title=ggen-gvisor::workspace: {link} is a link of the checkout's, and is not followed")
    assert not (step.root / "ran").exists()


def test_a_checkout_that_is_behind_a_link_itself_is_used(step: Step):
    (step.root / "checkout").rename(step.root / "real")
    (step.root / "checkout").symlink_to("real")
    step.program("ggen-gvisor", "echo {}")
    assert step.run(workspace=".", sudo="false")[0] == 0
