# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run a module of the collection as Ansible does: a process of its own, its arguments as JSON on standard input."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


class Result(dict):
    """A module's result; asking for what is not in it shows what is."""

    def __missing__(self, key: str) -> object:
        raise AssertionError(f"the result has no {key}: {dict(self)}")


def start_module(module: str, /, *, check: bool = False, diff: bool = False, **params: object) -> subprocess.Popen:
    """Start ``module`` and return its process; ``check`` and ``diff`` are Ansible's modes."""
    arguments = {**params, "_ansible_check_mode": check, "_ansible_diff": diff, "_ansible_version": "2.19.0"}
    process = subprocess.Popen(
        [sys.executable, "-m", f"ansible_collections.ggen.gvisor.plugins.modules.{module}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT / ".collections"), "LC_ALL": "C.UTF-8"},
        text=True,
    )
    assert process.stdin
    process.stdin.write(json.dumps({"ANSIBLE_MODULE_ARGS": arguments}))
    process.stdin.close()
    process.stdin = None
    return process


def finish_module(process: subprocess.Popen, timeout: float = 120) -> Result:
    """Return the module's result once it ends."""
    stdout, stderr = process.communicate(timeout=timeout)
    try:
        result = json.loads(stdout)
    except ValueError:
        raise AssertionError(f"the module did not return JSON:\n{stdout[-2000:]}\n{stderr[-4000:]}") from None
    # ansible-core 2.19 wraps each warning; the controller unwraps them again.
    warnings = [item["event"]["msg"] if isinstance(item, dict) else item for item in result.get("warnings", [])]
    return Result(result, warnings=warnings)


def run_module(module: str, /, **params: object) -> Result:
    """Run ``module`` to its end and return its result; ``failed`` is always there."""
    return Result({"failed": False, **finish_module(start_module(module, **params))})
