# Copyright (c) 2026, the ggen.gvisor authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""Commands on workspaces: what is checked before, what their pods see, and what they came to."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import time
from collections import deque
from typing import Any, Deque, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._base.files import remove_stale_transfers
from ansible_collections.ggen.gvisor.plugins.module_utils._base.platform import architecture
from ansible_collections.ggen.gvisor.plugins.module_utils._base.text import few
from ansible_collections.ggen.gvisor.plugins.module_utils._containerd.ctr import Ctr
from ansible_collections.ggen.gvisor.plugins.module_utils._containerd.image_config import ImageConfig, image_config
from ansible_collections.ggen.gvisor.plugins.module_utils._containerd.image_names import full_name
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox import protect, secret_files
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.audit import NAME, Trail, argv_facts
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.cleaning import Note, clean, clean_noted, let_age, look_for_kept
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.copies import Tree, changes_of, dress, tree_of
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.host_tools import TARGET, HostTools, prepare
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.job_options import check_finite, check_line, check_target, environment
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.limits import (
    FIXES,
    SIGXFSZ,
    Room,
    default_memory,
    judge,
    limits_of,
    size_of,
)
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.links import without_linked
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.mount_points import make_points
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.pinned import FILE, FOLDER, Absent, Pinned, own_folder, pin, through
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.pod import MAX_ID, PRELOAD, Command, Mount, PodSpec
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.supervisor import Live, PodFolder, Supervisor, owner_of, sweep
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.surroundings import SPARE_HOME
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.trace import workspace_first
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.walker import identity, printable
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.workspace import (
    MAX_HOLES,
    Extent,
    Scan,
    compare,
    contents_differ,
    copy_tree,
    counts,
    differences,
    diffs,
    has_path,
    ignore_matcher,
    in_time,
    listed,
    pair,
    scan,
    unpack,
)

WORKSPACE = "/workspace"
GVISOR = "io.containerd.runsc."
NOBODY = (65534, 65534)
MAX_USER = (1 << 31) - 1
# Beside the command's own time, for its pod, copying, and looking at the workspace; the second half is for what comes after it.
SPARE_SECONDS = 30.0
_ID = re.compile(r"[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*")
_IMAGE = re.compile(r"[A-Za-z0-9][\x21-\x7e]{0,511}")
OF_THE_POD = ("mounts", "memory", "cpus", "protect")  # the same for all jobs in a pod
_WHY = {
    "sandbox": "the sandbox ended before the command did",
    "shim": "the sandbox's shim ended before the command did, which was killed then",
    "abort": "the run was given up because the controller or the module is gone",
}
_STRUCK = {
    "memory": "out of memory: the pod reached its limit of {memory}",
    "pids": "too many processes: the pod reached its limit of {pids} tasks",
    "space": f"the disk was about to be full: too little room on the file system of {{space}}; {FIXES['keep_free']}",
    "file_size": "a file reached the limit of {file_size} (file_size)",
}


def check(params: Dict[str, Any]) -> None:
    """Refuse bad options before anything changes. Raises GvisorError that names the option and the fix."""
    if not params["argv"] or not params["argv"][0]:
        raise GvisorError("argv is empty; name the program to run, for example [ggen, sync]")
    if params["argv"][0].startswith("-") or "=" in params["argv"][0]:
        raise GvisorError(
            f"argv has the program {params['argv'][0]!r}, which would be taken for an option or a variable; write its whole path"
        )
    if not _IMAGE.fullmatch(params["image"]):
        raise GvisorError(f"image={params['image']!r} is no image name; write for example docker.io/library/ggen:latest")
    longest = MAX_ID - 13
    for option, limit in (("name", longest), ("namespace", MAX_ID)):
        value = params[option]
        if not _ID.fullmatch(value) or len(value) > limit:
            raise GvisorError(
                f"{option}={value!r} is not possible; use letters and digits with single . _ - between them, at most {limit} characters"
            )
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9./_-]*", params["runtime"]):
        raise GvisorError(f"runtime={params['runtime']!r} is no runtime name; write for example io.containerd.runsc.v1")
    if params["trace"] and not params["runtime"].startswith(GVISOR):
        raise GvisorError(f"trace is gVisor's alone, and runtime={params['runtime']!r} is another; leave one of the two out")
    for option in ("timeout", "cpus"):
        if params[option] is not None:
            check_finite(option, params[option])
    for option in ("timeout", "max_output"):
        if params[option] <= 0:
            raise GvisorError(f"{option}={params[option]} must be more than 0")
    if params["cpus"] is not None and params["cpus"] < 0.01:
        raise GvisorError(f"cpus={params['cpus']} must be at least 0.01")
    if params["pids"] < 0:
        raise GvisorError(f"pids={params['pids']} must not be negative; 0 is no limit")
    limits_of(params)
    if params["user"] is not None:
        if not re.fullmatch(r"\d{1,10}(:\d{1,10})?", params["user"]):
            raise GvisorError(f"user={params['user']!r} must be uid or uid:gid in numbers; names of the host mean nothing in an image")
        # Larger ones were root for some versions of containerd (CVE-2024-40635); leading zeros would not be what the kernel then says.
        params["user"] = ":".join(str(check_id(number)) for number in params["user"].split(":"))
    if params["cwd"] is not None and not params["cwd"].startswith("/"):
        raise GvisorError(f"cwd={params['cwd']!r} must be an absolute path")
    environment(params["env"])
    if params["metrics"] and not os.path.isabs(params["metrics"]):
        raise GvisorError(f"metrics={params['metrics']!r} is no absolute path; write for example /var/lib/prometheus/node-exporter")
    if any("\0" in word for word in [*params["argv"], params["workspace"] or "", params["cwd"] or ""]):
        raise GvisorError("argv, workspace and cwd must not hold NUL characters")
    for path in params["private"]:
        if os.path.isabs(path) or os.path.normpath(path) != path or path.split("/")[0] in ("", ".", ".."):
            raise GvisorError(
                f"private has {path!r}, which is no plain path from the workspace on; write for example .ggen/keys/signing.key"
            )
    for option in ("protect", "outputs"):
        protect.check_patterns(option, params[option] or [])
    _check_folders(params)


def check_id(number: Union[str, int]) -> int:
    """Return a user's or group's number. Raises GvisorError for one that not all of the programs in between can handle."""
    if int(number) > MAX_USER:
        raise GvisorError(f"user {number} is more than {MAX_USER}, which containerd refuses or takes for another one; choose a smaller one")
    return int(number)


def _check_folders(params: Dict[str, Any]) -> None:
    for mount in params["mounts"]:
        target = mount["target"]
        check_target("mounts has the target", target)
        if params["secrets"] and f"{secret_files.TARGET}/".startswith(f"{target}/"):
            raise GvisorError(f"mounts has the target {target!r}, where the secrets are to be seen; choose another place")
        if target in ("/", "/etc", PRELOAD, WORKSPACE, TARGET, SPARE_HOME) or target.split("/")[1] in ("proc", "sys", "dev"):
            raise GvisorError(f"mounts has the target {target!r}, which the pod itself needs; choose another place")


def pin_workspace(path: str) -> Pinned:
    """Open a workspace for good. Raises GvisorError."""
    try:
        pinned = pin(path, "workspace")
    except Absent as error:
        raise GvisorError(f"workspace {path} does not exist on this host; make the folder or copy the project there") from error
    if pinned.is_folder and pinned.path != "/":
        return pinned
    with pinned:
        if pinned.is_folder:
            raise GvisorError("workspace / is the whole host; name the project's folder")
        raise GvisorError(f"workspace {path} is not a folder; name the folder that the project is in")


def pin_source(path: str) -> Pinned:
    """Open the source of a mount for good. Raises GvisorError."""
    if not os.path.isabs(path):
        raise GvisorError(f"mounts has the source {path!r}, which is not an existing absolute path of this host")
    try:
        pinned = pin(path, "the source of a mount")
    except Absent as error:
        raise GvisorError(f"mounts has the source {path!r}, which is not an existing absolute path of this host") from error
    if pinned.is_folder or stat.S_ISREG(pinned.status.st_mode):
        return pinned
    with pinned:
        raise GvisorError(f"mounts has the source {path!r}, which is neither a folder nor a regular file")


def take_archive(path: str) -> int:
    """Open a copy of a workspace that the controller sent, and take its name away: nothing of it stays, whoever is killed.

    Return its descriptor, for as long as the run takes. Raises GvisorError.
    """
    remove_stale_transfers(path)
    try:
        descriptor = os.open(path, FILE)
    except OSError as error:
        raise GvisorError(f"archive {path} cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise GvisorError(f"archive {path} is not a regular file")
    with contextlib.suppress(OSError):
        os.unlink(path)
    return descriptor


def _inner_mount(folder: PodFolder, root: int, path: str, target: str, writable: bool) -> Mount:
    """Return what shows the part ``path`` of ``root`` once more, in its place in the pod, with other rights. Raises OSError."""
    with protect.open_below(root, path) as pinned:
        if writable and not pinned.is_folder:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
        return Mount(folder.bind(pinned), f"{target}/{path}", writable)


def user_of(params: Dict[str, Any], owner: Tuple[int, int]) -> str:
    """Return the uid:gid that the command runs as; ``owner`` has the workspace. Raises GvisorError where that would be root and nobody said so."""
    uid, gid = owner
    user = params["user"]
    if user and ":" in user:
        return user
    if user and int(user) == 0:
        return f"0:{gid}"
    if user:
        if gid == 0:
            raise GvisorError(f"user={user!r} would have root's group, which the workspace has; write uid:gid, for example {user}:{user}")
        return f"{user}:{gid}"
    if 0 in owner:
        raise GvisorError(
            f"workspace {params['workspace']} belongs to {uid}:{gid}, and a command is root, or in root's group, only where that is asked for; "
            'give the folder to another user (chown -R USER:GROUP), or write user: "0:0" (in role ggen_run ggen_run_user: "0:0")'
        )
    return f"{uid}:{gid}"


def message_of(outcome: Dict[str, Any], params: Dict[str, Any], user: str) -> str:
    """Return what went wrong with a job that did not exit 0."""
    told = {**params, "memory": params["memory"] or size_of(default_memory()), "space": outcome["space"]}
    struck = [_STRUCK[name].format(**told) for name in outcome["struck"]]
    if outcome["why"] == "space":
        text = f"{params['argv'][0]} was killed"
    elif outcome["why"] == "timeout":
        text = f"{params['argv'][0]} did not end within {params['timeout']:g} s and was killed"
    elif outcome["why"] == "cwd":
        text = (
            f"{params['argv'][0]} was not started: cwd={params['cwd'] or WORKSPACE} is no folder of the pod that user {user} can enter; "
            "name one that the image, the workspace or a mount has"
        )
    elif outcome["rc"] is not None:
        text = f"{params['argv'][0]} ended with exit code {outcome['rc']}"
    else:
        text = _WHY[outcome["why"]]
    return "; ".join([*struck, text])


class Mode(NamedTuple):
    """Ansible's modes: in check mode a command works on a copy, in diff mode the result shows the texts."""

    check: bool
    diff: bool


class Streams(NamedTuple):
    """What a command is connected to while it runs."""

    stdin: Optional[int] = None  # a descriptor to read for it
    live: Optional[Live] = None  # is told what it prints, as it comes
    terminal: Optional[int] = None  # the caller's, on which it has a terminal of its own


def fed(text: Optional[str]) -> Streams:
    """Return what feeds ``text`` to a command, from memory; nothing of it is on a disk. Raises OSError."""
    if text is None:
        return Streams()
    descriptor = os.memfd_create("stdin")
    with open(descriptor, "wb", closefd=False) as stream:
        stream.write(text.encode("utf-8", "surrogateescape"))
    os.lseek(descriptor, 0, os.SEEK_SET)
    return Streams(descriptor)


class Job:
    """One command and its workspace. ``number`` tells it from others in the same pod."""

    def __init__(self, mode: Mode, params: Dict[str, Any], number: int = 0, streams: Optional[Streams] = None) -> None:
        """Check everything. Raises GvisorError."""
        check(params)
        self.streams = streams or Streams()
        self.mode = mode
        self.params = params
        self.number = number
        self.workspace: Optional[str] = None  # without links
        self.identity: Optional[Tuple[int, int]] = None  # the workspace's
        # Who may see whatever the result tells of the workspace, if not root: it must all be theirs, and nothing else is touched, in mounts neither.
        self.reader: Optional[int] = None
        self.owner: Optional[Tuple[int, int]] = None  # the workspace's
        if params["workspace"]:
            with pin_workspace(params["workspace"]) as pinned:
                self.workspace, self.identity, self.owner = pinned.path, pinned.identity, pinned.owner
        self.sources: List[Tuple[int, int]] = []
        for mount in params["mounts"]:
            with pin_source(mount["source"]) as pinned:
                self.sources.append(pinned.identity)
        self.user = user_of(params, self.owner or NOBODY)
        for one in self.user.split(":"):
            check_id(one)
        self._archive = take_archive(params["archive"]) if params["archive"] else None
        self.secrets = secret_files.values_of(params["secrets"])
        self.source: Optional[str] = (
            None  # what the pod sees of the host: a mount of the workspace, or a copy of it, in the pod's own folder
        )
        self.target = WORKSPACE
        self.begin = time.monotonic()
        self.timings: Dict[str, float] = {}
        self.warnings: List[str] = []
        self._before = Scan()
        self._tree: Tree = {}
        self._note: Optional[Note] = None
        self._inner: List[Mount] = []  # parts of the workspace that the command has other rights to
        self._closed = False  # whether it cannot write to the rest
        self._refused: List[str] = []  # what it did where it may not

    @property
    def until(self) -> float:
        """When the command must have ended, whatever went before it."""
        return self.begin + self.params["timeout"] + SPARE_SECONDS / 2

    @property
    def _after_until(self) -> float:
        """When the workspace must have been looked at after it."""
        return self.begin + self.params["timeout"] + SPARE_SECONDS

    @property
    def note_name(self) -> str:
        """What the note about the workspace is called in the pod's folder."""
        return f"workspace{self.number}"

    def place(self, folder: PodFolder, target: str, room: Room) -> None:
        """Have the workspace in the pod's own ``folder``, or its copy, whole before the pod can see it; ``room`` is that for copies.

        Raises GvisorError.
        """
        self.target = target
        self._note = None
        copy = os.path.join(folder.path, f"copy{self.number}")
        if self._archive is not None:
            sent = through(self._archive)
            unpack(sent, copy, *map(int, self.user.split(":")), self.until, room.check)
            dress(sent, copy)
            self.source = copy
        elif self.workspace:
            with pin_workspace(self.params["workspace"]) as pinned:
                if (pinned.identity, pinned.owner) != (self.identity, self.owner):
                    raise GvisorError(f"workspace {self.workspace} is another folder now, or another's, than when the run began; run again")
                if self.mode.check:
                    os.mkdir(copy, 0o700)
                    self._copy(pinned, copy, room)
                self.source = copy if self.mode.check else folder.bind(pinned)

    def _copy(self, pinned: Pinned, copy: str, room: Room) -> None:
        writer = os.open(copy, FOLDER)
        try:
            skipped = copy_tree(pinned.descriptor, writer, self.until, check=room.check, owner=self.reader)
        except GvisorError as error:
            raise GvisorError(f"workspace {self.workspace}: {error.message}", **error.details) from error
        finally:
            os.close(writer)
        if skipped:
            self.warnings.append(f"check mode's copy is without {len(skipped)} sockets, pipes or devices: {', '.join(skipped[:5])}")

    @property
    def mounts(self) -> List[Mount]:
        """What of the host the pod needs for this command alone."""
        if not self.source:
            return []
        return [Mount(self.source, self.target, not self._closed), *self._inner]

    @property
    def command(self) -> Command:
        """What runs in the pod."""
        params = self.params
        return Command(
            argv=params["argv"],
            cwd=params["cwd"] or (self.target if self.source else "/"),
            env=environment(params["env"]),
            timeout=params["timeout"],
            max_output=params["max_output"],
            stdin=self.streams.stdin,
            terminal=self.streams.terminal,
        )

    @property
    def facts(self) -> Dict[str, Any]:
        """What the audit trail tells of the command before it begins: of its environment the names alone."""
        params = self.params
        return {
            **argv_facts(params["argv"]),
            "workspace": self.workspace or ("a copy of the controller's" if params["archive"] else None),
            "mounts": [f"{mount['source']}:{mount['target']}:{'rw' if mount['writable'] else 'ro'}" for mount in params["mounts"]],
            "env": sorted(map(str, params["env"])),
            "secrets": sorted(self.secrets),
            "user": self.user,
            "runtime": params["runtime"],
            "check": self.mode.check,
            "limits": {**limits_of(params).told(), "timeout": params["timeout"], "policy": params["limits"]},
        }

    @contextlib.contextmanager
    def _root(self) -> Iterator[int]:
        """Give the descriptor of what the pod sees; its path leads through root's own folders to the folder that was pinned."""
        descriptor = os.open(str(self.source), FOLDER)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def look(self) -> None:
        """Remember the workspace as it is before the command. Raises GvisorError."""
        begin = time.monotonic()
        if not self.source:
            return
        with self._root() as root:
            self._before = scan(root, self.until, extent=Extent(self.mode.diff, reader=self.reader))
            if self._before.missed:
                told = "; ".join(self._before.problems[:5])
                raise GvisorError(f"workspace {self.workspace} cannot be looked at whole before the command: {told}; name a smaller folder")
            if self.reader is not None and {uid for _inode, uid, _gid in self._before.owners} - {self.reader}:
                raise GvisorError(f"workspace {self.workspace} holds what is not {self.reader}'s; take it out, or have it given to you")
            if self._archive is not None:
                self._tree = tree_of(root, self.until)
        self.timings["scan_before"] = round(time.monotonic() - begin, 3)

    def write_note(self, folder: PodFolder) -> None:
        """Write down what cleaning the workspace needs, before there is a pod that could write there. Raises GvisorError or OSError."""
        if not self.source:
            return
        source, uid = self.source, int(self.user.split(":")[0])
        with self._root() as root:
            try:
                kept = look_for_kept(root, self.until, self.reader)
                guard = self._guard(folder, root)
            except GvisorError as error:
                raise GvisorError(f"workspace {self.workspace}: {error.message}; name a smaller folder") from error
            where, private = self.workspace or source, list(self.params["private"])
            self._note = Note(source, where, list(identity(root)), uid, kept, private, guard, self.reader)
        let_age(kept)
        folder.note(self.note_name, self._note)

    def _guard(self, folder: PodFolder, root: int) -> Dict[str, Any]:
        """Have what the command may not write read-only in the pod, and return what the look after it needs. Raises GvisorError or OSError.

        Where outputs are folders that are there, nothing else can be written at all; otherwise what was written elsewhere is told.
        """
        writable = protect.literal_folders(self.params["outputs"])
        patterns = self.params["protect"]
        guarded = protect.look(root, patterns, self.until, self.reader) if patterns else protect.Found({}, [])
        try:
            self._inner = [_inner_mount(folder, root, path, self.target, True) for path in writable or []]
            self._closed = writable is not None
        except (FileNotFoundError, NotADirectoryError):
            self._inner, self._closed = [], False
        self._inner += [_inner_mount(folder, root, path, self.target, False) for path in guarded.mounts]
        return {"patterns": list(patterns), "rows": guarded.rows} if patterns else {}

    def clean(self) -> List[str]:
        """Take off the workspace what must not stay; return what could not be done, and what the command did where it may not."""
        if not self._note:
            return []
        try:
            with self._root() as root:
                cleaned = clean(root, self._note)
        except OSError as error:
            return [f"{error.filename or self.workspace}: {error.strerror}"]
        if cleaned.count:
            self.warnings.append(
                f"set-user-id or set-group-id bits were taken off {cleaned.count} files: {', '.join(cleaned.stripped[:5])}"
            )
        refused = [text for text in cleaned.refused if text not in self._refused]
        self._refused += refused
        return [*refused, *cleaned.problems]

    def compare(self, outcome: Dict[str, Any], pod: str) -> Dict[str, Any]:
        """Return the result of ``outcome``, the supervisor's message, once the workspace stays as the command left it.

        Nothing that the command left there takes its exit code or output away: what cannot be done is told and fails the job.
        """
        result = self._result(pod, outcome)
        if self.source:
            begin = time.monotonic()
            faults = self.clean()
            try:
                faults += self._differences(result)
            except GvisorError as error:
                faults.append(error.message)
            except OSError as error:
                faults.append(f"{error.filename or self.workspace}: {error.strerror}")
            self.timings["scan_after"] = round(time.monotonic() - begin, 3)
            self.fail(result, faults)
        return result

    @staticmethod
    def fail(result: Dict[str, Any], faults: Sequence[str]) -> None:
        """Let ``faults``, if there are some, fail the job beside what it came to by itself."""
        if faults:
            result.update(failed=True, changed=True, msg="; ".join([*([result["msg"]] if "msg" in result else []), *faults]))
            result["faults"] = [*result.get("faults", []), *faults]

    def _differences(self, result: Dict[str, Any]) -> List[str]:
        """Add to the result what the command did to the workspace; return what is wrong with that. Raises GvisorError."""
        params = self.params
        uid, gid = (int(number) for number in self.user.split(":"))
        with self._root() as root:
            after = scan(root, self._after_until, self._before, (uid, gid), Extent(self.mode.diff, MAX_HOLES, reader=self.reader))
            ignored = without_linked(
                ignore_matcher(params["ignore"]),
                (self._before.links, after.links),
                self.target,
                lambda: in_time(self._after_until, self.target),
            )
            paths = differences(self._before, after)
            result["changed_counts"] = counts(self._before, after, paths, ignored)
            shown = listed(paths, ignored)
            result["changed_files"] = compare(self._before, after, shown, ignored)
            result["changed"] = len(paths) > result["changed_counts"]["ignored"]
            pairs = ((path, *pair(self._before, after, path)) for path in paths)
            result["contents_changed"] = any(
                contents_differ(old, new) and not has_path(ignored, path, new or old) for path, old, new in pairs
            )
            if self.mode.diff:
                result["diff"] = diffs(self._before, after, shown, ignored)
            faults = []
            if after.missed:
                faults.append(f"not all of the workspace was looked at after the command: {'; '.join(after.problems[:5])}")
            faults += self._strange(after)
            if params["outputs"] is not None:
                allowed = ignore_matcher(params["outputs"])
                pairs = {path: pair(self._before, after, path) for path in paths}
                outside = [path for path, (old, new) in pairs.items() if not has_path(allowed, path, new or old)]
                if outside:
                    faults.append(f"the command has changed what is not among outputs: {few([printable(path) for path in outside])}")
            if self._archive is not None and not self.mode.check and not faults and not self._refused:
                result["contents"] = changes_of(root, self._tree, self._before, after, self._after_until)
        return faults

    def _strange(self, after: Scan) -> List[str]:
        if not after.strangers:
            return []
        named = ", ".join(after.strangers[:5])
        return [f"{len(after.strangers)} files do not belong to the command's user {self.user} after it: {named}; remove them"]

    def left_by_start(self) -> List[str]:
        """Return what is wrong with the workspace of a pod that did not start.

        The runtime makes the places for mounts, and an image's links may have led it into the workspace.
        """
        uid, gid = (int(number) for number in self.user.split(":"))
        try:
            with self._root() as root:
                return self._strange(scan(root, self._after_until, self._before, (uid, gid), Extent(reader=self.reader)))
        except OSError:  # there is none, or it is gone with the pod
            return []

    def _result(self, pod: str, outcome: Dict[str, Any]) -> Dict[str, Any]:
        self.timings.update(outcome["timings"])
        self.warnings += outcome["warnings"]
        if outcome["rc"] == 128 + SIGXFSZ:
            outcome["struck"].append("file_size")
        result: Dict[str, Any] = {
            "pod": pod,
            "user": self.user,
            "kernel": outcome["kernel"],
            "stdout": outcome["stdout"],
            "stderr": outcome["stderr"],
            "stdout_bytes": outcome["stdout_bytes"],
            "stderr_bytes": outcome["stderr_bytes"],
            "output_truncated": outcome["truncated"],
            "timed_out": outcome["why"] == "timeout",
            "limits_hit": outcome["struck"],
            "duration": outcome["timings"]["job"],
            "timings": self.timings,
            "changed": False,
        }
        if outcome.get("trace"):
            result["trace"] = workspace_first(outcome["trace"], self.target)
        if outcome["rc"] is not None:
            result["rc"] = outcome["rc"]
        if outcome["why"] != "exit" or outcome["rc"] != 0:
            result["msg"] = message_of(outcome, self.params, self.user)
            result["failed"] = outcome["rc"] is None or outcome["why"] != "exit" or self.params["fail_on_rc"]
        return result


class Engine:
    """What runs pods: a containerd."""

    def __init__(self, ctr: Ctr) -> None:
        self.ctr = ctr

    def connect(self) -> None:
        """Raise GvisorError where it does not answer."""
        self.ctr.connect()

    def check(self, job: Job) -> None:
        """Raise GvisorError for a job that this engine cannot run; containerd runs all."""

    def image(self, params: Mapping[str, Any]) -> ImageConfig:
        """Return what the image of a job's options says of itself. Raises GvisorError."""
        cache = os.path.join(params["state_dir"], "images")
        return image_config(self.ctr, full_name(params["image"]), architecture(os.uname().machine), cache)

    def folder(self, state_dir: str, pod: str) -> PodFolder:
        """Return a new pod's own folder. Raises GvisorError."""
        return PodFolder(state_dir, pod, self.ctr)

    def sweep(self, state_dir: str) -> List[str]:
        """Remove what killed runs left; return what was done, and what could not be."""
        return sweep(state_dir, self.ctr)


class PodJobs:
    """The jobs of one pod, begun when this is made. A context manager: nothing is left when it ends."""

    def __init__(self, engine: Engine, jobs: List[Job], image: ImageConfig) -> None:
        """Start the pod. Raises GvisorError."""
        self.jobs = jobs
        self.image = image
        params = jobs[0].params
        self.pod = f"{params['name']}-{os.urandom(6).hex()}"
        check_line("state_dir is", params["state_dir"])
        tools = prepare(params["state_dir"]).at(self.pod)
        # From here to the supervisor's start a kill leaves an empty folder, for the next run to sweep: the less between, the better.
        folder = self.folder = engine.folder(params["state_dir"], self.pod)
        self._shared: List[Tuple[Note, str]] = []  # what all can write
        begin = time.monotonic()
        try:
            self.trail = Trail(engine.ctr, params["state_dir"], folder.path, full_name(params["image"]), image.digest)
            limits = limits_of(params)
            with Room({f"the state folder {params['state_dir']}": params["state_dir"]}, limits.keep_free if limits.required else 0) as room:
                for job in jobs:
                    job.begin = begin
                    job.place(folder, WORKSPACE if len(jobs) == 1 else f"{WORKSPACE}s/{job.number}", room)
            mounts = self._place_mounts()
            for job in jobs:
                job.write_note(folder)
            spec = self._spec(tools, mounts)
            make_points(folder.path, spec.mounts, jobs[0].reader)
            self.supervisor = Supervisor(folder, spec, [job.command for job in jobs], jobs[0].streams.live)
        except OSError as error:
            folder.remove()
            raise GvisorError(f"{error.filename or folder.path}: {error.strerror}") from error
        except BaseException:
            folder.remove()
            raise

    def _place_mounts(self) -> List[Mount]:
        """Have what the options mount in the pod's own folder, and a note of each that can be written. Raises GvisorError or OSError."""
        first = self.jobs[0]
        found = []
        for number, (item, wanted) in enumerate(zip(first.params["mounts"], first.sources)):
            with pin_source(item["source"]) as pinned:
                if pinned.identity != wanted:
                    raise GvisorError(f"mounts has the source {item['source']}, which is another than when the run began; run again")
                source = self.folder.bind(pinned)
                found.append(Mount(source, item["target"], item["writable"]))
                if item["writable"]:
                    note, inner = self._mount_note(pinned, source, item["target"])
                    found += inner
                    self._shared.append((note, f"mount{number}"))
                    self.folder.note(f"mount{number}", note)
        if first.secrets:
            found.append(Mount(self.folder.place_secrets(first.secrets, first.user), secret_files.TARGET))
        return found

    def _mount_note(self, pinned: Pinned, source: str, target: str) -> Tuple[Note, List[Mount]]:
        """Return what cleaning the mount needs, and what shows the protected parts of it read-only. Raises GvisorError or OSError."""
        first = self.jobs[0]
        patterns = first.params["protect"] if pinned.is_folder else []
        try:
            kept = look_for_kept(pinned.descriptor, first.until, first.reader) if pinned.is_folder else {}
            guarded = protect.look(pinned.descriptor, patterns, first.until, first.reader) if patterns else protect.Found({}, [])
        except GvisorError as error:
            raise GvisorError(f"mounts has the writable source {pinned.path}: {error.message}") from error
        let_age(kept)
        guard = {"patterns": patterns, "rows": guarded.rows} if patterns else {}
        note = Note(source, pinned.path, list(pinned.identity), int(first.user.split(":")[0]), kept, [], guard, first.reader)
        return note, [_inner_mount(self.folder, pinned.descriptor, path, target, False) for path in guarded.mounts]

    def __enter__(self) -> "PodJobs":
        """Let the first command begin as soon as the pod is there."""
        try:
            self._go(self.jobs[0])
        except BaseException:
            self.supervisor.__exit__()
            raise
        return self

    def __exit__(self, *exc: Any) -> None:
        """Remove the pod."""
        self.supervisor.__exit__(*exc)

    def _go(self, job: Job) -> None:
        try:
            job.look()
            self.trail.begin(job.number, {"run": self.pod, "job": job.number, **job.facts}, job.params["metrics"])
        except OSError as error:
            raise GvisorError(f"{error.filename or self.folder.path}: {error.strerror}") from error
        self.supervisor.go(job.until)

    def _clean_all(self, last: Job) -> List[str]:
        """Clean, when the sandbox is dead, what its jobs could write after their own end; return what could not be done."""
        problems = []
        for job in self.jobs:
            if job is not last:
                problems += [f"{job.workspace}: {problem}" for problem in job.clean()]
        for note, _name in self._shared:
            try:
                cleaned = clean_noted(note._asdict())
            except (GvisorError, OSError) as error:
                problems.append(f"{note.path}: {getattr(error, 'strerror', None) or error}")
                continue
            problems += [f"{note.path}: {problem}" for problem in (*cleaned.refused, *cleaned.problems)]
            if cleaned.count:
                last.warnings.append(
                    f"set-user-id or set-group-id bits were taken off {cleaned.count} files of {note.path}: {', '.join(cleaned.stripped[:5])}"
                )
        if not problems:  # otherwise the supervisor tries again
            for name in (*(job.note_name for job in self.jobs), *(name for _note, name in self._shared)):
                self.folder.done(name)
        return problems

    def _told(self, job: Job, facts: Mapping[str, Any]) -> List[str]:
        """Append the job's line to the audit trail; return what could not be done."""
        try:
            job.warnings += self.trail.end(job.number, facts)
        except OSError as error:
            where = f"{job.params['state_dir']}/{NAME}"
            return [f"the run could not be written down in {where}: {error.strerror}"]
        return []

    def results(self) -> Iterator[Dict[str, Any]]:
        """Yield the jobs' results; the pod is gone with the last one, or with one that did not end by itself. Raises GvisorError."""
        for job in self.jobs:
            if job is not self.jobs[0]:
                job.begin = time.monotonic()
                self._go(job)
            try:
                outcome = self.supervisor.expect("job")
            except GvisorError as error:
                job.warnings += self._told(job, {"ended": "error", "rc": None, "error": error.message})
                left = job.left_by_start() if job.source else []
                raise GvisorError("; ".join([error.message, *left]), **error.details) from error
            if job.streams.live:
                self.supervisor.rest()
            result = job.compare(outcome, self.pod)
            kept = ("rc", "duration", "changed_counts", "limits_hit", "faults", "kernel")
            facts = {"rc": None, **{name: result[name] for name in kept if name in result}}
            job.fail(result, self._told(job, {"ended": outcome["why"], **facts}))
            last = job is self.jobs[-1] or outcome["why"] != "exit"
            if last:
                job.fail(result, self._clean_all(job))
                try:
                    job.timings["removed"] = self.supervisor.expect("removed")["seconds"]
                except GvisorError as error:
                    # The command has ended and its sandbox is dead: what it came to is true all the same.
                    job.warnings.append(error.message)
            job.timings["total"] = round(time.monotonic() - job.begin, 3)
            yield result
            if last:
                return

    def _spec(self, tools: HostTools, shared: List[Mount]) -> PodSpec:
        params = self.jobs[0].params
        mounts = [*(mount for job in self.jobs for mount in job.mounts), *shared]
        limits = limits_of(params)
        places = self._places(shared)
        with Room(places, limits.keep_free) as room:
            low = room.low()
        if low:
            self.jobs[0].warnings += judge({"keep_free": f"too little room on the file system of {low}"}, limits.required, FIXES)
            limits = limits._replace(keep_free=0)
        return PodSpec(
            id=self.pod,
            image=full_name(params["image"]),
            runtime=params["runtime"],
            mounts=mounts,
            tools=tools,
            gvisor=params["runtime"].startswith(GVISOR),
            read_only=params["read_only"],
            limits=limits,
            places=places,
            user=self.jobs[0].user,
            image_env=self.image.env,
            image_user=self.image.user,
            owner=owner_of(params["state_dir"]),
            trace=params["trace"],
        )

    def _places(self, shared: List[Mount]) -> Dict[str, str]:
        """Return where the jobs can fill the host's file systems, by what to call it."""
        state_dir = self.jobs[0].params["state_dir"]
        found = {f"the state folder {state_dir}": state_dir}
        found.update((f"the workspace {job.workspace}", job.source) for job in self.jobs if job.source)
        found.update((f"the mount {mount.target}", mount.source) for mount in shared if mount.writable)
        return found


def groups(jobs: List[Job], shared: bool) -> List[List[Job]]:
    """Return the jobs that go into one pod each. A pod's own options are the same for all in it, and so are their user and secrets.

    One that is fed, or watched, while it runs has a pod of its own.
    """
    found: Dict[str, List[Job]] = {}
    ordered = overlap(jobs)  # a job may need what an earlier one does
    key, last = 0, None
    for job in jobs:
        alone = job.number if job.streams != Streams() else None
        own = (alone, job.user, sorted(job.secrets.items()), *(job.params[name] for name in OF_THE_POD))
        if not shared or (ordered and own != last):
            key += 1
        last = own
        found.setdefault(f"{key} {own}", []).append(job)
    return list(found.values())


def overlap(jobs: List[Job]) -> bool:
    """Return whether some of the jobs' workspaces are the same, or one in another, so that they must not run at the same time."""
    paths = sorted(f"{job.workspace}/" for job in jobs if job.workspace)
    return any(later.startswith(earlier) for earlier, later in zip(paths, paths[1:]))


def run_all(engine: Engine, jobs: List[Job], shared: bool, width: int) -> Dict[int, Dict[str, Any]]:
    """Return the jobs' results by number, each as from ``PodJobs.results``; one that could not be had is ``failed`` and has ``msg``.

    Raises GvisorError where the state folder is not root's alone.
    """
    if jobs:
        own_folder(jobs[0].params["state_dir"], "state_dir")  # before anything else makes it
    waiting = deque(groups(jobs, shared))
    found: Dict[int, Dict[str, Any]] = {}
    swept = False
    image: Optional[ImageConfig] = None
    with contextlib.ExitStack() as stack:
        running: Deque[Tuple[PodJobs, contextlib.ExitStack]] = deque()
        while waiting or running:
            while waiting and len(running) < width:
                batch = waiting.popleft()
                try:
                    image = image or engine.image(batch[0].params)
                    own = contextlib.ExitStack()
                    running.append((own.enter_context(PodJobs(engine, batch, image)), own))
                    stack.push(own)
                except GvisorError as error:
                    found.update({job.number: {"failed": True, "changed": False, "msg": error.message, **error.details} for job in batch})
            if not swept:
                jobs[0].warnings += engine.sweep(jobs[0].params["state_dir"])
                swept = True
            if not running:
                continue
            group, own = running.popleft()
            done = 0
            with own:
                try:
                    for job, result in zip(group.jobs, group.results()):
                        found[job.number] = result
                        done += 1
                except GvisorError as error:
                    found[group.jobs[done].number] = {"failed": True, "changed": False, "msg": error.message, **error.details}
                    done += 1
            if group.jobs[done:]:
                waiting.appendleft(group.jobs[done:])
    return found


def names_of(jobs: Sequence[Mapping[str, Any]], argv: Optional[Sequence[str]]) -> List[str]:
    """Return what to call each of several jobs: its workspace, or its command, which is ``argv`` where it has none of its own."""
    return [str(job.get("workspace") or " ".join(job.get("argv") or argv or [])) for job in jobs]


def summary(results: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Dict[str, Any]:
    """Return what several jobs' results make of their task; ``names`` are what to call the jobs."""
    told = [f"{name}: {result['msg']}" for name, result in zip(names, results) if result.get("failed")]
    changed = any(result.get("changed") for result in results)
    return {"changed": changed, "failed": bool(told), **({"msg": "\n".join(told)} if told else {})}
