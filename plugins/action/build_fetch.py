# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""build_fetch on the controller: have the build host pack, fetch, compare, and file."""

from __future__ import annotations

import os
import tempfile
from typing import Any

from ansible.errors import AnsibleError
from ansible.utils.display import Display
from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._base.text import megabytes
from ansible_collections.ggen.gvisor.plugins.module_utils._builds.cache import answer_of, cache_root, diff_of
from ansible_collections.ggen.gvisor.plugins.module_utils._builds.manifest import Artifact
from ansible_collections.ggen.gvisor.plugins.plugin_utils._base.action import Action
from ansible_collections.ggen.gvisor.plugins.plugin_utils._builds.received import store

display = Display()


class ActionModule(Action):
    """One execution on the build host and one transfer from it."""

    def perform(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        """Run the task and return its result."""
        if self._task.check_mode:
            return {"changed": True}
        host = task_vars.get("inventory_hostname", "the build host")
        cache = os.path.expanduser(self._task.args.get("cache") or cache_root())
        if self._connection._shell.tmpdir is None:  # otherwise the module's own, which is gone when it ends
            self._make_tmp_path()
        packed = self._execute_module(task_vars=task_vars)
        if packed.get("failed") or "path" not in packed:
            raise GvisorError(packed.get("msg", f"{host} could not pack its builds"), **{"stderr": packed.get("module_stderr", "")})
        artifacts = [self._artifact(values) for values in self._task.args["artifacts"]]
        size = sum(entry["size"] for manifest in packed["manifests"] for entry in manifest["files"].values())
        names = ", ".join(artifact.name for artifact in artifacts)
        display.display(f"{host}: fetching {names} ({megabytes(size)}) as {megabytes(packed['size'])}")
        with tempfile.TemporaryDirectory(prefix="ggen.gvisor.") as folder:
            archive = os.path.join(folder, "builds.tar.gz")
            try:
                self._connection.fetch_file(packed["path"], archive)
            except AnsibleError as error:
                raise GvisorError(f"{packed['path']} could not be fetched from {host}: {error}") from error
            results = store(archive, artifacts, packed["manifests"], cache, host)
        return {**answer_of(results), "fetched": packed["size"], **(diff_of(results) if self._task.diff else {})}

    def _artifact(self, values: dict[str, Any]) -> Artifact:
        """Return the artifact that the options describe; the module has checked them."""
        return Artifact(
            name=values["name"],
            inputs=values.get("inputs", {}),
            dest=self.controller_path(values["dest"]),
            expected=values.get("expected", {}),
            links={self.controller_path(path): name for path, name in values.get("links", {}).items()},
            source=values["source"],
        )
