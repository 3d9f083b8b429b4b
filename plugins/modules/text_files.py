#!/usr/bin/python
# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: text_files
short_description: Write the text files of a folder, all of them in one execution
version_added: 1.0.0
author: The ggen.gvisor authors (@ggen-gvisor)
description:
  - Writes small text files below a folder of the host and makes the folders that are missing, readable for everybody (0644, 0755).
    M(ansible.builtin.copy) needs three round trips a file.
  - Each file is replaced as a whole, in the order that is given. Files that are not named stay as they are.
options:
  path:
    description: The folder.
    type: path
    required: true
  files:
    description: The texts, by their paths below O(path).
    type: dict
    required: true
  stamp:
    description:
      - One of O(files). When the host has it with its text, the others were written before, and what somebody made of them since is left alone.
      - It is written last.
    type: str
attributes:
  check_mode:
    support: full
    description: Can run in check_mode and tell what would change without changing it.
  diff_mode:
    support: full
    description: Shows the texts before and after.
  idempotent:
    support: full
    description: A second run with the same options changes nothing.
  platform:
    support: full
    platforms: posix
    description: The systems that the module runs on.
"""

EXAMPLES = r"""
- name: Write two files, and not again when somebody has edited them
  ggen.gvisor.text_files:
    path: /srv/example
    files:
      ggen.toml: "{{ lookup('ansible.builtin.file', 'ggen.toml') }}"
      queries/all.rq: "{{ lookup('ansible.builtin.file', 'all.rq') }}"
      .example: "1"
    stamp: .example
"""

RETURN = r"""
found:
  description: Whether the folder was there before.
  returned: success
  type: bool
  sample: false
written:
  description: The files that were written, or would be, in this order.
  returned: success
  type: list
  elements: str
  sample: [ggen.toml, queries/all.rq, .example]
"""

import os
from typing import Any, Dict, List, Optional

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._base.files import atomic_write, make_folders, read_file
from ansible_collections.ggen.gvisor.plugins.module_utils._base.module import run

FOLDER_MODE = 0o755
FILE_MODE = 0o644


def missing(folder: str, files: Dict[str, bytes], stamp: Optional[str]) -> List[str]:
    """Return which files the folder lacks or has with another text, the stamp last; none of them where it has the stamp.

    Raises GvisorError for a path that is not below the folder and for a stamp that is none of the files, OSError when a file cannot be read.
    """
    for name in files:
        if os.path.normpath(name) != name or name.startswith(("/", "../")) or name in (".", ".."):
            raise GvisorError(f"files: {name!r} is not a path below {folder}")
    if stamp is not None and stamp not in files:
        raise GvisorError(f"stamp: {stamp!r} is none of the files ({', '.join(files)})")
    different = [name for name in files if read_file(os.path.join(folder, name)) != files[name]]
    if stamp is None:
        return different
    return [*(name for name in different if name != stamp), stamp] if stamp in different else []


def shown(data: bytes) -> str:
    """Return the text for a diff."""
    return data.decode("utf-8", "surrogateescape")


def perform(module: AnsibleModule) -> Dict[str, Any]:
    """Write what is missing or differs and return the result. Raises GvisorError or OSError."""
    folder = module.params["path"]
    files = {str(name): str(text).encode("utf-8", "surrogateescape") for name, text in module.params["files"].items()}
    found = os.path.isdir(folder)
    names = missing(folder, files, module.params["stamp"])
    paths = {name: os.path.join(folder, name) for name in names}
    diff = [
        {"before_header": path, "after_header": path, "before": shown(read_file(path) or b""), "after": shown(files[name])}
        for name, path in paths.items()
    ]
    for name, path in ({} if module.check_mode else paths).items():
        make_folders(os.path.dirname(path), FOLDER_MODE)
        atomic_write(path, files[name], FILE_MODE)
    return {"changed": bool(names), "found": found, "written": names, "diff": diff}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "files": {"type": "dict", "required": True},
            "stamp": {"type": "str"},
        },
        supports_check_mode=True,
    )
    run(module, perform, place=module.params["path"])


if __name__ == "__main__":
    main()
