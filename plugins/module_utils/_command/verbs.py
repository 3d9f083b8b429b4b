# Copyright (c) 2026, the ggen.gvisor authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""What each verb does. What one of them alone needs is imported there: from a zipapp all is compiled at each start."""

from __future__ import annotations

import difflib
import json
import os
import select
import shlex
from typing import Any, Callable, Dict, Iterator, Mapping, Optional, Sequence

from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._base.text import visible_result
from ansible_collections.ggen.gvisor.plugins.module_utils._command.display import Display, complain, say, show, write
from ansible_collections.ggen.gvisor.plugins.module_utils._command.engine import Done, Engine, run
from ansible_collections.ggen.gvisor.plugins.module_utils._command.parser import Asked
from ansible_collections.ggen.gvisor.plugins.module_utils._command.table import (
    FAULTY,
    LIMIT,
    NOT_RUN,
    TERMINAL,
    TIMED_OUT,
    UNHEALTHY,
    WOULD_CHANGE,
)
from ansible_collections.ggen.gvisor.plugins.module_utils._ggen.advice import Words
from ansible_collections.ggen.gvisor.plugins.module_utils._ggen.runs import IGNORE, IMAGE, KEY, TIMEOUT, run_options
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.defaults import options
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.jobs import Mode, Streams
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.secret_files import values_of, words_of
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.trace import KINDS

# How advice of ggen's failures calls what this command has.
WORDS = Words(
    {"workspace": "--workspace", "init": "ggen-gvisor run --workspace . -- /usr/local/bin/ggen init", "args": "the arguments behind --"},
    lambda mounts: " ".join(f"--mount {shlex.quote('{source}:{target}:ro'.format(**mount))}" for mount in mounts),
)
_PAIRS = {"env": "env", "secret": "secrets"}  # option → that of containerd_run, which is a dict
ABSENT = " (absent)"  # how a diff calls the side that has no file
_OURS = ("json", "terminal", "copy", "failed", "rootless")
TERMINAL_TIMEOUT = 86400.0  # seconds; a person sits there
SHELL = ["/bin/sh"]
_RENAMED = {"mount": "mounts", "output": "outputs"}


def given(asked: Asked) -> Dict[str, Any]:
    """Return the options of containerd_run that were given."""
    found: Dict[str, Any] = {"image": IMAGE}
    for name, value in asked.options.items():
        if name in _PAIRS:
            found[_PAIRS[name]] = dict(value)
        elif name not in _OURS:
            found[_RENAMED.get(name, name)] = value
    return found


def ggen_job(asked: Asked, arguments: Sequence[str]) -> Dict[str, Any]:
    """Return the job of ggen's that was asked for."""
    found = given(asked)
    return {"timeout": TIMEOUT, "ignore": IGNORE, **found, "path": found.pop("workspace", os.getcwd()), "args": ["sync", *arguments]}


def ggen_options(job: Mapping[str, Any]) -> Dict[str, Any]:
    """Return all options of the run of a job of ggen's."""
    names = ("image", "runsc", "namespace", "runtime", "address", "state_dir", "metrics", "trace")
    where = {name: job[name] for name in names if name in job}
    return options(**where, **run_options(job), name="ggen", private=[KEY])


def exit_code(result: Mapping[str, Any]) -> int:
    """Return the command's own exit code, or one of ours where it has none, or where what it left is at fault."""
    rc = result.get("rc")
    if rc is None:
        return TIMED_OUT if result.get("timed_out") else LIMIT if result.get("limits_hit") else NOT_RUN
    return rc or (FAULTY if result.get("failed") else 0)


def _tell(done: Done, as_json: bool) -> None:
    """Say what the caller does not see otherwise: with JSON everything, else warnings and what went wrong beside the exit code."""
    if as_json:
        shown = visible_result({**done.result, "failed": bool(done.result.get("failed")), "warnings": done.warnings})
        write(1, json.dumps(shown, ensure_ascii=True, sort_keys=True).encode() + b"\n")
        return
    for warning in done.warnings:
        complain(f"warning: {warning}")
    _tell_trace(done.result)
    if done.result.get("rc") is None or done.result.get("faults") or done.result.get("limits_hit"):
        complain(str(done.result.get("msg") or "the command did not run to its end"))


def _tell_trace(result: Mapping[str, Any]) -> None:
    trace = result.get("trace", {})
    for kind in KINDS:
        for path in trace.get(kind, []):
            complain(f"{kind:8s} {path}")
    if trace.get("truncated"):
        complain("warning: not all that the command did with files is told")


def _reader_is_gone() -> bool:
    poll = select.poll()
    poll.register(1, 0)
    return any(event & select.POLLERR for _descriptor, event in poll.poll(0))


def at_terminal(params: Mapping[str, Any], mode: Mode, engine: Engine) -> int:
    """Run a command with a terminal; return the exit code. Raises GvisorError where the caller has none."""
    if not (os.isatty(0) and os.isatty(1)):
        raise GvisorError("a terminal can only be given to a command where standard input and output are one")
    env = {"TERM": os.environ.get("TERM", "xterm"), **params.get("env", {})}
    done = run(options(**{"timeout": TERMINAL_TIMEOUT, **params, "env": env, "name": TERMINAL}), mode, Streams(terminal=0), engine)
    _tell(done, False)
    return exit_code(done.result)


def shell(asked: Asked, engine: Engine) -> int:
    """Run a shell at a terminal; return the exit code. Raises GvisorError."""
    if "failed" in asked.options:
        from ansible_collections.ggen.gvisor.plugins.module_utils._command.failed import settled

        record, found = settled(asked.options)
        words = " ".join(map(str, record["argv"]))
        complain(
            f"a copy of {record['workspace']} as it is now; {words} failed there at {record['time']} (rc {record['rc']}, {record['ended']})"
        )
        asked = asked._replace(options=found)
    here = {"workspace": os.getcwd(), **given(asked)}
    return at_terminal({**here, "argv": asked.words or SHELL}, Mode("copy" in asked.options, False), engine)


def run_command(asked: Asked, engine: Engine) -> int:
    """Run a command; return the exit code. Raises GvisorError."""
    if "terminal" in asked.options:
        if "json" in asked.options:
            raise GvisorError("--json and --terminal exclude each other")
        return at_terminal({**given(asked), "argv": asked.words}, Mode(False, False), engine)
    params = options(**given(asked), argv=asked.words)
    as_json = "json" in asked.options
    display = Display([word.encode() for word in words_of(values_of(params["secrets"]))])
    done = run(params, Mode(False, False), Streams(0, None if as_json else display), engine)
    if not as_json:
        display.end()
    if done.result.get("rc") is None and _reader_is_gone():
        return 141
    _tell(done, as_json)
    return exit_code(done.result)


def _describe(done: Done, job: Mapping[str, Any]) -> Dict[str, Any]:
    """Return what a run of ggen's came to, and its exit code as ``code``: ggen may call an error what ends with 0."""
    from ansible_collections.ggen.gvisor.plugins.module_utils._ggen.output import describe_run

    told = describe_run(done.result, job, WORDS)
    return {**told, "code": exit_code(done.result) or (FAULTY if told["error"] else 0)}


def sync(asked: Asked, engine: Engine) -> int:
    """Run ggen sync; return the exit code."""
    job = ggen_job(asked, asked.words)
    done = run(ggen_options(job), Mode(False, False), Streams(), engine)
    told = _describe(done, job)
    if "json" in asked.options:
        _tell(done, True)
        return int(told["code"])
    for warning in done.warnings:
        complain(f"warning: {warning}")
    _tell_trace(done.result)
    if told["error"]:
        complain(told["error"]["message"])
        return int(told["code"])
    for file in told["files"]:
        say(f"{file['change']:9s} {file['path']}")
    say(told["summary"])
    return 0


def check(asked: Asked, engine: Engine) -> int:
    """Run on a copy and show what would change; return the exit code."""
    here = {"workspace": os.getcwd(), **given(asked)}
    job = None if asked.words else ggen_job(asked, [])
    done = run(options(**here, argv=asked.words) if job is None else ggen_options(job), Mode(True, True), Streams(), engine)
    told = {"code": exit_code(done.result)} if job is None else _describe(done, job)
    if "json" in asked.options:
        _tell(done, True)
    else:
        for line in patch(done.result):
            show(1, line)
        _tell(done, False)
        if done.result.get("rc"):
            show(2, f"{done.result['stdout']}{done.result['stderr']}")
        elif told["code"] and not exit_code(done.result):
            complain(told["error"]["message"])
    return told["code"] or (WOULD_CHANGE if done.result.get("contents_changed") else 0)


def patch(result: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of a unified diff of what a run has changed on its copy, as git apply takes it; where texts do not tell, a line that does."""
    for part in result.get("diff", []):
        sides = (("before", "a"), ("after", "b"))
        lines = [part[side].splitlines(keepends=True) for side, _letter in sides]
        names = [part[f"{side}_header"] for side, _letter in sides]
        heads = ["/dev/null" if name.endswith(ABSENT) else f"{letter}/{name}" for name, (_side, letter) in zip(names, sides)]
        found = list(difflib.unified_diff(*lines, *heads))
        for line in found:
            yield line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"
        if not found:
            yield f"# {part['after_header']}: its mode or owner would change, or it would be empty\n"


def doctor(asked: Asked, _engine: Engine) -> int:
    """Tell whether the host can run sandboxes; return the exit code."""
    from ansible_collections.ggen.gvisor.plugins.module_utils._command.doctor import examine

    found = examine(options(**given(asked)))
    if "json" in asked.options:
        write(1, json.dumps(found, ensure_ascii=True, sort_keys=True).encode() + b"\n")
    else:
        for line in found["well"]:
            say(f"ok   {line}")
        for line in found["faults"]:
            say(f"BAD  {line}")
    return 0 if found["healthy"] else UNHEALTHY


def stats(asked: Asked, _engine: Engine) -> int:
    """Show the sandboxes that run now; return the exit code. Raises GvisorError."""
    from ansible_collections.ggen.gvisor.plugins.module_utils._command.stats import running, table

    state_dir = options(**given(asked))["state_dir"]
    found = running(state_dir)
    if "json" in asked.options:
        write(1, json.dumps({"pods": found}, ensure_ascii=True, sort_keys=True).encode() + b"\n")
    elif found:
        for line in table(found):
            say(line)
    else:
        say(f"no sandbox of {state_dir} runs now")
    return 0


ACTIONS: Dict[str, Callable[[Asked, Engine], int]] = {
    "run": run_command,
    "shell": shell,
    "sync": sync,
    "check": check,
    "doctor": doctor,
    "stats": stats,
}


def perform(asked: Asked, engine: Optional[Engine] = None) -> int:
    """Do what was asked for; return the exit code. Raises GvisorError."""
    engine = engine or Engine()
    if "rootless" in asked.options:
        from ansible_collections.ggen.gvisor.plugins.module_utils._command.rootless import RootlessEngine, settled

        engine, asked = RootlessEngine(), asked._replace(options=settled(asked.verb, asked.options))
    elif "runsc" in asked.options:
        raise GvisorError("--runsc is for --rootless: containerd has a runtime of its own")
    return ACTIONS[asked.verb](asked, engine)
