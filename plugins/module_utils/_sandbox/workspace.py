# Copyright (c) 2026, the ggen.gvisor authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""What a job did to a folder: scan before, scan after, compare; and a throw-away copy for a rehearsal.

Nothing here follows a symbolic link or opens anything but regular files: the folder may be hostile, and its reader is root.
"""

from __future__ import annotations

import base64
import errno
import fcntl
import hashlib
import os
import re
import shutil
import stat
import tarfile
import time
from typing import Any, Callable, Dict, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError

MAX_TEXT = 64 << 10  # bytes of a file that a diff still shows
MAX_TEXTS = 16 << 20  # bytes of all such files together
MAX_CONTENTS = 64 << 20  # bytes of changed files that are sent back in a module's result
_FICLONE = 0x40049409  # ioctl: share the blocks of another file where the file system can (btrfs, xfs)
_RACY_NS = 50_000_000  # a file changed within this time of being looked at may change again under the same time stamp
_KINDS = {stat.S_IFREG: "file", stat.S_IFLNK: "symlink", stat.S_IFIFO: "fifo", stat.S_IFSOCK: "socket"}


class Entry(NamedTuple):
    """One name in a folder that is not itself a folder."""

    kind: str  # file, symlink, fifo, socket or device
    mode: int  # permission bits
    owner: Tuple[int, int]
    size: int
    digest: str  # sha256 of a file's bytes or of a link's target; empty for the rest
    text: Optional[str]  # kept for diffs on request
    stamp: Tuple[int, ...]  # inode, size, mtime and ctime: the same stamp means the same bytes; empty when not sure


Scan = Dict[str, Entry]


def _fail(path: str, error: OSError) -> GvisorError:
    return GvisorError(f"{path} cannot be read: {error.strerror}", path=path)


def _walk(root: str) -> Iterator[Tuple[str, List[str], List[str], int]]:
    """Yield (relative folder, folders, other names, folder's descriptor), links to folders among the other names."""

    def refuse(error: OSError) -> None:
        raise _fail(error.filename or root, error)

    try:
        for folder, folders, names, descriptor in os.fwalk(root, onerror=refuse, follow_symlinks=False):
            relative = os.path.relpath(folder, root)
            links = [name for name in folders if stat.S_ISLNK(os.lstat(name, dir_fd=descriptor).st_mode)]
            real = [name for name in folders if name not in links] if links else folders
            yield "" if relative == "." else f"{relative}/", real, names + links, descriptor
    except OSError as error:
        raise _fail(error.filename or root, error) from error
    except RecursionError as error:
        raise GvisorError(f"{root} is nested too deeply to be looked at") from error


def _open(name: str, folder: int) -> int:
    """Open a regular file for reading; a link or a pipe put in its place meanwhile cannot lead astray or block."""
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.ELOOP, "no longer a regular file", name)
    return descriptor


def _look(name: str, folder: int, known: Optional[Entry], keep: int, now_ns: int) -> Entry:
    status = os.lstat(name, dir_fd=folder)
    kind = _KINDS.get(stat.S_IFMT(status.st_mode), "device")
    digest, text = "", None
    stamp = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    if kind == "symlink":
        target = os.fsencode(os.readlink(name, dir_fd=folder))
        digest, text = hashlib.sha256(target).hexdigest(), None
    elif kind == "file" and known is not None and known.stamp == stamp:
        digest, text = known.digest, known.text
    elif kind == "file":
        hasher = hashlib.sha256()
        with open(_open(name, folder), "rb") as stream:
            data = stream.read(MAX_TEXT + 1)
            hasher.update(data)
            if len(data) > MAX_TEXT:
                for block in iter(lambda: stream.read(1 << 20), b""):
                    hasher.update(block)
            elif len(data) <= keep:
                text = _text(data)
        digest = hasher.hexdigest()
    sure = now_ns - status.st_ctime_ns > _RACY_NS
    return Entry(
        kind,
        stat.S_IMODE(status.st_mode),
        (status.st_uid, status.st_gid),
        status.st_size,
        digest,
        text,
        stamp if sure else (),
    )


def _text(data: bytes) -> Optional[str]:
    if b"\0" in data:
        return None
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return None


def scan(root: str, known: Optional[Scan] = None, texts: bool = False) -> Scan:
    """Return every file, link and special file below ``root`` by its relative path.

    ``known`` is an earlier scan: a file with the same inode, size and times is not read again (its change time cannot be
    set by a job, and a time stamp too young to be trusted is not). ``texts`` keeps the text of small files for diffs.
    Raises GvisorError when something cannot be read.
    """
    found: Scan = {}
    left = MAX_TEXTS if texts else 0
    now_ns = time.time_ns()
    for folder, _folders, names, descriptor in _walk(root):
        for name in names:
            path = folder + name
            try:
                entry = _look(name, descriptor, (known or {}).get(path), left, now_ns)
            except FileNotFoundError:
                continue  # gone between listing and looking
            except OSError as error:
                raise _fail(os.path.join(root, path), error) from error
            left -= len(entry.text or "")
            found[path] = entry
    return found


def ignore_matcher(patterns: Sequence[str]) -> Callable[[str], bool]:
    """Return a test whether a relative path matches one of ``patterns``.

    A pattern without a slash matches a name in any folder, one with a slash the path from the workspace on; ``*`` and ``?``
    stop at slashes, ``**`` does not.
    """
    parts = []
    for pattern in patterns:
        words = re.split(r"(\*\*/|\*\*|\*|\?)", pattern.lstrip("/"))
        table = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
        expression = "".join(table.get(word) or re.escape(word) for word in words if word)
        parts.append(expression if "/" in pattern else f"(?:.*/)?{expression}")
    expression = re.compile("|".join(f"(?:{part})" for part in parts), re.DOTALL) if parts else None
    return lambda path: bool(expression and expression.fullmatch(path))


def printable(path: str) -> str:
    """Return ``path`` as text that JSON can carry, bytes that are no UTF-8 as backslash escapes."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def compare(before: Scan, after: Scan, ignored: Callable[[str], bool]) -> List[Dict[str, Any]]:
    """Return what differs: path, change (created, modified or removed), kind, size, sha256, mode, ignored; sorted by path.

    A file written again with the same bytes, mode and owner is no difference.
    """
    changes = []
    for path in sorted(before.keys() | after.keys()):
        old, new = before.get(path), after.get(path)
        if old and new and old[:3] == new[:3] and old.digest == new.digest:
            continue
        entry = new or old
        changes.append(
            {
                "path": printable(path),
                "change": "modified" if old and new else "created" if new else "removed",
                "kind": entry.kind,
                "size": new.size if new else 0,
                "sha256": new.digest if new else "",
                "mode": f"{entry.mode:04o}",
                "ignored": ignored(path),
            }
        )
    return changes


def diffs(before: Scan, after: Scan, ignored: Callable[[str], bool]) -> List[Dict[str, str]]:
    """Return Ansible's diff of what differs outside ``ignored``; the scans must have been made with ``texts``."""

    def shown(entry: Optional[Entry]) -> str:
        if entry is None:
            return ""
        if entry.text is None:
            return f"({entry.kind} of {entry.size} bytes, sha256 {entry.digest or 'none'}, mode {entry.mode:04o})\n"
        return entry.text

    result = []
    for path in sorted(before.keys() | after.keys()):
        old, new = before.get(path), after.get(path)
        if ignored(path) or (old and new and old[:3] == new[:3] and old.digest == new.digest):
            continue
        name = printable(path)
        result.append(
            {
                "before_header": name if old else f"{name} (absent)",
                "after_header": name if new else f"{name} (absent)",
                "before": shown(old),
                "after": shown(new),
            }
        )
    return result


def strip_setid(root: str, before: Scan, after: Scan) -> List[str]:
    """Take set-user-id and set-group-id bits off files that got them since ``before``; return their paths.

    A job may give them to files that it owns; outside of the sandbox they would lend that owner's rights to everybody.
    """
    stripped = []
    wanted = {path for path, new in after.items() if new.kind == "file" and new.mode & 0o6000}
    wanted -= {path for path in wanted if path in before and before[path].mode & 0o6000 == after[path].mode & 0o6000}
    if not wanted:
        return []
    for folder, _folders, names, descriptor in _walk(root):
        for name in names:
            path = folder + name
            if path in wanted:
                with open(_open(name, descriptor), "rb") as stream:
                    os.fchmod(stream.fileno(), after[path].mode & 0o1777)
                after[path] = after[path]._replace(mode=after[path].mode & 0o1777)
                stripped.append(printable(path))
    return sorted(stripped)


def close_to_others(root: str, paths: Iterable[str], after: Scan) -> None:
    """Take the rights of group and others off those of ``paths`` (below ``root``) that are files, and note it in ``after``.

    No link is followed on the way. Raises GvisorError.
    """
    for path in paths:
        entry = after.get(path)
        if entry is None or entry.kind != "file" or not entry.mode & 0o077:
            continue
        *folders, name = path.split("/")
        descriptor = _open_folder(root)
        try:
            for folder in folders:
                above, descriptor = descriptor, _open_folder(folder, descriptor)
                os.close(above)
            with open(_open(name, descriptor), "rb") as stream:
                os.fchmod(stream.fileno(), entry.mode & 0o700)
        except OSError as error:
            raise _fail(os.path.join(root, path), error) from error
        finally:
            os.close(descriptor)
        after[path] = entry._replace(mode=entry.mode & 0o700)


def copy_tree(source: str, target: str) -> List[str]:
    """Copy the folder ``source`` into the empty folder ``target``: bytes, modes, owners, times; return what was skipped.

    Blocks are shared where the file system can. Sockets, pipes and devices are skipped. Everything goes by descriptors of
    folders, on both sides: a name that becomes a link meanwhile leads nowhere. Raises GvisorError.
    """
    skipped: List[str] = []
    try:
        reader, writer = _open_folder(source), _open_folder(target)
        try:
            _fill(reader, writer, "", skipped)
        finally:
            os.close(reader)
            os.close(writer)
    except OSError as error:
        why = "the throw-away copy for check mode does not fit" if error.errno == errno.ENOSPC else "the copy failed"
        raise GvisorError(f"{source} → {target}: {why}: {error.strerror}", path=source) from error
    except RecursionError as error:
        raise GvisorError(f"{source} is nested too deeply to be copied") from error
    return skipped


def _open_folder(name: str, folder: Optional[int] = None) -> int:
    return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)


def _fill(reader: int, writer: int, path: str, skipped: List[str]) -> None:
    for name in sorted(os.listdir(reader)):
        status = os.lstat(name, dir_fd=reader)
        if stat.S_ISDIR(status.st_mode):
            os.mkdir(name, 0o700, dir_fd=writer)
            below, made = _open_folder(name, reader), _open_folder(name, writer)
            try:
                _fill(below, made, f"{path}{name}/", skipped)
            finally:
                os.close(below)
                os.close(made)
        elif stat.S_ISLNK(status.st_mode):
            os.symlink(os.readlink(name, dir_fd=reader), name, dir_fd=writer)
            os.chown(name, status.st_uid, status.st_gid, dir_fd=writer, follow_symlinks=False)
            os.utime(name, ns=(status.st_atime_ns, status.st_mtime_ns), dir_fd=writer, follow_symlinks=False)
        elif stat.S_ISREG(status.st_mode):
            _copy(name, reader, writer)
        else:
            skipped.append(printable(path + name))
    _dress(writer, os.fstat(reader))  # last: filling a folder changes its times and needs its write permission


def _dress(descriptor: int, status: os.stat_result) -> None:
    os.fchown(descriptor, status.st_uid, status.st_gid)
    os.fchmod(descriptor, stat.S_IMODE(status.st_mode))
    os.utime(descriptor, ns=(status.st_atime_ns, status.st_mtime_ns))


def _copy(name: str, folder: int, target: int) -> None:
    made = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=target)
    with open(_open(name, folder), "rb") as reader, open(made, "wb") as writer:
        try:
            fcntl.ioctl(writer.fileno(), _FICLONE, reader.fileno())
        except OSError:
            shutil.copyfileobj(reader, writer, 1 << 20)
        writer.flush()
        _dress(writer.fileno(), os.fstat(reader.fileno()))


def unpack(archive: str, target: str, uid: int, gid: int) -> None:
    """Make the folder ``target`` and unpack ``archive``, a tar file, into it, everything for one owner. Raises GvisorError.

    The archive's names come from the controller, which has refused what leads out; a name that leaves the folder is refused here as well.
    """
    try:
        os.mkdir(target, 0o700)
        os.chown(target, uid, gid)
        target = os.path.realpath(target)
        with tarfile.open(archive, "r:") as tar:
            for info in tar:
                path = os.path.join(target, info.name)
                if (
                    os.path.realpath(os.path.dirname(path)) != os.path.dirname(path)
                    or os.path.normpath(path) != path
                    or not path.startswith(target + "/")
                ):
                    raise GvisorError(f"the workspace's archive has the name {info.name!r}, which leads out of it")
                _unpack_one(tar, info, path)
                os.chown(path, uid, gid, follow_symlinks=False)
    except (OSError, tarfile.TarError) as error:
        raise GvisorError(f"the workspace cannot be unpacked into {target}: {error}") from error


def _unpack_one(tar: tarfile.TarFile, info: tarfile.TarInfo, path: str) -> None:
    if info.isdir():
        os.mkdir(path)
        os.chmod(path, info.mode & 0o777 | 0o700)
    elif info.issym():
        os.symlink(info.linkname, path)
    elif info.isreg():
        source = tar.extractfile(info)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600), "wb") as stream:
            if source is not None:
                shutil.copyfileobj(source, stream, 1 << 20)
            os.fchmod(stream.fileno(), info.mode & 0o777)
    else:
        raise GvisorError(f"the workspace's archive has {info.name!r}, which is neither file, folder nor link")


def contents_of(root: str, changes: Sequence[Dict[str, Any]]) -> Dict[str, str]:
    """Return the bytes of the files among ``changes`` (compare's) in base64 by path. Raises GvisorError when they are too many for a result."""
    wanted = {change["path"]: change for change in changes if change["change"] != "removed" and change["kind"] == "file"}
    size = sum(change["size"] for change in wanted.values())
    if size > MAX_CONTENTS:
        raise GvisorError(
            f"the command wrote {size} bytes, more than the {MAX_CONTENTS} that can be copied back; put the workspace on the host (workspace_from: host)"
        )
    found: Dict[str, str] = {}
    for folder, _folders, names, descriptor in _walk(root):
        for name in names:
            path = printable(folder + name)
            if path in wanted:
                with open(_open(name, descriptor), "rb") as stream:
                    found[path] = base64.b64encode(stream.read()).decode("ascii")
    return found
