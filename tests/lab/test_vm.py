"""The VM's pure parts: the kernel in a bzImage, QEMU's command line, what Colima's files say. A VM that boots: tests/vm/."""

from __future__ import annotations

import base64
import os
import shlex
import struct
import subprocess
import sys
from pathlib import Path

import lab as lab_module
import pytest
import vm as vm_module

ZSTD = b"\x28\xb5\x2f\xfd"


def bzimage(payload: bytes, setup_sectors: int) -> bytes:
    """A kernel as the boot protocol lays it out, with nothing around the payload; 0 sectors stand for 4."""
    header = bytearray(((setup_sectors or 4) + 1) * 512)
    header[0x1F1] = setup_sectors
    header[0x202:0x206] = b"HdrS"
    struct.pack_into("<II", header, 0x248, 8, len(payload) + 4)
    return bytes(header) + b"\xcc" * 8 + payload + b"size" + b"\xcc" * 8


@pytest.mark.parametrize("sectors", [0, 1, 39])
def test_the_kernel_is_found_in_a_bzimage(sectors: int) -> None:
    assert vm_module.compressed_kernel(bzimage(ZSTD + b"kernel", sectors)) == ZSTD + b"kernel"


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (bytes(4096), "no bzImage"),
        (b"", "no bzImage"),
        (bzimage(b"\xfd7zXZ\0...", 4), "not compressed by zstd but begins with fd377a585a00"),
    ],
)
def test_another_kernel_is_an_error(image: bytes, message: str) -> None:
    with pytest.raises(lab_module.LabError, match=message):
        vm_module.compressed_kernel(image)


def values(argv: list[str], option: str) -> list[str]:
    return [argv[index + 1] for index, word in enumerate(argv) if word == option]


def test_qemu_s_command_line() -> None:
    folder, image = Path("/a,b/vm"), Path("/cache/image")
    argv = vm_module.command(folder, image, {"colima.config": folder / "config.toml"})
    (accel,) = values(argv, "-accel")
    assert accel.startswith("tcg,")  # kvm hangs on the machines that this runs on
    (disk,) = values(argv, "-drive")
    assert "file=/a,,b/vm/disk.qcow2," in disk  # a comma in a path is no end of it
    assert not [word for word in argv if "disk.img" in word], "the image itself is never booted"
    (network,) = values(argv, "-netdev")
    assert "hostfwd=tcp:127.0.0.1:0-:22" in network  # this machine only, and a port that the kernel chooses
    assert "restrict=on" in network
    assert values(argv, "-fw_cfg") == ["name=opt/io.systemd.credentials/colima.config,file=/a,,b/vm/config.toml"]
    assert values(argv, "-pidfile") == ["/a,b/vm/qemu.pid"]
    assert {"panic=-1", "no_timer_check"} <= set(values(argv, "-append")[0].split())
    assert "-no-reboot" in argv  # with panic=-1: a guest that cannot start ends


def test_each_vm_has_a_machine_id_of_its_own_that_stays() -> None:
    def machine(folder: str) -> str:
        (append,) = values(vm_module.command(Path(folder), Path("/image"), {}), "-append")
        return next(word for word in append.split() if word.startswith("systemd.machine_id="))

    assert machine("/one") == machine("/one") != machine("/two")
    assert len(machine("/one").partition("=")[2]) == 32


def test_the_forwarded_port_is_read_from_the_monitor() -> None:
    usernet = (
        "Hub -1 (net):\r\n  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\r\n"
        "  TCP[ESTABLISHED]  17       127.0.0.1 50000       10.0.2.15    22     0     0\r\n"
        "  TCP[HOST_FORWARD]  11       127.0.0.1 45341       10.0.2.15    22     0     0\r\n"
    )
    assert vm_module.forwarded_port(usernet) == 45341
    with pytest.raises(lab_module.LabError, match="QEMU forwards no port"):
        vm_module.forwarded_port("Hub -1 (net):\r\n")


@pytest.fixture
def vm(tmp_path: Path) -> vm_module.Vm:
    """A VM's folder with the Mac's side in it; nothing runs."""
    made = vm_module.Vm("default", tmp_path)
    vm_module.colima.mac(made.mac.root, [vm_module.guest("default", 0, made.key)], tools=["colima"])
    return made


def test_the_ssh_config_has_running_profiles_only(vm: vm_module.Vm) -> None:
    assert "Host" not in vm.ssh_config.read_text()
    vm._tell(4711)
    said = subprocess.run(["ssh", "-G", "-F", vm.ssh_config, "colima"], capture_output=True, text=True, check=True).stdout.splitlines()
    assert {"hostname 127.0.0.1", "port 4711", "user dev", f"identityfile {vm.key}"} <= set(said)
    vm._tell(0)
    assert "Host" not in vm.ssh_config.read_text()


def test_colima_tells_of_the_vm(vm: vm_module.Vm) -> None:
    program = [vm.mac.root / "bin/colima", "list", "-j"]
    vm._tell(4711)
    said = lab_module.json.loads(subprocess.run(program, capture_output=True, text=True, check=True).stdout)
    assert said["status"] == "Running"
    assert said["memory"] == vm_module.MEMORY * 1024 * 1024
    assert said["disk"] == 4 * 1024**3
    vm._tell(0)
    assert '"Stopped"' in subprocess.run(program, capture_output=True, text=True, check=True).stdout


def test_containerd_s_configuration_is_the_mac_s(vm: vm_module.Vm) -> None:
    central, own = vm.mac.central_config, vm.mac.profile_config("default")
    assert vm_module.containerd_config(vm.mac, "default") == central
    assert central.read_text() == "[grpc]\ngid = 1000\n"
    lab_module.write(central, "central")
    assert vm_module.containerd_config(vm.mac, "default") == central
    assert central.read_text() == "central"
    lab_module.write(own, "mine")
    assert vm_module.containerd_config(vm.mac, "default") == own
    assert vm_module.containerd_config(vm.mac, "other") == central


def test_files_reach_the_guest_by_systemd_tmpfiles(tmp_path: Path) -> None:
    line = vm_module.tmpfiles({"/home/dev/key": ("dev", "two words\n%h\n")})
    kind, path, mode, user, group, age, argument = line.split()
    assert (kind, path, mode, user, group, age) == ("f+~", "/home/dev/key", "0600", "dev", "dev", "-")
    assert base64.b64decode(argument) == b"two words\n%h\n"


def test_the_inventory(vm: vm_module.Vm, tmp_path: Path) -> None:
    groups = vm.inventory()["all"]["children"]
    assert list(groups["build_hosts"]["hosts"]) == ["localhost"]
    (host,) = groups["sandbox_hosts"]["hosts"].values()
    assert host["ansible_host"] == "colima"
    assert shlex.split(host["ansible_ssh_common_args"]) == ["-F", str(vm.ssh_config)]
    other = vm_module.Vm("default", tmp_path / "elsewhere").inventory()["all"]["children"]["sandbox_hosts"]["hosts"]["colima"]
    assert other["ansible_control_path_dir"] != host["ansible_control_path_dir"], "connections of another VM would serve this one"
    assert vm_module.alias("work") == "colima-work"


@pytest.mark.parametrize("name", ["", "Vm", "a/b", "../x"])
def test_a_vm_s_name_is_a_plain_word(name: str) -> None:
    with pytest.raises(lab_module.LabError, match="a name is"):
        vm_module.Vm(name)


def test_a_pid_file_of_an_earlier_boot_names_nobody(vm: vm_module.Vm) -> None:
    lab_module.write(vm.pid_file, f"{os.getpid()}\n")  # a process that is no QEMU of this folder
    with vm._qemu() as process:
        assert process is None
    assert vm.status() == "absent"
    vm.down()
    assert not vm.folder.exists()
    vm.down()  # also right when there is nothing to do


def test_a_process_of_this_folder_is_found_and_ended(vm: vm_module.Vm) -> None:
    lab_module.write(vm.pid_file, "")
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", str(vm.pid_file)]) as stand_in:
        lab_module.write(vm.pid_file, f"{stand_in.pid}\n")
        with vm._qemu() as process:
            assert process is not None
        vm.down()
        assert stand_in.wait(5) == -9
