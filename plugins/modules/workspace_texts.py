#!/usr/bin/python
# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: workspace_texts
short_description: Read small text files of workspaces, as their owners
version_added: 1.0.0
author: The ggen.gvisor authors (@ggen-gvisor)
description:
  - Reads files of folders that are not to be trusted, all of them in one execution. Each is read as the owner of its workspace, so that nobody comes to
    see what that owner may not.
  - Links are not followed, neither on the way to a workspace below a folder that others than root can change, nor in it. Only regular files are read.
options:
  files:
    description: Absolute paths of files, by the absolute paths of the workspaces that they are in.
    type: dict
    required: true
attributes:
  check_mode:
    support: full
    description: Can run in check_mode; it changes nothing.
  diff_mode:
    support: none
    description: Nothing changes.
  idempotent:
    support: full
    description: A second run changes nothing.
  platform:
    support: full
    platforms: linux
    description: The systems that the module runs on.
"""

EXAMPLES = r"""
- name: Read a manifest
  ggen.gvisor.workspace_texts:
    files:
      /srv/models/billing: /srv/models/billing/ggen.toml
"""

RETURN = r"""
texts:
  description: By the path of each file its C(text), null where there is none; C(problem), why it cannot be read, or an empty string; and C(link), whether
    that is because of a link, which only a sandbox may follow.
  returned: success
  type: dict
  sample: {/srv/models/billing/ggen.toml: {text: "[project]", problem: "", link: false}}
"""

import os
from typing import Any, Dict

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._base.module import run
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.pinned import Absent, LinkRefused, pin, read_file


def read(workspace: str, path: str) -> Dict[str, Any]:
    """Return what RETURN says of one file."""
    name = os.path.relpath(path, workspace)
    if name.split("/", 1)[0] == "..":  # the sandbox does not see it either
        return {"text": None, "problem": f"{path} is not in the workspace {workspace}", "link": True}
    try:
        with pin(f"{workspace}/", "workspace") as folder:
            data = read_file(folder, name)
    except Absent:
        data = None
    except LinkRefused as error:
        return {"text": None, "problem": error.message, "link": not error.message.startswith("workspace ")}
    except GvisorError as error:
        return {"text": None, "problem": error.message, "link": False}
    return {"text": None if data is None else data.decode("utf-8", "replace"), "problem": "", "link": False}


def perform(module: AnsibleModule) -> Dict[str, Any]:
    """Return the result."""
    return {"changed": False, "texts": {path: read(workspace, path) for workspace, path in module.params["files"].items()}}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={"files": {"type": "dict", "required": True}},
        supports_check_mode=True,
    )
    run(module, perform)


if __name__ == "__main__":
    main()
