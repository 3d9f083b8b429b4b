"""The same over SSH, on real hosts with systemd: two bare ones with two releases of containerd, and one that somebody else set up."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from conftest import ROOT
from support.playbook import play
from support.snapshot import differences, snapshot

pytestmark = pytest.mark.host

LAB = [sys.executable, str(ROOT / "tests/lab/lab.py"), "--lab", "e2e", "--hosts", str(ROOT / "tests/e2e/hosts.yml")]
FOLDER = ROOT / ".artifacts" / "lab" / "e2e"
HOSTS = ("bookworm", "trixie", "existing")
RELEASES = {"bookworm": "20260224", "trixie": "20260701", "existing": "20260701"}
# What somebody else's containerd has: comments, another handler, settings of its own.
THEIRS = """\
# maintained by the platform team; ask before you touch it
version = 2

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "registry.example.org/pause:3.9"   # mirrored
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.crun]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.crun.options]
      BinaryName = "/usr/bin/crun"
"""


def ssh(host: str, *command: str, given: str | None = None) -> str:
    """Run a command on a host and return what it printed."""
    argv = ["ssh", "-F", str(FOLDER / "ssh_config"), host, *command]
    return subprocess.run(argv, input=given, capture_output=True, text=True, check=True, timeout=120).stdout


def site(playbook: str = "site.yml", *options: str, **variables):
    return play(playbook, *options, inventory=FOLDER / "inventory.yml", **variables)


@pytest.fixture(scope="module")
def hosts():
    """The hosts, fresh, and what each of them has."""
    subprocess.run([*LAB, "down"], check=True, capture_output=True)
    up = subprocess.run([*LAB, "up"], check=False, capture_output=True, text=True)
    assert up.returncode == 0, up.stderr
    try:
        ssh("existing", "tee", "/etc/containerd/config.toml", given=THEIRS)
        ssh("existing", "systemctl", "restart", "containerd")
        yield {host: snapshot("ssh", "-F", str(FOLDER / "ssh_config"), host) for host in HOSTS}
    finally:
        subprocess.run([*LAB, "down"], check=True, capture_output=True)


def compare(before: dict) -> dict[str, list[str]]:
    """What differs on each host, the hosts without differences left out."""
    found = {host: differences(before[host], snapshot("ssh", "-F", str(FOLDER / "ssh_config"), host)) for host in HOSTS}
    return {host: lines for host, lines in found.items() if lines}


def test_check_mode_changes_nothing_on_bare_hosts(hosts):
    done = site("site.yml", "--check", "--diff")
    assert done.rc == 0, done.errors
    assert done.changed
    assert compare(hosts) == {}


def test_one_run_provisions_them_all(hosts):
    done = site()
    assert done.rc == 0, done.errors
    for host in HOSTS:
        report = json.loads((ROOT / "reports" / f"{host}.json").read_text())
        assert report["healthy"], report["drift"]
        assert report["gvisor"]["release"] == RELEASES[host]
        assert report["host"]["service_manager"] == "systemd"
        assert report["proof"]["kernel"].startswith("Starting gVisor")


def test_the_second_run_changes_nothing_and_costs_a_handful_of_executions(hosts):
    done = site()
    assert done.rc == 0, done.errors
    assert done.changed == []
    for host in HOSTS:
        assert len(done.executions(host)) <= 6, done.executions(host)


def test_a_host_s_own_settings_are_still_there(hosts):
    text = ssh("existing", "cat", "/etc/containerd/config.toml")
    assert all(line in text.splitlines() for line in THEIRS.splitlines())
    assert "runtimes.runsc]" in text


def test_verify_proves_every_host(hosts):
    done = site("playbooks/verify.yml")
    assert done.rc == 0, done.errors
    assert done.changed == []
    assert all(f"{host} is healthy" in done.output for host in HOSTS)


def test_uninstall_gives_every_host_back_as_it_was(hosts):
    done = site("playbooks/uninstall.yml")
    assert done.rc == 0, done.errors
    assert compare(hosts) == {}
    assert ssh("existing", "cat", "/etc/containerd/config.toml") == THEIRS
    assert ssh("existing", "systemctl", "is-active", "containerd").strip() == "active"
