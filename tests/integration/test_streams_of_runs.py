# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a command is fed while it runs, and that nobody else takes it for something to do."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.module import run_module
from support.runs import Host, own

pytest_plugins = ("support.run_fixtures",)


@pytest.mark.parametrize(
    ("text", "script", "printed"),
    [
        ("one\ntwo\n", "cat", "one\ntwo\n"),
        ("", "wc -c", "0\n"),
        (None, "wc -c", "0\n"),
        ("x" * 3_000_000, "sleep 0.2; wc -c", "3000000\n"),
        ("one\ntwo\n", "head -n 1 > /dev/null; echo done", "done\n"),
    ],
    ids=["text", "empty", "none", "more than a pipe holds", "not all is read"],
)
def test_a_command_reads_its_standard_input(host: Host, text: str | None, script: str, printed: str) -> None:
    result = host.run(script, stdin=text)
    assert (result["rc"], result["stdout"], result["stderr"]) == (0, printed, ""), result


def test_what_a_command_leaves_of_its_input_is_never_run(host: Host, workspace: Path) -> None:
    hostile = "touch /workspace/hacked; echo hacked\n" * 20_000
    result = host.run("head -c 10 > /dev/null", workspace, stdin=hostile)
    assert (result["rc"], result["stdout"], result["changed_files"]) == (0, "", []), result
    assert not (workspace / "hacked").exists()


def test_an_endless_wait_for_input_does_not_outlive_the_timeout(host: Host) -> None:
    result = host.run("cat > /dev/null; sleep 600", stdin="text", timeout=2)
    assert result["timed_out"], result


def test_jobs_with_input_of_their_own_share_no_pod(host: Host, tmp_path: Path) -> None:
    folders = [own(tmp_path / name) for name in ("one", "two")]
    params = host.params("cat", None, pods="one")
    del params["workspace"]
    jobs = [{"workspace": str(folder), "stdin": f"{folder.name}\n"} for folder in folders]
    result = run_module("containerd_run", **params, jobs=jobs)
    assert [job["stdout"] for job in result["jobs"]] == ["one\n", "two\n"], result
    assert len({job["pod"] for job in result["jobs"]}) == 2
