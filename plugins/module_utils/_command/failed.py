# Copyright (c) 2026, the ggen.gvisor authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""The last run that failed, as the audit trail has it, for a shell on a copy of what it worked on."""

from __future__ import annotations

import json
import os
from typing import Any, Dict, Iterator, Mapping, Optional, Tuple

from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._base.files import read_text
from ansible_collections.ggen.gvisor.plugins.module_utils._command.table import TERMINAL
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.audit import FILE, NAME
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.defaults import DEFAULTS

_AS_IT_WAS = ("image", "namespace", "runtime", "user")  # of a record, for options of the same name that nobody gives


def records(state_dir: str) -> Iterator[Dict[str, Any]]:
    """Yield what the audit trail says of each run, the last one first. Raises GvisorError where it may not be read."""
    place = os.path.join(state_dir, NAME, FILE)
    for path in (place, f"{place}.1"):
        if os.path.exists(os.path.dirname(path)) and not os.access(os.path.dirname(path), os.R_OK | os.X_OK):
            raise GvisorError(f"{path} is root's alone: use sudo")
        for line in reversed((read_text(path) or "").splitlines()):
            try:
                yield dict(json.loads(line))
            except (ValueError, TypeError):
                continue  # a line that was cut off


def has_failed(record: Mapping[str, Any]) -> bool:
    """Tell whether a run failed that had a workspace of the host's. One that a person sat at ends with whatever they typed last."""
    if not str(record.get("workspace")).startswith("/") or str(record.get("run")).startswith(f"{TERMINAL}-"):
        return False
    return record.get("ended") != "exit" or record.get("rc") != 0 or bool(record.get("faults"))


def settled(options: Mapping[str, Any]) -> Tuple[Dict[str, Any], Dict[str, Any]]:
    """Return the record of the last run that failed, in the workspace that ``options`` name or in any, and the options for a shell on a copy of it.

    Raises GvisorError where there is none.
    """
    wanted: Optional[str] = options.get("workspace")
    real = os.path.realpath(wanted) if wanted else None
    for record in records(options.get("state_dir", DEFAULTS["state_dir"])):
        if has_failed(record) and real in (None, record["workspace"]):
            found = {name: record[name] for name in _AS_IT_WAS if record.get(name)}
            return record, {**found, **options, "workspace": record["workspace"], "copy": True}
    raise GvisorError(f"the audit trail knows no run {f'in {real} ' if real else ''}that failed and had a workspace of this host")
