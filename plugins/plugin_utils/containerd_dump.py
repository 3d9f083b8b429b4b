# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What containerd itself understands of its configuration: `containerd config dump`, read on the controller."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tomllib
from ansible_collections.ggen.gvisor.plugins.plugin_utils.containerd_config import default_name, handlers


def describe_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the module's ``config`` with ``text`` and ``dump`` replaced by version, handlers, default and error."""
    described = {key: value for key, value in config.items() if key not in ("text", "dump")}
    described |= {"version": None, "runtimes": {}, "default_runtime": None}
    try:
        described["version"] = tomllib.loads(config["text"]).get("version", 1) if config["exists"] else None
        dump = tomllib.loads(config["dump"])
        described["runtimes"], described["default_runtime"] = handlers(dump), default_name(dump)
    except tomllib.TOMLDecodeError as error:
        described["error"] = described["error"] or f"{config['path']}: {error}"
    return described
