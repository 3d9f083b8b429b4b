# Copyright (c) 2026, the ggen.gvisor authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""The sandboxes that run on this host now: what each is for and what it uses, as the host's kernel and the sandbox itself tell."""

from __future__ import annotations

import contextlib
import json
import os
import re
from typing import Any, Dict, List, Mapping, Optional

from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._base.process import run
from ansible_collections.ggen.gvisor.plugins.module_utils._base.processes import now, started_at
from ansible_collections.ggen.gvisor.plugins.module_utils._base.text import duration_text, megabytes, visible_all, visible_line
from ansible_collections.ggen.gvisor.plugins.module_utils._containerd.ctr import Ctr
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox import audit, runsc
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.cgroup import PodCgroup
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.pinned import own_folder
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.supervisor import pod_of

RUNSC_TIMEOUT = 10.0
MAX_COUNTS = 200  # of one sandbox
_OF_THE_RUN = ("image", "digest", "workspace", "argv", "user")  # of the audit trail's keys
_SAMPLE = re.compile(r"runsc_(\w+)\{([^{}]*)\} (\d{1,18}(?:\.\d{1,18})?(?:e\+\d{1,2})?)(?: \d+)?")  # as runsc prints it
_OF_ALL = ("iteration=", "sandbox=")  # labels that are the same for all of a sandbox


def running(state_dir: str) -> List[Dict[str, Any]]:
    """Return the pods of this state folder, which must be root's alone, that run, by their ids. Raises GvisorError."""
    if os.geteuid() != 0:
        raise GvisorError("only root can look at sandboxes: use sudo")
    if not os.path.lexists(state_dir):
        return []
    # What is there names a socket, whose process' PATH says which runsc is asked.
    state_dir = own_folder(state_dir, "state_dir")
    folder = os.path.join(state_dir, "pods")
    try:
        names = sorted(os.listdir(folder))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise GvisorError(f"{folder} cannot be read: {error.strerror}") from error
    found = [_look(state_dir, name) for name in names if name != ".lock"]
    return [visible_all(pod) for pod in found if pod]


def _look(state_dir: str, name: str) -> Optional[Dict[str, Any]]:
    """Return what is known of a pod, None for one that has not begun or is gone."""
    folder = os.path.join(state_dir, "pods", name)
    try:
        with open(os.path.join(folder, "pod.json"), encoding="utf-8") as stream:
            known = json.load(stream)
        pod = pod_of(Ctr(known["address"], known["namespace"], known["program"]), state_dir, name)
        pid = pod.pid()
        if pid is None:
            return None
        age = round(now() - started_at(pid), 1)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    used = PodCgroup(pod.spec.group(), pid).used()
    return {
        "pod": name,
        "namespace": known["namespace"],
        **{key: None for key in _OF_THE_RUN},
        **_begun(folder),
        "age": age,
        **used,
        "sandbox": _counts(known["address"], known["namespace"], name),
    }


def _begun(folder: str) -> Dict[str, Any]:
    """Return what the pod's command is, of what the audit trail will tell of it; nothing before it has begun."""
    place = os.path.join(folder, audit.NAME)
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        for name in os.listdir(place):
            with open(os.path.join(place, name), "rb") as stream:
                record = json.loads(stream.read().decode("ascii"))["record"]
            return {key: record.get(key) for key in _OF_THE_RUN}
    return {}


def _counts(address: str, namespace: str, name: str) -> Optional[Dict[str, float]]:
    """Return gVisor's own counts of a sandbox, None where it does not tell them: one of runc's, or one that ends just now."""
    program = runsc.installed(address)
    if program is None:
        return None
    try:
        done = run([program, "--root", runsc.shim_root(namespace), "export-metrics", name], timeout=RUNSC_TIMEOUT)
    except GvisorError:
        return None
    return read_counts(done.stdout) if done.rc == 0 else None


def read_counts(text: str) -> Dict[str, float]:
    """Return the counts of what runsc export-metrics prints, by name and, where there are some, labels."""
    found = {}
    for line in text.splitlines():
        sample = _SAMPLE.fullmatch(line)
        if sample and len(found) < MAX_COUNTS:
            name, labels, value = sample.groups()
            own = ",".join(label for label in labels.split(",") if not label.startswith(_OF_ALL))
            found[f"{name}{{{own}}}" if own else name] = float(value)
    return found


def table(pods: List[Dict[str, Any]]) -> List[str]:
    """Return the pods as lines for people."""
    rows = [["POD", "IMAGE", "DIGEST", "AGE", "MEMORY", "CPU", "TASKS", "OPENS"]]
    rows += [[_cell(column, pod) for column in _COLUMNS] for pod in pods]
    widths = [max(map(len, column)) for column in zip(*rows)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]


_COLUMNS = {
    "pod": visible_line,
    "image": visible_line,
    "digest": lambda digest: visible_line(digest).partition(":")[2][:12],
    "age": duration_text,
    "memory": megabytes,
    "cpu_seconds": "{:.1f}s".format,
    "pids": str,
    "opens": "{:g}".format,
}


def _cell(column: str, pod: Mapping[str, Any]) -> str:
    value = (pod["sandbox"] or {}).get("fs_opens") if column == "opens" else pod[column]
    return "-" if value is None else _COLUMNS[column](value)
