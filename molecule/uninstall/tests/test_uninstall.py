"""Both hosts are what they were before site.yml: files, packages, units, programs. What may differ is told in tests/support/snapshot.py."""

from __future__ import annotations

import json

import pytest
from support.scenario import ARTIFACTS, run, snapshot_of
from support.snapshot import differences

HOSTS = ("bare-bookworm", "bare-trixie")


def what_differs(host: str) -> list[str]:
    return differences(json.loads((ARTIFACTS / f"{host}.json").read_text()), snapshot_of(host))


@pytest.mark.parametrize("host", HOSTS)
def test_the_host_is_as_it_was(host):
    assert what_differs(host) == []


def test_a_check_of_everything_changes_nothing_on_bare_hosts():
    done = run("site.yml", "--check", "--diff")
    assert done.rc == 0, done.errors
    assert done.changed
    assert {host: what_differs(host) for host in HOSTS} == {host: [] for host in HOSTS}
