# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: progress
type: aggregate
short_description: Say what a run is at while a task takes its time
version_added: 1.0.0
description:
  - Ansible loads it by itself for the playbooks beside it. Ansible prints a task's name and then nothing until the first host is through with it.
  - This prints a line after some seconds, and further ones at growing distances - which play of how many, which task, on how many hosts it is done, which
    hosts are at it and for how long. Builds print lines of their own, with what is compiled and the log's place.
  - Each is a plain line on standard error, so that it can be read on a terminal and in a log, and standard output stays as Ansible made it.
options:
  first:
    description: Seconds after which a task is told of for the first time; 0 for never.
    type: float
    default: 5
    env:
      - name: GGEN_GVISOR_PROGRESS
"""

import os
import threading
import time
from typing import Any

from ansible.plugins.callback import CallbackBase
from ansible_collections.ggen.gvisor.plugins.plugin_utils._fleet.progress import Moment, line, next_line

# It tells more than could be told here.
TALKATIVE = "ggen.gvisor.build_command"
STANDARD_ERROR = 2


class CallbackModule(CallbackBase):
    """Keeps what the run is at, and a thread that says it when nothing else is said."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "ggen.gvisor.progress"
    CALLBACK_NEEDS_ENABLED = False

    def v2_playbook_on_start(self, playbook: Any) -> None:
        """Start the thread."""
        self._plays = len(playbook.get_plays())
        self._play = 0
        self._play_name = ""
        self._changed = threading.Condition()
        self._ended = False
        self._task: Any = None
        self._thread = threading.Thread(target=self._watch, args=(self.get_option("first"),), daemon=True)
        self._thread.start()

    def v2_playbook_on_play_start(self, play: Any) -> None:
        """Count the plays."""
        self._play, self._play_name, self._task = self._play + 1, play.get_name(), None

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        """Begin to take a task's time."""
        del is_conditional
        self._begin(task)

    def v2_playbook_on_handler_task_start(self, task: Any) -> None:
        """Begin to take a handler's time."""
        self._begin(task)

    def _begin(self, task: Any) -> None:
        with self._changed:
            self._task, self._begun, self._done, self._at_it = task, time.monotonic(), 0, []
            self._changed.notify()

    def v2_runner_on_start(self, host: Any, task: Any) -> None:
        """Count a host in."""
        if self._task is not None and task._uuid == self._task._uuid:
            self._at_it.append(host.name)

    def _end(self, result: Any) -> None:
        if self._task is not None and result.task._uuid == self._task._uuid and result.host.name in self._at_it:
            self._at_it.remove(result.host.name)
            self._done += 1

    def v2_runner_on_ok(self, result: Any) -> None:
        """Count a host out."""
        self._end(result)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        """Count a host out."""
        del ignore_errors
        self._end(result)

    def v2_runner_on_skipped(self, result: Any) -> None:
        """Count a host out."""
        self._end(result)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        """Count a host out."""
        self._end(result)

    def v2_playbook_on_stats(self, stats: Any) -> None:
        """End the thread."""
        del stats
        with self._changed:
            self._ended = True
            self._changed.notify()
        self._thread.join()  # one command can run several playbooks, each with its own

    def _watch(self, first: float) -> None:
        task, said = None, 0.0
        with self._changed:
            while first > 0 and not self._ended:
                if self._task is not task:
                    task, said = self._task, 0.0
                if task is None or task.action == TALKATIVE:
                    self._changed.wait()
                    continue
                due = next_line(said, first)
                passed = time.monotonic() - self._begun
                if passed < due:
                    self._changed.wait(due - passed)
                    continue
                said = due
                if self._at_it:
                    moment = Moment(self._play, self._plays, self._play_name, task.get_name(), self._done, self._at_it, passed)
                    # Not through Ansible's display or a stream of Python's: their locks could be held here at the moment of a fork.
                    os.write(STANDARD_ERROR, f"{line(moment)}\n".encode())
