# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host still needs: the decision between looking at it (containerd_info) and changing it."""

from __future__ import annotations

import hashlib
from typing import Any, Mapping

SHIM = "containerd-shim-runsc-v1"
TOLERANT = "no-oom-score"


def choose_shim(wanted: str, cap_sys_resource: bool) -> str:
    """Return the shim build for a host, ``upstream`` or ``no-oom-score``; ``wanted`` may be ``auto``.

    Upstream's shim lowers its own OOM score and ends where the kernel forbids that.
    """
    if wanted != "auto":
        return wanted
    return "upstream" if cap_sys_resource else TOLERANT


def wanted_files(built: Mapping[str, str], shim: str) -> dict[str, dict[str, str]]:
    """Return what a release folder must hold: installed name → the name it was built under, and its sha256.

    ``built`` maps the names under bin/ to sha256; ``shim`` is ``upstream`` or ``no-oom-score``.
    Raises KeyError when the release has no such build.
    """
    suffix = "" if shim == "upstream" else f".{shim}"
    variants = {SHIM: f"{SHIM}{suffix}"}
    names = [name for name in built if not name.startswith(f"{SHIM}.")]
    return {name: {"source": variants.get(name, name), "sha256": built[variants.get(name, name)]} for name in names}


def runsc_config(flags: Mapping[str, Any], binary: str) -> str:
    """Return the shim's options file. Under runsc_config every value is a quoted string.

    A TOML boolean or number there fails every container's creation.
    """

    def text(value: Any) -> str:
        plain = str(value).lower() if isinstance(value, bool) else str(value)
        return '"{}"'.format(plain.replace("\\", "\\\\").replace('"', '\\"'))

    lines = ["# Written by Ansible (ggen.gvisor): the options of gVisor's shim.", f"binary_name = {text(binary)}", "", "[runsc_config]"]
    return "\n".join([*lines, *(f"{name} = {text(value)}" for name, value in sorted(flags.items()))]) + "\n"


def host_plan(
    info: Mapping[str, Any], release: str, built: Mapping[str, str], *, folder: str, shim: str = "auto", flags: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Compare a host with what it should have and return what must be written.

    ``info`` is containerd_info's result, ``built`` the sha256 of each file of the release as built, ``folder`` where releases live on the host,
    ``shim`` and ``flags`` what the user asked for.
    """
    target = f"{folder}/{release}"
    variant = choose_shim(shim, info["host"]["cap_sys_resource"])
    files = wanted_files(built, variant)
    options = runsc_config(flags or {}, f"{target}/runsc")
    gvisor = info["gvisor"]
    present = gvisor["files"].get(release, {})
    plan = {
        "files": {name: want for name, want in files.items() if present.get(name) != {"sha256": want["sha256"], "mode": "0755"}},
        "links": [name for name in files if gvisor["links"].get(name) != f"{target}/{name}"],
        "options": gvisor["runsc_config_sha256"] != hashlib.sha256(options.encode()).hexdigest(),
    }
    return {
        "changed": any(plan.values()),
        **plan,
        "release": release,
        "folder": target,
        "shim": variant,
        "shim_sha256": files[SHIM]["sha256"],
        "runsc_config": options,
    }
