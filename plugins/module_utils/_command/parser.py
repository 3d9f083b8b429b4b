# Copyright (c) 2026, the ggen.gvisor authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""The command line, as the table has it."""

from __future__ import annotations

import argparse
from typing import Any, Dict, List, NamedTuple, NoReturn, Sequence

from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._command.display import write
from ansible_collections.ggen.gvisor.plugins.module_utils._command.table import (
    DESCRIPTION,
    EXIT_CODES,
    NAME,
    NOT_RUN,
    VERBS,
    Option,
    usage_of,
)


class Asked(NamedTuple):
    """What the command line says: the verb, its options that were given, and the words behind ``--``."""

    verb: str
    options: Dict[str, Any]
    words: List[str]


class _Parser(argparse.ArgumentParser):
    """One that ends with an exit code of ours."""

    def error(self, message: str) -> NoReturn:
        self.exit(NOT_RUN, f"{self.prog}: {message}\n{self.format_usage()}")


def _manual(version: str) -> str:
    from ansible_collections.ggen.gvisor.plugins.module_utils._command.manual import manual  # seldom needed

    return manual(version)


def _completion() -> str:
    from ansible_collections.ggen.gvisor.plugins.module_utils._command.completion import completion

    return completion()


class _Print(argparse.Action):
    """Prints a text that is made of the table, and ends."""

    def __call__(self, parser: argparse.ArgumentParser, *_rest: Any) -> NoReturn:
        """Be what argparse calls."""
        write(1, self.const().encode())
        parser.exit()


def key_of(option: Option) -> str:
    """Return the name of the option's value."""
    return option.name.lstrip("-").replace("-", "_")


def parser(version: str) -> argparse.ArgumentParser:
    """Return the parser of what comes before ``--``."""
    form = argparse.RawDescriptionHelpFormatter
    codes = "\n".join(f"  {code:3d}  {meaning}" for code, meaning in EXIT_CODES)
    top = _Parser(NAME, description=DESCRIPTION[0], epilog=f"exit codes:\n{codes}\n  Any other is the command's own.", formatter_class=form)
    top.add_argument("--version", action="version", version=f"{NAME} {version}")
    top.add_argument(
        "--man", action=_Print, nargs=0, const=lambda: _manual(version), help="show the manual page: ggen-gvisor --man | man -l -"
    )
    top.add_argument(
        "--completion", action=_Print, nargs=0, const=_completion, help="show bash's completion: source <(ggen-gvisor --completion)"
    )
    verbs = top.add_subparsers(dest="verb", metavar="VERB", required=True, parser_class=_Parser)
    for verb in VERBS:
        one = verbs.add_parser(
            verb.name, help=verb.summary, usage=usage_of(verb), description="\n\n".join(verb.description), allow_abbrev=False
        )
        for option in verb.options:
            kind: Dict[str, Any] = {"action": "append" if option.many else "store", "metavar": option.metavar}
            if not option.metavar:
                kind = {"action": "store_true"}
            one.add_argument(
                *filter(None, (option.short, option.name)), dest=key_of(option), help=option.help.replace("%", "%%"), default=None, **kind
            )
    return top


def parse(argv: Sequence[str], version: str) -> Asked:
    """Return what ``argv`` asks for. Raises GvisorError, and SystemExit where argparse has said what is wrong, or was asked for help."""
    before, behind = list(argv), []
    if "--" in before:
        cut = before.index("--")
        before, behind = before[:cut], before[cut + 1 :]
    given = vars(parser(version).parse_args(before))
    verb = next(verb for verb in VERBS if verb.name == given["verb"])
    if behind and not verb.words:
        raise GvisorError(f"{verb.name} takes nothing behind --")
    if not behind and verb.words[:1] not in ("", "["):
        raise GvisorError(f"which command? {usage_of(verb)}")
    options = {}
    for option in verb.options:
        value = given[key_of(option)]
        if value is not None:
            options[key_of(option)] = _read(option, value)
    return Asked(verb.name, options, behind)


def _read(option: Option, value: Any) -> Any:
    if not option.metavar:
        return value
    if [] in (value if option.many else [value]):  # what argparse makes of --option=--
        raise GvisorError(f"{option.name} cannot be --")
    return [option.read(one) for one in value] if option.many else option.read(value)
