# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Builds from a release, by a real server on this machine: the bytes of a source build, or none.

Most tests take a made-up build, so that a server can be hostile in milliseconds; the last ones take gVisor and ggen with the roles.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import sys
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._builds import download
from ansible_collections.ggen.gvisor.plugins.module_utils._builds.cache import Cache
from ansible_collections.ggen.gvisor.plugins.module_utils._builds.manifest import Artifact
from ansible_collections.ggen.gvisor.plugins.module_utils._builds.release_index import write
from ansible_collections.ggen.gvisor.plugins.plugin_utils._builds.taken import Release, take
from conftest import ROOT
from support.http import serving
from support.module import run_module
from support.playbook import Play, play

PROGRAM = bytes(range(256)) * 4000
RUNSC = "bin/20260701/linux_amd64/runsc"
PROVENANCE = '{"made": "here"}\n'
Answer = Callable[[BaseHTTPRequestHandler], object]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class World:
    """A build, a release of it, a server whose answers a test changes, and the empty cache of somebody who takes it."""

    def __init__(self, root: Path) -> None:
        self.root, self.release, self.cache, self.dest = root, root / "release", root / "cache", root / "taken/20260701/linux_amd64"
        self.built = root / "bin/20260701/linux_amd64"
        self.answers: dict[str, bytes | Answer | None] = {}
        self.artifact = Artifact("runsc 20260701/amd64", {"go": "1"}, str(self.dest), {"runsc": sha256(PROGRAM)})
        self.build()

    def build(self, program: bytes = PROGRAM, provenance: str = PROVENANCE, **metadata: object) -> None:
        """Build, as a role does, and write the release."""
        for folder in (self.root / "out", self.built, self.release, self.root / "built"):
            shutil.rmtree(folder, ignore_errors=True)
        (self.root / "out").mkdir()
        (self.root / "out/runsc").write_bytes(program)
        (self.root / "out/runsc").chmod(0o755)
        artifact = self.artifact._replace(
            expected={}, dest=str(self.built), source=str(self.root / "out"), metadata={"release": "20260701", **metadata}
        )
        Cache(str(self.root / "built")).store(artifact)
        Cache(str(self.root / "built")).describe(artifact._replace(documents={"runsc.intoto.json": provenance}))
        self.sha256 = write(str(self.release), [str(self.built)])["sha256"]

    def answer(self, path: str) -> bytes | Answer | None:
        name = path.removeprefix("/sub").removeprefix("/")
        if name in self.answers:
            return self.answers[name]
        file = self.release / name
        return file.read_bytes() if file.is_file() else None

    def take(self, url: str, *, dry: bool = False, sum_of_index: str = "", artifacts: list[Artifact] | None = None) -> list[dict]:
        release = Release(url, sum_of_index or self.sha256)
        wanted = [self.artifact] if artifacts is None else artifacts
        told: list[str] = []
        done = take(release, wanted, str(self.cache), lambda _manifest: {"runsc.intoto.json": PROVENANCE}, dry=dry, tell=told.append)
        assert dry or told
        return done

    @property
    def nothing_taken(self) -> bool:
        """Whether neither a file nor a half one is anywhere."""
        return not self.dest.exists() and [path for path in self.cache.rglob("*") if path.is_file()] == []


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def tree(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {str(path.relative_to(folder)): (path.stat().st_mode, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("kind", ["http", "a folder below", "file", "path"])
def test_what_is_taken_is_what_was_built(world, kind):
    with serving(world.answer) as (address, asked):
        url = {"http": address, "a folder below": f"{address}/sub/", "file": world.release.as_uri(), "path": str(world.release)}[kind]
        (done,) = world.take(url)
        assert done["changed"]
        assert tree(world.dest) == tree(world.built)
        # The cache holds what a build here would have left there.
        assert tree(world.cache / "objects") == tree(world.root / "built/objects")
        assert world.take(url)[0]["changed"] is False
        assert bool(asked) is url.startswith("http:")


def test_check_mode_reads_and_writes_nothing(world):
    with serving(world.answer) as (address, asked):
        (done,) = world.take(address, dry=True)
    assert done["changed"]
    assert world.nothing_taken
    assert f"/{RUNSC}" not in asked
    assert done["after"]["runsc"] == sha256(PROGRAM)


def length(size: int, data: bytes) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(size))
        handler.end_headers()
        handler.wfile.write(data)
        handler.close_connection = True

    return answer


def without_length(data: bytes) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(data)
        handler.close_connection = True

    return answer


def redirect(target: str, code: int = 302) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(code)
        handler.send_header("Location", target)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


def raw(data: bytes) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(data)
        handler.close_connection = True

    return answer


def reset(handler: BaseHTTPRequestHandler) -> None:
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    handler.close_connection = True


OTHER = b"X" + PROGRAM[1:]
HOSTILE = {
    "missing": (None, "answers 404"),
    "an error of the server": (raw(b"HTTP/1.0 500 no\r\n\r\n"), "answers 500"),
    "half of it": (raw(b"HTTP/1.0 206 Partial Content\r\n\r\n" + PROGRAM[:100]), "ends after 100 of"),
    "changed bytes": (OTHER, "has the sha256"),
    "truncated, as it says": (PROGRAM[:-1], "has 1023999 bytes and 1024000 are expected"),
    "truncated, and it says more": (length(len(PROGRAM), PROGRAM[:-1]), "ends after|IncompleteRead"),
    "truncated, and it says nothing": (without_length(PROGRAM[:-1]), "ends after 1023999 of 1024000 bytes"),
    "longer, as it says": (PROGRAM + b"X", "has 1024001 bytes and 1024000 are expected"),
    "longer, and it says nothing": (without_length(PROGRAM + b"X"), "more than the 1024000 bytes"),
    "longer than it says": (length(10, PROGRAM), "has 10 bytes"),
    "a length that is none": (raw(b"HTTP/1.0 200 OK\r\nContent-Length: -5\r\n\r\n"), "ends after 0"),
    "another protocol": (raw(b"220 ftp ready\r\n"), "does not answer as one does"),
    "headers without end": (raw(b"HTTP/1.0 200 OK\r\n" + b"a: b\r\n" * 200), "does not answer as one does"),
    "nothing": (raw(b""), "failed|cannot be reached|does not answer"),
    "a reset": (reset, "failed|cannot be reached|does not answer"),
    "to a file": (redirect("file:///etc/passwd"), "answers 302 .*file:///etc/passwd"),
    "to ftp": (redirect("ftp://127.0.0.1/x"), "answers 302 .*not followed"),
    "to data": (redirect("data:text/plain,x"), "answers 302 .*data:"),
    "to itself": (redirect(RUNSC.rpartition("/")[2]), "answers 302"),
    "to another file": (redirect("runsc.intoto.json"), "has 17 bytes and 1024000 are expected"),
}


@pytest.mark.parametrize(("answer", "said"), HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_server_gets_nothing_filed(world, answer, said):
    world.answers[RUNSC] = answer
    with serving(world.answer) as (address, _asked), pytest.raises(GvisorError, match=said) as refused:
        world.take(address)
    assert RUNSC in refused.value.message
    assert "Nothing was taken from the release" in refused.value.message
    assert world.nothing_taken


def test_a_redirect_of_the_web_s_own_is_followed(world):
    with serving(world.answer) as (other, _asked):
        world.answers["elsewhere"] = PROGRAM
        mirror = {"index.json": world.answer("index.json")}
        with serving(lambda path: mirror.get(path[1:], redirect(f"{other}{path}"))) as (address, _theirs):
            assert world.take(address)[0]["changed"]


def test_one_bad_file_keeps_all_of_the_builds_away(world):
    """Two builds, the second of which is damaged: the first is not filed either."""
    other = world.root / "bin/20260701/linux_arm64"
    artifact = world.artifact._replace(name="runsc 20260701/arm64", inputs={"go": "2"}, dest=str(other), expected={})
    source = world.root / "out"
    Cache(str(world.root / "built")).store(artifact._replace(source=str(source)))
    Cache(str(world.root / "built")).describe(artifact._replace(documents={"runsc.intoto.json": PROVENANCE}))
    world.sha256 = write(str(world.release), [str(world.built), str(other)])["sha256"]
    wanted = [world.artifact, artifact._replace(dest=str(world.root / "taken/20260701/linux_arm64"))]
    world.answers["bin/20260701/linux_arm64/runsc"] = OTHER
    with serving(world.answer) as (address, asked), pytest.raises(GvisorError, match=r"linux_arm64/runsc has the sha256"):
        world.take(address, artifacts=wanted)
    assert f"/{RUNSC}" in asked
    assert world.nothing_taken


def drip(handler: BaseHTTPRequestHandler) -> None:
    """Answer a byte at a time, for longer than anybody waits."""
    handler.send_response(200)
    handler.end_headers()
    for _second in range(100):
        handler.wfile.write(b"x")
        time.sleep(0.1)


def drip_headers(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.0 200 OK\r\nX: ")
    for _second in range(100):
        handler.wfile.write(b"x")
        handler.wfile.flush()
        time.sleep(0.1)


@pytest.mark.parametrize("slow", [drip, drip_headers])
def test_a_slow_server_is_left(world, monkeypatch, slow):
    monkeypatch.setattr(download, "PATIENCE", 1)
    world.answers[RUNSC] = slow
    begin = time.monotonic()
    with serving(world.answer) as (address, _asked):
        with pytest.raises(GvisorError, match="which is too slow"):
            world.take(address)
        assert time.monotonic() - begin < 5
    assert world.nothing_taken


def test_a_silent_server_is_left(world, monkeypatch):
    monkeypatch.setattr(download, "SILENCE", 1)
    world.answers[RUNSC] = lambda _handler: time.sleep(4)
    with serving(world.answer) as (address, _asked), pytest.raises(GvisorError, match=r"timed out|cannot be reached"):
        world.take(address)
    assert world.nothing_taken


def test_the_index_is_the_root_of_trust(world):
    with serving(world.answer) as (address, asked):
        for sums in ("", "abc", "0" * 63):
            with pytest.raises(GvisorError, match="Set gvisor_release_sha256"):
                Release(address, sums)
        with pytest.raises(GvisorError, match="Set gvisor_release_url"):
            Release("", world.sha256)
        assert asked == []
        with pytest.raises(GvisorError, match=r"index\.json has the sha256"):
            world.take(address, sum_of_index="0" * 64)
        assert asked == ["/index.json"]
        world.answers["index.json"] = None
        with pytest.raises(GvisorError, match=r"index\.json: the server answers 404"):
            world.take(address)
        world.answers["index.json"] = without_length(b" " * (2 << 20))
        with pytest.raises(GvisorError, match="more than the 1048576 bytes"):
            world.take(address)
    assert world.nothing_taken


def test_an_index_that_leads_elsewhere_is_refused_whoever_vouches_for_it(world):
    """Its maker is hostile: the sum is right, and a name leads to a file beside the release."""
    (world.root / "secret").write_bytes(PROGRAM)
    index = json.loads((world.release / "index.json").read_bytes())
    files = index["releases"]["20260701"]["amd64"]["files"]
    files["../../../../secret"] = files["runsc"]
    world.answers["index.json"] = json.dumps(index).encode()
    with serving(world.answer) as (address, asked), pytest.raises(GvisorError, match=r"no name of a build's file"):
        world.take(address, sum_of_index=sha256(world.answers["index.json"]))
    assert asked == ["/index.json"]
    assert world.nothing_taken


def test_other_programs_than_the_pinned_ones_are_refused_whoever_vouches_for_them(world):
    world.build(OTHER)
    with serving(world.answer) as (address, asked), pytest.raises(GvisorError, match="other programs than everybody's build gives"):
        world.take(address)
    assert f"/{RUNSC}" not in asked
    assert world.nothing_taken


def test_other_provenance_is_refused_whoever_vouches_for_it(world):
    world.build(provenance='{"made": "elsewhere"}\n')
    with serving(world.answer) as (address, asked), pytest.raises(GvisorError, match="the release's provenance is not what follows"):
        world.take(address)
    assert f"/{RUNSC}" not in asked
    assert world.nothing_taken


def test_what_the_manifest_tells_besides_must_be_what_the_pins_say(world):
    world.build(modules={"made.up/score@v1": "h1:x"})
    with serving(world.answer) as (address, _asked), pytest.raises(GvisorError, match="its modules is not what the pins"):
        world.take(address, artifacts=[world.artifact._replace(metadata={"release": "20260701", "modules": {}})])
    assert world.nothing_taken


def test_a_manifest_that_the_index_vouches_for_must_fit(world):
    place = world.release / "bin/20260701/linux_amd64/manifest.json"
    manifest = json.loads(place.read_bytes())
    manifest["made_from"]["inputs"]["go"] = "2"
    for text in (json.dumps(manifest), "{}", "[", '{"key": 1}'):
        data = text.encode()
        index = json.loads((world.release / "index.json").read_bytes())
        index["releases"]["20260701"]["amd64"]["files"]["manifest.json"] = {"sha256": sha256(data), "size": len(data), "mode": "0644"}
        world.answers["index.json"] = json.dumps(index).encode()
        world.answers["bin/20260701/linux_amd64/manifest.json"] = data
        with serving(world.answer) as (address, _asked), pytest.raises(GvisorError, match="does not fit"):
            world.take(address, sum_of_index=sha256(world.answers["index.json"]))
    assert world.nothing_taken


def test_a_missing_architecture_and_other_inputs_are_named(world):
    arm = world.artifact._replace(name="runsc 20260701/arm64", inputs={"go": "2"}, dest=str(world.root / "taken/20260701/linux_arm64"))
    other = world.artifact._replace(inputs={"go": "3"})
    with serving(world.answer) as (address, asked):
        with pytest.raises(GvisorError, match=r"has no runsc 20260701/arm64 .*; it has 20260701/amd64\. Name a release that has it"):
            world.take(address, artifacts=[world.artifact, arm])
        with pytest.raises(GvisorError, match="made from other pins or options"):
            world.take(address, artifacts=[other])
        assert set(asked) == {"/index.json"}
    assert world.nothing_taken


# A bundle by its address


def test_a_bundle_comes_from_a_server(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    world = World(tmp_path)
    folders = {part: str(tmp_path / part) for part in ("bin", "dist", "packages")}
    made = run_module("bundle", state="packed", path=str(tmp_path / "b.tar"), contents=["bin/20260701/linux_amd64"], version="1", **folders)
    data = Path(made["path"]).read_bytes()
    dest = {part: str(tmp_path / "dest" / part) for part in ("bin", "dist", "packages")}
    kept = tmp_path / "cache/ggen.gvisor/bundles" / f"{made['sha256']}.tar"
    files = {"/b.tar": data, "/short.tar": data[:-512], "/elsewhere.tar": redirect("file:///etc/passwd")}
    with serving(files.get) as (address, asked):

        def unpack(name: str, sum_of: str = made["sha256"], **options: object) -> dict:
            return run_module("bundle", state="unpacked", path=f"{address}/{name}", sha256=sum_of, **dest, **options)

        for name, said in (("missing.tar", "404"), ("short.tar", "has the sha256"), ("elsewhere.tar", "file:///etc/passwd")):
            refused = unpack(name)
            assert refused["failed"]
            assert said in refused["msg"]
            assert "Nothing was unpacked" in refused["msg"]
        assert "gvisor_bundle_sha256" in unpack("b.tar", "")["msg"]
        assert not (tmp_path / "dest").exists()
        assert unpack("b.tar", check=True)["changed"]
        assert list((tmp_path / "cache").rglob("*.tar")) == []
        assert not (tmp_path / "dest").exists()
        assert unpack("b.tar")["changed"]
        assert kept.read_bytes() == data
        assert tree(tmp_path / "dest/bin/20260701/linux_amd64") == tree(world.built)
        asked.clear()
        assert unpack("b.tar")["changed"] is False
        assert asked == []
        kept.write_bytes(b"damaged")
        assert unpack("b.tar")["changed"] is False
        assert kept.read_bytes() == data
    assert run_module("bundle", state="unpacked", path=Path(made["path"]).as_uri(), **dest)["changed"] is False


# The roles


def build(tmp_path: Path, *options: str, **variables: object) -> Play:
    places = {"runsc_build_dest": f"{tmp_path}/bin", "ggen_build_dest": f"{tmp_path}/dist"}
    caches = {"runsc_build_cache": f"{tmp_path}/cache", "ggen_build_cache": f"{tmp_path}/cache"}
    sources = {"runsc_build_source": "release", "ggen_build_source": "release"}
    return play("playbooks/release.yml", *options, **places, **caches, **sources, runsc_build_release="20260224", **variables)


def tools_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave Python in PATH, and what Ansible's own connection needs: no compiler, no cargo, no go, no buildah."""
    folder = tmp_path / "programs"
    folder.mkdir()
    for name in ("sh", "uname", "env", "cat", "rm", "mkdir", "chmod", "id"):
        (folder / name).symlink_to(shutil.which(name) or name)
    monkeypatch.setenv("PATH", str(folder))


def test_the_roles_take_what_a_source_build_gives_and_need_python_alone(tmp_path, monkeypatch):
    """The checkout's own builds, made from sources, are the release; the cache that is filled is another, empty one."""
    source = [ROOT / "bin/20260224/linux_amd64", ROOT / "dist/26.5.19/linux_amd64"]
    assert os.uname().machine == "x86_64"
    assert all(folder.is_dir() for folder in source), "build first: ansible-playbook tests/build.yml"
    made = write(str(tmp_path / "first"), [str(folder) for folder in source])
    tools_gone(tmp_path, monkeypatch)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    answers = {f"/{path.relative_to(tmp_path / 'first')}": path for path in (tmp_path / "first").rglob("*") if path.is_file()}
    with serving(lambda path: answers[path].read_bytes() if path in answers else None) as (address, asked):
        named = {"gvisor_release_url": address, "gvisor_release_sha256": made["sha256"], "gvisor_release_dest": f"{tmp_path}/second"}
        checked = build(tmp_path, "--check", **named)
        assert checked.rc == 0, checked.output
        assert {path.name for path in tmp_path.iterdir()} & {"bin", "dist", "second"} == set()
        begin = time.monotonic()
        done = build(tmp_path, **named)
        seconds = time.monotonic() - begin
        assert done.rc == 0, done.output
        asked.clear()
        again = build(tmp_path, **named)
        assert again.rc == 0, again.output
        assert again.changed == []
        assert asked == []
    for folder in source:
        assert tree(tmp_path / folder.relative_to(ROOT)) == tree(folder)
    # A release of what came from a release is the same one.
    assert tree(tmp_path / "second") == tree(tmp_path / "first")
    print(f"took {made['size']} bytes and wrote them again in {seconds:.0f} s", file=sys.stderr)


def test_the_roles_refuse_a_release_before_anything_is_written(tmp_path):
    made = write(str(tmp_path / "release"), [str(ROOT / "bin/20260224/linux_amd64")])
    for variables, said in (
        ({}, "Set gvisor_release_url"),
        ({"gvisor_release_url": f"{tmp_path}/release", "gvisor_release_sha256": made["sha256"]}, "has no ggen_image (26.5.19/amd64)"),
    ):
        done = build(tmp_path, **variables)
        assert done.rc != 0
        assert said in done.errors
        assert not (tmp_path / "bin").exists()
