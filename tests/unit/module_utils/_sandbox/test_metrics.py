# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The counts of runs: right, as Prometheus' text format has them whatever images are called, and bounded."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.metrics import (
    BUCKETS,
    FILE,
    MAX_IMAGES,
    OTHERS,
    Samples,
    add,
    count,
    parse,
    render,
)
from hypothesis import given
from hypothesis import strategies as st
from support.prometheus import read

RECORD = {"image": "docker.io/library/ggen:1", "digest": "sha256:aa", "ended": "exit", "rc": 0, "duration": 0.75, "limits_hit": []}
HOSTILE = ['a"} 1\nforged{image="b', "\\", '\\"', "a\\nb", "\x1b[2J", "ü\u2028", "\ud800", "\udcff", "\r", "#", " ", "", "\t"]


def told(*records: dict) -> dict:
    samples: Samples = {}
    for record in records:
        add(samples, {**RECORD, **record})
    return read(render(samples))


def test_what_is_counted() -> None:
    found = told(
        {}, {"rc": 3, "duration": 7}, {"ended": "timeout", "rc": None, "duration": 60}, {"faults": ["x"], "limits_hit": ["memory"]}
    )
    image = ("image", RECORD["image"])
    assert found["ggen_gvisor_runs_total"] == {(image,): 4}
    assert found["ggen_gvisor_failures_total"] == {(image, ("cause", cause)): 1 for cause in ("rc", "timeout", "faults")}
    assert found["ggen_gvisor_limits_hit_total"] == {(image, ("limit", "memory")): 1}
    assert found["ggen_gvisor_image_info"] == {(image, ("digest", "sha256:aa")): 1}
    buckets = {dict(labels)["le"]: value for labels, value in found["ggen_gvisor_run_duration_seconds_bucket"].items()}
    assert list(buckets) == [*BUCKETS, "+Inf"]
    assert (buckets["0.5"], buckets["1"], buckets["10"], buckets["60"], buckets["+Inf"]) == (0, 2, 3, 4, 4)
    assert found["ggen_gvisor_run_duration_seconds_sum"] == {(image,): 68.5}
    assert found["ggen_gvisor_run_duration_seconds_count"] == {(image,): 4}


def test_a_run_whose_end_nobody_saw_has_no_duration() -> None:
    found = told({"ended": "killed", "rc": None, "duration": None})
    assert [name for name in found if "duration" in name] == []
    assert list(found["ggen_gvisor_failures_total"]) == [(("image", RECORD["image"]), ("cause", "killed"))]


def test_an_image_has_one_digest() -> None:
    found = told({}, {"image": "other"}, {"digest": "sha256:bb"})
    assert sorted(dict(labels)["digest"] for labels in found["ggen_gvisor_image_info"]) == ["sha256:aa", "sha256:bb"]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_of_images(name: str) -> None:
    samples: Samples = {}
    for image in (name, "b", name):
        add(samples, {**RECORD, "image": image, "digest": name})
    data = render(samples)
    assert parse(data) == samples
    assert sorted(read(data)["ggen_gvisor_runs_total"].values()) == [1, 2]
    assert all(byte >= 32 or byte == 10 for byte in data)


@given(st.lists(st.text(), max_size=5))
def test_any_names_of_images(names: list[str]) -> None:
    samples: Samples = {}
    for name in names:
        add(samples, {**RECORD, "image": name})
    assert parse(render(samples)) == samples
    assert sum(read(render(samples)).get("ggen_gvisor_runs_total", {}).values()) == len(names)


def test_many_images_are_counted_together() -> None:
    found = told(*({"image": f"i{number}"} for number in range(MAX_IMAGES + 5)), {"image": "i0"})
    runs = {dict(labels)["image"]: value for labels, value in found["ggen_gvisor_runs_total"].items()}
    assert (len(runs), runs[OTHERS], runs["i0"]) == (MAX_IMAGES + 1, 5, 2)
    assert len(found["ggen_gvisor_image_info"]) == MAX_IMAGES


@pytest.mark.parametrize(
    "data", [b"x", b"x\n", b'a{b="c"} 1\n', b'a{image="c"} -1\n', b'a{image="\\c"} 1\n', b'a{image="c"} 1', b"\xff\n", b"\n"]
)
def test_what_runs_do_not_write(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"no count of runs|decode"):
        parse(data)


def test_where_nothing_can_be_written_a_warning_tells(tmp_path: Path) -> None:
    """Whatever is there, nothing is raised."""
    (tmp_path / "file").touch()
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    cases = {
        "file": "no folder that root alone",
        "open": "no folder that root alone",
        "absent": "does not exist",
        "file/x": "is not a folder",
    }
    for name, why in cases.items():
        (said,) = count(str(tmp_path / name), RECORD)
        assert said.startswith("the run is not among the metrics: ")
        assert why in said
    assert sorted(os.listdir(tmp_path)) == ["file", "open"]
    assert os.listdir(tmp_path / "open") == []


@pytest.mark.skipif(os.geteuid() != 0, reason="the folder is root's")
def test_the_file_keeps_the_counts(tmp_path: Path) -> None:
    previous = os.umask(0o077)
    try:
        assert count(str(tmp_path), RECORD) == []
    finally:
        os.umask(previous)
    (tmp_path / f".{FILE}.abc").touch()  # of one that was killed
    assert count(str(tmp_path), RECORD) == []
    assert os.listdir(tmp_path) == [FILE]
    assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o644
    assert list(read((tmp_path / FILE).read_bytes())["ggen_gvisor_runs_total"].values()) == [2]
    (tmp_path / FILE).write_text("gone")
    assert count(str(tmp_path), RECORD) == [f"{tmp_path}/{FILE} was not as runs write it, and its counts begin again"]
    assert list(read((tmp_path / FILE).read_bytes())["ggen_gvisor_runs_total"].values()) == [1]
