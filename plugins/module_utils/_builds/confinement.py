# Copyright (c) 2026, the ggen.gvisor authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""Run a compile, which is somebody else's code (build scripts, macros), where it can do nothing but compile.

It gets namespaces of its own: no network; no process but its own, and all of them end with it; of files the system's programs, which it reads, and
the folders that are named. It is a user without rights who owns nothing on the host. Its environment is the one that is named and no other.

Only the kernel is needed, as root (a machine, or a container that may mount) or as a user who may make user namespaces.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import signal
import subprocess
import tempfile
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence

from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._base.kernel import BIND, NODEV, NOEXEC, NOSUID, PRIVATE, REC, libc, mount
from ansible_collections.ggen.gvisor.plugins.module_utils._base.process import SEARCH_PATH, run
from ansible_collections.ggen.gvisor.plugins.module_utils._base.processes import wait_exit
from ansible_collections.ggen.gvisor.plugins.module_utils._builds import sandbox

# A user and group that no distribution gives to anybody: below nobody's, above those that are made for people and services.
UNPRIVILEGED = 65533
# What is read of the host: programs, libraries, compilers and what they are configured by. Nobody's home, and none of the places where daemons listen.
SYSTEM = ("/bin", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/opt", "/sbin", "/usr")
DEVICES = ("full", "null", "random", "urandom", "zero")
LINKS = {"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2"}
TEMPORARY = ("dev/shm", "tmp", "var/tmp")

# From the kernel's headers; the numbers of the two calls that libc has no function for.
_NEWNS, _NEWUTS, _NEWIPC, _NEWUSER, _NEWPID, _NEWNET = 0x00020000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000
_RDONLY, _REMOUNT = 1, 0x20
_MNT_DETACH = 2
_ATTR_RDONLY, _ATTR_NOSUID, _ATTR_NODEV, _AT_FDCWD, _AT_RECURSIVE, _SYS_MOUNT_SETATTR = 1, 2, 4, -100, 0x8000, 442
_SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_CAPBSET_DROP, _PR_SET_SECUREBITS, _PR_SET_NO_NEW_PRIVS = 1, 4, 24, 28, 38
_NO_SETUID_FIXUP = 4


class Command:
    """A confined command that runs: ``pid`` is a process of the host that ends as the command does, and takes all of it along when it is killed."""

    def __init__(self, argv: Sequence[str], pid: int) -> None:
        self.argv = list(argv)
        self.pid = pid

    def wait(self, timeout: Optional[float] = None) -> int:
        """Wait for the end and return the exit code, negative for a signal. Raises subprocess.TimeoutExpired after ``timeout`` seconds."""
        if timeout is not None and not wait_exit(self.pid, timeout):
            raise subprocess.TimeoutExpired(self.argv, timeout)
        status = os.waitpid(self.pid, 0)[1]
        return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


class Confinement(NamedTuple):
    """What a confined command finds of the host besides the system: folders or files to read, and folders to write. What is named inside of another
    one overrides it."""

    readable: Sequence[str] = ()
    writable: Sequence[str] = ()
    runsc: Optional[Sequence[str]] = None  # where gVisor's program may be, for a sandbox inside of the walls

    @property
    def kind(self) -> str:
        """What keeps the command."""
        return sandbox.NAMESPACES if self.runsc is None else sandbox.GVISOR

    def refusal(self) -> str:
        """Return why this host cannot confine a command, nothing where it can."""
        if platform.system() != "Linux":
            return f"it runs {platform.system()}, and not Linux"
        try:
            return self._try() if self.runsc is None else self._replace(writable=())._try_sandbox(sandbox.find(self.runsc))
        except (OSError, GvisorError) as error:
            return str(error)

    def _try(self) -> str:
        null = os.open(os.devnull, os.O_RDWR)
        try:
            code = self.start([], {}, os.sep, null, only_try=True).wait(60)
        finally:
            os.close(null)
        return "" if code == 0 else f"it ended with {code}"

    def _try_sandbox(self, runsc: str) -> str:
        """Ask the kernel that the sandbox has what it is."""
        with tempfile.TemporaryFile() as stream:
            command = self.start(sandbox.PROVE, {}, os.sep, stream.fileno())
            try:
                code = command.wait(60)
            except subprocess.TimeoutExpired:
                os.kill(command.pid, signal.SIGKILL)
                command.wait()
                return f"{runsc} starts no sandbox within 60 s"
            stream.seek(0)
            said = stream.read(1 << 16).decode("utf-8", "replace")
        if code == 0 and sandbox.PROOF in said:
            return ""
        return f"{runsc} starts no gVisor sandbox: {' '.join(said.split())[-500:] or f'it ended with {code}'}"

    def start(self, argv: Sequence[str], env: Mapping[str, str], chdir: Optional[str], output: int, only_try: bool = False) -> Command:
        """Start the command, its output to the descriptor ``output``. The folders to write are made, and given to its user.

        With ``only_try`` nothing is run once the walls stand. Raises GvisorError that names the step that the host refused, OSError where the
        command cannot be started.
        """
        places = self._places()
        if os.geteuid() == 0 and not only_try:
            for path in self.writable:
                # The program does not follow links, and nothing of an earlier run is alive that could make some.
                done = run(["chown", "-R", "-h", f"{UNPRIVILEGED}:{UNPRIVILEGED}", path], timeout=600)
                if done.rc != 0:
                    raise GvisorError(f"{path} cannot be given to the build's user: {done.stderr.strip()}")
        environment = {"PATH": SEARCH_PATH, "LC_ALL": "C", "HOME": "/tmp", "TMPDIR": "/tmp", **env}  # noqa: S108 - its own
        within = self._within(places, sandbox.Command(argv, environment, chdir or os.sep), only_try)
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            _guarded(writer, lambda: _outer(within, output, writer))
        os.close(writer)
        with os.fdopen(reader, encoding="utf-8", errors="replace") as stream:
            wrong = stream.read()  # ends when the command runs
        if wrong:
            os.waitpid(pid, 0)
            raise GvisorError(wrong)
        return Command(argv, pid)

    def _within(self, places: List[Dict[str, Any]], command: sandbox.Command, only_try: bool) -> _Within:
        if self.runsc is None:
            return _Within(places, list(command.argv), dict(command.env), command.chdir, only_try)
        # Folders for a while are the walls' own there, too: what is shown below one is on the way to it nobody's to write.
        writable = ["/tmp", "/var/tmp", *(place["shown"] for place in places if place["writable"])]  # noqa: S108
        files = {sandbox.CONFIG: sandbox.config(command, writable)}
        program = {"source": sandbox.find(self.runsc), "shown": sandbox.PROGRAM, "writable": False}
        return _Within([program, *places], list(sandbox.ARGV), {"PATH": SEARCH_PATH, "LC_ALL": "C"}, command.chdir, only_try, files)

    def _places(self) -> List[Dict[str, Any]]:
        """Return what is shown where, the outer before the inner."""
        places: Dict[str, Dict[str, Any]] = {}
        for paths, writable in ((self.readable, False), (self.writable, True)):
            for path in map(os.path.abspath, paths):
                if writable:
                    os.makedirs(path, exist_ok=True)
                source = os.path.realpath(path)
                if not os.path.exists(source):
                    raise GvisorError(f"{path} is not there, and the command needs it")
                # By the name that the command knows it by, and by its real one.
                for shown in (path, source):
                    places[shown] = {"source": source, "shown": shown, "writable": writable}
        return [places[shown] for shown in sorted(places)]


class _Within(NamedTuple):
    """What happens behind the walls."""

    places: Sequence[Mapping[str, Any]]
    argv: List[str]
    env: Dict[str, str]
    chdir: str
    only_try: bool  # nothing but the walls
    files: Optional[Mapping[str, bytes]] = None  # what a sandbox needs, None without one


def _guarded(writer: int, act: Callable[[], int]) -> None:
    """End this process with what ``act`` returns; what it raises goes to the pipe."""
    code = 127
    try:
        code = act()
    except BaseException as error:  # whatever it is, this copy of the process must go no further
        os.write(writer, str(error).encode(errors="replace")[:4096])
    finally:
        os._exit(code)


def _outer(within: _Within, output: int, writer: int) -> int:
    """Make the namespaces, and wait as a process of the host's for the one that is process 1 in them."""
    os.setsid()
    null = os.open(os.devnull, os.O_RDONLY)
    for descriptor, stream in ((null, 0), (output, 1), (output, 2)):
        os.dup2(descriptor, stream)
    # The job's lock and whatever else is open here is nothing for the command.
    os.closerange(3, writer)
    os.closerange(writer + 1, os.sysconf("SC_OPEN_MAX"))
    for name in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(name, signal.SIG_DFL)
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    root = os.geteuid() == 0
    uid, gid = os.geteuid(), os.getegid()
    flags = _NEWNS | _NEWUTS | _NEWIPC | _NEWPID | _NEWNET | (0 if root else _NEWUSER)
    _call("make namespaces (unshare)", libc().unshare(flags))
    if not root:
        # It is the same user to the host, who sees nothing of the host that is his.
        _map_users(UNPRIVILEGED, uid, UNPRIVILEGED, gid)
    inner = os.fork()
    if inner == 0:
        _guarded(writer, lambda: _first(within, writer, root))
    os.close(writer)
    status = os.waitpid(inner, 0)[1]
    if os.WIFSIGNALED(status):
        os.kill(os.getpid(), os.WTERMSIG(status))
    return os.WEXITSTATUS(status)


def _first(within: _Within, writer: int, root: bool) -> int:
    """Be process 1: build the walls, start the command, and end when it does. The kernel then ends what it left behind."""
    _build(within.places, TEMPORARY if within.files is None else (*TEMPORARY, sandbox.FOLDER[1:]))
    for path, content in (within.files or {}).items():
        with open(path, "wb") as stream:
            stream.write(content)
    _drop(root, within.files is not None)
    if within.files is not None:
        _own_users()
    # Only now, because becoming somebody else undoes it.
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if within.only_try:
        return 0
    os.chdir(within.chdir)
    command = os.fork()
    if command == 0:
        _guarded(writer, lambda: os.execvpe(within.argv[0], within.argv, within.env))  # type: ignore[func-returns-value]  # noqa: S606 - a shell is what it must not be
    os.close(writer)
    while True:
        pid, status = os.wait()
        if pid == command:
            # Its signal becomes the shell's number: process 1 cannot end by a signal of its own.
            return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def _build(places: Sequence[Mapping[str, Any]], temporary: Sequence[str]) -> None:
    """Make a file system that has what the command may see, in place of the host's."""
    _mount(None, "/", None, REC | PRIVATE)
    # The host's root moves below a new one, where it can be reached by its old names whatever is mounted in the new one.
    _mount("tmpfs", "/tmp", "tmpfs", NOSUID | NODEV, "mode=755")  # noqa: S108 - any folder would do
    os.chdir("/tmp")  # noqa: S108
    os.mkdir("host")
    os.mkdir("new")
    _pivot(".", "host")
    os.chdir("/")
    _mount("tmpfs", "/new", "tmpfs", NOSUID | NODEV, "mode=755")
    for path in SYSTEM:
        if os.path.islink(f"/host{path}"):
            os.symlink(os.readlink(f"/host{path}"), f"/new{path}")
        elif os.path.isdir(f"/host{path}"):
            _show(path, path, writable=False)
    os.makedirs("/new/dev")
    for device in DEVICES:
        open(f"/new/dev/{device}", "wb").close()
        _mount(f"/host/dev/{device}", f"/new/dev/{device}", None, BIND)
    for name, target in LINKS.items():
        os.symlink(target, f"/new/dev/{name}")
    for name in temporary:
        os.makedirs(f"/new/{name}")
        _mount("tmpfs", f"/new/{name}", "tmpfs", NOSUID | NODEV, "mode=1777")
    os.mkdir("/new/proc")
    _mount("proc", "/new/proc", "proc", NOSUID | NODEV | NOEXEC)
    for place in places:
        _show(**place)
    _mount(None, "/new", None, _REMOUNT | BIND | _RDONLY | NOSUID | NODEV)
    _call("leave the host's files (umount)", libc().umount2(b"/host", _MNT_DETACH))
    os.chdir("/new")
    _pivot(".", ".")
    _call("leave the host's files (umount)", libc().umount2(b".", _MNT_DETACH))
    os.chdir("/")


def _show(source: str, shown: str, writable: bool) -> None:
    """Show a folder or file of the host; what is mounted in it, too."""
    target = f"/new{shown}"
    if os.path.isdir(f"/host{source}"):
        os.makedirs(target, exist_ok=True)
    elif not os.path.exists(target):
        os.makedirs(os.path.dirname(target), exist_ok=True)
        open(target, "wb").close()
    _mount(f"/host{source}", target, None, BIND | REC)
    attributes = (ctypes.c_uint64 * 4)(_ATTR_NOSUID | _ATTR_NODEV | (0 if writable else _ATTR_RDONLY), 0, 0, 0)
    number, where = ctypes.c_long(_SYS_MOUNT_SETATTR), ctypes.c_char_p(os.fsencode(target))
    _call(
        f"make {shown} read-only (mount_setattr, Linux 5.12)",
        libc().syscall(number, _AT_FDCWD, where, _AT_RECURSIVE, attributes, ctypes.c_size_t(ctypes.sizeof(attributes))),
    )


def _drop(root: bool, keep: bool) -> None:
    """Become the user without rights, for good; root's rights are lost with what this process runs, or kept until then."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.umask(0o022)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    capability = 0
    while libc().prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) == 0:
        capability += 1
    if root:
        if keep:
            _prctl(_PR_SET_SECUREBITS, _NO_SETUID_FIXUP)
        os.setgroups([])
        os.setresgid(UNPRIVILEGED, UNPRIVILEGED, UNPRIVILEGED)
        os.setresuid(UNPRIVILEGED, UNPRIVILEGED, UNPRIVILEGED)


def _own_users() -> None:
    """Be root in a user namespace where nobody else is: to the host, and so to its files, still the user without rights.

    Made with the rights that the walls were built with, because a host may refuse it to who has none (Ubuntu's AppArmor). They end here.
    """
    uid, gid = os.geteuid(), os.getegid()
    _prctl(_PR_SET_DUMPABLE, 1)  # a process that became somebody else may not write its own files in /proc
    _call("make namespaces (unshare)", libc().unshare(_NEWUSER | _NEWNS))
    _map_users(0, uid, 0, gid)


def _map_users(uid: int, of_uid: int, gid: int, of_gid: int) -> None:
    for name, line in (("setgroups", "deny"), ("uid_map", f"{uid} {of_uid} 1"), ("gid_map", f"{gid} {of_gid} 1")):
        with open(f"/proc/self/{name}", "wb", buffering=0) as stream:
            stream.write(line.encode())


def _call(what: str, result: int) -> None:
    if result < 0:
        raise GvisorError(f"this host does not let a build {what}: {os.strerror(ctypes.get_errno())}")


def _prctl(option: int, value: int) -> None:
    _call(f"give up its rights (prctl {option})", libc().prctl(option, ctypes.c_ulong(value), 0, 0, 0))


def _mount(source: Optional[str], target: str, kind: Optional[str], flags: int, data: Optional[str] = None) -> None:
    try:
        mount(source, target, kind, flags, data)
    except OSError as error:
        raise GvisorError(f"this host does not let a build mount {target}: {error.strerror}") from error


def _pivot(new: str, old: str) -> None:
    number = _SYS_PIVOT_ROOT.get(platform.machine())
    if number is None:
        raise GvisorError(f"a build cannot be confined on {platform.machine()}")
    _call("leave the host's root (pivot_root)", libc().syscall(ctypes.c_long(number), os.fsencode(new), os.fsencode(old)))
