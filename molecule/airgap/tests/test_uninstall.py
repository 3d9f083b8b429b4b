"""The hosts lose it again without network, and bare ones get nothing from a bundle that is not right."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
sys.path[:0] = [str(ROOT / "molecule" / "airgap"), str(ROOT / "tests"), str(ROOT / ".collections")]

import offline  # noqa: E402 - found by the line above
from support.module import run_module  # noqa: E402

testinfra_hosts = ["ansible://airgap"]


@pytest.fixture(scope="module")
def bare():
    """The hosts after uninstall, which has no network either."""
    done = offline.playbook("playbooks/uninstall.yml", capture_output=True)
    assert done.returncode == 0, done.stdout


def refused(done: subprocess.CompletedProcess, *words: str) -> None:
    """The playbook failed, said why, and had changed nothing on any host."""
    assert done.returncode != 0
    for word in words:
        assert word in done.stdout
    recap = [line for line in done.stdout.splitlines() if "unreachable=" in line]
    assert recap
    assert all("changed=0" in line for line in recap), recap


@pytest.mark.usefixtures("bare")
def test_uninstall_needs_no_network(host):
    for name in ("containerd", "runc"):
        assert not host.package(name).is_installed
    for path in ("/usr/local/lib/gvisor", "/usr/local/bin/runsc", "/etc/containerd", "/var/lib/ggen.gvisor"):
        assert not host.file(path).exists


@pytest.mark.usefixtures("bare")
def test_a_distribution_that_the_bundle_lacks_is_refused(tmp_path):
    """Before anything changes, and naming what it has."""
    with tarfile.open(offline.BUNDLE) as tar:
        contents = json.load(tar.extractfile("bundle.json"))
    folders = {part: str(offline.PROJECT / part) for part in ("bin", "dist")}
    wanted = sorted({name.rpartition("/")[0] for name in contents["files"]} - {"packages/debian-13_amd64"})
    missing = tmp_path / "missing.tar"
    made = run_module(
        "bundle",
        state="packed",
        path=str(missing),
        contents=wanted,
        version="0",
        packages=str(offline.PROJECT / "dist" / "packages"),
        **folders,
    )
    assert not made["failed"], made
    done = offline.playbook("site.yml", "--limit", "airgap-trixie", "-e", f"gvisor_bundle_file={missing}", capture_output=True)
    refused(done, "debian-13_amd64", "it has packages for debian-12_amd64", "bundle.yml")


@pytest.mark.usefixtures("bare")
def test_a_tampered_bundle_is_refused(tmp_path):
    data = bytearray(offline.BUNDLE.read_bytes())
    data[len(data) // 2] ^= 1
    altered = tmp_path / "altered.tar"
    altered.write_bytes(data)
    refused(offline.playbook("site.yml", "-e", f"gvisor_bundle_file={altered}", capture_output=True), str(altered), "is not a whole bundle")
