"""The collection as Galaxy's users get it: built, installed, and run by its name in a folder of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from conftest import ROOT

pytestmark = pytest.mark.host


def run(program: str, *arguments: str, cwd: Path, **env: str) -> str:
    path = Path(sys.executable).with_name(program)
    done = subprocess.run([path, *arguments], cwd=cwd, capture_output=True, text=True, check=False, env={**os.environ, **env})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    folder = tmp_path_factory.mktemp("galaxy")
    run("ansible-galaxy", "collection", "build", "--output-path", str(folder), cwd=ROOT)
    (found,) = folder.glob("ggen-gvisor-*.tar.gz")
    return found


def test_the_artifact_holds_sources_and_no_output(artifact):
    with tarfile.open(artifact) as tar:
        names = tar.getnames()
    assert "playbooks/site.yml" in names
    assert "vendors/gvisor/releases.yml" in names
    outputs = ("bin/", "dist/", "reports/", ".venv/", ".artifacts/", ".collections/", "examples/organization/generated/")
    assert [name for name in names if name.startswith(outputs) or "/.ggen/" in name or "/vendor/" in name] == []


def test_the_installed_collection_runs_by_its_name(artifact, tmp_path):
    collections = tmp_path / "collections"
    run("ansible-galaxy", "collection", "install", str(artifact), "-p", str(collections), cwd=tmp_path)
    project = tmp_path / "project"
    project.mkdir()
    inventory = str(ROOT / "inventories" / "local")
    options = {"ANSIBLE_COLLECTIONS_PATH": str(collections), "ANSIBLE_NOCOLOR": "1"}
    output = run("ansible-playbook", "-i", inventory, "ggen.gvisor.site", "--check", cwd=project, **options)
    assert "failed=0" in output
    assert (project / "reports" / "localhost.json").exists(), "output goes to the user's folder"
    installed = collections / "ansible_collections/ggen/gvisor"
    assert not (installed / "reports").exists()
    assert not (installed / "examples/organization/generated").exists()
