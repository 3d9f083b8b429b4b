"""Every role documents what it takes, and takes what it documents."""

from __future__ import annotations

import re

import pytest
import yaml
from conftest import ROOT

ROLES = sorted(path.name for path in (ROOT / "roles").iterdir())


def load(role: str, name: str) -> dict:
    return yaml.safe_load((ROOT / "roles" / role / name).read_text())


def test_the_four_roles_are_there():
    assert ROLES == ["containerd_gvisor", "ggen_image", "ggen_run", "gvisor_bundle", "runsc_build"]


@pytest.mark.parametrize("role", ROLES)
def test_defaults_equal_the_argument_specs(role):
    defaults = load(role, "defaults/main.yml")
    for entry, spec in load(role, "meta/argument_specs.yml")["argument_specs"].items():
        documented = {name: option.get("default") for name, option in spec["options"].items()}
        assert documented == defaults, entry


@pytest.mark.parametrize("role", ROLES)
def test_every_entry_point_is_documented(role):
    specs = load(role, "meta/argument_specs.yml")["argument_specs"]
    used = set()
    for playbook in (ROOT / "playbooks").glob("*.yml"):
        for name, entry in re.findall(r"name: ggen\.gvisor\.(\w+)(?:\n\s+tasks_from: (\w+))?", playbook.read_text()):
            if name == role:
                used.add(entry or "main")
    assert used <= set(specs)


@pytest.mark.parametrize("role", ROLES)
def test_variables_carry_the_role_s_name(role):
    assert all(name.startswith(f"{role}_") for name in load(role, "defaults/main.yml"))
    private = load(role, "vars/main.yml") if (ROOT / "roles" / role / "vars/main.yml").exists() else {}
    assert all(name.startswith(f"_{role}_") for name in private)
    for tasks in (ROOT / "roles" / role / "tasks").glob("*.yml"):
        for register in re.findall(r"^\s*register: (\S+)", tasks.read_text(), re.MULTILINE):
            assert register.startswith((f"__{role}_", f"{role}_")), tasks.name


@pytest.mark.parametrize("role", ROLES)
def test_no_command_goes_through_a_shell(role):
    for tasks in (ROOT / "roles" / role / "tasks").glob("*.yml"):
        assert "ansible.builtin.shell" not in tasks.read_text()


@pytest.mark.parametrize("role", ROLES)
def test_modes_are_quoted(role):
    for tasks in (ROOT / "roles" / role / "tasks").glob("*.yml"):
        assert not re.findall(r"^\s*(?:directory_)?mode: \d", tasks.read_text(), re.MULTILINE), tasks.name


def test_upgraded_packages_are_not_taken_for_ours():
    simulated = """\
Inst libseccomp2 [2.5.4-1] (2.5.4-1+deb12u1 Debian:12.9/stable [amd64])
Inst runc (1.1.5+ds1-1+deb12u1 Debian:12.9/stable [amd64])
Inst containerd (1.6.20~ds1-1+deb12u1 Debian:12.9/stable [amd64])
Conf runc (1.1.5+ds1-1+deb12u1 Debian:12.9/stable [amd64])
"""
    pattern = load("containerd_gvisor", "vars/main.yml")["_containerd_gvisor_new"]
    assert re.findall(pattern, simulated) == ["runc", "containerd"]
