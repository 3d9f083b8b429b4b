# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is downloaded is pinned, and no comparison is switched off. That they are made: tests/integration/test_tampered_downloads.py."""

from __future__ import annotations

import re
from pathlib import Path

from conftest import ROOT


def test_every_requirement_is_pinned_by_its_hash():
    for path in (ROOT / "requirements.txt", *ROOT.glob("tests/**/requirements.txt")):
        entries = re.split(r"\n(?=\S)", re.sub(r"(?m)^\s*#.*\n", "", path.read_text()).replace("\\\n", " "))
        missing = [entry for entry in entries if entry.strip() and not re.match(r"\S+==\S+[^#]*--hash=sha256:[0-9a-f]{64}", entry)]
        assert missing == [], path


# The switches that turn a comparison off.

SWITCHES = re.compile(
    r"allow[-_]?unauthenticated|AllowInsecure|AllowWeak|AllowDowngradeToInsecure|force-yes|trusted=yes|validate_certs|disable_gpg_check"
    r"|GONOSUM|GONOSUMDB|GONOSUMCHECK|GOINSECURE|GOPRIVATE|insecure|no-verify|trusted-host|--no-check|skip_?verif|ignore-checksum",
    re.IGNORECASE,
)
# The bundle's own folder: its sums are in bundle.json, see docs/decisions/bundle.md.
ALLOWED = {"roles/containerd_gvisor/tasks/repository.yml": 1}


def test_no_comparison_is_switched_off():
    files = [
        path for part in ("plugins", "roles", "playbooks") for path in (ROOT / part).rglob("*") if path.suffix in (".py", ".yml", ".j2")
    ]
    files += [
        ROOT / "Makefile",
        ROOT / "tests/run",
        ROOT / "tests/lab/lab.py",
        ROOT / "tests/lab/vm.py",
        ROOT / "tests/support/containerd_debs.py",
    ]
    assert len(files) > 100
    found = {str(path.relative_to(ROOT)): len(SWITCHES.findall(path.read_text())) for path in files}
    assert {name: number for name, number in found.items() if number} == ALLOWED
    # Go's database of sums is off where nothing is fetched, and nowhere else.
    offline = re.compile(r"GOSUMDB")
    assert {name for name in map(str, files) if offline.search(Path(name).read_text())} == {
        str(ROOT / "roles/runsc_build/tasks/build_once.yml")
    }
