# Copyright (c) 2026, the ggen.gvisor authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""A release: a folder with the results of builds for others to take, and the document that lists every file of it.

index.json says release, architecture, file; the file's place follows from that, so that no index can name one anywhere else. Whoever has the sha256 of
the index has everything below it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from typing import Any, Dict, Iterator, List, Mapping, NamedTuple, Sequence, Tuple

from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._base.files import atomic_write, read_file, sha256_of, staged
from ansible_collections.ggen.gvisor.plugins.module_utils._builds.manifest import MANIFEST, differing, read_manifest

SCHEMA = 1
INDEX, SUMS = "index.json", "SHA256SUMS"
MAX_INDEX = 1 << 20  # bytes; some 20000 are usual
MAX_FILE = 1 << 30  # bytes of one file; runsc has 80 MB
MAX_MANIFEST = 1 << 20  # bytes
MAX_FILES = 64  # of one build; nine are usual
# The index's parts, and the folder of each.
PARTS = {"releases": "bin", "images": "dist"}
IMAGE = "ggen_image"  # what the builds of the second part are called
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")  # a name that leads nowhere
_ARCH = re.compile(r"linux_([a-z0-9]{1,20})")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class Row(NamedTuple):
    """One build of a release."""

    folder: str  # in the release
    key: str
    files: Dict[str, Dict[str, Any]]  # its manifest among them

    @property
    def label(self) -> str:
        """What a message calls it."""
        return self.folder.partition("/")[2].replace("/linux_", "/")


def folder_of(part: str, release: str, arch: str) -> str:
    """Return a build's folder in the release."""
    return f"{PARTS[part]}/{release}/linux_{arch}"


def rows(index: Mapping[str, Any]) -> Iterator[Row]:
    """Give the builds of an index."""
    for part in PARTS:
        for release, builds in sorted(index[part].items()):
            for arch, build in sorted(builds.items()):
                yield Row(folder_of(part, release, arch), build["key"], build["files"])


def parsed(data: bytes) -> Dict[str, Any]:
    """Return the index if it has its form. Raises GvisorError that tells the first thing which is not so."""
    try:
        index = json.loads(data.decode())
        if index["schema"] != SCHEMA:
            raise GvisorError(f"its form is {index['schema']!r} and this version of the collection reads {SCHEMA}")
        if set(index) != {"schema", *PARTS}:
            raise GvisorError(f"it has {sorted(index)}")
        for part in PARTS:
            for release, builds in index[part].items():
                for arch, build in builds.items():
                    if not _WORD.fullmatch(release) or not _ARCH.fullmatch(f"linux_{arch}"):
                        raise GvisorError(f"{release!r} for {arch!r} is no name of a build")
                    _check(f"{release}/{arch}", build)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise GvisorError(f"it does not have its form ({error!r})") from error
    return index


def _check(name: str, build: Mapping[str, Any]) -> None:
    if not _SHA256.fullmatch(build["key"]) or not MAX_FILES >= len(build["files"]) > 1 or MANIFEST not in build["files"]:
        raise GvisorError(f"{name} is no build")
    for file, entry in build["files"].items():
        size = entry["size"]
        if not _WORD.fullmatch(file):
            raise GvisorError(f"{name} has {file!r}, which is no name of a build's file")
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= (MAX_MANIFEST if file == MANIFEST else MAX_FILE):
            raise GvisorError(f"{name}: {file} has {size!r} bytes")
        if set(entry) != {"sha256", "size", "mode"} or entry["mode"] not in ("0644", "0755") or not _SHA256.fullmatch(entry["sha256"]):
            raise GvisorError(f"{name}: of {file} it says {entry!r}")


def serialized(index: Mapping[str, Any]) -> bytes:
    """Return the one text of an index."""
    return (json.dumps(index, sort_keys=True, indent=1, ensure_ascii=False) + "\n").encode()


def sums_of(index: Mapping[str, Any]) -> bytes:
    """Return SHA256SUMS, for sha256sum --check: every file of the release but itself."""
    lines = [f"{entry['sha256']}  {row.folder}/{file}" for row in rows(index) for file, entry in row.files.items()]
    lines.append(f"{hashlib.sha256(serialized(index)).hexdigest()}  {INDEX}")
    return "".join(f"{line}\n" for line in sorted(lines, key=lambda line: line.partition("  ")[2])).encode()


# --- Writing ---------------------------------------------------------------------------------------------------------


def index_of(folders: Sequence[str]) -> Tuple[Dict[str, Any], Dict[str, str]]:
    """Return the index of the builds in ``folders``, each <release>/linux_<architecture>, and where each file of the release is now.

    Raises GvisorError for a folder without a whole build.
    """
    index: Dict[str, Any] = {"schema": SCHEMA, **{part: {} for part in PARTS}}
    sources = {}
    for folder in sorted(set(folders)):
        manifest = read_manifest(folder)
        if manifest is None:
            raise GvisorError(f"{folder} holds no build; build it first")
        wrong = differing(folder, manifest["files"])
        if wrong:
            raise GvisorError(f"{', '.join(wrong)} in {folder} changed since the build; run again to fix that")
        part = "images" if manifest["name"] == IMAGE else "releases"
        release, arch = os.path.basename(os.path.dirname(folder)), _ARCH.fullmatch(os.path.basename(folder))
        if arch is None:
            raise GvisorError(f"{folder} is no folder of a build, such as {release}/linux_amd64")
        text = read_file(os.path.join(folder, MANIFEST)) or b""
        files = {**manifest["files"], MANIFEST: {"sha256": hashlib.sha256(text).hexdigest(), "size": len(text), "mode": "0644"}}
        told = {"digest": manifest["metadata"]["digest"]} if part == "images" else {}
        index[part].setdefault(release, {})[arch[1]] = {"key": manifest["key"], "files": files, **told}
        sources.update({f"{folder_of(part, release, arch[1])}/{file}": os.path.join(folder, file) for file in files})
    return parsed(serialized(index)), sources


def write(path: str, folders: Sequence[str], dry: bool = False) -> Dict[str, Any]:
    """Make the release of the builds in ``folders`` at ``path``, the index last; what the index before listed and this one does not is removed.

    Returns ``changed``, ``sha256`` of the index, ``size`` in bytes of all files, ``index`` and the names ``before`` and ``after`` with their sums.
    Raises GvisorError and OSError.
    """
    index, sources = index_of(folders)
    listed = {f"{row.folder}/{file}": entry for row in rows(index) for file, entry in row.files.items()}
    documents = {SUMS: sums_of(index), INDEX: serialized(index)}
    before = _before(path)
    wrong = differing(path, listed)
    stale = sorted(set(before) - set(listed))
    changed = bool(wrong or stale) or any(read_file(os.path.join(path, name)) != data for name, data in documents.items())
    if changed and not dry:
        for name in wrong:
            _copy(sources[name], os.path.join(path, name), listed[name])
        os.makedirs(path, exist_ok=True)
        for name, data in documents.items():
            atomic_write(os.path.join(path, name), data, 0o644)
        _remove(path, stale)
    return {
        **{"changed": changed, "sha256": hashlib.sha256(documents[INDEX]).hexdigest(), "index": index},
        **{"size": sum(entry["size"] for entry in listed.values())},
        **{"before": {name: sha256 for name, sha256 in before.items() if name not in wrong}},
        **{"after": {name: entry["sha256"] for name, entry in listed.items()}},
    }


def _before(path: str) -> Dict[str, str]:
    """Return the sums of the release that is there by its own index; without a readable one there is none."""
    try:
        index = parsed(read_file(os.path.join(path, INDEX)) or b"")
    except GvisorError:
        return {}
    return {f"{row.folder}/{file}": entry["sha256"] for row in rows(index) for file, entry in row.files.items()}


def _copy(source: str, target: str, entry: Mapping[str, Any]) -> None:
    folder = os.path.dirname(target)
    os.makedirs(folder, exist_ok=True)
    with staged(folder, os.path.basename(target), int(entry["mode"], 8)) as new, open(source, "rb") as data:
        if sha256_of(data, new.stream.write, entry["size"]) != entry["sha256"]:
            raise GvisorError(f"{source} changed while it was copied; run again")
        new.keep(target)


def _remove(path: str, names: List[str]) -> None:
    for name in names:
        target = os.path.join(path, name)
        if os.path.lexists(target):
            os.unlink(target)
        folder = os.path.dirname(target)
        while folder != path and os.path.isdir(folder) and not os.listdir(folder):
            os.rmdir(folder)
            folder = os.path.dirname(folder)
