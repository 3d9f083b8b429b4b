# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""containerd_info on the controller: reads the TOML and YAML that the host sent, judges it, and what the host gets at its next start."""

from __future__ import annotations

import json
from typing import Any

from ansible_collections.ggen.gvisor.plugins.plugin_utils._base.action import Action
from ansible_collections.ggen.gvisor.plugins.plugin_utils._containerd import boot_config as boot_configs
from ansible_collections.ggen.gvisor.plugins.plugin_utils._containerd.advisories import open_advisories, sentence
from ansible_collections.ggen.gvisor.plugins.plugin_utils._containerd.plan import drift
from ansible_collections.ggen.gvisor.plugins.plugin_utils._containerd.verdict import describe_config
from ansible_collections.ggen.gvisor.plugins.plugin_utils._kubernetes import kubelet


class ActionModule(Action):
    """Run the module once, then replace the configuration's text by what it says."""

    def perform(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        """Return the module's result with ``config`` described."""
        result = self._execute_module(task_vars=task_vars)
        if result.get("failed"):
            return result
        told = result["containerd"]
        version = told["server_version"] or told["version"]
        told["advisories"] = [row.cve for row in open_advisories(version, told["package"])]
        known = sentence(version, told["package"])
        if known:  # said, and nothing more: the host works
            result["warnings"] = [*result.get("warnings", []), known]
        files = self._task.args.get("boot_config") or []
        # The files themselves are not in the result: they may hold credentials.
        found, interrupted = (result["config"].pop(name, None) for name in ("found", "interrupted"))
        result["config"] = describe_config(result["config"])
        result["kubelet"] = kubelet.describe(result["kubelet"])
        if "runtime" in self._task.args:
            # As a module would get them: plain strings, without what Ansible remembers of their source.
            wanted = json.loads(json.dumps(self._task.args["runtime"]))
            arguments = {"path": result["config"]["path"], "program": result["containerd"]["path"], **wanted}
            differences = drift(found, arguments) if found else [result["config"]["error"]]
            if interrupted:
                differences.append(f"an earlier change of {result['config']['path']} was killed in the middle")
            result["config"] |= {"drift": differences, "ready": not files and not differences}
        if files:
            result["config"]["boot_config"] = boot_configs.describe(boot_configs.read(files), result["config"]["sha256"])
        return result
