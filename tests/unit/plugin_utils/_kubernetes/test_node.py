# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which hosts are nodes, who decides the cgroup driver there, and what gVisor needs by it."""

from __future__ import annotations

import pytest
from ansible_collections.ggen.gvisor.plugins.plugin_utils._kubernetes import kubelet
from ansible_collections.ggen.gvisor.plugins.plugin_utils._kubernetes.node import ROWS, kubernetes_node

ADDRESS = "/run/containerd/containerd.sock"
RUNC = "io.containerd.runc.v2"


def runc(driver: str) -> dict:
    return {"runtime_type": RUNC, "options": {"SystemdCgroup": driver == "systemd"}}


def host(version: str | None = "1.7.24", cgroup: int = 2, driver: str | None = "systemd", **more: object) -> dict:
    """A host with a kubelet that has this driver, or none, and a containerd whose runc has the other one unless ``runtimes`` are given."""
    files = [{"path": "/var/lib/kubelet/config.yaml", "text": f"cgroupDriver: {driver}\n", "error": None}]
    other = "cgroupfs" if driver == "systemd" else "systemd"
    return {
        "kubelet": kubelet.describe({"pid": 1, "flags": more.get("flags", {}), "files": files} if driver else None),
        "containerd": {"address": more.get("address", ADDRESS), "server_version": version, "version": version},
        "config": {"default_runtime": more.get("default", "runc"), "runtimes": more.get("runtimes", {"runc": runc(other)})},
        "host": {"cgroup_version": cgroup, "service_manager": more.get("manager", "systemd")},
    }


@pytest.mark.parametrize(
    ("cgroup", "driver", "flags", "works"),
    [
        (2, "systemd", {"systemd-cgroup": True}, True),
        (2, "cgroupfs", {}, True),
        (1, "cgroupfs", {}, True),
        (1, "systemd", {}, False),
    ],
)
@pytest.mark.parametrize("containerd", ["1.7.24", "2.1.9"])
def test_the_table(cgroup, driver, flags, works, containerd):
    node = kubernetes_node(host(containerd, cgroup, driver, runtimes={"runc": runc(driver)}))
    assert (node["node"], node["driver"], node["flags"], node["problem"] is None) == (True, driver, flags, works)


def test_the_table_is_whole():
    assert set(ROWS) == {(version, driver) for version in (1, 2) for driver in kubelet.DRIVERS}


def test_the_refusal_says_why_by_what_and_what_to_do():
    problem = kubernetes_node(host(cgroup=1))["problem"]
    for words in (
        "no limit",
        "by the kubelet's configuration",
        "systemd.unified_cgroup_hierarchy=1",
        "containerd_gvisor_kubernetes: false",
    ):
        assert words in problem
    assert "by containerd's configuration" in kubernetes_node(host("2.1.9", 1, runtimes={"runc": runc("systemd")}))["problem"]


@pytest.mark.parametrize(
    ("containerd", "by"),
    [
        ("1.6.20", "kubelet"),
        ("1.7.24", "kubelet"),
        ("2.0.0", "containerd"),
        ("2.3.7", "containerd"),
        ("10.1.0", "containerd"),
        (None, "kubelet"),
    ],
)
@pytest.mark.parametrize("driver", kubelet.DRIVERS)
def test_who_decides(containerd, by, driver):
    node = kubernetes_node(host(containerd, driver=driver))
    assert node["by"] == {"kubelet": "the kubelet's configuration", "containerd": "containerd's configuration"}[by]
    assert (node["driver"] == driver) == (by == "kubelet")


@pytest.mark.parametrize(
    ("runtimes", "default", "driver"),
    [
        ({"runc": runc("systemd")}, "runc", "systemd"),
        ({"runc": runc("cgroupfs"), "crun": runc("systemd")}, "runc", "cgroupfs"),
        ({"runc": runc("cgroupfs"), "crun": runc("systemd")}, "crun", "systemd"),
        # Not runc's, so nothing is known of it: the next by name.
        (
            {"runsc": {"runtime_type": "io.containerd.runsc.v1", "options": {"SystemdCgroup": True}}, "runc": runc("cgroupfs")},
            "runsc",
            "cgroupfs",
        ),
        ({"b": runc("cgroupfs"), "a": runc("systemd")}, "missing", "systemd"),
        ({"runc": {"runtime_type": RUNC}, "x": runc("cgroupfs")}, "runc", "cgroupfs"),
        ({"runc": {"runtime_type": RUNC, "options": {"BinaryName": "crun"}}}, "runc", "cgroupfs"),
        ({"runc": {"runtime_type": RUNC, "options": {"SystemdCgroup": "true"}}}, "runc", "cgroupfs"),
        # Nobody says: what runs.
        ({"runc": {"runtime_type": RUNC}}, "runc", "systemd"),
        ({}, "runc", "systemd"),
    ],
)
def test_the_driver_as_containerd_tells_it(runtimes, default, driver):
    assert kubernetes_node(host("2.3.7", runtimes=runtimes, default=default))["driver"] == driver


def test_without_systemd_it_is_cgroupfs_where_nobody_says():
    assert kubernetes_node(host("2.3.7", runtimes={}, manager="daemon"))["driver"] == "cgroupfs"


@pytest.mark.parametrize("wish", ["auto", "AUTO"])
def test_auto_takes_a_host_for_a_node_by_its_kubelet(wish):
    assert kubernetes_node(host(), wish)["node"]
    assert kubernetes_node(host(driver=None), wish) == {"node": False, "driver": None, "by": None, "flags": {}, "problem": None}


@pytest.mark.parametrize("wish", [True, "true", "True"])
def test_true_makes_a_node_of_a_host_without_kubelet_by_containerd(wish):
    node = kubernetes_node(host(driver=None, runtimes={"runc": runc("systemd")}), wish)
    assert node == {
        "node": True,
        "driver": "systemd",
        "by": "containerd's configuration",
        "flags": {"systemd-cgroup": True},
        "problem": None,
    }
    assert kubernetes_node(host("1.7.24", driver=None, runtimes={}), wish)["driver"] == "cgroupfs"
    assert kubernetes_node(host(), wish)["by"] == "the kubelet's configuration"


@pytest.mark.parametrize("wish", [False, "false", "False"])
@pytest.mark.parametrize("info", [host(cgroup=1), host(driver="nonsense"), host(driver=None)])
def test_false_makes_none_of_any(wish, info):
    assert kubernetes_node(info, wish)["node"] is False
    assert kubernetes_node(info, wish)["problem"] is None


@pytest.mark.parametrize("wish", ["yes", "", None, 1, ["auto"]])
def test_another_wish_is_refused(wish):
    with pytest.raises(ValueError, match="none of auto, true and false"):
        kubernetes_node(host(), wish)


def test_a_kubelet_of_another_runtime_s():
    info = host(flags={"container-runtime-endpoint": "unix:///run/crio/crio.sock"}, cgroup=1)
    assert kubernetes_node(info)["node"] is False
    problem = kubernetes_node(info, True)["problem"]
    assert problem == f"The kubelet of this host uses /run/crio/crio.sock, and not {ADDRESS}: give that as containerd_gvisor_address."
    elsewhere = host(flags={"container-runtime-endpoint": "unix:///var/run/k/containerd.sock"}, address="/run/k/containerd.sock")
    assert kubernetes_node(elsewhere)["node"]


def test_a_kubelet_that_cannot_be_understood_is_refused():
    problem = kubernetes_node(host(driver="nonsense"))["problem"]
    assert problem.startswith("The kubelet's configuration cannot be understood: its cgroupDriver is 'nonsense'")
    assert kubernetes_node(host("2.1.9", driver="nonsense"), True)["problem"] == problem
