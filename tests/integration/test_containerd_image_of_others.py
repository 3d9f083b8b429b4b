# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""containerd_image beside what others have in the namespace, and with archives for several platforms, on containerds of four releases."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import oci
from support.containerd import Daemon
from support.containerd_debs import VERSIONS, ensure
from support.module import run_module

TINY = "docker.io/library/tiny:1"
OTHER = "docker.io/library/other:2"
HERE, FOREIGN = f"linux/{oci.ARCH}", f"linux/{oci.FOREIGN_ARCH}"
INDEX = "application/vnd.oci.image.index.v1+json"
_number = itertools.count()


@pytest.fixture(scope="module", params=VERSIONS)
def daemon(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", ensure(request.param).path)
        with Daemon(tmp_path_factory.mktemp("containerd")) as running:
            yield running


@pytest.fixture
def namespace() -> str:
    return f"others{next(_number)}"


def image(daemon: Daemon, namespace: str, **params: object) -> dict:
    return run_module("containerd_image", address=daemon.address, namespace=namespace, **params)


def listed(daemon: Daemon, namespace: str) -> dict[str, str]:
    rows = daemon.ctr("images", "ls", namespace=namespace).stdout.splitlines()[1:]
    return {row.split()[0]: row.split()[2] for row in rows}


def write(tmp_path: Path, entries: dict) -> str:
    path = tmp_path / f"image{next(_number)}.tar"
    path.write_bytes(oci.tar(entries))
    return str(path)


def one(tmp_path: Path, text: str, *names: str, arch: str = oci.ARCH) -> tuple[str, str]:
    """Return an archive whose image has ``names`` in containerd's own annotation, which ctr believes, and its digest."""
    entries, digest = oci.oci_entries(oci.tar({"bin/tool": (text.encode(), 0o755)}), *names, arch=arch)
    entries["index.json"] = entries["index.json"].replace(b"org.opencontainers.image.ref.name", b"io.containerd.image.name")
    return write(tmp_path, entries), digest


def platforms(*arches: str) -> tuple[dict[str, bytes], list[dict], dict[str, bytes]]:
    """Return the blobs of one image for each architecture, their descriptors, and their layers."""
    blobs: dict[str, bytes] = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}
    descriptors, layers = [], {}
    for arch in arches:
        layers[arch] = oci.tar({"bin/tool": (arch.encode(), 0o755)})
        entries, _digest = oci.oci_entries(layers[arch], arch=arch)
        (descriptor,) = json.loads(entries.pop("index.json"))["manifests"]
        descriptors.append({**descriptor, "platform": {"os": "linux", "architecture": arch}})
        blobs.update(entries)
    return blobs, descriptors, layers


def index(name: str, *arches: str, without: tuple[str, ...] = ()) -> tuple[dict[str, bytes], str]:
    """Return an archive's entries with an image index, and its digest; ``without`` are architectures whose blobs are left out."""
    blobs, descriptors, _layers = platforms(*arches)
    data = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": descriptors}).encode()
    if without:
        blobs = platforms(*(arch for arch in arches if arch not in without))[0]
    top = {"mediaType": INDEX, "digest": oci.digest(data), "size": len(data), "annotations": {"io.containerd.image.name": name}}
    blobs.update({oci.blob_name(data): data, "index.json": json.dumps({"schemaVersion": 2, "manifests": [top]}).encode()})
    return blobs, oci.digest(data)


def tool(daemon: Daemon, namespace: str, name: str) -> str:
    """Return what a program of the image says, as it is unpacked."""
    mount = daemon.root / f"mount{next(_number)}"
    mount.mkdir()
    daemon.ctr("images", "mount", name, str(mount), namespace=namespace)
    try:
        return (mount / "bin" / "tool").read_text()
    finally:
        daemon.ctr("images", "unmount", "--rm", str(mount), namespace=namespace)


def test_a_stranger_s_image_for_another_platform_does_not_matter(daemon: Daemon, namespace: str, tmp_path: Path) -> None:
    foreign, foreign_digest = index(OTHER, oci.FOREIGN_ARCH)
    daemon.ctr("images", "import", "--platform", FOREIGN, write(tmp_path, foreign), namespace=namespace)
    archive, digest = one(tmp_path, "mine", TINY)
    for changed in (True, False):
        result = image(daemon, namespace, archive=archive)
        assert (result["failed"], result["changed"]) == (False, changed), result
    assert listed(daemon, namespace) == {OTHER: foreign_digest, TINY: digest}
    assert tool(daemon, namespace, TINY) == "mine"


def test_of_an_index_the_platform_that_is_asked_for(daemon: Daemon, namespace: str, tmp_path: Path) -> None:
    """It has no name more than was asked for, and what is imported later is imported as ever."""
    entries, digest = index(TINY, oci.ARCH, oci.FOREIGN_ARCH)
    options = {"archive": write(tmp_path, entries), "name": [OTHER], "platform": FOREIGN}
    for changed in (True, False):
        result = image(daemon, namespace, **options)
        assert (result["failed"], result["changed"], result["digest"]) == (False, changed, digest), result
        assert result["platforms"] == [HERE, FOREIGN]
        assert listed(daemon, namespace) == {OTHER: digest}
    archive, later = one(tmp_path, "later", TINY)
    assert image(daemon, namespace, archive=archive)["changed"]
    assert not image(daemon, namespace, **options)["changed"]
    assert listed(daemon, namespace) == {OTHER: digest, TINY: later}


def test_what_another_platform_lacks_or_has_damaged_does_not_matter(daemon: Daemon, namespace: str, tmp_path: Path) -> None:
    blobs, digest = index(TINY, oci.ARCH, oci.FOREIGN_ARCH)
    layer = platforms(oci.FOREIGN_ARCH)[2][oci.FOREIGN_ARCH]
    archives = [
        index(TINY, oci.ARCH, oci.FOREIGN_ARCH, without=(oci.FOREIGN_ARCH,))[0],
        {name: data for name, data in blobs.items() if name != oci.blob_name(layer)},
        {**blobs, oci.blob_name(layer): b"damaged"},
    ]
    for number, entries in enumerate(archives):
        name = f"docker.io/library/tiny:{number}"
        result = image(daemon, f"{namespace}-{number}", archive=write(tmp_path, entries), name=[name])
        assert not result["failed"], result
        assert (listed(daemon, f"{namespace}-{number}"), tool(daemon, f"{namespace}-{number}", name)) == ({name: digest}, oci.ARCH)
    foreign = image(daemon, namespace, archive=write(tmp_path, archives[2]), platform=FOREIGN)
    assert "altered or damaged" in foreign["msg"]
    assert listed(daemon, namespace) == {}


def test_two_platforms_under_one_name(daemon: Daemon, namespace: str, tmp_path: Path) -> None:
    entries, descriptors, layers = platforms(oci.FOREIGN_ARCH, oci.ARCH)
    named = [{**one, "annotations": {"io.containerd.image.name": TINY}} for one in descriptors]
    entries["index.json"] = json.dumps({"schemaVersion": 2, "manifests": named}).encode()
    del entries[oci.blob_name(layers[oci.FOREIGN_ARCH])]
    archive = write(tmp_path, entries)
    for options in ({}, {"name": [TINY]}, {"name": [OTHER]}):
        result = image(daemon, namespace, archive=archive, **options)
        assert (result["failed"], result["digest"]) == (False, descriptors[1]["digest"]), result
    assert listed(daemon, namespace) == dict.fromkeys([TINY, OTHER], descriptors[1]["digest"])
    assert tool(daemon, namespace, TINY) == oci.ARCH


@pytest.mark.parametrize("kind", ["oci", "docker"])
def test_the_archive_s_names_stay_where_they_are(daemon: Daemon, namespace: str, tmp_path: Path, kind: str) -> None:
    """Of the whole namespace nothing is another one afterwards but the name that was asked for."""
    host, _digest = one(tmp_path, "the host's", TINY, "docker.io/library/tiny:latest")
    daemon.ctr("images", "import", host, namespace=namespace)
    before = listed(daemon, namespace)
    archive = one(tmp_path, "new", TINY)[0]
    if kind == "docker":
        archive = write(tmp_path, oci.docker_entries(oci.tar({"bin/tool": (b"new", 0o755)}), TINY)[0])
    result = image(daemon, namespace, archive=archive, name=[OTHER])
    assert result["changed"], result
    assert listed(daemon, namespace) == {**before, OTHER: result["digest"]}
    assert (tool(daemon, namespace, TINY), tool(daemon, namespace, OTHER)) == ("the host's", "new")


def test_short_names(daemon: Daemon, namespace: str, tmp_path: Path) -> None:
    archive, digest = one(tmp_path, "short", "tiny:1")
    assert image(daemon, namespace, archive=archive)["names"] == [TINY]
    assert not image(daemon, namespace, archive=archive, name=["tiny:1"])["changed"]
    names = ["tiny", "ggen/tool:2", "localhost/x", "registry:5000/y"]
    full = ["docker.io/library/tiny:latest", "docker.io/ggen/tool:2", "localhost/x:latest", "registry:5000/y:latest"]
    assert image(daemon, namespace, source="tiny:1", name=names)["names"] == full
    assert listed(daemon, namespace) == dict.fromkeys([TINY, *full], digest)
    assert image(daemon, namespace, name=[*names, "tiny:1"], state="absent")["changed"]
    assert listed(daemon, namespace) == {}


def test_what_an_import_that_was_killed_left_goes_with_the_next(daemon: Daemon, namespace: str, tmp_path: Path) -> None:
    archive, digest = one(tmp_path, "killed", "ggen.gvisor/import-0123456789ab:latest")
    daemon.ctr("images", "import", archive, namespace=namespace)
    assert image(daemon, namespace, archive=archive, name=[TINY])["changed"]
    assert listed(daemon, namespace) == {TINY: digest}
