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
  - They are read and written as the folder's owner. Below a folder that others than root can change no link is followed, and a link in a file's
    place is replaced.
options:
  path:
    description: The folder.
    type: path
    required: true
  files:
    description: The texts, by their paths below O(path).
    type: dict
    required: true
  owner:
    description:
      - Whose the folder is to be, C(uid:gid) in numbers. One that is made here, or that is root's, is given to that user with what in it is root's.
      - By default the folder keeps its owner.
    type: str
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
    platforms: linux
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
import re
import time
from typing import Any, Dict, List, Optional, Tuple

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._base.module import run
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.pinned import NAMED, Absent, Pinned, pin, read_file, through, write_file
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.walker import ENTER, ENTRY, Bounds, Walk

FOLDER_MODE = 0o755
FILE_MODE = 0o644
GIVE_SECONDS = 60.0


def check(folder: str, files: Dict[str, bytes], stamp: Optional[str]) -> None:
    """Raise GvisorError for a path that is not below the folder and for a stamp that is none of the files."""
    for name in files:
        if os.path.normpath(name) != name or name.startswith(("/", "../")) or name in (".", ".."):
            raise GvisorError(f"files: {name!r} is not a path below {folder}")
    if stamp is not None and stamp not in files:
        raise GvisorError(f"stamp: {stamp!r} is none of the files ({', '.join(files)})")


def there(folder: Optional[Pinned], name: str) -> Optional[bytes]:
    """Return the file's bytes; None where there is no file, or a link, or one that is larger than a text."""
    try:
        return read_file(folder, name) if folder else None
    except GvisorError:
        return None


def missing(texts: Dict[str, Optional[bytes]], files: Dict[str, bytes], stamp: Optional[str]) -> List[str]:
    """Return which of ``files`` are not among ``texts``, which the folder has, the stamp last; none of them where it has the stamp."""
    different = [name for name in files if texts[name] != files[name]]
    if stamp is None:
        return different
    return [*(name for name in different if name != stamp), stamp] if stamp in different else []


def shown(data: bytes) -> str:
    """Return the text for a diff."""
    return data.decode("utf-8", "surrogateescape")


def owner_of(text: Optional[str]) -> Optional[Tuple[int, int]]:
    """Return the uid and gid that the option says. Raises GvisorError."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d{1,10}):(\d{1,10})", text)
    if not found:
        raise GvisorError(f"owner={text!r} must be uid:gid in numbers, for example 65534:65534")
    return int(found.group(1)), int(found.group(2))


def found_at(path: str) -> Optional[Pinned]:
    """Return the folder, opened for good, or None where there is nothing. Raises GvisorError where it is no folder or behind somebody's link."""
    try:
        folder = pin(path, "path")
    except Absent:
        return None
    if folder.is_folder:
        return folder
    with folder:
        raise GvisorError(f"path {path} is no folder and should be one; move it away")


def _give_one(name: str, folder: int, uid: int, gid: int) -> None:
    """Give what ``name`` is if it is root's and has no other name; what it becomes meanwhile is not given."""
    descriptor = os.open(name, NAMED, dir_fd=folder)
    try:
        status = os.fstat(descriptor)
        if status.st_uid == 0 and status.st_nlink == 1:
            os.chown(through(descriptor), uid, gid)
    finally:
        os.close(descriptor)


def give(folder: Pinned, uid: int, gid: int) -> None:
    """Give the folder, and what in it is root's, to another user. Raises GvisorError where something stays root's."""
    walk = Walk(folder.descriptor, Bounds(time.monotonic() + GIVE_SECONDS), one_mount=True)
    for step in walk:
        try:
            if step.kind == ENTER and os.fstat(step.descriptor).st_uid == 0:
                os.fchown(step.descriptor, uid, gid)
            elif step.kind == ENTRY:
                _give_one(step.name, step.descriptor, uid, gid)
        except OSError as error:
            walk.complain(step.name, error)
    if walk.missed:
        raise GvisorError(f"{folder.path} could not be given to {uid}:{gid}: {'; '.join(walk.problems)}")


def placed(path: str, owner: Optional[Tuple[int, int]]) -> Pinned:
    """Return the folder, made where it is missing and given to its owner. Raises GvisorError."""
    pin(os.path.dirname(path.rstrip("/")), "path", FOLDER_MODE).__exit__()
    folder = pin(path, "path", FOLDER_MODE)
    if owner and folder.owner[0] == 0 and owner[0] != 0:
        with folder:
            give(folder, *owner)
        folder = pin(path, "path")
    return folder


def perform(module: AnsibleModule) -> Dict[str, Any]:
    """Write what is missing or differs and return the result. Raises GvisorError or OSError."""
    path, stamp = module.params["path"], module.params["stamp"]
    files = {str(name): str(text).encode("utf-8", "surrogateescape") for name, text in module.params["files"].items()}
    check(path, files, stamp)
    owner = owner_of(module.params["owner"])
    folder = found_at(path)
    found = folder is not None
    texts = {name: there(folder, name) for name in files}
    names = missing(texts, files, stamp)
    gone = bool(owner and owner[0] != 0 and (folder is None or folder.owner[0] == 0))
    headers = {name: os.path.join(path, name) for name in names}
    diff = [
        {"before_header": header, "after_header": header, "before": shown(texts[name] or b""), "after": shown(files[name])}
        for name, header in headers.items()
    ]
    if folder:
        os.close(folder.descriptor)
    if (names or gone) and not module.check_mode:
        with placed(path, owner) as folder:
            for name in names:
                write_file(folder, name, files[name], FILE_MODE, FOLDER_MODE)
    return {"changed": bool(names) or gone, "found": found, "written": names, "diff": diff}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "files": {"type": "dict", "required": True},
            "owner": {"type": "str"},
            "stamp": {"type": "str"},
        },
        supports_check_mode=True,
    )
    run(module, perform, place=module.params["path"])


if __name__ == "__main__":
    main()
