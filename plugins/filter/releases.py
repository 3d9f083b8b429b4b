# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters over the table of gVisor releases."""

from __future__ import annotations

from ansible_collections.ggen.gvisor.plugins.plugin_utils._base.filters import Filter, filters
from ansible_collections.ggen.gvisor.plugins.plugin_utils._gvisor.releases import build_plan, build_share, select_release


class FilterModule:
    """The collection's filters over releases."""

    def filters(self) -> dict[str, Filter]:
        """Return the filters by name."""
        return filters(build_plan=build_plan, build_share=build_share, select_release=select_release)
