"""The image's build, for real, from a binary and from a checkout: reproducible, labelled, refused when it could not start."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
from conftest import ROOT
from support.playbook import play
from support.snapshot import write
from support.supply import checked_sbom, checked_statement, digests

MAIN = 'fn main() { println!("ggen 0.0.1"); }\n'
CARGO = '[package]\nname = "ggen"\nversion = "0.0.1"\nedition = "2021"\n'


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A checkout with a program ggen: a small one, since what is tested is the way from a checkout to an image."""
    folder = tmp_path_factory.mktemp("checkout")
    folder.chmod(0o755)  # who compiles it is nobody
    write(folder / "Cargo.toml", CARGO)
    write(folder / "src/main.rs", MAIN)
    subprocess.run(["cargo", "generate-lockfile", "--offline"], cwd=folder, check=True, capture_output=True)
    return folder


def build(tmp_path, name="one", **variables):
    """Build an image with a cache and an output folder of its own; return the play, its manifest and its archive."""
    out = tmp_path / name
    done = play(
        "tests/e2e/image.yml",
        ggen_build_dest=str(out / "dist"),
        ggen_build_cache=str(out / "cache"),
        **{"ggen_build_version": "0.0.1", **variables},
    )
    folder = out / "dist" / "0.0.1" / "linux_amd64"
    manifest = json.loads((folder / "manifest.json").read_text()) if folder.exists() else {}
    return done, manifest, folder / "ggen.tar"


def sha256(path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_checkout_becomes_an_image_and_twice_the_same_one(checkout, tmp_path):
    done, first, archive = build(tmp_path, "one", ggen_build_source="path", ggen_build_path=str(checkout))
    assert done.rc == 0, done.errors
    binary = checkout / "target/ggen.gvisor/target/x86_64-unknown-linux-gnu/release/ggen"
    copy = tmp_path / "ggen"
    shutil.copy(binary, copy)
    again, second, other = build(
        tmp_path, "two", ggen_build_source="binary", ggen_build_binary=str(copy), ggen_build_binary_sha256=sha256(copy)
    )
    assert again.rc == 0, again.errors
    assert first["metadata"]["digest"] == second["metadata"]["digest"]
    assert first["metadata"]["programs"]["ggen"] == sha256(copy)
    assert archive.read_bytes() == other.read_bytes(), "the archive's own bytes too"
    documents = {path.name: path.read_text() for path in archive.parent.glob("*.*.json")}
    assert sorted(documents) == ["ggen.cdx.json", "ggen.tar.cdx.json", "ggen.tar.intoto.json"], "nobody knows what is in the program"
    assert documents.keys() <= first["files"].keys()
    subject = digests(checked_statement(documents["ggen.tar.intoto.json"])["subject"])
    assert subject["ggen.tar"] == sha256(archive)
    assert subject["docker.io/library/ggen:0.0.1"] == first["metadata"]["digest"].removeprefix("sha256:")
    checked_sbom(documents["ggen.tar.cdx.json"])


def test_the_archive_has_both_references_and_the_labels(checkout, tmp_path):
    done, manifest, archive = build(tmp_path, ggen_build_source="path", ggen_build_path=str(checkout))
    assert done.rc == 0, done.errors
    with tarfile.open(archive) as tar:
        index = json.load(tar.extractfile("./index.json"))
        blob = {entry["digest"] for entry in index["manifests"]}
        assert blob == {manifest["metadata"]["digest"]}
        document = json.load(tar.extractfile(f"./blobs/sha256/{blob.pop()[7:]}"))
        config = json.load(tar.extractfile(f"./blobs/sha256/{document['config']['digest'][7:]}"))
        layers = [tar.extractfile(f"./blobs/sha256/{layer['digest'][7:]}") for layer in document["layers"]]
        with tarfile.open(fileobj=layers[0], mode="r:gz") as layer:
            files = {member.name: (member.mode & 0o7777, member.uid) for member in layer}
    names = {entry["annotations"]["org.opencontainers.image.ref.name"] for entry in index["manifests"]}
    assert names == {"docker.io/library/ggen:0.0.1", "docker.io/library/ggen:latest"}
    labels = config["config"]["Labels"]
    for name in ("version", "revision", "source", "licenses"):
        assert labels[f"org.opencontainers.image.{name}"]
    assert config["config"]["Entrypoint"] == ["/usr/local/bin/ggen"]
    assert config["config"]["WorkingDir"] == "/workspace"
    assert files["usr/local/bin/ggen"] == (0o755, 0)
    assert files["usr/local/bin/catatonit"] == (0o755, 0)
    assert files["tmp"][0] == 0o1777
    assert {"etc/passwd", "etc/group", "etc/hosts", "etc/nsswitch.conf", "etc/resolv.conf"} <= set(files)


def test_an_image_that_is_there_is_not_built_again(checkout, tmp_path):
    build(tmp_path, ggen_build_source="path", ggen_build_path=str(checkout))
    done, _manifest, archive = build(tmp_path, ggen_build_source="path", ggen_build_path=str(checkout))
    assert done.rc == 0, done.errors
    assert done.changed == []
    with open(archive, "r+b") as stream:
        stream.write(b"x")
    done, _manifest, archive = build(tmp_path, ggen_build_source="path", ggen_build_path=str(checkout))
    assert done.rc == 0, done.errors
    with tarfile.open(archive) as tar:
        assert "./index.json" in tar.getnames(), "a changed byte is fixed from the cache"


def test_other_bytes_than_the_named_ones_are_refused(checkout, tmp_path):
    binary = write(tmp_path / "ggen", "something else")
    done, manifest, _archive = build(tmp_path, ggen_build_source="binary", ggen_build_binary=str(binary), ggen_build_binary_sha256="0" * 64)
    assert done.rc != 0
    assert sha256(binary) in done.errors
    assert manifest == {}


def test_another_crate_than_the_pinned_one_is_not_compiled(tmp_path):
    done, manifest, _archive = build(tmp_path, ggen_build_version="26.5.19", ggen_build_crate_sha256="0" * 64)
    assert done.rc != 0
    assert f"and ggen_build_crate_sha256 is {'0' * 64}" in done.errors
    assert "Compile ggen" not in done.changed
    assert manifest == {}
    assert not list((tmp_path / "one" / "cache").glob("objects/*"))


def test_a_program_that_needs_libraries_is_refused(tmp_path):
    program = shutil.which("true")
    done, manifest, _archive = build(
        tmp_path, ggen_build_source="binary", ggen_build_binary=program, ggen_build_binary_sha256=sha256(Path(program))
    )
    assert done.rc != 0
    assert "ggen: not a static ELF program" in done.errors
    assert manifest == {}


@pytest.mark.parametrize(
    ("version", "may_install", "said"),
    [
        ("1.85.0", False, ["1.87 or newer", "has 1.63.0", "its apt offers none"]),
        ("1.96.0", False, ["apt-get install cargo-web rustc-web"]),
        ("1.96.0", True, ["has 1.63.0", "apt cannot install cargo-web rustc-web without removing packages", "remove is disabled"]),
    ],
    ids=["and nothing newer is offered", "and a newer one may not be installed", "and a newer one would take its place"],
)
def test_a_cargo_that_is_too_old_is_named(checkout, tmp_path, monkeypatch, version, may_install, said):
    """As apt and dpkg answer on a host that has every package but Rust's; what is installed is tried on a host of the lab."""
    lines = "\n".join(f"{name} | {version} | http://mirror bookworm/main amd64 Packages" for name in ("cargo-web", "rustc-web"))
    scripts = {
        "home/.cargo/bin/cargo": "echo 'cargo 1.63.0'; echo 'release: 1.63.0'",
        "bin/apt-cache": f"[ $1 = search ] && printf 'cargo-web - x\\nrustc-web - x\\n' || echo '{lines}'",
        "bin/apt-get": "echo 'E: Packages need to be removed but remove is disabled.' >&2; exit 100",
        "bin/dpkg-query": 'shift 3; for name; do case "$name" in *-web) ;; *) echo "$name installed" ;; esac; done; exit 1',
    }
    for path, text in scripts.items():
        write(tmp_path / path, f"#!/bin/sh\n{text}\n").chmod(0o755)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    asked = {"ggen_build_source": "path", "ggen_build_path": str(checkout), "ggen_build_install_tools": may_install}
    done, _manifest, _archive = build(tmp_path, **asked)
    assert done.rc != 0
    assert [text for text in said if text not in " ".join(done.errors.split())] == [], done.errors


def test_no_network_and_no_cache_is_said_plainly(tmp_path, monkeypatch):
    # What cargo itself says without a network: a registry that nobody serves.
    monkeypatch.setenv("CARGO_NET_OFFLINE", "true")
    done, _manifest, _archive = build(tmp_path, ggen_build_crate_sha256="0" * 64, ggen_build_rocksdb=True)
    assert done.rc != 0
    assert "could not be fetched from the Rust registry" in done.errors
    assert "ggen_build_source binary" in done.errors


def test_missing_packages_are_named_where_they_may_not_be_installed(checkout, tmp_path, monkeypatch):
    # As dpkg-query answers on a machine that has all but one of them.
    tool = write(
        tmp_path / "bin/dpkg-query", '#!/bin/sh\nshift 3\nfor name; do [ "$name" = buildah ] || echo "$name installed"; done\nexit 1\n'
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    asked = {"ggen_build_source": "path", "ggen_build_path": str(checkout)}
    done, _manifest, _archive = build(tmp_path, ggen_build_install_tools=False, **asked)
    assert done.rc != 0
    assert "apt-get install buildah" in done.errors
    done, _manifest, _archive = build(tmp_path, **asked)
    assert done.rc == 0, "apt is asked for what is missing, and has it"
    assert done.result("Install the missing packages")["changed"] is False


def test_the_containerfile_starts_from_nothing():
    lines = (ROOT / "roles/ggen_build/templates/Containerfile.j2").read_text().splitlines()
    assert "FROM scratch" in lines
    assert not [line for line in lines if line.startswith("RUN")]
