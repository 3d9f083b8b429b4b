# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one reader of strange archives, by whose trust it reads. What image archives can be: _containerd/test_image_archive.py."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible_collections.ggen.gvisor.plugins.module_utils._base import tar
from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._containerd.image_archive import TRUST as IMAGE
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.workspace import SENT as WORKSPACE
from ansible_collections.ggen.gvisor.plugins.plugin_utils._transfer.receive import unpack

BUILDS = tar.Trust(frozenset({tar.FILE}), entries=10, gzip=True)
TRUSTS = {"image": IMAGE, "workspace": WORKSPACE, "builds": BUILDS}


def member(name: str, data: bytes = b"", **fields: object) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for field, value in fields.items():
        setattr(info, field, value)
    return info.tobuf(tarfile.PAX_FORMAT) + data + bytes(-len(data) % 512)


def headers(*names: str) -> Callable[[str], bytes]:
    return lambda _trust: b"".join(map(member, names))


def sparse(name: str) -> bytes:
    return member(
        name, b"1\n0\n1\n".ljust(512, b"\0"), pax_headers={"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "9"}
    )


def long_names(number: int) -> bytes:
    """Headers that each say that the next one has a long name."""
    return member("x", b"y", type=tarfile.GNUTYPE_LONGNAME) * number


HOSTILE = {
    "../a": (member("../a"), "leads outside", ""),
    "/a": (member("/a"), "leads outside", ""),
    "a/../b": (member("a/../b"), "leads outside", ""),
    "./a": (member("./a"), "another way to write 'a'", "image"),
    "a//b": (member("a//b"), "another way to write 'a/b'", "image"),
    "twice": (member("a") + member("a"), "'a' is there twice", ""),
    "pipe": (member("a", type=tarfile.FIFOTYPE), "'a' is no file", "image"),
    "device": (member("a", type=tarfile.CHRTYPE), "'a' is no file", "image"),
    "hard link": (member("a", type=tarfile.LNKTYPE, linkname="b"), "'a' is no file", "image"),
    "sparse": (sparse("a"), "'a' is no file", "image"),
    "negative": (member("a", pax_headers={"size": "-512"}), "", ""),
    "chain": (long_names(5000), "truncated, damaged", ""),
    "text": (b"<html>404</html>" * 100, "no tar archive", ""),
    "cut": (member("a", b"x" * 2000)[:1500], "", ""),
}


def read(path: Path, trust: tar.Trust) -> dict[str, bytes]:
    with tar.Reader(str(path), trust, lambda what: GvisorError(f"refused: {what}")) as archive:
        return {name: b"".join(archive.blocks(name, one)) for name, one in archive if tar.kind_of(one) == tar.FILE}


@pytest.mark.parametrize("trust", TRUSTS)
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_archive_is_refused_unless_somebody_trusts_it(name: str, trust: str, tmp_path: Path) -> None:
    data, message, taken_by = HOSTILE[name]
    (tmp_path / "a.tar").write_bytes(data + bytes(1024))
    if name == "cut":
        (tmp_path / "a.tar").write_bytes(data)
    if trust == taken_by:
        read(tmp_path / "a.tar", TRUSTS[trust])
        return
    with pytest.raises(GvisorError, match=f"refused: .*{message}"):
        read(tmp_path / "a.tar", TRUSTS[trust])


def test_links_and_folders_are_the_workspace_s_alone(tmp_path: Path) -> None:
    data = member("a", type=tarfile.DIRTYPE) + member("a/b", type=tarfile.SYMTYPE, linkname="..") + member("c", b"1")
    (tmp_path / "a.tar").write_bytes(data + bytes(1024))
    assert read(tmp_path / "a.tar", WORKSPACE) == {"c": b"1"}
    with pytest.raises(GvisorError, match="'a' is no file"):
        read(tmp_path / "a.tar", BUILDS)


def test_more_entries_than_trusted(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"".join(member(str(number)) for number in range(11)) + bytes(1024))
    with pytest.raises(GvisorError, match="more than 10 entries"):
        read(tmp_path / "a.tar", BUILDS)


def test_a_compressed_archive_is_unpacked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """tarfile goes a byte back for each entry, and to go back in a compressed file can be to begin anew."""
    monkeypatch.setattr(gzip._GzipReader, "_rewind", lambda _self: pytest.fail("begun anew"))
    data = b"".join(member(str(number), b"x" * (2 << 20)) for number in range(8))
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(data + bytes(1024), 1))
    assert sum(map(len, read(tmp_path / "a.tar.gz", BUILDS).values())) == 16 << 20
    with pytest.raises(GvisorError, match="no tar archive"):
        read(tmp_path / "a.tar.gz", WORKSPACE)


def sent(tmp_path: Path, *entries: tuple[str, bytes]) -> str:
    path = tmp_path / "builds.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, data in entries:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return str(path)


MANIFEST = {"files": {"runsc": {"size": 3, "mode": "0755"}, "notes/a": {"size": 1, "mode": "0644"}}}


def test_builds_are_what_their_manifests_list(tmp_path: Path) -> None:
    unpack(sent(tmp_path, ("0/notes/a", b"1"), ("0/runsc", b"abc")), str(tmp_path / "out"), [MANIFEST], "host")
    assert ((tmp_path / "out/0/runsc").read_bytes(), (tmp_path / "out/0/runsc").stat().st_mode & 0o777) == (b"abc", 0o755)
    assert (tmp_path / "out/0/notes/a").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([("0/runsc", b"abcd")], "host sent '0/runsc' with 4 bytes"),
        ([("0/other", b"abc")], "host sent '0/other'"),
        ([("1/runsc", b"abc")], "host sent '1/runsc'"),
        ([("0/runsc", b"abc")], "host did not send 0/notes/a"),
        ([("0/runsc", b"abc"), ("0/runsc", b"abc")], "is there twice"),
        ([("0/../0/runsc", b"abc")], "leads outside"),
        ([("0/runsc", b"abc"), ("0/notes/a", b"1"), ("0/more", b"")], "more than 2 entries"),
    ],
)
def test_builds_that_no_manifest_lists_are_refused(entries: list, message: str, tmp_path: Path) -> None:
    with pytest.raises(GvisorError, match=message):
        unpack(sent(tmp_path, *entries), str(tmp_path / "out"), [MANIFEST], "host")
