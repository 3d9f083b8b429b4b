# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every command of the documents is run here, as far as it goes without changing this machine, or stands below with who runs it."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from conftest import ROOT
from support.colima import Guest, mac

# What these two hold are results, written by `make bench` and `make test-vm`.
RESULTS = {"bench.md", "vm-report.md"}
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(page for page in sorted((ROOT / "docs").glob("*.md")) if page.name not in RESULTS)]
# All that people read, for what must not be in it.
TEXTS = [
    *PAGES,
    *(
        path
        for pattern in ("examples/*/*.md", "molecule/*.md", "roles/*/*.md", "tests/*/*.md", "inventories/**/*.yml")
        for path in ROOT.glob(pattern)
    ),
]

E2E, GALAXY = "tests/e2e/test_site.py", "tests/e2e/test_galaxy.py"
IMAGE = "docker.io/library/ggen:26.5.19"
# Commands that are not run here, by their beginning: the test that runs what they do, or nothing and why nobody can.
ELSEWHERE = {
    "git clone https://github.com/ggen-gvisor/ggen.gvisor": (None, "needs the repository as it is published"),
    "brew install colima python": (None, "needs a Mac"),
    "colima ssh -- sh -c": (None, "needs a Mac"),
    "ansible-galaxy collection install ggen.gvisor": (GALAXY, "installs the artifact that is built of this checkout"),
    "ansible-playbook -i inventory.yml ggen.gvisor.site": (GALAXY, "runs it on a host, by that name"),
    "rm -rf /tmp/gvisor && cp -r vendors/gvisor/20260224 /tmp/gvisor": (
        "tests/integration/test_runsc_build.py",
        "the role does the same; it takes minutes",
    ),
    "(cd /tmp/gvisor && go mod vendor": ("tests/integration/test_runsc_build.py", "the role does the same; it takes minutes"),
    "install -D -m 0755 /tmp/gvisor/out/": (E2E, "installs on the machine; the role does the same"),
    "ln -sfn /usr/local/lib/gvisor/": (E2E, "installs on the machine; the role does the same"),
    "make install-command": ("tests/unit/module_utils/_command/test_command_line.py", "installs below a folder of its own"),
    "sudo ggen-gvisor-member ": ("tests/integration/test_members.py", "needs containerd with gVisor: runs it by sudo"),
    "sudo ggen-gvisor ": ("tests/integration/test_command.py", "needs containerd with gVisor: runs each verb"),
    "ggen-gvisor check --rootless": ("tests/integration/test_command_rootless.py", "needs gVisor: runs each verb"),
    "ggen-gvisor run --rootless": ("tests/integration/test_command_rootless.py", "needs gVisor: runs each verb"),
    "mkdir -p ~/.local/share/ggen.gvisor && cp dist/": ("tests/integration/test_command_rootless.py", "installs in the user's home"),
    "ctr images ": (E2E, "needs containerd with gVisor: runs the block from step 3 on"),
    "ctr run ": (E2E, "needs containerd with gVisor: runs the block from step 3 on"),
    "ctr tasks ": (E2E, "needs containerd with gVisor: runs the block from step 3 on"),
    "skopeo copy --preserve-digests oci-archive:": (
        "tests/integration/test_containerd_image_pull.py",
        "needs a registry: puts the image into one",
    ),
    ".venv/bin/antsibull-changelog release": (None, "makes a release"),
    "git tag X.Y.Z": (None, "makes a release"),
}


def blocks(page: Path) -> Iterator[tuple[str, str]]:
    """Yield each block of code of a page: the language and the text."""
    yield from re.findall(r"^```([^\n]*)\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def statements(block: str) -> Iterator[str]:
    """Yield a shell block's commands, each in one line and without its comment."""
    text = ""
    for line in block.splitlines():
        text += f"\n{line}" if text else line
        if line.endswith("\\"):
            text = text[:-1].rstrip()
            continue
        try:
            words = shlex.split(text.replace("\n", " "), comments=True)
        except ValueError:  # a quote goes on in the next line
            continue
        if words:
            yield re.sub(r"\s+#\s.*$", "", " ".join(text.split()))
        text = ""
    assert not text, f"a command without an end: {text}"


def spans(page: Path) -> Iterator[str]:
    """Yield the commands of a checkout that stand in the middle of a text."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    yield from (" ".join(span.split()) for span in re.findall(r"`([^`]+)`", text) if span.startswith(".venv/bin/") and " " in span)


def found() -> list[tuple[str, str]]:
    """Return every command with the page that it is on."""
    in_blocks = {(page.name, text) for page in PAGES for language, block in blocks(page) if language == "sh" for text in statements(block)}
    return sorted(in_blocks | {(page.name, text) for page in PAGES for text in spans(page)})


COMMANDS = found()


def variables() -> set[str]:
    """Return the names of all roles' variables, and of the playbooks' own."""
    specs = [yaml.safe_load(path.read_text())["argument_specs"] for path in ROOT.glob("roles/*/meta/argument_specs.yml")]
    return {name for spec in specs for name in spec["main"]["options"]} | {"gvisor_upgrade_serial"}


def run(*words: str, env: dict[str, str] | None = None) -> str:
    """Run a command in the checkout, and return what it printed when it succeeded."""
    done = subprocess.run(words, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def mac_env(tmp_path_factory):
    """The environment of a Mac with a guest, for the inventory that asks Colima."""
    return mac(tmp_path_factory.mktemp("mac"), [Guest()]).env


def check_playbook(words: list[str], mac_env: dict[str, str]) -> None:
    """The playbook, the inventory and the options are accepted, and the variables are there."""
    extra = [words[at + 1] for at, word in enumerate(words) if word in ("-e", "--extra-vars")]
    assert {text.partition("=")[0] for text in extra} <= variables()
    assert "[WARNING]" not in run(*words, "--syntax-check", env=mac_env)


def check_module(words: list[str]) -> None:
    """The arguments of a module that is run by itself are options of it."""
    module = words[words.index("-m") + 1]
    (documented,) = json.loads(run(".venv/bin/ansible-doc", "--json", module)).values()
    assert set(json.loads(words[words.index("-a") + 1])) <= set(documented["doc"]["options"])


@pytest.mark.parametrize(("page", "text"), COMMANDS, ids=lambda value: value[:60])
def test_a_command_of_the_documents_works(page: str, text: str, mac_env: dict[str, str]) -> None:
    del page
    elsewhere = [entry for beginning, entry in ELSEWHERE.items() if text.startswith(beginning)]
    words = [os.path.expandvars(word) for word in shlex.split(text, comments=True)]
    if elsewhere:
        return  # the next test looks after these
    if words[0] == ".venv/bin/ansible-playbook":
        check_playbook(words, mac_env)
    elif words[0] == ".venv/bin/ansible":
        check_module(words)
    elif words[0] == ".venv/bin/ansible-doc":
        assert "was not found" not in run(*words)
    elif words[0] == ".venv/bin/ansible-inventory":
        assert "colima" in run(*words, env=mac_env)
    elif words[0] == ".venv/bin/pytest":
        run(*words, "--collect-only", "-q")
    elif words[0] == "make":
        run(*words, "--dry-run")
    else:
        pytest.fail(f"nobody runs {text!r}: do it here, or say in ELSEWHERE which test does or why none can")


@pytest.mark.parametrize("beginning", ELSEWHERE)
def test_what_is_run_elsewhere_is_in_the_documents_and_its_test_is_there(beginning: str) -> None:
    assert [text for _page, text in COMMANDS if text.startswith(beginning)]
    test, reason = ELSEWHERE[beginning]
    assert reason
    assert test is None or (ROOT / test).exists()


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_a_block_says_what_it_is(page: Path) -> None:
    """Only so is every command found: none without a language, none that is only indented."""
    assert [language for language, _block in blocks(page) if language not in ("sh", "text", "yaml")] == []
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    assert re.findall(r"\n\n {4}.*", text) == []
    scripts = "".join(block for language, block in blocks(page) if language == "sh")
    subprocess.run(["bash", "-n", "-c", scripts], check=True)


def test_the_variables_that_documents_list_are_there() -> None:
    tables = "".join(
        re.sub(r".*?^\| variable \|[^\n]*\n(.*?)(?=^$|\Z)|.*", r"\1", page.read_text(), flags=re.MULTILINE | re.DOTALL) for page in PAGES
    )
    listed = set(re.findall(r"^\| `(\w+)` \|", tables, re.MULTILINE))
    assert "ggen_run_workspace" in listed
    assert listed <= variables()


@pytest.mark.parametrize("text", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_command_needs_ansible_on_path(text: Path) -> None:
    """A newcomer has it in .venv alone; only who installs the collection from Galaxy brings it."""
    lines = [
        line
        for line in text.read_text().splitlines()
        if re.search(r"(?<![\w/.-])ansible(-\w+)? +(-\S|[\w./]+\.yml|localhost|collection)", line)
    ]
    assert [line for line in lines if not re.search(r"collection install ggen\.gvisor| ggen\.gvisor\.\w+`?$", line)] == []


def test_the_build_by_hand_is_of_the_pins() -> None:
    page = (ROOT / "docs/by-hand.md").read_text()
    releases = yaml.safe_load((ROOT / "vendors/gvisor/releases.yml").read_text())
    (name,) = set(re.findall(r"vendors/gvisor/(\d+)", page))
    assert f"GOTOOLCHAIN=go{releases['go']['version']}" in page
    assert f"runsc/version.version={releases['releases'][name]['stamp']}" in page
    assert IMAGE in page
