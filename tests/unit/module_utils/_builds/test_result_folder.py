# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs at the same time never see a result's folder half exchanged: one is stopped in the middle, and the other one comes along."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as Late
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ggen.gvisor.plugins.module_utils._builds import cache as caches
from ansible_collections.ggen.gvisor.plugins.module_utils._builds.cache import Cache
from ansible_collections.ggen.gvisor.plugins.module_utils._builds.manifest import MANIFEST, Artifact, read_manifest
from ansible_collections.ggen.gvisor.plugins.module_utils._builds.result_folder import reading, writing
from ansible_collections.ggen.gvisor.plugins.modules import build_fetch, bundle

INPUTS = {"version": "1.2.0"}
DOCUMENTS = {"hello.intoto.json": "{}\n"}


class Stop:
    """The first call of the function that it replaces waits: ``reached`` says that it is there, ``go`` lets it on."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.reached, self.go = threading.Event(), threading.Event()

    def __call__(self, *arguments: Any) -> Any:
        if not self.reached.is_set():
            self.reached.set()
            assert self.go.wait(30)
        return self.function(*arguments)


class World:
    """A build that is in the cache and in its place."""

    def __init__(self, root: Path) -> None:
        self.root, self.dest, self.cache = root, root / "bin" / "20990101" / "linux_amd64", Cache(str(root / "cache"))
        source = root / "source"
        source.mkdir()
        (source / "hello").write_text("hello\n")
        self.artifact = Artifact(name="hello", inputs=INPUTS, dest=str(self.dest), source=str(source))
        self.cache.store(self.artifact)

    def describe(self) -> dict[str, Any]:
        return self.cache.describe(self.artifact._replace(documents=DOCUMENTS))


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def pool():
    with ThreadPoolExecutor(2) as threads:
        yield threads


def waits(future: Future) -> bool:
    """Tell whether the other run is still waiting after a moment in which it would have ended long ago."""
    try:
        future.result(timeout=0.5)
    except Late:
        return True
    return False


@pytest.mark.parametrize("where", ["_copy", "_write_manifest"], ids=["before the document is there", "before the manifest is"])
def test_a_run_that_looks_while_another_one_writes_the_documents(world, pool, monkeypatch, where):
    """It used to find no manifest, to bring the object without documents, and so to take away those that the first was about to keep."""
    stop = Stop(getattr(caches, where))
    monkeypatch.setattr(caches, where, stop)
    first = pool.submit(world.describe)
    assert stop.reached.wait(30)
    assert (world.dest / MANIFEST).exists(), "who reads the manifest alone finds one that is true"
    second = pool.submit(world.cache.restore, world.artifact)
    waited = waits(second)
    stop.go.set()
    assert first.result(30)["changed"]
    assert waited
    assert second.result(30)["hit"]
    assert (second.result()["changed"], set(second.result()["files"])) == (False, {"hello", "hello.intoto.json"})
    assert (world.dest / "hello.intoto.json").read_text() == "{}\n"
    shutil.rmtree(world.dest)
    assert set(world.cache.restore(world.artifact)["files"]) == {"hello", "hello.intoto.json"}, "and the cache has them, too"


def test_a_run_that_was_about_to_bring_the_object_finds_what_another_one_brought(world, pool, monkeypatch):
    """It has looked, and found nothing: by the time that it may write, the folder is there with its documents."""
    shutil.rmtree(world.dest)
    stop = Stop(caches.writing)
    monkeypatch.setattr(caches, "writing", stop)
    second = pool.submit(world.cache.restore, world.artifact)
    assert stop.reached.wait(30)
    monkeypatch.setattr(caches, "writing", writing)
    other = Cache(str(world.root / "another cache"))  # its locks on objects are not ours
    other.store(world.artifact)
    other.describe(world.artifact._replace(documents=DOCUMENTS))
    stop.go.set()
    assert (second.result(30)["changed"], set(second.result()["files"])) == (False, {"hello", "hello.intoto.json"})


def test_an_object_that_is_being_exchanged_is_no_miss(world, pool, monkeypatch):
    """Documents join an object as a new one in its place; between the old and the new one there is none."""
    shutil.copytree(world.dest, world.root / "described" / "dest")
    stop = Stop(caches.os.rename)
    monkeypatch.setattr(caches.Cache, "_discard", lambda _self, folder: shutil.rmtree(folder))
    monkeypatch.setattr(caches.os, "rename", stop)
    artifact = world.artifact._replace(dest=str(world.root / "described" / "dest"), documents=DOCUMENTS)
    first = pool.submit(world.cache.describe, artifact)
    assert stop.reached.wait(30)
    shutil.rmtree(world.dest)
    second = pool.submit(world.cache.restore, world.artifact)
    assert waits(second)
    stop.go.set()
    assert first.result(30)["changed"]
    assert second.result(30)["hit"]


def packed(world: World) -> None:
    """Pack the build as a bundle does."""
    folders = {part: str(world.root / part) for part in ("bin", "dist", "packages")}
    bundle.packed({"path": str(world.root / "bundle.tar"), "version": "1", "contents": ["bin/20990101/linux_amd64"]}, folders, dry=False)


READERS: dict[str, Callable[[World], Any]] = {
    "build_fetch": lambda world: build_fetch.pack(str(world.root / "out.tar.gz"), [{"name": "hello", "source": str(world.dest)}]),
    "build_cache": lambda world: world.cache.restore(world.artifact),
    "build_cache in check mode": lambda world: Cache(world.cache.root, dry=True).restore(world.artifact),
    "build_cache describes": World.describe,
    "bundle": packed,
}


@pytest.mark.parametrize("reader", READERS)
def test_readers_wait_for_a_writer(world, pool, reader):
    with writing(str(world.dest)):
        other = pool.submit(READERS[reader], world)
        assert waits(other)
    other.result(30)


def test_readers_do_not_wait_for_each_other(world, pool):
    with reading(str(world.dest)):
        assert pool.submit(world.cache.restore, world.artifact).result(30)["hit"]


def test_a_folder_that_was_made_anew_is_locked_anew(world, pool):
    """A lock on what is no longer at the path would keep nobody away."""
    entered = threading.Event()

    def second() -> None:
        with writing(str(world.dest)):
            entered.set()

    with writing(str(world.dest)):
        other = pool.submit(second)
        assert not entered.wait(0.3)
        shutil.move(world.dest, world.root / "gone")
        world.dest.mkdir()
        with writing(str(world.dest)):
            pass
    other.result(30)
    assert read_manifest(str(world.dest)) is None


def test_nothing_is_made_by_a_look(world, tmp_path):
    with reading(str(tmp_path / "none"), str(world.dest / "hello")):
        pass
    assert not (tmp_path / "none").exists()
