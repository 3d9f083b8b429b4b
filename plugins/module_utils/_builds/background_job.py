# Copyright (c) 2026, the ggen.gvisor authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""A long command that outlives the connection which started it.

A job is a folder: ``lock`` is held by the job's own process as long as it lives (the kernel lets go of it, whatever
ends the process), ``job.json`` says what runs, ``log`` has the command's output and ``result.json`` its end. Waiting
for the end is waiting for the lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import signal
import subprocess
import time
from typing import Any, BinaryIO, Dict, List, Mapping, NamedTuple, Optional, Protocol, Sequence, Tuple

from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._base.files import atomic_write, take_lock
from ansible_collections.ggen.gvisor.plugins.module_utils._base.process import run
from ansible_collections.ggen.gvisor.plugins.module_utils._base.text import duration_text
from ansible_collections.ggen.gvisor.plugins.module_utils._builds import sandbox

TAIL_LINES = 25


def job_id(argv: Sequence[str], env: Mapping[str, str], chdir: Optional[str]) -> str:
    """Return what tells one job from another: a hash of the command, its environment and its folder."""
    text = json.dumps([list(argv), dict(env), chdir], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def progress_of(log: str, patterns: Sequence[Mapping[str, Any]]) -> List[Dict[str, Any]]:
    """Count the lines of ``log`` that match each pattern.

    A pattern has ``label``, ``pattern`` and perhaps a ``total``. Returns ``label``, ``done`` and ``total`` (None where unknown) of each.
    Raises GvisorError for a faulty pattern.
    """
    counts = []
    for item in patterns:
        try:
            done = sum(1 for found in re.finditer(item["pattern"], log, re.MULTILINE) if found)
        except re.error as error:
            raise GvisorError(f"progress pattern of {item['label']!r}: {error}") from error
        counts.append({"label": item["label"], "done": done, "total": item.get("total")})
    return counts


def progress_line(name: str, counts: Sequence[Mapping[str, Any]], seconds: float, log: str) -> str:
    """Return the line that a person watching sees."""
    parts = [
        f"{item['done']} of {item['total']} {item['label']}" if item["total"] else f"{item['done']} {item['label']}" for item in counts
    ]
    return f"{name}: " + ", ".join([*parts, duration_text(seconds), f"log: {log}"])


def tail_of(log: str, lines: int = TAIL_LINES) -> List[str]:
    """Return the log's last lines."""
    return log.rstrip("\n").split("\n")[-lines:] if log.strip() else []


def network_prefix() -> Optional[List[str]]:
    """Return the argv that puts a command into a network namespace with nothing in it, or None where this host does not
    allow that."""
    # Without root, a user namespace of its own gives the right to make one; its root is the user outside.
    prefix = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--net"]
    try:
        return prefix if run([*prefix, "true"], timeout=10).rc == 0 else None
    except GvisorError:
        return None


class Confines(Protocol):
    """What runs a command behind walls: see ``confinement``."""

    @property
    def kind(self) -> str:
        """Its name, as results and documents tell it."""

    def refusal(self) -> str:
        """Return why this host cannot do it, nothing where it can."""

    def start(self, argv: Sequence[str], env: Mapping[str, str], chdir: Optional[str], output: int) -> Any:
        """Start the command; returns what has ``pid`` and ``wait()`` as subprocess.Popen has them. Raises GvisorError or OSError."""


# What is told of a command that nothing is known of.
UNKNOWN: Dict[str, Any] = {"network": "shared", "confined": False, "sandbox": "none"}


class Refused(NamedTuple):
    """What is said where a host does not allow the last of a command's confinements."""

    said: str
    fix: str


REFUSED = {
    sandbox.NAMESPACES: Refused(
        "cannot keep a build from its files and the network",
        "Build on another host, or let the build run as the user who runs this, with all that this user may do",
    ),
    sandbox.GVISOR: Refused(
        "gives a build no gVisor sandbox",
        "Bring runsc there (role containerd_gvisor, or runsc_build), or let the build run in namespaces alone",
    ),
}


class Command(NamedTuple):
    """What a job runs."""

    argv: Sequence[str]
    env: Mapping[str, str]
    chdir: Optional[str]
    timeout: float  # seconds, after which the command and all it started are killed
    network: bool = True  # False takes the network away
    confinements: Sequence[Confines] = ()  # take that and more; the first that the host allows is used
    required: str = ""  # not empty: without one of the confinements the command does not run; the text says how to do without


class BackgroundJob:
    """The job in ``folder``."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.log = os.path.join(folder, "log")

    def _path(self, name: str) -> str:
        return os.path.join(self.folder, name)

    def _read(self, name: str) -> Optional[Dict[str, Any]]:
        try:
            with open(self._path(name), encoding="utf-8") as stream:
                return json.load(stream)
        except (FileNotFoundError, ValueError):
            return None

    def _write(self, name: str, value: Mapping[str, Any]) -> None:
        atomic_write(self._path(name), json.dumps(value).encode(), 0o644)

    def start(self, command: Command, creates: Sequence[str]) -> Dict[str, Any]:
        """Start the command, or attach to it if it is running already. Returns the job: ``id``, ``run``, ``started``
        and the rest; without ``run`` if it is not running and all of ``creates`` exist.

        Where the host allows no confinement the command runs all the same, unless one is required. The job's ``network``, ``confined`` and
        ``sandbox`` tell what was so. Raises GvisorError then, and while another command runs under this name.
        """
        identity = job_id(command.argv, command.env, command.chdir)
        os.makedirs(self.folder, exist_ok=True)
        lock = os.open(self._path("lock"), os.O_RDWR | os.O_CREAT, 0o644)
        try:
            # Those who wait for an ended job hold the lock for a moment: half a second tells them from a job that runs.
            if not take_lock(lock, fcntl.LOCK_EX, 0.5):
                running = self._read("job.json") or {}
                if running.get("id") != identity:
                    raise GvisorError(
                        f"another command of this name is running (process {running.get('pid')}, log {self.log}): "
                        f"{' '.join(running.get('argv', []))}. Wait for it, or end it with: kill {running.get('pid')}",
                        log=self.log,
                    )
                return {**running, "attached": True}
            if creates and all(map(os.path.exists, creates)):
                made = self._read("job.json") or {}
                known = made if made.get("id") == identity else {}  # of what something else has made nothing is known
                return {**UNKNOWN, **{name: known[name] for name in UNKNOWN if name in known}}
            chosen, refusal = _first_allowed(command.confinements)
            if refusal and command.required:
                what = REFUSED[command.confinements[-1].kind]
                raise GvisorError(f"this host {what.said}: {refusal}. Nothing was run. {what.fix}: {command.required}", refusal=refusal)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path("result.json"))
            prefix = [] if command.network or chosen else network_prefix()
            job = {
                "id": identity,
                "run": f"{identity[:12]}-{time.time_ns()}",
                "argv": list(command.argv),
                "started": time.time(),
                "network": "isolated" if prefix or chosen else "shared",
                "confined": bool(chosen),
                "sandbox": chosen[0].kind if chosen else UNKNOWN["sandbox"],
            }
            self._write("job.json", {**job, "pid": None})  # for those who attach before the job could say its process id
            with open(self.log, "wb"):
                pass
            self._detach(lock, job, command._replace(argv=[*(prefix or []), *command.argv], confinements=chosen))
            return {**job, "attached": False}
        finally:
            os.close(lock)  # the job has its own copy: the lock stays

    def _detach(self, lock: int, job: Dict[str, Any], command: Command) -> None:
        """Fork twice, so that the job has no parent that waits for it and no terminal that could hang up on it."""
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.setsid()
                if os.fork() == 0:
                    self._become_job(lock, job, command, writer)
            finally:
                os._exit(0)
        os.close(writer)
        os.waitpid(child, 0)
        os.read(reader, 1)  # returns when the job has written job.json, or died
        os.close(reader)

    def _become_job(self, lock: int, job: Dict[str, Any], command: Command, ready: int) -> None:
        argv, env, chdir, confined = command.argv, command.env, command.chdir, next(iter(command.confinements), None)
        # Whoever started us waits until our copies of its pipes are closed.
        os.umask(0o022)  # what is fetched here another user may have to read when it compiles
        null = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(null, stream)
        keep = sorted({lock, ready})
        for low, high in zip([2, *keep], [*keep, os.sysconf("SC_OPEN_MAX")]):
            os.closerange(low + 1, high)
        for name in (signal.SIGINT, signal.SIGHUP):
            signal.signal(name, signal.SIG_IGN)
        result: Dict[str, Any] = {"run": job["run"], "rc": None, "error": None}
        try:
            with open(self.log, "ab") as log:
                process = confined.start(argv, env, chdir, log.fileno()) if confined else _started(argv, env, chdir, log)
            signal.signal(signal.SIGTERM, lambda *_args: os.killpg(process.pid, signal.SIGTERM))
            self._write("job.json", {**job, "pid": os.getpid()})
            os.close(ready)
            try:
                result["rc"] = process.wait(timeout=command.timeout)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                result.update(rc=process.wait(), error=f"it did not end within {command.timeout:g} s and was killed")
        except (OSError, GvisorError) as error:
            result.update(rc=127, error=f"it could not be started: {error}")
            self._write("job.json", {**job, "pid": os.getpid()})
        result["ended"] = time.time()
        self._write("result.json", result)

    def look(self) -> Dict[str, Any]:
        """Return the job as start() did. Raises GvisorError when it is gone."""
        job = self._read("job.json")
        if job is None:
            raise GvisorError(f"{self.folder} was removed while the command ran")
        return job

    def wait(self, token: str, seconds: float) -> Dict[str, Any]:
        """Wait up to ``seconds`` for the end of run ``token``.

        Returns ``running``, and after the end ``rc``, ``error`` (None, or what kept the command from its own end) and
        ``ended``. Where the same command was started again before its end was seen here, that run's end is this one's.
        """
        deadline = time.monotonic() + seconds
        while True:
            lock = os.open(self._path("lock"), os.O_RDWR)
            try:
                ended = take_lock(lock, fcntl.LOCK_SH, deadline - time.monotonic())
                # With the lock, as whoever starts the next run changes both.
                job, result = self._read("job.json") or {}, self._read("result.json") if ended else None
            finally:
                os.close(lock)
            run = job.get("run", "")
            if run == token:
                break
            if _command_of(run) != _command_of(token):
                return {"running": False, "rc": None, "error": "another command took its place; its result is lost", "ended": time.time()}
            token = run
        if not ended:
            return {"running": True}
        if result is None or result["run"] != token:
            return {"running": False, "rc": None, "error": "it was killed from outside", "ended": time.time()}
        return {"running": False, **result}

    def log_text(self) -> str:
        """Return the log so far."""
        try:
            with open(self.log, encoding="utf-8", errors="replace") as stream:
                return stream.read()
        except FileNotFoundError:
            return ""


def _first_allowed(confinements: Sequence[Confines]) -> Tuple[Sequence[Confines], str]:
    """Return the first that the host allows, in a list that is empty where it allows none, and then why not."""
    refusals = []
    for confinement in confinements:
        refusal = confinement.refusal()
        if not refusal:
            return [confinement], ""
        refusals.append(refusal)
    return [], "; ".join(refusals)


def _command_of(run: str) -> str:
    """Return what a run's name says of the command that runs."""
    return run.partition("-")[0]


def _started(argv: Sequence[str], env: Mapping[str, str], chdir: Optional[str], log: BinaryIO) -> "subprocess.Popen[bytes]":
    # restore_signals does not cover the two that the job ignores; the child's own session is what keeps the terminal's signals away. run_command
    # waits for the end.
    return subprocess.Popen(  # pylint: disable=ansible-bad-function
        list(argv),
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        cwd=chdir,
        env={**os.environ, "LC_ALL": "C", **env},
        start_new_session=True,
    )
