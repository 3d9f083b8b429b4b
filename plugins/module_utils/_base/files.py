# Copyright (c) 2026, the ggen.gvisor authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""Files: their digest, and writes that are whole or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
import time
from typing import Iterator, List, Optional

from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError

# What the collection's action plugins send into Ansible's temporary folders, and the seconds after which nobody is at work with it any more.
SENT = ("payload", "workspace.tar")
SENT_SECONDS = 6 * 3600


def sha256_file(path: str) -> str:
    """Return the file's sha256 in hex. Raises OSError when it cannot be read."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
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


@contextlib.contextmanager
def locked(folder: str) -> Iterator[None]:
    """Hold the lock on a folder, which leaves no file behind and ends with its holder. Raises OSError when the folder is not there."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def locked_now(folder: str) -> Iterator[bool]:
    """Hold the lock on a folder if nobody else does, and tell whether it is held. Raises OSError when the folder is not there."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    held = False
    try:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = True
        yield held
    finally:
        os.close(descriptor)


def atomic_write(path: str, data: bytes, mode: int) -> None:
    """Write ``data`` to ``path`` so that a reader, or a crash, sees the old file or the new one and nothing between.

    ``mode`` holds the permission bits. Raises OSError; the old file is then untouched and no temporary file stays.
    """
    folder = os.path.dirname(path) or "."
    descriptor, temporary = tempfile.mkstemp(dir=folder, prefix=f".{os.path.basename(path)}.")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            os.fchmod(stream.fileno(), mode)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        os.unlink(temporary)
        if isinstance(error, OSError) and error.filename is None:  # a write that fails does not say of which file
            error.filename = path
        raise
    directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)  # the rename itself must survive a power cut
    finally:
        os.close(directory)


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

    Ansible removes its folders only at the end of a task, and these hold tens of megabytes. Ones that cannot be removed stay.
    """
    folder = os.path.dirname(path)
    if not os.path.basename(folder).startswith("ansible-tmp-"):
        return
    with os.scandir(os.path.dirname(folder)) as entries:
        others = [entry.path for entry in entries if entry.name.startswith("ansible-tmp-") and entry.path != folder]
    for other in others:
        sent = [os.path.join(other, name) for name in SENT]
        if any(time.time() - os.lstat(one).st_mtime > SENT_SECONDS for one in sent if os.path.lexists(one)):
            shutil.rmtree(other, ignore_errors=True)


def read_text(path: str) -> Optional[str]:
    """Return the file's text, or None where it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read()
    except OSError:
        return None


@contextlib.contextmanager
def locked_file(path: str) -> Iterator[None]:
    """Hold the lock on a file, which is made with its folder where it is not there; others wait. Raises OSError when it cannot be made."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)  # the kernel lets go of it when the holder dies
        yield
