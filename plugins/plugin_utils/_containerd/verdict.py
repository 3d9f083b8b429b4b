# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What containerd itself understands of its configuration: `containerd config dump`, read on the controller."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import tomllib
from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.plugin_utils._containerd import toml_text as toml
from ansible_collections.ggen.gvisor.plugins.plugin_utils._containerd.runtime_config import (
    DEFAULT_RUNTIME,
    default_name,
    deprecated_default,
    handlers,
    is_cri_disabled,
    same,
    table_in,
)

# What containerd puts in the place of a key that is not there when its CRI plugin starts.
FILLED_IN = {"sandbox_mode": "podsandbox"}


class Wish(NamedTuple):
    """What is wanted of a handler."""

    where: str  # the file that messages name
    containerd: str
    name: str
    wanted: dict[str, Any] | None  # the handler's table; None when it is to be absent
    default: bool | None
    others: Sequence[str] = ()  # what is known of files that may decide instead

    @property
    def who(self) -> str:
        """The judge, in messages."""
        return f"containerd {self.containerd}"

    @property
    def because(self) -> str:
        """The end of a sentence about something that is not as wanted."""
        return f": {'; '.join(self.others)}" if self.others else ""


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


def judge(before: dict[str, Any], after: dict[str, Any], wish: Wish) -> None:
    """Raise GvisorError unless the host's containerd understands the candidate as it is meant.

    ``before`` and ``after`` are the dumps (rc, stdout, stderr) of the file as it is and as it would be. containerd's own exit code is not enough: it
    ignores much without a word.
    """
    where, who = wish.where, wish.who
    if after["rc"] != 0:
        raise GvisorError(
            f"{where}: {who} refuses the result: {after['stderr']}. Nothing was written.",
            file=where,
            validation=after["stderr"],
        )
    is_read = before["rc"] == 0
    old = toml.parse(before["stdout"], f"{who}'s dump").data if is_read else {}
    new = toml.parse(after["stdout"], f"{who}'s dump").data
    had, has = handlers(old), handlers(new)
    faults = unmet(after, new, wish, would=True)
    for other, table in had.items():
        if other != wish.name and other not in has:
            faults.append(f"handler {other} would be lost{wish.because}")
        elif other != wish.name:
            faults += [f"handler {other} would change: {change}" for change in _changes(table, has[other])]
    chosen = default_name(new)
    if has and chosen not in has and not _is_deprecated(new) and (wish.wanted is not None or default_name(old) in had):
        faults.append(f"the default runtime {chosen} would name no handler, and the CRI plugin would not start")
    notes = _unknown_keys(after["stderr"]) - (_unknown_keys(before["stderr"]) if is_read else set())
    faults += [f"it does not know {note}" for note in sorted(notes)]
    if faults:
        raise GvisorError(
            f"{where}: {who} would not take the result as it is meant: {'; '.join(faults)}. Nothing was written.",
            file=where,
        )


def judge_as_it_is(told: dict[str, Any], wish: Wish) -> None:
    """Raise GvisorError where the files need no change and the host's containerd makes something else of them than is wanted.

    ``told`` is the dump of the configuration as it is. Of a CRI plugin that is turned off nothing can be told: below 2.0 it is not in the dump.
    """
    where, who = wish.where, wish.who
    if told["rc"] != 0:
        if wish.wanted is None:  # no file has it, and what else is wrong is no matter of this handler
            return
        raise GvisorError(f"{where}: {who} cannot read its configuration: {told['stderr']}", file=where, validation=told["stderr"])
    data = toml.parse(told["stdout"], f"{who}'s dump").data
    if is_cri_disabled(data):
        return
    faults = unmet(told, data, wish)
    if faults:
        state = "is as it should be" if wish.wanted is not None else f"has no handler {wish.name}"
        raise GvisorError(
            f"{where} {state}, but {who}, which reads all files together, sees it otherwise: {'; '.join(faults)}. Nothing was written; "
            f"{'change or remove what decides there' if wish.wanted is not None else 'take it out there'}, then run again.",
            file=where,
        )


def unmet(told: dict[str, Any], data: dict[str, Any], wish: Wish, *, would: bool = False) -> list[str]:
    """Return what is wanted of the handler and is not in effect in a dump, or with ``would`` would not be; ``data`` is what the dump says."""
    has, name, wanted, because = handlers(data), wish.name, wish.wanted, wish.because
    will_have, will_be, still = ("would have", "would be", "would still be") if would else ("has", "is", "is still")
    if wanted is None:
        return [f"handler {name} {still} there{because}"] if name in has and name != DEFAULT_RUNTIME else []
    faults = []
    if name not in has:
        faults.append(f"handler {name} {will_have} no effect{because or ': ' + _why_ignored(data, told)}")
    else:
        faults += [
            f"handler {name}: {key} {will_be.replace('would', 'would not') if would else 'is not'} in effect, it {will_be} {there} instead of "
            f"{value!r}{because}"
            for key, there, value in _differences(wanted, has[name])
        ]
    chosen = default_name(data)
    if wish.default and _is_deprecated(data):
        faults.append("the deprecated table default_runtime decides which runtime is the default")
    elif wish.default and chosen != name:
        faults.append(f"the default runtime {will_be} {chosen} instead of {name}{because}")
    elif wish.default is False and chosen == name:
        faults.append(f"the default runtime {still} {name}{because}")
    return faults


def _is_deprecated(data: dict[str, Any]) -> bool:
    return bool(deprecated_default(data, table_in(data)))


def _why_ignored(data: dict[str, Any], told: dict[str, Any]) -> str:
    if data.get("version", 1) > 2 and _unknown_keys(told["stderr"]):
        return (
            "it ignores the CRI plugin's settings in a file without a version line; convert the file with `containerd config migrate` first"
        )
    return f"its dump has none of it{': ' + told['stderr'] if told['stderr'] else ''}"


def _unknown_keys(stderr: str) -> set[str]:
    """Return the keys that containerd's notes call unknown, with their plugin."""
    return {
        f"{key.strip(chr(34))} in {plugin}" for key, plugin in re.findall(r"[Uu]nknown key.*?key=(\"[^\"]*\"|\S+)\s+plugin=(\S+)", stderr)
    }


def _differences(wanted: dict[str, Any], there: Any, prefix: str = "") -> list[tuple[str, str, Any]]:
    """Return which of the wanted keys ``there`` does not have as wanted: the key, what is there in words, what is wanted."""
    found = []
    for key, value in wanted.items():
        has = there.get(key, toml.MISSING) if isinstance(there, dict) else toml.MISSING
        if isinstance(value, dict):
            found += _differences(value, has, f"{prefix}{key}.")
        elif has is toml.MISSING or not same(value, has):
            found.append((f"{prefix}{key}", "missing" if has is toml.MISSING else repr(has), value))
    return found


def _changes(old: Any, new: Any, prefix: str = "") -> list[str]:
    """Return which keys of a table have another value than before; a key that is not there counts like its empty value."""
    if isinstance(old, dict) or isinstance(new, dict):
        old, new = (value if isinstance(value, dict) else {} for value in (old, new))
        return [change for key in dict.fromkeys((*old, *new)) for change in _changes(old.get(key), new.get(key), f"{prefix}.{key}")]
    key = prefix.lstrip(".")
    empty = FILLED_IN.get(key)
    if (old or empty) == (new or empty):
        return []
    return [f"{key} was {old!r} and would be {new!r}"]
