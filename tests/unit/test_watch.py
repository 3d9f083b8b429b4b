# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Watching a process: its output in bounded memory, deadlines, and what else happens meanwhile."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from ansible_collections.ggen.gvisor.plugins.module_utils._watch import Excerpt, watch
from hypothesis import given
from hypothesis import strategies as st


@given(st.lists(st.binary(max_size=40), max_size=30), st.integers(min_value=1, max_value=64))
def test_excerpt_keeps_head_and_tail(blocks: list[bytes], limit: int) -> None:
    excerpt = Excerpt(limit)
    for block in blocks:
        excerpt(block)
    whole = b"".join(blocks)
    assert excerpt.size == len(whole)
    if len(whole) <= limit:
        assert excerpt.text() == whole.decode("utf-8", "replace")
        assert not excerpt.truncated
    else:
        head, tail = whole[: limit - limit // 2], whole[len(whole) - limit // 2 :]
        text = excerpt.text()
        assert text.startswith(head.decode("utf-8", "replace"))
        assert text.endswith(tail.decode("utf-8", "replace"))
        assert f"{len(whole) - limit} of {len(whole)} bytes left out" in text
    assert sum(map(len, excerpt._tail)) <= limit // 2 + 40


def start(code: str) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def finish(process: subprocess.Popen) -> None:
    process.kill()
    process.communicate()


def test_output_apart_and_exit_code() -> None:
    process = start("import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)")
    out, err = Excerpt(100), Excerpt(100)
    assert watch(process, {process.stdout.fileno(): out, process.stderr.fileno(): err}, {}, time.monotonic() + 20)
    assert (process.returncode, out.text(), err.text()) == (3, "out\n", "err\n")
    finish(process)


def test_a_deadline_ends_the_watch() -> None:
    process = start("import time; print('begun', flush=True); time.sleep(60)")
    out = Excerpt(100)
    begin = time.monotonic()
    assert not watch(process, {process.stdout.fileno(): out}, {}, begin + 1)
    assert time.monotonic() - begin < 5
    assert out.text() == "begun\n"
    finish(process)


def test_another_descriptor_can_bring_the_deadline_nearer() -> None:
    process = start("import time; time.sleep(60)")
    reader, writer = os.pipe()
    os.close(writer)
    begin = time.monotonic()
    sinks = {process.stdout.fileno(): Excerpt(10)}
    assert not watch(process, sinks, {reader: lambda _data: 0.0}, begin + 60)
    assert time.monotonic() - begin < 5
    os.close(reader)
    finish(process)
