# Copyright (c) 2026, the ggen.gvisor authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""Bind mounts of what a descriptor holds, at places that root alone can reach: a path that stays what it was when it was opened."""

from __future__ import annotations

import contextlib
import os

from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError, rights_fix
from ansible_collections.ggen.gvisor.plugins.module_utils._base.kernel import BIND, NODEV, NOEXEC, NOSUID, PRIVATE, REC, libc, mount
from ansible_collections.ggen.gvisor.plugins.module_utils._base.processes import listener_pid
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.pinned import Pinned, through

_MNT_DETACH, _UMOUNT_NOFOLLOW = 2, 8


def bind(pinned: Pinned, target: str, address: str) -> None:
    """Let ``target``, which is made, show what ``pinned`` holds, for the containerd at ``address`` too. Raises GvisorError.

    The program mount would look up the path that the descriptor has now, which may lead elsewhere; the system call takes the descriptor.
    """
    try:
        if pinned.is_folder:
            os.mkdir(target, 0o700)
        else:
            os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        mount(through(pinned.descriptor), target, None, BIND | REC)
        # What is unmounted here must not be unmounted there.
        mount(None, target, None, REC | PRIVATE)
        seen = [os.stat(target)]
        daemon = listener_pid(address)
        if daemon is not None:
            seen.append(os.stat(f"/proc/{daemon}/root{os.path.realpath(target)}"))
    except OSError as error:
        raise GvisorError(f"{pinned.path} cannot be shown to a pod: {error.strerror}{rights_fix(error)}", path=pinned.path) from error
    if any((status.st_dev, status.st_ino) != pinned.identity for status in seen):
        raise GvisorError(
            f"containerd does not see {pinned.path} at {target}: it has mounts of its own (PrivateMounts or a container); run it with the host's",
            path=pinned.path,
        )


def mount_memory(target: str, size: int) -> None:
    """Have a file system in memory, of ``size`` bytes at most and for root alone, at ``target``, which is made. Raises OSError."""
    os.mkdir(target, 0o700)
    mount("tmpfs", target, "tmpfs", NOSUID | NODEV | NOEXEC, f"mode=0700,size={size}")


def unbind(target: str) -> None:
    """Take away all that is mounted at ``target``, and ``target``. Raises OSError where that cannot be."""
    with contextlib.suppress(OSError):
        mount(None, target, None, REC | PRIVATE)  # a run that was killed between the two calls of bind
    while libc().umount2(os.fsencode(target), _MNT_DETACH | _UMOUNT_NOFOLLOW) == 0:
        pass
    try:
        os.rmdir(target)
    except NotADirectoryError:
        os.unlink(target)
