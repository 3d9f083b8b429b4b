"""Write the part of each role's README that its meta/argument_specs.yml tells; everything outside of the two markers is written by hand.

`--check` writes nothing, shows what differs, and ends with 1 if anything does.
"""

from __future__ import annotations

import argparse
import difflib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jinja2
import yaml

ROOT = Path(__file__).resolve().parent.parent.parent
BEGIN = "<!-- begin: from meta/argument_specs.yml, by `make docs` -->\n"
END = "<!-- end -->\n"

TEMPLATE = """
## Entry points

| `tasks_from` | what it does |
|---|---|
{% for name, entry in entries.items() -%}
| `{{ name }}` | {{ entry.short_description | prose }} |
{% endfor %}
## Variables

| variable | type | default | meaning |
|---|---|---|---|
{% for name, option in options -%}
| `{{ name }}` | {{ option | kind }} | {{ option | default_value }} | {{ option | meaning }} |
{% endfor %}
"""


def cell(text: str) -> str:
    """Return ``text`` as it may stand in a table: in one line, without bars."""
    return " ".join(text.split()).replace("|", "\\|")


def prose(text: str | list[str]) -> str:
    """Return documentation as Markdown; of Ansible's markup those that mean code, a link's text, and names of other content.

    Raises ValueError where there is other markup.
    """
    text = " ".join([text] if isinstance(text, str) else text)
    text = re.sub(r"\b[CVOE]\(([^)]*)\)", r"`\1`", text)
    text = re.sub(r"\b[MP]\(([\w.]+)(?:#\w+)?\)", r"`\1`", text)
    if found := re.search(r"\b[A-Z]{1,4}\([^)]*\)", text):
        raise ValueError(f"{found.group()!r} is markup that tests/docs/roles.py does not know; let prose() learn it")
    return cell(text)


def kind(option: dict[str, Any]) -> str:
    """Return an option's type, as in "list of str"."""
    return option["type"] + (f" of {option['elements']}" if "elements" in option else "")


def default_value(option: dict[str, Any]) -> str:
    """Return an option's default as code, or "required", or nothing where leaving it out means something else."""
    if option.get("required"):
        return "required"
    if "default" not in option:
        return ""
    value = option["default"]
    return f"`{cell(value if isinstance(value, str) and value else json.dumps(value))}`"


def meaning(option: dict[str, Any]) -> str:
    """Return an option's description with its choices."""
    choices = option.get("choices", [])
    return prose(option["description"]) + (f" One of {', '.join(f'`{choice}`' for choice in choices)}." if choices else "")


def rows(options: dict[str, Any], above: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each option and, below it, those of its elements."""
    for name, option in options.items():
        yield f"{above}{name}", option
        inside = "[]." if option.get("elements") == "dict" else "."
        yield from rows(option.get("options", {}), f"{above}{name}{inside}")


def generated(specs: dict[str, Any]) -> str:
    """Return the generated part for the entry points of a role. All of them take the same options, which tests/unit/project/test_roles.py proves."""
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True, autoescape=False)  # noqa: S701 - Markdown
    environment.filters.update(prose=prose, kind=kind, default_value=default_value, meaning=meaning)
    text = environment.from_string(TEMPLATE).render(entries=specs, options=list(rows(specs["main"]["options"])))
    return text.strip() + "\n"


def readme(role: Path) -> tuple[str, str]:
    """Return a role's README as it is and as it should be.

    Raises ValueError where the README has not exactly one pair of markers.
    """
    path = role / "README.md"
    text = path.read_text()
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(f"{path.relative_to(ROOT)} needs these two lines once each, in this order: {BEGIN.strip()} and {END.strip()}")
    specs = yaml.safe_load((role / "meta" / "argument_specs.yml").read_text())["argument_specs"]
    before, rest = text.split(BEGIN)
    return text, f"{before}{BEGIN}\n{generated(specs)}\n{END}{rest.split(END)[1]}"


def main() -> int:
    """Do what the command line says; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="only show what differs")
    arguments = parser.parse_args()
    differing = 0
    for role in sorted(path for path in (ROOT / "roles").iterdir() if path.is_dir()):
        old, new = readme(role)
        if old == new:
            continue
        differing += 1
        name = str((role / "README.md").relative_to(ROOT))
        if arguments.check:
            sys.stdout.writelines(difflib.unified_diff(old.splitlines(True), new.splitlines(True), name, f"{name} by `make docs`"))
        else:
            (role / "README.md").write_text(new)
            print(f"wrote {name}")
    return 1 if arguments.check and differing else 0


if __name__ == "__main__":
    sys.exit(main())
