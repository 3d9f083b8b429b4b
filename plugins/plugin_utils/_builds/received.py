# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Builds that came from a build host: nothing is believed or filed before it was compared."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._builds.cache import Cache
from ansible_collections.ggen.gvisor.plugins.module_utils._builds.manifest import (
    Artifact,
    differing,
    key_of,
    resolve_inputs,
    valid_manifest,
)
from ansible_collections.ggen.gvisor.plugins.plugin_utils._transfer.receive import unpack


def accepted(artifact: Artifact, manifest: Mapping[str, Any], host: str) -> dict[str, Any]:
    """Return ``manifest`` if it is a build of the artifact's inputs. Raises GvisorError."""
    valid = valid_manifest(manifest)
    if valid is None:
        raise GvisorError(f"{artifact.name}: the manifest that {host} sent is damaged; remove {artifact.source} there and build again")
    if valid["key"] != key_of(resolve_inputs(artifact)):
        raise GvisorError(
            f"{artifact.name}: {artifact.source} on {host} was built from other inputs than the controller's; is the collection there another one?"
        )
    return valid


def store(
    archive: str, artifacts: Sequence[Artifact], manifests: Sequence[Mapping[str, Any]], cache: str, host: str
) -> list[dict[str, Any]]:
    """File what the build host has packed, and return what build_cache does. Raises GvisorError or OSError; nothing is filed then.

    ``artifacts`` have the build host's folder as their source, and ``manifests`` are in their order.
    """
    manifests = [accepted(artifact, manifest, host) for artifact, manifest in zip(artifacts, manifests, strict=True)]
    scratch = Path(cache, "tmp")
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=scratch, prefix="fetched.") as folder:
        unpack(archive, folder, manifests, host)
        for number, (artifact, manifest) in enumerate(zip(artifacts, manifests)):
            wrong = differing(os.path.join(folder, str(number)), manifest["files"])
            if wrong:
                raise GvisorError(f"{artifact.name}: {', '.join(wrong)} came from {host} other than its manifest says; run again")
        keeper = Cache(cache)
        return [
            keeper.store(artifact._replace(source=os.path.join(folder, str(number)), metadata=manifest["metadata"]))
            for number, (artifact, manifest) in enumerate(zip(artifacts, manifests))
        ]
