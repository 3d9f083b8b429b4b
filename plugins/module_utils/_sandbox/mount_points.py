# Copyright (c) 2026, the ggen.gvisor authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""What a mount is mounted on where that lies in another folder of the host.

A runtime makes what is missing there, as root, and leaves it. Here it is made before, for the owner of the folder around it, and taken away again.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
from typing import Iterator, List, NamedTuple, Optional, Sequence, Tuple

from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._base.files import atomic_write
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.pinned import FOLDER, folder_below
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.pod import Mount
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.walker import identity

LIST = "points.json"  # in a pod's private folder


class Point(NamedTuple):
    """An empty folder or file that was made."""

    source: str  # the folder, as the pod's private folder shows it
    path: str  # from there on
    identity: Sequence[int]


def outer_of(mount: Mount, mounts: Sequence[Mount]) -> "Tuple[Mount, str] | None":
    """Return the mount that ``mount`` lies in and the path from there on, None where it lies in the image."""
    around = [other for other in mounts if mount.target.startswith(f"{other.target}/")]
    if not around:
        return None
    nearest = max(around, key=lambda other: len(other.target))
    return nearest, mount.target[len(nearest.target) + 1 :]


@contextlib.contextmanager
def _above(source: str, path: str, owner: Optional[int] = None) -> "Iterator[Tuple[int, str]]":
    """Give the descriptor of the folder that ``path`` is in, and its last name; no link is followed on the way.

    Raises OSError, and with an ``owner`` GvisorError where the folder is somebody else's.
    """
    *parents, name = path.split("/")
    root = os.open(source, FOLDER)
    try:
        here = folder_below(root, parents)
    finally:
        os.close(root)
    try:
        if owner not in (None, os.fstat(here).st_uid):
            raise GvisorError(f"{'/'.join(parents)} is a folder of somebody else's")
        yield here, name
    finally:
        os.close(here)


def _make(source: str, path: str, is_folder: bool, owner: Optional[int]) -> "Point | None":
    """Make what is missing at ``path``; None where it is there. Raises OSError, and GvisorError where something else is there."""
    with _above(source, path, owner) as (here, name):
        try:
            there = os.stat(name, dir_fd=here, follow_symlinks=False)
        except FileNotFoundError:
            pass
        else:
            if not (stat.S_ISDIR(there.st_mode) if is_folder else stat.S_ISREG(there.st_mode)):
                raise GvisorError(f"{path} is there, and is no {'folder' if is_folder else 'file'}")
            return None
        if is_folder:
            os.mkdir(name, 0o700, dir_fd=here)
            made = os.open(name, FOLDER, dir_fd=here)
        else:
            made = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=here)
        try:
            # By now its name may be another's: a folder of root's that the workspace's owner has put there would be given away.
            if is_folder and (os.fstat(made).st_uid != os.geteuid() or os.listdir(made)):
                raise GvisorError(f"{path} was exchanged while it was made")
            around = os.fstat(here)
            os.fchown(made, around.st_uid, around.st_gid)
            os.fchmod(made, 0o755 if is_folder else 0o644)
            return Point(source, path, identity(made))
        finally:
            os.close(made)


def make_points(folder: str, mounts: Sequence[Mount], owner: Optional[int] = None) -> None:
    """Make what is missing below one mount for another one to be on, and write it down in the pod's private ``folder``.

    Raises GvisorError, with an ``owner`` also where it would be in a folder of somebody else's.
    """
    made: List[Point] = []
    for mount in mounts:
        found = outer_of(mount, mounts)
        if found is None:
            continue
        outer, path = found
        names = path.split("/")
        try:
            for count in range(1, len(names) + 1):
                part = "/".join(names[:count])
                is_folder = count < len(names) or os.path.isdir(mount.source)
                if not outer.writable and not _is_there(outer.source, part, owner):
                    raise GvisorError(f"{part} is missing in {outer.target}, which is read-only")
                point = _make(outer.source, part, is_folder, owner)
                if point:
                    made.append(point)
                    _write(folder, made)
        except OSError as error:
            raise GvisorError(f"mounts has the target {mount.target}, which cannot be made in {outer.target}: {error.strerror}") from error
        except GvisorError as error:
            raise GvisorError(f"mounts has the target {mount.target}: {error.message}; choose another place") from error


def _is_there(source: str, path: str, owner: Optional[int]) -> bool:
    with _above(source, path, owner) as (here, name), contextlib.suppress(FileNotFoundError):
        os.stat(name, dir_fd=here, follow_symlinks=False)
        return True
    return False


def _write(folder: str, points: Sequence[Point]) -> None:
    atomic_write(os.path.join(folder, LIST), json.dumps([point._asdict() for point in points]).encode(), 0o600, durable=False)


def remove_points(folder: str) -> List[str]:
    """Take away what is still as it was made; return what could not be. Nobody may be able to mount or write there any more."""
    try:
        with open(os.path.join(folder, LIST), encoding="utf-8") as stream:
            points = [Point(**fields) for fields in json.load(stream)]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError) as error:
        return [f"{folder}/{LIST}: {error}"]
    said: List[str] = []
    for point in reversed(points):
        try:
            with _above(point.source, point.path) as (here, name):
                there = os.stat(name, dir_fd=here, follow_symlinks=False)
                if [there.st_dev, there.st_ino] != list(point.identity):
                    continue
                if stat.S_ISDIR(there.st_mode):
                    os.rmdir(name, dir_fd=here)  # if it is empty
                elif there.st_size == 0:
                    os.unlink(name, dir_fd=here)
        except (FileNotFoundError, NotADirectoryError):
            continue  # the job took it away
        except OSError as error:
            if error.errno == errno.ENOTEMPTY:
                continue  # somebody uses it
            said.append(f"{point.path}, which was made for a mount, is still there: {error.strerror}")
    return said
