# Copyright (c) 2026, the ggen.gvisor authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""Whether a host can run sandboxes: what it has, read as containerd_info does, and what is proven, as containerd_proof does."""

from __future__ import annotations

import os
import tempfile
from typing import Any, Dict, List, Mapping

from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._base.text import visible_all
from ansible_collections.ggen.gvisor.plugins.module_utils._containerd.config_transaction import has_handler
from ansible_collections.ggen.gvisor.plugins.module_utils._containerd.ctr import Ctr
from ansible_collections.ggen.gvisor.plugins.module_utils._containerd.host import containerd, images, read_config
from ansible_collections.ggen.gvisor.plugins.module_utils._containerd.image_names import full_name
from ansible_collections.ggen.gvisor.plugins.module_utils._gvisor.history import gvisor
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.proof import prove

RELEASES, BIN, OPTIONS, CONFIG, HANDLER = (
    "/usr/local/lib/gvisor",
    "/usr/local/bin",
    "/etc/containerd/runsc.toml",
    "/etc/containerd/config.toml",
    "runsc",
)


def examine(params: Mapping[str, Any]) -> Dict[str, Any]:
    """Return what is well, what is not, whether all is, and the facts; ``params`` are the options of a run. Raises GvisorError."""
    if os.geteuid() != 0:
        raise GvisorError("only root can look at containerd: use sudo")
    daemon = containerd(params["address"])
    installed = gvisor(RELEASES, BIN, OPTIONS)
    there = images(params["address"]).get(params["namespace"], {}) if daemon["running"] else {}
    config = read_config(CONFIG, daemon["path"]) if daemon["path"] else None
    well, faults = judge(daemon, installed, config, there, full_name(params["image"]))
    proof: Dict[str, Any] = {}
    if daemon["running"]:
        try:
            with tempfile.TemporaryDirectory(prefix="proof.") as folder:
                proof = prove(Ctr(params["address"], params["namespace"]), params["runtime"], "", params["state_dir"], folder)
            well += [f"a new sandbox is gVisor's: {proof['kernel']} ({proof['program']})", "a container of runc's runs"]
        except GvisorError as error:
            faults.append(error.message)
    facts = {"containerd": daemon, "gvisor": installed, "images": there, "proof": proof}
    return visible_all({"healthy": not faults, "well": well, "faults": faults, **facts})


def judge(daemon: Mapping[str, Any], installed: Mapping[str, Any], config: Any, there: Mapping[str, str], image: str) -> List[List[str]]:
    """Return sentences for what is well and for what is not, of what was read."""
    release = installed["release"]
    foreign = f"gVisor is not from this collection: {', '.join(installed['foreign'])}"
    rows = [
        (
            daemon["running"],
            f"containerd {daemon['server_version']} answers on {daemon['address']}",
            f"containerd does not answer on {daemon['address']}"
            if daemon["installed"]
            else "containerd is not installed: run site.yml on this host",
        ),
        (
            release,
            f"gVisor {release} is installed: {installed['runsc_version']}",
            foreign if installed["foreign"] else "gVisor is not installed: run site.yml on this host",
        ),
    ]
    if daemon["running"]:
        broken = sorted(name for name, state in daemon["plugins"].items() if state == "error" and ".cri" in name)
        rows.append((not broken, "containerd's CRI plugin is not broken", f"containerd's plugin {', '.join(broken)} is in state error"))
        rows.append(
            (
                image in there,
                f"the image {image} is there",
                f"the image {image} is missing: run site.yml, or import it with ctr images import",
            )
        )
    if config is not None:
        rows.append(
            (
                has_handler(config["dump"], HANDLER),
                f"containerd has the runtime handler {HANDLER}",
                f"containerd's configuration has no runtime handler {HANDLER}: run site.yml",
            )
        )
    return [[text for well, text, _fault in rows if well], [fault for well, _text, fault in rows if not well]]
