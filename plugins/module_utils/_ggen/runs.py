# Copyright (c) 2026, the ggen.gvisor authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""How ggen is run in a sandbox."""

from __future__ import annotations

from typing import Any, Dict, Mapping

IMAGE = "docker.io/library/ggen:latest"
PROGRAM = "/usr/local/bin/ggen"  # in the image
TIMEOUT = 300.0  # seconds
# Keeps ggen's warnings and errors and drops its telemetry, which finds no collector. An empty OTEL_EXPORTER_OTLP_ENDPOINT or RUST_LOG=off
# would drop the warnings too, OTEL_SDK_DISABLED nothing at all.
ENV = {"RUST_LOG": "warn,opentelemetry_sdk=off", "NO_COLOR": "1"}
RECORDS = ".ggen/**"  # what it writes wherever its output goes
KEY = ".ggen/keys/signing.key"  # ggen makes it readable for everybody
IGNORE = ["**/.ggen/**", "*.backup"]  # its records, and the copies that it keeps of what it writes again
_LIMITS = ("memory", "cpus", "user")
_AS_THEY_ARE = ("mounts", "ignore", "secrets", "timeout")


def run_options(job: Mapping[str, Any], program: str = PROGRAM) -> Dict[str, Any]:
    """Return the options of containerd_run for a job of ggen's: ``path``, ``args`` and what else there is. An empty one is left out for the default."""
    limits = {name: job[name] for name in _LIMITS if job.get(name) not in (None, "")}
    bounds = {"protect": job["protect"]} if "protect" in job else {}
    if job.get("outputs"):
        bounds["outputs"] = [*job["outputs"], RECORDS]
    fixed = {"workspace": job["path"], "argv": [program, *job["args"]], "env": {**ENV, **(job.get("env") or {})}}
    return {**fixed, **limits, **bounds, **{name: job[name] for name in _AS_THEY_ARE if name in job}}
