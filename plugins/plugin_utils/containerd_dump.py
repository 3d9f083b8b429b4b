# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What containerd itself understands of its configuration: `containerd config dump`, read on the controller."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from typing import Any

# The CRI plugin's tables by the version that a dump is written in (always the daemon's newest).
CRI_PLUGINS = ("io.containerd.cri.v1.runtime", "io.containerd.grpc.v1.cri", "cri")


def runtime_handlers(dump: str) -> tuple[dict[str, Any], str | None]:
    """Return the runtime handlers (name → table) of a dump and the default's name.

    Raises tomllib.TOMLDecodeError when ``dump`` is not TOML.
    """
    plugins: Mapping[str, Any] = tomllib.loads(dump).get("plugins", {})
    tables = (plugins[name]["containerd"] for name in CRI_PLUGINS if "containerd" in plugins.get(name, {}))
    table = next(tables, {})
    return dict(table.get("runtimes") or {}), table.get("default_runtime_name")


def describe_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the module's ``config`` with ``text`` and ``dump`` replaced by version, handlers, default and error."""
    described = {key: value for key, value in config.items() if key not in ("text", "dump")}
    described |= {"version": None, "runtimes": {}, "default_runtime": None}
    try:
        described["version"] = tomllib.loads(config["text"]).get("version", 1) if config["exists"] else None
        described["runtimes"], described["default_runtime"] = runtime_handlers(config["dump"])
    except tomllib.TOMLDecodeError as error:
        described["error"] = described["error"] or f"{config['path']}: {error}"
    return described
