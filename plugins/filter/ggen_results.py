# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: ggen_results
short_description: What the runs of ggen came to
version_added: 1.0.0
author: The ggen.gvisor authors (@ggen-gvisor)
description:
  - Reads the result of M(ggen.gvisor.containerd_run) whose jobs ran ggen. It takes ggen's closing line of JSON apart, keeps the rest as the log
    without colours and telemetry, and explains a failure by its text, because ggen's exit code is 1 for all of them.
positional: _input, jobs
options:
  _input:
    description: The result of M(ggen.gvisor.containerd_run) for the jobs. What failed before any of them counts for all.
    type: dict
    required: true
  jobs:
    description: What P(ggen.gvisor.ggen_jobs#filter) gave.
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
results: "{{ done | ggen.gvisor.ggen_results(jobs) }}"
"""

RETURN = r"""
_value:
  description:
    - For each job C(path), C(args), C(rc), C(changed), C(contents_changed), C(duration) (seconds),
      C(files) (what ggen wrote, each created, modified or unchanged),
      C(changed_files), C(kernel), C(pod), C(ggen) (its JSON), C(log) (lines), C(summary) (a line) and,
      where it was asked for, C(trace).
    - C(not_ready) tells whether it did not run because the host has no sandbox yet.
    - C(error) is C(none), or has C(cause), C(fix) and C(message).
  type: list
  elements: dict
"""

from typing import Any

from ansible_collections.ggen.gvisor.plugins.module_utils._ggen.output import describe_run
from ansible_collections.ggen.gvisor.plugins.plugin_utils._base.failures import fix, reason
from ansible_collections.ggen.gvisor.plugins.plugin_utils._base.filters import Filter, filters


def ggen_results(done: dict[str, Any], jobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what the runs came to; see DOCUMENTATION."""
    if "module_stderr" in done:  # the module could not even begin, and the exit code is not ggen's
        why = reason(done)
        done = {"msg": f"{why}. {fix(why)}".rstrip(" .")}
    runs = done["jobs"] if "jobs" in done else [done] * len(jobs)
    return [describe_run(run, job) for run, job in zip(runs, jobs, strict=True)]


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Filter]:
        """Return the filters by name."""
        return filters(ggen_results=ggen_results)
