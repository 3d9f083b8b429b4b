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
from types import MappingProxyType
from typing import Any, NamedTuple

import jinja2
from ansible_collections.ggen.gvisor.plugins.plugin_utils._base.commands import program
from ansible_collections.ggen.gvisor.plugins.plugin_utils._base.failures import NOT_REACHED, fix
from ansible_collections.ggen.gvisor.plugins.plugin_utils._base.text import plain

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
VALUE = 80  # characters of a version or a digest


class Run(NamedTuple):
    """A run as it ended. ``earlier`` has the reports of runs before."""

    hosts: Iterable[str]  # those that were to be reported
    reports: Mapping[str, Mapping[str, Any]]
    # Of each host that failed, also of one that is no sandbox host: its task, why, and whether it was unreachable.
    failures: Mapping[str, Mapping[str, Any]]
    others: Iterable[str] = ()  # those that were not to be reported (a limit)
    earlier: Mapping[str, Mapping[str, Any]] = MappingProxyType({})
    seconds: Mapping[str, float] = MappingProxyType({})  # what each host's tasks took
    again: str = "site.yml"  # the run's playbook
    fixing: str = "site.yml"  # the one that fixes drift


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
    return shlex.join([program(), playbook, *limit])


def fleet(run: Run) -> dict[str, Any]:
    """Return the fleet's rows, the worst first, and their summary."""
    hosts, reports, failures, earlier = list(run.hosts), run.reports, run.failures, run.earlier
    elsewhere = [name for name in failures if name not in hosts]
    broken, builds = natural_sorted(failures), run.again == run.fixing
    rows = []
    for name in dict.fromkeys([*hosts, *elsewhere, *run.others]):
        report, failure = reports.get(name), failures.get(name)
        row = {
            "name": plain(name),
            "task": "",
            "why": [],
            "fix": "",
            "command": "",
            "seconds": _number(run.seconds.get(name)),
            "build": name in elsewhere,
        }
        row |= {"seen": plain((report or earlier.get(name) or {}).get("time") or ""), "stale": report is None and name in earlier}
        row |= _observed(report or earlier.get(name) or {})
        if report and report.get("drift"):
            row |= {"state": "drifted", "why": [plain(text) for text in report["drift"]], "command": command(run.fixing, name)}
        elif failure:
            why = plain(failure["why"]).removeprefix(f"{plain(name)}: ")
            known = fix(why, NOT_REACHED if failure["unreachable"] else "")
            row |= {"state": "unreachable" if failure["unreachable"] else "failed", "task": plain(failure["task"]), "why": [why]}
            row |= {
                "fix": f"{known}, then:" if known else "When that is fixed:",
                "command": command(run.again, None if name in elsewhere else name, builds=builds),
            }
        elif report:
            row["state"] = "healthy"
        elif name in hosts:
            cause = (
                f"the run ended before this host's turn: {plain(broken[0])} failed" if broken else "the run ended before this host's turn"
            )
            row |= {"state": "unfinished", "why": [cause], "command": command(run.again, name, builds=builds)}
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
    """Return the lines for the end of a run: how many are healthy, each other host with why and the fix, and where the page is."""
    states = {item["state"]: f"{item['count']} {item['label']}" for item in view["summary"]["states"]}
    counts = [states.pop("healthy", "0 healthy"), *states.values()]
    lines = [f"fleet: {', '.join(counts)}"]
    for row in view["rows"]:
        if row["state"] in BAD:
            where = f' at "{row["task"]}"' if row["task"] else ""
            lines += [
                f"  {row['name']} {row['label']}{where}",
                *(f"    {' '.join(why.split())}" for why in row["why"]),
                " ".join(filter(None, ["    →", row["fix"], row["command"]])),
            ]
    return [*lines, f"page: {plain(page)}"]


def page(view: Mapping[str, Any], template: str, **about: str) -> str:
    """Return the page: ``template`` is its Jinja text, ``about`` what it tells of the run (``time``, ``command``)."""
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    return environment.from_string(template).render(**view, **about)
