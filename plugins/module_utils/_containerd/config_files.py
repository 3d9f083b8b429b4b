# Copyright (c) 2026, the ggen.gvisor authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""Read containerd's configuration from this host, and ask this host's containerd about a candidate.

No TOML is parsed here, as targets have no parser: what is read goes to the controller as it is.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import hashlib
import os
import re
import shutil
import stat
import tempfile
from typing import Any, Dict, List, Optional, Sequence

from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._base.files import locked, read_text
from ansible_collections.ggen.gvisor.plugins.module_utils._base.platform import version_number, version_tuple
from ansible_collections.ggen.gvisor.plugins.module_utils._base.process import SEARCH_PATH, output_of, run
from ansible_collections.ggen.gvisor.plugins.module_utils._base.processes import argv_of, listener_pid
from ansible_collections.ggen.gvisor.plugins.module_utils._containerd.config_transaction import LOCK_SECONDS, dump, unwritable
from ansible_collections.ggen.gvisor.plugins.module_utils._containerd.ctr import DEFAULT_ADDRESS
from ansible_collections.ggen.gvisor.plugins.module_utils._containerd.generators import generator_of, sources_of
from ansible_collections.ggen.gvisor.plugins.module_utils._containerd.service import DEFAULT_CONFIG

# Good enough to find what to read along with the main file; the controller, which parses it, asks again if this was wrong.
_IMPORTS = re.compile(r"^[ \t]*[\"']?imports[\"']?[ \t]*=[ \t]*\[([^\]]*)\]", re.MULTILINE)
_STRINGS = re.compile(r"\"([^\"\\\n]*)\"|'([^'\n]*)'")


KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO, which has no content to read",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


def kind_of(path: str) -> Optional[str]:
    """Return what the path is where it is no file that could be read, else None. A FIFO would have its reader wait for ever."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return None
    return KINDS.get(stat.S_IFMT(mode))


def read_file(path: str) -> Dict[str, Any]:
    """Return a file's content in base64 and its sha256; both are None when there is none. Raises GvisorError for what is no file."""
    kind = kind_of(path)
    if kind:
        raise GvisorError("{0} is {1}; name the configuration file. Nothing was written.".format(path, kind), file=path)
    try:
        with open(path, "rb") as stream:
            content = stream.read()
    except FileNotFoundError:
        return {"path": path, "content": None, "sha256": None}
    return {"path": path, "content": base64.b64encode(content).decode("ascii"), "sha256": hashlib.sha256(content).hexdigest()}


def guess_imports(text: str) -> List[str]:
    """Return the patterns of the text's imports line, as far as they can be found without parsing TOML."""
    match = _IMPORTS.search(text)
    return [double or single for double, single in _STRINGS.findall(match.group(1))] if match else []


def matches(path: str, pattern: str) -> bool:
    """Tell whether an absolute pattern of imports has containerd read the file at ``path``, as Go's filepath.Match does.

    That is part by part: a star does not cross a slash. It matches a leading dot. An entry without a star is a literal name.
    """
    if "*" not in pattern:
        return path == pattern
    parts, wanted = path.split("/"), pattern.split("/")
    return len(parts) == len(wanted) and all(_go_pattern(one).fullmatch(part) for part, one in zip(parts, wanted))


def _go_pattern(part: str) -> Any:
    """Return one part of a pattern as a regular expression; one that Go refuses matches nothing."""
    written = ""
    for token in re.finditer(r"\\(.)|\*|\?|\[(\^?)((?:\\.|[^\]\\])+)\]|(.)", part, re.DOTALL):
        escaped, negated, letters, plain = token.groups()
        if letters is not None:
            written += "[{0}{1}]".format(negated, letters.replace("[", "\\["))
        else:
            written += {"*": ".*", "?": "."}.get(token[0]) or re.escape(escaped or plain)
    try:
        return re.compile(written, re.DOTALL)
    except re.error:
        return re.compile(r"(?!)")


def expand(pattern: str, folder: str) -> List[str]:
    """Return the files that containerd reads for one entry of imports, in its order; relative ones start at ``folder``."""
    path = os.path.normpath(os.path.join(folder, pattern))
    if "*" not in pattern:
        return [path]
    found = ["/"]
    for part in path.strip("/").split("/"):
        if any(letter in part for letter in "*?["):
            found = [os.path.join(base, name) for base in found for name in _names(base) if _go_pattern(part).fullmatch(name)]
        else:
            found = [os.path.join(base, part) for base in found]
    return sorted(name for name in found if os.path.lexists(name))


def _names(folder: str) -> List[str]:
    with contextlib.suppress(OSError):
        return sorted(os.listdir(folder))
    return []


def containerd_version(program: str) -> Optional[str]:
    """Return the installed containerd's version without packaging suffixes, None when it is not installed."""
    return version_number(output_of(program, "--version"))


_CONFIG_FLAG = re.compile(r"--?(?:config|c)(?:=(.*))?", re.DOTALL)
# The table with the API's socket; from version 4 on the first one counts and the second has no effect.
_ADDRESSES = [
    re.compile(r"^[ \t]*\[" + table + r"\][^\[]*?^[ \t]*address[ \t]*=[ \t]*[\"']([^\"'\n]+)", re.MULTILINE)
    for table in (r"plugins\.[\"']io\.containerd\.server\.v1\.grpc[\"']", "grpc")
]
_VERSION_4 = re.compile(r"^version[ \t]*=[ \t]*4\b", re.MULTILINE)


def config_of(argv: List[str], cwd: str) -> str:
    """Return the configuration file that a containerd with this command line reads."""
    path = DEFAULT_CONFIG
    for word, following in zip(argv[1:], [*argv[2:], ""]):
        match = _CONFIG_FLAG.fullmatch(word)
        if match:
            path = following if match.group(1) is None else match.group(1)
    return os.path.normpath(os.path.join(cwd, path))


def daemon_at(address: str) -> Dict[str, Any]:
    """Return what tells of the containerd that listens on the socket: its ``pid``, the file that it reads, its own version and program.

    All are None where it does not run, and all but the pid where the process is no containerd whose command line can be read.
    """
    pid = listener_pid(address)
    told: Dict[str, Any] = {"pid": pid, "config": None, "real_config": None, "running_version": None, "running_program": None}
    argv = (argv_of(pid) if pid else None) or [""]
    if os.path.basename(argv[0]) != "containerd":
        return told
    try:
        cwd = os.readlink("/proc/{0}/cwd".format(pid))
        # The program that runs may have been replaced since: this link leads to it all the same.
        told["running_version"] = containerd_version("/proc/{0}/exe".format(pid))
        told["running_program"] = os.readlink("/proc/{0}/exe".format(pid))
    except OSError:
        return told
    told["config"] = config_of(argv, cwd)
    told["real_config"] = os.path.realpath(told["config"])
    return told


def program_for(program: str, daemon: Dict[str, Any]) -> str:
    """Return the containerd to ask: the one that is named, or where none of that name is installed the one that runs."""
    path = "{0}:{1}".format(os.environ.get("PATH", ""), SEARCH_PATH)
    return program if os.sep in program or shutil.which(program, path=path) else daemon["running_program"] or program


def address_in(text: str) -> Optional[str]:
    """Return the API's socket that a configuration names, as far as it can be found without parsing TOML."""
    patterns = _ADDRESSES[:1] if _VERSION_4.search(text) else _ADDRESSES
    match = next(filter(None, (pattern.search(text) for pattern in patterns)), None)
    return match.group(1) if match else None


def imports_base(containerd: Optional[str], path: str) -> str:
    """Return the folder in which relative imports of the file start: before 1.7 it is the daemon's own, which services start in the root."""
    version = version_tuple(containerd or "")
    return "/" if version and version < (1, 7) else os.path.dirname(path)


def _nested(entries: List[Dict[str, Any]], containerd: Optional[str], known: List[str]) -> List[Dict[str, Any]]:
    """Return the files that imported files import in their turn, which containerd reads as well."""
    found: List[Dict[str, Any]] = []
    seen, waiting = set(known), list(entries)
    while waiting:
        entry = waiting.pop(0)
        text = base64.b64decode(entry["content"] or "").decode("utf-8", "replace")
        for pattern in guess_imports(text):
            for name in expand(pattern, imports_base(containerd, entry["path"])):
                if name not in seen and not os.path.isdir(name):
                    seen.add(name)
                    found.append({**read_file(name), "by": entry["path"]})
                    waiting.append(found[-1])
    return found


def _active(services: Sequence[str]) -> Optional[str]:
    """Return the one of the units that runs here, None without systemd."""
    if not os.path.isdir("/run/systemd/system"):
        return None
    return next((unit for unit in services if run(["systemctl", "is-active", "--quiet", unit]).rc == 0), None)


def read_all(path: str, program: str, name: str, wish: str = "auto", patterns: Optional[List[str]] = None) -> Dict[str, Any]:
    """Return the main file, the files that are imported and the drop-in, containerd's version, and what it makes of the files (``dump``).

    Where a service makes the main file anew at each start, it is the ``generator``, and the files that it may take the handler from are ``sources``.
    """
    path = os.path.realpath(path)
    main = read_file(path)
    made = generator_of(path, base64.b64decode(main["content"] or "").decode("utf-8", "replace"))
    dropin = "conf.d/{0}.toml".format(name) if wish in ("auto", "never") else wish
    containerd = containerd_version(program)
    base = imports_base(containerd, path)
    if patterns is None:
        patterns = guess_imports(base64.b64decode(main["content"] or "").decode("utf-8", "replace"))
    imports = {pattern: expand(pattern, base) for pattern in patterns}
    names = dict.fromkeys(name for found in imports.values() for name in found)
    names.pop(path, None)
    if made and wish == "auto":
        folders = [os.path.join(os.path.dirname(path), folder, name + ".toml") for folder in made.dropins.values()]
        dropin = next((place for place in folders if any(matches(place, os.path.join(base, pattern)) for pattern in imports)), dropin)
    dropin = os.path.normpath(os.path.join(os.path.dirname(path), dropin))
    active = [read_file(name) for name in names if not os.path.isdir(name)]
    return {
        "main": main,
        "imports": imports,
        "base": base,
        "imported": active if dropin in names or dropin == path else [*active, read_file(dropin)],
        "nested": _nested(active, containerd, [path, *names]),
        "dropin": dropin,
        "dropin_folder": [name for name in _names(os.path.dirname(dropin)) if name.endswith(".toml")],
        "containerd": containerd,
        "dump": dump(program, path) if containerd else None,
        "generator": made.name if made else None,
        "service": _active(made.services) if made else None,
        "sources": [read_file(place) for place in sources_of(made, path, name)] if made else [],
    }


def read_for(
    path: str,
    program: str,
    name: str,
    dropin: str = "auto",
    patterns: Optional[List[str]] = None,
    address: Optional[str] = None,
) -> Dict[str, Any]:
    """Return all that is to be known for a change of the runtime handler ``name``, while nobody writes it."""
    daemon = daemon_at(address or address_in(read_text(path) or "" if not kind_of(path) else "") or DEFAULT_ADDRESS)
    folder = os.path.dirname(os.path.realpath(path))
    with locked(folder, LOCK_SECONDS, shared=True) if os.path.isdir(folder) else contextlib.nullcontext():
        return {**read_all(path, program, name, dropin, patterns), "daemon": daemon}


def validate(program: str, main: Dict[str, Any], others: List[Dict[str, Any]]) -> Dict[str, Any]:
    """Return containerd's dump of the configuration as it would be.

    ``main`` has the path and the candidate's content; ``others`` are candidates of imported files, which the candidate names by
    ``placeholder`` as long as they have no place of their own. Candidates lie beside the originals, so that relative
    imports resolve, under names that no pattern of somebody else's is meant for.
    """
    path = os.path.realpath(main["path"])
    folder = os.path.dirname(path)
    missing = not os.path.isdir(folder)
    temporary: List[str] = []
    try:
        if missing:
            os.makedirs(folder, mode=0o755)
        content = base64.b64decode(main["content"])
        for other in others:
            name = _candidate(folder, base64.b64decode(other["content"]), path)
            temporary.append(name)
            content = content.replace(other["placeholder"].encode(), name.encode())
        candidate = _candidate(folder, content, path)
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
    return {"after": after}


def _candidate(folder: str, content: bytes, path: str) -> str:
    try:
        descriptor, name = tempfile.mkstemp(dir=folder, prefix=".ggen.gvisor.candidate.")
    except OSError as error:
        raise unwritable(path, error) from error
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
    except OSError as error:
        os.unlink(name)
        if error.errno == errno.ENOSPC:
            raise unwritable(path, error) from error
        raise
    return name
