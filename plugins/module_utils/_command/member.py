# Copyright (c) 2026, the ggen.gvisor authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""The command for members of the group that sudo lets run it as root: for nothing that they could not do themselves. See docs/decisions/members.md.

What a command line names is opened with the caller's own rights, and must be the caller's. What of that is used afterwards is compared by identity.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import resource
import signal
import sys
from typing import Any, Dict, FrozenSet, Iterator, List, Mapping, NamedTuple, Optional, Tuple

from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._base.files import read_text
from ansible_collections.ggen.gvisor.plugins.module_utils._base.kernel import die_with_parent
from ansible_collections.ggen.gvisor.plugins.module_utils._base.process import SEARCH_PATH
from ansible_collections.ggen.gvisor.plugins.module_utils._command.engine import Engine
from ansible_collections.ggen.gvisor.plugins.module_utils._command.main import ended, open_streams
from ansible_collections.ggen.gvisor.plugins.module_utils._command.parser import Asked, parse
from ansible_collections.ggen.gvisor.plugins.module_utils._command.verbs import perform
from ansible_collections.ggen.gvisor.plugins.module_utils._containerd.ctr import DEFAULT_ADDRESS, Ctr
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.cgroup import leave_groups
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.jobs import Engine as Runner
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.jobs import Job, Mode, Streams, pin_source, pin_workspace
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.limits import limits_of
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.pinned import Pinned
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.supervisor import DEFAULT_STATE_DIR
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.walker import Identity

# All that a member may say. What is not here is refused, also what comes to the command later.
_OF_A_RUN = frozenset({"image", "workspace", "mount", "env", "secret", "memory", "cpus", "timeout", "protect", "output"})
ALLOWED: Dict[str, FrozenSet[str]] = {
    "run": _OF_A_RUN | {"json", "terminal"},
    "shell": _OF_A_RUN | {"copy"},
    "sync": _OF_A_RUN | {"json"},
    "check": _OF_A_RUN | {"json"},
}
# What a process must have at least, whatever its caller gave it: one that is killed, or cannot write, in between leaves things behind.
_LEAST = {
    resource.RLIMIT_CPU: resource.RLIM_INFINITY,
    resource.RLIMIT_FSIZE: resource.RLIM_INFINITY,
    resource.RLIMIT_DATA: resource.RLIM_INFINITY,
    resource.RLIMIT_AS: resource.RLIM_INFINITY,
    resource.RLIMIT_STACK: 8 << 20,
    resource.RLIMIT_NOFILE: 1024,
}
_TERM = re.compile(r"[A-Za-z0-9][A-Za-z0-9+._-]{0,63}")
# File systems in which a file is a word to the kernel, which judges who says it: here that would be root's sandbox. It would leave its limits by one.
_OF_THE_KERNEL = frozenset(
    {"autofs", "binfmt_misc", "bpf", "cgroup", "cgroup2", "configfs", "debugfs", "devpts", "devtmpfs", "efivarfs", "fusectl"}
    | {"mqueue", "nsfs", "proc", "pstore", "resctrl", "securityfs", "selinuxfs", "smackfs", "sysfs", "tracefs"}
)
# Python's own, and those that a caller may have ignored on purpose (nohup).
_LEFT = (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# What a terminal sends to all that runs there, root's processes too. One that is stopped with a lock stops everybody's runs.
_STOPPING = (signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)


class Caller(NamedTuple):
    """Who has called sudo."""

    name: str
    uid: int
    gid: int

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> "Caller":
        """Return who sudo says it is: it sets the variable whatever the caller did. Raises GvisorError."""
        text = environment.get("SUDO_UID", "")
        if os.geteuid() != 0 or not re.fullmatch(r"[0-9]{1,10}", text):
            raise GvisorError("this is what sudo starts for members of a group: sudo ggen-gvisor-member")
        try:
            entry = pwd.getpwuid(int(text))
        except (KeyError, OverflowError):
            raise GvisorError(f"{text} is no user of this host") from None
        if 0 in (entry.pw_uid, entry.pw_gid):
            raise GvisorError(f"{entry.pw_name} is root, or in root's group, and a member's command is never that; root has ggen-gvisor")
        return cls(entry.pw_name, entry.pw_uid, entry.pw_gid)

    @contextlib.contextmanager
    def rights(self) -> Iterator[None]:
        """Have no more rights than the caller has: the kernel judges what can be opened. Raises OSError."""
        before = os.getgroups()
        os.setgroups(os.getgrouplist(self.name, self.gid))
        os.setegid(self.gid)
        os.seteuid(self.uid)
        try:
            yield
        finally:
            os.seteuid(0)
            os.setegid(0)
            os.setgroups(before)


def cleanse() -> None:
    """Take off this process what its caller gave it: variables, descriptors, limits, timers, signals, control groups. Raises GvisorError or OSError."""
    term = os.environ.get("TERM", "")
    os.environ.clear()
    os.environ.update({"PATH": SEARCH_PATH, "LC_ALL": "C", "HOME": "/", **({"TERM": term} if _TERM.fullmatch(term) else {})})
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2:
            with contextlib.suppress(OSError):  # the one of the list itself
                os.close(int(name))
    os.umask(0o022)
    for timer in (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF):
        signal.setitimer(timer, 0)
    for number in signal.valid_signals():
        if number not in _LEFT and signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    for number in _STOPPING:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    leave_groups()
    for limit, least in _LEAST.items():
        soft, hard = resource.getrlimit(limit)
        if soft != resource.RLIM_INFINITY and (least == resource.RLIM_INFINITY or soft < least):
            try:
                resource.setrlimit(limit, (least, max(hard, least, key=_size)))
            except (OSError, ValueError):
                raise GvisorError("the limits of the caller's processes are too low and cannot be lifted here; see ulimit -a") from None


def waiting_sudo() -> Optional[int]:
    """Return the process that waits for this one, if it is a sudo: its caller can kill that, and nothing else of root's."""
    parent = os.getppid()
    return parent if (read_text(f"/proc/{parent}/comm") or "").strip() == "sudo" else None


def end_with(sudo: Optional[int]) -> None:
    """Be told to end when ``sudo`` is gone, until the next change of rights. Raises GvisorError where it is."""
    if sudo is not None:
        die_with_parent(signal.SIGTERM)
        if os.getppid() != sudo:
            raise GvisorError("sudo was killed")


def _size(limit: int) -> float:
    return float("inf") if limit == resource.RLIM_INFINITY else limit


def devices_of_the_kernel(mountinfo: str) -> FrozenSet[int]:
    """Return the devices of mounted file systems that are the kernel's own."""
    found = set()
    for line in mountinfo.splitlines():
        left, _dash, right = line.partition(" - ")
        if right.split(" ")[0] in _OF_THE_KERNEL:
            major, _colon, minor = left.split(" ")[2].partition(":")
            found.add(os.makedev(int(major), int(minor)))
    return frozenset(found)


class Held(NamedTuple):
    """What the caller named, by identity; it is open, so that none of these is another's meanwhile."""

    workspace: Optional[Identity]
    sources: List[Identity]


def hold(asked: Asked, caller: Caller, stack: contextlib.ExitStack) -> Tuple[Asked, Held]:
    """Open what a command line names, with the rights that this process has, and return it with its workspace said.

    Raises GvisorError where something is not the caller's or not allowed.
    """
    refused = sorted(set(asked.options) - ALLOWED.get(asked.verb, frozenset()))
    if asked.verb not in ALLOWED:
        raise GvisorError(f"{asked.verb} is root's; a member may {', '.join(ALLOWED)}")
    if refused:
        raise GvisorError(
            f"--{refused[0].replace('_', '-')} is root's; a member's command is the caller's, on what root has imported and set up"
        )

    of_the_kernel = devices_of_the_kernel(read_text("/proc/self/mountinfo") or "")

    def own(pinned: Pinned) -> Identity:
        stack.enter_context(pinned)
        if pinned.identity[0] in of_the_kernel:
            raise GvisorError(f"{pinned.path} is the kernel's; name a folder or file of a disk")
        if pinned.owner[0] != caller.uid:
            raise GvisorError(
                f"{pinned.path} belongs to {pinned.owner[0]}:{pinned.owner[1]} and not to {caller.name}; name what is your own"
            )
        return pinned.identity

    options = dict(asked.options)
    if asked.verb != "run":
        options.setdefault("workspace", os.getcwd())
    workspace = options.get("workspace")
    held = Held(
        own(pin_workspace(workspace)) if workspace else None, [own(pin_source(mount["source"])) for mount in options.get("mount", [])]
    )
    return asked._replace(options=options), held


class _Quiet(Runner):
    """Says nothing of what others' runs have left."""

    def sweep(self, state_dir: str) -> List[str]:
        """Remove what killed runs left."""
        super().sweep(state_dir)
        return []


class MemberEngine(Engine):
    """Runs a job as the caller, on what is held."""

    def __init__(self, caller: Caller, held: Held, where: Mapping[str, str]) -> None:
        self._caller = caller
        self._held = held
        self._where = where

    def job(self, params: Mapping[str, Any], mode: Mode, streams: Streams) -> Job:
        """Return the job that ``params`` ask for, checked. Raises GvisorError or OSError."""
        job = Job(mode, {**params, **self._where, "user": f"{self._caller.uid}:{self._caller.gid}"}, streams=streams)
        if (job.identity, job.sources) != self._held:
            raise GvisorError("the workspace, or a mount, is another than when the command began; run again")
        if limits_of(job.params).group.memory is None:
            raise GvisorError("--memory 0, which is no limit, is root's")
        job.reader = self._caller.uid
        return job

    def runner(self, job: Job) -> Runner:
        """Return what makes its pod."""
        return _Quiet(Ctr(job.params["address"], job.params["namespace"]))


def main(address: str = DEFAULT_ADDRESS, state_dir: str = DEFAULT_STATE_DIR) -> int:
    """Do what the command line asks for, where root says, and return the exit code."""
    open_streams()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the kernel says by it that sudo is gone: a caller cannot have it ignored

    def work() -> int:
        caller, sudo = Caller.of(os.environ), waiting_sudo()
        cleanse()
        os.environ["SUDO_USER"] = caller.name  # the audit trail tells it
        with contextlib.ExitStack() as stack:
            with caller.rights():
                end_with(sudo)  # what is opened may be a pipe that nobody writes to
                asked, held = hold(parse(sys.argv[1:], "for members"), caller, stack)
            os.chdir("/")
            end_with(sudo)
            return perform(asked, MemberEngine(caller, held, {"address": address, "state_dir": state_dir}))

    return ended(work)
