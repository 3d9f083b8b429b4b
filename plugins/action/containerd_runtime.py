# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""containerd_runtime: read the host, decide here, have the host's containerd check it, have the host write it.

A run that changes nothing is one execution on the host, check mode two, a change three. Where a file here replaces the host's at each of its
starts (option boot_config), that file is what is edited, and the host gets its text; that costs no execution more.
"""

from __future__ import annotations

import base64
import contextlib
import posixpath
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._containerd.config_transaction import meaning_of
from ansible_collections.ggen.gvisor.plugins.plugin_utils._base.action import Action
from ansible_collections.ggen.gvisor.plugins.plugin_utils._containerd import boot_config as boot_configs
from ansible_collections.ggen.gvisor.plugins.plugin_utils._containerd import plan as planning
from ansible_collections.ggen.gvisor.plugins.plugin_utils._containerd import runtime_config as config
from ansible_collections.ggen.gvisor.plugins.plugin_utils._containerd import toml_text as toml
from ansible_collections.ggen.gvisor.plugins.plugin_utils._containerd import verdict


class ActionModule(Action):
    """The controller's half of the module."""

    TRANSFERS_FILES = False

    def _on_host(self, task_vars: dict[str, Any], **plan: Any) -> dict[str, Any]:
        """Run the module once on the host. Raises GvisorError with its message when it fails."""
        if "plan" in self._task.args:
            raise AnsibleActionFail("plan is set by the action plugin; leave it out")
        done = self._execute_module(module_args={**self._task.args, "plan": plan}, task_vars=task_vars)
        if done.get("failed") or "module_stdout" in done:
            details = {key: value for key, value in done.items() if key not in ("msg", "failed", "changed")}
            raise GvisorError(done.get("msg", "the module failed"), **details)
        return done

    def perform(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        """Run the task and return its result."""
        read = self._on_host(task_vars, phase="read", follow="path" not in self._task.args)
        params = read["params"]
        boot_config = boot_configs.read(params["boot_config"]) if params["boot_config"] else None
        warnings = [read["recovered"]] if read["recovered"] else []
        plan = _decide(read, boot_config)
        read, plan = self._read_imports(task_vars, read, plan, boot_config)
        found, params = read["found"], {**params, "program": read["program"]}
        outcome = _settle(boot_config, plan, found, params) if boot_config else None
        moved = bool(boot_config and outcome and outcome.text != boot_config.text)
        containerd = found["containerd"] or ""
        result: dict[str, Any] = {
            "changed": bool(plan.written) or moved,
            "file": plan.file,
            "files": [file.path for file in plan.written],
            "config_version": plan.version,
            "containerd_version": containerd,
            "validation": "not needed",
            "restarted": False,
            "rolled_back": False,
            "warnings": warnings + plan.notes,
        }
        edits = [(file.path, file.path, file.text, file.after) for file in plan.written]
        if boot_config and outcome:
            result["boot_config"] = {"file": boot_config.path, "source": boot_config.source, "changed": moved}
            edits += [(boot_config.path, f"{boot_config.path} (on the controller)", boot_config.text, outcome.text)] if moved else []
        if not edits:
            planning.confirm(found, plan, params)
            return result
        result["diff"] = [
            {"before": before or "", "after": after or "", "before_header": header, "after_header": header}
            for _path, header, before, after in edits
        ]
        meaning = None
        if plan.written:
            result["validation"], meaning = self._validate(task_vars, found, params, plan)
        if self._task.check_mode:
            return result
        with contextlib.ExitStack() as stack:
            staged = stack.enter_context(boot_configs.Staged(boot_config, outcome.text)) if boot_config and outcome and moved else None
            if plan.written:
                self._apply(task_vars, found, params, plan, meaning, result)
            if staged:
                staged.commit()
        return result

    def _apply(
        self,
        task_vars: dict[str, Any],
        found: dict[str, Any],
        params: dict[str, Any],
        plan: planning.ConfigPlan,
        meaning: str | None,
        result: dict[str, Any],
    ) -> None:
        """Have the host write its files and restart containerd, and put what came of it into the result.

        ``meaning`` is that of the dump that was accepted: the host compares it with what containerd makes of the files that were written.
        """
        main_folder = posixpath.dirname(plan.main.path)
        service = {
            "service": (found["service"] if "service" not in self._task.args else None) or params["service"],
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
            main=plan.main.path,
            meaning=None if plan.sources else meaning,
            handler={"name": params["name"], "present": params["state"] == "present"} if plan.sources else None,
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

    def _read_imports(
        self, task_vars: dict[str, Any], read: dict[str, Any], plan: planning.ConfigPlan, boot_config: boot_configs.BootConfig | None
    ) -> tuple[dict[str, Any], planning.ConfigPlan]:
        """Read again when the host, which cannot parse TOML, found other imports than the main file has."""
        wanted = planning.imports_of(plan.main)
        if wanted == list(read["found"]["imports"]):
            return read, plan
        read = self._on_host(task_vars, phase="read", imports=wanted, follow="path" not in self._task.args)
        return read, _decide(read, boot_config)

    def _validate(
        self, task_vars: dict[str, Any], found: dict[str, Any], params: dict[str, Any], plan: planning.ConfigPlan
    ) -> tuple[str, str | None]:
        """Return the verdict of the host's containerd and its dump's meaning. Raises GvisorError when it is not what it should be."""
        containerd = found["containerd"]
        missing = planning.missing_imports(found)
        if missing:
            raise GvisorError(
                f"{plan.main.path}: imports names {', '.join(missing)}, which is not there; containerd would not start. Nothing was written.",
                file=plan.main.path,
            )
        if not params["validate"]:
            return "not asked for", None
        if not containerd:
            if self._task.check_mode:
                return "not possible: containerd is not installed here yet", None
            raise GvisorError(
                f"{params['program']} was not found on this host, so the result cannot be checked. Nothing was written; install containerd "
                "first, or set validate: false."
            )
        candidates = planning.validation_of(plan, containerd)
        after = self._on_host(task_vars, phase="validate", program=params["program"], **candidates)["after"]
        verdict.judge(
            found["dump"],
            after,
            verdict.Wish(
                where=plan.file,
                containerd=containerd,
                name=params["name"],
                wanted=planning.handler_of(params).table() if params["state"] == "present" else None,
                default=params["default"] if params["state"] == "present" else None,
                others=planning.others_with(found, params["name"], {plan.file, *(file.path for file in plan.edits)}),
            ),
        )
        # A CRI plugin that is turned off was turned on in the candidate, to be seen.
        is_whole = not config.disabled_cri(toml.parse(plan.main.after or "", plan.main.path))
        return f"accepted by containerd {containerd}", meaning_of(after["stdout"]) if is_whole else None


def _remover(params: dict[str, Any], where: str) -> boot_configs.Remove:
    """Return what takes the handler out of a text."""
    allow_newer = params["allow_newer_config_version"]
    return lambda text: config.set_absent(text, params["name"], where=where, allow_newer=allow_newer).text or ""


def _host_text(found: dict[str, Any]) -> str | None:
    content = found["main"]["content"]
    return None if content is None else base64.b64decode(content).decode("utf-8", "replace")


def _decide(read: dict[str, Any], boot_config: boot_configs.BootConfig | None) -> planning.ConfigPlan:
    """Return the plan for the host's own file, or with an boot_config for the text that the host has from it after its next start.

    Taking the handler out of a host that differs from its boot_config is about the host's own text: nothing else of it is to change.
    """
    found, params = read["found"], read["params"]
    if boot_config is None:
        return planning.decide(found, params)
    there = _host_text(found)
    if params["state"] == "present":
        base = boot_configs.base_of(boot_config, _remover(params, boot_config.source))
    else:
        base = boot_config.body if there == boot_config.used else boot_configs.strip_head(there or "")
    content = base64.b64encode(base.encode()).decode("ascii")
    dropin = "never" if params["dropin"] == "auto" else params["dropin"]
    try:
        return planning.decide({**found, "main": {**found["main"], "content": content}}, {**params, "dropin": dropin})
    except GvisorError as error:
        raise GvisorError(f"{error.message} The text is from {boot_config.source}, on the controller.", **error.details) from error


def _settle(
    boot_config: boot_configs.BootConfig, plan: planning.ConfigPlan, found: dict[str, Any], params: dict[str, Any]
) -> boot_configs.Wanted:
    """Return what is to be of the boot_config, and have the plan change the host's file from what it really is to that."""
    there = _host_text(found)
    remove = _remover(params, boot_config.source)
    if params["state"] == "present":
        outcome = boot_configs.present(boot_config, plan.main.after or "", remove)
        plan.main.after = outcome.used
    else:
        outcome = boot_configs.absent(boot_config, remove)
        if there == boot_config.used:
            plan.main.after = outcome.used
        elif there is None or plan.main.after == plan.main.text:
            plan.main.after = there
    plan.main.text = there
    return outcome
