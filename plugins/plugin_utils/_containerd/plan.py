# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decide which configuration files of a host change, and how. Pure functions over what was read from the host."""

from __future__ import annotations

import base64
import posixpath
from dataclasses import dataclass, field
from typing import Any

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._containerd.config_files import matches
from ansible_collections.ggen.gvisor.plugins.module_utils._containerd.config_options import ARGUMENT_SPEC
from ansible_collections.ggen.gvisor.plugins.module_utils._containerd.generators import GENERATORS, says_generated
from ansible_collections.ggen.gvisor.plugins.plugin_utils._containerd import runtime_config as config
from ansible_collections.ggen.gvisor.plugins.plugin_utils._containerd import toml_text as toml
from ansible_collections.ggen.gvisor.plugins.plugin_utils._containerd import verdict

DEFAULT_ADDRESS = "/run/containerd/containerd.sock"
MERGED_VERSION = 3  # the first with the CRI plugin's newest table, which every containerd that merges files reads
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
    base: str  # where relative imports start
    folder_of_dropin: list[str]
    cri: toml.Path | None = None  # the CRI plugin's table that counts, where it is not for each file to say
    notes: list[str] = field(default_factory=list)
    emptied: list[str] = field(default_factory=list)  # folders that go if nothing is left in them
    sources: list[File] = field(default_factory=list)  # what a service makes the main file from; then ``files`` are only tried
    generator: str = ""

    @property
    def edits(self) -> list[File]:
        """The files that change, as containerd reads them."""
        return [file for file in self.files if file.changed]

    @property
    def written(self) -> list[File]:
        """The files that are to be written: those that change, or what a service makes them from."""
        return [file for file in self.sources if file.changed] if self.sources else self.edits


def decide(found: dict[str, Any], params: dict[str, Any]) -> ConfigPlan:
    """Return the plan for what the module has read (``found``) and the user wants (``params``). Raises GvisorError on refusals."""
    refuse_another_daemon(found)
    plan = _decide_on_files(found, params)
    if found["generator"] and not _is_dropin(plan, found):
        _plan_sources(plan, found, params)
    elif not found["generator"] and plan.main.changed:
        _refuse_generated(plan.main)
    return plan


def _is_dropin(plan: ConfigPlan, found: dict[str, Any]) -> bool:
    """Tell whether the handler comes, stays and goes with a drop-in, which the service leaves alone."""
    return not plan.main.changed and any(file.path == found["dropin"] and (file.text or file.changed) for file in plan.files)


def _refuse_generated(main: File) -> None:
    """Raise GvisorError where the file says that something makes it which this module does not know."""
    said = says_generated(main.text or "")
    if said:
        line = (main.text or "").splitlines().index(next(line for line in (main.text or "").splitlines() if line.strip() == said)) + 1
        raise GvisorError(
            f"{main.path}, line {line}: the file says that it is made by something else ({said}), and a change would be lost. Nothing was written; "
            "change what it is made from, name a drop-in that it imports (dropin), or take that comment out if it is not so.",
            file=main.path,
            line=line,
        )


def _plan_sources(plan: ConfigPlan, found: dict[str, Any], params: dict[str, Any]) -> None:
    """Plan the change of what the service makes the main file from; what was planned for the file itself is what that is to come to."""
    row = next(row for row in GENERATORS if row.name == found["generator"])
    sources = {entry["path"]: _file(entry) for entry in found["sources"]}
    folder = posixpath.dirname(plan.main.path)
    place = posixpath.join(row.merged, f"{params['name']}.toml") if row.merged else row.templates.get(plan.version)
    if place is None:
        raise GvisorError(
            f"{plan.main.path} is made by {row.name}, which has no template for config version {plan.version}. Nothing was written."
        )
    source = sources[posixpath.join(folder, place)]
    handler, is_present = handler_of(params), params["state"] == "present"
    plan.generator, plan.sources, plan.file = row.name, [source], source.path
    if row.merged or not row.base:
        if source.text is None and not row.merged:
            raise GvisorError(
                f"{source.path}, from which {row.name} makes {plan.main.path}, is not there. Nothing was written.", file=source.path
            )
        source.after = (
            config.set_present(source.text, handler, config.Place(where=source.path, dropin_for=plan.version if row.merged else None)).text
            if is_present
            else config.set_absent(source.text, params["name"], where=source.path).text
        )
    else:
        source.after = config.set_block(
            source.text, handler if is_present else None, params["name"], config.Template(source.path, row.base, plan.version)
        )
    if plan.written:
        plan.notes.append(f"{plan.main.path} is made by {row.name} at each of its starts; what it is made from is {source.path}.")


def _decide_on_files(found: dict[str, Any], params: dict[str, Any]) -> ConfigPlan:
    """Return the plan for the files that containerd reads."""
    files = [_file(entry) for entry in (found["main"], *found["imported"])]
    main, allow_newer = files[0], params["allow_newer_config_version"]
    document = toml.parse(main.text or "", main.path)
    version = config.version_of(document, allow_newer)
    dropin = next(file for file in files if file.path == found["dropin"]) if found["dropin"] != main.path else main
    imported = {path for paths in found["imports"].values() for path in paths}
    active = [file for file in files if file.text is not None and (file is main or file.path in imported)]
    plan = ConfigPlan(
        main,
        files,
        main.path,
        version,
        params["address"] or config.address_in(document) or DEFAULT_ADDRESS,
        found["imports"],
        found["base"],
        found["dropin_folder"],
        config.cri_in_effect([document, *(_document(file) for file in active if file is not main)], found["containerd"]),
    )
    if params["state"] == "absent":
        tables = (None, plan.cri) if plan.cri else (None,)
        holders = [file for file in active if any(_holds(file, params["name"], allow_newer, cri) for cri in tables)]
        _plan_absent(plan, holders, active, params["name"], allow_newer, tables)
        plan.file = holders[-1].path if holders else plan.file
    else:
        holders = [file for file in active if _holds(file, params["name"], allow_newer, plan.cri)]
        target = holders[-1] if holders else _new_place(plan, dropin, document, active, found, params["dropin"])
        _plan_present(plan, target, active, params, found["containerd"])
        plan.file = target.path
    return plan


def refuse_another_daemon(found: dict[str, Any]) -> None:
    """Raise GvisorError where the containerd that runs reads another file than the one that would be changed, or is another than the one asked."""
    daemon, path = found["daemon"], found["main"]["path"]
    if daemon["config"] and daemon["real_config"] != path:
        raise GvisorError(
            f"{path} is not what containerd reads: the daemon that runs (process {daemon['pid']}) reads {daemon['config']}. Nothing was "
            f"written; give that file as path (the role's containerd_gvisor_config), or restart the daemon if it is to read {path}.",
            file=path,
        )
    running, asked = daemon["running_version"], found["containerd"]
    if running and asked and config.version_tuple(running) != config.version_tuple(asked):
        raise GvisorError(
            f"the containerd that runs ({daemon['running_program']}, process {daemon['pid']}) is {running}, but the program on the PATH is {asked}: "
            "it would judge the configuration by other rules. Nothing was written; restart containerd if it was upgraded, or give the program as "
            "program."
        )


def drift(found: dict[str, Any], arguments: dict[str, Any]) -> list[str]:
    """Return what containerd_runtime with these arguments would change, or refuse, on a host that has what was ``found``: a sentence each.

    Nothing where it would change nothing. Raises GvisorError for arguments that it would not take.
    """
    checked = ArgumentSpecValidator(ARGUMENT_SPEC).validate({name: value for name, value in arguments.items() if value is not None})
    if checked.error_messages:
        raise GvisorError(f"runtime: {'; '.join(checked.error_messages)}")
    params = checked.validated_parameters
    try:
        plan = decide(found, params)
        confirm(found, plan, params)
    except GvisorError as error:
        return [error.message]
    if not plan.written:
        # What the host could not find without a TOML parser has to be read first.
        return [] if imports_of(plan.main) == list(found["imports"]) else [f"{plan.main.path} has imports that could not be followed yet"]
    return _unmet(found, params) or [f"{', '.join(file.path for file in plan.written)} differs from what is wanted"]


def _unmet(found: dict[str, Any], params: dict[str, Any]) -> list[str]:
    told = found["dump"]
    if not told or told["rc"] != 0:
        return []
    wanted = handler_of(params).table() if params["state"] == "present" else None
    data = toml.parse(told["stdout"], "containerd's dump").data
    if wanted is not None and params["name"] not in config.handlers(data):
        return [f"{found['main']['path']} has no runtime handler {params['name']}"]
    wish = verdict.Wish(found["main"]["path"], found["containerd"], params["name"], wanted, params["default"])
    return [f"{wish.where}: {one}" for one in verdict.unmet(told, data, wish)]


def confirm(found: dict[str, Any], plan: ConfigPlan, params: dict[str, Any]) -> None:
    """Raise GvisorError where nothing is to be edited and the host's containerd says that it is not as it should be all the same."""
    if plan.written or not found["dump"] or not params["validate"]:
        return
    if plan.sources and plan.edits:
        raise GvisorError(
            f"{plan.file} is as it should be, but {plan.main.path} was not made from it yet: restart {found['service'] or plan.generator}.",
            file=plan.file,
        )
    verdict.judge_as_it_is(
        found["dump"],
        verdict.Wish(
            where=plan.file,
            containerd=found["containerd"],
            name=params["name"],
            wanted=handler_of(params).table() if params["state"] == "present" else None,
            default=params["default"] if params["state"] == "present" else None,
            others=others_with(found, params["name"], {plan.file}),
        ),
    )


def others_with(found: dict[str, Any], name: str, known: set[str]) -> list[str]:
    """Return what to know of files that may decide instead of the known ones: those with the handler, or below 2.0 with a CRI plugin's table."""
    merges = (config.version_tuple(found["containerd"]) or (0, 0)) >= (2, 0)
    said = []
    for entry in (*found["imported"], *found["nested"]):
        if entry["content"] is None or entry["path"] in known:
            continue
        try:
            file = _file(entry)
            document = _document(file)
            cri = config.table_in(document.data)
            line = toml.line_of(document, cri)
            by = f", which {entry['by']} imports," if "by" in entry else ""
            if name in config.handlers(document.data):
                said.append(f"{file.path}{by} has the handler (line {toml.line_of(document, (*cri, 'containerd', 'runtimes', name))})")
            elif not merges and toml.table_at(document, cri) is not None:
                said.append(
                    f"{file.path}{by} is read later and its table {toml.dotted(cri)} (line {line}) replaces that of the files before"
                )
        except GvisorError as error:
            said.append(error.message)
    return said


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


def _document(file: File) -> toml.Document:
    return toml.parse(file.text or "", file.path)


def _holds(file: File, name: str, allow_newer: bool, cri: toml.Path | None) -> bool:
    document = _document(file)
    table = cri or config.cri_table(document, None, allow_newer)
    return name in (toml.table_at(document, (*table, "containerd", "runtimes")) or {})


def _replaces(file: File) -> bool:
    """Tell whether the file has a CRI plugin's table that containerd 1.x takes instead of that of the files before it."""
    document = _document(file)
    table = config.table_in(document.data)
    return table in config.REPLACES_BUILTIN and toml.table_at(document, table) is not None


def _new_place(plan: ConfigPlan, dropin: File, document: toml.Document, active: list[File], found: dict[str, Any], wish: str) -> File:
    """Return the file that gets a new handler."""
    containerd = found["containerd"]
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
    if not merges:  # the last file that has the CRI plugin's table is the one that counts
        return next((file for file in reversed(active) if file is not plan.main and _replaces(file)), plan.main)
    # Its folder's other files would come into effect with ours where the main file does not import them yet.
    alone = set(plan.folder_of_dropin) <= {dropin.path}
    covered = covers(plan.imports, dropin.path, plan.base)
    safe = plan.main.text is not None and "version" in document.data and (covered or (alone and not found["generator"]))
    return dropin if safe else plan.main


def covers(imports: dict[str, Any] | list[str], path: str, base: str) -> bool:
    """Tell whether an imports line has the file at ``path`` read; relative entries start at ``base``."""
    return any(matches(path, posixpath.normpath(posixpath.join(base, pattern))) for pattern in imports)


def pattern_for(path: str, main: str) -> str:
    """Return the entry that the main file's imports need for a drop-in: a pattern in conf.d, else the name itself."""
    in_conf_d = posixpath.dirname(path) == posixpath.join(posixpath.dirname(main), "conf.d") and path.endswith(".toml")
    return posixpath.join(posixpath.dirname(path), "*.toml") if in_conf_d else path


def _plan_present(plan: ConfigPlan, target: File, active: list[File], params: dict[str, Any], containerd: str | None) -> None:
    handler, allow_newer = handler_of(params), params["allow_newer_config_version"]
    merges = (config.version_tuple(containerd) or (0, 0)) >= (2, 0)
    for file in active if handler.default and not merges else ():
        _refuse_deprecated_default(file, allow_newer)
    # Below 2.0 the file that counts has to have all that the CRI plugin needs, wherever it is.
    dropin_for = None if target is plan.main or not merges else max(plan.version, MERGED_VERSION if plan.cri else 0)
    if dropin_for and "version" not in toml.parse(plan.main.text or "", plan.main.path).data:
        document = toml.parse(plan.main.text or "", plan.main.path)
        if not config.is_neutral(document):
            raise GvisorError(
                f"{plan.main.path} has no version line, so it cannot have drop-ins; convert it with `containerd config migrate`."
            )
        mark = config.FILE_MARK if plan.main.text is None else config.VERSION_MARK
        plan.main.after = toml.add(document, (), {"version": config.NEW_FILE_VERSION}, mark)
        plan.version = dropin_for = config.NEW_FILE_VERSION
    if dropin_for:  # it gets the main file's version, so that one is what a containerd that is too old cannot read
        config.cri_table(toml.parse(plan.main.after or "", plan.main.path), containerd, allow_newer)
    edit = config.set_present(
        target.text,
        handler,
        config.Place(where=target.path, containerd=containerd, allow_newer=allow_newer, dropin_for=dropin_for, cri=plan.cri),
    )
    target.after = edit.text
    plan.notes += edit.notes
    if target is plan.main:
        plan.version = edit.version
    elif not covers(plan.imports, target.path, plan.base):
        plan.main.after = config.add_import(plan.main.after or "", pattern_for(target.path, plan.main.path), where=plan.main.path)
    if handler.default is False:
        for file in active:
            if file is not target:
                file.after = config.unset_default(file.after or "", handler.name, where=file.path, allow_newer=allow_newer, cri=plan.cri)
    plan.files.sort(key=lambda file: file is plan.main)  # a file that the main one names must be there first


def _refuse_deprecated_default(file: File, allow_newer: bool) -> None:
    """Raise GvisorError where the file has the deprecated table default_runtime, beside which no default_runtime_name has an effect."""
    document = _document(file)
    cri = config.cri_table(document, None, allow_newer)
    there = config.deprecated_default(document.data, cri)
    if there:
        path = (*cri, "containerd", "default_runtime")
        line = toml.line_of(document, path)
        raise GvisorError(
            f"{file.path}, line {line}: the deprecated table {toml.dotted(path)} ({there}) wins over default_runtime_name, so default: true "
            "would have no effect. Nothing was written; remove that table first.",
            file=file.path,
            line=line,
        )


def _plan_absent(
    plan: ConfigPlan, holders: list[File], active: list[File], name: str, allow_newer: bool, tables: tuple[toml.Path | None, ...]
) -> None:
    for file in active:
        if file not in holders and holders:
            file.after = config.unset_default(file.text or "", name, where=file.path, allow_newer=allow_newer, cri=plan.cri)
    for file in holders:
        for cri in tables:
            file.after = config.set_absent(file.after, name, where=file.path, allow_newer=allow_newer, cri=cri).text
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
    document = toml.parse(text, plan.main.path)
    names: list[str] = []
    for pattern in config.imports_of(document):
        paths = {
            *plan.imports.get(pattern, []),
            *(path for path in changed if covers([pattern], path, plan.base)),
        }
        for path in sorted(paths):
            if path == plan.main.path:  # a file that imports itself is read once; the candidate must not bring the real one along
                continue
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
    there = {found["main"]["path"], *(entry["path"] for entry in found["imported"] if entry["content"] is not None)}
    return sorted(path for pattern, paths in found["imports"].items() if "*" not in pattern for path in paths if path not in there)


def changes_of(plan: ConfigPlan) -> list[dict[str, Any]]:
    """Return the edits for the module that writes them."""
    return [
        {"path": file.path, "before": file.sha256, "after": None if file.after is None else _encode(file.after)} for file in plan.written
    ]
