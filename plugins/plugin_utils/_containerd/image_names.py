# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The names of an image in containerd over its life: latest, what was latest before, and what no name of ours keeps any longer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def image_names(
    images: Mapping[str, Mapping[str, str]],
    name: str,
    namespaces: Iterable[str],
    digest: str,
    remembered: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return what becomes of the names of the image ``name`` when the one with ``digest`` is imported.

    ``images`` is containerd_info's: by namespace, full name to manifest digest. ``remembered`` has, by namespace, the digest that was latest before
    the host's last upgrade. The result has ``latest``, that digest now; ``replaced``, the namespaces where another image is latest; ``outdated``, by
    namespace the names of the image before that one, which goes; ``kept``, the namespaces that have what is remembered and another image as latest;
    and ``ours``, by namespace the names of both images.
    """
    now, replaced, outdated, kept, ours = {}, [], {}, [], {}
    for namespace in namespaces:
        found = images.get(namespace, {})
        latest, previous = found.get(f"{name}:latest"), found.get(f"{name}:previous")
        own = [one for one in found if one.startswith(f"{name}:")]
        ours[namespace] = [one for one in own if found[one] in (latest, previous)]
        if latest:
            now[namespace] = latest
        if previous and previous != latest and previous == (remembered or {}).get(namespace):
            kept.append(namespace)
        if latest and latest != digest:
            replaced.append(namespace)
            if previous and previous not in (latest, digest):
                outdated[namespace] = [one for one in own if found[one] == previous]
    return {"latest": now, "replaced": replaced, "outdated": outdated, "kept": kept, "ours": ours}
