# Copyright (c) 2026, the ggen.gvisor authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""What a run is where nobody says otherwise: the options of containerd_run that have a default, for the module and for the command."""

from __future__ import annotations

from typing import Any, Dict

from ansible_collections.ggen.gvisor.plugins.module_utils._containerd.ctr import DEFAULT_ADDRESS
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox import protect
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.supervisor import DEFAULT_STATE_DIR

DEFAULTS: Dict[str, Any] = {
    "mounts": [],
    "env": {},
    "secrets": {},
    "timeout": 600.0,
    "protect": protect.DEFAULT,
    "ignore": [],
    "pids": 2048,
    "file_size": "4G",
    "limits": "required",
    "namespace": "default",
    "runtime": "io.containerd.runsc.v1",
    "network": "none",
    "read_only": True,
    "private": [],
    "trace": False,
    "fail_on_rc": True,
    "max_output": 1 << 20,
    "name": "run",
    "address": DEFAULT_ADDRESS,
    "state_dir": DEFAULT_STATE_DIR,
}
# Those that are not there where nobody says them.
UNSET = ("image", "argv", "stdin", "workspace", "archive", "user", "cwd", "memory", "cpus", "outputs", "keep_free", "metrics")


def options(**given: Any) -> Dict[str, Any]:
    """Return all options of one command: those that are ``given`` and not None, and the defaults."""
    return {**dict.fromkeys(UNSET), **DEFAULTS, **{name: value for name, value in given.items() if value is not None}}
