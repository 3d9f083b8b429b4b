# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The comparisons that one host makes by itself: the module beside `docker run`, turn by turn. Runs on that host, where only Python is.

python3 on_host.py FOLDER TURNS     # FOLDER holds ansible's module_utils, the collection and the workspace; prints JSON
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from typing import Any, Callable

MODULE = "ansible_collections.ggen.gvisor.plugins.modules.containerd_run"
IMAGE = "docker.io/library/ggen:latest"
MANY = 20


class Bench:
    """The folder with everything, and how often each thing is timed."""

    def __init__(self, folder: str, turns: int) -> None:
        self.folder = folder
        self.turns = turns
        self.environment = {**os.environ, "PYTHONPATH": os.path.join(folder, "python"), "LC_ALL": "C.UTF-8"}

    def workspace(self, number: int = 0) -> str:
        """A workspace of its own, in which everything is generated already."""
        path = os.path.join(self.folder, f"workspace{number}")
        if not os.path.isdir(path):
            shutil.copytree(os.path.join(self.folder, "workspace"), path)
        return path

    def module(self, **params: Any) -> dict[str, Any]:
        """Run the module as Ansible does, its own process with its arguments on standard input. Raises AssertionError when it fails."""
        arguments = {"image": IMAGE, "argv": ["/usr/local/bin/ggen", "sync"], **params, "_ansible_version": "2.19.0"}
        done = subprocess.run(
            [sys.executable, "-m", MODULE],
            input=json.dumps({"ANSIBLE_MODULE_ARGS": arguments}),
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        result = json.loads(done.stdout)
        assert not result.get("failed"), result
        return result

    def docker(self, workspace: str, *options: str) -> None:
        """The same by Docker. Raises CalledProcessError."""
        argv = [
            "docker",
            "run",
            "--rm",
            "--runtime=runsc",
            "--network=none",
            "--volume",
            f"{workspace}:/workspace",
            "--workdir",
            "/workspace",
        ]
        subprocess.run([*argv, *options, "ggen:latest", "sync"], check=True, capture_output=True)

    def interleaved(self, ways: dict[str, Callable[[], Any]], turns: int = 0) -> dict[str, list[float]]:
        """Time every way once a turn, after one turn that does not count; return the seconds of each."""
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for turn in range((turns or self.turns) + 1):
            for name, way in ways.items():
                begin = time.monotonic()
                way()
                if turn:
                    seconds[name].append(time.monotonic() - begin)
        return seconds

    def warm_and_many(self) -> dict[str, Any]:
        """MANY workspaces in one run: a pod each, one pod for all, and as many times Docker. The jobs of a pod that is there already are the warm runs."""
        places = [self.workspace(number) for number in range(MANY)]
        jobs = [{"workspace": place} for place in places]
        warm: list[list[float]] = []

        def one_pod() -> None:
            done = self.module(jobs=jobs, pods="one")
            warm.append([job["timings"]["total"] for job in done["jobs"][1:-1]])

        def docker() -> None:
            for place in places:
                self.docker(place)

        seconds = self.interleaved({"each": lambda: self.module(jobs=jobs), "one": one_pod, "docker": docker}, max(self.turns // 3, 1))
        return {"seconds": seconds, "warm": [value for values in warm[1:] for value in values]}

    def one_run(self) -> dict[str, Any]:
        """One ggen sync, from the command to its exit."""
        place = self.workspace()
        parts: list[dict[str, float]] = []
        seconds = self.interleaved(
            {
                "ours": lambda: parts.append(self.module(workspace=place)["timings"]),
                "docker": lambda: self.docker(place),
            }
        )
        return {"seconds": seconds, "parts": parts[1:]}


def main() -> None:
    """Make every comparison that is asked for."""
    folder, turns, *names = sys.argv[1:]
    bench = Bench(folder, int(turns))
    print(json.dumps({name: getattr(bench, name)() for name in names}))


if __name__ == "__main__":
    main()
