"""The virtual machine itself: it ends whatever happens, and leaves nothing."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "tests" / "lab"))
import vm as vm_module


class Handle:
    """One VM, driven through the command line as everybody drives it."""

    def __init__(self, folder: Path) -> None:
        self.vm = vm_module.Vm("default", folder)
        self.argv = [sys.executable, str(ROOT / "tests/lab/vm.py"), "--artifacts", str(folder)]

    def run(self, verb: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*self.argv, verb], capture_output=True, text=True, check=False, timeout=1800)

    def processes(self) -> list[str]:
        """Every process that names this VM's folder."""
        commands = (vm_module.read(path).replace("\0", " ") for path in Path("/proc").glob("[0-9]*/cmdline"))
        return [command for command in commands if str(self.vm.folder) in command]


@pytest.fixture
def handle(tmp_path: Path) -> Iterator[Handle]:
    """A VM that is not there yet; in the end nothing of it may be."""
    made = Handle(tmp_path)
    vm_module.Image().ensure()
    yield made
    down = made.run("down")
    assert down.returncode == 0, down.stderr
    assert made.processes() == []
    assert not made.vm.folder.exists()
    assert not made.vm.sockets.exists()
    assert made.run("down").returncode == 0  # also right when there is nothing to do
    assert made.run("status").stdout.split() == ["default", "absent"]


MOMENTS: dict[str, Callable[[Handle], object]] = {
    "the disk is there": lambda made: made.vm.folder.joinpath("disk.qcow2").exists(),
    "QEMU starts": lambda made: [command for command in made.processes() if command.startswith("qemu-system")],
    "QEMU has a pid file": lambda made: vm_module.read(made.vm.pid_file),
    "the kernel runs": lambda made: vm_module.read(made.vm.console),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_up_leaves_nothing_that_down_does_not_find(handle: Handle, moment: str) -> None:
    with subprocess.Popen([*handle.argv, "up"], stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 120
        while not MOMENTS[moment](handle):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.kill()


def test_a_guest_that_cannot_start_ends_and_up_says_why(handle: Handle) -> None:
    handle.vm._prepare()
    disk = handle.vm.folder / "disk.qcow2"
    vm_module.run("qemu-img", "create", "-q", "-f", "qcow2", disk, "1M")  # no file system
    done = handle.run("up")
    assert done.returncode == 1
    assert "QEMU has ended while the guest was starting; the end of" in done.stderr
    assert "mounting /dev/vda on /root failed" in done.stderr
    assert handle.processes() == []
    assert handle.run("status").stdout.split() == ["default", "stopped"]


def test_there_is_no_reboot_of_what_is_not_there(handle: Handle) -> None:
    done = handle.run("reboot")
    assert done.returncode == 1
    assert "there is no such VM; make it with: vm.py --vm default up" in done.stderr
