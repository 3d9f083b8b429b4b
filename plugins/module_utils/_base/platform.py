# Copyright (c) 2026, the ggen.gvisor authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""What a machine is: its architecture, its capabilities, and versions as programs print them."""

from __future__ import annotations

import re
from typing import List, Optional, Tuple

from ansible_collections.ggen.gvisor.plugins.module_utils._base.files import read_text

# What the kernel calls a machine → what Go and OCI call it, with OCI's variant.
ARCHITECTURES = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "armv7l": "arm/v7",
    "armv6l": "arm/v6",
    "i686": "386",
}

# By bit, from include/uapi/linux/capability.h.
CAPABILITIES = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW "
    "IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD "
    "LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
).split()


def architecture(machine: str) -> str:
    """Return the name that Go and OCI have for the kernel's ``machine``, for example amd64 for x86_64. Such a name itself stays as it is."""
    return ARCHITECTURES.get(machine, machine)


def version_tuple(text: str) -> Optional[Tuple[int, ...]]:
    """Return the numbers that a version begins with, None where it begins with none: v1.6.20~ds1 is (1, 6, 20), go1.26rc1 is (1, 26)."""
    found = re.match(r"(?:v|go)?(\d+(?:\.\d+)*)", text.strip())
    return tuple(int(number) for number in found.group(1).split(".")) if found else None


def version_number(text: str) -> Optional[str]:
    """Return the first x.y.z in ``text`` without packaging suffixes: "containerd … 1.6.20~ds1" → "1.6.20"."""
    found = re.search(r"\d+\.\d+\.\d+", text)
    return found.group() if found else None


def capabilities(pid: int) -> List[str]:
    """Return the names of the capabilities that the process ``pid`` has in effect."""
    found = re.search(r"^CapEff:\s*([0-9a-f]+)", read_text(f"/proc/{pid}/status") or "", re.MULTILINE)
    bits = int(found.group(1), 16) if found else 0
    return [f"CAP_{name}" for bit, name in enumerate(CAPABILITIES) if bits >> bit & 1]
