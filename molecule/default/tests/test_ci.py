# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pipeline of examples/ci/github.yml, run by act as a runner's unprivileged user on a host that site.yml has provisioned."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from conftest import ROOT
from support import go_programs, oci
from support.examples import EXPECTED
from support.scenario import LAB, snapshot_of
from support.snapshot import differences

HOST, RUNNER, GROUP = "trixie", "ci-runner", "ci-gvisor"  # the group is the inventory's
PLACE, HOME = "/srv/ci", "/home/ci-runner"
BUSYBOX = "docker.io/library/busybox:latest"
WORKFLOW = (ROOT / "examples/ci/github.yml").read_text()
VERSION = yaml.safe_load((ROOT / "galaxy.yml").read_text())["version"]
# Stands in for GitHub's, which needs Node.js and GitHub.
UPLOAD = """\
name: upload
description: Keeps a file.
inputs:
  name: {description: Under which name., required: true}
  path: {description: The file., required: true}
runs:
  using: composite
  steps:
    - shell: bash
      env:
        NAME: ${{ inputs.name }}
        FILE: ${{ inputs.path }}
      run: install -D "$FILE" "$HOME/artifacts/$NAME.json"
"""
# act gives each step a terminal, and with a step that fails it loses what is still in it. Without one it has a pipe, as GitHub's runner has.
NO_TERMINAL = "mount --make-rprivate /dev && mount --bind /dev/null /dev/ptmx"
# What a repository may try. It may write to build alone.
HOSTILE = r"""
echo '::add-path::/tmp/evil'
echo '::set-env name=BASH_ENV::/tmp/evil'
printf '::error file=spoofed.py::not by us\n\033[2J'
mkdir -p build
echo '#!/bin/sh' > build/tool; chmod 4755 build/tool
touch "build/$(printf 'a,b:c\n::error::by a name')"
ln -s /etc/shadow build/shadow
echo 'touch /home/ci-runner/owned' > .git/hooks/post-checkout
echo '[core] sshCommand = touch /home/ci-runner/owned' >> .git/config
echo 'touch /home/ci-runner/owned' > .envrc
touch ../owned /home/ci-runner/owned /srv/ci/owned
cat /etc/shadow /home/ci-runner/.profile
wget -q -T 2 -O - http://192.0.2.1/
exit 0
"""


def ssh(script: str, given: bytes = b"", check: bool = True) -> str:
    """Run a shell script on the host as root and return what it printed."""
    argv = ["ssh", "-F", str(LAB / "ssh_config"), HOST, script]
    done = subprocess.run(argv, input=given, capture_output=True, check=False, timeout=120)
    assert not check or done.returncode == 0, f"{script}: {done.stdout.decode()}{done.stderr.decode()}"
    return done.stdout.decode()


class Ran(NamedTuple):
    """What act did: the jobs' ends, the annotations by job, and the artifacts."""

    jobs: dict[str, str]
    said: dict[str, list[tuple[str, str, str]]]
    obeyed: set[str]
    artifacts: dict[str, dict]
    text: str


class Runner:
    """The host with a runner's user, act instead of a runner, and the action as GitHub would fetch it."""

    def run(self, repository: Path) -> Ran:
        """Run the pipeline of a repository."""
        subprocess.run(["git", "init", "--quiet"], cwd=repository, check=True)
        who = ["-c", "user.name=them", "-c", "user.email=them@example.com"]
        subprocess.run(["git", "add", "--all"], cwd=repository, check=True)
        subprocess.run(["git", *who, "commit", "--quiet", "--message", "x"], cwd=repository, check=True)
        packed = subprocess.run(["tar", "c", "."], cwd=repository, stdout=subprocess.PIPE, check=True).stdout
        # Nobody cleans up behind act but this.
        ssh(f"rm -rf {HOME}/* {HOME}/.cache; runuser -u {RUNNER} -- sh -c 'mkdir {HOME}/repo && tar xo -C {HOME}/repo'", packed)
        options = ["--json", "--platform=self-hosted=-self-hosted", f"--directory={HOME}/repo"]
        options.append(f"--local-repository=ggen-gvisor/ggen.gvisor@{VERSION}={PLACE}/action")
        options.append(f"--local-repository=actions/upload-artifact@v4={PLACE}/upload")
        environment = f"env -i HOME={HOME} PATH=/usr/local/bin:/usr/bin:/bin"
        act = f"exec runuser -u {RUNNER} -- {environment} {PLACE}/act push {' '.join(options)}"
        text = ssh(f"cd / && unshare --mount --propagation unchanged sh -c '{NO_TERMINAL} && {act}' 2>&1", check=False)
        rows = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
        jobs = {row["jobID"]: row["jobResult"] for row in rows if "jobResult" in row}
        said: dict[str, list[tuple[str, str, str]]] = {job: [] for job in jobs}
        for row in rows:
            if row.get("command") in ("error", "warning", "notice"):
                said[row["jobID"]].append((row["command"], row["kvPairs"].get("file", ""), row["arg"]))
        names = ssh(f"ls {HOME}/artifacts").split()
        artifacts = {name.removesuffix(".json"): json.loads(ssh(f"cat {HOME}/artifacts/{name}")) for name in names}
        return Ran(jobs, said, {row["command"] for row in rows if "command" in row}, artifacts, text)


def left() -> list[str]:
    """Return what of the runs' is left on the host."""
    return ssh(
        "ctr containers ls -q; ls /var/lib/ggen.gvisor/pods; pgrep -l runsc; grep -o ' /var/lib/ggen.gvisor/[^ ]*' /proc/mounts; true"
    ).split()


@pytest.fixture(scope="module")
def runner() -> Iterator[Runner]:
    """The host, before and after as it was."""
    files = {
        "act": (go_programs.act().read_bytes(), 0o755),
        "action/action.yml": (ROOT / "action.yml").read_bytes(),
        "action/.github/action/run.py": (ROOT / ".github/action/run.py").read_bytes(),
        "upload/action.yml": UPLOAD.encode(),
        "busybox.tar": oci.tar(oci.oci_entries(oci.busybox_layer(), BUSYBOX)[0]),
    }
    ssh(f"useradd --create-home --shell /bin/bash {RUNNER} && groupadd {GROUP} && usermod --append --groups {GROUP} {RUNNER}")
    try:
        ssh(f"mkdir {PLACE} && tar x -C {PLACE} && ctr images import {PLACE}/busybox.tar", oci.tar(files))
        before = snapshot_of(HOST)
        yield Runner()
        assert left() == []
        assert differences(before, snapshot_of(HOST)) == []
    finally:
        ssh(f"ctr images rm {BUSYBOX}; userdel --remove {RUNNER}; groupdel {GROUP}; rm -rf {PLACE}", check=False)


def repository(folder: Path, script: str) -> Path:
    """Return a new repository with the example, up to date, its pipeline, and a script."""
    shutil.copytree(ROOT / "examples/organization", folder, ignore=shutil.ignore_patterns(".gitignore", ".ggen", "generated", "*.backup"))
    shutil.copytree(EXPECTED / "organization/expected", folder / "generated")
    for name, text in (("build.sh", script), (".github/workflows/ggen.yml", WORKFLOW)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_a_repository_that_is_up_to_date(runner: Runner, tmp_path: Path) -> None:
    done = runner.run(repository(tmp_path / "repository", "mkdir build && echo done > build/log && echo built"))
    assert done.jobs == {"up-to-date": "success", "build": "success"}, done.text
    assert done.said == {"up-to-date": [], "build": [("notice", "build/log", "created by this run")]}
    assert (done.artifacts["ggen-result"]["rc"], done.artifacts["ggen-result"]["contents_changed"]) == (0, False)
    assert done.artifacts["build-result"]["stdout"] == "built\n"
    assert all(result["kernel"].startswith("Starting gVisor") for result in done.artifacts.values())


def test_files_that_are_not_up_to_date(runner: Runner, tmp_path: Path) -> None:
    stale = repository(tmp_path / "repository", "exit 3")
    (stale / "generated/model.py").write_text("# by hand\n")
    (stale / "generated/schema.sql").unlink()
    done = runner.run(stale)
    assert done.jobs == {"up-to-date": "failure", "build": "failure"}, done.text
    assert done.artifacts["ggen-result"]["exit_code"] == 153
    assert done.said["up-to-date"][:2] == [
        ("error", "generated/model.py", "not up to date: this run would change it"),
        ("error", "generated/schema.sql", "not up to date: this run would create it"),
    ]
    assert done.artifacts["build-result"]["exit_code"] == 3
    assert done.said["build"] == [("error", "", "sh ended with exit code 3")]


def test_a_hostile_repository(runner: Runner, tmp_path: Path) -> None:
    done = runner.run(repository(tmp_path / "repository", HOSTILE))
    assert done.jobs == {"up-to-date": "success", "build": "failure"}, done.text
    result = done.artifacts["build-result"]
    assert (result["rc"], result["exit_code"]) == (0, 152)
    assert "root:x:0:0:root:/:/bin/sh" not in result["stdout"]
    assert not {"add-path", "set-env"} & done.obeyed
    assert [file for _kind, file, _text in done.said["build"] if file == "spoofed.py"] == []
    assert ("notice", r"build/a,b:c\n::error::by a name", "created by this run") in done.said["build"]
    (told,) = [text for kind, _file, text in done.said["build"] if kind == "error"]
    assert ".envrc" in told
    assert ssh(f"find {HOME} {PLACE} /tmp -name owned -o -perm /6000 -type f") == ""


def test_a_workspace_that_is_a_link_leads_nowhere(runner: Runner, tmp_path: Path) -> None:
    linked = repository(tmp_path / "repository", "true")
    (linked / "model").symlink_to(HOME)
    workflow = WORKFLOW.replace("mode: check\n", "mode: check\n          workspace: model\n")
    (linked / ".github/workflows/ggen.yml").write_text(workflow)
    done = runner.run(linked)
    assert done.jobs == {"up-to-date": "failure", "build": "success"}, done.text
    assert done.artifacts["ggen-result"]["exit_code"] == 125
    assert "model is a link" in done.said["up-to-date"][0][2]
