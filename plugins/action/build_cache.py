# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""build_cache: on the host as a module, or with ``controller`` here, where Ansible has the Python and the files already."""

from __future__ import annotations

from typing import Any

from ansible.module_utils.parsing.convert_bool import boolean
from ansible_collections.ggen.gvisor.plugins.module_utils._builds.cache import ARGUMENT_SPEC, perform
from ansible_collections.ggen.gvisor.plugins.plugin_utils._base.action import Action


class ActionModule(Action):
    """Choose where to look."""

    TRANSFERS_FILES = False

    def perform(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        """Return the module's result."""
        if not boolean(self._task.args.get("controller", False)):
            return self._execute_module(task_vars=task_vars)
        _validation, params = self.validate_argument_spec(ARGUMENT_SPEC)
        return {**perform(params, self._task.check_mode), "controller": True}
