# Copyright (c) 2026, the ggen.gvisor authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""A pod: one sandbox with a shell that waits, and commands run by it with their real exit codes. See docs/decisions/pods.md.

All that runs in it is one user's, the shell too.
"""

from __future__ import annotations

import contextlib
import csv
import io
import os
import select
import shlex
import signal
import subprocess
import time
from typing import Callable, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Set, Tuple

from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._base.process import SEARCH_PATH, run
from ansible_collections.ggen.gvisor.plugins.module_utils._containerd.ctr import Ctr
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox import runsc
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.cgroup import PodCgroup, remove_groups
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.host_tools import EMPTY, SIGN, HostTools
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.limits import (
    FIXES,
    RoomWatch,
    RunLimits,
    check_ulimits,
    forbid_core,
    judge,
    ulimits,
)
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.network import HOST_NAME, HOSTS_FILE, hosts, namespaces
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.pipes import HeadAndTail, Inlet, Outlet, Sink, UntilMark, read_until
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.surroundings import (
    SPARE_HOME,
    choose_home,
    find_home,
    variables_of,
)
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.trace import Trace

START_TIMEOUT = 60.0  # seconds; a pod takes 0.2 to 0.5 on an idle machine
REMOVE_TIMEOUT = 60.0
KILL_TIMEOUT = 5.0
END_TIMEOUT = 10.0  # for what was killed to be gone
MAX_ID = 76  # characters of a container's id; containerd's own limit
# What containerd grants by default. A pod has none of it, or, where ctr cannot say which user, for a moment those that change the user.
CAPABILITIES = [
    *("AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "NET_RAW"),
    *("SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"),
]
CHANGE_USER = ["SETGID", "SETUID"]
# What would have containerd start a container again, and write its output to files of the host; an image's label is overridden by an empty one.
RESTART_LABELS = [f"containerd.io/restart.{name}" for name in ("count", "explicitly-stopped", "logpath", "loguri", "policy", "status")]
LABEL = "ggen.gvisor/pod"  # on all our containers: whose they are
GROUP = "ggen.gvisor"  # how the names of our control groups begin
PRELOAD = "/etc/ld.so.preload"  # what it names, a loader puts into every program

SHIM_MEND = "containerd does not find the runtime's shim on its PATH; install it there and restart containerd"
# What containerd or the shim say → what it means and how to fix it.
_CAUSES = (
    (
        "set OOM Score on shim",
        "this host lacks CAP_SYS_RESOURCE and has the unmodified shim; install the shim build without OOM score",
    ),
    ("binary not installed", SHIM_MEND),
    ("not resolved", SHIM_MEND),
    ("exec format error", "the image is for another architecture than this host"),
    ("no space left on device", "the disk of this host is full"),
)


class Mount(NamedTuple):
    """A folder or file of the host in the pod."""

    source: str
    target: str
    writable: bool = False


class PodSpec(NamedTuple):
    """Everything about a pod that is known before it starts."""

    id: str
    image: str
    runtime: str
    mounts: List[Mount]
    tools: HostTools
    gvisor: bool = True  # prove that it is gVisor's
    read_only: bool = True
    limits: RunLimits = RunLimits()
    places: Mapping[str, str] = {}  # where a run can fill the host's file systems, by what to call it
    user: str = "0:0"  # uid:gid of all that runs in it
    image_env: Sequence[str] = ()  # NAME=value: for the commands, and for nothing else
    image_user: str = ""
    owner: str = "nobody"  # a sign of the state folder that knows of the pod
    trace: bool = False  # tell which files the commands use

    def group(self) -> str:
        """Return the name of the pod's control group."""
        return f"{GROUP}.{self.owner}.{self.id}"


class Command(NamedTuple):
    """What to run in a pod."""

    argv: List[str]
    cwd: str
    env: Mapping[str, Optional[str]]  # None takes one of the image's away
    timeout: float  # seconds
    max_output: int  # bytes kept of each stream
    stdin: Optional[int] = None  # a descriptor to read for it; such a command is alone in its pod
    terminal: Optional[int] = None  # a terminal for it to be seen at; this one, too


class Outcome(NamedTuple):
    """A command that ended, or was ended, in a pod."""

    rc: Optional[int]  # None when it did not end by itself
    stdout: HeadAndTail
    stderr: HeadAndTail
    seconds: float
    why: str  # exit, cwd (there is no such folder), timeout, abort, space, sandbox or shim (it died)


def mount_flag(kind: str, source: str, target: str, options: str) -> str:
    """Return ctr's --mount value, which is a line of CSV: paths may hold commas and quotes."""
    line = io.StringIO()
    fields = [f"type={kind}", f"src={source}", f"dst={target}", f"options={options}"]
    csv.writer(line, lineterminator="").writerow(fields)
    return line.getvalue()


def start_args(spec: PodSpec, folder: str, spaces: Mapping[str, str]) -> List[str]:
    """Return ctr's arguments that start the pod, whose shell has ctr's standard input and output; ``folder`` is the pod's.

    ``spaces`` are the paths of namespaces to start it in. The file ``hosts`` in ``folder`` is the pod's hosts file.
    """
    args = [
        "run",
        "--runtime",
        spec.runtime,
        "--pid-file",
        os.path.join(folder, "pid"),
        "--fifo-dir",
        os.path.join(folder, "init"),
        "--cgroup",
        f"/{spec.group()}",
        "--cwd",
        "/",
    ]
    # Without this annotation gVisor's shim connects no output and waits for ever.
    args += ["--annotation", "io.kubernetes.cri.container-type=sandbox", "--label", f"{LABEL}={spec.owner}"]
    for label in RESTART_LABELS:
        args += ["--label", f"{label}="]
    # The shell is the host's: what the image says in its variables is not for it, nor for the loader. The commands get it.
    for variable in spec.image_env:
        args += ["--env", f"{variable.partition('=')[0]}="]
    if "ctr-user" in spec.tools.abilities:
        args += ["--user", spec.user]
    kept = CHANGE_USER if changes_user(spec) else []
    for capability in CAPABILITIES:
        args += [] if capability in kept else ["--cap-drop", f"CAP_{capability}"]
    if spec.read_only:
        args += ["--read-only"]
    for kind, path in spaces.items():
        args += ["--with-ns", f"{kind}:{path}"]
    if spec.gvisor and host_name(spec):
        args += ["--hostname", host_name(spec)]
    targets = [mount.target for mount in spec.mounts]
    uid, gid = spec.user.split(":")
    args += ["--mount", mount_flag("tmpfs", "tmpfs", SPARE_HOME, f"nosuid:nodev:mode=0700:uid={uid}:gid={gid}:size=256m")]
    if "/tmp" not in targets:  # noqa: S108 - in the pod
        args += ["--mount", mount_flag("tmpfs", "tmpfs", "/tmp", "nosuid:nodev:mode=1777:size=1g")]  # noqa: S108
    # Before the workspace, in which an image may have a link lead where the file would be made; the others' folders before what is in them.
    first = [] if HOSTS_FILE in targets else [Mount(os.path.join(folder, "hosts"), HOSTS_FILE)]
    nested = sorted(spec.mounts, key=lambda mount: mount.target.count("/"))
    tools = [Mount(spec.tools.folder, spec.tools.target), Mount(os.path.join(spec.tools.folder, EMPTY), PRELOAD)]
    for mount in [*first, *nested, *tools]:
        access = "rw" if mount.writable else "ro"
        args += ["--mount", mount_flag("bind", mount.source, mount.target, f"rbind:nosuid:nodev:{access}")]
    become = spec.tools.argv("unshare", "--setgid", gid, "--setuid", uid) if kept else []
    return [*args, spec.image, spec.id, *become, *spec.tools.argv("sh")]


def host_name(spec: PodSpec) -> str:
    """Return the pod's host name, or "": gVisor has one of its own, which only ctr can say, and ctr of containerd 1.6 cannot."""
    return HOST_NAME if not spec.gvisor or "ctr-hostname" in spec.tools.abilities else ""


def changes_user(spec: PodSpec) -> bool:
    """Tell whether the pod's first process begins as root and becomes the user by itself, which takes a tenth of a second less than asking ctr again."""
    root = spec.image_user in ("", "0", "0:0")
    return root and "ctr-user" not in spec.tools.abilities and "unshare-user" in spec.tools.abilities and spec.user.split(":")[0] != "0"


# A shell's own way to tell who it is; nobody else is there yet who could change what it says.
WHO = (
    "s=; while read -r key rest; do case $key in Uid:|Gid:|Groups:|CapInh:|CapPrm:|CapEff:|CapAmb:) "
    's="$s$key$rest;";; esac; done < /proc/self/status; echo {mark} $s'
)


def is_user(said: str, user: str) -> bool:
    """Tell whether what the shell said of itself is ``user``, with no other group and no capability."""
    facts = {key: rest.split() for key, _colon, rest in (part.strip().partition(":") for part in said.split(";"))}
    uid, gid = user.split(":")
    capabilities = [word for key, words in facts.items() if key.startswith("Cap") for word in words]
    same = set(facts.get("Uid", [])) == {uid} and set(facts.get("Gid", [])) == {gid} and set(facts.get("Groups", [])) <= {gid}
    return same and bool(capabilities) and all(int(word, 16) == 0 for word in capabilities)


def script(command: Command, spec: PodSpec, mark: str, alone: bool) -> str:
    """Return the line with which the pod's shell runs ``command`` and then prints ``mark`` and its exit code.

    What is fed to the command comes behind the line, once the shell, which reads ahead, has said that it has the line: with ``mark`` and a plus sign.
    A relay hands on its frames (``Inlet``), as the shim keeps that pipe open for good. Nobody waits for the relay, which the command may outlive or
    not, and what the command leaves is never read: the shell would take it for further lines.

    A word behind the exit code says why the command was not started; it comes by a descriptor that the command does not have. The environment
    does not pass the shell, which drops names that it could not use. If the command is not ``alone`` in the pod, what it left behind is killed
    for the next one; its shell, which sends the signal, is spared.
    """
    folder = f"cd -- {shlex.quote(command.cwd)} 2> /dev/null || {{ echo cwd >&9; exit 1; }}; exec 9>&-"
    started = f"{folder}; {_becoming(command, spec)}"
    left = "" if alone else "kill -9 -1 2> /dev/null; "
    begun, before, source = "", "", "< /dev/null "
    if command.stdin is not None:
        dd = shlex.join(spec.tools.argv("dd", "count=1", "iflag=fullblock"))
        relay = f"""while read -r n && [ "$n" -gt 0 ]; do {dd} bs="$n" || break; done"""
        begun, before, source = (
            f"echo {mark}+ >&2; exec 8<&0 < /dev/null; ",
            f"{{ {{ {relay}; }} <&8 8<&- 3>&- 2> /dev/null & }} | ",
            "8<&- ",
        )
    return f"{begun}{{ s=$( {before}({started}) {source}9>&1 >&3 3>&-); e=$?; }} 3>&1; {left}echo {mark} $e $s; echo {mark} $e >&2\n"


def _becoming(command: Command, spec: PodSpec) -> str:
    """Return the line with which a shell becomes ``command``, in its environment."""
    variables = variables_of(spec.image_env, command.cwd, command.env)
    places = {"": not spec.read_only, "/tmp": True, **{mount.target: mount.writable for mount in spec.mounts}}  # noqa: S108 - in the pod
    home = "" if "HOME" in command.env else f"{choose_home(variables.pop('HOME', None), places)}; "
    env = shlex.join(spec.tools.argv("env", "-i", "--"))
    words = shlex.join([*(f"{name}={value}" for name, value in variables.items()), *command.argv])
    return f"""{home}exec {env} {'"HOME=$h" ' if home else ""}{words}"""


def terminal_script(command: Command, spec: PodSpec) -> str:
    """Return what a second shell in the pod reads, which has the terminal: it makes sure who it is, as nobody else has looked, and becomes ``command``."""
    uid, gid = spec.user.split(":")
    bounds = [line for line in ulimits(spec.limits.file_size).splitlines() if line.split()[2:]]
    return "\n".join(
        [
            *bounds,
            "bad=; IFS=' \t'; while read -r key a b c d rest; do case $key in",
            f'Uid:) [ "$a $b $c $d" = "{uid} {uid} {uid} {uid}" ] || bad=$key;;',
            f'Gid:) [ "$a $b $c $d" = "{gid} {gid} {gid} {gid}" ] || bad=$key;;',
            f'Groups:) for g in $a $b $c $d $rest; do [ "$g" = {gid} ] || bad=$key; done;;',
            "CapInh:|CapPrm:|CapEff:|CapAmb:) case $a in *[!0]*) bad=$key;; esac;;",
            "esac; done < /proc/self/status",
            f'[ -z "$bad" ] || {{ echo "the terminal is not of {spec.user} without further rights: $bad" >&2; exit 125; }}',
            f"cd -- {shlex.quote(command.cwd)} || exit 125",
            _becoming(command, spec),
            "",
        ]
    )


def explain(stderr: str) -> str:
    """Return ctr's complaint without its prefix, and what to do about it where that is known."""
    lines = [line[5:] for line in stderr.splitlines() if line.startswith("ctr: ")] or stderr.strip().splitlines()[-1:]
    said = " ".join(lines)
    fix = next((fix for sign, fix in _CAUSES if sign in said), "")
    return f"{said} ({fix})" if fix else said


def _both(excerpt: HeadAndTail, outlet: Optional[Outlet]) -> Callable[[bytes], None]:
    """Return what keeps a stream and, with ``outlet``, hands it on."""
    if outlet is None:
        return excerpt
    other = outlet  # for the type checker: nobody sets it to None

    def sink(data: bytes) -> None:
        excerpt(data)
        other(data)

    return sink


def gather(excerpt: HeadAndTail) -> Sink:
    """Return a sink for all of a stream."""

    def sink(data: bytes) -> bool:
        excerpt(data)
        return False

    return sink


def opening(spec: PodSpec) -> bytes:
    """Return what a pod's shell is fed with first: it tells of its kernel, limits itself, and tells who it is."""
    first = shlex.join(spec.tools.argv("dmesg")) if spec.gvisor else ":"
    who = f"{find_home(spec.user.split(':')[0])}\n{WHO.format(mark=spec.id)}"
    return f"IFS=' \t'\n{first}\n{ulimits(spec.limits.file_size)}{who}\n".encode()


def first_line(said: str, complaint: str, what: str) -> str:
    """Return the first line of the kernel log in what a pod's shell ``said``. Raises GvisorError where it is not gVisor's, but that of ``what``."""
    first = (said.splitlines() or [""])[0]
    if SIGN not in first:
        raise GvisorError(
            f"{what} is not gVisor: dmesg in the pod says {first or complaint!r} where a gVisor sandbox says {SIGN!r}; the job was not started",
            kernel=first,
        )
    return first


def without_time(line: str) -> str:
    """Return a line of a kernel log without the time before it."""
    return line.partition("] ")[2] or line


class Pod:
    """One sandbox in one containerd. ``folder`` is a private folder of its own on the host."""

    def __init__(self, ctr: Ctr, spec: PodSpec, folder: str) -> None:
        self.ctr = ctr
        self.spec = spec
        self.folder = folder
        self.pid_file = os.path.join(folder, "pid")
        self.group: Optional[PodCgroup] = None
        self._unlimited: Dict[str, str] = {}  # limits that the shell could not give itself, and why
        self._ctrs: List[subprocess.Popen] = []
        self._pipes: List[int] = []  # standard input, output and error of a shell; the last three are of the one that runs commands

    def start(self) -> str:
        """Start the pod and return the first line of its kernel log if it is gVisor's. Raises GvisorError when it does not start."""
        self._write_hosts()
        with contextlib.ExitStack() as stack:
            return self._start(stack)

    def _start(self, stack: contextlib.ExitStack) -> str:
        # Before and after: an upgrade may switch the link meanwhile.
        programs = {runsc.identity(runsc.installed(self.ctr.address))} if self.spec.gvisor else set()
        begin = time.monotonic()
        for name, args in self._ways(stack.enter_context(namespaces())):
            ctr = self._popen(*args)
            out, err = HeadAndTail(1 << 16), HeadAndTail(1 << 16)
            said = UntilMark(f"{self.spec.id} ".encode(), out)
            others: Dict[int, Sink] = {ctr.stderr.fileno(): gather(err)}
            if not read_until({ctr.stdout.fileno(): said}, others, begin + START_TIMEOUT, (ctr.stdin.fileno(), opening(self.spec))):
                raise GvisorError(
                    f"pod {self.spec.id} did not start within {START_TIMEOUT:g} s: {explain(err.text()) or 'ctr says nothing'}"
                )
            if said.line is None:
                read_until(others, {}, time.monotonic() + KILL_TIMEOUT)
                self._raise_start(ctr.wait(), err.text())
            self._take_over(ctr, name)
            if is_user(said.line, self.spec.user):
                self._unlimited = check_ulimits(out.text(), self.spec.limits.file_size)
                return self._proven(out.text(), err.text(), programs) if self.spec.gvisor else ""
        raise GvisorError(f"a process in the pod is not {self.spec.user} without further rights: {said.line}; nothing was started")

    def _write_hosts(self) -> None:
        try:
            descriptor = os.open(os.path.join(self.folder, "hosts"), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
            with open(descriptor, "w", encoding="ascii") as stream:
                os.fchmod(stream.fileno(), 0o644)  # whatever the umask is
                stream.write(hosts(host_name(self.spec)))
        except OSError as error:
            raise GvisorError(f"{error.filename or self.folder}: {error.strerror}") from error

    def _ways(self, spaces: Mapping[str, str]) -> Iterator[Tuple[str, List[str]]]:
        """Yield the ways to a shell of the pod's user: the first process, and where that is another user, or the image adds groups, a second one."""
        spec = self.spec
        yield spec.id, start_args(spec, self.folder, spaces)
        if not changes_user(spec):
            fifos = os.path.join(self.folder, "shell")
            where = ["--exec-id", "shell", "--user", spec.user, "--fifo-dir", fifos]
            yield "shell", ["tasks", "exec", *where, spec.id, *spec.tools.argv("sh")]

    def _take_over(self, ctr: subprocess.Popen, name: str) -> None:
        """Connect to the pipes of the shell ``name`` and end ctr, which only stood between: it would delete the task when the sandbox
        dies, before anybody could see why, and end with containerd, which a pod outlives. The shell says nothing now, so nothing is lost."""
        folder = os.path.join(self.folder, "shell" if name == "shell" else "init")
        (place,) = os.listdir(folder)
        flags = {"stdin": os.O_WRONLY, "stdout": os.O_RDONLY, "stderr": os.O_RDONLY}
        for stream, mode in flags.items():
            self._pipes.append(os.open(os.path.join(folder, place, f"{name}-{stream}"), mode | os.O_NONBLOCK | os.O_CLOEXEC))
        self._end(ctr)

    def _end(self, ctr: subprocess.Popen) -> None:
        self._ctrs.remove(ctr)
        ctr.kill()
        ctr.communicate()

    def _proven(self, said: str, complaint: str, programs: Set[Optional[runsc.Identity]]) -> str:
        """Return the first line of the kernel log. Raises GvisorError where that, or the sandbox' process on the host, is not gVisor's."""
        first = first_line(said, explain(complaint), f"runtime {self.spec.runtime}")
        wanted = runsc.installed(self.ctr.address)
        path, program = runsc.program_of(self.pid())
        if program is None or program not in {*programs, runsc.identity(wanted)}:
            raise GvisorError(
                f"runtime {self.spec.runtime} is not gVisor: the pod says {first!r}, and its process on the host is {path} "
                f"where {wanted or 'a runsc on the PATH of containerd'} was expected; the job was not started",
                kernel=first,
                program=path,
            )
        return without_time(first)

    def limit(self) -> List[str]:
        """Put the pod's limits into force; return warnings.

        Raises GvisorError for a limit that the idle pod has passed, and for those that this host cannot enforce where they are required.
        """
        limits, pid = self.spec.limits, self.pid()
        unenforced = self._unlimited
        if pid is None:
            asked = limits.group._asdict().items()
            unenforced = {**unenforced, **{f"{name}={value}": "the pod's process is unknown" for name, value in asked if value is not None}}
        else:
            self.group = PodCgroup(self.spec.group(), pid)
            unenforced = {**unenforced, **self.group.limit(limits.group)}
            if self.spec.gvisor:  # the sandbox itself has containerd's own limit
                unenforced = {**unenforced, **forbid_core(self.group.pids() or [pid])}
        return judge(unenforced, limits.required, FIXES)

    def trace(self) -> Optional[Trace]:
        """Return the trace of what runs in the pod from now on, where that was asked for. Raises GvisorError."""
        return Trace(self._runsc_argv(), self.spec.id, self.folder, [self.spec.tools.target, PRELOAD]) if self.spec.trace else None

    def _runsc_argv(self) -> List[str]:
        """Return the command line that asks the pod's sandbox, without what to ask. Raises GvisorError."""
        program = runsc.installed(self.ctr.address)
        if program is None:
            raise GvisorError("runsc is not on the PATH of containerd; install it there", missing="runsc")
        return [program, "--root", runsc.shim_root(self.ctr.namespace)]

    def struck(self) -> List[str]:
        """Return the limits that the pod has reached."""
        return self.group.struck() if self.group else []

    def _popen(self, *args: str) -> subprocess.Popen:
        argv = self.ctr.argv(*args)
        try:
            # run_command waits for the end.
            ctr = subprocess.Popen(  # pylint: disable=ansible-bad-function
                argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=self._environment()
            )
        except OSError as error:
            raise GvisorError(f"{argv[0]} cannot be run: {error.strerror}; install containerd", argv=argv) from error
        os.set_blocking(ctr.stdin.fileno(), False)
        self._ctrs.append(ctr)
        return ctr

    def _raise_start(self, rc: int, stderr: str) -> None:
        spec = self.spec
        message = f"the pod did not start with runtime {spec.runtime} and image {spec.image}: {explain(stderr)}"
        missing = {"missing": "shim"} if SHIM_MEND in message else {}
        raise GvisorError(message, ctr_rc=rc, ctr_stderr=stderr, **missing)

    def pid(self) -> Optional[int]:
        """Return the host's process that is the sandbox, if it is known and still that."""
        try:
            with open(self.pid_file, encoding="ascii") as stream:
                pid = int(stream.read())
            with open(f"/proc/{pid}/cgroup", "rb") as stream, open(f"/proc/{pid}/cmdline", "rb") as words:
                ours = self.spec.id.encode() in stream.read() + words.read()
        except (OSError, ValueError):
            return None
        return pid if ours else None

    def execute(
        self,
        command: Command,
        abort: Optional[int] = None,
        alone: bool = True,
        room: Optional[RoomWatch] = None,
        live: Sequence[Outlet] = (),
    ) -> Outcome:
        """Run ``command`` in the pod, ``alone`` or as one of several. ``abort`` is a descriptor at whose end (or next byte) it is given up.

        ``room`` ends it before the host's disk is full. ``live`` are where standard output and error go as they come.

        A command that does not end by itself takes the pod with it.
        """
        stdin, *streams = self._pipes[-3:]
        out, err = HeadAndTail(command.max_output), HeadAndTail(command.max_output)
        # Nobody in the pod can know it, so nothing that the command prints is taken for the end of its output.
        mark = os.urandom(16).hex()
        lives = live or (None, None)
        ends = [UntilMark(f"{mark} ".encode(), _both(excerpt, outlet)) for excerpt, outlet in zip((out, err), lives)]
        sinks: Dict[int, Sink] = dict(zip(streams, ends))
        outlets = dict(zip(streams, live))
        ending = [descriptor for descriptor in (abort, room.descriptor if room else None) if descriptor is not None]
        others: Dict[int, Sink] = {descriptor: lambda _data: True for descriptor in ending}
        begin = time.monotonic()
        text = script(command, self.spec, mark, alone)
        feed, inlet = (stdin, text.encode("utf-8", "surrogateescape")), None
        ended = True
        if command.stdin is not None:
            begun = UntilMark(f"{mark}+".encode(), err)
            ended = read_until({streams[1]: begun}, others, begin + command.timeout, feed)
            feed, inlet = (-1, b""), Inlet(command.stdin, stdin)
            if ended and (begun.line is None or begun.rest) and ends[1](begun.rest):
                del sinks[streams[1]]
        ended = ended and read_until(sinks, others, begin + command.timeout, feed, outlets, inlet)
        seconds = time.monotonic() - begin
        rc, _space, fault = (ends[0].line or "").partition(" ")
        if ended and rc:
            return Outcome(None if fault else int(rc), out, err, seconds, fault or "exit")
        why = "space" if room and room.said else "timeout" if seconds >= command.timeout else "abort"
        if ended:
            why = "sandbox" if self._dead() else "shim"
        self.kill()
        read_until(sinks, {}, time.monotonic() + KILL_TIMEOUT, outlets=outlets)  # what was printed before
        return Outcome(None, out, err, seconds, why)

    def attach(self, command: Command, terminal: int, abort: int, room: RoomWatch) -> Outcome:
        """Run ``command`` in the pod with a terminal, which ctr shows at ``terminal``; otherwise as ``execute``. What it says is nowhere else."""
        stdin, _out, stderr = self._pipes[-3:]
        nothing = HeadAndTail(1), HeadAndTail(1)
        mark = os.urandom(16).hex()
        # In the pod's own memory, where its user alone can look: ctr's words are read by everybody on the host.
        path = f"{SPARE_HOME}/.{mark}"
        text = f"printf %s {shlex.quote(terminal_script(command, self.spec))} > {path}; echo {mark}+ >&2\n"
        begun = UntilMark(f"{mark}+".encode(), nothing[1])
        others: Dict[int, Sink] = {descriptor: lambda _data: True for descriptor in (abort, room.descriptor)}
        begin = time.monotonic()
        ended = read_until({stderr: begun}, others, begin + command.timeout, (stdin, text.encode("utf-8", "surrogateescape")))
        rc = None
        if ended and begun.line is not None:
            ctr, said = self._popen_at(terminal, path), HeadAndTail(1 << 16)
            ended = read_until({ctr.stderr.fileno(): gather(said)}, others, begin + command.timeout)
            if not ended:
                self.kill()
            rc = ctr.wait()
            ctr.stderr.close()
            if ended and "ctr: " in said.text():  # what the command says is not there
                raise GvisorError(f"the command got no terminal: {explain(said.text())}")
        seconds = time.monotonic() - begin
        if ended and rc is not None and not self._dead():
            return Outcome(rc, *nothing, seconds, "exit")
        why = "space" if room.said else "timeout" if seconds >= command.timeout else "abort"
        return Outcome(None, *nothing, seconds, "sandbox" if ended else why)

    def _popen_at(self, terminal: int, path: str) -> subprocess.Popen:
        """Start what connects ``terminal`` to a shell of the pod's user that reads ``path``."""
        spec = self.spec
        uid, gid = spec.user.split(":")
        become = spec.tools.argv("unshare", "--setgid", gid, "--setuid", uid) if changes_user(spec) else []
        user = [] if become else ["--user", spec.user]
        where = ["--tty", "--exec-id", "terminal", "--cwd", "/", "--fifo-dir", os.path.join(self.folder, "terminal"), *user]
        argv = self.ctr.argv("tasks", "exec", *where, spec.id, *become, *spec.tools.argv("sh", path))
        # In a session of its own, whose terminal this is: it is told there when the size changes. run_command waits for the end.
        return subprocess.Popen(  # pylint: disable=ansible-bad-function
            ["setsid", "--ctty", *argv], stdin=terminal, stdout=terminal, stderr=subprocess.PIPE, env=self._environment()
        )

    @staticmethod
    def _environment() -> Dict[str, str]:
        return {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:{SEARCH_PATH}", "LC_ALL": "C"}

    def _dead(self) -> bool:
        try:
            with open(f"/proc/{self.pid()}/stat", encoding="ascii", errors="replace") as stream:
                return stream.read().rpartition(")")[2].split()[0] in ("Z", "X")
        except OSError:
            return True

    def kill(self) -> bool:
        """Kill the sandbox and everything in it, at once; returns whether it is known to be dead.

        Where its control group is known that means all of the host's processes in it: gVisor's gofer, which opens files for the sandbox, outlives it.
        """
        return self._kill_sandbox() and (self.group is None or self.group.end(END_TIMEOUT))

    def _kill_sandbox(self) -> bool:
        pid = self.pid()
        if pid is None:
            return os.path.exists(self.pid_file)
        try:
            watcher = os.pidfd_open(pid) if hasattr(os, "pidfd_open") else -1
            os.kill(pid, signal.SIGKILL)
        except OSError:
            return self._dead()
        if watcher >= 0:
            select.select([watcher], [], [], 10)
            os.close(watcher)
            return True
        deadline = time.monotonic() + 10  # Python 3.8 has no pidfd
        while not self._dead() and time.monotonic() < deadline:
            time.sleep(0.005)
        return self._dead()

    def remove(self) -> None:
        """Remove task, container, snapshot and control groups, whatever state they are in. Raises GvisorError if it cannot."""
        begin = time.monotonic()
        pause = 0.02
        while True:
            try:
                self.kill()
                # Also deletes the task, if that has stopped; a ctr run that is still there may too, and then the task is what is "not found".
                done = self.ctr.run("containers", "rm", self.spec.id, timeout=KILL_TIMEOUT)
                said = done.stderr.strip()
                if done.rc == 0 or (f'container "{self.spec.id}" in namespace' in said and said.endswith("not found")):
                    break
            except GvisorError as error:
                said = error.message
                self._kill_shim()
            # A shim that hangs in a start never lets go of its container, and answers everything else at once.
            if time.monotonic() > begin + KILL_TIMEOUT:
                self._kill_shim()
            if time.monotonic() > begin + REMOVE_TIMEOUT:
                raise GvisorError(f"pod {self.spec.id} could not be removed: {said}; the next run tries again")
            time.sleep(pause)  # containerd has no event for "can be removed now"
            if pause > 0.3:
                # It waits for an exit that the shim never reports when the pod was killed before it had started.
                with contextlib.suppress(GvisorError):
                    self.ctr.run("tasks", "rm", "--force", self.spec.id, timeout=KILL_TIMEOUT)
            pause = min(pause * 2, 2.0)
        for ctr in list(self._ctrs):
            self._end(ctr)
        for pipe in self._pipes:
            os.close(pipe)
        self._pipes = []
        if done.rc != 0:
            # ctr makes the snapshot before the container; killed between the two it leaves the snapshot alone.
            self.ctr.run("snapshots", "rm", self.spec.id, timeout=20)
        remove_groups(self.spec.group())
        self._unmount()

    def _kill_shim(self) -> None:
        """Kill the pod's shim, which hangs; containerd then cleans up in its place. A shim's working folder is its pod's."""
        ending = f"/{self.ctr.namespace}/{self.spec.id}"
        for pid in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/{pid}/cwd").endswith(ending):
                    os.kill(int(pid), signal.SIGKILL)

    def _unmount(self) -> None:
        """Unmount the pod's root file system where a shim that was killed left it mounted."""
        for point in self.rootfs():
            run(["umount", "--lazy", point])

    def rootfs(self) -> List[str]:
        """Return where the pod's root file system is mounted."""
        ending = f"/{self.ctr.namespace}/{self.spec.id}/rootfs"
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as stream:
            return [line.split()[4] for line in stream if line.split()[4].endswith(ending)]
