# Copyright (c) 2026, the ggen.gvisor authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""What fixes a workspace that ggen cannot work with, in the words of whoever runs it."""

from __future__ import annotations

import json
import posixpath
from typing import Callable, Dict, Iterable, List, Mapping, NamedTuple

# Where the sandbox shows the workspace.
WORKSPACE = "/workspace"
MANIFEST_FIX = "Fix ggen.toml; ggen's example is what `ggen init` writes."
NO_PROJECT_FIX = "Name a folder that has a ggen.toml ({workspace}), or make a project there first ({init})."


class Words(NamedTuple):
    """What the caller's options are called: those of NO_PROJECT_FIX and ``args``, and how mounts are written."""

    names: Mapping[str, str]
    mounts: Callable[[List[Dict[str, str]]], str]


ROLE = Words(
    {"workspace": "ggen_run_workspace", "init": "ggen_run_args: init", "args": "ggen_run_args"},
    lambda mounts: f"ggen_run_mounts: {json.dumps(mounts)}",
)


def mount_advice(paths: Iterable[str], workspace: str, words: Words = ROLE) -> str:
    """Return the sentence that tells how to show the sandbox ``paths`` that lead out of ``workspace``."""
    mounts = words.mounts(mounts_for(paths, workspace))
    return f"The sandbox sees the workspace alone. Copy the file into it, or show it read-only with {mounts}"


def mounts_for(paths: Iterable[str], workspace: str) -> List[Dict[str, str]]:
    """Return the mounts, one a file, that put ``paths`` where ggen looks for them from inside the sandbox."""
    return [
        {
            "source": posixpath.normpath(posixpath.join(workspace or "WORKSPACE", path)),
            "target": posixpath.normpath(posixpath.join(WORKSPACE, path)),
        }
        for path in sorted(set(paths))
    ]


def leads_out(path: str) -> bool:
    """Tell whether a path in ggen.toml leads out of the workspace."""
    absolute = posixpath.normpath(posixpath.join(WORKSPACE, path))
    return absolute != WORKSPACE and not absolute.startswith(WORKSPACE + "/")
