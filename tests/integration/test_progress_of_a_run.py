# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real run prints what it is at while it is at it."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT

CALLBACK = ROOT / "plugins" / "callback" / "progress.py"
PLAYBOOK = """
- name: First
  hosts: all
  gather_facts: false
  tasks:
    - name: Quick
      ansible.builtin.debug:
- name: Second
  hosts: all
  gather_facts: false
  tasks:
    - name: Take one's time
      ansible.builtin.command:
        argv: [cat, "{{ playbook_dir }}/{{ inventory_hostname }}"]
      changed_when: false
"""


def end_input(pipe: Path, process: subprocess.Popen) -> None:
    """Have who reads the pipe read its end, once it reads; a run that is over before is no reason to wait for ever."""
    while process.poll() is None:
        with contextlib.suppress(OSError):  # nobody has opened it to read
            os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
            return
        time.sleep(0.02)


@pytest.mark.parametrize("first", ["0.2", "0"])
def test_a_run_tells_what_it_waits_for(tmp_path: Path, first: str) -> None:
    (tmp_path / "callback_plugins").mkdir()
    shutil.copy2(CALLBACK, tmp_path / "callback_plugins" / "ggen_gvisor_progress.py")
    (tmp_path / "play.yml").write_text(PLAYBOOK)
    for name in ("one", "two"):
        os.mkfifo(tmp_path / name)
    inventory = f"one,two,three, -e ansible_connection=local -e ansible_python_interpreter={sys.executable}"
    (tmp_path / "three").write_text("")
    process = subprocess.Popen(
        [Path(sys.executable).parent / "ansible-playbook", "play.yml", "-i", *inventory.split()],
        cwd=tmp_path,
        env={**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".collections"), "GGEN_GVISOR_PROGRESS": first, "LC_ALL": "C.UTF-8"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr
    if float(first):
        # The commands wait for the test and the test for the line: neither comes by chance.
        wanted = re.compile(r"… play 2 of 2, Second \| Take one's time: 1 of 3 hosts, one, two at it for \d+s\n")
        assert any(wanted.fullmatch(text) for text in itertools.islice(process.stderr, 8))
        assert process.poll() is None
    for name in ("one", "two"):
        end_input(tmp_path / name, process)
    printed, errors = process.communicate(timeout=60)
    assert process.returncode == 0, printed + errors
    assert "…" not in printed
    assert float(first) or "…" not in errors
