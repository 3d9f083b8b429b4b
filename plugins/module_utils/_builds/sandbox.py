# Copyright (c) 2026, the ggen.gvisor authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""A gVisor sandbox inside of a compile's walls (see ``confinement``): what it runs speaks with gVisor's kernel, and not with the host's.

gVisor's program is behind the walls itself, and has no right that the compile would not have without it. What it needs lies in a folder there, in whose
place what runs in the sandbox sees an empty one.
"""

from __future__ import annotations

import glob
import json
import os
from typing import Mapping, NamedTuple, Sequence

from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._base.platform import architecture

NAMESPACES, GVISOR, AUTO = "namespaces", "gvisor", "auto"

FOLDER = "/.sandbox"
PROGRAM, CONFIG, STATE = f"{FOLDER}/runsc", f"{FOLDER}/config.json", f"{FOLDER}/state"
# The build's own walls keep what limits there are. Nothing is laid over a root that nobody can write.
ARGV = (
    PROGRAM,
    "--rootless",
    "--network=none",
    "--ignore-cgroups",
    "--overlay2=none",
    f"--root={STATE}",
    "run",
    f"--bundle={FOLDER}",
    "build",
)
# What the first lines of its kernel's log have, and the host's kernel's do not.
PROOF, PROVE = "Starting gVisor", ("dmesg",)


class Command(NamedTuple):
    """What runs in the sandbox."""

    argv: Sequence[str]
    env: Mapping[str, str]
    chdir: str


def find(patterns: Sequence[str]) -> str:
    """Return the first program that there is of ``patterns``, of several that fit one the last in the order of names.

    ``{arch}`` in them is this machine's architecture. Raises GvisorError where there is none.
    """
    places = [os.path.expanduser(pattern.replace("{arch}", architecture(os.uname().machine))) for pattern in patterns]
    for place in places:
        for path in sorted(glob.glob(place), reverse=True):
            if os.path.isfile(path) and os.access(path, os.X_OK):
                return os.path.realpath(path)
    raise GvisorError(f"it has no runsc ({', '.join(places)})")


def config(command: Command, writable: Sequence[str]) -> bytes:
    """Return the OCI runtime's configuration: the file system is what the walls show, and of that the folders ``writable`` are not read-only.

    Whoever runs is user 0 there because no other is mapped, but without any of root's rights.
    """
    own = [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
        {"destination": FOLDER, "type": "tmpfs", "source": "tmpfs", "options": ["ro"]},
    ]
    shown = [{"destination": path, "type": "bind", "source": path, "options": ["rbind", "nosuid", "nodev", "rw"]} for path in writable]
    wanted = {
        "ociVersion": "1.0.2",
        "hostname": "build",
        "root": {"path": os.sep, "readonly": True},
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": list(command.argv),
            "env": [f"{name}={value}" for name, value in command.env.items()],
            "cwd": command.chdir,
            "noNewPrivileges": True,
            "capabilities": {},
        },
        "mounts": [*own, *shown],
        "linux": {"namespaces": [{"type": name} for name in ("pid", "network", "ipc", "uts", "mount")]},
    }
    return json.dumps(wanted, ensure_ascii=False).encode("utf-8", "surrogateescape")
