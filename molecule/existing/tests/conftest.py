"""What both parts of the story ask of a host."""

from __future__ import annotations

import pytest
import yaml
from support.scenario import SCENARIO

VARIABLES = yaml.safe_load((SCENARIO / "inventory.yml").read_text())["all"]["vars"]
THEIRS = {"theirs-docker": VARIABLES["docker_style"], "theirs-crun": VARIABLES["crun_style"]}


@pytest.fixture
def theirs(host) -> str:
    """The configuration that somebody else wrote on this host."""
    return THEIRS[host.backend.host]


@pytest.fixture
def in_runc(host):
    """Run a new container without gVisor and return its output."""

    def run(name: str) -> str:
        # ctr may lose the output of a command that ends at once.
        return host.check_output(f"ctr run --rm localhost/busybox:1 {name} /bin/sh -c 'dmesg 2>&1 | head -n 1; echo done; sleep 0.3'")

    return run
