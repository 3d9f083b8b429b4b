# Copyright (c) 2026, the ggen.gvisor authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""The proof that a pod is gVisor's: dmesg, run inside of it.

An image FROM scratch has no dmesg and the collection ships no binaries, so the host's own is lent to the pod, read-only: the
program, its loader and its libraries, copied once into a folder that holds nothing else but sleep, for pods that only wait.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from typing import List, NamedTuple, Optional

from ansible_collections.ggen.gvisor.plugins.module_utils._process import run

TARGET = "/.ggen.gvisor"  # where the pod sees the folder
SIGN = "Starting gVisor"  # the first line of the sandbox's own kernel log
WAIT = "600"
PROGRAMS = ("dmesg", "sleep")


class Proof(NamedTuple):
    """A folder to mount at TARGET, the command to run there, and one that waits for ``WAIT`` seconds."""

    folder: str
    argv: List[str]
    wait: List[str]


def prepare(state_dir: str) -> Optional[Proof]:
    """Return the proof's folder below ``state_dir``, made if it is not there; None when the host lacks a program. Raises OSError."""
    found = {name: shutil.which(name, path="/usr/bin:/bin:/usr/sbin:/sbin") for name in PROGRAMS}
    programs = {name: os.path.realpath(path) for name, path in found.items() if path}
    if len(programs) < len(PROGRAMS):
        return None
    status = {path: os.stat(path) for path in programs.values()}
    identity = " ".join(f"{path} {seen.st_size} {seen.st_mtime_ns}" for path, seen in status.items())
    key = hashlib.sha256(identity.encode()).hexdigest()[:16]
    folder = os.path.join(state_dir, "proof", key)
    if not os.path.isdir(folder):
        os.makedirs(os.path.dirname(folder), mode=0o711, exist_ok=True)
        temporary = tempfile.mkdtemp(dir=os.path.dirname(folder), prefix=".new-")
        try:
            for name, path in programs.items():
                _fill(temporary, name, path)
            os.chmod(temporary, 0o755)  # noqa: S103 - read by the job's user; nothing secret in it
            os.rename(temporary, folder)
        except OSError:
            if not os.path.isdir(folder):  # otherwise another run was faster
                raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    loader = next((name for name in sorted(os.listdir(folder)) if name.startswith("loader-")), None)
    words = [f"{TARGET}/{loader}", "--library-path", TARGET] if loader else []
    return Proof(folder, [*words, f"{TARGET}/dmesg"], [*words, f"{TARGET}/sleep", WAIT])


def _fill(folder: str, name: str, program: str) -> None:
    shutil.copy2(program, os.path.join(folder, name))
    # The loader's own list of what it would load; a static program ignores the variable and is complete by itself.
    listed = run([program], env={"LD_TRACE_LOADED_OBJECTS": "1"}, timeout=10).stdout.splitlines()
    for line in listed:
        words = line.split()
        if len(words) == 4 and words[1] == "=>" and words[3].startswith("(0x"):
            shutil.copy2(words[2], os.path.join(folder, os.path.basename(words[0])))
        elif len(words) == 2 and words[0].startswith("/") and words[1].startswith("(0x"):
            shutil.copy2(words[0], os.path.join(folder, "loader-" + os.path.basename(words[0])))
