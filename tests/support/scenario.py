# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What tests of a molecule scenario need besides testinfra: its folders, its inventory, and the playbooks that end its story."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from support.playbook import ROOT, Play, play
from support.snapshot import snapshot

SCENARIO = Path(os.environ["MOLECULE_SCENARIO_DIRECTORY"])
ARTIFACTS = ROOT / ".artifacts" / "molecule" / SCENARIO.name
LAB = ROOT / ".artifacts" / "lab" / "molecule"


def run(playbook: str, *options: str, **variables: Any) -> Play:
    """Run a playbook of the checkout on the scenario's hosts, as molecule does."""
    inventory = [LAB / "inventory.yml", ROOT / "molecule" / "inventory.yml", SCENARIO / "inventory.yml"]
    return play(playbook, *options, inventory=inventory, **variables)


def snapshot_of(host: str) -> dict:
    """Take the snapshot of a host of the lab."""
    return snapshot("ssh", "-F", str(LAB / "ssh_config"), host)
