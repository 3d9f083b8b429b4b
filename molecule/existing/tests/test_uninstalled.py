"""And after gVisor is taken away again. The file comes last: what it does, no test before it may see."""

from __future__ import annotations

import json

import pytest
from support.scenario import ARTIFACTS, run, snapshot_of
from support.snapshot import differences

testinfra_hosts = ["ansible://existing"]

CONFIG = "/etc/containerd/config.toml"


@pytest.fixture(scope="session", autouse=True)
def _uninstalled():
    """Take gVisor away."""
    done = run("playbooks/uninstall.yml")
    assert done.rc == 0, done.errors


def test_the_host_has_what_it_had(host):
    before = json.loads((ARTIFACTS / f"{host.backend.host}.json").read_text())
    assert differences(before, snapshot_of(host.backend.host)) == []


def test_their_file_is_theirs_byte_for_byte(host, theirs):
    assert host.file(CONFIG).content.decode() == theirs
    assert host.file(CONFIG).mode == 0o640


def test_their_container_runs_on_as_the_same_process(host):
    assert host.check_output("ctr tasks ls") == host.file("/root/tasks").content_string.strip()


def test_new_containers_start_in_runc(in_runc):
    assert in_runc("afterwards").endswith("done")
