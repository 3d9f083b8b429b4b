# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Secrets of the controller, from a vault or a file, on their way to a command."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.parsing.dataloader import DataLoader
from ansible.parsing.vault import VaultHelper
from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError

FORMS = "name a file of the controller, give vaulted text, or write {text: …} or {file: …}"


def encoded(secrets: Any, loader: DataLoader) -> dict[str, str]:
    """Return the secrets by name as the module takes them, base64.

    A string is text where it comes from a vault, otherwise the path of a file; a dict says which it is. No message has a value in it: what was meant to be
    a path may be the secret. Raises GvisorError.
    """
    if not isinstance(secrets, Mapping):
        raise GvisorError(f"secrets must be a dict, a name and a value each; {FORMS}")
    return {str(name): base64.b64encode(_value(str(name), value, loader)).decode("ascii") for name, value in secrets.items()}


def _value(name: str, value: Any, loader: DataLoader) -> bytes:
    if isinstance(value, Mapping) and len(value) == 1 and set(value) <= {"text", "file"}:
        ((kind, inner),) = value.items()
    else:
        kind, inner = "text" if VaultHelper.get_ciphertext(value, with_tags=False) else "file", value
    if not isinstance(inner, str):
        raise GvisorError(f"secrets' {name} is neither text nor a path; {FORMS}")
    if kind == "text":
        return str(inner).encode("utf-8", "surrogateescape")
    try:
        path = loader.get_real_file(inner)  # of an encrypted one a decrypted copy
        try:
            return Path(path).read_bytes()
        finally:
            loader.cleanup_tmp_file(path)
    except Exception as error:  # Ansible's own would name it
        why = getattr(error, "strerror", None) or type(error).__name__
        raise GvisorError(f"secrets' {name} is no vaulted text and no file of the controller that can be read ({why}); {FORMS}") from None
