# Copyright (c) 2026, the ggen.gvisor authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""A release of programs in a folder of its own: all of it in place, or nothing changed.

Running programs keep the file that they started from: a new one is written beside and takes the name by a rename. Everything is
written and compared with its sha256 before the first name changes.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shutil
import stat
import tempfile
import zlib
from typing import Any, BinaryIO, Dict, Iterable, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._base.files import (
    atomic_symlink,
    atomic_write,
    locked,
    locked_now,
    make_folders,
    read_file,
    sha256_file,
    sync_folder,
)
from ansible_collections.ggen.gvisor.plugins.module_utils._base.text import megabytes
from ansible_collections.ggen.gvisor.plugins.module_utils._gvisor import history

FOLDER_MODE = 0o755  # gVisor re-executes itself as nobody: its folder must be open to everybody
BLOCK = 1 << 20
SUFFIX = ".new"  # of a file that is still being written


class Program(NamedTuple):
    """A file that the release's folder should hold."""

    name: str
    sha256: str
    mode: int


class Payload(NamedTuple):
    """Where a program's bytes are on the host: ``length`` bytes of the file ``path`` from ``offset`` on, gzipped or as they are."""

    path: str
    offset: int
    length: int
    size: int  # unpacked
    gzip: bool


class State(NamedTuple):
    """What of the release is not as it should be."""

    contents: List[Program]
    modes: List[Program]
    links: Dict[str, str]  # path → target
    options: bool
    folder: bool


class Release(NamedTuple):
    """What should be on the host."""

    folder: str
    programs: Sequence[Program]
    links: Mapping[str, str]  # path → name of a program
    options: Optional[Tuple[str, bytes]]  # path and contents of the options file
    keep_previous: bool = False  # note what is replaced, as the way back


def checked(release: Release) -> Release:
    """Return ``release`` if it is one that can be installed. Raises GvisorError that names the value that is wrong."""
    names = [program.name for program in release.programs]
    for program in release.programs:
        if os.path.basename(program.name) != program.name or program.name in ("", ".", ".."):
            raise GvisorError(f"files: {program.name!r} is no file name; write the name in the folder alone")
        if not re.fullmatch(r"[0-9a-f]{64}", program.sha256):
            raise GvisorError(f"files: {program.sha256!r} is no sha256 of {program.name}; write 64 hex digits")
    if len(set(names)) != len(names):
        raise GvisorError(f"files: a name is there twice ({', '.join(names)})")
    for path, name in release.links.items():
        if not os.path.isabs(path):
            raise GvisorError(f"links: {path} is no absolute path")
        if name not in names:
            raise GvisorError(f"links: {path} should lead to {name}, which is not among the files ({', '.join(names)})")
    return release


def mode_of(text: str) -> int:
    """Return the permission bits that ``text`` writes in octal. Raises GvisorError."""
    if not re.fullmatch(r"0?[0-7]{3}", text):
        raise GvisorError(f"files: the mode {text!r} is not octal; quote it, for example '0755'")
    return int(text, 8)


def look(release: Release) -> State:
    """Compare the host with the release. Raises OSError when something there cannot be read."""
    contents, modes = [], []
    for program in release.programs:
        path = os.path.join(release.folder, program.name)
        status = os.lstat(path) if os.path.lexists(path) else None
        if status is None or not stat.S_ISREG(status.st_mode) or sha256_file(path) != program.sha256:
            contents.append(program)
        elif stat.S_IMODE(status.st_mode) != program.mode:
            modes.append(program)
    folder = not os.path.isdir(release.folder) or stat.S_IMODE(os.stat(release.folder).st_mode) != FOLDER_MODE
    return State(contents, modes, _links(release), _options(release), folder)


def _links(release: Release) -> Dict[str, str]:
    """Return the links that lead elsewhere, with the targets that they should have."""
    targets = {path: os.path.join(release.folder, name) for path, name in release.links.items()}
    return {path: target for path, target in targets.items() if not (os.path.islink(path) and _leads(path, target))}


def _options(release: Release) -> bool:
    """Tell whether the options file is another one."""
    return bool(release.options) and read_file(release.options[0]) != release.options[1]


def _leads(path: str, target: str) -> bool:
    return os.path.realpath(path) == os.path.realpath(target)


def install(release: Release, payload: Mapping[str, Payload]) -> None:
    """Bring the host from what it is to ``release``; ``payload`` must have every program that it lacks.

    Raises GvisorError or OSError. The programs are then as they were, unless it was a rename, the options file or a link that failed: names
    that were switched before lead to whole files.
    """
    _refuse_places(release)
    made = make_folders(release.folder, FOLDER_MODE)
    try:
        with locked(release.folder):
            _remove_leftovers(release)
            state = look(release)
            absent = [program.name for program in state.contents if program.name not in payload]
            if absent:  # somebody took them away since they were looked at
                raise GvisorError(f"{release.folder} lost {', '.join(absent)} while this ran; run again")
            _refuse_full(release.folder, {program.name: payload[program.name].size for program in state.contents})
            staged = _stage(release.folder, state.contents, payload)
            for program in state.modes:
                os.chmod(os.path.join(release.folder, program.name), program.mode)
            for program, temporary in staged:
                os.replace(temporary, os.path.join(release.folder, program.name))
            os.chmod(release.folder, FOLDER_MODE)
            sync_folder(release.folder)
            made = []
            # Both locks at once: nobody takes the folder for one that nobody needs before the links lead there.
            with locked(os.path.dirname(release.folder)):
                _switch(release)
    finally:
        for folder in reversed(made):
            with contextlib.suppress(OSError):
                os.rmdir(folder)


def _switch(release: Release) -> None:
    """Write the options file and let the links lead to the release. What they replace is noted before, so that a run which ends here can be taken back."""
    releases = os.path.dirname(release.folder)
    links, options = _links(release), _options(release)  # under the lock: another run may have switched since this one looked
    if release.keep_previous and (links or options):
        now = history.current(releases, release.links, release.options[0] if release.options else None)
        history.write_installed(releases, history.noted(history.read_installed(releases), now, os.path.basename(release.folder)))
    if options and release.options:
        atomic_write(release.options[0], release.options[1], 0o644)
    for path, target in sorted(links.items()):
        atomic_symlink(target, path)


def go_back(releases: str, leave: Optional[str], links: Mapping[str, str], options: Optional[str], check: bool) -> Optional[Dict[str, Any]]:
    """Bring back what there was before the last switch; return it, or None where nothing is noted.

    With ``leave`` only a switch to that release is taken back, one that has not proven itself; what was previous before it is previous again.
    Without, nothing is noted any more, so that a second call goes no further. Needs nothing but what is on the host.
    Raises GvisorError where the files of the release before are not what they were: nothing is changed then; and OSError.
    """
    if not os.path.isdir(releases):
        return None
    with locked(releases):
        installed = history.read_installed(releases)
        previous = installed.get("previous")
        if not previous:
            return None
        if leave is not None and previous.get("to") != leave:
            return None
        folder = os.path.join(releases, previous["release"])
        found = history.files_of(folder)
        if any(found.get(name) != file for name, file in previous["files"].items()):  # what a killed run left besides does not matter
            raise GvisorError(
                f"{folder} is missing or changed, so nothing was changed. Install release {previous['release']} anew",
                release=previous["release"],
            )
        if check:
            return previous
        # In the reverse order of the switch.
        for path, name in sorted(links.items(), reverse=True):
            if name not in previous["files"]:  # the release before had no such program
                remove_link(path, releases)
            elif os.path.realpath(path) != os.path.realpath(os.path.join(folder, name)):
                atomic_symlink(os.path.join(folder, name), path)
        if options and read_file(options) != previous["options"].encode():
            atomic_write(options, previous["options"].encode(), 0o644)
        history.write_installed(releases, {**installed, "previous": None} if leave is None else history.taken_back(installed))
        return previous


def remove_link(path: str, releases: str) -> bool:
    """Remove the link if it leads below ``releases``, and nothing else that is there; return whether it was. Raises OSError."""
    ours = os.path.islink(path) and os.path.realpath(path).startswith(f"{os.path.realpath(releases)}/")
    if ours:
        os.unlink(path)
    return ours


def prune(releases: str, keep: str, links: Iterable[str], check: bool) -> List[str]:
    """Remove the releases that nobody needs: not ``keep``, not the one that the links lead to, not the one before, not running, not being installed.

    Return their names. Where the links lead elsewhere than to ``keep``, another run has switched since: what it noted stays. Raises OSError.
    """
    if not os.path.isdir(releases):
        return []
    with locked(releases), contextlib.ExitStack() as free:
        installed, linked = history.read_installed(releases), history.linked(releases, links)
        if linked <= {keep}:
            installed = history.settled(installed, keep)
        folders = [(name, os.path.join(releases, name)) for name in history.unneeded(releases, installed, [keep, *linked])]
        gone = [name for name, folder in folders if free.enter_context(locked_now(folder))]
        if not check:
            if os.path.exists(os.path.join(releases, history.INSTALLED)):
                history.write_installed(releases, installed)
            for name in gone:
                shutil.rmtree(os.path.join(releases, name))
    return gone


def record(releases: str, packages: Sequence[str], started: bool, check: bool) -> Tuple[Dict[str, Any], bool]:
    """Write down what is about to be brought to the host, before it is; return all that is written there, and whether that changed it. Raises OSError."""
    if not check:
        make_folders(releases, FOLDER_MODE)
    with locked(releases) if os.path.isdir(releases) else contextlib.nullcontext():
        installed = history.read_installed(releases)
        wanted = history.recorded(installed, packages, started)
        if not check:
            history.write_installed(releases, wanted)
    return wanted, wanted != installed


def _refuse_places(release: Release) -> None:
    """Raise GvisorError where a link or the options file could not be written in the end."""
    places = [*release.links, *([release.options[0]] if release.options else [])]
    for path in places:
        if not os.path.isdir(os.path.dirname(path)):
            raise GvisorError(f"{path} cannot be written, its folder is not there; make {os.path.dirname(path)}, or install what brings it")
        if os.path.isdir(path) and not os.path.islink(path):
            raise GvisorError(f"{path} is a folder and should become a file of this release; move it away")
    for program in release.programs:
        path = os.path.join(release.folder, program.name)
        if os.path.isdir(path) and not os.path.islink(path):
            raise GvisorError(f"{path} is a folder and should become a program of this release; move it away")


def _remove_leftovers(release: Release) -> None:
    """Remove what a run that was killed has left; the lock tells that no other run is writing."""
    starts = tuple(f".{program.name}." for program in release.programs)
    for name in os.listdir(release.folder):
        if name.startswith(starts) and name.endswith(SUFFIX):
            os.unlink(os.path.join(release.folder, name))


def _refuse_full(folder: str, sizes: Mapping[str, int]) -> None:
    needed, free = sum(sizes.values()), _free(folder)
    if needed > free:
        raise GvisorError(
            f"{folder}: {megabytes(needed)} are needed for {', '.join(sizes)} and {megabytes(free)} are free on its file system. "
            "Nothing was changed; make room and run again",
            needed=needed,
            free=free,
        )


def _free(folder: str) -> int:
    space = os.statvfs(folder)
    return space.f_bavail * space.f_frsize


def _stage(folder: str, programs: Sequence[Program], payload: Mapping[str, Payload]) -> List[Tuple[Program, str]]:
    """Write each program beside its place and return the temporary files. When one fails none of them stays."""
    staged: List[Tuple[Program, str]] = []
    try:
        for program in programs:
            descriptor, temporary = tempfile.mkstemp(dir=folder, prefix=f".{program.name}.", suffix=SUFFIX)
            staged.append((program, temporary))
            with os.fdopen(descriptor, "wb") as stream:
                found = _unpack(payload[program.name], stream)
                os.fchmod(stream.fileno(), program.mode)
                stream.flush()
                os.fsync(stream.fileno())
            if found != program.sha256:
                raise GvisorError(
                    f"{program.name}: what arrived has the sha256 {found} and {program.sha256} is expected. Nothing was changed; build it again"
                )
    except BaseException as error:
        for _program, temporary in staged:
            os.unlink(temporary)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            sizes = {program.name: payload[program.name].size for program in programs}
            raise GvisorError(
                f"{folder}: {error.strerror} while writing {', '.join(sizes)} ({megabytes(sum(sizes.values()))}); "
                f"{megabytes(_free(folder))} are free. Nothing was changed; make room and run again"
            ) from error
        raise
    return staged


def _unpack(payload: Payload, output: BinaryIO) -> str:
    """Write the payload to ``output`` and return its sha256. Raises GvisorError when it is damaged or longer than it says."""
    digest = hashlib.sha256()
    left = payload.size
    for block in _blocks(payload):
        left -= len(block)
        if left < 0:
            raise GvisorError(f"{payload.path}: more than the {payload.size} bytes that it should be; run again")
        digest.update(block)
        output.write(block)
    return digest.hexdigest()


def _blocks(payload: Payload) -> Iterator[bytes]:
    unpacker = zlib.decompressobj(wbits=31) if payload.gzip else None  # 31: a gzip header and trailer, with its checksum
    left = payload.length
    with open(payload.path, "rb") as stream:
        stream.seek(payload.offset)
        while left:
            data = stream.read(min(BLOCK, left))
            if not data:
                break
            left -= len(data)
            if unpacker is None:
                yield data
                continue
            try:
                while data:
                    yield unpacker.decompress(data, BLOCK)
                    data = unpacker.unconsumed_tail
            except zlib.error as error:
                raise GvisorError(f"{payload.path}: damaged on its way ({error}); run again") from error
    if left or (unpacker is not None and not unpacker.eof):
        raise GvisorError(f"{payload.path}: only a part of it arrived; run again")


def difference(release: Release, state: State) -> List[Dict[str, Any]]:
    """Return Ansible's diff between what the host has (before any change) and the release."""
    before, after = "", ""
    for program in release.programs:
        if program in state.contents or program in state.modes:
            path = os.path.join(release.folder, program.name)
            if os.path.lexists(path):
                found = sha256_file(path) if os.path.isfile(path) else "(no file)"
                before += f"{path} {found} {stat.S_IMODE(os.lstat(path).st_mode):04o}\n"
            after += f"{path} {program.sha256} {program.mode:04o}\n"
    for path, target in sorted(state.links.items()):
        if os.path.lexists(path):
            before += f"{path} -> {os.readlink(path)}\n" if os.path.islink(path) else f"{path} (no link)\n"
        after += f"{path} -> {target}\n"
    diffs = [{"before_header": release.folder, "after_header": release.folder, "before": before, "after": after}]
    if state.options and release.options:
        path, data = release.options
        texts = [(value or b"").decode("utf-8", "replace") for value in (read_file(path), data)]
        diffs.append({"before_header": path, "after_header": path, "before": texts[0], "after": texts[1]})
    return [diff for diff in diffs if diff["before"] != diff["after"]]
