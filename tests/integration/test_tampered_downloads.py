# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Other bytes than the pinned ones stop a download, and nothing of them is installed.

Here for what cargo, pip and apt compare: the table is in docs/decisions/supply-chain.md. Go's toolchain is in test_go_toolchains.py, Go's modules in
test_runsc_build.py, ggen's own crate and binary in tests/e2e/test_image.py, what a build host sends in test_build_fetch.py, bundles in test_bundle.py.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import tomllib
import yaml
from ansible_collections.ggen.gvisor.plugins.plugin_utils._gvisor.documents import crates
from conftest import ROOT
from support import apt
from support.crates import Registry, packed, settings, sha256
from support.http import serving

# cargo


@pytest.mark.parametrize("index_lies", [False, True], ids=["other bytes", "other bytes and the index vouches for them"])
def test_a_crate_that_the_lock_file_does_not_pin_is_not_compiled(tmp_path, index_lies):
    """With the arguments of role ggen_build, from a registry that a test serves."""
    arguments = (ROOT / "roles/ggen_build/tasks/compile_program.yml").read_text()
    assert "- --locked" in arguments
    registry = Registry({"src/main.rs": "fn main() { made_up_library::f() }\n"}, {"src/lib.rs": "pub fn f() {}\n"})
    false = registry.crates["made-up-library"] = packed("made-up-library", {"src/lib.rs": "pub fn f() { println!() }\n"})
    if index_lies:
        registry.sums["made-up-library"] = sha256(false)
    cargo = shutil.which("cargo", path=f"{Path.home()}/.cargo/bin:{os.environ['PATH']}")
    rustup = os.environ.get("RUSTUP_HOME") or str(Path.home() / ".rustup")
    with serving(registry.answer) as (address, asked):
        registry.address = address
        home = tmp_path / "cargo"
        home.mkdir()
        (home / "config.toml").write_text(settings(address))
        done = subprocess.run(
            [cargo, "install", "--color=never", "--locked", "--force", f"--root={tmp_path}/out", "made-up-program@1.0.0"],
            env={**os.environ, "CARGO_HOME": str(home), "RUSTUP_HOME": rustup, "CARGO_TARGET_DIR": str(tmp_path / "target")},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
    assert "/crates/made-up-program" in asked, done.stderr
    assert done.returncode != 0
    assert "checksum" in done.stderr
    assert "made-up-library" in done.stderr
    assert "Compiling" not in done.stderr
    assert not (tmp_path / "out" / "bin").exists()


# pip


def wheel(folder: Path) -> str:
    """Make a wheel of a made-up project and return its sha256."""
    folder.mkdir()
    path, info = folder / "made_up-1.0-py3-none-any.whl", "made_up-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("made_up.py", "")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: made-up\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: made-up\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", f"made_up.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
    return sha256(path.read_bytes())


@pytest.mark.parametrize("pin", ["right", "wrong", "none"])
def test_make_installs_what_requirements_txt_pins_and_nothing_else(tmp_path, monkeypatch, pin):
    right = wheel(tmp_path / "wheels")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    shutil.copy(ROOT / "Makefile", tmp_path)
    pins = {"right": f" --hash=sha256:{right}", "wrong": f" --hash=sha256:{'0' * 64}", "none": ""}
    (tmp_path / "requirements.txt").write_text(f"made-up==1.0{pins[pin]}\n")
    make = ["make", ".venv/run.stamp", f"PYTHON={sys.executable}"]
    done = subprocess.run(make, cwd=tmp_path, capture_output=True, text=True, check=False)
    installed = list(tmp_path.glob(".venv/lib/python*/site-packages/made_up.py"))
    assert (done.returncode == 0, len(installed), (tmp_path / ".venv/run.stamp").exists()) == (pin == "right",) * 3, done.stderr
    if pin != "right":
        assert "hash" in done.stderr.lower()


# apt


class Repository:
    """A folder with one package, and an apt of its own that knows no other source."""

    def __init__(self, root: Path, trusted: bool) -> None:
        self.root, self.folder = root, root / "repository"
        tree = root / "tree" / "DEBIAN"
        tree.mkdir(parents=True)
        (tree / "control").write_text(
            "Package: made-up\nVersion: 1.0\nArchitecture: all\nMaintainer: nobody <nobody@example.org>\nDescription: none\n"
        )
        self.folder.mkdir()
        self.package = self.folder / "made-up_1.0_all.deb"
        subprocess.run(["dpkg-deb", "--build", "--root-owner-group", tree.parent, self.package], check=True, capture_output=True)
        data = self.package.read_bytes()
        control = (tree / "control").read_text()
        (self.folder / "Packages").write_text(f"{control}Filename: ./{self.package.name}\nSize: {len(data)}\nSHA256: {sha256(data)}\n")
        (root / "sources.list").write_text(f"deb {'[trusted=yes] ' if trusted else ''}file:{self.folder} ./\n")
        # With the host's own options, but for the folders.
        table = yaml.safe_load((ROOT / "roles/containerd_gvisor/vars/main.yml").read_text())
        self.apt = re.findall(r"'([^']+)'", table["_containerd_gvisor_apt"].partition("]")[0])
        assert self.apt[0] == "apt-get"

    def run(self, *action: str) -> subprocess.CompletedProcess:
        flags = apt.options(self.root, self.root / "sources.list")
        env = {**os.environ, "LC_ALL": "C.UTF-8"}
        return subprocess.run([*self.apt, *flags, *action], capture_output=True, text=True, check=False, env=env)


def test_a_list_of_packages_that_nobody_signed_is_refused(tmp_path):
    repository = Repository(tmp_path, trusted=False)
    done = repository.run("update")
    assert done.returncode != 0
    assert "is not signed" in done.stderr or "does not have a Release file" in done.stderr
    assert repository.run("--yes", "--download-only", "install", "made-up").returncode != 0


def test_a_package_that_is_not_what_its_list_says_is_refused(tmp_path):
    repository = Repository(tmp_path, trusted=True)
    assert repository.run("update").returncode == 0
    install = ("--yes", "--download-only", "--no-install-recommends", "install", "made-up")
    assert repository.run(*install).returncode == 0
    data = bytearray(repository.package.read_bytes())
    data[-1] ^= 1
    repository.package.write_bytes(data)
    done = repository.run(*install)
    assert done.returncode != 0
    assert "Hash Sum mismatch" in done.stderr


VENDORS = ROOT / "vendors"
DEFAULTS = yaml.safe_load((ROOT / "roles/ggen_build/defaults/main.yml").read_text())
VERSION, CRATE = DEFAULTS["ggen_build_version"], DEFAULTS["ggen_build_crate_sha256"]


SUMS = (VENDORS / "ggen" / VERSION / "crates.sum").read_text()


def fetched_crate() -> Path:
    """Return the pinned crate as cargo keeps it; role ggen_build has cargo fetch it in the same way."""
    name = f"ggen-cli-lib@{VERSION}"
    cargo = shutil.which("cargo", path=f"{Path.home()}/.cargo/bin:{os.environ['PATH']}")
    subprocess.run([cargo, "info", "--quiet", name], check=True, capture_output=True)
    home = Path(os.environ.get("CARGO_HOME") or Path.home() / ".cargo")
    return next(home.glob(f"registry/cache/*/{name.replace('@', '-')}.crate"))


def test_the_list_of_crates_is_the_lock_file_s():
    crate = fetched_crate()
    assert hashlib.sha256(crate.read_bytes()).hexdigest() == CRATE
    with tarfile.open(crate) as archive:
        lock = tomllib.loads(archive.extractfile(f"ggen-cli-lib-{VERSION}/Cargo.lock").read().decode())
    sums = {(one["name"], one["version"]): one.get("checksum", CRATE) for one in lock["package"]}
    for arch in ("amd64", "arm64"):
        listed = {(one["name"], one["version"]): one["sha256"] for one in crates(SUMS, arch)}
        assert listed.items() <= sums.items()
        assert listed["ggen-cli-lib", VERSION] == CRATE
        assert len(listed) > 400
