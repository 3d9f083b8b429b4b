# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The build cache: never a wrong file, whatever happened to the destination, the cache or the manifest."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from ansible_collections.ggen.gvisor.plugins.module_utils._builds.manifest import Artifact, canonical, key_of, resolve_inputs
from support.missing import MISSING
from support.module import fork_module, fork_modules

INPUTS = {"version": "1.2.0", "flags": ["-trimpath"], "cgo": False}


class World:
    """A cache, a build's folder and a destination."""

    def __init__(self, root: Path) -> None:
        self.cache, self.source, self.dest = root / "cache", root / "source", root / "bin" / "hello"
        (self.source / "lib").mkdir(parents=True)
        (self.source / "hello").write_bytes(b"#!/bin/true\n" + bytes(5000))
        (self.source / "hello").chmod(0o755)
        (self.source / "lib" / "data").write_text("data\n")

    def artifact(self, **changes: object) -> dict:
        return {"name": "hello", "inputs": INPUTS, "dest": str(self.dest), **changes}

    def run(self, state: str = "restored", check: bool = False, **changes: object) -> dict:
        if state == "stored":
            changes.setdefault("source", str(self.source))
        return fork_module("build_cache", state=state, cache=str(self.cache), artifacts=[self.artifact(**changes)], check=check)

    def store(self) -> dict:
        result = self.run("stored")
        assert not result["failed"], result
        return result

    @property
    def object(self) -> Path:
        (found,) = (self.cache / "objects").iterdir()
        return found

    def intact(self) -> bool:
        return all((self.dest / name).read_bytes() == (self.source / name).read_bytes() for name in ("hello", "lib/data"))


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def key(**changes: object) -> str:
    return key_of(resolve_inputs(Artifact(**{"name": "hello", "inputs": INPUTS, "dest": "/bin", **changes})))


def test_the_key_does_not_depend_on_order_or_destination():
    assert key() == key(inputs=dict(reversed(INPUTS.items())), dest="/elsewhere")


@pytest.mark.parametrize(
    "changes",
    [
        {"inputs": {**INPUTS, "version": "1.2.1"}},
        {"inputs": {**INPUTS, "flags": []}},
        {"inputs": {**INPUTS, "cgo": 0}},
        {"inputs": {**INPUTS, "patch": "one"}},
        {"name": "other"},
    ],
)
def test_the_key_depends_on_every_input(changes):
    assert key(**changes) != key()


def test_the_key_of_a_build_stays_what_it_is():
    """Builds that exist are found by it: another one would have all compiled again, on every build host."""
    assert (
        key(name="hello", inputs={"version": "1.2.0", "flags": ["-trimpath"]})
        == "d5f89622eecab7628d9b6f7b1a98b2498ab6feca7466a42eca1c858bdbd2aa82"
    )


def test_canonical_json_is_fixed():
    assert canonical({"b": [1, None], "a": "ü"}) == '{"a":"ü","b":[1,null]}'.encode()


def test_a_build_s_whole_life(world, tmp_path):
    first = world.run()
    assert (first["changed"], first["misses"], first["artifacts"][0]["manifest"]) == (False, ["hello"], None)
    assert not world.cache.exists()

    stored = world.run("stored", metadata={"who": "test"})
    assert stored["changed"]
    assert world.intact()
    manifest = json.loads((world.dest / "manifest.json").read_text())
    assert manifest == stored["artifacts"][0]["manifest"]
    assert manifest["metadata"] == {"who": "test"}
    assert manifest["files"]["hello"] == {"sha256": sha256(world.source / "hello"), "size": 5012, "mode": "0755"}
    assert manifest["files"]["lib/data"]["mode"] == "0644"

    again = world.run()
    assert (again["changed"], again["misses"]) == (False, [])
    assert "diff" not in again
    assert not world.run("stored", metadata={"who": "test"})["changed"]

    elsewhere = world.run(dest=str(tmp_path / "second clone"))
    assert elsewhere["changed"]
    assert not elsewhere["misses"]
    assert (tmp_path / "second clone" / "hello").read_bytes() == (world.source / "hello").read_bytes()


def test_the_manifest_does_not_depend_on_the_umask(world):
    world.store()
    before = (world.dest / "manifest.json").read_bytes()
    (world.source / "hello").chmod(0o700)
    (world.source / "lib" / "data").chmod(0o600)
    assert not world.run("stored")["changed"]
    assert (world.dest / "manifest.json").read_bytes() == before


def flip(path: Path) -> None:
    """Change one byte in place, the size and the time stamp as they were."""
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


DAMAGES = {
    "a changed byte": lambda folder: flip(folder / "hello"),
    "a lost file": lambda folder: (folder / "lib" / "data").unlink(),
    "another mode": lambda folder: (folder / "hello").chmod(0o644),
    "a link in a file's place": lambda folder: (
        (folder / "hello").unlink(),
        (folder / "hello").symlink_to("/bin/true"),
    ),
    "a lost manifest": lambda folder: (folder / "manifest.json").unlink(),
    "half a manifest": lambda folder: (folder / "manifest.json").write_text('{"key"'),
    "a manifest that is no object": lambda folder: (folder / "manifest.json").write_text("[]"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_destination_is_fixed(world, damage):
    world.store()
    DAMAGES[damage](world.dest)
    said = world.run(check=True)
    assert said["changed"]
    assert not said["misses"]
    assert world.run()["changed"]
    assert world.intact()
    assert not world.run()["changed"]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_object_is_a_miss_and_thrown_away(world, tmp_path, damage):
    world.store()
    DAMAGES[damage](world.object)
    result = world.run(dest=str(tmp_path / "second clone"))
    assert result["misses"] == ["hello"]
    assert not (tmp_path / "second clone").exists()
    assert list((world.cache / "objects").iterdir()) == []
    assert list((world.cache / "tmp").iterdir()) == []


def test_a_check_run_leaves_a_damaged_object_alone(world, tmp_path):
    world.store()
    flip(world.object / "hello")
    assert world.run(dest=str(tmp_path / "second clone"), check=True)["misses"] == ["hello"]
    assert world.object.exists()


def test_a_manifest_that_vouches_for_a_forged_file_is_no_use_against_expected_sums(world):
    expected = {"hello": sha256(world.source / "hello")}
    assert world.run("stored", expected=expected)["changed"]
    for folder in (world.dest, world.object):
        flip(folder / "hello")
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest["files"]["hello"]["sha256"] = sha256(folder / "hello")
        (folder / "manifest.json").write_text(json.dumps(manifest))
    assert world.run(expected=expected)["misses"] == ["hello"]


def test_another_build_s_object_is_not_believed_for_its_name(world):
    world.store()
    other = world.object.with_name(key(inputs={"version": "2"}))
    world.object.rename(other)
    assert world.run(inputs={"version": "2"})["misses"] == ["hello"]


def test_a_manifest_cannot_lead_out_of_its_folder(world, tmp_path):
    world.store()
    (tmp_path / "outside").write_text("mine")
    manifest = json.loads((world.object / "manifest.json").read_text())
    manifest["files"]["../outside"] = manifest["files"].pop("lib/data")
    (world.object / "manifest.json").write_text(json.dumps(manifest))
    assert world.run(dest=str(tmp_path / "inner" / "bin"))["misses"] == ["hello"]
    assert (tmp_path / "outside").read_text() == "mine"


def test_a_build_with_other_sums_is_refused(world):
    result = world.run("stored", expected={"hello": "0" * 64, "gone": "1" * 64})
    assert result["failed"]
    assert "not the expected one" in result["msg"]
    assert "hello" in result["msg"]
    assert "gone: missing" in result["msg"]
    assert not world.dest.exists()
    assert not world.cache.exists()


def test_a_build_that_left_nothing_or_links_is_refused(world):
    (world.source / "hello").unlink()
    (world.source / "hello").symlink_to("/bin/true")
    assert "not a regular file" in world.run("stored")["msg"]
    for path in (world.source / "hello", world.source / "lib" / "data"):
        path.unlink()
    assert "no files" in world.run("stored")["msg"]


def test_a_build_that_left_a_link_in_its_folder_s_place_is_refused(world, tmp_path):
    """As user of its own it can read nothing there; who stores the build may."""
    world.source.rename(tmp_path / "private")
    world.source.symlink_to(tmp_path / "private")
    assert "is a link; a build's result holds files alone" in world.run("stored")["msg"]
    assert not world.cache.exists()


def test_a_missing_source_is_named(world):
    result = fork_module("build_cache", state="stored", cache=str(world.cache), artifacts=[world.artifact()])
    assert "needs source" in result["msg"]


def test_files_of_an_earlier_build_go_and_foreign_files_stay(world):
    world.store()
    (world.dest / "notes").write_text("the user's own")
    (world.source / "lib" / "data").unlink()
    world.run("stored", inputs={"version": "2"})
    assert not (world.dest / "lib" / "data").exists()
    assert (world.dest / "notes").read_text() == "the user's own"
    # and back again, without a build
    assert world.run()["changed"]
    assert (world.dest / "lib" / "data").exists()


def test_what_a_killed_run_left_in_the_destination_is_removed(world):
    world.store()
    left, notes = world.dest / ".hello.abcd1234", world.dest / ".hello.notes"
    for path in (left, notes, world.dest / "hello"):
        path.write_text("half")
    world.run()
    assert world.intact()
    assert (left.exists(), notes.exists()) == (False, True)


def test_links_are_made_and_mended_and_no_file_is_overwritten(world):
    links = {str(world.dest.parent / "hello-link"): "hello"}
    world.store()
    link = world.dest.parent / "hello-link"
    assert world.run(links=links, check=True)["changed"]
    assert not link.exists()
    assert world.run(links=links)["changed"]
    assert link.resolve() == world.dest / "hello"
    assert not world.run(links=links)["changed"]
    link.unlink()
    link.symlink_to("/bin/true")
    assert world.run(links=links)["changed"]
    assert link.resolve() == world.dest / "hello"
    link.unlink()
    link.write_text("the user's own")
    assert "no link of ours" in world.run(links=links)["msg"]
    assert link.read_text() == "the user's own"
    assert "does not have" in world.run(links={str(link): "nothing"})["msg"]


def test_check_mode_of_a_store_whose_build_did_not_happen(world):
    result = world.run("stored", source=f"{MISSING}/build", check=True)
    assert result["changed"]
    assert not result["failed"]
    assert not world.cache.exists()


def test_the_diff_names_what_differs_and_nothing_else(world):
    world.store()
    flip(world.dest / "hello")
    broken = sha256(world.dest / "hello")
    diff = world.run(check=True)["diff"]
    assert diff["before"] == f"{world.dest}/hello {broken}\n"
    assert diff["after"] == f"{world.dest}/hello {sha256(world.source / 'hello')}\n"


def test_several_artifacts_in_one_execution(world):
    world.store()
    other = world.artifact(name="other", dest=str(world.dest) + "-other")
    result = fork_module("build_cache", cache=str(world.cache), artifacts=[world.artifact(), other])
    assert result["misses"] == ["other"]
    assert [artifact["hit"] for artifact in result["artifacts"]] == [True, False]


DOCUMENTS = {"hello.intoto.json": "{}\n"}


def test_documents_join_a_build_and_its_object(world, tmp_path):
    world.store()
    said = world.run("described", documents=DOCUMENTS, check=True)
    assert said["changed"]
    assert not (world.dest / "hello.intoto.json").exists()
    described = world.run("described", documents=DOCUMENTS)
    assert described["changed"]
    assert described["diff"]["after"] == f"{world.dest}/hello.intoto.json {sha256(world.dest / 'hello.intoto.json')}\n"
    assert world.intact()
    assert json.loads((world.dest / "manifest.json").read_text()) == described["artifacts"][0]["manifest"]
    assert not world.run("described", documents=DOCUMENTS)["changed"]
    assert not world.run()["changed"], "the key is the same, and the files are as the manifest says"
    assert world.run(dest=str(tmp_path / "second clone"))["changed"]
    assert (tmp_path / "second clone" / "hello.intoto.json").read_text() == "{}\n"
    assert world.run("described", documents={"hello.intoto.json": "[]\n"})["changed"]
    assert (world.dest / "hello.intoto.json").read_text() == "[]\n"
    assert list((world.cache / "tmp").iterdir()) == []


@pytest.mark.parametrize("damage", [flip, Path.unlink])
def test_a_damaged_document_is_fixed(world, damage):
    world.store()
    world.run("described", documents=DOCUMENTS)
    damage(world.dest / "hello.intoto.json")
    assert world.run(check=True)["changed"]
    assert world.run()["changed"]
    assert (world.dest / "hello.intoto.json").read_text() == "{}\n"


def test_only_a_build_that_is_there_is_described(world):
    assert "does not hold the build" in world.run("described", documents=DOCUMENTS)["msg"]
    world.store()
    flip(world.dest / "hello")
    assert "does not hold the build" in world.run("described", documents=DOCUMENTS)["msg"]
    assert not (world.dest / "hello.intoto.json").exists()
    assert world.run("described", documents=DOCUMENTS, check=True)["changed"], "the run before this would have fixed it"


def test_descriptions_at_the_same_time_agree(world):
    world.store()
    artifact = world.artifact(documents=DOCUMENTS)
    results = fork_modules("build_cache", [{"state": "described", "cache": str(world.cache), "artifacts": [artifact]}] * 4)
    assert [result.get("msg") for result in results] == [None] * 4
    assert sum(result["changed"] for result in results) == 1
    assert not world.run()["changed"]


def test_runs_at_the_same_time_agree(world, tmp_path):
    """Stores and restores of one artifact, first of all with a damaged object: each ends well."""
    world.store()
    flip(world.object / "hello")
    runs = []
    for number in range(6):
        state = {"state": "stored"} if number % 2 else {}
        artifact = world.artifact(source=str(world.source), dest=str(tmp_path / "shared"))
        runs.append({"cache": str(world.cache), "artifacts": [artifact], **state})
    assert [result for result in fork_modules("build_cache", runs) if result["failed"]] == []
    assert not world.run(dest=str(tmp_path / "shared"))["misses"]
    assert sha256(tmp_path / "shared" / "hello") == sha256(world.source / "hello")
    assert list((world.cache / "tmp").iterdir()) == []


def test_the_default_cache_follows_xdg(world, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert fork_module("build_cache", artifacts=[world.artifact()])["cache"] == str(tmp_path / "xdg" / "ggen.gvisor")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert fork_module("build_cache", artifacts=[world.artifact()])["cache"] == str(tmp_path / ".cache" / "ggen.gvisor")
