# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The audit trail's file: one line stays one line, whatever is in it, whoever else writes, and when it is full."""

from __future__ import annotations

import errno
import hashlib
import json
import multiprocessing
import os
import stat
from pathlib import Path

import pytest
from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox import audit
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.audit import append, argv_facts, asked_by, bounded, line_of
from hypothesis import given
from hypothesis import strategies as st

HOSTILE = ["a\nb", "\x1b]52;c;x\x07", "\x7f\x85\u2028", "\ud800", "\0", '"}\n{"run": "forged"}', "ü"]


def lines(state_dir: Path) -> list[dict]:
    """All lines, the oldest first."""
    files = sorted((state_dir / "audit").glob("runs.jsonl*"), key=lambda path: -int(path.suffix[1:] if path.suffix != ".jsonl" else 0))
    return [json.loads(line) for path in files for line in path.read_bytes().splitlines()]


@pytest.mark.parametrize("text", HOSTILE)
def test_one_line_stays_one_line(tmp_path: Path, text: str) -> None:
    append(str(tmp_path), {"argv": [text], text: text})
    append(str(tmp_path), {"argv": ["after"]})
    data = (tmp_path / "audit/runs.jsonl").read_bytes()
    assert data.count(b"\n") == 2
    assert all(32 <= byte < 127 for byte in data.replace(b"\n", b""))
    assert lines(tmp_path) == [{"argv": [text], text: text}, {"argv": ["after"]}]


@given(st.recursive(st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=5))
def test_any_record_is_one_printable_line(record: object) -> None:
    line = line_of({"record": record})
    assert line.endswith(b"\n")
    assert all(32 <= byte < 127 for byte in line[:-1])
    assert json.loads(line) == {"record": record}


def test_it_is_root_s_alone_whatever_the_umask_is(tmp_path: Path) -> None:
    previous = os.umask(0)
    try:
        append(str(tmp_path), {})
        (tmp_path / "audit/runs.jsonl").chmod(0o644)
        (tmp_path / "audit").chmod(0o777)
        append(str(tmp_path), {})
    finally:
        os.umask(previous)
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "audit", tmp_path / "audit/runs.jsonl")]
    assert modes == [0o700, 0o600]


def test_a_full_file_makes_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "MAX_BYTES", 100)
    for number in range(100):
        append(str(tmp_path), {"number": number, "text": "x" * 10})
    assert sorted(os.listdir(tmp_path / "audit")) == ["runs.jsonl", *(f"runs.jsonl.{number}" for number in range(1, audit.KEPT + 1))]
    assert all(path.stat().st_size <= 100 for path in (tmp_path / "audit").iterdir())
    kept = [line["number"] for line in lines(tmp_path)]
    assert kept == list(range(100 - len(kept), 100))
    append(str(tmp_path), {"text": "x" * 1000})  # one that has a file of its own
    assert lines(tmp_path)[-1] == {"text": "x" * 1000}


def test_several_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "MAX_BYTES", 4000)
    monkeypatch.setattr(audit, "KEPT", 50)

    def write(writer: int) -> None:
        for number in range(50):
            append(str(tmp_path), {"writer": writer, "number": number, "text": "x" * (number * 7 % 90)})

    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=write, args=(number,)) for number in range(6)]
    for process in writers:
        process.start()
    for process in writers:
        process.join()
    found = lines(tmp_path)
    assert len(found) == 300
    for writer in range(6):
        assert [line["number"] for line in found if line["writer"] == writer] == list(range(50))


def test_a_line_that_does_not_fit_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    append(str(tmp_path), {"number": 1})
    write = os.write
    pieces = iter([7])

    def full(descriptor: int, data: bytes) -> int:
        count = next(pieces, None)
        if count is None:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data[:count])

    monkeypatch.setattr(audit.os, "write", full)
    with pytest.raises(OSError, match="No space"):
        append(str(tmp_path), {"number": 2})
    monkeypatch.undo()
    append(str(tmp_path), {"number": 3})
    assert [line["number"] for line in lines(tmp_path)] == [1, 3]


def test_half_a_line_of_a_host_that_went_down_stays_apart(tmp_path: Path) -> None:
    append(str(tmp_path), {"number": 1})
    with (tmp_path / "audit/runs.jsonl").open("ab") as stream:
        stream.write(b'{"num')
    append(str(tmp_path), {"number": 2})
    assert (tmp_path / "audit/runs.jsonl").read_bytes() == b'{"number":1}\n{"num\n{"number":2}\n'


@pytest.mark.parametrize("what", ["folder", "file", "pipe"])
def test_nothing_else_is_taken_for_it(tmp_path: Path, what: str) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    state_dir = tmp_path / "state"
    (state_dir / "audit").mkdir(parents=True)
    if what == "folder":
        (state_dir / "audit").rmdir()
        (state_dir / "audit").symlink_to(victim)
    elif what == "file":
        (state_dir / "audit/runs.jsonl").symlink_to(victim / "file")
    else:
        os.mkfifo(state_dir / "audit/runs.jsonl")
    with pytest.raises(GvisorError, match=r"the audit trail .*/audit/runs.jsonl cannot be written: .*nothing is run without it"):
        audit.check(str(state_dir))
    assert os.listdir(victim) == []


def test_somebody_who_holds_the_lock_is_not_waited_for_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "LOCK_SECONDS", 0.1)
    with audit._opened(str(tmp_path)), pytest.raises(GvisorError, match="another process has held it"):
        audit.check(str(tmp_path))
    audit.check(str(tmp_path))


def test_who_asked(tmp_path: Path) -> None:
    (tmp_path / "self").mkdir()
    (tmp_path / "self/loginuid").write_text("1000")
    said = {"SUDO_USER": "ann", "SSH_CONNECTION": "192.0.2.7 50000 192.0.2.1 22", "PASSWORD": "secret"}
    assert asked_by(said, str(tmp_path)) == {"uid": os.getuid(), "login_uid": 1000, "sudo_user": "ann", "ssh_client": "192.0.2.7"}
    (tmp_path / "self/loginuid").write_text("4294967295")
    assert asked_by({}, str(tmp_path)) == {"uid": os.getuid(), "login_uid": None, "sudo_user": None, "ssh_client": None}


def test_long_things_are_cut_and_say_so() -> None:
    assert bounded({"a": "x" * 600, "b": list(range(100)), "c": 5, "d": None}) == {
        "a": f"{'x' * 512}… (600 characters)",
        "b": [*range(64), "… (100 in all)"],
        "c": 5,
        "d": None,
    }
    assert argv_facts(["sh", "-c"]) == {"argv": ["sh", "-c"]}
    long = ["sh", "y" * 600]
    assert argv_facts(long)["argv_sha256"] == hashlib.sha256(b"sh\0" + b"y" * 600 + b"\0").hexdigest()
