# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What containerd itself understands of its configuration: `containerd config dump`, read on the controller."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import tomllib
from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.plugin_utils._containerd import toml_text as toml
from ansible_collections.ggen.gvisor.plugins.plugin_utils._containerd.runtime_config import (
    DEFAULT_RUNTIME,
    RUNC,
    default_name,
    handlers,
    is_cri_disabled,
    same,
)


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


def judge(
    before: dict[str, Any],
    after: dict[str, Any],
    *,
    where: str,
    containerd: str,
    name: str,
    wanted: dict[str, Any] | None,
    default: bool | None,
) -> None:
    """Raise GvisorError unless the host's containerd understands the candidate as it is meant.

    ``before`` and ``after`` are the dumps (rc, stdout, stderr) of the file as it is and as it would be; ``wanted`` is the handler's
    table, None when it is to be absent. containerd's own exit code is not enough: it ignores much without a word.
    """
    who = f"containerd {containerd}"
    if after["rc"] != 0:
        raise GvisorError(
            f"{where}: {who} refuses the result: {after['stderr']}. Nothing was written.",
            file=where,
            validation=after["stderr"],
        )
    is_read = before["rc"] == 0
    old, new = (
        toml.parse(before["stdout"], f"{who}'s dump").data if is_read else {},
        toml.parse(after["stdout"], f"{who}'s dump").data,
    )
    had, has = handlers(old), handlers(new)
    faults: list[str] = []
    if wanted is None:
        if name in has and name != DEFAULT_RUNTIME:
            faults.append(f"handler {name} would still be there, from a file that another file imports")
    elif name not in has:
        faults.append(f"handler {name} would have no effect: {_why_ignored(after)}")
    else:
        missing = _difference(wanted, has[name])
        faults += [f"handler {name}: {missing} would not be in effect"] if missing else []
    for other, table in had.items():
        # The built-in runc has keys filled in that ours gets when the CRI plugin starts (sandbox_mode): its type is what counts.
        if other != name and other not in has:
            faults.append(f"handler {other} would be lost")
        elif other != name and _difference(RUNC if other == DEFAULT_RUNTIME else table, has[other]):
            faults.append(f"handler {other} would change: {_difference(table, has[other])}")
    chosen = default_name(new)
    if has and chosen not in has and (wanted is not None or default_name(old) in had):
        faults.append(f"the default runtime {chosen} would name no handler, and the CRI plugin would not start")
    if default and chosen != name:
        faults.append(f"the default runtime would be {chosen}")
    notes = _unknown_keys(after["stderr"]) - (_unknown_keys(before["stderr"]) if is_read else set())
    faults += [f"it does not know {note}" for note in sorted(notes)]
    if faults:
        raise GvisorError(
            f"{where}: {who} would not take the result as it is meant: {'; '.join(faults)}. Nothing was written.",
            file=where,
        )


def _why_ignored(after: dict[str, Any]) -> str:
    if _unknown_keys(after["stderr"]):
        return (
            "it ignores the CRI plugin's settings in a file without a version line; convert the file with `containerd config migrate` first"
        )
    return "it ignores the table without saying why"


def _unknown_keys(stderr: str) -> set[str]:
    """Return the keys that containerd's notes call unknown, with their plugin."""
    return {
        f"{key.strip(chr(34))} in {plugin}" for key, plugin in re.findall(r"[Uu]nknown key.*?key=(\"[^\"]*\"|\S+)\s+plugin=(\S+)", stderr)
    }


def _difference(wanted: dict[str, Any], there: Any) -> str:
    """Return the first of the wanted keys that ``there`` does not have as wanted, "" when it has them all."""
    for key, value in wanted.items():
        found = there.get(key, toml.MISSING) if isinstance(there, dict) else toml.MISSING
        if isinstance(value, dict):
            inner = _difference(value, found)
            if inner:
                return f"{key}.{inner}"
        elif found is toml.MISSING or not same(value, found):
            return key
    return ""
