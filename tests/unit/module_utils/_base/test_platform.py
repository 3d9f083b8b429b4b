# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names of machines, and versions as programs print them."""

from __future__ import annotations

import pytest
from ansible_collections.ggen.gvisor.plugins.module_utils._base.platform import architecture, version_tuple


@pytest.mark.parametrize(
    ("machine", "name"),
    [("x86_64", "amd64"), ("aarch64", "arm64"), ("armv7l", "arm/v7"), ("amd64", "amd64"), ("arm64", "arm64"), ("riscv64", "riscv64")],
)
def test_an_architecture_has_the_name_of_go_and_oci(machine: str, name: str) -> None:
    assert architecture(machine) == name


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("1.6.20~ds1-1+deb12u1", (1, 6, 20)),
        ("v2.1.0-beta.1", (2, 1, 0)),
        (" 1.7 ", (1, 7)),
        ("2", (2,)),
        ("go1.26rc1", (1, 26)),
        ("go", None),
        ("version 1.7", None),
        ("", None),
    ],
)
def test_a_version_is_the_numbers_that_it_begins_with(text: str, numbers: tuple[int, ...] | None) -> None:
    assert version_tuple(text) == numbers
