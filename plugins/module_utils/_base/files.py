# Copyright (c) 2026, the ggen.gvisor authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""Files: their digest, and writes that are whole or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import signal
import stat
import tempfile
import time
from typing import Any, BinaryIO, Callable, Iterator, List, Optional, Tuple

from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError

# What the collection's action plugins send into Ansible's temporary folders, and the seconds after which nobody is at work with it any more.
SENT_PAYLOAD, SENT_WORKSPACE = "payload", "workspace{0}.tar"
SENT_SECONDS = 6 * 3600
_SENT = re.compile("|".join((SENT_PAYLOAD, SENT_WORKSPACE.format(r"\d*"))))
CHUNK = 1 << 20  # bytes a read
LOCKS = os.path.join("/run" if os.path.isdir("/run") else "/var/run", "ggen.gvisor")


def sha256_file(path: str) -> str:
    """Return the file's sha256 in hex. Raises OSError when it cannot be read."""
    with open(path, "rb") as stream:
        return sha256_of(stream)


def sha256_of(stream: BinaryIO, write: Optional[Callable[[bytes], Any]] = None, size: Optional[int] = None) -> str:
    """Read the stream to its end, or ``size`` bytes of it, and return their sha256 in hex; each block also goes to ``write``.

    Of a stream that ends early it is the sha256 of what there was. Raises OSError.
    """
    digest, left = hashlib.sha256(), size
    while left is None or left > 0:
        block = stream.read(CHUNK if left is None else min(left, CHUNK))
        if not block:
            break
        digest.update(block)
        if left is not None:
            left -= len(block)
        if write is not None:
            write(block)
    return digest.hexdigest()


def read_file(path: str) -> Optional[bytes]:
    """Return the file's bytes, None where there is no file. Raises OSError when it cannot be read."""
    try:
        with open(path, "rb") as stream:
            return stream.read()
    except FileNotFoundError:
        return None


def make_folders(path: str, mode: int) -> List[str]:
    """Make the folder and its parents, with the permission bits ``mode`` whatever the umask is; return those that were missing.

    Raises GvisorError where something else is in the way, and OSError.
    """
    missing = []
    while not os.path.isdir(path):
        if os.path.lexists(path):
            raise GvisorError(f"{path} is no folder and should be one; move it away")
        missing.append(path)
        path = os.path.dirname(path)
    made = []
    for folder in reversed(missing):
        with contextlib.suppress(FileExistsError):  # another run was faster
            os.mkdir(folder)
            os.chmod(folder, mode)
            made.append(folder)
    return made


def _lock_of(folder: int) -> int:
    """Return a descriptor for the lock on an open folder.

    Whoever may read a folder can hold its own lock, as long as they like. So root's locks on folders of root's are on files that root alone can open,
    in a place that is empty after a start, named by the folder's device and inode. Raises GvisorError or OSError.
    """
    status = os.fstat(folder)
    if os.geteuid() != 0 or status.st_uid != 0:
        return os.dup(folder)
    with contextlib.suppress(FileExistsError):
        os.mkdir(LOCKS, 0o700)
    locks = os.open(LOCKS, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        place = os.fstat(locks)
        if place.st_uid != 0 or stat.S_IMODE(place.st_mode) & 0o077:
            raise GvisorError(f"{LOCKS} is not root's alone, and others could hold its locks; remove it")
        return os.open(f"{status.st_dev}-{status.st_ino}", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=locks)
    finally:
        os.close(locks)


@contextlib.contextmanager
def _with_lock(folder: str) -> Iterator[Tuple[int, int]]:
    """Give the descriptors of a folder and of its lock."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        lock = _lock_of(descriptor)
        try:
            yield descriptor, lock
        finally:
            os.close(lock)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def locked(folder: str, timeout: Optional[float] = None, shared: bool = False) -> Iterator[int]:
    """Hold the lock on a folder, which leaves no file there and ends with its holder; with ``shared`` together with others who share it.

    Gives the folder's descriptor.
    Raises GvisorError when another run holds it longer than ``timeout`` seconds, where that is given, and OSError when the folder is not there.
    """
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    with _with_lock(folder) as (descriptor, lock):
        if timeout is None:
            fcntl.flock(lock, kind)
        elif not take_lock(lock, kind, timeout):
            raise GvisorError(f"another run has been changing {folder} for more than {timeout:g} s")
        yield descriptor


@contextlib.contextmanager
def locked_now(folder: str) -> Iterator[bool]:
    """Hold the lock on a folder if nobody else does, and tell whether it is held. Raises OSError when the folder is not there."""
    with _with_lock(folder) as (_descriptor, lock):
        held = False
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = True
        yield held


@contextlib.contextmanager
def locked_file(path: str) -> Iterator[None]:
    """Hold the lock on a file, which is made with its folder where it is not there; others wait. Raises OSError when it cannot be made."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    # Nobody else may open it: whoever can read a file can hold its lock.
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600), "wb") as stream:
        with contextlib.suppress(PermissionError):  # a cache that users share
            os.fchmod(stream.fileno(), 0o600)
        fcntl.flock(stream, fcntl.LOCK_EX)  # the kernel lets go of it when the holder dies
        yield


class _Late(Exception):
    """The time to wait for a lock is over."""


def take_lock(descriptor: int, kind: int, seconds: float) -> bool:
    """Take flock's lock of this kind within ``seconds``. Returns whether it was taken. Needs the main thread, for its alarm."""

    def ring(_signal: int, _frame: Any) -> None:
        raise _Late

    previous = signal.signal(signal.SIGALRM, ring)
    try:
        signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.001))  # none at all would mean no alarm
        fcntl.flock(descriptor, kind)
    except _Late:
        return False
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    return True


class Staged:
    """A new file beside the place that it will take by keep(); ``stream`` takes its bytes, ``path`` is where it is until then."""

    def __init__(self, stream: BinaryIO, path: str, mode: int) -> None:
        self.stream = stream
        self.path = path
        self._mode = mode

    def keep(self, path: str, durable: bool = True) -> None:
        """Bring the file to its place by one rename that, unless it is not ``durable``, survives a power cut. Raises OSError."""
        os.fchmod(self.stream.fileno(), self._mode)
        self.stream.flush()
        if durable:
            os.fsync(self.stream.fileno())
        os.replace(self.path, path)
        if durable:
            sync_folder(os.path.dirname(path) or ".")


@contextlib.contextmanager
def staged(folder: str, name: str, mode: int) -> Iterator[Staged]:
    """Give a new file in ``folder``, called after ``name``; it is gone in the end unless it was kept. ``mode`` holds its permission bits.

    Raises OSError, which tells the file's name where the operating system does not: it does not for a write that fails.
    """
    descriptor, temporary = tempfile.mkstemp(dir=folder, prefix=f".{name}.")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            yield Staged(stream, temporary, mode)
    except OSError as error:
        if error.filename is None:
            error.filename = os.path.join(folder, name)
        raise
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def sync_folder(path: str) -> None:
    """Wait until what was renamed in the folder would survive a power cut. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def atomic_write(path: str, data: bytes, mode: int, durable: bool = True) -> None:
    """Write ``data`` to ``path`` so that a reader, or a crash, sees the old file or the new one and nothing between.

    ``mode`` holds the permission bits. What is for other processes of this start of the host alone need not be ``durable``, which costs a wait for
    the disk. Raises OSError; the old file is then untouched and no temporary file stays.
    """
    with staged(os.path.dirname(path) or ".", os.path.basename(path), mode) as new:
        new.stream.write(data)
        new.keep(path, durable)


def atomic_symlink(target: str, path: str) -> None:
    """Let the symbolic link ``path`` lead to ``target``, in place of the link or file that is there. Raises OSError."""
    scratch = tempfile.mkdtemp(dir=os.path.dirname(path) or ".", prefix=".link.")
    link = os.path.join(scratch, "link")
    try:
        os.symlink(target, link)
        os.replace(link, path)
    finally:
        if os.path.lexists(link):
            os.unlink(link)
        os.rmdir(scratch)


def remove_stale_transfers(path: str) -> None:
    """Remove what runs whose controller was killed or cut off left beside ``path``, where that is in a temporary folder of Ansible's.

    Ansible removes its folders only at the end of a task, and these hold tens of megabytes, or somebody's workspace. Ones that cannot be removed
    stay, and so do those of other users, who may have made whatever they like of them.
    """
    folder = os.path.dirname(path)
    if not os.path.basename(folder).startswith("ansible-tmp-"):
        return
    with os.scandir(os.path.dirname(folder)) as entries:
        others = [entry.path for entry in entries if entry.name.startswith("ansible-tmp-") and entry.path != folder]
    owner = os.lstat(folder).st_uid
    for other in others:
        with contextlib.suppress(OSError, RecursionError):
            if os.lstat(other).st_uid == owner and _is_stale(other):
                shutil.rmtree(other, ignore_errors=True)


def _is_stale(folder: str) -> bool:
    """Tell whether it is a folder with something that was sent so long ago that nobody is at work with it."""
    with os.scandir(folder) as entries:
        times = [entry.stat(follow_symlinks=False).st_mtime for entry in entries if _SENT.fullmatch(entry.name)]
    return any(time.time() - sent > SENT_SECONDS for sent in times)


def read_text(path: str) -> Optional[str]:
    """Return the file's text, or None where it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read()
    except OSError:
        return None
