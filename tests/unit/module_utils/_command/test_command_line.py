# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What ggen-gvisor makes of its one table: the command line, the manual page, bash's completion; and what it shows."""

from __future__ import annotations

import base64
import io
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml
from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._command import display, stats, verbs
from ansible_collections.ggen.gvisor.plugins.module_utils._command.completion import completion
from ansible_collections.ggen.gvisor.plugins.module_utils._command.engine import Engine, run
from ansible_collections.ggen.gvisor.plugins.module_utils._command.manual import manual
from ansible_collections.ggen.gvisor.plugins.module_utils._command.parser import Asked, key_of, parse
from ansible_collections.ggen.gvisor.plugins.module_utils._command.table import EXIT_CODES, FAULTY, NOT_RUN, VERBS
from ansible_collections.ggen.gvisor.plugins.module_utils._ggen import runs
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.defaults import DEFAULTS, UNSET, options
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.jobs import Job, Mode, Streams
from ansible_collections.ggen.gvisor.plugins.plugin_utils._command import zipapp
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st


def asked(*words: str) -> Asked:
    return parse(words, "1.0.0")


# The command line


def test_options_are_read_and_what_is_behind_two_hyphens_is_the_command_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HERE", "value")
    Path("key").write_bytes(b"\0secret")
    options = [
        "--workspace",
        ".",
        "--mount",
        "a:/b:ro",
        "--mount",
        "/c:/d",
        "--env",
        "A=b=c",
        "--env",
        "HERE",
        "--secret",
        "k=key",
        "--cpus",
        "1.5",
    ]
    found = asked("run", *options, "--json", "--", "ls", "--", "-l")
    assert found.words == ["ls", "--", "-l"]
    assert verbs.given(found) == {
        "image": runs.IMAGE,
        "workspace": str(tmp_path),
        "mounts": [
            {"source": str(tmp_path / "a"), "target": "/b", "writable": False},
            {"source": "/c", "target": "/d", "writable": True},
        ],
        "env": {"A": "b=c", "HERE": "value"},
        "secrets": {"k": base64.b64encode(b"\0secret").decode()},
        "cpus": 1.5,
    }
    assert found.options["json"] is True


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run"], "which command?"),
        (["run", "--mount", "a", "--", "x"], "is not SRC:DST"),
        (["run", "--mount", "a:/b:rx", "--", "x"], "is not SRC:DST"),
        (["run", "--env", "NOT_SET_ANYWHERE", "--", "x"], "has no value"),
        (["run", "--secret", "a", "--", "x"], "is not NAME=FILE"),
        (["run", "--secret", "a=/nowhere", "--", "x"], "No such file"),
        (["run", "--timeout", "soon", "--", "x"], "is no number"),
        (["run", "--workspace=--", "--", "x"], "--workspace cannot be --"),
        (["run", "--protect=--", "--", "x"], "--protect cannot be --"),
        (["doctor", "--", "x"], "takes nothing behind --"),
    ],
)
def test_what_cannot_be_meant_is_refused(words: list[str], said: str) -> None:
    with pytest.raises(GvisorError, match=said):
        asked(*words)


@pytest.mark.parametrize("words", [[], ["fly"], ["run", "ls"], ["run", "--work", ".", "--", "x"], ["run", "--image", "--", "x"]])
def test_a_wrong_command_line_ends_with_our_exit_code(words: list[str], capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as end:
        asked(*words)
    assert end.value.code == NOT_RUN
    assert capsys.readouterr().err.startswith("ggen-gvisor")


def test_the_exit_codes_are_ours_from_125_on_and_each_is_told_once() -> None:
    codes = [code for code, _meaning in EXIT_CODES]
    assert len(set(codes)) == len(codes)
    assert all(code == 0 or code >= NOT_RUN for code in codes)


def test_the_document_tells_the_verbs_and_the_exit_codes() -> None:
    page = (ROOT / "docs/command.md").read_text()
    told = {int(code) for row in re.findall(r"(?m)^\| ([\d, ]+) \|", page) for code in row.split(", ")}
    assert told == {code for code, _meaning in EXIT_CODES if code}
    assert {verb.name for verb in VERBS} <= set(re.findall(r"ggen-gvisor (\w+)", page))


@pytest.mark.parametrize(
    ("result", "code"),
    [
        ({"rc": 0}, 0),
        ({"rc": 3, "failed": True}, 3),
        ({"rc": 0, "failed": True, "faults": ["x"]}, 152),
        ({"failed": True, "timed_out": True}, 150),
        ({"failed": True, "limits_hit": ["memory"]}, 151),
        ({"failed": True, "msg": "no"}, 125),
    ],
)
def test_the_exit_code_tells_what_became_of_a_run(result: dict, code: int) -> None:
    assert verbs.exit_code(result) == code


# What is made of the table


def test_every_option_is_in_the_help_the_manual_page_and_the_completion(capsys: pytest.CaptureFixture) -> None:
    page, script = manual("1.0.0").replace("\\-", "-"), completion()
    for verb in VERBS:
        with pytest.raises(SystemExit):
            asked(verb.name, "--help")
        shown = capsys.readouterr().out
        for option in verb.options:
            assert option.name in shown
            assert f"\\fB{option.name}\\fR" in page
            assert option.name in script
        assert len({key_of(option) for option in verb.options}) == len(verb.options)


def test_the_manual_page_is_roff_without_a_complaint() -> None:
    done = subprocess.run(["groff", "-man", "-Tutf8", "-ww", "-z"], input=manual("1.0.0"), capture_output=True, text=True, check=True)
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("ggen-gvisor s", ["shell", "sync", "stats"]),
        ("ggen-gvisor run --wo", ["--workspace"]),
        ("ggen-gvisor doctor --m", []),
        ("ggen-gvisor run --workspace /usr/sb", ["/usr/sbin"]),
        ("ggen-gvisor run --memory ", []),
    ],
)
def test_bash_completes(line: str, offered: list[str]) -> None:
    words = line.split(" ")
    script = f"""{completion()}
compopt() {{ :; }}
COMP_WORDS=({" ".join(f"'{word}'" for word in words)}); COMP_CWORD={len(words) - 1}
_ggen_gvisor
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert done.stdout.split() == offered


def test_what_a_sandbox_counts_is_read_and_bounded() -> None:
    text = """# HELP runsc_fs_opens Number of file opens.
runsc_fs_opens{iteration="3u9",sandbox="a-1"} 41 1795883856550
runsc_unimplemented_syscalls{iteration="3u9",sandbox="a-1",sysno="334"} 6 1795883856550
runsc_forged{iteration="3u9",sandbox="a-1"} \x1b[2J
other{sandbox="a-1"} 1
"""
    assert stats.read_counts(text) == {"fs_opens": 41, 'unimplemented_syscalls{sysno="334"}': 6}
    many = "".join(f'runsc_n{number}{{sandbox="a"}} 1\n' for number in range(2 * stats.MAX_COUNTS))
    assert len(stats.read_counts(many)) == stats.MAX_COUNTS


def test_the_table_of_sandboxes() -> None:
    pod = {
        "pod": "run-1",
        "image": "i\x1b[2J",
        "digest": "sha256:0123456789abcdef",
        "age": 62.5,
        "memory": 12_000_000,
        "cpu_seconds": 0.25,
        "pids": 31,
    }
    unknown = dict.fromkeys(pod)
    rows = [
        line.split() for line in stats.table([{**pod, "sandbox": {"fs_opens": 41.0}}, {**unknown, "pod": "x", "age": 1.0, "sandbox": None}])
    ]
    assert rows[1:] == [
        ["run-1", "i\\x1b[2J", "0123456789ab", "1m02s", "12.0", "MB", "0.2s", "31", "41"],
        ["x", "-", "-", "1s", "-", "-", "-", "-"],
    ]


# Defaults


def test_the_role_and_the_command_run_ggen_alike() -> None:
    role = ROOT / "roles/ggen_run"
    defaults, variables = (yaml.safe_load((role / name / "main.yml").read_text()) for name in ("defaults", "vars"))
    assert tuple(defaults[f"ggen_run_{name}"] for name in ("image", "timeout", "ignore")) == (runs.IMAGE, runs.TIMEOUT, runs.IGNORE)
    assert (variables["_ggen_run_key"], variables["_ggen_run_program"]) == (runs.KEY, runs.PROGRAM)
    same = ("pids", "file_size", "limits", "namespace", "runtime", "address", "protect")
    assert {name: DEFAULTS[name] for name in same} == {name: defaults[f"ggen_run_{name}"] for name in same}


def test_options_are_all_that_a_run_takes() -> None:
    found = options(image="x", cpus=None)
    assert set(found) == {*DEFAULTS, *UNSET}
    assert (found["image"], found["cpus"], found["pids"]) == ("x", None, 2048)


def test_an_engine_gets_the_checked_job_and_its_secrets_are_in_no_result() -> None:
    seen = []

    class Seeing(Engine):
        def run(self, job: Job) -> dict:
            seen.append(job)
            job.warnings.append("about much too secret")
            return {"rc": 0, "stdout": "much too secret", "changed": False}

    secret = base64.b64encode(b"much too secret").decode()
    done = run(options(image="x", argv=["ls"], secrets={"a": secret}), Mode(False, False), Streams(), Seeing())
    assert (done.result["stdout"], done.warnings) == ("********", ["about ********"])
    assert seen[0].user == "65534:65534"
    refused = run(options(image="x", argv=["ls"], memory="much"), Mode(False, False), Streams(), Seeing())
    assert refused.result["failed"]
    assert len(seen) == 1


class Claims(Engine):
    """An engine whose ggen ends with 0 and says what it does."""

    def __init__(self, outcome: str) -> None:
        self.outcome = outcome

    def run(self, _job: Job) -> dict:
        return {"rc": 0, "stdout": f"{self.outcome}\n", "stderr": "", "changed": False, "contents_changed": False, "duration": 0.1}


@pytest.mark.parametrize("verb", ["sync", "check"])
@pytest.mark.parametrize("options", [[], ["--json"]])
def test_what_ggen_calls_an_error_is_one_whatever_it_ends_with(
    verb: str, options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    options = [*options, f"--user={os.getuid()}:{os.getgid()}"]
    assert verbs.perform(asked(verb, *options), Claims('{"status": "error"}')) == FAULTY
    assert ("ggen reported an error" in capfd.readouterr().err) == ("--json" not in options)
    assert verbs.perform(asked(verb, *options), Claims('{"status": "success"}')) == 0


# What is shown


@given(st.lists(st.sampled_from([b"abc", b"ab", b"c", b"xyz", b"a", b"bc\n", b"\n"]), max_size=30))
@settings(max_examples=200)
def test_a_secret_is_masked_however_the_stream_is_cut(blocks: list[bytes]) -> None:
    masker = display.Masker([b"abcab", b"abc"])
    shown = b"".join([*(masker(block) for block in blocks), masker(b"")])
    assert shown == re.sub(b"abcab|abc", b"********", b"".join(blocks))


def test_what_is_no_secret_waits_for_nothing() -> None:
    masker = display.Masker([b"secret"])
    assert masker(b"Password: ") == b"Password: "


# The zipapp


def test_the_zipapp_is_the_same_wherever_it_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = zipapp.zipapp()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    old = os.umask(0o077)
    try:
        assert zipapp.zipapp() == first
    finally:
        os.umask(old)
    names = zipfile.ZipFile(io.BytesIO(first)).namelist()
    assert names == sorted(names)
    assert not [name for name in names if "/modules/" in name or "plugin_utils" in name]


def test_the_zipapp_needs_no_ansible_and_nothing_beside_python(tmp_path: Path) -> None:
    program = tmp_path / "ggen-gvisor"
    zipapp.write(str(program))
    assert program.stat().st_mode & 0o777 == 0o755
    assert os.listdir(tmp_path) == ["ggen-gvisor"]
    done = subprocess.run([sys.executable, "-IS", str(program), "--version"], capture_output=True, text=True, check=True, env={})
    assert done.stdout == f"ggen-gvisor {yaml.safe_load((ROOT / 'galaxy.yml').read_text())['version']}\n"
    assert "import ansible.\n" not in "".join(text.decode() for text in zipapp.modules(zipapp.MAIN).values())
    assert not [name for name, text in zipapp.modules(zipapp.MAIN).items() if b"from ansible.module_utils" in text]


def test_the_command_is_installed_with_its_manual_page_and_completion(tmp_path: Path) -> None:
    make = ["make", "--silent", "--directory", str(ROOT), "install-command", f"PREFIX={tmp_path}"]
    done = subprocess.run(make, capture_output=True, text=True, check=True)
    paths = [
        tmp_path / name for name in ("bin/ggen-gvisor", "share/man/man1/ggen-gvisor.1", "share/bash-completion/completions/ggen-gvisor")
    ]
    assert done.stdout.split() == [str(path) for path in paths]
    assert paths[0].read_bytes() == zipapp.zipapp()
    assert [path.stat().st_mode & 0o777 for path in paths] == [0o755, 0o644, 0o644]
    assert paths[1].read_text().startswith(".TH GGEN-GVISOR 1")
