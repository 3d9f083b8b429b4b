# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Going through and removing trees that are as deep, as wide and as restless as somebody can make them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.pinned import FOLDER
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.walker import ENTER, ENTRY, LEAVE, Bounds, Walk
from support.trees import later, nest, opened, remove


def test_steps(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/file").touch()
    (tmp_path / "a/link").symlink_to("/etc")
    with opened(tmp_path) as root:
        walk = Walk(root, Bounds(later()))
        steps = [(step.kind, walk.path(step.name) if step.kind != ENTER else walk.path()) for step in walk]
    assert steps == [(ENTER, ""), (ENTER, "a"), (ENTRY, "a/link"), (ENTER, "a/b"), (ENTRY, "a/b/file"), (LEAVE, "a/b"), (LEAVE, "a")]


def test_depth_costs_no_descriptors(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    request.addfinalizer(lambda: subprocess.run(["rm", "-rf", tmp_path], check=True))  # Python's own rmtree recurses, and pytest's with it
    nest(tmp_path, 4000)
    with opened(tmp_path) as root:
        most = max(len(os.listdir("/proc/self/fd")) for _step in Walk(root, Bounds(later()))) - len(os.listdir("/proc/self/fd"))
        shallow = Walk(root, Bounds(later(), depth=10))
        assert len(list(shallow)) == 21
        assert "more than 10 folders in each other" in shallow.problems[0]
    assert most <= 2
    assert remove(tmp_path / "d") == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("both", [False, True])
def test_a_folder_that_is_moved_away_leads_nowhere(tmp_path: Path, both: bool) -> None:
    """Somebody moves the folder that the walk is in to where the folder above is another one, which is not looked at, let alone emptied."""
    tree, other = tmp_path / "tree", tmp_path / "other"
    (tree / "a/b/c").mkdir(parents=True)
    (tree / "z").mkdir()
    (tree / "z/file").touch()
    other.mkdir()
    (other / "victim").touch()
    (other / "b").mkdir()
    seen = []
    with opened(tree) as root:
        walk = Walk(root, Bounds(later()))
        for step in walk:
            seen.append((step.kind, step.name))
            if (step.kind, step.name) == (ENTER, "c"):
                (tree / "a/b").rename(other / "moved")
                if both:
                    (tree / "a").rename(tmp_path / "away")
            if step.kind == LEAVE and step.descriptor >= 0:
                assert os.listdir(step.descriptor) != ["victim"]
    assert (ENTRY, "victim") not in seen
    assert (ENTRY, "file") in seen
    assert walk.missed == both
    assert ["was moved while it was looked at" in problem for problem in walk.problems] == [True] * both


def test_the_time_for_removing_ends(tmp_path: Path) -> None:
    (tmp_path / "tree/a").mkdir(parents=True)
    assert "the time for looking was over" in remove(tmp_path / "tree", -1)[0]
    assert remove(tmp_path / "tree") == []


def test_the_folder_descriptor_is_a_folder_s() -> None:
    with pytest.raises(NotADirectoryError):
        os.open("/etc/passwd", FOLDER)
