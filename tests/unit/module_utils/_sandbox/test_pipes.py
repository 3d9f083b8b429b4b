# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Watching pipes: what comes in bounded memory, up to a mark, deadlines, and what else happens meanwhile."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.pipes import HeadAndTail, Inlet, Outlet, UntilMark, read_until, write_out
from hypothesis import assume, given, settings
from hypothesis import strategies as st


@given(st.lists(st.binary(max_size=40), max_size=30), st.integers(min_value=1, max_value=64))
def test_excerpt_keeps_head_and_tail(blocks: list[bytes], limit: int) -> None:
    excerpt = HeadAndTail(limit)
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
    return subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def finish(process: subprocess.Popen) -> None:
    process.kill()
    process.communicate()


def all_of(excerpt: HeadAndTail) -> Callable[[bytes], bool]:
    return lambda data: bool(excerpt(data))


def test_both_streams_to_their_ends() -> None:
    process = start("import sys; print('out'); print('err', file=sys.stderr)")
    out, err = HeadAndTail(100), HeadAndTail(100)
    assert read_until({process.stdout.fileno(): all_of(out), process.stderr.fileno(): all_of(err)}, {}, time.monotonic() + 20)
    assert (out.text(), err.text()) == ("out\n", "err\n")
    finish(process)


def test_a_deadline_ends_the_watch() -> None:
    process = start("import time; print('begun', flush=True); time.sleep(60)")
    out = HeadAndTail(100)
    begin = time.monotonic()
    assert not read_until({process.stdout.fileno(): all_of(out)}, {}, begin + 1)
    assert time.monotonic() - begin < 5
    assert out.text() == "begun\n"
    finish(process)


def test_another_descriptor_can_end_the_watch() -> None:
    process = start("import time; time.sleep(60)")
    reader, writer = os.pipe()
    os.close(writer)
    begin = time.monotonic()
    sinks = {process.stdout.fileno(): all_of(HeadAndTail(10))}
    assert not read_until(sinks, {reader: lambda _data: True}, begin + 60)
    assert time.monotonic() - begin < 5
    os.close(reader)
    finish(process)


def test_more_is_written_than_a_pipe_takes_at_once_while_output_comes() -> None:
    process = start("import sys; data = sys.stdin.buffer.read(1000000); sys.stdout.buffer.write(data[::-1]); print('!end')")
    os.set_blocking(process.stdin.fileno(), False)
    out = HeadAndTail(2000000)
    ends = UntilMark(b"!", out)
    assert read_until({process.stdout.fileno(): ends}, {}, time.monotonic() + 20, (process.stdin.fileno(), b"a" * 500000 + b"b" * 500000))
    assert (ends.line, out.text()) == ("end", "b" * 500000 + "a" * 500000)
    finish(process)


def test_somebody_who_does_not_read_cannot_hold_the_watch() -> None:
    process = start("import time; time.sleep(60)")
    os.set_blocking(process.stdin.fileno(), False)
    begin = time.monotonic()
    assert not read_until(
        {process.stdout.fileno(): UntilMark(b"!", HeadAndTail(10))}, {}, begin + 1, (process.stdin.fileno(), b"a" * 1000000)
    )
    assert time.monotonic() - begin < 5
    finish(process)


@given(st.binary(max_size=60), st.binary(max_size=60), st.lists(st.integers(min_value=1, max_value=9), max_size=40))
def test_a_mark_is_found_however_the_stream_is_cut(before: bytes, after: bytes, cuts: list[int]) -> None:
    assume(b"<mark>" not in before)
    stream = before + b"<mark> 7\n" + after
    out = HeadAndTail(1000)
    until = UntilMark(b"<mark> ", out)
    position, done = 0, False
    for size in [*cuts, len(stream)]:
        if done or position == len(stream):
            break
        done = until(stream[position : position + size])
        position += size
    assert done
    assert until.line == "7"
    assert out.text() == before.decode("utf-8", "replace")


def test_a_stream_that_ends_without_its_mark_is_whole() -> None:
    out = HeadAndTail(100)
    until = UntilMark(b"<mark>", out)
    assert [until(b"abc<ma"), until(b""), until.line] == [False, True, None]
    assert out.text() == "abc<ma"


def test_what_cannot_be_the_mark_is_handed_on_at_once() -> None:
    out = HeadAndTail(100)
    until = UntilMark(b"<mark>", out)
    until(b"Password: ")
    assert out.text() == "Password: "
    until(b"<ma")
    assert out.text() == "Password: "
    until(b"d>")
    assert out.text() == "Password: <mad>"


def unblocked_pipe() -> tuple[int, int]:
    read, write = os.pipe()
    os.set_blocking(write, False)
    return read, write


def test_a_stream_waits_for_who_takes_it_as_it_comes_and_nothing_is_lost() -> None:
    process = start("import sys; sys.stdout.buffer.write(b'x' * 1000000)")
    read, write = unblocked_pipe()
    kept, outlet = HeadAndTail(10), Outlet(write)

    def sink(data: bytes) -> None:
        kept(data)
        outlet(data)

    ends = UntilMark(b"!", sink)
    streams = {process.stdout.fileno(): ends}
    assert not read_until(streams, {}, time.monotonic() + 1, outlets={process.stdout.fileno(): outlet})
    assert kept.size < 300_000
    taken = bytearray()
    with ThreadPoolExecutor() as pool:
        reader = pool.submit(lambda: [taken.extend(block) for block in iter(lambda: os.read(read, 1 << 16), b"")])
        assert read_until(streams, {}, time.monotonic() + 20, outlets={process.stdout.fileno(): outlet})
        never, _other = os.pipe()
        write_out([outlet], never)
        os.close(write)
        reader.result()
    assert len(taken) == 1_000_000
    finish(process)


def test_a_reader_that_is_gone_keeps_nothing_waiting() -> None:
    read, write = unblocked_pipe()
    os.close(read)
    outlet = Outlet(write)
    outlet(b"text")
    outlet.write()
    outlet(b"more")
    assert not outlet.waits


def frames(data: bytes) -> list[bytes]:
    found = []
    while data:
        size, _newline, rest = data.partition(b"\n")
        found.append(rest[: int(size)])
        data = rest[int(size) :]
    return found


@given(st.lists(st.binary(min_size=1, max_size=200_000), max_size=5))
@settings(deadline=None, max_examples=30)
def test_what_is_fed_comes_in_frames_and_the_last_has_nothing(blocks: list[bytes]) -> None:
    source_read, source_write = os.pipe()
    target_read, target_write = unblocked_pipe()
    inlet, taken = Inlet(source_read, target_write), bytearray()

    def feed() -> None:
        with open(source_write, "wb") as stream:
            for block in blocks:
                stream.write(block)

    def until_the_end(data: bytes) -> bool:
        taken.extend(data)
        return taken.endswith(b"0\n") and not inlet.open and not inlet.waits

    with ThreadPoolExecutor() as pool:
        pool.submit(feed)
        assert read_until({target_read: until_the_end}, {}, time.monotonic() + 20, inlet=inlet)
    *whole, last = frames(bytes(taken))
    assert (b"".join(whole), last) == (b"".join(blocks), b"")
    assert all(whole)
    for descriptor in (source_read, target_read, target_write):
        os.close(descriptor)
