# Copyright (c) 2026, the ggen.gvisor authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""A workspace of the controller on the host that runs on its copy: as it was there, and what a run did to it, for the way back."""

from __future__ import annotations

import base64
import hashlib
import os
import stat
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from ansible_collections.ggen.gvisor.plugins.module_utils._base import tar
from ansible_collections.ggen.gvisor.plugins.module_utils._base.carried import MTIME, SAME_AS, encode
from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.walker import ENTER, ENTRY, Bounds, Identity, Walk
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.workspace import MAX_DEPTH, MAX_ENTRIES, SENT, Scan, open_file

MAX_CONTENTS = 64 << 20  # bytes of changed files that are sent back in a module's result
MAX_CARRIED = 20_000  # files and folders of which something is sent back
_HINT = "put the workspace on the host (workspace_from: host)"
_KINDS = {stat.S_IFREG: "file", stat.S_IFDIR: "folder", stat.S_IFLNK: "symlink", stat.S_IFIFO: "fifo", stat.S_IFSOCK: "socket"}


class Node(NamedTuple):
    """What a name in a workspace is."""

    kind: str  # file, folder, symlink, fifo, socket or device
    mode: int
    mtime_ns: int
    inode: Identity
    links: int

    @classmethod
    def of(cls, status: os.stat_result) -> Node:
        """Return the node that ``status`` describes."""
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "device")
        return cls(kind, stat.S_IMODE(status.st_mode) & 0o777, status.st_mtime_ns, (status.st_dev, status.st_ino), status.st_nlink)


# What is in a folder, by path.
Tree = Dict[str, Node]
# What became of a path, as JSON carries it; None where it is gone.
Record = Optional[Dict[str, Any]]


def dress(archive: str, target: str) -> None:
    """Do to what was unpacked into ``target`` what must wait until all is there: hard links, times, and modes of folders. Raises GvisorError."""
    folders: List[Tuple[str, int, int]] = []
    files = set()
    try:
        with tar.Reader(archive, SENT, lambda what: GvisorError(f"the workspace's archive: {what}")) as sent:
            for name, info in sent:
                path = os.path.join(target, name)
                mtime = int(info.pax_headers[MTIME])
                first = info.pax_headers.get(SAME_AS)
                if first is not None:
                    if first not in files:
                        raise GvisorError(f"the workspace's archive has {name!r} as another name of {first!r}, which is no file of it")
                    os.unlink(path)
                    os.link(os.path.join(target, first), path)
                elif info.isdir():
                    folders.append((path, info.mode & 0o777, mtime))
                else:
                    os.utime(path, ns=(mtime, mtime), follow_symlinks=False)
                    files.update([name] if info.isreg() else [])
        for path, mode, mtime in reversed(folders):  # the inner ones first: what is done in a folder changes its time
            os.chmod(path, mode)
            os.utime(path, ns=(mtime, mtime))
    except (OSError, KeyError, ValueError, OverflowError) as error:
        raise GvisorError(f"the workspace cannot be unpacked into {target}: {error}") from error


def tree_of(root: int, deadline: float) -> Tree:
    """Return what is below the folder ``root`` (a descriptor). Raises GvisorError where not all can be looked at."""
    found: Tree = {}
    walk = Walk(root, Bounds(deadline, MAX_ENTRIES, MAX_DEPTH))
    for step in walk:
        try:
            if step.kind == ENTER and step.name:
                found[walk.path()] = Node.of(os.fstat(step.descriptor))
            elif step.kind == ENTRY and step.entry is not None:
                found[walk.path(step.name)] = Node.of(step.entry.stat(follow_symlinks=False))
        except OSError as error:
            walk.complain(step.name, error)
    if walk.missed:
        raise GvisorError(f"the copy of the workspace cannot be looked at whole: {'; '.join(walk.problems)}")
    return found


class _Changes:
    """What differs between two looks at a workspace, gathered while it is walked through again."""

    def __init__(self, before: Tree, was: Scan, now: Scan) -> None:
        self.before, self.was, self.now = before, was, now
        self.seen: Tree = {}
        self.found: Dict[str, Record] = {}
        self.first: Dict[Identity, str] = {}  # the first name of each file that has several
        self.size = 0

    def note(self, path: str, node: Node, name: str, folder: int) -> None:
        """Look at what is at ``path``, as ``name`` in the folder of the descriptor. Raises OSError or GvisorError."""
        self.seen[path] = node
        record = self._record(path, node, name, folder)
        if record is not None:
            self.found[path] = record
        if len(self.found) > MAX_CARRIED:
            raise GvisorError(f"the command changed more than the {MAX_CARRIED} files and folders that can be copied back; {_HINT}")

    def _record(self, path: str, node: Node, name: str, folder: int) -> Record:
        old = self.before.get(path)
        dressed = {"kind": node.kind, "mode": node.mode, "mtime_ns": node.mtime_ns}
        is_same = old is not None and (old.kind, old.mode, old.mtime_ns) == (node.kind, node.mode, node.mtime_ns)
        if node.kind == "folder":
            return None if is_same else dressed
        is_content = old is not None and old.kind == node.kind and self._digest(self.was, path) == self._digest(self.now, path)
        if node.kind == "symlink":
            return None if is_content and is_same else {**dressed, "target": encode(os.readlink(name, dir_fd=folder))}
        if node.kind != "file":
            return dressed
        if node.links > 1:
            first = self.first.setdefault(node.inode, path)
            if first != path:
                same_before = old is not None and first in self.before and self.before[first].inode == old.inode
                return None if same_before and is_same and is_content else {**dressed, "same_as": encode(first)}
        # A name that was taken off a file of several is a file of its own there, and must become one.
        if is_content and (old is None or old.links < 2 or old.inode == node.inode):
            return None if is_same else dressed
        return {**dressed, **self._content(name, folder)}

    @staticmethod
    def _digest(scan: Scan, path: str) -> str:
        return scan[path].digest if path in scan else ""

    def _content(self, name: str, folder: int) -> Dict[str, str]:
        with open(open_file(name, folder), "rb") as stream:
            self.size += os.fstat(stream.fileno()).st_size
            if self.size > MAX_CONTENTS:
                raise GvisorError(f"the command wrote {self.size} bytes, more than the {MAX_CONTENTS} that can be copied back; {_HINT}")
            data = stream.read(MAX_CONTENTS)
        return {"data": base64.b64encode(data).decode("ascii"), "sha256": hashlib.sha256(data).hexdigest()}


def changes_of(root: int, before: Tree, was: Scan, now: Scan, deadline: float) -> Dict[str, Record]:
    """Return what a run did to the folder ``root`` (a descriptor), by encoded path: all that is not as it was, times too.

    ``before`` and ``was`` are from before the run, ``now`` from after it. A file's bytes are there only where they changed. Raises GvisorError when
    something cannot be read, or there is too much for a result.
    """
    changes = _Changes(before, was, now)
    walk = Walk(root, Bounds(deadline, MAX_ENTRIES, MAX_DEPTH))
    for step in walk:
        try:
            if step.kind == ENTER and step.name:
                changes.note(walk.path(), Node.of(os.fstat(step.descriptor)), "", -1)
            elif step.kind == ENTRY and step.entry is not None:
                status = step.entry.stat(follow_symlinks=False)
                changes.note(walk.path(step.name), Node.of(status), step.name, step.descriptor)
        except OSError as error:
            walk.complain(step.name, error)
    if walk.missed:
        raise GvisorError(f"not all that the command wrote can be copied back: {'; '.join(walk.problems)}")
    gone = dict.fromkeys(before.keys() - changes.seen.keys())
    return {encode(path): record for path, record in {**gone, **changes.found}.items()}
