# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters over the table of gVisor releases."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.ggen.gvisor.plugins.plugin_utils._gvisor.releases import build_plan, build_share, select_release


def _filter(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except (ValueError, OSError) as error:
            raise AnsibleFilterError(str(error)) from error

    return wrapped


class FilterModule:
    """The collection's filters over releases."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        functions = {"select_release": select_release, "build_plan": build_plan, "build_share": build_share}
        return {name: _filter(function) for name, function in functions.items()}
