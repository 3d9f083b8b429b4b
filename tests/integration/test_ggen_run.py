# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Role ggen_run with a real ggen in a real gVisor pod of a private containerd. Needs GGEN_BINARY, a static ggen."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Iterator

import pytest
from ansible_collections.ggen.gvisor.plugins.plugin_utils._command import zipapp
from support.containerd import Daemon
from support.examples import expected
from support.gvisor import gvisor_dir
from support.oci import oci_entries, tar

ROOT = Path(__file__).resolve().parent.parent.parent
BINARY = os.environ.get("GGEN_BINARY", "")
IMAGE = "docker.io/library/ggen:latest"
PLAY = """
- hosts: localhost
  connection: local
  gather_facts: false
  tasks:
    - block:
        - ansible.builtin.include_role:
            name: ggen.gvisor.ggen_run
            tasks_from: "{{ tasks_from | default('main') }}"
      always:
        - ansible.builtin.copy:
            content: "{{ ggen_run_results | default([]) | to_json }}"
            dest: "{{ results }}"
            mode: "0600"
          changed_when: false
          check_mode: false
          diff: false
"""
pytestmark = [
    pytest.mark.skipif(not BINARY, reason="GGEN_BINARY names no static ggen to put into an image"),
]


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """Run a containerd with gVisor and an image of ggen."""
    folder = tmp_path_factory.mktemp("ggen")
    pause = shutil.which("catatonit")
    assert pause, "install catatonit"
    programs = {"ggen": Path(BINARY).read_bytes(), "catatonit": Path(pause).read_bytes()}
    layer = tar({f"usr/local/bin/{name}": (data, 0o755) for name, data in programs.items()})
    archive = folder / "image.tar"
    archive.write_bytes(tar(oci_entries(layer, IMAGE)[0]))
    with Daemon(folder / "containerd", bin_dir=gvisor_dir(folder / "bin")) as running:
        running.ctr("images", "import", str(archive))
        yield running


class Played:
    """What a run of the play printed, counted and left as the fact."""

    def __init__(self, done: subprocess.CompletedProcess[str], results: Path) -> None:
        self.code = done.returncode
        self.text = done.stdout + done.stderr
        self.results: list[dict[str, Any]] = json.loads(results.read_text())
        counts = re.search(r"^localhost .*changed=(\d+) .*failed=(\d+)", self.text, re.MULTILINE)
        assert counts, self.text
        self.changed, self.failed = (int(count) for count in counts.groups())


def play(daemon: Daemon, tmp_path: Path, *words: str, **variables: object) -> Played:
    """Run the role on this machine with these variables."""
    playbook, results = tmp_path / "play.yml", tmp_path / "results.json"
    playbook.write_text(PLAY)
    variables = {"ggen_run_address": daemon.address, "results": str(results), **variables}
    argv = [sys.executable, "-m", "ansible", "playbook", "-i", str(ROOT / "inventories" / "local"), str(playbook)]
    env = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}
    done = subprocess.run(
        [*argv, "-e", json.dumps(variables), *words],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        text=True,
        timeout=120,
        check=False,
    )
    return Played(done, results)


def give(folder: Path) -> None:
    """Give a workspace to an ordinary user: one of root's is refused."""
    for path in (folder, *folder.rglob("*")):
        os.chown(path, 12345, 12346, follow_symlinks=False)


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """Return a fresh copy of the example that belongs to an ordinary user."""
    folder = tmp_path / "organization"
    shutil.copytree(ROOT / "examples" / "organization", folder, ignore=shutil.ignore_patterns("generated", ".ggen"))
    give(folder)
    # The sandbox's user must be able to walk to it.
    for path in (tmp_path, *tmp_path.parents[:3]):
        path.chmod(path.stat().st_mode | 0o011)
    return folder


def clone(folder: Path) -> None:
    """Give generated files the mode that they have in a clone, which is not ggen's."""
    for path in (folder / "generated").rglob("*"):
        if path.is_file():
            path.chmod(0o644)


def files(folder: Path) -> dict[str, bytes]:
    """Return the files below ``folder`` that are neither ggen's records nor its backups."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".backup" and ".ggen" not in path.parts
    }


def test_the_life_of_a_workspace(daemon: Daemon, workspace: Path, tmp_path: Path) -> None:
    before = files(workspace)
    shown = play(daemon, tmp_path, "--check", "--diff", ggen_run_workspace=str(workspace))
    assert (shown.changed, shown.failed) == (1, 0), shown.text
    assert "+CREATE TABLE agent (" in shown.text
    assert files(workspace) == before
    assert not (workspace / ".ggen").exists()

    gate = {"ggen_run_workspace": str(workspace), "ggen_run_gate": True}
    stale = play(daemon, tmp_path, "--check", **gate)
    assert (stale.code, stale.failed) == (2, 1), stale.text
    assert f"{workspace} is not up to date: ggen would change generated/" in stale.text

    (tmp_path / "metrics").mkdir()
    told = {"ggen_run_trace": True, "ggen_run_metrics": str(tmp_path / "metrics")}
    first = play(daemon, tmp_path, ggen_run_workspace="organization", ggen_run_gate=True, **told)
    assert (first.changed, first.failed) == (1, 0), first.text
    assert files(workspace / "generated") == expected("organization")
    (result,) = first.results
    assert result["rc"] == 0
    assert result["kernel"].startswith("Starting gVisor")
    assert result["path"] == str(workspace)
    assert {item["change"] for item in result["files"]} == {"created"}
    assert result["trace"]["executed"] == ["/usr/local/bin/ggen"]
    assert "/workspace/ggen.toml" in result["trace"]["opened"]
    # Each beside its place: ggen renames what is whole.
    written = {os.path.dirname(name) for name in result["trace"]["written"]}
    assert written >= {
        f"/workspace/{path.parent.relative_to(workspace)}" for path in (workspace / "generated").rglob("*") if path.is_file()
    }
    assert 'ggen_gvisor_runs_total{image="docker.io/library/ggen:latest"} 1\n' in (tmp_path / "metrics/ggen_gvisor.prom").read_text()
    assert {path.stat().st_uid for path in workspace.rglob("*")} == {12345}
    key = workspace / ".ggen/keys/signing.key"
    assert (key.stat().st_mode & 0o777, key.stat().st_uid) == (0o600, 12345)

    key.chmod(0o644)  # as a run that was killed leaves it, or somebody's own
    second = play(daemon, tmp_path, ggen_run_workspace="organization")
    assert (second.changed, second.failed) == (0, 0), second.text
    assert key.stat().st_mode & 0o777 == 0o600
    assert {item["change"] for item in second.results[0]["files"]} == {"unchanged"}
    assert any(item["path"].endswith(".backup") for item in second.results[0]["changed_files"])

    clone(workspace)
    current = play(daemon, tmp_path, "--check", **gate)
    assert (current.code, current.failed, current.results[0]["contents_changed"]) == (0, 0, False), current.text


def test_failures_are_told_and_the_others_run(daemon: Daemon, workspace: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    outside = tmp_path / "outside"
    shutil.copytree(workspace, outside)
    (tmp_path / "lib").mkdir()
    (outside / "ontology" / "profile.ttl").rename(tmp_path / "lib" / "profile.ttl")
    manifest = (outside / "ggen.toml").read_text().replace("ontology/profile.ttl", "../lib/profile.ttl")
    (outside / "ggen.toml").write_text(manifest)
    give(tmp_path / "empty")
    give(outside)
    workspaces: list[dict[str, object]] = [{"path": name} for name in ("empty", "nowhere", "outside", "organization")]
    played = play(daemon, tmp_path, ggen_run_workspaces=workspaces)
    assert played.failed == 1
    assert [result["rc"] for result in played.results] == [1, None, 1, 0]
    assert f"ggen sync in {tmp_path}/empty failed (exit code 1): this is no ggen project" in played.text
    assert f"workspace {tmp_path}/nowhere does not exist" in played.text
    assert files(workspace / "generated") == expected("organization")
    assert not any((tmp_path / "empty").iterdir())
    mount = {"source": f"{tmp_path}/lib/profile.ttl", "target": "/lib/profile.ttl"}
    assert json.dumps(mount) in played.results[2]["error"]["fix"]

    early = play(daemon, tmp_path, tasks_from="preflight", ggen_run_workspaces=workspaces)
    assert early.failed == 1
    for name in ("empty is no ggen project", "nowhere is no ggen project", "outside/ggen.toml names files outside"):
        assert f"{tmp_path}/{name}" in early.text
    assert f"{workspace}/ggen.toml" not in early.text

    shown = {"path": "outside", "mounts": [mount]}
    fixed = play(daemon, tmp_path, ggen_run_workspaces=[shown])
    assert fixed.failed == 0, fixed.text
    assert files(outside / "generated") == expected("organization")
    assert play(daemon, tmp_path, tasks_from="preflight", ggen_run_workspaces=[shown]).failed == 0


def test_a_project_is_made_and_used(daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    give(tmp_path / "new")
    made = play(daemon, tmp_path, ggen_run_workspace="new", ggen_run_args="init --skip_hooks true")
    assert made.failed == 0, made.text
    assert play(daemon, tmp_path, ggen_run_workspace="new").failed == 0
    again = play(daemon, tmp_path, ggen_run_workspace="new", ggen_run_args=["init"])
    assert again.failed == 1
    assert "is a ggen project already" in again.text


def test_a_host_without_a_sandbox_fails_only_for_real(daemon: Daemon, workspace: Path, tmp_path: Path) -> None:
    nothing = {"ggen_run_workspace": str(workspace), "ggen_run_address": str(tmp_path / "none.sock")}
    shown = play(daemon, tmp_path, "--check", **nothing)
    assert (shown.changed, shown.failed) == (0, 0), shown.text
    assert "containerd does not answer" in shown.text
    assert play(daemon, tmp_path, "--check", **nothing, ggen_run_gate=True).failed == 1
    assert play(daemon, tmp_path, **nothing).failed == 1


def test_another_host_gets_the_example_once(daemon: Daemon, tmp_path: Path) -> None:
    place = tmp_path / "place" / "organization"
    away = {"_ggen_run_local": False, "_ggen_run_example_place": str(place)}
    assert play(daemon, tmp_path, "--check", **away).failed == 0
    absent = play(daemon, tmp_path, "--check", **away, ggen_run_gate=True)
    assert absent.failed == 1
    assert f"{place} is not there yet" in absent.text
    assert not place.exists()
    first = play(daemon, tmp_path, **away)
    assert first.failed == 0, first.text
    assert files(place / "generated") == expected("organization")
    (place / "ontology" / "profile.ttl").open("a").write("# mine\n")
    second = play(daemon, tmp_path, **away)
    assert (second.changed, second.failed) == (0, 0), second.text
    assert (place / "ontology" / "profile.ttl").read_text().endswith("# mine\n")
    refused = play(daemon, tmp_path, _ggen_run_local=False, ggen_run_workspace="relative")
    assert "not absolute" in refused.text


# The same as a command


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = str(tmp_path_factory.mktemp("bin") / "ggen-gvisor")
    os.mkdir(f"{path}-state", 0o755)
    zipapp.write(path, f"{path}-state/code")
    return path


def test_the_command_runs_ggen_as_the_role_does(daemon: Daemon, workspace: Path, program: str, tmp_path: Path) -> None:
    def run(verb: str, *words: str) -> tuple[int, str, str]:
        argv = [sys.executable, "-IS", program, verb, "--address", daemon.address, "--state-dir", str(tmp_path / "state"), *words]
        done = subprocess.run(argv, cwd=workspace, capture_output=True, text=True, timeout=120, check=False)
        return done.returncode, done.stdout, done.stderr

    rc, out, err = run("check")
    assert (rc, err) == (153, ""), err
    assert "--- /dev/null\n+++ b/generated/" in out
    assert not (workspace / "generated").exists()

    rc, out, err = run("sync")
    assert (rc, err) == (0, ""), err
    assert "ggen sync in " in out
    assert "kernel: Starting gVisor" in out
    made = {str(path.relative_to(workspace)): path.read_bytes() for path in (workspace / "generated").rglob("*") if path.is_file()}
    assert {f"created   {name}" for name in made} <= set(out.splitlines())
    assert {path.stat().st_uid for path in workspace.rglob("*")} == {12345}
    assert (workspace / ".ggen/keys/signing.key").stat().st_mode & 0o077 == 0
    assert run("check") == (0, "", "")
    clone(workspace)
    rc, out, err = run("check")
    assert (rc, err) == (0, "")
    assert "# generated/schema.sql: its mode or owner would change" in out

    (workspace / "ontology/org.ttl").write_text("this is no Turtle\n")
    rc, out, err = run("sync")
    assert (rc, out) == (1, "")
    assert "is not valid Turtle" in err
    (workspace / "ggen.toml").unlink()
    rc, _out, err = run("sync")
    assert rc != 0
    assert "this is no ggen project" in err
    assert "(--workspace)" in err
    rc, out, _err = run("sync", "--json")
    assert json.loads(out)["rc"] == rc
    assert daemon.leftovers() == {name: [] for name in daemon.leftovers()}
