"""A Mac with Colima: the inventory plugin, and a runtime handler that outlives each start of the guest.

The guest is a host of the lab. The Mac's side is imitated (tests/support/colima.py), since Colima runs on Macs alone: its `colima start` copies the
configuration into the guest and restarts containerd there, as Colima's own does.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from conftest import ROOT
from support.colima import CONFIG, EMBEDDED, Guest, Mac, mac
from support.playbook import Play, play
from support.snapshot import differences, snapshot

LAB = [sys.executable, str(ROOT / "tests/lab/lab.py"), "--lab", "colima", "--hosts", str(ROOT / "tests/e2e/colima_hosts.yml")]
FOLDER = ROOT / ".artifacts" / "lab" / "colima"
ROLE = {"name": "ggen.gvisor.containerd_gvisor"}
TASKS = {
    "provision": [{"ansible.builtin.include_role": ROLE}],
    "verify": [{"ansible.builtin.include_role": {**ROLE, "tasks_from": "verify_host"}}],
    "uninstall": [{"ansible.builtin.include_role": {**ROLE, "tasks_from": "remove"}}],
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mac]:
    """The Mac and its running guest."""
    subprocess.run([*LAB, "down"], check=True, capture_output=True)
    up = subprocess.run([*LAB, "up"], check=False, capture_output=True, text=True)
    assert up.returncode == 0, up.stderr
    try:
        hosts = yaml.safe_load((FOLDER / "inventory.yml").read_text())["all"]["children"]["lab_hosts"]["hosts"]
        guest = Guest(
            status="Stopped", arch="x86_64", address=hosts["guest"]["ansible_host"], port=22, user="admin", key=str(FOLDER / "id_ed25519")
        )
        # A folder's name with a blank, as Macs have.
        yield mac(tmp_path_factory.mktemp("a Mac"), [guest])
    finally:
        subprocess.run([*LAB, "down"], check=True, capture_output=True)


@pytest.fixture(scope="module")
def before(made: Mac) -> dict:
    """What the guest has after its first start, when Colima has left its default in the central place."""
    restart(made)
    assert made.central_config.read_text() == EMBEDDED
    return snapshot("ssh", "-F", str(FOLDER / "ssh_config"), "guest")


def restart(made: Mac) -> None:
    made.run("colima", "stop")
    made.run("colima", "start")


def ssh(*command: str, given: str | None = None) -> str:
    argv = ["ssh", "-F", str(FOLDER / "ssh_config"), "guest", *command]
    return subprocess.run(argv, input=given, capture_output=True, text=True, check=True, timeout=60).stdout


def run(made: Mac, tasks: str, monkeypatch: pytest.MonkeyPatch, *options: str, **variables: object) -> Play:
    """Run a part of the role on what inventories/colima finds, as the Mac's user."""
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    for name, value in {**made.env, "XDG_CACHE_HOME": cache}.items():
        monkeypatch.setenv(name, value)
    path = made.root / f"{tasks}.yml"
    path.write_text(json.dumps([{"hosts": "sandbox_hosts", "gather_facts": False, "tasks": TASKS[tasks]}]))
    where = {"containerd_gvisor_source": str(ROOT / "bin"), "containerd_gvisor_reports": str(made.root / "reports")}
    done = play(str(path), *options, inventory=ROOT / "inventories" / "colima", **where, **variables)
    assert set(done.stats.get("processed", {})) == {"colima"}, done.output
    return done


def plugins() -> str:
    return ssh("ctr", "plugins", "ls")


def test_the_guest_builds_what_a_mac_cannot(made, before, monkeypatch, tmp_path):
    """The whole site.yml with nothing built: uname on the controller says Darwin, and everything would be built in the guest."""
    for name, value in {**made.env, "XDG_CACHE_HOME": str(tmp_path / "cache")}.items():
        monkeypatch.setenv(name, value)
    places = {"runsc_build_dest": tmp_path / "bin", "containerd_gvisor_source": tmp_path / "bin", "ggen_build_dest": tmp_path / "dist"}
    binary = {"ggen_build_source": "binary", "ggen_build_binary": "/usr/bin/ggen", "ggen_build_binary_sha256": "0" * 64}
    reports = {"containerd_gvisor_reports": str(made.root / "reports")}
    where = {name: str(path) for name, path in places.items()}
    done = play("site.yml", "--check", inventory=ROOT / "inventories" / "colima", **where, **binary, **reports)
    assert done.rc == 0, done.errors
    assert done.result("Decide what to build")["msg"] == "runsc 20260701/amd64"
    said = {event["task"]: (event["host"], event["res"]["msg"]) for event in done.results if "would build" in str(event["res"].get("msg"))}
    assert {host for host, _said in said.values()} == {"colima"}
    assert any("would build runsc 20260701/amd64" in text for _host, text in said.values())
    assert any("would build ggen" in text for _host, text in said.values())


def test_check_mode_shows_both_files_and_writes_none(made, before, monkeypatch):
    done = run(made, "provision", monkeypatch, "--check", "--diff")
    assert done.rc == 0, done.errors
    assert f"{made.profile_config()} (on the controller)" in done.output
    assert not made.profile_config().exists()
    assert ssh("cat", CONFIG) == EMBEDDED


def test_the_handler_is_in_the_guest_and_in_the_profile_s_file(made, before, monkeypatch):
    done = run(made, "provision", monkeypatch)
    assert done.rc == 0, done.errors
    text = made.profile_config().read_text()
    assert "runtimes.runsc]" in text
    assert EMBEDDED in text
    assert ssh("cat", CONFIG) == text
    assert made.central_config.read_text() == EMBEDDED


def test_a_second_run_changes_nothing(made, before, monkeypatch):
    done = run(made, "provision", monkeypatch)
    assert done.rc == 0, done.errors
    assert done.changed == []
    assert len(done.executions("colima")) <= 2, done.executions("colima")


def test_gvisor_works_after_the_next_start(made, before, monkeypatch):
    restart(made)
    assert ssh("cat", CONFIG) == made.profile_config().read_text()
    done = run(made, "verify", monkeypatch)
    assert done.rc == 0, done.errors
    assert "colima is healthy" in done.output
    report = json.loads((made.root / "reports" / "colima.json").read_text())
    assert report["proof"]["kernel"].startswith("Starting gVisor")
    assert report["config"]["boot_config"] == str(made.profile_config())


def test_drift_between_guest_and_mac_is_told_and_fixed(made, before, monkeypatch):
    kept = made.profile_config().read_text()
    made.profile_config().unlink()
    done = run(made, "verify", monkeypatch)
    assert done.rc != 0
    assert f"{made.central_config} has no runtime handler runsc, and the host's next start copies it over {CONFIG}" in done.errors
    ssh("tee", "-a", CONFIG, given="# by hand\n")
    made.profile_config().write_text(kept)
    done = run(made, "verify", monkeypatch)
    assert f"{CONFIG} is not the same as {made.profile_config()} on the controller" in done.errors
    assert run(made, "provision", monkeypatch).rc == 0
    assert ssh("cat", CONFIG) == kept
    assert run(made, "verify", monkeypatch).rc == 0


def test_a_start_without_the_profile_s_file_is_fixed(made, before, monkeypatch):
    made.profile_config().unlink()
    restart(made)
    assert ssh("cat", CONFIG) == EMBEDDED
    assert run(made, "provision", monkeypatch).rc == 0
    restart(made)
    assert run(made, "verify", monkeypatch).rc == 0


def test_uninstall_gives_guest_and_mac_back(made, before, monkeypatch):
    done = run(made, "uninstall", monkeypatch)
    assert done.rc == 0, done.errors
    assert not made.profile_config().parent.exists()
    assert made.central_config.read_text() == EMBEDDED
    assert differences(before, snapshot("ssh", "-F", str(FOLDER / "ssh_config"), "guest")) == []
    restart(made)
    assert " error" not in plugins()


def test_an_older_colima_is_refused_with_a_script_that_works(made, before, monkeypatch):
    made.update(version="0.8.1")
    done = run(made, "provision", monkeypatch)
    assert done.rc != 0
    assert "Colima 0.8.1 replaces /etc/containerd/config.toml at each start" in done.errors
    assert ssh("cat", CONFIG) == EMBEDDED
    # Do what it says. Lima runs such a script as root, at each boot and before Colima has its turn.
    snippet = re.search(r"^  provision:\n.*?(?=^start)", done.errors, re.MULTILINE | re.DOTALL)
    assert snippet, done.errors
    (entry,) = yaml.safe_load(snippet[0])["provision"]
    assert entry["mode"] == "system"
    keep = re.search(r"^  (ssh .+)$", done.errors, re.MULTILINE)
    assert keep, done.errors
    ssh("sudo", "sh", given=entry["script"])
    restart(made)
    assert run(made, "provision", monkeypatch, containerd_gvisor_boot_config=[]).rc == 0
    subprocess.run(shlex.split(keep[1]), check=True, timeout=60)
    restart(made)
    assert "runtimes.runsc]" in ssh("cat", CONFIG)
    assert run(made, "verify", monkeypatch, containerd_gvisor_boot_config=[]).rc == 0
