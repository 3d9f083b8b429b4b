# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decide which configuration files of a host change, and how. Pure functions over what was read from the host."""

from __future__ import annotations

import base64
import posixpath
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._containerd.config_options import ARGUMENT_SPEC
from ansible_collections.ggen.gvisor.plugins.plugin_utils._containerd import runtime_config as config
from ansible_collections.ggen.gvisor.plugins.plugin_utils._containerd import toml_text as toml

DEFAULT_ADDRESS = "/run/containerd/containerd.sock"
PLACEHOLDER = "/ggen.gvisor/candidate"


@dataclass
class File:
    """A configuration file on the host: its text (None: there is none) as read, and as it is to be."""

    path: str
    text: str | None
    sha256: str | None
    after: str | None = None

    def __post_init__(self) -> None:
        self.after = self.text

    @property
    def changed(self) -> bool:
        """Tell whether the file is to change."""
        return self.after != self.text


@dataclass
class ConfigPlan:
    """What is to be done on one host. ``files`` are all files that were read, in the order in which they are to be written."""

    main: File
    files: list[File]
    file: str
    version: int
    address: str
    imports: dict[str, list[str]]
    folder_of_dropin: list[str]
    notes: list[str] = field(default_factory=list)
    emptied: list[str] = field(default_factory=list)  # folders that go if nothing is left in them

    @property
    def edits(self) -> list[File]:
        """The files that change."""
        return [file for file in self.files if file.changed]


def decide(found: dict[str, Any], params: dict[str, Any]) -> ConfigPlan:
    """Return the plan for what the module has read (``found``) and the user wants (``params``). Raises GvisorError on refusals."""
    files = [_file(entry) for entry in (found["main"], *found["imported"])]
    main, allow_newer = files[0], params["allow_newer_config_version"]
    document = toml.parse(main.text or "", main.path)
    version = config.version_of(document, allow_newer)
    address = toml.lookup(document.data, ("grpc", "address"))
    dropin = next(file for file in files if file.path == found["dropin"]) if found["dropin"] != main.path else main
    plan = ConfigPlan(
        main,
        files,
        main.path,
        version,
        params["address"] or (address if isinstance(address, str) and address else DEFAULT_ADDRESS),
        found["imports"],
        found["dropin_folder"],
    )
    imported = {path for paths in found["imports"].values() for path in paths}
    active = [file for file in files if file.text is not None and (file is main or file.path in imported)]
    holders = [file for file in active if _holds(file, params["name"], allow_newer)]
    if params["state"] == "absent":
        _plan_absent(plan, holders, active, params["name"], allow_newer)
    else:
        target = holders[-1] if holders else _new_place(plan, dropin, document, found["containerd"], params["dropin"])
        _plan_present(plan, target, active, params, found["containerd"])
        plan.file = target.path
    if holders and params["state"] == "absent":
        plan.file = holders[-1].path
    return plan


def is_ready(found: dict[str, Any], arguments: dict[str, Any]) -> bool:
    """Return whether containerd_runtime with these arguments would change nothing on a host that has what was ``found``.

    Raises GvisorError for arguments that it would not take; what it would refuse to touch is not ready.
    """
    checked = ArgumentSpecValidator(ARGUMENT_SPEC).validate({name: value for name, value in arguments.items() if value is not None})
    if checked.error_messages:
        raise GvisorError(f"runtime: {'; '.join(checked.error_messages)}")
    try:
        plan = decide(found, checked.validated_parameters)
    except GvisorError:
        return False
    return not plan.edits and imports_of(plan.main) == list(found["imports"])


def handler_of(params: dict[str, Any]) -> config.Handler:
    """Return the handler that the module's parameters ask for."""
    names = ("name", "runtime_type", "options", "pod_annotations", "snapshotter", "default")
    return config.Handler(**{name: params[name] for name in names})


def _file(entry: dict[str, Any]) -> File:
    content = entry["content"]
    return File(
        entry["path"],
        None if content is None else toml.decode(base64.b64decode(content), entry["path"]),
        entry["sha256"],
    )


def _holds(file: File, name: str, allow_newer: bool) -> bool:
    document = toml.parse(file.text or "", file.path)
    return name in (toml.table_at(document, (*config.cri_table(document, None, allow_newer), "containerd", "runtimes")) or {})


def _new_place(plan: ConfigPlan, dropin: File, document: toml.Document, containerd: str | None, wish: str) -> File:
    """Return the file that gets a new handler."""
    daemon = config.version_tuple(containerd)
    merges = daemon is not None and daemon >= (2, 0)
    if wish == "never" or dropin is plan.main:
        return plan.main
    if wish != "auto":
        if not merges:
            raise GvisorError(
                f"dropin: {wish}: containerd {containerd or 'of unknown version'} lets a drop-in replace whole plugin tables, and runc "
                "with them; only 2.0 and newer merge them. Leave dropin at auto, or upgrade containerd."
            )
        return dropin
    # Its folder's other files would come into effect with ours where the main file does not import them yet.
    alone = set(plan.folder_of_dropin) <= {dropin.path}
    covered = covers(plan.imports, dropin.path, plan.main.path)
    safe = merges and plan.main.text is not None and "version" in document.data and (covered or alone)
    return dropin if safe else plan.main


def covers(imports: dict[str, Any] | list[str], path: str, main: str) -> bool:
    """Tell whether an imports line has the file at ``path`` read."""
    folder = posixpath.dirname(main)
    return any(fnmatchcase(path, posixpath.normpath(posixpath.join(folder, pattern))) for pattern in imports)


def pattern_for(path: str, main: str) -> str:
    """Return the entry that the main file's imports need for a drop-in: a pattern in conf.d, else the name itself."""
    in_conf_d = posixpath.dirname(path) == posixpath.join(posixpath.dirname(main), "conf.d") and path.endswith(".toml")
    return posixpath.join(posixpath.dirname(path), "*.toml") if in_conf_d else path


def _plan_present(plan: ConfigPlan, target: File, active: list[File], params: dict[str, Any], containerd: str | None) -> None:
    handler, allow_newer = handler_of(params), params["allow_newer_config_version"]
    dropin_for = None if target is plan.main else plan.version
    if dropin_for and "version" not in toml.parse(plan.main.text or "", plan.main.path).data:
        document = toml.parse(plan.main.text or "", plan.main.path)
        if not config.is_neutral(document):
            raise GvisorError(
                f"{plan.main.path} has no version line, so it cannot have drop-ins; convert it with `containerd config migrate`."
            )
        mark = config.FILE_MARK if plan.main.text is None else config.VERSION_MARK
        plan.main.after = toml.add(document, (), {"version": config.NEW_FILE_VERSION}, mark)
        plan.version = dropin_for = config.NEW_FILE_VERSION
    edit = config.set_present(
        target.text, handler, where=target.path, containerd=containerd, allow_newer=allow_newer, dropin_for=dropin_for
    )
    target.after = edit.text
    plan.notes += edit.notes
    if target is plan.main:
        plan.version = edit.version
    elif not covers(plan.imports, target.path, plan.main.path):
        plan.main.after = config.add_import(plan.main.after or "", pattern_for(target.path, plan.main.path), where=plan.main.path)
    if handler.default is False:
        for file in active:
            if file is not target:
                file.after = config.unset_default(file.after or "", handler.name, where=file.path, allow_newer=allow_newer)
    plan.files.sort(key=lambda file: file is plan.main)  # a file that the main one names must be there first


def _plan_absent(plan: ConfigPlan, holders: list[File], active: list[File], name: str, allow_newer: bool) -> None:
    for file in active:
        if file not in holders and holders:
            file.after = config.unset_default(file.text or "", name, where=file.path, allow_newer=allow_newer)
    for file in holders:
        file.after = config.set_absent(file.text, name, where=file.path, allow_newer=allow_newer).text
        if file is not plan.main and file.after is None:
            pattern = pattern_for(file.path, plan.main.path)
            others = set(plan.imports.get(pattern, [])) - {file.path}
            if not others:
                before = plan.main.after
                plan.main.after = config.remove_import(plan.main.after or "", pattern, where=plan.main.path)
                if plan.main.after != before:  # imports and folder came with the drop-in
                    plan.emptied.append(posixpath.dirname(file.path))
                plan.main.after = config.take_back_version(plan.main.after, where=plan.main.path)


def validation_of(plan: ConfigPlan, containerd: str | None = None) -> dict[str, Any]:
    """Return the main file and the imported ones as candidates for the host's containerd.

    Candidates of imported files are not where the main file's imports look, so the candidate of the main file names each file instead.
    """
    text = plan.main.after or ""
    if (config.version_tuple(containerd) or (0, 0)) < (2, 0):  # newer ones have a disabled plugin in their dump as well
        text = config.with_cri(text, where=plan.main.path)
    others = []
    changed = {file.path: file for file in plan.edits if file is not plan.main}
    if changed:
        document = toml.parse(text, plan.main.path)
        names: list[str] = []
        for pattern in config.imports_of(document):
            paths = {
                *plan.imports.get(pattern, []),
                *(path for path in changed if covers([pattern], path, plan.main.path)),
            }
            for path in sorted(paths):
                if path not in changed:
                    names.append(path)
                elif changed[path].after is not None:
                    placeholder = f"{PLACEHOLDER}{len(others)}"
                    others.append({"placeholder": placeholder, "content": _encode(changed[path].after)})
                    names.append(placeholder)
        if "imports" in document.data:
            text = toml.replace_value(document, ("imports",), toml.render(names))
    return {"main": {"path": plan.main.path, "content": _encode(text)}, "others": others}


def _encode(text: str | None) -> str:
    return base64.b64encode((text or "").encode()).decode("ascii")


def imports_of(file: File) -> list[str]:
    """Return the imports of the file as it was read."""
    return config.imports_of(toml.parse(file.text or "", file.path))


def missing_imports(found: dict[str, Any]) -> list[str]:
    """Return the imports that name a file that is not there: containerd 2.x accepts them in a check and then does not start."""
    there = {entry["path"] for entry in found["imported"] if entry["content"] is not None}
    return sorted(path for pattern, paths in found["imports"].items() if "*" not in pattern for path in paths if path not in there)


def changes_of(plan: ConfigPlan) -> list[dict[str, Any]]:
    """Return the edits for the module that writes them."""
    return [{"path": file.path, "before": file.sha256, "after": None if file.after is None else _encode(file.after)} for file in plan.edits]
