# Copyright (c) 2026, the ggen.gvisor authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""A few of the host's own programs, which it mounts into its sandboxes, so that any image can be run, one FROM scratch too.

Such an image has no shell to drive and no dmesg to prove with, and the collection ships no binaries. The programs, their loader and their
libraries are copied once into a folder that holds nothing else, and pods see it read-only.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from typing import List, NamedTuple

from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._base.process import run
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.pinned import own_folder

TARGET = "/.ggen.gvisor"  # where the pod sees the folder
SIGN = "Starting gVisor"  # the first line of the sandbox's own kernel log
# Program → the package that has it.
PROGRAMS = {"dmesg": "util-linux", "env": "coreutils", "setpriv": "util-linux", "sh": "dash", "sleep": "coreutils"}


class HostTools(NamedTuple):
    """A folder to mount at TARGET, and the words before a program's name that load it there."""

    folder: str
    loader: List[str]

    def argv(self, program: str, *arguments: str) -> List[str]:
        """Return the command line that runs ``program`` in the pod."""
        return [*self.loader, f"{TARGET}/{program}", *arguments]


def prepare(state_dir: str) -> HostTools:
    """Return the tools, below ``state_dir``, made if it is not there. Raises GvisorError."""
    found = {name: shutil.which(name, path="/usr/bin:/bin:/usr/sbin:/sbin") for name in PROGRAMS}
    missing = sorted(PROGRAMS[name] for name, path in found.items() if not path)
    if missing:
        raise GvisorError(f"this host lacks programs that a sandbox is proven and driven with; install {', '.join(missing)}")
    try:
        folder = _folder(own_folder(state_dir, "state_dir"), {name: os.path.realpath(path) for name, path in found.items() if path})
        loader = next((name for name in sorted(os.listdir(folder)) if name.startswith("loader-")), None)
    except OSError as error:
        raise GvisorError(f"programs for the sandbox cannot be put into {state_dir}: {error.strerror}") from error
    return HostTools(folder, [f"{TARGET}/{loader}", "--library-path", TARGET] if loader else [])


def _folder(state_dir: str, programs: "dict[str, str]") -> str:
    status = {path: os.stat(path) for path in programs.values()}
    identity = " ".join(f"{path} {seen.st_size} {seen.st_mtime_ns}" for path, seen in status.items())
    key = hashlib.sha256(identity.encode()).hexdigest()[:16]
    folder = os.path.join(state_dir, "host_tools", key)
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
    return folder


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
