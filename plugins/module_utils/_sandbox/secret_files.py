# Copyright (c) 2026, the ggen.gvisor authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""Secrets as files that a command alone can read, in memory, and taken out of what is said of it."""

from __future__ import annotations

import base64
import binascii
import os
import re
from typing import Any, Dict, List, Mapping, Sequence

from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._base.processes import listener_pid
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.binds import mount_memory

TARGET = "/run/secrets"  # where the pod sees them
HIDDEN = "VALUE_SPECIFIED_IN_NO_LOG_PARAMETER"  # Ansible's own words
MASK = "********"
MAX_BYTES = 1 << 20  # of all secrets of a command
# A shorter one cannot be told from other text, and a part of one that is that long can be a secret by itself.
LEAST_WORD, LEAST_LINE = 4, 8
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
# What of a result a command can have an influence on, as text.
_SAID = ("stdout", "stderr", "msg", "faults", "warnings", "diff", "kernel", "changed_files", "trace")
_PRIVATE = ("env", "secrets", "stdin")  # options whose values nobody is told


def values_of(secrets: Mapping[str, Any]) -> Dict[str, bytes]:
    """Return the secrets by name from what the action plugin sends, base64. Raises GvisorError, which never holds a value."""
    found = {}
    for name, value in secrets.items():
        if not _NAME.fullmatch(str(name)):
            raise GvisorError(f"secrets has the name {name!r}, which is not possible; use at most 100 letters, digits and . _ -")
        try:
            found[str(name)] = base64.b64decode(str(value), validate=True)
        except (binascii.Error, ValueError):
            raise GvisorError(f"the value of secrets' {name} is not as the action plugin sends it") from None
    if any(not value for value in found.values()):
        raise GvisorError(f"secrets has {', '.join(name for name, value in found.items() if not value)} without a value")
    if sum(map(len, found.values())) > MAX_BYTES:
        raise GvisorError(f"secrets has more than {MAX_BYTES} bytes; show large files with mounts")
    return found


def place(secrets: Mapping[str, bytes], target: str, uid: int, gid: int, address: str) -> None:
    """Have the secrets in memory at ``target``, which is made, as files of ``uid``'s alone, seen by the containerd at ``address``. Raises GvisorError."""
    try:
        mount_memory(target, 2 * MAX_BYTES)
        for name, value in secrets.items():
            path = os.path.join(target, name)
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o400), "wb") as stream:
                stream.write(value)
                os.fchown(stream.fileno(), uid, gid)
        os.chmod(target, 0o500)
        os.chown(target, uid, gid)
        daemon = listener_pid(address)
        seen = target if daemon is None else f"/proc/{daemon}/root{os.path.realpath(target)}"
        if sorted(os.listdir(seen)) != sorted(secrets):
            raise GvisorError(
                "containerd does not see the secrets: it has mounts of its own (PrivateMounts or a container); run it with the host's"
            )
    except OSError as error:
        raise GvisorError(f"the secrets cannot be shown to a pod: {error.strerror}") from error


def words_of(secrets: Mapping[str, bytes]) -> List[str]:
    """Return what must not be in a result: each secret, and each longer line of it."""
    words = set()
    for value in secrets.values():
        text = value.decode("utf-8", "replace").strip()
        words |= {word for word in [text] if len(word) >= LEAST_WORD}
        words |= {line.strip() for line in text.splitlines() if len(line.strip()) >= LEAST_LINE}
    return sorted(words, key=len, reverse=True)


def mask(value: Any, words: Sequence[str]) -> Any:
    """Return ``value`` without ``words`` in any text of it."""
    if isinstance(value, str):
        for word in words:
            value = value.replace(word, MASK)
        return value
    if isinstance(value, Mapping):
        return {key: mask(item, words) for key, item in value.items()}
    return [mask(item, words) for item in value] if isinstance(value, (list, tuple)) else value


def mask_result(result: Mapping[str, Any], words: Sequence[str]) -> Dict[str, Any]:
    """Return a result without ``words`` in what a command could have a say in."""
    return {key: mask(item, words) if words and key in _SAID else item for key, item in result.items()}


def hide_options(params: Mapping[str, Any]) -> Dict[str, Any]:
    """Return a module's options as they may be shown: of those that may hold secrets at most the names, in jobs too."""

    def hidden(options: Mapping[str, Any]) -> Dict[str, Any]:
        private = {key: value for key, value in options.items() if key in _PRIVATE and value is not None}
        return {
            **options,
            **{key: dict.fromkeys(value, HIDDEN) if isinstance(value, Mapping) else HIDDEN for key, value in private.items()},
        }

    jobs = {"jobs": [hidden(job) for job in params["jobs"]]} if params.get("jobs") else {}
    return {**hidden(params), **jobs}
