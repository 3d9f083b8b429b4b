# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is known to be wrong with old versions of containerd: a table, and which of its rows a host has."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from ansible_collections.ggen.gvisor.plugins.module_utils._base.platform import version_tuple


class Advisory(NamedTuple):
    """A row: what is wrong, the first fixed version of each branch, and the first fixed packages of distributions that keep a version and mend it."""

    cve: str
    about: str
    fixed: tuple[str, ...]
    packages: tuple[str, ...] = ()


# From containerd's advisories (github.com/containerd/containerd/security/advisories) and the changelogs of Debian's packages. A branch that is older than
# the newest of a row and not in it has no fix.
ADVISORIES = (
    Advisory("CVE-2022-23648", "an image reads files of the host through its volumes", ("1.4.13", "1.5.10", "1.6.1")),
    Advisory("CVE-2022-24769", "containers have inheritable capabilities", ("1.5.11", "1.6.2")),
    Advisory("CVE-2022-31030", "a container exhausts the host's memory by ExecSync", ("1.5.13", "1.6.6")),
    Advisory("CVE-2022-23471", "a command that cannot start leaks memory of the daemon", ("1.5.16", "1.6.12")),
    Advisory("CVE-2023-25153", "the import of an image exhausts the daemon's memory", ("1.5.18", "1.6.18")),
    Advisory("CVE-2023-25173", "supplementary groups of an image are not set up properly", ("1.5.18", "1.6.18")),
    Advisory(
        "CVE-2024-40635",
        "a large user's number in an image is root",
        ("1.6.38", "1.7.27", "2.0.4"),
        ("1.6.20~ds1-1+deb12u2", "1.7.24~ds1-6"),
    ),
    Advisory(
        "CVE-2024-25621",
        "folders of the daemon are open to local users",
        ("1.7.29", "2.0.7", "2.1.5", "2.2.0"),
        ("1.6.20~ds1-1+deb12u2", "1.7.24~ds1-6+deb13u1"),
    ),
    Advisory(
        "CVE-2025-64329",
        "attaching leaks memory of the daemon",
        ("1.7.29", "2.0.7", "2.1.5", "2.2.0"),
        ("1.6.20~ds1-1+deb12u3", "1.7.24~ds1-6+deb13u1"),
    ),
    Advisory(
        "CVE-2026-46680", "a large user's number in an image is a name that the image makes root", ("1.7.32", "2.0.9", "2.2.4", "2.3.1")
    ),
    Advisory("CVE-2026-53488", "an image's labels run commands on the host", ("1.7.33", "2.0.10", "2.1.9", "2.2.5", "2.3.2")),
)


def open_advisories(version: str | None, package: Mapping[str, Any] | None = None) -> list[Advisory]:
    """Return the advisories that hold for a containerd of this version, from this ``package`` (name and version) of a distribution or none."""
    numbers = version_tuple(version or "")
    if not numbers:
        return []
    brought = str((package or {}).get("version") or "")
    if version_tuple(brought) != numbers:  # the daemon that runs is from before an upgrade, or from somewhere else
        brought = ""
    return [row for row in ADVISORIES if _is_older(numbers, row) and not _is_mended(brought, row)]


def _is_older(numbers: tuple[int, ...], row: Advisory) -> bool:
    fixes = {fixed[:2]: fixed for fixed in (version_tuple(text) or () for text in row.fixed)}
    fixed = fixes.get(numbers[:2])
    return numbers < fixed if fixed else numbers[:2] < max(fixes)


def _is_mended(package: str, row: Advisory) -> bool:
    return any(package.rpartition("-")[0] == fixed.rpartition("-")[0] and not is_before(package, fixed) for fixed in row.packages)


def is_before(left: str, right: str) -> bool:
    """Tell whether one version of a Debian package is older than another, by dpkg's order of revisions."""
    return _order(left) < _order(right)


def _order(version: str) -> list[tuple[list[int], int]]:
    # A tilde comes before the end, which comes before letters, which come before all else.
    parts = re.findall(r"(\D*)(\d*)", version)
    return [
        ([*(-1 if sign == "~" else ord(sign) + 256 * (not sign.isalpha()) for sign in text), 0], int(number or 0)) for text, number in parts
    ]


def sentence(version: str | None, package: Mapping[str, Any] | None = None) -> str | None:
    """Return what to say of a host's containerd, None where nothing is known against it."""
    found = open_advisories(version, package)
    if not found:
        return None
    named = f"{package['name']} {package['version']}" if package else f"containerd {version}"
    return (
        f"{named} is older than the fixes of {', '.join(f'{row.cve} ({row.about})' for row in found)}; upgrade it{_caveat(package, found)}"
    )


def _caveat(package: Mapping[str, Any] | None, found: list[Advisory]) -> str:
    """A distribution's own revision may have a fix that the table does not know."""
    own = package and re.search(r"-\d*[a-z~+]|ubuntu|deb", str(package["version"]))
    return ", or see its changelog, as a distribution may have brought back more than is known here" if own and found else ""
