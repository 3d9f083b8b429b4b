"""Every role documents what it takes, and takes what it documents."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from conftest import ROOT

ROLES = sorted(path.name for path in (ROOT / "roles").iterdir())


def load(role: str, name: str) -> dict:
    return yaml.safe_load((ROOT / "roles" / role / name).read_text())


def test_the_roles_are_there():
    assert ROLES == [
        "_build",
        "containerd_gvisor",
        "ggen_build",
        "ggen_image",
        "ggen_run",
        "gvisor_bundle",
        "gvisor_release",
        "runsc_build",
    ]


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


def test_an_image_is_imported_under_the_name_that_it_is_built_under():
    built, imported = load("ggen_build", "defaults/main.yml"), load("ggen_image", "defaults/main.yml")
    for name in ("version", "name"):
        assert imported[f"ggen_image_{name}"] == f"{{{{ ggen_build_{name} | default('{built[f'ggen_build_{name}']}') }}}}"


@pytest.mark.parametrize("role", ROLES)
def test_no_command_goes_through_a_shell(role):
    for tasks in (ROOT / "roles" / role / "tasks").glob("*.yml"):
        assert "ansible.builtin.shell" not in tasks.read_text()


@pytest.mark.parametrize("role", ROLES)
def test_modes_are_quoted(role):
    for tasks in (ROOT / "roles" / role / "tasks").glob("*.yml"):
        assert not re.findall(r"^\s*(?:directory_)?mode: \d", tasks.read_text(), re.MULTILINE), tasks.name


# A task file is a noun, or a verb and its object. Two of Ansible's own words stand alone.
NOUNS = set(
    "checkout documents handler health_check image machine main packages preflight program proof recovery release report repository requirements".split()
)
NOUNS |= {"apt_folder", "cargo_home", "rollback", "smoke_test", "tools", "expected_image", "members", "sandbox"}
VERBS = {"assemble", "build", "collect", "compile", "fetch", "find", "forget", "import", "pack", "prune", "restore", "switch", "verify"}
ALONE = {"gather", "remove"}


@pytest.mark.parametrize("role", ROLES)
def test_task_files_are_nouns_or_a_verb_and_its_object(role):
    for path in (ROOT / "roles" / role / "tasks").glob("*.yml"):
        verb, _separator, thing = path.stem.partition("_")
        assert path.stem in NOUNS | ALONE or (verb in VERBS and thing), path.name


def included(path: Path) -> set[Path]:
    """Return the task files that a task file or playbook includes or imports."""
    found = set()
    for role, entry in re.findall(r"name: ggen\.gvisor\.(\w+)(?:\n\s+tasks_from: (\w+))?", path.read_text()):
        found.add(ROOT / "roles" / role / "tasks" / f"{entry or 'main'}.yml")
    for name in re.findall(r"(?:(?:include|import)_tasks|_tasks): (\w+\.yml)", path.read_text()):
        found.add(path.parent / name)
    for name in re.findall(r"import_playbook: (?:ggen\.gvisor\.)?(\w+)(?:\.yml)?$", path.read_text(), re.MULTILINE):
        found.add(ROOT / "playbooks" / f"{name}.yml")
    return found


def depth(path: Path) -> int:
    """Return how many includes deep what is below a file lies."""
    return max((1 + depth(below) for below in included(path)), default=0)


@pytest.mark.parametrize("playbook", sorted(path.name for path in (ROOT / "playbooks").glob("*.yml")))
def test_includes_go_five_deep_at_most(playbook):
    assert 1 <= depth(ROOT / "playbooks" / playbook) <= 5


def test_upgraded_packages_are_not_taken_for_ours():
    simulated = """\
Inst libseccomp2 [2.5.4-1] (2.5.4-1+deb12u1 Debian:12.9/stable [amd64])
Inst runc (1.1.5+ds1-1+deb12u1 Debian:12.9/stable [amd64])
Inst containerd (1.6.20~ds1-1+deb12u1 Debian:12.9/stable [amd64])
Conf runc (1.1.5+ds1-1+deb12u1 Debian:12.9/stable [amd64])
"""
    pattern = load("containerd_gvisor", "vars/main.yml")["_containerd_gvisor_new"]
    assert re.findall(pattern, simulated) == ["runc", "containerd"]


@pytest.mark.parametrize("role", ROLES)
def test_every_variable_is_used(role):
    used = "".join(
        path.read_text() for part in ("roles", "playbooks") for path in (ROOT / part).rglob("*") if path.suffix in (".yml", ".j2")
    )
    names = [*load(role, "defaults/main.yml"), *(load(role, "vars/main.yml") if (ROOT / "roles" / role / "vars/main.yml").exists() else [])]
    assert [name for name in names if len(re.findall(rf"\b{name}\b", used)) < (3 if name[0] != "_" or role == "_build" else 2)] == []
