# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: brief
type: stdout
short_description: Ansible's own output without the tasks that only lead to others
version_added: 1.0.0
description:
  - Like P(ansible.builtin.default#callback). Tasks that validate arguments, decide, include or set facts are not shown while they go well; with C(-v) all
    are. What a host was asked, what changed, what failed and every warning is shown as always.
  - Of results, what a command printed among them, nothing drives the terminal; escapes are shown in its place.
  - A checkout uses it by its C(ansible.cfg). Elsewhere set C(stdout_callback=ggen.gvisor.brief).
extends_documentation_fragment:
  - default_callback
  - result_format_callback
"""

from typing import Any

from ansible.playbook.task_include import TaskInclude
from ansible.plugins.callback.default import CallbackModule as Default
from ansible_collections.ggen.gvisor.plugins.module_utils._base.text import visible

LEADING = ("assert", "include_role", "include_tasks", "set_fact", "validate_argument_spec")
QUIET = {name for action in LEADING for name in (action, f"ansible.builtin.{action}")}


class CallbackModule(Default):
    """Ansible's own callback, but for what it does not say."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "ggen.gvisor.brief"

    def _is_quiet(self, result: Any) -> bool:
        said = result.result
        leads = isinstance(result.task, TaskInclude) or result.task.action in QUIET
        return leads and not (self._display.verbosity or said.get("changed") or said.get("warnings") or said.get("deprecations"))

    def _dump_results(self, *args: Any, **options: Any) -> str:
        """Return a result's text: what a job printed is in it as it is."""
        return visible(super()._dump_results(*args, **options))

    def v2_runner_on_ok(self, result: Any) -> None:
        """Show what a task came to."""
        if not self._is_quiet(result):
            super().v2_runner_on_ok(result)

    def v2_runner_item_on_ok(self, result: Any) -> None:
        """Show what an item of a loop came to."""
        if not self._is_quiet(result):
            super().v2_runner_item_on_ok(result)

    def v2_playbook_on_include(self, included_file: Any) -> None:
        """Show which file was included."""
        if self._display.verbosity:
            super().v2_playbook_on_include(included_file)
