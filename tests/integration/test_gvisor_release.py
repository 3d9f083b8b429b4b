# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""gvisor_release on the host: all of a release in place, or nothing changed. Over SSH it is tested by tests/e2e/test_lab_ship.py."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import pytest
from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._base.files import SENT_SECONDS
from ansible_collections.ggen.gvisor.plugins.module_utils._gvisor import release as _release
from ansible_collections.ggen.gvisor.plugins.modules import gvisor_release
from ansible_collections.ggen.gvisor.plugins.plugin_utils._command import zipapp
from ansible_collections.ggen.gvisor.plugins.plugin_utils._transfer import send as shipping
from conftest import ROOT
from support.adhoc import JSON_OUTPUT
from support.missing import MISSING
from support.module import finish_module, run_module, start_module

SLEEP = Path(shutil.which("sleep")).read_bytes()  # a program that runs until it is ended
OTHER = SLEEP + b"another build"
SHIM = b"#!/bin/sh\necho shim\n"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Host:
    """A host's folders, and the release for them."""

    def __init__(self, root: Path) -> None:
        self.root, self.folder, self.bin = root, root / "lib" / "1", root / "bin"
        self.options = root / "etc" / "runsc.toml"
        self.bin.mkdir()
        self.options.parent.mkdir()
        self.contents = {"runsc": SLEEP, "shim": SHIM}
        self.sums = {name: sha256(data) for name, data in self.contents.items()}

    def parameters(self, send: object = ("runsc", "shim"), **changes: object) -> dict:
        """The options of a task, with a payload of the programs ``send``: gzips one after the other, as the action plugin sends them."""
        joined, payload = b"", []
        for name in send:
            data = gzip.compress(self.contents[name])
            payload.append({"name": name, "offset": len(joined), "length": len(data), "size": len(self.contents[name]), "gzip": True})
            joined += data
        (self.root / "payload").write_bytes(joined)
        return {
            "folder": str(self.folder),
            "source": "/nowhere",
            "files": [{"name": name, "sha256": value} for name, value in self.sums.items()],
            "links": {str(self.bin / name): name for name in self.sums},
            "options": {"path": str(self.options), "content": "binary_name = x\n"},
            "payload": [{**part, "path": str(self.root / "payload")} for part in payload],
            **changes,
        }

    def run(self, send: object = ("runsc", "shim"), check: bool = False, **changes: object) -> dict:
        return run_module("gvisor_release", check=check, diff=True, **self.parameters(send, **changes))

    def everything(self) -> dict[str, object]:
        found: dict[str, object] = {}
        for parent, folders, names in os.walk(self.root):
            for name in folders + names:
                path = Path(parent, name)
                if path.name != "payload":
                    found[str(path)] = (
                        os.readlink(path) if path.is_symlink() else (path.stat().st_mode, path.is_file() and path.read_bytes())
                    )
        return found

    def whole(self) -> bool:
        return all((self.bin / name).read_bytes() == data for name, data in self.contents.items()) and self.options.exists()


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_from_nothing_and_again(host: Host) -> None:
    first = host.run()
    assert (first["failed"], first["changed"], first["installed"]) == (False, True, ["runsc", "shim"])
    assert first["switched"] == [str(host.bin / "runsc"), str(host.bin / "shim")]
    assert host.whole()
    for path in (host.folder.parent, host.folder, host.folder / "runsc", host.folder / "shim"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o755, path
    assert sorted(os.listdir(host.folder)) == ["runsc", "shim"]
    again = host.run(send=())
    assert (again["changed"], again["missing"], again["diff"]) == (False, [], [])


def test_folders_are_open_to_everybody_whatever_the_umask_is(host: Host) -> None:
    before = os.umask(0o077)
    try:
        assert host.run()["changed"]
    finally:
        os.umask(before)
    assert stat.S_IMODE(host.folder.stat().st_mode) == 0o755
    assert stat.S_IMODE(host.options.stat().st_mode) == 0o644


def test_without_the_bytes_it_tells_what_it_lacks_and_changes_nothing(host: Host) -> None:
    before = host.everything()
    result = host.run(send=())
    assert (result["changed"], result["missing"]) == (False, ["runsc", "shim"])
    assert host.everything() == before
    host.run()
    (host.folder / "shim").write_bytes(b"changed")
    assert host.run(send=())["missing"] == ["shim"]
    assert host.run(send=["shim"])["installed"] == ["shim"]
    assert host.whole()


def test_check_mode_tells_and_changes_nothing(host: Host) -> None:
    host.options.parent.rmdir()  # on a bare host containerd's package would bring it
    before = host.everything()
    result = host.run(send=(), check=True)
    assert (result["failed"], result["changed"]) == (False, True)
    diff = result["diff"]
    assert f"{host.folder}/runsc {host.sums['runsc']} 0755\n" in diff[0]["after"]
    assert f"{host.bin}/runsc -> {host.folder}/runsc\n" in diff[0]["after"]
    assert (diff[1]["before"], diff[1]["after"]) == ("", "binary_name = x\n")
    assert host.everything() == before


@pytest.mark.parametrize(
    ("damage", "changed"),
    [
        (lambda host: (host.folder / "runsc").chmod(0o700), "mode"),
        (lambda host: host.folder.chmod(0o700), "folder"),
        (lambda host: (host.bin / "shim").unlink(), "link"),
        (lambda host: host.options.write_text("else"), "options"),
    ],
)
def test_what_differs_is_fixed_without_the_bytes(host: Host, damage: Callable, changed: str) -> None:
    host.run()
    good = host.everything()
    damage(host)
    result = host.run(send=())
    assert (result["failed"], result["changed"], result["installed"]) == (False, True, []), changed
    assert host.everything() == good
    assert not host.run(send=())["changed"]


def test_a_running_program_keeps_its_file(host: Host) -> None:
    host.run()
    process = subprocess.Popen([host.bin / "runsc", "60"])
    try:
        host.contents["runsc"], host.sums["runsc"] = OTHER, sha256(OTHER)
        assert host.run(send=["runsc"])["changed"]
        assert Path(f"/proc/{process.pid}/exe").read_bytes() == SLEEP
        assert host.whole()
    finally:
        process.kill()
        process.wait()


def test_a_link_or_file_of_somebody_else_is_replaced_and_a_folder_is_not(host: Host) -> None:
    (host.bin / "runsc").symlink_to("/opt/gvisor/runsc")
    (host.bin / "shim").write_text("a file")
    result = host.run()
    assert "-> /opt/gvisor/runsc" in result["diff"][0]["before"]
    assert host.whole()
    (host.bin / "shim").unlink()
    (host.bin / "shim").mkdir()
    before = host.everything()
    result = host.run(send=())
    assert f"{host.bin}/shim is a folder" in result["msg"]
    assert host.everything() == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"files": [{"name": "../runsc", "sha256": "0" * 64}]}, "'../runsc' is no file name"),
        ({"files": [{"name": "runsc", "sha256": "12"}]}, "'12' is no sha256 of runsc"),
        ({"files": [{"name": "runsc", "sha256": "0" * 64, "mode": "u+x"}]}, "the mode 'u+x' is not octal"),
        ({"files": [{"name": "runsc", "sha256": "0" * 64}] * 2}, "a name is there twice"),
        ({"links": {"bin/runsc": "runsc"}}, "bin/runsc is no absolute path"),
        ({"links": {"/x/runc": "runc"}}, "should lead to runc, which is not among the files"),
        ({"links": {f"{MISSING}/folder/runsc": "runsc"}}, f"make {MISSING}/folder"),
        ({"options": {"path": f"{MISSING}/folder/x", "content": ""}}, f"make {MISSING}/folder"),
    ],
)
def test_bad_input_leaves_the_host_unchanged(host: Host, change: dict, message: str) -> None:
    before = host.everything()
    result = host.run(**change)
    assert result["failed"]
    assert message in result["msg"]
    assert host.everything() == before


def test_a_wrong_sum_is_refused_before_any_name_changes(host: Host) -> None:
    """Also when it is the last file's: the first one is in its temporary place then."""
    host.sums["shim"] = sha256(b"expected")
    before = host.everything()
    result = host.run()
    assert result["failed"]
    assert sha256(SHIM) in result["msg"]
    assert host.sums["shim"] in result["msg"]
    assert host.everything() == before


@pytest.mark.parametrize("damage", ["cut", "flipped", "longer"])
def test_damage_on_the_way_is_refused(host: Host, damage: str) -> None:
    parameters = host.parameters()
    data = bytearray((host.root / "payload").read_bytes())
    if damage == "cut":
        del data[-10:]
    elif damage == "flipped":
        data[200] ^= 0xFF
    else:
        parameters["payload"][0]["size"] = 10
    (host.root / "payload").write_bytes(data)
    before = host.everything()
    result = run_module("gvisor_release", **parameters)
    assert result["failed"]
    assert "run again" in result["msg"]
    assert host.everything() == before


def test_what_a_killed_run_left_is_removed(host: Host) -> None:
    host.run()
    (host.folder / ".runsc.abc123.new").write_bytes(bytes(100))
    (host.folder / "somebody-s.new").write_text("")
    (host.folder / "runsc").write_bytes(b"changed")
    host.run()
    assert sorted(os.listdir(host.folder)) == ["runsc", "shim", "somebody-s.new"]


def test_runs_at_the_same_time_all_succeed(host: Host) -> None:
    parameters = host.parameters()
    processes = [start_module("gvisor_release", **parameters) for _run in range(6)]
    with ThreadPoolExecutor() as pool:
        results = list(pool.map(finish_module, processes))
    assert not [result for result in results if result.get("failed")]
    assert host.whole()
    assert sorted(os.listdir(host.folder)) == ["runsc", "shim"]


class Releases:
    """A host's folders with several releases in turn, through the module."""

    def __init__(self, host: Host) -> None:
        self.host, self.root = host, host.folder.parent
        self.common = {"releases": str(self.root), "links": {str(host.bin / name): name for name in host.contents}}

    def start(self, name: str) -> subprocess.Popen:
        """Start a switch to release ``name``, with programs of its own."""
        contents = {program: data + name.encode() for program, data in {"runsc": SLEEP, "shim": SHIM}.items()}
        other = Host.__new__(Host)
        other.__dict__.update(self.host.__dict__, root=self.host.root / f"sent-{name}", folder=self.root / name, contents=contents)
        other.sums = {program: sha256(data) for program, data in contents.items()}
        other.root.mkdir(exist_ok=True)
        options = {"path": str(self.host.options), "content": f"options of {name}\n"}
        return start_module("gvisor_release", **other.parameters(options=options, keep_previous=True))

    def switch(self, name: str) -> dict:
        return finish_module(self.start(name))

    def back(self, **changes: object) -> dict:
        return run_module("gvisor_release", state="previous", options={"path": str(self.host.options)}, **{**self.common, **changes})

    def prune(self, name: str, **changes: object) -> dict:
        return run_module("gvisor_release", state="pruned", folder=str(self.root / name), links=self.common["links"], **changes)

    @property
    def now(self) -> str:
        """The release in use, which links and options agree on."""
        (name,) = {(self.host.bin / program).resolve().parent.name for program in self.host.contents}
        assert self.host.options.read_text() == f"options of {name}\n"
        assert all((self.host.bin / program).is_file() for program in self.host.contents)
        return name

    @property
    def installed(self) -> dict:
        path = self.root / "installed.json"
        return json.loads(path.read_text()) if path.exists() else {}


@pytest.fixture
def releases(host: Host) -> Releases:
    return Releases(host)


def test_a_host_s_history_through_the_module(releases: Releases) -> None:
    for name in ("1", "2"):
        assert releases.switch(name)["changed"]
    assert (releases.back(check=True)["changed"], releases.now) == (True, "2")
    assert releases.back(folder=str(releases.root / "3"))["previous"] is None, "that switch never began"
    back = releases.back(folder=str(releases.root / "2"))
    assert (back["changed"], back["previous"]["release"], releases.now) == (True, "1", "1")
    assert releases.installed == {}
    assert not releases.back()["changed"]
    for name in ("2", "3"):
        releases.switch(name)
    assert (releases.prune("3", check=True)["removed"], (releases.root / "1").exists()) == (["1"], True)
    assert (releases.prune("3")["removed"], releases.prune("3")["changed"]) == (["1"], False)
    assert sorted(os.listdir(releases.root)) == ["2", "3", "installed.json"]
    (releases.root / "2" / "shim").unlink()
    refused = releases.back()
    assert refused["failed"]
    assert f"{releases.root}/2 is missing or changed, so nothing was changed. Install release 2 anew" in refused["msg"]
    assert releases.now == "3"


def test_what_is_brought_is_written_down_and_survives_switches(releases: Releases) -> None:
    def record(check: bool = False, **what: object) -> dict:
        return run_module("gvisor_release", state="recorded", releases=str(releases.root), check=check, **what)

    assert record(check=True, packages=["containerd"])["changed"]
    assert not releases.root.exists()
    assert record(packages=["containerd"])["history"] == {"packages": ["containerd"]}
    assert record(packages=["runc", "containerd"], started=True)["history"] == {"packages": ["containerd", "runc"], "started": True}
    assert not record(packages=["runc"])["changed"]
    for name in ("1", "2"):
        releases.switch(name)
    releases.prune("2")
    releases.back()
    assert releases.installed == {"packages": ["containerd", "runc"], "started": True}
    assert stat.S_IMODE((releases.root / "installed.json").stat().st_mode) == 0o644


def test_two_controllers_that_record_at_the_same_time_lose_nothing(releases: Releases) -> None:
    names = [f"package-{number}" for number in range(6)]
    runs = [start_module("gvisor_release", state="recorded", releases=str(releases.root), packages=[name]) for name in names]
    assert not [result for result in map(finish_module, runs) if result.get("failed")]
    assert sorted(releases.installed["packages"]) == names


def test_two_controllers_that_switch_at_the_same_time_leave_one_release_and_a_way_back(releases: Releases) -> None:
    releases.switch("0")
    for first, second in (("1", "2"), ("3", "4")):
        before = releases.now
        runs = [releases.start(name) for name in (first, second)]
        assert not [result for result in map(finish_module, runs) if result.get("failed")]
        last = releases.now
        other = first if last == second else second
        assert releases.prune(other)["failed"] is False, "the one who came first has proven its own"
        assert releases.now == last
        assert (releases.installed["previous"]["release"], releases.installed["previous"]["earlier"]["release"]) == (other, before)
        releases.prune(last)


def test_a_run_that_is_killed_at_any_time_leaves_a_way_back(releases: Releases) -> None:
    releases.switch("1")
    started = time.monotonic()
    releases.switch("2")
    took = time.monotonic() - started
    releases.prune("2")
    for part in range(6):
        process = releases.start("3")
        time.sleep(took * (0.4 + 0.12 * part))
        process.kill()
        process.communicate()
        noted = releases.installed["previous"]
        assert noted["release"] in ("1", "2"), noted
        assert not releases.switch("3").get("failed")
        assert releases.now == "3"
        assert releases.back(folder=str(releases.root / "3"))["previous"]["release"] == "2"
        assert (releases.now, releases.installed["previous"]["release"]) == ("2", "1")
        releases.prune("2")
        shutil.rmtree(releases.root / "3", ignore_errors=True)
    assert releases.back()["previous"]["release"] == "1"
    assert releases.now == "1"


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB."""
    (tmp_path / "small").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", tmp_path / "small"], check=True)
    try:
        yield tmp_path / "small"
    finally:
        subprocess.run(["umount", tmp_path / "small"], check=True)


def test_a_full_disk_is_told_before_anything_is_written(small: Path) -> None:
    host = Host(small)
    host.contents["runsc"] = bytes(3_000_000)
    host.sums["runsc"] = sha256(host.contents["runsc"])
    before = host.everything()
    result = host.run()
    assert result["failed"]
    assert result["msg"].startswith(f"{host.folder}: 3.0 MB are needed for runsc, shim and ")
    assert "MB are free on its file system" in result["msg"]
    assert result["needed"] > result["free"]
    assert host.everything() == before


def test_a_disk_that_fills_up_meanwhile_keeps_no_half_file(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if somebody else had taken the room after it was looked at."""
    host = Host(small)
    host.contents["runsc"] = bytes(3_000_000)
    host.sums["runsc"] = sha256(host.contents["runsc"])
    before = host.everything()
    monkeypatch.setattr(_release, "_free", lambda _folder: 1 << 40)
    with pytest.raises(GvisorError, match="No space left on device while writing runsc, shim"):
        gvisor_release.present(
            {**host.parameters(), "keep_previous": False, "files": [{**file, "mode": "0755"} for file in host.parameters()["files"]]}, False
        )
    assert host.everything() == before


def item_of(path: Path, data: bytes) -> shipping.Item:
    path.write_bytes(data)
    return shipping.Item(path.name, str(path), sha256(data))


def pack(item: shipping.Item, cache: str) -> str:
    return shipping.compressed(item, cache)


def test_a_program_is_compressed_once_and_always_to_the_same_bytes(tmp_path: Path) -> None:
    item = item_of(tmp_path / "runsc", os.urandom(100) * 100_000)
    with ProcessPoolExecutor(8) as pool:  # forks of Ansible that ask at the same time
        paths = list(pool.map(pack, [item] * 8, [str(tmp_path / "cache")] * 8))
    assert len(set(paths)) == 1
    kept = Path(paths[0])
    assert os.listdir(kept.parent) == [kept.name]
    assert gzip.decompress(kept.read_bytes()) == Path(item.source).read_bytes()
    before = kept.stat().st_ino
    Path(item.source).unlink()  # it is not even read again
    assert pack(item, str(tmp_path / "cache")) == str(kept)
    assert kept.stat().st_ino == before
    other = item_of(tmp_path / "copy", gzip.decompress(kept.read_bytes()))
    assert Path(pack(other, str(tmp_path / "other"))).read_bytes() == kept.read_bytes()


def test_a_damaged_compressed_program_is_made_again(tmp_path: Path) -> None:
    item = item_of(tmp_path / "runsc", SLEEP)
    kept = Path(pack(item, str(tmp_path / "cache")))
    whole = kept.read_bytes()
    kept.write_bytes(whole[:-1])
    assert Path(pack(item, str(tmp_path / "cache"))).read_bytes() == whole


def test_what_a_killed_controller_left_in_the_cache_is_removed(tmp_path: Path) -> None:
    kept = Path(pack(item_of(tmp_path / "runsc", SLEEP), str(tmp_path / "cache")))
    for name, age in ((".joined.old", 2 * SENT_SECONDS), (".joined.new", 0), (kept.name, 2 * SENT_SECONDS)):
        (kept.parent / name).touch()
        os.utime(kept.parent / name, (time.time() - age,) * 2)
    shipping.remove_stale(kept.parent)
    assert sorted(os.listdir(kept.parent)) == [".joined.new", kept.name]


def test_a_program_that_is_not_what_was_built_is_not_sent(tmp_path: Path) -> None:
    item = item_of(tmp_path / "runsc", SLEEP)._replace(sha256=sha256(OTHER))
    with pytest.raises(GvisorError, match=f"{item.source} on the controller has the sha256 {sha256(SLEEP)}"):
        pack(item, str(tmp_path / "cache"))
    assert os.listdir(tmp_path / "cache" / "shipped") == []
    with pytest.raises(GvisorError, match="build it first"):
        shipping.size_of(item._replace(source=str(tmp_path / "none")))


def test_the_command_is_made_and_sent_by_the_controller(tmp_path: Path) -> None:
    """Through the action plugin: no build has it."""
    program = zipapp.zipapp()
    folder, bin_folder = tmp_path / "lib" / "1", tmp_path / "bin"
    bin_folder.mkdir()
    (tmp_path / "source").mkdir()
    arguments = {
        "folder": str(folder),
        "source": str(tmp_path / "source"),
        "files": [{"name": "ggen-gvisor", "sha256": sha256(program), "made": True}],
        "links": {str(bin_folder / "ggen-gvisor"): "ggen-gvisor"},
        "cache": str(tmp_path / "cache"),
    }
    words = ["-m", "ansible", "adhoc", "-i", str(ROOT / "inventories/local"), "localhost", "-m", "ggen.gvisor.gvisor_release"]
    env = {**os.environ, **JSON_OUTPUT, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
    for changed in (True, False):
        done = subprocess.run(
            [sys.executable, *words, "-a", json.dumps(arguments)], env=env, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert json.loads(done.stdout.partition("=> ")[2])["changed"] is changed
    assert (bin_folder / "ggen-gvisor").read_bytes() == program
    assert (folder / "ggen-gvisor").stat().st_mode & 0o777 == 0o755
