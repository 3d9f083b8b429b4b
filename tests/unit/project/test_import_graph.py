# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The arrows between the rooms of plugins/: who may import whom, as docs/architecture.md draws it."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import NamedTuple

import pytest
from conftest import ROOT
from graphlib import TopologicalSorter

PLUGINS = ROOT / "plugins"
OWN = "ansible_collections.ggen.gvisor.plugins."
HOSTS, CONTROLLER = "module_utils", "plugin_utils"
# A subject may import itself and those that are named; the controller's side also the same subject of the hosts' side, and both sides' _base.
SUBJECTS = {
    HOSTS: {
        "_base": set(),
        "_containerd": {"_base"},
        "_sandbox": {"_base", "_containerd"},
        "_rootless": {"_base", "_containerd", "_sandbox"},
        "_builds": {"_base"},
        "_bundle": {"_base", "_builds"},
        "_gvisor": {"_base"},
        "_kubernetes": {"_base"},
        "_ggen": {"_base"},
        "_command": {"_base", "_containerd", "_sandbox", "_rootless", "_gvisor", "_ggen"},
    },
    CONTROLLER: {
        "_base": set(),
        "_containerd": {"_base"},
        "_gvisor": {"_base", "_containerd"},
        "_ggen": {"_base"},
        "_fleet": {"_base"},
        "_transfer": {"_base"},
        "_builds": {"_base", "_transfer"},
        "_kubernetes": {"_base"},
        "_command": {"_base"},
    },
}
ENTRY_POINTS = {"action", "callback", "doc_fragments", "filter", "inventory", "modules"}


class Place(NamedTuple):
    """Where a file lies: its side (or kind of entry point), its subject (or none) and its name."""

    side: str
    subject: str
    name: str


def place(module: str) -> Place:
    """Return the place of a dotted name below plugins/."""
    parts = module.split(".")
    return Place(parts[0], parts[1] if len(parts) > 2 else "", parts[-1])


def imports(path: Path) -> set[str]:
    """Return the files of plugins/ that a file imports, anywhere in it, as dotted names below plugins/."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level:
            names = [f"{OWN}a relative import"]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in (name[len(OWN) :] for name in names if name.startswith(OWN)):
            whole = PLUGINS.joinpath(*name.split(".")).with_suffix(".py").exists()
            found.add(name if whole else name.rpartition(".")[0])
    return found


FILES = {".".join(path.relative_to(PLUGINS).with_suffix("").parts): path for path in sorted(PLUGINS.rglob("*.py"))}
GRAPH = {name: imports(path) for name, path in FILES.items()}


def allowed(importer: Place, imported: Place) -> bool:
    """Tell whether the table has the arrow."""
    if importer.side in ENTRY_POINTS:
        sides = {HOSTS} if importer.side == "modules" else {HOSTS, CONTROLLER}
        return imported.side in sides
    if importer.side == HOSTS:
        return imported.side == HOSTS and imported.subject in {importer.subject, *SUBJECTS[HOSTS][importer.subject]}
    if imported.side == HOSTS:
        return imported.subject in {importer.subject, "_base"}
    return imported.side == CONTROLLER and imported.subject in {importer.subject, *SUBJECTS[CONTROLLER][importer.subject]}


def test_every_file_has_a_room():
    for name in FILES:
        where = place(name)
        if where.side in (HOSTS, CONTROLLER):
            assert where.subject in SUBJECTS[where.side], f"plugins/{name.replace('.', '/')}.py lies in no subject's folder"
            assert name.count(".") == 2, f"plugins/{name.replace('.', '/')}.py lies too deep"
        else:
            assert where.side in ENTRY_POINTS, f"plugins/{where.side} is no kind of entry point that this test knows"


def test_what_is_imported_is_there():
    assert {(name, target) for name, targets in GRAPH.items() for target in targets if target not in FILES} == set()


@pytest.mark.parametrize("name", FILES)
def test_only_the_table_s_arrows_exist(name):
    assert [target for target in sorted(GRAPH[name]) if not allowed(place(name), place(target))] == []


def test_there_is_no_circle():
    assert list(TopologicalSorter(GRAPH).static_order())  # raises CycleError, which names the circle


def test_the_same_subject_has_the_same_name_on_both_sides():
    for side, subjects in SUBJECTS.items():
        folders = {path.name for path in (PLUGINS / side).iterdir() if path.is_dir() and path.name != "__pycache__"}
        assert folders == set(subjects), side
    only_controller = {"_fleet", "_transfer"}
    assert set(SUBJECTS[CONTROLLER]) - set(SUBJECTS[HOSTS]) == only_controller


@pytest.mark.parametrize(
    ("importer", "imported", "right"),
    [
        ("module_utils._sandbox.pod", "module_utils._containerd.ctr", True),
        ("module_utils._containerd.ctr", "module_utils._sandbox.pod", False),
        ("module_utils._gvisor.release", "module_utils._containerd.ctr", False),
        ("module_utils._base.files", "plugin_utils._base.text", False),
        ("plugin_utils._fleet.report", "module_utils._base.text", True),
        ("plugin_utils._fleet.report", "module_utils._builds.cache", False),
        ("plugin_utils._containerd.plan", "modules.containerd_runtime", False),
        ("modules.containerd_run", "plugin_utils._base.text", False),
        ("action.containerd_run", "plugin_utils._transfer.send", True),
        ("filter.ggen_jobs", "filter.ggen_results", False),
    ],
)
def test_the_table_itself(importer, imported, right):
    assert allowed(place(importer), place(imported)) is right
