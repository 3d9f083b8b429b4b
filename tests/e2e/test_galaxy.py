"""The collection as Galaxy's users get it: built, installed, and run by its name in a folder of their own, on a host of the lab.

Runs on each ansible-core that is supported: the one beside the Python that pytest runs on.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from conftest import ROOT
from support.playbook import Play, play

LAB = [sys.executable, str(ROOT / "tests/lab/lab.py"), "--lab", "galaxy", "--hosts", str(ROOT / "tests/e2e/galaxy_hosts.yml")]
ESSENTIAL = {"meta", "playbooks", "plugins", "roles"}
INVENTORY = ROOT / ".artifacts" / "lab" / "galaxy" / "inventory.yml"


def galaxy(*arguments: str, cwd: Path) -> None:
    program = Path(sys.executable).with_name("ansible-galaxy")
    done = subprocess.run([program, "collection", *arguments], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    folder = tmp_path_factory.mktemp("galaxy")
    galaxy("build", "--output-path", str(folder), cwd=ROOT)
    (found,) = folder.glob("ggen-gvisor-*.tar.gz")
    return found


class User:
    """Somebody with the installed collection and a folder for a project."""

    def __init__(self, folder: Path, artifact: Path) -> None:
        self.collections, self.project = folder / "collections", folder / "project"
        self.installed = self.collections / "ansible_collections/ggen/gvisor"
        self.project.mkdir()
        galaxy("install", str(artifact), "-p", str(self.collections), cwd=self.project)
        # Galaxy's rule: whatever else an artifact holds, it works with these alone.
        for path in self.installed.iterdir():
            if path.name not in ESSENTIAL:
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        self.files = self.installed_files()

    def installed_files(self) -> dict[str, str]:
        """Return the sha256 of every installed file but what Python itself caches."""
        found = (path for path in self.installed.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
        return {str(path.relative_to(self.installed)): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}

    def play(self, name: str, *options: str) -> Play:
        """Run a playbook by its name. Whatever it is, it uses nothing deprecated, leaves no temporary files, and writes nothing among the installed files."""
        done = play(f"ggen.gvisor.{name}", *options, inventory=INVENTORY, project=self.project, collections=self.collections)
        assert done.rc == 0, done.errors or done.output
        assert [line for line in done.output.splitlines() if "[DEPRECATION" in line or "deleting remote temporary files" in line] == []
        assert self.installed_files() == self.files
        return done


@pytest.fixture(scope="module")
def user(tmp_path_factory, artifact):
    subprocess.run([*LAB, "down"], check=True, capture_output=True)
    up = subprocess.run([*LAB, "up"], check=False, capture_output=True, text=True)
    assert up.returncode == 0, up.stderr
    try:
        yield User(tmp_path_factory.mktemp("user"), artifact)
    finally:
        subprocess.run([*LAB, "down"], check=True, capture_output=True)


def test_the_artifact_holds_sources_and_no_output(artifact):
    with tarfile.open(artifact) as tar:
        names = tar.getnames()
        links = {member.name: member.linkname for member in tar if member.issym()}
    assert {"playbooks/site.yml", "roles/runsc_build/files/vendors/gvisor/releases.yml", "meta/execution-environment.yml"} <= set(names)
    callbacks = {
        f"playbooks/callback_plugins/ggen_gvisor_{name}.py": f"../../plugins/callback/{name}.py"
        for name in ("fleet", "preload", "progress")
    }
    assert links == {"vendors": "roles/runsc_build/files/vendors", "examples": "roles/ggen_run/files/examples", **callbacks}
    outputs = ("bin/", "dist/", "reports/", ".venv/", ".artifacts/", ".collections/")
    assert [name for name in names if name.startswith(outputs) or "/.ggen/" in name or "/vendor/" in name or "/generated/" in name] == []


def test_only_what_galaxy_asks_for_is_left(user):
    assert {path.name for path in user.installed.iterdir()} == ESSENTIAL


def test_check_mode_on_a_bare_host(user):
    assert user.play("site", "--check").changed


def test_site_provisions_the_host_with_builds_from_the_cache(user):
    done = user.play("site")
    compiled = [event["task"] for event in done.results if event["task_action"] == "ggen.gvisor.build_command"]
    assert compiled == [], "the checkout's builds have the same inputs"
    report = json.loads((user.project / "reports" / "galaxy.json").read_text())
    assert report["healthy"], report["drift"]
    assert report["proof"]["kernel"].startswith("Starting gVisor")
    assert {"bin", "dist", "reports"} <= {path.name for path in user.project.iterdir()}


def test_the_second_run_changes_nothing(user):
    assert user.play("site").changed == []


def test_verify_and_uninstall(user):
    assert "galaxy is healthy" in user.play("verify").output
    assert user.play("uninstall").changed
    assert user.play("uninstall").changed == []
