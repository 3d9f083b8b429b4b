# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: ggen_problem
short_description: Why ggen cannot work with a manifest
version_added: 1.0.0
author: The ggen.gvisor authors (@ggen-gvisor)
description:
  - Looks at the text of a ggen.toml before anything runs. Finds a manifest that is missing, broken or no manifest at all, and files outside
    of the workspace that no mount shows to the sandbox.
options:
  _input:
    description: One of the C(results) of M(ansible.builtin.slurp) on the C(manifest) of what P(ggen.gvisor.ggen_jobs#filter) gives.
    type: dict
    required: true
"""

EXAMPLES = r"""
problems: "{{ manifests.results | map('ggen.gvisor.ggen_problem') | select }}"
"""

RETURN = r"""
_value:
  description: The problem and what fixes it; an empty string when there is none.
  type: str
"""

import base64
from typing import Any

from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.plugin_utils._base.filters import Filter, filters
from ansible_collections.ggen.gvisor.plugins.plugin_utils._ggen.manifest import check_manifest


def ggen_problem(read: dict[str, Any]) -> str:
    """Return the problem, or an empty string; see DOCUMENTATION."""
    text = base64.b64decode(read["content"]).decode("utf-8", "replace") if "content" in read else None
    try:
        check_manifest(text, read[read["ansible_loop_var"]])
    except GvisorError as error:
        return error.message
    return ""


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Filter]:
        """Return the filters by name."""
        return filters(ggen_problem=ggen_problem)
