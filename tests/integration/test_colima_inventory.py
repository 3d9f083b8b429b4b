# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The inventory plugin against executables that print what Colima and Lima print (tests/support/colima.py): the real ones run on Macs alone.

Everything else is real: ansible-inventory reads the inventory, ssh reads the SSH configuration.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from support.colima import GIB, Guest, Mac, mac

EXAMPLE = ROOT / "inventories" / "colima"
THREE = (
    Guest(port=50101),
    Guest(
        "build",
        arch="x86_64",
        cpus=8,
        memory=16 * GIB,
        kubernetes=True,
        port=50102,
        mounts=(("~/src", True, ""), ("/data", False, "/mnt/data")),
    ),
    Guest("old", status="Stopped", runtime="docker"),
)


def inventory(made: Mac, source: Path | str = EXAMPLE, **env: str) -> subprocess.CompletedProcess[str]:
    """Run ansible-inventory --list as the Mac's user. The PATH has the tools alone, so that none of this machine's is found."""
    path = f"{made.root / 'bin'}:/usr/bin:/bin"
    argv = [str(Path(sys.executable).parent / "ansible-inventory"), "-i", str(source), "--list", "--export"]
    return subprocess.run(argv, cwd=ROOT, env={**made.env, "PATH": path, **env}, capture_output=True, text=True, check=False, timeout=120)


def listed(made: Mac, source: Path | str = EXAMPLE, **env: str) -> tuple[dict[str, dict], dict[str, list[str]], str]:
    """Return the hosts with their variables, the groups with their hosts, and the warnings."""
    done = inventory(made, source, **env)
    assert done.returncode == 0, done.stderr
    data = json.loads(done.stdout)
    hosts = {host: _plain(variables) for host, variables in data.pop("_meta")["hostvars"].items()}
    return hosts, {name: group["hosts"] for name, group in data.items() if "hosts" in group}, " ".join(done.stderr.split())


def _plain(value):
    """Ansible marks strings from outside as no templates."""
    if isinstance(value, dict):
        return value["__ansible_unsafe"] if set(value) == {"__ansible_unsafe"} else {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def source(folder: Path, **options: object) -> Path:
    """Write an inventory for the plugin."""
    path = folder / "my.colima.yml"
    path.write_text(json.dumps({"plugin": "ggen.gvisor.colima", **options}))
    return path


def resolved(variables: dict) -> dict[str, str]:
    """Return what ssh makes of a host's variables."""
    argv = ["ssh", *shlex.split(variables["ansible_ssh_common_args"]), "-G", variables["ansible_host"]]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=30)
    return dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)


def test_no_machine_is_an_empty_inventory_and_says_how_to_start_one(tmp_path):
    hosts, groups, said = listed(mac(tmp_path))
    assert (hosts, groups) == ({}, {})
    assert "no running virtual machine of Colima or Lima. Start one with: colima start --runtime containerd" in said


def test_one_profile_runs_sandboxes_and_builds_with_the_example_as_it_is(tmp_path):
    made = mac(tmp_path, [Guest(port=50101, user="me")])
    hosts, groups, said = listed(made)
    assert said == ""
    assert groups == {
        name: ["colima"] for name in ("arch_arm64", "build_hosts", "colima_guests", "runtime_containerd", "sandbox_hosts", "state_running")
    }
    assert hosts["colima"] == {
        "ansible_host": "colima",
        "ansible_ssh_common_args": f"-F {made.colima}/ssh_config",
        "vm_name": "default",
        "vm_state": "running",
        "vm_arch": "arm64",
        "vm_cpus": 2,
        "vm_memory": 2 * GIB,
        "vm_disk": 100 * GIB,
        "vm_runtime": "containerd",
        "vm_kubernetes": False,
        "vm_mounts": [
            {"location": str(made.home), "mount_point": str(made.home), "writable": True},
            {"location": "/tmp/colima", "mount_point": "/tmp/colima", "writable": True},  # noqa: S108 - the guest's own
        ],
        "vm_first": True,
        "colima_profile": "default",
        "colima_home": str(made.colima),
        "colima_version": "0.10.3",
        "colima_config": [f"{made.colima}/default/containerd/config.toml", f"{made.home}/.config/containerd/config.toml"],
    }
    assert {key: resolved(hosts["colima"])[key] for key in ("hostname", "port", "user")} == {
        "hostname": "127.0.0.1",
        "port": "50101",
        "user": "me",
    }
    # The port is another one after the next boot, and nothing of the inventory has to know.
    made.update(colima=[{**made.state["colima"][0], "port": 50999}])
    assert resolved(hosts["colima"])["port"] == "50999"


def test_three_profiles_and_an_instance_of_lima(tmp_path):
    made = mac(tmp_path, THREE, [Guest("lab", port=50201)])
    hosts, groups, said = listed(made)
    assert said == ""
    assert groups["sandbox_hosts"] == ["colima", "colima-build"]
    assert groups["build_hosts"] == ["colima"]
    assert groups["lima_guests"] == ["lima-lab"]
    assert groups["arch_amd64"] == ["colima-build"]
    build = hosts["colima-build"]
    assert [build[key] for key in ("vm_arch", "vm_cpus", "vm_runtime", "vm_kubernetes")] == ["amd64", 8, "containerd", True]
    assert build["vm_mounts"] == [
        {"location": f"{made.home}/src", "mount_point": f"{made.home}/src", "writable": True},
        {"location": "/data", "mount_point": "/mnt/data", "writable": False},
    ]
    assert {host: resolved(variables)["port"] for host, variables in hosts.items()} == {
        "colima": "50101",
        "colima-build": "50102",
        "lima-lab": "50201",
    }
    hosts, groups, _said = listed(made, source(tmp_path, stopped=True, profiles=["[do]*"], instances=[]))
    assert sorted(hosts) == ["colima", "colima-old"]
    assert groups["state_stopped"] == groups["runtime_docker"] == ["colima-old"]
    assert hosts["colima-old"]["colima_config"] == []
    assert not hosts["colima-old"]["vm_first"]


def test_the_graph_shows_hosts_in_composed_groups(tmp_path):
    made = mac(tmp_path, THREE)
    path = source(
        tmp_path,
        compose={"cores": "vm_cpus * 2"},
        groups={"big": "vm_cpus > 4"},
        keyed_groups=[{"prefix": "cpus", "key": "vm_cpus | string"}],
    )
    hosts, groups, _said = listed(made, path)
    assert hosts["colima-build"]["cores"] == 16
    assert groups["big"] == groups["cpus_8"] == ["colima-build"]
    argv = [str(Path(sys.executable).parent / "ansible-inventory"), "-i", str(path), "--graph"]
    graph = subprocess.run(argv, cwd=ROOT, env=made.env, capture_output=True, text=True, check=True, timeout=120).stdout
    assert "@big:\n  |  |--colima-build" in graph


def test_broken_expressions_are_errors_where_that_is_asked_for(tmp_path):
    done = inventory(mac(tmp_path, [Guest()]), source(tmp_path, strict=True, groups={"big": "no_such_variable > 4"}))
    assert "Could not add host colima to group big" in " ".join(done.stderr.split())


def test_folders_that_the_environment_and_the_options_name(tmp_path):
    made = mac(tmp_path / "a Mac's home", [Guest(port=50101)], [Guest("lab", port=50201)])
    hosts, _groups, _said = listed(made)
    assert resolved(hosts["colima"])["port"] == "50101"
    moved = tmp_path / "moved"
    made.colima.rename(moved)
    hosts, _groups, _said = listed(made, COLIMA_HOME=str(moved))
    assert hosts["colima"]["colima_home"] == str(moved)
    assert hosts["colima"]["vm_mounts"][0]["location"] == str(made.home)
    assert hosts["colima"]["colima_config"][0] == f"{moved}/default/containerd/config.toml"
    hosts, _groups, _said = listed(made, source(tmp_path, colima_home=str(moved)), COLIMA_HOME="/nowhere")
    assert hosts["colima"]["colima_home"] == str(moved)


FAULTS = {
    # name: what the tool says, and what the error must tell
    "not JSON": (
        {"stdout": "PROFILE    STATUS\ndefault    Running\n"},
        ["`colima list --json` printed", "Line 1 is: 'PROFILE STATUS'", "by hand"],
    ),
    "a list": ({"stdout": '[{"name":"default","status":"Running"}]\n'}, ["one JSON object with name and status a line"]),
    "cut off": ({"stdout": '{"name":"default","status":"Running"}\n{"name":"wo'}, ['Line 2 is: \'{"name":"wo\'']),
    "nameless": ({"stdout": '{"name":"","status":"Running"}\n'}, ["name and status"]),
    "failing": ({"rc": 1, "stderr": 'level=fatal msg="lima not found"'}, ["failed with exit code 1", "lima not found", "Run it by hand"]),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_tool_that_prints_something_else_is_named_with_what_it_printed(fault, tmp_path):
    says, words = FAULTS[fault]
    made = mac(tmp_path, [Guest()])
    made.says("colima", **says)
    said = " ".join(inventory(made).stderr.split())
    assert [word for word in words if word not in said] == [], said


def test_a_tool_that_hangs_is_ended(tmp_path):
    made = mac(tmp_path, tools=["limactl"])
    program = made.root / "bin" / "colima"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    said = " ".join(inventory(made, source(tmp_path, timeout=1)).stderr.split())
    assert "`colima list --json` did not end within 1 s" in said


def test_missing_tools(tmp_path):
    nothing = mac(tmp_path / "nothing", tools=[])
    said = " ".join(inventory(nothing).stderr.split())
    assert "neither colima nor limactl is in the PATH. Install it (brew install colima)" in said
    lima = mac(tmp_path / "lima", lima=[Guest("lab")], tools=["limactl"])
    hosts, _groups, said = listed(lima)
    assert (sorted(hosts), said) == (["lima-lab"], "")
    said = " ".join(inventory(lima, source(tmp_path, sources=["colima"])).stderr.split())
    assert "colima is not in the PATH. Install it (brew install colima)" in said


def test_a_file_of_colima_that_cannot_be_read_costs_variables_and_not_the_host(tmp_path):
    made = mac(tmp_path, [Guest()])
    broken = made.colima / "_lima" / "colima" / "lima.yaml"
    broken.write_text("mounts: [\n")
    hosts, _groups, said = listed(made)
    assert hosts["colima"]["vm_mounts"] == []
    assert f"{broken} cannot be read, so mounts and runtime of its machine are not known" in said


def test_the_cache_answers_until_it_is_flushed(tmp_path):
    made = mac(tmp_path, [Guest()])
    path = source(tmp_path, cache=True, cache_plugin="ansible.builtin.jsonfile", cache_connection=str(tmp_path / "cache"))
    assert sorted(listed(made, path)[0]) == ["colima"]
    made.says("colima", rc=1, stderr="must not be asked")
    assert sorted(listed(made, path)[0]) == ["colima"]
    argv = [str(Path(sys.executable).parent / "ansible-inventory"), "-i", str(path), "--list", "--flush-cache"]
    done = subprocess.run(argv, cwd=ROOT, env=made.env, capture_output=True, text=True, check=False, timeout=120)
    assert "must not be asked" in done.stderr


def test_a_workspace_of_the_mac_is_looked_at_on_the_mac(tmp_path):
    """The guest of this test cannot be reached: a folder that it does not see is read here, before anything long begins."""
    made = mac(tmp_path, [Guest(port=9, mounts=(("~/src", True, ""),))])
    workspace = made.home / "model"
    workspace.mkdir()
    preflight = {"ansible.builtin.include_role": {"name": "ggen.gvisor.ggen_run", "tasks_from": "preflight"}}
    (tmp_path / "play.yml").write_text(json.dumps([{"hosts": "sandbox_hosts", "gather_facts": False, "tasks": [preflight]}]))
    argv = [str(Path(sys.executable).parent / "ansible-playbook"), "-i", str(EXAMPLE), str(tmp_path / "play.yml")]
    argv += ["-e", json.dumps({"ggen_run_workspace": "~/model"})]
    done = subprocess.run(argv, cwd=ROOT, env=made.env, capture_output=True, text=True, check=False, timeout=120)
    assert f"{workspace} is no ggen project" in " ".join(done.stdout.split()), done.stdout + done.stderr
    tables = "[project]\n[ontology]\n[generation]\n"
    (workspace / "ggen.toml").write_text(tables.replace("]", "]\nx = 1"))
    done = subprocess.run(argv, cwd=ROOT, env=made.env, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
