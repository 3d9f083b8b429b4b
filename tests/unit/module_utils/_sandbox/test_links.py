# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is ignored counts where a link of the workspace leads to it: a check must not call a file up to date that has its bytes from there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ansible_collections.ggen.gvisor.plugins.module_utils._ggen.runs import IGNORE
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.links import MAX_LINKS, Anywhere, destination, without_linked
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.workspace import ignore_matcher
from support.trees import scan

ROOT = "/workspace"
HIDDEN = ".ggen/js/Site.json"


def nothing() -> None:
    pass


@pytest.mark.parametrize(
    ("links", "path", "place"),
    [
        ({"a": "b"}, "a", "b"),
        ({"d/a": "../.ggen/js"}, "d/a", ".ggen/js"),
        ({"d/a": "/workspace/.ggen/js/"}, "d/a", ".ggen/js"),
        ({"d/a": "../../workspace/./x"}, "d/a", "x"),
        ({"d/a": "/etc/passwd"}, "d/a", None),
        ({"d/a": "../../tmp"}, "d/a", None),
        ({"a": "/workspaces/x"}, "a", None),
        ({"a": "d/../js", "d": ".ggen/deep"}, "a", ".ggen/js"),
        ({"a": "b/c", "b": "/workspace/d"}, "a", "d/c"),
        ({"a": "b", "b": "a"}, "a", None),
        ({"a": ".."}, "a", None),
        ({"a": "."}, "a", ""),
        ({"a": "/dev/null"}, "a", None),
    ],
)
def test_where_a_link_leads(links: dict[str, str], path: str, place: str | None) -> None:
    assert destination(path, links, ROOT) == place


@pytest.mark.parametrize("target", ["/proc/self/cwd/x", "../../proc/1/root", "/dev/fd/3", "/usr/../proc/self/cwd"])
def test_nobody_knows_where_some_lead(target: str) -> None:
    with pytest.raises(Anywhere):
        destination("d/a", {"d/a": target}, ROOT)


def test_a_chain_that_the_kernel_follows_is_followed() -> None:
    links = {f"l{number}": f"l{number + 1}" for number in range(MAX_LINKS)}
    assert destination("l1", links, ROOT) == f"l{MAX_LINKS}"


@pytest.mark.parametrize(
    ("links", "ignored"),
    [
        ({}, True),
        ({"generated": "model", "other": "/etc"}, True),
        ({"generated/js": "../.ggen/js"}, False),
        ({"generated/js": "../.ggen"}, False),
        ({"generated/js": "../.ggen/j"}, True),
        ({"generated/js": "x", "generated/x": "/workspace/.ggen/js"}, False),
        ({"generated/js": "../.ggen/link", ".ggen/link": "js"}, False),
        ({"generated/js": "/proc/self/cwd/.ggen/js"}, False),
    ],
)
def test_what_a_link_leads_to_is_not_ignored(tmp_path: Path, links: dict[str, str], ignored: bool) -> None:
    for path, target in {**links, HIDDEN: ""}.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        os.symlink(target, tmp_path / path) if target else (tmp_path / path).write_text("stale")
    found = without_linked(ignore_matcher(IGNORE), [scan(tmp_path).links], ROOT, nothing)
    assert found(HIDDEN) is ignored
    assert not found("generated/schema.sql")
    assert found(".ggen/jsx") is (".ggen" not in {os.path.basename(target) for target in links.values()} and "/proc" not in str(links))


def test_a_copy_that_a_link_leads_to_counts() -> None:
    found = without_linked(ignore_matcher(IGNORE), [{"model.py": "real.backup"}], ROOT, nothing)
    assert (found("real.backup"), found("other.backup")) == (False, True)
