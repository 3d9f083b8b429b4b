# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""containerd_run: sends workspaces of the controller with the run and writes the run's changes back; otherwise the module as it is."""

from __future__ import annotations

import os
import tempfile
from typing import Any

from ansible import constants as C
from ansible.errors import AnsibleActionFail
from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._base.files import SENT_WORKSPACE
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox import protect
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.jobs import names_of, summary
from ansible_collections.ggen.gvisor.plugins.plugin_utils._base.action import Action
from ansible_collections.ggen.gvisor.plugins.plugin_utils._transfer import workspace_copy
from ansible_collections.ggen.gvisor.plugins.plugin_utils._transfer.secrets import encoded


def _patterns(value: Any, otherwise: list[str] | None) -> list[str] | None:
    """Return an option that is a list as the module understands it."""
    if value is None:
        return otherwise
    return value.split(",") if isinstance(value, str) else [str(pattern) for pattern in value]


class ActionModule(Action):
    """The controller's half of the module."""

    _supports_async = True

    def perform(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        """Run the task and return its result."""
        jobs = self._task.args.get("jobs")
        entries = [self._task.args] if jobs is None else [{**self._task.args, **job} for job in jobs]
        if any("archive" in entry for entry in entries):
            raise AnsibleActionFail("archive is set by the action plugin; name a folder with workspace and workspace_from: controller")
        arguments = self._with_secrets(jobs)
        ours = [number for number, entry in enumerate(entries) if entry.get("workspace_from", "host") == "controller"]
        if not ours:
            background = self._task.async_val and not self._connection.has_native_async
            return self._execute_module(module_args=arguments, task_vars=task_vars, wrap_async=background)
        if self._task.async_val:
            raise AnsibleActionFail("a workspace of the controller cannot be used in the background; take async away")
        self._bars = [
            protect.barred(_patterns(entry.get("protect"), protect.DEFAULT), _patterns(entry.get("outputs"), None)) for entry in entries
        ]
        return self._with_copies({number: self._workspace(entries[number]) for number in ours}, arguments, task_vars)

    @staticmethod
    def _workspace(entry: dict[str, Any]) -> str:
        """Return the controller's folder that the entry names. Raises GvisorError."""
        workspace = os.path.abspath(os.path.expanduser(str(entry.get("workspace") or "")))
        if not entry.get("workspace") or not os.path.isdir(workspace):
            raise GvisorError(f"workspace {workspace} is no folder of the controller; name one, or set workspace_from: host")
        return workspace

    def _with_secrets(self, jobs: list[dict[str, Any]] | None) -> dict[str, Any]:
        """Return the task's arguments with the secrets' values in place of where they come from. Raises GvisorError."""

        def resolved(options: dict[str, Any]) -> dict[str, Any]:
            return {**options, "secrets": encoded(options["secrets"], self._loader)} if options.get("secrets") else {**options}

        return {**resolved(self._task.args), **({"jobs": [resolved(job) for job in jobs]} if jobs else {})}

    def _with_copies(self, workspaces: dict[int, str], arguments: dict[str, Any], task_vars: dict[str, Any] | None) -> dict[str, Any]:
        """Send the workspaces, run with ``arguments``, write back. Raises GvisorError when one cannot be sent."""
        several = arguments.get("jobs") is not None
        jobs = [dict(job) for job in arguments["jobs"]] if several else [dict(arguments)]
        sent = {}
        with tempfile.TemporaryDirectory(dir=C.DEFAULT_LOCAL_TMP) as folder:
            archives = {number: os.path.join(folder, SENT_WORKSPACE.format(number)) for number in workspaces}
            for number, workspace in workspaces.items():
                sent[number] = workspace_copy.pack(workspace, archives[number])
            place = self._make_tmp_path()
            try:
                for number, archive in archives.items():
                    there = self._connection._shell.join_path(place, os.path.basename(archive))
                    self._transfer_file(archive, there)
                    jobs[number].update(workspace=None, archive=there)
                    self._fixup_perms2([self._connection._shell.tmpdir, there], execute=False)
                done = self._execute_module(module_args={**arguments, "jobs": jobs} if several else jobs[0], task_vars=task_vars)
            finally:
                self._remove_tmp_path(self._connection._shell.tmpdir)
        if not several:
            written = self._written(0, workspaces[0], sent[0], done)
            return self._with_warnings(written, written.pop("remarks", []))
        if "jobs" not in done:
            return done
        if len(done["jobs"]) != len(jobs):
            raise GvisorError(f"the host's result does not have the {len(jobs)} jobs that it was given. Nothing was written back.")
        names, remarks = names_of(arguments["jobs"], arguments.get("argv")), []
        for number, workspace in workspaces.items():
            written = done["jobs"][number] = self._written(number, workspace, sent[number], done["jobs"][number])
            remarks += [f"{names[number]}: {remark}" for remark in written.pop("remarks", [])]
        return self._with_warnings({**done, **summary(done["jobs"], names)}, remarks)

    @staticmethod
    def _with_warnings(result: dict[str, Any], remarks: list[str]) -> dict[str, Any]:
        """Return the result with the remarks where Ansible looks for what it shows: beside the jobs, not in them."""
        return {**result, "warnings": [*result.get("warnings", []), *remarks]} if remarks else result

    def _written(self, number: int, workspace: str, sent: Any, done: dict[str, Any]) -> dict[str, Any]:
        """Bring what a run did to its copy back to the workspace; return the run's result, with remarks on what did not come."""
        contents = done.pop("contents", None)
        done.pop("remarks", None)  # no host's word
        if self._task.check_mode or contents is None:  # a rehearsal, or something was wrong with what the command left
            return done
        try:
            remarks = workspace_copy.write_back(workspace, sent, contents, self._bars[number])
        except GvisorError as error:
            # Without an exit code: nothing of the run has an effect.
            return {**done, "failed": True, "changed": False, "rc": None, "msg": error.message}
        if remarks:
            done["remarks"] = remarks
        return done
