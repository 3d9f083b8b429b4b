# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A virtual machine that is reached and started as Colima's is: a kernel of its own, cgroup v2, every capability. See README.md."""

from __future__ import annotations

import argparse
import base64
import contextlib
import dataclasses
import hashlib
import json
import lzma
import os
import re
import select
import shlex
import shutil
import signal
import socket
import struct
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import yaml
from lab import (
    CACHE,
    HERE,
    HOST_KEY,
    LOCKS,
    LabError,
    bootstrap,
    build_once,
    complete,
    greets,
    locked,
    log,
    mmdebstrap,
    read,
    require_programs,
    run,
    until,
    write,
)

sys.path.insert(0, str(HERE.parent))
from support import colima
from support.colima import EMBEDDED, Guest, Mac

ARTIFACTS = HERE.parent.parent / ".artifacts" / "vm"
SOCKETS = Path("/run/ggen-gvisor-vm")  # of Ansible's connections: their paths must be short

PROGRAMS = {
    "mmdebstrap": "mmdebstrap",
    "mke2fs": "e2fsprogs",
    "qemu-img": "qemu-utils",
    "qemu-system-x86_64": "qemu-system-x86",
    "ssh-keygen": "openssh-client",
    "unshare": "util-linux",
    "/usr/share/keyrings/debian-archive-keyring.gpg": "debian-archive-keyring",
}
SUITE, SIZE = "trixie", "4G"
PACKAGES = (
    *("systemd", "systemd-sysv", "dbus", "procps", "iproute2", "kmod", "linux-image-cloud-amd64", "busybox-static", "zstd"),
    *("openssh-server", "python3", "sudo", "ca-certificates", "containerd", "runc"),
)
CONFIG = "colima.config"  # the credential that holds what the Mac says
FILES = {
    "etc/hostname": "colima\n",
    "etc/hosts": "127.0.0.1 localhost colima\n::1 localhost\n",
    "etc/machine-id": "",  # each VM's own comes with its command line
    "etc/sudoers.d/lab": "dev ALL=(ALL) NOPASSWD: ALL\n",
    # PAM's session modules wait for a logind that is masked here.
    "etc/ssh/sshd_config.d/lab.conf": "UsePAM no\nPasswordAuthentication no\n",
    # No second sshd that reads the same configuration beforehand.
    "etc/systemd/system/ssh.service.d/lab.conf": "[Service]\nExecStartPre=\n",
    "etc/containerd/config.toml": EMBEDDED,
    "etc/systemd/system/colima-start.service": f"""\
[Unit]
Description=What every colima start does: containerd's configuration is the Mac's
After=containerd.service
[Service]
Type=oneshot
RemainAfterExit=yes
ImportCredential={CONFIG}
ExecStart=/bin/sh -ec 'cmp -s %d/{CONFIG} /etc/containerd/config.toml || \\
  {{ install -m 0644 %d/{CONFIG} /etc/containerd/config.toml; systemctl restart containerd; }}'
[Install]
WantedBy=multi-user.target
""",
}
ENABLED = ("colima-start.service", "containerd.service", "ssh.service")
# All that costs seconds of emulation and that no test needs. Device nodes are the kernel's own, the network is the initrd's.
MASKED = (
    *("systemd-udevd.service", "systemd-udev-trigger.service", "systemd-udevd-control.socket", "systemd-udevd-kernel.socket"),
    *("dbus.service", "dbus.socket", "systemd-logind.service", "systemd-user-sessions.service", "systemd-networkd.service"),
    *("systemd-modules-load.service", "kmod-static-nodes.service", "modprobe@configfs.service", "modprobe@drm.service"),
    *("modprobe@fuse.service", "systemd-tmpfiles-setup-dev-early.service", "systemd-tmpfiles-setup-dev.service"),
    *("systemd-remount-fs.service", "tmp.mount", "run-lock.mount", "dev-hugepages.mount", "dev-mqueue.mount", "sys-kernel-debug.mount"),
    *("sys-kernel-tracing.mount", "sys-kernel-config.mount", "sys-fs-fuse-connections.mount", "systemd-random-seed.service"),
    *("systemd-sysctl.service", "systemd-sysusers.service", "systemd-update-done.service", "systemd-update-utmp.service"),
    *("systemd-journal-flush.service", "systemd-journal-catalog-update.service", "systemd-hwdb-update.service", "ldconfig.service"),
    *("systemd-binfmt.service", "systemd-pstore.service", "systemd-ask-password-console.path", "systemd-ask-password-wall.path"),
    *("getty.target", "getty@tty1.service", "serial-getty@ttyS0.service", "e2scrub_reap.service", "e2scrub_all.timer", "fstrim.timer"),
    *("apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "systemd-tmpfiles-clean.timer"),
)
MODULES = ("virtio_pci", "virtio_blk", "virtio_net", "virtio_rng", "qemu_fw_cfg", "ext4")
# QEMU's user network always has these addresses.
INIT = """\
#!/bin/busybox sh
set -e
b=/bin/busybox
trap '$b poweroff -f' EXIT
$b mount -t devtmpfs dev /dev
while read -r module; do $b insmod "/modules/$module"; done </modules/order
$b ip address add 10.0.2.15/24 dev eth0
$b ip link set eth0 up
$b ip route add default via 10.0.2.2
$b mount -t ext4 -o noatime /dev/vda /root
$b mount -o move /dev /root/dev
exec $b switch_root /root /sbin/init
"""
# panic=-1 with QEMU's -no-reboot: a kernel that cannot go on ends QEMU instead of spinning for ever.
# no_timer_check: beside other work an emulated timer is late, and the kernel would take it for broken and panic.
KERNEL = (
    *("console=ttyS0", "quiet", "panic=-1", "net.ifnames=0", "mitigations=off", "cryptomgr.notests", "nokaslr", "audit=0", "apparmor=0"),
    *("no_timer_check", "selinux=0", "systemd.show_status=0", "systemd.unit=multi-user.target"),
)
CPUS, MEMORY = 2, 3072  # MiB

BOOT_SECONDS, STOP_SECONDS, SSH_SECONDS = 300, 90, 60


# --- The image -------------------------------------------------------------------------------------------------------


def compressed_kernel(image: bytes) -> bytes:
    """The compressed ELF kernel in a bzImage, where the boot protocol says that it is. Raises LabError."""
    if image[0x202:0x206] != b"HdrS":
        raise LabError("the kernel is no bzImage")
    offset, length = struct.unpack_from("<II", image, 0x248)
    begin = ((image[0x1F1] or 4) + 1) * 512 + offset
    payload = image[begin : begin + length - 4]  # its size, unpacked, follows it
    if not payload.startswith(b"\x28\xb5\x2f\xfd"):
        raise LabError(f"the kernel is not compressed by zstd but begins with {payload[:6].hex()}")
    return payload


class Image:
    """What VMs start from: a kernel, an initrd and a disk that is never booted itself. Its name is a digest of its recipe."""

    def __init__(self) -> None:
        recipe = json.dumps([self._mmdebstrap(Path()), FILES, ENABLED, MASKED, MODULES, INIT, SIZE])
        self.path = CACHE / "vm" / f"{SUITE}-{hashlib.sha256(recipe.encode()).hexdigest()[:16]}"

    def ensure(self) -> None:
        """Build it unless it is there."""
        build_once(self.path, PACKAGES, self._build)

    def _mmdebstrap(self, root: Path) -> list[str]:
        # Without PAM sshd refuses accounts that are locked by an exclamation mark.
        user = 'chroot "$1" useradd --create-home --shell /bin/bash --password "*" dev'
        return mmdebstrap(SUITE, PACKAGES, root, user)

    def _build(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        root, disk = folder / "root", folder / "disk.img"
        bootstrap(self._mmdebstrap(root), SUITE)
        complete(root, FILES, ENABLED, MASKED)
        for generator in root.glob("usr/lib/systemd/system-generators/*"):  # a dozen processes, and nothing for them to find
            masked = root / "etc/systemd/system-generators" / generator.name
            masked.parent.mkdir(exist_ok=True)
            masked.symlink_to("/dev/null")
        (kernel,) = root.glob("boot/vmlinuz-*")
        # The plain kernel boots directly: emulating its own decompressor takes seconds.
        (root / "vmlinux.zst").write_bytes(compressed_kernel(kernel.read_bytes()))
        run("chroot", root, "zstd", "-q", "-d", "--rm", "/vmlinux.zst")
        (root / "vmlinux").rename(folder / "vmlinux")
        self._initrd(root, kernel.name.removeprefix("vmlinuz-")).rename(folder / "initrd")
        for folder_of_no_use in ("boot", "var/cache/apt/archives", "var/lib/apt/lists"):
            shutil.rmtree(root / folder_of_no_use)
        run("truncate", "--size", SIZE, disk)
        run("mke2fs", "-q", "-t", "ext4", "-F", "-E", "lazy_itable_init=1,root_owner=0:0", "-d", root, disk, timeout=300)
        shutil.rmtree(root)

    def _initrd(self, root: Path, version: str) -> Path:
        """An initrd of a few modules and busybox: it finds the disk and gives the network card its address."""
        tree, order = root / "initrd", []
        for name in ("bin", "dev", "modules", "root"):
            (tree / name).mkdir(parents=True)
        shutil.copy2(root / "bin/busybox", tree / "bin/busybox")
        for name in MODULES:
            said = run("chroot", root, "modprobe", "--show-depends", "--set-version", version, name).stdout
            for path in re.findall(r"^insmod (\S+)", said, re.MULTILINE):
                module = root / path.lstrip("/")
                if (plain := module.name.removesuffix(".xz")) not in order:
                    data = module.read_bytes()
                    (tree / "modules" / plain).write_bytes(lzma.decompress(data) if module.suffix == ".xz" else data)
                    order.append(plain)
        write(tree / "modules/order", "".join(f"{name}\n" for name in order))
        write(tree / "init", INIT, 0o755)
        archive = "cd /initrd && /bin/busybox find . | /bin/busybox cpio -o -H newc >/boot/initrd"
        run("chroot", root, "/bin/busybox", "sh", "-ec", archive)
        shutil.rmtree(tree)
        return root / "boot/initrd"


# --- What a VM is given ----------------------------------------------------------------------------------------------


def containerd_config(mac: Mac, profile: str) -> Path:
    """The file that `colima start` replaces containerd's configuration by: the profile's own, or the central one, made where there is none."""
    own, central = mac.profile_config(profile), mac.central_config
    if own.exists():
        return own
    if not central.exists():
        write(central, EMBEDDED)
    return central


def alias(profile: str) -> str:
    """The Host of a profile in Colima's ssh_config."""
    return "colima" if profile == "default" else f"colima-{profile}"


def guest(profile: str, port: int, key: Path) -> Guest:
    """What the stand-in for colima tells of a VM, running where there is a port."""
    size = {"cpus": CPUS, "memory": MEMORY << 20, "disk": int(SIZE.rstrip("G")) << 30}
    ssh = ("LogLevel ERROR", "ConnectTimeout 30", "ServerAliveInterval 15")
    status = "Running" if port else "Stopped"
    return Guest(profile, status, "x86_64", **size, address="127.0.0.1", port=port, user="dev", key=str(key), ssh=ssh)


def tmpfiles(files: Mapping[str, tuple[str, str]]) -> str:
    """Lines of systemd-tmpfiles that write files (path: owner, text) which only their owner can read."""
    line = "f+~ {} 0600 {} {} - {}\n"
    return "".join(line.format(path, user, user, base64.b64encode(text.encode()).decode()) for path, (user, text) in files.items())


def command(folder: Path, image: Path, credentials: Mapping[str, Path]) -> list[str]:
    """The command that starts a VM's QEMU in the background. The port on 127.0.0.1 that leads to its sshd is the kernel's choice.

    Credentials reach the guest's systemd through QEMU's firmware configuration. The guest has no way out: what tests need is in the image.
    """

    def quoted(path: Path) -> str:
        return str(path).replace(",", ",,")

    machine = hashlib.sha256(str(folder).encode()).hexdigest()[:32]
    argv = [
        *("qemu-system-x86_64", "-machine", "q35", "-accel", "tcg,thread=multi,tb-size=256", "-cpu", "max"),
        *("-smp", str(CPUS), "-m", str(MEMORY), "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"),
        *("-kernel", str(image / "vmlinux"), "-initrd", str(image / "initrd")),
        *("-append", " ".join([*KERNEL, f"systemd.machine_id={machine}"])),
        *("-drive", f"file={quoted(folder / 'disk.qcow2')},format=qcow2,if=none,id=disk,cache=unsafe"),
        *("-device", "virtio-blk-pci,drive=disk", "-device", "virtio-rng-pci"),
        *("-netdev", "user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:0-:22", "-device", "virtio-net-pci,netdev=net,romfile="),
        *("-chardev", f"file,id=console,path={quoted(folder / 'console.log')}", "-serial", "chardev:console"),
    ]
    for name, path in credentials.items():
        argv += ["-fw_cfg", f"name=opt/io.systemd.credentials/{name},file={quoted(path)}"]
    # Relative to the folder that it is started in: a socket's path must be short.
    return [*argv, "-qmp", "unix:monitor,server=on,wait=off", "-pidfile", str(folder / "qemu.pid"), "-daemonize"]


def forwarded_port(usernet: str) -> int:
    """The port that leads to the guest's sshd, from what QEMU's monitor says about its network."""
    found = re.search(r"TCP\[HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(\d+)\s+\S+\s+22\s", usernet)
    if not found:
        raise LabError(f"QEMU forwards no port to the guest's sshd:\n{usernet}")
    return int(found[1])


# --- A VM ------------------------------------------------------------------------------------------------------------


class Vm:
    """One VM. Everything of it is in its folder; what runs is its QEMU alone, found by its pid file."""

    def __init__(self, name: str = "default", artifacts: Path = ARTIFACTS) -> None:
        if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,40}", name):
            raise LabError(f"vm {name}: a name is lower case letters, digits and hyphens")
        self.name, self.folder = name, artifacts.resolve() / name
        root, home = self.folder / "mac", self.folder / "mac" / "home"
        self.mac = Mac(root, {}, home, home / ".colima", home / ".lima")  # its colima is the COLIMA_HOME
        self.ssh_config, self.inventory_file = self.mac.colima / "ssh_config", self.folder / "inventory.yml"
        self.key, self.pid_file, self.console = self.folder / "id_ed25519", self.folder / "qemu.pid", self.folder / "console.log"
        digest = hashlib.sha256(str(self.folder).encode()).hexdigest()[:16]
        self.lock, self.sockets = LOCKS / f"vm-{digest}", SOCKETS / digest

    def up(self) -> None:
        """Start it, on the disk that it has or on a new one; return when systemd has started everything."""
        require_programs(PROGRAMS)
        with locked(self.lock) as lock, self._qemu() as running:
            started = time.monotonic()
            if running is None:
                started = self._start(lock)
            self._wait(started)

    def stop(self) -> None:
        """Shut it down as `colima stop` does; the disk stays."""
        with locked(self.lock):
            self._stop()

    def reboot(self) -> None:
        """What `colima stop` and `colima start` do: another port, and containerd's configuration is the Mac's again."""
        require_programs(PROGRAMS)
        with locked(self.lock) as lock:
            if not self.folder.joinpath("disk.qcow2").exists():
                raise LabError(f"{self.name}: there is no such VM; make it with: vm.py --vm {self.name} up")
            self._stop()
            self._wait(self._start(lock))

    def down(self) -> None:
        """End it and remove all of it; right at any moment, twice, and after any crash."""
        with locked(self.lock):
            with self._qemu() as process:
                if process is not None and not ended(process, signal.SIGKILL, STOP_SECONDS):
                    raise LabError(f"{self.pid_file}: QEMU {read(self.pid_file).strip()} does not end")
            for folder in (self.folder, self.sockets):
                with contextlib.suppress(FileNotFoundError):
                    shutil.rmtree(folder)

    def status(self) -> str:
        with self._qemu() as process:
            if process is None:
                return "stopped" if self.folder.joinpath("disk.qcow2").exists() else "absent"
            return f"running on 127.0.0.1:{self._port()}"

    def inventory(self) -> dict[str, Any]:
        """The controller builds, the VM is the only sandbox host."""
        here = {"ansible_connection": "local", "ansible_python_interpreter": "{{ ansible_playbook_python }}"}
        there = {
            "ansible_host": alias(self.name),
            "ansible_ssh_common_args": shlex.join(["-F", str(self.ssh_config)]),
            # Every VM has the same names: without this one's connections would serve another.
            "ansible_control_path_dir": str(self.sockets),
            "ansible_python_interpreter": "/usr/bin/python3",
        }
        groups = {"build_hosts": {"hosts": {"localhost": here}}, "sandbox_hosts": {"hosts": {alias(self.name): there}}}
        return {"all": {"children": groups}}

    def _start(self, lock: IO[str]) -> float:
        """Start QEMU and return when that was."""
        self._prepare()
        credentials = {CONFIG: containerd_config(self.mac, self.name), "tmpfiles.extra": self.folder / "tmpfiles"}
        owners = {
            "/home/dev/.ssh/authorized_keys": ("dev", self.key.with_suffix(".pub")),
            f"/{HOST_KEY}": ("root", self.folder / "host_key"),
        }
        files = {path: (owner, read(source)) for path, (owner, source) in owners.items()}
        write(credentials["tmpfiles.extra"], "d /home/dev/.ssh 0700 dev dev\n" + tmpfiles(files), 0o600)
        # QEMU's first process holds the lock until its second one has a pid file: whoever gets the lock next finds that.
        argv = command(self.folder, (self.folder / "image").readlink(), credentials)
        started = time.monotonic()
        run("env", f"--chdir={self.folder}", *argv, timeout=60, stdin=lock)
        return started

    def _prepare(self) -> None:
        """The folder with a disk, keys, the inventory and the stand-in for colima, unless they are there."""
        disk, image = self.folder / "disk.qcow2", Image()
        self.folder.mkdir(parents=True, exist_ok=True)
        if not disk.exists():
            image.ensure()
            (self.folder / "image").unlink(missing_ok=True)
            (self.folder / "image").symlink_to(image.path)
            run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", image.path / "disk.img", disk.with_suffix(".new"))
            disk.with_suffix(".new").rename(disk)
        for key in (self.key, self.folder / "host_key"):
            if not key.with_suffix(".pub").exists():
                key.unlink(missing_ok=True)
                run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"vm {self.name}", "-f", key)
        self.sockets.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not self.mac.root.joinpath("state.json").exists():
            shutil.rmtree(self.mac.root, ignore_errors=True)
            colima.mac(self.mac.root, [guest(self.name, 0, self.key)], tools=["colima"])
            (self.mac.root / "bin" / "uname").unlink()  # this machine builds, and is no Mac
        write(self.inventory_file, yaml.safe_dump(self.inventory(), sort_keys=False))

    def _wait(self, started: float) -> None:
        """Write how the VM is reached and wait until it is up."""

        def complaint(what: str) -> str:
            return "\n  ".join([f"{what}; the end of {self.console}:", *read(self.console).splitlines()[-20:]])

        def running() -> None:
            with self._qemu() as process:
                if process is None:
                    raise LabError(complaint(f"{self.name}: QEMU has ended while the guest was starting"))

        port = self._port()
        self._tell(port)

        def answers() -> bool:
            running()
            return greets("127.0.0.1", port, seconds=5)

        until(answers, BOOT_SECONDS, lambda: complaint(f"{self.name}: no answer on port {port} after {BOOT_SECONDS} s"))
        listens, said = time.monotonic() - started, ""

        def started_up() -> bool:
            nonlocal said
            running()
            done = self.ssh("systemctl", "is-system-running", "--wait", check=False, timeout=BOOT_SECONDS)
            said = (done.stdout or done.stderr).strip()
            return said in {"running", "degraded"}

        until(started_up, BOOT_SECONDS, lambda: complaint(f"{self.name}: systemd is {said!r} after {BOOT_SECONDS} s"))
        log(f"{self.name}: 127.0.0.1:{port}: ssh after {listens:.1f} s, {said} after {time.monotonic() - started:.1f} s")

    def _stop(self) -> None:
        with self._qemu() as process:
            if process is not None:
                with contextlib.suppress(LabError):  # it may hang
                    self.ssh("systemctl", "poweroff", check=False)
                if not ended(process, None, STOP_SECONDS):
                    log(f"{self.name}: does not shut down in {STOP_SECONDS} s and is ended; what it had not written yet is lost")
                    if not ended(process, signal.SIGTERM, 10) and not ended(process, signal.SIGKILL, 10):
                        raise LabError(f"{self.pid_file}: QEMU {read(self.pid_file).strip()} does not end")
        if self.mac.root.exists():
            self._tell(0)

    def _tell(self, port: int) -> None:
        """Have the stand-in for colima, and the ssh_config, know where the guest is; 0 is nowhere."""
        self.mac.update(colima=[dataclasses.asdict(guest(self.name, port, self.key))])

    def ssh(self, *argv: str, check: bool = True, timeout: float = SSH_SECONDS) -> Any:
        """Run a command in the guest as root."""
        return run("ssh", "-F", self.ssh_config, alias(self.name), "sudo", shlex.join(argv), timeout=timeout, check=check)

    @contextlib.contextmanager
    def _qemu(self) -> Iterator[int | None]:
        """A descriptor of this VM's QEMU, or None where none runs. The number in a pid file may be anybody's by now."""
        process = None
        with contextlib.suppress(ValueError, ProcessLookupError):
            pid = int(read(self.pid_file))
            process = os.pidfd_open(pid)
            if str(self.pid_file) not in read(Path(f"/proc/{pid}/cmdline")).split("\0"):  # empty for one that has ended
                os.close(process)
                process = None
        try:
            yield process
        finally:
            if process is not None:
                os.close(process)

    def _port(self) -> int:
        """The port that QEMU forwards, as its monitor says."""
        folder = os.open(self.folder, os.O_PATH)
        try:
            with socket.socket(socket.AF_UNIX) as monitor:
                monitor.settimeout(30)
                monitor.connect(f"/proc/self/fd/{folder}/monitor")  # short enough whatever the folder's path
                stream = monitor.makefile("rw", encoding="utf-8")
                for request in (
                    {"execute": "qmp_capabilities"},
                    {"execute": "human-monitor-command", "arguments": {"command-line": "info usernet"}},
                ):
                    stream.write(json.dumps(request) + "\n")
                    stream.flush()
                    answer: dict[str, Any] = {}
                    while not answer.keys() & {"return", "error"}:
                        answer = json.loads(stream.readline() or '{"error": "QEMU has ended"}')
                if "error" in answer:
                    raise LabError(f"QEMU's monitor says {answer['error']}")
                return forwarded_port(answer["return"])
        finally:
            os.close(folder)


def ended(process: int, number: signal.Signals | None, seconds: float) -> bool:
    """Whether a process ends within `seconds`, after a signal if one is given."""
    if number is not None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(process, number)
    poll = select.poll()
    poll.register(process, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def main(argv: Sequence[str] | None = None) -> int:
    os.umask(0o022)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vm", default="default", help="its name, which is Colima's profile too (default: %(default)s)")
    parser.add_argument("--artifacts", type=Path, default=ARTIFACTS, help="the folder of the VMs' disks, keys and inventories")
    parser.add_argument("verb", choices=["up", "stop", "reboot", "down", "status", "inventory"])
    arguments = parser.parse_args(argv)
    try:
        vm = Vm(arguments.vm, arguments.artifacts)
        if arguments.verb == "status":
            print(f"{vm.name:20} {vm.status()}")
        elif arguments.verb == "inventory":
            print(vm.inventory_file.read_text(encoding="utf-8"), end="")
        else:
            getattr(vm, arguments.verb)()
    except (LabError, OSError) as error:
        log(f"vm: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
