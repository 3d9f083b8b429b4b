"""Debian's containerds of three releases, and one that Debian does not have yet, beside each other, for tests that need the real program.

Nothing is installed: packages are fetched by apt with a configuration of their own and unpacked into the project's cache; the fourth is compiled. To
fill the cache: ``PYTHONPATH=.collections:tests python -m support.containerd_debs``.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.ggen.gvisor.plugins.module_utils._base.files import locked_file

from support import apt, containerd_build

# containerd's version → the Debian release that ships it.
SUITES = {"1.6.20": "bookworm", "1.7.24": "trixie", "2.1.9": "forky"}
VERSIONS = (*SUITES, *containerd_build.VERSIONS)
PACKAGES = ("containerd", "runc")


@dataclass(frozen=True)
class Unpacked:
    """One unpacked containerd: ``root`` is the packages' file system, ``bin`` holds links to their programs."""

    version: str
    root: Path

    @property
    def bin(self) -> Path:
        """The folder to put first on PATH."""
        return self.root / "usr" / "bin"

    @property
    def path(self) -> str:
        """A PATH on which a runc, this containerd, its shim and ctr come first.

        runc is the oldest release's: unlike containerd it needs its release's C library, and newer ones run older programs.
        """
        runc = cache_root() / next(iter(SUITES)) / "usr" / "sbin"
        return os.pathsep.join([str(runc), str(self.bin), os.environ.get("PATH", os.defpath)])

    @property
    def stock_config(self) -> Path:
        """The configuration file that the package ships."""
        return self.root / "etc" / "containerd" / "config.toml"


def cache_root() -> Path:
    """Return the folder that holds one folder a version."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "ggen.gvisor" / "containerd"


def _machine_sources() -> list[dict[str, str]]:
    """Return the machine's own Debian sources as deb822 fields, so that its mirror and its keys are used."""
    stanzas: list[dict[str, str]] = []
    for path in sorted(Path("/etc/apt/sources.list.d").glob("*.sources")):
        for block in re.split(r"\n\s*\n", path.read_text()):
            lines = [line for line in block.splitlines() if line.strip() and not line.startswith("#")]
            fields = dict(re.split(r":\s*", line, maxsplit=1) for line in lines if re.match(r"[A-Za-z-]+:", line))
            if "Suites" in fields:
                stanzas.append(fields)
    lists = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*.list"))]
    for line in (line for path in lists if path.is_file() for line in path.read_text().splitlines()):
        match = re.match(r"deb\s+(?:\[(?P<options>[^]]*)\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)", line)
        if match:
            signed = re.search(r"signed-by=(\S+)", match["options"] or "")
            fields = {"URIs": match["uri"], "Suites": match["suite"]}
            stanzas.append({**fields, "Signed-By": signed[1]} if signed else fields)
    return stanzas


def _debian_mirror() -> tuple[str, str]:
    """Return the machine's Debian mirror and the keyring that proves it."""
    codename = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line).get(
        "VERSION_CODENAME", "bookworm"
    )
    for fields in _machine_sources():
        if codename in fields["Suites"].split() and "debian" in fields["URIs"]:
            keyring = fields.get("Signed-By", "/usr/share/keyrings/debian-archive-keyring.gpg")
            return fields["URIs"].split()[0], keyring
    raise RuntimeError(f"apt's configuration names no Debian archive for {codename}; these tests run on Debian machines")


def _fetch(suite: str, work: Path) -> list[Path]:
    """Download PACKAGES of ``suite`` into ``work`` and return the files."""
    mirror, keyring = _debian_mirror()
    source = work / "debian.sources"
    source.write_text(f"Types: deb\nURIs: {mirror}\nSuites: {suite}\nComponents: main\nSigned-By: {keyring}\n")
    # forky's Release file is expired where it is a snapshot
    flags = apt.options(work, source, **{"Acquire::Check-Valid-Until": "false"})
    for action in (["update", "-q"], ["download", "-q", *PACKAGES]):
        subprocess.run(["apt-get", *flags, *action], cwd=work, check=True, stdout=sys.stderr)
    return sorted(work.glob("*.deb"))


def ensure(version: str) -> Unpacked:
    """Return the unpacked containerd ``version``, fetching it when the cache does not have it."""
    oldest = next(iter(SUITES))
    if version != oldest:
        ensure(oldest)  # for its runc
    built = version in containerd_build.VERSIONS
    root = cache_root() / (f"{version}-{containerd_build.key(version)}" if built else version)
    with locked_file(str(cache_root() / f".{version}.lock")):  # the workers of a test run all want it first
        if not root.is_dir():
            work = root.with_name(f".{version}.{os.getpid()}")
            shutil.rmtree(work, ignore_errors=True)
            try:
                tree = work / "tree"
                if built:
                    containerd_build.build(version, tree, cache_root().parent)
                else:
                    for deb in _fetch(SUITES[version], work):
                        subprocess.run(["dpkg-deb", "--extract", str(deb), str(tree)], check=True)
                tree.rename(root)
            finally:
                shutil.rmtree(work, ignore_errors=True)
    unpacked = Unpacked(version, root)
    said = subprocess.run([str(unpacked.bin / "containerd"), "--version"], check=True, capture_output=True, text=True).stdout
    if not re.search(rf"\sv?{re.escape(version)}", said):
        raise RuntimeError(
            f"{SUITES.get(version, 'its go.mod')} no longer ships containerd {version}: {said.strip()}. Add a row to SUITES and remove {root}."
        )
    return unpacked


if __name__ == "__main__":
    for wanted in sys.argv[1:] or VERSIONS:
        unpacked = ensure(wanted)
        print(unpacked.version, unpacked.root)
