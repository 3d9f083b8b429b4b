# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The disk is full in the middle of a run: all of /, so that nothing can be written in /tmp, /var, /etc, /usr and the homes at once.

Full are the blocks and the inodes, so that no folder can be made either, as on ext4. What Ansible itself needs room for fails too.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from support.faults import EXAMPLE, HELD, SSH, Site, Victim, check_works, fresh_host, state
from support.faults import HOSTS as ROOMY
from support.snapshot import differences, snapshot

HOSTS = ROOMY.with_name("small_disk.yml")
# /var is where the file system below / can be named. Its files are counted while others still write, so more than one try may be needed.
FILL = """
for try in 1 2 3 4 5 6 7 8; do
  df --output=used,iused -B1 /var | { read -r _; read -r size inodes; mount -o "remount,size=$size,nr_inodes=$inodes" /var; } && break
done
stat --file-system --format '%a blocks and %d inodes' /tmp
"""
MAKE_ROOM = "mount -o remount,size=1G,nr_inodes=1m /var"

# A module's own first words on such a host are Python's; what they mean is told beside them.
NO_TEMPORARY = r"No usable temporary directory found in \['/tmp'.*\n?.*Free space on the host"
NO_FOLDER = r"mkdir: cannot create directory '/home/admin/\.ansible\S*': No space left on device"


class Moment(NamedTuple):
    """When the disk becomes full, the process on the host by which that is known, and what is said then."""

    task: str
    process: str
    words: str


# One after the other on one host, each in a run that has fixed what the last one left.
ON_THE_WAY = (
    Moment("Fetch apt's lists", HELD, NO_TEMPORARY),
    Moment("Fetch apt's lists", r"/apt/methods/", r"/\S+ - \w+ \(28: No space left on device\)"),
    Moment("Install containerd", r"dpkg .*--unpack", r"'/var/lib/dpkg/\S+': No space left on device"),
    Moment("Install the release and switch to it", HELD, NO_FOLDER),
    Moment("Install the release and switch to it", r"sftp-server", r"/payload': No space left on device"),
)

# Of a host on which all works: the playbook, what it has to fix, and the moment. Nothing is different afterwards.
CONFIG = "/etc/containerd/config.toml"
AT_WORK = {
    "the configuration": (
        "site.yml",
        f"sed -i 's,/etc/containerd/runsc.toml,/tmp/runsc.toml,' {CONFIG}",
        Moment("Give containerd the runtime handler", r"containerd .*config dump", r"/etc/containerd/\S*: No space left on device"),
    ),
    "the proof": (
        "site.yml",
        "",
        Moment("Prove that a sandbox is gVisor's and that runc still runs", r"runsc-sandbox", r"/\S+: no space left on device"),
    ),
    "the image": (
        "site.yml",
        "ctr images rm --sync $(ctr images ls -q)",
        Moment("Import the image by digest", r"^ctr .*images import", r"/var/lib/containerd/\S+: no space left on device"),
    ),
    "the run, before it begins": (
        "playbooks/run.yml",
        f"rm {EXAMPLE}/generated/model.py",
        Moment("Run ggen in the sandbox", HELD, NO_TEMPORARY),
    ),
    "the run": (
        "playbooks/run.yml",
        f"rm {EXAMPLE}/generated/model.py",
        Moment("Run ggen in the sandbox", r"runsc-sandbox", r"/var/lib/ggen\.gvisor/pods/\S+: no space left on device"),
    ),
}


@pytest.fixture(scope="module")
def victim() -> Iterator[Victim]:
    """A bare host, on which the first test makes all work."""
    with fresh_host(HOSTS) as victim:
        victim.ssh("umount --lazy /tmp")  # it was a file system of its own
        yield victim


def fails(victim: Victim, moment: Moment, folder: Path, *options: str, playbook: str = "site.yml") -> list[str]:
    """Run the playbook, and have the disk full from the moment on until it has ended; it says why. Return what it leaves."""
    with Site(victim, folder, *options, playbook=playbook) as site:
        reached = site.reach(lambda task: moment.process if task == moment.task else None)
        assert reached, site.said
        held = moment.process == HELD
        before = snapshot(*SSH) if held else None
        with contextlib.nullcontext() if held else reached.process.stopped():
            assert victim.ssh(FILL) == "0 blocks and 0 inodes"
        code = site.finish()
        victim.ssh(MAKE_ROOM)
        assert code in (2, 4), site.said
        assert re.search(moment.words, site.said), site.said
    assert not held or differences(before, snapshot(*SSH)) == []
    return victim.leftovers()


def test_on_the_way(victim: Victim, tmp_path: Path) -> None:
    for moment in ON_THE_WAY:
        left = fails(victim, moment, tmp_path)
        # dpkg keeps account of what it has begun, for the next run to finish.
        assert left == [] or (moment.task == "Install containerd" and "packages" in left[0]), (moment, left)
    done = victim.site()
    assert done.rc == 0, done.errors
    assert victim.leftovers() == []
    check_works(victim)


@pytest.mark.parametrize("what", AT_WORK)
def test_at_work(what: str, victim: Victim, tmp_path: Path) -> None:
    playbook, script, moment = AT_WORK[what]
    victim.ssh(script)
    before = state(victim)
    left = fails(victim, moment, tmp_path, "-e", "containerd_gvisor_prove=true", playbook=playbook)
    assert (left, differences(before, state(victim))) == ([], [])
    done = victim.site(playbook=playbook)
    assert (done.rc, bool(done.changed)) == (0, bool(script)), (done.changed, done.errors)
    assert playbook != "site.yml" or "fleet: 1 healthy" in done.output, done.output
    check_works(victim)
