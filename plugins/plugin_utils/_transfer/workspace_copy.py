# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A workspace of the controller for a run on another host: packed here, and the run's changes written back here.

What comes back is from a sandbox and not to be trusted: only plain files below the workspace are written, no link is followed, and nothing is written at
all where something here is not as it was when it was packed.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import re
import stat
import tarfile
import uuid
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._base.text import visible_line

SHOWN = 5
MAX_PATH, MAX_NAME = 3000, 255  # bytes: the next run must be able to send it
CHANGES = ("created", "modified", "removed")
# A file's sha256, or "-> " and a link's target.
Sent = dict[str, str]


def pack(root: str, archive: str) -> Sent:
    """Write the folder into a tar archive and return what is in it. Raises GvisorError for what cannot be sent."""
    root = os.path.realpath(root)
    sent: Sent = {}
    try:
        with tarfile.open(archive, "w", format=tarfile.PAX_FORMAT) as tar:
            for path, entry in _entries(root):
                _add(tar, root, path, entry, sent)
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


def _add(tar: tarfile.TarFile, root: str, path: str, entry: os.DirEntry[str], sent: Sent) -> None:
    status = entry.stat(follow_symlinks=False)
    info = tarfile.TarInfo(path)
    info.mode, info.mtime = stat.S_IMODE(status.st_mode) & 0o777, int(status.st_mtime)
    try:
        path.encode("utf-8")
    except UnicodeEncodeError as error:
        raise GvisorError(f"workspace {root} has the name {os.fsencode(path)!r}, which is not UTF-8. Rename it.") from error
    if visible_line(path) != path:  # what comes back is under the name that can be shown
        raise GvisorError(f"workspace {root} has the name {visible_line(path)}, with characters that cannot be shown. Rename it.")
    if entry.is_symlink():
        info.type, info.linkname = tarfile.SYMTYPE, os.readlink(entry.path)
        if os.path.isabs(info.linkname) or not f"{os.path.realpath(entry.path)}/".startswith(f"{root}/"):
            raise GvisorError(
                f"workspace {root}: {visible_line(path)} is a link that leads out of it, to {visible_line(info.linkname)}. Remove it, or copy what it leads to."
            )
        sent[path] = f"-> {info.linkname}"
        tar.addfile(info)
    elif entry.is_dir(follow_symlinks=False):
        info.type = tarfile.DIRTYPE
        tar.addfile(info)
    elif stat.S_ISREG(status.st_mode):
        with open(entry.path, "rb") as stream:
            sent[path] = hashlib.file_digest(stream, "sha256").hexdigest()
            stream.seek(0)
            info.size = status.st_size
            tar.addfile(info, stream)
    else:
        raise GvisorError(f"workspace {root}: {visible_line(path)} is neither file, folder nor link, so it cannot be sent. Remove it.")


class Change(NamedTuple):
    """One row of a host's changed_files, as far as it matters here."""

    path: str
    removed: bool
    kind: str
    sha256: str
    mode: int


def changes_of(told: Any) -> list[Change]:
    """Return the changes that a host tells of. Raises GvisorError for what a host of ours does not say."""
    found = []
    for row in told if isinstance(told, list) else [None]:
        row = row if isinstance(row, dict) else {}
        texts = [str(row.get(name, "")) for name in ("path", "change", "kind", "sha256", "mode")]
        path, change, kind, sha256, mode = texts
        if not _is_plain(path):
            raise GvisorError(f"the run reported a change of {path!r}, which is not below the workspace. Nothing was written back.")
        if change not in CHANGES or not re.fullmatch("[0-7]{1,5}", mode):
            raise GvisorError(
                f"the host's report on {path!r} is no report of a change ({change!r}, mode {mode!r}). Nothing was written back."
            )
        found.append(Change(path, change == "removed", kind, sha256, int(mode, 8)))
    return found


def write_back(root: str, sent: Mapping[str, str], told: Any, contents: Any) -> list[str]:
    """Write what a run changed into the workspace and return remarks: what was left out.

    ``told`` is containerd_run's changed_files, ``contents`` the files' bytes in base64, both as a host says. Raises GvisorError, and writes nothing then,
    when a path is not below the workspace, when bytes are not those that were reported, and when something here was changed since it was packed.
    """
    changes = changes_of(told)
    base = os.open(os.path.realpath(root), os.O_RDONLY | os.O_DIRECTORY)
    try:
        wanted, remarks = [], []
        for change in changes:
            if not change.removed and change.kind != "file":
                remarks.append(f"{visible_line(change.path)} is a {visible_line(change.kind)} and was not copied back")
                continue
            wanted.append((change.path, None if change.removed else _bytes(change, contents), change.mode))
        conflicts = [path for path, _data, _mode in wanted if _state(base, path) != sent.get(path)]
        if conflicts:
            shown = ", ".join(map(visible_line, conflicts[:SHOWN])) + (
                f" and {len(conflicts) - SHOWN} more" if len(conflicts) > SHOWN else ""
            )
            raise GvisorError(f"{shown} in {root} changed while the command ran elsewhere on a copy. Nothing was written back; run again.")
        for path, data, mode in wanted:
            _put(base, path, data, mode)
    except OSError as error:
        raise GvisorError(f"the run's changes cannot be written to {root}: {error.filename}: {error.strerror}") from error
    finally:
        os.close(base)
    return remarks


def _is_plain(path: str) -> bool:
    """Tell whether it is the path of something in a folder that a name of a file can have here; a surrogate by itself is none."""
    if "\0" in path or any(part in ("", ".", "..") for part in path.split("/")):
        return False
    try:
        names = path.encode("utf-8").split(b"/")
    except UnicodeEncodeError:
        return False
    return sum(map(len, names)) + len(names) <= MAX_PATH and max(map(len, names)) <= MAX_NAME


def _bytes(change: Change, contents: Any) -> bytes:
    try:
        data = base64.b64decode(contents.get(change.path, ""))
        if hashlib.sha256(data).hexdigest() == change.sha256:
            return data
    except (AttributeError, TypeError, ValueError):
        pass  # neither texts by paths nor base64
    raise GvisorError(f"the bytes of {visible_line(change.path)} are not those that the run reported. Nothing was written back.")


@contextlib.contextmanager
def _folder(base: int, path: str, make: bool = False) -> Iterator[tuple[int, str]]:
    """Yield the descriptor of the folder that ``path`` is in, and its last part; a link on the way is an error (NotADirectoryError, ELOOP)."""
    *parents, name = path.split("/")
    descriptor = os.dup(base)
    try:
        for parent in parents:
            if make:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(parent, 0o755, dir_fd=descriptor)
            below = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = below
        yield descriptor, name
    finally:
        os.close(descriptor)


def _state(base: int, path: str) -> str | None:
    """Return what is at ``path`` as in Sent, None for nothing; what cannot be told is like nothing that was sent."""
    try:
        with _folder(base, path) as (folder, name):
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
            if stat.S_ISLNK(status.st_mode):
                return f"-> {os.readlink(name, dir_fd=folder)}"
            if not stat.S_ISREG(status.st_mode):
                return "?"
            with open(os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=folder), "rb") as stream:
                return hashlib.file_digest(stream, "sha256").hexdigest()
    except FileNotFoundError:
        return None
    except OSError:
        return "?"


def _put(base: int, path: str, data: bytes | None, mode: int) -> None:
    """Write or remove one file. A new one is its owner's alone, as far as the run gave it to them; an old one keeps its mode."""
    with _folder(base, path, make=data is not None) as (folder, name):
        if data is None:
            os.unlink(name, dir_fd=folder)
            return
        try:
            mode = stat.S_IMODE(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
        except FileNotFoundError:
            mode &= 0o700
        temporary = f".{name[:100]}.{uuid.uuid4().hex[:12]}"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=folder)
        try:
            with open(descriptor, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fchmod(stream.fileno(), mode)
                os.fsync(stream.fileno())
            os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            os.unlink(temporary, dir_fd=folder)
            raise
