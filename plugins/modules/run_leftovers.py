#!/usr/bin/python
# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: run_leftovers
short_description: Remove the folder that runs keep on a host, with what killed runs left
version_added: 1.0.0
author: The ggen.gvisor authors (@ggen-gvisor)
description:
  - Removes the O(state_dir) of M(ggen.gvisor.containerd_run). Pods of runs that were killed are removed first, their workspaces are cleaned, and what of
    the host is mounted there is unmounted. A tool that only removes folders would go through such a mount into somebody's workspace.
  - Nothing that is mounted in the folder is ever entered. Where a run goes on, or something stays mounted, the task fails and the folder stays.
options:
  state_dir:
    description: The folder.
    type: path
    default: /var/lib/ggen.gvisor
attributes:
  check_mode:
    support: full
    description: Can run in check_mode and tell whether there is something to remove without removing it.
  diff_mode:
    support: none
    description: Reports no diff.
  idempotent:
    support: full
    description: A second run changes nothing.
  platform:
    support: full
    platforms: linux
    description: The systems that the module runs on.
"""

EXAMPLES = r"""
- name: Remove what runs have left
  ggen.gvisor.run_leftovers:
"""

RETURN = r"""
said:
  description: What of earlier runs was removed or cleaned, as sentences.
  returned: success
  type: list
  elements: str
  sample: [pod ggen-0123456789ab of an earlier run that was killed was removed]
"""

import os
from typing import Any, Dict

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._base.module import run
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.supervisor import DEFAULT_STATE_DIR, remove_state


def perform(module: AnsibleModule) -> Dict[str, Any]:
    """Remove the folder and return the result. Raises GvisorError where something must stay, and OSError."""
    state_dir = module.params["state_dir"]
    if not os.path.lexists(state_dir) or module.check_mode:
        return {"changed": os.path.lexists(state_dir), "said": []}
    said, stays = remove_state(state_dir)
    if stays:
        raise GvisorError(f"{state_dir} stays: {'; '.join(stays)}", said=said)
    return {"changed": True, "said": said}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={"state_dir": {"type": "path", "default": DEFAULT_STATE_DIR}},
        supports_check_mode=True,
    )
    run(module, perform, place=module.params["state_dir"])


if __name__ == "__main__":
    main()
