# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a build's cargo takes over from the user's, and which crates it may have."""

from __future__ import annotations

import pytest
import tomllib
from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.plugin_utils._gvisor.crates import cargo_sources, wrong_crates

SUM = "ab" * 32
OTHER = "cd" * 32
LOCK = f"""version = 4

[[package]]
name = "library"
version = "1.0.0+3"
source = "registry+https://github.com/rust-lang/crates.io-index"
checksum = "{SUM}"

[[package]]
name = "windows"
version = "0.1.0"
source = "registry+https://github.com/rust-lang/crates.io-index"
checksum = "{OTHER}"

[[package]]
name = "program"
version = "2.0.0"
dependencies = ["library"]
"""
LISTED = f"# made by hand\nlibrary 1.0.0+3 {SUM}\nprogram 2.0.0 {OTHER}\nvector 1.0.0 {OTHER} arm64\n"


def wrong(files: dict[str, str], sums: str = "") -> list[str]:
    found = [{"path": f"/cargo/registry/cache/index/{name}.crate", "checksum": sha256} for name, sha256 in files.items()]
    return wrong_crates(found, LOCK, sums, "program-2.0.0", "amd64")


def test_what_both_pin_is_right():
    right = {"library-1.0.0+3": SUM, "program-2.0.0": OTHER}
    assert wrong(right, LISTED) == []
    assert wrong(right) == [], "another version than the pinned one has no list"
    assert wrong({**right, "windows-0.1.0": OTHER}, LISTED) == [], "the list has what is compiled here, the lock file all"


@pytest.mark.parametrize(
    ("files", "sums", "line"),
    [
        ({"library-1.0.0+3": OTHER}, "", f"library-1.0.0+3 has the sha256 {OTHER} instead of {SUM}"),
        ({"stranger-1.0.0": SUM}, "", f"stranger-1.0.0 has the sha256 {SUM} instead of none at all"),
        ({"library-1.0.0+3": SUM}, LISTED.replace(SUM, OTHER), f"library-1.0.0+3 has the sha256 {SUM} instead of {SUM} and {OTHER}"),
        ({"program-2.0.0": SUM}, LISTED, f"program-2.0.0 has the sha256 {SUM} instead of {OTHER}"),
        ({"program-2.0.0": OTHER}, LISTED, "library-1.0.0+3 is missing"),
    ],
)
def test_everything_else_is_named(files, sums, line):
    assert line in wrong(files, sums)


def test_of_the_user_s_settings_the_sources_are_taken():
    text = """
[source.crates-io]
replace-with = "mirror"
[registries.mirror]
index = "sparse+https://crates.example.org/"
[http]
cainfo = "/etc/ssl/ours.pem"
[build]
rustc-wrapper = "sccache"
[target.x86_64-unknown-linux-gnu]
linker = "/home/me/bin/ld"
[env]
CC = "/home/me/bin/cc"
"""
    told = tomllib.loads(cargo_sources(text))
    assert told == {name: table for name, table in tomllib.loads(text).items() if name in ("source", "registries", "http")}
    assert cargo_sources("") == cargo_sources("[build]\njobs = 1\n") == ""


def test_settings_that_are_no_toml_are_named():
    with pytest.raises(GvisorError, match=r"cargo's config\.toml is no valid TOML"):
        cargo_sources("[source")
