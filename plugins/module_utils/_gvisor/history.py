# Copyright (c) 2026, the ggen.gvisor authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""The gVisor that a host has, what it had before, and what was brought with it: one file, written in the step that makes it true."""

from __future__ import annotations

import contextlib
import json
import os
from typing import Any, Dict, Iterable, List, Mapping, Optional, Sequence, Set

from ansible_collections.ggen.gvisor.plugins.module_utils._base.files import atomic_write, read_file, read_text, sha256_file
from ansible_collections.ggen.gvisor.plugins.module_utils._base.process import output_of

NAMES = ("runsc", "containerd-shim-runsc-v1")
COMMAND = "ggen-gvisor"  # beside them where it is wanted; no other gVisor has it
MEMBER = "ggen-gvisor-member"  # what members of a group begin with, where there is one
RULE = "/etc/sudoers.d/ggen-gvisor"  # of sudo, which allows it to them
INSTALLED = "installed.json"  # in the folder of the releases: what we brought, for uninstall, and what there was before, for going back
MARK = "(ggen.gvisor)"  # in the first line of an options file of ours


def read_installed(releases: str) -> Dict[str, Any]:
    """Return what ``installed.json`` in the folder of the releases says; one that is missing or damaged names nothing."""
    try:
        return dict(json.loads(read_text(os.path.join(releases, INSTALLED)) or "{}"))
    except (ValueError, TypeError):
        return {}


def write_installed(releases: str, entries: Mapping[str, Any]) -> None:
    """Write ``installed.json``, without the entries that are None, or remove it where none is left. The caller holds the lock on the folder. Raises OSError."""
    kept = {key: value for key, value in entries.items() if value is not None}
    path = os.path.join(releases, INSTALLED)
    text = json.dumps(kept, indent=4, sort_keys=True, ensure_ascii=False) + "\n"
    if not kept:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
    elif text.encode() != read_file(path):
        atomic_write(path, text.encode(), 0o644)


def recorded(installed: Mapping[str, Any], packages: Sequence[str], started: bool) -> Dict[str, Any]:
    """Return ``installed`` with the packages that are about to be installed, and whether containerd was there and is started by us.

    What another run has recorded meanwhile stays.
    """
    found = dict(installed)
    if packages:
        found["packages"] = [*found.get("packages", []), *(name for name in packages if name not in found.get("packages", []))]
    if started:
        found["started"] = True
    return found


def files_of(folder: str) -> Dict[str, Dict[str, str]]:
    """Return sha256 and mode of each file in a release's folder, by name; of one that is not there, nothing. Raises OSError.

    What goes while it is looked at, as another run's half-written files do, is not there.
    """
    found = {}
    for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
        path = os.path.join(folder, name)
        with contextlib.suppress(FileNotFoundError):
            if os.path.isfile(path):
                found[name] = _facts(path)
    return found


def _facts(path: str) -> Dict[str, str]:
    return {"sha256": sha256_file(path), "mode": f"{os.stat(path).st_mode & 0o7777:04o}"}


def linked(releases: str, links: Iterable[str]) -> Set[str]:
    """Return the releases that the links lead to; what leads elsewhere, or nowhere, tells none."""
    root = f"{os.path.realpath(releases)}/"
    targets = (os.path.realpath(path) for path in links)
    return {target[len(root) :].partition("/")[0] for target in targets if target.startswith(root)}


def current(releases: str, links: Mapping[str, str], options: Optional[str]) -> Optional[Dict[str, Any]]:
    """Return what is in use and can be come back to: ``release``, ``files`` (name to sha256 and mode), ``options`` (the options file's text).

    ``links`` are paths with the names of the programs that they should lead to. None where they do not all lead to whole programs of one
    release below ``releases``, or where there is no options file: that is not a state to come back to. Where there is no ggen-gvisor, none has to be.
    """
    root = os.path.realpath(releases)
    targets = {path: os.path.realpath(path) for path, name in links.items() if name != COMMAND or os.path.islink(path)}
    folders = {os.path.dirname(target) for target in targets.values()}
    if len(folders) != 1 or any(os.path.basename(target) != links[path] or not os.path.isfile(target) for path, target in targets.items()):
        return None
    (folder,) = folders
    text = read_text(options) if options else ""
    if os.path.dirname(folder) != root or text is None:
        return None
    return {"release": os.path.basename(folder), "files": files_of(folder), "options": text}


def _previous(installed: Mapping[str, Any]) -> Dict[str, Any]:
    """Return what there was before the last switch; nothing where none is noted, or no longer."""
    return installed.get("previous") or {}


def noted(installed: Mapping[str, Any], now: Optional[Mapping[str, Any]], to: str) -> Dict[str, Any]:
    """Return ``installed`` with ``now`` as what there was before the switch to the release ``to``.

    What was previous until then is kept, as ``earlier``, until the switch has proven itself. Where a run ended in the middle of its switch, the host is
    between two states, or still in the first: what that run has noted is then what there was, also before this switch.
    """
    previous = _previous(installed)
    if "to" in previous and (now is None or _unfinished(previous, now["release"], to)):
        return {**installed, "previous": {**previous, "to": to}}
    if now is None:
        return dict(installed)
    earlier = _proven(previous)
    return {**installed, "previous": {**now, "to": to, **({"earlier": earlier} if earlier and earlier != now else {})}}


def _unfinished(previous: Mapping[str, Any], release: str, to: str) -> bool:
    """Tell whether the host still has the release that it had before the noted switch: its own options may be those of the next already."""
    return previous["release"] == release and (previous["to"] == to or previous["to"] != release)


def settled(installed: Mapping[str, Any], release: str) -> Dict[str, Any]:
    """Return ``installed`` after a switch to ``release`` that has proven itself: what was previous before it is forgotten.

    Where a run noted its switch away from ``release`` and ended before it, nothing was switched, and what was previous is that again.
    """
    previous = _previous(installed)
    if previous.get("to", release) != release and previous["release"] == release:
        return taken_back(installed)
    return {**installed, "previous": _proven(previous) or None}


def _proven(previous: Mapping[str, Any]) -> Dict[str, Any]:
    return {key: value for key, value in previous.items() if key not in ("earlier", "to")}


def taken_back(installed: Mapping[str, Any]) -> Dict[str, Any]:
    """Return ``installed`` after a switch that had not proven itself was taken back: what was previous before it is that again."""
    return {**installed, "previous": _previous(installed).get("earlier")}


def unneeded(releases: str, installed: Mapping[str, Any], keep: Sequence[str]) -> List[str]:
    """Return the folders of releases that are none of ``keep``, not the previous one, and that no process runs a file of."""
    if not os.path.isdir(releases):
        return []
    previous = _previous(installed)
    needed = {*keep, *releases_in_use(releases), previous.get("release"), previous.get("earlier", {}).get("release")}
    with os.scandir(releases) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False) and entry.name not in needed)


def releases_in_use(releases: str) -> List[str]:
    """Return the releases that some process runs a file of: a sandbox keeps the one that it started from."""
    root = f"{os.path.realpath(releases)}/"
    installed = {}
    for folder, _folders, names in os.walk(root):
        for name in names:
            with contextlib.suppress(FileNotFoundError):  # another run's half-written file has its name now
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
    """Describe the installed gVisor: releases with their files, the links in use, ``installed.json``, and what of gVisor is somebody else's."""
    folders = sorted(entry.name for entry in os.scandir(releases) if entry.is_dir()) if os.path.isdir(releases) else []
    files = {folder: files_of(os.path.join(releases, folder)) for folder in folders}
    places = {name: os.path.join(bin_folder, name) for name in (*NAMES, COMMAND)}
    links = {name: os.path.realpath(path) for name, path in places.items() if os.path.lexists(path)}
    # Another ggen-gvisor is a copy of the same command, and gives way.
    foreign = [
        places[name] for name, target in links.items() if name != COMMAND and not target.startswith(f"{os.path.realpath(releases)}/")
    ]
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
        "members": {
            kind: _facts(path) for kind, path in (("program", os.path.join(bin_folder, MEMBER)), ("rule", RULE)) if os.path.isfile(path)
        },
        "runsc_version": output_of(runsc, "--version").partition("\n")[0] if runsc else None,
        "runsc_config": options,
        "runsc_config_sha256": sha256_file(runsc_config) if options is not None else None,
        "installed": read_installed(releases),
    }
