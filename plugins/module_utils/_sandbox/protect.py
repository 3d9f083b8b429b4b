# Copyright (c) 2026, the ggen.gvisor authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""Files of a workspace that programs of the host obey, and which a command may not change: git's configuration and hooks, an editor's tasks.

What is there is mounted read-only into the pod. What a command puts there all the same, where nothing was or in a folder that it has exchanged, is
taken away when it has ended, and fails it. See docs/decisions/protected-files.md.
"""

from __future__ import annotations

import os
import stat
import unicodedata
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence

from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._base.text import few
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.pinned import NAMED, Pinned, folder_below
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.walker import ENTER, ENTRY, MAX_TOLD, Bounds, Walk, identity, printable
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.workspace import ignore_matcher, stamp_of

# git reads a submodule's configuration with that of its project, and looks for both where commondir says.
DEFAULT = [
    "**/.git/config",
    "**/.git/config.worktree",
    "**/.git/commondir",
    "**/.git/hooks/**",
    "**/.git/modules/**/config",
    "**/.git/modules/**/hooks/**",
    ".envrc",
    "**/.vscode/**",
]
MAX_MOUNTS = 100  # of one pod
MAX_ROWS = 10_000
_WILD = ("**", "*")

# Path → [device and inode of the folder it is in, its stamp, whether nobody in the pod can change it].
Rows = Dict[str, List[Any]]


def check_patterns(option: str, patterns: Sequence[str]) -> None:
    """Refuse what could match nothing. Raises GvisorError."""
    for pattern in patterns:
        if not pattern or "\0" in pattern or pattern.endswith("/") or any(part in (".", "..") for part in pattern.split("/")):
            raise GvisorError(f"{option} has the pattern {pattern!r}, which no file matches; write for example .vscode/** or *.lock")


def _folded(text: str) -> str:
    """Return a path as the most forgiving file system sees it: one may ignore case and characters without a shape."""
    if text.isascii():
        return text.lower()
    return "".join(letter for letter in unicodedata.normalize("NFC", text.casefold()) if unicodedata.category(letter) != "Cf")


class Patterns:
    """What is protected: the files that match, and whatever would lead a program elsewhere on the way to one, a link in a folder's place for example."""

    def __init__(self, patterns: Sequence[str]) -> None:
        ways, links, folders = [], [], []
        for pattern in patterns:
            words = pattern.lstrip("/").split("/")
            for length in range(1, len(words)):
                prefix = "/" + "/".join(words[:length])
                if words[length - 1] not in _WILD:
                    ways.append(prefix)
                elif any(word not in _WILD for word in words[:length]):
                    links.append(prefix)
            if len(words) > 1 and words[-1] == "**":
                folders.append("/" + "/".join(words[:-1]))
        self._files = ignore_matcher([_folded(pattern) for pattern in [*patterns, *ways]])
        self._links = ignore_matcher([_folded(pattern) for pattern in links])
        self._folders = ignore_matcher([_folded(pattern) for pattern in folders])

    def has(self, path: str, is_link: bool) -> bool:
        """Tell whether something that is no folder may not be put there."""
        folded = _folded(path)
        return self._files(folded) or (is_link and self._links(folded))

    def has_all_of(self, folder: str) -> bool:
        """Tell whether everything in the folder is protected."""
        return self._folders(_folded(folder))


class Found(NamedTuple):
    """What is there before a command: rows for the look after it, and what to mount read-only."""

    rows: Rows
    mounts: List[str]


def look(root: int, patterns: Sequence[str], deadline: float, owner: Optional[int] = None) -> Found:
    """Return what of the folder ``root`` is protected. Raises GvisorError where that is not known, or too much.

    With an ``owner`` folders of others are not looked into, and that is an error.
    """
    protected = Patterns(patterns)
    rows: Rows = {}
    mounts: List[str] = []
    whole, here = "", [0, 0]  # the folder that is mounted whole, with a slash, and what the walk is in
    walk = Walk(root, Bounds(deadline, owner=owner))
    for step in walk:
        try:
            if step.kind == ENTER:
                folder = walk.path()
                here = list(identity(step.descriptor))
                if folder and not (whole and f"{folder}/".startswith(whole)):
                    whole = ""
                    if protected.has_all_of(folder):
                        mounts.append(folder)
                        whole = f"{folder}/"
            elif step.kind == ENTRY and step.entry is not None:
                path = walk.path(step.name)
                if not protected.has(path, step.entry.is_symlink()):
                    continue
                status = step.entry.stat(follow_symlinks=False)
                inside = bool(whole) and path.startswith(whole)
                is_file = stat.S_ISREG(status.st_mode)
                if is_file and not inside:
                    mounts.append(path)
                # One that has another name can be changed by that.
                sure = (inside or is_file) and status.st_nlink == 1
                rows[path] = [here, list(stamp_of(status)), sure]
        except FileNotFoundError:
            continue
        except OSError as error:
            walk.complain(step.name, error)
        if len(mounts) > MAX_MOUNTS or len(rows) > MAX_ROWS:
            raise GvisorError(
                f"protect matches more than {MAX_MOUNTS} things to mount, or {MAX_ROWS} files; name their folders (folder/**)"
            )
    if walk.missed:
        raise GvisorError(f"not all of it can be looked at: {'; '.join(walk.problems)}")
    return Found(rows, mounts)


def open_below(root: int, path: str) -> Pinned:
    """Open what is at ``path`` below the folder ``root`` without following a link. Raises OSError."""
    *folders, name = path.split("/")
    here = folder_below(root, folders)
    try:
        return Pinned(os.open(name, NAMED, dir_fd=here), path)
    finally:
        os.close(here)


def _told(names: List[str], what: str) -> List[str]:
    return [f"protect: the command has {what} {few([printable(name) for name in sorted(names)])}"] if names else []


def take_away(root: int, guard: Mapping[str, Any], deadline: float, owner: Optional[int] = None) -> "tuple[List[str], List[str]]":
    """Take away what a command has put in protected places of the folder ``root``; return what it did there, and what could not be done.

    ``guard`` has the patterns and the rows of ``look``. A file that is as it was, at its place or another, stays.
    With an ``owner`` so does what is in folders of others. Raises OSError.
    """
    protected, rows = Patterns(guard["patterns"]), guard["rows"]
    originals = {tuple(stamp) for _folder, stamp, _sure in rows.values()}
    seen, created, replaced, moved = set(), [], [], []
    here = [0, 0]
    walk = Walk(root, Bounds(deadline, owner=owner))
    for step in walk:
        try:
            if step.kind == ENTER:
                here = list(identity(step.descriptor))
            elif step.kind == ENTRY and step.entry is not None:
                path = walk.path(step.name)
                if not protected.has(path, step.entry.is_symlink()):
                    continue
                folder, stamp, sure = rows.get(path, ([], [], False))
                status = stamp_of(step.entry.stat(follow_symlinks=False))
                seen.add(path)
                if list(status) == stamp or (sure and folder == here):
                    continue
                if status in originals:
                    moved.append(path)
                    continue
                os.unlink(step.name, dir_fd=step.descriptor)
                (replaced if path in rows else created).append(path)
        except FileNotFoundError:
            continue
        except OSError as error:
            walk.complain(step.name, error)
    gone = [] if walk.missed else sorted(rows.keys() - seen)
    said = _told(created, "created, and these were taken away:") + _told(replaced, "replaced, and these were taken away:")
    return said + _told(moved, "moved") + _told(gone, "removed, or moved elsewhere,"), walk.problems[:MAX_TOLD]


def literal_folders(patterns: Optional[Sequence[str]]) -> Optional[List[str]]:
    """Return the folders that the patterns are, each with all that is in it, or None where one is something else."""
    found = []
    for pattern in patterns if patterns is not None else [""]:
        folder = pattern.lstrip("/")[:-3]
        if not pattern.endswith("/**") or any(letter in folder for letter in "*?") or not folder:
            return None
        found.append(folder)
    return sorted(folder for folder in set(found) if not any(folder.startswith(f"{other}/") for other in found))


def barred(protect: Optional[Sequence[str]], outputs: Optional[Sequence[str]]) -> Callable[[str, bool], str]:
    """Return what tells why a path, of a link or of something else that is no folder, may not be written by a command; an empty text where it may."""
    protected = Patterns(protect or [])
    allowed = ignore_matcher(outputs if outputs is not None else ["**"])
    return lambda path, is_link: "is protected" if protected.has(path, is_link) else "" if allowed(path) else "is not among outputs"
