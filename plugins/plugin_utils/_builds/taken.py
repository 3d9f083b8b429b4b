# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Builds from a release instead of compilers: what was compared in full is filed, as if it had been built here, or nothing is."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._base.files import staged
from ansible_collections.ggen.gvisor.plugins.module_utils._base.text import megabytes
from ansible_collections.ggen.gvisor.plugins.module_utils._builds.cache import Cache
from ansible_collections.ggen.gvisor.plugins.module_utils._builds.download import File, below, folder_of, read, save
from ansible_collections.ggen.gvisor.plugins.module_utils._builds.manifest import (
    MANIFEST,
    Artifact,
    differing,
    key_of,
    resolve_inputs,
    unexpected,
    valid_manifest,
)
from ansible_collections.ggen.gvisor.plugins.module_utils._builds.release_index import INDEX, MAX_INDEX, Row, parsed, rows

# A build's manifest to the texts that belong beside it, by their files' names.
Documents = Callable[[Mapping[str, Any]], Mapping[str, str]]


class Release:
    """The release at an address or path, whose index has the sha256 that somebody trusted vouches for."""

    def __init__(self, url: str, sha256: str) -> None:
        """Read the index. Raises GvisorError unless it is the one with that sum, and one of ours."""
        if not url:
            raise GvisorError("no release is named. Set gvisor_release_url to its address or folder.")
        if not re.fullmatch("[0-9a-f]{64}", sha256.lower()):
            raise GvisorError(
                "the sha256 of the release's index is not given, and nothing else says whose it is. "
                "Set gvisor_release_sha256 to what playbook release.yml printed when it was made."
            )
        self.folder = folder_of(url)
        index = below(self.folder, INDEX)
        data = self._said(lambda: read(index, File(sha256.lower(), MAX_INDEX)))
        try:
            self.rows = list(rows(parsed(data)))
        except GvisorError as error:
            raise GvisorError(f"{index} is not the index of a release: {error.message}. {NOTHING}") from error

    def row_of(self, artifact: Artifact) -> Row | None:
        """Return the build of exactly the artifact's inputs."""
        key = key_of(resolve_inputs(artifact))
        return next((row for row in self.rows if row.key == key), None)

    def missing(self, artifacts: Sequence[Artifact]) -> str:
        """Return what to say of builds that it does not have."""
        names = ", ".join(f"{artifact.name} ({_label(artifact)})" for artifact in artifacts)
        there = ", ".join(row.label for row in self.rows) or "nothing"
        # The same label with another key: somebody else's inputs.
        others = {_label(artifact) for artifact in artifacts} & {row.label for row in self.rows}
        fix = (
            f"Its {', '.join(sorted(others))} was made from other pins or options than this checkout's: take a release of the same version of the collection."
            if others
            else "Name a release that has it, or build it (runsc_build_source, ggen_build_source)."
        )
        return f"the release {self.folder} has no {names}; it has {there}. {fix} {NOTHING}"

    def manifest(self, artifact: Artifact, row: Row, documents: Documents) -> dict[str, Any]:
        """Return the build's manifest. Raises GvisorError unless it, the index, the pins and the provenance say the same."""
        place = below(self.folder, f"{row.folder}/{MANIFEST}")
        manifest = valid_manifest(_json(self._said(lambda: read(place, _file(row.files[MANIFEST])))))
        files = {name: entry for name, entry in row.files.items() if name != MANIFEST}
        if manifest is None or manifest["key"] != row.key or manifest["files"] != files or manifest["name"] != artifact.name:
            raise GvisorError(f"{place} does not fit to the release's index. {NOTHING}")
        wrong = unexpected(files, artifact.expected)
        if wrong:
            raise GvisorError(
                f"{artifact.name}: the release has other programs than everybody's build gives: {'; '.join(wrong)}. {NOTHING}"
            )
        told = manifest.get("metadata", {})
        strange = sorted(name for name, value in artifact.metadata.items() if told.get(name) != value)
        if strange:
            raise GvisorError(f"{place}: its {', '.join(strange)} is not what the pins of this collection say. {NOTHING}")
        self._compare(artifact, manifest, documents)
        return manifest

    def _compare(self, artifact: Artifact, manifest: Mapping[str, Any], documents: Documents) -> None:
        """Refuse provenance that is not the one which follows from the manifest and the pins."""
        try:
            expected = documents(manifest)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise GvisorError(f"{artifact.name}: no provenance follows from its manifest in the release ({error!r}). {NOTHING}") from error
        sums = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in expected.items()}
        wrong = unexpected(manifest["files"], sums)
        if wrong:
            raise GvisorError(
                f"{artifact.name}: the release's provenance is not what follows from its inputs and this collection's pins: {'; '.join(wrong)}. {NOTHING}"
            )

    def download(self, row: Row, manifest: Mapping[str, Any], folder: str) -> None:
        """Leave the build's files in ``folder``. Raises GvisorError, and OSError where writing fails."""
        os.makedirs(folder)
        for name, entry in sorted(manifest["files"].items()):
            with staged(folder, name, int(entry["mode"], 8)) as new:
                place = below(self.folder, f"{row.folder}/{name}")
                self._said(lambda place=place, entry=entry, new=new: save(place, _file(entry), new.stream))
                new.keep(os.path.join(folder, name), durable=False)

    @staticmethod
    def _said(get: Callable[[], Any]) -> Any:
        try:
            return get()
        except GvisorError as error:
            raise GvisorError(f"{error.message}. {NOTHING}") from error


NOTHING = "Nothing was taken from the release."


def _file(entry: Mapping[str, Any]) -> File:
    return File(entry["sha256"], entry["size"], entry["size"])


def _label(artifact: Artifact) -> str:
    parts = artifact.dest.rstrip("/").split("/")
    return "/".join(parts[-2:]).replace("/linux_", "/")


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def take(
    release: Release, artifacts: Sequence[Artifact], cache: str, documents: Documents, *, dry: bool, tell: Callable[[str], Any]
) -> list[dict[str, Any]]:
    """File the artifacts' builds and bring them into place, and return what build_cache does. With ``dry`` only say so.

    ``tell`` shows a user what takes its time. Raises GvisorError and OSError; nothing is filed then.
    """
    found = [(artifact, release.row_of(artifact)) for artifact in artifacts]
    missing = [artifact for artifact, row in found if row is None]
    if missing:
        raise GvisorError(release.missing(missing))
    planned = [(artifact, row, release.manifest(artifact, row, documents)) for artifact, row in found if row is not None]
    if dry:
        return [_promised(artifact, manifest) for artifact, _row, manifest in planned]
    scratch = Path(cache, "tmp")
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=scratch, prefix="taken.") as folder:
        for number, (artifact, row, manifest) in enumerate(planned):
            place = os.path.join(folder, str(number))
            size = sum(entry["size"] for entry in manifest["files"].values())
            tell(f"taking {artifact.name} ({megabytes(size)}) from {release.folder}")
            release.download(row, manifest, place)
            if differing(place, manifest["files"]):
                raise GvisorError(f"{artifact.name} changed while it was taken from the release; run again. {NOTHING}")
        keeper = Cache(cache)
        return [
            keeper.store(artifact._replace(source=os.path.join(folder, str(number)), metadata=manifest["metadata"]))
            for number, (artifact, _row, manifest) in enumerate(planned)
        ]


def _promised(artifact: Artifact, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return what check mode tells of a build that would be taken."""
    after = {name: entry["sha256"] for name, entry in manifest["files"].items()}
    same = not differing(artifact.dest, manifest["files"])
    return {
        **{"name": artifact.name, "key": manifest["key"], "dest": artifact.dest, "hit": False, "changed": not same},
        **{"files": manifest["files"], "manifest": dict(manifest), "before": after if same else {}, "after": after},
    }
