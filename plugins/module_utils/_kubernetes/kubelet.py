# Copyright (c) 2026, the ggen.gvisor authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""The kubelet of a host: which files it reads its settings from, and their text.

What they say is read on the controller: they are YAML, for which Python has no reader of its own, and hosts need Python alone.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shlex
import stat
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence

from ansible_collections.ggen.gvisor.plugins.module_utils._base.files import read_text
from ansible_collections.ggen.gvisor.plugins.module_utils._base.processes import argv_of

# Where kubeadm and most distributions have them. The second has the flags that kubeadm starts the kubelet with.
CONFIG = "/var/lib/kubelet/config.yaml"
KUBEADM_FLAGS = "/var/lib/kubelet/kubeadm-flags.env"
# The flags that count here. Each wins over the files; nothing else of a command line is told.
FLAGS = ("config", "config-dir", "cgroup-driver", "container-runtime-endpoint")
MAX_BYTES = 1 << 16  # of a file; a kubelet's has some hundred lines
MAX_DROPINS = 100


def flags_of(words: Sequence[str]) -> Dict[str, str]:
    """Return those of FLAGS that a command line has, the last of each. They may be written with underscores."""
    found = {}
    for word, following in zip(words, [*words[1:], ""]):
        name, equals, value = word.partition("=")
        name = name.replace("_", "-")
        if name[:2] == "--" and name[2:] in FLAGS:
            found[name[2:]] = value if equals else following
    return found


def running() -> Iterator[int]:
    """Yield the kubelets that run: processes of that name that are root's and nobody's else, and not those of containers."""
    with contextlib.suppress(OSError):
        own = os.readlink("/proc/self/ns/pid")
        for pid in sorted(int(name) for name in os.listdir("/proc") if name.isdigit()):
            if os.path.basename((argv_of(pid) or [""])[0]) == "kubelet" and _is_root(pid) and _pid_space(pid) == own:
                yield pid


def _is_root(pid: int) -> bool:
    """Tell whether the process has root's user ids alone. Anybody can give a process a name, and files for it to name."""
    found = re.search(r"^Uid:([\s\d]+)$", read_text("/proc/{0}/status".format(pid)) or "", re.MULTILINE)
    return bool(found) and set(found.group(1).split()) == {"0"}


def _pid_space(pid: int) -> Optional[str]:
    """Return the process's PID namespace: that of a container sees other files under the same paths."""
    try:
        return os.readlink("/proc/{0}/ns/pid".format(pid))
    except OSError:
        return None


def dropins(folder: str) -> Iterator[str]:
    """Yield the files of a kubelet's drop-in folder in its order: by name, folders in their place among the files."""
    with contextlib.suppress(OSError):
        for entry in sorted(os.scandir(folder), key=lambda entry: os.fsencode(entry.name)):
            if entry.is_dir(follow_symlinks=False):
                yield from dropins(entry.path)
            elif entry.name.endswith(".conf"):
                yield entry.path


def read_config(path: str) -> Dict[str, Any]:
    """Return a file's text, or why it has none. What is no file is not waited for, and a large one not taken."""
    told: Dict[str, Any] = {"path": path, "text": None, "error": None}
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return {**told, "error": "it is no file"}
            with os.fdopen(os.dup(descriptor), "rb") as stream:
                data = stream.read(MAX_BYTES + 1)
        finally:
            os.close(descriptor)
        if len(data) > MAX_BYTES:
            return {**told, "error": "it is larger than {0} KiB".format(MAX_BYTES >> 10)}
        return {**told, "text": data.decode("utf-8")}
    except OSError as error:
        return {**told, "error": error.strerror}
    except UnicodeDecodeError:
        return {**told, "error": "it is no UTF-8"}


def _kubeadm_flags(path: str) -> Dict[str, str]:
    """Return the flags that kubeadm has left for the next start."""
    found = re.search(r"^KUBELET_KUBEADM_ARGS=(.*)$", read_text(path) or "", re.MULTILINE)
    with contextlib.suppress(ValueError):  # quotes that do not end
        return flags_of([word for part in shlex.split(found.group(1)) for word in part.split()]) if found else {}
    return {}


def kubelet(config: str = CONFIG, kubeadm_flags: str = KUBEADM_FLAGS) -> Optional[Dict[str, Any]]:
    """Return what tells of the host's kubelet: its process, its flags that count, and the files that it reads, unparsed.

    None where there is none. One that runs and has no configuration yet, as before `kubeadm join`, ends again, and is none.
    """
    for pid in running():
        flags = flags_of(argv_of(pid) or [])
        with contextlib.suppress(OSError):
            cwd = os.readlink("/proc/{0}/cwd".format(pid))
            paths = {name: os.path.normpath(os.path.join(cwd, flags[name])) for name in ("config", "config-dir") if flags.get(name)}
            if "config" not in paths or os.path.exists(paths["config"]):
                return _described(pid, flags, paths)
    if os.path.exists(config):
        flags = _kubeadm_flags(kubeadm_flags)
        return _described(None, flags, {"config": config, **{name: flags[name] for name in ("config-dir",) if name in flags}})
    return None


def _described(pid: Optional[int], flags: Mapping[str, str], paths: Mapping[str, str]) -> Dict[str, Any]:
    names: List[str] = [paths["config"]] if "config" in paths else []
    more = list(itertools.islice(dropins(paths["config-dir"]), MAX_DROPINS + 1)) if "config-dir" in paths else []
    files = [read_config(path) for path in [*names, *more[:MAX_DROPINS]]]
    if len(more) > MAX_DROPINS:
        files.append({"path": paths["config-dir"], "text": None, "error": "it has more than {0} files".format(MAX_DROPINS)})
    return {"pid": pid, "flags": dict(flags), "files": files}
