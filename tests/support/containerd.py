# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A private, real containerd for tests: own root, state, socket and PATH, and nothing of it left after ``stop``.

with Daemon(tmp_path, config_text="version = 2\\n", bin_dir="/folder/with/a/shim") as daemon:
    daemon.ctr("plugins", "ls")
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

DEFAULT_CONFIG = "version = 2\n"


class Daemon:
    """One containerd under ``root``; ``bin_dir`` comes first on its PATH (that is where it looks for shims)."""

    def __init__(self, root: Path | str, config_text: str | None = None, bin_dir: Path | str | None = None) -> None:
        self.root = Path(root)
        self.bin_dir = bin_dir
        # Socket paths end at 107 bytes and pytest's folders are long: sockets live in a short folder of their own.
        self.state = Path("/tmp") / f"ctrd-{hashlib.sha256(str(self.root.resolve()).encode()).hexdigest()[:10]}"  # noqa: S108
        self.address = str(self.state / "c.sock")
        self.config_path = str(self.root / "config.toml")
        self.log_path = str(self.root / "containerd.log")
        self.process: subprocess.Popen | None = None
        self.root.mkdir(parents=True, exist_ok=True)
        if config_text is not None or not os.path.exists(self.config_path):
            Path(self.config_path).write_text(DEFAULT_CONFIG if config_text is None else config_text)

    def __enter__(self) -> Daemon:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def argv(self) -> list[str]:
        """The daemon's command line, for a test that starts or validates it in its own way."""
        flags = {"config": self.config_path, "root": self.root / "root", "state": self.state, "address": self.address}
        return ["containerd", *(word for key, value in flags.items() for word in (f"--{key}", str(value)))]

    @property
    def env(self) -> dict[str, str]:
        """The daemon's environment: ``bin_dir`` first on PATH, then the machine's."""
        path = [str(self.bin_dir)] if self.bin_dir else []
        path += [os.environ.get("PATH", ""), "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
        return {**os.environ, "LC_ALL": "C", "PATH": ":".join(path)}

    def start(self, timeout: float = 20.0) -> Daemon:
        """Start the daemon and return when its API answers. Raises RuntimeError with the end of its log otherwise."""
        self.state.mkdir(mode=0o711, exist_ok=True)
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                self.argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.env, start_new_session=True
            )
        deadline = time.monotonic() + timeout
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                tail = self.log()[-2000:]
                self.stop()
                raise RuntimeError(f"containerd did not start:\n{tail}")
            time.sleep(0.03)
        return self

    def _answers(self) -> bool:
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as client:
            if client.connect_ex(self.address):
                return False
        return self.ctr("version", check=False).returncode == 0

    def stop(self) -> None:
        """Kill what still runs, stop the daemon, unmount and forget its state. Works at any time, also twice."""
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None
        self._kill(self.shims())
        for mount in sorted(self.mounts(), reverse=True):
            subprocess.run(["umount", "--lazy", mount], check=False, stderr=subprocess.DEVNULL)
        shutil.rmtree(self.state, ignore_errors=True)
        shutil.rmtree(self.root / "root", ignore_errors=True)

    def ctr(self, *args: str, check: bool = True, namespace: str = "default") -> subprocess.CompletedProcess:
        """Run ``ctr args…`` against this daemon; with ``check`` a failure raises with ctr's own words."""
        argv = ["ctr", "--address", self.address, "--namespace", namespace, *args]
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=120,
            env=self.env,
            check=False,
        )
        if check and done.returncode != 0:
            raise AssertionError(f"ctr {' '.join(args)}: rc {done.returncode}: {done.stderr.strip()}")
        return done

    def log(self) -> str:
        """The daemon's log so far."""
        path = Path(self.log_path)
        return path.read_text(errors="replace") if path.exists() else ""

    def shims(self) -> dict[int, list[str]]:
        """Shims of this daemon that are alive, with what they started: pid → command line."""
        children: dict[int, list[int]] = {}
        ours = []
        for pid in _pids():
            children.setdefault(_parent(pid), []).append(pid)
            if self.address in _cmdline(pid) and "shim" in _cmdline(pid)[0]:
                ours.append(pid)
        for pid in ours:
            ours.extend(children.get(pid, []))
        return {pid: _cmdline(pid) for pid in ours}

    def mounts(self) -> list[str]:
        """Mount points below this daemon's root and state."""
        points = (line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines())
        return [point for point in points if point.startswith((f"{self.root.resolve()}/", f"{self.state}/"))]

    def leftovers(self, namespace: str = "default") -> dict[str, list]:
        """What a run may not leave behind: every value is empty on a clean daemon (image layers are no leftover)."""
        snapshots = [row.split() for row in self.ctr("snapshots", "ls", namespace=namespace).stdout.splitlines()[1:]]
        return {
            "containers": self.ctr("containers", "ls", "-q", namespace=namespace).stdout.split(),
            "tasks": self.ctr("tasks", "ls", "-q", namespace=namespace).stdout.split(),
            "snapshots": [row[0] for row in snapshots if row[-1] != "Committed"],
            "shims": list(self.shims().values()),
            "mounts": [point for point in self.mounts() if "/io.containerd.runtime" in point],
        }

    @staticmethod
    def _kill(pids: dict[int, list[str]]) -> None:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _cmdline(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return [""]


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0
