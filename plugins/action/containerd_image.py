# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""containerd_image on the controller: send the archive that is here, once for all namespaces, to a host that lacks it."""

from __future__ import annotations

import contextlib
import os
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.utils.display import Display
from ansible_collections.ggen.gvisor.plugins.module_utils._base.text import megabytes
from ansible_collections.ggen.gvisor.plugins.module_utils._builds.manifest import MANIFEST
from ansible_collections.ggen.gvisor.plugins.module_utils._builds.result_folder import reading
from ansible_collections.ggen.gvisor.plugins.module_utils._containerd.image_archive import Archive
from ansible_collections.ggen.gvisor.plugins.plugin_utils._base.action import Action
from ansible_collections.ggen.gvisor.plugins.plugin_utils._transfer.send import send

display = Display()


class ActionModule(Action):
    """One execution on the host; one more, before, to ask a host that is not known to lack the image."""

    def perform(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        """Run the task and return its result."""
        arguments = self._task.args
        if "images" in arguments:
            raise AnsibleActionFail("images is set by the action plugin; leave it out")
        if arguments.get("src") and arguments.get("archive"):
            raise AnsibleActionFail("src is an archive on the controller and archive one on the host; name one of them")
        if not arguments.get("src"):
            return self._on_host(task_vars)
        src = self.controller_path(arguments["src"])
        folder = os.path.dirname(src)
        # Also while the module runs: on the controller it reads the archive where it is. An archive that is no build's is the user's own affair.
        with reading(folder) if os.path.exists(os.path.join(folder, MANIFEST)) else contextlib.nullcontext():
            return self._from_controller(src, task_vars)

    def _on_host(self, task_vars: dict[str, Any], **more: Any) -> dict[str, Any]:
        arguments = {**self._task.args, **more}
        return self._execute_module(module_name="ggen.gvisor.containerd_image", module_args=arguments, task_vars=task_vars)

    def _from_controller(self, src: str, task_vars: dict[str, Any]) -> dict[str, Any]:
        if self.on_controller:
            return {**self._on_host(task_vars, archive=src), "sent": 0}
        with Archive(src) as archive:
            images = [image.to_dict() for image in archive.images()]
        if self._task.args.get("state") == "absent":
            names = self._task.args.get("name") or [name for image in images for name in image["names"]]
            return {**self._on_host(task_vars, name=names), "sent": 0}
        if self._task.check_mode or not boolean(self._task.args.get("missing", False)):
            asked = self._on_host(task_vars, images=images)
            if self._task.check_mode or asked.get("failed") or not asked.get("missing"):
                return {**asked, "sent": 0}
        size = os.path.getsize(src)
        display.display(f"{task_vars.get('inventory_hostname', 'host')}: sending {src} ({megabytes(size)})")
        remote = send(self, src)
        done = self._on_host(task_vars, archive=remote)
        if done.get("failed"):  # the file there goes with the task: what is wrong with it is to be fixed here
            done["msg"] = done["msg"].replace(f"image archive {remote}", f"image archive {src}")
        return {**done, "sent": size}
