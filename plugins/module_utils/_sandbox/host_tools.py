# Copyright (c) 2026, the ggen.gvisor authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""A few of the host's own programs, which it mounts into its sandboxes, so that any image can be run, one FROM scratch too.

Such an image has no shell to drive and no dmesg to prove with, and the collection ships no binaries. The programs, their loader and their
libraries are copied once into a folder that holds nothing else, and pods see it read-only. Nothing of the image may reach them: see
docs/decisions/hostile-images.md.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import struct
import tempfile
from typing import Dict, FrozenSet, List, NamedTuple

from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError, rights_fix
from ansible_collections.ggen.gvisor.plugins.module_utils._base.process import SEARCH_PATH, output_of, run
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.pinned import own_folder

TARGET = "/.ggen.gvisor"  # where the pod sees the folder, or how that begins
SIGN = "Starting gVisor"  # the first line of the sandbox's own kernel log
EMPTY = "empty"  # a file for what a pod must not have
_SEARCH = "/usr/bin:/bin:/usr/sbin:/sbin"
# Program → the package that has it. Neither looks anything up (a user, a locale) in the image's files: setpriv, which does, is none of them.
PROGRAMS = {"dd": "coreutils", "dmesg": "util-linux", "env": "coreutils", "sh": "dash", "sleep": "coreutils"}
# Shells that need no loader, where the host has one: what a loader reads cannot reach them.
STATIC_SHELLS = ("busybox", "bash-static")
# What ctr and the host can do, found out once: name → the program and the option that its help must have.
ABILITIES = {
    "ctr-hostname": ("ctr", ("run", "--help"), "--hostname"),
    "ctr-user": ("ctr", ("run", "--help"), "--user"),
    "unshare-user": ("unshare", ("--help",), "--setuid"),
}
_FORMAT = "2"  # of the folder: another one is another folder


class HostTools(NamedTuple):
    """A folder to mount at ``target``, the name of the loader in it (or none), and the programs in it that need none."""

    folder: str
    loader: str
    static: FrozenSet[str] = frozenset()
    abilities: FrozenSet[str] = frozenset()
    target: str = TARGET

    def at(self, pod: str) -> "HostTools":
        """Return the tools where this pod sees them: a place that no image can know, and so have a link at."""
        return self._replace(target=f"{TARGET}.{pod}")

    def argv(self, program: str, *arguments: str) -> List[str]:
        """Return the command line that runs ``program`` in the pod."""
        loader = [f"{self.target}/{self.loader}", "--inhibit-cache", "--library-path", self.target]
        return [*(loader if self.loader and program not in self.static else []), f"{self.target}/{program}", *arguments]


def prepare(state_dir: str) -> HostTools:
    """Return the tools, below ``state_dir``, made if it is not there. Raises GvisorError."""
    found = {name: shutil.which(name, path=_SEARCH) for name in PROGRAMS}
    missing = sorted(PROGRAMS[name] for name, path in found.items() if not path)
    if missing:
        raise GvisorError(f"this host lacks programs that a sandbox is proven and driven with; install {', '.join(missing)}")
    try:
        shells = filter(None, (shutil.which(name, path=_SEARCH) for name in STATIC_SHELLS))
        found["sh"] = next((shell for shell in shells if is_static(shell)), found["sh"])
        folder = _folder(own_folder(state_dir, "state_dir"), {name: os.path.realpath(path) for name, path in found.items() if path})
        names = sorted(os.listdir(folder))
        static = frozenset(name for name in names if name in {*PROGRAMS, "unshare"} and is_static(os.path.join(folder, name)))
    except OSError as error:
        raise GvisorError(f"programs for the sandbox cannot be put into {state_dir}: {error.strerror}{rights_fix(error)}") from error
    loader = next((name for name in names if name.startswith("loader-")), "")
    return HostTools(folder, loader, static, frozenset(names) & frozenset(ABILITIES))


def is_static(path: str) -> bool:
    """Tell whether a program needs no loader: it is ELF and names none. Raises OSError."""
    with open(path, "rb") as stream:
        head = stream.read(1 << 12)
    try:
        wide, order = head[4] == 2, "<" if head[5] == 1 else ">"
        (table,) = struct.unpack_from(f"{order}{'Q' if wide else 'I'}", head, 32 if wide else 28)
        size, count = struct.unpack_from(f"{order}HH", head, 54 if wide else 42)
        kinds = [struct.unpack_from(f"{order}I", head, table + number * size)[0] for number in range(count)]
    except (IndexError, struct.error):
        return False
    return head[:4] == b"\x7fELF" and 3 not in kinds  # PT_INTERP


def _folder(state_dir: str, programs: Dict[str, str]) -> str:
    path = f"{os.environ.get('PATH', '')}:{SEARCH_PATH}"  # where they are run from
    others = filter(None, (shutil.which(program, path=path) for program, _words, _option in ABILITIES.values()))
    status = {path: os.stat(path) for path in (*programs.values(), *others)}
    identity = " ".join([_FORMAT, *(f"{path} {seen.st_size} {seen.st_mtime_ns}" for path, seen in status.items())])
    key = hashlib.sha256(identity.encode()).hexdigest()[:16]
    folder = os.path.join(state_dir, "host_tools", key)
    if not os.path.isdir(folder):
        os.makedirs(os.path.dirname(folder), mode=0o711, exist_ok=True)
        temporary = tempfile.mkdtemp(dir=os.path.dirname(folder), prefix=".new-")
        try:
            for name, path in programs.items():
                _fill(temporary, name, path)
            for name in [EMPTY, *_abilities()]:
                os.close(os.open(os.path.join(temporary, name), os.O_WRONLY | os.O_CREAT, 0o644))
                os.chmod(os.path.join(temporary, name), 0o644)
            if os.path.exists(os.path.join(temporary, "unshare-user")):
                _fill(temporary, "unshare", os.path.realpath(shutil.which("unshare", path=_SEARCH) or ""))
            os.chmod(temporary, 0o755)  # noqa: S103 - read by the job's user; nothing secret in it
            os.rename(temporary, folder)
        except OSError:
            if not os.path.isdir(folder):  # otherwise another run was faster
                raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _abilities() -> List[str]:
    """Return which of ABILITIES this host has."""
    return [name for name, (program, words, option) in ABILITIES.items() if option in output_of(program, *words)]


def _fill(folder: str, name: str, program: str) -> None:
    shutil.copy2(program, os.path.join(folder, name))
    if is_static(program):
        return
    # The loader's own list of what it would load.
    listed = run([program], env={"LD_TRACE_LOADED_OBJECTS": "1"}, timeout=10).stdout.splitlines()
    for line in listed:
        words = line.split()
        if len(words) == 4 and words[1] == "=>" and words[3].startswith("(0x"):
            shutil.copy2(words[2], os.path.join(folder, os.path.basename(words[0])))
        elif len(words) == 2 and words[0].startswith("/") and words[1].startswith("(0x"):
            shutil.copy2(words[0], os.path.join(folder, "loader-" + os.path.basename(words[0])))
