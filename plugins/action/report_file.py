# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""report_file, all of it: it writes in the controller's own process."""

from __future__ import annotations

import json
import os
import time
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible_collections.ggen.gvisor.plugins.module_utils._base.files import atomic_write
from ansible_collections.ggen.gvisor.plugins.module_utils._base.text import visible_all
from ansible_collections.ggen.gvisor.plugins.plugin_utils._base.action import Action


class ActionModule(Action):
    """Write the report beside and rename it into its place."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def perform(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        """Return the report and where it is. Raises AnsibleActionFail where it cannot be written."""
        _validation, options = self.validate_argument_spec(
            {"path": {"type": "path", "required": True}, "report": {"type": "dict", "required": True}},
        )
        path = os.path.abspath(options["path"])
        about = {"name": task_vars["inventory_hostname"], "time": time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime())}
        report = visible_all(options["report"])  # people read it as it is
        text = json.dumps({**about, **report}, indent=4, sort_keys=True, ensure_ascii=False)
        try:
            os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
            atomic_write(path, f"{text}\n".encode(), 0o644)
        except OSError as error:
            raise AnsibleActionFail(
                f"{path}: the report cannot be written: {error}. Set containerd_gvisor_reports to another folder."
            ) from error
        return {**report, "changed": False, "path": path}
