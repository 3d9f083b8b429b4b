"""What the documents and the collection's metadata name is there, and what is there is named."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import ROOT

sys.path.insert(0, str(ROOT / "tests/docs"))
import pages
from test_import_graph import CONTROLLER, HOSTS, SUBJECTS

README = (ROOT / "README.md").read_text()
DOCUMENTS = [ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "SECURITY", "CODE_OF_CONDUCT")]
DOCUMENTS += [
    path
    for pattern in ("molecule/*.md", "roles/*/README.md", "examples/*/README.md", "tests/*/README.md", "docs/**/*.md")
    for path in sorted(ROOT.glob(pattern))
]
# Where a file of the repository is for everybody.
FILES = yaml.safe_load((ROOT / "galaxy.yml").read_text())["repository"] + "/blob/main/"
# Folders of the checkout whose files documents name by their path from the root.
FOLDERS = "docs|examples|inventories|meta|molecule|playbooks|plugins|roles|tests|vendors"


def section(title: str) -> str:
    """Return the text of a section of the README."""
    (found,) = re.findall(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", README, re.MULTILINE | re.DOTALL)
    return found


def content(kind: str) -> set[str]:
    """Return the names of what is in plugins/KIND, roles or playbooks."""
    names = {path.stem for path in (ROOT / kind).iterdir() if path.suffix in (".py", ".yml") or (kind == "roles" and path.is_dir())}
    return names - {"__init__"}


def options(module: str) -> set[str]:
    """Return the names of a module's own options."""
    text = (ROOT / f"plugins/modules/{module}.py").read_text()
    return set(yaml.safe_load(text.split('DOCUMENTATION = r"""')[1].split('"""')[0])["options"])


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 140


def test_the_readme_has_what_galaxy_asks_for():
    titles = re.findall(r"^## (.*)$", README, re.MULTILINE)
    asked = ["Tested versions", "Requirements", "Installation", "Using it", "Included content", "Communication", "Contributing"]
    assert titles == ["Two commands", *asked, "Versioning and release notes", "Licence"]


def test_the_readme_s_links_work_on_galaxy_too():
    links = re.findall(r"\]\(([^)\s]+)\)", README)
    assert [link for link in links if not link.startswith("https://")] == []


@pytest.mark.parametrize("page", pages.PAGES)
def test_a_page_lists_what_there_is(page):
    assert pages.wanted(page) == (ROOT / page).read_text(), "run `make docs`"


def test_every_kind_of_plugin_is_in_the_readme():
    kinds = {path.parent.name for path in ROOT.glob("plugins/*/*") if path.suffix in (".py", ".yml")}
    listed = {folder.rpartition("/")[2] for folder in pages.KINDS.values()}
    assert kinds - {"action", "doc_fragments"} <= listed


def test_the_architecture_draws_the_arrows_that_the_code_has():
    """The table is that of the test that walks the imports."""
    rows = re.findall(r"^\| (hosts|controller) \| `(\w+)` \| (.*) \|$", (ROOT / "docs/architecture.md").read_text(), re.MULTILINE)
    sides = {"hosts": HOSTS, "controller": CONTROLLER}
    told = {(sides[side], subject): set(re.findall(r"`(\w+)`", names)) for side, subject, names in rows}
    assert told == {(side, subject): names for side, of in SUBJECTS.items() for subject, names in of.items() if subject != "_base"}


def test_the_files_of_the_two_walks_are_there():
    walked = re.findall(r"`([\w/]+\.py)`", (ROOT / "docs/architecture.md").read_text())
    assert walked
    assert [name for name in walked if not any(ROOT.glob(name)) and not any(ROOT.glob(f"plugins/**/{name}"))] == []


def test_every_action_plugin_has_its_module():
    assert content("plugins/action") <= content("plugins/modules")


def test_the_action_group_has_the_modules_that_talk_to_containerd():
    groups = yaml.safe_load((ROOT / "meta/runtime.yml").read_text())["action_groups"]
    assert groups == {"gvisor": sorted(name for name in content("plugins/modules") if "address" in options(name))}


def test_the_readme_tells_what_each_playbook_does():
    assert set(re.findall(r"^\| `(\w+)\.yml` \|", section("Using it"), re.MULTILINE)) == content("playbooks")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_that_a_document_names_exist(document: Path):
    text = document.read_text()
    links = [link.split("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if not re.match(r"#", link)]
    missing = [link for link in links if not re.match(r"[a-z]+:", link) and not (document.parent / link).exists()]
    missing += [link for link in links if link.startswith(FILES) and not (ROOT / link.removeprefix(FILES)).exists()]
    paths = re.findall(rf"(?<![\w/.~$-])((?:{FOLDERS})/[\w./*-]*\w)(?![\w<*-])", text)
    missing += [path for path in paths if not any(ROOT.glob(path)) and not any(document.parent.glob(path))]
    assert missing == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_make_targets_that_a_document_names_exist(document: Path):
    targets = set(re.findall(r"^([a-z][a-z0-9 -]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    known = {word for line in targets for word in line.split()}
    named = re.findall(r"(?:`|^    |^)make ((?:[a-z][a-z0-9-]*)(?: [a-z][a-z0-9-]*)*)", document.read_text(), re.MULTILINE)
    assert {word for line in named for word in line.split()} <= known


def test_make_help_lists_every_target():
    done = subprocess.run(["make", "--no-print-directory", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    listed = {word for line in done.stdout.splitlines() for word in re.split(r" {2,}", line)[0].split()}
    (phony,) = re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert listed == set(phony.split())


def test_an_execution_environment_gets_what_the_controller_needs():
    program = Path(sys.executable).with_name("ansible-builder")
    done = subprocess.run([program, "introspect", ".collections"], cwd=ROOT, capture_output=True, text=True, check=True)
    found = yaml.safe_load(done.stdout)
    lines = (ROOT / "requirements.in").read_text().splitlines()
    needed = {re.split(r"[=<>]", line)[0] for line in lines if line and not line.startswith("#")} - {"ansible-core"}
    assert {re.split(r"[=<>]", line)[0] for line in found["python"]} == needed
    assert [line.split()[0] for line in found["system"]] == ["openssh-clients", "openssh-client"]
