# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host's history: switched, taken back, rolled back, pruned, and broken off in between."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._gvisor import history, release


class Host:
    """A host's folders, with releases of one program."""

    def __init__(self, root: Path) -> None:
        self.releases, self.bin, self.options = root / "lib", root / "bin", root / "runsc.toml"
        self.bin.mkdir()
        self.links = {str(self.bin / "runsc"): "runsc"}

    def switch(self, name: str, options: str = "", keep: bool = True) -> None:
        data = f"program of {name}".encode()
        folder = self.releases / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "runsc").write_bytes(data)
        (folder / "runsc").chmod(0o755)
        folder.chmod(0o755)
        programs = [release.Program("runsc", hashlib.sha256(data).hexdigest(), 0o755)]
        wanted = (str(self.options), (options or f"options of {name}").encode())
        release.install(release.Release(str(folder), programs, self.links, wanted, keep), {})

    def back(self, leave: str | None = None, check: bool = False) -> dict | None:
        return release.go_back(str(self.releases), leave, self.links, str(self.options), check)

    def prune(self, keep: str) -> list[str]:
        return release.prune(str(self.releases), keep, False)

    @property
    def now(self) -> tuple[str, str]:
        return (self.bin / "runsc").resolve().parent.name, self.options.read_text()

    @property
    def installed(self) -> dict:
        return history.read_installed(str(self.releases))


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_the_first_release_has_nothing_before_it(host):
    host.switch("1")
    assert host.installed == {}
    assert host.back() is None
    assert host.now == ("1", "options of 1")


def test_a_switch_is_rolled_back_once(host):
    host.switch("1")
    host.switch("2")
    host.prune("2")
    assert host.back(check=True)["release"] == "1"
    assert host.now == ("2", "options of 2"), "check mode changes nothing"
    assert host.back()["release"] == "1"
    assert host.now == ("1", "options of 1")
    assert not (host.releases / "installed.json").exists()
    assert host.back() is None


def test_a_switch_that_failed_its_proof_gives_back_what_was_previous_before_it(host):
    host.switch("1")
    host.switch("2")
    host.prune("2")
    before = (host.releases / "installed.json").read_bytes()
    host.switch("3")
    assert host.back(leave="3")["release"] == "2"
    assert host.now == ("2", "options of 2")
    assert (host.releases / "installed.json").read_bytes() == before


def test_a_switch_that_never_began_is_not_taken_back(host):
    host.switch("1")
    host.switch("2")
    host.prune("2")
    assert host.back(leave="3") is None
    assert host.now == ("2", "options of 2")


def test_options_alone_are_a_switch_too(host):
    host.switch("1")
    host.switch("1", "other options")
    assert host.back(leave="1")["options"] == "options of 1"
    assert host.now == ("1", "options of 1")


@pytest.mark.parametrize("fails", ["atomic_write", "atomic_symlink"])
def test_a_run_that_ends_in_the_middle_is_taken_back_and_can_be_repeated(host, monkeypatch, fails):
    host.switch("1")

    def die(*_arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(release, fails, die)
        with pytest.raises(KeyboardInterrupt):
            host.switch("2")
    host.switch("2")
    assert host.installed["previous"]["options"] == "options of 1", "not what is between the two"
    assert host.back(leave="2")["release"] == "1"
    assert host.now == ("1", "options of 1")


def test_a_release_that_is_not_whole_is_not_gone_back_to(host):
    host.switch("1")
    host.switch("2")
    (host.releases / "1" / "runsc").write_bytes(b"another program")
    with pytest.raises(GvisorError, match="1 is missing or changed, so nothing was changed"):
        host.back()
    assert host.now == ("2", "options of 2")


def test_what_nobody_needs_goes_after_the_proof(host):
    for name in ("1", "2", "3"):
        host.switch(name)
    assert host.prune("3") == ["1"]
    assert host.prune("3") == []
    assert sorted(path.name for path in host.releases.iterdir()) == ["2", "3", "installed.json"]


def test_without_being_asked_nothing_is_kept(host):
    host.switch("1")
    host.switch("2", keep=False)
    assert host.installed == {}


def test_links_of_others_are_no_state_to_come_back_to(host, tmp_path):
    (tmp_path / "foreign").write_text("")
    (host.bin / "runsc").symlink_to(tmp_path / "foreign")
    host.switch("1")
    assert host.installed == {}


def test_packages_add_up_whoever_records_them(host):
    host.releases.mkdir()
    assert release.record(str(host.releases), ["runc"], False, False)[1]
    assert release.record(str(host.releases), ["containerd", "runc"], False, False)[0]["packages"] == ["runc", "containerd"]
    assert not release.record(str(host.releases), ["runc"], False, False)[1]
    assert release.record(str(host.releases), [], True, True) == ({"packages": ["runc", "containerd"], "started": True}, True)
    assert host.installed == {"packages": ["runc", "containerd"]}, "check mode writes nothing"
    host.switch("1")
    host.switch("2")
    assert host.installed["packages"] == ["runc", "containerd"]
