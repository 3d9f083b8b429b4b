# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Root file systems of images, made without root from archives that somebody else has made."""

from __future__ import annotations

import gzip
import json
import os
import platform
import stat
import tarfile
import threading
from pathlib import Path

import pytest
from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._rootless import bundle
from support import oci

MACHINE = platform.machine()


def entry(name: str, data: bytes = b"", **fields: object) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), 0o644
    for field, value in fields.items():
        setattr(info, field, value)
    return info.tobuf(tarfile.PAX_FORMAT) + data + bytes(-len(data) % 512)


def folder(name: str, mode: int = 0o755) -> bytes:
    return entry(name, type=tarfile.DIRTYPE, mode=mode)


def link(name: str, target: str) -> bytes:
    return entry(name, type=tarfile.SYMTYPE, linkname=target)


def name_of(name: str, target: str) -> bytes:
    return entry(name, type=tarfile.LNKTYPE, linkname=target)


def layer(*entries: bytes) -> bytes:
    return b"".join(entries) + bytes(1024)


def write_archive(path: Path, *layers: bytes, blobs: list[bytes] | None = None, **changes: object) -> Path:
    """Write an image of these layers; ``blobs`` are their compressed forms, ``changes`` go into the configuration's diff_ids or the manifest."""
    blobs = blobs or list(layers)
    config = json.dumps(
        {
            "architecture": oci.ARCH,
            "os": "linux",
            "config": {"Env": ["A=b"]},
            "rootfs": {"type": "layers", "diff_ids": changes.get("diff_ids", [oci.digest(one) for one in layers])},
        }
    ).encode()
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "config": {"digest": oci.digest(config), "size": len(config)},
            "layers": [
                {"digest": digest, "size": len(blob)} for digest, blob in zip(changes.get("digests", map(oci.digest, blobs)), blobs)
            ],
        }
    ).encode()
    index = {"schemaVersion": 2, "manifests": [{"digest": oci.digest(manifest), "size": len(manifest)}]}
    entries = {"index.json": json.dumps(index).encode(), oci.blob_name(manifest): manifest, oci.blob_name(config): config}
    entries.update((f"blobs/sha256/{digest[7:]}", blob) for digest, blob in zip(changes.get("digests", map(oci.digest, blobs)), blobs))
    path.write_bytes(oci.tar(entries))
    return path


class Images:
    """A folder of archives, one of bundles, and something outside of both that nobody may touch."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.bundles = place / "cache" / "bundles"
        self.outside = place / "outside"
        self.outside.mkdir()
        (self.outside / "kept").write_text("as it was")

    def make(self, *layers: bytes, **changes: object) -> Path:
        return Path(self.open(*layers, **changes).rootfs)

    def open(self, *layers: bytes, **changes: object) -> bundle.Bundle:
        return bundle.open_image(str(write_archive(self.place / "image.tar", *layers, **changes)), MACHINE, str(self.bundles))

    def refused(self, *layers: bytes, **changes: object) -> str:
        with pytest.raises(GvisorError) as caught:
            self.make(*layers, **changes)
        assert os.listdir(self.bundles) == [], "a bundle that was not finished is still there"
        assert [path.name for path in self.outside.iterdir()] == ["kept"]
        assert (self.outside / "kept").read_text() == "as it was"
        return caught.value.message


@pytest.fixture
def images(tmp_path: Path) -> Images:
    tmp_path.chmod(0o755)
    return Images(tmp_path)


def tree(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*")}


def test_layers_lie_on_each_other_in_their_order(images: Images):
    root = images.make(layer(folder("a"), entry("a/x", b"1"), entry("a/y", b"1")), layer(entry("a/x", b"2")), layer(entry("b/c/d", b"3")))
    assert tree(root) == {"a", "a/x", "a/y", "b", "b/c", "b/c/d"}
    assert [(root / name).read_bytes() for name in ("a/x", "a/y", "b/c/d")] == [b"2", b"1", b"3"]


def test_the_same_layer_may_be_there_twice(images: Images):
    first = layer(entry("x", b"1"))
    assert images.make(first, layer(entry("x", b"2")), first).joinpath("x").read_bytes() == b"1"


def test_whiteouts_hide_what_lower_layers_have_and_nothing_else(images: Images):
    lower = layer(entry("a/x"), entry("a/y"), entry("b/x"), entry("b/d/y"), entry("c"), link("l", "c"))
    # In one layer the order of entries says nothing: x of this layer stays, although its whiteout follows.
    upper = layer(
        entry("a/x", b"new"), entry("a/.wh.x"), entry("b/z"), entry("b/.wh..wh..opq"), entry(".wh.c"), entry(".wh.l"), entry(".wh.none")
    )
    root = images.make(lower, upper)
    assert tree(root) == {"a", "a/x", "a/y", "b", "b/z"}
    assert (root / "a/x").read_bytes() == b"new"


def test_records_of_aufs_are_no_files(images: Images):
    assert tree(images.make(layer(entry(".wh..wh.aufs"), folder(".wh..wh.plnk"), entry(".wh..wh.plnk/1.2"), entry("x")))) == {"x"}


def test_modes_stay_without_what_would_lend_rights(images: Images):
    root = images.make(
        layer(folder("d", 0o1777), entry("run", mode=0o4755), entry("secret", mode=0o000), folder("closed", 0o500), entry("closed/x"))
    )
    modes = {name: stat.S_IMODE((root / name).lstat().st_mode) for name in ("d", "run", "secret", "closed")}
    assert modes == {"d": 0o777, "run": 0o755, "secret": 0o400, "closed": 0o700}
    assert {path.lstat().st_uid for path in root.rglob("*")} == {os.geteuid()}


def test_devices_and_pipes_are_not_made(images: Images):
    kinds = [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE]
    assert tree(images.make(layer(*(entry(f"n{number}", type=kind) for number, kind in enumerate(kinds)), entry("x")))) == {"x"}


def test_names_of_one_file_are_such_again(images: Images):
    root = images.make(layer(entry("a/x", b"1")), layer(name_of("y", "a/x"), name_of("z", "/a/x"), name_of("y", "y")[:0]))
    assert len({(root / name).stat().st_ino for name in ("a/x", "y", "z")}) == 1


def test_one_kind_takes_the_place_of_another(images: Images):
    lower = layer(link("a", "/etc"), entry("b/x"), entry("c"))
    root = images.make(lower, layer(folder("a"), entry("a/x"), entry("b", b"1"), link("c", "b")))
    assert tree(root) == {"a", "a/x", "b", "c"}
    assert not (root / "a").is_symlink()
    assert (root / "b").read_bytes() == b"1"
    assert os.readlink(root / "c") == "b"


def test_a_link_may_lead_anywhere_and_is_not_followed(images: Images):
    root = images.make(layer(link("a", "/etc"), link("b", "../../../outside")), layer(entry("a", b"1"), entry("b/.wh.kept"), entry("x")))
    assert (root / "a").read_bytes() == b"1"
    assert (images.outside / "kept").exists()


def test_a_file_behind_a_link_of_a_lower_layer_is_refused(images: Images):
    assert "entry 'a/x' is behind a link" in images.refused(layer(link("a", str(images.outside))), layer(entry("a/x", b"evil")))


@pytest.mark.parametrize(
    ("hostile", "message"),
    [
        (lambda out: [link("a", out), entry("a/x")], "behind a link"),
        (lambda out: [link("a", out), folder("a/d")], "behind a link"),
        (lambda out: [link("a", out), link("a/l", "x")], "behind a link"),
        (lambda out: [link("a", out), name_of("x", "a/kept")], "behind a link"),
        (lambda out: [link("a", f"{out}/kept"), name_of("x", "a")], "which is no file"),
        (lambda _out: [entry("f"), entry("f/x")], "behind what is no folder"),
        (lambda _out: [name_of("x", "../../outside/kept")], "leads outside"),
        (lambda _out: [name_of("x", ".")], "leads outside"),
        (lambda _out: [name_of("x", "missing")], "No such file"),
        (lambda _out: [folder("d"), name_of("x", "d")], "which is no file"),
        (lambda _out: [entry("../x")], "leads outside"),
        (lambda _out: [entry("/x")], "leads outside"),
        (lambda _out: [entry("a/../../x")], "leads outside"),
        (lambda _out: [entry("a/.wh...")], "hides no name"),
        (lambda _out: [entry(".wh..")], "hides no name"),
        (lambda _out: [entry(".wh.")], "hides no name"),
        (lambda _out: [entry("n" * 300)], "File name too long"),
        (lambda _out: [entry("x"), entry("./x")], "there twice"),
        (lambda _out: [entry("x", b"1\n0\n1\n", pax_headers={"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "9"})], ""),
        (lambda _out: [entry("x", bytes(4096))[:1024]], "truncated"),
    ],
)  # fmt: skip
def test_hostile_layers_are_refused_and_write_nowhere(images: Images, hostile, message):
    assert message in images.refused(layer(entry("first")), layer(*hostile(str(images.outside))))


def test_a_layer_is_what_its_digests_say(images: Images):
    plain = layer(entry("x", b"1"))
    other = oci.digest(b"other")
    assert "the archive was altered" in images.refused(plain, digests=[other])
    assert f"where {other} is stated" in images.refused(plain, diff_ids=[other])
    assert "has 1 layers and names 0" in images.refused(plain, diff_ids=[])
    assert images.make(plain, blobs=[gzip.compress(plain)]).joinpath("x").read_bytes() == b"1"


def test_a_manifest_is_what_its_digest_says(images: Images, tmp_path: Path):
    path = write_archive(tmp_path / "image.tar", layer(entry("x")))
    path.write_bytes(path.read_bytes().replace(b"A=b", b"A=c"))
    with pytest.raises(GvisorError, match="does not have the digest"):
        bundle.open_image(str(path), MACHINE, str(images.bundles))


def test_what_is_too_large_ends_early(images: Images, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bundle, "MAX_BYTES", 1 << 20)
    large = layer(entry("x", bytes(2 << 20)))
    assert "larger than" in images.refused(large, blobs=[gzip.compress(large)])
    half = layer(entry("x", bytes(600 << 10)))
    assert "larger than" in images.refused(half, layer(entry("y", bytes(600 << 10))))
    monkeypatch.setattr(bundle, "LAYER", bundle.LAYER._replace(entries=3))
    assert "more than 3 entries" in images.refused(layer(*(entry(str(number)) for number in range(4))))
    monkeypatch.setattr(bundle, "MAX_LAYERS", 1)
    assert "more than 1 layers" in images.refused(layer(entry("x")), layer(entry("y")))


def test_a_layer_that_cannot_be_read_is_named(images: Images):
    plain = layer(entry("x"))
    assert "zstd" in images.refused(plain, blobs=[b"\x28\xb5\x2f\xfd1234"])
    assert "cannot be decompressed" in images.refused(plain, blobs=[gzip.compress(plain)[:-9]])


def test_an_image_for_another_machine_is_refused(images: Images, tmp_path: Path):
    entries, _digest = oci.oci_entries(layer(entry("x")), arch=oci.FOREIGN_ARCH)
    path = tmp_path / "foreign.tar"
    path.write_bytes(oci.tar(entries))
    with pytest.raises(GvisorError, match=f"it is for linux/{oci.FOREIGN_ARCH} and this host is linux/{oci.ARCH}"):
        bundle.open_image(str(path), MACHINE, str(images.bundles))


def test_a_bundle_is_made_once(images: Images):
    first = images.open(layer(entry("x", b"1")))
    (Path(first.rootfs) / "mark").touch()
    again = images.open(layer(entry("x", b"1")))
    assert again == first
    assert (Path(again.rootfs) / "mark").exists()
    assert again.config.env == ["A=b"]
    assert first.rootfs == f"{images.bundles}/{first.config.digest[7:]}/rootfs"


def test_what_a_killed_run_left_is_removed_and_two_at_once_make_one(images: Images):
    left = images.bundles / ".new-killed" / "rootfs"
    left.mkdir(parents=True)
    path = write_archive(images.place / "image.tar", layer(entry("x", bytes(1 << 20))))
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(bundle.open_image(str(path), MACHINE, str(images.bundles)))) for _number in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [one.rootfs for one in found] == [found[0].rootfs] * 3
    assert len(os.listdir(images.bundles)) == 1


def test_an_archive_of_docker_s_works_too(images: Images, tmp_path: Path):
    entries, config = oci.docker_entries(layer(entry("x", b"1")), "localhost/thing:2")
    path = tmp_path / "docker.tar"
    path.write_bytes(oci.tar(entries))
    found = bundle.open_image(str(path), MACHINE, str(images.bundles))
    assert (found.name, found.config.digest) == ("localhost/thing:2", config)
    assert (Path(found.rootfs) / "x").read_bytes() == b"1"


def test_a_folder_is_a_root_file_system_as_it_is(images: Images, tmp_path: Path):
    place = tmp_path / "root"
    place.mkdir()
    assert bundle.open_image(str(place), MACHINE, str(images.bundles)).rootfs == str(place)
    place.chmod(0o777)
    with pytest.raises(GvisorError, match="can be changed by others"):
        bundle.open_image(str(place), MACHINE, str(images.bundles))


def test_the_folder_of_bundles_is_in_the_user_s_cache():
    assert bundle.bundles_folder({"XDG_CACHE_HOME": "/c"}) == "/c/ggen.gvisor/bundles"
    assert bundle.bundles_folder({}).endswith("/.cache/ggen.gvisor/bundles")


def test_an_image_s_variables_are_looked_at(images: Images, tmp_path: Path):
    entries, _digest = oci.oci_entries(layer(entry("x")), env=("LD_TRACE_LOADED_OBJECTS=1",))
    path = tmp_path / "env.tar"
    path.write_bytes(oci.tar(entries))
    with pytest.raises(GvisorError, match="LD_TRACE_LOADED_OBJECTS"):
        bundle.open_image(str(path), MACHINE, str(images.bundles))
