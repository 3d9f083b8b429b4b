# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What action.yml runs: ggen-gvisor with the action's inputs, and what came of it as GitHub shows it.

The inputs come as variables and never through a shell. What the sandbox printed, and what its files are called, is data: it is escaped in annotations,
and where it is shown as it is the runner obeys no command in it.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import secrets
import subprocess
import sys
import tempfile
from typing import Any, Dict, Iterator, List, Mapping, NamedTuple, NoReturn, Optional, Sequence

PROGRAM = "ggen-gvisor"
MEMBER = ["sudo", "-n", "ggen-gvisor-member"]  # the same for members of the group that containerd_gvisor_command_group names
NOT_RUN, WOULD_CHANGE = 125, 153  # of its exit codes, docs/command.md
SHOWN = 50  # annotations; GitHub shows ten of a step, and keeps the rest in its log
MAX_TEXT = 200_000  # characters of output or of a diff that are shown; a step's summary may have a megabyte
WOULD = {"created": "create", "modified": "change", "removed": "remove"}
FIXES = {"check": "run the same with mode: run, or ggen-gvisor sync, and commit what it writes", "run": ""}
NO_SUDO = "the runner's user must be in the group that containerd_gvisor_command_group names: docs/command.md"
# Everything that drives a terminal but the new line and the tab.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Inputs(NamedTuple):
    """What the workflow asks for."""

    mode: str
    workspace: str
    command: List[str]
    options: List[str]
    sudo: bool


class Refused(Exception):
    """The inputs are not as they should be."""


def words(text: str) -> List[str]:
    """Return the words of an input that has one a line."""
    return [line for line in text.splitlines() if line.strip()]


def read_inputs(env: Mapping[str, str]) -> Inputs:
    """Return the inputs. Raises Refused."""
    mode, sudo = env["GGEN_MODE"], env["GGEN_SUDO"]
    if mode not in FIXES:
        raise Refused(f"mode is {mode!r}; it is check or run")
    if sudo not in ("true", "false"):
        raise Refused(f"sudo is {sudo!r}; it is true or false")
    options = words(env["GGEN_OPTIONS"])
    for option in options:
        if not option.startswith("--") or option == "--":
            raise Refused(f"options: {option!r} is no option; write one a line, as in --memory=512M")
    return Inputs(mode, env["GGEN_WORKSPACE"], words(env["GGEN_COMMAND"]), options, sudo == "true")


def place_of(asked: Inputs, root: str) -> str:
    """Return the workspace of a checkout at ``root``. Raises Refused where it is, or is behind, a link of the checkout's.

    The command refuses links, too, but follows root's own: those of a checkout that a runner has made as root are somebody else's all the same.
    """
    workspace = os.path.normpath(os.path.join(root, asked.workspace))
    root = os.path.normpath(root)
    place = workspace
    while place.startswith(os.path.join(root, "")):
        if os.path.islink(place):
            raise Refused(f"workspace: {os.path.relpath(place, root)} is a link of the checkout's, and is not followed")
        place = os.path.dirname(place)
    return workspace


def argv_of(asked: Inputs, workspace: str) -> List[str]:
    """Return the command line for a workspace."""
    verb = asked.mode if asked.mode == "check" else "run" if asked.command else "sync"
    line = [verb, *asked.options, "--json", f"--workspace={workspace}", *(["--", *asked.command] if asked.command else [])]
    return [*(MEMBER if asked.sudo else [PROGRAM]), *line]


def command(name: str, message: str, **properties: str) -> str:
    """Return a workflow command, escaped as GitHub's own toolkit does it."""
    told = ",".join(f"{key}={_escape(value, '%:,')}" for key, value in properties.items() if value)
    return f"::{name}{' ' if told else ''}{told}::{_escape(message, '%')}"


def _escape(text: str, special: str) -> str:
    return "".join(f"%{ord(char):02X}" if char in special or char in "\r\n" else char for char in _CONTROL.sub(_visible, text))


def _visible(found: re.Match) -> str:
    return found.group() if found.group() == "\r" else f"\\x{ord(found.group()):02x}"


def as_it_is(text: str) -> str:
    """Return a text of the sandbox's as the runner shows it, without obeying anything in it."""
    token = secrets.token_hex(16)
    shown = _CONTROL.sub(lambda found: f"\\x{ord(found.group()):02x}", cut(text))
    return f"::stop-commands::{token}\n{shown.rstrip()}\n::{token}::"


def cut(text: str) -> str:
    """Return the beginning of a text, and how much of it there is more."""
    more = len(text) - MAX_TEXT
    return text if more <= 0 else f"{text[:MAX_TEXT]}\n[{more} characters more, in the result]\n"


def changes(result: Mapping[str, Any]) -> List[Dict[str, Any]]:
    """Return the files that count: what git would not keep does not."""
    return [file for file in result.get("changed_files", []) if file["contents"] and not file["ignored"]]


def patch(result: Mapping[str, Any]) -> str:
    """Return what would change as a diff for people."""
    lines: List[str] = []
    for part in result.get("diff", []):
        before, after = (part.get(side, "").splitlines(keepends=True) for side in ("before", "after"))
        found = difflib.unified_diff(before, after, part.get("before_header", ""), part.get("after_header", ""))
        lines += [line if line.endswith("\n") else f"{line}\n" for line in found]
    return "".join(lines)


def annotations(asked: Inputs, result: Mapping[str, Any], rc: int, place: str) -> Iterator[str]:
    """Yield what stands beside the files, and what went wrong. ``place`` is the workspace, from the checkout's root."""
    found = changes(result)
    stale = asked.mode == "check"
    for file in found[:SHOWN]:
        path = os.path.normpath(os.path.join(place, file["path"]))
        said = f"not up to date: this run would {WOULD[file['change']]} it" if stale else f"{file['change']} by this run"
        yield command("error" if stale and rc == WOULD_CHANGE else "notice", said, file=path, title=PROGRAM)
    if len(found) > SHOWN:
        yield command("notice", f"{len(found) - SHOWN} files more; the result has all of them", title=PROGRAM)
    if rc == WOULD_CHANGE:
        yield command("error", f"{len(found)} files are not up to date; {FIXES[asked.mode]}", title=PROGRAM)
    elif rc:
        why = result.get("msg") or f"the command ended with {rc}"
        yield command("error", "; ".join([str(why), *map(str, result.get("faults", []))]), title=PROGRAM)
    for warning in result.get("warnings", []):
        yield command("warning", str(warning), title=PROGRAM)


def summary(asked: Inputs, result: Mapping[str, Any], rc: int) -> str:
    """Return the step's summary, in Markdown: no text of the sandbox's ends the block that it is in."""
    counts = result.get("changed_counts", {})
    told = ", ".join(f"{counts[kind]} {kind}" for kind in WOULD if counts.get(kind))
    text = f"**{PROGRAM} {asked.mode}**: exit code {rc}{', ' if told else ''}{told}\n"
    shown = cut(patch(result))
    if not shown:
        return text
    fence = "`" * (1 + max([2, *map(len, re.findall("`+", shown))]))
    return f"{text}\n{fence}diff\n{shown}{fence}\n"


def tell(line: str = "") -> None:
    """Write to the step's log, at once, so that it is in order with what others write there."""
    sys.stdout.buffer.write(f"{line}\n".encode("utf-8", "backslashreplace"))
    sys.stdout.buffer.flush()


def append(path: Optional[str], text: str) -> None:
    """Add to one of the files through which a step tells the runner something; runners that are not GitHub's may not have it."""
    if path:
        with open(path, "a", encoding="utf-8", errors="backslashreplace") as stream:
            stream.write(text)


def keep(result: Mapping[str, Any]) -> str:
    """Write the result to a file of its own in the runner's folder for them and return its path."""
    descriptor, path = tempfile.mkstemp(prefix=f"{PROGRAM}-", suffix=".json", dir=os.environ.get("RUNNER_TEMP"))
    with open(descriptor, "w", encoding="ascii") as stream:
        json.dump(result, stream, indent=2, sort_keys=True)
    return path


def run(argv: Sequence[str]) -> Dict[str, Any]:
    """Run it and return its result, or what went wrong before there was one; ``exit_code`` is in it."""
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    except OSError as error:
        return {"exit_code": NOT_RUN, "msg": f"{argv[0]}: {error.strerror}; is this runner on a sandbox host?"}
    try:
        result = json.loads(done.stdout)
    except ValueError:
        said = (done.stderr or done.stdout).decode("utf-8", "backslashreplace").strip()
        hint = f"; {NO_SUDO}" if said.startswith("sudo:") else ""
        result = {"msg": f"{said or 'it said nothing'}{hint}"}
    return {**result, "exit_code": done.returncode}


def report(asked: Inputs, result: Mapping[str, Any], place: str) -> None:
    """Tell everything that came of a run."""
    rc = result["exit_code"]
    for name in ("stdout", "stderr"):
        if result.get(name):
            tell(command("group", f"{name} of the command"))
            tell(as_it_is(result[name]))
            tell("::endgroup::")
    shown = patch(result)
    if shown:
        tell(as_it_is(shown))
    for line in annotations(asked, result, rc, place):
        tell(line)
    tell(f"{PROGRAM} {asked.mode}: exit code {rc}, {len(changes(result))} changed files")
    append(os.environ.get("GITHUB_STEP_SUMMARY"), summary(asked, result, rc))


def main() -> NoReturn:
    """Do what the inputs ask for and end with the exit code of ggen-gvisor."""
    try:
        asked = read_inputs(os.environ)
    except Refused as error:
        tell(command("error", str(error), title=PROGRAM))
        sys.exit(NOT_RUN)
    try:
        result = run(argv_of(asked, place_of(asked, os.environ["GITHUB_WORKSPACE"])))
    except Refused as error:
        result = {"exit_code": NOT_RUN, "msg": str(error)}
    changed = "true" if result.get("contents_changed") else "false"
    append(os.environ.get("GITHUB_OUTPUT"), f"exit-code={result['exit_code']}\nchanged={changed}\nresult={keep(result)}\n")
    report(asked, result, asked.workspace)
    sys.exit(result["exit_code"])


if __name__ == "__main__":
    main()
