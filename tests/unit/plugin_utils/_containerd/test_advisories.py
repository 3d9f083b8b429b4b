# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which of containerd's advisories a version has."""

from __future__ import annotations

import pytest
from ansible_collections.ggen.gvisor.plugins.module_utils._base.platform import version_tuple
from ansible_collections.ggen.gvisor.plugins.plugin_utils._containerd.advisories import ADVISORIES, is_before, open_advisories, sentence


def debian(version: str) -> dict:
    return {"name": "containerd", "version": version}


def test_the_table_can_be_read():
    assert len({row.cve for row in ADVISORIES}) == len(ADVISORIES)
    for row in ADVISORIES:
        numbers = [version_tuple(text) for text in row.fixed]
        assert numbers == sorted(numbers)
        assert len({one[:2] for one in numbers}) == len(numbers)


@pytest.mark.parametrize(
    ("version", "package", "cves"),
    [
        ("1.6.11", None, 9 - 3 + 2),  # all but what 1.6.1, 1.6.2 and 1.6.6 have fixed
        ("1.6.12", None, 7),
        ("1.6.20", None, 5),
        ("1.6.20", debian("1.6.20~ds1-1"), 5),
        ("1.6.20", debian("1.6.20~ds1-1+deb12u1"), 5),
        ("1.6.20", debian("1.6.20~ds1-1+deb12u2"), 3),
        ("1.6.20", debian("1.6.20~ds1-1+deb12u3"), 2),
        ("1.6.20", debian("1.6.20~ds1-1+deb12u10"), 2),
        ("1.7.24", debian("1.7.24~ds1-5"), 5),
        ("1.7.24", debian("1.7.24~ds1-6"), 4),
        ("1.7.24", debian("1.7.24~ds1-6+deb13u1"), 2),
        ("1.7.24", debian("1.6.20~ds1-1+deb12u3"), 5),  # another version's package proves nothing
        ("1.7.29", None, 2),
        ("1.7.33", None, 0),
        ("2.0.4", None, 4),
        ("2.1.9", None, 1),  # its branch ended before the fix of CVE-2026-46680
        ("2.2.0", None, 2),
        ("2.3.2", None, 0),
        ("2.4.0", None, 0),
        ("3.0.0", None, 0),
        (None, None, 0),
        ("unknown", None, 0),
    ],
)
def test_what_a_version_lacks(version, package, cves):
    assert len(open_advisories(version, package)) == cves


@pytest.mark.parametrize(
    ("older", "newer"),
    [("1-1~rc1", "1-1"), ("1-1", "1-1+deb12u1"), ("1-1+deb12u2", "1-1+deb12u10"), ("1-1a", "1-1+"), ("1.9", "1.10"), ("1-1", "1-2")],
)
def test_the_order_of_packages(older, newer):
    assert is_before(older, newer)
    assert not is_before(newer, older)
    assert not is_before(older, older)


def test_what_is_said():
    assert sentence("2.3.2") is None
    text = sentence("1.6.20", debian("1.6.20~ds1-1+deb12u3"))
    assert text.startswith("containerd 1.6.20~ds1-1+deb12u3 is older than the fixes of CVE-2026-46680 (a large user's number")
    assert text.endswith("upgrade it, or see its changelog, as a distribution may have brought back more than is known here")
    assert sentence("2.2.0").endswith("(an image's labels run commands on the host); upgrade it")
