# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An apt that knows one source and no installed package, and keeps everything in a folder of its own."""

from __future__ import annotations

from pathlib import Path


def options(folder: Path, source: Path, **more: str) -> list[str]:
    """Return apt's options for the one ``source``, a file that lists it, and make their folders below ``folder``. ``more`` are others by name."""
    for name in ("lists/partial", "archives/partial"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    values = {
        "Dir::Etc::sourcelist": source,
        "Dir::Etc::sourceparts": "-",
        "Dir::State::lists": folder / "lists",
        "Dir::State::status": "/dev/null",
        "Dir::Cache": folder,
        "Acquire::Languages": "none",
        "APT::Sandbox::User": "root",
        "Debug::NoLocking": "true",
    }
    return [f"--option={name}={value}" for name, value in {**values, **more}.items()]
