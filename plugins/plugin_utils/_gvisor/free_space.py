# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a host has room for what it lacks, before anything is written there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def missing_space(space: Mapping[str, Mapping[str, Any]], needs: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return a sentence for each file system that is too full, with the folders, what is free and what is needed.

    ``space`` is containerd_info's: for each folder the ``free_mb`` and the ``device`` of its file system. Each of ``needs`` has a ``folder``, the ``mb``
    that go there, and ``what`` they are. Folders of one file system share its room. A folder that was not looked at has room.
    """
    devices: dict[Any, list[Mapping[str, Any]]] = {}
    for need in needs:
        if need["folder"] in space:
            devices.setdefault(space[need["folder"]]["device"], []).append(need)
    sentences = []
    for together in devices.values():
        free, needed = space[together[0]["folder"]]["free_mb"], sum(need["mb"] for need in together)
        if free < needed:
            folders = list(dict.fromkeys(need["folder"] for need in together))
            what = ", ".join(f"{need['what']} {need['mb']} MB" for need in together)
            verb = "have" if len(folders) > 1 else "has"
            sentences.append(
                f"The disk is full: {' and '.join(folders)} {verb} {free} MB free where {needed} MB are needed ({what}). Free space there "
                f"(df -h {' '.join(folders)}) and run this again."
            )
    return sentences
