# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""ggen writes what the examples' expected output says, byte for byte: on this machine; the end-to-end test does so in the sandbox."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from ansible_collections.ggen.gvisor.plugins.module_utils._ggen.output import parse_output
from conftest import ROOT
from support.examples import expected

SIGNING_KEY = yaml.safe_load((ROOT / "roles/ggen_run/vars/main.yml").read_text())["_ggen_run_key"]
EXAMPLES = sorted(path.parent for path in (ROOT / "examples").glob("*/ggen.toml"))
BINARY = os.environ.get("GGEN_BINARY", "")
needs_binary = pytest.mark.skipif(not BINARY, reason="GGEN_BINARY names no ggen binary to compare with")


def sync(folder: Path) -> tuple[dict[str, object], list[str]]:
    """Run ggen on a workspace as the role does, and return its outcome and log."""
    env = {"RUST_LOG": "warn,opentelemetry_sdk=off", "NO_COLOR": "1", "HOME": str(folder.parent / "no-home")}
    done = subprocess.run([BINARY, "sync"], cwd=folder, env=env, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    outcome, log = parse_output(done.stdout, done.stderr)
    assert outcome is not None
    return outcome, log


@needs_binary
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_ggen_writes_what_is_expected_each_time(example: Path, tmp_path: Path) -> None:
    folder = tmp_path / example.name
    shutil.copytree(example, folder, ignore=shutil.ignore_patterns("generated", ".ggen"))
    output = folder / "generated"
    for time in range(2):
        outcome, log = sync(folder)
        written = {
            str(path.relative_to(output)): path.read_bytes() for path in output.rglob("*") if path.is_file() and path.suffix != ".backup"
        }
        assert written == expected(example.name), f"run {time}"
        assert sorted(os.path.normpath(item["path"]) for item in outcome["files"]) == sorted(f"{output.name}/{name}" for name in written)
        assert not [line for line in log if "WARN" in line or "ERROR" in line]


@needs_binary
def test_ggen_leaves_the_mode_of_a_closed_signing_key(tmp_path: Path) -> None:
    folder = tmp_path / "organization"
    shutil.copytree(ROOT / "examples" / "organization", folder, ignore=shutil.ignore_patterns("generated", ".ggen"))
    sync(folder)
    key = folder / SIGNING_KEY
    assert key.stat().st_mode & 0o777 == 0o644, "ggen closes its key itself now: the role's task is superfluous"
    key.chmod(0o600)
    before = key.read_bytes()
    sync(folder)
    assert key.read_bytes() == before
    assert key.stat().st_mode & 0o777 == 0o600
