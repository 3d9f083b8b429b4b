# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A user who is not root, with what containerd_run needs for sandboxes without containerd, and what a run of theirs left behind."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import ansible

from support import oci
from support.module import MODULES, ROOT, Result, finish_module

# Of a user whom nobody else runs as: what is left of a run is told by it, and pytest's workers have files at the same time.
UID = 64331 + int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
PYTHON = "/usr/bin/python3"  # one that others than root may read


def runscs() -> list[Path]:
    """Return runsc of each release that was built for this machine, the oldest first. Raises RuntimeError where there is none."""
    named = os.environ.get("GGEN_GVISOR_TEST_BIN")
    found = [Path(named) / "runsc"] if named else sorted((ROOT / "bin").glob(f"[0-9]*/linux_{oci.ARCH}/runsc"))
    if not found:
        raise RuntimeError(f"no runsc below {ROOT / 'bin'}: build it (make site) or set GGEN_GVISOR_TEST_BIN to a folder")
    return found


class User:
    """Somebody with a home in ``place``, which everybody can enter and nobody else can change."""

    def __init__(self, place: Path, uid: int = UID) -> None:
        self.uid = uid
        self.place = place
        place.chmod(0o755)
        self.home = self.folder("home")
        self.home.chmod(0o700)
        self.image = self.home / "image.tar"
        self.cache, self.state = self.home / "cache", self.home / "state"
        self.runsc = self.home / "runsc"
        shutil.copy2(runscs()[-1], self.runsc)
        code = place / "code"
        ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
        shutil.copytree(ROOT / "plugins", code / "ansible_collections/ggen/gvisor/plugins", ignore=ignored)
        source = Path(ansible.__file__).parent
        shutil.copytree(source / "module_utils", code / "ansible/module_utils", ignore=ignored)
        (code / "ansible/__init__.py").touch()
        shutil.copy2(source / "release.py", code / "ansible/release.py")
        self.code = code
        oci.busybox_archive(self.image)
        self.own(self.home)

    def folder(self, name: str) -> Path:
        """Make a folder of the user's in their place."""
        path = self.place / name
        path.mkdir()
        self.own(path)
        return path

    def own(self, path: Path) -> None:
        """Give it to the user, with all that is in it."""
        for one in [path, *path.rglob("*")]:
            os.chown(one, self.uid, self.uid, follow_symlinks=False)

    def command(self, *argv: str) -> list[str]:
        """Return the command line that runs ``argv`` as the user, with an environment of their own."""
        who = ["setpriv", f"--reuid={self.uid}", f"--regid={self.uid}", "--clear-groups"]
        variables = [f"XDG_CACHE_HOME={self.cache}", f"XDG_STATE_HOME={self.state}", f"HOME={self.home}", f"PYTHONPATH={self.code}"]
        return [*who, "env", "-i", "PATH=/usr/bin:/bin", "LC_ALL=C.UTF-8", "PYTHONDONTWRITEBYTECODE=1", *variables, *argv]

    def start(self, script: str | list[str], workspace: Path | None = None, *, check: bool = False, diff: bool = False, **params: object):
        """Start the module and return its process."""
        argv = ["sh", "-c", script] if isinstance(script, str) else script
        common = {"engine": "rootless", "runsc": str(self.runsc), "image": str(self.image), "argv": argv, "keep_free": "0"}
        jobs = {} if workspace is None else {"workspace": str(workspace)}
        modes = {"_ansible_check_mode": check, "_ansible_diff": diff, "_ansible_version": "2.19.0"}
        process = subprocess.Popen(
            self.command(PYTHON, "-m", f"{MODULES}.containerd_run"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=self.place,
            text=True,
        )
        process.stdin.write(json.dumps({"ANSIBLE_MODULE_ARGS": {**common, **jobs, **params, **modes}}))
        process.stdin.close()
        process.stdin = None
        return process

    def run(self, script: str | list[str], workspace: Path | None = None, **options: object) -> Result:
        """Run the module to its end and return its result."""
        return Result({"failed": False, **finish_module(self.start(script, workspace, **options))})

    def processes(self) -> list[str]:
        """Return the user's processes."""
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                if os.stat(f"/proc/{pid}").st_uid == self.uid:
                    found.append(f"{pid} {Path(f'/proc/{pid}/cmdline').read_bytes().replace(bytes(1), b' ').decode()}")
        return found

    def left(self) -> dict:
        """Return what runs have left: processes, mounts, pods' folders, and files in the cache that are no part of a bundle."""
        pods = self.state / "ggen.gvisor/pods"
        bundles = self.cache / "ggen.gvisor/bundles"
        mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(self.place) in line]
        found = {
            "processes": self.processes(),
            "mounts": mounts,
            "pods": [name for name in os.listdir(pods) if name != ".lock"] if pods.exists() else [],
            "bundles": [name for name in os.listdir(bundles) if name.startswith(".")] if bundles.exists() else [],
        }
        return {name: value for name, value in found.items() if value}

    def settle(self, seconds: float = 20) -> dict:
        """Return ``left``, once nothing is, or after so long."""
        deadline = time.monotonic() + seconds
        while self.left() and time.monotonic() < deadline:
            time.sleep(0.05)
        return self.left()
