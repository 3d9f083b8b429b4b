# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host of the lab to do harm to, and a site.yml that can be killed at a known moment."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import yaml

from support.playbook import CONTROLLER, ROOT, Play, play
from support.snapshot import differences, snapshot

HOSTS = ROOT / "tests" / "faults" / "hosts.yml"
NAME = "victim"
LAB = "faults"
FOLDER = ROOT / ".artifacts" / "lab" / LAB
INVENTORY = FOLDER / "inventory.yml"
SSH = ["ssh", "-F", str(FOLDER / "ssh_config"), NAME]
HELD = "held on the controller"
EXAMPLE = "/var/lib/ggen.gvisor/workspaces/organization"
RELEASES = "/usr/local/lib/gvisor"


def lab(verb: str, hosts: Path = HOSTS) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "tests/lab/lab.py", "--lab", LAB, "--hosts", hosts, verb], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def until(ready: Callable[[], object], what: str, seconds: float = 60) -> None:
    """Wait for ``ready`` to become true."""
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline, f"not after {seconds:.0f} s: {what}"
        time.sleep(0.02)


class Process(NamedTuple):
    """A process of the host, as this machine sees it."""

    pid: int
    text: str

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Hold the process where it is."""
        os.kill(self.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)


class Victim:
    """The host: root's shell there, its processes seen from here, and playbooks on it."""

    def __init__(self) -> None:
        # Its cgroups, by which its processes are told from all others of this machine.
        machine = re.compile(rb"/gl\d+-" + NAME.encode() + rb"(/|$)", re.MULTILINE)
        self._mine = lambda pid: machine.search(Path(f"/proc/{pid}/cgroup").read_bytes())
        self._sockets = yaml.safe_load(INVENTORY.read_text())["all"]["children"]["lab_hosts"]["vars"]["ansible_control_path_dir"]

    def ssh(self, script: str, given: str = "", check: bool = True, timeout: float = 120) -> str:
        """Run a shell script as root, over a connection of its own, and return what it printed."""
        done = subprocess.run([*SSH, script], input=given, capture_output=True, text=True, check=False, timeout=timeout)
        assert not check or done.returncode == 0, f"{script}: {done.stdout}{done.stderr}"
        return done.stdout.strip("\n")

    def processes(self, pattern: str = "") -> list[Process]:
        """Return the host's processes whose command line has ``pattern``; sees them within a millisecond or two, unlike ssh."""
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").rstrip("\0").replace("\0", " ")
                if words and re.search(pattern, words) and self._mine(pid):
                    found.append(Process(int(pid), words))
            except OSError:
                continue  # it has ended
        return found

    def site(self, *options: str, playbook: str = "site.yml", **variables: object) -> Play:
        return play(playbook, *options, inventory=INVENTORY, **variables)

    def busy(self) -> list[str]:
        """Processes that work for a run: modules, their workers, apt, ctr, sandboxes; what a host has otherwise is not among them."""
        pattern = (
            r"(^|/)(apt-get|dpkg|ctr|runsc\S*|containerd-shim\S*|sftp-server)\b|AnsiballZ|ansible-tmp|^/usr/bin/python3( |$)|BECOME-SUCCESS"
        )
        return [process.text for process in self.processes(pattern)]

    def settle(self, seconds: float = 120) -> None:
        """Wait until what a killed run left running has come to its end."""
        until(lambda: not self.busy(), f"an end of {self.busy()}", seconds)

    def reboot(self) -> None:
        """Have the host end at once, with all that runs there, as at a loss of power, and wait until it has booted again."""
        before = self.processes(r"^/(usr/)?(s?bin/init|lib/systemd/systemd)\b(?!-)")
        assert before, [process.text for process in self.processes()]
        self.ssh("systemctl reboot --force --force", check=False)
        until(lambda: not {process.pid for process in self.processes()} & {process.pid for process in before}, "the end of the host", 120)
        until(
            lambda: self.ssh("systemctl is-system-running --wait", check=False, timeout=60) in ("running", "degraded"),
            "the host again",
            120,
        )

    def disconnect(self) -> None:
        """End Ansible's shared connection: a module whose controller was killed waits until then for somebody to read its result."""
        for path in Path(self._sockets).iterdir():
            subprocess.run(["ssh", "-O", "exit", "-o", f"ControlPath={path}", NAME], check=False, capture_output=True)

    def leftovers(self) -> list[str]:
        """What a run may leave nowhere on the host once it has ended, or was killed and another one has ended."""
        self.disconnect()
        self.settle()
        return [line for line in self.ssh("sh -s", given=LEFTOVERS).splitlines() if line]


# What was sent, temporary and half-written files, containers, snapshots in use, and imports that never ended. What an import that was killed has
# unpacked is containerd's to remove, when the lease ends that it took: a day later.
LEFTOVERS = r"""
find /root/.ansible/tmp /home/admin/.ansible/tmp -name payload -o -name workspace.tar 2>/dev/null
find /tmp /var/tmp -mindepth 1 -maxdepth 1 ! -name 'systemd-private-*' ! -name '.*-unix'
find /usr/local /etc/containerd /etc/apt -name '*.new' -o -name '*.old' -o -name '.*' -type f -o -name '.link.*' -o -name '*.dpkg-*'
find /var/lib/ggen.gvisor -mindepth 1 -path '*/pods/*' ! -name .lock
find /usr/local/lib/gvisor -mindepth 1 -maxdepth 1 -type d -empty
if pgrep -x containerd >/dev/null; then
  for namespace in $(ctr namespaces ls -q); do
    ctr -n "$namespace" tasks ls -q; ctr -n "$namespace" containers ls -q
    ctr -n "$namespace" snapshots ls | grep -w Active | grep -v ^extract-
    ctr -n "$namespace" content active | tail -n +2
    ctr -n "$namespace" leases ls | tail -n +2 | grep -v gc.expire=
    ctr -n "$namespace" images ls -q | grep import
  done
fi
dpkg --audit
exit 0
"""


def state(victim: Victim) -> dict:
    """What a host has, to compare with another one: files, packages and units, images, the example without ggen's own records."""
    taken = snapshot(*SSH)
    example = f"cd {EXAMPLE} && find . -path ./.ggen -prune -o -type f ! -name '*.backup' -print0"
    found = victim.ssh(f"ctr images ls -q | sort; {example} | sort -z | xargs -0 sha256sum")
    own = re.compile(r"/etc/(machine-id|host\S*|ssh/|resolv|\.pwd\.lock|[a-z-]*-$)")
    taken["files"] = {path: what for path, what in taken["files"].items() if not own.match(path)}
    taken["files"].update((line, "there") for line in found.splitlines())
    # The packages in it are in apt's order, which is not always the same.
    recorded = json.loads(victim.ssh(f"cat {RELEASES}/installed.json"))
    taken["files"][f"{RELEASES}/installed.json"] = {
        key: sorted(value) if isinstance(value, list) else value for key, value in recorded.items()
    }
    return taken


def check_converged(victim: Victim, undisturbed: dict) -> None:
    """One more run is enough, one after that changes nothing, the host is proven, and as it would be without faults."""
    done = victim.site()
    assert done.rc == 0, done.errors
    check_works(victim)
    # What was sent and never used goes with the next transfer, hours later. Ansible's own folders, with small files at most, are Ansible's to remove.
    victim.ssh(
        "find /home/admin/.ansible/tmp -name payload -exec touch -d '1 day ago' {} +; rm -f /usr/local/bin/runsc /usr/local/lib/gvisor/*/runsc"
    )
    again = victim.site()
    assert "Install the release and switch to it" in again.changed, (again.changed, again.errors)
    left, different = victim.leftovers(), differences(undisturbed, state(victim))
    assert (left, different) == ([], []), (left, different)


def check_works(victim: Victim) -> None:
    """Nothing is left to do, and the host is proven."""
    done = victim.site()
    assert (done.rc, done.changed) == (0, []), (done.changed, done.errors)
    verified = victim.site(playbook="playbooks/verify.yml")
    assert verified.rc == 0, verified.errors
    assert "victim is healthy" in verified.output


@contextlib.contextmanager
def fresh_host(hosts: Path = HOSTS) -> Iterator[Victim]:
    """A bare host, the only one of its lab."""
    lab("down")
    lab("up", hosts)
    try:
        yield Victim()
    finally:
        lab("down")


def name_of(task: str) -> str:
    """Return a task's name without its role's."""
    return task.rpartition(" : ")[2]


class Moment(NamedTuple):
    """What a run is doing: the task, and the process on the host by which a test saw it."""

    task: str
    process: Process


class Site:
    """A playbook at work, held at the beginning of each task until the test lets it go on."""

    def __init__(self, victim: Victim, folder: Path, *options: str, playbook: str = "site.yml") -> None:
        self.victim = victim
        self._held = False
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the run
        self._server = socket.socket(socket.AF_UNIX)
        self._home = tempfile.TemporaryDirectory(prefix="moments.", dir="/tmp")  # the path of a socket must be short
        self._server.bind(f"{self._home.name}/socket")
        self._server.listen()
        environment = {
            **os.environ,
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_CALLBACK_PLUGINS": str(ROOT / "tests" / "faults" / "callback"),
            "ANSIBLE_CALLBACKS_ENABLED": "moments",
            "GGEN_GVISOR_MOMENTS": f"{self._home.name}/socket",
            # The controller's own temporary files, to see what it leaves there.
            "TMPDIR": str(folder),
            "ANSIBLE_LOCAL_TEMP": str(folder / "ansible"),
        }
        self.process = subprocess.Popen(
            [Path(sys.executable).with_name("ansible-playbook"), "-i", INVENTORY, *options, playbook],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=self._output,
            start_new_session=True,
        )
        self._server.settimeout(60)
        self._peer, _address = self._server.accept()
        self._stream = self._peer.makefile("rw")

    def __enter__(self) -> Site:
        return self

    def __exit__(self, *_error: object) -> None:
        self.kill()
        for one in (self._stream, self._peer, self._server, self._output):
            one.close()
        self._home.cleanup()

    @property
    def said(self) -> str:
        self._output.seek(0)
        return self._output.read().decode()

    def _go(self) -> None:
        self._stream.write("go\n")
        with contextlib.suppress(BrokenPipeError):
            self._stream.flush()

    def _heard(self) -> bool:
        """Whether a line from the controller waits, or its end."""
        self._peer.setblocking(False)
        try:
            self._peer.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        finally:
            self._peer.setblocking(True)
        return True

    def reach(self, wanted: Callable[[str], str | None]) -> Moment | None:
        """Go on to the first moment at which a task has a process on the host as ``wanted`` says by the task's name, or None if none came.

        ``wanted`` returns a pattern of the command line, HELD to stop before the task begins, or None for tasks that are let through.
        """
        if self._held:
            self._held = False
            self._go()
        for line in self._stream:
            told = json.loads(line)
            on_host = told["event"] == "begins" and told["host"] == NAME and told["action"] not in CONTROLLER
            pattern = wanted(name_of(told["task"])) if on_host else None
            if pattern == HELD:
                self._held = True
                return Moment(name_of(told["task"]), Process(0, HELD))
            before = set(self.victim.processes())  # what an earlier run left at work is not this one's
            self._go()
            while pattern and not self._heard():
                if found := set(self.victim.processes(pattern)) - before:
                    return Moment(name_of(told["task"]), found.pop())
        self.process.wait(60)
        return None

    def finish(self) -> int:
        """Let all other tasks begin, and return the exit code."""
        self.reach(lambda _task: None)
        return self.process.wait(60)

    def kill(self) -> None:
        """Kill the controller: ansible-playbook, its workers, which are sessions of their own, and their ssh. The shared connection lives on."""
        pids = [self.process.pid]
        for pid in pids:  # grows; a stopped parent has no more children
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGSTOP)
                for thread in os.listdir(f"/proc/{pid}/task"):
                    pids += map(int, Path(f"/proc/{pid}/task/{thread}/children").read_text().split())
        for pid in pids:
            Process(pid, "").kill()
        self.process.wait(60)

    def cut(self) -> int:
        """End the connection as a broken network does, and every one that is tried afterwards, until the controller gives up; return its exit code.

        The host's side of it dies, and nobody tells those who work there.
        """
        over = threading.Event()

        def end_all() -> None:
            while not over.wait(0.02):
                for process in self.victim.processes(r"^sshd(-session)?: admin"):
                    process.kill()

        thread = threading.Thread(target=end_all)
        thread.start()
        try:
            return self.finish()
        finally:
            over.set()
            thread.join()
