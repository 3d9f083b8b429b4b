"""Two hosts and a controller without network have what the bundle has, and lose it again without network."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import tarfile
from pathlib import Path
from urllib.parse import urlsplit

import pytest

ROOT = Path(__file__).resolve().parents[3]
sys.path[:0] = [str(ROOT / "molecule" / "airgap"), str(ROOT / "tests"), str(ROOT / ".collections")]

import offline  # noqa: E402 - found by the line above
from lab import apt_mirror  # noqa: E402 - offline leads there
from support.module import run_module  # noqa: E402

testinfra_hosts = ["ansible://airgap"]

RELEASES = {"airgap-bookworm": "20260224", "airgap-trixie": "20260701"}
DISTRIBUTIONS = {"airgap-bookworm": "debian-12", "airgap-trixie": "debian-13"}
MIRROR = urlsplit(apt_mirror("debian"))
PORT = MIRROR.port or {"http": 80, "https": 443}[MIRROR.scheme]
CONNECT = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)"


@pytest.fixture(scope="module")
def contents():
    """The bundle's own bundle.json."""
    with tarfile.open(offline.BUNDLE) as tar:
        return json.load(tar.extractfile("bundle.json"))


@pytest.fixture
def report(host):
    """The host's report, as site.yml left it with the controller that has no network."""
    return json.loads((offline.PROJECT / "reports" / f"{host.backend.host}.json").read_text())


def refused(done: subprocess.CompletedProcess, *words: str) -> None:
    """The playbook failed, said why, and had changed nothing on any host."""
    assert done.returncode != 0
    for word in words:
        assert word in done.stdout
    recap = [line for line in done.stdout.splitlines() if "unreachable=" in line]
    assert recap
    assert all("changed=0" in line for line in recap), recap


def test_nobody_has_a_network(host):
    address = socket.gethostbyname(MIRROR.hostname)
    socket.create_connection((address, PORT), 10).close()  # from here there is a way
    on_host = host.run("python3 -c %s %s %s", CONNECT, address, str(PORT))
    on_controller = offline.run(sys.executable, "-c", CONNECT, address, str(PORT), capture_output=True)
    for tried in (on_host, on_controller):
        assert "Network is unreachable" in tried.stderr


def test_the_host_has_the_bundle_s_programs(host, report, contents):
    assert report["healthy"], report["drift"]
    assert report["proof"]["kernel"].startswith("Starting gVisor")
    release = RELEASES[host.backend.host]
    assert report["gvisor"]["release"] == release
    sums = {entry["sha256"] for name, entry in contents["files"].items() if name.startswith(f"bin/{release}/")}
    for path, sha256 in report["gvisor"]["files"].items():
        assert host.file(path).sha256sum == sha256
        assert sha256 in sums


def test_the_host_has_the_bundle_s_image(report, contents):
    (images,) = contents["images"].values()
    assert report["image"]["digest"] in images.values()
    (run,) = report["runs"]
    assert run["rc"] == 0
    assert run["kernel"].startswith("Starting gVisor")


def test_the_packages_are_the_bundle_s_and_in_the_ledger(host, contents):
    packages = contents["distributions"][f"{DISTRIBUTIONS[host.backend.host]}_amd64"]
    ledger = json.loads(host.file("/usr/local/lib/gvisor/ledger.json").content_string)["packages"]
    assert {"containerd", "runc"} <= set(ledger)
    for name in ledger:
        assert host.package(name).version == packages[name]["version"]
    # apt knows that containerd was asked for and that the others came with it, as with its own sources.
    assert host.check_output("apt-mark showauto %s" % " ".join(ledger)).split() == sorted({*ledger} - {"containerd"})


def test_nothing_of_the_way_is_left(host):
    with host.sudo():
        assert host.check_output("find /tmp -mindepth 1 -maxdepth 1 -name '*gvisor*'") == ""
        assert host.check_output("find /var/cache/apt/archives -name '*.deb'") == ""
    assert not host.run("grep -rs containerd_gvisor /etc/apt").stdout


def test_the_controller_built_nothing():
    assert not (offline.PROJECT / "cache").exists()
    assert list((offline.PROJECT / "bin").glob("*/linux_*/manifest.json"))


def test_a_tampered_bundle_is_refused(tmp_path):
    data = bytearray(offline.BUNDLE.read_bytes())
    data[len(data) // 2] ^= 1
    altered = tmp_path / "altered.tar"
    altered.write_bytes(data)
    refused(offline.playbook("site.yml", "-e", f"gvisor_bundle_file={altered}", capture_output=True), str(altered), "is not a whole bundle")


@pytest.fixture(scope="module")
def bare():
    """The hosts after uninstall, which has no network either."""
    done = offline.playbook("playbooks/uninstall.yml", capture_output=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.usefixtures("bare")
def test_uninstall_needs_no_network(host):
    for name in ("containerd", "runc"):
        assert not host.package(name).is_installed
    for path in ("/usr/local/lib/gvisor", "/usr/local/bin/runsc", "/etc/containerd", "/var/lib/ggen.gvisor"):
        assert not host.file(path).exists


@pytest.mark.usefixtures("bare")
def test_a_distribution_that_the_bundle_lacks_is_refused(contents, tmp_path):
    """Before anything changes, and naming what it has."""
    folders = {part: str(offline.PROJECT / part) for part in ("bin", "dist")}
    wanted = sorted({name.rpartition("/")[0] for name in contents["files"]} - {"packages/debian-13_amd64"})
    lacking = tmp_path / "lacking.tar"
    made = run_module(
        "bundle",
        state="packed",
        path=str(lacking),
        contents=wanted,
        version="0",
        packages=str(offline.PROJECT / "dist" / "packages"),
        **folders,
    )
    assert not made["failed"], made
    done = offline.playbook("site.yml", "--limit", "airgap-trixie", "-e", f"gvisor_bundle_file={lacking}", capture_output=True)
    refused(done, "debian-13_amd64", "it has packages for debian-12_amd64", "bundle.yml")
