# Copyright (c) 2026, the ggen.gvisor authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""bash's completion, made of the table."""

from __future__ import annotations

from typing import Dict, List

from ansible_collections.ggen.gvisor.plugins.module_utils._command.table import NAME, VERBS

_OFFERS = {"file": "compgen -f", "folder": "compgen -d"}


def completion() -> str:
    """Return the script for bash."""
    values: Dict[str, List[str]] = {}
    silent = set()
    for verb in VERBS:
        for option in verb.options:
            if option.values:
                values.setdefault(option.values, [])
                values[option.values] += [option.name] if option.name not in values[option.values] else []
            elif option.metavar:
                silent.add(option.name)
    lines = [
        "_ggen_gvisor() {",
        '    local word="${COMP_WORDS[COMP_CWORD]}" before="${COMP_WORDS[COMP_CWORD-1]}" options="" i',
        "    COMPREPLY=()",
        "    for ((i = 1; i < COMP_CWORD; i++)); do",
        '        if [[ "${COMP_WORDS[i]}" == -- ]]; then',
        "            compopt -o default; return",
        "        fi",
        "    done",
        '    case "$before" in',
    ]
    for kind, names in sorted(values.items()):
        lines += [f'        {"|".join(names)}) mapfile -t COMPREPLY < <({_OFFERS[kind]} -- "$word"); compopt -o filenames; return ;;']
    lines += [f"        {'|'.join(sorted(silent))}) return ;;", "    esac", '    case "${COMP_WORDS[1]}" in']
    for verb in VERBS:
        names = [option.name for option in verb.options] + (["--"] if verb.words else [])
        lines += [f'        {verb.name}) options="{" ".join(names)} --help" ;;']
    lines += [
        f'        *) options="{" ".join(verb.name for verb in VERBS)} --help --version --man --completion" ;;',
        "    esac",
        '    mapfile -t COMPREPLY < <(compgen -W "$options" -- "$word")',
        "}",
        f"complete -F _ggen_gvisor {NAME}",
    ]
    return "\n".join(lines) + "\n"
