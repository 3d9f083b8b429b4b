# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What runs on the controller runs on a Mac too. No Mac is here: names, flags and paths that it lacks are looked for, and taken away from Python."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT
from support.colima import mac

PLUGINS = ROOT / "plugins"
PACKAGE = "ansible_collections.ggen.gvisor.plugins."
CONTROLLER = [
    path
    for kind in ("action", "callback", "filter", "inventory", "lookup", "plugin_utils", "strategy", "test", "vars")
    for path in sorted((PLUGINS / kind).glob("*.py"))
]
# "Availability: Linux" in Python's documentation.
LINUX_ONLY = {
    "os": r"pidfd_open|memfd_create|eventfd\w*|copy_file_range|splice|\w*xattr|sched_\w+|setns|unshare|getrandom|posix_fallocate|posix_fadvise"
    r"|fdatasync|O_TMPFILE|O_PATH|getresuid|getresgid|timerfd\w*|SCHED_\w+|CLONE_\w+",
    "signal": r"pidfd_send_signal|sigtimedwait|sigwaitinfo|SIGPWR|SIGSTKFLT",
    "select": r"epoll|EPOLL\w*",
    "fcntl": r"F_OFD_\w+|F_ADD_SEALS|F_GETPIPE_SZ|F_SETPIPE_SZ|F_NOTIFY",
    "socket": r"AF_NETLINK|AF_PACKET|AF_VSOCK|SO_PEERCRED|AF_ALG",
    "resource": r"prlimit",
}
# What POSIX has, without options that it has not.
POSIX = {"id -u", "uname -m", "uname -sm", "printenv"}
LINUX_PATHS = re.compile(r"""["'](/proc|/sys|/dev/shm|/etc/os-release|/etc/passwd|/usr/bin/(?!env\b))""")
LINUX_PROGRAMS = re.compile(
    r"""["'](apt-get|cp|date|dpkg\S*|getent|ip|md5sum|nproc|ps|readlink|sed|sha256sum|stat|systemctl|tar|timeout)["'],"""
)


def linux_only(path: Path) -> list[str]:
    """Return what a file uses that Python on a Mac does not have."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            module = node.value.id
            if module in LINUX_ONLY and re.fullmatch(LINUX_ONLY[module], node.attr):
                found.append(f"{path.name}, line {node.lineno}: {module}.{node.attr}")
    return found


def imported(path: Path) -> set[Path]:
    """Return the collection's own files that a file needs."""
    parts = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom) and node.module]
    names = [node.module for node in parts] + [f"{node.module}.{alias.name}" for node in parts for alias in node.names]
    places = [PLUGINS / f"{name.removeprefix(PACKAGE).replace('.', '/')}.py" for name in names if name.startswith(PACKAGE)]
    files = {place for place in places if place.is_file()}
    return files.union(*(imported(file) for file in files)) if files else files


def tasks(items: Any, inherited: bool = False) -> Iterator[tuple[dict[str, Any], bool]]:
    """Yield each task with whether it runs on the controller."""
    for item in items or []:
        in_process = any(isinstance(value, dict) and value.get("controller") is True for value in item.values())
        here = inherited or in_process or item.get("delegate_to") == "localhost"
        yield item, here
        for part in ("block", "rescue", "always"):
            yield from tasks(item.get(part), here)


def delegated() -> list[tuple[Path, dict[str, Any]]]:
    files = sorted((ROOT / "roles").glob("*/tasks/*.yml"))
    return [(path, task) for path in files for task, here in tasks(yaml.safe_load(path.read_text())) if here]


@pytest.mark.parametrize("path", CONTROLLER, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_plugins_use_what_macos_has(path):
    text = path.read_text()
    assert linux_only(path) == []
    assert LINUX_PATHS.findall(text) == []
    assert LINUX_PROGRAMS.findall(text) == []


def test_modules_that_the_controller_runs_use_what_macos_has():
    ours = {name.removeprefix("ggen.gvisor.") for _path, task in delegated() for name in task if name.startswith("ggen.gvisor.")}
    assert "build_cache" in ours
    for name in ours:
        module = PLUGINS / "modules" / f"{name}.py"
        for path in (module, *imported(module)):
            assert linux_only(path) == [], name
            assert LINUX_PATHS.findall(path.read_text()) == [], name


def test_tasks_on_the_controller_start_no_program_that_macos_lacks():
    found = delegated()
    assert len(found) > 3
    for path, task in found:
        command = task.get("ansible.builtin.command", {})
        argv = command.get("argv", []) if isinstance(command, dict) else str(command).split()
        assert not argv or argv[0] in POSIX, (path, task["name"])
        assert not {"ansible.builtin.shell", "ansible.builtin.apt", "ansible.builtin.systemd_service"} & set(task), (path, task["name"])


def test_lookups_start_no_program_that_macos_lacks():
    files = [*(ROOT / "roles").rglob("*.yml"), *(ROOT / "playbooks").glob("*.yml")]
    pipes = {command for path in files for command in re.findall(r"builtin\.pipe'\s*,\s*'([^']+)'", path.read_text())}
    assert pipes <= POSIX, pipes


def test_the_tests_would_see_it(tmp_path):
    bad = tmp_path / "bad.py"
    bad.write_text('import os\nos.pidfd_open(1)\nopen("/proc/self/stat")\nrun(["stat", "-c", "%s"])\n')
    assert linux_only(bad) == ["bad.py, line 2: os.pidfd_open"]
    assert LINUX_PATHS.search(bad.read_text())
    assert LINUX_PROGRAMS.search(bad.read_text())


IMPORT_ALL = """
import importlib, re, sys
import ansible.plugins.action, ansible.plugins.inventory, ansible.module_utils.basic
for module, pattern in {patterns!r}.items():
    loaded = importlib.import_module(module)
    for name in [name for name in dir(loaded) if re.fullmatch(pattern, name)]:
        delattr(loaded, name)
for name in {names!r}:
    importlib.import_module(name)
"""


def test_plugins_can_be_imported_without_what_macos_lacks():
    names = [PACKAGE + f"{path.parent.name}.{path.stem}" for path in CONTROLLER]
    program = IMPORT_ALL.format(patterns=LINUX_ONLY, names=names)
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": str(ROOT / ".collections")},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("arch", ["arm64", "amd64"])
def test_the_guest_s_architecture_is_built_and_not_the_mac_s(arch, tmp_path):
    """With a ``uname`` that says Darwin and arm64, as an Apple silicon Mac's does."""
    made = mac(tmp_path)
    play = {
        "hosts": "localhost",
        "connection": "local",
        "gather_facts": False,
        "vars": {
            "runsc_build_dest": "/nowhere/bin",
            "runsc_build_targets": [{"containerd": "2.1.9", "arch": arch}],
            "containerd_gvisor_info": {"host": {"architecture": arch}},
        },
        "tasks": [
            {"ansible.builtin.include_role": {"name": "ggen.gvisor.runsc_build", "tasks_from": "preflight", "public": True}},
            {"ansible.builtin.include_role": {"name": "ggen.gvisor.ggen_image", "tasks_from": "expected_image", "public": True}},
            {"ansible.builtin.debug": {"msg": "image for {{ ggen_image_arch }}, the controller is {{ _ggen_image_machine }}"}},
        ],
    }
    (tmp_path / "play.yml").write_text(yaml.safe_dump([play]))
    argv = [str(Path(sys.executable).parent / "ansible-playbook"), "-i", "localhost,", str(tmp_path / "play.yml")]
    done = subprocess.run(argv, cwd=ROOT, env=made.env, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    other = {"arm64": "amd64", "amd64": "arm64"}[arch]
    assert re.search(rf"runsc \d+/{arch}", done.stdout), done.stdout
    assert f"/{other}" not in done.stdout
    assert f"image for {arch}, the controller is arm64" in done.stdout
