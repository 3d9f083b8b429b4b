# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A role's plan for a Kubernetes node, beside a real containerd. The kubelet is a stand-in: a process that has its name and flags and waits."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import tomllib
import yaml
from ansible_collections.ggen.gvisor.plugins.module_utils._base.processes import argv_of
from support.containerd import Daemon
from support.containerd_debs import ensure
from support.playbook import ROOT, Play, play


def role(entry: str) -> dict:
    return {"name": entry, "ansible.builtin.include_role": {"name": "ggen.gvisor.containerd_gvisor", "tasks_from": entry, "public": True}}


# A machine that tests has one cgroup version; the role's own variables decide again after this.
OTHER_VERSION = {
    "name": "Take the host for one with this version",
    "ansible.builtin.set_fact": {
        "containerd_gvisor_info": "{{ containerd_gvisor_info | combine({'host': {'cgroup_version': cgroup_version | int}}, recursive=true) }}",
        "containerd_gvisor_target": {"arch": "amd64", "release": "20260224"},
    },
}
TELL = {
    "name": "Tell",
    "ansible.builtin.debug": {
        "msg": {
            "kubelet": "{{ containerd_gvisor_info.kubelet }}",
            "node": "{{ _containerd_gvisor_node }}",
            "options": "{{ _containerd_gvisor_plan.runsc_config }}",
            "problems": "{{ _containerd_gvisor_checks | rejectattr('ok') | map(attribute='fix') }}",
        }
    },
}


@contextlib.contextmanager
def kubelet(*flags: str) -> Iterator[None]:
    """A stand-in for a kubelet."""
    argv = ["kubelet", "-c", "read line", *flags]
    with subprocess.Popen(argv, executable="/bin/sh", stdin=subprocess.PIPE) as process:
        deadline = time.monotonic() + 10
        while not argv_of(process.pid) and time.monotonic() < deadline:
            time.sleep(0.01)
        yield
        process.communicate()


def run(folder: Path, daemon: Daemon, *tasks: dict, **variables: object) -> Play:
    playbook = folder / "play.yml"
    playbook.write_text(json.dumps([{"hosts": "sandbox_hosts", "gather_facts": False, "tasks": tasks}]))
    places = {
        "containerd_gvisor_address": daemon.address,
        "containerd_gvisor_config": daemon.config_path,
        "containerd_gvisor_replace": True,
    }
    return play(str(playbook), **places, **variables)


def planned(folder: Path, daemon: Daemon, version: int, **variables: object) -> dict:
    """Return what the role decides by one look at the host, taken for one with this cgroup version."""
    # Outside of the role its own folder has no name.
    table = yaml.safe_load((ROOT / "vendors/gvisor/releases.yml").read_text())["releases"]
    given = {"cgroup_version": version, "_containerd_gvisor_releases": table, **variables}
    done = run(folder, daemon, role("gather"), OTHER_VERSION, TELL, **given)
    assert done.rc == 0, done.errors
    assert done.executions("localhost") == ["Look at the host"]
    told = done.result("Tell")["msg"]
    return {**told, "flags": tomllib.loads(told["options"])["runsc_config"]}


def kubeadm(folder: Path, daemon: Daemon, driver: str) -> str:
    """Write a kubelet's configuration as kubeadm does; return the flag that names it."""
    endpoint = f"containerRuntimeEndpoint: unix://{daemon.address}"
    text = f"apiVersion: kubelet.config.k8s.io/v1beta1\ncgroupDriver: {driver}\n{endpoint}\nkind: KubeletConfiguration\n"
    (folder / "kubelet.yaml").write_text(text)
    return f"--config={folder}/kubelet.yaml"


def test_the_options_file_follows_the_kubelet_of_the_host(tmp_path: Path) -> None:
    with Daemon(tmp_path) as daemon, kubelet(kubeadm(tmp_path, daemon, "cgroupfs")):
        told = planned(tmp_path, daemon, 2)
        assert told["kubelet"] == {
            "found": True,
            "running": True,
            "files": [f"{tmp_path}/kubelet.yaml"],
            "cgroup_driver": "cgroupfs",
            "address": daemon.address,
            "error": None,
        }
        assert (told["flags"], told["problems"]) == ({}, [])
        kubeadm(tmp_path, daemon, "systemd")
        told = planned(tmp_path, daemon, 2, containerd_gvisor_runsc_flags={"platform": "ptrace"})
        assert (told["flags"], told["problems"]) == ({"systemd-cgroup": "true", "platform": "ptrace"}, [])
        told = planned(tmp_path, daemon, 2, containerd_gvisor_kubernetes=False)
        assert (told["flags"], told["problems"]) == ({}, [])


def test_no_limit_would_hold_on_version_1_with_systemd(tmp_path: Path) -> None:
    with Daemon(tmp_path) as daemon, kubelet(kubeadm(tmp_path, daemon, "systemd")):
        (problem,) = planned(tmp_path, daemon, 1)["problems"]
        assert "no limit of theirs would hold: the host has cgroup version 1, and the cgroup driver is systemd, by the kubelet's" in problem
        done = run(tmp_path, daemon, role("preflight"))
        has_version_2 = os.path.exists("/sys/fs/cgroup/cgroup.controllers")
        assert (done.rc, problem in done.errors) == ((0, False) if has_version_2 else (2, True))


def test_containerd_2_decides_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", ensure("2.1.9").path)
    runc = '[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]\nruntime_type = "io.containerd.runc.v2"\n'
    options = '[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]\nSystemdCgroup = true\n'
    with Daemon(tmp_path, f"version = 2\n{runc}{options}") as daemon, kubelet(kubeadm(tmp_path, daemon, "cgroupfs")):
        told = planned(tmp_path, daemon, 2)
        assert (told["node"]["driver"], told["node"]["by"]) == ("systemd", "containerd's configuration")
        assert told["flags"] == {"systemd-cgroup": "true"}


def test_a_kubelet_of_another_containerd_makes_no_node(tmp_path: Path) -> None:
    with Daemon(tmp_path) as daemon, kubelet(
        kubeadm(tmp_path, daemon, "systemd"), "--container-runtime-endpoint=unix:///run/crio/crio.sock"
    ):
        told = planned(tmp_path, daemon, 1)
        assert (told["node"]["node"], told["problems"]) == (False, [])
        (problem,) = planned(tmp_path, daemon, 1, containerd_gvisor_kubernetes="true")["problems"]
        assert problem.startswith("The kubelet of this host uses /run/crio/crio.sock")
