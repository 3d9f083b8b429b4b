# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a job chooses, names, contents and output, as the operator of a play gets to see it."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from support.containerd import Daemon
from support.runs import IMAGE, RUNTIMES
from support.terminal import run_play

pytest_plugins = ("support.run_fixtures",)

# The clipboard, the title, the cursor, the same with one character, directions, a line that is overwritten, a line of Ansible's, no UTF-8.
OCTAL = {
    "clipboard": r"\033]52;c;ZXZpbA==\007",
    "title": r"\033]0;title\007",
    "cursor": r"\033[2J",
    "c1": r"\302\2332J",
    "direction": r"\342\200\256txt",
    "return": r"x\rok",
    "line": r"x\n[WARNING]: all is well",
    "bytes": r"x\377\355\240\200",
}
UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
WRITE = "; ".join(f'n=$(printf \'{text}.\'); echo "$n" > "$n"; chmod 4755 "$n"' for text in OCTAL.values())
SAY = "; ".join(f"printf '{text}\\n'; printf '{text}\\n' >&2" for text in OCTAL.values())


def task(daemon: Daemon, tmp_path: Path, script: str, **options: object) -> dict:
    places = {"address": daemon.address, "state_dir": str(tmp_path / "state"), "image": IMAGE, "runtime": RUNTIMES["runsc"]}
    return {"ggen.gvisor.containerd_run": {**places, "argv": ["sh", "-c", script], **options}}


@pytest.mark.parametrize("where", ["host", "check", "controller", "jobs"])
def test_nothing_that_a_job_chose_drives_a_terminal(daemon: Daemon, workspace: Path, tmp_path: Path, where: str) -> None:
    one = {"workspace": str(workspace), "workspace_from": "controller" if where == "controller" else "host"}
    options = {"jobs": [one]} if where == "jobs" else one
    keep = {
        "ansible.builtin.copy": {"content": "{{ done | to_json }}", "dest": str(tmp_path / "done"), "mode": "0600"},
        "diff": False,
        "check_mode": False,
    }
    words = ["--diff", *(["--check"] if where == "check" else [])]
    shown = run_play(tmp_path, [{**task(daemon, tmp_path, f"{WRITE}; {SAY}", **options), "register": "done"}, keep], *words)
    assert shown.rc == 0, shown.text
    assert not UNSAFE.search(shown.text), shown.text
    assert "\\x1b]52;c;ZXZpbA==\\x07" in shown.text
    assert "8 files" in shown.text  # the warning about their bits
    assert "\n[WARNING]: all is well" not in shown.text
    done = json.loads((tmp_path / "done").read_text())
    # Programs get what was printed.
    assert "\x1b]52;c;ZXZpbA==\x07\n" in (done["jobs"][0] if where == "jobs" else done)["stdout"]


def test_a_failure_s_message(daemon: Daemon, workspace: Path, tmp_path: Path) -> None:
    script = 'n=$(printf \'\\033]0;title\\007\\302\\233.\'); ln -s /etc/passwd "$n"; mkdir -p d; cd d; mkfifo "$n"; exit 3'
    shown = run_play(tmp_path, [task(daemon, tmp_path, script, workspace=str(workspace), workspace_from="controller")], "--diff")
    assert shown.rc == 2
    assert "was not copied back" in shown.text
    assert not UNSAFE.search(shown.text), shown.text


def test_what_a_failing_job_printed(daemon: Daemon, tmp_path: Path) -> None:
    """Ansible shows the whole result of a task that has failed, and at -v of each."""
    for words, script in (([], f"{SAY}; exit 3"), (["-v"], SAY)):
        shown = run_play(tmp_path, [task(daemon, tmp_path, script)], *words)
        assert shown.rc == (0 if words else 2)
        assert "]52;c;ZXZpbA==" in shown.text
        assert not UNSAFE.search(shown.text), shown.text


def test_a_folder_of_the_controller_with_such_a_name(daemon: Daemon, workspace: Path, tmp_path: Path) -> None:
    """It comes back as it is and is shown as it is not."""
    name = "a\x1b]0;title\x07\u202e"
    (workspace / name).write_text("")
    options = {"workspace": str(workspace), "workspace_from": "controller"}
    shown = run_play(tmp_path, [task(daemon, tmp_path, "for file in *; do echo x > $file; done", **options)], "--diff", "-v")
    assert shown.rc == 0, shown.text
    assert (workspace / name).read_text() == "x\n"
    assert os.listdir(workspace) == [name]
    assert "a\\x1b]0;title\\x07\\u202e" in shown.text
    assert not UNSAFE.search(shown.text), shown.text


def test_the_filter_for_what_was_printed(daemon: Daemon, tmp_path: Path) -> None:
    tell = {"ansible.builtin.debug": {"msg": "{{ (done.stdout ~ done.stderr) | ggen.gvisor.visible }}"}}
    shown = run_play(tmp_path, [{**task(daemon, tmp_path, SAY), "register": "done"}, tell])
    assert shown.rc == 0, shown.text
    assert not UNSAFE.search(shown.text), shown.text
    assert "]52;c;ZXZpbA==" in shown.text
