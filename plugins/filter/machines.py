# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters about machines."""

from __future__ import annotations

from ansible_collections.ggen.gvisor.plugins.module_utils._base.platform import architecture
from ansible_collections.ggen.gvisor.plugins.plugin_utils._base.controller import is_controller
from ansible_collections.ggen.gvisor.plugins.plugin_utils._base.filters import Filter, filters


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Filter]:
        """Return the filters by name."""
        return filters(architecture=architecture, is_controller=is_controller)
