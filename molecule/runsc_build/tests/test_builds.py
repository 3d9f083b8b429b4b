"""Exactly the named builds are in the named place, with the bytes that everybody has."""

from __future__ import annotations

import hashlib
import json
import subprocess

import pytest
import yaml
from support.playbook import ROOT
from support.scenario import ARTIFACTS, run

TABLE = yaml.safe_load((ROOT / "vendors/gvisor/releases.yml").read_text())["releases"]
PLACES = {"programs": ["20260224", "20260701"], "for-hosts": ["20260224", "20260518"]}
BUILDS = [f"{place}/{release}/linux_amd64" for place, releases in PLACES.items() for release in releases]


@pytest.mark.parametrize("place", PLACES)
def test_the_named_releases_are_there_and_no_others(place):
    assert sorted(path.name for path in (ARTIFACTS / place).glob("[0-9]*")) == PLACES[place]
    assert {path.name for path in (ARTIFACTS / place).glob("[0-9]*/*")} == {"linux_amd64"}


@pytest.mark.parametrize("place", PLACES)
def test_the_link_leads_to_the_newest_of_them(place):
    assert (ARTIFACTS / place / "runsc").resolve() == ARTIFACTS / place / PLACES[place][-1] / "linux_amd64" / "runsc"


@pytest.mark.parametrize("build", BUILDS)
def test_the_programs_are_those_of_the_table_and_of_the_manifest(build):
    folder = ARTIFACTS / build
    expected = TABLE[build.split("/")[1]]["sha256"]["amd64"]
    manifest = json.loads((folder / "manifest.json").read_text())["files"]
    for name, sha256 in expected.items():
        data = (folder / name).read_bytes()
        assert hashlib.sha256(data).hexdigest() == sha256 == manifest[name]["sha256"]
        assert data[:4] == b"\x7fELF"
        assert data[18:20] == b"\x3e\x00"  # e_machine: x86-64
        assert (folder / name).stat().st_mode & 0o777 == 0o755
        assert json.loads((folder / f"{name}.cdx.json").read_text())["bomFormat"] == "CycloneDX"
    assert {path.name for path in folder.iterdir()} == {*manifest, "manifest.json"}


@pytest.mark.parametrize("build", BUILDS)
def test_runsc_tells_the_release_s_version(build):
    said = subprocess.run([ARTIFACTS / build / "runsc", "--version"], capture_output=True, text=True, check=True).stdout
    assert said.split()[2] == TABLE[build.split("/")[1]]["stamp"]


def test_another_architecture_is_another_build():
    """Where no cache has it, only that one is to be compiled."""
    done = run(
        "molecule/runsc_build/converge.yml", "--check", runsc_build_arch=["amd64", "arm64"], runsc_build_cache=str(ARTIFACTS / "no-cache")
    )
    assert done.rc == 0, done.errors
    said = [event["res"]["msg"] for event in done.results if event["task"].endswith("Show what a check run does not build")]
    assert ["20260224/arm64" in text and "amd64" not in text for text in said] == [True, True], said
