# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One runtime handler in containerd's configuration: text in, text out, with a proof of what changed.

A handler is a table among the CRI plugin's runtimes. Its name there is what Kubernetes' RuntimeClass calls ``handler``.
What has to be added besides it carries a comment of ours (MARK), so that taking the handler out takes that back too.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ansible_collections.ggen.gvisor.plugins.module_utils._base import platform
from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.plugin_utils._containerd import toml_text as toml

# The file's own version decides where the CRI plugin's tables are, whatever the daemon's version is.
CRI_TABLE: dict[int, toml.Path] = {
    1: ("plugins", "cri"),
    2: ("plugins", "io.containerd.grpc.v1.cri"),
    3: ("plugins", "io.containerd.cri.v1.runtime"),
    4: ("plugins", "io.containerd.cri.v1.runtime"),
}
NEWEST = max(CRI_TABLE)
SERVER = ("plugins", "io.containerd.server.v1.grpc")  # of containerd 2.3 and newer
# The oldest containerd that reads the version. Older ones refuse version 3 (1.7) or ignore all of it silently (1.6).
NEEDS_CONTAINERD = {1: (1, 0), 2: (1, 3), 3: (2, 0), 4: (2, 3)}
# What a new file gets: every containerd from 1.3 to 2.x reads it, so a rollback of the daemon stays possible.
NEW_FILE_VERSION = 2
# Runtimes in one of these tables replace containerd's built-in map of them when 1.x reads the file, so that runc
# has to be written out. That of versions 3 and 4 is read by 2.x alone, which merges.
REPLACES_BUILTIN = (CRI_TABLE[1], CRI_TABLE[2])
RUNC = {"runtime_type": "io.containerd.runc.v2"}
DEFAULT_RUNTIME = "runc"
# In a file without a version line these make a difference between version 1 and 2; without them it can get one.
# "imports" is among them: what an imported file needs cannot be told from here.
VERSION_SENSITIVE = ("imports", "plugins", "disabled_plugins", "required_plugins", "stream_processors", "proxy_plugins")
# Handlers in RuntimeClass objects are DNS labels (RFC 1123).
HANDLER_RE = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
RUNTIME_TYPE_RE = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)+|/.+")

MARK = "# ggen.gvisor: "
RUNC_MARK = f"{MARK}added, as a runtimes table replaces the built-in one that has runc"
VERSION_MARK = f"{MARK}version added"
FILE_MARK = f"{MARK}file added"
IMPORTS_MARK = f"{MARK}imports added"
IMPORT_MARK = f"{MARK}added "
DEFAULT_MARK = f"{MARK}default_runtime_name added"
SECTION_MARK = f"{MARK}section added"
WAS_MARK = f"{MARK}default_runtime_name was "


@dataclass(frozen=True)
class Handler:
    """What is wanted of one runtime handler. None means: leave it as it is."""

    name: str
    runtime_type: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    pod_annotations: list[str] | None = None
    snapshotter: str | None = None
    default: bool | None = None

    def table(self) -> dict[str, Any]:
        """Return the keys that are named, as they are in containerd's table."""
        wanted = {
            "runtime_type": self.runtime_type,
            "snapshotter": self.snapshotter,
            "pod_annotations": self.pod_annotations,
            "options": self.options or None,
        }
        return {key: copy.deepcopy(value) for key, value in wanted.items() if value is not None}


@dataclass(frozen=True)
class Edit:
    """A file's new text (None: no file), the config version that it has, and remarks for the user."""

    text: str | None
    version: int
    notes: tuple[str, ...] = ()


# --- questions to a document ---


def address_in(document: toml.Document) -> str | None:
    """Return the API's socket that the file names. In a file of version 4 the table of the versions before has no effect."""
    old = document.data.get("version", 1) != 4
    found = [toml.lookup(document.data, path) for path in ((*SERVER, "address"), *([("grpc", "address")] if old else []))]
    return next((address for address in found if isinstance(address, str) and address), None)


def version_tuple(version: str | None) -> tuple[int, int] | None:
    """Return (major, minor) of containerd's version, None when it is not known."""
    numbers = platform.version_tuple(version or "")
    return (numbers[0], numbers[1]) if numbers and len(numbers) > 1 else None


def version_of(document: toml.Document, allow_newer: bool = False) -> int:
    """Return the file's config version; a file without a version line has version 1.

    Raises GvisorError for a version that is no number, unknown, or newer than NEWEST unless ``allow_newer``.
    """
    odd = next((key for key in document.data if key.lower() == "version" and key != "version"), None)
    if odd:
        line = toml.line_of(document, (odd,))
        raise GvisorError(
            f"{document.where}, line {line}: containerd 2.x reads {odd} as version and older ones do not, so the file means different things to "
            "them. Nothing was written; write it in lower case.",
            file=document.where,
            line=line,
        )
    version = document.data.get("version", 1)
    line = toml.line_of(document, ("version",))
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise GvisorError(
            f"{document.where}, line {line}: version must be a number from 1 to {NEWEST} but is {version!r}. Nothing was written.",
            file=document.where,
            line=line,
        )
    if version > NEWEST and not allow_newer:
        raise GvisorError(
            f"{document.where}, line {line}: config version {version} is newer than what this module knows (1 to {NEWEST}). "
            f"Nothing was written. With allow_newer_config_version: true it is treated like version {NEWEST}.",
            file=document.where,
            line=line,
        )
    return version


def is_neutral(document: toml.Document) -> bool:
    """Tell whether the file means the same in version 1 and 2."""
    return not any(document.data.get(key) for key in VERSION_SENSITIVE)


def cri_table(document: toml.Document, containerd: str | None, allow_newer: bool = False) -> toml.Path:
    """Return the path of the CRI plugin's table in this file. Raises GvisorError when the daemon cannot read the version."""
    version = version_of(document, allow_newer)
    daemon = version_tuple(containerd)
    needs = NEEDS_CONTAINERD[min(version, NEWEST)]
    if daemon and daemon < needs:
        line = toml.line_of(document, ("version",))
        raise GvisorError(
            f"{document.where}, line {line}: config version {version} needs containerd {needs[0]}.{needs[1]} or newer, but this host "
            f"has {containerd}, which would ignore or refuse the file. Nothing was written; write the file for version 2.",
            file=document.where,
            line=line,
        )
    return CRI_TABLE[min(version, NEWEST)]


CRI_NAMES = frozenset({"cri", *(table[-1] for table in CRI_TABLE.values())})


def is_cri_disabled(data: dict[str, Any]) -> bool:
    """Tell whether a parsed file or dump turns the CRI plugin off."""
    disabled = data.get("disabled_plugins", [])
    return isinstance(disabled, list) and not CRI_NAMES.isdisjoint(map(str, disabled))


def disabled_cri(document: toml.Document) -> int | None:
    """Return the line that disables the CRI plugin, or None."""
    return toml.line_of(document, ("disabled_plugins",)) if is_cri_disabled(document.data) else None


def with_cri(text: str, *, where: str) -> str:
    """Return the text with the CRI plugin enabled: a disabled one is not in containerd's dump, so nothing could be told of it."""
    document = toml.parse(text, where)
    if not disabled_cri(document):
        return text
    kept = [name for name in document.data["disabled_plugins"] if name not in CRI_NAMES]
    return toml.replace_value(document, ("disabled_plugins",), toml.render(kept))


def table_in(data: dict[str, Any], version: int | None = None) -> toml.Path:
    """Return the CRI plugin's table in a parsed file or dump: its version says which; what is in the others is left over and has no effect."""
    found = data.get("version", 1) if version is None else version
    known = isinstance(found, int) and not isinstance(found, bool) and found >= 1
    return CRI_TABLE[min(found, NEWEST) if known else 1]


def handlers(data: dict[str, Any]) -> dict[str, Any]:
    """Return the runtime handlers in a parsed file or dump: name → table."""
    found = toml.lookup(data, (*table_in(data), "containerd", "runtimes"))
    return found if isinstance(found, dict) else {}


def default_name(data: dict[str, Any]) -> str:
    """Return the default runtime's name in a parsed file or dump."""
    found = toml.lookup(data, (*table_in(data), "containerd", "default_runtime_name"))
    return found if isinstance(found, str) and found else DEFAULT_RUNTIME


def deprecated_default(data: dict[str, Any], cri: toml.Path) -> str:
    """Return the type in the deprecated table default_runtime, which wins over default_runtime_name below 2.0; "" without one."""
    found = toml.lookup(data, (*cri, "containerd", "default_runtime", "runtime_type"))
    return found if isinstance(found, str) else ""


def cri_in_effect(documents: Sequence[toml.Document], containerd: str | None) -> toml.Path | None:
    """Return the CRI plugin's table that containerd heeds where it need not be the one of a file's own version, else None.

    From 2.0 on all files, of which the first is the main one, are merged, and an older table is converted only where none of them has the newest
    one, and never that of version 1.
    """
    newest = CRI_TABLE[NEWEST]
    if (version_tuple(containerd) or (0, 0)) < (2, 0):
        return None
    there = [path for path in CRI_TABLE.values() if any(isinstance(toml.lookup(document.data, path), dict) for document in documents)]
    stays_at_1 = "version" not in documents[0].data and not is_neutral(documents[0])
    return newest if newest in there or (stays_at_1 and not there) else None


# --- the edit ---


def check_handler(handler: Handler) -> None:
    """Raise GvisorError when the name cannot be a RuntimeClass handler or the type cannot be a runtime's."""
    if not HANDLER_RE.fullmatch(handler.name):
        raise GvisorError(
            f"name: {handler.name!r} cannot be the handler of a Kubernetes RuntimeClass, which takes lower case letters, digits and "
            "'-' between them, at most 63 of them. Choose a name like runsc or gvisor-kvm."
        )
    if handler.runtime_type is not None and not RUNTIME_TYPE_RE.fullmatch(handler.runtime_type):
        raise GvisorError(
            f"runtime_type: {handler.runtime_type!r} is not a runtime: write a type like io.containerd.runsc.v1 or the shim's absolute path."
        )


class Place(NamedTuple):
    """The file that a handler is written to, and what decides how."""

    where: str  # what messages call the file
    containerd: str | None = None  # the host's version, where it is known
    allow_newer: bool = False  # whether the file's version may be one that this module does not know
    dropin_for: int | None = None  # the main file's version, where the file is a drop-in
    cri: toml.Path | None = None  # the CRI plugin's table where it is another than the file's version says (cri_in_effect)


class Template(NamedTuple):
    """A Go template that a service makes its configuration from."""

    where: str
    base: str  # what a template that is not there yet begins with
    version: int  # of what is made from it


def set_present(text: str | None, handler: Handler, place: Place) -> Edit:
    """Return the text with ``handler`` in it, as wanted; keys that are not named stay as they are.

    ``text`` None means that there is no file. A drop-in gets the main file's version and no runc, as containerds that read drop-ins well merge
    runtimes. Raises GvisorError when the text cannot be edited; it proves its result first.
    """
    where, allow_newer, dropin_for = place.where, place.allow_newer, place.dropin_for
    check_handler(handler)
    before = toml.parse(text or "", where)
    document, notes = before, []
    if "version" not in document.data and (text is None or is_neutral(document)):
        mark = FILE_MARK if text is None else VERSION_MARK
        document = toml.parse(toml.add(document, (), {"version": dropin_for or NEW_FILE_VERSION}, mark), where)
    own = cri_table(document, place.containerd, allow_newer)
    cri = place.cri or own
    line = disabled_cri(document)
    if line:
        notes.append(f"{where}, line {line}: disabled_plugins turns the CRI plugin off, so Kubernetes cannot use the handler; ctr can.")
    runtimes = (*cri, "containerd", "runtimes")
    known = toml.table_at(document, runtimes) or {}
    # Asked for by version: a 2.x that reads a version 2 file merges, but the same file must survive a rollback to 1.x.
    replaces = cri in REPLACES_BUILTIN and not dropin_for
    if replaces and DEFAULT_RUNTIME not in known and handler.name != DEFAULT_RUNTIME:
        default = toml.lookup(document.data, (*cri, "containerd", "default_runtime_name"))
        needed = default in (toml.MISSING, "", DEFAULT_RUNTIME) and not deprecated_default(document.data, cri)
        if not known or needed:
            document = toml.parse(toml.add(document, (*runtimes, DEFAULT_RUNTIME), RUNC, RUNC_MARK), where)
    document = _put(document, (*runtimes, handler.name), handler.table())
    if handler.default is True:
        document = _set_default(document, cri, handler.name)
    elif handler.default is False:
        document = _unset_default(document, cri, handler.name)
    _prove_present(before, document, handler, cri)
    return Edit(document.text if text is not None or document.text else None, version_of(document, allow_newer), tuple(notes))


def set_absent(text: str | None, name: str, *, where: str, allow_newer: bool = False, cri: toml.Path | None = None) -> Edit:
    """Return the text without the handler ``name`` and without what only its coming had made necessary.

    A text that never had it comes back as it is; None means that no file is left. Raises GvisorError like set_present.
    """
    if text is None:
        return Edit(None, NEW_FILE_VERSION)
    before = document = toml.parse(text, where)
    cri = cri or cri_table(document, None, allow_newer)
    version = version_of(document, allow_newer)
    runtimes = (*cri, "containerd", "runtimes")
    if name not in (toml.table_at(document, runtimes) or {}):
        return Edit(text, version)
    document = _unset_default(document, cri, name)
    document = toml.parse(toml.remove(document, (*runtimes, name)), where)
    document = _take_back_runc(document, runtimes)
    document = _take_back_version(document)
    _prove_absent(before, document, name, cri)
    return Edit(None if _marked(before, ("version",), FILE_MARK) and not document.text else document.text, version)


def set_block(text: str | None, handler: Handler | None, name: str, template: Template, *, is_met: bool = False) -> str | None:
    """Return a Go template's text with the handler at its end, between comments of ours, or without it (``handler`` None).

    A template that is not there yet begins with its base, and goes when nothing else is left of it. One that has the handler by hand stays as it is
    where what is made from it is as wanted (``is_met``). Raises GvisorError for what a table of its own cannot say.
    """
    where = template.where
    begin, end = f"{MARK}{name} begins\n", f"{MARK}{name} ends\n"
    rest = re.sub(f"(?ms)^{re.escape(begin)}.*?^{re.escape(end)}", "", text or "")
    by_hand = re.search(rf"(?m)^[ \t]*\[.*\.runtimes\.[\"']?{re.escape(name)}[\"']?\]", rest)
    if by_hand and is_met:
        return text
    if by_hand:
        line = (text or "").count("\n", 0, (text or "").index(by_hand[0])) + 1
        raise GvisorError(
            f"{where}, line {line}: the template has the handler {name} already, and not by this module. Nothing was written; take it out there, "
            "or leave it to the template.",
            file=where,
            line=line,
        )
    if handler is None:
        return None if text is None or (rest == template.base and begin in text) else rest
    if handler.default:
        raise GvisorError(
            f"default: {where} is a template whose service has an option of its own for the default runtime. Nothing was written."
        )
    check_handler(handler)
    table = set_present(None, handler, Place(where, dropin_for=template.version)).text or ""
    block = begin + table.partition("\n")[2].lstrip("\n") + end
    if text is None:
        return template.base + block
    if begin in text:
        return re.sub(f"(?ms)^{re.escape(begin)}.*?^{re.escape(end)}", lambda _match: block, text)
    return text + ("" if text.endswith("\n") or not text else "\n") + block


def unset_default(text: str, name: str, *, where: str, allow_newer: bool = False, cri: toml.Path | None = None) -> str:
    """Return the text with the earlier default runtime where ``name`` is the default, else as it is."""
    document = toml.parse(text, where)
    return _unset_default(document, cri or cri_table(document, None, allow_newer), name).text


def take_back_version(text: str, *, where: str) -> str | None:
    """Return the text without a version line of ours that nothing in it needs; None when the file was ours and nothing is left of it."""
    before = toml.parse(text, where)
    document = _take_back_version(before)
    return None if _marked(before, ("version",), FILE_MARK) and not document.text else document.text


def add_import(text: str, pattern: str, *, where: str) -> str:
    """Return the text with ``pattern`` among its imports, with a comment on it."""
    document = toml.parse(text, where)
    imports = imports_of(document)
    if "imports" not in document.data:
        after = toml.parse(toml.add(document, (), {"imports": [pattern]}, IMPORTS_MARK), where)
    else:
        raw = toml.raw_value(document, ("imports",))
        after = toml.parse(toml.append_element(document, ("imports",), toml.render(pattern, "'" if "'" in raw else '"')), where)
        mark = f"{IMPORT_MARK}{toml.render(pattern)}"
        after = toml.parse(toml.set_tail(after, toml.statement_of(after, ("imports",)), mark), where)
    _prove({**document.data, "imports": [*imports, pattern]}, after)
    return after.text


def remove_import(text: str, pattern: str, *, where: str) -> str:
    """Return the text without ``pattern`` among its imports where it was us who added it, else as it is."""
    document = toml.parse(text, where)
    imports = imports_of(document)
    if pattern not in imports:
        return text
    mark = f"{IMPORT_MARK}{toml.render(pattern)}"
    if _marked(document, ("imports",), IMPORTS_MARK):
        if imports == [pattern]:
            return toml.remove(document, ("imports",))
        return toml.remove_element(document, ("imports",), pattern)
    if not _marked(document, ("imports",), mark):
        return text
    document = toml.parse(toml.drop_mark(document, toml.statement_of(document, ("imports",)), mark), where)
    return toml.remove_element(document, ("imports",), pattern)


def imports_of(document: toml.Document) -> list[str]:
    """Return the file's imports. Raises GvisorError when they are not a list of strings."""
    imports = document.data.get("imports", [])
    if not isinstance(imports, list) or not all(isinstance(entry, str) for entry in imports):
        line = toml.line_of(document, ("imports",))
        raise GvisorError(
            f"{document.where}, line {line}: imports must be a list of strings but is {imports!r}. Nothing was written.",
            file=document.where,
            line=line,
        )
    return imports


# --- what the host's containerd makes of it ---


def _put(document: toml.Document, path: toml.Path, wanted: dict[str, Any]) -> toml.Document:
    """Make the table at ``path`` have the wanted keys, key by key."""
    where = document.where
    table = toml.table_at(document, path)
    if table is None:
        if "runtime_type" not in wanted and len(path) == 5:
            raise GvisorError(f"runtime_type is needed: {where} has no handler {path[-1]} yet.", file=where)
        return toml.parse(toml.add(document, path, wanted), where)
    for key, value in wanted.items():
        there = table.get(key, toml.MISSING)
        if isinstance(value, dict) and value and (there is toml.MISSING or isinstance(there, dict)):
            document = _put(document, (*path, key), value)
        elif there is toml.MISSING:
            document = toml.parse(toml.add(document, path, {key: value}), where)
        elif isinstance(there, dict) != isinstance(value, dict):
            line = toml.line_of(document, (*path, key))
            raise GvisorError(
                f"{where}, line {line}: {toml.dotted((*path, key))} must be {'a table' if isinstance(value, dict) else 'a value'} to "
                f"become {value!r} but is {there!r}. Nothing was written.",
                file=where,
                line=line,
            )
        elif not same(there, value):
            written = toml.render(value, "'" if toml.raw_value(document, (*path, key)).startswith("'") else '"')
            document = toml.parse(toml.replace_value(document, (*path, key), written), where)
    return document


def same(one: Any, other: Any) -> bool:
    """Tell whether two TOML values are the same, type included: true is not 1, 1 is not 1.0."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


def _marked(document: toml.Document, path: toml.Path, mark: str) -> bool:
    """Tell whether the statement that writes ``path`` carries the mark."""
    try:
        return mark in toml.tail(document, toml.statement_of(document, path))
    except KeyError:
        return False


def _default_path(document: toml.Document, cri: toml.Path) -> tuple[toml.Path, Any]:
    """Return the path of default_runtime_name and its value. Raises GvisorError when it is no string."""
    path = (*cri, "containerd", "default_runtime_name")
    toml.table_at(document, path[:-1])
    value = toml.lookup(document.data, path)
    if value is not toml.MISSING and not isinstance(value, str):
        line = toml.line_of(document, path)
        raise GvisorError(
            f"{document.where}, line {line}: default_runtime_name must be a string but is {value!r}. Nothing was written.",
            file=document.where,
            line=line,
        )
    return path, value


def _set_default(document: toml.Document, cri: toml.Path, name: str) -> toml.Document:
    """Make ``name`` the default runtime, and remember on the line what was there."""
    path, value = _default_path(document, cri)
    if value == name:
        return document
    where = document.where
    if value is toml.MISSING:
        is_new = toml.table_at(document, path[:-1]) is None or not _has_place(document, path[:-1])
        return toml.parse(toml.add(document, path[:-1], {path[-1]: name}, SECTION_MARK if is_new else DEFAULT_MARK), where)
    raw = toml.raw_value(document, path)
    if "\n" in raw:
        line = toml.line_of(document, path)
        raise GvisorError(
            f"{where}, line {line}: default_runtime_name is written over several lines; write it on one. Nothing was written.",
            file=where,
            line=line,
        )
    document = toml.parse(toml.replace_value(document, path, toml.render(name, raw[0])), where)
    tail = toml.tail(document, toml.statement_of(document, path))
    if not any(mark in tail for mark in (WAS_MARK, DEFAULT_MARK, SECTION_MARK)):
        document = toml.parse(toml.set_tail(document, toml.statement_of(document, path), f"{WAS_MARK}{raw}"), where)
    return document


def _has_place(document: toml.Document, path: toml.Path) -> bool:
    """Tell whether a key can be added to the table without a new header."""
    return any(
        (statement.kind == "table" and statement.path == path)
        or (statement.kind == "pair" and (statement.path == path[: len(statement.path)] or _is_beside(statement, path)))
        for statement in document.statements
    )


def _is_beside(pair: toml.Statement, path: toml.Path) -> bool:
    return len(pair.header) < len(path) and pair.path[: len(path)] == path


def _unset_default(document: toml.Document, cri: toml.Path, name: str) -> toml.Document:
    """Where ``name`` is the default runtime, put back what was there before it became that."""
    path, value = _default_path(document, cri)
    if value != name:
        return document
    where = document.where
    statement = toml.statement_of(document, path)
    tail = toml.tail(document, statement)
    if WAS_MARK in tail:
        start = statement.tail + tail.index(WAS_MARK)
        raw = toml.first_string(document.text, start + len(WAS_MARK))
        if raw:
            text = document.text[: start - 1] + document.text[start + len(WAS_MARK) + len(raw) :]
            return toml.parse(toml.replace_value(toml.parse(text, where), path, raw), where)
    if DEFAULT_MARK in tail:
        document = toml.parse(toml.drop_mark(document, statement, DEFAULT_MARK), where)
        return toml.parse(toml.remove(document, path), where)
    if _marked(document, path[:-1], SECTION_MARK):
        section = toml.statement_of(document, path[:-1])
        alone = toml.section_keys(document, section) == [path]
        return toml.parse(toml.remove_section(document, section) if alone else toml.remove(document, path), where)
    # Somebody else made it the default: the built-in default comes next, if there is one.
    has_runc = DEFAULT_RUNTIME in (toml.table_at(document, (*cri, "containerd", "runtimes")) or {})
    if name == DEFAULT_RUNTIME or not (has_runc or cri not in REPLACES_BUILTIN):
        line = toml.line_of(document, path)
        raise GvisorError(
            f"{where}, line {line}: {name} is the default runtime and there is no {DEFAULT_RUNTIME} to take its place. Nothing was written; "
            "set default_runtime_name to another handler first.",
            file=where,
            line=line,
        )
    quote = toml.raw_value(document, path)[0]
    return toml.parse(toml.replace_value(document, path, toml.render(DEFAULT_RUNTIME, quote)), where)


def _take_back_runc(document: toml.Document, runtimes: toml.Path) -> toml.Document:
    """Take out the runc table that we added, when it is alone again and nobody changed it."""
    path = (*runtimes, DEFAULT_RUNTIME)
    if (toml.table_at(document, runtimes) or {}) != {DEFAULT_RUNTIME: RUNC} or not _marked(document, path, RUNC_MARK):
        return document
    document = toml.parse(toml.drop_mark(document, toml.statement_of(document, path), RUNC_MARK), document.where)
    return toml.parse(toml.remove(document, path), document.where)


def _take_back_version(document: toml.Document) -> toml.Document:
    """Take out the version line that we added, when nothing in the file depends on it."""
    if is_neutral(document) and (_marked(document, ("version",), VERSION_MARK) or _marked(document, ("version",), FILE_MARK)):
        return toml.parse(toml.remove(document, ("version",)), document.where)
    return document


# --- the proof: what the new text means is what the old one meant, plus what was asked for ---


def _prove(expected: dict[str, Any], document: toml.Document) -> None:
    if not same(prune(expected), prune(document.data)):
        raise GvisorError(
            f"{document.where}: the edited text would not mean what it should. Nothing was written. This is a fault of this module: please "
            "report the file's shape."
        )


def prune(data: dict[str, Any]) -> dict[str, Any]:
    """Return the data without empty tables: a header without keys says nothing, and comes and goes with its children."""
    pruned = {key: prune(value) if isinstance(value, dict) else value for key, value in data.items()}
    return {key: value for key, value in pruned.items() if value != {}}


def _merge(table: dict[str, Any], wanted: dict[str, Any]) -> None:
    for key, value in wanted.items():
        if isinstance(value, dict) and isinstance(table.get(key), dict):
            _merge(table[key], value)
        else:
            table[key] = copy.deepcopy(value)


def _prove_present(before: toml.Document, after: toml.Document, handler: Handler, cri: toml.Path) -> None:
    expected = copy.deepcopy(before.data)
    if "version" not in expected and "version" in after.data:
        expected["version"] = after.data["version"]
    table = expected
    for part in (*cri, "containerd"):
        table = table.setdefault(part, {})
    _merge(table.setdefault("runtimes", {}).setdefault(handler.name, {}), handler.table())
    found = toml.lookup(after.data, (*cri, "containerd"))
    if DEFAULT_RUNTIME not in table["runtimes"] and DEFAULT_RUNTIME in found["runtimes"]:
        table["runtimes"][DEFAULT_RUNTIME] = dict(RUNC)
    if handler.default is True:
        table["default_runtime_name"] = handler.name
    elif handler.default is False and table.get("default_runtime_name") == handler.name:
        table.pop("default_runtime_name")
        if "default_runtime_name" in found and found["default_runtime_name"] != handler.name:
            table["default_runtime_name"] = found["default_runtime_name"]
    _prove(expected, after)


def _prove_absent(before: toml.Document, after: toml.Document, name: str, cri: toml.Path) -> None:
    expected = copy.deepcopy(before.data)
    table = toml.lookup(expected, (*cri, "containerd"))
    del table["runtimes"][name]
    found = toml.lookup(after.data, (*cri, "containerd"))
    found = {} if found is toml.MISSING else found
    if table["runtimes"] == {DEFAULT_RUNTIME: RUNC} and DEFAULT_RUNTIME not in found.get("runtimes", {}):
        del table["runtimes"][DEFAULT_RUNTIME]
    if table.get("default_runtime_name") == name:
        del table["default_runtime_name"]
        if found.get("default_runtime_name", name) != name:
            table["default_runtime_name"] = found["default_runtime_name"]
    if "version" not in after.data:
        expected.pop("version", None)
    _prove(expected, after)
