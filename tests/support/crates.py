# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A registry of crates that a test makes up, served on this machine."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def packed(name: str, files: Mapping[str, str]) -> bytes:
    """Return a crate in version 1.0.0."""
    manifest = f'[package]\nname = "{name}"\nversion = "1.0.0"\nedition = "2021"\n' + files.get("Cargo.toml", "")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for path, text in {**files, "Cargo.toml": manifest}.items():
            member = tarfile.TarInfo(f"{name}-1.0.0/{path}")
            member.mode = 0o640  # as real ones have it here and there
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    return buffer.getvalue()


LOCK = """version = 4

[[package]]
name = "made-up-library"
version = "1.0.0"
source = "registry+https://github.com/rust-lang/crates.io-index"
checksum = "{checksum}"

[[package]]
name = "made-up-program"
version = "1.0.0"
dependencies = ["made-up-library"]
"""


class Registry:
    """made-up-program, whose binary is called ``ggen``, needs made-up-library.

    ``crates`` are the bytes that are served, ``sums`` what the index says of them.
    """

    def __init__(self, program: Mapping[str, str], library: Mapping[str, str]) -> None:
        made = packed("made-up-library", library)
        files = {
            "Cargo.toml": '\n[dependencies]\nmade-up-library = "1.0.0"\n\n[[bin]]\nname = "ggen"\npath = "src/main.rs"\n',
            "Cargo.lock": LOCK.format(checksum=sha256(made)),
            **program,
        }
        self.crates = {"made-up-library": made, "made-up-program": packed("made-up-program", files)}
        self.sums = {name: sha256(data) for name, data in self.crates.items()}
        self.address = ""  # where it is served

    def answer(self, path: str) -> bytes | None:
        """Answer for the path, as ``serving`` wants it."""
        needs = {"name": "made-up-library", "req": "^1", "features": [], "optional": False, "default_features": True, "target": None}
        name = path.rpartition("/")[2]
        if name == "config.json":
            return json.dumps({"dl": f"{self.address}/crates/{{crate}}"}).encode()
        if path.startswith("/crates/"):
            return self.crates.get(name)
        if name not in self.crates:
            return None
        dependencies = [{**needs, "kind": "normal"}] if name == "made-up-program" else []
        row = {"name": name, "vers": "1.0.0", "deps": dependencies, "cksum": self.sums[name], "features": {}, "yanked": False}
        return json.dumps(row).encode() + b"\n"


def settings(address: str) -> str:
    """Return the text of cargo's config.toml that has it ask the registry in place of crates.io."""
    return f'[source.crates-io]\nreplace-with = "mine"\n[source.mine]\nregistry = "sparse+{address}/"\n'


def instead_of_crates_io(address: str) -> dict[str, str]:
    """Return the environment in which cargo takes the registry for crates.io itself: commands that know no replacement (cargo info) do, too."""
    return {"__CARGO_TEST_CRATES_IO_URL_DO_NOT_USE_THIS": f"sparse+{address}/"}
