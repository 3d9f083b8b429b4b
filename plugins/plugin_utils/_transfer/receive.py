# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From a build host to the controller: nothing that came is believed before it was compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._base.tar import FILE, Reader, Trust


def unpack(archive: str, folder: str, manifests: Sequence[Mapping[str, Any]], host: str) -> None:
    """Write the files that the manifests list, by the archive's order, and nothing else. Their sizes bound what is written.

    Raises GvisorError.
    """
    wanted = {f"{number}/{name}": entry for number, manifest in enumerate(manifests) for name, entry in manifest["files"].items()}
    trust = Trust(frozenset({FILE}), entries=len(wanted), gzip=True)
    with Reader(
        archive, trust, lambda what: GvisorError(f"what {host} sent is not what its manifests list: {what}; nothing was filed")
    ) as sent:
        for name, member in sent:
            entry = wanted.pop(name, None)
            if entry is None or member.size != entry["size"]:
                raise GvisorError(f"{host} sent {name!r} with {member.size} bytes, which no manifest lists so; nothing was filed")
            path = Path(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as output:
                output.writelines(sent.blocks(name, member))
            path.chmod(0o755 if entry["mode"] == "0755" else 0o644)
    if wanted:
        raise GvisorError(f"{host} did not send {', '.join(sorted(wanted))}; nothing was filed, run again")
