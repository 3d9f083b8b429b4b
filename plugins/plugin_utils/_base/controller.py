# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a host of the inventory is the machine that Ansible runs on."""

from __future__ import annotations

LOCAL = ("local", "ansible.builtin.local")
NAMES = ("localhost", "127.0.0.1", "::1")


def is_controller(host: str, connection: str = "") -> bool:
    """Tell whether the ``host`` is the controller, by its ``connection``; where nobody has named one, by its name, for which Ansible has one."""
    return connection in LOCAL if connection else host in NAMES
