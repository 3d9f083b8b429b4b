"""Somebody else's configuration and containers on both hosts, beside gVisor."""

from __future__ import annotations

import json

from support.playbook import ROOT
from support.scenario import run

testinfra_hosts = ["ansible://existing"]

CONFIG = "/etc/containerd/config.toml"


def test_what_they_wrote_is_there_byte_for_byte_and_in_one_piece(host, theirs):
    text = host.file(CONFIG).content.decode()
    assert "runtimes.runsc]" in text
    assert theirs in text
    assert host.file(CONFIG).mode == 0o640


def test_their_container_runs_on_as_the_same_process(host):
    assert host.check_output("ctr tasks ls") == host.file("/root/tasks").content_string.strip()
    assert "RUNNING" in host.file("/root/tasks").content_string


def test_their_container_still_takes_commands(host):
    assert host.check_output("ctr tasks exec --exec-id hello theirs /bin/sh -c 'echo hello; sleep 0.3'") == "hello"


def test_new_containers_start_in_runc(in_runc):
    output = in_runc("another")
    assert output.endswith("done")
    assert "gVisor" not in output


def test_ggen_ran_in_gvisor(host):
    report = json.loads((ROOT / "reports" / f"{host.backend.host}.json").read_text())
    assert report["healthy"], report["drift"]
    (done,) = report["runs"]
    assert done["rc"] == 0
    assert done["kernel"].startswith("Starting gVisor")


def test_nothing_was_enabled_that_was_disabled(host):
    """Docker's users have no CRI, and a service that listens for kubelets is not theirs to have."""
    states = [line.split()[-1] for line in host.check_output("ctr plugins ls").splitlines() if line.split()[1] == "cri"]
    if host.backend.host == "theirs-docker":
        assert "ok" not in states
    else:
        assert states == ["ok"]


def test_their_handlers_are_loaded_beside_ours(host):
    if host.backend.host == "theirs-crun":
        log = host.check_output("journalctl --unit containerd --output cat --grep 'Start cri plugin with config'").splitlines()[-1]
        assert all(handler in log for handler in ("crun:{", "runc:{", "runsc:{"))


def test_verify_proves_the_hosts():
    done = run("playbooks/verify.yml")
    assert done.rc == 0, done.errors
    assert done.changed == []
