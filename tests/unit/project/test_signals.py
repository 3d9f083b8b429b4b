# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What tests start obeys signals, however the tests themselves were started."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys

import pytest

NUMBERS = (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM)


def test_a_program_that_a_test_starts_ignores_no_signal_that_tests_send() -> None:
    status = subprocess.run(["cat", "/proc/self/status"], capture_output=True, text=True, check=True).stdout
    ignored = int(re.findall(r"(?m)^SigIgn:\t(\S+)$", status)[0], 16)
    assert [number.name for number in NUMBERS if ignored & 1 << (number - 1)] == []


@pytest.mark.parametrize("workers", ["0", "1"])
def test_that_holds_where_the_tests_were_started_by_nohup_or_in_the_background(workers: str) -> None:
    alone = f"{__file__}::{test_a_program_that_a_test_starts_ignores_no_signal_that_tests_send.__name__}"
    argv = [sys.executable, "-m", "pytest", "-q", "-n", workers, "-p", "no:cacheprovider", alone]
    names = " ".join(number.name[3:] for number in NUMBERS)
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "GGEN_GVISOR_FAILURES"))}
    done = subprocess.run(["sh", "-c", f"trap '' {names}; exec \"$@\"", "sh", *argv], capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout
