"""Both hosts run gVisor, each in the newest release that its containerd can use."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.scenario import run

testinfra_hosts = ["ansible://default"]

ROOT = Path(__file__).resolve().parents[3]
RELEASES = {"bookworm": "20260224", "trixie": "20260701"}


@pytest.fixture
def report(host):
    """The host's report, as site.yml left it."""
    return json.loads((ROOT / "reports" / f"{host.backend.host}.json").read_text())


def test_the_release_is_the_newest_that_containerd_can_use(host, report):
    release = RELEASES[host.backend.host]
    assert report["gvisor"]["release"] == release
    for name in ("runsc", "containerd-shim-runsc-v1"):
        link = host.file(f"/usr/local/bin/{name}")
        assert link.is_symlink
        assert link.linked_to == f"/usr/local/lib/gvisor/{release}/{name}"


def test_the_programs_are_those_that_were_built(host, report):
    for path, sha256 in report["gvisor"]["files"].items():
        assert host.file(path).sha256sum == sha256
        assert host.file(path).mode == 0o755


def test_the_command_runs_sandboxes_and_finds_the_host_well(host, report):
    link = host.file("/usr/local/bin/ggen-gvisor")
    assert link.linked_to == f"/usr/local/lib/gvisor/{report['gvisor']['release']}/ggen-gvisor"
    with host.sudo():
        done = host.run("ggen-gvisor run -- /usr/local/bin/ggen --version")
        assert (done.rc, done.stderr) == (0, "")
        assert "26.5.19" in done.stdout
        healthy = host.run("ggen-gvisor doctor")
    assert healthy.rc == 0, healthy.stdout


def test_containerd_runs_and_has_the_image(host, report):
    assert host.service("containerd").is_running
    with host.sudo():
        listed = host.check_output("ctr images ls name==docker.io/library/ggen:latest").splitlines()[1:]
    assert [line.split()[2] for line in listed] == [report["image"]["digest"]]


def test_ggen_ran_in_gvisor(host, report):
    (run,) = report["runs"]
    assert run["rc"] == 0
    assert run["kernel"].startswith("Starting gVisor")
    with host.sudo():
        assert host.file("/var/lib/ggen.gvisor/workspaces/organization/generated/schema.sql").is_file


def test_another_run_changes_nothing_and_costs_a_handful_of_executions():
    done = run("site.yml")
    assert done.rc == 0, done.errors
    assert done.changed == []
    for name in RELEASES:
        assert len(done.executions(name)) <= 6, done.executions(name)


def test_verify_proves_every_host():
    done = run("playbooks/verify.yml")
    assert done.rc == 0, done.errors
    assert done.changed == []
    assert all(f"{name} is healthy" in done.output for name in RELEASES)


def test_verify_names_what_lets_members_run_the_command_and_site_mends_it(host):
    rule, limit = "/etc/sudoers.d/ggen-gvisor", ("--limit", f"{host.backend.host},build_hosts")
    with host.sudo():
        wanted = host.file(rule).content_string
        host.check_output(f"sh -c 'echo \"# mine\" >> {rule}'")
    done = run("playbooks/verify.yml", *limit)
    assert done.rc != 0
    assert "the rule that lets members of a group run ggen-gvisor is missing, changed" in done.errors
    assert run("site.yml", *limit).rc == 0
    with host.sudo():
        assert host.file(rule).content_string == wanted
    assert run("playbooks/verify.yml", *limit).rc == 0
