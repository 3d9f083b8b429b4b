# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lines that tell what a run is at: their text and when they come. That a real run prints them: tests/integration/test_progress_of_a_run.py."""

from __future__ import annotations

import itertools
import runpy
import threading
import types

import pytest
from ansible_collections.ggen.gvisor.plugins.plugin_utils._fleet.progress import Moment, line, next_line
from conftest import ROOT

CALLBACK = ROOT / "plugins" / "callback" / "progress.py"


def test_a_line_says_where_what_and_how_long() -> None:
    hosts = ["a", "b", "c", "d", "e"]
    some = Moment(4, 6, "Provision", "Install containerd", 2, hosts, 83.4)
    assert line(some) == "… play 4 of 6, Provision | Install containerd: 2 of 7 hosts, a, b, c and 2 more at it for 1m23s"
    assert line(some._replace(at_it=hosts[:3])).endswith("2 of 5 hosts, a, b, c at it for 1m23s")
    assert line(some._replace(done=0, at_it=["a"])).endswith("| Install containerd on a for 1m23s")


@pytest.mark.parametrize(("first", "times"), [(5, [5, 10, 20, 40, 80, 140, 200]), (90, [90, 150, 210])])
def test_lines_come_less_and_less_often_and_then_once_a_minute(first: float, times: list[float]) -> None:
    assert list(itertools.accumulate(times[1:], lambda said, _: next_line(said, first), initial=next_line(0, first))) == times


@pytest.mark.parametrize("first", [0.0, 5.0])
def test_the_thread_ends_with_its_playbook(first: float) -> None:
    """One command can run several playbooks, and each starts a thread."""
    callback = runpy.run_path(str(CALLBACK))["CallbackModule"]()
    callback.get_option = {"first": first}.get
    before = threading.active_count()
    for _playbook in range(20):
        callback.v2_playbook_on_start(types.SimpleNamespace(get_plays=list))
        callback.v2_playbook_on_stats(None)
        assert threading.active_count() == before
