# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A controller whose clock is an hour off its host's: its reports have its time, and nothing else is different.

A preloaded library tells ansible-playbook, its workers and their ssh another time. The kernel gives files the right one, so files of the workspace
get theirs as a controller with that clock would have given them.
"""

from __future__ import annotations

import datetime
import json
import os
import re
import shutil
import time
from pathlib import Path

import pytest
from support.faults import check_works, fresh_host
from support.playbook import ROOT, Play

LIBRARY = "libfaketimeMT.so.1"


def runs(done: Play) -> list[str]:
    """What the run on the workspace changed, without ggen's own records and the copies that it makes of files before it writes them again."""
    assert done.rc == 0, done.errors
    (found,) = (event["res"]["ansible_facts"] for event in done.results if "ggen_run_results" in event["res"].get("ansible_facts", {}))
    (run,) = found["ggen_run_results"]
    own = re.compile(r"\.ggen(/|$)|.*\.backup$")
    return sorted(f"{item['change']} {item['path']}" for item in run["changed_files"] if not own.match(item["path"]))


@pytest.mark.parametrize("hours", [1, -1], ids=["ahead", "behind"])
def test_the_controller_s_clock_is_an_hour_off(hours: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (library,) = Path("/usr/lib").glob(f"*/faketime/{LIBRARY}")
    workspace, off = tmp_path / "model", hours * 3600
    shutil.copytree(ROOT / "examples/organization", workspace, ignore=shutil.ignore_patterns("generated", ".ggen"))
    for path in [*workspace.rglob("*"), workspace]:
        os.utime(path, (time.time() + off,) * 2)
    of_the_workspace = {"playbook": "playbooks/run.yml", "ggen_run_workspace": str(workspace), "ggen_run_from": "controller"}
    with fresh_host() as victim:
        with monkeypatch.context() as clock:
            for name, value in {"LD_PRELOAD": str(library), "FAKETIME": f"{hours:+}h", "NO_FAKE_STAT": "1"}.items():
                clock.setenv(name, value)
            done = victim.site()
            assert done.rc == 0, done.errors
            again = victim.site()
            assert (again.rc, again.changed) == (0, []), (again.changed, again.errors)
            told = datetime.datetime.fromisoformat(json.loads((ROOT / "reports/victim.json").read_text())["time"])
            assert abs(told.timestamp() - off - time.time()) < 60
            made = runs(victim.site(**of_the_workspace))
            assert "created generated/model.py" in made
            assert runs(victim.site(**of_the_workspace)) == []
            with (workspace / "templates/model.py.tera").open("a") as template:
                template.write("# one line more\n")
            assert runs(victim.site(**of_the_workspace)) == ["modified generated/model.py"]
        assert runs(victim.site(**of_the_workspace)) == []
        check_works(victim)
