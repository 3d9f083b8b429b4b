# Copyright (c) 2026, the ggen.gvisor authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""The gVisor that a host has: its releases, the links in use, and what was brought with them."""

from __future__ import annotations

import json
import os
from typing import Any, Dict, List

from ansible_collections.ggen.gvisor.plugins.module_utils._base.files import read_text, sha256_file
from ansible_collections.ggen.gvisor.plugins.module_utils._base.process import output_of

NAMES = ("runsc", "containerd-shim-runsc-v1")


MARK = "(ggen.gvisor)"  # in the first line of an options file of ours


def _ledger(path: str) -> Dict[str, Any]:
    """Return the ledger; one that is missing or damaged names nothing."""
    try:
        return dict(json.loads(read_text(path) or "{}"))
    except (ValueError, TypeError):
        return {}


def releases_in_use(releases: str) -> List[str]:
    """Return the releases that some process runs a file of: a sandbox keeps the one that it started from."""
    root = f"{os.path.realpath(releases)}/"
    installed = {}
    for folder, _folders, names in os.walk(root):
        for name in names:
            status = os.lstat(os.path.join(folder, name))
            installed[status.st_dev, status.st_ino] = os.path.join(folder, name)
    found = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            status, path = os.stat(f"/proc/{pid}/exe"), os.readlink(f"/proc/{pid}/exe")
        except OSError:
            continue  # it has ended, or is the kernel's own
        # By identity where a sandbox's own mounts make the path read otherwise, by path where the file was replaced since.
        path = installed.get((status.st_dev, status.st_ino), path)
        if path.startswith(root):
            found.add(path[len(root) :].partition("/")[0])
    return sorted(found)


def gvisor(releases: str, bin_folder: str, runsc_config: str) -> Dict[str, Any]:
    """Describe the installed gVisor: releases with their files, the links in use, the ledger, and what of gVisor is somebody else's."""
    folders = sorted(entry.name for entry in os.scandir(releases) if entry.is_dir()) if os.path.isdir(releases) else []
    files = {
        folder: {
            entry.name: {"sha256": sha256_file(entry.path), "mode": f"{entry.stat().st_mode & 0o7777:04o}"}
            for entry in os.scandir(os.path.join(releases, folder))
            if entry.is_file()
        }
        for folder in folders
    }
    places = {name: os.path.join(bin_folder, name) for name in NAMES}
    links = {name: os.path.realpath(path) for name, path in places.items() if os.path.lexists(path)}
    foreign = [places[name] for name, target in links.items() if not target.startswith(f"{os.path.realpath(releases)}/")]
    options = read_text(runsc_config)
    if options is not None and MARK not in options.partition("\n")[0]:
        foreign.append(runsc_config)
    runsc = links.get("runsc")
    return {
        "release": os.path.basename(os.path.dirname(runsc)) if runsc and places["runsc"] not in foreign else None,
        "links": links,
        "files": files,
        "in_use": releases_in_use(releases),
        "foreign": foreign,
        "runsc_version": output_of(runsc, "--version").partition("\n")[0] if runsc else None,
        "runsc_config": options,
        "runsc_config_sha256": sha256_file(runsc_config) if options is not None else None,
        "ledger": _ledger(os.path.join(releases, "ledger.json")),
    }
