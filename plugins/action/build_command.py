# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Drive the module of the same name: look until the command has ended, and show how far it is."""

from __future__ import annotations

from typing import Any

from ansible.utils.display import Display
from ansible_collections.ggen.gvisor.plugins.module_utils._base.text import duration_text, visible_line
from ansible_collections.ggen.gvisor.plugins.module_utils._builds.background_job import progress_line
from ansible_collections.ggen.gvisor.plugins.plugin_utils._base.action import Action

display = Display()


class ActionModule(Action):
    """One remote execution starts the command or attaches to it; each of the next waits for its end for a while."""

    _requires_connection = True

    def perform(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        """Return the module's last answer, failed unless the command ended with 0."""
        name = self._task.args.get("name", "command")
        arguments = dict(self._task.args)
        attached = False
        shown = ""
        while True:
            result = self._execute_module(module_name="ggen.gvisor.build_command", module_args=arguments, task_vars=task_vars)
            attached |= result.get("attached", False)
            if not result.pop("running", False):
                break
            line = progress_line(name, result["progress"], result["duration"], result["log"])
            if line != shown:
                display.display(visible_line(line))
                shown = line
            arguments["run"] = result["run"]
        if "run" not in result:  # nothing ran: check mode, a failure, or it exists
            return result
        if arguments.get("confinement") and not result.get("confined"):
            without = "without network" if result.get("network") == "isolated" else "with the network"
            display.warning(f"{name}: this host confines no build, so it ran as the user who runs this, {without}")
        elif arguments.get("network") in (False, "false", "no") and result.get("network") == "shared":
            display.warning(f"{name}: this host allows no network namespace of its own, so the command ran with the network")
        del result["run"]
        result["attached"] = attached
        error = result.pop("error", None)
        if error or result["rc"] != 0:
            reason = error or f"it ended with exit code {result['rc']}"
            tail = "\n".join(result["log_tail"])
            after = duration_text(result["duration"])
            result.update(failed=True, msg=f"{name} failed after {after}: {reason}. The end of its log {result['log']}:\n{tail}")
        return result
