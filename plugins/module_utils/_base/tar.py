# Copyright (c) 2026, the ggen.gvisor authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""Read a tar archive that somebody else has made. Nothing is written here: what an entry becomes is its reader's business."""

from __future__ import annotations

import gzip
import posixpath
import tarfile
import zlib
from typing import IO, BinaryIO, Callable, FrozenSet, Iterator, NamedTuple, Tuple, cast

from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError

MAX_READ = 1 << 20  # bytes that one read may ask for: a header that claims a name of 10 GB must not cost 10 GB of memory
# What an entry is. A sparse file is another thing than a file: a few bytes of it stand for any number.
FILE, FOLDER, LINK, OTHER = "file", "folder", "link", "other"
_DAMAGE = (tarfile.TarError, OSError, EOFError, zlib.error, ValueError, OverflowError, RecursionError)

Fail = Callable[[str], GvisorError]


class Trust(NamedTuple):
    """What is taken from an archive. All else is refused."""

    kinds: FrozenSet[str]
    entries: int
    gzip: bool = False  # whether it may be compressed
    cleaned: bool = False  # whether ./a//b stands for a/b; otherwise each name must be written as it is meant


def kind_of(member: tarfile.TarInfo) -> str:
    """Return what the entry is."""
    if member.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and not member.issparse():
        return FILE
    return FOLDER if member.isdir() else LINK if member.issym() else OTHER


class _Bounded:
    """A file whose single reads are bounded, so that tarfile cannot be talked into a gigantic one."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.tell, self.seek = stream.tell, stream.seek

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= MAX_READ:
            raise tarfile.ReadError(f"a header claims {size} bytes")
        return self._stream.read(size)


class Reader:
    """An opened archive, for ``with`` and ``for``: the entries in their order, each with its name.

    What goes wrong is raised as what ``fail`` makes of a sentence; only a file that cannot be opened is an OSError.
    """

    def __init__(self, path: str, trust: Trust, fail: Fail) -> None:
        self._trust, self._fail = trust, fail
        self._file = stream = open(path, "rb")  # noqa: SIM115 - closed by close
        try:
            compressed = trust.gzip and stream.read(2) == b"\x1f\x8b"
            stream.seek(0)
            if compressed:
                stream = cast(BinaryIO, gzip.GzipFile(fileobj=stream))
            self._tar = tarfile.open(fileobj=cast(BinaryIO, _Bounded(stream)), mode="r:")  # noqa: SIM115 - needs no closing
        except _DAMAGE as error:
            self.close()
            raise self._damaged(error) from error

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def _damaged(self, error: BaseException) -> GvisorError:
        return self._fail(f"truncated, damaged or no tar archive ({error}); make or copy it again")

    def _members(self) -> Iterator[tarfile.TarInfo]:
        try:
            yield from self._tar
        except _DAMAGE as error:
            raise self._damaged(error) from error

    def __iter__(self) -> Iterator[Tuple[str, tarfile.TarInfo]]:
        seen = set()
        for count, member in enumerate(self._members()):
            name = posixpath.normpath(member.name)
            if count >= self._trust.entries:
                raise self._fail(f"more than {self._trust.entries} entries")
            # What is looked at must be what others make of the name: "x/../y" is y for some of them.
            if name.startswith("/") or ".." in member.name.split("/") or "\0" in name:
                raise self._fail(f"entry {member.name!r} leads outside of the archive")
            if name != member.name.rstrip("/") and not self._trust.cleaned:
                raise self._fail(f"entry {member.name!r} is another way to write {name!r}")
            if member.size < 0:
                raise self._fail(f"entry {name!r} claims {member.size} bytes")
            if kind_of(member) not in self._trust.kinds:
                raise self._fail(f"entry {name!r} is no {' or '.join(sorted(self._trust.kinds))}")
            if kind_of(member) != FOLDER:
                if name in seen:
                    raise self._fail(f"entry {name!r} is there twice")
                seen.add(name)
            yield name, member

    def extractfile(self, member: tarfile.TarInfo) -> IO[bytes]:
        """Return the file's bytes as a stream."""
        return cast(IO[bytes], self._tar.extractfile(member))

    def blocks(self, name: str, member: tarfile.TarInfo) -> Iterator[bytes]:
        """Return the file's bytes, all that its header says."""
        try:
            stream, left = self.extractfile(member), member.size
            while left:
                block = stream.read(min(left, MAX_READ))
                if not block:
                    raise self._fail(f"{name} ends {left} bytes early; the archive is truncated")
                left -= len(block)
                yield block
        except _DAMAGE as error:
            raise self._fail(f"{name} cannot be read ({error}); the archive is truncated or damaged") from error
