# Copyright (c) 2026, the ggen.gvisor authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""Run a program: an argv list, no shell, no terminal, a bounded time."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
from typing import BinaryIO, Callable, Iterator, List, Mapping, NamedTuple, Optional, Sequence

from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError

# sudo's secure_path and a module's PATH need not hold /usr/local, where Colima and upstream's archive put containerd and ctr.
SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


# Writes a program's standard input; a program that ends before it has read all is no error.
Feed = Callable[[BinaryIO], None]


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
    feed: Optional[Feed] = None,
) -> Completed:
    """Run ``argv`` to its end and return what it said, whatever its exit code.

    ``timeout`` is in seconds; ``env`` adds to the environment, which always has LC_ALL=C so that messages can be read.
    Standard input is ``input``, what ``feed`` writes, or nothing: ctr would otherwise eat a script that a shell reads from it.
    Raises GvisorError when the program does not exist or outlives ``timeout``, and whatever ``feed`` raises.
    """
    path = f"{os.environ.get('PATH', '')}:{SEARCH_PATH}"
    environment = {**os.environ, "PATH": path, "LC_ALL": "C", **(env or {})}
    try:
        with _fed(feed) if feed else contextlib.nullcontext(subprocess.DEVNULL if input is None else None) as stdin:
            # run_command has no time limit.
            done = subprocess.run(  # pylint: disable=ansible-bad-function
                list(argv),
                input=input,
                stdin=stdin,
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


@contextlib.contextmanager
def _fed(feed: Feed) -> Iterator[int]:
    """Yield the end of a pipe into which ``feed`` writes meanwhile."""
    reading, writing = os.pipe()
    failures: List[BaseException] = []

    def write() -> None:
        try:
            with open(writing, "wb") as stream:
                feed(stream)
        except BrokenPipeError:
            pass
        except BaseException as error:  # told by the thread that waits
            failures.append(error)

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    try:
        yield reading
    finally:
        os.close(reading)  # the last one that could read: a writer that still writes ends
        writer.join()
        if failures:
            raise failures[0]


def output_of(*argv: str) -> str:
    """Return what a program prints, or nothing where it cannot be run: a damaged one is described by its digest."""
    try:
        return run(argv).stdout
    except GvisorError:
        return ""
