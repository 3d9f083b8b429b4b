# Copyright (c) 2026, the ggen.gvisor authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""What a build is made from and what it made: the key, and a manifest that tells whether its files are whole."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from typing import Any, Dict, List, Mapping, NamedTuple, Optional

from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._base.files import sha256_file

MANIFEST = "manifest.json"


SCHEMA = 1


class Artifact(NamedTuple):
    """What a build makes, and where its files belong."""

    name: str
    inputs: Mapping[str, Any]
    dest: str
    expected: Mapping[str, str] = {}
    links: Mapping[str, str] = {}
    source: Optional[str] = None
    metadata: Mapping[str, Any] = {}
    documents: Mapping[str, str] = {}


def canonical(value: Any) -> bytes:
    """Return the one JSON text of ``value``: keys sorted, no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def resolve_inputs(artifact: Artifact) -> Dict[str, Any]:
    """Return what the key is the hash of."""
    # The empty list is in the key of every build that there is: without it all would be built again.
    return {"name": artifact.name, "inputs": artifact.inputs, "input_files": [], "schema": SCHEMA}


def key_of(resolved: Mapping[str, Any]) -> str:
    """Return the key of resolved inputs: a sha256 in hex."""
    return hashlib.sha256(canonical(resolved)).hexdigest()


def describe(folder: str) -> Dict[str, Dict[str, Any]]:
    """Return sha256, size and mode of every file under ``folder`` by relative path, the manifest left out.

    The mode is 0755 or 0644, whatever the umask was: it is part of the manifest, which must not differ between
    machines. Raises GvisorError for anything but files and folders, and for an empty folder.
    """
    if os.path.islink(folder):  # a confined build can only write where it may, but a link of its leads the host anywhere
        raise GvisorError(f"{folder} is a link; a build's result holds files alone")
    files = {}
    for parent, _folders, names in os.walk(folder, onerror=_raise):
        for name in names:
            path = os.path.join(parent, name)
            relative = os.path.relpath(path, folder)
            if relative == MANIFEST:
                continue
            status = os.lstat(path)
            if not stat.S_ISREG(status.st_mode):
                raise GvisorError(f"{path} is not a regular file; a build's result holds files alone")
            mode = "0755" if status.st_mode & stat.S_IXUSR else "0644"
            files[relative] = {"sha256": sha256_file(path), "size": status.st_size, "mode": mode}
    if not files:
        raise GvisorError(f"the build left no files in {folder}")
    return files


def _raise(error: OSError) -> None:
    raise error


def read_manifest(folder: str) -> Optional[Dict[str, Any]]:
    """Return the folder's manifest, or None where there is none or it is not one of ours."""
    try:
        with open(os.path.join(folder, MANIFEST), encoding="utf-8") as stream:
            return valid_manifest(json.load(stream))
    except (OSError, ValueError):
        return None


def valid_manifest(manifest: Any) -> Optional[Dict[str, Any]]:
    """Return ``manifest`` if it is one of ours and names no file outside of its folder, else None."""
    try:
        if manifest["key"] != key_of(manifest["made_from"]):
            return None
        for name, entry in manifest["files"].items():
            if os.path.isabs(name) or ".." in name.split("/") or set(entry) != {"sha256", "size", "mode"}:
                return None
    except (KeyError, TypeError, AttributeError):
        return None
    return manifest


def differing(folder: str, files: Mapping[str, Mapping[str, Any]]) -> List[str]:
    """Return the names whose file under ``folder`` is missing or is not what ``files`` says, in order."""
    return sorted(name for name, entry in files.items() if not _same(os.path.join(folder, name), entry))


def _same(path: str, entry: Mapping[str, Any]) -> bool:
    try:
        status = os.lstat(path)
        return (
            stat.S_ISREG(status.st_mode)
            and status.st_size == entry["size"]
            and f"{stat.S_IMODE(status.st_mode):04o}" == entry["mode"]
            and sha256_file(path) == entry["sha256"]
        )
    except OSError:
        return False


def unexpected(files: Mapping[str, Mapping[str, Any]], expected: Mapping[str, str]) -> List[str]:
    """Return a line for each file whose sha256 is not the expected one."""
    found = {name: files[name]["sha256"] if name in files else "missing" for name in expected}
    return [f"{name}: {found[name]} instead of {expected[name]}" for name in sorted(expected) if found[name] != expected[name]]


def verified(folder: str, key: str, expected: Mapping[str, str]) -> Optional[Dict[str, Any]]:
    """Return the manifest of ``folder`` if it has this key and every file is as the manifest and ``expected`` say, else
    None."""
    manifest = read_manifest(folder)
    if manifest is None or manifest["key"] != key or unexpected(manifest["files"], expected):
        return None
    return None if differing(folder, manifest["files"]) else manifest
