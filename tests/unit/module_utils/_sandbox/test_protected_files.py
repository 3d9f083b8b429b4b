# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which files of a workspace a command may not write."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Optional

import pytest
import yaml
from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox import protect
from ansible_collections.ggen.gvisor.plugins.modules import containerd_run
from conftest import ROOT

PROTECTED = protect.Patterns(protect.DEFAULT)


@pytest.mark.parametrize(
    ("path", "is_link"),
    [
        *(
            (path, False)
            for path in (".git/config", "sub/deep/.git/config", ".git/hooks/a/b", "x/.git/modules/a/b/config", ".envrc", "a/.envrc")
        ),
        *(
            (path, False)
            for path in (".vscode/tasks.json", "a/.vscode/x", ".git/modules/a/hooks/x", ".git/commondir", ".git/config.worktree")
        ),
        # What stands for a folder on the way.
        *((path, True) for path in (".git", "a/.git", ".git/hooks", ".vscode", ".git/modules", ".git/modules/a")),
        *((path, False) for path in (".git", ".vscode", ".git/hooks")),
        # As a file system sees it that forgives much.
        *((path, False) for path in (".GIT/Config", ".g\u200cit/config", ".EnvRC", ".VSCODE/x")),
    ],
)
def test_what_is_protected(path: str, is_link: bool) -> None:
    assert PROTECTED.has(path, is_link)


@pytest.mark.parametrize(
    ("path", "is_link"),
    [
        *((path, False) for path in (".git/index", ".git/HEAD", ".git/refs/heads/main", ".git/modules/a/HEAD", "config", "git/config")),
        *(
            (path, False)
            for path in (".envrc.example", "vscode/x", ".ggen/keys/signing.key", ".gitignore", "hooks/x", ".git/objects/ab/cd")
        ),
        *((path, True) for path in ("a", "a/b", ".git/HEAD", "src")),
    ],
)
def test_what_is_not(path: str, is_link: bool) -> None:
    assert not PROTECTED.has(path, is_link)


def test_the_defaults_are_the_same_everywhere() -> None:
    options = yaml.safe_load(containerd_run.DOCUMENTATION)["options"]
    assert options["protect"]["default"] == protect.DEFAULT
    role = ROOT / "roles" / "ggen_run"
    assert yaml.safe_load((role / "defaults/main.yml").read_text())["ggen_run_protect"] == protect.DEFAULT


@pytest.mark.parametrize("pattern", ["", "a/", "../a", "a/./b", "a\0b"])
def test_a_pattern_that_matches_nothing(pattern: str) -> None:
    with pytest.raises(GvisorError, match="which no file matches"):
        protect.check_patterns("protect", [pattern])


@pytest.mark.parametrize(
    ("patterns", "folders"),
    [
        (None, None),
        ([], []),
        (["a/**", "/b/c/**", "a/x/**"], ["a", "b/c"]),
        (["a/**", "*.rs"], None),
        (["**"], None),
        (["*/**"], None),
        (["a"], None),
    ],
)
def test_outputs_that_are_folders(patterns: Optional[list], folders: Optional[list]) -> None:
    assert protect.literal_folders(patterns) == folders


def test_what_a_host_reports_is_judged_here() -> None:
    refusal = protect.barred(protect.DEFAULT, ["src/**"])
    assert [refusal(path, False) for path in ("src/a", "src/.envrc", "b")] == ["", "is protected", "is not among outputs"]
    assert [refusal("src/.git", is_link) for is_link in (False, True)] == ["is protected", "is protected"]
    assert protect.barred([], None)(".envrc", False) == ""


def guard(folder: Path) -> tuple[dict, list[str]]:
    root = os.open(folder, os.O_RDONLY)
    try:
        found = protect.look(root, protect.DEFAULT, time.monotonic() + 10)
    finally:
        os.close(root)
    return {"patterns": protect.DEFAULT, "rows": found.rows}, sorted(found.mounts)


def after(folder: Path, guarded: dict) -> list[str]:
    root = os.open(folder, os.O_RDONLY)
    try:
        said, left = protect.take_away(root, guarded, time.monotonic() + 10)
    finally:
        os.close(root)
    assert left == []
    return said


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name in (".git/config", ".git/hooks/one", ".git/hooks/two", ".git/index", "sub/.envrc", ".vscode/a/b"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    return tmp_path


def test_what_is_mounted(project: Path) -> None:
    guarded, mounts = guard(project)
    assert mounts == [".git/config", ".git/hooks", ".vscode", "sub/.envrc"]
    assert len(guarded["rows"]) == 5
    assert after(project, guarded) == []


def test_a_folder_that_was_exchanged(project: Path) -> None:
    guarded, _mounts = guard(project)
    (project / ".git").rename(project / "old")
    (project / ".git/hooks").mkdir(parents=True)
    for name in (".git/config", ".git/hooks/one", ".git/hooks/new", ".git/index"):
        (project / name).write_text("evil")
    (project / "sub").rename(project / "moved")
    assert after(project, guarded) == [
        "protect: the command has created, and these were taken away: .git/hooks/new",
        "protect: the command has replaced, and these were taken away: .git/config, .git/hooks/one",
        "protect: the command has moved moved/.envrc",
        "protect: the command has removed, or moved elsewhere, .git/hooks/two, sub/.envrc",
    ]
    assert (project / "moved/.envrc").exists()
    assert sorted(path.name for path in (project / ".git").rglob("*")) == ["hooks", "index"]
    assert (project / "old/config").read_text() == ".git/config"
    assert (project / "old/hooks/one").read_text() == ".git/hooks/one"


def test_the_owner_may_change_it_meanwhile(project: Path) -> None:
    """Nobody in the pod can, as it is mounted read-only: git replaces the file, others write it."""
    guarded, _mounts = guard(project)
    (project / ".git/config.lock").write_text("new")
    (project / ".git/config.lock").rename(project / ".git/config")
    (project / ".git/hooks/one").write_text("new")
    assert after(project, guarded) == []


def test_a_second_name_and_a_link_are_looked_at(project: Path) -> None:
    os.link(project / ".git/config", project / "other")
    (project / ".envrc").symlink_to("harmless")
    guarded, mounts = guard(project)
    assert ".envrc" not in mounts
    (project / "other").write_text("evil")
    (project / ".envrc").unlink()
    (project / ".envrc").symlink_to("evil")
    assert after(project, guarded) == ["protect: the command has replaced, and these were taken away: .envrc, .git/config"]


def test_too_many(project: Path) -> None:
    for number in range(protect.MAX_MOUNTS):
        (project / f"d{number}").mkdir()
        (project / f"d{number}/.envrc").write_text("")
    with pytest.raises(GvisorError, match="protect matches more than"):
        guard(project)
