# Copyright (c) 2026, the ggen.gvisor authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""What a host has: each function reads one part of it and describes absence instead of failing."""

from __future__ import annotations

import os
import re
import shutil
from typing import Any, Dict, Iterable, List, Optional

from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._base.files import read_text, sha256_file
from ansible_collections.ggen.gvisor.plugins.module_utils._base.platform import architecture, capabilities, version_number
from ansible_collections.ggen.gvisor.plugins.module_utils._base.process import SEARCH_PATH, output_of
from ansible_collections.ggen.gvisor.plugins.module_utils._containerd.config_files import containerd_version, daemon_at, kind_of
from ansible_collections.ggen.gvisor.plugins.module_utils._containerd.config_transaction import dump
from ansible_collections.ggen.gvisor.plugins.module_utils._containerd.ctr import KUBERNETES, Ctr

VISUDO = "/usr/sbin/visudo"  # comes with sudo, and judges its rules


def _candidate(package: str) -> Optional[str]:
    """Return the version of ``package`` that apt would install, or None where apt is missing or its lists are empty."""
    if not shutil.which("apt-cache", path=SEARCH_PATH):
        return None
    # Without the two options apt would leave 20 MB and more of caches behind, and this only looks.
    policy = output_of("apt-cache", "-o", "Dir::Cache::pkgcache=", "-o", "Dir::Cache::srcpkgcache=", "policy", package)
    found = re.search(r"^\s*Candidate:\s*(\S+)", policy, re.MULTILINE)
    return version_number(found.group(1)) if found else None


def _package(program: Optional[str]) -> Optional[Dict[str, str]]:
    """Return the package that brought the program, its name and version, None where dpkg does not know or another way brought it."""
    if os.path.dirname(os.path.realpath(program or "")) != "/usr/bin" or not shutil.which("dpkg-query", path=SEARCH_PATH):
        return None
    rows = output_of("dpkg-query", "--show", "--showformat", "${db:Status-Abbrev} ${Package} ${Version}\n", "containerd", "containerd.io")
    found = [row.split() for row in rows.splitlines()]
    return next(({"name": row[1], "version": row[2]} for row in found if len(row) == 3 and row[0].startswith("ii")), None)


def containerd(address: str, package: str = "containerd") -> Dict[str, Any]:
    """Describe containerd: the program or the ``package`` that would bring it, the daemon behind ``address`` and its plugins."""
    daemon = daemon_at(address)
    path = shutil.which("containerd", path=SEARCH_PATH) or daemon["running_program"]
    state: Dict[str, Any] = {
        "installed": path is not None,
        "path": path,
        "version": containerd_version(path) if path else None,
        "candidate": None if path else _candidate(package),
        "package": _package(daemon["running_program"] or path),
        "address": address,
        "running": False,
        "server_version": None,
        "plugins": {},
        **daemon,
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


def read_config(path: str, program: Optional[str], told: Optional[Dict[str, Any]] = None) -> Dict[str, Any]:
    """Return the configuration file as it is and as containerd understands it (``dump``), unparsed; ``told`` is its dump where that was read already.

    TOML is parsed on the controller: Python has no TOML reader before 3.11 and hosts need Python alone.
    """
    exists, kind = os.path.exists(path), kind_of(path)
    if kind:
        told = {"rc": 1, "stdout": "", "stderr": "{0} is {1}; name the configuration file".format(path, kind)}
    elif program and not told:
        told = dump(program, path)
    return {
        "path": path,
        "exists": exists,
        "sha256": sha256_file(path) if exists and not kind else None,
        "text": read_text(path) if exists and not kind else "",
        "dump": told["stdout"] if told and told["rc"] == 0 else "",
        "error": told["stderr"] if told and told["rc"] != 0 else None,
    }


def images(address: str) -> Dict[str, Dict[str, str]]:
    """Return the images by containerd namespace: name → manifest digest."""
    return {namespace: Ctr(address, namespace).images() for namespace in Ctr(address).namespaces()}


def pinned(address: str, namespaces: Iterable[str]) -> Dict[str, List[str]]:
    """Return the names of images that are pinned, by namespace: Kubernetes' alone, in no other is anything collected."""
    return {namespace: sorted(Ctr(address, namespace).pinned()) for namespace in namespaces if namespace == KUBERNETES}


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
    release = dict(re.findall(r'^(\w+)="?([^"\n]*)"?$', read_text("/etc/os-release") or "", re.MULTILINE))
    return {
        "architecture": architecture(os.uname().machine),
        "kernel": os.uname().release,
        "distribution": release.get("ID"),
        "distribution_version": release.get("VERSION_ID"),
        "service_manager": "systemd" if os.path.isdir("/run/systemd/system") else "daemon",
        # A pure version 2 host mounts cgroup2 at the root; the hybrid layout keeps version 1 controllers there.
        "cgroup_version": 2 if os.path.exists("/sys/fs/cgroup/cgroup.controllers") else 1,
        "capabilities": capabilities(pid),
        "space": space(folders),
        "interrupted_packages": interrupted_packages(),
        "sudo": os.access(VISUDO, os.X_OK),
    }
