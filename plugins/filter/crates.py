# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters over Rust's crates and its toolchain."""

from __future__ import annotations

from ansible_collections.ggen.gvisor.plugins.plugin_utils._base.filters import Filter, filters
from ansible_collections.ggen.gvisor.plugins.plugin_utils._builds.rust import rust_offer
from ansible_collections.ggen.gvisor.plugins.plugin_utils._gvisor.crates import cargo_sources, wrong_crates


class FilterModule:
    """The collection's filters over crates and the toolchain."""

    def filters(self) -> dict[str, Filter]:
        """Return the filters by name."""
        return filters(cargo_sources=cargo_sources, rust_offer=rust_offer, wrong_crates=wrong_crates)
