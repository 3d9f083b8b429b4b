# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lines that tell what a run is at: their text, when they come, and that a real run prints them while it is at it."""

from __future__ import annotations

import itertools
import os
import re
import runpy
import shutil
import subprocess
import sys
import threading
import types
from pathlib import Path

import pytest
from ansible_collections.ggen.gvisor.plugins.plugin_utils._fleet.progress import Moment, line, next_line
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


def test_a_line_says_where_what_and_how_long() -> None:
    hosts = ["a", "b", "c", "d", "e"]
    some = Moment(4, 6, "Provision", "Install containerd", 2, hosts, 83.4)
    assert line(some) == "… play 4 of 6, Provision | Install containerd: 2 of 7 hosts, a, b, c and 2 more at it for 1m23s"
    assert line(some._replace(at_it=hosts[:3])).endswith("2 of 5 hosts, a, b, c at it for 1m23s")
    assert line(some._replace(done=0, at_it=["a"])).endswith("| Install containerd on a for 1m23s")


@pytest.mark.parametrize(("first", "times"), [(5, [5, 10, 20, 40, 80, 140, 200]), (90, [90, 150, 210])])
def test_lines_come_less_and_less_often_and_then_once_a_minute(first: float, times: list[float]) -> None:
    assert list(itertools.accumulate(times[1:], lambda said, _: next_line(said, first), initial=next_line(0, first))) == times


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
        (tmp_path / name).write_text("")  # opens when the command has opened it to read
    printed, errors = process.communicate(timeout=60)
    assert process.returncode == 0, printed + errors
    assert "…" not in printed
    assert float(first) or "…" not in errors


@pytest.mark.parametrize("first", [0.0, 5.0])
def test_the_thread_ends_with_its_playbook(first: float) -> None:
    """One command can run several playbooks, and each starts a thread."""
    callback = runpy.run_path(str(CALLBACK))["CallbackModule"]()
    callback.get_option = {"first": first}.get
    before = threading.active_count()
    for _playbook in range(20):
        callback.v2_playbook_on_start(types.SimpleNamespace(get_plays=list))
        callback.v2_playbook_on_stats(None)
        assert threading.active_count() == before
