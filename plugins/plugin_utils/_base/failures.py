# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Why a task failed and what fixes it, from what Ansible, ssh and programs say."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ansible_collections.ggen.gvisor.plugins.plugin_utils._base.text import plain

# Messages of Ansible that only say that a program failed: its own last words say why.
EMPTY_MESSAGES = re.compile(
    r"non-zero return code|One or more items failed|MODULE FAILURE|Module result deserialization failed|Task failed: Module failed|"
    r"Failed to create temporary directory|Unhandled exception|All items completed",
    re.IGNORECASE,
)


# What a program ends with that says the same of another one, whose own words are in its output.
EMPTY_WORDS = re.compile(r"E: Sub-process \S+ returned an error code \(\d+\)")


NOT_REACHED = "Start the host, or see why ssh does not reach it"


# What fixes a failure, by what was said of it. ssh's words are those of OpenSSH, which are not translated.
FIXES = (
    (r"(?i)no space left on device|enough free space|Errno 28", "Free space on the host (df -h names the full file system)"),
    # Python's words where it can write nowhere, before a module can say anything.
    (r"No usable temporary directory", "Free space on the host, or let one of these folders be written (df -h names a full file system)"),
    (r"Host key verification failed|REMOTE HOST IDENTIFICATION", "Compare the host's key and put it into known_hosts (ssh-keyscan)"),
    (r"Permission denied \(|Invalid/incorrect password", "Let ssh in: ansible_user and its key (ansible_ssh_private_key_file)"),
    (r"Could not resolve hostname|Name or service not known", "Give the host's address as ansible_host"),
    (r"[Mm]issing sudo password|password is required|Incorrect sudo password", "Give sudo's password with --ask-become-pass"),
    (r"timed out|refused|No route to host|unreachable|closed by|reset by", NOT_REACHED),
)


# What Ansible puts before a message.
PREFIXES = re.compile(r"^((Task|Action|Module) failed: )+")


def reason(result: Mapping[str, Any]) -> str:
    """Return why a task failed, from its result: its message, and where that says nothing, the last words of the program behind it.

    Of a loop, the reasons of the items that failed.
    """
    failed = [item for item in result.get("results") or [] if isinstance(item, Mapping) and (item.get("failed") or item.get("unreachable"))]
    if failed:
        return plain("\n".join(dict.fromkeys(map(reason, failed))))
    message = PREFIXES.sub("", str(result.get("msg") or result.get("censored") or "").strip())
    said = [str(result.get(key) or "").strip() for key in ("module_stderr", "stderr", "module_stdout", "stdout")]
    words = next((text for text in said if text and not EMPTY_WORDS.fullmatch(text)), "")
    if words and (not message or EMPTY_MESSAGES.search(message)):
        last = "\n".join(words.splitlines()[-3:] if not words.startswith("Traceback") else words.splitlines()[-1:])
        return plain(f"{message}: {last}" if message else last)
    return plain(message or "no reason was given")


def fix(why: str, otherwise: str = "") -> str:
    """Return what fixes a failure of which ``why`` was said, or ``otherwise``."""
    return next((text for pattern, text in FIXES if re.search(pattern, why)), otherwise)
