"""The image has the named program and the named references, in both namespaces of the containerd that was named."""

from __future__ import annotations

import hashlib
import json

import pytest
from support.scenario import ARTIFACTS, run

testinfra_hosts = ["ansible://ggen_image"]

CTR = "ctr --address /run/stranger/containerd.sock --namespace"
NAME = "registry.example.org/tools/ggen"
REFERENCES = [f"{NAME}:1.2.3-theirs", f"{NAME}:latest"]
FOLDER = ARTIFACTS / "archives" / "1.2.3-theirs" / "linux_amd64"


@pytest.fixture(scope="module")
def metadata() -> dict:
    """What the build tells of the image."""
    return json.loads((FOLDER / "manifest.json").read_text())["metadata"]


def test_the_archive_is_in_its_place_and_made_of_the_named_program(metadata):
    assert (FOLDER / "ggen.tar").is_file()
    assert metadata["programs"]["ggen"] == hashlib.sha256((ARTIFACTS / "ggen").read_bytes()).hexdigest()
    assert sorted(metadata["references"]) == REFERENCES


def test_the_cache_is_in_its_place():
    (kept,) = (ARTIFACTS / "cache" / "objects").iterdir()
    assert (kept / "ggen.tar").is_file()


@pytest.mark.parametrize("namespace", ["default", "k8s.io"])
def test_the_host_has_it_by_digest(host, metadata, namespace):
    rows = [line.split() for line in host.check_output(f"{CTR} {namespace} images ls").splitlines()[1:]]
    assert {row[0]: row[2] for row in rows if row[0] in REFERENCES} == dict.fromkeys(REFERENCES, metadata["digest"])


def test_it_is_pinned_where_a_kubelet_would_collect(host):
    pinned = "images ls --quiet 'labels.\"io.cri-containerd.pinned\"==pinned'"
    assert sorted(host.check_output(f"{CTR} k8s.io {pinned}").split()) == REFERENCES
    assert host.check_output(f"{CTR} default {pinned}") == ""


def test_no_other_namespace_has_anything(host):
    namespaces = host.check_output("ctr --address /run/stranger/containerd.sock namespaces ls --quiet").split()
    assert sorted(namespaces) == ["default", "k8s.io"]


@pytest.mark.parametrize("namespace", ["default", "k8s.io"])
def test_the_program_runs(host, namespace):
    """In runc: this host has no gVisor, and the role does not need one."""
    done = host.run(f"{CTR} {namespace} run --rm {REFERENCES[0]} once /usr/local/bin/ggen --version")
    assert done.rc == 0, done.stderr


def test_no_archive_is_left_on_the_host(host):
    assert host.check_output("find /tmp /var/tmp /root -name 'ggen*'") == ""


def test_it_is_taken_away_again(host):
    """The last test."""
    done = run("molecule/ggen_image/uninstall.yml")
    assert done.rc == 0, done.errors
    for namespace in ("default", "k8s.io"):
        assert host.check_output(f"{CTR} {namespace} images ls --quiet") == ""
