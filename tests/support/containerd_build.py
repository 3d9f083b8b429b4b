# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A containerd that no Debian has yet, compiled from the modules that the go.sum beside this file pins."""

from __future__ import annotations

import subprocess
from pathlib import Path

from support import go_programs

TAGS = "no_btrfs,no_devmapper,no_zfs"
VERSIONS = {folder.name.partition("-")[2]: folder for folder in sorted(Path(__file__).parent.glob("containerd-*"))}


def key(version: str) -> str:
    """Return what tells this build from others of the version."""
    return go_programs.key(VERSIONS[version], TAGS)


def build(version: str, tree: Path, cache: Path) -> None:
    """Compile the programs into ``tree``, laid out as Debian's packages are, with the configuration that containerd itself calls its default.

    That takes 165 s of one core, and 1 GB for as long.
    """
    programs = tree / "usr" / "bin"
    stamp = f"-s -w -X github.com/containerd/containerd/v2/version.Version=v{version}"
    go_programs.compile_programs(VERSIONS[version], programs, cache, f"-tags={TAGS}", f"-ldflags={stamp}", "tool")
    config = tree / "etc" / "containerd" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_bytes(subprocess.run([programs / "containerd", "config", "default"], check=True, capture_output=True).stdout)
