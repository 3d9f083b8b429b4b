# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""containerd_run: sends a workspace of the controller with the run and writes the run's changes back; otherwise the module as it is."""

from __future__ import annotations

import os
import tempfile
from typing import Any

from ansible import constants as C
from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.ggen.gvisor.plugins.module_utils._errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.plugin_utils import workspace_copy


class ActionModule(ActionBase):
    """The controller's half of the module."""

    _supports_check_mode = True
    _supports_async = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the task and return its result."""
        result = super().run(tmp, task_vars)
        del tmp
        if "archive" in self._task.args:
            raise AnsibleActionFail("archive is set by the action plugin; name a folder with workspace and workspace_from: controller")
        if self._task.args.get("workspace_from", "host") != "controller":
            background = self._task.async_val and not self._connection.has_native_async
            result.update(self._execute_module(task_vars=task_vars, wrap_async=background))
            return result
        if self._task.async_val:
            raise AnsibleActionFail("a workspace of the controller cannot be used in the background; take async away")
        try:
            return {**result, **self._with_copy(task_vars)}
        except GvisorError as error:
            return {**result, "failed": True, "changed": False, "msg": error.message, **error.details}

    def _with_copy(self, task_vars: dict[str, Any] | None) -> dict[str, Any]:
        """Send the workspace, run, write back. Raises GvisorError when the workspace cannot be sent."""
        workspace = os.path.abspath(os.path.expanduser(str(self._task.args.get("workspace") or "")))
        if not self._task.args.get("workspace") or not os.path.isdir(workspace):
            raise GvisorError(f"workspace {workspace} is no folder of the controller; name one, or set workspace_from: host")
        with tempfile.TemporaryDirectory(dir=C.DEFAULT_LOCAL_TMP) as folder:
            archive = os.path.join(folder, "workspace.tar")
            sent = workspace_copy.pack(workspace, archive)
            there = self._connection._shell.join_path(self._make_tmp_path(), "workspace.tar")
            try:
                self._transfer_file(archive, there)
                self._fixup_perms2([self._connection._shell.tmpdir, there], execute=False)
                arguments = {**self._task.args, "workspace": None, "archive": there}
                done = self._execute_module(module_args=arguments, task_vars=task_vars)
            finally:
                self._remove_tmp_path(self._connection._shell.tmpdir)
        contents = done.pop("contents", {})
        if self._task.check_mode or "changed_files" not in done:
            return done
        try:
            remarks = workspace_copy.write_back(workspace, sent, done["changed_files"], contents)
        except GvisorError as error:
            # Without an exit code: nothing of the run has an effect.
            return {**done, "failed": True, "changed": False, "rc": None, "msg": error.message}
        if remarks:
            done["warnings"] = [*done.get("warnings", []), *remarks]
        for change in done["changed_files"]:
            if change["change"] == "created":
                change["mode"] = f"{int(change['mode'], 8) & 0o700:04o}"
        return done
