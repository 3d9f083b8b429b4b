# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Role ggen_build compiles hostile crates: what runs of them, a build script, can do nothing but compile.

The role, cargo and the image are real; the registry and its two crates are made up, so that a build takes seconds.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.ggen.gvisor.plugins.module_utils._builds.confinement import UNPRIVILEGED
from conftest import ROOT
from support.crates import LOCK, Registry, instead_of_crates_io, packed, sha256
from support.http import serving
from support.supply import checked_statement

SECONDS = "16180339"  # of a process that is left behind
# Prints a line for each thing that it could do.
ATTACK = """
use std::{env, fs, net::TcpStream, process::{Command, Stdio}, os::unix::net::UnixStream};

fn main() {
    println!("I am {}", String::from_utf8_lossy(&Command::new("id").arg("-u").output().unwrap().stdout).trim());
    println!("I see {}", fs::read_to_string("/proc/version").unwrap().trim());
    for path in [@READ@] {
        if fs::read(path).is_ok() { println!("HARM read {path}"); }
    }
    for path in [@WRITE@] {
        if fs::write(format!("{path}/planted"), "x").is_ok() { println!("HARM wrote {path}"); }
        if let Ok(entries) = fs::read_dir(path) {
            for entry in entries.flatten() {
                // Opened is enough, and harms nothing where the walls are down.
                if fs::OpenOptions::new().append(true).open(entry.path()).is_ok() { println!("HARM opened {}", entry.path().display()); }
            }
        }
    }
    // The sources of other crates, this one's and the configuration of cargo.
    let sources = env::var("CARGO_MANIFEST_DIR").unwrap();
    let home = env::var("CARGO_HOME").unwrap_or_else(|_| format!("{sources}/../../../.."));
    for path in [sources.clone() + "/src/lib.rs", sources + "/../made-up-program-1.0.0/src/main.rs", home.clone() + "/config.toml", home + "/planted"] {
        if fs::OpenOptions::new().append(true).create(true).open(&path).is_ok() { println!("HARM opened {path}"); }
    }
    if TcpStream::connect("@SERVER@").is_ok() { println!("HARM network"); }
    if UnixStream::connect("@SOCKET@").is_ok() { println!("HARM socket"); }
    for name in ["TOKEN", "SSH_AUTH_SOCK", "CARGO_REGISTRY_TOKEN"] {
        if env::var(name).is_ok() { println!("HARM environment {name}"); }
    }
    let mut left = Command::new("setsid");
    left.args(["-f", "sleep", "@SECONDS@"]).stdout(Stdio::null()).stderr(Stdio::null()); // cargo would wait for the end of its output
    println!("left {:?}", left.status());
    fs::write(env::var("OUT_DIR").unwrap() + "/word.rs", "pub const WORD: &str = \\"compiled\\";").unwrap();
    println!("attacked");
}
"""
LIBRARY = 'include!(concat!(env!("OUT_DIR"), "/word.rs"));\n'
MAIN = 'fn main() { println!("ggen {}", made_up_library::WORD) }\n'


def cargo() -> str:
    found = shutil.which("cargo", path=f"{Path.home()}/.cargo/bin:{os.environ['PATH']}")
    assert found
    return found


class World:
    """A user's home, a cache, and a server that a hostile build would like to reach."""

    def __init__(self, root: Path, server: socket.socket, unix: Path) -> None:
        self.root, self.home, self.cache, self.dist = root, root / "home", root / "cache", root / "dist"
        self.reached = (server, unix)
        self.served = ""  # where the registry is, if it is served for more than one run
        self.cargo = self.home / ".cargo"
        self.cargo.mkdir(parents=True)
        for path in (self.home / "secret", self.cargo / "credentials.toml"):
            path.write_text("secret")
        self.cache.mkdir()
        (self.cache / "others").write_text("another build's")
        read = [self.home / "secret", self.cargo / "credentials.toml", self.cache / "others", ROOT / "README.md", "/var/lib/dpkg/status"]
        read += [path for path in Path.home().iterdir() if path.is_file()]
        write = [
            self.home,
            self.cargo,
            self.cache,
            root,
            Path.home(),
            Path.home() / ".cargo/bin",
            *map(Path, ("/", "/etc", "/usr/local/bin", "/opt")),
        ]
        self.attack = (
            ATTACK.replace("@READ@", ", ".join(f'"{path}"' for path in read))
            .replace("@WRITE@", ", ".join(f'"{path}"' for path in write))
            .replace("@SERVER@", "{}:{}".format(*server.getsockname()))
            .replace("@SOCKET@", str(unix))
            .replace("@SECONDS@", SECONDS)
        )
        self.registry = Registry({"src/main.rs": MAIN}, {"src/lib.rs": LIBRARY, "build.rs": self.attack})

    def plant(self, registry: dict[str, str]) -> None:
        """Have the user's cargo fetch the library, as for a build of the user's own, and change what it has unpacked."""
        rustup = os.environ.get("RUSTUP_HOME") or str(Path.home() / ".rustup")
        env = {**os.environ, **registry, "CARGO_HOME": str(self.cargo), "RUSTUP_HOME": rustup}
        subprocess.run([cargo(), "info", "made-up-library@1.0.0"], env=env, cwd=self.root, check=True, capture_output=True)
        for path in self.cargo.glob("registry/src/*/made-up-library-1.0.0/src/lib.rs"):
            path.write_text('compile_error!("planted");\n')

    def run(self, *prefix: str, prepare: bool = False, **variables: object) -> subprocess.CompletedProcess:
        """Run the role, with the user's home as HOME and this machine's toolchain. The registry is served for this run, unless it already is."""
        with contextlib.nullcontext((self.served, [])) if self.served else serving(self.registry.answer) as (address, self.asked):
            self.registry.address = address
            registry = instead_of_crates_io(address)
            if prepare:
                self.plant(registry)
            # Of these settings nothing is the build's.
            (self.cargo / "config.toml").write_text('[build]\nrustc-wrapper = "no-such-wrapper"\n')
            book = self.root / "play.yml"
            book.write_text(json.dumps([{"hosts": "all", "gather_facts": False, "roles": ["ggen.gvisor.ggen_build"]}]))
            told = {
                "ansible_connection": "local",
                "ansible_python_interpreter": sys.executable,
                "ggen_build_cache": str(self.cache),
                "ggen_build_dest": str(self.dist),
                "ggen_build_version": "1.0.0",
                "ggen_build_install_tools": False,
                "ggen_build_rocksdb": True,
                "_ggen_build_crate": "made-up-program@1.0.0",
                "ggen_build_crate_sha256": sha256(self.registry.crates["made-up-program"]),
                "ggen_build_environment": registry,
                **variables,
            }
            return subprocess.run(
                [*prefix, Path(sys.executable).with_name("ansible-playbook"), "-vv", "-i", "localhost,", book, "-e", json.dumps(told)],
                env={
                    **os.environ,
                    **registry,
                    "HOME": str(self.home),
                    "XDG_CACHE_HOME": str(self.root / "jobs"),
                    "TOKEN": "secret",
                    "CARGO_REGISTRY_TOKEN": "secret",
                    "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".collections"),
                    "PATH": f"{Path(cargo()).parent}:{os.environ['PATH']}",
                    "RUSTUP_HOME": os.environ.get("RUSTUP_HOME") or str(Path.home() / ".rustup"),
                },
                cwd=self.root,
                capture_output=True,
                text=True,
                timeout=600,
                check=False,
            )

    def logs(self) -> str:
        return "".join(path.read_text() for path in sorted((self.root / "jobs/ggen.gvisor/jobs").glob("*/log")))

    def manifest(self) -> dict:
        return json.loads((self.dist / "1.0.0/linux_amd64/manifest.json").read_text())

    def program(self) -> Path:
        (found,) = self.cache.glob("ggen/1.0.0/linux_*/ggen")
        return found


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(tmp_path / "socket"))
        unix.listen()
        world = World(tmp_path, server, tmp_path / "socket")
        before = {path: path.read_bytes() for path in world.home.rglob("*") if path.is_file()}
        yield world
        server.settimeout(0.1)
        with pytest.raises(TimeoutError):
            server.accept()
        assert {path: path.read_bytes() for path in before} == before
        assert (world.cache / "others").read_text() == "another build's"
    assert not [path for path in Path("/proc").glob("[0-9]*/cmdline") if SECONDS in told(path)]


def told(path: Path) -> list[str]:
    try:
        return path.read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []


@pytest.mark.parametrize("sandbox", ["namespaces", "gvisor"])
def test_a_hostile_crate_can_do_nothing_but_compile(world, sandbox):
    done = world.run(ggen_build_sandbox=sandbox, runsc_build_dest=str(ROOT / "bin"))
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr
    log = world.logs()
    assert "attacked" in log
    # In gVisor 0 is the number of the only user there is, and no right.
    assert f"I am {UNPRIVILEGED if sandbox == 'namespaces' else 0}" in log
    assert ("gvisor" in log.partition("I see ")[2].partition("\n")[0]) == (sandbox == "gvisor")
    assert [line for line in log.splitlines() if "HARM" in line] == []
    assert subprocess.run([world.program()], capture_output=True, text=True, check=True).stdout == "ggen compiled\n"
    manifest = json.loads(world.program().with_name("manifest.json").read_text())
    assert tuple(manifest["metadata"][name] for name in ("confined", "network", "sandbox")) == (True, "isolated", sandbox)
    assert world.manifest()["metadata"]["build"] == {"confined": True, "network": "isolated", "sandbox": sandbox}
    assert list((world.cache / "work").iterdir()) == []
    assert not (world.cargo / "registry").exists(), "the user's own cargo home was not used"


def test_of_a_checkout_too(world):
    checkout = world.root / "checkout"
    (checkout / "src").mkdir(parents=True)
    (checkout / "Cargo.toml").write_text(
        '[package]\nname = "made-up-program"\nversion = "1.0.0"\nedition = "2021"\n[[bin]]\nname = "ggen"\npath = "src/main.rs"\n'
        '[dependencies]\nmade-up-library = "1.0.0"\n'
    )
    (checkout / "Cargo.lock").write_text(LOCK.format(checksum=world.registry.sums["made-up-library"]))
    (checkout / "src/main.rs").write_text(MAIN)
    before = set(checkout.rglob("*"))
    done = world.run(ggen_build_source="path", ggen_build_path=str(checkout))
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr
    log = "".join(path.read_text() for path in checkout.glob("target/ggen.gvisor/target/*/release/build/*/output"))
    log += "".join(path.read_text() for path in checkout.glob("target/ggen.gvisor/target/release/build/*/output"))
    assert "attacked" in log
    assert [line for line in log.splitlines() if "HARM" in line] == []
    assert {path for path in checkout.rglob("*") if checkout / "target" not in (path, *path.parents)} == before
    assert world.manifest()["metadata"]["build"] == {"confined": True, "network": "isolated", "sandbox": "namespaces"}
    again = world.run(ggen_build_source="path", ggen_build_path=str(checkout))
    assert "changed=0" in again.stdout, again.stdout[-4000:]


def test_where_the_kernel_refuses_the_walls_nothing_is_fetched_or_compiled(world):
    """A container without CAP_SYS_ADMIN; with the variable that the message names it compiles, and everybody is told."""
    powerless = ("setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin")
    done = world.run(*powerless)
    assert done.returncode != 0
    assert "this host cannot keep a build from its files and the network" in done.stdout
    assert "ggen_build_confinement: best_effort" in done.stdout
    assert world.asked == []
    assert not (world.cache / "work").exists()
    # buildah needs the right as well, so the image is not made; what was compiled tells it.
    world.registry = Registry({"src/main.rs": MAIN}, {"src/lib.rs": 'pub const WORD: &str = "compiled";\n'})
    done = world.run(*powerless, ggen_build_confinement="best_effort")
    assert "this host confines no build, so it ran as the user who runs this, with the network" in " ".join(
        (done.stdout + done.stderr).split()
    )
    manifest = json.loads(world.program().with_name("manifest.json").read_text())
    assert (manifest["metadata"]["confined"], manifest["metadata"]["network"]) == (False, "shared")


def test_without_runsc_a_build_in_gvisor_is_refused_before_anything_is_fetched(world):
    done = world.run(ggen_build_sandbox="gvisor", _ggen_build_runscs=["/nowhere/{arch}/runsc"])
    assert done.returncode != 0
    said = " ".join(done.stdout.split())
    for part in ("this host gives a build no gVisor sandbox: it has no runsc (/nowhere/amd64/runsc)", "ggen_build_sandbox: namespaces"):
        assert part in said
    assert world.asked == []
    assert not (world.cache / "work").exists()


@pytest.mark.parametrize("index_lies", [False, True], ids=["other bytes", "other bytes and the index vouches for them"])
def test_a_crate_that_the_lock_file_does_not_pin_is_not_compiled(world, index_lies):
    false = packed("made-up-library", {"src/lib.rs": 'pub const WORD: &str = "false";\n'})
    world.registry.crates["made-up-library"] = false
    if index_lies:
        world.registry.sums["made-up-library"] = sha256(false)
    done = world.run()
    assert done.returncode != 0
    assert "checksum" in done.stdout
    assert "Compiling" not in world.logs()
    assert not (world.cache / "ggen").exists()


def test_a_crate_that_the_collection_does_not_list_is_not_compiled(world):
    """Both have to agree: the lock file that comes with the program, and the list that the collection pins."""
    sums = f"made-up-library 1.0.0 {'0' * 64}\n"
    done = world.run(_ggen_build_crate_sums=sums)
    assert done.returncode != 0
    assert "Other crates than the pinned ones were fetched, and nothing was compiled" in done.stdout
    assert f"made-up-library-1.0.0 has the sha256 {world.registry.sums['made-up-library']} instead of" in done.stdout
    assert "Compiling" not in world.logs()


def test_what_lies_in_the_user_s_cargo_home_is_not_what_compiles(world):
    """Every program of the user's can write there, and cargo compares unpacked sources with nothing."""
    done = world.run(prepare=True)
    assert done.returncode == 0, done.stdout[-4000:]
    (planted,) = world.cargo.glob("registry/src/*/made-up-library-1.0.0/src/lib.rs")
    assert "planted" in planted.read_text()
    assert subprocess.run([world.program()], capture_output=True, text=True, check=True).stdout == "ggen compiled\n"


def test_the_provenance_tells_how_it_was_compiled(world):
    crates = world.registry.sums
    assert world.run().returncode == 0
    folder = world.dist / "1.0.0/linux_amd64"
    statement = checked_statement((folder / "ggen.tar.intoto.json").read_text())
    assert crates
    assert statement["predicate"]["buildDefinition"]["internalParameters"]["build"] == {
        "confined": True,
        "network": "isolated",
        "sandbox": "namespaces",
    }


# Names of folders get into a program by panics and by what a build script has generated.
NAMES_ITS_PLACE = {
    "src/lib.rs": 'include!(concat!(env!("OUT_DIR"), "/word.rs"));\npub fn check(n: usize) { assert!(n > 9, "{}", file!()); }\n',
    "build.rs": (
        'fn main() { std::fs::write(std::env::var("OUT_DIR").unwrap() + "/word.rs", '
        '"pub fn word(n: usize) -> u8 { b\\"compiled\\"[n] }").unwrap(); }\n'
    ),
}
CALLS_IT = (
    "fn main() { let n = std::env::args().count(); made_up_library::check(n + 9); "
    'println!("ggen {} {}", made_up_library::word(n) as char, file!()) }\n'
)
PATCH = """
crate: {{name: made-up-library, version: 1.0.0}}
unused: []
edits:
  - {{file: made-up-library/src/lib.rs, text: assert!(n > 9, becomes: assert!(n > 8}}
  - file: Cargo.lock
    text: |
      name = "made-up-library"
      version = "1.0.0"
      source = "registry+https://github.com/rust-lang/crates.io-index"
      checksum = "{checksum}"
    becomes: |
      name = "made-up-library"
      version = "1.0.0"
"""


@pytest.mark.parametrize("patched", [False, True], ids=["as published", "patched"])
def test_the_program_is_the_same_bytes_wherever_it_is_built(world, patched):
    """One toolchain, two folders; the table of edits is the collection's and lies in one place."""
    registry = Registry({"src/main.rs": CALLS_IT}, NAMES_ITS_PLACE)
    table = world.root / "without-rocksdb.yml"
    table.write_text(PATCH.format(checksum=registry.sums["made-up-library"]))
    variables = {"ggen_build_rocksdb": False, "_ggen_build_patch_file": str(table)} if patched else {}
    made = []
    # At one address: cargo names a registry's folder by it.
    with serving(registry.answer) as (address, _asked):
        for place in (world, World(world.root / "elsewhere/and/deeper", *world.reached)):
            place.registry, place.served = registry, address
            done = place.run(**variables)
            assert done.returncode == 0, done.stdout[-4000:] + done.stderr
            made.append(place.program().read_bytes())
            assert str(place.root).encode() not in made[-1]
    assert sha256(made[0]) == sha256(made[1])
    inputs = json.loads(world.program().with_name("manifest.json").read_text())["made_from"]["inputs"]
    assert inputs["toolchain"][0].startswith("cargo ")
    assert inputs.get("patches") == ({table.name: sha256(table.read_bytes())} if patched else None)
    assert subprocess.run([world.program()], capture_output=True, text=True, check=True).stdout.startswith("ggen o ")


def test_sources_that_the_changes_do_not_fit_are_not_compiled(world):
    table = world.root / "without-rocksdb.yml"
    table.write_text(PATCH.format(checksum="0" * 64))
    done = world.run(ggen_build_rocksdb=False, _ggen_build_patch_file=str(table))
    assert done.returncode != 0
    assert "Change them" in done.stdout
    assert "Compiling" not in world.logs()


def test_a_version_that_nobody_has_changed_is_refused_at_once(world):
    done = world.run(ggen_build_rocksdb=False)
    assert done.returncode != 0
    assert "It is not known how ggen 1.0.0 is compiled without RocksDB. Set ggen_build_rocksdb to true." in " ".join(done.stdout.split())
    assert world.asked == []
