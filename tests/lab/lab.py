# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test hosts on one machine: systemd, sshd, an address and package access each, in seconds. See README.md."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import fcntl
import functools
import hashlib
import ipaddress
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

import yaml

HERE = Path(__file__).resolve().parent
ARTIFACTS = HERE.parent.parent / ".artifacts" / "lab"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ggen.gvisor" / "lab"
# One place for all labs of a machine: they share its addresses, its firewall and its forwarding switch.
STATE = Path("/var/lib/ggen-gvisor-lab")
LOCKS = Path("/run/lock/ggen-gvisor-lab")
POOL = ipaddress.ip_network("10.213.0.0/16")
FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")
# A systemd takes six or more, and the kernel gives all hosts together 128: the twentieth would not boot.
WATCHERS, WATCHERS_ENOUGH = Path("/proc/sys/fs/inotify/max_user_instances"), 1024

PROGRAMS = {
    "mmdebstrap": "mmdebstrap",
    "systemd-nspawn": "systemd-container",
    "iptables": "iptables",
    "ip": "iproute2",
    "ssh-keygen": "openssh-client",
    "unshare": "util-linux",
    "/usr/share/keyrings/debian-archive-keyring.gpg": "debian-archive-keyring",
}
# Suites whose systemd refuses cgroup v1 get the cgroup2 tree even on machines where it has no controllers.
UNIFIED = {"bookworm": False, "trixie": False, "forky": True}
BASE_PACKAGES = (
    *("systemd", "systemd-sysv", "dbus", "procps", "iproute2"),
    *("openssh-server", "python3", "sudo", "ca-certificates"),
)
BASE_FILES = {
    # systemd-nspawn mounts the cgroup v1 controllers read-only; containers need to make groups in them.
    "etc/systemd/system/lab-cgroups.service": """\
[Unit]
Description=Make the cgroup v1 controllers writable
DefaultDependencies=no
Before=sysinit.target
ConditionPathExists=!/sys/fs/cgroup/cgroup.controllers
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -ec 'for group in /sys/fs/cgroup/*/; do mount -o remount,bind,rw "$group"; done'
[Install]
WantedBy=sysinit.target
""",
    "etc/dpkg/dpkg.cfg.d/lab": "force-unsafe-io\n",
    "etc/sudoers.d/lab": "admin ALL=(ALL) NOPASSWD: ALL\n",
}
HOST_KEY = "etc/ssh/ssh_host_ed25519_key"
# The first fails without modules of its own kernel; the timers would take apt's locks while a test runs.
MASKED_UNITS = ("systemd-modules-load.service", "apt-daily.timer", "apt-daily-upgrade.timer")

BUILD_SECONDS, BOOT_SECONDS, STOP_SECONDS = 900, 60, 20
LOCK_SECONDS = BUILD_SECONDS + BOOT_SECONDS


class LabError(Exception):
    """Something the caller must fix; the message says what."""


def log(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def run(
    *argv: str | Path, timeout: float = 30, check: bool = True, stdin: int | IO[str] = subprocess.DEVNULL
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end without a shell; the LabError quotes what it said."""
    command, environment = shlex.join(map(str, argv)), {**os.environ, "LC_ALL": "C"}
    try:
        done = subprocess.run(
            argv,
            capture_output=True,
            text=True,
            timeout=timeout,
            stdin=stdin,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise LabError(f"{command}: not done after {timeout:.0f} s") from error
    if check and done.returncode:
        raise LabError(f"{command}: exit code {done.returncode}\n{done.stdout}{done.stderr}".rstrip())
    return done


def until(ready: Callable[[], Any], seconds: float, complaint: Callable[[], str]) -> None:
    """Ask `ready` again, 20 to 200 ms apart, until it is true; LabError after `seconds`."""
    deadline, pause = time.monotonic() + seconds, 0.02
    while not ready():
        if time.monotonic() > deadline:
            raise LabError(complaint())
        time.sleep(pause)
        pause = min(0.2, pause * 1.5)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[IO[str]]:
    """Hold a lock; a child that inherits the file holds it too. Lock files stay: removing them would race."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:

        def acquired() -> bool:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            return False

        until(acquired, LOCK_SECONDS, lambda: f"{path}: still locked by another run after {LOCK_SECONDS} s")
        yield file


def read(path: Path) -> str:
    """The text of a file that may vanish at any moment."""
    with contextlib.suppress(OSError):
        return path.read_text(encoding="utf-8", errors="replace")
    return ""


def write(path: Path, text: str, mode: int = 0o644) -> None:
    """Replace a file atomically, making its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


# --- What is asked for -----------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Host:
    """One host of a hosts file; README.md explains the keys."""

    name: str
    suite: str
    groups: Sequence[str] = ()
    packages: Sequence[str] = ()
    vars: dict[str, Any] = dataclasses.field(default_factory=dict)
    disk: str = ""
    boot: bool = True

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,40}[a-z0-9])?", self.name):
            raise LabError(f"host {self.name}: a name is lower case letters, digits and inner hyphens")
        if self.suite not in UNIFIED:
            raise LabError(f"host {self.name}: suite {self.suite!r} is none of {', '.join(UNIFIED)}")


@dataclasses.dataclass(frozen=True)
class Plan:
    """A hosts file: its hosts, and inventory groups besides the lab's (build hosts, for example)."""

    hosts: Sequence[Host]
    inventory: dict[str, Any]

    @classmethod
    def parse(cls, data: Any) -> Plan:
        if not isinstance(data, dict) or data.keys() - {"defaults", "hosts", "inventory"} or not data.get("hosts"):
            raise LabError("a hosts file is a mapping of hosts, and if need be defaults and inventory")
        try:
            hosts = [Host(name, **{**data.get("defaults", {}), **own}) for name, own in data["hosts"].items()]
        except TypeError as error:
            raise LabError(f"hosts: {error}") from error
        return cls(hosts, data.get("inventory", {}))

    @classmethod
    def load(cls, path: Path) -> Plan:
        try:
            return cls.parse(yaml.safe_load(path.read_text(encoding="utf-8")))
        except (OSError, yaml.YAMLError, LabError) as error:
            raise LabError(f"{path}: {error}") from error

    def select(self, names: Sequence[str]) -> list[Host]:
        """The hosts of these names; without names all that boot by themselves."""
        known = {host.name: host for host in self.hosts}
        if unknown := set(names) - known.keys():
            raise LabError(f"no such host: {', '.join(sorted(unknown))} (there are {', '.join(known)})")
        return [known[name] for name in names] or [host for host in self.hosts if host.boot]


# --- Base root file systems ------------------------------------------------------------------------------------------


@functools.cache
def apt_mirror(kind: str) -> str:
    """Where this machine's own apt gets the archive `debian` or `debian-security` from. Raises LabError without one."""
    folder = Path("/etc/apt/sources.list.d")
    sources = [folder.with_suffix(""), *sorted(folder.glob("*.list")), *sorted(folder.glob("*.sources"))]
    mirror = mirror_in("\n".join(map(read, sources)), kind)
    if mirror is None:
        raise LabError(f"apt's configuration names no archive {kind}; the lab runs on Debian machines with a source of it")
    return mirror


def mirror_in(sources: str, kind: str) -> str | None:
    """The first archive of a kind in sources of either format."""
    found = re.search(rf"^(?:deb\s|URIs:).*?(https?://\S+/{kind})/?(?:\s|$)", sources, re.MULTILINE)
    return found[1] if found else None


@functools.cache
def apt_options() -> list[str]:
    """What this machine's apt needs to reach its archives (proxies, validity, ...), without its hooks."""
    unwanted = re.compile(r'""|::(IndexTargets|Changelogs|CompressionTypes|cdrom)::')
    dump = run("apt-config", "dump", "--format", '%f "%v";%n').stdout.splitlines()
    return [line for line in dump if line.startswith("Acquire::") and not unwanted.search(line)]


def build_once(path: Path, contents: Iterable[str], build: Callable[[Path], None]) -> None:
    """Let `build` fill a folder that becomes `path` unless it is there; two labs that need it at once build it once."""
    with locked(path.with_name(f".{path.name}.lock")):
        if path.is_dir():
            return
        log(f"building {path.name}: {' '.join(contents)}")
        started, unfinished = time.monotonic(), path.with_name(f".{path.name}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        build(unfinished)
        unfinished.rename(path)
        log(f"built {path.name} in {time.monotonic() - started:.0f} s")


def archives(suite: str) -> Path:
    """Where all builds of a suite keep the packages that they have fetched."""
    return CACHE / "archives" / suite


def mmdebstrap(suite: str, packages: Iterable[str], root: Path, *hooks: str) -> list[str]:
    """The command that makes a root file system with these packages; `hooks` are commands that end the work on it."""
    inside, kept = '"$1/var/cache/apt/archives"', shlex.quote(str(archives(suite)))
    link = 'mkdir -p "$1/var/cache/apt/archives"; find {} -name "*.deb" -exec cp --link --no-clobber -t {} {{}} +'
    security = f"{suite}-security"
    return [
        *("mmdebstrap", "--quiet", "--mode=root", "--variant=minbase", f"--include={','.join(packages)}"),
        *(f"--aptopt={option}" for option in apt_options()),
        # The package lists stay, so that a fresh host can install at once; downloads are shared by all builds.
        *("--skip=cleanup/apt/lists,essential/unlink", f"--setup-hook={link.format(kept, inside)}"),
        f"--customize-hook={link.format(inside, kept)}",
        '--customize-hook=rm "$1"/etc/ssh/ssh_host_*',  # every host brings its own
        *(f"--customize-hook={hook}" for hook in hooks),
        *(suite, str(root)),
        *(f"deb {apt_mirror('debian')} {suite} main" for suite in (suite, f"{suite}-updates")),
        f"deb {apt_mirror('debian-security')} {security} main",
    ]


def bootstrap(command: Sequence[str], suite: str) -> None:
    """Run mmdebstrap's command in namespaces of its own and bound to our life: a killed lab.py takes the build and its mounts with it."""
    archives(suite).mkdir(parents=True, exist_ok=True)
    alone = ("setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
    run(*alone, *command, timeout=BUILD_SECONDS)


def complete(root: Path, files: Mapping[str, str], enabled: Sequence[str], masked: Sequence[str]) -> None:
    """Put files into a root file system and set its units."""
    for name, text in files.items():
        write(root / name, text)
    run("systemctl", f"--root={root}", "enable", *enabled)
    run("systemctl", f"--root={root}", "mask", *masked)


class Base:
    """A root file system that hosts share; its name is a digest of all that goes into it."""

    def __init__(self, suite: str, packages: Iterable[str]) -> None:
        self.suite = suite
        self.packages = sorted({*BASE_PACKAGES, *packages})
        self.archives = archives(suite)
        recipe = json.dumps([self._mmdebstrap(Path()), BASE_FILES, MASKED_UNITS])
        self.path = CACHE / "base" / f"{suite}-{hashlib.sha256(recipe.encode()).hexdigest()[:16]}"

    def ensure(self) -> None:
        """Build it unless it is there."""
        build_once(self.path, self.packages, self._build)

    def _build(self, root: Path) -> None:
        bootstrap(self._mmdebstrap(root), self.suite)
        complete(root, BASE_FILES, ["lab-cgroups.service"], MASKED_UNITS)

    def _mmdebstrap(self, root: Path) -> list[str]:
        return mmdebstrap(self.suite, self.packages, root, 'chroot "$1" useradd --create-home --shell /bin/bash admin')


# --- One host --------------------------------------------------------------------------------------------------------


def cgroups(name: str) -> list[str]:
    """One group of this name in every cgroup hierarchy, below ours: the limits that hold for us hold for it."""
    groups = []
    for line in read(Path("/proc/self/cgroup")).splitlines():
        _number, controllers, path = line.split(":", 2)
        root = Path("/sys/fs/cgroup", controllers.removeprefix("name="))
        if not controllers:
            root = next(place for place in (root / "unified", root) if place.is_dir())
            if read(root / "cgroup.controllers").strip():
                path = "/"  # below a group that has processes, cgroup v2 would leave it without controllers
        groups.append(str(root / path.strip("/") / name))
    return groups


def make_cgroup(group: Path) -> None:
    group.mkdir(exist_ok=True)
    if group.parent.joinpath("cgroup.clone_children").exists():  # v1, where an empty cpuset takes no process
        for setting in group.glob("cpuset.[cm][pe][um]s"):
            setting.write_text(read(group.parent / setting.name), encoding="ascii")


def processes(record: dict[str, Any]) -> set[int]:
    """All processes of a host: those in its cgroups and below, whatever became of their parents."""
    folders = (folder for group in record["cgroups"] for folder, _folders, _files in os.walk(group))
    return {int(pid) for folder in folders for pid in read(Path(folder, "cgroup.procs")).split()}


def remove_host(record: dict[str, Any]) -> None:
    """Take back everything a host may have made; right at any moment, twice, and after any crash."""
    directory = Path(record["directory"])

    def ended() -> bool:
        for pid in processes(record):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not processes(record)

    def ungrouped() -> bool:
        for group in record["cgroups"]:
            for folder, _folders, _files in os.walk(group, topdown=False):
                with contextlib.suppress(OSError):
                    os.rmdir(folder)
        return not any(os.path.isdir(group) for group in record["cgroups"])

    until(ended, STOP_SECONDS, lambda: f"{directory.name}: processes {processes(record)} do not end")
    until(ungrouped, STOP_SECONDS, lambda: f"{directory.name}: cgroups {record['cgroups']} cannot be removed")
    run("ip", "link", "delete", record["veth"], check=False)  # the kernel does it too, a moment later
    for package in directory.glob("disk/var/cache/apt/archives/*.deb"):
        with contextlib.suppress(FileExistsError):
            os.link(package, Path(record["archives"], package.name))
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(directory)


# --- All labs of this machine ----------------------------------------------------------------------------------------


@contextlib.contextmanager
def records() -> Iterator[dict[str, Any]]:
    """{"ip_forward", "watchers": as found, "labs": {number: lab}}, for one process at a time; saved unless the caller fails."""
    with locked(LOCKS / "records"):
        path = STATE / "labs.json"
        data = json.loads(read(path) or '{"labs": {}}')
        yield data
        if data["labs"]:
            write(path, json.dumps(data, indent=1), 0o600)
        else:
            shutil.rmtree(STATE, ignore_errors=True)


def free_number(taken: Iterable[str], routes: Iterable[str]) -> int:
    """The first third octet that no lab has and that no route of this machine overlaps."""
    known = [ipaddress.ip_network(route, strict=False) for route in routes if route != "default"]
    for number in set(range(1, 255)) - set(map(int, taken)):
        if not any(subnet(number).overlaps(route) for route in known):
            return number
    raise LabError(f"no free /24 left in {POOL}")


def subnet(number: int) -> ipaddress.IPv4Network:
    return ipaddress.IPv4Network((int(POOL.network_address) + 256 * number, 24))


def network(lab: dict[str, Any], present: bool) -> None:
    """What a lab changes on this machine besides its hosts: one route, three firewall rules."""
    net = lab["subnet"]
    # Hosts that are not there must be unreachable at once instead of looked for on the machine's own network.
    run("ip", "route", "replace" if present else "delete", "unreachable", net, check=present)
    for table, chain, *rule in (
        ("nat", "POSTROUTING", "-s", net, "!", "-d", net, "-j", "MASQUERADE"),
        ("filter", "FORWARD", "-s", net, "-j", "ACCEPT"),  # also where forwarding is denied by default
        ("filter", "FORWARD", "-d", net, "-j", "ACCEPT"),
    ):
        iptables = functools.partial(run, "iptables", "-w", "10", "-t", table)
        there = not iptables("-C", chain, *rule, check=False).returncode
        if there != present:
            iptables("-I" if present else "-D", chain, *rule)


# --- A lab -----------------------------------------------------------------------------------------------------------


class Lab:
    """A named set of hosts; its name is unique among those that share an artifacts folder."""

    def __init__(self, name: str, artifacts: Path = ARTIFACTS) -> None:
        if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,40}", name):
            raise LabError(f"lab {name}: a name is lower case letters, digits and hyphens")
        self.name, self.artifacts = name, artifacts.resolve() / name
        self.ssh_config, self.key = self.artifacts / "ssh_config", self.artifacts / "id_ed25519"
        self.lock = LOCKS / hashlib.sha256(str(self.artifacts).encode()).hexdigest()[:16]

    def find(self, data: dict[str, Any]) -> dict[str, Any] | None:
        return next((lab for lab in data["labs"].values() if lab["artifacts"] == str(self.artifacts)), None)

    def record(self) -> dict[str, Any]:
        """What the machine's records say about this lab; empty if it is down."""
        with records() as data:
            return self.find(data) or {"hosts": {}}

    def up(self, plan: Plan, names: Sequence[str] = ()) -> None:
        """Boot the hosts that do not run; return when all of them answer."""
        require_programs(PROGRAMS)
        with locked(self.lock) as lock:
            known = self.record()["hosts"]
            start = [host for host in plan.select(names) if host.name not in known or not processes(known[host.name])]
            bases = {base.path: base for base in (Base(host.suite, host.packages) for host in start)}
            with ThreadPoolExecutor() as pool:
                list(pool.map(Base.ensure, bases.values()))
            for host in start:
                if host.name in known:  # it was killed
                    remove_host(known[host.name])
            lab = self._claim([host for host in plan.hosts if host in start or host.name not in known])
            FORWARDING.write_text("1", encoding="ascii")
            if int(read(WATCHERS) or WATCHERS_ENOUGH) < WATCHERS_ENOUGH:
                WATCHERS.write_text(str(WATCHERS_ENOUGH), encoding="ascii")
            network(lab, present=True)
            self._write_access(plan, lab)
            for host in start:
                self._seed(host, lab)
            self._write_known_hosts(lab)
            with ThreadPoolExecutor(max(1, len(start))) as pool:
                boots = {host.name: pool.submit(self._boot, host, lab, lock) for host in start}
        if failed := {name: boot.exception() for name, boot in boots.items() if boot.exception()}:
            raise LabError("\n".join(f"{name}: {error}" for name, error in failed.items()))

    def down(self, names: Sequence[str] = ()) -> None:
        """End these hosts, or the whole lab."""
        with locked(self.lock):
            lab = self.record()
            if unknown := set(names) - lab["hosts"].keys():
                raise LabError(f"no such host: {', '.join(sorted(unknown))}")
            with ThreadPoolExecutor() as pool:
                list(pool.map(remove_host, [host for name, host in lab["hosts"].items() if not names or name in names]))
            if names:
                return
            shutil.rmtree(self.artifacts, ignore_errors=True)
            if lab["hosts"]:
                # Ansible's persistent connections would outlive the hosts by a minute.
                for path in Path(lab["sockets"]).glob("*"):
                    run("ssh", "-O", "exit", "-o", f"ControlPath={path}", "lab", check=False)
                shutil.rmtree(lab["sockets"], ignore_errors=True)
                shutil.rmtree(lab["directory"], ignore_errors=True)
                network(lab, present=False)
                with records() as data:
                    del data["labs"][str(lab["number"])]
                    if not data["labs"]:
                        FORWARDING.write_text(data["ip_forward"], encoding="ascii")
                        WATCHERS.write_text(data.get("watchers", "128"), encoding="ascii")

    def _claim(self, hosts: Iterable[Host]) -> dict[str, Any]:
        """Record all that booting these hosts will make, before any of it exists."""
        with records() as data:
            data.setdefault("ip_forward", read(FORWARDING).strip())
            data.setdefault("watchers", read(WATCHERS).strip())
            lab = self.find(data)
            if not lab:
                routes = json.loads(run("ip", "-json", "-4", "route").stdout or "[]")
                number = free_number(data["labs"], [route["dst"] for route in routes])
                lab = data["labs"][str(number)] = {
                    "number": number,
                    "artifacts": str(self.artifacts),
                    "subnet": str(subnet(number)),
                    "directory": str(CACHE / "labs" / str(number)),  # where base and packages can be linked from
                    "sockets": str(STATE / str(number)),  # the path of a socket must be short
                    "hosts": {},
                }
            prefix, net = f"gl{lab['number']}", ipaddress.ip_network(lab["subnet"])
            for host in hosts:
                used = {record["index"] for record in lab["hosts"].values()}
                index = lab["hosts"].get(host.name, {}).get("index") or min(set(range(2, 255)) - used)
                base = Base(host.suite, host.packages)
                lab["hosts"][host.name] = {
                    "index": index,
                    "suite": host.suite,
                    "machine": f"{prefix}-{host.name}",
                    "veth": f"{prefix}h{index}",
                    "address": str(net[index]),
                    "gateway": str(net[1]),
                    "directory": f"{lab['directory']}/{host.name}",
                    "cgroups": cgroups(f"{prefix}-{host.name}"),
                    "base": str(base.path),
                    "archives": str(base.archives),
                }
            return lab

    def inventory(self, plan: Plan, lab: dict[str, Any]) -> dict[str, Any]:
        """The Ansible inventory: all hosts with what it takes to reach them, then the groups of the hosts file."""
        addresses = {name: record["address"] for name, record in lab["hosts"].items()}
        hosts = {host.name: {"ansible_host": addresses[host.name], **host.vars} for host in plan.hosts}
        how = {
            "ansible_user": "root",
            "ansible_python_interpreter": "/usr/bin/python3",
            "ansible_ssh_private_key_file": str(self.key),
            "ansible_ssh_common_args": shlex.join(["-F", str(self.ssh_config)]),
            # Not shared with other labs: a later host of the same address must not meet an older connection.
            "ansible_control_path_dir": lab["sockets"],
        }
        groups: dict[str, Any] = {"lab_hosts": {"hosts": hosts, "vars": how}, **plan.inventory}
        for host in plan.hosts:
            for name in host.groups:
                group = groups.get(name) or {}
                groups[name] = {**group, "hosts": {**group.get("hosts", {}), host.name: {}}}
        return {"all": {"children": groups}}

    def _write_access(self, plan: Plan, lab: dict[str, Any]) -> None:
        """The throwaway key, how ssh reaches the hosts, and the inventory."""
        Path(lab["sockets"]).mkdir(parents=True, exist_ok=True, mode=0o700)
        self.artifacts.mkdir(parents=True, exist_ok=True)
        if not self.key.with_suffix(".pub").exists():
            self.key.unlink(missing_ok=True)
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"lab {self.name}", "-f", self.key)
        aliases = "".join(f"Host {name}\n  HostName {record['address']}\n" for name, record in lab["hosts"].items())
        everywhere = {
            "User": "root",
            "IdentityFile": f'"{self.key}"',
            "IdentitiesOnly": "yes",
            "UserKnownHostsFile": f'"{self.artifacts / "known_hosts"}"',
            "StrictHostKeyChecking": "yes",
            "ConnectTimeout": "15",
            "ServerAliveInterval": "5",
            "LogLevel": "ERROR",
        }
        settings = "".join(f"  {key} {value}\n" for key, value in everywhere.items())
        write(self.ssh_config, f"{aliases}Host *\n{settings}")
        write(self.artifacts / "inventory.yml", yaml.safe_dump(self.inventory(plan, lab), sort_keys=False))

    def _write_known_hosts(self, lab: dict[str, Any]) -> None:
        keys = {r["address"]: read(Path(r["directory"], "seed", HOST_KEY + ".pub")) for r in lab["hosts"].values()}
        write(self.artifacts / "known_hosts", "".join(f"{address} {key}" for address, key in keys.items() if key))

    def _seed(self, host: Host, lab: dict[str, Any]) -> None:
        """What makes a host of a base: the files that lie over it."""
        seed = Path(lab["hosts"][host.name]["directory"], "seed")
        names = "".join(f"{record['address']} {name}\n" for name, record in lab["hosts"].items())
        files = {
            "etc/hosts": f"127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n{names}",
            "etc/hostname": f"{host.name}\n",
            "etc/machine-id": f"{uuid.uuid4().hex}\n",
            "etc/resolv.conf": resolver(),
            "etc/ssl/certs/ca-certificates.crt": read(Path("/etc/ssl/certs/ca-certificates.crt")),  # whom we trust
        }
        for name, text in files.items():
            write(seed / name, text)
        (seed / HOST_KEY).parent.mkdir()
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", host.name, "-f", seed / HOST_KEY)
        for home, owner in ((seed / "root", 0), (seed / "home/admin", 1000)):
            write(home / ".ssh/authorized_keys", read(self.key.with_suffix(".pub")))
            home.chmod(0o700)
            for path in (home, *home.rglob("*")):
                os.chown(path, owner, owner)

    def _boot(self, host: Host, lab: dict[str, Any], lock: IO[str]) -> None:
        record, started = lab["hosts"][host.name], time.monotonic()
        directory = Path(record["directory"])
        for folder in ("root", "disk"):
            (directory / folder).mkdir()
        for group in record["cgroups"]:
            make_cgroup(Path(group))
        keys = ("directory", "base", "archives", "machine", "veth", "address", "gateway")
        passed = {key: record[key] for key in keys}
        passed |= {"host": host.name, "disk": host.disk, "unified": "1" if UNIFIED[host.suite] else ""}
        passed |= {"cgroups": " ".join(record["cgroups"])}
        console = directory / "console.log"
        with console.open("wb") as output:
            process = subprocess.Popen(
                [HERE / "boot.sh"],
                env={"PATH": os.environ["PATH"], "LC_ALL": "C", **{f"LAB_{k.upper()}": v for k, v in passed.items()}},
                stdin=lock,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

        def complaint(what: str) -> str:
            return "\n  ".join([f"{what}; the end of {console}:", *read(console).splitlines()[-20:]])

        def answers() -> bool:
            if process.poll() is not None:
                raise LabError(complaint(f"ended with exit code {process.returncode} while starting"))
            return greets(record["address"])

        until(answers, BOOT_SECONDS, lambda: complaint(f"no answer on port 22 after {BOOT_SECONDS} s"))
        listens = time.monotonic() - started
        said = ""

        def started_up() -> bool:
            nonlocal said  # a busy machine may be too slow for one connection
            command = ("ssh", "-F", self.ssh_config, record["address"], "systemctl", "is-system-running", "--wait")
            done = run(*command, timeout=BOOT_SECONDS, check=False)
            said = (done.stdout or done.stderr).strip()
            return said in {"running", "degraded"}

        until(started_up, BOOT_SECONDS, lambda: complaint(f"systemd is {said!r} after {BOOT_SECONDS} s"))
        times = f"ssh after {listens:.1f} s, {said} after {time.monotonic() - started:.1f} s"
        log(f"{host.name} ({host.suite}) {record['address']}: {times}")


def greets(address: str, port: int = 22, seconds: float = 1) -> bool:
    """Whether an sshd answers there."""
    with contextlib.suppress(OSError), socket.create_connection((address, port), timeout=seconds) as peer:
        return peer.recv(4) == b"SSH-"
    return False


def resolver() -> str:
    """A resolv.conf that is of use in another network namespace: no local stub."""
    texts = map(read, (Path("/run/systemd/resolve/resolv.conf"), Path("/etc/resolv.conf")))
    found = next((text for text in texts if re.search(r"^nameserver (?!127\.|::1)", text, re.MULTILINE)), None)
    if found is None:
        raise LabError("/etc/resolv.conf names no server that the hosts could reach")
    return found


def require_programs(programs: Mapping[str, str]) -> None:
    if os.geteuid():
        raise LabError("run it as root: it makes root file systems, namespaces, addresses and firewall rules")
    missing = {package for need, package in programs.items() if not (shutil.which(need) or os.path.exists(need))}
    if missing:
        raise LabError(f"missing programs: apt-get install {' '.join(sorted(missing))}")


def main(argv: Sequence[str] | None = None) -> int:
    os.umask(0o022)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lab", default="default", help="its name (default: %(default)s)")
    parser.add_argument("--hosts", type=Path, default=HERE / "hosts.yml", help="the file that declares its hosts")
    parser.add_argument("--artifacts", type=Path, default=ARTIFACTS, help="the folder of the labs' inventories and keys")
    parser.add_argument("--all", action="store_true", help="with down: every lab of this machine")
    parser.add_argument("verb", choices=["up", "down", "status", "inventory"])
    parser.add_argument("names", nargs="*", metavar="HOST", help="with up or down: only these")
    arguments = parser.parse_args(argv)
    try:
        lab = Lab(arguments.lab, arguments.artifacts)
        if arguments.verb == "up":
            lab.up(Plan.load(arguments.hosts), arguments.names)
        elif arguments.verb == "down" and arguments.all:
            with records() as data:
                everywhere = [Path(other["artifacts"]) for other in data["labs"].values()]
            for place in everywhere:
                Lab(place.name, place.parent).down()
        elif arguments.verb == "down":
            lab.down(arguments.names)
        elif arguments.verb == "status":
            for name, record in lab.record()["hosts"].items():
                state = "up" if processes(record) else "down"
                print(f"{name:20} {record['suite']:10} {record['address']:14} {state}")
        else:
            print(lab.artifacts.joinpath("inventory.yml").read_text(encoding="utf-8"), end="")
    except (LabError, OSError) as error:
        log(f"lab: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
