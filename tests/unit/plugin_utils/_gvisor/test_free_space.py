"""A full disk is named before anything is written."""

from __future__ import annotations

import os

import pytest
from ansible_collections.ggen.gvisor.plugins.module_utils._containerd.host import space
from ansible_collections.ggen.gvisor.plugins.plugin_utils._gvisor.free_space import missing_space

NEEDS = [
    {"folder": "/usr/bin", "mb": 150, "what": "containerd"},
    {"folder": "/usr/local/lib/gvisor", "mb": 120, "what": "a gVisor release"},
]


def disk(usr: int, gvisor: int, *, devices: tuple[int, int]) -> dict:
    return {"/usr/bin": {"free_mb": usr, "device": devices[0]}, "/usr/local/lib/gvisor": {"free_mb": gvisor, "device": devices[1]}}


@pytest.mark.parametrize(
    ("space_", "names"),
    [
        (disk(270, 270, devices=(1, 1)), []),
        (disk(269, 269, devices=(1, 1)), ["/usr/bin and /usr/local/lib/gvisor have 269 MB free where 270 MB are needed"]),
        (disk(150, 120, devices=(1, 2)), []),
        (disk(149, 120, devices=(1, 2)), ["/usr/bin has 149 MB free where 150 MB are needed (containerd 150 MB)"]),
        (disk(0, 0, devices=(1, 2)), ["/usr/bin has 0 MB", "/usr/local/lib/gvisor has 0 MB"]),
        ({}, []),
    ],
)
def test_file_systems_that_are_too_full_are_named(space_, names):
    found = missing_space(space_, NEEDS)
    assert len(found) == len(names)
    assert all(name in sentence and "disk is full" in sentence and "df -h" in sentence for name, sentence in zip(names, found))


def test_the_space_of_a_folder_that_is_not_there_is_that_of_the_one_above(tmp_path):
    missing = str(tmp_path / "a" / "b")
    status = os.statvfs(tmp_path)
    found = space([missing, "/proc"])
    assert found[missing]["device"] == tmp_path.stat().st_dev != found["/proc"]["device"]
    assert abs(found[missing]["free_mb"] - status.f_bavail * status.f_frsize // 1000000) < 500
    assert found["/proc"]["free_mb"] == 0
