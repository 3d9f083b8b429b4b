# Copyright (c) 2026, the ggen.gvisor authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""What a host has: each function reads one part of it and describes absence instead of failing."""

from __future__ import annotations

import json
import os
import re
import shutil
from typing import Any, Dict, Iterable, List, Optional

from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._base.files import sha256_file
from ansible_collections.ggen.gvisor.plugins.module_utils._base.process import SEARCH_PATH, run
from ansible_collections.ggen.gvisor.plugins.module_utils._base.processes import listener_pid
from ansible_collections.ggen.gvisor.plugins.module_utils._containerd.ctr import Ctr

GO_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
# By bit, from include/uapi/linux/capability.h.
CAPABILITIES = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW "
    "IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD "
    "LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
).split()
NAMES = ("runsc", "containerd-shim-runsc-v1")
MARK = "(ggen.gvisor)"  # in the first line of an options file of ours


def _read(path: str) -> Optional[str]:
    """Return the file's text, or None where it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read()
    except OSError:
        return None


def version_number(text: str) -> Optional[str]:
    """Return the first x.y.z in ``text`` without packaging suffixes: "containerd … 1.6.20~ds1" → "1.6.20"."""
    found = re.search(r"\d+\.\d+\.\d+", text)
    return found.group() if found else None


def _output(*argv: str) -> str:
    """Return what a program prints, or nothing where it cannot be run: a damaged one is described by its digest."""
    try:
        return run(argv).stdout
    except GvisorError:
        return ""


def _candidate(package: str) -> Optional[str]:
    """Return the version of ``package`` that apt would install, or None where apt is missing or its lists are empty."""
    if not shutil.which("apt-cache", path=SEARCH_PATH):
        return None
    # Without the two options apt would leave 20 MB and more of caches behind, and this only looks.
    policy = _output("apt-cache", "-o", "Dir::Cache::pkgcache=", "-o", "Dir::Cache::srcpkgcache=", "policy", package)
    found = re.search(r"^\s*Candidate:\s*(\S+)", policy, re.MULTILINE)
    return version_number(found.group(1)) if found else None


def containerd(address: str, package: str = "containerd") -> Dict[str, Any]:
    """Describe containerd: the program or the ``package`` that would bring it, the daemon behind ``address`` and its plugins."""
    path = shutil.which("containerd", path=SEARCH_PATH)
    state: Dict[str, Any] = {
        "installed": path is not None,
        "path": path,
        "version": version_number(_output(path, "--version")) if path else None,
        "candidate": None if path else _candidate(package),
        "pid": listener_pid(address),
        "address": address,
        "running": False,
        "server_version": None,
        "plugins": {},
    }
    if path and state["pid"]:
        ctr = Ctr(address)
        try:
            state["plugins"] = {f"{row['type']}.{row['id']}": row["status"] for row in ctr.plugins()}
            state["server_version"] = ctr.server_version()
            state["running"] = True
        except GvisorError:
            pass  # it listens and does not answer: described as not running
    return state


def read_config(path: str, program: Optional[str]) -> Dict[str, Any]:
    """Return the configuration file as it is and as containerd understands it (``dump``), unparsed.

    TOML is parsed on the controller: Python has no TOML reader before 3.11 and hosts need Python alone.
    """
    exists = os.path.exists(path)
    dump = run([program, "--config", path, "config", "dump"]) if program and exists else None
    if program and not exists:
        dump = run([program, "config", "default"])  # without a file containerd runs on its defaults
    return {
        "path": path,
        "exists": exists,
        "sha256": sha256_file(path) if exists else None,
        "text": _read(path) if exists else "",
        "dump": dump.stdout if dump and dump.rc == 0 else "",
        "error": dump.stderr.strip() if dump and dump.rc != 0 else None,
    }


def _ledger(path: str) -> Dict[str, Any]:
    """Return the ledger; one that is missing or damaged names nothing."""
    try:
        return dict(json.loads(_read(path) or "{}"))
    except (ValueError, TypeError):
        return {}


def releases_in_use(releases: str) -> List[str]:
    """Return the releases that some process runs a file of: a sandbox keeps the one that it started from."""
    root = f"{os.path.realpath(releases)}/"
    installed = {}
    for folder, _folders, names in os.walk(root):
        for name in names:
            status = os.lstat(os.path.join(folder, name))
            installed[status.st_dev, status.st_ino] = os.path.join(folder, name)
    found = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            status, path = os.stat(f"/proc/{pid}/exe"), os.readlink(f"/proc/{pid}/exe")
        except OSError:
            continue  # it has ended, or is the kernel's own
        # By identity where a sandbox's own mounts make the path read otherwise, by path where the file was replaced since.
        path = installed.get((status.st_dev, status.st_ino), path)
        if path.startswith(root):
            found.add(path[len(root) :].partition("/")[0])
    return sorted(found)


def gvisor(releases: str, bin_folder: str, runsc_config: str) -> Dict[str, Any]:
    """Describe the installed gVisor: releases with their files, the links in use, the ledger, and what of gVisor is somebody else's."""
    folders = sorted(entry.name for entry in os.scandir(releases) if entry.is_dir()) if os.path.isdir(releases) else []
    files = {
        folder: {
            entry.name: {"sha256": sha256_file(entry.path), "mode": f"{entry.stat().st_mode & 0o7777:04o}"}
            for entry in os.scandir(os.path.join(releases, folder))
            if entry.is_file()
        }
        for folder in folders
    }
    places = {name: os.path.join(bin_folder, name) for name in NAMES}
    links = {name: os.path.realpath(path) for name, path in places.items() if os.path.lexists(path)}
    foreign = [places[name] for name, target in links.items() if not target.startswith(f"{os.path.realpath(releases)}/")]
    options = _read(runsc_config)
    if options is not None and MARK not in options.partition("\n")[0]:
        foreign.append(runsc_config)
    runsc = links.get("runsc")
    return {
        "release": os.path.basename(os.path.dirname(runsc)) if runsc and places["runsc"] not in foreign else None,
        "links": links,
        "files": files,
        "in_use": releases_in_use(releases),
        "foreign": foreign,
        "runsc_version": _output(runsc, "--version").partition("\n")[0] if runsc else None,
        "runsc_config": options,
        "runsc_config_sha256": sha256_file(runsc_config) if options is not None else None,
        "ledger": _ledger(os.path.join(releases, "ledger.json")),
    }


def images(address: str) -> Dict[str, Dict[str, str]]:
    """Return the images by containerd namespace: name → manifest digest."""
    return {namespace: Ctr(address, namespace).images() for namespace in Ctr(address).namespaces()}


def capabilities(pid: int) -> List[str]:
    """Return the names of the capabilities that the process ``pid`` has in effect."""
    found = re.search(r"^CapEff:\s*([0-9a-f]+)", _read(f"/proc/{pid}/status") or "", re.MULTILINE)
    bits = int(found.group(1), 16) if found else 0
    return [f"CAP_{name}" for bit, name in enumerate(CAPABILITIES) if bits >> bit & 1]


def space(folders: Iterable[str]) -> Dict[str, Dict[str, int]]:
    """Return for each folder what is free on its file system, in MB as df counts it, and which one that is.

    A folder that is not there yet will be made on the file system of the nearest one above it.
    """
    found = {}
    for folder in folders:
        place = folder
        while not os.path.isdir(place):
            place = os.path.dirname(place)
        status = os.statvfs(place)
        # f_bavail, not f_bfree: what is reserved for root is not room to plan with.
        found[folder] = {"free_mb": status.f_bavail * status.f_frsize // 1000000, "device": os.stat(place).st_dev}
    return found


def interrupted_packages(folder: str = "/var/lib/dpkg/updates") -> bool:
    """Return whether dpkg was interrupted, in which case apt refuses everything: it leaves files with numbers for names, as apt itself looks."""
    return os.path.isdir(folder) and any(name.isdigit() for name in os.listdir(folder))


def host(pid: int, folders: Iterable[str] = ()) -> Dict[str, Any]:
    """Describe the machine, with the free space of ``folders``; ``pid`` is the process whose capabilities count: containerd's where it runs."""
    release = dict(re.findall(r'^(\w+)="?([^"\n]*)"?$', _read("/etc/os-release") or "", re.MULTILINE))
    machine = os.uname().machine
    return {
        "architecture": GO_ARCHITECTURES.get(machine, machine),
        "kernel": os.uname().release,
        "distribution": release.get("ID"),
        "distribution_version": release.get("VERSION_ID"),
        "service_manager": "systemd" if os.path.isdir("/run/systemd/system") else "daemon",
        # A pure version 2 host mounts cgroup2 at the root; the hybrid layout keeps version 1 controllers there.
        "cgroup_version": 2 if os.path.exists("/sys/fs/cgroup/cgroup.controllers") else 1,
        "capabilities": capabilities(pid),
        "space": space(folders),
        "interrupted_packages": interrupted_packages(),
    }
