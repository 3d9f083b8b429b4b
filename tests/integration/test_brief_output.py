# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a checkout's runs print: what was done, and nothing of what only led to it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

PLAYBOOK = """
- name: Play
  hosts: localhost
  gather_facts: false
  tasks:
    - name: Decide
      ansible.builtin.set_fact:
        decided: "{{ item }}"
      loop: [one, two]
    - name: Make sure
      ansible.builtin.assert:
        that: decided == 'two'
    - name: Go there
      ansible.builtin.include_tasks: more.yml
    - name: Insist
      ansible.builtin.assert:
        that: decided == 'one'
        fail_msg: It is two.
"""
MORE = """
- name: Say it
  ansible.builtin.debug:
    msg: [said, "and more"]
- name: Change it
  ansible.builtin.command:
    argv: ["true"]
"""


def printed(tmp_path: Path, *options: str) -> str:
    (tmp_path / "play.yml").write_text(PLAYBOOK)
    (tmp_path / "more.yml").write_text(MORE)
    argv = [str(Path(sys.executable).parent / "ansible-playbook"), *options, str(tmp_path / "play.yml")]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    return done.stdout + done.stderr


def test_what_only_leads_to_others_is_not_shown(tmp_path):
    text = printed(tmp_path)
    for quiet in ("TASK [Decide]", "TASK [Make sure]", "TASK [Go there]", "included:", "item=one"):
        assert quiet not in text
    assert "TASK [Say it]" in text
    assert "    - said\n    - and more\n" in text
    assert "changed: [localhost]" in text
    assert "TASK [Insist]" in text
    assert "It is two." in text


@pytest.mark.parametrize("shown", ["TASK [Decide]", "TASK [Make sure]", "TASK [Go there]", "included:"])
def test_with_v_all_is_shown(shown, tmp_path):
    assert shown in printed(tmp_path, "-v")
