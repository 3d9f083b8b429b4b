# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""containerd_run on a real containerd of the tests' own, and what a run left behind."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from support import oci
from support.containerd import Daemon
from support.gvisor import gvisor_dir
from support.module import run_module, start_module

IMAGE = "localhost/busybox:1"
# Seconds that a run may take to remove its pod and to say that it could not: a disk that is being flushed holds containerd for half a minute.
PATIENCE = 90
USER = 1000  # whose a workspace is
RUNTIMES = {"runsc": "io.containerd.runsc.v1", "runc": "io.containerd.runc.v2"}


@contextlib.contextmanager
def gvisor_daemon(root: Path, layer: bytes | None = None, image: str = IMAGE) -> Iterator[Daemon]:
    """A containerd below ``root`` that finds gVisor's shim and has one image: of ``layer``, or of busybox."""
    entries, _digest = oci.oci_entries(oci.busybox_layer() if layer is None else layer, image)
    with Daemon(root, bin_dir=gvisor_dir(root / "bin")) as running:
        (root / "image.tar").write_bytes(oci.tar(entries))
        running.ctr("images", "import", str(root / "image.tar"))
        yield running


def own(*folders: Path) -> Path:
    """Make the folders of a user's where they are missing, and return the last one."""
    for folder in folders:
        folder.mkdir(exist_ok=True)
        os.chown(folder, USER, USER)
    return folders[-1]


class Host:
    """One containerd with the test image, and the module's own folder."""

    def __init__(self, daemon: Daemon, root: Path, runtime: str) -> None:
        self.daemon = daemon
        self.state_dir = str(root / "state")
        self.runtime = runtime
        self.name = f"t{uuid.uuid4().hex[:6]}"

    def params(self, script: str | list[str], workspace: Path | None, **params: object) -> dict:
        argv = ["sh", "-c", script] if isinstance(script, str) else script
        common = {
            "image": IMAGE,
            "argv": argv,
            "address": self.daemon.address,
            "state_dir": self.state_dir,
            "name": self.name,
        }
        return {**common, "runtime": self.runtime, "workspace": str(workspace) if workspace else None, **params}

    def run(self, script: str | list[str], workspace: Path | None = None, **params: object) -> dict:
        return run_module("containerd_run", **self.params(script, workspace, **params))

    def start(self, script: str | list[str], workspace: Path | None = None, **params: object) -> subprocess.Popen:
        return start_module("containerd_run", **self.params(script, workspace, **params))

    def pods(self) -> list[str]:
        folder = Path(self.state_dir) / "pods"
        return [name for name in os.listdir(folder) if name != ".lock"] if folder.exists() else []

    def left(self) -> dict:
        left = {name: found for name, found in self.daemon.leftovers().items() if found}
        groups = [str(path) for above in ("", "*/") for path in Path("/sys/fs/cgroup").glob(f"{above}ggen.gvisor.*.{self.name}-*")]
        mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines() if f" {self.state_dir}/" in line]
        supervisors = [pid for pid in os.listdir("/proc") if pid.isdigit() and self._holds(pid)]
        return {**left, **{name: found for name, found in (("pods", self.pods()), ("cgroups", groups), ("mounts", mounts)) if found}} | (
            {"processes": supervisors} if supervisors else {}
        )

    def _holds(self, pid: str) -> bool:
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes()
            return b"containerd_run" in words and self.daemon.address.encode() in Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            return False

    def settle(self, timeout: float = PATIENCE) -> dict:
        """What is left once a killed run's supervisor had its time."""
        deadline = time.monotonic() + timeout
        while self.left() and time.monotonic() < deadline:
            time.sleep(0.1)
        return self.left()
