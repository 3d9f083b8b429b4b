"""A build host that is not the controller: builds there for real, ships through the controller, and is left alone afterwards."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from support.playbook import Play, play
from support.snapshot import write

LAB = [sys.executable, str(ROOT / "tests/lab/lab.py"), "--lab", "build", "--hosts", str(ROOT / "tests/e2e/build_hosts.yml")]
FOLDER = ROOT / ".artifacts" / "lab" / "build"
RELEASE = "20260224"  # what containerd 1.6 of bookworm can use, and the smallest
VERSION = "26.5.19"


def ssh(host: str, *command: str) -> str:
    """Run a command on a host and return what it printed."""
    argv = ["ssh", "-F", str(FOLDER / "ssh_config"), host, *command]
    return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=300).stdout


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def ggen() -> Path:
    """The static program that the tests' build has compiled on this machine."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ggen.gvisor"
    found = [Path(os.environ["GGEN_BINARY"])] if "GGEN_BINARY" in os.environ else sorted(cache.glob("ggen/*/linux_amd64/ggen"))
    if not found:
        pytest.skip("ggen has not been built: run ansible-playbook tests/build.yml first")
    return found[-1]


class Site:
    """A controller that has nothing yet: its cache and its folders are the test's own."""

    def __init__(self, root: Path, binary: Path) -> None:
        self.root, self.binary = root, binary
        self.bin, self.dist, self.cache = root / "bin", root / "dist", root / "cache"

    def play(self, playbook: str, *options: str, **variables: object) -> Play:
        before = os.environ.get("XDG_CACHE_HOME")
        os.environ["XDG_CACHE_HOME"] = str(self.cache)
        try:
            return play(
                playbook,
                *options,
                inventory=FOLDER / "inventory.yml",
                **{
                    "runsc_build_dest": str(self.bin),
                    "containerd_gvisor_source": str(self.bin),
                    "containerd_gvisor_reports": str(self.root / "reports"),
                    "ggen_build_dest": str(self.dist),
                    "ggen_build_source": "binary",
                    "ggen_build_binary": "/srv/ggen",
                    "ggen_build_binary_sha256": sha256(self.binary),
                    **variables,
                },
            )
        finally:
            os.environ.pop("XDG_CACHE_HOME") if before is None else os.environ.update(XDG_CACHE_HOME=before)

    @property
    def image(self) -> dict:
        return json.loads((self.dist / VERSION / "linux_amd64" / "manifest.json").read_text())


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The hosts, fresh; the binary lies on the build host."""
    binary = ggen()
    subprocess.run([*LAB, "down"], check=True, capture_output=True)
    up = subprocess.run([*LAB, "up"], check=False, capture_output=True, text=True)
    assert up.returncode == 0, up.stderr
    try:
        copy = ["scp", "-q", "-F", str(FOLDER / "ssh_config"), str(binary), "builder:ggen"]
        subprocess.run(copy, check=True, timeout=60)
        ssh("builder", "sudo", "install", "-D", "ggen", "/srv/ggen")
        yield Site(tmp_path_factory.mktemp("controller"), binary)
    finally:
        subprocess.run([*LAB, "down"], check=True, capture_output=True)


def test_check_mode_says_what_would_be_built_and_changes_nothing(site):
    done = site.play("playbooks/build.yml", "--check")
    assert done.rc == 0, done.errors
    assert f"would build runsc {RELEASE}/amd64" in done.output
    assert f"would build ggen {VERSION} from binary" in done.output
    assert ssh("builder", "find", "/home", "/root", "-path", "*/ggen.gvisor/builds") == ""
    assert not site.bin.exists()


def test_it_builds_there_and_the_controller_has_the_results(site):
    done = site.play("playbooks/build.yml")
    assert done.rc == 0, done.errors
    assert "Compile the programs" in done.executions("builder")
    assert "builder: fetching runsc" in done.output
    built = site.bin / RELEASE / "linux_amd64"
    manifest = json.loads((built / "manifest.json").read_text())
    assert {name: entry["sha256"] for name, entry in manifest["files"].items()} == {
        path.name: sha256(path) for path in built.iterdir() if path.name != "manifest.json"
    }
    assert os.access(built / "runsc", os.X_OK)
    assert site.image["metadata"]["programs"]["ggen"] == sha256(site.binary)


def test_the_second_run_does_nothing_on_the_build_host(site):
    done = site.play("playbooks/build.yml")
    assert done.rc == 0, done.errors
    assert done.changed == []
    assert done.executions("builder") == []


def test_what_is_lost_in_its_place_comes_from_the_controller_s_cache(site):
    shutil.rmtree(site.bin)
    shutil.rmtree(site.dist)
    done = site.play("playbooks/build.yml")
    assert done.rc == 0, done.errors
    assert done.executions("builder") == []
    assert (site.bin / RELEASE / "linux_amd64" / "runsc").exists()
    assert site.image


def test_another_controller_fetches_what_the_build_host_has(site):
    for folder in (site.bin, site.dist, site.cache):
        shutil.rmtree(folder)
    done = site.play("playbooks/build.yml")
    assert done.rc == 0, done.errors
    done_there = done.executions("builder")
    assert "Compile the programs" not in done_there
    assert "Build the image" not in done_there
    assert len(done_there) <= 5, done_there  # one architecture asked for, two looks and two fetches
    assert (site.bin / RELEASE / "linux_amd64" / "runsc").exists()


def test_an_architecture_that_nobody_builds_is_refused_at_once(site):
    done = site.play("tests/e2e/image.yml", ggen_build_targets=["arm64"], ggen_build_version="0.0.1")
    assert done.rc != 0
    assert "ggen's image for arm64 is missing" in done.errors
    assert done.executions("builder") == ["Ask the build host for its architecture"]


def test_other_bytes_than_the_named_ones_are_refused(site):
    done = site.play("tests/e2e/image.yml", ggen_build_version="0.0.2", ggen_build_binary_sha256="0" * 64)
    assert done.rc != 0
    assert sha256(site.binary) in done.errors
    assert not (site.dist / "0.0.2").exists()


def test_rust_comes_with_apt_where_there_is_none(site, tmp_path):
    """Nothing but Python was there. A checkout of a few lines, since what is tested is the way to a compiler."""
    files = {
        "Cargo.toml": '[package]\nname = "ggen"\nversion = "0.0.1"\nedition = "2021"\n',
        "Cargo.lock": 'version = 4\n\n[[package]]\nname = "ggen"\nversion = "0.0.1"\n',
        "src/main.rs": "fn main() {}\n",
    }
    for name, text in files.items():
        write(tmp_path / "checkout" / name, text)
    (tmp_path / "checkout").chmod(0o755)  # who compiles it is nobody
    copy = ["scp", "-q", "-r", "-F", str(FOLDER / "ssh_config"), str(tmp_path / "checkout"), "builder:/srv/checkout"]
    subprocess.run(copy, check=True, timeout=60)
    ssh("builder", "chown", "-R", "admin:", "/srv/checkout")
    asked = {
        "ggen_build_source": "path",
        "ggen_build_path": "/srv/checkout",
        "ggen_build_version": "0.0.3",
        # The C++ compilers that RocksDB needs are hundreds of megabytes.
        "_ggen_build_packages": {"image": ["binutils", "buildah", "catatonit"], "compile": ["gcc", "libc6-dev"], "rocksdb": []},
    }
    ssh("builder", "sh", "-c", "'rm -r /var/lib/apt/lists/*'")  # as a new machine often has it
    check = site.play("tests/e2e/image.yml", "--check", **asked)
    assert check.rc == 0, check.errors
    said = " ".join(re.sub(r"\x1b\[[0-9;]*m", "", check.output).split())  # each line of a folded text has its colour
    assert re.search(r"would build ggen 0\.0\.3 from path .*, after installing (.*, )?the Rust that apt knows of by then", said), said
    assert ssh("builder", "sh", "-c", "'command -v cargo || true'") == ""
    done = site.play("tests/e2e/image.yml", **asked)
    assert done.rc == 0, done.errors
    assert ssh("builder", "cargo", "--version").startswith("cargo 1.")
    built = json.loads((site.dist / "0.0.3" / "linux_amd64" / "manifest.json").read_text())
    assert built["metadata"]["build"] == {"confined": True, "network": "isolated", "sandbox": "namespaces"}
    again = site.play("tests/e2e/image.yml", **asked)
    assert again.rc == 0, again.errors
    assert again.changed == []


def test_a_sandbox_host_gets_them_through_the_controller_and_runs(site):
    done = site.play("site.yml")
    assert done.rc == 0, done.errors
    assert done.executions("builder") == []
    assert "sandbox: sending runsc" in done.output
    report = json.loads((site.root / "reports" / "sandbox.json").read_text())
    assert report["healthy"], report["drift"]
    assert report["gvisor"]["release"] == RELEASE
    assert report["proof"]["kernel"].startswith("Starting gVisor")
    assert site.image["metadata"]["digest"] in ssh("sandbox", "ctr", "images", "ls", f"name==docker.io/library/ggen:{VERSION}")
