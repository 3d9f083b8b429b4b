# Copyright (c) 2026, the ggen.gvisor authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""What a job did to a folder: scan before, scan after, compare; and a throw-away copy for a rehearsal.

Nothing here follows a symbolic link or opens anything but regular files: the folder may be hostile, and its reader is root.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import fcntl
import hashlib
import os
import re
import stat
import time
from tarfile import TarInfo
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Set, Tuple

from ansible_collections.ggen.gvisor.plugins.module_utils._base import tar
from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.pinned import FILE, FOLDER, folder_below
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.walker import (
    ENTER,
    ENTRY,
    LEAVE,
    Bounds,
    Identity,
    Step,
    Walk,
    printable,
)

MAX_TEXT = 64 << 10  # bytes of a file that a diff still shows
MAX_TEXTS = 16 << 20  # bytes of all such files together
MAX_DIFF = 4 << 20  # characters of texts that a result shows
MAX_DIFF_WORK = 100_000_000  # comparisons that finding their differences may take difflib, which Ansible uses, too: seconds
MAX_LISTED = 5000  # changes that a result lists; all are counted
MAX_LISTED_PATHS = 1 << 20  # characters of their paths
MAX_ENTRIES = 500_000  # about 350 MB of memory
MAX_DEPTH = 10_000
# A workspace of the controller's, which has made the archive.
SENT = tar.Trust(frozenset({tar.FILE, tar.FOLDER, tar.LINK}), entries=MAX_ENTRIES)
MAX_PATHS = 128 << 20  # characters of all paths, and of links' targets: a name in a thousand long folders has a long path
SPARSE = 64 << 20  # bytes from which on a file that is mostly holes is told from others by a digest of its data alone
MAX_HOLES = 16 << 30  # bytes of holes of which the digest is made in one scan, about ten seconds' work
BLOCK = 1 << 16
HIDDEN = "data:"  # the digest of what is not read
_FICLONE = 0x40049409  # ioctl: share the blocks of another file where the file system can (btrfs, xfs)
RACY_NS = 50_000_000  # a file changed within this time of being looked at may change again under the same time stamp
SET_ID = stat.S_ISUID | stat.S_ISGID
_KINDS = {stat.S_IFREG: "file", stat.S_IFLNK: "symlink", stat.S_IFIFO: "fifo", stat.S_IFSOCK: "socket"}


class Entry(NamedTuple):
    """One name in a folder."""

    kind: str  # file, folder, symlink, fifo, socket or device
    mode: int  # permission bits
    owner: Tuple[int, int]
    size: int
    digest: str  # sha256 of a file's bytes or of a link's target, "data:" and that of the data of a huge sparse file; empty for the rest
    text: Optional[str]  # kept for diffs on request
    stamp: Tuple[int, ...]  # inode, size, mtime and ctime: the same stamp means the same bytes; empty when not sure
    whole: str = ""  # sha256 of the bytes of such a sparse file, where it was asked for and there was time
    target: str = ""  # of a link


class Scan(Dict[str, Entry]):
    """Every file, link and special file of a folder by its relative path."""

    def __init__(self) -> None:
        super().__init__()
        self.folders: Dict[str, Entry] = {}
        self.filled: Set[str] = set()  # the folders that something is in
        self.owners: Set[Tuple[int, int, int]] = set()  # inode, uid and gid of all, folders too
        self.strangers: List[str] = []  # what belongs to somebody whom nobody expected, and was not so before
        self.problems: List[str] = []  # what was not looked at, as far as it is told
        self.missed = 0  # how much that is

    @property
    def links(self) -> Dict[str, str]:
        """The links, with their targets."""
        return {path: entry.target for path, entry in self.items() if entry.kind == "symlink"}


def open_file(name: str, folder: int) -> int:
    """Open a regular file for reading; a link or a pipe put in its place meanwhile cannot lead astray or block."""
    descriptor = os.open(name, FILE, dir_fd=folder)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.ELOOP, "no longer a regular file", name)
    return descriptor


def data_ranges(descriptor: int, size: int) -> Iterator[Tuple[int, int]]:
    """Yield where a file of ``size`` bytes has data, as (begin, end); what is between is holes. Raises OSError."""
    end = 0
    while end < size:
        try:
            begin = os.lseek(descriptor, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole is left
                return
            if error.errno != errno.EINVAL:
                raise
            yield end, size  # a file system that does not tell
            return
        end = min(os.lseek(descriptor, begin, os.SEEK_HOLE), size)
        if end <= begin:
            return
        yield begin, end


def in_time(deadline: float, name: str) -> None:
    """Raise TimeoutError when ``deadline`` is over."""
    if time.monotonic() > deadline:
        raise TimeoutError(errno.ETIMEDOUT, "the time for looking was over here", name)


def _digest(descriptor: int, status: os.stat_result, deadline: float, name: str, begun: bytes) -> str:
    """Return the digest of a file of which ``begun`` was read already. Raises OSError, TimeoutError among them."""
    hasher = hashlib.sha256()
    if status.st_size > SPARSE and status.st_blocks * 512 < status.st_size // 2:
        hasher.update(b"%d" % status.st_size)
        done = 0
        for begin, end in data_ranges(descriptor, status.st_size):
            for place in range(max(done, begin - begin % BLOCK), end, BLOCK):
                in_time(deadline, name)
                block = os.pread(descriptor, BLOCK, place)
                done = place + BLOCK
                if block.strip(b"\0"):  # zeros that were written are like those of a hole
                    hasher.update(b"%d:" % place + block)
        return f"data:{hasher.hexdigest()}"
    hasher.update(begun)
    left = status.st_size - len(begun)  # one that grows meanwhile has no end
    while left > 0:
        in_time(deadline, name)
        block = os.read(descriptor, min(1 << 20, left))
        if not block:
            break
        hasher.update(block)
        left -= len(block)
    return hasher.hexdigest()


def stamp_of(status: os.stat_result) -> Tuple[int, ...]:
    """Return what is another when a file's bytes are."""
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def has_set_id(status: os.stat_result) -> bool:
    """Tell whether it is a file with the set-user-id or set-group-id bit."""
    return stat.S_ISREG(status.st_mode) and bool(status.st_mode & SET_ID)


def set_id_row(status: os.stat_result) -> List[Any]:
    """Return what such a file must still be for the bits to stay; JSON carries it."""
    return [stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, list(stamp_of(status))]


def whole_digest(descriptor: int, size: int, deadline: float, name: str) -> str:
    """Return the sha256 of a file's bytes, of which its holes are not read. Raises OSError, TimeoutError among them."""
    hasher = hashlib.sha256()
    zeros = memoryview(bytes(1 << 20))

    def skip(count: int) -> None:
        for left in range(count, 0, -len(zeros)):
            in_time(deadline, name)
            hasher.update(zeros[:left])

    done = 0
    for begin, end in data_ranges(descriptor, size):
        skip(begin - done)
        while begin < end:
            in_time(deadline, name)
            block = os.pread(descriptor, min(1 << 20, end - begin), begin)
            if not block:  # it was cut meanwhile
                return hasher.hexdigest()
            hasher.update(block)
            begin += len(block)
        done = end
    skip(size - done)
    return hasher.hexdigest()


class Extent(NamedTuple):
    """How far a scan goes beside its time."""

    texts: bool = False  # keep the text of small files, for diffs
    holes: int = 0  # bytes of sparse files, together, of which the digest of the whole is made too
    most: int = MAX_ENTRIES
    reader: Optional[int] = (
        None  # whose files and folders alone are read, where not all are: of others' files there is neither text nor digest
    )


DIGESTS = Extent()


class _Left:
    """What a scan may still take."""

    def __init__(self, deadline: float, extent: Extent) -> None:
        self.deadline = deadline
        self.begun_ns = time.time_ns()
        self.texts = MAX_TEXTS if extent.texts else 0  # bytes
        self.holes = extent.holes
        self.reader = extent.reader


def _look(name: str, folder: int, status: os.stat_result, known: Optional[Entry], left: _Left) -> Entry:
    kind = _KINDS.get(stat.S_IFMT(status.st_mode), "device")
    digest, text, whole, target = "", None, "", ""
    stamp = stamp_of(status)
    if kind == "symlink":
        target = os.readlink(name, dir_fd=folder)
        digest = hashlib.sha256(os.fsencode(target)).hexdigest()
    elif kind == "file" and known is not None and known.stamp == stamp:
        digest, text = known.digest, known.text
    elif kind == "file":
        descriptor = open_file(name, folder)
        try:
            begun, opened = b"", os.fstat(descriptor)
            readable = left.reader in (None, opened.st_uid)
            if readable and status.st_size <= MAX_TEXT:
                begun = os.read(descriptor, MAX_TEXT + 1)
                text = _text(begun) if len(begun) <= left.texts else None
            digest = _digest(descriptor, opened, left.deadline, name, begun) if readable else HIDDEN
            if readable and ":" in digest and status.st_size <= left.holes and not (known and known.digest == digest):
                now = time.monotonic()
                with contextlib.suppress(TimeoutError):  # half of the time is for the others
                    whole = whole_digest(descriptor, status.st_size, now + (left.deadline - now) / 2, name)
        finally:
            os.close(descriptor)
    left.texts -= len(text or "")
    left.holes -= status.st_size if whole else 0
    sure = left.begun_ns - status.st_ctime_ns > RACY_NS
    return Entry(
        kind,
        stat.S_IMODE(status.st_mode),
        (status.st_uid, status.st_gid),
        status.st_size,
        digest,
        text,
        stamp if sure else (),
        whole,
        target,
    )


def _text(data: bytes) -> Optional[str]:
    if b"\0" in data:
        return None
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return None


def scan(
    root: int,
    deadline: float,
    known: Optional[Scan] = None,
    expected: Optional[Tuple[int, int]] = None,
    extent: Extent = DIGESTS,
) -> Scan:
    """Return what is below the folder ``root`` (a descriptor), as far as it can be looked at; never raises for what is there.

    ``known`` is an earlier scan: a file with the same inode, size and times is not read again (its change time cannot be
    set by a job, and a time stamp too young to be trusted is not), nor the whole of a sparse one. ``expected`` is whose uid and gid everything
    must be that ``known`` does not have from another owner. ``deadline`` (time.monotonic) and what ``extent`` says end it.
    """
    found = Scan()
    left = _Left(deadline, extent)
    letters = 0
    prefix, group = "", -1
    folders: List[str] = []  # from the root to where the walk is
    walk = Walk(root, Bounds(deadline, extent.most, MAX_DEPTH, extent.reader))

    def note_owner(path: str, status: os.stat_result) -> None:
        owner = (status.st_ino, status.st_uid, status.st_gid)
        found.owners.add(owner)
        # In a folder with the set-group-id bit everything has the folder's group.
        mine = expected is None or (status.st_uid == expected[0] and status.st_gid in (expected[1], group))
        if not mine and (known is None or owner not in known.owners):
            found.strangers.append(f"{printable(path)} ({status.st_uid}:{status.st_gid})")

    for step in walk:
        if letters > MAX_PATHS:
            walk.end(f"paths of more than {MAX_PATHS} characters together")
        try:
            if step.kind == ENTER:
                status = os.fstat(step.descriptor)
                prefix = walk.path()
                found.filled.update(folders[-1:])
                folders.append(prefix)
                if prefix:
                    note_owner(prefix, status)
                    mode, owner = stat.S_IMODE(status.st_mode), (status.st_uid, status.st_gid)
                    found.folders[prefix] = Entry("folder", mode, owner, 0, "", None, ())
                    letters += len(prefix)
                    prefix += "/"
                group = status.st_gid if status.st_mode & stat.S_ISGID else -1
            elif step.kind == LEAVE:
                folders.pop()
            elif step.kind == ENTRY and step.entry is not None:
                path = prefix + step.name
                found.filled.add(folders[-1])
                letters += len(path)
                status = step.entry.stat(follow_symlinks=False)
                note_owner(path, status)
                found[path] = _look(step.name, step.descriptor, status, (known or {}).get(path), left)
                letters += len(found[path].target)
        except FileNotFoundError:
            continue  # gone between listing and looking
        except OSError as error:
            walk.complain(step.name, error)
    found.problems, found.missed = walk.problems, walk.missed
    return found


def ignore_matcher(patterns: Sequence[str]) -> Callable[[str], bool]:
    """Return a test whether a relative path matches one of ``patterns``.

    A pattern without a slash matches a name in any folder, one with a slash the path from the workspace on; ``*`` and ``?``
    stop at slashes, ``**`` does not. Whatever the patterns and the path are, it takes not much longer than reading the path.
    """
    parts = [
        _expression(pattern.lstrip("/") if "/" in pattern else f"**/{pattern}", f"g{number}_") for number, pattern in enumerate(patterns)
    ]
    expression = re.compile("|".join(f"(?:{part})" for part in parts), re.DOTALL) if parts else None
    return lambda path: bool(expression and expression.fullmatch(path))


def _expression(pattern: str, group: str) -> str:
    """Return the regular expression of a pattern, whose groups' names begin with ``group``.

    Of what is between two wildcards the first place is as good as any later one, so it is never looked for again when what is behind it does not
    match: a group in a lookahead is not tried anew. Without that a few wildcards and a long path take hours.
    """
    first, *rest = re.split(r"(^\*\*/|(?<=/)\*\*/|\*\*)", pattern)
    found, count = [], 0

    def once(text: str) -> str:
        nonlocal count
        count += 1
        return f"(?=(?P<{group}{count}>{text}))(?P={group}{count})"

    def chunk(text: str, is_last: bool) -> str:
        """Return the expression of a text without ``**``."""
        begin, *more = ["".join("[^/]" if letter == "?" else re.escape(letter) for letter in part) for part in re.split(r"\*+", text)]
        last = [f"[^/]*{more.pop()}"] if more and is_last else []
        return "".join([begin, *(once(f"[^/]*?{part}") for part in more), *last])

    wide: List[Tuple[str, str]] = []  # wildcards with the text behind each
    for word, text in zip(rest[::2], rest[1::2]):
        if wide and not wide[-1][1]:  # two at the same place are one
            word = "**" if "**" in (word, wide.pop()[0]) else word
        wide.append((word, text))
    found.append(chunk(first, not wide))
    for number, (word, text) in enumerate(wide, 1):
        is_last = number == len(wide)
        any_of = ".*" if word == "**" else "(?:[^/]*/)*"
        found.append(f"{any_of}{chunk(text, True)}" if is_last else once(f"{any_of}?{chunk(text, False)}"))
    return "".join(found)


def has_path(matcher: Callable[[str], bool], path: str, entry: Optional[Entry]) -> bool:
    """Tell whether ``matcher`` has the path of ``entry``; one that has all that could be in a folder has the folder itself."""
    return matcher(path) or bool(entry and entry.kind == "folder" and matcher(f"{path}/"))


def pair(before: Scan, after: Scan, path: str) -> Tuple[Optional[Entry], Optional[Entry]]:
    """Return what is to be compared at ``path``. A folder that came or went counts where nothing is in it that tells of it."""
    return _counted(before, after, path), _counted(after, before, path)


def _counted(scan: Scan, other: Scan, path: str) -> Optional[Entry]:
    folder = scan.folders.get(path)
    return folder if folder and (path in other.folders or path not in scan.filled) else scan.get(path)


def differences(before: Scan, after: Scan) -> List[str]:
    """Return the sorted paths of what differs; of a scan that did not see everything nothing is taken for removed.

    A file written again with the same bytes, mode and owner is no difference.
    """
    paths = after.keys() | after.folders.keys()
    if not after.missed:
        paths |= before.keys() | before.folders.keys()
    return sorted(path for path in paths if not _same(*pair(before, after, path)))


def _same(old: Optional[Entry], new: Optional[Entry]) -> bool:
    return old is new or bool(old and new and old[:3] == new[:3] and old.digest == new.digest)


def compare(before: Scan, after: Scan, paths: Sequence[str], ignored: Callable[[str], bool]) -> List[Dict[str, Any]]:
    """Return how ``paths`` differ: path, change (created, modified or removed), kind, size, sha256, mode, contents, ignored."""
    changes = []
    for path in paths:
        old, new = pair(before, after, path)
        entry = new or old
        changes.append(
            {
                "path": printable(path),
                "change": "modified" if old and new else "created" if new else "removed",
                "kind": entry.kind,
                "size": new.size if new else 0,
                "sha256": (new.whole if ":" in new.digest else new.digest) if new else "",
                "mode": f"{entry.mode:04o}",
                "contents": contents_differ(old, new),
                "ignored": has_path(ignored, path, entry),
            }
        )
    return changes


def contents_differ(old: Optional[Entry], new: Optional[Entry]) -> bool:
    """Tell whether there is a difference that git keeps: of what is in a file, whether it is there, and whether its owner may execute it."""
    if not any(entry and entry.kind != "folder" for entry in (old, new)):
        return False
    return not (old and new and old.kind == new.kind and old.digest == new.digest and not (old.mode ^ new.mode) & 0o100)


def counts(before: Scan, after: Scan, paths: Sequence[str], ignored: Callable[[str], bool]) -> Dict[str, int]:
    """Return how many of ``paths`` were created, modified and removed, and how many of all these are ignored."""
    found = dict.fromkeys(("created", "modified", "removed", "ignored"), 0)
    for path in paths:
        old, new = pair(before, after, path)
        found["created" if not old else "modified" if new else "removed"] += 1
        found["ignored"] += has_path(ignored, path, new or old)
    return found


def listed(paths: Sequence[str], ignored: Callable[[str], bool]) -> List[str]:
    """Return the paths that a result lists: all, or as many as there is room for, those that count first."""
    found = []
    left = MAX_LISTED_PATHS
    for path in sorted(paths, key=ignored)[:MAX_LISTED]:
        left -= len(path)
        if left < 0:
            break
        found.append(path)
    return sorted(found)


def diff_work(old: str, new: str) -> int:
    """Return how many comparisons difflib makes at most for two texts: for each block of lines that both have it looks at all pairs of equal ones.

    A text of 64 KiB can be made so that this takes hours.
    """
    if old == new:
        return 0
    lines, others = old.splitlines(), new.splitlines()
    popular = len(others) // 100 + 1 if len(others) >= 200 else len(others)  # difflib leaves out what is more frequent
    counted = collections.Counter(lines)
    pairs = sum(counted[line] * count for line, count in collections.Counter(others).items() if count <= popular)
    return min(len(lines), len(others)) * (len(lines) + pairs)


def diffs(before: Scan, after: Scan, paths: Sequence[str], ignored: Callable[[str], bool]) -> List[Dict[str, str]]:
    """Return Ansible's diff of ``paths`` outside ``ignored``; the scans must have been made with ``texts``.

    Of texts for which there is no room any more, or no time, it tells what it does of other files.
    """

    def shown(entry: Optional[Entry], whole: bool) -> str:
        if entry is None:
            return ""
        if entry.text is None or not whole:
            return f"({entry.kind} of {entry.size} bytes, sha256 {entry.whole or entry.digest or 'none'}, mode {entry.mode:04o})\n"
        return entry.text

    result = []
    left, work_left = MAX_DIFF, MAX_DIFF_WORK
    for path in paths:
        old, new = pair(before, after, path)
        if has_path(ignored, path, new or old):
            continue
        name = printable(path)
        texts = [(entry and entry.text) or "" for entry in (old, new)]
        size = len(texts[0]) + len(texts[1])
        work = diff_work(*texts) if size <= left else 0
        whole = size <= left and work <= work_left
        if whole:
            left, work_left = left - size, work_left - work
        result.append(
            {
                "before_header": name if old else f"{name} (absent)",
                "after_header": name if new else f"{name} (absent)",
                "before": shown(old, whole),
                "after": shown(new, whole),
            }
        )
    return result


def copy_tree(
    source: int,
    target: int,
    deadline: float,
    most: int = MAX_ENTRIES,
    check: Callable[[], None] = lambda: None,
    owner: Optional[int] = None,
) -> List[str]:
    """Copy the folder ``source`` into the empty folder ``target`` (descriptors): bytes, modes, owners, times; return what was skipped.

    Blocks are shared where the file system can, holes stay holes, and names of one file are such again. Sockets, pipes and devices are skipped.
    Everything goes by descriptors of folders, on both sides: a name that becomes a link meanwhile leads nowhere. ``check`` is asked before each
    file and megabyte whether there is room for it. With an ``owner`` a folder of somebody else's is an error. Raises GvisorError.
    """
    skipped: List[str] = []
    statuses = [os.fstat(source)]
    writer = os.open(".", FOLDER, dir_fd=target)
    files: Dict[Identity, Tuple[List[str], str]] = {}  # where the first name of each file is that has several
    walk = Walk(source, Bounds(deadline, most, MAX_DEPTH, owner))
    try:
        for step in walk:
            if step.kind == ENTRY:
                with contextlib.suppress(FileNotFoundError):
                    if _link(step, walk.names, writer, target, files):
                        continue
                    _copy_entry(
                        step.name, step.descriptor, writer, deadline, lambda name: skipped.append(printable(walk.path(name))), check
                    )
            elif step.kind == ENTER and step.name:
                os.mkdir(step.name, 0o700, dir_fd=writer)
                below = os.open(step.name, FOLDER, dir_fd=writer)
                os.close(writer)
                writer = below
                statuses.append(os.fstat(step.descriptor))
            elif step.kind == LEAVE:
                _dress(writer, statuses.pop())  # last: filling a folder changes its times and needs its write permission
                above = os.open("..", FOLDER, dir_fd=writer)
                os.close(writer)
                writer = above
        if not walk.missed:
            _dress(writer, statuses.pop())
    except OSError as error:
        why = "the throw-away copy for check mode does not fit" if error.errno == errno.ENOSPC else "the copy failed"
        raise GvisorError(f"{why}: {error.strerror}", path=walk.path()) from error
    finally:
        os.close(writer)
    if walk.missed:
        raise GvisorError(f"the workspace cannot be copied whole: {'; '.join(walk.problems)}")
    return sorted(skipped)


def _link(step: Step, folders: List[str], writer: int, target: int, files: Dict[Identity, Tuple[List[str], str]]) -> bool:
    """Make a further name of a file that was copied before, and tell whether it was that. Raises OSError."""
    status = os.stat(step.name, dir_fd=step.descriptor, follow_symlinks=False)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink < 2:
        return False
    key = (status.st_dev, status.st_ino)
    if key not in files:
        files[key] = (list(folders), step.name)
        return False
    first, name = files[key]
    folder = folder_below(target, first)
    try:
        os.link(name, step.name, src_dir_fd=folder, dst_dir_fd=writer, follow_symlinks=False)
    finally:
        os.close(folder)
    return True


def _copy_entry(name: str, reader: int, writer: int, deadline: float, skip: Callable[[str], None], check: Callable[[], None]) -> None:
    check()
    status = os.stat(name, dir_fd=reader, follow_symlinks=False)
    if stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(name, dir_fd=reader), name, dir_fd=writer)
        with _of_others():
            os.chown(name, status.st_uid, status.st_gid, dir_fd=writer, follow_symlinks=False)
        os.utime(name, ns=(status.st_atime_ns, status.st_mtime_ns), dir_fd=writer, follow_symlinks=False)
    elif stat.S_ISREG(status.st_mode):
        _copy(name, reader, writer, deadline, check)
    else:
        skip(name)


@contextlib.contextmanager
def _of_others() -> Iterator[None]:
    """Bear that only root can give a copy to whoever has the original."""
    try:
        yield
    except PermissionError:
        if os.geteuid() == 0:
            raise


def _dress(descriptor: int, status: os.stat_result) -> None:
    with _of_others():
        os.fchown(descriptor, status.st_uid, status.st_gid)
    os.fchmod(descriptor, stat.S_IMODE(status.st_mode))
    os.utime(descriptor, ns=(status.st_atime_ns, status.st_mtime_ns))


def _copy(name: str, folder: int, target: int, deadline: float, check: Callable[[], None]) -> None:
    made = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=target)
    with open(made, "wb", buffering=0) as writer, open(open_file(name, folder), "rb", buffering=0) as reader:
        status = os.fstat(reader.fileno())
        try:
            fcntl.ioctl(writer.fileno(), _FICLONE, reader.fileno())
        except OSError:
            for begin, end in data_ranges(reader.fileno(), status.st_size):
                for place in range(begin, end, 1 << 20):
                    in_time(deadline, name)
                    check()
                    block = os.pread(reader.fileno(), min(1 << 20, end - place), place)
                    while block:
                        written = os.pwrite(writer.fileno(), block, place)
                        block, place = block[written:], place + written
            os.ftruncate(writer.fileno(), status.st_size)
        _dress(writer.fileno(), status)


def unpack(archive: str, target: str, uid: int, gid: int, deadline: float = float("inf"), check: Callable[[], None] = lambda: None) -> None:
    """Make the folder ``target`` and unpack ``archive``, a tar file, into it, everything for one owner. Raises GvisorError.

    ``check`` is asked before each file whether there is room for more. The archive's names come from the controller, which has refused what leads
    out; a name that leaves the folder is refused here as well.
    """
    try:
        os.mkdir(target, 0o700)
        os.chown(target, uid, gid)
        folders = {""}  # that were made here
        with tar.Reader(archive, SENT, lambda what: GvisorError(f"the workspace's archive: {what}")) as sent:
            for name, info in sent:
                in_time(deadline, target)
                check()
                path = os.path.join(target, name)
                # A link that was unpacked before leads nowhere else either.
                if os.path.dirname(name) not in folders:
                    raise GvisorError(f"the workspace's archive: entry {name!r} leads outside of the workspace")
                if info.isdir():
                    folders.add(name)
                _unpack_one(sent, name, info, path)
                os.chown(path, uid, gid, follow_symlinks=False)
    except OSError as error:
        raise GvisorError(f"the workspace cannot be unpacked into {target}: {error}") from error


def _unpack_one(sent: tar.Reader, name: str, info: TarInfo, path: str) -> None:
    if info.isdir():
        os.mkdir(path)
        os.chmod(path, info.mode & 0o777 | 0o700)
    elif info.issym():
        os.symlink(info.linkname, path)
    else:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600), "wb") as stream:
            stream.writelines(sent.blocks(name, info))
            os.fchmod(stream.fileno(), info.mode & 0o777)
