# Copyright (c) 2026, the ggen.gvisor authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""Files: their digest, and writes that are whole or not at all."""

from __future__ import annotations

import hashlib
import os
import tempfile


def sha256_file(path: str) -> str:
    """Return the file's sha256 in hex. Raises OSError when it cannot be read."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def megabytes(size: int) -> str:
    """Return a number of bytes for people."""
    return f"{size / 1e6:.1f} MB"


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
    except BaseException:
        os.unlink(temporary)
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
