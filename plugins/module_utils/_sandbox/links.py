# Copyright (c) 2026, the ggen.gvisor authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""Where a workspace's links lead, from what scans have seen of them: what is written through one has another name than its writer knows."""

from __future__ import annotations

from typing import Callable, Iterable, List, Mapping, Optional, Set

MAX_LINKS = 40  # the kernel's own limit
_ANYWHERE = (["proc"], ["dev", "fd"])  # how paths begin that lead wherever the process is that follows them


class Anywhere(Exception):
    """Nobody can tell where a link leads."""


def destination(path: str, links: Mapping[str, str], root: str) -> Optional[str]:
    """Return where the link ``path`` leads, from the workspace on, in a sandbox that has the workspace at ``root``; None for out of it, or nowhere.

    ``links`` are the workspace's, with their targets. Raises Anywhere.
    """
    base = root.strip("/").split("/")
    here = [*base, *path.split("/")[:-1]]
    words = links[path].split("/")[::-1]
    here, followed = ([] if links[path].startswith("/") else here), 1
    while words:
        word = words.pop()
        if word in ("", "."):
            continue
        if word == "..":
            here = here[:-1]
            continue
        here.append(word)
        if any(here[: len(begin)] == begin for begin in _ANYWHERE):
            raise Anywhere
        target = links.get("/".join(here[len(base) :])) if here[: len(base)] == base else None
        if target is not None:
            followed += 1
            if followed > MAX_LINKS:
                return None
            words += target.split("/")[::-1]
            here = [] if target.startswith("/") else here[:-1]
    return "/".join(here[len(base) :]) if here[: len(base)] == base else None


def without_linked(
    ignored: Callable[[str], bool], tables: Iterable[Mapping[str, str]], root: str, check: Callable[[], None]
) -> Callable[[str], bool]:
    """Return ``ignored`` without what links lead to: that has names of other files, too, which are not ignored.

    ``tables`` are the links of scans, and ``check`` is asked before each one whether there is time; see ``destination`` for the rest.
    """
    reached: Set[str] = set()
    for links in tables:
        for path in links:
            check()
            try:
                place = destination(path, links, root)
            except Anywhere:
                return lambda _path: False
            if place is not None and (ignored(place) or ignored(f"{place}/")):
                reached.add(place)
    if not reached:
        return ignored
    return lambda path: ignored(path) and not any(above in reached for above in _above(path))


def _above(path: str) -> List[str]:
    """Return the path and the folders that it is in."""
    words = path.rstrip("/").split("/")
    return ["/".join(words[:length]) for length in range(1, len(words) + 1)]
