# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From the controller to a host: compressed once for all hosts, and all that a host lacks in one transfer."""

from __future__ import annotations

import contextlib
import gzip
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ansible.errors import AnsibleError
from ansible.utils.display import Display
from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._base.files import (
    SENT_PAYLOAD,
    SENT_SECONDS,
    locked_file,
    sha256_file,
    sha256_of,
    staged,
)
from ansible_collections.ggen.gvisor.plugins.module_utils._base.text import megabytes
from ansible_collections.ggen.gvisor.plugins.plugin_utils._base.action import Action

# runsc (66 MB): level 6 gives 20.9 MB in 2.3 s, 9 gives 20.8 MB in 7.6 s, 1 gives 23.4 MB in 0.7 s.
LEVEL = 6

display = Display()


class Item(NamedTuple):
    """A file to send: its name on the host, where the controller has it, and the sha256 that it must have."""

    name: str
    source: str
    sha256: str


def size_of(item: Item) -> int:
    """Return the size of the controller's file in bytes. Raises GvisorError when it is not there."""
    try:
        return os.path.getsize(item.source)
    except OSError as error:
        raise GvisorError(f"{item.source} cannot be read on the controller ({error.strerror}); build it first") from error


def compressed(item: Item, cache: str) -> str:
    """Return the path of the file's gzip in the build cache, made by whoever asks first while others wait.

    It is named by the sha256 of the file and by its own, so that a look at the name and the bytes tells whether it is whole. Raises
    GvisorError when the file is not what ``item`` says.
    """
    folder = Path(cache, "shipped")
    try:
        with locked_file(os.path.join(cache, "locks", f"shipped-{item.sha256}")):
            folder.mkdir(parents=True, exist_ok=True)
            for path in folder.glob(f"{item.sha256}.*"):
                if sha256_file(str(path)) == path.name.split(".")[1]:
                    return str(path)
                path.unlink()
            return _compress(item, folder)
    except OSError as error:
        raise GvisorError(
            f"{error.filename or item.source}: {error.strerror}, while compressing {item.source} on the controller"
        ) from error


def _compress(item: Item, folder: Path) -> str:
    with staged(str(folder), "gzip", 0o644) as new:
        # Neither name nor time in its header: the same file gives the same bytes.
        packer = gzip.GzipFile(filename="", mode="wb", compresslevel=LEVEL, fileobj=new.stream, mtime=0)
        with packer, Path(item.source).open("rb") as data:
            found = sha256_of(data, packer.write)
        if found != item.sha256:
            raise GvisorError(
                f"{item.source} on the controller has the sha256 {found} and {item.sha256} is expected. Nothing was sent; build it again"
            )
        new.stream.flush()
        target = str(folder / f"{item.sha256}.{sha256_file(new.path)}.gz")
        new.keep(target)
    return target


def payload_of(action: Action, host: str, items: Sequence[Item], cache: str) -> tuple[list[dict[str, Any]], int]:
    """Bring the files to the host, and return for each where its bytes are there, and how many bytes were sent in all.

    To the controller itself nothing is sent. Raises GvisorError.
    """
    sizes = [size_of(item) for item in items]
    if action.on_controller:
        parts = [
            {"name": item.name, "path": item.source, "offset": 0, "length": size, "size": size, "gzip": False}
            for item, size in zip(items, sizes)
        ]
        return parts, 0
    packed = [compressed(item, cache) for item in items]
    lengths = [os.path.getsize(path) for path in packed]
    what = ", ".join(f"{item.name} ({megabytes(size)})" for item, size in zip(items, sizes))
    display.display(f"{host}: sending {what} as {megabytes(sum(lengths))}")
    remote = _send_joined(action, packed, Path(cache, "shipped"))
    parts = []
    for item, size, length in zip(items, sizes, lengths):
        offset = sum(part["length"] for part in parts)
        parts.append({"name": item.name, "path": remote, "offset": offset, "length": length, "size": size, "gzip": True})
    return parts, sum(lengths)


def _send_joined(action: Action, paths: Sequence[str], folder: Path) -> str:
    if len(paths) == 1:
        return send(action, paths[0])
    # In the cache, where the next one finds it if this one is killed.
    remove_stale(folder)
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".joined.") as joined:
        for path in paths:
            with Path(path).open("rb") as data:
                shutil.copyfileobj(data, joined, 1 << 20)
        joined.flush()
        return send(action, joined.name)


def remove_stale(folder: Path) -> None:
    """Remove the temporary files that runs which were killed left among the compressed programs."""
    for path in folder.glob(".*"):
        with contextlib.suppress(FileNotFoundError):  # another run does the same
            if time.time() - path.stat().st_mtime > SENT_SECONDS:
                path.unlink()


def send(action: Action, path: str) -> str:
    """Transfer a file into the action's temporary folder on the host, which Ansible makes for the user alone and removes.

    Returns its path there. Raises GvisorError that tells how much room there was.
    """
    shell = action._connection._shell
    if shell.tmpdir is None:
        action._make_tmp_path()
    remote = shell.join_path(shell.tmpdir, SENT_PAYLOAD)
    try:
        action._transfer_file(path, remote)
    except AnsibleError as error:
        room = action._low_level_execute_command(f"df -P -h {shell.quote(shell.tmpdir)}", sudoable=False)["stdout"].strip()
        raise GvisorError(
            f"{megabytes(os.path.getsize(path))} could not be sent to {remote} (remote_tmp): {error}. The room there:\n{room}"
        ) from error
    # Costs nothing for root; another user that the task becomes may not read it otherwise.
    action._fixup_perms2([shell.tmpdir, remote], execute=False)
    return remote
