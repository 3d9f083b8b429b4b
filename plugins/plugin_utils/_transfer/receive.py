# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From a build host to the controller: nothing that came is believed before it was compared."""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError


def unpack(archive: str, folder: str, manifests: Sequence[Mapping[str, Any]], host: str) -> None:
    """Write the files that the manifests list, by the archive's order, and nothing else. Their sizes bound what is written.

    Raises GvisorError.
    """
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
