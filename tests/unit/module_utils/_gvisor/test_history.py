# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host's history: switched, taken back, rolled back, pruned, and broken off in between."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._base.files import locked
from ansible_collections.ggen.gvisor.plugins.module_utils._gvisor import history, release

NAMES = ("runsc", "shim")


class Killed(BaseException):
    """As if the run had been killed here."""


class Host:
    """A host's folders, with releases of two programs."""

    def __init__(self, root: Path) -> None:
        self.releases, self.bin, self.options = root / "lib", root / "bin", root / "runsc.toml"
        self.bin.mkdir()
        self.links = {str(self.bin / name): name for name in NAMES}

    def switch(self, name: str, options: str = "", keep: bool = True, programs: Sequence[str] = NAMES) -> None:
        data = f"program of {name}".encode()
        folder = self.releases / name
        folder.mkdir(parents=True, exist_ok=True)
        for program in programs:
            (folder / program).write_bytes(data)
            (folder / program).chmod(0o755)
        folder.chmod(0o755)
        wanted = (str(self.options), (options or f"options of {name}").encode())
        rows = [release.Program(program, hashlib.sha256(data).hexdigest(), 0o755) for program in programs]
        links = {path: program for path, program in self.links.items() if program in programs}
        release.install(release.Release(str(folder), rows, links, wanted, keep), {})

    def back(self, leave: str | None = None, check: bool = False) -> dict | None:
        return release.go_back(str(self.releases), leave, self.links, str(self.options), check)

    def prune(self, keep: str) -> list[str]:
        return release.prune(str(self.releases), keep, self.links, False)

    def die_at(self, step: int, call: Callable, *arguments: str) -> bool:
        """Have the call end before its write number ``step``; tell whether it got that far."""
        left = step

        def counted(write: Callable) -> Callable:
            def maybe(*arguments: object) -> None:
                nonlocal left
                if not left:
                    raise Killed
                left -= 1
                write(*arguments)

            return maybe

        with pytest.MonkeyPatch.context() as patched:
            for module, name in ((release, "atomic_write"), (release, "atomic_symlink"), (history, "atomic_write"), (os, "unlink")):
                patched.setattr(module, name, counted(getattr(module, name)))
            try:
                call(*arguments)
            except Killed:
                return True
        return False

    @property
    def now(self) -> tuple[str, str]:
        folders = {(self.bin / name).resolve().parent.name for name in NAMES}
        return "+".join(sorted(folders)), self.options.read_text()

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


def test_the_first_release_proves_itself_and_nothing_goes(host):
    host.switch("1")
    assert host.prune("1") == []
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


# A switch writes its note, the options file and two links. Going back writes them in reverse.
STEPS = range(4)


@pytest.fixture
def upgraded(host: Host) -> Host:
    """A host that had 1, and has 2."""
    host.switch("1")
    host.switch("2")
    host.prune("2")
    return host


@pytest.mark.parametrize("step", STEPS)
def test_a_switch_that_was_killed_can_be_repeated(upgraded, step):
    before = (upgraded.releases / "installed.json").read_bytes()
    assert upgraded.die_at(step, upgraded.switch, "3")
    upgraded.switch("3")
    assert upgraded.now == ("3", "options of 3")
    assert upgraded.installed["previous"]["options"] == "options of 2", "not what is between the two"
    assert upgraded.back(leave="3")["release"] == "2"
    assert upgraded.now == ("2", "options of 2")
    assert (upgraded.releases / "installed.json").read_bytes() == before


@pytest.mark.parametrize("step", STEPS[1:])
@pytest.mark.parametrize("leave", ["3", None])
def test_a_switch_that_was_killed_can_be_taken_back(upgraded, step, leave):
    assert upgraded.die_at(step, upgraded.switch, "3")
    assert upgraded.back(leave)["release"] == "2"
    assert upgraded.now == ("2", "options of 2")


@pytest.mark.parametrize("step", STEPS)
def test_after_a_switch_that_was_killed_comes_one_to_another_release(upgraded, step):
    before = (upgraded.releases / "installed.json").read_bytes()
    assert upgraded.die_at(step, upgraded.switch, "3")
    upgraded.switch("4")
    assert upgraded.now == ("4", "options of 4")
    assert upgraded.back(leave="4")["release"] == "2"
    assert upgraded.now == ("2", "options of 2"), "no release with the options of another"
    assert (upgraded.releases / "installed.json").read_bytes() == before


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("leave", ["3", None])
def test_going_back_that_was_killed_can_be_repeated(upgraded, step, leave):
    upgraded.switch("3")
    assert upgraded.die_at(step, upgraded.back, leave)
    assert upgraded.back(leave)["release"] == "2"
    assert upgraded.now == ("2", "options of 2")
    assert upgraded.back(leave) is None, "and goes no further"


def test_a_switch_that_was_noted_and_never_began_costs_no_way_back(upgraded):
    before = (upgraded.releases / "installed.json").read_bytes()
    assert upgraded.die_at(1, upgraded.switch, "3")
    assert upgraded.prune("2") == ["3"]
    assert (upgraded.releases / "installed.json").read_bytes() == before
    assert upgraded.back()["release"] == "1"


def test_a_rollback_goes_one_step_also_from_a_switch_that_was_not_proven(upgraded):
    upgraded.switch("3")
    assert upgraded.back()["release"] == "2"
    assert upgraded.back() is None
    assert upgraded.now == ("2", "options of 2")


def test_a_switch_that_an_earlier_run_did_not_prove_is_not_taken_back_once_it_is_settled(upgraded):
    upgraded.switch("3")  # and that run was killed: the next one proves the host, settles it, and fails for another reason
    upgraded.prune("3")
    assert upgraded.back(leave="3") is None
    assert upgraded.now == ("3", "options of 3")


def test_what_a_killed_run_left_in_the_release_before_is_no_reason_to_stay(upgraded):
    (upgraded.releases / "1" / ".runsc.abc123.new").write_bytes(b"half")
    assert upgraded.back()["release"] == "1"


def test_pruning_spares_what_another_run_has_switched_to(upgraded):
    """Its own switch is proven, and meanwhile somebody else has gone on."""
    upgraded.switch("3")
    noted = upgraded.installed
    assert upgraded.prune("2") == []
    assert upgraded.installed == noted, "the other run can still be taken back"
    upgraded.prune("3")
    assert upgraded.prune("2") == []
    assert upgraded.now == ("3", "options of 3")


def test_pruning_spares_what_another_run_is_installing(upgraded):
    (upgraded.releases / "3").mkdir()
    with locked(str(upgraded.releases / "3")):
        assert upgraded.prune("2") == []
    assert upgraded.prune("2") == ["3"]


def test_pruning_spares_what_runs(upgraded):
    upgraded.switch("3")
    program = upgraded.releases / "1" / "runsc"
    program.write_bytes(Path(shutil.which("sleep")).read_bytes())
    process = subprocess.Popen([program, "60"])
    try:
        assert upgraded.prune("3") == []
        program.unlink()  # it is still that release's, by its path
        assert upgraded.prune("3") == []
    finally:
        process.kill()
        process.wait()
    assert upgraded.prune("3") == ["1"]


def test_a_run_that_looked_before_another_switched_leaves_no_mixture(upgraded, monkeypatch):
    """What differs is found again under the lock."""
    look = release.look

    def then_another(wanted: release.Release) -> release.State:
        found = look(wanted)
        with monkeypatch.context() as patched:
            patched.setattr(release, "look", look)
            upgraded.switch("3")
        return found

    with monkeypatch.context() as patched:
        patched.setattr(release, "look", then_another)
        upgraded.switch("2", "new options")
    assert upgraded.now == ("2", "new options")


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", "7"])
def test_a_damaged_history_names_nothing(host, text):
    host.switch("1")
    (host.releases / "installed.json").write_text(text)
    assert host.installed == {}
    assert host.back() is None
    host.switch("2")
    assert host.back()["release"] == "1"


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


@pytest.fixture
def commanded(host: Host) -> Host:
    """A host whose links have a command, too."""
    host.links[str(host.bin / history.COMMAND)] = history.COMMAND
    return host


WITH_COMMAND = (*NAMES, history.COMMAND)


def test_a_release_without_the_command_is_gone_back_to(commanded):
    link = commanded.bin / history.COMMAND
    commanded.switch("1")
    commanded.switch("2", programs=WITH_COMMAND)
    assert link.resolve() == commanded.releases / "2" / history.COMMAND
    assert commanded.prune("2") == []
    assert commanded.back()["release"] == "1"
    assert not link.is_symlink()
    assert commanded.now == ("1", "options of 1")


def test_the_command_is_rolled_back_with_its_release(commanded):
    link = commanded.bin / history.COMMAND
    commanded.switch("1", programs=WITH_COMMAND)
    commanded.switch("2", programs=WITH_COMMAND)
    commanded.prune("2")
    assert commanded.back()["release"] == "1"
    assert link.resolve() == commanded.releases / "1" / history.COMMAND


def test_a_command_of_somebody_else_s_is_not_removed(commanded):
    link = commanded.bin / history.COMMAND
    link.write_text("a copy")
    commanded.switch("1")
    commanded.switch("2")
    assert commanded.back()["release"] == "1"
    assert link.read_text() == "a copy"
    assert history.gvisor(str(commanded.releases), str(commanded.bin), str(commanded.options))["foreign"] == [str(commanded.options)]
