"""Two hosts and a controller without network have what the bundle has."""

from __future__ import annotations

import json
import socket
import sys
import tarfile
from pathlib import Path
from urllib.parse import urlsplit

import pytest

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "molecule" / "airgap"))

import offline  # noqa: E402 - found by the line above
from lab import apt_mirror  # noqa: E402 - offline leads there

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
        assert sha256 in sums or Path(path).name == "ggen-gvisor"  # that one is the collection's own


def test_the_host_has_the_bundle_s_image(report, contents):
    (images,) = contents["images"].values()
    assert report["image"]["digest"] in images.values()
    (run,) = report["runs"]
    assert run["rc"] == 0
    assert run["kernel"].startswith("Starting gVisor")


def test_the_packages_are_the_bundle_s_and_are_recorded(host, contents):
    packages = contents["distributions"][f"{DISTRIBUTIONS[host.backend.host]}_amd64"]
    recorded = json.loads(host.file("/usr/local/lib/gvisor/installed.json").content_string)["packages"]
    assert {"containerd", "runc"} <= set(recorded)
    for name in recorded:
        assert host.package(name).version == packages[name]["version"]
    # apt knows that containerd was asked for and that the others came with it, as with its own sources.
    assert host.check_output("apt-mark showauto %s" % " ".join(recorded)).split() == sorted({*recorded} - {"containerd"})


def test_nothing_of_the_way_is_left(host):
    with host.sudo():
        assert host.check_output("find /tmp -mindepth 1 -maxdepth 1 -name '*gvisor*'") == ""
        assert host.check_output("find /var/cache/apt/archives -name '*.deb'") == ""
    assert not host.run("grep -rs containerd_gvisor /etc/apt").stdout


def test_the_controller_built_nothing():
    kept = {path.name for path in (offline.PROJECT / "cache" / "ggen.gvisor").iterdir()}
    assert kept <= {"shipped", "locks"}, "what was sent, compressed, and nothing that was built"
    assert list((offline.PROJECT / "bin").glob("*/linux_*/manifest.json"))
