# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run a play as an operator does and take every byte that he gets to see."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent.parent


class Shown(NamedTuple):
    """A play's exit code and what it printed; bytes that are no UTF-8 are lone surrogates."""

    rc: int
    text: str


def run_play(folder: Path, tasks: Sequence[Mapping[str, Any]], *words: str, env: Mapping[str, str] | None = None) -> Shown:
    """Run ``tasks`` on this machine with a playbook in ``folder`` and the command line's ``words``."""
    playbook = folder / "play.yml"
    playbook.write_text(json.dumps([{"hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": list(tasks)}]))
    argv = [sys.executable, "-m", "ansible", "playbook", "-i", str(ROOT / "inventories" / "local"), str(playbook), *words]
    settings = {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1", "LC_ALL": "C.UTF-8"}
    done = subprocess.run(
        argv,
        cwd=folder,
        env={**os.environ, **settings, **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=180,
        check=False,
    )
    return Shown(done.returncode, done.stdout.decode("utf-8", "surrogateescape"))
