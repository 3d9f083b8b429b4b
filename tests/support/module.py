# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run a module of the collection as Ansible does: a process of its own, its arguments as JSON on standard input."""

from __future__ import annotations

import gc
import importlib
import io
import json
import multiprocessing
import os
import subprocess
import sys
import traceback
from multiprocessing.connection import Connection
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
MODULES = "ansible_collections.ggen.gvisor.plugins.modules"
# Words before a module's command line, for a test in which it has other mounts than the host.
BEFORE: list[str] = []


class Result(dict):
    """A module's result; asking for what is not in it shows what is."""

    def __missing__(self, key: str) -> object:
        raise AssertionError(f"the result has no {key}: {dict(self)}")


def _arguments(*, check: bool = False, diff: bool = False, **params: object) -> str:
    modes = {"_ansible_check_mode": check, "_ansible_diff": diff, "_ansible_version": "2.19.0"}
    return json.dumps({"ANSIBLE_MODULE_ARGS": {**params, **modes}})


def start_module(module: str, /, *, check: bool = False, diff: bool = False, **params: object) -> subprocess.Popen:
    """Start ``module`` and return its process; ``check`` and ``diff`` are Ansible's modes."""
    process = subprocess.Popen(
        [*BEFORE, sys.executable, "-m", f"{MODULES}.{module}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT / ".collections"), "LC_ALL": "C.UTF-8"},
        text=True,
    )
    assert process.stdin
    process.stdin.write(_arguments(check=check, diff=diff, **params))
    process.stdin.close()
    process.stdin = None
    return process


def finish_module(process: subprocess.Popen, timeout: float = 120) -> Result:
    """Return the module's result once it ends."""
    return _result(*process.communicate(timeout=timeout))


def _result(stdout: str, stderr: str) -> Result:
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


def fork_module(module: str, /, **params: object) -> Result:
    """Do as ``run_module`` in a fork of this process, in a tenth of the time: for modules that leave no process behind."""
    return fork_modules(module, [params])[0]


def fork_modules(module: str, runs: list[dict[str, object]]) -> list[Result]:
    """Run ``module`` once for each of ``runs``, all at the same time, and return their results."""
    here = multiprocessing.get_context("fork")
    main = importlib.import_module(f"{MODULES}.{module}").main
    importlib.import_module("ansible.parsing.vault")  # with what it brings: each fork would import it by itself, late

    def run(arguments: str, send: Connection) -> None:
        gc.freeze()  # or the collector would walk, and so copy, all that the tests have in memory
        sys.argv = [module]
        sys.stdin = io.TextIOWrapper(io.BytesIO(arguments.encode()))
        sys.stdout, sys.stderr = io.StringIO(), io.StringIO()
        try:
            main()
        except SystemExit:
            pass
        except BaseException:
            traceback.print_exc()
        send.send((sys.stdout.getvalue(), sys.stderr.getvalue()))

    running = []
    for params in runs:
        receive, send = here.Pipe(duplex=False)
        process = here.Process(target=run, args=(_arguments(**params), send))
        process.start()
        send.close()
        running.append((process, receive))
    results = []
    for process, receive in running:
        try:
            printed = receive.recv()
        except EOFError:
            printed = ("", f"module {module} ended without a word")
        process.join()
        results.append(Result({"failed": False, **_result(*printed)}))
    return results
