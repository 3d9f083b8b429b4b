# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A fleet in one view: of each host's report and of what failed, rows for a page and lines for a terminal.

Host names, drift and error texts come from other machines. Everything here that is text for people has gone through :func:`plain`, and the page is
rendered with autoescaping.
"""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jinja2

# The states of a host, worst first, and what people read.
STATES = {
    "unreachable": "unreachable",
    "failed": "failed",
    "unfinished": "not finished",
    "drifted": "not as it should be",
    "healthy": "healthy",
    "earlier": "not in this run",
}
BAD = ("unreachable", "failed", "unfinished", "drifted")
LONGEST = 1200  # characters of one reason; a compiler can say megabytes
VALUE = 80  # characters of a version or a digest
# Messages of Ansible that only say that a program failed: its own last words say why.
EMPTY_MESSAGES = re.compile(
    r"non-zero return code|One or more items failed|MODULE FAILURE|Module result deserialization failed|Task failed: Module failed|"
    r"Failed to create temporary directory|Unhandled exception|All items completed",
    re.IGNORECASE,
)
# What a program ends with that says the same of another one, whose own words are in its output.
EMPTY_WORDS = re.compile(r"E: Sub-process \S+ returned an error code \(\d+\)")
NOT_REACHED = "Start the host, or see why ssh does not reach it"
# What mends a failure, by what was said of it. ssh's words are those of OpenSSH, which are not translated.
MENDS = (
    (r"(?i)no space left on device|enough free space|Errno 28", "Free space on the host (df -h names the full file system)"),
    # Python's words where it can write nowhere, before a module can say anything.
    (r"No usable temporary directory", "Free space on the host, or let one of these folders be written (df -h names a full file system)"),
    (r"Host key verification failed|REMOTE HOST IDENTIFICATION", "Compare the host's key and put it into known_hosts (ssh-keyscan)"),
    (r"Permission denied \(|Invalid/incorrect password", "Let ssh in: ansible_user and its key (ansible_ssh_private_key_file)"),
    (r"Could not resolve hostname|Name or service not known", "Give the host's address as ansible_host"),
    (r"[Mm]issing sudo password|password is required|Incorrect sudo password", "Give sudo's password with --ask-become-pass"),
    (r"timed out|refused|No route to host|unreachable|closed by|reset by", NOT_REACHED),
)
# What Ansible puts before a message.
PREFIXES = re.compile(r"^((Task|Action|Module) failed: )+")
# Control characters could drive a terminal; marks of direction could show a text as another one.
UNSAFE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def plain(text: Any, longest: int = LONGEST) -> str:
    """Return ``text`` without what could drive a terminal or a browser's text direction, and not longer than ``longest`` characters."""
    clean = UNSAFE.sub("", str(text).replace("\r\n", "\n")).strip()
    return clean if len(clean) <= longest else f"{clean[:longest].rstrip()} …"


def reason(result: Mapping[str, Any]) -> str:
    """Return why a task failed, from its result: its message, and where that says nothing, the last words of the program behind it.

    Of a loop, the reasons of the items that failed.
    """
    failed = [item for item in result.get("results") or [] if isinstance(item, Mapping) and (item.get("failed") or item.get("unreachable"))]
    if failed:
        return plain("\n".join(dict.fromkeys(map(reason, failed))))
    message = PREFIXES.sub("", str(result.get("msg") or result.get("censored") or "").strip())
    said = [str(result.get(key) or "").strip() for key in ("module_stderr", "stderr", "module_stdout", "stdout")]
    words = next((text for text in said if text and not EMPTY_WORDS.fullmatch(text)), "")
    if words and (not message or EMPTY_MESSAGES.search(message)):
        last = "\n".join(words.splitlines()[-3:] if not words.startswith("Traceback") else words.splitlines()[-1:])
        return plain(f"{message}: {last}" if message else last)
    return plain(message or "no reason was given")


def mend(why: str, otherwise: str = "") -> str:
    """Return what mends a failure of which ``why`` was said, or ``otherwise``."""
    return next((text for pattern, text in MENDS if re.search(pattern, why)), otherwise)


def natural(name: str) -> list[tuple[int, int, str]]:
    """Return a key that sorts web2 before web10."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", name) if part]


def _observed(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a row shows of a report. Reports of another version may lack anything."""

    def part(*path: str) -> Any:
        value: Any = report
        for key in path:
            value = value.get(key) if isinstance(value, Mapping) else None
        return value

    runs = [run for run in part("runs") or [] if isinstance(run, Mapping)]
    references = [str(name) for name in part("image", "references") or []]
    host = [part("host", "distribution"), part("host", "distribution_version"), part("host", "architecture")]
    return {
        "host": plain(" ".join(str(word) for word in host if word), VALUE),
        "gvisor": plain(part("gvisor", "release") or "", VALUE),
        "shim": plain(part("gvisor", "shim") or "", VALUE),
        "containerd": plain(part("containerd", "server_version") or part("containerd", "version") or "", VALUE),
        "image": plain(", ".join(references), VALUE),
        "tag": plain(references[0].rpartition("/")[2] if references else "", VALUE),
        "digest": plain(part("image", "digest") or "", VALUE),
        "proof": plain(part("proof", "kernel") or "", VALUE),
        "proof_seconds": _number(part("proof", "seconds")),
        "runs": [
            {
                "path": plain(run.get("path") or "", VALUE),
                "args": plain(" ".join(map(str, run.get("args") or [])), VALUE),
                "rc": run.get("rc"),
                "seconds": _number(run.get("duration")),
                "pod_seconds": _number((run.get("timings") or {}).get("pod")),
            }
            for run in runs
        ],
    }


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def command(playbook: str, host: str | None = None, *, builds: bool = True) -> str:
    """Return the command that runs a playbook on one host. Where it builds, a build host stays in, or what the host lacks could not be built."""
    limit = [] if host is None else ["--limit", plain(host) + (",build_hosts" if builds else "")]
    return shlex.join(["ansible-playbook", playbook, *limit])


def fleet(
    hosts: Iterable[str],
    *,
    reports: Mapping[str, Mapping[str, Any]],
    failures: Mapping[str, Mapping[str, Any]],
    others: Iterable[str] = (),
    earlier: Mapping[str, Mapping[str, Any]] | None = None,
    seconds: Mapping[str, float] | None = None,
    again: str = "site.yml",
    mending: str = "site.yml",
) -> dict[str, Any]:
    """Return the fleet's rows, the worst first, and their summary.

    ``hosts`` were to be reported in this run and ``others`` were not (a limit); ``reports`` are this run's, ``earlier`` those of the runs before.
    ``failures`` holds for each host that failed, also for one that is no sandbox host, its ``task``, its ``why`` and whether it was ``unreachable``.
    ``seconds`` is what each host's tasks took. ``again`` is the playbook of the run, ``mending`` the one that mends drift.
    """
    hosts, earlier, seconds = list(hosts), earlier or {}, seconds or {}
    elsewhere = [name for name in failures if name not in hosts]
    broken, builds = natural_sorted(failures), again == mending
    rows = []
    for name in dict.fromkeys([*hosts, *elsewhere, *others]):
        report, failure = reports.get(name), failures.get(name)
        row = {"name": plain(name), "task": "", "why": [], "mend": "", "seconds": _number(seconds.get(name)), "build": name in elsewhere}
        row |= {"seen": plain((report or earlier.get(name) or {}).get("time") or ""), "stale": report is None and name in earlier}
        row |= _observed(report or earlier.get(name) or {})
        if report and report.get("drift"):
            row |= {"state": "drifted", "why": [plain(text) for text in report["drift"]], "mend": command(mending, name)}
        elif failure:
            why = plain(failure["why"]).removeprefix(f"{plain(name)}: ")
            known = mend(why, NOT_REACHED if failure["unreachable"] else "")
            row |= {"state": "unreachable" if failure["unreachable"] else "failed", "task": plain(failure["task"]), "why": [why]}
            repeat = command(again, None if name in elsewhere else name, builds=builds)
            row["mend"] = f"{known}, then: {repeat}" if known else f"When that is mended: {repeat}"
        elif report:
            row["state"] = "healthy"
        elif name in hosts:
            cause = (
                f"the run ended before this host's turn: {plain(broken[0])} failed" if broken else "the run ended before this host's turn"
            )
            row |= {"state": "unfinished", "why": [cause], "mend": command(again, name, builds=builds)}
        else:
            row["state"] = "earlier"
        row["label"] = STATES[row["state"]]
        rows.append(row)
    rows.sort(key=lambda row: (list(STATES).index(row["state"]), natural(row["name"])))
    return {"rows": rows, "summary": _summary(rows)}


def natural_sorted(names: Iterable[str]) -> list[str]:
    """Return the names in an order that counts: web2 before web10."""
    return sorted(names, key=natural)


def _summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return how many hosts are in each state, and how many have each version of what matters."""
    states = Counter(row["state"] for row in rows)
    versions = {
        "gVisor": Counter(f"{row['gvisor']} · {row['shim']} shim" for row in rows if row["gvisor"]),
        "containerd": Counter(row["containerd"] for row in rows if row["containerd"]),
        "image": Counter(f"{row['tag']} · {row['digest'][7:19]}" for row in rows if row["digest"]),
    }
    return {
        "hosts": len(rows),
        "states": [{"state": state, "label": label, "count": states[state]} for state, label in STATES.items() if states[state]],
        "bad": sum(states[state] for state in BAD),
        "versions": {what: count.most_common() for what, count in versions.items() if count},
    }


def recap(view: Mapping[str, Any], page: str) -> list[str]:
    """Return the lines for the end of a run: how many are healthy, each other host with why and the mend, and where the page is."""
    states = {item["state"]: f"{item['count']} {item['label']}" for item in view["summary"]["states"]}
    counts = [states.pop("healthy", "0 healthy"), *states.values()]
    lines = [f"fleet: {', '.join(counts)}"]
    for row in view["rows"]:
        if row["state"] in BAD:
            where = f' at "{row["task"]}"' if row["task"] else ""
            lines += [
                f"  {row['name']} {row['label']}{where}",
                *(f"    {' '.join(why.split())}" for why in row["why"]),
                f"    → {row['mend']}",
            ]
    return [*lines, f"page: {plain(page)}"]


def page(view: Mapping[str, Any], template: str, **about: str) -> str:
    """Return the page: ``template`` is its Jinja text, ``about`` what it tells of the run (``time``, ``command``)."""
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    return environment.from_string(template).render(**view, **about)
