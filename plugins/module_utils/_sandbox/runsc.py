# Copyright (c) 2026, the ggen.gvisor authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""Which program a sandbox is, as the host's kernel tells it: what is said inside of a sandbox an image might say as well."""

from __future__ import annotations

import os
import shutil
from typing import Optional, Tuple

from ansible_collections.ggen.gvisor.plugins.module_utils._base.process import SEARCH_PATH
from ansible_collections.ggen.gvisor.plugins.module_utils._base.processes import listener_pid

SHIM_ROOT = "/run/containerd/runsc"
Identity = Tuple[int, int]  # device and inode: a sandbox has mounts of its own, in which a path may read otherwise


def installed(address: str) -> Optional[str]:
    """Return the runsc that the shims of the containerd at ``address`` start: the first on its PATH. None where there is none.

    One that is a script adds flags, and starts the next one.
    """
    path = SEARCH_PATH
    daemon = listener_pid(address)
    if daemon is not None:
        try:
            with open(f"/proc/{daemon}/environ", "rb") as stream:
                variables = dict(one.partition(b"=")[::2] for one in stream.read().split(b"\0"))
            path = os.fsdecode(variables.get(b"PATH", b"")) or path
        except OSError:
            pass
    found = [one for one in (shutil.which("runsc", path=folder) for folder in path.split(os.pathsep)) if one]
    return next((one for one in found if not _is_script(one)), found[0] if found else None)


def shim_root(namespace: str) -> str:
    """Return the folder in which the shim has runsc keep what it knows of the sandboxes of containerd's ``namespace``."""
    return os.path.join(SHIM_ROOT, namespace)


def _is_script(path: str) -> bool:
    try:
        with open(path, "rb") as stream:
            return stream.read(2) == b"#!"
    except OSError:
        return False


def identity(path: Optional[str]) -> Optional[Identity]:
    """Return what file a path leads to, None where there is none."""
    try:
        status = os.stat(path) if path else None
    except OSError:
        return None
    return (status.st_dev, status.st_ino) if status else None


def program_of(pid: Optional[int]) -> Tuple[str, Optional[Identity]]:
    """Return the path of a process' program, as it reads now, and which file that is."""
    exe = f"/proc/{pid}/exe"
    try:
        return os.readlink(exe), identity(exe)
    except OSError:
        return "unknown", None
