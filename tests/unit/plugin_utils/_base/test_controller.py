# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a host is the controller."""

from __future__ import annotations

import pytest
from ansible_collections.ggen.gvisor.plugins.plugin_utils._base.controller import is_controller


@pytest.mark.parametrize(
    ("host", "connection", "is_it"),
    [
        ("localhost", "local", True),
        ("web1", "local", True),
        ("web1", "ansible.builtin.local", True),
        ("localhost", "", True),
        ("::1", "", True),
        ("web1", "", False),
        ("web1", "ssh", False),
        # A port of this machine that leads into a virtual one.
        ("127.0.0.1", "ssh", False),
    ],
)
def test_the_connection_tells_and_else_the_name(host, connection, is_it):
    assert is_controller(host, connection) == is_it
