# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Edit a TOML text in place: every byte that is not asked for stays.

tomllib decides what a text means and whether it is TOML at all, tomlkit writes the values. What neither of them offers is
where in the text a table or a value lies, and that is all that is added here: a list of the text's statements with
their offsets, and edits that replace, insert or cut spans of the text. docs/decisions has why no document is rewritten.

All functions are pure. Paths are tuples of unquoted key names, from the root of the document.
"""

from __future__ import annotations

import codecs
import functools
import re
from collections import Counter
from dataclasses import dataclass
from typing import Any, Iterator, Mapping, NamedTuple

import tomllib
from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError

try:
    import tomlkit
except ImportError as error:  # pragma: no cover - the message is what matters
    TOMLKIT_ERROR: ImportError | None = error
else:
    TOMLKIT_ERROR = None

Path = tuple[str, ...]
MISSING = object()
DEPTH_LIMIT = 64  # containerd's tables are six deep; what is far beyond that would only end Python's recursion

_BASIC, _LITERAL = r'"(?:[^"\\\n]|\\.)*"', r"'[^'\n]*'"
# A multi-line string may end with up to two quotes of its own before the three that close it.
_STRING = rf'"""(?:[^\\]|\\.)*?"{{3,5}}|\'\'\'.*?\'{{3,5}}|{_BASIC}|{_LITERAL}'
_SIMPLE_KEY = rf"(?:{_BASIC}|{_LITERAL}|[A-Za-z0-9_-]+)"
_STRING_RE = re.compile(_STRING, re.DOTALL)
_NESTED_RE = re.compile(rf"{_STRING}|#[^\n]*|[\[\]{{}}]", re.DOTALL)
_KEY_RE = re.compile(rf"{_SIMPLE_KEY}(?:[ \t]*\.[ \t]*{_SIMPLE_KEY})*")
_SCALAR_RE = re.compile(r"[^\s,\]}#]+(?: \d[^\s,\]}#]*)?")  # the blank is a date-time's
_GAP_RE = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_KEY_PART_RE = re.compile(_SIMPLE_KEY)
_BARE_KEY_RE = re.compile(r"[A-Za-z0-9_-]+")
_LINE_RE = re.compile(r"\(at line (\d+), column \d+\)|\(at end of document\)")


class Statement(NamedTuple):
    """One statement, as whole lines of the text: ``kind`` is blank, comment, table, array (of tables) or pair."""

    kind: str
    start: int  # of its first line
    end: int  # after its last line's line ending
    line: int  # counted from 1
    indent: str
    path: Path  # from the root: the table that a header opens, or a pair's full key; () for the rest
    header: Path  # the table whose section it stands in
    key: tuple[int, int]  # span of the key as written
    value: tuple[int, int]  # span of a pair's value
    tail: int  # where a trailing comment can begin: after the value or the header's bracket


class Item(NamedTuple):
    """A member of an inline table (with ``key``) or an array (without)."""

    key: Path
    start: int
    value: tuple[int, int]


@dataclass(frozen=True)
class Document:
    """A text that is valid TOML, what it means, and where its statements are. ``where`` names it in messages."""

    text: str
    where: str
    data: dict[str, Any]
    statements: tuple[Statement, ...]

    @functools.cached_property
    def pairs(self) -> list[Statement]:
        """The key/value statements in the text's order."""
        return [statement for statement in self.statements if statement.kind == "pair"]

    @functools.cached_property
    def headers(self) -> list[Statement]:
        """The table headers in the text's order."""
        return [statement for statement in self.statements if statement.kind in ("table", "array")]

    @functools.cached_property
    def sections(self) -> dict[int, list[Statement]]:
        """The pairs of each header's section, by the header's start."""
        found: dict[int, list[Statement]] = {header.start: [] for header in self.headers}
        section: list[Statement] = []
        for statement in self.statements:
            if statement.kind == "pair":
                section.append(statement)
            else:
                section = found.get(statement.start, section)
        return found


# --- reading ---


@functools.lru_cache(maxsize=8)
def parse(text: str, where: str) -> Document:
    """Return the document, which nobody may change: the same is given out again. Raises GvisorError with the line when ``text`` is not TOML."""
    try:
        data = tomllib.loads(text)
        if _depth(data) > DEPTH_LIMIT:
            raise ValueError(f"tables and arrays are nested more than {DEPTH_LIMIT} deep (at line 1, column 1)")
    except (ValueError, RecursionError) as error:  # ValueError: also a number of more digits than Python reads
        reason = str(error) or type(error).__name__
        if "{{" in text:
            reason += " (the file looks like a Go template, from which a service makes its configuration)"
        match = _LINE_RE.search(reason)
        line = int(match[1]) if match and match[1] else text.rstrip().count("\n") + 1
        raise GvisorError(
            f"{where}, line {line}: not valid TOML: {_LINE_RE.sub('', reason).strip()}. Nothing was written; fix the line first.",
            file=where,
            line=line,
        ) from error
    return Document(text, where, data, tuple(_statements(text)))


def _depth(data: Any) -> int:
    """Return how deep tables and arrays are nested, without recursion."""
    depth, level = 0, [data]
    while level:
        depth += 1
        level = [
            element
            for value in level
            for element in (value.values() if isinstance(value, dict) else value)
            if isinstance(element, (dict, list))
        ]
    return depth


def decode(raw: bytes, where: str) -> str:
    """Return the bytes as text. Raises GvisorError with the line number when they are not UTF-8 without a mark, as TOML must be."""
    if raw.startswith(codecs.BOM_UTF8):
        raise GvisorError(
            f"{where}, line 1: the file begins with a byte order mark, which containerd 2.x refuses; save it without. Nothing was written.",
            file=where,
            line=1,
        )
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise GvisorError(
            f"{where}, line {line}: byte 0x{raw[error.start]:02x} is not UTF-8, so this is not TOML. Nothing was written.",
            file=where,
            line=line,
        ) from error


@functools.lru_cache(maxsize=1 << 15)  # each edit has the text read anew, and its keys are the same
def _key_path(written: str) -> Path:
    """Return a dotted key's parts without their quotes."""
    return tuple(map(_key_part, _KEY_PART_RE.findall(written)))


def _key_part(written: str) -> str:
    if written[0] not in "\"'":
        return written
    if written[0] == "'" or "\\" not in written:
        return written[1:-1]
    return tomllib.loads(f"key = {written}")["key"]


def _skip(text: str, position: int) -> int:
    """Return the offset after blanks and tabs."""
    while text[position : position + 1] in (" ", "\t"):
        position += 1
    return position


def _value_end(text: str, start: int) -> int:
    """Return the offset after the value that begins at ``start``."""
    if text[start] in "\"'":
        return _STRING_RE.match(text, start).end()
    if text[start] not in "[{":
        return _SCALAR_RE.match(text, start).end()
    depth = 0
    for token in _NESTED_RE.finditer(text, start):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(token[0], 0)
        if depth == 0:
            return token.end()
    raise AssertionError("valid TOML closes its brackets")


def _statements(text: str) -> Iterator[Statement]:
    """Yield the statements of a valid text; together they are the whole text."""
    header: Path = ()
    position, line = 0, 1
    while position < len(text):
        begin = _skip(text, position)
        path: Path = ()
        key = value = (begin, begin)
        if text[begin : begin + 1] in ("", "\n", "\r"):
            kind, tail = "blank", begin
        elif text[begin] == "#":
            kind, tail = "comment", begin
        elif text[begin] == "[":
            brackets = 2 if text[begin + 1] == "[" else 1
            kind = "array" if brackets == 2 else "table"
            key = _KEY_RE.match(text, _skip(text, begin + brackets)).span()
            path = header = _key_path(text[slice(*key)])
            tail = text.index("]", key[1]) + brackets
        else:
            kind = "pair"
            key = _KEY_RE.match(text, begin).span()
            path = header + _key_path(text[slice(*key)])
            first = _skip(text, text.index("=", key[1]) + 1)
            value = (first, _value_end(text, first))
            tail = value[1]
        end = text.find("\n", tail) + 1 or len(text)
        yield Statement(kind, position, end, line, text[position:begin], path, header, key, value, tail)
        line += text.count("\n", position, end)
        position = end


def _items(text: str, start: int) -> list[Item]:
    """Return the members of the inline table or array whose bracket is at ``start``."""
    items: list[Item] = []
    inline = text[start] == "{"
    position = _GAP_RE.match(text, start + 1).end()
    while text[position] not in "]}":
        begin, key = position, ()
        if inline:
            match = _KEY_RE.match(text, position)
            key = _key_path(match[0])
            position = _GAP_RE.match(text, text.index("=", match.end()) + 1).end()
        value = (position, _value_end(text, position))
        items.append(Item(key, begin, value))
        position = _GAP_RE.match(text, value[1]).end()
        if text[position] == ",":
            position = _GAP_RE.match(text, position + 1).end()
    return items


def lookup(data: Mapping[str, Any], path: Path) -> Any:
    """Return the value at ``path``, or MISSING."""
    value: Any = data
    for part in path:
        if not isinstance(value, dict) or part not in value:
            return MISSING
        value = value[part]
    return value


def line_of(document: Document, path: Path) -> int:
    """Return the line on which ``path``, or the innermost of its parents that is written out, stands; 1 when none is."""
    for length in range(len(path), 0, -1):
        for statement in document.statements:
            if statement.path and statement.path[:length] == path[:length]:
                return statement.line
    return 1


def table_at(document: Document, path: Path) -> dict[str, Any] | None:
    """Return the table at ``path`` or None. Raises GvisorError with the line when it, or a parent, is something else."""
    for length in range(1, len(path) + 1):
        value = lookup(document.data, path[:length])
        if value is MISSING:
            return None
        if not isinstance(value, dict):
            kind = "an array of tables" if isinstance(value, list) and value and isinstance(value[0], dict) else f"the value {value!r}"
            line = line_of(document, path[:length])
            raise GvisorError(
                f"{document.where}, line {line}: {dotted(path[:length])} must be a table but is {kind}. Nothing was written.",
                file=document.where,
                line=line,
            )
    return lookup(document.data, path) if path else document.data


def raw_value(document: Document, path: Path) -> str:
    """Return the value at ``path`` as it is written."""
    _statement, span = _leaf(document, path)
    return document.text[slice(*span)]


def statement_of(document: Document, path: Path) -> Statement:
    """Return the statement that writes ``path``: its header, its pair, or the pair whose inline table holds it."""
    for statement in document.statements:
        if statement.path == path:
            return statement
    for statement in document.pairs:
        if statement.path[: len(path)] == path or path[: len(statement.path)] == statement.path:
            return statement
    raise KeyError(path)


def _leaf(document: Document, path: Path) -> tuple[Statement, tuple[int, int]]:
    """Return the statement and the span of the value written for ``path``. Raises KeyError when none is."""
    for statement in document.pairs:
        rest, span = path[len(statement.path) :], statement.value
        if statement.path != path[: len(statement.path)]:
            continue
        while rest and document.text[span[0]] == "{":
            found = next((item for item in _items(document.text, span[0]) if item.key == rest[: len(item.key)]), None)
            if found is None:
                break
            rest, span = rest[len(found.key) :], found.value
        if not rest:
            return statement, span
    raise KeyError(path)


# --- writing values and keys ---


def dotted(path: Path, quote: str = '"') -> str:
    """Return the path as TOML writes it, quoting what cannot be bare."""
    return ".".join(part if _BARE_KEY_RE.fullmatch(part) else render(part, quote) for part in path)


def render(value: Any, quote: str = '"') -> str:
    """Return the value as TOML on one line. Strings are written with ``quote`` where they can be.

    Raises GvisorError for values that TOML does not have (null).
    """
    if TOMLKIT_ERROR:
        raise GvisorError("the Python library tomlkit is missing on the controller: pip install -r requirements.txt") from TOMLKIT_ERROR
    if isinstance(value, str):
        plain = quote == "'" and "'" not in value and value.isprintable()
        return tomlkit.string(value, literal=plain).as_string()
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(render(element, quote) for element in value)}]"
    if isinstance(value, dict):
        pairs = ", ".join(f"{dotted((key,), quote)} = {render(element, quote)}" for key, element in value.items())
        return f"{{ {pairs} }}" if pairs else "{}"
    if value is None:
        raise GvisorError("TOML has no null: leave the key out instead")
    return tomlkit.item(value).as_string()


# --- edits: each returns the new text ---


def replace_value(document: Document, path: Path, written: str) -> str:
    """Write ``written`` in the place of the value at ``path``."""
    _statement, (start, end) = _leaf(document, path)
    return document.text[:start] + written + document.text[end:]


def set_tail(document: Document, statement: Statement, mark: str) -> str:
    """Add the comment ``mark`` to the statement, before any comment that it already has."""
    return f"{document.text[: statement.tail]} {mark}{document.text[statement.tail :]}"


def tail(document: Document, statement: Statement) -> str:
    """Return what follows the statement's value or header on its last line: a comment, or nothing."""
    return document.text[statement.tail : statement.end].rstrip("\r\n")


def drop_mark(document: Document, statement: Statement, mark: str) -> str:
    """Take the comment ``mark`` off the statement, with the blank that set_tail put before it."""
    at = document.text.find(f" {mark}", statement.tail, statement.end)
    return document.text if at < 0 else document.text[:at] + document.text[at + len(mark) + 1 :]


def first_string(text: str, at: int) -> str:
    """Return the string that is written at offset ``at``, with its quotes; "" when there is none."""
    match = _STRING_RE.match(text, at)
    return match[0] if match else ""


def cut(document: Document, start: int, end: int) -> str:
    """Cut a span. Where it reaches the end of a text without a final line ending, the text goes on without one."""
    text = document.text
    if end == len(text) and start > 0 and text[start - 1] == "\n" and not text[start:end].endswith("\n"):
        start -= 2 if text[:start].endswith("\r\n") else 1
    return text[:start] + text[end:]


def add(document: Document, path: Path, values: Mapping[str, Any], mark: str = "") -> str:
    """Add ``values`` to the table at ``path``, which is written in the way in which its surroundings are.

    The nearest parent that the text has decides: inside an inline table they become members of it, beside dotted keys
    dotted keys, in a table with a header lines of its section; else a section of its own, after its siblings.
    Tables among the values become sections below it. ``mark`` is a comment on what was added. The keys must be new.
    """
    if not path:
        return _insert_first(document, values, mark)
    inline = next((pair for pair in document.pairs if pair.path == path[: len(pair.path)]), None)
    if inline is not None:
        return _add_inline(document, inline, path, values, mark)
    for length in range(len(path), 0, -1):
        above = path[:length]
        beside = [pair for pair in document.pairs if len(pair.header) < length and pair.path[:length] == above]
        if beside:
            return _add_dotted(document, beside[-1], path, values, mark)
        headers = [header for header in document.headers if header.path[:length] == above]
        explicit = next((header for header in headers if header.path == path), None)
        if explicit:
            return _add_to_section(document, explicit, path, values, mark)
        if headers:
            break
    return _add_section(document, path, values, mark)


def remove(document: Document, path: Path) -> str:
    """Cut all that is written at or below ``path``: sections, dotted keys, members of inline tables.

    Comments between a section's keys go with it; comments before its header and after its last key stay.
    """
    while True:
        text = _remove_one(document, path)
        if text is None:
            return document.text
        document = parse(text, document.where)


def section_keys(document: Document, header: Statement) -> list[Path]:
    """Return the full paths of the pairs in one header's section."""
    return [pair.path for pair in _section_pairs(document, header)]


def remove_section(document: Document, header: Statement) -> str:
    """Cut one header with its pairs and the blank line before it."""
    index = document.statements.index(header)
    before = document.statements[index - 1] if index else header
    pairs = _section_pairs(document, header)
    return cut(document, (before if before.kind == "blank" else header).start, (pairs or [header])[-1].end)


def append_element(document: Document, path: Path, written: str) -> str:
    """Append the element ``written`` to the array at ``path``."""
    _statement, span = _leaf(document, path)
    return _insert_member(document.text, span, written)


def remove_element(document: Document, path: Path, value: Any) -> str:
    """Cut the last element equal to ``value`` from the array at ``path``."""
    _statement, span = _leaf(document, path)
    elements = _items(document.text, span[0])
    index = max(index for index, element in enumerate(lookup(document.data, path)) if element == value)
    return _cut_member(document.text, span, elements, index)


# --- how the edits are done ---


def _newline(document: Document, near: int) -> str:
    """Return the line ending used before offset ``near``, else the text's first one, else a line feed."""
    at = document.text.rfind("\n", 0, near)
    if at < 0:
        at = document.text.find("\n")
    return "\r\n" if at > 0 and document.text[at - 1] == "\r" else "\n"


def _insert_lines(document: Document, at: int, lines: list[str]) -> str:
    """Insert whole lines at the line start ``at``; at the end of a text without a final line ending, none is made."""
    text, newline = document.text, _newline(document, at)
    if at == len(text) and at > 0 and text[at - 1] != "\n":
        return text + newline + newline.join(lines)
    return text[:at] + "".join(line + newline for line in lines) + text[at:]


def _quote(document: Document, path: Path) -> str:
    """Return the quote that the neighbours of ``path`` write: the one found more often near it, else in the whole text."""
    for length in range(len(path), -1, -1):
        counts: Counter[str] = Counter()
        for statement in document.statements:
            if statement.path and statement.path[:length] == path[:length]:
                counts.update(re.findall(r"[\"']", document.text[statement.key[0] : statement.tail]))
        if counts:
            return "'" if counts["'"] > counts['"'] else '"'
    return '"'


def _mark(mark: str) -> str:
    return f" {mark}" if mark else ""


def _insert_first(document: Document, values: Mapping[str, Any], mark: str) -> str:
    """Add pairs to the root table: after its last one, else at the very top, as what follows a header belongs to that header."""
    quote = _quote(document, ())
    roots = [pair for pair in document.pairs if not pair.header]
    indent = roots[-1].indent if roots else ""
    lines = [f"{indent}{dotted((key,), quote)} = {render(value, quote)}{_mark(mark)}" for key, value in values.items()]
    if roots:
        return _insert_lines(document, roots[-1].end, lines)
    newline = _newline(document, 0)
    return "".join(line + newline for line in lines) + document.text


def _insert_member(text: str, span: tuple[int, int], written: str) -> str:
    """Insert a member at the end of the inline table or array at ``span``."""
    members = _items(text, span[0])
    if members:
        at, lead = members[-1].value[1], ", "
        # In an array that is written over several lines, a new element gets a line like the last one's.
        line_start = text.rfind("\n", span[0], members[-1].start) + 1
        if line_start and text[line_start : members[-1].start].isspace():
            newline = "\r\n" if text[line_start - 2] == "\r" else "\n"
            lead = f",{newline}{text[line_start : members[-1].start]}"
    else:
        at = span[0] + 1
        lead = " " if text[at] in " \t" else ""
    return text[:at] + lead + written + text[at:]


def _cut_member(text: str, span: tuple[int, int], members: list[Item], index: int) -> str:
    """Cut one member and the separator that came with it: the exact reverse of _insert_member for the last one."""
    member = members[index]
    if index > 0:
        start, end = members[index - 1].value[1], member.value[1]
    elif len(members) > 1:
        start, end = member.start, members[1].start
    else:
        start, end = span[0] + 1, member.value[1]
    return text[:start] + text[end:]


def _add_inline(document: Document, statement: Statement, path: Path, values: Mapping[str, Any], mark: str) -> str:
    """Add members to the inline table that ``statement`` writes, or to one within it."""
    text, quote = document.text, _quote(document, path)
    rest, span = path[len(statement.path) :], statement.value
    while rest and text[span[0]] == "{":
        found = next((item for item in _items(text, span[0]) if item.key == rest[: len(item.key)]), None)
        if found is None:
            break
        rest, span = rest[len(found.key) :], found.value
    if mark:
        text = text[: statement.tail] + _mark(mark) + text[statement.tail :]
    if rest and lookup(document.data, path) is MISSING:
        members: list[tuple[Path, Any]] = [(rest, dict(values))]
    else:  # rest: the table is made of dotted keys inside the inline table, so go on in that way
        members = [((*rest, key), value) for key, value in values.items()]
    for key, value in members:
        text = _insert_member(text, span, f"{dotted(key, quote)} = {render(value, quote)}")
    return text


def _flat(values: Mapping[str, Any], prefix: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Yield the values with their paths; an empty table is a value too."""
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, (*prefix, key))
        else:
            yield (*prefix, key), value


def _add_dotted(document: Document, beside: Statement, path: Path, values: Mapping[str, Any], mark: str) -> str:
    """Add dotted keys after ``beside``, in its section."""
    quote, relative = _quote(document, path), path[len(beside.header) :]
    lines = [f"{beside.indent}{dotted((*relative, *key), quote)} = {render(value, quote)}{_mark(mark)}" for key, value in _flat(values)]
    return _insert_lines(document, beside.end, lines)


def _section_pairs(document: Document, header: Statement) -> list[Statement]:
    """Return the pairs of one header's section."""
    return document.sections[header.start]


def _add_to_section(document: Document, header: Statement, path: Path, values: Mapping[str, Any], mark: str) -> str:
    """Add lines to an existing section, after its last pair."""
    quote = _quote(document, path)
    pairs = _section_pairs(document, header)
    after = pairs[-1] if pairs else header
    indent = pairs[-1].indent if pairs else header.indent + _key_indent(document, header)
    plain = {key: value for key, value in values.items() if not isinstance(value, dict)}
    text = document.text
    if plain:
        lines = [f"{indent}{dotted((key,), quote)} = {render(value, quote)}{_mark(mark)}" for key, value in plain.items()]
        text = _insert_lines(document, after.end, lines)
    for key, value in values.items():
        if isinstance(value, dict):
            text = add(parse(text, document.where), (*path, key), value, mark)
    return text


def _key_indent(document: Document, near: Statement | None) -> str:
    """Return by how much keys are indented against their header, nearby or else in most of the text."""
    extras: Counter[str] = Counter()
    for header in document.headers:
        pairs = _section_pairs(document, header)
        if pairs and pairs[0].indent.startswith(header.indent):
            extra = pairs[0].indent[len(header.indent) :]
            if near is not None and header.start == near.start:
                return extra
            extras[extra] += 1
    return extras.most_common(1)[0][0] if extras else ""


def _common(one: Path, other: Path) -> int:
    """Return how many leading parts the paths share."""
    count = 0
    for left, right in zip(one, other):
        if left != right:
            break
        count += 1
    return count


def _header_indent(document: Document, path: Path) -> tuple[str, str]:
    """Return the indentation of a new header for ``path`` and that of its keys, as its neighbours have them."""
    if not document.headers:
        return "", ""
    known = {header.path: header.indent for header in document.headers}
    units = Counter(
        header.indent[len(known[header.path[:-1]]) :]
        for header in document.headers
        if header.path[:-1] in known and header.indent.startswith(known[header.path[:-1]])
    )
    nearest = max(document.headers, key=lambda header: (_common(header.path, path), len(header.path) == len(path), header.start))
    if units:
        unit = units.most_common(1)[0][0]
    else:
        depth = len(nearest.path) - 1
        unit = nearest.indent[: len(nearest.indent) // depth] if depth else ""
    steps = len(path) - len(nearest.path)
    kept = nearest.indent if steps >= 0 else nearest.indent[: max(0, len(nearest.indent) + steps * len(unit))]
    indent = kept + unit * max(0, steps)
    return indent, indent + _key_indent(document, nearest)


def _is_spaced(document: Document) -> bool:
    """Tell whether most headers after the first have a blank line before them (and before their comment)."""
    spaced = 0
    statements = document.statements
    first = document.headers[0].start if document.headers else 0
    for index, header in enumerate(statements):
        if header.kind not in ("table", "array") or header.start == first:
            continue
        before = index - 1
        while before >= 0 and statements[before].kind == "comment":
            before -= 1
        spaced += statements[before].kind == "blank"
    return spaced * 2 >= max(0, len(document.headers) - 1)


def _section_place(document: Document, path: Path) -> int:
    """Return the offset at which a new section for ``path`` goes: after its nearest relatives, else at the end.

    Comments right above the following header belong to that one, all others to the section before them.
    """
    statements = document.statements
    limit = len(statements)
    for length in range(len(path) - 1, 0, -1):
        relatives = [i for i, s in enumerate(statements) if s.kind in ("table", "array") and s.path[:length] == path[:length]]
        if relatives:
            limit = next(
                (i for i in range(relatives[-1] + 1, len(statements)) if statements[i].kind in ("table", "array")),
                limit,
            )
            break
    last = limit
    if limit < len(statements):
        while statements[last - 1].kind == "comment":
            last -= 1
    while last > 0 and statements[last - 1].kind == "blank":
        last -= 1
    return statements[last - 1].end if last else 0


def _add_section(document: Document, path: Path, values: Mapping[str, Any], mark: str) -> str:
    """Add ``[path]`` with its values, and a section for each table among them; one with nothing but tables needs no header."""
    quote = _quote(document, path)
    plain = {key: value for key, value in values.items() if not isinstance(value, dict)}
    text = document.text
    if plain or not values:
        indent, key_indent = _header_indent(document, path)
        at = _section_place(document, path)
        lines = [""] if at > 0 and _is_spaced(document) else []
        lines.append(f"{indent}[{dotted(path, quote)}]{_mark(mark)}")
        lines += [f"{key_indent}{dotted((key,), quote)} = {render(value, quote)}" for key, value in plain.items()]
        text = _insert_lines(document, at, lines)
    for key, value in values.items():
        if isinstance(value, dict):
            text = add(parse(text, document.where), (*path, key), value)
    return text


def _remove_one(document: Document, path: Path) -> str | None:
    """Cut the last thing written at or below ``path``; None when nothing is."""
    length, text = len(path), document.text
    for index in range(len(document.statements) - 1, -1, -1):
        statement = document.statements[index]
        if statement.kind in ("table", "array") and statement.path[:length] == path:
            return remove_section(document, statement)
        if statement.kind != "pair" or statement.header[:length] == path:
            continue
        if statement.path[:length] == path:
            return cut(document, statement.start, statement.end)
        rest, span = path[len(statement.path) :], statement.value
        if statement.path != path[: len(statement.path)]:
            continue
        while rest and text[span[0]] == "{":
            members = _items(text, span[0])
            inside = [i for i, member in enumerate(members) if member.key[: len(rest)] == rest]
            if inside:
                return _cut_member(text, span, members, inside[-1])
            found = next((member for member in members if member.key == rest[: len(member.key)]), None)
            if found is None:
                break
            rest, span = rest[len(found.key) :], found.value
    return None
