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
  - One behind a link is not looked at, as only the sandbox may follow that.
positional: _input, texts
options:
  _input:
    description: One of what P(ggen.gvisor.ggen_jobs#filter) gives, with a C(manifest). One of the controller's is read here.
    type: dict
    required: true
  texts:
    description: The C(texts) that M(ggen.gvisor.workspace_texts) has read on the host.
    type: dict
    default: {}
"""

EXAMPLES = r"""
problems: "{{ jobs | map('ggen.gvisor.ggen_problem', read.texts) | select }}"
"""

RETURN = r"""
_value:
  description: The problem and what fixes it; an empty string when there is none.
  type: str
"""

import os
import stat
from collections.abc import Mapping
from typing import Any

from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._base.text import visible
from ansible_collections.ggen.gvisor.plugins.plugin_utils._base.filters import Filter, filters
from ansible_collections.ggen.gvisor.plugins.plugin_utils._ggen.manifest import check_manifest

LIMIT = 1 << 20  # bytes of a manifest


def read_here(path: str) -> dict[str, Any]:
    """Return what workspace_texts does, of a file of whoever runs Ansible."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as stream:
            if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                return {"problem": f"{path} is not a regular file"}
            data = stream.read(LIMIT + 1)
    except OSError:
        return {}
    return {"problem": f"{path} is larger than {LIMIT} bytes"} if len(data) > LIMIT else {"text": data.decode("utf-8", "replace")}


def ggen_problem(job: dict[str, Any], texts: Mapping[str, Mapping[str, Any]] | None = None) -> str:
    """Return the problem, or an empty string; see DOCUMENTATION."""
    path = job["manifest"]
    read = read_here(path) if job.get("from") == "controller" else (texts or {}).get(path, {})
    if read.get("link"):
        return ""
    if read.get("problem"):
        return visible(read["problem"])
    try:
        check_manifest(read.get("text"), job)
    except GvisorError as error:
        return visible(error.message)
    return ""


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Filter]:
        """Return the filters by name."""
        return filters(ggen_problem=ggen_problem)
