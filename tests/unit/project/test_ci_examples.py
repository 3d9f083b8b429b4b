# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pipelines of examples/ci and action.yml are what their makers' schemas allow, and ask ggen-gvisor for what it has."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tomllib
import yaml
from ansible_collections.ggen.gvisor.plugins.module_utils._command.member import ALLOWED
from ansible_collections.ggen.gvisor.plugins.module_utils._command.parser import parse
from ansible_collections.ggen.gvisor.plugins.module_utils._command.table import NAME, WOULD_CHANGE
from conftest import ROOT

EXAMPLES = ROOT / "examples/ci"
# By file: the schema, one of those that come with check-jsonschema, and what to break so that it does not hold.
SCHEMAS = {
    "action.yml": ("github-actions", ("using: composite", "using: composed")),
    "examples/ci/github.yml": ("github-workflows", ("timeout-minutes: 15", "timeout-minutes: soon")),
    "examples/ci/forgejo.yml": ("github-workflows", ("runs-on:", "runs-at:")),
    "examples/ci/gitlab.yml": ("gitlab-ci", ("when: on_failure", "when: it_fails")),
    "examples/ci/woodpecker.yml": ("woodpecker-ci", ("commands:", "comands:")),
}
# Values of a chart, which has no schema there.
OTHERS = {"examples/ci/gitlab-runner-values.yml"}


def refused(schema: str, *paths: Path) -> set[str]:
    """Return which of the files the schema does not allow."""
    where = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    program = shutil.which("check-jsonschema", path=where)
    assert program, "check-jsonschema is in tests/requirements.txt"
    transform = ["--data-transform", "gitlab-ci"] if schema == "gitlab-ci" else []
    argv = [program, "--output-format", "json", "--builtin-schema", f"vendor.{schema}", *transform, *map(str, paths)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    found = json.loads(done.stdout)
    assert found.get("parse_errors", []) == []
    return {error["filename"] for error in found["errors"]}


def test_every_example_is_checked():
    there = {str(path.relative_to(ROOT)) for path in EXAMPLES.glob("*.yml")}
    assert there == {name for name in SCHEMAS if name != "action.yml"} | OTHERS


@pytest.mark.parametrize("name", SCHEMAS)
def test_an_example_is_what_its_schema_allows(name: str, tmp_path: Path):
    schema, (right, wrong) = SCHEMAS[name]
    text = (ROOT / name).read_text()
    assert right in text
    broken = tmp_path / Path(name).name
    broken.write_text(text.replace(right, wrong))
    assert refused(schema, ROOT / name, broken) == {str(broken)}


def test_the_chart_s_values_ask_for_the_class_that_the_documents_make():
    values = yaml.safe_load((EXAMPLES / "gitlab-runner-values.yml").read_text())
    (runner,) = tomllib.loads(values["runners"]["config"])["runners"]
    pods = runner["kubernetes"]
    assert runner["executor"] == "kubernetes"
    assert f"kind: RuntimeClass\nmetadata: {{name: {pods['runtime_class_name']}}}\n" in (ROOT / "docs/kubernetes.md").read_text()
    assert {f"{kind}{limit}" for kind in ("", "helper_", "service_") for limit in ("cpu_limit", "memory_limit")} <= set(pods)


def scripts(name: str) -> list[str]:
    """Return the lines of an example that a shell runs."""
    found = yaml.safe_load((EXAMPLES / name).read_text())
    if name == "gitlab.yml":
        return found["generated-files"]["script"]
    return [line for step in found["steps"] for line in step["commands"]]


@pytest.mark.parametrize("name", ["gitlab.yml", "woodpecker.yml"])
def test_the_scripts_run_the_gate_as_the_command_has_it(name: str):
    (line,) = [line for line in scripts(name) if NAME in line]
    (asked,) = re.findall(rf"sudo -n {NAME}-member ([^>|]*)", line)
    found = parse(shlex.split(asked), "1.0.0")
    assert found.verb == "check"
    assert set(found.options) <= ALLOWED["check"]


def test_gitlab_s_warning_is_the_gate_s_code():
    assert f"allow_failure: {{exit_codes: {WOULD_CHANGE}}}" in (EXAMPLES / "gitlab.yml").read_text()


def action() -> dict:
    return yaml.safe_load((ROOT / "action.yml").read_text())


def test_no_input_of_the_action_comes_through_a_shell():
    (step,) = action()["runs"]["steps"]
    assert "${{" not in step["run"]
    assert set(step["env"].values()) == {f"${{{{ inputs.{name} }}}}" for name in action()["inputs"]}
    (path,) = re.findall(r'"\$GITHUB_ACTION_PATH/([^"]+)"', step["run"])
    assert (ROOT / path).is_file()


@pytest.mark.parametrize("name", ["github.yml", "forgejo.yml"])
def test_the_workflows_use_the_action_of_this_version_and_its_inputs(name: str):
    version = yaml.safe_load((ROOT / "galaxy.yml").read_text())["version"]
    steps = [step for job in yaml.safe_load((EXAMPLES / name).read_text())["jobs"].values() for step in job["steps"]]
    ours = [step for step in steps if step.get("uses", "").removeprefix("https://github.com/").startswith("ggen-gvisor/")]
    assert {step["uses"].removeprefix("https://github.com/") for step in ours} == {f"ggen-gvisor/ggen.gvisor@{version}"}
    for step in ours:
        assert set(step["with"]) <= set(action()["inputs"])
    checkouts = [step for step in steps if "actions/checkout@" in step.get("uses", "")]
    assert [step["with"]["persist-credentials"] for step in checkouts] == [False] * len(ours)
    assert all("${{" not in step.get("run", "") for step in steps)
