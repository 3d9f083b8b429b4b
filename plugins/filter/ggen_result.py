# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: ggen_result
short_description: What a run of ggen came to
version_added: 0.1.0
author: The ggen.gvisor authors (@ggen-gvisor)
description:
  - Reads the result of M(ggen.gvisor.containerd_run) that ran ggen. It takes ggen's closing line of JSON apart, keeps the rest as the log
    without colours and telemetry, and explains a failure by its text, because ggen's exit code is 1 for all of them.
options:
  _input:
    description: One of the C(results) of M(ggen.gvisor.containerd_run) in a loop over what P(ggen.gvisor.ggen_jobs#filter) gives.
    type: dict
    required: true
"""

EXAMPLES = r"""
results: "{{ done.results | map('ggen.gvisor.ggen_result') }}"
"""

RETURN = r"""
_value:
  description:
    - C(path), C(args), C(rc), C(changed), C(duration) (seconds), C(files) (what ggen wrote, each created, modified or unchanged),
      C(changed_files), C(kernel), C(pod), C(ggen) (its JSON), C(log) (lines) and C(summary) (a line).
    - C(open_key) tells whether the run left a signing key that others can read, C(not_ready) whether it did not run because the host has
      no sandbox yet.
    - C(error) is C(none), or has C(cause), C(mend) and C(message).
  type: dict
"""

from typing import Any, Callable

from ansible_collections.ggen.gvisor.plugins.plugin_utils.ggen import describe_run


def ggen_result(run: dict[str, Any]) -> dict[str, Any]:
    """Return what the run came to; see DOCUMENTATION."""
    return describe_run(run, run[run["ansible_loop_var"]])


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"ggen_result": ggen_result}
