# Copyright (c) 2026, the ggen.gvisor authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""Go through a tree that somebody hostile has made: however deep, however wide, with three descriptors and no recursion.

Nothing follows a link. An entry that makes trouble is noted and does not keep the walk from the others; a bound that is reached ends it.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from typing import Iterator, List, NamedTuple, Optional, Tuple

from ansible_collections.ggen.gvisor.plugins.module_utils._base.text import visible_line
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.pinned import FOLDER, NAMED, folder_below, through

ENTER, ENTRY, LEAVE = "enter", "entry", "leave"
MAX_TOLD = 20  # problems that are kept as text; all are counted
# About what a tree of that many folders takes in memory, a gigabyte; a job cannot make more in its usual time.
UNBOUNDED = 1 << 24

Identity = Tuple[int, int]


class Bounds(NamedTuple):
    """When a walk ends although it has not seen everything."""

    deadline: float  # time.monotonic
    entries: int = UNBOUNDED
    depth: int = UNBOUNDED
    owner: Optional[int] = None  # whose folders alone are entered, if not all


class Step(NamedTuple):
    """One event of a walk, valid until the next one.

    ENTER: ``descriptor`` is the folder's, ``name`` its name ("" for the root). ENTRY: something that is no folder in the folder entered last.
    LEAVE: the folder ``name`` is done and ``descriptor`` is that of the folder above, or -1 where that was not found again.
    """

    kind: str
    descriptor: int
    name: str
    entry: Optional[os.DirEntry] = None


def printable(path: str) -> str:
    """Return ``path`` as text in one line that JSON can carry and people can be shown, bytes and characters that are neither as escapes."""
    return visible_line(os.fsencode(path).decode("utf-8", "backslashreplace"))


def identity(descriptor: int) -> Identity:
    """Return what tells a folder or file from all others of the host."""
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino


def mount_of(descriptor: int) -> str:
    """Return the mount that the descriptor is on; a bind mount has its file system's device and only this to tell it by. Raises OSError."""
    with open(f"/proc/self/fdinfo/{descriptor}", encoding="ascii") as stream:
        for line in stream:
            if line.startswith("mnt_id:"):
                return line
    raise OSError(0, "the kernel does not tell the mount", through(descriptor))


class Walk:
    """Iterate over it for the steps. ``root`` is a folder's descriptor, which stays open.

    With ``one_mount`` what is mounted below is not entered.
    """

    def __init__(self, root: int, bounds: Bounds, one_mount: bool = False) -> None:
        self.bounds = bounds
        self.names: List[str] = []  # from the root to the folder of the last step
        self.problems: List[str] = []
        self.missed = 0  # how many things were not looked at
        self._root = root
        self._here = -1
        self._seen = 0
        self._over = False
        self._mount = mount_of(root) if one_mount else ""

    def path(self, name: str = "") -> str:
        """Return the path of ``name`` in the current folder, or of that folder, from the root on."""
        return "/".join([*self.names, name] if name else self.names)

    def complain(self, name: str, why: object) -> None:
        """Note that something about ``name`` in the current folder could not be done."""
        self.miss(self.path(name), why)

    def miss(self, path: str, why: object) -> None:
        """Note that something about ``path``, from the root on, could not be done."""
        self.missed += 1
        if len(self.problems) < MAX_TOLD:
            text = getattr(why, "strerror", None) or str(why)
            path = printable(path)
            self.problems.append(f"{path if len(path) < 400 else f'{path[:200]}…{path[-100:]}'}: {text}")

    def end(self, why: str) -> None:
        """End the walk here."""
        if not self._over:
            self.complain("", why)
        self._over = True

    def check(self) -> None:
        """End the walk where its time is over."""
        if time.monotonic() > self.bounds.deadline:
            self.end("the time for looking was over here")

    def __iter__(self) -> Iterator[Step]:
        above: List[Tuple[Identity, List[str]]] = []
        self._here = os.open(".", FOLDER, dir_fd=self._root)
        try:
            todo: List[str] = []
            yield Step(ENTER, self._here, "")
            yield from self._list(todo)
            while not self._over:
                self.check()
                if todo:
                    name = todo.pop()
                    if self._descend(name, above, todo):
                        todo = []
                        yield Step(ENTER, self._here, name)
                        yield from self._list(todo)
                elif self.names:
                    (wanted, todo), name = above.pop(), self.names.pop()
                    if self._ascend(wanted):
                        yield Step(LEAVE, self._here, name)
                    else:
                        todo = []
                        yield Step(LEAVE, -1, name)
                else:
                    return
        finally:
            os.close(self._here)

    def _list(self, folders: List[str]) -> Iterator[Step]:
        """Yield what is in the current folder and note the folders in it."""
        try:
            with os.scandir(self._here) as entries:
                for entry in entries:
                    self._seen += 1
                    if self._seen > self.bounds.entries:
                        self.end(f"more than {self.bounds.entries} files and folders")
                    if not self._seen & 0xFF:
                        self.check()
                    if self._over:
                        return
                    try:
                        is_folder = entry.is_dir(follow_symlinks=False)
                    except OSError as error:
                        self.complain(entry.name, error)
                        continue
                    if is_folder:
                        folders.append(entry.name)
                    else:
                        yield Step(ENTRY, self._here, entry.name, entry)
        except OSError as error:
            self.complain("", error)

    def _descend(self, name: str, above: List[Tuple[Identity, List[str]]], todo: List[str]) -> bool:
        if len(self.names) >= self.bounds.depth:
            self.complain(name, f"more than {self.bounds.depth} folders in each other")
            return False
        try:
            below = os.open(name, FOLDER, dir_fd=self._here)
        except FileNotFoundError:
            return False
        except OSError as error:
            self.complain(name, error)
            return False
        try:
            stranger = self.bounds.owner not in (None, os.fstat(below).st_uid)
            if stranger or (self._mount and mount_of(below) != self._mount):
                self.complain(name, "is a folder of somebody else's" if stranger else "something is mounted here")
                os.close(below)
                return False
            above.append((identity(self._here), todo))
        except OSError as error:
            os.close(below)
            self.complain(name, error)
            return False
        os.close(self._here)
        self._here = below
        self.names.append(name)
        return True

    def _ascend(self, wanted: Identity) -> bool:
        """Go to the folder ``wanted``, which ``names`` lead to now; tell whether it was found.

        The folder above is it unless somebody moved what we are in; then the names decide, from the root on.
        """
        for find in (self._above, self._again):
            try:
                there = find()
            except OSError:
                continue
            if identity(there) == wanted:
                os.close(self._here)
                self._here = there
                return True
            os.close(there)
        self.complain("", "was moved while it was looked at")
        return False

    def _above(self) -> int:
        return os.open("..", FOLDER, dir_fd=self._here)

    def _again(self) -> int:
        return folder_below(self._root, self.names)


def remove_tree(folder: int, name: str, deadline: float) -> List[str]:
    """Remove ``name`` from ``folder`` with all that is in it; return what could not be removed. What is mounted below stays."""
    try:
        root = os.open(name, FOLDER, dir_fd=folder)
    except FileNotFoundError:
        return []
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=folder)
            return []
        return [f"{printable(name)}: {error.strerror}"]
    try:
        walk = Walk(root, Bounds(deadline), one_mount=True)
        for step in walk:
            try:
                if step.kind == ENTRY:
                    os.unlink(step.name, dir_fd=step.descriptor)
                elif step.kind == LEAVE:
                    os.rmdir(step.name, dir_fd=step.descriptor)
            except OSError as error:
                walk.complain(step.name, error)
    except OSError as error:
        return [f"{printable(name)}: {error.strerror}"]
    finally:
        os.close(root)
    if not walk.missed:
        try:
            os.rmdir(name, dir_fd=folder)
        except OSError as error:
            return [f"{printable(name)}: {error.strerror}"]
    return walk.problems


def close_folder(descriptor: int) -> None:
    """Take the rights of group and others off a folder. Raises OSError."""
    os.chmod(through(descriptor), stat.S_IMODE(os.fstat(descriptor).st_mode) & 0o700)


def left_alone(status: os.stat_result) -> str:
    """Return why a file's mode was not changed."""
    others = " and has other names" if status.st_nlink > 1 else ""
    return f"mode {stat.S_IMODE(status.st_mode):04o} was left, as the file belongs to {status.st_uid}{others}"


def change_mode(name: str, folder: int, keep: int, uid: int, names: int = 1) -> bool:
    """Take the permission bits that are not in ``keep`` off the file ``name``; tell whether there is such a file.

    A file that is not ``uid``'s and has more than the ``names`` that are known, none for whom only that user's are to be changed, is left alone:
    it may be anybody's. Raises OSError.
    """
    descriptor = os.open(name, NAMED, dir_fd=folder)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return False
        mode = stat.S_IMODE(status.st_mode)
        if mode & ~keep:
            if status.st_nlink > names and status.st_uid != uid:
                raise OSError(0, left_alone(status), name)
            os.chmod(through(descriptor), mode & keep)
        return True
    finally:
        os.close(descriptor)
