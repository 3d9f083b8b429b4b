# Copyright (c) 2026, the ggen.gvisor authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""What the values of a job's options may be where their types allow more than works."""

from __future__ import annotations

import math
import os
import re
from typing import Any, Dict, Mapping, Optional

from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError

# ctr reads a mount as a line, so what follows the first end of a line, for example that it is read-only, would be lost without a word.
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def check_finite(option: str, value: float) -> None:
    """Refuse infinity, and what is no number. Raises GvisorError."""
    if not math.isfinite(value):
        raise GvisorError(f"{option}={value} is no number that can be counted to; write one, for example 3600")


def check_line(option: str, path: str) -> None:
    """Refuse a path that cannot be handed to ctr as it is. Raises GvisorError."""
    if _CONTROL.search(path):
        raise GvisorError(f"{option} {path!r}, which holds control characters; choose a path without them")


def check_target(option: str, path: str) -> None:
    """Refuse what is no plain path in a pod. Raises GvisorError."""
    if not path.startswith("/") or os.path.normpath(path) != path:
        raise GvisorError(f"{option} {path!r}, which is not a plain absolute path")
    check_line(option, path)


def environment(values: Mapping[Any, Any]) -> Dict[str, Optional[str]]:
    """Return the variables, of which None is one that is not to be set. Raises GvisorError.

    What YAML makes of a bare word is no string that anybody wrote: true, 1.10 and 0644 would become True, 1.1 and 420.
    """
    for name, value in values.items():
        if not isinstance(name, str) or not name or "=" in name or "\0" in name:
            raise GvisorError(f"env has {name!r}, which cannot be the name of a variable")
        if value is None:
            continue
        if not isinstance(value, str):
            raise GvisorError(
                f"env has for {name} a value of the type {type(value).__name__} where a string is needed; put it into quotes, "
                "or use the filter string (null is: not set)"
            )
        if "\0" in value:
            raise GvisorError(f"env has for {name} a value with a NUL character, which no variable can hold")
    return dict(values)
