"""Make the collection importable as ansible_collections.ggen.gvisor, from a checkout anywhere."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / ".collections"))
sys.path.insert(0, str(ROOT / "tests"))

# nohup, and a job in the background of a script, leave signals ignored, which every program inherits, and a test that sends one would wait for
# nothing. A handler is not inherited: what tests start begins as from a terminal, and pytest itself goes on ignoring them.
for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM):
    if signal.getsignal(number) == signal.SIG_IGN:
        signal.signal(number, lambda _number, _frame: None)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Under `make test` nothing is skipped: a test that cannot run there has not passed."""
    report = yield
    if report.skipped and os.environ.get("GGEN_GVISOR_STRICT"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} would be skipped: {report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr}"
    return report


def pytest_terminal_summary(terminalreporter, config) -> None:
    """Note what failed for the end of `tests/run`, which may be all that one sees of a long log."""
    path = os.environ.get("GGEN_GVISOR_FAILURES")
    if not path or hasattr(config, "workerinput"):  # xdist's workers tell the one that started them
        return
    with open(path, "a", encoding="utf-8") as stream:
        for report in (report for kind in ("failed", "error") for report in terminalreporter.getreports(kind)):
            crash = getattr(report.longrepr, "reprcrash", None)
            reason = (crash.message if crash else str(report.longrepr)).strip().partition("\n")[0]
            stream.write(f"{report.nodeid}: {reason[:300]}\n")
