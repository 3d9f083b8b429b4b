# Copyright (c) 2026, the ggen.gvisor authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""Folders and files that others can change, opened by root so that none of them decides what root opens. See docs/decisions/pinned-paths.md.

A path is walked name by name. A link is followed only where root alone could have put it: below the first folder that somebody else can write,
a link is an error. What counts afterwards is the descriptor, never the path again.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import Iterator, List, Optional, Sequence, Tuple

from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError, rights_fix

O_PATH = getattr(os, "O_PATH", 0)  # the controller imports this too and need not be Linux
NAMED = O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# A pipe in a file's place does not hold its reader.
FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
MAX_LINKS = 40  # the kernel's own limit
MAX_TEXT_FILE = 1 << 20  # bytes of a file that is read whole
PRIVATE, UNTOUCHED = 0o077, 0o022  # rights that others may not have: none at all, none to write
OWN_MODE = 0o755  # of folders of root's own; what is secret is in folders of their own below

_ABSENT = (errno.ENOENT, errno.ENAMETOOLONG)


class Absent(GvisorError):
    """There is nothing at a path."""


class LinkRefused(GvisorError):
    """There is a link in a path where none is followed."""


class Pinned:
    """What a path led to, held by a descriptor (O_PATH). A context manager that closes it."""

    def __init__(self, descriptor: int, path: str, made: bool = False) -> None:
        self.descriptor = descriptor
        self.path = path  # without links, for messages and for telling which folders lie in which
        self.made = made  # whether it was not there before
        self.status = os.fstat(descriptor)

    @property
    def owner(self) -> Tuple[int, int]:
        """The owner's uid and gid."""
        return self.status.st_uid, self.status.st_gid

    @property
    def identity(self) -> Tuple[int, int]:
        """What tells this file or folder from all others of the host."""
        return self.status.st_dev, self.status.st_ino

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder."""
        return stat.S_ISDIR(self.status.st_mode)

    def __enter__(self) -> Pinned:
        return self

    def __exit__(self, *_exc: object) -> None:
        os.close(self.descriptor)


def is_root_s_alone(status: os.stat_result) -> bool:
    """Tell whether nobody but root can change what is in a folder. (An access control list shows in the group's bits.)"""
    return status.st_uid == 0 and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def through(descriptor: int) -> str:
    """Return a path that leads to what ``descriptor`` holds, whatever became of its name; for calls that take no descriptor of O_PATH."""
    return f"/proc/self/fd/{descriptor}"


def _open(name: str, folder: int) -> int:
    """Return a descriptor of what ``name`` is, a link itself."""
    try:
        return os.open(name, NAMED | os.O_DIRECTORY, dir_fd=folder)  # asking for a folder mounts what is mounted on demand
    except OSError as error:
        if error.errno not in (errno.ENOTDIR, errno.ELOOP):
            raise
    return os.open(name, NAMED, dir_fd=folder)


def pin(path: str, what: str, make: Optional[int] = None) -> Pinned:
    """Open the absolute ``path``, which ``what`` says the use of in messages. With ``make`` missing folders are made with that mode.

    Raises GvisorError that names the part which is absent, no folder, or a link that is not followed.
    """
    if not os.path.isabs(path) or "\0" in path:
        raise GvisorError(f"{what}={path!r} is no absolute path; write where it is from / on")
    words = path.split("/")[::-1]
    names: List[str] = []
    links, made, trusted = 0, False, True
    here = os.open("/", NAMED | os.O_DIRECTORY)
    try:
        trusted = is_root_s_alone(os.fstat(here))
        while words:
            word = words.pop()
            if word in ("", "."):
                continue
            if word == ".." and not trusted:
                raise GvisorError(f"{what} {path} goes up from /{'/'.join(names)}, which others than root can change; write it without ..")
            if not stat.S_ISDIR(os.fstat(here).st_mode):
                raise GvisorError(f"{what} {path}: /{'/'.join(names)} is not a folder; name a folder there", path=path)
            below, made = _step(word, here, make, f"{what} {path}")
            status = os.fstat(below)
            if stat.S_ISLNK(status.st_mode):
                place = "/".join(["", *names, word])
                try:
                    target = os.readlink("", dir_fd=below)
                finally:
                    os.close(below)
                links += 1
                _check_link(place, target, trusted and status.st_uid == 0, links, f"{what} {path}")
                words += target.split("/")[::-1]
                if target.startswith("/"):
                    names = []
                    os.close(here)
                    here = os.open("/", NAMED | os.O_DIRECTORY)
                continue
            os.close(here)
            here = below
            if word == "..":
                names = names[:-1]
            else:
                names.append(word)
                trusted = trusted and is_root_s_alone(status)
        if path.endswith("/") and not stat.S_ISDIR(os.fstat(here).st_mode):
            raise GvisorError(f"{what} {path} is not a folder; name a folder there", path=path)
        return Pinned(here, f"/{'/'.join(names)}", made)
    except OSError as error:
        os.close(here)
        raise GvisorError(
            f"{what} {path} cannot be opened at /{'/'.join(names)}: {error.strerror}{rights_fix(error)}", path=path
        ) from error
    except BaseException:
        os.close(here)
        raise


def _step(word: str, here: int, make: Optional[int], told: str) -> Tuple[int, bool]:
    """Return the descriptor of ``word`` in the folder ``here``, and whether it was made."""
    try:
        return _open(word, here), False
    except OSError as error:
        if error.errno not in _ABSENT:
            raise
        if make is None or error.errno == errno.ENAMETOOLONG:
            raise Absent(f"{told} does not exist on this host: {word[:80]} is missing") from error
    made = _make(word, here, make)
    return _open(word, here), made


def _make(name: str, folder: int, mode: int) -> bool:
    """Make a folder with that mode at once, whatever the umask is: by the time of a chmod its name may be another's. Return whether it was not there.

    The umask is the whole process', and so all threads': a child has one of its own. Raises OSError.
    """
    child = os.fork()
    if child == 0:
        number = errno.EIO
        try:
            os.umask(0)
            os.mkdir(name, mode, dir_fd=folder)
            number = 0
        except OSError as error:
            number = error.errno or number
        finally:
            os._exit(number)
    _pid, status = os.waitpid(child, 0)
    number = os.WEXITSTATUS(status) if os.WIFEXITED(status) else errno.ECANCELED
    if number not in (0, errno.EEXIST):  # another run was faster
        raise OSError(number, os.strerror(number), name)
    return number == 0


def _check_link(place: str, target: str, ours: bool, links: int, told: str) -> None:
    if not ours:
        raise LinkRefused(
            f"{told}: {place} is a link (to {target}) in a place that others than root can change, and is not followed; "
            "name the folder that it leads to"
        )
    if links > MAX_LINKS:
        raise GvisorError(f"{told}: too many links at {place}")


def own_folder(path: str, what: str) -> str:
    """Return the path without links of a folder that root's own things are in, made where it is missing, whatever the umask is.

    Raises GvisorError where somebody else could change what is in it, or exchange it.
    """
    with pin(path, what, OWN_MODE) as pinned:
        steps = pinned.path.split("/")
        for length in range(1, len(steps) + 1):
            place = "/".join(steps[:length]) or "/"
            status = os.lstat(place)
            # In a folder with the sticky bit nobody can exchange what is root's.
            shared = status.st_mode & stat.S_ISVTX and place != pinned.path
            if status.st_uid not in (0, os.geteuid()) or (status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not shared):
                raise GvisorError(
                    f"{what} {path}: {place} can be changed by others than root, and so can what runs do as root by what is there; "
                    f"name another folder, or see what is in it and take their rights away (chown root {place}; chmod go-w {place})",
                    path=path,
                )
        if (status.st_dev, status.st_ino) != pinned.identity:
            raise GvisorError(f"{what} {path} was exchanged while it was looked at; run again", path=path)
        return pinned.path


@contextlib.contextmanager
def acting_as(uid: int, gid: int) -> Iterator[None]:
    """Use files with the rights of ``uid`` and ``gid`` and no others'; only root can, and others stay who they are."""
    if os.geteuid() != 0 or uid == 0:
        yield
        return
    groups, group = os.getgroups(), os.getegid()
    try:
        os.setgroups([gid])
        os.setegid(gid)
        os.seteuid(uid)
        yield
    finally:
        os.seteuid(0)
        os.setegid(group)
        os.setgroups(groups)


def folder_below(folder: int, names: Sequence[str], make: Optional[int] = None) -> int:
    """Open the folder ``names`` below ``folder`` without following a link, made with the mode ``make`` where it is missing. Raises OSError."""
    here = os.open(".", FOLDER, dir_fd=folder)
    try:
        for name in names:
            try:
                below = os.open(name, FOLDER, dir_fd=here)
            except FileNotFoundError:
                if make is None:
                    raise
                _make(name, here, make)
                below = os.open(name, FOLDER, dir_fd=here)
            os.close(here)
            here = below
    except BaseException:
        os.close(here)
        raise
    return here


def read_file(folder: Pinned, path: str, limit: int = MAX_TEXT_FILE) -> Optional[bytes]:
    """Return the bytes of the file ``path`` below ``folder``, read as the folder's owner; None where there is none.

    Raises GvisorError where it is a link (or behind one), no file, larger than ``limit``, or not the owner's to read.
    """
    told = f"{folder.path}/{path}"
    *parents, name = path.split("/")
    with acting_as(*folder.owner):
        try:
            above = folder_below(folder.descriptor, parents)
            try:
                descriptor = os.open(name, FILE, dir_fd=above)
            finally:
                os.close(above)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR):
                raise LinkRefused(f"{told} is a link or behind one, and is not followed") from error
            raise GvisorError(f"{told} cannot be read by the owner of {folder.path}: {error.strerror}") from error
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise GvisorError(f"{told} is not a regular file")
        with open(descriptor, "rb") as stream:
            data = stream.read(limit + 1)
    if len(data) > limit:
        raise GvisorError(f"{told} is larger than {limit} bytes")
    return data


def read_own(path: str, what: str, others: int) -> bytes:
    """Return the bytes of a file of root's, or of who we are, on which nobody else has any of the rights ``others``. Raises GvisorError."""
    with pin(path, what) as pinned:
        if not stat.S_ISREG(pinned.status.st_mode):
            raise GvisorError(f"{what} {path} is not a regular file", path=path)
        if pinned.status.st_uid not in (0, os.geteuid()) or pinned.status.st_mode & others:
            raise GvisorError(
                f"{what} {path} is not its owner's alone to {'read' if others & stat.S_IROTH else 'write'}: mode {stat.S_IMODE(pinned.status.st_mode):04o}, "
                f"uid {pinned.status.st_uid}; take the others' rights away (chown root {path}; chmod {'go=' if others & stat.S_IROTH else 'go-w'} {path})",
                path=path,
            )
        try:
            with open(through(pinned.descriptor), "rb") as stream:
                data = stream.read(MAX_TEXT_FILE + 1)
        except OSError as error:
            raise GvisorError(f"{what} {path} cannot be read: {error.strerror}{rights_fix(error)}", path=path) from error
    if len(data) > MAX_TEXT_FILE:
        raise GvisorError(f"{what} {path} is larger than {MAX_TEXT_FILE} bytes", path=path)
    return data


def write_file(folder: Pinned, path: str, data: bytes, mode: int, folder_mode: int) -> None:
    """Write the file ``path`` below ``folder`` whole or not at all, as the folder's owner, in place of what is there, a link too.

    Missing folders on the way get ``folder_mode``; one that is a link is an error. Raises OSError with the file's name.
    """
    *parents, name = path.split("/")
    temporary = f".{name[:100]}.{os.urandom(6).hex()}"
    with acting_as(*folder.owner):
        try:
            above = folder_below(folder.descriptor, parents, folder_mode)
            try:
                descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=above)
                try:
                    with open(descriptor, "wb") as stream:
                        stream.write(data)
                        stream.flush()
                        os.fchmod(stream.fileno(), mode)
                        os.fsync(stream.fileno())
                    os.replace(temporary, name, src_dir_fd=above, dst_dir_fd=above)
                except BaseException:
                    os.unlink(temporary, dir_fd=above)
                    raise
                os.fsync(above)  # the rename itself must survive a power cut
            finally:
                os.close(above)
        except OSError as error:
            error.filename = f"{folder.path}/{path}"
            error.filename2 = None
            raise
