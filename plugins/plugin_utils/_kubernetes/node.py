# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a Kubernetes node needs of gVisor: runsc's flags by the cgroup version and the driver, and who says which driver it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ansible_collections.ggen.gvisor.plugins.module_utils._base.platform import version_tuple
from ansible_collections.ggen.gvisor.plugins.plugin_utils._kubernetes.kubelet import socket_of


class Row(NamedTuple):
    """What holds for a cgroup version and a driver."""

    flags: dict[str, bool]
    problem: str | None = None


# With a wrong flag no pod starts. With the systemd driver on version 1 all start, with either, in a control group at the top that no limit is written to.
ROWS = {
    (2, "systemd"): Row({"systemd-cgroup": True}),
    (2, "cgroupfs"): Row({}),
    (1, "cgroupfs"): Row({}),
    (1, "systemd"): Row(
        {},
        "gVisor's pods would run and no limit of theirs would hold: the host has cgroup version 1, and the cgroup driver is systemd, by {by}. Start the host "
        "with cgroup version 2 (systemd.unified_cgroup_hierarchy=1), or set both the kubelet and containerd to cgroupfs. Where no pod of Kubernetes is to use "
        "gVisor, say containerd_gvisor_kubernetes: false.",
    ),
}
CONTAINERD, KUBELET = "containerd's configuration", "the kubelet's configuration"
RUNC = "io.containerd.runc.v"
NO_NODE = {"node": False, "driver": None, "by": None, "flags": {}, "problem": None}


def containerds_driver(info: Mapping[str, Any]) -> str:
    """Return the cgroup driver as containerd 2.x tells it to a kubelet: by the default runtime, or the first by name, that is runc with options.

    Without any it is systemd where that runs. Before 2.0 nobody asks containerd; runc's own default is cgroupfs.
    """
    config = info["config"]
    for name in sorted(config["runtimes"], key=lambda name: (name != config["default_runtime"], name)):
        runtime = config["runtimes"][name]
        if str(runtime.get("runtime_type", "")).startswith(RUNC) and isinstance(runtime.get("options"), dict):
            return "systemd" if runtime["options"].get("SystemdCgroup") is True else "cgroupfs"
    return "systemd" if _is_2(info) and info["host"]["service_manager"] == "systemd" else "cgroupfs"


def _is_2(info: Mapping[str, Any]) -> bool:
    containerd = info["containerd"]
    return (version_tuple(containerd["server_version"] or containerd["version"] or "") or (0,)) >= (2,)


def kubernetes_node(info: Mapping[str, Any], wish: object = "auto") -> dict[str, Any]:
    """Return whether the host is a node whose pods this containerd starts, the cgroup ``driver`` and ``by`` what, runsc's ``flags``, and a ``problem``.

    ``info`` is containerd_info's result. With ``auto`` a host is a node where a kubelet was found that uses this containerd's socket; ``true`` is for
    hosts that will be one, or whose kubelet is part of another program, ``false`` for those whose pods are not to use gVisor. Raises ValueError for
    another wish.
    """
    asked = str(wish).lower()
    if asked not in ("auto", "true", "false"):
        raise ValueError(f"{wish!r} is none of auto, true and false")
    kubelet, address = info["kubelet"], socket_of(info["containerd"]["address"])
    if asked == "false" or (asked == "auto" and not kubelet["found"]):
        return dict(NO_NODE)
    node = {**NO_NODE, "node": True}
    if kubelet["found"] and kubelet["address"] != address:
        other = f"The kubelet of this host uses {kubelet['address']}, and not {address}: give that as containerd_gvisor_address."
        return dict(NO_NODE) if asked == "auto" else {**node, "problem": other}
    if kubelet["error"]:
        why = f"The kubelet's configuration cannot be understood: {kubelet['error']}. Fix that, or say containerd_gvisor_kubernetes: false."
        return {**node, "problem": why}
    # Before 2.0 containerd is not asked, and the kubelet takes its own.
    by = KUBELET if kubelet["found"] and not _is_2(info) else CONTAINERD
    driver = kubelet["cgroup_driver"] if by == KUBELET else containerds_driver(info)
    row = ROWS[info["host"]["cgroup_version"], driver]
    return {**node, "driver": driver, "by": by, "flags": dict(row.flags), "problem": row.problem and row.problem.format(by=by)}
