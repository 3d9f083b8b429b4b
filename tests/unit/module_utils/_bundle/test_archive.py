# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bundles: the same contents give the same bytes, and one that was tampered with is refused before anything is written."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import tarfile
from pathlib import Path

import pytest
from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._bundle.apt_index import apt_index, packages_of
from ansible_collections.ggen.gvisor.plugins.module_utils._bundle.archive import CONTENTS, _header, open_bundle, read, unpack
from support.module import fork_module

PROGRAM = bytes(range(256)) * 500 + b"an odd number"
BUILD, IMAGE, DEBIAN = "bin/20260701/linux_amd64", "dist/26.5.19/linux_amd64", "packages/debian-13_amd64"
PACKAGES = {"containerd": b"!<arch>\ncontainerd" * 900, "runc": b"!<arch>\nrunc"}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def stanza(name: str, data: bytes, version: str = "1.7.24~ds1-6+b1") -> str:
    return (
        f"Package: {name}\nVersion: {version}\nArchitecture: amd64\nDepends: libc6 (>= 2.34)\nTag: role::program,\n implemented-in::go\n"
        f"Filename: pool/main/c/{name}/{name}_{version.partition(':')[2] or version}_amd64.deb\nSize: {len(data)}\nSHA256: {sha256(data)}\n"
    )


SHOWN = "\n".join(stanza(name, data) for name, data in PACKAGES.items())


class World:
    """A build, an image, a distribution's packages, and a place to unpack them in."""

    def __init__(self, root: Path) -> None:
        self.path, self.source, self.dest = root / "bundle.tar", root / "source", root / "dest"
        self.build(BUILD, {"runsc": PROGRAM, "runsc.cdx.json": b"{}\n"}, {"release": "20260701"})
        self.build(IMAGE, {"ggen.tar": b"an image" * 300}, {"digest": f"sha256:{'5' * 64}"})
        repository = apt_index(SHOWN, [f"/archives/{name}_1.7.24~ds1-6+b1_amd64.deb" for name in PACKAGES])
        folder = self.source / DEBIAN
        folder.mkdir(parents=True)
        (folder / "Packages").write_text(repository["index"])
        for path, name in repository["files"].items():
            (folder / name).write_bytes(PACKAGES[path.partition("_")[0].rpartition("/")[2]])

    def build(self, name: str, files: dict[str, bytes], metadata: dict[str, str]) -> None:
        """Leave a build as module build_cache does."""
        folder = self.source / name
        folder.mkdir(parents=True)
        listed = {}
        for file, data in files.items():
            mode = 0o755 if file == "runsc" else 0o644
            (folder / file).write_bytes(data)
            (folder / file).chmod(mode)
            listed[file] = {"sha256": sha256(data), "size": len(data), "mode": f"{mode:04o}"}
        manifest = {"name": name, "key": sha256(name.encode()), "made_from": {}, "files": listed, "metadata": metadata}
        (folder / "manifest.json").write_text(json.dumps(manifest))

    def folders(self, root: Path) -> dict[str, str]:
        return {part: str(root / part) for part in ("bin", "dist", "packages")}

    def pack(self, **changes: object) -> dict:
        options = {"version": "0.1.0", "contents": [BUILD, IMAGE, DEBIAN], **self.folders(self.source), **changes}
        return fork_module("bundle", state="packed", path=str(self.path), **options)

    def unpack(self, **changes: object) -> dict:
        return fork_module("bundle", **{"state": "unpacked", "path": str(self.path), **self.folders(self.dest), **changes})

    def unpack_here(self) -> None:
        """What the module does, in this process."""
        stream, bundle = open_bundle(str(self.path))
        with stream:
            unpack(stream, bundle, self.folders(self.dest))

    def files(self, root: Path) -> dict[str, tuple[bytes, int]]:
        found = sorted(path for path in root.rglob("*") if path.is_file())
        return {str(path.relative_to(root)): (path.read_bytes(), path.stat().st_mode & 0o777) for path in found}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def packed(world: World) -> World:
    result = world.pack()
    assert not result["failed"], result
    return world


# --- The whole life --------------------------------------------------------------------------------------------------


def test_a_bundle_s_whole_life(world):
    seen = world.pack(check=True, diff=True)
    assert seen["changed"]
    assert f"{BUILD}/runsc {sha256(PROGRAM)}" in seen["diff"]["after"]
    assert not world.path.exists()

    made = world.pack()
    data = world.path.read_bytes()
    assert (made["changed"], made["sha256"], made["size"]) == (True, sha256(data), len(data)) == (True, seen["sha256"], seen["size"])
    assert made["contents"]["architectures"] == ["amd64"]
    assert list(made["contents"]["releases"]) == ["20260701"]
    assert made["contents"]["images"] == {"26.5.19": {"amd64": f"sha256:{'5' * 64}"}}
    assert made["contents"]["distributions"]["debian-13_amd64"]["runc"] == {
        "version": "1.7.24~ds1-6+b1",
        "file": "runc_1.7.24~ds1-6+b1_amd64.deb",
    }

    again = world.pack(diff=True)
    assert not again["changed"]
    assert "diff" not in again
    assert world.path.read_bytes() == data

    would = world.unpack(check=True, diff=True)
    assert would["changed"]
    assert f"runsc {sha256(PROGRAM)}" in would["diff"]["after"]
    assert not world.dest.exists()

    done = world.unpack(sha256=made["sha256"])
    assert not done["failed"], done
    assert (done["changed"], done["contents"], done["sha256"]) == (True, made["contents"], made["sha256"])
    assert world.files(world.dest) == world.files(world.source)
    assert (world.dest / BUILD / "runsc").stat().st_mode & 0o777 == 0o755

    assert not world.unpack()["changed"]
    assert not world.unpack(check=True)["changed"]


def test_its_bytes_do_not_depend_on_times_owners_or_order(packed):
    first = packed.path.read_bytes()
    for path in packed.source.rglob("*"):
        os.utime(path, (1, 1))
    packed.path.unlink()
    os.chmod(packed.source / DEBIAN / "Packages", 0o600)  # as a umask of 077 leaves it
    packed.pack(contents=[DEBIAN, IMAGE, BUILD, BUILD])
    assert packed.path.read_bytes() == first


def test_it_is_a_tar_that_everybody_can_read(packed):
    listed = subprocess.run(["tar", "--list", "--verbose", "--file", packed.path], capture_output=True, text=True, check=True)
    assert listed.stderr == ""
    names = [line.split()[-1] for line in listed.stdout.splitlines()]
    assert names == [CONTENTS, *sorted(packed.files(packed.source))]
    with tarfile.open(packed.path) as tar:
        members = tar.getmembers()
        assert all(member.isreg() and (member.uid, member.gid, member.mtime) == (0, 0, 0) for member in members)
        assert tar.extractfile(f"{BUILD}/runsc").read() == PROGRAM
        contents = json.load(tar.extractfile(CONTENTS))
    assert {name: entry["sha256"] for name, entry in contents["files"].items()} == {
        name: sha256(data) for name, (data, _mode) in packed.files(packed.source).items()
    }


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda source: (source / BUILD / "runsc").write_bytes(PROGRAM + b"!"), "runsc is not the file"),
        (lambda source: (source / IMAGE / "ggen.tar").unlink(), "ggen.tar is not the file"),
        (lambda source: (source / BUILD / "manifest.json").unlink(), "manifest.json cannot be read"),
        (lambda source: (source / BUILD / "manifest.json").write_text("{"), "manifest.json is not what describes"),
        (
            lambda source: (source / DEBIAN / "runc_1.7.24~ds1-6+b1_amd64.deb").write_bytes(b"another"),
            "runc_1.7.24~ds1-6+b1_amd64.deb is not",
        ),
    ],
)
def test_what_is_not_as_described_is_not_packed(world, damage, words):
    damage(world.source)
    result = world.pack()
    assert result["failed"]
    assert words in result["msg"]
    assert not world.path.exists()
    assert list(world.path.parent.glob(".bundle*")) == []


def test_a_name_that_could_not_be_read_again_is_not_packed(world):
    world.build("bin/20260518/linux_amd64", {"run sc": PROGRAM}, {})
    result = world.pack(contents=["bin/20260518/linux_amd64"])
    assert result["failed"]
    assert "run sc" in result["msg"]


def test_check_mode_does_not_need_what_it_has_not_built(world):
    (world.source / IMAGE / "manifest.json").unlink()
    assert world.pack(check=True)["changed"]


def test_a_changed_file_is_fixed_and_foreign_packages_go(packed):
    packed.unpack()
    (packed.dest / BUILD / "runsc").write_bytes(b"another")
    (packed.dest / IMAGE / "ggen.tar").unlink()
    (packed.dest / DEBIAN / "runc_1.0_amd64.deb").write_bytes(b"an older one")
    (packed.dest / "bin" / "mine").write_text("not the bundle's")
    result = packed.unpack(diff=True)
    assert result["changed"]
    assert "runc_1.0_amd64.deb" in result["diff"]["before"]
    assert "runc_1.0_amd64.deb" not in result["diff"]["after"]
    expected = {**packed.files(packed.source), "bin/mine": (b"not the bundle's", 0o644)}
    assert packed.files(packed.dest) == expected


# --- Tampering -------------------------------------------------------------------------------------------------------


def members_of(data: bytes) -> list[tuple[tarfile.TarInfo, bytes]]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return [(member, tar.extractfile(member).read()) for member in tar]


def archive_of(members: list[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    """Return an archive in a bundle's form as far as the members have it: plain headers as _header makes them, others as tarfile does."""
    out = b""
    for member, data in members:
        plain = member.isreg() and len(member.name) <= 100
        out += _header(member.name, member.size, f"{member.mode:04o}") if plain else member.tobuf(tarfile.USTAR_FORMAT)
        out += data + bytes(-len(data) % 512)
    return out + bytes(1024)


def relisted(members: list, change) -> list:
    """Return the members with another bundle.json: what somebody forges who knows the form."""
    contents = json.loads(members[0][1])
    change(contents)
    data = (json.dumps(contents, sort_keys=True, indent=1, ensure_ascii=False) + "\n").encode()
    return [(tar_info(CONTENTS, data), data), *members[1:]]


def tar_info(name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname, info.mode = len(data), kind, link, 0o644
    return info


def position(members: list, name: str) -> int:
    return [member.name for member, _data in members].index(name)


RUNSC = f"{BUILD}/runsc"


def replaced(members: list, member: tarfile.TarInfo, data: bytes = b"", name: str = RUNSC) -> list:
    at = position(members, name)
    return [*members[:at], (member, data), *members[at + 1 :]]


def changed_byte(members: list) -> list:
    return replaced(members, dict((m.name, m) for m, _data in members)[RUNSC], b"\1" + PROGRAM[1:])


def entry_of(data: bytes, mode: str = "0644") -> dict:
    return {"sha256": sha256(data), "size": len(data), "mode": mode}


def added(name: str, data: bytes = b"evil") -> object:
    """Return a tampering that adds a file at its place in the order, and lists it."""

    def change(members: list) -> list:
        forged = relisted(members, lambda contents: contents["files"].update({name: entry_of(data)}))
        return [forged[0], *sorted([*forged[1:], (tar_info(name, data), data)], key=lambda pair: pair[0].name)]

    return change


def lying(field: str, value: object, name: str = RUNSC) -> object:
    return lambda members: relisted(members, lambda contents: contents["files"][name].update({field: value}))


def without(name: str) -> object:
    return lambda members: [pair for pair in members if pair[0].name != name]


def lying_size(members: list) -> list:
    at = position(members, RUNSC)
    member = tar_info(RUNSC)
    member.size, member.mode = len(PROGRAM) - 512, 0o755
    return [*members[:at], (member, PROGRAM), *members[at + 1 :]]


def forged_index(members: list) -> list:
    """Another package, its sum right in bundle.json and wrong in the index that the distribution's sums are in."""
    name, data = f"{DEBIAN}/runc_1.7.24~ds1-6+b1_amd64.deb", b"!<arch>\nevil"
    return relisted(replaced(members, tar_info(name, data), data, name), lambda contents: contents["files"].update({name: entry_of(data)}))


@pytest.mark.parametrize(
    ("tamper", "words"),
    [
        pytest.param(changed_byte, f"{RUNSC} has the sha256", id="a changed byte"),
        pytest.param(
            lambda m: [*m, (tar_info("more", b"evil"), b"evil")], "a file that bundle.json does not list", id="a member at the end"
        ),
        pytest.param(lambda m: [m[0], (tar_info("bin/a", b"evil"), b"evil"), *m[1:]], "a file 'bin/a'", id="a member between"),
        pytest.param(lambda m: [*m[:2], m[1], *m[2:]], "is where", id="a member twice"),
        pytest.param(added("bin/20260701/linux_amd64/more"), "manifest.json does not fit", id="a member that is listed"),
        pytest.param(added("etc/cron.d/evil"), "etc/cron.d/evil", id="a member of no part"),
        pytest.param(without(RUNSC), f"is where {RUNSC}", id="a missing member"),
        pytest.param(without(f"{DEBIAN}/runc_1.7.24~ds1-6+b1_amd64.deb"), "the end is where", id="the last member is missing"),
        pytest.param(without(CONTENTS), "does not begin with bundle.json", id="no bundle.json"),
        pytest.param(added("bin/../../evil"), "bin/../../evil", id="a path that leads outside"),
        pytest.param(added("/bin/evil"), "/bin/evil", id="an absolute path"),
        pytest.param(added("bin/.hidden/evil"), "bin/.hidden/evil", id="a hidden path"),
        pytest.param(lambda m: replaced(m, tar_info(RUNSC, b"", tarfile.SYMTYPE, "/etc/shadow")), "a symbolic link", id="a symbolic link"),
        pytest.param(lambda m: replaced(m, tar_info(RUNSC, b"", tarfile.LNKTYPE, CONTENTS)), "a hard link", id="a hard link"),
        pytest.param(lambda m: replaced(m, tar_info(RUNSC, b"", tarfile.CHRTYPE)), "a device", id="a device"),
        pytest.param(lambda m: replaced(m, tar_info(RUNSC, b"", tarfile.FIFOTYPE)), "a pipe", id="a pipe"),
        pytest.param(lambda m: replaced(m, tar_info(RUNSC, b"", tarfile.DIRTYPE)), "a folder", id="a folder"),
        pytest.param(lying_size, "is where", id="a header that lies about the size"),
        pytest.param(lying("size", 5), "is where", id="a manifest that lies about the size"),
        pytest.param(lying("size", -5), "bundle.json says of", id="a negative size"),
        pytest.param(lying("size", 1e3), "bundle.json says of", id="a size that is no integer"),
        pytest.param(lying("size", 1 << 40), "does not fit", id="a size that no header holds"),
        pytest.param(lying("size", 1 << 30, f"{BUILD}/manifest.json"), "is the most", id="a document of a gigabyte"),
        pytest.param(lying("sha256", "0" * 64), f"{RUNSC} has the sha256", id="another sum"),
        pytest.param(lying("sha256", "x"), "bundle.json says of", id="no sum"),
        pytest.param(lying("mode", "4755"), "bundle.json says of", id="a set-user-id program"),
        pytest.param(lying("mode", "0644"), "is where", id="another mode"),
        pytest.param(lying("owner", "root"), "bundle.json says of", id="a field too many"),
        pytest.param(forged_index, "is not the file that", id="a package that its distribution did not sign"),
        pytest.param(lambda m: relisted(m, lambda c: c["distributions"].clear()), "tells something else", id="a lie about its contents"),
        pytest.param(lambda m: relisted(m, lambda c: c.update(schema=2)), "reads 1", id="another form"),
        pytest.param(lambda m: relisted(m, lambda c: c.update(version=[])), "its version is []", id="a version that is none"),
        pytest.param(lambda m: relisted(m, lambda c: c.pop("files")), "does not have its form", id="no files"),
    ],
)
def test_a_tampered_bundle_is_refused_before_anything_is_written(packed, tamper, words):
    packed.path.write_bytes(archive_of(tamper(members_of(packed.path.read_bytes()))))
    with pytest.raises(GvisorError) as error:
        packed.unpack_here()
    assert words in error.value.message
    assert str(packed.path) in error.value.message
    assert not packed.dest.exists()


def test_a_bundle_that_changes_after_it_was_read_is_refused(packed):
    stream, bundle = open_bundle(str(packed.path))
    data = packed.path.read_bytes()
    at = bundle.offsets[RUNSC]
    packed.path.write_bytes(data[:at] + b"\1" + data[at + 1 :])
    with stream, pytest.raises(GvisorError, match="changed while"):
        unpack(stream, bundle, packed.folders(packed.dest))
    assert [path for path in packed.dest.rglob("*runsc*") if path.name in ("runsc", "manifest.json") or path.name.startswith(".")] == []


def test_the_tests_own_archives_would_be_accepted(packed):
    data = packed.path.read_bytes()
    assert archive_of(members_of(data)) == data
    packed.path.write_bytes(archive_of(relisted(members_of(data), lambda _contents: None)))
    packed.unpack_here()
    assert packed.files(packed.dest) == packed.files(packed.source)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1],
        lambda data: data[: len(data) // 2],
        lambda data: data[:100],
        lambda _data: b"",
        lambda data: data + bytes(512),
        lambda data: data[:-1] + b"\1",
        lambda data: b"\1" + data[1:],
    ],
)
def test_a_damaged_bundle_is_refused(packed, damage):
    packed.path.write_bytes(damage(packed.path.read_bytes()))
    result = packed.unpack()
    assert result["failed"]
    assert "is not a whole bundle" in result["msg"]
    assert not packed.dest.exists()


def test_no_single_flipped_byte_of_headers_and_paddings_gets_through(packed):
    data = packed.path.read_bytes()
    at = data.index(RUNSC.encode(), 1024 * 2)
    start = at - at % 512 if data[at - at % 512 : at - at % 512 + len(RUNSC)] == RUNSC.encode() else None
    while start is None:  # the first hits are in bundle.json's text
        at = data.index(RUNSC.encode(), at + 1)
        start = at if at % 512 == 0 else None
    end = start + 512 + len(PROGRAM)
    for offset in [*range(start, start + 512, 7), *range(end, end + -end % 512, 7)]:
        packed.path.write_bytes(data[:offset] + bytes([data[offset] ^ 1]) + data[offset + 1 :])
        with open(packed.path, "rb") as stream, pytest.raises(GvisorError):
            read(stream, str(packed.path))


def test_the_sum_of_the_whole_is_compared_first(packed):
    packed.path.write_bytes(b"anything")
    result = packed.unpack(sha256="0" * 64)
    assert result["failed"]
    assert sha256(b"anything") in result["msg"]
    assert "0" * 64 in result["msg"]
    assert not packed.dest.exists()


def test_a_bundle_that_is_not_there_is_named(world):
    result = world.unpack()
    assert result["failed"]
    assert str(world.path) in result["msg"]


# --- Packages --------------------------------------------------------------------------------------------------------


def test_an_epoch_is_not_in_the_file_s_name():
    shown = stanza("runc", b"runc", "1:1.1-2")
    made = apt_index(shown, ["/archives/runc_1%3a1.1-2_amd64.deb"])
    assert made["files"] == {"/archives/runc_1%3a1.1-2_amd64.deb": "runc_1.1-2_amd64.deb"}
    assert made["versions"] == {"runc": "1:1.1-2"}
    assert packages_of(made["index"])["runc"]["file"] == "runc_1.1-2_amd64.deb"
    assert "\n implemented-in::go\n" in made["index"], "what else the stanza says stays"


def test_archives_that_apt_does_not_describe_are_refused():
    with pytest.raises(GvisorError, match="other_1_amd64"):
        apt_index(SHOWN, ["/archives/other_1_amd64.deb"])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Filename: ./runc", "Filename: ./../runc"),
        ("Filename: ./runc", "Filename: /runc"),
        ("Package: runc", "Package: containerd"),
        ("Size: ", "Size: -"),
        ("SHA256: ", "SHA512: "),
        ("Version: ", "Revision: "),
    ],
)
def test_an_index_of_another_form_is_refused(old, new):
    index = apt_index(SHOWN, [f"{name}_1.7.24~ds1-6+b1_amd64.deb" for name in PACKAGES])["index"]
    packages_of(index)
    with pytest.raises(GvisorError):
        packages_of(index.replace(old, new))
