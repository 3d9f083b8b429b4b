# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""apt with a folder of its own, as a bundle is collected and installed: the host's lists and caches stay as they are."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path

from support.playbook import Play, play

HOSTS_OWN = ("/var/lib/apt", "/var/cache/apt", "/var/lib/dpkg")


def hosts_own() -> dict[str, tuple[int, int]]:
    paths = [path for folder in HOSTS_OWN for path in Path(folder).rglob("*") if path.is_file()]
    # Locks are taken by reading programs too.
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in paths if not path.name.startswith("lock")}


def run(tmp_path: Path, *tasks: dict, **variables: object) -> Play:
    playbook = tmp_path / "play.yml"
    playbook.write_text(json.dumps([{"hosts": "sandbox_hosts", "gather_facts": False, "tasks": list(tasks)}]))
    return play(str(playbook), **variables)


def role(name: str, entry: str) -> dict:
    return {"name": entry, "ansible.builtin.include_role": {"name": f"ggen.gvisor.{name}", "tasks_from": entry}}


LOOK = [
    {"name": "Look", "ggen.gvisor.containerd_info": {}, "register": "look"},
    {"name": "Note", "ansible.builtin.set_fact": {"containerd_gvisor_info": "{{ look }}"}},
]


def test_packages_are_collected_as_if_none_were_installed(tmp_path):
    before = hosts_own()
    done = run(
        tmp_path,
        *LOOK,
        role("gvisor_bundle", "collect_packages"),
        gvisor_bundle_packages=f"{tmp_path}/packages",
        gvisor_bundle_package="netbase",
    )
    # The release for its version is chosen last, and netbase is no containerd.
    assert "select_release" in done.errors or "containerd" in done.errors, done.output
    (folder,) = (tmp_path / "packages").iterdir()
    assert [path.name.partition("_")[0] for path in sorted(folder.iterdir())] == ["Packages", "netbase"]
    assert hosts_own() == before
    assert not Path(done.result("Make a folder for apt")["path"]).exists()


def test_a_bundle_is_the_only_source(tmp_path):
    tree = tmp_path / "tree" / "DEBIAN"
    tree.mkdir(parents=True)
    control = "Package: made-up\nVersion: 1.0\nArchitecture: all\nMaintainer: nobody <nobody@example.org>\nDescription: none\n"
    (tree / "control").write_text(control)
    folder = tmp_path / "packages" / "made_up"
    folder.mkdir(parents=True)
    package = folder / "made-up_1.0_all.deb"
    subprocess.run(["dpkg-deb", "--build", "--root-owner-group", tree.parent, package], check=True, capture_output=True)
    data = package.read_bytes()
    (folder / "Packages").write_text(
        f"{control}Filename: ./{package.name}\nSize: {len(data)}\nSHA256: {hashlib.sha256(data).hexdigest()}\n"
    )
    before = hosts_own()
    apt = ["apt-get", "--config-file={{ __gvisor_bundle_apt.path }}/apt.conf"]
    done = run(
        tmp_path,
        *LOOK,
        role("containerd_gvisor", "repository"),
        {"name": "Update", "ansible.builtin.command": {"argv": [*apt, "update"]}},
        {"name": "Simulate", "ansible.builtin.command": {"argv": [*apt, "--simulate", "install", "made-up"]}},
        {"name": "Ask for another", "ansible.builtin.command": {"argv": [*apt, "--simulate", "install", "hello"]}, "ignore_errors": True},
        {"name": "Remove", "ansible.builtin.file": {"path": "{{ __gvisor_bundle_apt.path }}", "state": "absent"}},
        containerd_gvisor_bundle={"folder": f"{tmp_path}/packages", "distributions": {}},
        _containerd_gvisor_distribution="made_up",
    )
    assert done.rc == 0, done.errors
    assert "Inst made-up (1.0" in done.result("Simulate")["stdout"]
    assert "Unable to locate package hello" in done.result("Ask for another")["stderr"]
    assert hosts_own() == before
