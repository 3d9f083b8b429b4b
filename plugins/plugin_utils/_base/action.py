# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the collection's action plugins have in common: how they end, and where their host is."""

from __future__ import annotations

import traceback
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase
from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError, sentence
from ansible_collections.ggen.gvisor.plugins.module_utils._base.text import visible_result
from ansible_collections.ggen.gvisor.plugins.plugin_utils._base.controller import is_controller

# What Python raises for data of another form than was expected. A host that is not what it was can send any.
STRANGE = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


class Action(ActionBase):
    """An action plugin whose work is in ``perform``; what that raises becomes a failed result."""

    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the task and return its result."""
        result = super().run(tmp, task_vars)
        del tmp
        try:
            result = {**result, **self.perform(task_vars or {})}
        except GvisorError as error:
            result = {**result, "failed": True, "changed": False, "msg": error.message, **error.details}
        except OSError as error:
            result = {**result, "failed": True, "changed": False, "msg": f"on the controller: {sentence(error)}"}
        except AnsibleError:
            raise  # some are one of those, too
        except STRANGE as error:
            said = f"a host said what this task cannot work with ({type(error).__name__}: {error}); is it the host that it should be?"
            result = {**result, "failed": True, "changed": False, "msg": said, "exception": traceback.format_exc()}
        return visible_result(result)  # the module has done so, if it is ours: the host may be anybody's

    def perform(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        """Do the work and return the result. Raises GvisorError and OSError."""
        raise NotImplementedError

    @property
    def on_controller(self) -> bool:
        """Whether the task's host is the machine that Ansible runs on: nothing needs to be sent there."""
        return is_controller("", self._connection.transport)

    def controller_path(self, path: str) -> str:
        """Return the absolute path of a file on the controller; a relative one is the playbook's."""
        return self._loader.path_dwim(path)
