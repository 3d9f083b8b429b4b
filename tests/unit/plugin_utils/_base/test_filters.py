# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How filters fail."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.ggen.gvisor.plugins import filter as folder
from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.plugin_utils._base.filters import filters


def half(number: int, error: Exception | None = None) -> float:
    """A filter."""
    if error:
        raise error
    return number / 2


def test_a_filter_answers_as_its_function_does() -> None:
    wrapped = filters(half=half)["half"]
    assert wrapped(3) == 1.5
    assert (wrapped.__name__, wrapped.__doc__) == ("half", "A filter.")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (GvisorError("no half of it"), "no half of it"),
        (FileNotFoundError(2, "No such file or directory", "/file"), "/file: No such file or directory"),
        (ValueError("no number"), "no number"),
    ],
)
def test_what_a_function_raises_becomes_a_sentence_of_the_filter(error: Exception, message: str) -> None:
    with pytest.raises(AnsibleFilterError) as raised:
        filters(half=half)["half"](3, error=error)
    assert raised.value.message == message


def test_a_fault_of_the_program_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        filters(half=half)["half"](3, error=ZeroDivisionError())


@pytest.mark.parametrize("path", sorted(path for path in Path(next(iter(folder.__path__))).glob("*.py")), ids=lambda path: path.stem)
def test_every_filter_fails_so(path: Path) -> None:
    module: Any = importlib.import_module(f"{folder.__name__}.{path.stem}")
    for function in module.FilterModule().filters().values():
        assert function.__wrapped__.__module__.startswith("ansible_collections.ggen.gvisor.")
