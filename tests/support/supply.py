"""Maintained tools look at SBOMs and provenance: CycloneDX's own validator, in-toto's own library."""

from __future__ import annotations

import json
from typing import Any

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from google.protobuf import json_format
from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.statement import Statement


def checked_sbom(text: str) -> dict[str, Any]:
    """Return the SBOM. Raises AssertionError when it is not valid CycloneDX, or one that says when or by whom it was made."""
    document = json.loads(text)
    version = SchemaVersion.from_version(document["specVersion"])
    fault = JsonStrictValidator(version).validate_str(text)
    assert fault is None, fault
    assert "serialNumber" not in document
    assert "timestamp" not in document["metadata"]
    return document


def checked_statement(text: str) -> dict[str, Any]:
    """Return the in-toto statement. Raises ValueError, ParseError or AssertionError when it, or its SLSA provenance, is not valid."""
    document = json.loads(text)
    # A field that the message does not have is an error here.
    Statement.copy_from_pb(json_format.ParseDict(document, statement_pb2.Statement())).validate()
    assert document["predicateType"] == "https://slsa.dev/provenance/v1"
    provenance = json_format.ParseDict(document["predicate"], provenance_pb2.Provenance())
    assert provenance.build_definition.build_type
    assert provenance.run_details.builder.id
    for dependency in provenance.build_definition.resolved_dependencies:
        assert dependency.digest or not dependency.uri, dependency.name
    assert not provenance.run_details.metadata.HasField("started_on")
    return document


def digests(descriptors: list[dict[str, Any]]) -> dict[str, str]:
    """Return the sha256 of each descriptor that has one, by its name."""
    return {one["name"]: one["digest"]["sha256"] for one in descriptors if "sha256" in one.get("digest", {})}
