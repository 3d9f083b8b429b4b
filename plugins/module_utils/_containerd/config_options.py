# Copyright (c) 2026, the ggen.gvisor authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""The options of module containerd_runtime, which the controller checks as well when it judges a host without changing it."""

from __future__ import annotations

from typing import Any, Dict

ARGUMENT_SPEC: Dict[str, Any] = {
    "name": {"type": "str", "default": "runsc"},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "path": {"type": "path", "default": "/etc/containerd/config.toml"},
    "runtime_type": {"type": "str"},
    "options": {"type": "dict", "default": {}},
    "pod_annotations": {"type": "list", "elements": "str"},
    "snapshotter": {"type": "str"},
    "default": {"type": "bool"},
    "dropin": {"type": "str", "default": "auto"},
    "allow_newer_config_version": {"type": "bool", "default": False},
    "backup": {"type": "bool", "default": False},
    "validate": {"type": "bool", "default": True},
    "restart": {"type": "bool", "default": False},
    "service": {"type": "str", "default": "containerd"},
    "manager": {"type": "str", "choices": ["auto", "systemd", "daemon"], "default": "auto"},
    "timeout": {"type": "float", "default": 60},
    "boot_config": {"type": "list", "elements": "str", "default": []},
    "address": {"type": "path"},
    "pid_file": {"type": "path", "default": "/run/containerd/containerd.pid"},
    "log_file": {"type": "path", "default": "/var/log/containerd.log"},
    "program": {"type": "str", "default": "containerd"},
    "plan": {"type": "dict", "default": {}},
}
