"""Each workspace was worked on as its entry says, by its owner."""

from __future__ import annotations

import json

import pytest
from support.playbook import ROOT
from support.scenario import ARTIFACTS, run

testinfra_hosts = ["ansible://ggen_run"]

BILLING, CATALOG, DRAFTS = (f"/srv/models/{name}" for name in ("billing", "catalog", "drafts"))
OWNERS = {BILLING: 1501, CATALOG: 1502, DRAFTS: 1503}
EXPECTED = ROOT / "tests/fixtures/examples/organization/expected"


@pytest.fixture(scope="module")
def results() -> dict[str, dict]:
    """What the first run left as the fact ggen_run_results, by workspace."""
    (file,) = ARTIFACTS.glob("*.json")
    return {result["path"]: result for result in json.loads(file.read_text())}


def test_all_ran_in_gvisor(results):
    assert list(results) == list(OWNERS)
    for result in results.values():
        assert result["rc"] == 0
        assert result["kernel"].startswith("Starting gVisor")


def test_each_had_its_own_arguments(results):
    assert results[BILLING]["args"] == ["sync"]
    assert results[CATALOG]["args"] == ["sync", "--audit", "true"]
    assert results[DRAFTS]["args"] == ["sync", "--dry_run", "true"]


@pytest.mark.parametrize("workspace", [BILLING, CATALOG])
def test_the_output_is_ggen_s_and_its_owner_s(host, workspace):
    for path in sorted(EXPECTED.glob("*.*")):
        file = host.file(f"{workspace}/generated/{path.name}")
        assert file.content == path.read_bytes()
        assert (file.uid, file.gid) == (OWNERS[workspace], OWNERS[workspace])
    others = host.check_output(f"find {workspace} -not -uid {OWNERS[workspace]}")
    assert others == ""


def test_a_dry_run_writes_no_output(host):
    assert not host.file(f"{DRAFTS}/generated").exists


def test_what_is_ignored_is_told_and_does_not_count(results):
    ignored = {path: {file["path"] for file in results[path]["changed_files"] if file["ignored"]} for path in OWNERS}
    counted = {path: {file["path"] for file in results[path]["changed_files"] if not file["ignored"]} for path in OWNERS}
    assert "generated/model.md" in ignored[BILLING]
    assert "generated/schema.sql" in counted[BILLING]
    assert "generated/schema.sql" in ignored[CATALOG]
    assert counted[CATALOG] == set()


def test_the_environment_reaches_ggen(results):
    """RUST_LOG is trace for all of them, and error for one."""
    traced = {path: any(" TRACE " in line for line in result["log"]) for path, result in results.items()}
    assert traced == {BILLING: True, CATALOG: False, DRAFTS: True}


def test_the_key_is_as_ggen_left_it(host):
    """ggen_run_close_key is false."""
    assert host.file(f"{BILLING}/.ggen/keys/signing.key").mode == 0o644


def test_limits_that_cannot_do_are_told_for_each_workspace():
    limits = {BILLING: {"timeout": 0.01}, CATALOG: {"memory": "8M"}, DRAFTS: {"cpus": 0.001}}
    done = run("molecule/ggen_run/converge.yml", ggen_run_workspaces=[{"path": path, **limit} for path, limit in limits.items()])
    assert done.rc != 0
    for words in ("did not end within 0.01 s", "less than the sandbox itself needs", "cpus=0.001 must be at least 0.01"):
        assert words in done.errors, done.errors


def test_nothing_is_left_running(host):
    ctr = "ctr --address /run/stranger/containerd.sock --namespace tools"
    assert host.check_output(f"{ctr} containers ls --quiet") == ""
    assert host.check_output(f"{ctr} tasks ls --quiet") == ""
