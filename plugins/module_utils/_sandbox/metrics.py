# Copyright (c) 2026, the ggen.gvisor authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""What the audit trail's lines add up to, as a text file that Prometheus' node_exporter reads. See docs/audit.md.

The file itself keeps the counts from one run to the next, so that all who write into a folder, whatever their state folder, add to the same ones.
"""

from __future__ import annotations

import contextlib
import os
import re
from typing import Any, Dict, Iterator, List, Mapping, NamedTuple, Optional, Tuple

from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError, sentence
from ansible_collections.ggen.gvisor.plugins.module_utils._base.files import locked
from ansible_collections.ggen.gvisor.plugins.module_utils._base.text import visible_line
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.pinned import (
    OWN_MODE,
    Pinned,
    is_root_s_alone,
    pin,
    read_file,
    through,
    write_file,
)

FILE = "ggen_gvisor.prom"
LOCK_SECONDS = 10.0
MAX_IMAGES = 32  # that are told apart; what runs in others is counted together, so that nobody fills a database with names of images
OTHERS = "others"  # no image's full name
BUCKETS = ("0.5", "1", "2.5", "5", "10", "30", "60", "120", "300", "600", "1800")  # seconds


class Family(NamedTuple):
    """One metric."""

    name: str
    kind: str
    help: str


RUNS = Family("ggen_gvisor_runs_total", "counter", "Commands that a sandbox was made for.")
FAILURES = Family("ggen_gvisor_failures_total", "counter", "Those of them that failed, by cause.")
LIMITS = Family("ggen_gvisor_limits_hit_total", "counter", "Limits that struck.")
DURATION = Family("ggen_gvisor_run_duration_seconds", "histogram", "Seconds from the start of a command to its end.")
IMAGES = Family("ggen_gvisor_image_info", "gauge", "The digest that an image had when it ran last.")
FAMILIES = (RUNS, FAILURES, LIMITS, DURATION, IMAGES)

Labels = Tuple[Tuple[str, str], ...]
Samples = Dict[Tuple[str, Labels], float]  # by name and labels

_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n"}
_PLAIN = {escaped: plain for plain, escaped in _ESCAPES.items()}
_LABEL = re.compile(r'([a-z_]+)="((?:[^"\\\n]|\\[\\"n])*)"')
_LINE = re.compile(rf"([a-z_]+)\{{({_LABEL.pattern}(?:,{_LABEL.pattern})*)\}} ([0-9]+(?:\.[0-9]+)?)")


def cause_of(record: Mapping[str, Any]) -> Optional[str]:
    """Return why a run of the trail failed, None where it did not: how it ended, or its exit code, or what it left."""
    if record.get("ended") != "exit":
        return str(record.get("ended"))
    return "rc" if record.get("rc") else "faults" if record.get("faults") else None


def add(samples: Samples, record: Mapping[str, Any]) -> None:
    """Add a line of the trail to the counts."""
    image = visible_line(record["image"])
    digests = {dict(labels)["image"]: (name, labels) for name, labels in samples if name == IMAGES.name}
    if image not in digests and len(digests) >= MAX_IMAGES:
        image = OTHERS
    else:
        samples.pop(digests.get(image, ("", ())), None)
        samples[IMAGES.name, (("image", image), ("digest", visible_line(record["digest"])))] = 1

    def count(name: str, amount: float = 1, **labels: str) -> None:
        key = (name, (("image", image), *labels.items()))
        samples[key] = round(samples.get(key, 0) + amount, 3)

    count(RUNS.name)
    cause = cause_of(record)
    if cause:
        count(FAILURES.name, cause=cause)
    for limit in record.get("limits_hit") or []:
        count(LIMITS.name, limit=limit)
    if record.get("duration") is not None:
        for bound in BUCKETS:
            count(f"{DURATION.name}_bucket", float(record["duration"] <= float(bound)), le=bound)
        count(f"{DURATION.name}_bucket", le="+Inf")
        count(f"{DURATION.name}_sum", record["duration"])
        count(f"{DURATION.name}_count")


def render(samples: Samples) -> bytes:
    """Return the counts in Prometheus' text format."""
    lines: List[str] = []
    for family in FAMILIES:
        found = [(name, labels) for name, labels in samples if name == family.name or name.startswith(f"{family.name}_")]
        if found:
            lines += [f"# HELP {family.name} {family.help}", f"# TYPE {family.name} {family.kind}"]
        # By image; the counts of one came in the order that they are written in.
        for name, labels in sorted(found, key=lambda one: one[1][0]):
            told = ",".join(f'{label}="{"".join(_ESCAPES.get(letter, letter) for letter in value)}"' for label, value in labels)
            lines.append(f"{name}{{{told}}} {samples[name, labels]:.3f}".rstrip("0").rstrip("."))
    return "".join(f"{line}\n" for line in lines).encode("utf-8")


def parse(data: bytes) -> Samples:
    """Return the counts of a text that ``render`` has made. Raises ValueError for any other."""
    samples: Samples = {}
    *lines, last = data.decode("utf-8").split("\n")
    if last:
        raise ValueError(f"no count of runs: {last!r}")
    for line in lines:
        if line.startswith("# "):
            continue
        found = _LINE.fullmatch(line)
        if not found:
            raise ValueError(f"no count of runs: {line!r}")
        labels = tuple((name, re.sub(r"\\.", lambda part: _PLAIN[part.group()], value)) for name, value in _LABEL.findall(found.group(2)))
        if labels[0][0] != "image":
            raise ValueError(f"no count of runs: {line!r}")
        samples[found.group(1), labels] = float(line.rpartition(" ")[2])
    return samples


@contextlib.contextmanager
def _opened(path: str) -> Iterator[Pinned]:
    """Give the folder of the file, which nobody else writes to meanwhile. Raises GvisorError or OSError."""
    with pin(path, "metrics") as folder:
        if not folder.is_folder or not is_root_s_alone(folder.status):
            raise GvisorError(f"metrics {path} is no folder that root alone can write to; name another, or take the others' rights away")
        with locked(through(folder.descriptor), LOCK_SECONDS) as opened:
            for name in os.listdir(opened):
                if name.startswith(f".{FILE}."):  # of a run that was killed while it wrote
                    os.unlink(name, dir_fd=opened)
            yield folder


def count(path: str, record: Mapping[str, Any]) -> List[str]:
    """Add a line of the trail to the counts in the folder ``path``; return warnings, and what could not be done. A run's end must not depend on it."""
    said = []
    try:
        with _opened(path) as folder:
            samples: Samples = {}
            try:
                samples = parse(read_file(folder, FILE) or b"")
            except ValueError:
                said.append(f"{path}/{FILE} was not as runs write it, and its counts begin again")
            add(samples, record)
            write_file(folder, FILE, render(samples), 0o644, OWN_MODE)
    except GvisorError as error:
        said.append(f"the run is not among the metrics: {error.message}")
    except OSError as error:
        said.append(f"the run is not among the metrics: {sentence(error, path)}")
    return said
