# Copyright (c) 2026, the ggen.gvisor authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""What a host must allow for a sandbox without root: user namespaces, with mounts of their own."""

from __future__ import annotations

import errno
import os
import stat
from typing import Dict, NamedTuple

from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._base.files import read_text
from ansible_collections.ggen.gvisor.plugins.module_utils._base.kernel import BIND, PRIVATE, REC, check_call, libc, mount
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.pinned import NAMED, O_PATH, through
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.walker import Identity, identity

_NEW_USER, _NEW_MOUNTS = 0x10000000, 0x00020000
_PR_SET_CHILD_SUBREAPER = 36


class Switch(NamedTuple):
    """A file of /proc/sys that can forbid user namespaces, what it has in it then, and what it is."""

    forbidding: str
    told: str
    fix: str


SWITCHES: Dict[str, Switch] = {
    "kernel/apparmor_restrict_unprivileged_userns": Switch(
        "1", "AppArmor restricts user namespaces, as it does on Ubuntu from 23.10 on", "kernel.apparmor_restrict_unprivileged_userns=0"
    ),
    "kernel/unprivileged_userns_clone": Switch(
        "0", "Debian's kernel allows user namespaces to root alone", "kernel.unprivileged_userns_clone=1"
    ),
    "user/max_user_namespaces": Switch("0", "the host allows no user namespaces", "user.max_user_namespaces=15000"),
}


def enter() -> None:
    """Go into a user namespace of this process' own, in which it stays who it is, and into one of mounts, which end with it and with what it starts.

    Raises OSError.
    """
    uid, gid = os.geteuid(), os.getegid()
    check_call(libc().unshare(_NEW_USER | _NEW_MOUNTS), "a user namespace")
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as stream:
            stream.write(text)
    mount(None, "/", None, REC | PRIVATE)


class Seen(NamedTuple):
    """What a descriptor holds, for a namespace that comes later: there a mount takes no descriptor from before."""

    path: str  # where it is now, without links
    identity: Identity
    is_folder: bool

    @classmethod
    def of(cls, source: str) -> "Seen":
        """Return what the path of a descriptor, or of something of the user's own, leads to. Raises OSError."""
        descriptor = os.open(source, O_PATH | os.O_CLOEXEC)
        try:
            return cls(os.readlink(through(descriptor)), identity(descriptor), stat.S_ISDIR(os.fstat(descriptor).st_mode))
        finally:
            os.close(descriptor)

    def bind(self, place: str) -> None:
        """Mount it at ``place``: no link is followed on the way to it, and it is the same as before. Raises OSError."""
        here = os.open("/", NAMED | os.O_DIRECTORY)
        try:
            for name in filter(None, self.path.split("/")):
                below = os.open(name, NAMED, dir_fd=here)
                os.close(here)
                here = below
            if identity(here) != self.identity:
                raise OSError(errno.ESTALE, "was exchanged while the sandbox started", self.path)
            mount(through(here), place, None, BIND | REC)
        finally:
            os.close(here)


def adopt_orphans() -> None:
    """Become the parent of what this process has started, and what that has started, when its own parent ends."""
    libc().prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def check(proc: str = "/proc") -> None:
    """Raise GvisorError where no sandbox can be made without root, which names what forbids it and how to allow it."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            enter()
            mount("tmpfs", "/proc", "tmpfs", 0)  # what AppArmor forbids in a namespace that it has allowed
        except OSError as error:
            os.write(writing, f"{error.filename or 'a user namespace'}: {error.strerror}".encode("utf-8", "backslashreplace"))
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as stream:
        said = stream.read().decode("utf-8", "replace")
    os.waitpid(child, 0)
    if said:
        raise GvisorError(f"this host gives {os.geteuid()} no sandbox without root ({said}): {reason(proc)}")


def reason(proc: str = "/proc") -> str:
    """Return what forbids user namespaces, as far as the host tells, and the fix."""
    found = [switch for name, switch in SWITCHES.items() if (read_text(f"{proc}/sys/{name}") or "").strip() == switch.forbidding]
    if not found:
        return "a container or a security module forbids it; run on the host itself, or with containerd as root (engine: containerd)"
    fixes = "; ".join(f"sudo sysctl -w {switch.fix}" for switch in found)
    return f"{'; '.join(switch.told for switch in found)}. Allow them ({fixes}), or run with containerd as root (engine: containerd)"
