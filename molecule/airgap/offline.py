"""Run a playbook as a controller without network would: offline.py PLAYBOOK [OPTION …]

The controller is this machine in the network of one of the scenario's hosts, from which there is a way to the other hosts and nowhere else. Its folders for
builds, images and reports are its own, and so is its build cache: all of them empty at first.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "lab"))

from lab import Lab, LabError, processes  # noqa: E402 - found by the line above

LAB, CONTROLLER = "molecule", "airgap-bookworm"
FOLDER = ROOT / ".artifacts" / "airgap"
BUNDLE, PROJECT = FOLDER / "bundle.tar", FOLDER / "project"
INVENTORIES = (f".artifacts/lab/{LAB}/inventory.yml", "molecule/inventory.yml", "molecule/airgap/inventory.yml")


def network_of(host: str) -> str:
    """Return the network namespace of a host that runs. Raises LabError."""
    record = Lab(LAB).record()["hosts"].get(host)
    own = os.readlink("/proc/self/ns/net")
    for pid in sorted(processes(record)) if record else []:
        path = f"/proc/{pid}/ns/net"
        try:
            if os.readlink(path) != own:  # a host's outermost processes are still in this machine's
                return path
        except OSError:
            continue
    raise LabError(f"the lab {LAB} has no host {host} that runs")


def run(*command: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command without network."""
    return subprocess.run(["nsenter", f"--net={network_of(CONTROLLER)}", "--", *command], check=False, text=True, **options)


def playbook(name: str, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a playbook without network."""
    connections = tempfile.mkdtemp(prefix="airgap.")
    # A connection that molecule has open leads through this machine's own network.
    variables = {
        "ansible_control_path_dir": connections,
        "ansible_ssh_args": "-o ControlMaster=auto -o ControlPersist=5s",
        "project": str(PROJECT),
    }
    inventories = [f"--inventory={ROOT / path}" for path in INVENTORIES]
    environment = {
        **os.environ,
        "MOLECULE_PROJECT_DIRECTORY": str(ROOT),
        "XDG_CACHE_HOME": str(PROJECT / "cache"),
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
    }
    program = str(Path(sys.executable).with_name("ansible-playbook"))
    try:
        return run(program, *inventories, "-e", json.dumps(variables), name, *arguments, env=environment, cwd=ROOT, **options)
    finally:
        shutil.rmtree(connections)


if __name__ == "__main__":
    sys.exit(playbook(*sys.argv[1:]).returncode)
