# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tells a test which task begins on a host, and lets it begin when the test says so."""

from __future__ import annotations

import json
import os
import socket

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = r"""
name: moments
type: aggregate
short_description: Tell a test which task begins
description:
  - Connects to the test's socket, whose path is in E(GGEN_GVISOR_MOMENTS), and writes a line for each task that begins or ends on a host.
  - A task begins when the test has answered with a line.
"""


class CallbackModule(CallbackBase):
    """The controller's end of the connection."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "moments"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        peer = socket.socket(socket.AF_UNIX)
        peer.connect(os.environ["GGEN_GVISOR_MOMENTS"])
        self.stream = peer.makefile("rw")

    def _tell(self, **what: str) -> None:
        self.stream.write(json.dumps(what) + "\n")
        self.stream.flush()
        self.stream.readline()

    def v2_runner_on_start(self, host, task):
        self._tell(event="begins", host=host.name, task=task.name, action=task.action)

    def _ended(self, result, **_more):
        self._tell(event="ended", host=result._host.name, task=result._task.name, action=result._task.action)

    v2_runner_on_ok = v2_runner_on_skipped = v2_runner_on_unreachable = v2_runner_on_failed = _ended
