# Copyright (c) 2026, the ggen.gvisor authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""What ggen prints and what it means. Texts and behaviour are those of ggen 26.5.19, each provoked with its binary."""

from __future__ import annotations

import json
import posixpath
import re
import shlex
import textwrap
from collections import Counter
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Tuple

from ansible_collections.ggen.gvisor.plugins.module_utils._base.text import visible_all
from ansible_collections.ggen.gvisor.plugins.module_utils._ggen.advice import (
    MANIFEST_FIX,
    NO_PROJECT_FIX,
    ROLE,
    Words,
    leads_out,
    mount_advice,
)

# Made by the first sync with mode 0644; ggen reads it back and never changes it, so a stricter mode stays.
LAST_LINES = 12
FOR_PEOPLE = ("kernel", "log", "error", "summary")  # of a run's description; the rest is for programs


_ANSI = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")


# tracing's lines of the telemetry exporter, which has no collector to talk to.
_TELEMETRY = re.compile(r"^\S+\s+(?:TRACE|DEBUG|INFO|WARN|ERROR)\s+(?:ggen_core::telemetry|opentelemetry\w*)\b")


class Rule(NamedTuple):
    """One known failure: the text that tells it, what it means and what fixes it. Both may name the pattern's groups."""

    pattern: str
    cause: str
    fix: str


_FILES = r"(?P<kind>Ontology source|Ontology import|Template file|Query file|SHACL shape file) not found(?: for rule '(?P<rule>[^']*)')?"


RULES: Tuple[Rule, ...] = (
    Rule(
        r"Manifest not found\s+--> (?P<path>\S+)",
        "this is no ggen project: there is no {path} in it",
        NO_PROJECT_FIX,
    ),
    Rule(
        r"Manifest parse error[\s\S]*?at line (?P<line>\d+), column (?P<column>\d+)[\s\S]*?\^+\n(?P<what>[^\n]+)",
        "ggen.toml is broken at line {line}, column {column}: {what}",
        MANIFEST_FIX,
    ),
    Rule(
        _FILES + r": (?P<path>.+)",
        "ggen.toml names a file that is not there ({kind}): {path}",
        "Add the file or fix its path in ggen.toml.",
    ),
    Rule(
        r"Manifest (?:validation failed|parse error)[\s\S]*?= error: (?P<what>[^\n]+)",
        "ggen.toml is not accepted: {what}",
        MANIFEST_FIX,
    ),
    Rule(
        r"Cannot create output directory: (?P<path>[^\n]+)\n\s*Reason: (?P<what>[^\n]+)",
        "ggen may not make the output folder {path}: {what}",
        "The sandbox runs as the owner of the workspace: give that owner the folder (chown), and keep the output inside the workspace.",
    ),
    Rule(
        r"criteria '(?P<name>[^']*)' failed: (?P<what>[^\n]+)",
        "ggen's quality gate {name} refused the manifest: {what}",
        "ggen 26 asks for a description under [project] and for one or more [[inference.rules]] with a CONSTRUCT query.",
    ),
    Rule(
        r"Template validation failed for rule '(?P<rule>[^']*)':\s+- (?P<what>[^\n]+)",
        "the template of rule {rule} is not valid Tera: {what}",
        "Look for an unclosed or empty {{% … %}} or {{{{ … }}}} in it; ggen does not tell the line.",
    ),
    Rule(
        r"Error Code: GATE_(?P<gate>\S+)[\s\S]*?Context:\n(?P<what>(?:  [^\n]*\n)+)",
        "ggen's quality gate {gate} stopped it: {what}",
        "Fix what it names; the log has ggen's own hints.",
    ),
    Rule(
        r"Failed to load Turtle[^:]*: (?:Parser error )?(?P<what>[^\n]+)",
        "an ontology is not valid Turtle: {what}",
        "ggen does not tell the file: look at that line in ontology.source and in each of ontology.imports.",
    ),
    Rule(
        r"Failed to read ontology(?: import)? '(?P<path>[^']*)': (?P<what>[^\n]+)",
        "the ontology {path} cannot be read: {what}",
        "It must be a UTF-8 Turtle file that the owner of the workspace may read.",
    ),
    Rule(
        r"Inference rule '(?P<rule>[^']*)' failed: (?:CONSTRUCT query failed: )?(?:SPARQL parse error: )?(?P<what>[^\n]+)",
        "the CONSTRUCT query of inference rule {rule} does not work: {what}",
        "The numbers are line:column in that query.",
    ),
    Rule(
        r"Generation rule '(?P<rule>[^']*)' query failed: (?:SPARQL parse error: )?(?P<what>[^\n]+)",
        "the SELECT query of rule {rule} does not work: {what}",
        "The numbers are line:column in that query.",
    ),
    Rule(
        r"Generation rules require SELECT queries[\s\S]*?rule: '(?P<rule>[^']*)'",
        "the query of rule {rule} is no SELECT query",
        "A generation rule needs SELECT; CONSTRUCT belongs under [[inference.rules]], ASK into a rule's `when`.",
    ),
    Rule(
        r"Failed to render template for rule '(?P<rule>[^']*)'[\s\S]*?Caused by: (?P<what>[^\n]+)"
        r"[\s\S]*?Available variables: (?P<names>[^\n]*)",
        "the template of rule {rule} cannot be rendered: {what}",
        "Its query gives these variables: {names}. One that OPTIONAL left out needs `| default(value=…)`.",
    ),
    Rule(
        r"Output path template error in rule '(?P<rule>[^']*)'",
        "output_file of rule {rule} uses a variable that its query does not give",
        "Name a variable of the SELECT in output_file, or a plain file name.",
    ),
    Rule(
        r"Generated content is empty\s+--> rule: '(?P<rule>[^']*)'",
        "rule {rule} made an empty file",
        "Its template is empty or its loop found nothing; set skip_empty or fix the query.",
    ),
    Rule(
        r"Directory traversal pattern detected[\s\S]*?rule: '(?P<rule>[^']*)', path: '(?P<path>[^']*)'",
        "rule {rule} wants to write outside of the workspace: {path}",
        "Take ../ out of output_dir and output_file; ggen and the sandbox both keep the output inside the workspace.",
    ),
    Rule(
        r"(?P<what>[^\n:]*/[^\n:]*): Read-only file system",
        "ggen wanted to write outside of the workspace: {what}",
        "Use output paths relative to the workspace; nothing else in the sandbox can be written.",
    ),
    Rule(
        r"Failed to (?:execute git clone|clone git repository)",
        "a template comes from a git repository, and the sandbox has neither git nor a network",
        "Put the template into the workspace and name it with `template = {{ file = … }}`.",
    ),
    Rule(
        r"Failed to read template file from package (?P<name>[^:]+):",
        "a template comes from the package {name}, which is not in the sandbox",
        "Put the template into the workspace and name it with `template = {{ file = … }}`.",
    ),
    Rule(
        r"Lockfile required[^\n]*",
        "--locked and the strict profile need .ggen/packs.lock, and the workspace has none",
        "Leave them out of {args}, or commit the lock file.",
    ),
    Rule(r"(?P<what>Unknown profile[^\n]*)", "ggen does not know the profile: {what}", "Fix --profile in {args}."),
    Rule(
        r"Argument parsing failed: error: (?P<what>[^\n]+(?:\s+tip: [^\n]+)?)",
        "ggen does not accept the arguments: {what}",
        "Fix {args}; ggen's options have underscores and its switches a value (`--dry_run true`).",
    ),
    Rule(r"(?P<what>Rule '[^']*' not found in manifest)[\s\S]*?(?P<names>Available rules: [^\n]*)", "{what}", "{names}."),
    Rule(
        r"Audit failure: (?P<what>[^\n]*Permission denied[^\n]*)",
        "ggen may not write its records in .ggen: {what}",
        "The sandbox runs as the owner of the workspace: give that owner the whole folder (chown -R).",
    ),
    Rule(
        r"Audit failure: (?P<what>[^\n]+)",
        "ggen cannot use the signing key in .ggen/keys: {what}",
        "Remove .ggen/keys; ggen makes a new pair.",
    ),
    Rule(
        r"(?P<what>[^\n]*Permission denied[^\n]*)",
        "a file is not accessible to ggen: {what}",
        "The sandbox runs as the owner of the workspace: give that owner the whole folder (chown -R).",
    ),
    Rule(
        r"already initialized here",
        "the folder is a ggen project already, so `ggen init` did nothing",
        "Run `sync`, or init --force true, which overwrites ggen.toml.",
    ),
    Rule(r"= error: (?P<what>[^\n]+)", "{what}", "The log has ggen's own hints."),
    Rule(
        r"ERROR: (?:CLI execution failed: )?(?:Command execution failed: )?(?P<what>[^\n]+)",
        "{what}",
        "The log has all that ggen printed.",
    ),
)


def without_colours(text: str) -> str:
    """Return ``text`` without terminal colours."""
    return _ANSI.sub("", text)


def parse_output(stdout: str, stderr: str = "") -> Tuple[Optional[Dict[str, Any]], List[str]]:
    """Return ggen's closing JSON object, or None, and the other lines of its output without telemetry and blank lines.

    The object is the last line of standard output that is one: with telemetry on, log lines follow it.
    """
    outcome: Optional[Dict[str, Any]] = None
    log: List[str] = []
    lines = [line.rstrip() for line in without_colours(stdout).splitlines()]
    for line in reversed(lines):
        found = _json_object(line) if outcome is None else None
        if found is None:
            log.append(line)
        else:
            outcome = found
    log.reverse()
    log += [line.rstrip() for line in without_colours(stderr).splitlines()]
    return outcome, [line for line in log if line and not _TELEMETRY.match(line)]


def _json_object(line: str) -> Optional[Dict[str, Any]]:
    if not line.startswith("{"):
        return None
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) and "status" in found else None


def explain(stdout: str, stderr: str = "", workspace: str = "", words: Words = ROLE) -> Optional[Dict[str, str]]:
    """Return the cause and the fix of the failure that ggen's output tells, or None where it tells none.

    ``workspace`` is the folder on the sandbox host; a file missing because it lies outside of it is explained with the mount it needs, in ``words``.
    """
    text = without_colours(f"{stderr}\n{stdout}")
    for rule in RULES:
        found = re.search(rule.pattern, text)
        if found is None:
            continue
        groups = {key: textwrap.shorten(value or "", 300, placeholder=" …") for key, value in found.groupdict().items()}
        path = groups.get("path", "")
        if "kind" in groups and leads_out(path):
            return {
                "cause": f"ggen.toml names a file outside of the workspace ({groups['kind']}): {path}",
                "fix": mount_advice([path], workspace, words),
            }
        return {"cause": rule.cause.format(**groups), "fix": rule.fix.format(**groups, **words.names)}
    return None


def describe_run(run: Mapping[str, Any], job: Mapping[str, Any], words: Words = ROLE) -> Dict[str, Any]:
    """Return what one run of containerd_run for ``job`` came to, for people and for later tasks; what fixes a failure is said in ``words``.

    ``error`` is None, or the cause, the fix and a message with both and the end of the log: for an exit code other than 0, for
    an outcome that ggen itself calls an error (``ggen init`` in a project exits with 0 and does nothing), and for a run that did
    not take place or did not end by itself.
    """
    stdout, stderr = str(run.get("stdout") or ""), str(run.get("stderr") or "")
    outcome, log = parse_output(stdout, stderr)
    changed = list(run.get("changed_files") or [])
    result = {
        "path": job["path"],
        "args": list(job["args"]),
        "rc": run.get("rc"),
        "changed": bool(run.get("changed")),
        "contents_changed": bool(run.get("contents_changed")),
        "duration": run.get("duration"),
        "timings": run.get("timings"),
        "files": _files(outcome, changed),
        "changed_files": changed,
        "kernel": run.get("kernel"),
        **{name: run[name] for name in ("trace",) if name in run},
        "pod": run.get("pod"),
        "ggen": outcome,
        "log": log,
        "not_ready": "missing" in run,
        "error": _error(run, outcome, stdout, stderr, str(job["path"]), words),
    }
    if result["error"]:
        result["error"]["message"] = failure_text(result)
    result["summary"] = _summary(result)
    return {**result, **{key: visible_all(result[key]) for key in FOR_PEOPLE}}


def _summary(result: Mapping[str, Any]) -> str:
    what = f"ggen {shlex.join(result['args'])} in {result['path']}"
    if result["rc"] is None:
        return f"{what}: not run to its end: {result['error']['cause']}"
    counts = Counter(item["change"] for item in result["files"])
    files = ", ".join(f"{counts[change]} {change}" for change in ("created", "modified", "unchanged") if counts[change])
    return f"{what}: exit code {result['rc']} in {result['duration']} s, files: {files or 'none'}; kernel: {result['kernel']}"


def _files(outcome: Optional[Mapping[str, Any]], changed: List[Dict[str, Any]]) -> List[Dict[str, Any]]:
    """Return the files that ggen names, each once, with what the run did to them: ggen calls every one of them created."""
    changes = {item.get("path"): item.get("change") for item in changed}
    files = {}
    for item in (outcome or {}).get("files") or []:
        path = posixpath.normpath(str(item.get("path")))
        files[path] = {"path": path, "size": item.get("size_bytes"), "change": changes.get(path, "unchanged")}
    return list(files.values())


def _error(
    run: Mapping[str, Any], outcome: Optional[Mapping[str, Any]], stdout: str, stderr: str, workspace: str, words: Words
) -> Optional[Dict[str, str]]:
    message = str(run.get("msg") or "")
    faults = "; ".join(run.get("faults") or [])
    if run.get("rc") is None or run.get("timed_out") or run.get("limits_hit"):
        return {"cause": message or "it did not run", "fix": ""}
    if run["rc"] != 0 or (outcome or {}).get("status") == "error":
        told = explain(stdout, stderr, workspace, words) or {"cause": message or "ggen reported an error", "fix": ""}
        return {**told, "cause": f"{told['cause']}; {faults}"} if faults else told
    return {"cause": faults, "fix": ""} if faults else None


def failure_text(result: Mapping[str, Any]) -> str:
    """Return the message for a result that has an error: what, where, its exit code, the fix and the end of the log."""
    error = result["error"]
    code = "" if result["rc"] is None else f" (exit code {result['rc']})"
    text = f"ggen {shlex.join(result['args'])} in {result['path']} failed{code}: {error['cause']}."
    if error["fix"]:
        text += f" {error['fix']}"
    last = result["log"][-LAST_LINES:]
    return text + ("\nIts last lines:\n  " + "\n  ".join(last) if last else "")
