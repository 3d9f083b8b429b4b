# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""ggen.toml: which files it names, and whether ggen can work with it in a sandbox that shows the workspace alone."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from typing import Any

import tomllib
from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._ggen.advice import (
    MANIFEST_FIX,
    NO_PROJECT_FIX,
    ROLE,
    leads_out,
    mount_advice,
    mounts_for,
)


def outside(manifest: Mapping[str, Any], folder: str = "") -> list[str]:
    """Return the paths in a parsed ggen.toml that lead out of the workspace, sorted; ``folder`` is the manifest's place in it.

    Only what ggen opens counts: it does not follow owl:imports.
    """
    ontology, generation = _table(manifest, "ontology"), _table(manifest, "generation")
    paths = [ontology.get("source"), *_list(ontology, "imports"), *_list(_table(manifest, "validation"), "shacl")]
    for rule in _list(generation, "rules"):
        if isinstance(rule, Mapping):
            paths += [_table(rule, "query").get("file"), _table(rule, "template").get("file")]
    names = {posixpath.normpath(posixpath.join(folder, path)) for path in paths if isinstance(path, str) and path}
    return sorted(filter(leads_out, names))


def outputs_outside(manifest: Mapping[str, Any], folder: str = "") -> list[str]:
    """Return the outputs in a parsed ggen.toml that lead out of the workspace, sorted; ggen and the sandbox refuse them."""
    generation = _table(manifest, "generation")
    base = posixpath.join(folder, str(generation.get("output_dir") or "."))
    files = [rule.get("output_file") for rule in _list(generation, "rules") if isinstance(rule, Mapping)]
    names = {posixpath.normpath(posixpath.join(base, path)) for path in [".", *files] if isinstance(path, str)}
    return sorted(filter(leads_out, names))


def _table(holder: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = holder.get(key)
    return value if isinstance(value, Mapping) else {}


def _list(holder: Mapping[str, Any], key: str) -> list[Any]:
    value = holder.get(key)
    return value if isinstance(value, list) else []


def check_manifest(text: str | None, job: Mapping[str, Any]) -> None:
    """Raise GvisorError when ``text``, the manifest of ``job``, is none or names files outside of the workspace that no mount shows."""
    path, name = job["path"], job["manifest"]
    if text is None:
        raise GvisorError(f"{path} is no ggen project: there is no {name} that can be read. {NO_PROJECT_FIX.format(**ROLE.names)}")
    try:
        manifest = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise GvisorError(f"{name} is no valid TOML: {error}. {MANIFEST_FIX}") from error
    missing = [table for table in ("project", "ontology", "generation") if not _table(manifest, table)]
    if missing:
        raise GvisorError(f"{name} is no ggen manifest: it has no [{'], ['.join(missing)}]. {MANIFEST_FIX}")
    folder = posixpath.relpath(posixpath.dirname(name), path)
    outputs = outputs_outside(manifest, folder)
    if outputs:
        raise GvisorError(
            f"{name} writes outside of the workspace: {', '.join(outputs)}. Use paths inside it for output_dir and output_file."
        )
    targets = [str(mount.get("target", "")).rstrip("/") for mount in job.get("mounts") or ()]
    hidden = [
        item
        for item in outside(manifest, folder)
        if not any(f"{mounts_for([item], path)[0]['target']}/".startswith(f"{target}/") for target in targets)
    ]
    if hidden:
        raise GvisorError(f"{name} names files outside of the workspace: {', '.join(hidden)}. {mount_advice(hidden, path)}")
