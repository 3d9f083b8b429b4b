# Copyright (c) 2026, the ggen.gvisor authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""A pod: one sandbox with a shell that waits, and commands run by it with their real exit codes. See docs/decisions/pods.md."""

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
import uuid
from typing import Dict, List, NamedTuple, Optional

from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._base.process import SEARCH_PATH, run
from ansible_collections.ggen.gvisor.plugins.module_utils._containerd.ctr import Ctr
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.cgroup import Limits, PodCgroup, remove_groups
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.host_tools import SIGN, TARGET, HostTools
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.pipes import HeadAndTail, Sink, UntilMark, read_until

START_TIMEOUT = 60.0  # seconds; a pod takes 0.2 to 0.5 on an idle machine
REMOVE_TIMEOUT = 60.0
KILL_TIMEOUT = 5.0
END_TIMEOUT = 10.0  # for what was killed to be gone
MAX_ID = 76  # characters of a container's id; containerd's own limit
# Of what containerd grants by default the pod's shell keeps what it needs to become the command's user; a command has nothing.
CAPABILITIES = [
    *("AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "NET_RAW"),
    *("SETFCAP", "SYS_CHROOT"),
]

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
    limits: Limits = Limits()


class Command(NamedTuple):
    """What to run in a pod."""

    argv: List[str]
    user: str  # uid:gid
    cwd: str
    env: Dict[str, str]
    timeout: float  # seconds
    max_output: int  # bytes kept of each stream


class Outcome(NamedTuple):
    """A command that ended, or was ended, in a pod."""

    rc: Optional[int]  # None when it did not end by itself
    stdout: HeadAndTail
    stderr: HeadAndTail
    seconds: float
    why: str  # exit, timeout, abort, sandbox or shim (it died)


def mount_flag(kind: str, source: str, target: str, options: str) -> str:
    """Return ctr's --mount value, which is a line of CSV: paths may hold commas and quotes."""
    line = io.StringIO()
    fields = [f"type={kind}", f"src={source}", f"dst={target}", f"options={options}"]
    csv.writer(line, lineterminator="").writerow(fields)
    return line.getvalue()


def start_args(spec: PodSpec, folder: str) -> List[str]:
    """Return ctr's arguments that start the pod, whose shell has ctr's standard input and output; ``folder`` is the pod's."""
    args = [
        "run",
        "--runtime",
        spec.runtime,
        "--pid-file",
        os.path.join(folder, "pid"),
        "--fifo-dir",
        os.path.join(folder, "init"),
        "--cgroup",
        f"/{spec.id}",
        "--cwd",
        "/",
    ]
    # Without this annotation gVisor's shim connects no output and waits for ever.
    args += ["--annotation", "io.kubernetes.cri.container-type=sandbox", "--label", "ggen.gvisor/pod=true"]
    for capability in CAPABILITIES:
        args += ["--cap-drop", f"CAP_{capability}"]
    if spec.read_only:
        args += ["--read-only"]
    if "/tmp" not in [mount.target for mount in spec.mounts]:  # noqa: S108 - in the pod
        args += ["--mount", mount_flag("tmpfs", "tmpfs", "/tmp", "nosuid:nodev:mode=1777:size=1g")]  # noqa: S108
    for mount in [*spec.mounts, Mount(spec.tools.folder, TARGET)]:
        access = "rw" if mount.writable else "ro"
        args += ["--mount", mount_flag("bind", mount.source, mount.target, f"rbind:nosuid:nodev:{access}")]
    return [*args, spec.image, spec.id, *spec.tools.argv("sh")]


def script(command: Command, tools: HostTools, mark: str, alone: bool) -> str:
    """Return the line with which the pod's shell runs ``command`` as its user, with no capability, and then prints ``mark`` and its exit code.

    The environment does not pass the shells, which drop names that they could not use. If the command is not ``alone`` in the pod, what it
    left behind is killed for the next one.
    """
    uid, gid = command.user.split(":")
    none = ["--clear-groups", "--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all", "--no-new-privs"]
    user = tools.argv("setpriv", f"--reuid={uid}", f"--regid={gid}", *none)
    argv = [*user, *tools.argv("sh", "-c", 'cd -- "$0" && exec "$@"', command.cwd)]
    argv += tools.argv("env", *(f"{name}={value}" for name, value in command.env.items())) if command.env else []
    left = "" if alone else f"{shlex.join([*user, *tools.argv('sh', '-c', 'kill -9 -1')])} < /dev/null > /dev/null 2>&1; "
    return f"{shlex.join([*argv, *command.argv])} < /dev/null; e=$?; {left}echo {mark} $e; echo {mark} $e >&2\n"


def explain(stderr: str) -> str:
    """Return ctr's complaint without its prefix, and what to do about it where that is known."""
    lines = [line[5:] for line in stderr.splitlines() if line.startswith("ctr: ")] or stderr.strip().splitlines()[-1:]
    said = " ".join(lines)
    fix = next((fix for sign, fix in _CAUSES if sign in said), "")
    return f"{said} ({fix})" if fix else said


def _gather(excerpt: HeadAndTail) -> Sink:
    """Return a sink for all of a stream."""

    def sink(data: bytes) -> bool:
        excerpt(data)
        return False

    return sink


class Pod:
    """One sandbox in one containerd. ``folder`` is a private folder of its own on the host."""

    def __init__(self, ctr: Ctr, spec: PodSpec, folder: str) -> None:
        self.ctr = ctr
        self.spec = spec
        self.folder = folder
        self.pid_file = os.path.join(folder, "pid")
        self.group: Optional[PodCgroup] = None
        self._ctrs: List[subprocess.Popen] = []
        self._pipes: List[int] = []  # standard input, output and error of a shell; the last three are of root's

    def start(self) -> str:
        """Start the pod and return the first line of its kernel log if it is gVisor's. Raises GvisorError when it does not start."""
        # A shell's own way to tell its user; nobody else is there yet who could change what it says.
        who = f"while read -r key uid rest; do case $key in Uid:) echo {self.spec.id} $uid; esac; done < /proc/self/status"
        first = shlex.join(self.spec.tools.argv("dmesg")) if self.spec.gvisor else ":"
        waiting = [self.spec.id, *self.spec.tools.argv("sh")]
        begin = time.monotonic()
        for name, args in (
            (self.spec.id, start_args(self.spec, self.folder)),
            # ctr run 1.6 cannot say which user; an image may name one that has no right to become another.
            ("shell", ["tasks", "exec", "--exec-id", "shell", "--user", "0:0", "--fifo-dir", os.path.join(self.folder, "shell"), *waiting]),
        ):
            ctr = self._popen(*args)
            out, err = HeadAndTail(1 << 16), HeadAndTail(1 << 16)
            said = UntilMark(f"{self.spec.id} ".encode(), out)
            others: Dict[int, Sink] = {ctr.stderr.fileno(): _gather(err)}
            ended = read_until(
                {ctr.stdout.fileno(): said}, others, begin + START_TIMEOUT, (ctr.stdin.fileno(), f"{first}\n{who}\n".encode())
            )
            if not ended:
                raise GvisorError(
                    f"pod {self.spec.id} did not start within {START_TIMEOUT:g} s: {explain(err.text()) or 'ctr says nothing'}"
                )
            if said.line is None:
                read_until(others, {}, time.monotonic() + KILL_TIMEOUT)
                self._raise_start(ctr.wait(), err.text())
            self._take_over(ctr, name)
            if said.line == "0":
                break
        return self._proven(out.text(), err.text()) if self.spec.gvisor else ""

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

    def _proven(self, said: str, complaint: str) -> str:
        first = (said.splitlines() or [""])[0]
        if SIGN not in first:
            raise GvisorError(
                f"runtime {self.spec.runtime} is not gVisor: dmesg in the pod says {first or explain(complaint)!r} "
                f"where a gVisor sandbox says {SIGN!r}; the job was not started",
                kernel=first,
            )
        return first.partition("] ")[2] or first

    def limit(self) -> List[str]:
        """Put the pod's limits into force; return warnings. Raises GvisorError for a limit that the idle pod has passed."""
        pid = self.pid()
        if pid is None:
            return ["the pod's process is unknown; limits are not enforced"]
        self.group = PodCgroup(self.spec.id, pid)
        return self.group.limit(self.spec.limits)

    def _popen(self, *args: str) -> subprocess.Popen:
        environment = {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:{SEARCH_PATH}", "LC_ALL": "C"}
        argv = self.ctr.argv(*args)
        try:
            # run_command waits for the end.
            ctr = subprocess.Popen(  # pylint: disable=ansible-bad-function
                argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
            )
        except OSError as error:
            raise GvisorError(f"{argv[0]} cannot be run: {error.strerror}; install containerd", argv=argv) from error
        os.set_blocking(ctr.stdin.fileno(), False)
        self._ctrs.append(ctr)
        return ctr

    def _raise_start(self, rc: int, stderr: str) -> None:
        spec = self.spec
        if f'image "{spec.image}": not found' in stderr:
            names = sorted(self.ctr.images())
            there = f"has {', '.join(names)}" if names else "has no images"
            raise GvisorError(
                f"image {spec.image} is not in containerd's namespace {self.ctr.namespace}, which {there}; "
                "import it (module containerd_image) or give its full name",
                image=spec.image,
                images=names,
                missing="image",
            )
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

    def execute(self, command: Command, abort: Optional[int] = None, alone: bool = True) -> Outcome:
        """Run ``command`` in the pod, ``alone`` or as one of several. ``abort`` is a descriptor at whose end (or next byte) it is given up.

        A command that does not end by itself takes the pod with it.
        """
        stdin, *streams = self._pipes[-3:]
        out, err = HeadAndTail(command.max_output), HeadAndTail(command.max_output)
        # Nobody in the pod can know it, so nothing that the command prints is taken for the end of its output.
        mark = uuid.uuid4().hex
        ends = UntilMark(f"{mark} ".encode(), out), UntilMark(f"{mark} ".encode(), err)
        sinks: Dict[int, Sink] = dict(zip(streams, ends))
        others: Dict[int, Sink] = {} if abort is None else {abort: lambda _data: True}
        begin = time.monotonic()
        text = script(command, self.spec.tools, mark, alone)
        ended = read_until(sinks, others, begin + command.timeout, (stdin, text.encode("utf-8", "surrogateescape")))
        seconds = time.monotonic() - begin
        rc = ends[0].line
        if ended and rc is not None:
            return Outcome(int(rc), out, err, seconds, "exit")
        why = "timeout" if seconds >= command.timeout else "abort"
        if ended:
            why = "sandbox" if self._dead() else "shim"
        self.kill()
        read_until(sinks, {}, time.monotonic() + KILL_TIMEOUT)  # what was printed before
        return Outcome(None, out, err, seconds, why)

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
        remove_groups(self.spec.id)
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
        ending = f"/{self.ctr.namespace}/{self.spec.id}/rootfs"
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as stream:
            points = [line.split()[4] for line in stream if line.split()[4].endswith(ending)]
        for point in points:
            run(["umount", "--lazy", point])
