# Copyright (c) 2026, the ggen.gvisor authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""What is done to a folder that a job could write, whatever the job came to and whoever is left to do it.

A note of what that needs is written before the job begins, so that the supervisor or the next run can when the module was killed.
"""

from __future__ import annotations

import os
import stat
import time
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.pinned import NAMED, folder_below, pin, through
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.protect import take_away
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.walker import (
    ENTRY,
    MAX_TOLD,
    Bounds,
    Identity,
    Walk,
    change_mode,
    close_folder,
    identity,
    left_alone,
    printable,
)
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.workspace import RACY_NS, SET_ID, has_set_id, set_id_row

SECONDS = 300.0  # for one folder, about 30 million files
MAX_KEPT = 10_000  # files with such bits that a folder may have before

# Path → mode, uid, gid and stamp of a file that had the bits before and may keep them as long as nobody as much as touched it.
Kept = Dict[str, List[Any]]


class Note(NamedTuple):
    """What cleaning a folder or file needs; JSON carries it."""

    source: str  # where the pod's private folder has it mounted, or a copy
    path: str  # where the host has it
    identity: List[int]
    uid: int  # the job's
    kept: Kept
    private: List[str]
    guard: Mapping[str, Any] = {}  # what is protected: its patterns, and what was there
    owner: Optional[int] = None  # whose folders and files alone are touched, if not all


class Cleaned(NamedTuple):
    """What was done, and what could not be."""

    stripped: List[str]
    count: int
    problems: List[str]
    refused: Sequence[str] = ()  # what the job did where it may not, which was taken away


def look_for_kept(root: int, deadline: float, owner: Optional[int] = None) -> Kept:
    """Return the files below the folder ``root`` that have such bits. Raises GvisorError where it cannot be told for all of it.

    With an ``owner`` folders of others are not looked into, and that is an error.
    """
    found: Kept = {}
    walk = Walk(root, Bounds(deadline, owner=owner))
    for step in walk:
        if step.kind != ENTRY or step.entry is None:
            continue
        try:
            status = step.entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            continue
        except OSError as error:
            walk.complain(step.name, error)
            continue
        if has_set_id(status):
            found[walk.path(step.name)] = set_id_row(status)
        if len(found) > MAX_KEPT:
            walk.end(f"more than {MAX_KEPT} files with set-user-id or set-group-id bits")
    if walk.missed:
        raise GvisorError(f"not all of it can be looked at: {'; '.join(walk.problems)}")
    return found


def let_age(kept: Kept) -> None:
    """Wait until a change of one of these files would show in its times."""
    newest = max((row[-1][-1] for row in kept.values()), default=0)
    if time.time_ns() - newest < RACY_NS:
        time.sleep(RACY_NS / 1e9)


def clean(root: int, note: Note) -> Cleaned:
    """Take set-user-id and set-group-id bits off what got them, or got them for other bytes, and close the private files; never raises.

    ``root`` is the descriptor of the folder, or of a file. A job may give such bits to files that it owns; outside of the sandbox they would lend
    that owner's rights to everybody. A folder of which not everything could be looked at is closed to others instead.
    """
    deadline = time.monotonic() + SECONDS
    problems: List[str] = []
    refused: List[str] = []
    try:
        if not stat.S_ISDIR(os.fstat(root).st_mode):
            return _clean_file(root)
        if note.guard:
            try:
                refused, left = take_away(root, note.guard, deadline, note.owner)
                problems += left
            except OSError as error:  # the bits come off all the same
                problems.append(f"what is protected could not be looked at: {error.strerror or error}")
        for path in note.private:
            _close(root, path, note, problems)
        stripped, count, walk = _strip(root, note, deadline)
        if walk.missed:
            problems += walk.problems
            close_folder(root)
            problems.append("not all was looked at, so the folder was closed to group and others")
        return Cleaned(stripped, count, problems, refused)
    except OSError as error:
        return Cleaned([], 0, [*problems, str(error.strerror or error)], refused)


def _clean_file(descriptor: int) -> Cleaned:
    mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
    if not mode & SET_ID:
        return Cleaned([], 0, [])
    os.chmod(through(descriptor), mode & ~SET_ID)
    return Cleaned(["itself"], 1, [])


def _strip(root: int, note: Note, deadline: float) -> Tuple[List[str], int, Walk]:
    stripped: List[str] = []
    count = 0
    # Files of somebody else's with several names: how many of them were met, and what to say until that is all of them.
    met: Dict[Identity, int] = {}
    left: Dict[Identity, Tuple[str, str]] = {}
    walk = Walk(root, Bounds(deadline, owner=note.owner))
    for step in walk:
        if step.kind != ENTRY or step.entry is None:
            continue
        try:
            status = step.entry.stat(follow_symlinks=False)
            if (
                not has_set_id(status)
                or note.owner not in (None, status.st_uid)
                or (note.kept and note.kept.get(walk.path(step.name)) == set_id_row(status))
            ):
                continue
            names = 1 if note.owner is None else 0
            if status.st_nlink > 1 and status.st_uid != note.uid:
                this = status.st_dev, status.st_ino
                names = met[this] = met.get(this, 0) + 1
                left[this] = walk.path(step.name), left_alone(status)
                if names < status.st_nlink:
                    continue
                del left[this]
            if change_mode(step.name, step.descriptor, 0o7777 & ~SET_ID, note.uid, names):
                count += 1
                if count <= MAX_TOLD:
                    stripped.append(printable(walk.path(step.name)))
        except FileNotFoundError:
            continue
        except OSError as error:
            walk.complain(step.name, error)
    for path, why in left.values():
        walk.miss(path, why)
    return sorted(stripped), count, walk


def _close(root: int, path: str, note: Note, problems: List[str]) -> None:
    """Take the rights of group and others off a file, if it is there; no link is followed on the way."""
    *folders, name = path.split("/")
    try:
        here = folder_below(root, folders)
        try:
            change_mode(name, here, 0o7700, note.uid, 1 if note.owner is None else 0)
        finally:
            os.close(here)
    except FileNotFoundError:
        pass
    except NotADirectoryError:
        pass  # a link, or a file
    except OSError as error:
        problems.append(f"{printable(path)}: {error.strerror}")


def clean_noted(fields: Mapping[str, Any]) -> Cleaned:
    """Clean what a note is about, at its mount, or after a restart of the host where it was then. Raises GvisorError, or OSError."""
    note = Note(**fields)
    descriptor = -1
    try:
        try:
            descriptor = os.open(note.source, NAMED)
        except FileNotFoundError:
            descriptor = -1
        if descriptor < 0 or list(identity(descriptor)) != list(note.identity):
            with pin(note.path, "the workspace of a run that was killed") as pinned:
                # A device may have another number after a restart.
                if pinned.identity[1] != note.identity[1]:
                    raise GvisorError(f"{note.path}, the workspace of a run that was killed, is another folder now and was left alone")
                return clean(pinned.descriptor, note)
        return clean(descriptor, note)
    finally:
        if descriptor >= 0:
            os.close(descriptor)
