# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every failure of ggen that the role explains: provoked with the binary, recorded, and explained from the record.

GGEN_BINARY=/path/to/ggen provokes them again and compares; with GGEN_RECORD=1 it writes the record.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Callable

import pytest
from ansible_collections.ggen.gvisor.plugins.module_utils._ggen.output import describe_run, explain, parse_output
from support.missing import MISSING

RECORD = Path(__file__).parent.parent / "fixtures" / "ggen" / "runs.json"
BINARY = os.environ.get("GGEN_BINARY", "")
# What role ggen_run sets; the case `noisy` runs without it.
QUIET = {"RUST_LOG": "warn,opentelemetry_sdk=off", "NO_COLOR": "1"}

MANIFEST = """
[project]
name = "p"
version = "1.0.0"
description = "d"

[ontology]
source = "o.ttl"
imports = []

[generation]
output_dir = "."

[[inference.rules]]
name = "copies"
construct = "CONSTRUCT { ?s <urn:copy> ?o } WHERE { ?s <urn:p> ?o } ORDER BY ?s"

[[generation.rules]]
name = "list"
query = { inline = "SELECT ?s ?o WHERE { ?s <urn:copy> ?o } ORDER BY ?s" }
template = { file = "t.tera" }
output_file = "out.txt"
mode = "Overwrite"
"""
PROJECT = {"ggen.toml": MANIFEST, "o.ttl": '<urn:a> <urn:p> "b" .\n', "t.tera": "{{ s }} {{ o }}\n"}


def put(name: str, text: str) -> Callable[[Path], None]:
    """Return a step that adds ``text`` to a file of the project, or makes it."""
    return lambda folder: (folder / name).open("a").write(text) and None


def swap(old: str, new: str, name: str = "ggen.toml") -> Callable[[Path], None]:
    """Return a step that replaces ``old`` in a file of the project, where it must be."""

    def step(folder: Path) -> None:
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new))

    return step


def drop(name: str) -> Callable[[Path], None]:
    """Return a step that removes a file of the project."""
    return lambda folder: (folder / name).unlink()


def key(folder: Path) -> None:
    """Put a signing key there that is none."""
    (folder / ".ggen/keys").mkdir(parents=True)
    (folder / ".ggen/keys/signing.key").write_text("zz")


SELECT = "SELECT ?s ?o WHERE"
# name: (what is done to the project, ggen's arguments, a part of the cause, a part of the fix)
CASES: dict[str, tuple[Callable[[Path], None] | None, list[str], str, str]] = {
    "works": (None, ["sync"], "", ""),
    "noisy": (None, ["sync"], "", ""),
    "dry-run": (None, ["sync", "--dry_run", "true"], "", ""),
    "no-rows": (swap("<urn:copy> ?o } ORDER BY ?s", "<urn:none> ?o } ORDER BY ?s"), ["sync"], "", ""),
    "no-manifest": (drop("ggen.toml"), ["sync"], "no ggen project: there is no ggen.toml", "ggen_run_workspace"),
    "broken-toml": (
        put("ggen.toml", "[broken"),
        ["sync"],
        "broken at line 24, column 8: unclosed table",
        "Fix ggen.toml",
    ),
    "double-table": (put("ggen.toml", "[project]\n"), ["sync"], "broken at line 24, column 2: duplicate key", "Fix"),
    "no-version": (swap('version = "1.0.0"', ""), ["sync"], "column 1: missing field `version`", "Fix"),
    "no-generation": (swap("[[generation.rules]]", "[[other.rules]]"), ["sync"], "missing field", "Fix"),
    "empty-name": (swap('name = "p"', 'name = ""'), ["sync"], "not accepted: project.name cannot be empty", "Fix"),
    "no-ontology": (drop("o.ttl"), ["sync"], "not there (Ontology source): o.ttl", "Add the file"),
    "import-outside": (
        swap("imports = []", 'imports = ["../../lib/x.ttl"]'),
        ["sync"],
        "outside of the workspace (Ontology import): ../../lib/x.ttl",
        '{"source": "/srv/lib/x.ttl", "target": "/lib/x.ttl"}',
    ),
    "no-template": (drop("t.tera"), ["sync"], "not there (Template file): t.tera", "Add the file"),
    "no-query": (
        swap('inline = "SELECT', 'file = "q.rq", x = "SELECT'),
        ["sync"],
        "(Query file): q.rq",
        "Add the file",
    ),
    "no-shapes": (put("ggen.toml", '[validation]\nshacl = ["s.ttl"]\n'), ["sync"], "(SHACL shape file): s.ttl", "Add"),
    "no-description": (
        swap('description = "d"', ""),
        ["sync"],
        "gate Problem Statement refused the manifest",
        "a description",
    ),
    "no-inference": (
        swap("[[inference.rules]]", "[[nothing.rules]]"),
        ["sync"],
        "gate Measurement System Capability refused the manifest",
        "[[inference.rules]]",
    ),
    "broken-ontology": (put("o.ttl", "<urn:x> a"), ["sync"], "not valid Turtle: at line 2", "ontology.imports"),
    "unknown-prefix": (put("o.ttl", "x:y a x:z ."), ["sync"], "prefix x: has not been declared", "ontology.imports"),
    "not-utf8": (lambda f: (f / "o.ttl").write_bytes(b"\xff\xfe") and None, ["sync"], "o.ttl cannot be read", "UTF-8"),
    "broken-construct": (
        swap("{ ?s <urn:copy> ?o } WHERE", "{ ?s <urn:copy> } WHERE"),
        ["sync"],
        "CONSTRUCT query of inference rule copies does not work",
        "line:column",
    ),
    "unbalanced-construct": (
        swap("CONSTRUCT {", "CONSTRUCT { {"),
        ["sync"],
        "unbalanced braces: 3 open, 2 close",
        "log",
    ),
    "no-construct": (swap("CONSTRUCT {", "CONSTRUC {"), ["sync"], "SPARQL query 'copies' must start with", "log"),
    "broken-select": (
        swap(SELECT, "SELEC ?s ?o WHERE"),
        ["sync"],
        "SELECT query of rule list does not work",
        "line:column",
    ),
    "ask": (swap(SELECT, "ASK"), ["sync"], "query of rule list is no SELECT query", "CONSTRUCT belongs"),
    "broken-template": (
        put("t.tera", "{% for x in %}"),
        ["sync"],
        "template of rule list is not valid Tera",
        "{% … %}",
    ),
    "unknown-variable": (
        put("t.tera", "{{ nope }}"),
        ["sync"],
        "cannot be rendered: Variable `nope` not found",
        "o, s",
    ),
    "unknown-variable-in-path": (swap('"out.txt"', '"{{ nope }}.txt"'), ["sync"], "output_file of rule list", "SELECT"),
    "empty-output": (
        lambda f: (f / "t.tera").write_text("") and None,
        ["sync"],
        "rule list made an empty file",
        "skip_empty",
    ),
    "output-outside": (
        swap('"out.txt"', '"../out.txt"'),
        ["sync"],
        "list wants to write outside of the workspace",
        "../",
    ),
    "output-is-folder": (lambda f: (f / "out.txt").mkdir(), ["sync"], "Failed to create backup of ./out.txt", "log"),
    "git-template": (
        swap('{ file = "t.tera" }', '{ git = "https://localhost:1/x.git", path = "t.tera" }'),
        ["sync"],
        "neither git nor a network",
        "template = { file = … }",
    ),
    "package-template": (
        swap('{ file = "t.tera" }', '{ package = "x", path = "t.tera" }'),
        ["sync"],
        "comes from the package x",
        "template = { file = … }",
    ),
    "broken-key": (key, ["sync"], "cannot use the signing key in .ggen/keys", "Remove .ggen/keys"),
    "locked": (None, ["sync", "--locked"], "need .ggen/packs.lock", "lock file"),
    "unknown-profile": (None, ["sync", "--profile", "x"], "Unknown profile 'x'", "--profile"),
    "unknown-command": (
        None,
        ["synk"],
        "does not accept the arguments: unrecognized subcommand 'synk'",
        "ggen_run_args",
    ),
    "unknown-option": (None, ["sync", "--nope"], "unexpected argument '--nope'", "ggen_run_args"),
    "switch-without-value": (None, ["sync", "--dry_run"], "a value is required for '--dry_run", "--dry_run true"),
    "unknown-rule": (None, ["sync", "--rule", "x"], "Rule 'x' not found in manifest", "Available rules: list"),
    "init-in-project": (None, ["init"], "is a ggen project already", "--force"),
}
FINE = [name for name, case in CASES.items() if not case[2]]
runs = json.loads(RECORD.read_text()) if RECORD.exists() else {}


def provoke(name: str, folder: Path) -> dict[str, object]:
    """Run ggen on a project with the fault, with the environment of the role and without a program that it could start."""
    for file, text in PROJECT.items():
        (folder / file).write_text(text)
    change, args, _cause, _fix = CASES[name]
    if change:
        change(folder)
    env = {"HOME": MISSING, "PATH": MISSING, **({} if name == "noisy" else QUIET)}
    done = subprocess.run([BINARY, *args], cwd=folder, env=env, capture_output=True, text=True, timeout=30, check=False)
    return {"args": args, "rc": done.returncode, "stdout": done.stdout, "stderr": done.stderr}


def result_of(run: dict[str, object]) -> dict[str, object]:
    """Return what the role makes of a run."""
    return describe_run({**run, "pod": "p", "duration": 0.1}, {"path": "/srv/a/b", "args": run["args"]})


def test_every_case_is_recorded() -> None:
    assert sorted(runs) == sorted(CASES)


@pytest.mark.parametrize("name", CASES)
def test_the_failure_is_explained(name: str) -> None:
    _change, _args, cause, fix = CASES[name]
    run = runs[name]
    error = result_of(run)["error"]
    if name in FINE:
        assert run["rc"] == 0
        assert error is None
        return
    assert run["rc"] == (0 if name == "init-in-project" else 1)
    assert cause in error["cause"]
    assert fix in error["fix"]
    assert error["cause"] in error["message"]
    assert f"exit code {run['rc']}" in error["message"]


@pytest.mark.parametrize("name", FINE)
def test_success_is_not_explained(name: str) -> None:
    assert explain(runs[name]["stdout"], runs[name]["stderr"]) is None


def test_no_two_failures_are_explained_alike() -> None:
    causes = [result_of(runs[name])["error"]["cause"] for name in CASES if name not in FINE]
    assert len(set(causes)) == len(causes)


def test_telemetry_and_colours_are_dropped_and_nothing_else() -> None:
    noisy, quiet = runs["noisy"], runs["works"]
    assert "opentelemetry_sdk" in noisy["stdout"]
    assert "\x1b[" in noisy["stdout"]
    outcome, log = parse_output(noisy["stdout"], noisy["stderr"])
    assert outcome["status"] == "success"
    assert [item["path"] for item in outcome["files"]] == ["./out.txt"]
    assert [line for line in log if " in " not in line] == [
        line for line in parse_output(quiet["stdout"], quiet["stderr"])[1] if " in " not in line
    ]
    assert not any("opentelemetry" in line or "telemetry" in line or "\x1b" in line for line in log)


def test_warnings_stay_in_the_log() -> None:
    line = "2026-11-24T06:53:04.885050Z  WARN ggen_core::manifest::validation: Inference rule 'x' lacks ORDER BY"
    assert parse_output(line) == (None, [line])


@pytest.mark.skipif(not BINARY, reason="GGEN_BINARY names no ggen binary to provoke the failures with")
@pytest.mark.parametrize("name", CASES)
def test_the_binary_still_says_so(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "project"
    folder.mkdir()
    run = provoke(name, folder)
    if os.environ.get("GGEN_RECORD"):
        recorded = json.loads(RECORD.read_text()) if RECORD.exists() else {}
        recorded = {key: value for key, value in {**recorded, name: run}.items() if key in CASES}
        RECORD.write_text(json.dumps(recorded, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
        return
    assert run["rc"] == runs[name]["rc"]
    error, recorded_error = (result_of(item)["error"] or {"cause": "", "fix": ""} for item in (run, runs[name]))
    assert (error["cause"], error["fix"]) == (recorded_error["cause"], recorded_error["fix"])
