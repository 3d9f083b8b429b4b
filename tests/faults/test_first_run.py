# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What goes wrong while site.yml makes a bare host work: killed at every step, cut off, rebooted, two of it at once, a daemon that dies.

One host for each way to die, from run to run: what a run left behind is what the next one meets, at once and without a pause. In the end the host
is the same as one on which nothing went wrong.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.faults import HELD, Process, Site, Victim, check_converged, check_works, fresh_host, state

# A task has begun on the host: the shell that sudo starts for it, each with a word of its own.
BEGUN = r"^/bin/sh -c echo BECOME-SUCCESS"
# Tasks that take their time, and what the host does in their middle.
MIDDLES = {
    "Fetch apt's lists": r"/apt/methods/",
    "Install containerd": r"dpkg .*--unpack",
    "Install the release and switch to it": r"sftp-server",
    "Give containerd the runtime handler": r"systemctl restart",
    "Prove that a sandbox is gVisor's and that runc still runs": r"runsc-sandbox",
    "Import the image by digest": r"ctr .*images import",
    "Run ggen in the sandbox": r"runsc-sandbox",
}
# One of each kind; which ones there are is for the run to say.
KINDS = {*MIDDLES, "Look at the host", "Record it, so that uninstall takes back just that", "Put the example on the host"}
# With what else the host goes down.
REBOOTED = ("Install the release and switch to it", "Import the image by digest", "Run ggen in the sandbox")
# What is killed in the middle of which task. containerd before ctr, which leaves it something that need not be sent again.
INGESTED = "/var/lib/containerd/io.containerd.content.v1.content/ingest"
IMPORT_FAILED = r"ctr images import .* failed on /run/containerd/containerd\.sock"
DEATHS = (
    # The new daemon: the one that was there before the task is not looked for.
    ("Give containerd the runtime handler", r"^/usr/bin/containerd$", r"^/usr/bin/containerd$", r"does not answer on .*|Rolled back"),
    ("Import the image by digest", r"^ctr .*images import", r"^/usr/bin/containerd$", IMPORT_FAILED),
    ("Import the image by digest", r"^ctr .*images import", r"^ctr .*images import", IMPORT_FAILED),
)
# Otherwise there is no proof where the run before, without its controller, has completed the change.
PROVE = ("-e", '{"containerd_gvisor_prove": true}')


@pytest.fixture(scope="module")
def undisturbed() -> dict:
    """What a host has on which nothing went wrong."""
    with fresh_host() as victim:
        assert victim.site().rc == 0
        assert victim.leftovers() == []
        return state(victim)


def faults(victim: Victim, folder: Path, fault: Callable[[Site], None], pattern: Callable[[str], str | None]) -> list[str]:
    """Run site.yml again and again, each time with the fault at the first task that had none, until a run comes through; return the tasks.

    ``pattern`` tells by the task's name by which process on the host its moment is known.
    """
    had: list[str] = []

    while True:
        begin = time.monotonic()
        with Site(victim, folder, *PROVE) as site:
            moment = site.reach(lambda task: None if task in had else pattern(task))
            if moment is None:
                assert site.process.returncode == 0, site.said
                return had
            had.append(moment.task)
            fault(site)
        print(f"{time.monotonic() - begin:5.1f} s to {had[-1]}: {moment.process.text[:80]}")


def test_killed_at_every_task(undisturbed: dict, tmp_path: Path) -> None:
    """Tasks that are short as they begin on the host, the others in their middle."""
    with fresh_host() as victim:
        had = faults(victim, tmp_path, Site.kill, lambda task: MIDDLES.get(task, BEGUN))
        assert KINDS - set(had) == set()
        check_converged(victim, undisturbed)
        assert os.listdir(tmp_path) == ["ansible"]


def cut(site: Site) -> None:
    """Cut the connection; the controller must notice by itself and say so."""
    assert site.cut() == 4, site.said
    assert "unreachable=1" in site.said
    assert "victim unreachable at" in site.said, site.said


def test_cut_off_in_the_middle(undisturbed: dict, tmp_path: Path) -> None:
    with fresh_host() as victim:
        assert set(faults(victim, tmp_path, cut, MIDDLES.get)) == set(MIDDLES)
        check_converged(victim, undisturbed)
        assert [path for path in tmp_path.rglob("*") if not path.is_dir()] == []


def test_the_host_reboots_in_the_middle(undisturbed: dict, tmp_path: Path) -> None:
    """At once, as when the power fails."""
    moments = {task: MIDDLES[task] for task in REBOOTED}

    def fails(site: Site) -> None:
        site.victim.reboot()
        assert site.finish() == 4, site.said
        assert "victim unreachable at" in site.said

    with fresh_host() as victim:
        assert set(faults(victim, tmp_path, fails, moments.get)) == set(moments)
        check_converged(victim, undisturbed)


def test_two_controllers_at_once(undisturbed: dict, tmp_path: Path) -> None:
    with fresh_host() as victim, Site(victim, tmp_path / "1") as one, Site(victim, tmp_path / "2") as other:
        for site in (one, other):
            site.reach(lambda _task: HELD)
        with ThreadPoolExecutor() as pool:
            codes = list(pool.map(Site.finish, (one, other)))
        for site, code in zip((one, other), codes, strict=True):
            # The one that was second to write containerd's configuration may have been first to read it.
            refused = "was changed by someone else between reading and writing: nothing was written. Run again."
            assert code == 0 or (code == 2 and refused in site.said), site.said
        assert 0 in codes
        check_converged(victim, undisturbed)


def receives(daemon: Process, client: Process) -> bool:
    """Whether containerd is in the middle of the large blob that ctr sends. At any other time ctr waits for a daemon to come back, and is none the worse."""
    os.stat(f"/proc/{client.pid}")  # it has not ended
    with contextlib.suppress(FileNotFoundError):  # it has all of that blob
        return any(path.stat().st_size > 1 << 20 for path in Path(f"/proc/{daemon.pid}/root{INGESTED}").glob("*/data"))
    return False


def test_programs_die_on_the_host(undisturbed: dict, tmp_path: Path) -> None:
    """containerd, the daemon, as it starts with its new configuration and while it imports the image; ctr, its client."""
    with fresh_host() as victim:
        for task, pattern, program, words in DEATHS:
            with Site(victim, tmp_path) as site:
                moment = site.reach(lambda name, task=task, pattern=pattern: pattern if name == task else None)
                assert moment, site.said
                if program == pattern:
                    moment.process.kill()
                else:
                    (daemon,) = victim.processes(program)
                    while not receives(daemon, moment.process):
                        pass
                    with moment.process.stopped():
                        daemon.kill()
                code = site.finish()
                assert (code, bool(re.search(words, site.said))) == (2, True), site.said
        check_converged(victim, undisturbed)


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
