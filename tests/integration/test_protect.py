# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Commands that write what the host's programs obey, or what they were not asked for; on a real containerd, in gVisor."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from support.module import run_module
from support.runs import IMAGE, PATIENCE, USER, Host
from support.terminal import run_play

pytest_plugins = ("support.run_fixtures",)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A user's repository, whose programs are his own."""
    folder = tmp_path / "project"
    for name in ("source", "src/old", "sub/.envrc", ".vscode/tasks.json"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("his own\n")
    subprocess.run(["git", "init", "-q", "-b", "main", folder], check=True)
    for path in (folder, *folder.rglob("*")):
        os.chown(path, USER, USER)
    return folder


def files(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text("latin-1") for path in sorted(folder.rglob("*")) if path.is_file()}


WRITES = [
    "echo evil >> .git/config",
    "echo evil > .git/config.new && mv .git/config.new .git/config",
    "rm -f .git/config",
    "echo evil > .git/hooks/post-checkout",
    "rm -rf .git/hooks",
    "echo evil > sub/.envrc",
    "echo evil > .vscode/tasks.json",
    "echo evil > .vscode/new",
    "chmod 777 .git/config",
]


def test_what_is_there_cannot_be_changed(host: Host, project: Path) -> None:
    before = files(project)
    for script in WRITES:
        result = host.run(f"({script}); echo done > made", project)
        assert "faults" not in result, (script, result["faults"])
        assert result["rc"] == 0
        (project / "made").unlink()
    assert {name: text for name, text in files(project).items() if name != ".git/config.new"} == before


CREATIONS = {
    ".envrc": "echo evil > .envrc",
    ".git/commondir": "echo ../evil > .git/commondir",
    "sub/.git/config": "mkdir -p sub/.git/hooks; echo evil > sub/.git/config",
    "sub/.git": "mkdir evil; echo evil > evil/config; ln -s ../evil sub/.git",
    "src/.vscode": "mkdir evil; echo evil > evil/tasks.json; ln -s ../evil src/.vscode",
    "src/.git": "echo gitdir: ../evil > src/.git",
}


@pytest.mark.parametrize("path", CREATIONS)
def test_what_is_put_there_is_taken_away_and_fails_the_job(host: Host, project: Path, path: str) -> None:
    before = files(project)
    result = host.run(f"{CREATIONS[path]}; echo good > good", project)
    assert result["failed"]
    assert (result["rc"], len(result["faults"])) == (0, 1)
    assert result["faults"][0] == f"protect: the command has created, and these were taken away: {path}"
    assert result["faults"][0] in result["msg"]
    left = {name: text for name, text in files(project).items() if not name.startswith("evil/")}
    assert left == {**before, "good": "good\n"}
    assert not os.path.lexists(project / path)
    assert path not in [change["path"] for change in result["changed_files"]]


def test_a_repository_that_is_exchanged(host: Host, project: Path) -> None:
    script = "mv .git old; mkdir -p .git/hooks; echo evil > .git/config; echo evil > .git/hooks/post-checkout; cp old/HEAD .git/HEAD"
    before = (project / ".git/config").read_text()
    result = host.run(script, project)
    assert result["failed"]
    assert "evil" not in "".join(files(project).values())
    configs = [path.read_text() for path in project.rglob("config")]
    assert configs == [before]


def test_git_is_asked_after_a_hostile_run(host: Host, project: Path, tmp_path: Path) -> None:
    """What all of it is about: the owner looks at what a run did."""
    sign = tmp_path / "sign"
    config = f"[core]\\n\\tfsmonitor = touch {sign}; echo\\n"
    nested = f"for place in . src sub; do mkdir -p $place/.git/hooks; printf '{config}' >> $place/.git/config; done"
    attack = f"{nested}; mv .git x; mkdir .git; cp -r x/* .git; printf '{config}' > .git/config"
    tmp_path.chmod(0o777)
    result = host.run(f"({attack}) 2>/dev/null; true", project)
    assert result["failed"]
    for place in (project, project / "src", project / "sub"):
        subprocess.run(["git", "-c", "safe.directory=*", "status"], cwd=place, capture_output=True, check=False)
    assert not sign.exists()


@pytest.mark.parametrize("where", ["host", "check", "controller", "jobs"])
def test_a_play_names_them(host: Host, project: Path, tmp_path: Path, where: str) -> None:
    before = files(project)
    one = {"workspace": str(project), "workspace_from": "controller" if where == "controller" else "host"}
    options = {"jobs": [one]} if where == "jobs" else one
    places = {"address": host.daemon.address, "state_dir": host.state_dir, "image": IMAGE, "runtime": host.runtime, "name": host.name}
    task = {"ggen.gvisor.containerd_run": {**places, "argv": ["sh", "-c", "echo evil > .envrc; echo good > good"], **options}}
    shown = run_play(tmp_path, [task], *(["--check"] if where == "check" else []))
    assert shown.rc == 2, shown.text
    assert "protect: the command has created, and these were taken away: .envrc" in shown.text
    assert files(project) == {**before, **({"good": "good\n"} if where in ("host", "jobs") else {})}


def test_a_job_in_the_same_pod_cannot_help_another(host: Host, project: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    os.chown(other, USER, USER)
    common = {key: value for key, value in host.params("", None).items() if key not in ("argv", "workspace")}
    jobs = [
        {"workspace": str(other), "argv": ["sh", "-c", "echo evil > /workspaces/1/.envrc; (sleep 1; echo evil > .envrc) & true"]},
        {"workspace": str(project), "argv": ["sh", "-c", "cat .envrc; echo evil > /workspaces/0/.envrc"]},
    ]
    result = run_module("containerd_run", **common, jobs=jobs, pods="one")
    assert result["failed"]
    assert not (project / ".envrc").exists()
    assert not (other / ".envrc").exists()


def test_a_writable_mount_is_protected_too(host: Host, project: Path) -> None:
    script = "cd /mnt; echo evil >> .git/config; echo evil > .envrc; echo good > good"
    before = files(project)
    result = host.run(script, None, mounts=[{"source": str(project), "target": "/mnt", "writable": True}], user=f"{USER}:{USER}")
    assert result["failed"]
    assert ".envrc" in result["msg"]
    assert files(project) == {**before, "good": "good\n"}


def test_a_killed_run_s_are_taken_away_by_the_next(host: Host, project: Path) -> None:
    process = host.start("echo evil > .envrc; touch there; sleep 100", project)
    deadline = time.monotonic() + 60
    while not (project / "there").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    (supervisor,) = (int(word) for word in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split())
    process.send_signal(signal.SIGSTOP)
    os.kill(supervisor, signal.SIGKILL)
    process.kill()
    process.communicate(timeout=PATIENCE)
    assert (project / ".envrc").exists()
    result = host.run("true")
    assert any("taken away: .envrc" in warning for warning in result["warnings"]), result["warnings"]
    assert not (project / ".envrc").exists()


def test_what_a_user_wants_otherwise(host: Host, project: Path) -> None:
    assert not host.run("echo mine > .envrc; echo x >> .git/config", project, protect=[])["failed"]
    assert "x\n" in (project / ".git/config").read_text()
    result = host.run("echo x > Cargo.lock; echo y > sub/x.lock", project, protect=["*.lock"])
    assert "taken away: Cargo.lock, sub/x.lock" in result["msg"]


@pytest.mark.parametrize("check", [False, True])
def test_outputs_as_patterns(host: Host, project: Path, check: bool) -> None:
    before = files(project)
    allowed = host.run("echo new > src/old; echo new > src/made.rs", project, outputs=["src/*.rs", "src/old"], check=check)
    assert not allowed["failed"], allowed
    result = host.run("echo x > src/other; rm source; echo y > src/b.rs", project, outputs=["src/*.rs", "src/old"], check=check)
    assert result["failed"]
    assert result["faults"] == ["the command has changed what is not among outputs: source, src/other"]
    assert [change["path"] for change in result["changed_files"]] == ["source", "src/b.rs", "src/other"]
    if check:
        assert files(project) == before


def test_outputs_as_folders_leave_the_rest_read_only(host: Host, project: Path) -> None:
    before = files(project)
    result = host.run("echo new > src/made; (echo x > source; rm source; touch new; touch sub/new) 2>&1; true", project, outputs=["src/**"])
    assert not result["failed"], result
    assert result["stdout"].count("Read-only file system") == 4, result["stdout"]
    assert files(project) == {**before, "src/made": "new\n"}
    nothing = host.run("(touch src/x; touch x) 2>&1; true", project, outputs=[])
    assert (nothing["failed"], nothing["stdout"].count("Read-only file system")) == (False, 2)
    # … also for what is in a folder that the command may write.
    result = host.run("echo evil > src/.envrc", project, outputs=["src/**"])
    assert "taken away: src/.envrc" in result["msg"]
    # A folder that is not there yet.
    result = host.run("mkdir out; touch out/x y", project, outputs=["out/**"])
    assert result["faults"] == ["the command has changed what is not among outputs: y"]


def test_outputs_of_a_controller_s_workspace(host: Host, project: Path, tmp_path: Path) -> None:
    before = files(project)
    places = {"address": host.daemon.address, "state_dir": host.state_dir, "image": IMAGE, "runtime": host.runtime, "name": host.name}
    options = {"workspace": str(project), "workspace_from": "controller", "outputs": ["*.rs"]}
    task = {"ggen.gvisor.containerd_run": {**places, "argv": ["sh", "-c", "echo x > a.rs; echo x > b"], **options}}
    shown = run_play(tmp_path, [task])
    assert shown.rc == 2
    assert "not among outputs: b" in shown.text
    assert files(project) == before
    # The folders of what comes are not among outputs themselves, and come all the same.
    task["ggen.gvisor.containerd_run"]["argv"][-1] = "mkdir -p new/deep; echo x > new/deep/a.rs; echo x > src/b.rs"
    shown = run_play(tmp_path, [task])
    assert shown.rc == 0, shown.text
    assert files(project) == {**before, "new/deep/a.rs": "x\n", "src/b.rs": "x\n"}
    options["outputs"][:] = ["out/**"]
    task["ggen.gvisor.containerd_run"]["argv"][-1] = "mkdir -p out"
    assert run_play(tmp_path, [task]).rc == 0
    assert (project / "out").is_dir()
    task["ggen.gvisor.containerd_run"]["argv"][-1] = "mkdir -p other"
    # The folder is there now, so that the rest is read-only.
    assert "Read-only file system" in run_play(tmp_path, [task]).text
    assert not (project / "other").exists()
    (project / "out").rmdir()
    assert "not among outputs: other" in run_play(tmp_path, [task]).text
    assert not (project / "other").exists()


def test_the_role_hands_them_on(host: Host, project: Path, tmp_path: Path) -> None:
    role = {"ansible.builtin.include_role": {"name": "ggen.gvisor.ggen_run"}}
    variables = {
        "_ggen_run_program": "/bin/sh",
        "ggen_run_args": [
            "-c",
            "mkdir -p .ggen/keys; echo key > .ggen/keys/signing.key; echo x > src/made; echo y > .envrc; echo z > made",
        ],
        "ggen_run_workspace": str(project),
        "ggen_run_image": IMAGE,
        "ggen_run_address": host.daemon.address,
        "ggen_run_outputs": ["src/**"],
    }
    shown = run_play(tmp_path, [{**role, "vars": variables}])
    assert shown.rc == 2, shown.text
    assert "taken away: .envrc" in shown.text
    assert "not among outputs: made" in shown.text
    assert json.dumps("signing.key") not in shown.text
    (project / "made").unlink()
    variables["ggen_run_args"] = ["-c", "echo x > src/made"]
    assert run_play(tmp_path, [{**role, "vars": variables}]).rc == 0
