# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pinned Go: versions, platforms and what is not to be had. With a real Go: tests/integration/test_go_toolchains.py."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._builds.go_toolchain import version_of, wheel_platform
from conftest import ROOT
from support.module import fork_module

PINNED = yaml.safe_load((ROOT / "vendors" / "gvisor" / "releases.yml").read_text())["go"]


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("go version go1.26.6 linux/amd64", (1, 26, 6)),
        ("1.25.5", (1, 25, 5)),
        ("go1.27rc1", (1, 27)),
        ("go version go1.19.8 linux/arm64", (1, 19, 8)),
    ],
)
def test_go_versions(text, version):
    assert version_of(text) == version


def test_what_is_no_version():
    with pytest.raises(GvisorError, match="devel"):
        version_of("devel")


def test_platforms_are_named_as_in_the_table():
    assert wheel_platform("Linux", "x86_64") == "linux_amd64"
    assert wheel_platform("Linux", "aarch64") == "linux_arm64"
    assert wheel_platform("Darwin", "arm64") == "darwin_arm64"


def find(tmp_path: Path, **options: object) -> dict:
    return fork_module("go_toolchain", **{"version": PINNED["version"], "dest": str(tmp_path / "go"), **options})


def test_a_platform_without_a_wheel(tmp_path):
    found = find(tmp_path, candidates=[], wheels={"plan9_mips": {"file": "x", "sha256": "y"}})
    assert "only for plan9_mips" in found["msg"]
