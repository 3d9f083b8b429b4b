# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Prometheus' text format, read as strictly as its documentation has it, a character at a time."""

from __future__ import annotations

import re

NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
VALUE = re.compile(r"[+-]?(\d+(\.\d*)?([eE][+-]?\d+)?|Inf)|NaN")
SUFFIXES = {"counter": [""], "gauge": [""], "histogram": ["_bucket", "_sum", "_count"]}
Labels = tuple[tuple[str, str], ...]


def _labels(text: str) -> tuple[Labels, str]:
    """The labels that ``text`` begins with, behind their brace, and what is behind them."""
    found: list[tuple[str, str]] = []
    while text[0] != "}":
        name = LABEL.match(text).group()
        text = text[len(name) :]
        assert text.startswith('="'), text
        text, value = text[2:], ""
        while text[0] != '"':
            if text[0] == "\\":
                value += {"\\": "\\", '"': '"', "n": "\n"}[text[1]]
                text = text[2:]
            else:
                value += text[0]
                text = text[1:]
        found.append((name, value))
        text = text[1:]
        assert text[0] in ",}", text
        text = text.removeprefix(",")
    assert len(dict(found)) == len(found)
    return tuple(found), text[1:]


def read(data: bytes) -> dict[str, dict[Labels, float]]:
    """The samples by name and labels. Families are whole and told of before their samples; nothing is there twice."""
    samples: dict[str, dict[Labels, float]] = {}
    kinds: dict[str, str] = {}
    helps: set[str] = set()
    family = ""
    assert data == b"" or data.endswith(b"\n")
    for line in data.decode("utf-8").split("\n")[:-1]:
        if line.startswith("# HELP "):
            family = line.split(" ")[2]
            assert NAME.fullmatch(family), line
            assert family not in helps, line
            helps.add(family)
            continue
        if line.startswith("# TYPE "):
            _hash, _word, name, kind = line.split(" ")
            assert name == family, line
            assert name not in kinds, line
            kinds[name] = kind
            continue
        name = NAME.match(line).group()
        assert name in [family + suffix for suffix in SUFFIXES[kinds[family]]], line
        rest = line[len(name) :]
        labels, rest = _labels(rest[1:]) if rest.startswith("{") else ((), rest)
        assert rest.startswith(" "), line
        assert VALUE.fullmatch(rest[1:]), line
        assert labels not in samples.setdefault(name, {}), line
        samples[name][labels] = float(rest[1:])
    for name, kind in kinds.items():
        if kind == "histogram":
            _check_histogram(samples, name)
    return samples


def _check_histogram(samples: dict[str, dict[Labels, float]], name: str) -> None:
    """Its buckets only grow, and the last one has all."""
    rows: dict[Labels, list[tuple[str, float]]] = {}
    for labels, value in samples[f"{name}_bucket"].items():
        own = tuple(label for label in labels if label[0] != "le")
        rows.setdefault(own, []).append((dict(labels)["le"], value))
    assert rows.keys() == samples[f"{name}_sum"].keys() == samples[f"{name}_count"].keys()
    for own, row in rows.items():
        bounds = [float(bound) for bound, _value in row]
        assert bounds == sorted(set(bounds))
        assert bounds[-1] == float("inf")
        assert [value for _bound, value in row] == sorted(value for _bound, value in row)
        assert row[-1][1] == samples[f"{name}_count"][own]
