# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A workspace of the controller for a run on another host: packed here, and the run's changes written back here.

What comes back is from a sandbox and not to be trusted: only what is below the workspace is written, no link is followed, none is made that leads out,
and nothing is written at all where something here is not as it was when it was packed.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import stat
import tarfile
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from ansible_collections.ggen.gvisor.plugins.module_utils._base.carried import MTIME, SAME_AS, decode
from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._base.text import visible_line

SHOWN = 5
MAX_PATH, MAX_NAME = 3000, 255  # bytes: the next run must be able to send it
FOLDER = "folder"
_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
MAX_TIME_NS = 1 << 62  # about the year 2116
# By path: a file's sha256, "-> " and a link's target, or FOLDER.
Sent = dict[str, str]


def pack(root: str, archive: str) -> Sent:
    """Write the folder into a tar archive and return what is in it. Raises GvisorError for what cannot be sent."""
    root = os.path.realpath(root)
    sent: Sent = {}
    first: dict[tuple[int, int], str] = {}  # the first name of each file that has several
    try:
        with tarfile.open(archive, "w", format=tarfile.PAX_FORMAT) as tar:
            for path, entry in _entries(root):
                _add(tar, root, path, entry, sent, first)
    except OSError as error:
        raise GvisorError(f"workspace {root} cannot be packed: {error.filename}: {error.strerror}") from error
    return sent


def _entries(root: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Yield all that is in the folder, by path, however deep a run has made it."""
    todo = [("", _sorted(root))]
    while todo:
        prefix, entries = todo[-1]
        entry = next(entries, None)
        if entry is None:
            todo.pop()
            continue
        yield prefix + entry.name, entry
        if entry.is_dir(follow_symlinks=False):
            todo.append((f"{prefix}{entry.name}/", _sorted(entry.path)))


def _sorted(folder: str) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as found:
        return iter(sorted(found, key=lambda entry: entry.name))


def _add(tar: tarfile.TarFile, root: str, path: str, entry: os.DirEntry[str], sent: Sent, first: dict[tuple[int, int], str]) -> None:
    status = entry.stat(follow_symlinks=False)
    info = tarfile.TarInfo(path)
    info.mode = stat.S_IMODE(status.st_mode) & 0o777
    info.pax_headers = {MTIME: str(status.st_mtime_ns)}
    if entry.is_symlink():
        info.type, info.linkname = tarfile.SYMTYPE, os.readlink(entry.path)
        if os.path.isabs(info.linkname) or not f"{os.path.realpath(entry.path)}/".startswith(f"{root}/"):
            raise GvisorError(
                f"workspace {root}: {visible_line(path)} is a link that leads out of it, to {visible_line(info.linkname)}. "
                "Remove it, or copy what it leads to."
            )
        sent[path] = f"-> {info.linkname}"
        tar.addfile(info)
    elif entry.is_dir(follow_symlinks=False):
        info.type = tarfile.DIRTYPE
        sent[path] = FOLDER
        tar.addfile(info)
    elif stat.S_ISREG(status.st_mode):
        earlier = first.setdefault((status.st_dev, status.st_ino), path) if status.st_nlink > 1 else path
        if earlier != path:
            sent[path] = sent[earlier]
            info.pax_headers[SAME_AS] = earlier
            tar.addfile(info)
            return
        with open(entry.path, "rb") as stream:
            sent[path] = hashlib.file_digest(stream, "sha256").hexdigest()
            stream.seek(0)
            info.size = status.st_size
            tar.addfile(info, stream)
    else:
        raise GvisorError(f"workspace {root}: {visible_line(path)} is neither file, folder nor link, so it cannot be sent. Remove it.")


class Change(NamedTuple):
    """What is to be at a path; nothing where ``kind`` is empty."""

    kind: str = ""  # file, folder, symlink, or what cannot be carried
    mode: int = 0
    mtime_ns: int = 0
    data: bytes | None = None  # a file's; without it the file stays and only mode and time are new
    sha256: str = ""  # that of the data
    same_as: str | None = None  # the path that a file is another name of
    target: str = ""  # a link's


GONE = Change()


def write_back(root: str, sent: Mapping[str, str], contents: Any, bar: Callable[[str], str] | None = None) -> list[str]:
    """Do in the workspace what a run did to its copy and return remarks: what was left out.

    ``contents`` are containerd_run's, as a host says: what is at the paths that the run changed. ``bar`` tells why a path may not be written, which the
    host should have refused. Raises GvisorError, and writes nothing then, when a path may not be written or is not below the workspace, when bytes are
    not those that were sent, and when something here was changed since it was packed.
    """
    changes, remarks = _read(contents)
    refused = [f"{visible_line(path)} {why}" for path in sorted(changes) if bar and (why := bar(path))]
    if refused:
        raise GvisorError(f"the command may not write this: {', '.join(refused[:SHOWN])}. Nothing was written back.")
    base = os.open(os.path.realpath(root), os.O_RDONLY | os.O_DIRECTORY)
    try:
        conflicts = [path for path in sorted(changes) if _is_conflict(base, path, changes, sent)]
        if conflicts:
            shown = ", ".join(map(visible_line, conflicts[:SHOWN])) + (
                f" and {len(conflicts) - SHOWN} more" if len(conflicts) > SHOWN else ""
            )
            raise GvisorError(f"{shown} in {root} changed while the command ran elsewhere on a copy. Nothing was written back; run again.")
        _apply(base, changes, sent)
    except OSError as error:
        raise GvisorError(f"the run's changes cannot be written to {root}: {error.filename}: {error.strerror}") from error
    finally:
        os.close(base)
    return remarks


def _read(contents: Any) -> tuple[dict[str, Change], list[str]]:
    """Return the changes that can be made and remarks on the others. Raises GvisorError for what no host of ours says."""
    changes, remarks = {}, []
    for text, record in contents.items() if isinstance(contents, dict) else [("", None)]:
        try:
            path = decode(text)
            told = visible_line(path)
            if not _is_plain(path):
                raise GvisorError(f"the run reported a change of {told!r}, which is not below the workspace. Nothing was written back.")
            change = GONE if record is None else _change(record)
        except (AttributeError, LookupError, TypeError, ValueError) as error:  # neither paths nor modes, times or bytes
            raise GvisorError(f"the host's report on {visible_line(text)!r} is no report of a change. Nothing was written back.") from error
        if change.kind == "symlink" and not stays_inside(path, change.target):
            remarks.append(f"{told} is a symlink that may lead out of the workspace, and was not copied back")
        elif change.kind in ("", "file", FOLDER, "symlink"):
            changes[path] = change
        else:
            remarks.append(f"{told} is a {visible_line(change.kind)} and was not copied back")
    for path, change in changes.items():
        if change.data is not None and hashlib.sha256(change.data).hexdigest() != change.sha256:
            raise GvisorError(f"the bytes of {visible_line(path)} are not those that the run reported. Nothing was written back.")
        if change.kind and any(above in changes and changes[above].kind != FOLDER for above in _above(path)):
            raise GvisorError(f"the run reported {visible_line(path)} in what is no folder. Nothing was written back.")
        if change.same_as is not None:
            first = changes.get(change.same_as, Change("file"))
            if not _is_plain(change.same_as) or first.kind != "file" or first.same_as is not None:
                raise GvisorError(f"the run reported {visible_line(path)} as another name of what is no file. Nothing was written back.")
    return changes, remarks


def _change(record: Mapping[str, Any]) -> Change:
    """Return what a record says. Raises LookupError, TypeError or ValueError."""
    kind, mode, mtime_ns = record["kind"], record["mode"], record["mtime_ns"]
    if (
        not (isinstance(kind, str) and kind)
        or type(mode) is not int
        or type(mtime_ns) is not int
        or not -MAX_TIME_NS < mtime_ns < MAX_TIME_NS
    ):
        raise ValueError(kind)
    data = base64.b64decode(record["data"], validate=True) if kind == "file" and "data" in record else None
    same_as = decode(record["same_as"]) if kind == "file" and "same_as" in record else None
    target = decode(record["target"]) if kind == "symlink" else ""
    return Change(kind, mode & 0o777, mtime_ns, data, str(record.get("sha256")), same_as, target)


def _is_plain(path: str) -> bool:
    """Tell whether it is the path of something in a folder that a name of a file can have here."""
    names = os.fsencode(path).split(b"/")
    if "\0" in path or any(name in (b"", b".", b"..") for name in names):
        return False
    return sum(map(len, names)) + len(names) <= MAX_PATH and max(map(len, names)) <= MAX_NAME


def _above(path: str) -> list[str]:
    """Return the folders that ``path`` is in, below the workspace, the outermost first."""
    parts = path.split("/")
    return ["/".join(parts[:depth]) for depth in range(1, len(parts))]


def stays_inside(path: str, target: str) -> bool:
    """Tell whether a link at ``path`` to ``target`` stays in the workspace, whatever other links of the workspace are on its way.

    It goes up from its own folder, whose depth is known, and never after it has gone down.
    """
    parts = [part for part in target.split("/") if part not in ("", ".")]
    up = next((number for number, part in enumerate(parts) if part != ".."), len(parts))
    return bool(target) and not target.startswith("/") and "\0" not in target and ".." not in parts[up:] and up <= path.count("/")


@contextlib.contextmanager
def _folder(base: int, path: str) -> Iterator[tuple[int, str]]:
    """Yield the descriptor of the folder that ``path`` is in, and its last part; a link on the way is an error (NotADirectoryError, ELOOP)."""
    *parents, name = path.split("/")
    descriptor = os.dup(base)
    try:
        for parent in parents:
            below = os.open(parent, _OPEN_FOLDER, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = below
        yield descriptor, name
    finally:
        os.close(descriptor)


def _is_file(state: str) -> bool:
    return state != FOLDER and not state.startswith("-> ")


def _is_conflict(base: int, path: str, changes: Mapping[str, Change], sent: Mapping[str, str]) -> bool:
    """Tell whether what is here at ``path`` is not what was sent, and so not what the run worked on."""
    before, change = sent.get(path), changes[path]
    above = os.path.dirname(path)
    if change.kind and above and above not in changes and _state(base, above) != FOLDER:
        return True
    if change.same_as is not None and change.same_as not in changes:
        first = sent.get(change.same_as)
        if first is None or not _is_file(first) or _state(base, change.same_as) != first:
            return True
    if any(above in changes and sent.get(above) not in (None, FOLDER) for above in _above(path)):
        return before is not None  # in what is a file until it becomes a folder there is nothing
    state = _state(base, path)
    if change.kind == FOLDER and before is None:
        return state not in (None, FOLDER)
    if state != before:
        return True
    if before != FOLDER or change.kind == FOLDER:
        return False
    with _folder(base, path) as (folder, name):
        there = os.open(name, _OPEN_FOLDER, dir_fd=folder)
        try:
            return any(changes.get(f"{path}/{inner}") != GONE for inner in os.listdir(there))
        finally:
            os.close(there)


def _state(base: int, path: str) -> str | None:
    """Return what is at ``path`` as in Sent, None for nothing; what cannot be told is like nothing that was sent."""
    try:
        with _folder(base, path) as (folder, name):
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
            if stat.S_ISLNK(status.st_mode):
                return f"-> {os.readlink(name, dir_fd=folder)}"
            if stat.S_ISDIR(status.st_mode):
                return FOLDER
            if not stat.S_ISREG(status.st_mode):
                return "?"
            with open(os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=folder), "rb") as stream:
                return hashlib.file_digest(stream, "sha256").hexdigest()
    except FileNotFoundError:
        return None
    except OSError:
        return "?"


def _apply(base: int, changes: Mapping[str, Change], sent: Mapping[str, str]) -> None:
    """Make the changes: what goes first, the inner things before the outer ones; times last, since each change in a folder sets the folder's."""
    by_depth = sorted(changes, key=lambda path: (path.count("/"), path))
    times: dict[str, tuple[int | None, int]] = {}  # of folders: mode and time
    for path in by_depth:
        above = os.path.dirname(path)
        if changes[path].kind == FOLDER:
            times[path] = (changes[path].mode, changes[path].mtime_ns)
        if above and above not in changes:
            with _folder(base, above) as (folder, name):
                times[above] = (None, os.stat(name, dir_fd=folder, follow_symlinks=False).st_mtime_ns)
    for path in reversed(by_depth):
        before, change = sent.get(path), changes[path]
        if before is not None and change.kind != FOLDER and (change == GONE or before == FOLDER):
            _remove(base, path, before == FOLDER)
        elif before is not None and change.kind == FOLDER and before != FOLDER:
            _remove(base, path, False)
    for path in (path for path in by_depth if changes[path].kind == FOLDER):
        with _folder(base, path) as (folder, name), contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=folder)
    others = [path for path in by_depth if changes[path].kind in ("file", "symlink")]
    for path in sorted(others, key=lambda path: changes[path].same_as is not None):
        _put(base, path, changes[path])
    for path in sorted(times, key=lambda path: path.count("/"), reverse=True):
        with _folder(base, path) as (folder, name), contextlib.suppress(FileNotFoundError):
            _dress(folder, name, _OPEN_FOLDER, *times[path])


def _remove(base: int, path: str, is_folder: bool) -> None:
    with _folder(base, path) as (folder, name):
        if is_folder:
            os.rmdir(name, dir_fd=folder)
        else:
            os.unlink(name, dir_fd=folder)


def _put(base: int, path: str, change: Change) -> None:
    """Have a file or link there, whole or not at all."""
    with _folder(base, path) as (folder, name):
        if change.kind == "file" and change.data is None and change.same_as is None:
            _dress(folder, name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, change.mode, change.mtime_ns)
            return
        temporary = f".{uuid.uuid4().hex}"
        try:
            if change.kind == "symlink":
                os.symlink(change.target, temporary, dir_fd=folder)
                os.utime(temporary, ns=(change.mtime_ns, change.mtime_ns), dir_fd=folder, follow_symlinks=False)
            elif change.same_as is not None:
                with _folder(base, change.same_as) as (other, first):
                    os.link(first, temporary, src_dir_fd=other, dst_dir_fd=folder, follow_symlinks=False)
            else:
                _write(folder, temporary, change)
            os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
        finally:
            with contextlib.suppress(FileNotFoundError):  # two names of one file are not renamed into each other
                os.unlink(temporary, dir_fd=folder)


def _write(folder: int, name: str, change: Change) -> None:
    descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=folder)
    with open(descriptor, "wb") as stream:
        stream.write(change.data or b"")
        stream.flush()
        os.fchmod(descriptor, change.mode)
        os.utime(descriptor, ns=(change.mtime_ns, change.mtime_ns))
        os.fsync(descriptor)


def _dress(folder: int, name: str, flags: int, mode: int | None, mtime_ns: int) -> None:
    """Set the permissions and the time of what is there. Its set-user-id and like bits are its owner's business."""
    descriptor = os.open(name, flags, dir_fd=folder)
    try:
        status = os.fstat(descriptor)
        if mode is not None:
            os.fchmod(descriptor, status.st_mode & 0o7000 | mode)
        os.utime(descriptor, ns=(status.st_atime_ns, mtime_ns))
    finally:
        os.close(descriptor)
