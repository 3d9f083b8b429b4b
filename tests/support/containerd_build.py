# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A containerd that no Debian has yet, compiled from the modules that the go.sum beside this file pins."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path

import yaml
from ansible_collections.ggen.gvisor.plugins.module_utils._builds.go_toolchain import NEUTRAL, Toolchain, ask_version, version_of
from conftest import ROOT

PINS = ("go.mod", "go.sum")
TAGS = "no_btrfs,no_devmapper,no_zfs"
VERSIONS = {folder.name.partition("-")[2]: folder for folder in sorted(Path(__file__).parent.glob("containerd-*"))}


def key(version: str) -> str:
    """Return what tells this build from others of the version."""
    return hashlib.sha256(b"".join((VERSIONS[version] / name).read_bytes() for name in PINS) + TAGS.encode()).hexdigest()[:16]


def build(version: str, tree: Path, cache: Path) -> None:
    """Compile the programs into ``tree``, laid out as Debian's packages are, with the configuration that containerd itself calls its default.

    That takes 165 s of one core, and 1 GB for as long. Go's own sources of modules and sums are asked, nothing of the user's settings.
    """
    work, programs = tree.with_name("work"), tree / "usr" / "bin"
    work.mkdir(parents=True)
    programs.mkdir(parents=True)
    for name in PINS:
        shutil.copy(VERSIONS[version] / name, work / name)
    stamp = f"-X github.com/containerd/containerd/v2/version.Version=v{version}"
    go_build(work, programs, [f"-tags={TAGS}", "tool"], cache, stamp)
    shutil.rmtree(work)
    config = tree / "etc" / "containerd" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_bytes(subprocess.run([programs / "containerd", "config", "default"], check=True, capture_output=True).stdout)


def go_build(source: Path, programs: Path, what: list[str], cache: Path, stamp: str = "") -> None:
    """Compile ``what``, flags and packages, of the module in ``source`` into the folder ``programs``, with exactly the modules that it pins."""
    (needs,) = re.findall(r"(?m)^go (\S+)$", (source / "go.mod").read_text())
    go, toolchain = _go(needs, cache)
    env = {**os.environ, **NEUTRAL, "GOTOOLCHAIN": toolchain, "CGO_ENABLED": "0", "GOCACHE": str(source / "cache")}
    flags = ["-mod=readonly", "-trimpath", "-buildvcs=false", f"-ldflags=-s -w {stamp}".strip()]
    subprocess.run(["nice", go, "build", *flags, "-o", f"{programs}/", *what], cwd=source, env=env, check=True)


def _go(needs: str, cache: Path) -> tuple[str, str]:
    """Return a go command and its GOTOOLCHAIN: the machine's own where it is new enough, else the releases' one, which fetches what is needed."""
    said = ask_version("go", {"GOTOOLCHAIN": "local"}) if shutil.which("go") else None
    if said and version_of(said) >= version_of(needs):
        return "go", "local"
    table = yaml.safe_load((ROOT / "vendors/gvisor/releases.yml").read_text())["go"]
    found = Toolchain(table["version"], str(cache / "tools" / f"go{table['version']}"), table["wheels"], []).find(["go"])
    return found["go"], f"go{needs}"
