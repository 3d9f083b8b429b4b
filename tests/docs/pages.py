"""Write what README.md and docs/decisions/README.md list; everything outside of the two markers is written by hand.

`--check` writes nothing, shows what differs, and ends with 1 if anything does.
"""

from __future__ import annotations

import argparse
import difflib
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
BEGIN = "<!-- begin: from the collection's files, by `make docs` -->\n"
END = "<!-- end -->\n"
# What the README lists, by folder. Action plugins are their modules' other halves.
KINDS = {
    "Modules": "plugins/modules",
    "Roles": "roles",
    "Playbooks, from Galaxy as `ggen.gvisor.NAME`": "playbooks",
    "Filters": "plugins/filter",
    "Inventory plugins": "plugins/inventory",
    "Callback plugins, all of which but the checkout's `brief` come with the playbooks": "plugins/callback",
}


def names(folder: str) -> list[str]:
    """Return the names of a folder's content; an underscore at the beginning means that it is internal."""
    found = [path for path in (ROOT / folder).glob("*") if path.suffix in (".py", ".yml") or (folder == "roles" and path.is_dir())]
    return sorted(path.stem for path in found if not path.name.startswith("_"))


def content() -> str:
    """Return the README's list of content: a line a kind."""
    lists = {title: names(folder) for title, folder in KINDS.items()}
    return "".join(f"- {title}: {', '.join(f'`{name}`' for name in found)}\n" for title, found in lists.items() if found)


def decisions() -> str:
    """Return the index of the decisions: a line each, which is its heading."""
    pages = [path for path in sorted((ROOT / "docs/decisions").glob("*.md")) if path.name != "README.md"]
    return "".join(f"- [{page.read_text().splitlines()[0].removeprefix('# ')}]({page.name})\n" for page in pages)


PAGES = {"README.md": content, "docs/decisions/README.md": decisions}


def wanted(name: str) -> str:
    """Return a page as it should be. Raises ValueError where it has not exactly one pair of markers."""
    text = (ROOT / name).read_text()
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(f"{name} needs these two lines once each, in this order: {BEGIN.strip()} and {END.strip()}")
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}{PAGES[name]()}{END}{rest.split(END)[1]}"


def main() -> int:
    """Do what the command line says; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="only show what differs")
    arguments = parser.parse_args()
    differing = 0
    for name in PAGES:
        old, new = (ROOT / name).read_text(), wanted(name)
        if old == new:
            continue
        differing += 1
        if arguments.check:
            sys.stdout.writelines(difflib.unified_diff(old.splitlines(True), new.splitlines(True), name, f"{name} by `make docs`"))
        else:
            (ROOT / name).write_text(new)
            print(f"wrote {name}")
    return 1 if arguments.check and differing else 0


if __name__ == "__main__":
    sys.exit(main())
