# Copyright (c) 2026, the ggen.gvisor authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""What ggen-gvisor can do, as data: its help, its manual page and its completion are made of this."""

from __future__ import annotations

import base64
import os
from typing import Any, Callable, Dict, NamedTuple, Tuple

from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._ggen.runs import IMAGE
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.defaults import DEFAULTS
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.secret_files import MAX_BYTES

NAME = "ggen-gvisor"
TERMINAL = "terminal"  # how the ids of runs with a terminal begin
SUMMARY = "run commands, and ggen, in gVisor sandboxes"
DESCRIPTION = (
    "Runs a command to its end in a sandbox of its own: gVisor's kernel between it and the host, no network, no capabilities, limits on memory, "
    "processes and files, and nothing left behind. It is the module containerd_run without Ansible: the same code, the same walls, the same result.",
    "The sandbox runs as the owner of the workspace, who may not be root unless --user says so.",
    "Where containerd runs the sandbox, root alone may ask it to. With --rootless gVisor's program does it for anybody, on folders of their own.",
)


def mount(text: str) -> Dict[str, Any]:
    """Return what SRC:DST[:ro] says. Raises GvisorError."""
    source, _colon, rest = text.partition(":")
    target, _colon, mode = rest.partition(":")
    if not source or not target or mode not in ("", "ro", "rw"):
        raise GvisorError(f"--mount {text!r} is not SRC:DST or SRC:DST:ro")
    return {"source": os.path.abspath(source), "target": target, "writable": mode != "ro"}


def variable(text: str) -> Tuple[str, str]:
    """Return what NAME=VALUE says; NAME alone has the caller's value. Raises GvisorError."""
    name, equals, value = text.partition("=")
    if not equals and name not in os.environ:
        raise GvisorError(f"--env {name!r} has no value, and the variable is not set here; write {name}=VALUE")
    return name, value if equals else os.environ[name]


def secret(text: str) -> Tuple[str, str]:
    """Return the name and the contents, base64, of NAME=FILE. Raises GvisorError."""
    name, equals, path = text.partition("=")
    if not equals or not path:
        raise GvisorError(f"--secret {text!r} is not NAME=FILE")
    try:
        with open(path, "rb") as stream:
            return name, base64.b64encode(stream.read(MAX_BYTES + 1)).decode("ascii")  # more is refused
    except OSError as error:
        raise GvisorError(f"--secret {name}: {path}: {error.strerror}") from error


def number(text: str) -> float:
    """Return a number. Raises GvisorError."""
    try:
        return float(text)
    except ValueError:
        raise GvisorError(f"{text!r} is no number") from None


class Option(NamedTuple):
    """One option. Without a ``metavar`` it is a switch."""

    name: str
    help: str
    metavar: str = ""
    read: Callable[[str], Any] = str
    many: bool = False
    values: str = ""  # what completion offers: file, folder
    short: str = ""


class Verb(NamedTuple):
    """One thing to do. ``words`` is what may come behind ``--``, in brackets where nothing has to."""

    name: str
    summary: str
    description: Tuple[str, ...]
    options: Tuple[Option, ...]
    words: str = ""


def usage_of(verb: Verb) -> str:
    """Return the verb's line in a synopsis."""
    words = {"": "", "[": " [-- " + verb.words[1:]}.get(verb.words[:1], f" -- {verb.words}")
    return f"{NAME} {verb.name} [OPTIONS]{words}"


SHARED_ARCHIVE = "/usr/local/share/ggen.gvisor/ggen.tar"
_IMAGE = Option("--image", f"The image, in containerd's namespace. Default: {IMAGE}", "REF")
_HERE = Option(
    "--workspace",
    "The folder that the command sees as /workspace and may write to. Default: the current one",
    "DIR",
    os.path.abspath,
    values="folder",
)
_RUN = (
    Option(
        "--mount", "Another file or folder of the host, read-only with :ro. May be given several times", "SRC:DST[:ro]", mount, True, "file"
    ),
    Option("--env", "A variable for the command; NAME alone takes the caller's. May be given several times", "NAME=VALUE", variable, True),
    Option(
        "--secret",
        "A file that the command finds in memory, as /run/secrets/NAME, and nobody else. May be given several times",
        "NAME=FILE",
        secret,
        True,
        "file",
    ),
    Option("--memory", "Most memory of the sandbox, for example 512M. Default: a quarter of the host's, at least 1G", "SIZE"),
    Option("--cpus", "Most processors' worth of time, for example 1.5", "NUMBER", number),
    Option("--timeout", "Seconds after which the command is killed. Default: 600, for ggen 300, at a terminal 86400", "SECONDS", number),
    Option("--user", "Numeric uid or uid:gid of the command. Default: the owner of the workspace, without one 65534", "UID[:GID]"),
    Option(
        "--protect",
        f"Files of the workspace that the command cannot change, as patterns. Instead of: {' '.join(DEFAULTS['protect'])}",
        "PATTERN",
        many=True,
    ),
    Option("--output", "The only files of the workspace that the command may change, as patterns", "PATTERN", many=True),
    Option("--trace", "Tell which files the command opened, wrote and executed: with --json in the result, else on standard error"),
    Option(
        "--metrics",
        "A folder of root's in which the run is counted, in a file for the textfile collector of node_exporter",
        "DIR",
        os.path.abspath,
        values="folder",
    ),
)
_TERMINAL = Option(
    "--terminal", "Give the command a terminal, with the size of the caller's. What it does there is between the two", short="-t"
)
_JSON = Option("--json", "Print the result as JSON, as the module containerd_run documents it, and nothing else")
_STATE_DIR = Option(
    "--state-dir", f"The folder with the host's state and the audit trail. Default: {DEFAULTS['state_dir']}", "DIR", values="folder"
)
_WHERE = (
    Option("--namespace", f"containerd's namespace that has the image. Default: {DEFAULTS['namespace']}", "NAME"),
    Option("--runtime", f"The runtime of the sandbox. Default: {DEFAULTS['runtime']}", "NAME"),
    Option("--address", f"containerd's socket. Default: {DEFAULTS['address']}", "PATH", values="file"),
    _STATE_DIR,
)
_ROOTLESS = (
    Option(
        "--rootless", "Do without root and containerd: the command runs as the caller, and --image names an image's archive, or a folder"
    ),
    Option(
        "--runsc",
        "gVisor's program, for --rootless. Default: the one beside ggen-gvisor, or on PATH",
        "PATH",
        os.path.abspath,
        values="file",
    ),
)
_FAILED = Option(
    "--failed",
    "Work on a copy, as it is now, of the workspace of the last run that failed: of --workspace, or of any, with its image and user",
)
_NO_ROOTLESS = _ROOTLESS[0]._replace(help="Is refused: a terminal takes containerd")
VERBS = (
    Verb(
        "run",
        "run a command",
        (
            "Runs CMD. Its standard input is the caller's, its output appears as it comes, standard output and standard error apart, and its exit code "
            "is that of ggen-gvisor. Where output is a terminal, what would drive that terminal is shown and not obeyed.",
            "Ctrl-C, SIGTERM and SIGHUP end the command and remove its sandbox.",
        ),
        (
            _IMAGE,
            _HERE._replace(help="The folder that the command sees as /workspace and may write to. Default: none"),
            *_RUN,
            _TERMINAL,
            _JSON,
            *_ROOTLESS,
            *_WHERE,
        ),
        "CMD...",
    ),
    Verb(
        "shell",
        "look around in a sandbox",
        (
            "Runs CMD, or the image's /bin/sh, at a terminal, in a sandbox that sees the workspace as a command would. With --copy it is a copy, which is gone "
            "with the sandbox.",
        ),
        (_HERE, _IMAGE, *_RUN, Option("--copy", "Work on a copy of the workspace"), _FAILED, _NO_ROOTLESS, *_WHERE),
        "[CMD...]",
    ),
    Verb(
        "sync",
        "run ggen sync in the current folder",
        (
            "Runs ggen on the workspace as the role ggen_run does, and tells what it wrote. What is in its way is told with what mends it. "
            "ARGS are further arguments of ggen sync.",
        ),
        (_HERE, _IMAGE, *_RUN, _JSON, *_ROOTLESS, *_WHERE),
        "[ARGS...]",
    ),
    Verb(
        "check",
        "show what sync, or a command, would change",
        (
            "Runs ggen sync, or CMD, on a copy of the workspace, which stays as it is, and prints what would change as a unified diff. "
            "The exit code tells whether something would: a gate for pipelines.",
        ),
        (_HERE, _IMAGE, *_RUN, _JSON, *_ROOTLESS, *_WHERE),
        "[CMD...]",
    ),
    Verb(
        "doctor",
        "tell whether this host can run sandboxes",
        (
            "Looks at containerd, gVisor and the image as the playbook verify does, and starts a sandbox of gVisor's and a container of runc's.",
        ),
        (_IMAGE, _JSON, *_WHERE),
    ),
    Verb(
        "stats",
        "show the sandboxes that run now",
        (
            "Shows each sandbox of containerd's that runs now: its image and age, its memory, processor time and tasks as the host counts them, "
            "and how many files were opened in it. --json has the command, the workspace and all that gVisor counts, too.",
        ),
        (_JSON._replace(help="Print the sandboxes as JSON, and nothing else"), _STATE_DIR),
    ),
)
NOT_RUN, TIMED_OUT, LIMIT, FAULTY, WOULD_CHANGE, UNHEALTHY = 125, 150, 151, 152, 153, 154
# Any other exit code is the command's own. With --json the result tells the two apart in every case.
EXIT_CODES = (
    (0, "The command ended with 0; check: nothing would change; doctor: all is well; stats."),
    (NOT_RUN, "The command was not run, or not to its end: the options, the host or the image are not as they should be."),
    (TIMED_OUT, "It was killed because of --timeout."),
    (LIMIT, "The sandbox was ended by a limit: memory, processes, or room on the host's disk."),
    (FAULTY, "The command ended with 0, and what it left is at fault: it changed what it may not, or ggen reports an error."),
    (WOULD_CHANGE, "check: files would change."),
    (UNHEALTHY, "doctor: something is not as it should be."),
    (129, "Ended by SIGHUP."),
    (130, "Ended by Ctrl-C (SIGINT)."),
    (141, "Whoever read the output has gone."),
    (143, "Ended by SIGTERM."),
)
FILES = (
    ("/usr/local/bin/ggen-gvisor", "The command: a zipapp, which needs Python 3.8 or newer and nothing else."),
    (f"{DEFAULTS['state_dir']}/audit/runs.jsonl", "One line for each run, for root alone."),
    ("$XDG_DATA_HOME/ggen.gvisor/ggen.tar", "ggen's image for --rootless, in ~/.local/share where that is not set."),
    (SHARED_ARCHIVE, "The same for all who have none of their own."),
    ("$XDG_STATE_HOME/ggen.gvisor", "What --rootless needs while it runs, and its audit trail, in ~/.local/state where that is not set."),
)
EXAMPLES = (
    ("sudo ggen-gvisor sync", "Run ggen in the current folder."),
    ("sudo ggen-gvisor check", "Fail when generated files are not up to date."),
    ("sudo ggen-gvisor run --workspace . --memory 512M -- sh -c 'make test'", "Run a command on the current folder."),
    ("ggen-gvisor check --rootless", "The same without root and without containerd."),
    ("tar c src | sudo ggen-gvisor run --image docker.io/library/busybox:latest -- tar t", "Feed a command."),
)
