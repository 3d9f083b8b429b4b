"""What the documents and the collection's metadata name is there, and what is there is named."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import ROOT

README = (ROOT / "README.md").read_text()
DOCUMENTS = [ROOT / "README.md", ROOT / "tests/lab/README.md"]
DOCUMENTS += [
    path
    for pattern in ("molecule/*.md", "roles/*/README.md", "examples/*/README.md", "docs/**/*.md")
    for path in sorted(ROOT.glob(pattern))
]
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


KINDS = ["roles", "playbooks"] + [
    str(path.relative_to(ROOT))
    for path in sorted((ROOT / "plugins").iterdir())
    if path.is_dir() and path.name not in ("__pycache__", "action", "doc_fragments", "module_utils", "plugin_utils")
]


@pytest.mark.parametrize("kind", KINDS)
def test_the_readme_lists_all_content_of_a_kind(kind):
    title = kind.rpartition("/")[2].capitalize()
    title = title if title.endswith("s") else f"{title[:-1]}ies" if title.endswith("y") else f"{title}s"
    (line,) = re.findall(rf"^- {title}[^:]*: (.*)$", section("Content"), re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", line)) == content(kind)


def test_every_action_plugin_has_its_module():
    assert content("plugins/action") <= content("plugins/modules")


def test_the_action_group_has_the_modules_that_talk_to_containerd():
    groups = yaml.safe_load((ROOT / "meta/runtime.yml").read_text())["action_groups"]
    assert groups == {"gvisor": sorted(name for name in content("plugins/modules") if "address" in options(name))}


def test_the_readme_tells_what_each_playbook_does():
    named = set(re.findall(r"`(\w+)\.yml`", section("What happens, step by step")))
    assert named == content("playbooks") - {"site"}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_that_a_document_names_exist(document: Path):
    text = document.read_text()
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if not re.match(r"[a-z]+:|#", link)]
    missing = [link for link in links if not (document.parent / link.split("#")[0]).exists()]
    paths = re.findall(rf"(?<![\w/.~$-])((?:{FOLDERS})/[\w./*-]*\w)(?![\w<*-])", text)
    missing += [path for path in paths if not any(ROOT.glob(path)) and not any(document.parent.glob(path))]
    assert missing == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_make_targets_that_a_document_names_exist(document: Path):
    targets = set(re.findall(r"^([a-z][a-z0-9 -]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    known = {word for line in targets for word in line.split()}
    named = re.findall(r"(?:`|^    )make ((?:[a-z][a-z0-9-]*)(?: [a-z][a-z0-9-]*)*)", document.read_text(), re.MULTILINE)
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
