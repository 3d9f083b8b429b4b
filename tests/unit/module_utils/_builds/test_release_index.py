# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Releases: the same builds give the same bytes, and an index names nothing that lies outside."""

from __future__ import annotations

import copy
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._builds.cache import Cache
from ansible_collections.ggen.gvisor.plugins.module_utils._builds.manifest import Artifact
from ansible_collections.ggen.gvisor.plugins.module_utils._builds.release_index import (
    MAX_FILE,
    MAX_FILES,
    MAX_MANIFEST,
    parsed,
    rows,
    serialized,
    sums_of,
    write,
)

SUM = "0" * 64
MANIFEST = {"sha256": SUM, "size": 10, "mode": "0644"}
BUILD = {"key": SUM, "files": {"runsc": {"sha256": SUM, "size": 5, "mode": "0755"}, "manifest.json": MANIFEST}}
INDEX = {"schema": 1, "releases": {"20260701": {"amd64": BUILD}}, "images": {"26.5.19": {"arm64": {**BUILD, "digest": f"sha256:{SUM}"}}}}


def build(root: Path, folder: str, files: dict[str, bytes], name: str = "") -> str:
    """Build as the roles do, and return the result's folder."""
    source, dest = root / "out" / folder, root / folder
    source.mkdir(parents=True)
    for file, data in files.items():
        (source / file).write_bytes(data)
    metadata = {"digest": f"sha256:{SUM}"} if name == "ggen_image" else {}
    artifact = Artifact(name or f"runsc {folder}", {"folder": folder}, str(dest), source=str(source), metadata=metadata)
    Cache(str(root / "cache")).store(artifact)
    return str(dest)


@pytest.fixture
def builds(tmp_path: Path) -> list[str]:
    return [
        build(tmp_path, "bin/20260701/linux_arm64", {"runsc": b"for arm64", "runsc.cdx.json": b"{}\n"}),
        build(tmp_path, "bin/20260701/linux_amd64", {"runsc": b"for amd64", "runsc.cdx.json": b"{}\n"}),
        build(tmp_path, "dist/26.5.19/linux_amd64", {"ggen.tar": b"an image"}, "ggen_image"),
    ]


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


def test_the_index_leads_to_every_file(tmp_path, builds):
    done = write(str(tmp_path / "release"), builds)
    assert done["changed"]
    index = json.loads((tmp_path / "release" / "index.json").read_bytes())
    assert index == done["index"]
    entry = index["releases"]["20260701"]["arm64"]["files"]["runsc"]
    assert entry["size"] == len(b"for arm64")
    assert index["images"]["26.5.19"]["amd64"]["digest"] == f"sha256:{SUM}"
    listed = [f"{row.folder}/{file}" for row in rows(index) for file in row.files]
    assert names(tmp_path / "release") == sorted([*listed, "SHA256SUMS", "index.json"])
    assert (tmp_path / "release/bin/20260701/linux_arm64/runsc").read_bytes() == b"for arm64"


def test_everybody_s_tool_can_compare(tmp_path, builds):
    write(str(tmp_path / "release"), builds)
    done = subprocess.run(
        ["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=tmp_path / "release", capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    assert "index.json: OK" in done.stdout


def test_the_same_builds_give_the_same_bytes(tmp_path, builds):
    first, second = tmp_path / "first", tmp_path / "second"
    assert write(str(first), builds)["sha256"] == write(str(second), builds[::-1])["sha256"]
    assert names(first) == names(second)
    for name in names(first):
        assert (first / name).read_bytes() == (second / name).read_bytes()
    before = {name: (first / name).stat() for name in names(first)}
    assert write(str(first), builds)["changed"] is False
    assert {name: (first / name).stat().st_ino for name in names(first)} == {name: status.st_ino for name, status in before.items()}


def test_what_is_no_longer_built_goes_and_what_others_have_put_there_stays(tmp_path, builds):
    release = tmp_path / "release"
    write(str(release), builds)
    (release / "robots.txt").write_text("theirs")
    assert write(str(release), builds[1:])["changed"]
    assert not (release / "bin/20260701/linux_arm64").exists()
    assert (release / "bin/20260701/linux_amd64/runsc").exists()
    assert (release / "robots.txt").exists()


def test_a_damaged_file_of_a_release_is_written_anew(tmp_path, builds):
    release = tmp_path / "release"
    write(str(release), builds)
    (release / "bin/20260701/linux_amd64/runsc").write_bytes(b"FOR AMD64")
    assert write(str(release), builds, dry=True)["changed"]
    assert (release / "bin/20260701/linux_amd64/runsc").read_bytes() == b"FOR AMD64"
    assert write(str(release), builds)["changed"]
    assert (release / "bin/20260701/linux_amd64/runsc").read_bytes() == b"for amd64"


def test_nothing_is_written_of_a_build_that_is_not_whole(tmp_path, builds):
    Path(builds[0], "runsc").write_bytes(b"touched")
    with pytest.raises(GvisorError, match=r"runsc in .*linux_arm64 changed since the build"):
        write(str(tmp_path / "release"), builds)
    Path(builds[0], "manifest.json").unlink()
    with pytest.raises(GvisorError, match="holds no build"):
        write(str(tmp_path / "release"), builds)
    assert not (tmp_path / "release").exists()


def test_check_mode_writes_nothing(tmp_path, builds):
    done = write(str(tmp_path / "release"), builds, dry=True)
    assert done["changed"]
    assert not (tmp_path / "release").exists()
    assert write(str(tmp_path / "release"), builds)["sha256"] == done["sha256"]


def test_an_index_is_read_as_it_was_written():
    assert parsed(serialized(INDEX)) == INDEX
    assert [row.folder for row in rows(INDEX)] == ["bin/20260701/linux_amd64", "dist/26.5.19/linux_arm64"]
    assert sums_of(INDEX).decode().count("\n") == 5


def changed(change: Callable[[dict], object]) -> bytes:
    index = copy.deepcopy(INDEX)
    change(index)
    return json.dumps(index).encode()


def renamed(old: str, new: str) -> Callable[[dict], object]:
    def change(index: dict) -> None:
        files = index["releases"]["20260701"]["amd64"]["files"]
        files[new] = files.pop(old)

    return change


def entry(**values: object) -> Callable[[dict], object]:
    return lambda index: index["releases"]["20260701"]["amd64"]["files"]["runsc"].update(values)


HOSTILE = {
    "a name that leads up": renamed("runsc", "../../../etc/passwd"),
    "a name of the folder above": renamed("runsc", ".."),
    "an absolute name": renamed("runsc", "/etc/passwd"),
    "an encoded name": renamed("runsc", "%2e%2e"),
    "a query": renamed("runsc", "runsc?x"),
    "a name with a newline": renamed("runsc", "runsc\n"),
    "a hidden file": renamed("runsc", ".bashrc"),
    "an empty name": renamed("runsc", ""),
    "no manifest": renamed("manifest.json", "other.json"),
    "a release that leads up": lambda index: index["releases"].update({"../../etc": {"amd64": BUILD}}),
    "an architecture that leads up": lambda index: index["releases"]["20260701"].update({"../..": BUILD}),
    "a size below zero": entry(size=-1),
    "a size that is true": entry(size=True),
    "a size in words": entry(size="5"),
    "a file without end": entry(size=MAX_FILE + 1),
    "a set-uid program": entry(mode="4755"),
    "a sum that is none": entry(sha256="x"),
    "another field": entry(url="http://elsewhere"),
    "a manifest without end": lambda index: index["releases"]["20260701"]["amd64"]["files"]["manifest.json"].update(size=MAX_MANIFEST + 1),
    "too many files": lambda index: index["releases"]["20260701"]["amd64"]["files"].update({f"f{n}": MANIFEST for n in range(MAX_FILES)}),
    "a key that is none": lambda index: index["releases"]["20260701"]["amd64"].update(key="../x"),
    "a list": lambda index: index.update(releases=[]),
    "no images": lambda index: index.pop("images"),
    "more than there is": lambda index: index.update(extra={}),
    "another form": lambda index: index.update(schema=2),
}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_index_is_refused(change):
    with pytest.raises(GvisorError):
        parsed(changed(change))


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"\xff", b'{"schema": 1}', b"[" * 100000, b"1" * 5000])
def test_what_is_no_index_is_refused(data):
    with pytest.raises(GvisorError):
        parsed(data)


def test_a_release_keeps_the_modes(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "runsc").write_bytes(b"x")
    (folder / "runsc").chmod(0o755)
    dest = tmp_path / "20260701" / "linux_amd64"
    Cache(str(tmp_path / "cache")).store(Artifact("runsc", {}, str(dest), source=str(folder)))
    write(str(tmp_path / "release"), [str(dest)])
    assert os.access(tmp_path / "release/bin/20260701/linux_amd64/runsc", os.X_OK)
