# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A hostile job (attacker/attacker.c) in the sandbox, as the workspace's owner: nothing that it attempts succeeds, and nothing of it stays."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import oci
from support.containerd import Daemon
from support.runs import RUNTIMES, Host, gvisor_daemon

SOURCE = Path(__file__).parent / "attacker" / "attacker.c"
IMAGE = "localhost/attacker:1"
OWNER = 1000
# What the program attempts; the kernel of the sandbox lets its own hostname and namespaces be, which is no way out.
ATTEMPTS = SOURCE.read_text().count("ATTEMPT(") - 1


@contextlib.contextmanager
def public_folder() -> Iterator[Path]:
    """A folder that everybody may enter; pytest's own are root's alone."""
    with tempfile.TemporaryDirectory(prefix="isolation.") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture(scope="module")
def attacker() -> Iterator[Path]:
    with public_folder() as folder:
        subprocess.run(["gcc", "-O1", "-static", "-Wall", "-Wextra", "-Werror", "-o", folder / "attacker", SOURCE], check=True)
        yield folder / "attacker"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory, attacker: Path) -> Iterator[Daemon]:
    layer = oci.tar(
        {
            "bin/busybox": (Path(oci.BUSYBOX).read_bytes(), 0o755),
            "bin/attacker": (attacker.read_bytes(), 0o755),
            "usr/local/bin/catatonit": (Path(oci.CATATONIT).read_bytes(), 0o755),
        }
    )
    with gvisor_daemon(tmp_path_factory.mktemp("containerd"), layer, IMAGE) as running:
        yield running


class Surroundings:
    """What a job would like to reach: a secret, somebody else's workspace, a server on the host, sockets; and its own workspace."""

    def __init__(self, root: Path) -> None:
        self.secret, self.other, self.workspace = root / "secret", root / "other", root / "workspace"
        self.secret.write_text("secret\n")
        self.secret.chmod(0o644)  # a job must be kept from what everybody on the host may read
        self.other.mkdir()
        self.workspace.mkdir()
        os.chown(self.workspace, OWNER, OWNER)
        self.server = socket.create_server(("0.0.0.0", 0))  # noqa: S104 - reachable by whatever way there may be
        self.name = f"s{self.server.getsockname()[1]}"
        self.inside, self.abstract = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
        here = os.getcwd()
        os.chdir(self.workspace)  # the path of a socket must be short
        self.inside.bind(self.name)
        os.chdir(here)
        (self.workspace / self.name).chmod(0o777)
        self.abstract.bind(f"\0{self.name}")
        self.inside.listen()
        self.abstract.listen()

    @property
    def arguments(self) -> list[str]:
        addresses = subprocess.run(["hostname", "--all-ip-addresses"], capture_output=True, text=True, check=True).stdout.split()
        address = next((one for one in addresses if ":" not in one), "127.0.0.1")
        return [str(self.secret), str(self.other), address, str(self.server.getsockname()[1]), self.name]

    def close(self) -> None:
        for one in (self.server, self.inside, self.abstract):
            one.close()


@pytest.fixture
def surroundings() -> Iterator[Surroundings]:
    with public_folder() as folder:
        there = Surroundings(folder)
        yield there
        there.close()


def results(stdout: str) -> dict[str, str]:
    return {name: outcome for outcome, name in (line.split() for line in stdout.splitlines())}


def test_the_attempts_succeed_outside(attacker: Path, surroundings: Surroundings) -> None:
    """Otherwise nothing would follow from their failure in the sandbox."""
    done = subprocess.run(
        [attacker, *surroundings.arguments], capture_output=True, text=True, check=True, user=OWNER, group=OWNER, extra_groups=[]
    )
    got = {name for name, outcome in results(done.stdout).items() if outcome == "got"}
    assert {"file_of_the_host", "another_workspace", "network_of_the_host", "loopback_of_the_host", "abstract_socket"} <= got


def test_nothing_that_a_hostile_job_attempts_succeeds(daemon: Daemon, surroundings: Surroundings, tmp_path: Path) -> None:
    host = Host(daemon, tmp_path, RUNTIMES["runsc"])
    before = {path: path.read_bytes() for path in (surroundings.secret,)}
    result = host.run(["/bin/attacker", *surroundings.arguments], surroundings.workspace, image=IMAGE)
    assert result["rc"] == 0, result
    outcomes = results(result["stdout"])
    assert len(outcomes) == ATTEMPTS
    assert [name for name, outcome in outcomes.items() if outcome != "denied"] == []
    assert host.left() == {}
    assert {path: path.read_bytes() for path in before} == before
    assert list(surroundings.other.iterdir()) == []
    stays = {
        path.name: (path.lstat().st_uid, path.lstat().st_mode & 0o6000)
        for path in surroundings.workspace.iterdir()
        if path.name != surroundings.name
    }
    assert set(stays) == {"lead-out", "mine", "mine-too"}
    assert set(stays.values()) == {(OWNER, 0)}


def test_the_link_that_it_left_behind_is_reported_and_not_followed(daemon: Daemon, surroundings: Surroundings, tmp_path: Path) -> None:
    host = Host(daemon, tmp_path, RUNTIMES["runsc"])
    result = host.run(["/bin/attacker", *surroundings.arguments], surroundings.workspace, image=IMAGE)
    (link,) = [item for item in result["changed_files"] if item["path"] == "lead-out"]
    assert link["kind"] == "symlink"
    assert "secret" not in str(result.get("diff"))


def test_a_job_of_root_s_has_nothing_of_the_shell_that_runs_it(daemon: Daemon, surroundings: Surroundings, tmp_path: Path) -> None:
    """The pod's shell may become any user; a job in a workspace of root's is root too, and must not come to that."""
    os.chown(surroundings.workspace, 0, 0)
    others = surroundings.workspace / "others"
    others.mkdir(mode=0o700)
    os.chown(others, OWNER, OWNER)
    order = "/.ggen.gvisor/setpriv --reuid=1000 --clear-groups touch /workspace/others/planted"
    tries = [
        "grep -E '^Cap(Inh|Prm|Eff|Bnd|Amb)' /proc/self/status",
        *(f"timeout 2 sh -c 'echo {order} > /proc/1/fd/{number}'" for number in (0, 1, 10)),
        "timeout 2 dd if=/proc/1/mem of=/dev/null bs=1 count=1 skip=4096",
        "ls /workspace/others",
    ]
    result = Host(daemon, tmp_path, RUNTIMES["runsc"]).run(
        ["/bin/busybox", "sh", "-c", "; ".join(tries)], surroundings.workspace, image=IMAGE, fail_on_rc=False, user="0:0"
    )
    held = [line.split()[1] for line in result["stdout"].splitlines() if line.startswith("Cap")]
    assert len(held) >= 4
    assert set(held) == {"0000000000000000"}
    assert list(others.iterdir()) == []
    assert "'/workspace/others': Permission denied" in result["stderr"]
