# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which of a distribution's packages bring a Rust that is new enough."""

from __future__ import annotations

import re
from typing import Any, NamedTuple


class Row(NamedTuple):
    """Packages of a kind: the name of cargo's, a pattern; rustc's and where their programs are, by what the pattern matched."""

    cargo: str
    rustc: str
    programs: str
    suite: str = r"(?!.*-backports$).*"


# The first that is new enough: what the distribution itself keeps up to date before what a user has to want.
ROWS = (
    Row("cargo", "rustc", "/usr/bin"),
    # Debian's, for its browsers.
    Row("cargo-web", "rustc-web", "/usr/bin"),
    # Ubuntu's; the programs in /usr/bin have the number in their names, and cargo's is a script that takes the distribution's usual rustc.
    Row(r"cargo-(1\.\d+)", r"rustc-\1", r"/usr/lib/rust-\1/bin"),
    Row("cargo", "rustc", "/usr/bin", r".*-backports"),
)


class _Offer(NamedTuple):
    name: str
    version: str
    suite: str

    def upstream(self) -> tuple[int, ...]:
        return _numbers(self.version)


def rust_offer(madison: str, minimum: str) -> dict[str, Any]:
    """Return of what ``apt-cache madison`` prints the packages to install, with their ``version``, the folder of their ``programs`` and the ``suite``
    that apt has to be told, which is empty where apt takes them by itself. Empty where there is no cargo and rustc of ``minimum`` or newer.
    """
    offers = [_Offer(name, version, origin.split()[1].partition("/")[0]) for name, version, origin in _lines(madison)]
    for row in ROWS:
        fitting = [
            offer
            for offer in offers
            if re.fullmatch(row.cargo, offer.name) and re.fullmatch(row.suite, offer.suite) and offer.upstream() >= _numbers(minimum)
        ]
        for offer in sorted(fitting, key=_Offer.upstream, reverse=True):
            rustc, programs = (re.sub(f"^{row.cargo}$", text, offer.name) for text in (row.rustc, row.programs))
            if any((other.name, other.upstream()) == (rustc, offer.upstream()) for other in offers):
                suite = offer.suite if offer.suite.endswith("-backports") else ""
                return {"packages": [offer.name, rustc], "version": offer.version, "programs": programs, "suite": suite}
    return {}


def _lines(madison: str) -> list[tuple[str, str, str]]:
    """Return name, version and origin of the packages that can be installed; sources are told in the same form."""
    cells = ([cell.strip() for cell in line.split("|")] for line in madison.splitlines())
    return [(row[0], row[1], row[2]) for row in cells if len(row) == 3 and row[2].endswith(" Packages")]


def _numbers(version: str) -> tuple[int, ...]:
    found = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, found[0].split("."))) if found else ()
