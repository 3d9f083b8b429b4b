# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults from which a second run does not recover yet: these tests fail."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.faults import EXAMPLE, HELD, Site, check_works, fresh_host

pytestmark = pytest.mark.host

KEY = f"{EXAMPLE}/.ggen/keys/signing.key"


def test_the_key_is_closed_after_a_run_that_was_killed_before_it(tmp_path: Path) -> None:
    """ggen makes its secret key readable for everybody; the role closes it in a task of its own, and only in the run that made it."""
    with fresh_host() as victim:
        with Site(victim, tmp_path) as site:
            assert site.reach(lambda task: HELD if task == "Close ggen's signing key" else None), site.said
        assert victim.site().rc == 0
        assert victim.ssh(f"stat -c %a {KEY}") == "600"


def test_a_reboot_while_packages_are_unpacked(tmp_path: Path) -> None:
    """apt-get then refuses everything until somebody has run dpkg --configure -a."""
    with fresh_host() as victim:
        with Site(victim, tmp_path) as site:
            assert site.reach(lambda task: r"dpkg .*--unpack" if task == "Install containerd" else None), site.said
            victim.reboot()
            assert site.finish() == 4, site.said
        done = victim.site()
        assert done.rc == 0, done.errors
        check_works(victim)
