# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From the workspaces that the user names to ggen's jobs."""

from __future__ import annotations

import posixpath
import shlex
from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError


def split_arguments(arguments: str | Iterable[Any]) -> list[str]:
    """Return ggen's arguments as a list; a string is split like a shell's words. Raises GvisorError when that cannot be."""
    if isinstance(arguments, str):
        try:
            words = shlex.split(arguments)
        except ValueError as error:
            raise GvisorError(
                f"ggen_run_args={arguments!r} cannot be split into words: {error}. Balance the quotes, or write a list."
            ) from error
    else:
        words = [str(word) for word in arguments]
    if not words:
        raise GvisorError("ggen_run_args is empty. Name ggen's command, for example sync.")
    return words


def jobs(workspaces: Iterable[Mapping[str, Any]], common: Mapping[str, Any], base: str = "", home: str = "") -> list[dict[str, Any]]:
    """Return one job a workspace: its options laid over ``common``, an absolute path, the arguments as a list, its manifest.

    ``base`` and ``home`` are the controller's folders that a relative path and ``~`` start from; empty where the workspace is
    on another host, where neither means anything. Raises GvisorError.
    """
    known = {"path", *common}
    result: list[dict[str, Any]] = []
    for entry in workspaces:
        unknown = sorted(set(entry) - known)
        if unknown:
            raise GvisorError(f"ggen_run_workspaces has the unknown key {', '.join(unknown)}. Known are: {', '.join(sorted(known))}.")
        job = {**common, **entry, "path": _absolute(str(entry.get("path") or ""), base, home)}
        if any(other["path"] == job["path"] for other in result):
            raise GvisorError(f"ggen_run_workspaces names {job['path']} twice. Name each workspace once.")
        job["args"] = split_arguments(job["args"])
        job["manifest"] = manifest_of(job["path"], job["args"])
        result.append(job)
    return result


def _absolute(path: str, base: str, home: str) -> str:
    if not path:
        raise GvisorError("A workspace has no path. Set ggen_run_workspace, or path in each entry of ggen_run_workspaces.")
    if home and (path == "~" or path.startswith("~/")):
        path = posixpath.join(home, path[2:])
    if not path.startswith("/") and not base:
        raise GvisorError(f"The workspace {path} is on another host and not absolute. Write its path there from / on.")
    return posixpath.normpath(posixpath.join(base, path))


def manifest_of(path: str, args: list[str]) -> str:
    """Return the manifest that ggen will open, or an empty string where it opens none (init, sync --queries, other commands)."""
    if args[0] != "sync" or any(word.partition("=")[0] == "--queries" for word in args):
        return ""
    name = "ggen.toml"
    for word, following in zip(args, [*args[1:], ""]):
        option, equals, value = word.partition("=")
        if option == "--manifest":
            name = value if equals else following
    return posixpath.join(path, name)
