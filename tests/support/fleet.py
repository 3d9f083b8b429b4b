# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reports and failures of a fleet, for the tests of what becomes of them."""

from __future__ import annotations

from ansible_collections.ggen.gvisor.plugins.plugin_utils._fleet.report import Run, fleet
from conftest import ROOT

TEMPLATE = (ROOT / "playbooks/templates/fleet.html.j2").read_text()


ABOUT = {"time": "2026-11-25T16:02:03+00:00", "command": "ansible-playbook site.yml"}


HOSTILE = '<script>alert(1)</script>"><img src=x onerror=alert(2)>'


def report(**changes) -> dict:
    """What host_report makes of a healthy host."""
    return {
        "time": "2026-11-25T16:00:00+00:00",
        "healthy": True,
        "drift": [],
        "host": {"distribution": "debian", "distribution_version": "13", "architecture": "amd64"},
        "gvisor": {
            "release": "20260701",
            "version": "runsc version x",
            "shim": "upstream",
            "files": {"/usr/local/lib/gvisor/1/runsc": "ab"},
        },
        "containerd": {"version": "1.7.24", "server_version": "1.7.24"},
        "image": {"references": ["docker.io/library/ggen:26.5.19"], "digest": "sha256:" + "8c1d" * 16, "namespaces": ["default"]},
        "proof": {"kernel": "Starting gVisor...", "runc": "ok", "seconds": 0.91},
        "runs": [{"path": "/srv/model", "args": ["sync"], "rc": 0, "duration": 0.45, "timings": {"pod": 0.5}}],
        **changes,
    }


def failure(why: str, *, unreachable: bool = False) -> dict:
    return {"task": "Look at the host", "why": why, "unreachable": unreachable}


def mixed() -> dict:
    """One host of each state."""
    reports = {"web2": report(), "db1": report(healthy=False, drift=["the link runsc does not lead to release 20260701"])}
    failures = {
        "web10": failure("No route to host", unreachable=True),
        "cache1": failure("No space left on device"),
        "localhost": failure("no Go"),
    }
    earlier = {"cache1": report(), "old1": report()}
    hosts = ["web2", "db1", "web10", "cache1", "late1"]
    return fleet(Run(hosts, reports=reports, failures=failures, others=["old1"], earlier=earlier, seconds={"web2": 2.34}))
