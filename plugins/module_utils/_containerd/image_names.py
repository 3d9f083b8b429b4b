# Copyright (c) 2026, the ggen.gvisor authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""The names of an image over its life: ``latest``, ``previous`` (what was latest before), and what no name of these keeps any longer.

All functions take ``images``, what one namespace has, name to digest, and ``repository``, an image's name without a tag.
"""

from __future__ import annotations

import re
from typing import List, Mapping, Optional, Sequence

from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError

LATEST, PREVIOUS = "latest", "previous"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,511}")
_BY_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")  # what containerd's CRI plugin names images after


def full_name(name: str) -> str:
    """Return an image's name as containerd and Kubernetes have it: ``ggen`` is docker.io/library/ggen:latest. Raises GvisorError for what is none."""
    if not _NAME.fullmatch(name):
        raise GvisorError(f"{name!r} is no image name; write for example docker.io/library/ggen:latest")
    if _BY_DIGEST.fullmatch(name):
        return name
    host, slash, path = name.partition("/")
    if not slash or not ("." in host or ":" in host or host == "localhost"):
        host, path = "docker.io", name
    elif host == "index.docker.io":
        host = "docker.io"
    if host == "docker.io" and "/" not in path:
        path = f"library/{path}"
    has_tag = ":" in path.rpartition("/")[2]  # a digest has a colon, too
    return f"{host}/{path}" if has_tag else f"{host}/{path}:{LATEST}"


def full_names(names: Sequence[str]) -> List[str]:
    """Return ``full_name`` of each, none of them twice. Raises GvisorError."""
    return list(dict.fromkeys(full_name(name) for name in names))


def repository_of(names: Sequence[str]) -> str:
    """Return the repository of the one name with the tag ``latest``. Raises GvisorError where there is not exactly one."""
    found = [name.rpartition(":")[0] for name in names if name.endswith(f":{LATEST}")]
    if len(found) != 1:
        raise GvisorError(f"keep_previous and state: previous need one name with the tag {LATEST} among {', '.join(names) or 'no names'}")
    return found[0]


def is_replaced(images: Mapping[str, str], repository: str, digest: Optional[str]) -> bool:
    """Tell whether another image than the one with ``digest`` (None: one that is not known yet) is latest."""
    latest = images.get(f"{repository}:{LATEST}")
    return latest is not None and latest != digest


def outdated(images: Mapping[str, str], repository: str, digest: Optional[str]) -> List[str]:
    """Return the names of the image before the last, other than ``previous``: they go when the image with ``digest`` becomes latest."""
    latest, previous = (images.get(f"{repository}:{tag}") for tag in (LATEST, PREVIOUS))
    if previous is None or previous in (latest, digest):
        return []
    return [name for name in _own(images, repository) if images[name] == previous and name != f"{repository}:{PREVIOUS}"]


def is_kept(images: Mapping[str, str], repository: str) -> bool:
    """Tell whether there is an image to go back to."""
    latest, previous = (images.get(f"{repository}:{tag}") for tag in (LATEST, PREVIOUS))
    return previous is not None and previous != latest


def generations(images: Mapping[str, str], repository: str) -> List[str]:
    """Return all names of the two images, latest and previous. A user's own tag of another image is not among them."""
    ours = {images.get(f"{repository}:{tag}") for tag in (LATEST, PREVIOUS)}
    return [name for name in _own(images, repository) if images[name] in ours]


def _own(images: Mapping[str, str], repository: str) -> List[str]:
    return [name for name in images if name.startswith(f"{repository}:")]
