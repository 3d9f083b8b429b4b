# Copyright (c) 2026, the ggen.gvisor authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""containerd as a service: a systemd unit, or a plain daemon where systemd is not running."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from typing import Dict, List, NamedTuple, Optional

from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._base.files import atomic_write
from ansible_collections.ggen.gvisor.plugins.module_utils._base.process import SEARCH_PATH, run
from ansible_collections.ggen.gvisor.plugins.module_utils._base.processes import argv_of, is_alive, listener_pid, wait_exit
from ansible_collections.ggen.gvisor.plugins.module_utils._containerd.ctr import DEFAULT_ADDRESS, Ctr

DEFAULT_CONFIG = "/etc/containerd/config.toml"
DEFAULT_PID_FILE = "/run/containerd/containerd.pid"
DEFAULT_LOG_FILE = "/var/log/containerd.log"
# sudo and cron give short PATHs; containerd looks for its shims and for runc on its own PATH.

NOT_LOADED = 5  # systemctl's exit code for a unit that does not exist


class _Origin(NamedTuple):
    """How a daemon was started, so that it can be started again in the same way."""

    argv: List[str]
    environment: Dict[str, str]
    cwd: str


class Setup(NamedTuple):
    """Where a host's containerd is. ``manager`` is systemd, daemon or auto (systemd where it is running)."""

    service: str = "containerd"
    config: str = DEFAULT_CONFIG
    address: str = DEFAULT_ADDRESS
    program: str = "containerd"
    ctr: str = "ctr"
    pid_file: str = DEFAULT_PID_FILE
    log_file: str = DEFAULT_LOG_FILE
    manager: str = "auto"


class Service:
    """What systemd units and plain daemons have in common: the API socket."""

    manager = ""

    def __init__(self, setup: Setup) -> None:
        self.service = setup.service
        self.config = setup.config
        self.address = setup.address
        self.program = setup.program
        self.ctr = Ctr(setup.address, program=setup.ctr)

    def pid(self) -> Optional[int]:
        """Return the daemon's process id, None when it is not running."""
        raise NotImplementedError

    def is_running(self) -> bool:
        """Tell whether the daemon's process is there; whether it answers is wait_api's question."""
        return self.pid() is not None

    def start(self, timeout: float = 60.0) -> None:
        """Start the daemon if it is not running. Raises GvisorError with the journal's last lines when it does not stay."""
        raise NotImplementedError

    def stop(self, timeout: float = 60.0) -> None:
        """Stop the daemon; containers go on running."""
        raise NotImplementedError

    def restart(self, timeout: float = 60.0) -> None:
        """Stop and start the daemon."""
        raise NotImplementedError

    def journal(self, lines: int = 20) -> str:
        """Return the last lines that the daemon wrote, "" when there are none to be had. Raises nothing: it is asked for in errors."""
        raise NotImplementedError

    def why_containers_would_die(self) -> str:
        """Return why a restart would end the running containers, "" when it would not."""
        return ""

    def wait_api(self, timeout: float = 60.0) -> None:
        """Return when the API answers. Raises GvisorError when the daemon ends, or ``timeout`` seconds pass, before it does."""
        deadline = time.monotonic() + timeout
        pause = 0.01
        while not _listens(self.address):
            pid = self.pid()
            if pid is None:
                raise self.failure("containerd ended before it answered on {0}".format(self.address))
            if time.monotonic() > deadline:
                raise self.failure("containerd did not open {0} within {1:g} s".format(self.address, timeout))
            wait_exit(pid, pause)  # ends at once when the daemon does
            pause = min(pause * 2, 0.2)
        # From here on gRPC waits by itself until the server answers.
        left = max(1.0, deadline - time.monotonic())
        done = self.ctr.run("version", timeout=left)
        if done.rc != 0:
            raise self.failure("containerd does not answer on {0}: {1}".format(self.address, done.stderr.strip()))

    def failure(self, message: str) -> GvisorError:
        """Return an error that carries the journal's last lines."""
        journal = self.journal()
        return GvisorError("{0}{1}".format(message, "; its last lines:\n" + journal if journal else ""), journal=journal)


class SystemdService(Service):
    """containerd as a unit of a running systemd."""

    manager = "systemd"

    def pid(self) -> Optional[int]:
        """Return the unit's main process id."""
        done = run(["systemctl", "show", "--property=MainPID", "--value", self.service])
        return int(done.stdout.strip() or 0) or None

    def _systemctl(self, verb: str, timeout: float) -> None:
        # A unit that failed often lately may not be started again before this.
        run(["systemctl", "reset-failed", self.service])
        try:
            done = run(["systemctl", verb, self.service], timeout=timeout)
        except GvisorError as error:
            raise self.failure(error.message) from error
        if done.rc != 0 and (verb, done.rc) != ("stop", NOT_LOADED):
            raise self.failure("systemctl {0} {1} failed: {2}".format(verb, self.service, done.stderr.strip()))

    def start(self, timeout: float = 60.0) -> None:
        """Start the unit."""
        self._systemctl("start", timeout)

    def stop(self, timeout: float = 60.0) -> None:
        """Stop the unit."""
        self._systemctl("stop", timeout)

    def restart(self, timeout: float = 60.0) -> None:
        """Restart the unit."""
        self._systemctl("restart", timeout)

    def why_containers_would_die(self) -> str:
        """Return what of the unit lets a restart end the containers: systemd stops all of a unit's processes unless it is told not to."""
        mode = run(["systemctl", "show", "--property=KillMode", "--value", self.service]).stdout.strip()
        return "" if mode in ("process", "none") else "unit {0} has KillMode={1}; set KillMode=process".format(self.service, mode)

    def journal(self, lines: int = 20) -> str:
        """Return the unit's last journal lines."""
        show = ["journalctl", "--unit", self.service, "--lines", str(lines), "--no-pager", "--quiet", "--output", "cat"]
        with contextlib.suppress(GvisorError):
            run(["journalctl", "--sync"], timeout=10)  # journald may still have to read what the daemon wrote before it ended
            done = run(show, timeout=30)
            return done.stdout.strip() if done.rc == 0 else ""
        return ""


class DaemonService(Service):
    """containerd as a plain daemon with a PID file and a log file."""

    manager = "daemon"

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self.pid_file = setup.pid_file
        self.log_file = setup.log_file
        self._origin: Optional[_Origin] = None

    def pid(self) -> Optional[int]:
        """Return the process id behind the socket, else the one in the PID file if that is a containerd with this configuration.

        The socket knows best: it also tells of a daemon that somebody else started.
        """
        pid = listener_pid(self.address)
        if pid and is_alive(pid):
            return pid
        try:
            with open(self.pid_file, encoding="ascii") as stream:
                pid = int(stream.read())
        except (OSError, ValueError):
            return None
        return pid if is_alive(pid) and os.path.basename(self.program) in os.path.basename((argv_of(pid) or [""])[0]) else None

    def start(self, timeout: float = 60.0) -> None:  # noqa: ARG002 - a unit needs it
        """Start the daemon in a session of its own, as it ran before if this object stopped it."""
        if self.is_running():
            return
        path = os.environ.get("PATH", "").split(os.pathsep)
        environment = {
            **os.environ,
            "PATH": os.pathsep.join([*filter(None, path), *(p for p in SEARCH_PATH.split(os.pathsep) if p not in path)]),
        }
        origin = self._origin or _Origin([self.program, "--config", self.config], environment, "/")
        argv = _without_missing_config(origin.argv)
        for path_name in (self.pid_file, self.log_file):
            os.makedirs(os.path.dirname(path_name), exist_ok=True)
        try:
            with open(self.log_file, "ab") as log:
                # run_command waits for the end.
                process = subprocess.Popen(  # pylint: disable=ansible-bad-function
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=origin.cwd,
                    env=origin.environment,
                    start_new_session=True,
                )
        except OSError as error:
            raise GvisorError("cannot start {0}: {1}".format(origin.argv[0], error.strerror), argv=origin.argv) from error
        atomic_write(self.pid_file, b"%d\n" % process.pid, 0o644)

    def stop(self, timeout: float = 60.0) -> None:
        """Ask the daemon to end, and end it when it has not after ``timeout`` seconds."""
        pid = self.pid()
        if pid is None:
            return
        self._origin = _origin(pid)
        for signal_number, patience in ((signal.SIGTERM, timeout), (signal.SIGKILL, 10.0)):
            try:
                os.kill(pid, signal_number)
            except ProcessLookupError:
                break
            if wait_exit(pid, patience):
                break
        else:
            raise GvisorError("containerd (process {0}) does not end".format(pid))
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.pid_file)

    def restart(self, timeout: float = 60.0) -> None:
        """Stop and start the daemon, with the arguments and the environment that it had."""
        self.stop(timeout)
        self.start(timeout)

    def journal(self, lines: int = 20) -> str:
        """Return the log file's last lines."""
        try:
            with open(self.log_file, "rb") as stream:
                stream.seek(0, os.SEEK_END)
                stream.seek(max(0, stream.tell() - 65536))
                return b"\n".join(stream.read().splitlines()[-lines:]).decode("utf-8", "replace")
        except OSError:
            return ""


def service_for(setup: Setup) -> Service:
    """Return this host's containerd service."""
    manager = setup.manager
    if manager == "auto":
        manager = "systemd" if os.path.isdir("/run/systemd/system") else "daemon"
    return SystemdService(setup) if manager == "systemd" else DaemonService(setup)


def _listens(address: str) -> bool:
    """Tell whether something accepts connections on the socket."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(5)
        return client.connect_ex(address) == 0


def _without_missing_config(argv: List[str]) -> List[str]:
    """Return the command line without ``--config`` for the default file where that does not exist.

    containerd starts without that file, but not when it is named.
    """
    for flag in ("--config", "-c"):
        if flag in argv[:-1]:
            at = argv.index(flag)
            if argv[at + 1] == DEFAULT_CONFIG and not os.path.exists(DEFAULT_CONFIG):
                return argv[:at] + argv[at + 2 :]
    return argv


def _origin(pid: int) -> Optional[_Origin]:
    """Return how the process was started, None when that cannot be read."""
    try:
        argv = argv_of(pid)
        with open("/proc/{0}/environ".format(pid), "rb") as stream:
            pairs = [os.fsdecode(part).partition("=") for part in stream.read().split(b"\0") if b"=" in part]
        cwd = os.readlink("/proc/{0}/cwd".format(pid))
    except OSError:
        return None
    return _Origin(argv, {key: value for key, _equals, value in pairs}, cwd) if argv else None
