# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run is at, in a line for people and for logs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ansible_collections.ggen.gvisor.plugins.module_utils._base.text import duration_text, few, visible_line

SHOWN = 3  # hosts that are named
STEADY = 60.0  # seconds between two lines in the end


class Moment(NamedTuple):
    """A task that goes on: its play's number and how many there are, names, hosts that are through and that are not, seconds since it began."""

    play: int
    plays: int
    play_name: str
    task: str
    done: int
    at_it: Sequence[str]
    seconds: float


def line(moment: Moment) -> str:
    """Return the line: where in the run, what, on how many hosts, for how long."""
    total = moment.done + len(moment.at_it)
    names = few(moment.at_it, SHOWN)
    where = f"play {moment.play} of {moment.plays}, {moment.play_name}"
    what = f"{moment.task}: {moment.done} of {total} hosts, {names} at it" if total > 1 else f"{moment.task} on {names}"
    return visible_line(f"… {where} | {what} for {duration_text(moment.seconds)}")


def next_line(said: float, first: float) -> float:
    """Return how many seconds after a task's beginning the next line is due, the last having been at ``said`` (0: none yet).

    The first comes after ``first`` seconds, then each time twice as much has passed, and from STEADY on once in STEADY seconds.
    """
    return first if said < first else min(2 * said, said + STEADY)
