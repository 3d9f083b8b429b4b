# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From a build host to the controller: nothing that came is believed before it was compared."""

from __future__ import annotations

import os
import tarfile
import tempfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._builds.cache import (
    Artifact,
    Cache,
    differing,
    key_of,
    resolve_inputs,
    valid_manifest,
)


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
        _unpack(archive, folder, manifests, host)
        for number, (artifact, manifest) in enumerate(zip(artifacts, manifests)):
            wrong = differing(os.path.join(folder, str(number)), manifest["files"])
            if wrong:
                raise GvisorError(f"{artifact.name}: {', '.join(wrong)} came from {host} other than its manifest says; run again")
        keeper = Cache(cache)
        return [
            keeper.store(artifact._replace(source=os.path.join(folder, str(number)), metadata=manifest["metadata"]))
            for number, (artifact, manifest) in enumerate(zip(artifacts, manifests))
        ]


def _unpack(archive: str, folder: str, manifests: Sequence[Mapping[str, Any]], host: str) -> None:
    """Write the files that the manifests list, by the archive's order, and nothing else. Their sizes bound what is written."""
    wanted = {f"{number}/{name}": entry for number, manifest in enumerate(manifests) for name, entry in manifest["files"].items()}
    try:
        with tarfile.open(archive, "r|gz") as stream:
            for member in stream:
                entry = wanted.pop(member.name, None)
                if entry is None or not member.isreg() or member.size != entry["size"]:
                    raise GvisorError(
                        f"{host} sent {member.name!r} with {member.size} bytes, which no manifest lists so; nothing was filed"
                    )
                path = Path(folder, member.name)
                path.parent.mkdir(parents=True, exist_ok=True)
                data = stream.extractfile(member)
                with path.open("xb") as output:
                    for block in iter(lambda data=data: data.read(1 << 20), b""):
                        output.write(block)
                path.chmod(0o755 if entry["mode"] == "0755" else 0o644)
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise GvisorError(f"what {host} sent is damaged ({error}); nothing was filed, run again") from error
    if wanted:
        raise GvisorError(f"{host} did not send {', '.join(sorted(wanted))}; nothing was filed, run again")
