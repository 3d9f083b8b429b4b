"""One bad host never stops the others, the run says who and why, and the next run brings all together."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

testinfra_hosts = ["ansible://fleet"]

ROOT = Path(__file__).resolve().parents[3]
KEPT = ROOT / ".artifacts" / "fleet"
WELL, OFF, FULL = ("fleet1", "fleet2", "fleet3", "fleet4"), "fleet-off", "fleet-full"


def states(page: str) -> dict[str, str]:
    """Return each row's state by its host, as the page says it."""
    found = re.findall(r'<tbody [^>]*class="(\w+)[^"]*">.*?<bdi>(.*?)</bdi>', page, re.DOTALL)
    return {host: state for state, host in found}


@pytest.fixture(scope="module")
def first() -> str:
    """What the run on the fleet with two bad hosts printed."""
    return (KEPT / "first.log").read_text()


def test_the_first_run_provisioned_the_others(first):
    recap = dict(re.findall(r"^(fleet\S+) +: (ok=.*)$", first, re.MULTILINE))
    for host in WELL:
        assert "failed=0" in recap[host]
        assert "unreachable=0" in recap[host]
    assert "unreachable=1" in recap[OFF]
    assert "failed=1" in recap[FULL]


def test_its_last_lines_say_who_why_and_the_fix(first):
    lines = first[first.index("\nfleet: ") :].strip().splitlines()
    assert lines[0] == "fleet: 4 healthy, 1 unreachable, 1 failed"
    assert lines[1].startswith(f"  {OFF} unreachable")
    assert "Start the host" in lines[3]
    assert f"--limit {OFF},build_hosts" in lines[3]
    assert lines[4].startswith(f"  {FULL} failed")
    assert re.search(r"The disk is full: /usr/bin and /usr/local/lib/gvisor have \d+ MB free where \d+ MB are needed", lines[5])
    assert lines[-1].endswith("reports/fleet.html")


def test_its_page_says_the_same():
    page = (KEPT / "first.html").read_text()
    assert states(page) == {OFF: "unreachable", FULL: "failed", **dict.fromkeys(WELL, "healthy")}
    assert "The disk is full: /usr/bin" in page


def test_the_full_host_was_refused_before_anything_changed(first):
    (changed,) = re.findall(rf"^{FULL} +: .*changed=(\d+)", first, re.MULTILINE)
    assert changed == "0"


def test_now_all_are_healthy(host):
    report = json.loads((ROOT / "reports" / f"{host.backend.host}.json").read_text())
    assert report["healthy"], report["drift"]
    assert report["runs"][0]["kernel"].startswith("Starting gVisor")
    assert host.service("containerd").is_running
    assert host.file("/usr/local/bin/runsc").linked_to == f"/usr/local/lib/gvisor/{report['gvisor']['release']}/runsc"


def test_the_page_says_so():
    assert states((ROOT / "reports" / "fleet.html").read_text()) == dict.fromkeys((*WELL, OFF, FULL), "healthy")
