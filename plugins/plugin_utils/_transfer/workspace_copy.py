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
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from ansible_collections.ggen.gvisor.plugins.module_utils._base.carried import MTIME, SAME_AS, decode
from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._base.text import few, visible_line

SHOWN = 5
MAX_HELD = 64  # descriptors of folders that are kept open
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


def write_back(root: str, sent: Mapping[str, str], contents: Any, refusal: Callable[[str, bool], str] | None = None) -> list[str]:
    """Do in the workspace what a run did to its copy and return remarks: what was left out.

    ``contents`` are containerd_run's, as a host says: what is at the paths that the run changed. ``refusal`` tells why a path may not be written, which the
    host should have refused. Raises GvisorError, and writes nothing then, when a path may not be written or is not below the workspace, when bytes are
    not those that were sent, and when something here was changed since it was packed.
    """
    changes, remarks = _read(contents)
    # Folders come and go, and get new times, with what is in them.
    solid = [path for path in sorted(changes) if changes[path].kind != FOLDER and not (changes[path] == GONE and sent.get(path) == FOLDER)]
    refused = [f"{visible_line(path)} {why}" for path in solid if refusal and (why := refusal(path, changes[path].kind == "symlink"))]
    if refused:
        raise GvisorError(f"the command may not write this: {', '.join(refused[:SHOWN])}. Nothing was written back.")
    # In what is a file until it becomes a folder there is nothing.
    is_in_file = _below(lambda folder: folder in changes and sent.get(folder) not in (None, FOLDER))
    try:
        with _Folders(root) as folders:
            states = {path: None if is_in_file(path) else _state(folders, path) for path in sorted(changes)}
            conflicts = [path for path, there in states.items() if _is_conflict(folders, path, there, changes, sent)]
            if conflicts:
                shown = few([visible_line(path) for path in conflicts], SHOWN)
                raise GvisorError(
                    f"{shown} in {root} changed while the command ran elsewhere on a copy. Nothing was written back; run again."
                )
            _apply(folders, changes, sent)
    except OSError as error:
        raise GvisorError(f"the run's changes cannot be written to {root}: {error.filename}: {error.strerror}") from error
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
    is_in_no_folder = _below(lambda folder: folder in changes and changes[folder].kind != FOLDER)
    for path, change in changes.items():
        if change.data is not None and hashlib.sha256(change.data).hexdigest() != change.sha256:
            raise GvisorError(f"the bytes of {visible_line(path)} are not those that the run reported. Nothing was written back.")
        if change.kind and is_in_no_folder(path):
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
        or any(isinstance(number, bool) or not isinstance(number, int) for number in (mode, mtime_ns))
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


def _below(stops: Callable[[str], bool]) -> Callable[[str], bool]:
    """Return a test whether one of the folders that a path is in, below the workspace, is what ``stops`` has. Each folder is looked at once."""
    known = {"": False}

    def is_below(path: str) -> bool:
        above, todo = os.path.dirname(path), []
        while above not in known:
            todo.append(above)
            above = os.path.dirname(above)
        found = known[above]
        for folder in reversed(todo):
            found = known[folder] = found or stops(folder)
        return found

    return is_below


def stays_inside(path: str, target: str) -> bool:
    """Tell whether a link at ``path`` to ``target`` stays in the workspace, whatever other links of the workspace are on its way.

    It goes up from its own folder, whose depth is known, and never after it has gone down.
    """
    parts = [part for part in target.split("/") if part not in ("", ".")]
    up = next((number for number, part in enumerate(parts) if part != ".."), len(parts))
    return bool(target) and not target.startswith("/") and "\0" not in target and ".." not in parts[up:] and up <= path.count("/")


class _Folders:
    """The descriptors of a workspace's folders, each reached name by name: a link on the way is an error (NotADirectoryError, ELOOP).

    Those used last are kept: each path would cost as many calls as it has names otherwise, and a run can make a thousand folders in each other.
    """

    def __init__(self, root: str) -> None:
        self._root = os.open(os.path.realpath(root), os.O_RDONLY | os.O_DIRECTORY)
        self._held: OrderedDict[str, int] = OrderedDict()

    def __enter__(self) -> _Folders:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.forget()
        os.close(self._root)

    def forget(self) -> None:
        """Look for all folders anew: what had their names may be gone."""
        while self._held:
            os.close(self._held.popitem()[1])

    def of(self, path: str) -> tuple[int, str]:
        """Return the descriptor of the folder that ``path`` is in, good until the next call, and its last part. Raises OSError."""
        folder, todo = os.path.dirname(path), []
        while folder and folder not in self._held:
            todo.append(folder)
            folder = os.path.dirname(folder)
        if folder:
            self._held.move_to_end(folder)
        descriptor = self._held[folder] if folder else self._root
        for below in reversed(todo):
            descriptor = self._held[below] = os.open(os.path.basename(below), _OPEN_FOLDER, dir_fd=descriptor)
            if len(self._held) > MAX_HELD:
                os.close(self._held.popitem(last=False)[1])
        return descriptor, os.path.basename(path)


def _is_file(state: str) -> bool:
    return state != FOLDER and not state.startswith("-> ")


def _is_conflict(folders: _Folders, path: str, there: str | None, changes: Mapping[str, Change], sent: Mapping[str, str]) -> bool:
    """Tell whether what is here at ``path``, ``there`` by its state, is not what was sent, and so not what the run worked on."""
    before, change = sent.get(path), changes[path]
    above = os.path.dirname(path)
    if change.kind and above and above not in changes and _state(folders, above) != FOLDER:
        return True
    if change.same_as is not None and change.same_as not in changes:
        first = sent.get(change.same_as)
        if first is None or not _is_file(first) or _state(folders, change.same_as) != first:
            return True
    if change.kind == FOLDER and before is None:
        return there not in (None, FOLDER)
    if there != before:
        return True
    if before != FOLDER or change.kind == FOLDER:
        return False
    folder, name = folders.of(path)
    descriptor = os.open(name, _OPEN_FOLDER, dir_fd=folder)
    try:
        return any(changes.get(f"{path}/{inner}") != GONE for inner in os.listdir(descriptor))
    finally:
        os.close(descriptor)


def _state(folders: _Folders, path: str) -> str | None:
    """Return what is at ``path`` as in Sent, None for nothing; what cannot be told is like nothing that was sent."""
    try:
        folder, name = folders.of(path)
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


def _apply(folders: _Folders, changes: Mapping[str, Change], sent: Mapping[str, str]) -> None:
    """Make the changes: what goes first, the inner things before the outer ones; times last, since each change in a folder sets the folder's."""
    by_depth = sorted(changes, key=lambda path: (path.count("/"), path))
    times: dict[str, tuple[int | None, int]] = {}  # of folders: mode and time
    for path in by_depth:
        above = os.path.dirname(path)
        if changes[path].kind == FOLDER:
            times[path] = (changes[path].mode, changes[path].mtime_ns)
        if above and above not in changes and above not in times:
            folder, name = folders.of(above)
            times[above] = (None, os.stat(name, dir_fd=folder, follow_symlinks=False).st_mtime_ns)
    for path in reversed(by_depth):
        before, kind = sent.get(path), changes[path].kind
        if before is not None and (not kind or (before == FOLDER) != (kind == FOLDER)):
            folder, name = folders.of(path)
            (os.rmdir if before == FOLDER else os.unlink)(name, dir_fd=folder)
    folders.forget()
    for path in (path for path in by_depth if changes[path].kind == FOLDER):
        folder, name = folders.of(path)
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=folder)
    others = [path for path in by_depth if changes[path].kind in ("file", "symlink")]
    for path in sorted(others, key=lambda path: changes[path].same_as is not None):
        _put(folders, path, changes[path])
    for path in sorted(times, key=lambda path: path.count("/"), reverse=True):
        _dress(*folders.of(path), _OPEN_FOLDER, *times[path])


def _put(folders: _Folders, path: str, change: Change) -> None:
    """Have a file or link there, whole or not at all."""
    folder, name = folders.of(path)
    if change.kind == "file" and change.data is None and change.same_as is None:
        _dress(folder, name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, change.mode, change.mtime_ns)
        return
    temporary = f".{uuid.uuid4().hex}"
    try:
        if change.kind == "symlink":
            os.symlink(change.target, temporary, dir_fd=folder)
            os.utime(temporary, ns=(change.mtime_ns, change.mtime_ns), dir_fd=folder, follow_symlinks=False)
        elif change.same_as is not None:
            _link(folders, change.same_as, path, temporary)
            folder, name = folders.of(path)
        else:
            _write(folder, temporary, change)
        os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    finally:
        with contextlib.suppress(FileNotFoundError):  # two names of one file are not renamed into each other
            os.unlink(temporary, dir_fd=folder)


def _link(folders: _Folders, first: str, path: str, temporary: str) -> None:
    """Make ``temporary``, in the folder of ``path``, another name of the file ``first``."""
    other = os.dup(folders.of(first)[0])
    try:
        os.link(os.path.basename(first), temporary, src_dir_fd=other, dst_dir_fd=folders.of(path)[0], follow_symlinks=False)
    finally:
        os.close(other)


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
