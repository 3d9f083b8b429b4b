"""The lab's pure parts: hosts files, inventories, addresses, mirrors. The hosts themselves: tests/lab/test_lab.py."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "tests" / "lab"))
import lab


def test_defaults_lie_below_the_hosts_own_keys() -> None:
    plan = lab.Plan.parse({"defaults": {"suite": "trixie", "disk": "1G"}, "hosts": {"a": {}, "b": {"disk": "2G"}}})
    assert [(host.name, host.suite, host.disk) for host in plan.hosts] == [("a", "trixie", "1G"), ("b", "trixie", "2G")]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "a hosts file is a mapping"),
        ({"hosts": {}}, "a hosts file is a mapping"),
        ({"hosts": {"a": {"suite": "trixie"}}, "x": 1}, "a hosts file is a mapping"),
        ({"hosts": {"a": {"suite": "trixie", "sise": 1}}}, "sise"),
        ({"hosts": {"a": {}}}, "suite"),
        ({"hosts": {"a": {"suite": "sid"}}}, "host a: suite 'sid' is none of bookworm, trixie, forky"),
        ({"hosts": {"A_b": {"suite": "trixie"}}}, "host A_b: a name is"),
    ],
)
def test_a_wrong_hosts_file_is_an_error_that_names_the_mistake(data: object, message: str) -> None:
    with pytest.raises(lab.LabError, match=message):
        lab.Plan.parse(data)


def test_a_hosts_file_that_is_no_yaml_is_named(tmp_path: Path) -> None:
    path = tmp_path / "hosts.yml"
    path.write_text("hosts: {", encoding="utf-8")
    with pytest.raises(lab.LabError, match=str(path)):
        lab.Plan.load(path)


def test_select() -> None:
    plan = lab.Plan.parse({"defaults": {"suite": "trixie"}, "hosts": {"a": {}, "b": {"boot": False}}})
    assert [host.name for host in plan.select([])] == ["a"]
    assert [host.name for host in plan.select(["b"])] == ["b"]
    with pytest.raises(lab.LabError, match=r"no such host: c \(there are a, b\)"):
        plan.select(["c"])


def test_the_inventory_adds_to_the_groups_of_the_hosts_file(tmp_path: Path) -> None:
    data = {
        "hosts": {"a": {"suite": "trixie", "groups": ["sandbox_hosts", "old"], "vars": {"x": 1}}},
        "inventory": {"build_hosts": {"hosts": {"localhost": {}}}, "sandbox_hosts": {"vars": {"y": 2}}},
    }
    record = {"hosts": {"a": {"address": "10.213.7.2"}}, "sockets": "/s"}
    groups = lab.Lab("mine", tmp_path).inventory(lab.Plan.parse(data), record)["all"]["children"]
    assert groups["lab_hosts"]["hosts"] == {"a": {"ansible_host": "10.213.7.2", "x": 1}}
    assert groups["lab_hosts"]["vars"]["ansible_ssh_common_args"] == f"-F {tmp_path}/mine/ssh_config"
    assert groups["sandbox_hosts"] == {"vars": {"y": 2}, "hosts": {"a": {}}}
    assert groups["build_hosts"] == {"hosts": {"localhost": {}}}
    assert groups["old"] == {"hosts": {"a": {}}}


def test_subnets_collide_neither_with_labs_nor_with_routes() -> None:
    assert lab.free_number([], ["default", "192.0.2.0/24"]) == 1
    assert lab.free_number(["1", "3"], ["10.213.2.0/24", "10.213.4.7"]) == 5
    assert str(lab.subnet(5)) == "10.213.5.0/24"
    with pytest.raises(lab.LabError, match="no free /24"):
        lab.free_number([], ["10.0.0.0/8"])


@pytest.mark.parametrize(
    ("sources", "found"),
    [
        ("deb http://one.example/debian/ bookworm main\n", "http://one.example/debian"),
        ("deb [signed-by=/k] https://one.example/x/debian trixie main", "https://one.example/x/debian"),
        ("Types: deb\nURIs: http://one.example/debian\nSuites: trixie\n", "http://one.example/debian"),
        ("# deb http://one.example/debian bookworm main\ndeb-src http://one.example/debian bookworm main", None),
        ("deb http://one.example/debian-security bookworm-security main", None),
        ("deb http://one.example/ubuntu noble main", None),
    ],
)
def test_the_machines_own_mirror(sources: str, found: str | None) -> None:
    assert lab.mirror_in(sources, "debian") == found


def test_the_name_of_a_base_is_a_digest_of_what_goes_into_it() -> None:
    def name(*arguments: object) -> str:
        return lab.Base(*arguments).path.name

    assert name("trixie", ["a", "b"]) == name("trixie", ["b", "a", "systemd"])
    assert len({name("trixie", []), name("trixie", ["a"]), name("forky", [])}) == 3


def test_a_local_stub_is_no_resolver_for_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = {
        "/run/systemd/resolve/resolv.conf": "nameserver 192.0.2.1\n",
        "/etc/resolv.conf": "nameserver 127.0.0.53\n",
    }
    monkeypatch.setattr(lab, "read", lambda path: texts.get(str(path), ""))
    assert lab.resolver() == "nameserver 192.0.2.1\n"
    del texts["/run/systemd/resolve/resolv.conf"]
    with pytest.raises(lab.LabError, match=r"resolv\.conf names no server"):
        lab.resolver()


@pytest.mark.parametrize("name", ["", "Lab", "a/b", "../x"])
def test_a_labs_name_is_a_plain_word(name: str) -> None:
    with pytest.raises(lab.LabError, match="a name is"):
        lab.Lab(name)
