# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Results of a build host: what differs from its manifest, from the inputs or from the expected sums is not filed.

The module packs for real; the way over SSH is tested by tests/e2e/test_lab_build_host.py.
"""

from __future__ import annotations

import copy
import hashlib
import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._builds.manifest import Artifact, read_manifest
from ansible_collections.ggen.gvisor.plugins.modules.build_fetch import pack
from ansible_collections.ggen.gvisor.plugins.plugin_utils._builds.received import store
from ansible_collections.ggen.gvisor.plugins.plugin_utils._gvisor.releases import build_share
from support.module import fork_module

INPUTS = {"version": "1.2.0", "flags": ["-trimpath"]}


class World:
    """A build host's result, and a controller that has nothing."""

    def __init__(self, root: Path) -> None:
        self.root, self.there, self.dest, self.cache = root, root / "host" / "builds", root / "bin", root / "cache"
        source = root / "built"
        (source / "lib").mkdir(parents=True)
        (source / "hello").write_bytes(os.urandom(5000))
        (source / "hello").chmod(0o755)
        (source / "lib" / "data").write_text("data\n")
        self.expected = {"hello": hashlib.sha256((source / "hello").read_bytes()).hexdigest()}
        artifact = {"name": "hello", "inputs": INPUTS, "dest": str(self.there), "source": str(source), "metadata": {"digest": "sha256:1"}}
        assert fork_module("build_cache", state="stored", cache=str(root / "host" / "cache"), artifacts=[artifact])["changed"]
        self.archive = root / "builds.tar.gz"
        self.manifests = pack(str(self.archive), [{"name": "hello", "source": str(self.there)}])

    def store(self, **changes: object) -> list[dict]:
        values = {"name": "hello", "inputs": INPUTS, "dest": str(self.dest), "source": str(self.there), **changes}
        return store(str(self.archive), [Artifact(**values)], self.manifests, str(self.cache), "builder")

    def rewrite(self, change: Callable[[tarfile.TarInfo, bytes], tuple[tarfile.TarInfo, bytes] | None]) -> None:
        """Have the build host send something else."""
        with tarfile.open(self.archive) as archive:
            entries = [(member, archive.extractfile(member).read()) for member in archive]
        with tarfile.open(self.archive, "w:gz") as archive:
            for member, data in entries:
                changed = change(member, data)
                if changed:
                    archive.addfile(changed[0], io.BytesIO(changed[1]))

    def nothing_filed(self) -> bool:
        return not self.dest.exists() and not (self.cache / "objects").exists() and os.listdir(self.cache / "tmp") == []


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_the_controller_gets_the_same_files_and_the_same_manifest(world: World) -> None:
    (result,) = world.store(expected=world.expected)
    assert (result["changed"], result["hit"]) == (True, True)
    assert read_manifest(str(world.dest)) == read_manifest(str(world.there))
    assert (world.dest / "hello").read_bytes() == (world.there / "hello").read_bytes()
    assert os.access(world.dest / "hello", os.X_OK)
    assert not os.access(world.dest / "lib" / "data", os.X_OK)
    assert os.listdir(world.cache / "tmp") == []
    found = fork_module(
        "build_cache", cache=str(world.cache), artifacts=[{"name": "hello", "inputs": INPUTS, "dest": str(world.root / "other")}]
    )
    assert found["misses"] == [], "its cache has it for good"
    assert not world.store()[0]["changed"]


def flip(member: tarfile.TarInfo, data: bytes) -> tuple[tarfile.TarInfo, bytes]:
    return member, bytes([data[0] ^ 1]) + data[1:]


def rename(member: tarfile.TarInfo, data: bytes) -> tuple[tarfile.TarInfo, bytes]:
    member.name = "0/../../evil"
    return member, data


def link(member: tarfile.TarInfo, data: bytes) -> tuple[tarfile.TarInfo, bytes]:
    member.type, member.linkname, member.size = tarfile.SYMTYPE, "/etc/passwd", 0
    return member, b""


def longer(member: tarfile.TarInfo, data: bytes) -> tuple[tarfile.TarInfo, bytes]:
    member.size += 1
    return member, data + b"x"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (flip, "came from builder other than its manifest says"),
        (rename, "'0/../../evil'"),
        (link, "entry .0/hello. is no file"),
        (longer, "which no manifest lists so"),
        (lambda _member, _data: None, "builder did not send 0/hello, 0/lib/data"),
    ],
)
def test_what_its_manifest_does_not_say_is_refused(world: World, change: Callable, message: str) -> None:
    world.rewrite(change)
    with pytest.raises(GvisorError, match=message):
        world.store()
    assert world.nothing_filed()
    assert not (world.root / "evil").exists()


def test_a_part_of_the_archive_is_refused(world: World) -> None:
    world.archive.write_bytes(world.archive.read_bytes()[:-200])
    with pytest.raises(GvisorError, match="damaged"):
        world.store()
    assert world.nothing_filed()


def test_another_build_is_refused(world: World) -> None:
    with pytest.raises(GvisorError, match="built from other inputs"):
        world.store(inputs={"version": "1.3.0"})
    with pytest.raises(GvisorError, match="is not the expected one"):
        world.store(expected={"hello": "0" * 64})
    assert world.nothing_filed()


@pytest.mark.parametrize(
    "damage",
    [
        lambda manifest: manifest.update(key="0" * 64),
        lambda manifest: manifest["made_from"]["inputs"].update(version="1.2.1"),
        lambda manifest: manifest["files"].update({"../evil": manifest["files"]["hello"]}),
        lambda manifest: manifest.pop("files"),
    ],
)
def test_a_manifest_that_is_none_is_refused(world: World, damage: Callable) -> None:
    world.manifests = copy.deepcopy(world.manifests)
    damage(world.manifests[0])
    with pytest.raises(GvisorError, match="manifest that builder sent is damaged"):
        world.store()


def test_the_build_host_refuses_what_changed_since_the_build(world: World) -> None:
    artifacts = [{"name": "hello", "inputs": INPUTS, "source": str(world.there), "dest": "/nowhere"}]
    assert fork_module("build_fetch", artifacts=artifacts)["manifests"] == world.manifests
    (world.there / "lib" / "data").write_text("other\n")
    assert "lib/data in " in fork_module("build_fetch", artifacts=artifacts)["msg"]
    (world.there / "manifest.json").unlink()
    assert "no build with a manifest of its own" in fork_module("build_fetch", artifacts=artifacts)["msg"]


def test_several_build_hosts_make_each_build_once() -> None:
    wanted = {"one": ["a", "b", "c"], "two": ["a", "b", "c"], "three": ["d"], "four": []}
    shares = {host: build_share(wanted, host) for host in wanted}
    assert shares == {"one": ["a", "c"], "two": ["b"], "three": ["d"], "four": []}
    assert build_share({"one": ["a", "b"]}, "one") == ["a", "b"]
