# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""workspace_texts: root reads for a user, and no more than that user may."""

from __future__ import annotations

from pathlib import Path

from support.module import fork_module


def test_a_manifest_outside_is_not_looked_at(tmp_path: Path) -> None:
    """The sandbox does not see it there either."""
    result = fork_module("workspace_texts", files={str(tmp_path): "/etc/passwd"})
    assert result["texts"]["/etc/passwd"]["text"] is None
    assert result["texts"]["/etc/passwd"]["link"]
