"""Editing generated configurations: what must hold for any TOML text, however it is written, and for no text at all.

GGEN_GVISOR_EXAMPLES sets the number of examples of each property.
"""

from __future__ import annotations

import copy
import os

import pytest
import tomllib
from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.plugin_utils._containerd import runtime_config as config
from ansible_collections.ggen.gvisor.plugins.plugin_utils._containerd import toml_text as toml
from ansible_collections.ggen.gvisor.plugins.plugin_utils._containerd import verdict
from hypothesis import HealthCheck, Phase, event, given, settings
from hypothesis import strategies as st
from support import fixtures

EXAMPLES = int(os.environ.get("GGEN_GVISOR_EXAMPLES", "150"))
# An example that fails is small enough to read as it is; making it smaller would take minutes.
many = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
)
INPUTS = [text.encode() for text in fixtures.inputs().values()]

CRI = {1: "cri", 2: "io.containerd.grpc.v1.cri", 3: "io.containerd.cri.v1.runtime", 4: "io.containerd.cri.v1.runtime"}
words = st.sampled_from(["a", "b-c", "D_1", "x.y", "with blank", 'q"uote', "it's", "", "ü", "#no comment", "[t]", "1"])
strings = st.one_of(words, st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), max_size=12))


# --- generated values, each as (value, the way in which it is written) ---


def basic(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


@st.composite
def written_string(draw: st.DrawFn, keep: str | None = None) -> str:
    text = draw(strings) if keep is None else keep
    styles = [basic(text), f'"""\n{basic(text)[1:-1]}"""']
    if "'" not in text:
        styles += [f"'{text}'", f"'''{text}'''"]
    if keep is None:
        styles.append(f'"""{basic(text)[1:-1]}\n[not.a.table]\nkey = 1 # "" \n\\\n   x"""')
    return draw(st.sampled_from(styles))


written_scalar = st.one_of(
    written_string(),
    st.sampled_from(["1", "-2", "0x1F", "1.5", "inf", "true", "false", "1979-05-27 07:32:00", "07:32:00", "1_000"]),
)


def nested(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    keys = st.sampled_from(["a", "b", '"c d"', "'e'", "f.g"])
    pairs = st.lists(st.tuples(keys, values), max_size=3, unique_by=lambda pair: pair[0])
    blank = st.sampled_from(["", " ", "\t"])
    gap = st.sampled_from(["", " ", "\n  ", " # x ] }\n", "\n"])
    return st.one_of(
        st.builds(
            lambda items, g, c: f"[{g}{f',{g}'.join(items)}{c if items else ''}{g}]",
            st.lists(values, max_size=3),
            gap,
            st.sampled_from(["", ","]),
        ),
        st.builds(lambda items, b: "{" + b + f",{b}".join(f"{k}{b}={b}{v}" for k, v in items) + b + "}", pairs, blank),
    )


# Inside an inline table TOML 1.0 has no line breaks, but strings and arrays may bring some: tomllib decides.
written_value = st.recursive(written_scalar, nested, max_leaves=6)


@st.composite
def written_key(draw: st.DrawFn, part: str) -> str:
    styles = [basic(part)]
    if "'" not in part:
        styles.append(f"'{part}'")
    if part and all(letter.isascii() and (letter.isalnum() or letter in "-_") for letter in part):
        styles += [part, part]
    return draw(st.sampled_from(styles))


@st.composite
def written_path(draw: st.DrawFn, path: tuple[str, ...]) -> str:
    dot = draw(st.sampled_from([".", ".", " . ", ".\t"]))
    return dot.join(draw(written_key(part)) for part in path)


@st.composite
def documents(draw: st.DrawFn) -> str:
    """A TOML text with random tables and, mostly, tables of the CRI plugin, each table written in a random way."""
    version = draw(st.sampled_from([1, 2, 2, 3, 4]))
    with_line = version != 1 or draw(st.booleans())
    tree: dict = {}
    for _round in range(draw(st.integers(0, 3))):
        path = draw(st.lists(words, min_size=1, max_size=3))
        if path[0] not in ("plugins", "version", "imports", "disabled_plugins"):
            insert(tree, path, draw(written_value))
    containerd = ("plugins", CRI[version], "containerd")
    for path, chance in (
        ((*containerd[:2], "sandbox_image"), 3),
        ((*containerd, "snapshotter"), 3),
        ((*containerd, "runtimes", "runc", "options", "SystemdCgroup"), 4),
        ((*containerd, "runtimes", "kata", "privileged"), 4),
        (("plugins", "other", "table"), 3),
    ):
        if draw(st.integers(0, 9)) < chance:
            insert(tree, list(path), draw(written_value))
    for name in ("runc", "kata", "nvidia", "runsc"):
        if draw(st.integers(0, 9)) < (1 if name == "runsc" else 3):
            insert(tree, [*containerd, "runtimes", name, "runtime_type"], draw(written_string(keep="io.containerd.runc.v2")))
    if draw(st.integers(0, 9)) < 4:
        name = draw(st.sampled_from(["runc", "kata", "runsc"]))
        style = [f'"{name}"', f"'{name}'", f'"""{name}"""', f'"\\u{ord(name[0]):04x}{name[1:]}"']
        insert(tree, [*containerd, "default_runtime_name"], draw(st.sampled_from(style)))
    if draw(st.integers(0, 9)) < 2:
        insert(tree, ["disabled_plugins"], draw(st.sampled_from(["[]", '["cri"]', '[ "io.containerd.grpc.v1.cri" ]'])))
    newline = draw(st.sampled_from(["\n", "\n", "\r\n"]))
    lines: list[str] = []
    sections: list[tuple[tuple[str, ...], list[str], bool]] = []
    unit = draw(st.sampled_from(["", "  ", "\t"]))
    root: list[str] = [f"version = {version}"] if with_line else []
    root += draw(pairs_of((), tree, sections))
    lines += draw(with_comments(draw(st.permutations(root)), ""))
    for path, pairs, explicit in draw(st.permutations(sections)):
        if pairs or explicit:
            indent = unit * (len(path) - 1)
            spaced = [""] if draw(st.booleans()) else []
            comment = [f"{indent}# about the next"] if draw(st.integers(0, 5)) == 0 else []
            tail = draw(st.sampled_from(["", "", " # tail", "\t#"]))
            lines += [*spaced, *comment, f"{indent}[{draw(written_path(path))}]{tail}"]
            lines += draw(with_comments(pairs, indent + unit))
    if draw(st.integers(0, 4)) == 0:
        lines += ["", "[[array.of]]", "x = 1", "[[array.of]]", "[array.of.inner]", "y = 2"]
    lines += draw(st.lists(st.sampled_from(["", "# end", "  "]), max_size=2))
    text = "\n".join(lines) + draw(st.sampled_from(["", "\n", "\n", "\n\n"]))
    return text.replace("\r\n", "\n").replace("\n", newline)


def insert(tree: dict, path: list[str], value: str) -> None:
    for part in path[:-1]:
        tree = tree.setdefault(part, {})
        if not isinstance(tree, dict):
            return
    tree.setdefault(path[-1], value)


@st.composite
def pairs_of(draw: st.DrawFn, path: tuple[str, ...], tree: dict, sections: list) -> list[str]:
    """The lines of one table's section; tables in it become dotted keys, inline tables or sections of their own."""
    lines = []
    for key, value in tree.items():
        style = draw(st.sampled_from(["section", "section", "section", "dotted", "inline"]))
        if not isinstance(value, dict):
            lines.append(f"{draw(written_key(key))}{draw(st.sampled_from([' = ', '=', '  =  ']))}{value}{draw(tails)}")
        elif style == "section":
            at = len(sections)
            sections.insert(at, None)
            sections[at] = ((*path, key), draw(pairs_of((*path, key), value, sections)), draw(st.booleans()))
        elif style == "dotted":
            lines += [f"{draw(written_path((key, *sub)))} = {leaf}{draw(tails)}" for sub, leaf in leaves(value)]
        else:
            lines.append(f"{draw(written_key(key))} = {draw(inline_of(value))}{draw(tails)}")
    return lines


tails = st.sampled_from(["", "", "", " # tail", "\t#", "   "])


def leaves(tree: dict, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], str]]:
    found = []
    for key, value in tree.items():
        found += leaves(value, (*path, key)) if isinstance(value, dict) else [((*path, key), value)]
    return found


@st.composite
def inline_of(draw: st.DrawFn, tree: dict) -> str:
    blank = draw(st.sampled_from(["", " "]))
    if draw(st.integers(0, 3)) == 0:
        items = [f"{draw(written_path(path))} = {value}" for path, value in leaves(tree)]
    else:
        items = [
            f"{draw(written_key(key))}{blank}={blank}{draw(inline_of(value)) if isinstance(value, dict) else value}"
            for key, value in tree.items()
        ]
    return "{" + blank + ", ".join(items) + blank + "}"


@st.composite
def with_comments(draw: st.DrawFn, lines: list[str], indent: str) -> list[str]:
    result = []
    for line in lines:
        result += draw(st.lists(st.sampled_from(["", f"{indent}# comment", f"{indent}#[x]", "# version = 9"]), max_size=1))
        result.append(f"{indent}{line}")
    return result + draw(st.lists(st.sampled_from([f"{indent}# runsc = {{}}", ""]), max_size=1))


@st.composite
def valid(draw: st.DrawFn) -> str:
    text = draw(documents())
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        event("not TOML")
        return draw(st.sampled_from(INPUTS)).decode()
    event("TOML")
    return text


handlers = st.builds(
    config.Handler,
    st.sampled_from(["runsc", "gvisor-kvm", "kata"]),
    st.just("io.containerd.runsc.v1"),
    st.dictionaries(
        st.sampled_from(["TypeUrl", "ConfigPath", "A B", "Nested"]),
        st.recursive(
            st.one_of(strings, st.booleans(), st.integers(-9, 9), st.lists(strings, max_size=2)),
            lambda inner: st.dictionaries(st.sampled_from(["X", "y z"]), inner, max_size=2),
            max_leaves=3,
        ),
        max_size=3,
    ),
    st.one_of(st.none(), st.lists(strings, max_size=2)),
    st.one_of(st.none(), strings),
    st.sampled_from([None, None, True]),
)


def present(text: str | None, handler: config.Handler) -> str | None:
    """The result, or None when the module refuses (a type that does not fit): then it must have said where."""
    try:
        return config.set_present(text, handler, config.Place(where="config.toml")).text
    except GvisorError as error:
        refused = error.message
    assert "line " in refused
    assert "fault of this module" not in refused
    event("refused")
    return None


def absent(text: str | None, name: str) -> str | None:
    return config.set_absent(text, name, where="config.toml").text


def cri_of(data: dict) -> str:
    return CRI[data.get("version", 1)]


def runtimes_of(data: dict) -> dict:
    return data.get("plugins", {}).get(cri_of(data), {}).get("containerd", {}).get("runtimes", {})


def is_broken(data: dict, names: list[str]) -> bool:
    """Tell whether the default runtime names no handler, which keeps the CRI plugin down: that does not come back."""
    default, found = config.default_name(data), runtimes_of(data)
    return default not in found and (default in names or bool(found))


def without(data: dict, name: str) -> dict:
    """The data less the handler and whatever may come along with it; compared on both sides."""
    rest = copy.deepcopy(data)
    cri = rest.get("plugins", {}).get(cri_of(data), {}).get("containerd", {})
    cri.get("runtimes", {}).pop(name, None)
    cri.pop("default_runtime_name", None)
    if cri.get("runtimes", {}).get("runc") == config.RUNC:
        del cri["runtimes"]["runc"]
    rest.pop("version", None)
    return config.prune(rest)


@many
@given(valid(), handlers)
def test_present_is_the_old_meaning_and_the_handler(text: str, handler: config.Handler) -> None:
    after = present(text, handler)
    if after is None:
        return
    old, new = tomllib.loads(text), tomllib.loads(after)
    found = runtimes_of(new)[handler.name]
    for key, value in handler.table().items():
        if isinstance(value, dict):
            assert verdict._differences(value, found.get(key, {})) == []
        else:
            assert config.same(found[key], value)
    assert repr(without(new, handler.name)) == repr(without(old, handler.name))  # repr: nan, order and types count too
    assert new.get("version", 1) == old.get("version", new.get("version", 1))
    if handler.default:
        assert config.default_name(new) == handler.name
    if new.get("version", 1) in (1, 2) and not runtimes_of(old):
        assert "runc" in runtimes_of(new)


@many
@given(valid(), handlers)
def test_present_is_made_once(text: str, handler: config.Handler) -> None:
    after = present(text, handler)
    if after is not None:
        assert present(after, handler) == after


@many
@given(valid(), handlers)
def test_absent_gives_the_old_bytes_back(text: str, handler: config.Handler) -> None:
    after = present(text, handler)
    data = tomllib.loads(text)
    if after is not None and handler.name not in runtimes_of(data) and not is_broken(data, [handler.name]):
        assert absent(after, handler.name) == text


@many
@given(valid())
def test_absent_without_the_handler_changes_nothing(text: str) -> None:
    if "runsc" not in runtimes_of(tomllib.loads(text)):
        assert absent(text, "runsc") == text


@many
@given(valid(), st.permutations(["runsc", "gvisor-kvm", "nvidia"]), st.permutations(["runsc", "gvisor-kvm", "nvidia"]))
def test_handlers_do_not_disturb_each_other(text: str, order: list[str], back: list[str]) -> None:
    data = tomllib.loads(text)
    if set(order) & set(runtimes_of(data)) or is_broken(data, order):
        return
    after: str | None = text
    for name in order:
        after = present(after, config.Handler(name, "io.containerd.runsc.v1", {"Name": name}))
        if after is None:
            return
    for name in back:
        after = absent(after, name)
    assert after == text


@many
@given(valid())
def test_the_statements_are_the_whole_text(text: str) -> None:
    document = toml.parse(text, "config.toml")
    assert "".join(text[statement.start : statement.end] for statement in document.statements) == text
    assert [statement.line for statement in document.statements] == [
        text.count("\n", 0, statement.start) + 1 for statement in document.statements
    ]


@many
@given(valid(), st.sampled_from(["/etc/containerd/conf.d/*.toml", "/a b/it's.toml"]))
def test_imports_come_and_go(text: str, pattern: str) -> None:
    added = config.add_import(text, pattern, where="config.toml")
    assert tomllib.loads(added)["imports"][-1] == pattern
    assert config.remove_import(added, pattern, where="config.toml") == text


# --- malformed input never leads to anything but the module's own error ---


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    raw = bytearray(draw(st.one_of(st.sampled_from(INPUTS), valid().map(str.encode))))
    for _round in range(draw(st.integers(1, 4))):
        at, kind = draw(st.integers(0, len(raw))), draw(st.sampled_from(["cut", "insert", "flip", "truncate", "double"]))
        if kind == "cut":
            del raw[at : at + draw(st.integers(1, 40))]
        elif kind == "insert":
            raw[at:at] = draw(st.sampled_from([b"[", b"]", b'"', b"'", b"=", b"\n", b"\r", b"\0", b"\xff", b"{", b"}", b"#", b'"""', b"."]))
        elif kind == "flip" and at < len(raw):
            raw[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "truncate":
            del raw[at:]
        else:
            raw += raw[:at]
    return bytes(raw)


@many
@given(st.one_of(damaged(), st.binary(max_size=200)), handlers)
def test_malformed_bytes_are_refused_or_edited_but_never_crash(raw: bytes, handler: config.Handler) -> None:
    refused = ""
    try:
        text = toml.decode(raw, "config.toml")
        after = config.set_present(text, handler, config.Place(where="config.toml")).text
    except GvisorError as error:
        refused = error.message
    if refused:
        assert "fault of this module" not in refused
        event("refused")
        return
    event("edited")
    assert after is not None
    data = tomllib.loads(text)
    if handler.name not in runtimes_of(data) and not is_broken(data, [handler.name]):
        assert absent(after, handler.name) == text


@pytest.mark.parametrize(
    "raw",
    [
        b"a." * 3000 + b"b = 1",
        b"[" + b"a." * 3000 + b"b]",
        b"a = " + b"[" * 5000,
        b"a = 1" + b"0" * 5000,
        b"a = " + b"{b=" * 200 + b"1" + b"}" * 200,
    ],
)
def test_monsters_are_refused(raw: bytes) -> None:
    with pytest.raises(GvisorError, match=r"config\.toml, line 1: not valid TOML"):
        config.set_present(raw.decode(), config.Handler("runsc", "io.containerd.runsc.v1"), config.Place(where="config.toml"))
