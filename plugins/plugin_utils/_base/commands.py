# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Commands that people can type as they are told: the program that they started, and a playbook by the name that it has for them."""

from __future__ import annotations

import os
import shlex
import shutil
import sys

PROGRAM = "ansible-playbook"
# Where the playbooks of an installed collection lie; they are run by the collection's name.
INSTALLED = os.path.join("ansible_collections", "ggen", "gvisor", "playbooks")


def shown(path: str) -> str:
    """Return a path as people write it: from the current folder where it is below that."""
    short = os.path.relpath(path)
    return path if short.startswith("..") or not os.path.isabs(path) else short


def program() -> str:
    """Return how this user calls ansible-playbook: by its name where that finds the one which runs, otherwise by its path."""
    own = sys.argv[0] if os.path.basename(sys.argv[0]) == PROGRAM else os.path.join(os.path.dirname(sys.executable), PROGRAM)
    found = shutil.which(PROGRAM)
    if found and os.path.realpath(found) == os.path.realpath(own):
        return PROGRAM
    return shown(os.path.abspath(own)) if os.path.exists(own) else PROGRAM


def project_root(playbook_dir: str) -> str:
    """Return the folder that output belongs to, from Ansible's ``playbook_dir``."""
    if playbook_dir.endswith(INSTALLED):
        return os.getcwd()
    return os.path.dirname(playbook_dir) if os.path.basename(playbook_dir) == "playbooks" else playbook_dir


def playbook_command(name: str, playbook_dir: str, options: str = "") -> str:
    """Return the command that runs the collection's playbook ``name``; ``playbook_dir`` is Ansible's, ``options`` are in shell's words."""
    if playbook_dir.endswith(INSTALLED):
        playbook = f"ggen.gvisor.{name}"
    else:  # a checkout's site.yml lies at its root
        root = os.path.dirname(playbook_dir) if os.path.basename(playbook_dir) == "playbooks" else playbook_dir
        playbook = shown(os.path.join(root, "playbooks", f"{name}.yml"))
    return " ".join(filter(None, [shlex.quote(program()), playbook, options]))
