# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""gvisor_release on the controller: send what the host lacks, compressed, and let the module put it in place."""

from __future__ import annotations

import contextlib
import os
import tempfile
from typing import Any

from ansible import constants as C
from ansible.errors import AnsibleActionFail
from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._builds.cache import cache_root
from ansible_collections.ggen.gvisor.plugins.module_utils._builds.result_folder import reading
from ansible_collections.ggen.gvisor.plugins.plugin_utils._base.action import Action
from ansible_collections.ggen.gvisor.plugins.plugin_utils._command import zipapp
from ansible_collections.ggen.gvisor.plugins.plugin_utils._transfer.send import Item, payload_of


class ActionModule(Action):
    """One execution on the host where nothing is missing or ``missing`` says what is; otherwise one to ask and one to install."""

    def perform(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        """Run the task and return its result."""
        if "payload" in self._task.args:
            raise AnsibleActionFail("payload is set by the action plugin; leave it out")
        if self._task.args.get("state", "present") != "present":  # nothing of the controller's is needed
            return self._execute_module(module_name="ggen.gvisor.gvisor_release", task_vars=task_vars)
        source = self._task.args.get("source")
        # Also while the module runs: on the controller it reads the programs where they are.
        with contextlib.ExitStack() as stack:
            if source:
                stack.enter_context(reading(self.controller_path(source)))
            return self._install(stack.enter_context(tempfile.TemporaryDirectory(dir=C.DEFAULT_LOCAL_TMP)), task_vars)

    def _install(self, made: str, task_vars: dict[str, Any]) -> dict[str, Any]:
        """Install what the host lacks and return the module's result; ``made`` is a folder for what the collection makes of itself."""
        sent = 0
        wanted = [] if self._task.check_mode else list(self._task.args.get("missing") or [])
        arguments = dict(self._task.args)
        for _attempt in ("what the caller knows", "what the host says"):
            if wanted:
                arguments["payload"], sent = self._send(wanted, made, task_vars)
            done = self._execute_module(module_name="ggen.gvisor.gvisor_release", module_args=arguments, task_vars=task_vars)
            if done.get("failed") or not done.get("missing") or self._task.check_mode:
                return {**done, "sent": sent}
            wanted = done["installed"]  # all of it in one payload: the module installs everything or nothing
        raise GvisorError(f"{self._task.args['folder']} lost {', '.join(done['missing'])} while this ran; run again")

    def _send(self, names: list[str], made: str, task_vars: dict[str, Any]) -> tuple[list[dict[str, Any]], int]:
        """Bring the named programs to the host; return the module's payload and the bytes that were sent."""
        arguments = self._task.args
        try:
            folder = self.controller_path(arguments["source"])
            sources = {
                file["name"]: (os.path.join(made if file.get("made") else folder, file.get("src") or file["name"]), file["sha256"])
                for file in arguments["files"]
            }
            items = [Item(name, *sources[name]) for name in names]
            for item in items:
                if os.path.dirname(item.source) == made:
                    zipapp.write(item.source)
        except (KeyError, TypeError, AttributeError) as error:
            raise GvisorError(f"source and files (name, sha256) are needed, and missing names files alone: {error!r}") from error
        return payload_of(self, task_vars.get("inventory_hostname", "host"), items, arguments.get("cache") or cache_root())
