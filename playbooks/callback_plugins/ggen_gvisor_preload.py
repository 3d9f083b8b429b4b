# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: preload
type: aggregate
short_description: Load once what every task of the playbooks beside it needs
version_added: 1.0.0
description:
  - Ansible forks a process for each task of each host. What the parent has loaded the process finds loaded, and everything else it loads for itself.
  - The parent evaluates hardly any expression, so that without this each process imports the filters, tests and lookups anew, 0.03 seconds each time.
  - What there is at a play's beginning is kept out of the garbage collection, which in each process would copy the memory that it shares with the parent.
"""

import gc
from typing import Any

from ansible.plugins import loader
from ansible.plugins.callback import CallbackBase

# One plugin stands for all filters, or tests, of Ansible or of a collection: the loaders take them together.
PLUGINS = {
    "filter_loader": ("default", "ggen.gvisor.host_plan"),
    "test_loader": ("falsy",),
    "lookup_loader": ("file", "fileglob", "template"),
    "connection_loader": ("ssh",),
    "shell_loader": ("sh",),
    "become_loader": ("sudo",),
    "action_loader": ("ggen.gvisor.containerd_info", "ggen.gvisor.containerd_run"),
}


class CallbackModule(CallbackBase):
    """Does its work before the first process is forked."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "ggen.gvisor.preload"
    CALLBACK_NEEDS_ENABLED = False

    def v2_playbook_on_start(self, playbook: Any) -> None:
        """Load the plugins."""
        del playbook
        for kind, names in PLUGINS.items():
            for name in names:
                getattr(loader, kind).get(name, class_only=True)

    def v2_playbook_on_play_start(self, play: Any) -> None:
        """Set apart what there is."""
        del play
        gc.freeze()
