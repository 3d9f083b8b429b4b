# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""build_release, all of it: builds are the controller's, and so are releases."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ansible.utils.display import Display
from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._builds.cache import ARTIFACT, answer_of, artifact_of, cache_root, diff_of
from ansible_collections.ggen.gvisor.plugins.module_utils._builds.release_index import write
from ansible_collections.ggen.gvisor.plugins.module_utils._builds.result_folder import reading
from ansible_collections.ggen.gvisor.plugins.plugin_utils._base.action import Action
from ansible_collections.ggen.gvisor.plugins.plugin_utils._builds.taken import Release, take
from ansible_collections.ggen.gvisor.plugins.plugin_utils._gvisor.documents import documents_of

display = Display()

# As build_cache's, of which the files are here and the documents follow from the pins.
WANTED = {name: spec for name, spec in ARTIFACT.items() if name not in ("source", "documents")}
ARGUMENT_SPEC = {
    "state": {"type": "str", "choices": ["written", "taken"], "required": True},
    "path": {"type": "path"},
    "results": {"type": "list", "elements": "path", "default": []},
    "url": {"type": "str", "default": ""},
    "sha256": {"type": "str", "default": ""},
    "artifacts": {"type": "list", "elements": "dict", "default": [], "options": WANTED},
    "vendors": {"type": "path"},
    "cache": {"type": "path"},
}


class ActionModule(Action):
    """Write a release of builds, or take builds from one."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def perform(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        """Return the result. Raises GvisorError and OSError."""
        del task_vars
        _validation, params = self.validate_argument_spec(
            ARGUMENT_SPEC, required_if=[("state", "written", ["path", "results"]), ("state", "taken", ["artifacts", "vendors"])]
        )
        return (self._written if params["state"] == "written" else self._taken)(params)

    def _written(self, params: dict[str, Any]) -> dict[str, Any]:
        path = os.path.abspath(params["path"])
        with reading(*params["results"]):
            done = write(path, [os.path.abspath(folder) for folder in params["results"]], self._task.check_mode)
        return {
            **{"changed": done["changed"], "path": path, "sha256": done["sha256"], "size": done["size"], "index": done["index"]},
            **self._diff([{**done, "dest": path}]),
        }

    def _taken(self, params: dict[str, Any]) -> dict[str, Any]:
        vendors = Path(params["vendors"])
        artifacts = [artifact_of({**values, "source": None, "documents": {}}) for values in params["artifacts"]]
        if not artifacts:
            raise GvisorError("artifacts is empty: there is nothing to take")
        results = take(
            Release(params["url"], params["sha256"]),
            artifacts,
            os.path.abspath(params["cache"] or cache_root()),
            lambda manifest: documents_of(manifest, vendors),
            dry=self._task.check_mode,
            tell=display.display,
        )
        return {**answer_of(results), **self._diff(results)}

    def _diff(self, results: list[dict[str, Any]]) -> dict[str, Any]:
        return diff_of(results) if self._task.diff else {}
