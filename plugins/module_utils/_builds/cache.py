# Copyright (c) 2026, the ggen.gvisor authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""Build results, filed under a hash of everything they were made from.

An object of the cache is a folder ``objects/<key>/`` with the files and a manifest; it appears by one rename and is
never written again. Documents about a build (SBOM, provenance) join it as a new object in its place. Nothing is believed
because of its name: every use compares each file with the manifest, and the manifest with the key.

Runs at the same time share cache and destinations. Two locks keep each from what another one has half done: an object's, held while it is
exchanged or copied, and the one on the destination itself (``result_folder``). Whoever needs both takes the object's first.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import os
import shutil
import tempfile
from typing import Any, Dict, Mapping, Optional, Sequence

from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._base.files import (
    CHUNK,
    atomic_symlink,
    atomic_write,
    locked_file,
    sha256_file,
    staged,
)
from ansible_collections.ggen.gvisor.plugins.module_utils._builds.manifest import (
    MANIFEST,
    Artifact,
    describe,
    differing,
    key_of,
    read_manifest,
    resolve_inputs,
    unexpected,
    verified,
)
from ansible_collections.ggen.gvisor.plugins.module_utils._builds.result_folder import reading, writing


def cache_root() -> str:
    """Return the cache's default folder."""
    return os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "ggen.gvisor")


class Cache:
    """The cache in folder ``root``. With ``dry`` nothing is written anywhere."""

    def __init__(self, root: str, dry: bool = False) -> None:
        self.root = root
        self.dry = dry

    def restore(self, artifact: Artifact) -> Dict[str, Any]:
        """Bring the artifact's files into its dest if they are there already or in the cache.

        Returns ``key``, ``hit``, ``changed``, ``files``, ``manifest``, ``before`` and ``after`` (names to sha256, for a
        diff).
        """
        made_from = resolve_inputs(artifact)
        key = key_of(made_from)
        result = {"name": artifact.name, "key": key, "dest": artifact.dest, "hit": True, "changed": False}
        with reading(artifact.dest):
            manifest = verified(artifact.dest, key, artifact.expected)
        if manifest is not None:
            # A cache that lost the object (or never had it: a copied bin/) is not filled here: dest serves as well.
            sums = _sums(manifest)
            result.update(files=manifest["files"], manifest=manifest, before=sums, after=dict(sums))
        else:
            with self._held(key):  # from the look at the object to the last byte copied, nobody may replace it
                found = self._find(key, artifact.expected)
                with reading(artifact.dest) if found is None or self.dry else writing(artifact.dest):
                    before = _sums(read_manifest(artifact.dest))
                    # Another run may have been faster while we waited, and have brought documents that the object lacks.
                    manifest = verified(artifact.dest, key, artifact.expected)
                    result["changed"] = manifest is None and found is not None
                    manifest = manifest or found
                    if manifest is None:
                        result.update(hit=False, files={}, manifest=None, before=before, after=before)
                        return result
                    if result["changed"]:
                        for name in differing(artifact.dest, manifest["files"]):
                            before[name] = _sum_of(os.path.join(artifact.dest, name))
                        self._place(self._object(key), manifest, artifact.dest)
            result.update(files=manifest["files"], manifest=manifest, before=before, after=_sums(manifest))
        result["changed"] |= self._link(artifact, result)
        return result

    def store(self, artifact: Artifact) -> Dict[str, Any]:
        """File the build in ``artifact.source`` and bring it into dest. Returns what restore() does.

        Raises GvisorError when the build is empty or has other sums than ``artifact.expected``; nothing is stored then.
        """
        made_from = resolve_inputs(artifact)
        key = key_of(made_from)
        source = artifact.source
        if not source:
            raise GvisorError(f"{artifact.name}: state=stored needs source, the folder that the build left its files in")
        if self.dry and not os.path.isdir(source):  # check mode: the build before this did not happen
            return {
                **{"name": artifact.name, "key": key, "dest": artifact.dest, "hit": False, "changed": True},
                **{"files": {}, "manifest": None, "before": {}, "after": {}},
            }
        files = describe(source)
        wrong = unexpected(files, artifact.expected)
        if wrong:
            raise GvisorError(
                f"{artifact.name}: the build in {source} is not the expected one, and was not stored. " + "; ".join(wrong),
                wrong=wrong,
            )
        manifest = {
            "name": artifact.name,
            "key": key,
            "made_from": made_from,
            "files": files,
            "metadata": artifact.metadata,
        }
        present = verified(self._object(key), key, artifact.expected)
        changed = present is None or present["files"] != files or present["metadata"] != artifact.metadata
        if changed and not self.dry:
            with self._lock(key):
                self._file(source, manifest)
        result = self.restore(artifact)
        if self.dry:
            result.update(files=files, manifest=manifest, after=_sums(manifest))
        result["changed"] |= changed
        return result

    def describe(self, artifact: Artifact) -> Dict[str, Any]:
        """Add the artifact's documents to the build in its dest, and to the cache. Returns what restore() does.

        The build's own files and its key stay. Raises GvisorError when dest does not hold the build.
        """
        key = key_of(resolve_inputs(artifact))
        documents = {name: text.encode() for name, text in artifact.documents.items()}
        entries = {
            name: {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "mode": "0644"} for name, data in documents.items()
        }
        alone = self.dry or not os.path.isdir(artifact.dest)  # where there is no build, none is made
        with contextlib.nullcontext() if alone else self._lock(key), reading(artifact.dest) if alone else writing(artifact.dest):
            manifest = verified(artifact.dest, key, artifact.expected)
            if manifest is None and self.dry:  # check mode: the files did not come from the cache
                manifest = {"files": {}}
            if manifest is None:
                raise GvisorError(f"{artifact.name}: {artifact.dest} does not hold the build that the documents are of; run again")
            described = {**manifest, "files": {**manifest["files"], **entries}}
            changed = described != manifest
            if changed and not self.dry:
                with tempfile.TemporaryDirectory(dir=self._scratch(), prefix="documents.") as folder:
                    for name, data in documents.items():
                        atomic_write(os.path.join(folder, name), data, 0o644)
                    self._place(folder, described, artifact.dest)
                self._file(artifact.dest, described)
        return {
            **{"name": artifact.name, "key": key, "dest": artifact.dest, "hit": True, "changed": changed},
            **{"files": described["files"], "manifest": described, "before": _sums(manifest), "after": _sums(described)},
        }

    def _object(self, key: str) -> str:
        return os.path.join(self.root, "objects", key)

    def _find(self, key: str, expected: Mapping[str, str]) -> Optional[Dict[str, Any]]:
        folder = self._object(key)
        manifest = verified(folder, key, expected)
        if manifest is None and os.path.isdir(folder) and not self.dry:
            self._discard(folder)
        return manifest

    def _held(self, key: str) -> "contextlib.AbstractContextManager[None]":
        """Return the object's lock; where there are no objects, or nothing may be written, there is nothing to hold."""
        if self.dry or not os.path.isdir(os.path.dirname(self._object(key))):
            return contextlib.nullcontext()
        return self._lock(key)

    def _file(self, source: str, manifest: Mapping[str, Any]) -> None:
        """Make the object of the files in ``source``. The caller holds its lock."""
        os.makedirs(os.path.join(self.root, "objects"), exist_ok=True)
        staging = tempfile.mkdtemp(dir=self._scratch(), prefix="object.")
        try:
            os.chmod(staging, 0o755)  # noqa: S103 - mkdtemp's 0700 would keep other users out
            for name, entry in manifest["files"].items():
                _copy(os.path.join(source, name), os.path.join(staging, name), entry)
            _write_manifest(staging, manifest)
            target = self._object(manifest["key"])
            if verified(target, manifest["key"], {}) != manifest:  # otherwise another run was faster
                self._discard(target)
                os.rename(staging, target)
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    def _discard(self, folder: str) -> None:
        if os.path.lexists(folder):
            grave = tempfile.mkdtemp(dir=self._scratch(), prefix="discarded.")
            os.rename(folder, os.path.join(grave, "object"))
            shutil.rmtree(grave, ignore_errors=True)

    def _place(self, folder: str, manifest: Mapping[str, Any], dest: str) -> None:
        """Bring an object into dest, whose lock the caller holds: file by file by rename, the manifest last. One that would no longer be true
        goes first, so that a manifest vouches for all, whenever this is killed."""
        if self.dry:
            return
        earlier = read_manifest(dest)
        files = earlier["files"] if earlier else {}
        if any(manifest["files"].get(name) != entry for name, entry in files.items()):
            os.unlink(os.path.join(dest, MANIFEST))
        for name in set(files) - set(manifest["files"]):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(dest, name))
        for name in differing(dest, manifest["files"]):
            _remove_leftovers(os.path.join(dest, name))
            _copy(os.path.join(folder, name), os.path.join(dest, name), manifest["files"][name])
        _write_manifest(dest, manifest)

    def _link(self, artifact: Artifact, result: Dict[str, Any]) -> bool:
        """Let each of the artifact's links lead to its file. Returns whether one had to change."""
        changed = False
        for path, name in sorted(artifact.links.items()):
            if name not in result["files"]:
                raise GvisorError(f"{artifact.name}: the link {path} should lead to {name}, which the build does not have")
            target = os.path.relpath(os.path.join(artifact.dest, name), os.path.dirname(path))
            present = os.readlink(path) if os.path.islink(path) else None
            if present is None and os.path.lexists(path):
                raise GvisorError(f"{path} is no link of ours: move it away, it should become a link to {target}")
            result["before"][path], result["after"][path] = present, target
            if present != target:
                changed = True
                if not self.dry:
                    os.makedirs(os.path.dirname(path), exist_ok=True)
                    atomic_symlink(target, path)
        return changed

    def _scratch(self) -> str:
        folder = os.path.join(self.root, "tmp")
        os.makedirs(folder, exist_ok=True)
        return folder

    def _lock(self, name: str) -> "contextlib.AbstractContextManager[None]":
        return locked_file(os.path.join(self.root, "locks", name))


def _copy(source: str, target: str, entry: Mapping[str, Any]) -> None:
    """Copy a file by way of a temporary one, and look at what was really copied."""
    folder = os.path.dirname(target)
    os.makedirs(folder, exist_ok=True)
    with staged(folder, os.path.basename(target), int(entry["mode"], 8)) as new:
        with open(source, "rb") as data:
            shutil.copyfileobj(data, new.stream, CHUNK)
        new.stream.flush()
        if sha256_file(new.path) != entry["sha256"]:
            raise GvisorError(f"{source} changed while it was copied to {target}; run again")
        new.keep(target)


def _remove_leftovers(target: str) -> None:
    """Remove temporary files of copies to ``target`` that were killed; the lock tells that no other one is at work."""
    for path in glob.glob(os.path.join(glob.escape(os.path.dirname(target)), f".{glob.escape(os.path.basename(target))}.????????")):
        os.unlink(path)


def _write_manifest(folder: str, manifest: Mapping[str, Any]) -> None:
    text = json.dumps(manifest, sort_keys=True, indent=2, ensure_ascii=False) + "\n"
    atomic_write(os.path.join(folder, MANIFEST), text.encode(), 0o644)


def _sums(manifest: Optional[Mapping[str, Any]]) -> Dict[str, Optional[str]]:
    return {name: entry["sha256"] for name, entry in manifest["files"].items()} if manifest else {}


def _sum_of(path: str) -> Optional[str]:
    try:
        return sha256_file(path)
    except OSError:
        return None


def diff_of(results: Sequence[Mapping[str, Any]]) -> Dict[str, Any]:
    """Return the ``diff`` of a task's result, one line a file that differs; without any there is none."""
    before, after = [], []
    for result in results:
        for name in sorted({**result["before"], **result["after"]}):
            old, new = result["before"].get(name), result["after"].get(name)
            path = os.path.join(result["dest"], name)
            if old != new:
                before += [f"{path} {old}"] if old else []
                after += [f"{path} {new}"] if new else []
    texts = {side: "".join(f"{line}\n" for line in lines) for side, lines in (("before", before), ("after", after))}
    return {"diff": {"before_header": "build results", "after_header": "build results", **texts}} if before or after else {}


# --- what the module and its action plugin share ---


ARTIFACT = {
    "name": {"type": "str", "required": True},
    "inputs": {"type": "dict", "default": {}},
    "dest": {"type": "path", "required": True},
    "expected": {"type": "dict", "default": {}},
    "links": {"type": "dict", "default": {}},
    "source": {"type": "path"},
    "metadata": {"type": "dict", "default": {}},
    "documents": {"type": "dict", "default": {}},
}


def artifact_of(values: dict) -> Artifact:
    """Return the artifact that the options describe, with absolute paths."""
    links = {os.path.abspath(path): name for path, name in values["links"].items()}
    return Artifact(**{**values, "dest": os.path.abspath(values["dest"]), "links": links})


ARGUMENT_SPEC = {
    "state": {"type": "str", "choices": ["restored", "stored", "described"], "default": "restored"},
    "cache": {"type": "path"},
    "artifacts": {"type": "list", "elements": "dict", "required": True, "options": ARTIFACT},
    "controller": {"type": "bool", "default": False},
}


def perform(params: Dict[str, Any], check_mode: bool) -> Dict[str, Any]:
    """Restore, store or describe each artifact and return the result. Raises GvisorError."""
    root = os.path.abspath(params["cache"] or cache_root())
    cache = Cache(root, dry=check_mode)
    bring = {"restored": cache.restore, "stored": cache.store, "described": cache.describe}[params["state"]]
    try:
        results = [bring(artifact_of(values)) for values in params["artifacts"]]
    except OSError as error:
        raise GvisorError(f"{error.filename or root}: {error.strerror}") from error
    return {**answer_of(results), "cache": root, "misses": [result["name"] for result in results if not result["hit"]], **diff_of(results)}


def answer_of(results: Sequence[Mapping[str, Any]]) -> Dict[str, Any]:
    """Return what a task tells of the artifacts that were brought into place."""
    told = [{name: result[name] for name in result if name not in ("before", "after")} for result in results]
    return {"changed": any(result["changed"] for result in results), "artifacts": told}
