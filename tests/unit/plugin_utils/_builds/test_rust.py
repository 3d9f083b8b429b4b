# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which Rust is installed, by what apt-cache madison printed on real hosts (shortened)."""

from __future__ import annotations

import pytest
from ansible_collections.ggen.gvisor.plugins.plugin_utils._builds.rust import rust_offer

BOOKWORM = """\
 cargo-web | 1.96.0+dfsg1-1~deb12u2 | http://deb.debian.org/debian-security bookworm-security/main amd64 Packages
 cargo-web | 1.85.0+dfsg3-1~deb12u3 | http://deb.debian.org/debian bookworm/main amd64 Packages
 rustc-web | 1.96.0+dfsg1-1~deb12u2 | http://deb.debian.org/debian-security bookworm-security/main amd64 Packages
 rustc-web | 1.85.0+dfsg3-1~deb12u3 | http://deb.debian.org/debian bookworm/main amd64 Packages
     cargo | 0.66.0+ds1-1 | http://deb.debian.org/debian bookworm/main amd64 Packages
     rustc | 1.63.0+dfsg1-2 | http://deb.debian.org/debian bookworm/main amd64 Packages
"""
BOOKWORM_ALONE = "".join(line for line in BOOKWORM.splitlines(keepends=True) if "security" not in line)
TRIXIE = """\
     cargo | 1.85.1+dfsg1-1+deb13u1 | http://deb.debian.org/debian trixie/main amd64 Packages
     rustc | 1.85.1+dfsg1-1+deb13u1 | http://deb.debian.org/debian trixie/main amd64 Packages
"""
TRIXIE_WEB = """\
 cargo-web | 1.96.0+dfsg1-1~deb13u1+b1 | http://deb.debian.org/debian trixie/main amd64 Packages
 rustc-web | 1.96.0+dfsg1-1~deb13u1+b1 | http://deb.debian.org/debian trixie/main amd64 Packages
"""
BACKPORTS = """\
     cargo | 1.97.1+dfsg1-1~bpo13+1 | http://deb.debian.org/debian trixie-backports/main amd64 Packages
     rustc | 1.97.1+dfsg1-1~bpo13+1 | http://deb.debian.org/debian trixie-backports/main amd64 Packages
"""
FORKY = """\
     cargo | 1.97.1+dfsg1-1 | http://deb.debian.org/debian forky/main amd64 Packages
     rustc | 1.97.1+dfsg1-1 | http://deb.debian.org/debian forky/main amd64 Packages
"""
NOBLE = """\
     rustc | 1.75.0+dfsg0ubuntu1-0ubuntu7.4 | http://archive.ubuntu.com/ubuntu noble-updates/main amd64 Packages
     cargo | 1.75.0+dfsg0ubuntu1-0ubuntu7.4 | http://archive.ubuntu.com/ubuntu noble-updates/main amd64 Packages
cargo-1.89 | 1.89.0+dfsg~24.04-0ubuntu0.24.04.2 | http://archive.ubuntu.com/ubuntu noble-updates/universe amd64 Packages
cargo-1.97 | 1.97.1+dfsg~24.04-0ubuntu1~24.04.1 | http://archive.ubuntu.com/ubuntu noble-updates/universe amd64 Packages
cargo-1.91 | 1.91.1+dfsg~24.04-0ubuntu0.24.04.3 | http://archive.ubuntu.com/ubuntu noble-updates/universe amd64 Packages
rustc-1.89 | 1.89.0+dfsg~24.04-0ubuntu0.24.04.2 | http://archive.ubuntu.com/ubuntu noble-updates/universe amd64 Packages
rustc-1.91 | 1.91.1+dfsg~24.04-0ubuntu0.24.04.3 | http://archive.ubuntu.com/ubuntu noble-updates/universe amd64 Packages
rustc-1.97 | 1.97.1+dfsg~24.04-0ubuntu1~24.04.1 | http://archive.ubuntu.com/ubuntu noble-updates/universe amd64 Packages
"""


@pytest.mark.parametrize(
    ("madison", "packages", "programs", "suite"),
    [
        (BOOKWORM, ["cargo-web", "rustc-web"], "/usr/bin", ""),
        (TRIXIE + TRIXIE_WEB + BACKPORTS, ["cargo-web", "rustc-web"], "/usr/bin", ""),
        (TRIXIE + BACKPORTS, ["cargo", "rustc"], "/usr/bin", "trixie-backports"),
        (FORKY, ["cargo", "rustc"], "/usr/bin", ""),
        (NOBLE, ["cargo-1.97", "rustc-1.97"], "/usr/lib/rust-1.97/bin", ""),
    ],
    ids=["bookworm with security", "trixie", "trixie-backports alone", "forky", "Ubuntu 24.04"],
)
def test_the_newest_kind_that_is_new_enough(madison, packages, programs, suite):
    offer = rust_offer(madison, "1.87")
    assert (offer["packages"], offer["programs"], offer["suite"]) == (packages, programs, suite)


def test_its_version_is_told():
    assert rust_offer(BOOKWORM, "1.87")["version"] == "1.96.0+dfsg1-1~deb12u2"


@pytest.mark.parametrize(
    "madison",
    ["", BOOKWORM_ALONE, TRIXIE, "N: Unable to locate package cargo\n", TRIXIE_WEB.replace(" Packages", " Sources")],
    ids=["no lists", "bookworm without security", "too old", "a warning", "sources"],
)
def test_nothing_that_is_too_old_or_no_package(madison):
    assert rust_offer(madison, "1.87") == {}


def test_a_cargo_whose_rustc_is_missing_is_passed_over():
    without = "".join(line for line in NOBLE.splitlines(keepends=True) if not line.startswith("rustc-1.97"))
    assert rust_offer(without, "1.87")["packages"] == ["cargo-1.91", "rustc-1.91"]


def test_a_number_is_not_compared_as_text():
    assert rust_offer(NOBLE.replace("1.97", "1.100"), "1.87")["packages"] == ["cargo-1.100", "rustc-1.100"]
