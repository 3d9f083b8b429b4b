# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A file on the controller that replaces a host's configuration at each start: pure functions, files, and a real containerd as the host."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import tomllib
from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.plugin_utils._containerd import boot_config as boot_configs
from ansible_collections.ggen.gvisor.plugins.plugin_utils._containerd import runtime_config as config
from support.colima import EMBEDDED
from support.containerd import Daemon
from support.containerd_debs import VERSIONS, ensure
from support.containerd_runtime import Host, run_action

HANDLER = config.Handler("runsc", runtime_type="io.containerd.runsc.v1")
# runc under another name: a handler that works with nothing to install.
CRUN2 = {"name": "crun2", "runtime_type": "io.containerd.runc.v2"}
CENTRAL = "# for all profiles\n[grpc]\ngid = 1000\n\n[debug]\nlevel = 'warn'\n"
THEIRS = f"# my own\nversion = 2\n{EMBEDDED}"


def add(text: str) -> str:
    edited = config.set_present(text, HANDLER, config.Place(where="config.toml")).text
    assert edited is not None
    return edited


def remove(text: str) -> str:
    return config.set_absent(text, "runsc", where="config.toml").text or ""


class Home:
    """A profile's own file and the one for all profiles."""

    def __init__(self, folder: Path) -> None:
        self.own = folder / "default" / "containerd" / "config.toml"
        self.central = folder / "central.toml"
        self.own.parent.parent.mkdir()
        self.paths = [str(self.own), str(self.central)]

    def write(self, path: Path, text: str) -> None:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(text.encode())

    def read(self) -> boot_configs.BootConfig:
        return boot_configs.read(self.paths)

    def run(self, present: bool) -> boot_configs.Wanted:
        """Do on the controller what the action does there."""
        boot_config = self.read()
        edited = add(boot_configs.base_of(boot_config, remove))
        outcome = boot_configs.present(boot_config, edited, remove) if present else boot_configs.absent(boot_config, remove)
        with boot_configs.Staged(boot_config, outcome.text) as staged:
            staged.commit()
        assert self.read().used == outcome.used  # what the host gets now is what its next start brings
        return outcome


@pytest.fixture(name="home")
def fixture_home(tmp_path: Path) -> Home:
    return Home(tmp_path)


@pytest.mark.parametrize(
    ("own", "central", "used", "source"),
    [
        (None, None, EMBEDDED, "Colima's built-in default"),
        (None, CENTRAL, CENTRAL, "central"),
        (THEIRS, CENTRAL, THEIRS, "own"),
        (THEIRS, None, THEIRS, "own"),
        ("", CENTRAL, "", "own"),
    ],
)
def test_present_and_absent_give_everything_back(own, central, used, source, home):
    for path, text in ((home.own, own), (home.central, central)):
        if text is not None:
            home.write(path, text)
    before = home.read()
    assert (before.used, before.source) == (used, {"own": str(home.own), "central": str(home.central)}.get(source, source))
    first = home.run(present=True)
    data = tomllib.loads(home.own.read_text())
    assert config.handlers(data)["runsc"]["runtime_type"] == "io.containerd.runsc.v1"
    assert data.get("grpc") == tomllib.loads(used).get("grpc")
    assert home.run(present=True) == first
    assert home.run(present=False).used == used
    assert (home.own.read_text() if home.own.exists() else None) == own
    assert home.own.parent.exists() == (own is not None)
    assert (home.central.read_text() if home.central.exists() else None) == central


def test_a_file_that_we_made_follows_what_it_was_made_from(home):
    home.write(home.central, CENTRAL)
    home.run(present=True)
    home.write(home.central, CENTRAL + "# more\n")
    assert "# more" in home.run(present=True).used
    home.run(present=False)
    assert not home.own.exists()


def test_a_file_that_we_made_stays_where_somebody_else_has_put_something_in(home):
    home.run(present=True)
    home.write(home.own, home.own.read_text() + "# theirs\n")
    home.write(home.central, CENTRAL)
    assert "# theirs" in home.run(present=True).used
    assert home.run(present=False).used == EMBEDDED + "# theirs\n"
    assert home.own.read_text() == EMBEDDED + "# theirs\n"


def test_without_a_handler_nothing_is_made_and_nothing_removed(home):
    assert home.run(present=False) == boot_configs.Wanted(None, EMBEDDED)
    assert not home.own.parent.exists()
    home.write(home.own, THEIRS)
    home.run(present=False)
    assert home.own.read_text() == THEIRS


def test_a_link_stays_one_and_a_mode_too(home, tmp_path):
    kept = tmp_path / "dotfiles" / "config.toml"
    home.write(kept, THEIRS)
    kept.chmod(0o600)
    home.own.parent.mkdir()
    home.own.symlink_to(kept)
    home.run(present=True)
    assert home.own.is_symlink()
    assert kept.stat().st_mode & 0o777 == 0o600
    home.run(present=False)
    assert kept.read_text() == THEIRS


def test_what_is_not_committed_leaves_nothing(home):
    with boot_configs.Staged(home.read(), "new"):
        assert len(os.listdir(home.own.parent)) == 1
    assert not home.own.parent.exists()


def test_a_change_in_the_meantime_is_not_overwritten(home):
    with boot_configs.Staged(home.read(), "new") as staged:
        home.own.write_text("theirs")
        with pytest.raises(GvisorError, match="was changed by someone else in the meantime"):
            staged.commit()
    assert os.listdir(home.own.parent) == ["config.toml"]
    assert home.own.read_text() == "theirs"


def test_a_profile_that_is_not_there(home):
    home.own.parent.parent.rmdir()
    with pytest.raises(GvisorError, match=r"cannot be written: No such file or directory .* Does the profile exist"), boot_configs.Staged(
        home.read(), "new"
    ):
        pass


def test_what_differs_is_one_sentence(home):
    path = "/etc/containerd/config.toml"
    outcome = home.run(present=True)
    described = boot_configs.describe(home.read(), boot_configs._sum(outcome.used))
    assert described == {"path": str(home.own), "source": str(home.own), "same": True, "handlers": ["runc", "runsc"]}
    assert boot_configs.sentence(described, "runsc", path) == ""
    assert "is not the same as" in boot_configs.sentence({**described, "same": False}, "runsc", path)
    home.own.unlink()
    gone = boot_configs.describe(home.read(), boot_configs._sum(outcome.used))
    assert boot_configs.sentence(gone, "runsc", path) == (
        f"Colima's built-in default has no runtime handler runsc, and the host's next start copies it over {path}"
    )
    home.write(home.own, "broken = [")
    assert boot_configs.describe(home.read(), None)["handlers"] == []


# --- with a containerd ---


class Guest(Host):
    """A containerd that is given its configuration at each start."""

    def boot(self, home: Home) -> None:
        """Do what `colima start` does."""
        Path(self.config_path).write_text(home.read().used)
        self.start()


@pytest.fixture(name="guest", params=VERSIONS[1:])
def fixture_guest(request: pytest.FixtureRequest, tmp_path: Path, home: Home, monkeypatch: pytest.MonkeyPatch) -> Iterator[Guest]:
    """A containerd as Colima's guests have it (2.x), and one that has runc's table taken away by ours (1.x)."""
    monkeypatch.setenv("PATH", ensure(request.param).path)
    guest = Guest(tmp_path / "guest", config_text=EMBEDDED)
    try:
        guest.boot(home)
        yield guest
    finally:
        guest.stop()


def change(guest: Guest, home: Home, check: bool = False, **options: object) -> dict:
    return run_action(check, **guest.options(boot_config=home.paths, restart=True, **{**CRUN2, **options}))


def works(guest: Guest) -> set[str]:
    """Return the handlers that the running daemon has loaded, by what it reads now."""
    assert Daemon.ctr(guest, "version")
    return set(config.handlers(tomllib.loads(Path(guest.config_path).read_text())))


def test_the_handler_outlives_the_host_s_starts(guest: Guest, home: Home):
    would = change(guest, home, check=True)
    assert (would["failed"], would["changed"], would["phases"]) == (False, True, ["read", "validate"]), would
    assert [entry["after_header"] for entry in would["diff"]] == [guest.config_path, f"{home.own} (on the controller)"]
    assert not home.own.parent.exists()
    done = change(guest, home)
    assert (done["failed"], done["changed"], done["restarted"], done["cri"]) == (False, True, True, "ok"), done
    assert done["phases"] == ["read", "validate", "apply"]
    assert done["boot_config"] == {"file": str(home.own), "source": "Colima's built-in default", "changed": True}
    assert guest.text() == home.own.read_text()
    again = change(guest, home)
    assert (again["changed"], again["phases"]) == (False, ["read"])
    guest.stop()
    guest.boot(home)
    assert works(guest) == {"runc", "crun2"}
    assert tomllib.loads(guest.text() or "")["grpc"] == {"gid": 1000}
    gone = change(guest, home, state="absent")
    assert (gone["changed"], gone["restarted"], guest.text()) == (True, True, EMBEDDED), gone
    assert not home.own.parent.exists()
    assert change(guest, home, state="absent")["changed"] is False


def test_a_patch_that_the_next_start_would_lose_is_made_to_last(guest: Guest, home: Home):
    run_action(**guest.options(restart=True, **CRUN2))  # without the boot_config
    done = change(guest, home)
    assert (done["changed"], done["restarted"]) == (True, True)
    assert guest.text() == home.own.read_text()


def test_a_profile_s_file_that_is_lost_comes_back_without_a_restart(guest: Guest, home: Home):
    change(guest, home)
    text = home.own.read_text()
    home.own.unlink()
    pid = guest.pid()
    done = change(guest, home)
    assert (done["changed"], done["files"], done["restarted"], guest.pid()) == (True, [], False, pid)
    assert home.own.read_text() == text


def test_what_the_host_refuses_is_not_written_on_the_controller(guest: Guest, home: Home):
    home.write(home.own, 'version = 2\nimports = ["/nowhere/there.toml"]\n')
    before = guest.text()
    done = change(guest, home)
    assert done["failed"], done
    assert "/nowhere/there.toml" in done["msg"]
    home.write(home.own, "version = [\n")
    done = change(guest, home)
    assert f"The text is from {home.own}, on the controller." in done["msg"]
    assert (guest.text(), os.listdir(home.own.parent)) == (before, ["config.toml"])


def test_absent_leaves_a_host_that_differs_its_own_settings(guest: Guest, home: Home):
    change(guest, home)
    theirs = "# a note of theirs\n"
    Path(guest.config_path).write_text((guest.text() or "") + theirs)
    done = change(guest, home, state="absent")
    assert (done["failed"], guest.text()) == (False, EMBEDDED + theirs), done
    assert not home.own.exists()
