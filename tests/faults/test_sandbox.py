# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs in the sandbox that would take all of the host. The smaller ones are in unit/test_containerd_run.py."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.module import finish_module
from support.runs import RUNTIMES, Host, gvisor_daemon


@pytest.fixture(name="host")
def fixture_host(tmp_path: Path) -> Iterator[Host]:
    with gvisor_daemon(tmp_path / "containerd") as running:
        yield Host(running, tmp_path, RUNTIMES["runsc"])


def test_a_gigabyte_of_output_takes_no_memory(host: Host) -> None:
    """The module and its supervisor may have a quarter of what is printed."""
    limits = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (256 << 20, limits[1]))  # for the module, which inherits it
    try:
        process = host.start(
            "echo begin; head -c 1000000000 /dev/zero | tr '\\0' x; echo; echo end >&2; exit 3", None, timeout=300, max_output=10000
        )
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, limits)
    result = finish_module(process, 300)
    assert result["rc"] == 3, result.get("msg")
    assert (result["stdout_bytes"], result["output_truncated"], result["stderr"]) == (1_000_000_007, True, "end\n")
    assert len(result["stdout"]) < 10100
    assert host.left() == {}
