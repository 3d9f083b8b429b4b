# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What containerd itself understands of its configuration: `containerd config dump`, read on the controller."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tomllib
from ansible_collections.ggen.gvisor.plugins.plugin_utils._containerd.runtime_config import default_name, handlers, is_cri_disabled


def describe_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the module's ``config`` with ``text`` and ``dump`` replaced by version, handlers, default and error."""
    described = {key: value for key, value in config.items() if key not in ("text", "dump")}
    described |= {"version": None, "runtimes": {}, "default_runtime": None}
    try:
        text, told = tomllib.loads(config["text"]), tomllib.loads(config["dump"])
        described["version"] = text.get("version", 1) if config["exists"] else None
        # A disabled CRI plugin is not in the dump of containerd 1.x, and then the file alone knows its handlers.
        if is_cri_disabled(told) and not handlers(told):
            told = text
        described["runtimes"], described["default_runtime"] = handlers(told), default_name(told)
    except tomllib.TOMLDecodeError as error:
        described["error"] = described["error"] or f"{config['path']}: {error}"
    return described
