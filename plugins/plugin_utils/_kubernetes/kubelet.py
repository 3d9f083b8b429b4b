# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a kubelet's files and flags say of the two settings that count for a runtime: its cgroup driver and its containerd's socket."""

from __future__ import annotations

import contextlib
import json
import posixpath
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

# The setting by the flag that says the same, which wins; and what a kubelet takes where nobody says anything.
SETTINGS = {"cgroupDriver": "cgroup-driver", "containerRuntimeEndpoint": "container-runtime-endpoint"}
DEFAULTS = {"cgroupDriver": "cgroupfs", "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock"}
DRIVERS = ("cgroupfs", "systemd")
MAX_TEXT = 1 << 16
_NULL = ("~", "null", "Null", "NULL")
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def settings_in(text: str) -> dict[str, str]:
    """Return which of SETTINGS a file's top level has; one without a value is as good as not there. Raises ValueError for what is no mapping.

    Only the parser's events are read: nothing is made of the text, so an alias or a tag in it can make nothing large and nothing strange.
    """
    if len(text) > MAX_TEXT:
        raise ValueError(f"it is larger than {MAX_TEXT >> 10} KiB")
    with contextlib.suppress(ValueError, RecursionError):  # JSON may be indented by tabs, YAML not
        found = json.loads(text)
        if isinstance(found, dict):
            return {name: str(value) for name, value in found.items() if name in SETTINGS and value not in (None, "")}
    try:
        return dict(_pairs(yaml.parse(text, Loader=_LOADER)))
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        raise ValueError(f"it is no YAML{f' (line {where.line + 1})' if where else ''}") from None


def _pairs(events: Iterator[yaml.Event]) -> Iterator[tuple[str, str]]:
    """Yield the wanted pairs of the first document's mapping."""
    level, key, at_key = 0, None, True
    for event in events:
        if isinstance(event, yaml.DocumentEndEvent):
            return
        if isinstance(event, yaml.CollectionEndEvent):
            level -= 1
        if isinstance(event, yaml.NodeEvent) and level == 1:
            plain = isinstance(event, yaml.ScalarEvent)
            if at_key:
                key = event.value if plain else None
                if key == "<<":
                    raise ValueError("it has a merge key at its top level, which is not followed")
            elif key in SETTINGS:
                if not plain:
                    raise ValueError(f"its {key} is no text")
                if event.value and not (event.implicit[0] and event.value in _NULL):
                    yield key, event.value
            at_key = not at_key
        elif level == 0 and isinstance(event, yaml.NodeEvent) and not isinstance(event, yaml.MappingStartEvent):
            if isinstance(event, yaml.ScalarEvent) and event.implicit[0] and event.value in ("", *_NULL):
                return
            raise ValueError("it is no mapping")
        if isinstance(event, yaml.CollectionStartEvent):
            level += 1


def socket_of(endpoint: str) -> str:
    """Return the path of an endpoint's socket. /var/run is /run under its old name."""
    path = posixpath.normpath(endpoint.removeprefix("unix://"))
    return path.removeprefix("/var") if path.startswith("/var/run/") else path


def describe(told: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return what is known of the kubelet from what the host told: whether one was ``found``, its ``cgroup_driver`` and ``address``, and an ``error``.

    Later files win over earlier ones and flags over all of them, as for the kubelet itself.
    """
    if told is None:
        return {"found": False, "running": False, "files": [], "cgroup_driver": None, "address": None, "error": None}
    said, errors = dict(DEFAULTS), []
    for file in told["files"]:
        try:
            if file["error"]:
                raise ValueError(file["error"])
            said |= settings_in(file["text"])
        except ValueError as error:
            errors.append(f"{file['path']}: {error}")
    said |= {name: told["flags"][flag] for name, flag in SETTINGS.items() if told["flags"].get(flag)}
    if said["cgroupDriver"] not in DRIVERS:
        errors.append(f"its cgroupDriver is {said['cgroupDriver']!r}, and there are {' and '.join(DRIVERS)}")
    return {
        "found": True,
        "running": told["pid"] is not None,
        "files": [file["path"] for file in told["files"]],
        "cgroup_driver": None if errors else said["cgroupDriver"],
        "address": socket_of(said["containerRuntimeEndpoint"]),
        "error": "; ".join(errors) or None,
    }
