# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""ggen-gvisor as one file, a zipapp of what its main module imports, the same bytes wherever it is made."""

from __future__ import annotations

import ast
import functools
import io
import json
import re
import zipfile
from pathlib import Path, PurePosixPath

from ansible_collections.ggen.gvisor.plugins.module_utils._base.files import atomic_write
from ansible_collections.ggen.gvisor.plugins.module_utils._command.compiled import FOLDER

PACKAGE = "ansible_collections.ggen.gvisor.plugins.module_utils"
MAIN = f"{PACKAGE}._command.main"
MEMBER = f"{PACKAGE}._command.member"  # where sudo's members begin, who have a file of their own
COMPILED = f"{PACKAGE}._command.compiled"
ROOT = Path(__file__).resolve().parents[2] / "module_utils"
# Nothing of the caller's environment or of the host's site-packages has a say in a program of root's.
SHEBANG = b"#!/usr/bin/env -S python3 -IS\n"
EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip can say


def version() -> str:
    """Return the collection's version: of a checkout, of what Galaxy installed, or none that is known where it was copied by hand."""
    checkout, installed = ROOT.parents[1] / "galaxy.yml", ROOT.parents[1] / "MANIFEST.json"
    if checkout.is_file():
        return re.findall(r"(?m)^version: *(\S+)$", checkout.read_text(encoding="utf-8"))[0]
    if installed.is_file():
        return json.loads(installed.read_text(encoding="utf-8"))["collection_info"]["version"]
    return "unknown"


@functools.cache
def zipapp(code_folder: str = FOLDER) -> bytes:
    """Return the program, which keeps what root's starts compile of it in ``code_folder``. Raises OSError."""
    texts = {f"{name.replace('.', '/')}.py": data for name, data in modules(MAIN, COMPILED, MEMBER).items()}
    packages = {f"{parent}/__init__.py" for path in texts for parent in PurePosixPath(path).parents if str(parent) != "."}
    main = (
        f"import os\n\nfrom {COMPILED} import use\n\nuse(os.path.dirname(__file__), {code_folder!r})\n"
        f"from {MAIN} import main\n\nraise SystemExit(main({version()!r}))\n"
    )
    texts = {**texts, **dict.fromkeys(packages, b""), "__main__.py": main.encode()}
    data = io.BytesIO()
    data.write(SHEBANG)
    # Stored, as libraries compress differently; it is compressed on its way.
    with zipfile.ZipFile(data, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(texts):
            entry = zipfile.ZipInfo(path, EPOCH)
            entry.create_system, entry.external_attr = 3, 0o100644 << 16  # Unix, whatever system this is
            archive.writestr(entry, texts[path])
    return data.getvalue()


def modules(*names: str) -> dict[str, bytes]:
    """Return the sources of modules and of all that they import of the hosts' side, anywhere in them, by name. Raises OSError."""
    found: dict[str, bytes] = {}
    waiting = [*names]
    while waiting:
        current = waiting.pop()
        if current in found:
            continue
        found[current] = _path(current).read_bytes()
        for node in ast.walk(ast.parse(found[current])):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{PACKAGE}."):
                inside = [f"{node.module}.{alias.name}" for alias in node.names]
                waiting += [module if _path(module).is_file() else str(node.module) for module in inside]
    return found


def _path(module: str) -> Path:
    return ROOT.joinpath(*module.removeprefix(f"{PACKAGE}.").split(".")).with_suffix(".py")


def write(path: str, code_folder: str = FOLDER) -> None:
    """Write the program to ``path``, whole or not at all. Raises OSError."""
    atomic_write(path, zipapp(code_folder), 0o755)
