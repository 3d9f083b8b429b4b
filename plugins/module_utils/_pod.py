# Copyright (c) 2026, the ggen.gvisor authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""A pod: one sandbox that waits, and commands run in it with their real exit codes. See docs/decisions/pods.md."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import select
import signal
import subprocess
import time
from typing import Any, Dict, Iterator, List, NamedTuple, Optional

from ansible_collections.ggen.gvisor.plugins.module_utils._cgroup import Group, Limits, remove_groups
from ansible_collections.ggen.gvisor.plugins.module_utils._ctr import Ctr
from ansible_collections.ggen.gvisor.plugins.module_utils._errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._process import run
from ansible_collections.ggen.gvisor.plugins.module_utils._watch import Excerpt, Sink, watch

START_TIMEOUT = 60.0  # seconds; a pod takes 0.2 to 0.5 on an idle machine
REMOVE_TIMEOUT = 60.0
KILL_TIMEOUT = 5.0
SPARE_TIMEOUT = 5.0
# After a command's own end: how long ctr may take to hand over the rest of its output. A process that the command left
# behind can hold the pipe open for ever.
DRAIN = 1.0
MAX_ID = 76  # characters of a container's id; containerd's own limit
# What containerd grants by default; a job gets none of it.
CAPABILITIES = [
    *("AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "NET_RAW"),
    *("SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"),
]

SHIM_MEND = "containerd does not find the runtime's shim on its PATH; install it there and restart containerd"
# What containerd or the shim say → what it means and how to mend it.
_CAUSES = (
    (
        "set OOM Score on shim",
        "this host lacks CAP_SYS_RESOURCE and has the unmodified shim; install the shim build without OOM score",
    ),
    ("binary not installed", SHIM_MEND),
    ("not resolved", SHIM_MEND),
    ("exec format error", "the image is for another architecture than this host"),
    ("no space left on device", "the disk of this host is full"),
    *(
        (sign, "the image has no such program; an image for pods needs a pause program (option pause)")
        for sign in ("error finding executable", "failed to load", "executable file not found", "unable to start container process")
    ),
)


class Mount(NamedTuple):
    """A folder or file of the host in the pod."""

    source: str
    target: str
    writable: bool = False


class Plan(NamedTuple):
    """Everything about a pod that is known before it starts."""

    id: str
    image: str
    runtime: str
    pause: List[str]
    mounts: List[Mount]
    env: Dict[str, str]
    cwd: str
    read_only: bool = True
    limits: Limits = Limits()


class Job(NamedTuple):
    """A command that ended, or was ended, in a pod."""

    rc: Optional[int]  # None when it did not end by itself
    stdout: Excerpt
    stderr: Excerpt
    seconds: float
    why: str  # exit, timeout, abort, sandbox (it died), containerd (it ended) or ctr (it failed)
    whole: bool = True  # False when ctr may have lost what the command printed


def mount_flag(kind: str, source: str, target: str, options: str) -> str:
    """Return ctr's --mount value, which is a line of CSV: paths may hold commas and quotes."""
    line = io.StringIO()
    fields = [f"type={kind}", f"src={source}", f"dst={target}", f"options={options}"]
    csv.writer(line, lineterminator="").writerow(fields)
    return line.getvalue()


def start_args(plan: Plan, pid_file: str) -> List[str]:
    """Return ctr's arguments that start the pod and leave it running."""
    args = [
        "run",
        "--detach",
        "--null-io",
        "--runtime",
        plan.runtime,
        "--pid-file",
        pid_file,
        "--cgroup",
        f"/{plan.id}",
    ]
    # Without this annotation gVisor's shim connects no output and waits for ever.
    args += ["--annotation", "io.kubernetes.cri.container-type=sandbox", "--label", "ggen.gvisor/pod=true"]
    for capability in CAPABILITIES:
        args += ["--cap-drop", f"CAP_{capability}"]
    if plan.read_only:
        args += ["--read-only"]
    if "/tmp" not in [mount.target for mount in plan.mounts]:  # noqa: S108 - in the pod
        args += ["--mount", mount_flag("tmpfs", "tmpfs", "/tmp", "nosuid:nodev:mode=1777:size=1g")]  # noqa: S108
    for mount in plan.mounts:
        access = "rw" if mount.writable else "ro"
        args += ["--mount", mount_flag("bind", mount.source, mount.target, f"rbind:nosuid:nodev:{access}")]
    for name, value in plan.env.items():
        args += ["--env", f"{name}={value}"]
    return [*args, "--cwd", plan.cwd, plan.image, plan.id, *plan.pause]


def explain(stderr: str) -> str:
    """Return ctr's complaint without its prefix, and what to do about it where that is known."""
    lines = [line[5:] for line in stderr.splitlines() if line.startswith("ctr: ")] or stderr.strip().splitlines()[-1:]
    said = " ".join(lines)
    mend = next((mend for sign, mend in _CAUSES if sign in said), "")
    return f"{said} ({mend})" if mend else said


def _drain(descriptor: int, sink: Sink) -> None:
    """Feed what is left in a pipe to ``sink`` and close the pipe."""
    with contextlib.suppress(BlockingIOError):
        for data in iter(lambda: os.read(descriptor, 1 << 16), b""):
            sink(data)
    os.close(descriptor)


@contextlib.contextmanager
def _prompt() -> Iterator[None]:
    """Be scheduled at once on a busy machine, where that is permitted."""
    before, priority = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(1))
    except OSError:
        yield
        return
    try:
        yield
    finally:
        os.sched_setscheduler(0, before, priority)


class Pod:
    """One sandbox in one containerd. ``folder`` is a private folder of its own on the host."""

    def __init__(self, ctr: Ctr, plan: Plan, folder: str) -> None:
        self.ctr = ctr
        self.plan = plan
        self.folder = folder
        self.pid_file = os.path.join(folder, "pid")
        self.group: Optional[Group] = None
        self._events: Optional[subprocess.Popen] = None

    def _popen(self, *args: str) -> subprocess.Popen:
        environment = {**os.environ, "LC_ALL": "C"}
        argv = self.ctr.argv(*args)
        try:
            # run_command waits for the end.
            return subprocess.Popen(  # pylint: disable=ansible-bad-function
                argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
            )
        except OSError as error:
            raise GvisorError(f"{argv[0]} cannot be run: {error.strerror}; install containerd", argv=argv) from error

    def start(self) -> List[str]:
        """Start the pod and put its limits into force; return warnings. Raises GvisorError when it does not start."""
        # Tells when a command has ended even if something that it left behind holds its output open.
        self._events = self._popen("events")
        done = self.ctr.run(*start_args(self.plan, self.pid_file), timeout=START_TIMEOUT)
        if done.rc != 0:
            self._raise_start(done.rc, done.stderr)
        pid = self.pid()
        if pid is None:
            return ["the pod's process is unknown; limits are not enforced"]
        self.group = Group(self.plan.id, pid)
        return self.group.limit(self.plan.limits)

    def _raise_start(self, rc: int, stderr: str) -> None:
        plan = self.plan
        if f'image "{plan.image}": not found' in stderr:
            names = sorted(self.ctr.images())
            there = f"has {', '.join(names)}" if names else "has no images"
            raise GvisorError(
                f"image {plan.image} is not in containerd's namespace {self.ctr.namespace}, which {there}; "
                "import it (module containerd_image) or give its full name",
                image=plan.image,
                images=names,
                missing="image",
            )
        message = f"the pod did not start with runtime {plan.runtime} and image {plan.image}: {explain(stderr)}"
        missing = {"missing": "shim"} if SHIM_MEND in message else {}
        raise GvisorError(message, ctr_rc=rc, ctr_stderr=stderr, **missing)

    def pid(self) -> Optional[int]:
        """Return the host's process that is the sandbox, if it is known and still that."""
        try:
            with open(self.pid_file, encoding="ascii") as stream:
                pid = int(stream.read())
            with open(f"/proc/{pid}/cgroup", "rb") as stream, open(f"/proc/{pid}/cmdline", "rb") as words:
                ours = self.plan.id.encode() in stream.read() + words.read()
        except (OSError, ValueError):
            return None
        return pid if ours else None

    def execute(self, name: str, argv: List[str], user: str, timeout: float, max_output: int, abort: Optional[int] = None) -> Job:
        """Run ``argv`` in the pod as ``user`` (uid:gid) for at most ``timeout`` seconds.

        ``name`` is unique in the pod; ``abort`` is a descriptor at whose end (or next byte) the command is given up.
        A command that does not end by itself takes the pod with it.
        """
        out, err = Excerpt(max_output), Excerpt(max_output)
        state: Dict[str, Any] = {"why": "timeout", "rc": None, "rest": b""}

        def aborted(_data: bytes) -> float:
            state["why"] = "abort"
            return 0.0

        def event(data: bytes) -> Optional[float]:
            if not data and state["why"] == "timeout":
                # ctr says so too, but for a start that was not answered: then it waits for the end of the command's output.
                state["why"] = "containerd"
                return time.monotonic() + DRAIN
            *lines, state["rest"] = (state["rest"] + data).split(b"\n")
            nearer = None
            for line in lines:
                head, _topic, body = line.partition(b" /tasks/exit {")
                # The event's namespace is the word before its topic.
                if not body or head.rpartition(b" ")[2].decode() != self.ctr.namespace:
                    continue
                message = json.loads(b"{" + body)
                if message.get("container_id") == self.plan.id and message.get("id") in (name, self.plan.id):
                    if message["id"] == name:
                        state["why"], state["rc"] = "exit", message.get("exit_status", 0)
                    elif state["why"] == "timeout":
                        state["why"] = "sandbox"
                    nearer = time.monotonic() + DRAIN
            return nearer

        begin = time.monotonic()
        pipes = os.path.join(self.folder, f"io-{name}")
        flags = ["--exec-id", name, "--fifo-dir", pipes, "--user", user]
        process = self._popen("tasks", "exec", *flags, self.plan.id, *argv)
        spare: Dict[str, int] = {}
        try:
            spare = self._spare_ends(pipes, name, process)
            sinks: Dict[int, Sink] = {process.stdout.fileno(): out, process.stderr.fileno(): err}
            others = {self._events.stdout.fileno(): event, **({} if abort is None else {abort: aborted})}
            ended = watch(process, sinks, others, begin + timeout)
            seconds = time.monotonic() - begin
            if not ended:
                # First the sandbox, then ctr: a shim that opens the pipes of a ctr that is gone waits for ever.
                # What ctr says about the dead sandbox is not the command's standard error.
                self.kill()
                last: Dict[int, Sink] = {process.stdout.fileno(): out, process.stderr.fileno(): lambda _data: None}
                watch(process, last, {}, time.monotonic() + KILL_TIMEOUT)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
            process.stdout.close()
            process.stderr.close()
            for stream, descriptor in spare.items():
                _drain(descriptor, {"stdout": out, "stderr": err}[stream])
        if not ended:
            return Job(state["rc"], out, err, seconds, state["why"])
        rc = process.returncode
        if rc < 0 or (rc == 1 and err.text().rstrip().rpartition("\n")[2].startswith("ctr: ") and state["rc"] is None):
            return Job(None, out, err, seconds, state["why"] if state["why"] in ("sandbox", "containerd") else "ctr")
        # 128 is gVisor's answer for a sandbox that is gone; a job may also really have said it.
        if (rc == 128 or state["why"] == "sandbox") and self._dead():
            return Job(None, out, err, seconds, "sandbox")
        return Job(rc, out, err, seconds, "exit", whole=len(spare) == 2 or out.size + err.size > 0)

    @staticmethod
    def _spare_ends(pipes: str, name: str, process: subprocess.Popen) -> Dict[str, int]:
        """Open a second reading end of the pipes between shim and ctr, which nobody reads from while ctr is there.

        ctr sometimes ends before it has opened a pipe of a short command, and what is in it would be lost (1 of 300 runs on
        busy machines, with runc as well). With an end of ours open it stays in the pipe; and a shim never waits for a reader.
        """
        found: Dict[str, int] = {}
        deadline = time.monotonic() + SPARE_TIMEOUT
        with _prompt():
            while len(found) < 2 and process.poll() is None and time.monotonic() < deadline:
                with contextlib.suppress(OSError):
                    for folder in os.listdir(pipes):
                        for stream in sorted({"stdout", "stderr"} - found.keys()):
                            path = os.path.join(pipes, folder, f"{name}-{stream}")
                            found[stream] = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
                if len(found) < 2:
                    time.sleep(0.001)  # ctr makes them within some 20 ms and says nothing
        return found

    def _dead(self) -> bool:
        try:
            with open(f"/proc/{self.pid()}/stat", encoding="ascii", errors="replace") as stream:
                return stream.read().rpartition(")")[2].split()[0] in ("Z", "X")
        except OSError:
            return True

    def kill(self) -> bool:
        """Kill the sandbox and everything in it, at once; returns whether it is known to be dead."""
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
        if self._events is not None:
            self._events.kill()
            self._events.communicate()
            self._events = None
        begin = time.monotonic()
        pause = 0.02
        force: List[str] = []
        while True:
            try:
                self.kill()
                self.ctr.run("tasks", "rm", *force, self.plan.id, timeout=KILL_TIMEOUT)
                done = self.ctr.run("containers", "rm", self.plan.id, timeout=KILL_TIMEOUT)
                said = done.stderr.strip()
                if done.rc == 0 or said.endswith("not found"):
                    break
            except GvisorError as error:
                said = error.message
                self._kill_shim()
            # A shim that hangs in a start never lets go of its container, and answers everything else at once.
            if time.monotonic() > begin + KILL_TIMEOUT:
                self._kill_shim()
            if time.monotonic() > begin + REMOVE_TIMEOUT:
                raise GvisorError(f"pod {self.plan.id} could not be removed: {said}; the next run tries again")
            time.sleep(pause)  # containerd has no event for "can be removed now"
            # --force waits for an exit that the shim never reports when the pod was killed before it had started.
            force = [] if force or pause < 0.3 else ["--force"]
            pause = min(pause * 2, 2.0)
        if done.rc != 0:
            # ctr makes the snapshot before the container; killed between the two it leaves the snapshot alone.
            self.ctr.run("snapshots", "rm", self.plan.id, timeout=20)
        remove_groups(self.plan.id)
        self._unmount()

    def _kill_shim(self) -> None:
        """Kill the pod's shim, which hangs; containerd then cleans up in its place. A shim's working folder is its pod's."""
        ending = f"/{self.ctr.namespace}/{self.plan.id}"
        for pid in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/{pid}/cwd").endswith(ending):
                    os.kill(int(pid), signal.SIGKILL)

    def _unmount(self) -> None:
        """Unmount the pod's root file system where a shim that was killed left it mounted."""
        ending = f"/{self.ctr.namespace}/{self.plan.id}/rootfs"
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as stream:
            points = [line.split()[4] for line in stream if line.split()[4].endswith(ending)]
        for point in points:
            run(["umount", "--lazy", point])
