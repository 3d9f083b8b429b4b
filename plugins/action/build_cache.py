# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""build_cache: on the host as a module, or with ``controller`` here, where Ansible has the Python and the files already."""

from __future__ import annotations

from typing import Any

from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase
from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._builds.cache import ARGUMENT_SPEC, perform


class ActionModule(ActionBase):
    """Choose where to look."""

    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the module's result."""
        result = super().run(tmp, task_vars)
        if not boolean(self._task.args.get("controller", False)):
            return {**result, **self._execute_module(task_vars=task_vars)}
        _validation, params = self.validate_argument_spec(ARGUMENT_SPEC)
        try:
            return {**result, **perform(params, self._task.check_mode), "controller": True}
        except GvisorError as error:
            return {**result, "failed": True, "changed": False, "msg": error.message, **error.details}
