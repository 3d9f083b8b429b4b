# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What Colima and Lima say of their machines. The inventory that asks them: tests/integration/test_colima_inventory.py."""

from __future__ import annotations

import pytest
from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.plugin_utils._fleet import colima


@pytest.mark.parametrize(
    ("env", "there", "found"),
    [
        ({"COLIMA_HOME": "/c"}, ["/c", "/h/.colima"], "/c"),
        ({"COLIMA_HOME": "/c"}, ["/h/.colima"], "/h/.colima"),
        ({"XDG_CONFIG_HOME": "/x"}, ["/h/.colima"], "/h/.colima"),
        ({"XDG_CONFIG_HOME": "/x"}, [], "/x/colima"),
        ({}, ["/h/.config/colima"], "/h/.config/colima"),
        ({}, [], "/h/.colima"),
    ],
)
def test_colima_s_own_rules_for_its_home(env, there, found):
    assert colima.colima_home(env, "/h", there.__contains__) == found


def test_machines_of_colima_that_lima_lists_as_well_are_listed_once():
    entry = {"name": "colima", "status": "Running", "hostname": "lima-colima"}
    guests = [
        colima.colima_guest(
            {"name": "default", "status": "Running", "runtime": "containerd"},
            colima.Colima({}, "/h", "/h/.colima", ""),
            {},
            {},
        ),
        colima.lima_guest(entry, home="/h", lima="/h/.lima"),
        colima.lima_guest({**entry, "name": "colima-x", "hostname": "lima-colima-x"}, home="/h", lima="/h/.lima"),
    ]
    assert [guest.name for guest in colima.choose(guests, stopped=False)] == ["colima", "lima-colima-x"]


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("colima version 0.10.3\ngit commit: 0123\n\nruntime: containerd\n", "0.10.3"),
        ("colima version v0.8.1\n", "0.8.1"),
        ("colima version HEAD-1a2b3c4\n", ""),
        ("", ""),
    ],
)
def test_versions(text, version):
    assert colima.parse_version(text) == version


def test_long_output_is_cut_in_errors():
    with pytest.raises(GvisorError) as caught:
        colima.parse_list("lima", "x" * 5000)
    assert len(caught.value.message) < 700
