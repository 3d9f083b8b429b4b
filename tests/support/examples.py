# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the examples' workspaces generate."""

from __future__ import annotations

from conftest import ROOT

EXPECTED = ROOT / "tests" / "fixtures" / "examples"


def expected(name: str) -> dict[str, bytes]:
    """Return the expected output of an example by its path in ``generated``."""
    folder = EXPECTED / name / "expected"
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
