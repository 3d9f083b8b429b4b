# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The archive reader: good archives, and every hostile or broken one that we could think of."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from pathlib import Path

import pytest
from ansible_collections.ggen.gvisor.plugins.module_utils._base import tar as _tar
from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._containerd import image_archive as _oci_archive
from ansible_collections.ggen.gvisor.plugins.module_utils._containerd.image_archive import Archive, host_platform, platform_fits
from support import oci

REF = "docker.io/library/tool:1"
LAYER = oci.tar({"bin/tool": (b"#!tool", 0o755)})


def write(tmp_path: Path, entries: dict, cut: int | None = None) -> str:
    path = tmp_path / "image.tar"
    path.write_bytes(oci.tar(entries)[:cut])
    return str(path)


def read(path: str) -> list:
    with Archive(path) as archive:
        images = archive.images()
        for image in images:
            archive.verify(image)
        return images


def refusal(path: str) -> str:
    with pytest.raises(GvisorError) as caught:
        read(path)
    assert path in caught.value.message
    return caught.value.message


def test_oci_archive(tmp_path: Path) -> None:
    entries, digest = oci.oci_entries(LAYER, REF, "docker.io/library/tool:latest")
    (image,) = read(write(tmp_path, entries))
    assert image.names == [REF, "docker.io/library/tool:latest"]
    assert image.digest == digest
    assert image.platforms == [f"linux/{oci.ARCH}"]


def test_nameless_archive(tmp_path: Path) -> None:
    (image,) = read(write(tmp_path, oci.oci_entries(LAYER)[0]))
    assert image.names == []


def test_compressed_archive(tmp_path: Path) -> None:
    entries, digest = oci.oci_entries(LAYER, REF)
    path = tmp_path / "image.tar.gz"
    path.write_bytes(gzip.compress(oci.tar(entries)))
    assert read(str(path))[0].digest == digest


def test_docker_archive(tmp_path: Path) -> None:
    entries, config = oci.docker_entries(LAYER, REF)
    (image,) = read(write(tmp_path, entries))
    assert (image.names, image.digest, image.variants[0].config_digest) == ([REF], None, config)


def test_docker_archive_with_a_layer_linked_to_another(tmp_path: Path) -> None:
    """`docker save` of older versions writes the second of two equal layers as a link to the first."""
    entries, _config = oci.docker_entries(LAYER, REF)
    layer = next(name for name in entries if name.endswith("/layer.tar"))
    manifest = json.loads(entries["manifest.json"])
    manifest[0]["Layers"].append("other/layer.tar")
    linked = {**entries, "manifest.json": json.dumps(manifest).encode(), "other/layer.tar": f"../{layer}"}
    assert read(write(tmp_path, linked))[0].names == [REF]


def test_index_of_platforms(tmp_path: Path) -> None:
    entries: dict = {}
    children = []
    for arch in ("amd64", "arm64"):
        some, digest = oci.oci_entries(LAYER, arch=arch)
        entries.update(some)
        children.append({"digest": digest, "size": len(some[f"blobs/sha256/{digest[7:]}"])})
    index = json.dumps({"schemaVersion": 2, "manifests": children}).encode()
    top = {
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "digest": oci.digest(index),
        "size": len(index),
        "annotations": {"io.containerd.image.name": REF},
    }
    entries.update({oci.blob_name(index): index, "index.json": json.dumps({"manifests": [top]}).encode()})
    (image,) = read(write(tmp_path, entries))
    assert image.platforms == ["linux/amd64", "linux/arm64"]
    assert image.digest == oci.digest(index)


def test_what_is_wrong_with_one_platform_is_noted_in_it(tmp_path: Path) -> None:
    good, _digest = oci.oci_entries(LAYER, REF)
    bad, digest = oci.oci_entries(LAYER, REF, arch=oci.FOREIGN_ARCH)
    manifests = [*json.loads(bad["index.json"])["manifests"], *json.loads(good["index.json"])["manifests"]]
    entries = {**bad, **good, "index.json": json.dumps({"manifests": manifests}).encode(), f"blobs/sha256/{digest[7:]}": b"{}"}
    with Archive(write(tmp_path, entries)) as archive:
        broken, whole = archive.images()
        assert [variant.problem for variant in whole.variants] == [""]
        assert "does not have the digest" in broken.variants[0].problem
        assert archive.verify(whole)
        with pytest.raises(GvisorError, match="does not have the digest"):
            archive.verify(broken)


@pytest.mark.parametrize("entries", [oci.oci_entries(LAYER, REF, "b:1")[0], oci.docker_entries(LAYER, REF)[0]])
def test_what_is_written_for_containerd_is_one_image_under_one_name(tmp_path: Path, entries: dict) -> None:
    other = tmp_path / "other.tar"
    with Archive(write(tmp_path, {**entries, "stranger": b"x"})) as archive, other.open("wb") as stream:
        (image,) = archive.images()
        archive.write(image, "localhost/ours:1", stream)
    (written,) = read(str(other))
    assert written == image._replace(names=["localhost/ours:1"])
    with tarfile.open(other) as tar:
        assert "stranger" not in tar.getnames()


def test_every_truncation_is_noticed(tmp_path: Path) -> None:
    entries, _digest = oci.oci_entries(b"x" * 3000, REF)
    with tarfile.open(write(tmp_path, entries)) as archive:
        used = max(member.offset_data + member.size for member in archive)
    for cut in range(0, used, 97):
        refusal(write(tmp_path, entries, cut))


def test_every_flipped_byte_of_a_blob_is_noticed(tmp_path: Path) -> None:
    entries, _digest = oci.oci_entries(b"layer", REF)
    for name in [name for name in entries if name.startswith("blobs/")]:
        for position in range(0, len(entries[name]), 5):
            data = bytearray(entries[name])
            data[position] ^= 1
            refusal(write(tmp_path, {**entries, name: bytes(data)}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"../escape": b"x"}, "leads outside"),
        ({"a/../index.json": b"{}"}, "leads outside"),
        ({"/etc/shadow": b"x"}, "leads outside"),
        ({"./index.json": b"{}"}, "there twice"),
        ({"index.json": "/etc/passwd"}, "index.json is missing"),
        ({"index.json": b"{"}, "not valid JSON"),
        ({"index.json": b"\xff\xfe"}, "not valid JSON"),
        ({"index.json": b"[" * 100000}, "not valid JSON"),
        ({"index.json": b"[]"}, "form of the OCI image layout"),
        ({"index.json": b'{"manifests": 7}'}, "form of the OCI image layout"),
        ({"index.json": b'{"manifests": [{"digest": "md5:1"}]}'}, "a descriptor has the digest"),
        (
            {"index.json": b'{"manifests": [{"digest": "sha256:../../../../etc/passwd"}]}'},
            "a descriptor has the digest",
        ),
        ({"index.json": b" " * (5 << 20)}, "no image document"),
    ],
)
def test_hostile_entries(tmp_path: Path, change: dict, message: str) -> None:
    assert message in refusal(write(tmp_path, {**oci.oci_entries(LAYER, REF)[0], **change}))


def test_missing_layer(tmp_path: Path) -> None:
    entries, _digest = oci.oci_entries(LAYER, REF)
    del entries[oci.blob_name(LAYER)]
    assert "is missing" in refusal(write(tmp_path, entries))


def test_no_archive_at_all(tmp_path: Path) -> None:
    assert "cannot be read" in refusal(str(tmp_path / "absent.tar"))
    assert "cannot be read" in refusal(str(tmp_path))
    (tmp_path / "text").write_text("<html>404</html>" * 100)
    assert "no tar archive" in refusal(str(tmp_path / "text"))
    assert "neither index.json" in refusal(write(tmp_path, {"file": b"x"}))


def sized(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGLINK])
def test_a_gigantic_header_costs_no_memory(tmp_path: Path, kind: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sparse 64 GiB archive whose first header says that a file's name is that long."""
    path = tmp_path / "bomb.tar"
    with open(path, "wb") as stream:
        stream.write(sized("long", 64 << 30, kind))
        stream.truncate(64 << 30)
    largest = 0
    original = _tar._Bounded.read

    def spy(self: object, size: int = -1) -> bytes:
        nonlocal largest
        data = original(self, size)
        largest = max(largest, len(data))
        return data

    monkeypatch.setattr(_tar._Bounded, "read", spy)
    refusal(str(path))
    assert largest <= _tar.MAX_READ


def test_a_lying_size(tmp_path: Path) -> None:
    path = tmp_path / "image.tar"
    path.write_bytes(sized("index.json", 8 << 30) + b"{}" + bytes(2000))
    refusal(str(path))


def test_a_gigantic_document_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "image.tar"
    with open(path, "wb") as stream:
        stream.write(sized("index.json", 8 << 30))
        stream.truncate((8 << 30) + 512 + 1024)
    assert "no image document" in refusal(str(path))


def test_a_device_in_place_of_a_blob(tmp_path: Path) -> None:
    entries, digest = oci.oci_entries(LAYER, REF)
    name = f"blobs/sha256/{digest[7:]}"
    del entries[name]
    path = tmp_path / "image.tar"
    buffer = io.BytesIO(oci.tar(entries))
    with tarfile.open(fileobj=buffer, mode="a") as archive:
        info = tarfile.TarInfo(name)
        info.type, info.devmajor, info.devminor = tarfile.CHRTYPE, 1, 5
        archive.addfile(info)
    path.write_bytes(buffer.getvalue())
    assert "not a regular file" in refusal(str(path))


def test_too_many_entries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_oci_archive, "TRUST", _oci_archive.TRUST._replace(entries=50))
    assert "more than 50 entries" in refusal(write(tmp_path, {f"f{number}": b"" for number in range(60)}))


def test_platforms() -> None:
    assert host_platform("x86_64") == "linux/amd64"
    assert host_platform("aarch64") == "linux/arm64"
    assert platform_fits("linux/arm64/v8", "linux/arm64")
    assert not platform_fits("linux/arm64", "linux/amd64")
    assert not platform_fits("linux/arm/v6", "linux/arm/v7")
