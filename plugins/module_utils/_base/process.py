# Copyright (c) 2026, the ggen.gvisor authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""Run a program: an argv list, no shell, no terminal, a bounded time."""

from __future__ import annotations

import os
import subprocess
from typing import Mapping, NamedTuple, Optional, Sequence

from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError

# sudo's secure_path and a module's PATH need not hold /usr/local, where Colima and upstream's archive put containerd and ctr.
SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Completed(NamedTuple):
    """A finished program: its exit code and what it printed."""

    rc: int
    stdout: str
    stderr: str


def run(
    argv: Sequence[str],
    *,
    timeout: float = 60.0,
    input: Optional[str] = None,
    env: Optional[Mapping[str, str]] = None,
    cwd: Optional[str] = None,
) -> Completed:
    """Run ``argv`` to its end and return what it said, whatever its exit code.

    ``timeout`` is in seconds; ``env`` adds to the environment, which always has LC_ALL=C so that messages can be read.
    Standard input is ``input`` or nothing: ctr would otherwise eat a script that a shell reads from it.
    Raises GvisorError when the program does not exist or outlives ``timeout``.
    """
    path = f"{os.environ.get('PATH', '')}:{SEARCH_PATH}"
    environment = {**os.environ, "PATH": path, "LC_ALL": "C", **(env or {})}
    try:
        # run_command has no time limit.
        done = subprocess.run(  # pylint: disable=ansible-bad-function
            list(argv),
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            timeout=timeout,
            env=environment,
            cwd=cwd,
            check=False,
            encoding="utf-8",
            errors="replace",
        )
    except FileNotFoundError as error:
        raise GvisorError(f"{argv[0]} was not found on this host; install it or name its path", argv=list(argv)) from error
    except OSError as error:
        raise GvisorError(f"{argv[0]} cannot be executed: {error.strerror}", argv=list(argv)) from error
    except subprocess.TimeoutExpired as error:
        raise GvisorError(f"{' '.join(argv)} did not end within {timeout:g} s", argv=list(argv)) from error
    return Completed(done.returncode, done.stdout, done.stderr)


def output_of(*argv: str) -> str:
    """Return what a program prints, or nothing where it cannot be run: a damaged one is described by its digest."""
    try:
        return run(argv).stdout
    except GvisorError:
        return ""
