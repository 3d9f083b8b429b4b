# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What belongs together is given together: nobody counts the arguments of a call."""

from __future__ import annotations

import ast

from conftest import ROOT

MOST = 6
# Filters: playbooks name these options.
OPTIONS = {"build_plan", "ggen_jobs", "host_plan"}


def test_no_function_has_more_parameters_than_people_count():
    found = {}
    for path in (ROOT / "plugins").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                names = [one.arg for one in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
                found[node.name] = max(found.get(node.name, 0), len([name for name in names if name not in ("self", "cls")]))
    assert {name for name, number in found.items() if number > MOST} == OPTIONS
