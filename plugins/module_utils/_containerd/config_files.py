# Copyright (c) 2026, the ggen.gvisor authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""Read containerd's configuration from this host, and ask this host's containerd about a candidate.

No TOML is parsed here, as targets have no parser: what is read goes to the controller as it is.
"""

from __future__ import annotations

import base64
import contextlib
import fnmatch
import os
import re
import tempfile
from typing import Any, Dict, List, Optional

from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._base.files import locked
from ansible_collections.ggen.gvisor.plugins.module_utils._base.process import run
from ansible_collections.ggen.gvisor.plugins.module_utils._containerd.config_transaction import LOCK_SECONDS, sha_of

# Good enough to find what to read along with the main file; the controller, which parses it, asks again if this was wrong.
_IMPORTS = re.compile(r"^[ \t]*[\"']?imports[\"']?[ \t]*=[ \t]*\[([^\]]*)\]", re.MULTILINE)
_STRINGS = re.compile(r"\"([^\"\\\n]*)\"|'([^'\n]*)'")


def read_file(path: str) -> Dict[str, Any]:
    """Return a file's content in base64 and its sha256; both are None when there is none."""
    try:
        with open(path, "rb") as stream:
            content = stream.read()
    except FileNotFoundError:
        return {"path": path, "content": None, "sha256": None}
    except IsADirectoryError as error:
        raise GvisorError("{0} is a folder; name the configuration file".format(path)) from error
    return {"path": path, "content": base64.b64encode(content).decode("ascii"), "sha256": sha_of(path)}


def guess_imports(text: str) -> List[str]:
    """Return the patterns of the text's imports line, as far as they can be found without parsing TOML."""
    match = _IMPORTS.search(text)
    return [double or single for double, single in _STRINGS.findall(match.group(1))] if match else []


def expand(pattern: str, folder: str) -> List[str]:
    """Return the files that containerd reads for one entry of imports: relative ones start at the main file's folder.

    As in Go, a star matches a leading dot, and an entry without a star is a literal name, there or not.
    """
    path = os.path.normpath(os.path.join(folder, pattern))
    if "*" not in pattern:
        return [path]
    found = ["/"]
    for part in path.strip("/").split("/"):
        if any(letter in part for letter in "*?["):
            found = [os.path.join(base, name) for base in found for name in _names(base) if fnmatch.fnmatchcase(name, part)]
        else:
            found = [os.path.join(base, part) for base in found]
    return sorted(name for name in found if os.path.lexists(name))


def _names(folder: str) -> List[str]:
    with contextlib.suppress(OSError):
        return sorted(os.listdir(folder))
    return []


def containerd_version(program: str) -> Optional[str]:
    """Return the installed containerd's version without packaging suffixes, None when it is not installed."""
    try:
        done = run([program, "--version"])
    except GvisorError:
        return None
    match = re.search(r"\sv?(\d+\.\d+\.\d+[0-9A-Za-z.-]*)", done.stdout)
    return match.group(1) if match else None


def read_all(path: str, program: str, dropin: str, patterns: Optional[List[str]] = None) -> Dict[str, Any]:
    """Return the main file, the files that it imports and the drop-in, and containerd's version."""
    path = os.path.realpath(path)
    folder = os.path.dirname(path)
    main = read_file(path)
    if patterns is None:
        patterns = guess_imports(base64.b64decode(main["content"] or "").decode("utf-8", "replace"))
    imports = {pattern: expand(pattern, folder) for pattern in patterns}
    names = dict.fromkeys(name for found in imports.values() for name in found)
    names.pop(path, None)
    dropin = os.path.normpath(os.path.join(folder, dropin))
    names.setdefault(dropin)
    return {
        "main": main,
        "imports": imports,
        "imported": [read_file(name) for name in names if not os.path.isdir(name)],
        "dropin": dropin,
        "dropin_folder": [name for name in _names(os.path.dirname(dropin)) if name.endswith(".toml")],
        "containerd": containerd_version(program),
    }


def read_for(path: str, program: str, name: str, dropin: str = "auto", patterns: Optional[List[str]] = None) -> Dict[str, Any]:
    """Return all that is to be known for a change of the runtime handler ``name``, while nobody writes it."""
    place = dropin if dropin not in ("auto", "never") else "conf.d/{0}.toml".format(name)
    folder = os.path.dirname(os.path.realpath(path))
    with locked(folder, LOCK_SECONDS, shared=True) if os.path.isdir(folder) else contextlib.nullcontext():
        return read_all(path, program, place, patterns)


def dump(program: str, path: str) -> Dict[str, Any]:
    """Return what the host's containerd makes of a configuration file: exit code, dump and notes."""
    done = run([program, "--config", path, "config", "dump"])
    return {"rc": done.rc, "stdout": done.stdout, "stderr": done.stderr.strip()}


def validate(program: str, main: Dict[str, Any], others: List[Dict[str, Any]]) -> Dict[str, Any]:
    """Return containerd's dumps of the configuration as it is and as it would be.

    ``main`` has the path and the candidate's content; ``others`` are candidates of imported files, which the candidate names by
    ``placeholder`` as long as they have no place of their own. Candidates lie beside the originals, so that relative
    imports resolve, under names that no pattern matches.
    """
    path = os.path.realpath(main["path"])
    folder = os.path.dirname(path)
    missing = not os.path.isdir(folder)
    before = dump(program, path) if os.path.exists(path) else dump(program, os.devnull)
    temporary: List[str] = []
    try:
        if missing:
            os.makedirs(folder, mode=0o755)
        content = base64.b64decode(main["content"])
        for other in others:
            name = _candidate(folder, base64.b64decode(other["content"]))
            temporary.append(name)
            content = content.replace(other["placeholder"].encode(), name.encode())
        candidate = _candidate(folder, content)
        temporary.append(candidate)
        after = dump(program, candidate)
        after["stdout"] = after["stdout"].replace(candidate, path)
        after["stderr"] = after["stderr"].replace(candidate, path)
    finally:
        for name in temporary:
            os.unlink(name)
        if missing:
            with contextlib.suppress(OSError):
                os.rmdir(folder)
    return {"before": before, "after": after}


def _candidate(folder: str, content: bytes) -> str:
    descriptor, name = tempfile.mkstemp(dir=folder, prefix=".ggen.gvisor.candidate.")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
    except OSError as error:
        os.unlink(name)
        error.filename = name  # a write that fails does not say of which file
        raise
    return name
