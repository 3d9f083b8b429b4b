# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A umask is the whole process', and so all of its threads': only a process that was made for one thing changes it."""

from __future__ import annotations

import ast

from conftest import ROOT

# The functions that a child runs: they end in another program or in its end.
CHILDREN = {("pinned.py", "_make"), ("background_job.py", "_become_job"), ("confinement.py", "_drop")}

# Before there is anything else in the process: what it inherited is put back.
ALONE = {("member.py", "cleanse")}


def test_only_children_change_their_umask():
    found = set()
    for path in (ROOT / "plugins").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                called = [one.attr for one in ast.walk(node) if isinstance(one, ast.Attribute)]
                found |= {(path.name, node.name)} if "umask" in called else set()
    assert found == CHILDREN | ALONE
