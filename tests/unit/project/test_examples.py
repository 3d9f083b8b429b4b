# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The examples: their expected output is valid in its languages and fits together. That ggen writes it: tests/integration/test_ggen_examples.py."""

from __future__ import annotations

import dataclasses
import datetime
import json
import re
import sqlite3
import sys
import types
import typing
from pathlib import Path

import jsonschema
import pytest
import referencing
import tomllib
from ansible_collections.ggen.gvisor.plugins.plugin_utils._ggen.jobs import jobs
from ansible_collections.ggen.gvisor.plugins.plugin_utils._ggen.manifest import check_manifest
from conftest import ROOT
from support.examples import expected

EXAMPLES = sorted(path.parent for path in (ROOT / "examples").glob("*/ggen.toml"))
ORGANIZATION = {name: data.decode() for name, data in expected("organization").items()}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_an_example_is_whole(example: Path) -> None:
    text = (example / "ggen.toml").read_text()
    check_manifest(text, jobs([{"path": str(example)}], {"args": "sync"})[0])
    ignored = (example / ".gitignore").read_text().split()
    assert {"/generated/", "/.ggen/", "*.backup"} <= set(ignored)
    rules = tomllib.loads(text)["generation"]["rules"]
    assert all(rule["output_file"].startswith("generated/") for rule in rules)
    assert all(rule["mode"] == "Overwrite" for rule in rules), "in other modes ggen does not write a file again"
    readme = (example / "README.md").read_text()
    assert "ansible-playbook playbooks/run.yml" in readme
    assert "Licence" in readme
    assert expected(example.name)


def test_the_database_loads_and_holds_an_organization() -> None:
    with sqlite3.connect(":memory:") as database:
        database.execute("PRAGMA foreign_keys = ON")
        database.executescript(ORGANIZATION["schema.sql"])
        database.execute("INSERT INTO agent VALUES ('acme', 'Acme'), ('lab', 'Laboratory'), ('ada', 'Ada')")
        database.execute("INSERT INTO organization VALUES ('acme', NULL), ('lab', 'acme')")
        database.execute("INSERT INTO formal_organization VALUES ('acme')")
        database.execute("INSERT INTO organizational_unit VALUES ('lab', 'acme')")
        database.execute("INSERT INTO person VALUES ('ada')")
        database.execute("INSERT INTO membership VALUES ('m', 'ada', 'lab')")
        rows = database.execute(
            "SELECT agent.name, above.name FROM membership JOIN agent ON agent.id = member_id"
            " JOIN organizational_unit AS unit ON unit.id = membership.organization_id"
            " JOIN agent AS above ON above.id = unit.unit_of_id"
        ).fetchall()
        assert rows == [("Ada", "Acme")]
        with pytest.raises(sqlite3.IntegrityError):
            database.execute("INSERT INTO organizational_unit VALUES ('lab2', 'nowhere')")


def test_the_python_classes_work() -> None:
    module = types.ModuleType("organization_model")
    sys.modules[module.__name__] = module
    try:
        exec(compile(ORGANIZATION["model.py"], "model.py", "exec"), module.__dict__)  # noqa: S102 - the test's subject
        classes = {name: value for name, value in vars(module).items() if dataclasses.is_dataclass(value)}
        for value in classes.values():
            assert value.__doc__
            assert typing.get_type_hints(value)
        acme = module.FormalOrganization(id="acme", name="Acme")
        unit = module.OrganizationalUnit(id="lab", unit_of=acme)
        assert isinstance(unit, module.Agent)
        assert unit.has_member == []
        assert typing.get_type_hints(module.ChangeEvent)["started_at_time"] == (datetime.datetime | None)
    finally:
        del sys.modules[module.__name__]
    assert len(classes) == 11


def test_the_json_schemas_fit_together() -> None:
    schemas = {name: json.loads(text) for name, text in ORGANIZATION.items() if name.startswith("json-schema/")}
    assert len(schemas) == 11
    for name, schema in schemas.items():
        assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
        assert f"json-schema/{schema['$id']}" == name
        for reference in schema.get("allOf", []):
            assert f"json-schema/{reference['$ref']}" in schemas
        for field in schema["properties"].values():
            assert field["type"] in ("string", "array")
            assert (field["type"] == "array") == ("items" in field)
        jsonschema.Draft202012Validator.check_schema(schema)


def test_the_json_schemas_accept_a_unit_and_refuse_a_wrong_one() -> None:
    schemas = [json.loads(text) for name, text in ORGANIZATION.items() if name.startswith("json-schema/")]
    registry = referencing.Registry().with_resources((schema["$id"], referencing.Resource.from_contents(schema)) for schema in schemas)
    unit = next(schema for schema in schemas if schema["title"] == "OrganizationalUnit")
    validator = jsonschema.Draft202012Validator(unit, registry=registry)
    lab = {"id": "urn:lab", "name": "Laboratory", "unitOf": "urn:acme", "hasSite": ["urn:north"]}
    validator.validate(lab)
    for wrong in ({**lab, "name": 1}, {**lab, "hasSite": "urn:north"}, {"name": "Laboratory"}):
        with pytest.raises(jsonschema.ValidationError):
            validator.validate(wrong)


def test_all_outputs_have_the_same_classes_and_fields() -> None:
    schemas = {
        schema["$id"].partition(".")[0]: set(schema["properties"]) - {"id"}
        for schema in (json.loads(text) for name, text in ORGANIZATION.items() if name.startswith("json-schema/"))
    }
    sections = re.split(r"^## (\w+)$", ORGANIZATION["model.md"], flags=re.MULTILINE)[1:]
    page = {name: set(re.findall(r"^- \*\*(\w+)\*\*", text, re.MULTILINE)) for name, text in zip(sections[::2], sections[1::2])}
    assert page == schemas
    assert set(re.findall(r"^class (\w+)", ORGANIZATION["model.py"], re.MULTILINE)) == set(schemas)


def test_the_page_draws_every_class() -> None:
    drawing = ORGANIZATION["model.md"].split("```mermaid\n")[1].split("```")[0]
    assert drawing.startswith("classDiagram\n")
    for line in drawing.splitlines()[1:]:
        assert re.fullmatch(r'  (class \w+|\w+ <\|-- \w+|\w+ --> "(0\.\.1|\*)" \w+ : \w+)', line), line


def test_of_two_inverses_one_is_stored_and_the_functional_one_wins() -> None:
    for kept, dropped in (
        ("member", "hasMembership"),
        ("unitOf", "hasUnit"),
        ("postIn", "hasPost"),
        ("hasSite", "siteOf"),
    ):
        assert f"**{kept}**" in ORGANIZATION["model.md"]
        assert f"**{dropped}**" not in ORGANIZATION["model.md"]
