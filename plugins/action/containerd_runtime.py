# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""containerd_runtime: read the host, decide here, have the host's containerd check it, have the host write it.

A run that changes nothing is one execution on the host, check mode two, a change three.
"""

from __future__ import annotations

import posixpath
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.ggen.gvisor.plugins.module_utils._errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.plugin_utils import containerd_config as config
from ansible_collections.ggen.gvisor.plugins.plugin_utils import containerd_plan as planning


class ActionModule(ActionBase):
    """The controller's half of the module."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the task and return its result."""
        result = super().run(tmp, task_vars)
        del tmp
        try:
            return {**result, **self._run(task_vars)}
        except GvisorError as error:
            return {**result, "failed": True, "changed": False, "msg": error.message, **error.details}

    def _on_host(self, task_vars: dict[str, Any] | None, **plan: Any) -> dict[str, Any]:
        """Run the module once on the host. Raises GvisorError with its message when it fails."""
        if "plan" in self._task.args:
            raise AnsibleActionFail("plan is set by the action plugin; leave it out")
        done = self._execute_module(module_args={**self._task.args, "plan": plan}, task_vars=task_vars)
        if done.get("failed") or "module_stdout" in done:
            details = {key: value for key, value in done.items() if key not in ("msg", "failed", "changed")}
            raise GvisorError(done.get("msg", "the module failed"), **details)
        return done

    def _run(self, task_vars: dict[str, Any] | None) -> dict[str, Any]:
        read = self._on_host(task_vars, phase="read")
        found, params = read["found"], read["params"]
        warnings = [read["recovered"]] if read["recovered"] else []
        plan = planning.decide(found, params)
        if params["state"] == "present" or plan.edits:
            read, plan = self._read_imports(task_vars, read, plan)
            found = read["found"]
        containerd = found["containerd"] or ""
        result: dict[str, Any] = {
            "changed": bool(plan.edits),
            "file": plan.file,
            "files": [file.path for file in plan.edits],
            "config_version": plan.version,
            "containerd_version": containerd,
            "validation": "not needed",
            "restarted": False,
            "rolled_back": False,
            "warnings": warnings + plan.notes,
        }
        if not plan.edits:
            return result
        result["diff"] = [
            {
                "before": file.text or "",
                "after": file.after or "",
                "before_header": file.path,
                "after_header": file.path,
            }
            for file in plan.edits
        ]
        result["validation"] = self._validate(task_vars, found, params, plan)
        if self._task.check_mode:
            return result
        main_folder = posixpath.dirname(plan.main.path)
        service = {
            "service": params["service"],
            "manager": params["manager"],
            "config": params["path"],
            "address": plan.address,
            "program": params["program"],
            "ctr": posixpath.join(posixpath.dirname(params["program"]), "ctr"),
            "pid_file": params["pid_file"],
            "log_file": params["log_file"],
        }
        done = self._on_host(
            task_vars,
            phase="apply",
            folder=main_folder,
            files=planning.changes_of(plan),
            emptied=plan.emptied,
            backup=params["backup"],
            restart=params["restart"],
            timeout=params["timeout"],
            service=service,
        )
        result["restarted"] = done["restarted"]
        result["warnings"] += done["remarks"]
        if "cri" in done:
            result["cri"] = done["cri"]
        backups = done["backup_files"]
        if backups:
            result["backup_file"] = backups.get(plan.file) or next(iter(backups.values()))
        return result

    def _read_imports(
        self, task_vars: dict[str, Any] | None, read: dict[str, Any], plan: planning.Plan
    ) -> tuple[dict[str, Any], planning.Plan]:
        """Read again when the host, which cannot parse TOML, found other imports than the main file has."""
        wanted = planning.imports_of(plan.main)
        if wanted == list(read["found"]["imports"]):
            return read, plan
        read = self._on_host(task_vars, phase="read", imports=wanted)
        return read, planning.decide(read["found"], read["params"])

    def _validate(self, task_vars: dict[str, Any] | None, found: dict[str, Any], params: dict[str, Any], plan: planning.Plan) -> str:
        """Return the verdict of the host's containerd. Raises GvisorError when it is not what it should be."""
        containerd = found["containerd"]
        missing = planning.missing_imports(found)
        if missing:
            raise GvisorError(
                f"{plan.main.path}: imports names {', '.join(missing)}, which is not there; containerd would not start. Nothing was written.",
                file=plan.main.path,
            )
        if not params["validate"]:
            return "not asked for"
        if not containerd:
            if self._task.check_mode:
                return "not possible: containerd is not installed here yet"
            raise GvisorError(
                f"{params['program']} was not found on this host, so the result cannot be checked. Nothing was written; install containerd "
                "first, or set validate: false."
            )
        dumps = self._on_host(task_vars, phase="validate", **planning.validation_of(plan, containerd))
        config.judge(
            dumps["before"],
            dumps["after"],
            where=plan.file,
            containerd=containerd,
            name=params["name"],
            wanted=planning.handler_of(params).table() if params["state"] == "present" else None,
            default=params["default"],
        )
        return f"accepted by containerd {containerd}"
