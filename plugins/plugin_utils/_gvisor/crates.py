# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a build's own cargo takes over from the user's, and whether what it has fetched is what is pinned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import tomllib
from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError

try:
    import tomlkit
except ImportError:
    tomlkit = None  # type: ignore[assignment]

# Where crates come from. All else that a user may set (wrappers, linkers, profiles) would get into the build.
SOURCES = ("http", "net", "registries", "registry", "source")


def cargo_sources(text: str) -> str:
    """Return of a cargo configuration what says where crates come from, as TOML. Raises GvisorError where the text is none."""
    try:
        told = {name: table for name, table in tomllib.loads(text).items() if name in SOURCES}
    except tomllib.TOMLDecodeError as error:
        raise GvisorError(f"cargo's config.toml is no valid TOML: {error}") from error
    if told and tomlkit is None:
        raise GvisorError("the Python library tomlkit is missing on the controller: pip install tomlkit")
    return tomlkit.dumps(told) if told else ""


def crates(text: str, arch: str) -> list[dict[str, str]]:
    """Return name, version and sha256 of the crates in a crates.sum that are compiled for ``arch``. Raises ValueError for a line that is none."""
    found = []
    for line in text.splitlines():
        if line.startswith("#") or not line:
            continue
        name, version, sha256, *only = line.split()
        if arch in (only or [arch]):
            found.append({"name": name, "version": version, "sha256": sha256})
    return found


def wrong_crates(files: Sequence[Mapping[str, Any]], lock: str, sums: str, program: str, arch: str) -> list[str]:
    """Return a line for each of the fetched ``files`` (path and checksum) that is not the crate that is pinned, and for each that is missing.

    ``lock`` is the text of the ``program``'s own Cargo.lock, which pins all but itself; ``sums`` the text of crates.sum, which may be empty.
    """
    pinned = {f"{one['name']}-{one['version']}": one["checksum"] for one in tomllib.loads(lock)["package"] if "checksum" in one}
    listed = {f"{one['name']}-{one['version']}": one["sha256"] for one in crates(sums, arch)}
    fetched = {PurePosixPath(file["path"]).name.removesuffix(".crate"): file["checksum"] for file in files}
    wrong = []
    for name, sha256 in sorted(fetched.items()):
        known = {listed[name]} if name in listed else set()
        known |= {pinned[name]} if name in pinned else set()
        if known != {sha256} and not (name == program and not known):
            wrong.append(f"{name} has the sha256 {sha256} instead of {' and '.join(sorted(known)) or 'none at all'}")
    return wrong + [f"{name} is missing" for name in sorted(listed.keys() - fetched.keys())]
