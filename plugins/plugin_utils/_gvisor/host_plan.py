# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host still needs: the decision between looking at it (containerd_info) and changing it."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from typing import Any

from ansible_collections.ggen.gvisor.plugins.module_utils._gvisor.history import COMMAND

SHIM = "containerd-shim-runsc-v1"
MODE = "0755"  # gVisor re-executes itself as nobody


def wanted_files(row: Mapping[str, Any], capabilities: Collection[str], shim: str = "auto") -> dict[str, str]:
    """Return what a release's folder must hold on a host: the installed name → the name that it was built under.

    ``row`` is the release's row of releases.yml. A file of the row that is built for hosts without a capability takes the other one's place where
    ``capabilities`` lacks it; ``shim`` overrides that: ``upstream``, or the suffix of the build to install.
    """
    wanted = {item["name"]: item["name"] for item in row["files"] if "install_as" not in item}
    for item in row["files"]:
        if "install_as" in item:
            missing = item["without_capability"] not in capabilities
            if item["name"].endswith(f".{shim}") or (shim == "auto" and missing):
                wanted[item["install_as"]] = item["name"]
    return wanted


def runsc_config(flags: Mapping[str, Any], binary: str) -> str:
    """Return the shim's options file. Under runsc_config every value is a quoted string.

    A TOML boolean or number there fails every container's creation.
    """

    def text(value: Any) -> str:
        plain = str(value).lower() if isinstance(value, bool) else str(value)
        return '"{}"'.format(plain.replace("\\", "\\\\").replace('"', '\\"'))

    lines = [
        "# Written by Ansible (ggen.gvisor): the options of gVisor's shim.",
        f"binary_name = {text(binary)}",
        "",
        "[runsc_config]",
    ]
    return "\n".join([*lines, *(f"{name} = {text(value)}" for name, value in sorted(flags.items()))]) + "\n"


def host_plan(
    info: Mapping[str, Any],
    release: str,
    row: Mapping[str, Any],
    built: Mapping[str, str],
    *,
    folder: str,
    shim: str = "auto",
    flags: Mapping[str, Any] | None = None,
    command: str | None = None,
) -> dict[str, Any]:
    """Compare a host with what it should have and return what must be written.

    ``info`` is containerd_info's result, ``row`` the release's row of releases.yml, ``built`` the sha256 of each file as built, ``folder`` where
    releases live on the host; ``shim`` and ``flags`` are what the user asked for. ``command`` is the sha256 of ggen-gvisor, which lies beside the
    release's programs and is not built, empty where it is not wanted; without it nothing is said of it.
    """
    target = f"{folder}/{release}"
    wanted = wanted_files(row, info["host"]["capabilities"], shim)
    if command:
        wanted, built = {**wanted, COMMAND: COMMAND}, {**built, COMMAND: command}
    options = runsc_config(flags or {}, f"{target}/runsc")
    gvisor = info["gvisor"]
    present = gvisor["files"].get(release, {})
    plan = {
        "files": {name: source for name, source in wanted.items() if present.get(name) != {"sha256": built[source], "mode": MODE}},
        "links": [name for name in wanted if gvisor["links"].get(name) != f"{target}/{name}"],
        "unwanted": [COMMAND] if command == "" and gvisor["links"].get(COMMAND, "").startswith(f"{folder}/") else [],
        "options": gvisor["runsc_config_sha256"] != hashlib.sha256(options.encode()).hexdigest(),
    }
    return {
        "needed": any(plan.values()),
        **plan,
        "release": release,
        "folder": target,
        "shim": wanted[SHIM].removeprefix(SHIM).lstrip(".") or "upstream",
        "sha256": {name: built[source] for name, source in wanted.items()},
        "programs": [
            {"name": name, "src": source, "sha256": built[source], "mode": MODE, "made": name == COMMAND} for name, source in wanted.items()
        ],
        "missing": [name for name, source in wanted.items() if present.get(name, {}).get("sha256") != built[source]],
        "runsc_config": options,
    }
