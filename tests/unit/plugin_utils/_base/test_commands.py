# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What people are told to type is what they can type."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from ansible_collections.ggen.gvisor.plugins.plugin_utils._base import commands


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    program = tmp_path / ".venv" / "bin" / "ansible-playbook"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "argv", [str(program), "site.yml"])
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_program_that_is_not_on_the_path_is_named_by_its_own(checkout):
    assert commands.program() == ".venv/bin/ansible-playbook"


def test_one_that_the_path_finds_is_named_alone(checkout, monkeypatch):
    monkeypatch.setenv("PATH", f"{checkout}/.venv/bin:/usr/bin")
    assert commands.program() == "ansible-playbook"


def test_another_one_on_the_path_does_not_count(checkout, monkeypatch):
    other = checkout / "other" / "ansible-playbook"
    other.parent.mkdir()
    other.write_text("#!/bin/sh\n")
    other.chmod(0o755)
    monkeypatch.setenv("PATH", str(other.parent))
    assert commands.program() == ".venv/bin/ansible-playbook"


@pytest.mark.parametrize("folder", ["", "playbooks"])
def test_a_checkout_s_playbook_is_a_file(checkout, folder):
    told = commands.playbook_command("upgrade", str(checkout / folder) if folder else str(checkout), "--limit web1")
    assert told == ".venv/bin/ansible-playbook playbooks/upgrade.yml --limit web1"


def test_an_installed_one_has_the_collection_s_name(checkout):
    told = commands.playbook_command("verify", "/usr/share/ansible/collections/ansible_collections/ggen/gvisor/playbooks")
    assert told == ".venv/bin/ansible-playbook ggen.gvisor.verify"
