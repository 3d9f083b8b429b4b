# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""SBOM and provenance: valid by the tools that others use, the same for everybody, and as much as is known and no more.

gVisor's are compared with its programs by test_runsc_build.py, ggen's with its program by tests/e2e/test_site.py.
"""

from __future__ import annotations

import base64
import copy
import hashlib
import json

import pytest
import yaml
from ansible.errors import AnsibleFilterError
from ansible_collections.ggen.gvisor.plugins.filter.missing_documents import FilterModule
from ansible_collections.ggen.gvisor.plugins.plugin_utils._gvisor.documents import crates, documents_of, go_sbom, rust, toolchain
from conftest import ROOT
from support.supply import checked_sbom, checked_statement, digests

VENDORS = ROOT / "vendors"
DEFAULTS = yaml.safe_load((ROOT / "roles/ggen_build/defaults/main.yml").read_text())
VERSION, CRATE = DEFAULTS["ggen_build_version"], DEFAULTS["ggen_build_crate_sha256"]
GO = yaml.safe_load((VENDORS / "gvisor" / "releases.yml").read_text())["go"]
SUMS = (VENDORS / "ggen" / VERSION / "crates.sum").read_text()
missing_documents = FilterModule().filters()["missing_documents"]


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def image(**program: str) -> dict:
    """The manifest of an image; the program was compiled from ``program``, by default the pinned crate."""
    references = [f"docker.io/library/ggen:{VERSION}", "docker.io/library/ggen:latest"]
    pinned = {
        "crate": f"ggen-cli-lib@{VERSION}",
        "sha256": CRATE,
        "arch": "amd64",
        "environment": {"CXX": "clang++"},
        "rustflags": "-C target-feature=+crt-static",
    }
    inputs = {
        "program": program or pinned,
        "references": references,
        "arch": "amd64",
        "etc": {"hosts": ""},
        "containerfile": "FROM scratch\n",
    }
    return {
        "name": "ggen_image",
        "key": "5" * 64,
        "made_from": {"name": "ggen_image", "inputs": inputs, "input_files": [], "schema": 1},
        "files": {"ggen.tar": {"sha256": "1" * 64, "size": 1, "mode": "0644"}},
        "metadata": {
            "digest": "sha256:" + "2" * 64,
            "references": references,
            "programs": {"ggen": "3" * 64, "catatonit": "4" * 64},
            "toolchain": ["cargo 1.95.0 (f2d3ce0bd 2026-03-21)", "commit-hash: " + "a" * 40],
        },
    }


def test_the_image_and_its_program_are_described():
    documents = documents_of(image(), VENDORS)
    assert sorted(documents) == ["ggen.cdx.json", "ggen.intoto.json", "ggen.tar.cdx.json", "ggen.tar.intoto.json"]
    pinned = {one["name"] + "@" + one["version"]: one["sha256"] for one in crates(SUMS, "amd64")}

    sbom = checked_sbom(documents["ggen.cdx.json"])
    assert sbom["metadata"]["component"]["hashes"] == [{"alg": "SHA-256", "content": "3" * 64}]
    assert {f"{one['name']}@{one['version']}": one["hashes"][0]["content"] for one in sbom["components"]} == pinned
    assert sbom["compositions"][0]["aggregate"] == "incomplete", "the build host's C libraries are not listed"
    sbom = checked_sbom(documents["ggen.tar.cdx.json"])
    assert {one["name"]: one["hashes"][0]["content"] for one in sbom["components"]} == {"ggen": "3" * 64, "catatonit": "4" * 64}

    program = checked_statement(documents["ggen.intoto.json"])
    assert digests(program["subject"]) == {"ggen": "3" * 64}
    definition = program["predicate"]["buildDefinition"]
    assert digests(definition["resolvedDependencies"]) == pinned
    assert definition["resolvedDependencies"][-1]["digest"] == {"gitCommit": "a" * 40}
    assert definition["externalParameters"]["sha256"] == CRATE

    archive = checked_statement(documents["ggen.tar.intoto.json"])
    assert digests(archive["subject"]) == {
        "ggen.tar": "1" * 64,
        f"docker.io/library/ggen:{VERSION}": "2" * 64,
        "docker.io/library/ggen:latest": "2" * 64,
    }
    assert digests(archive["predicate"]["buildDefinition"]["resolvedDependencies"]) == {"ggen": "3" * 64, "catatonit": "4" * 64}
    for statement, name in ((program, "ggen.cdx.json"), (archive, "ggen.tar.cdx.json")):
        assert digests(statement["predicate"]["runDetails"]["byproducts"]) == {name: sha256(documents[name])}


@pytest.mark.parametrize(
    "program",
    [
        {"sha256": "3" * 64},  # a binary, or a checkout's
        {**image()["made_from"]["inputs"]["program"], "crate": "ggen-cli-lib@0.0.1"},
        {**image()["made_from"]["inputs"]["program"], "sha256": "6" * 64},
    ],
    ids=["given", "another version", "another crate of that version"],
)
def test_a_program_of_unknown_sources_has_no_provenance(program):
    documents = documents_of(image(**program), VENDORS)
    assert sorted(documents) == ["ggen.cdx.json", "ggen.tar.cdx.json", "ggen.tar.intoto.json"]
    assert checked_sbom(documents["ggen.cdx.json"])["components"] == []
    checked_sbom(documents["ggen.tar.cdx.json"])
    checked_statement(documents["ggen.tar.intoto.json"])


def test_a_go_program_is_described_by_what_the_linker_wrote_into_it():
    """The linker tells no sums of vendored sources: they are those of go.sum. What takes a module's place is what was linked."""
    told = {
        "GoVersion": "go1.26.6",
        "Path": "gvisor.dev/gvisor/runsc",
        "Main": {"Path": "gvisor.dev/gvisor", "Version": "v0.0.0-2026"},
        "Deps": [
            {"Path": "github.com/Made/up", "Version": "v1.2.3+incompatible"},
            {"Path": "made.up/fork", "Version": "v1.0.0", "Replace": {"Path": "other.maker/fork", "Version": "v1.0.1"}},
            {"Path": "made.up/here", "Version": "v0.0.0", "Replace": {"Path": "./here", "Version": "(devel)"}},
        ],
    }
    sums = {"github.com/Made/up@v1.2.3+incompatible": "h1:" + base64.b64encode(b"1" * 32).decode()}
    text = go_sbom("runsc", "3" * 64, told, sums)
    sbom = checked_sbom(text)
    assert text == go_sbom("runsc", "3" * 64, json.loads(json.dumps(told)), sums)
    subject = sbom["metadata"]["component"]
    assert (subject["name"], subject["version"], subject["hashes"][0]["content"]) == ("runsc", "v0.0.0-2026", "3" * 64)
    assert subject["purl"] == "pkg:golang/gvisor.dev/gvisor@v0.0.0-2026#runsc"
    assert [(one["purl"], "hashes" in one) for one in sbom["components"]] == [
        ("pkg:golang/github.com/made/up@v1.2.3%2Bincompatible", True),
        ("pkg:golang/other.maker/fork@v1.0.1", False),
        ("pkg:golang/made.up/here@v0.0.0", False),
        ("pkg:golang/std@go1.26.6", False),
    ]
    assert sbom["components"][0]["hashes"][0]["content"] == (b"1" * 32).hex()


def test_a_build_that_has_its_documents_lacks_none_and_they_stay():
    manifest = image()
    found = {"name": "ggen_image", "dest": "/dist", "manifest": manifest}
    (missing,) = missing_documents([found, {"name": "missing", "dest": "/bin", "manifest": None}], str(VENDORS))
    assert missing == {
        "name": "ggen_image",
        "inputs": manifest["made_from"]["inputs"],
        "dest": "/dist",
        "documents": documents_of(manifest, VENDORS),
    }
    described = copy.deepcopy(found)
    for name, text in missing["documents"].items():
        described["manifest"]["files"][name] = {"sha256": sha256(text), "size": len(text), "mode": "0644"}
    assert missing_documents([described], str(VENDORS)) == []
    described["manifest"]["files"]["ggen.intoto.json"]["sha256"] = "0" * 64
    assert missing_documents([described], str(VENDORS)) == [missing]


def test_a_list_of_crates_that_is_none_is_an_error(tmp_path):
    (tmp_path / "ggen" / VERSION).mkdir(parents=True)
    (tmp_path / "ggen" / VERSION / "crates.sum").write_text("one line\n")
    with pytest.raises(AnsibleFilterError, match="not enough values"):
        missing_documents([{"dest": "/dist", "manifest": image()}], str(tmp_path))


def test_the_go_that_compiled():
    assert digests(toolchain(GO["version"], GO)) == {wheel["file"]: wheel["sha256"] for wheel in GO["wheels"].values()}
    assert toolchain("1.21", GO) == [{"name": "go1.21"}], "a table that moved on says nothing of an older build's Go"
    own = {"version": "go1.25.5 linux/amd64", "sha256": "7" * 64}
    assert digests(toolchain(own, GO)) == {own["version"]: own["sha256"]}


def test_of_a_cargo_that_does_not_tell_its_commit_the_version_is_told():
    assert rust([]) == []
    assert rust(["cargo 1.96.0"]) == [{"name": "cargo 1.96.0"}]


def test_a_program_without_rocksdb_says_so():
    """The provenance names the changes, and the SBOM lists nothing that was not compiled."""
    path = VENDORS / "ggen" / VERSION / "without-rocksdb.yml"
    pinned = image()["made_from"]["inputs"]["program"]
    documents = documents_of(image(**pinned, patches={path.name: sha256(path.read_text())}), VENDORS)
    sbom = checked_sbom(documents["ggen.cdx.json"])
    whole = checked_sbom(documents_of(image(), VENDORS)["ggen.cdx.json"])
    names = [{f"{one['name']} {one['version']}" for one in document["components"]} for document in (whole, sbom)]
    assert sorted(names[0] - names[1]) == yaml.safe_load(path.read_text())["unused"]
    changed = [one for one in sbom["components"] if "pedigree" in one]
    assert [(one["name"], one["pedigree"]["patches"][0]["diff"]["url"]) for one in changed] == [
        ("oxigraph", f"vendors/ggen/{VERSION}/without-rocksdb.yml")
    ]
    definition = checked_statement(documents["ggen.intoto.json"])["predicate"]["buildDefinition"]
    assert definition["internalParameters"]["patches"] == {f"vendors/ggen/{VERSION}/without-rocksdb.yml": sha256(path.read_text())}
    assert f"vendors/ggen/{VERSION}/without-rocksdb.yml" in digests(definition["resolvedDependencies"])
