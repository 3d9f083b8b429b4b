# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What tests of runs begin with, where a file does not say otherwise: a containerd that finds gVisor, runs on it, and a user's workspace."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.containerd import Daemon
from support.runs import RUNTIMES, Host, gvisor_daemon, own


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A containerd of the file's own, with gVisor's shim and an image of busybox."""
    with gvisor_daemon(tmp_path_factory.mktemp("containerd")) as running:
        yield running


@pytest.fixture
def runsc(daemon: Daemon, tmp_path: Path) -> Iterator[Host]:
    """Runs in gVisor, which leave nothing."""
    one = Host(daemon, tmp_path, RUNTIMES["runsc"])
    yield one
    assert one.settle() == {}


@pytest.fixture
def host(runsc: Host) -> Host:
    """The same; files that try runc, too, have one of their own."""
    return runsc


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """An empty workspace of a user's."""
    return own(tmp_path / "model")
