# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The runsc and shim that tests run: of the build output of this checkout, fitting this machine."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
CAP_SYS_RESOURCE = 24
SHIM = "containerd-shim-runsc-v1"


def _has_cap_sys_resource() -> bool:
    status = Path("/proc/self/status").read_text()
    effective = next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff:"))
    return bool(int(effective, 16) >> CAP_SYS_RESOURCE & 1)


def gvisor_dir(target: Path) -> Path:
    """Fill the folder ``target`` with links to a runsc and the shim that works here, and return it.

    GGEN_GVISOR_TEST_BIN names a folder with both; otherwise ``bin/<release>/linux_<arch>`` is used: the oldest release for
    containerd 1.6, the newest for others. Raises RuntimeError when there is none: a test without gVisor must not pass.
    """
    target.mkdir(parents=True, exist_ok=True)
    named = os.environ.get("GGEN_GVISOR_TEST_BIN")
    arch = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
    built = [Path(named)] if named else sorted((ROOT / "bin").glob(f"[0-9]*/linux_{arch}"))
    if not built:
        raise RuntimeError(f"no runsc below {ROOT / 'bin'}: build it (make site) or set GGEN_GVISOR_TEST_BIN to a folder")
    version = subprocess.run(["containerd", "--version"], capture_output=True, text=True, check=True).stdout.split()[2]
    folder = built[0] if version.lstrip("v").startswith("1.6.") else built[-1]
    tolerant = folder / f"{SHIM}.no-oom-score"
    shim = tolerant if tolerant.exists() and not _has_cap_sys_resource() else folder / SHIM
    for name, source in (("runsc", folder / "runsc"), (SHIM, shim)):
        (target / name).unlink(missing_ok=True)
        (target / name).symlink_to(source)
    return target
