# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which gVisor releases to build for which hosts, from the table vendors/gvisor/releases.yml."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.ggen.gvisor.plugins.module_utils._base.files import sha256_file
from ansible_collections.ggen.gvisor.plugins.module_utils._base.platform import architecture, version_tuple

AUTO = "auto"
BUILT = ("amd64", "arm64")  # what gVisor is built for here, by Go's names


def version_of(text: str) -> tuple[int, ...]:
    """Return the numbers a containerd version begins with: 1.6.20~ds1 is (1, 6, 20). Raises ValueError when there are
    none."""
    numbers = version_tuple(str(text))
    if numbers is None:
        raise ValueError(f"{text!r} is no containerd version")
    return numbers


def goarch(machine: str) -> str:
    """Return Go's name of an architecture. Raises ValueError for one that gVisor is not built for here."""
    name = architecture(machine)
    if name not in BUILT:
        raise ValueError(f"{machine!r} is no architecture built here; known: {', '.join(BUILT)}")
    return name


def usable(row: Mapping[str, Any], containerd: str) -> bool:
    """Return whether the row's shim works with that containerd."""
    version = version_of(containerd)
    low, high = version_of(row["containerd"]["min"]), version_of(row["containerd"]["max"])
    return low <= version and version[: len(high)] <= high


def known(releases: Mapping[str, Any], release: str) -> Mapping[str, Any]:
    """Return the release's row. Raises ValueError that lists the known ones."""
    try:
        return releases[release]
    except KeyError:
        raise ValueError(f"there is no release {release!r}; known: {', '.join(releases)}") from None


def select_release(releases: Mapping[str, Any], containerd: str, release: str = AUTO) -> str:
    """Return the release for a host with that containerd: the one asked for, or for ``auto`` the newest whose shim works with it.

    Raises ValueError, with the fix, when there is none or the one asked for does not work.
    """
    if release != AUTO and usable(known(releases, release), containerd):
        return release
    fitting = [name for name, row in releases.items() if usable(row, containerd)]
    if fitting and release == AUTO:
        return fitting[-1]
    if fitting:
        raise ValueError(f"containerd {containerd} does not work with the shim of {release}; the newest release for it is {fitting[-1]}")
    ranges = ", ".join(f"{name} (containerd {row['containerd']['min']} to {row['containerd']['max']})" for name, row in releases.items())
    raise ValueError(f"containerd {containerd} works with the shim of no release: {ranges}; install another containerd")


def wanted(
    releases: Mapping[str, Any],
    release: str | Sequence[str] = AUTO,
    targets: Iterable[Mapping[str, str]] = (),
    arch: Sequence[str] = (),
    machine: str = "x86_64",
) -> list[tuple[str, str]]:
    """Return the (release, architecture) pairs to build, each once, in the table's order.

    ``release`` is auto, a release or several. A target is a host's ``containerd`` version and ``arch``, or names a
    ``release`` itself. ``arch`` overrides the targets' architectures; without both it is ``machine``'s. Raises
    ValueError for whatever cannot work.
    """
    targets = list(targets)
    named = [] if release == AUTO else [str(one) for one in ([release] if isinstance(release, (str, int)) else release)]
    for name in named:
        known(releases, name)
    pairs = set()
    for target in targets:
        for name in _for_target(releases, named, target):
            pairs |= {(name, goarch(one)) for one in (arch or [target.get("arch") or machine])}
    if not targets:
        pairs = {(name, goarch(one)) for name in named or list(releases)[-1:] for one in (arch or [machine])}
    order = list(releases)
    return sorted(pairs, key=lambda pair: (order.index(pair[0]), pair[1]))


def _for_target(releases: Mapping[str, Any], named: Sequence[str], target: Mapping[str, str]) -> list[str]:
    if target.get("release"):
        known(releases, str(target["release"]))
        return [str(target["release"])]
    containerd = target.get("containerd")
    if not containerd:
        raise ValueError(f"a target needs a containerd version or a release: {dict(target)}")
    if not named:
        return [select_release(releases, containerd)]
    fitting = [name for name in named if usable(releases[name], containerd)]
    if not fitting:
        newest = select_release(releases, containerd)
        raise ValueError(f"containerd {containerd} does not work with the shim of {', '.join(named)}; the newest for it is {newest}")
    return fitting


def artifact_of(table: Mapping[str, Any], vendors: Path, release: str, arch: str, go: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return what building ``release`` for ``arch`` takes, the sums it must have, and what its manifest tells besides.

    ``vendors`` is the folder vendors/ of the collection. ``go`` names the user's own Go (version, sha256): the table's
    sums do not hold then.
    """
    row = known(table["releases"], release)
    build = table["build"]
    folder = vendors / "gvisor" / release
    overlays = sorted({file for item in row["files"] for file in item.get("overlay", {}).values()})
    inputs = {
        "module": f"gvisor.dev/gvisor@{row['module']}",
        "go": dict(go) if go else table["go"]["version"],
        "flags": build["flags"],
        "ldflags": build["ldflags"].format(stamp=row["stamp"]),
        "env": {**build["env"], "GOARCH": arch},
        "files": [{name: item[name] for name in ("name", "package", "mode", "overlay") if name in item} for item in row["files"]],
        "sources": {f"{release}/{name}": sha256_file(str(folder / name)) for name in ("go.mod", "go.sum")},
        "patches": {f"overlay/{name}": sha256_file(str(vendors / "gvisor" / "overlay" / name)) for name in overlays},
    }
    return {
        "name": f"runsc {release}/{arch}",
        "release": release,
        "arch": arch,
        "stamp": row["stamp"],
        "needs_go": row["needs_go"],
        "files": row["files"],
        "compiles": compiles(row["files"]),
        "flags": build["flags"],
        "ldflags": inputs["ldflags"],
        "env": inputs["env"],
        "inputs": inputs,
        "expected": {} if go else row["sha256"].get(arch, {}),
        "metadata": {
            "release": release,
            "arch": arch,
            "follows": row["follows"],
            "commit": row["commit"],
            "compared": not go,
            "modules": module_sums((folder / "go.mod").read_text(), (folder / "go.sum").read_text()),
        },
    }


def compiles(files: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return what to compile by one ``go build`` each: all programs whose sources are the same, so that one is linked while another is compiled.

    Each has the ``overlay``, the ``packages`` and the ``programs``: the names that Go gives to them, with ours.
    """
    groups: list[dict[str, Any]] = []
    for item in files:
        overlay, go_s_name = item.get("overlay", {}), item["package"].rpartition("/")[2]
        group = next((one for one in groups if one["overlay"] == overlay and go_s_name not in one["programs"]), None)
        if group is None:
            group = {"overlay": overlay, "packages": [], "programs": {}}
            groups.append(group)
        group["packages"].append(item["package"])
        group["programs"][go_s_name] = item["name"]
    return groups


def module_sums(go_mod: str, go_sum: str) -> dict[str, str]:
    """Return path@version to its h1 sum for every module that go.mod requires. Raises ValueError when go.sum lacks
    one."""
    required = re.findall(r"^(?:require)?\s+([\w.~/-]+)\s+(v[\w.+-]+)", go_mod, re.MULTILINE)
    sums = {f"{path}@{version}": value for path, version, value in re.findall(r"^(\S+) (v[^\s/]+) (h1:\S+)$", go_sum, re.MULTILINE)}
    try:
        return {f"{path}@{version}": sums[f"{path}@{version}"] for path, version in required}
    except KeyError as error:
        raise ValueError(f"go.sum has no sum of {error.args[0]}; run go mod tidy") from None


def build_plan(
    table: Mapping[str, Any],
    vendors: str,
    dest: str,
    *,
    release: str | Sequence[str] = AUTO,
    targets: Iterable[Mapping[str, str]] = (),
    arch: Sequence[str] = (),
    machine: str = "Linux x86_64",
    go: Mapping[str, str] | None = None,
    built: str = "",
) -> list[dict[str, Any]]:
    """Return every artifact to build, each with ``cache``: what module build_cache is asked for it.

    ``machine`` is what ``uname -sm`` says on the controller: on Linux ``dest``/runsc will lead to the newest release
    for it. With ``built``, the folder for results on a build host of its own, each also has ``build``, what build_cache is asked there, and
    ``fetch``, what build_fetch is. ``take`` is what build_release is asked.
    """
    system, _space, hardware = machine.partition(" ")
    pairs = wanted(table["releases"], release, targets, arch, hardware)
    mine = [pair for pair in pairs if system == "Linux" and pair[1] == architecture(hardware)]
    plan = []
    for pair in pairs:
        artifact = artifact_of(table, Path(vendors), *pair, go=go)
        artifact["cache"] = {
            "name": artifact["name"],
            "inputs": artifact["inputs"],
            "expected": artifact["expected"],
            "dest": f"{dest}/{pair[0]}/linux_{pair[1]}",
            "links": {f"{dest}/runsc": "runsc"} if pair == (mine or [None])[-1] else {},
        }
        source = f"{built or dest}/{pair[0]}/linux_{pair[1]}"
        artifact["build"] = {**artifact["cache"], "dest": source, "links": {}} if built else artifact["cache"]
        artifact["fetch"] = {**artifact["cache"], "source": source}
        artifact["take"] = {**artifact["cache"], "metadata": artifact["metadata"]}
        plan.append(artifact)
    return plan


def build_share(wanted: Mapping[str, Sequence[str]], host: str) -> list[str]:
    """Return which of the builds that each host could make ``host`` makes, so that each is made once.

    ``wanted`` has the names by host. In order, each goes to the first of the hosts that have the fewest so far; all hosts compute the same.
    """
    shares: dict[str, list[str]] = {name: [] for name in wanted}
    for build in dict.fromkeys(name for names in wanted.values() for name in names):
        able = [name for name, names in wanted.items() if build in names]
        shares[min(able, key=lambda name: len(shares[name]))].append(build)
    return shares[host]
