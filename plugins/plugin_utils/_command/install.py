# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Install ggen-gvisor on this machine: the program, its manual page and bash's completion, below a prefix."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from ansible_collections.ggen.gvisor.plugins.module_utils._base.files import atomic_write
from ansible_collections.ggen.gvisor.plugins.module_utils._command.completion import completion
from ansible_collections.ggen.gvisor.plugins.module_utils._command.manual import manual
from ansible_collections.ggen.gvisor.plugins.plugin_utils._command.zipapp import version, zipapp


def install(prefix: str) -> list[str]:
    """Write the three files and return their paths. Raises OSError."""
    own = version()
    files = {
        "bin/ggen-gvisor": (zipapp(), 0o755),
        "share/man/man1/ggen-gvisor.1": (manual(own).encode(), 0o644),
        "share/bash-completion/completions/ggen-gvisor": (completion().encode(), 0o644),
    }
    for name, (data, mode) in files.items():
        path = Path(prefix, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(str(path), data, mode)
    return [os.path.join(prefix, name) for name in files]


if __name__ == "__main__":
    print("\n".join(install(sys.argv[1])))
