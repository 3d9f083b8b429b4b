# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""containerd_image against a real containerd."""

from __future__ import annotations

import itertools
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._containerd.ctr import Ctr
from ansible_collections.ggen.gvisor.plugins.module_utils._containerd.image_archive import Archive
from ansible_collections.ggen.gvisor.plugins.modules import containerd_image
from ansible_collections.ggen.gvisor.plugins.modules.containerd_image import cri_names
from support import oci
from support.containerd import Daemon
from support.containerd_debs import ensure
from support.module import finish_module, run_module, start_module

REF = "docker.io/library/tool:1"
_number = itertools.count()


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with Daemon(tmp_path_factory.mktemp("containerd")) as running:
        yield running


@pytest.fixture
def namespace() -> str:
    return f"test{next(_number)}"


def archive_of(tmp_path: Path, *refs: str, text: bytes = b"#!tool", **more: str) -> tuple[str, str]:
    entries, digest = oci.oci_entries(oci.tar({"bin/tool": (text, 0o755)}), *refs, **more)
    path = tmp_path / f"image{next(_number)}.tar"
    path.write_bytes(oci.tar(entries))
    return str(path), digest


def listed(daemon: Daemon, namespace: str) -> dict[str, str]:
    rows = daemon.ctr("images", "ls", namespace=namespace).stdout.splitlines()[1:]
    return {row.split()[0]: row.split()[2] for row in rows}


def image(daemon: Daemon, namespace: str | list[str], **params: object) -> dict:
    return run_module("containerd_image", address=daemon.address, namespace=namespace, **params)


def test_import_by_the_archives_names_and_again(daemon: Daemon, namespace: str, tmp_path: Path) -> None:
    archive, digest = archive_of(tmp_path, REF, "docker.io/library/tool:latest")
    first = image(daemon, namespace, archive=archive)
    assert (first["changed"], first["digest"]) == (True, digest), first
    assert listed(daemon, namespace) == {REF: digest, "docker.io/library/tool:latest": digest}
    again = image(daemon, namespace, archive=archive, digest=digest)
    assert (again["changed"], again["digest"]) == (False, digest)


def test_another_image_under_the_same_name_replaces_it(daemon: Daemon, namespace: str, tmp_path: Path) -> None:
    image(daemon, namespace, archive=archive_of(tmp_path, REF)[0])
    archive, digest = archive_of(tmp_path, REF, text=b"second")
    result = image(daemon, namespace, archive=archive, diff=True)
    assert result["changed"]
    assert digest in result["diff"]["after"]
    assert digest not in result["diff"]["before"]
    assert listed(daemon, namespace) == {REF: digest}


def test_an_image_that_is_there_gets_another_name(daemon: Daemon, namespace: str, tmp_path: Path) -> None:
    old, old_digest = archive_of(tmp_path, REF)
    image(daemon, namespace, archive=old)
    keep = {"source": REF, "name": ["docker.io/library/tool:previous"]}
    checked = image(daemon, namespace, check=True, diff=True, **keep)
    assert checked["changed"]
    assert f"tool:previous {old_digest}" in checked["diff"]["after"]
    assert listed(daemon, namespace) == {REF: old_digest}
    assert image(daemon, namespace, **keep)["changed"]
    assert not image(daemon, namespace, digest=old_digest, **keep)["changed"]
    new, new_digest = archive_of(tmp_path, REF, text=b"second")
    image(daemon, namespace, archive=new)
    assert listed(daemon, namespace) == {REF: new_digest, keep["name"][0]: old_digest}
    assert image(daemon, namespace, source=keep["name"][0], name=[REF])["digest"] == old_digest
    assert listed(daemon, namespace) == dict.fromkeys([REF, keep["name"][0]], old_digest)


def test_the_image_before_is_kept_and_gone_back_to(daemon: Daemon, namespace: str, tmp_path: Path) -> None:
    tags = {tag: f"docker.io/library/tool:{tag}" for tag in ("1", "2", "3", "latest", "previous", "mine")}
    digests = {}
    for number, version in enumerate(("1", "2", "3")):
        archive, digests[version] = archive_of(tmp_path, tags[version], tags["latest"], text=version.encode())
        options = {"archive": archive, "keep_previous": True}
        told = image(daemon, namespace, check=True, **options)
        assert told["replaced"] == ([namespace] if number else [])
        assert image(daemon, namespace, **options)["replaced"] == told["replaced"]
        again = image(daemon, namespace, **options)
        assert (again["changed"], again["replaced"]) == (False, [])
        if version == "1":
            assert image(daemon, namespace, source=tags["1"], name=[tags["mine"]])["changed"]
    # The first went with the third, under all of its names in the repository.
    assert listed(daemon, namespace) == {
        **{tags["2"]: digests["2"], tags["previous"]: digests["2"]},
        **{tags["3"]: digests["3"], tags["latest"]: digests["3"]},
    }
    back = {"name": [tags["latest"]], "state": "previous"}
    before = listed(daemon, namespace)
    checked = image(daemon, namespace, check=True, diff=True, **back)
    assert (checked["changed"], checked["restored"], listed(daemon, namespace)) == (True, [namespace], before)
    assert f"{tags['latest']} {digests['2']}" in checked["diff"]["after"]
    assert image(daemon, namespace, **back)["restored"] == [namespace]
    assert listed(daemon, namespace) == {tags["2"]: digests["2"], tags["latest"]: digests["2"], tags["3"]: digests["3"]}
    assert image(daemon, namespace, **back)["changed"] is False
    assert image(daemon, namespace, name=[tags["latest"]], state="absent", keep_previous=True)["changed"]
    assert listed(daemon, namespace) == {tags["3"]: digests["3"]}


def test_a_run_that_ended_after_it_kept_the_image_is_nothing_to_go_back_to(daemon: Daemon, namespace: str, tmp_path: Path) -> None:
    latest, previous = "docker.io/library/tool:latest", "docker.io/library/tool:previous"
    old, digest = archive_of(tmp_path, latest)
    image(daemon, namespace, archive=old)
    image(daemon, namespace, source=latest, name=[previous])
    assert not image(daemon, namespace, name=[latest], state="previous")["changed"]
    new, other = archive_of(tmp_path, latest, text=b"second")
    assert image(daemon, namespace, archive=new, keep_previous=True)["replaced"] == [namespace]
    assert listed(daemon, namespace) == {latest: other, previous: digest}


def test_an_import_that_fails_tells_what_it_had_replaced(daemon: Daemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An upgrade's rescue goes back in those namespaces. The second import fails here; the first is containerd's."""
    first, second = f"test{next(_number)}", f"test{next(_number)}"
    latest = "docker.io/library/tool:latest"
    old, digest = archive_of(tmp_path, latest)
    new, other = archive_of(tmp_path, latest, text=b"second")
    image(daemon, [first, second], archive=old)

    def fail_in_second(ctr: Ctr, *arguments: object) -> dict:
        if ctr.namespace == second:
            raise GvisorError("the disk is full")
        return real(ctr, *arguments)

    real = containerd_image.import_image
    monkeypatch.setattr(containerd_image, "import_image", fail_in_second)
    options = {
        "archive": new,
        "src": None,
        "name": None,
        "digest": None,
        "platform": None,
        "images": None,
        "keep_previous": True,
        "pinned": False,
        "address": daemon.address,
    }
    with pytest.raises(GvisorError, match="the disk is full") as failure:
        containerd_image.present(SimpleNamespace(params=options, check_mode=False), [Ctr(daemon.address, name) for name in (first, second)])
    assert failure.value.details["replaced"] == [first, second]
    assert listed(daemon, first)[latest] == other
    assert image(daemon, failure.value.details["replaced"], name=[latest], state="previous")["restored"] == [first]
    assert (listed(daemon, first)[latest], listed(daemon, second)[latest]) == (digest, digest)


def test_what_is_kept_needs_the_tag_latest(daemon: Daemon, namespace: str, tmp_path: Path) -> None:
    refused = image(daemon, namespace, archive=archive_of(tmp_path, REF)[0], keep_previous=True)
    assert "need one name with the tag latest among docker.io/library/tool:1" in refused["msg"]
    assert listed(daemon, namespace) == {}


def test_a_source_that_is_not_there_or_another_is_refused(daemon: Daemon, namespace: str, tmp_path: Path) -> None:
    image(daemon, namespace, archive=archive_of(tmp_path, REF)[0])
    missing = image(daemon, namespace, source="docker.io/library/none:1", name=["localhost/x:1"])
    assert "containerd has no image docker.io/library/none:1 in namespace" in missing["msg"]
    other = image(daemon, namespace, source=REF, name=["localhost/x:1"], digest=f"sha256:{'0' * 64}")
    assert "is expected" in other["msg"]
    assert list(listed(daemon, namespace)) == [REF]


def test_names_asked_for_are_the_only_ones(daemon: Daemon, namespace: str, tmp_path: Path) -> None:
    """The archive's own name stays where it was, on another image."""
    other, other_digest = archive_of(tmp_path, REF, text=b"other")
    image(daemon, namespace, archive=other)
    archive, digest = archive_of(tmp_path, REF)
    names = ["docker.io/library/tool:2", "localhost/x/tool:latest"]
    assert image(daemon, namespace, archive=archive, name=names)["changed"]
    assert listed(daemon, namespace) == {REF: other_digest, **dict.fromkeys(names, digest)}
    assert not image(daemon, namespace, archive=archive, name=names)["changed"]


def test_one_missing_name_is_added(daemon: Daemon, namespace: str, tmp_path: Path) -> None:
    archive, digest = archive_of(tmp_path, REF)
    image(daemon, namespace, archive=archive)
    assert image(daemon, namespace, archive=archive, name=[REF, f"{REF}-b"])["changed"]
    assert listed(daemon, namespace) == {REF: digest, f"{REF}-b": digest}


def test_check_mode_changes_nothing(daemon: Daemon, namespace: str, tmp_path: Path) -> None:
    archive, digest = archive_of(tmp_path, REF)
    result = image(daemon, namespace, archive=archive, check=True, diff=True)
    assert result["changed"]
    assert result["diff"]["after"] == f"{namespace} {REF} {digest}\n"
    assert listed(daemon, namespace) == {}
    image(daemon, namespace, archive=archive)
    assert not image(daemon, namespace, archive=archive, check=True)["changed"]
    assert image(daemon, namespace, name=[REF], state="absent", check=True)["changed"]
    assert listed(daemon, namespace) == {REF: digest}


def test_an_image_with_a_lost_blob_is_imported_again(daemon: Daemon, namespace: str, tmp_path: Path) -> None:
    archive, digest = archive_of(tmp_path, REF)
    image(daemon, namespace, archive=archive)
    layer = next(
        line.split()[0]
        for line in daemon.ctr("content", "ls", namespace=namespace).stdout.splitlines()[1:]
        if line.split()[0] != digest and "uncompressed" in line
    )
    daemon.ctr("content", "rm", layer, namespace=namespace)
    assert "incomplete" in daemon.ctr("images", "check", namespace=namespace).stdout
    assert image(daemon, namespace, archive=archive)["changed"]
    assert "incomplete" not in daemon.ctr("images", "check", namespace=namespace).stdout


def test_several_namespaces_at_once(daemon: Daemon, tmp_path: Path) -> None:
    archive, digest = archive_of(tmp_path, REF)
    names = [f"test{next(_number)}" for _each in range(2)]
    assert image(daemon, names[0], archive=archive)["changed"]
    result = image(daemon, names, archive=archive, diff=True)
    assert result["changed"]
    assert result["diff"]["before"] == f"{names[0]} {REF} {digest}\n", "only the other one lacked it"
    assert listed(daemon, names[0]) == listed(daemon, names[1]) == {REF: digest}
    assert not image(daemon, names, archive=archive)["changed"]
    assert image(daemon, names, name=[REF], state="absent")["changed"]
    assert listed(daemon, names[0]) == listed(daemon, names[1]) == {}
    assert "namespace is empty" in image(daemon, [], archive=archive)["msg"]


def test_runs_at_the_same_time_all_succeed(daemon: Daemon, namespace: str, tmp_path: Path) -> None:
    """None of them removes the name under which another one is importing."""
    archive, digest = archive_of(tmp_path, REF)
    parameters = {"address": daemon.address, "namespace": [namespace], "archive": archive}
    processes = [start_module("containerd_image", **parameters) for _run in range(6)]
    results = [finish_module(process) for process in processes]
    assert [result["msg"] for result in results if result.get("failed")] == []
    assert listed(daemon, namespace) == {REF: digest}


def test_the_host_is_asked_without_the_archive(daemon: Daemon, namespace: str, tmp_path: Path) -> None:
    """What the action plugin does before it sends one."""
    archive, digest = archive_of(tmp_path, REF)
    with Archive(archive) as opened:
        read = [one.to_dict() for one in opened.images()]
    asked = image(daemon, namespace, src="/on/the/controller", images=read)
    assert (asked["changed"], asked["digest"]) == (True, digest)
    assert listed(daemon, namespace) == {}
    image(daemon, namespace, archive=archive)
    assert not image(daemon, namespace, src="/on/the/controller", images=read)["changed"]
    foreign = [{**read[0], "variants": [{**read[0]["variants"][0], "platform": f"linux/{oci.FOREIGN_ARCH}"}]}]
    assert "/on/the/controller is for" in image(daemon, namespace, src="/on/the/controller", images=foreign)["msg"]


def test_nameless_archive(daemon: Daemon, namespace: str, tmp_path: Path) -> None:
    archive, digest = archive_of(tmp_path)
    result = image(daemon, namespace, archive=archive)
    assert result["failed"]
    assert "no name" in result["msg"]
    assert image(daemon, namespace, archive=archive, name=[REF])["changed"]
    assert listed(daemon, namespace) == {REF: digest}


def test_a_name_that_is_only_a_tag(daemon: Daemon, namespace: str, tmp_path: Path) -> None:
    result = image(daemon, namespace, archive=archive_of(tmp_path, "latest")[0])
    assert "only a tag" in result["msg"]


def test_docker_archive(daemon: Daemon, namespace: str, tmp_path: Path) -> None:
    entries, config = oci.docker_entries(oci.tar({"bin/tool": (b"#!tool", 0o755)}), REF)
    path = tmp_path / "docker.tar"
    path.write_bytes(oci.tar(entries))
    result = image(daemon, namespace, archive=str(path))
    assert (result["changed"], result["config_digest"]) == (True, config), result
    assert result["digest"] == listed(daemon, namespace)[REF]
    assert not image(daemon, namespace, archive=str(path))["changed"]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"digest": f"sha256:{'0' * 64}"}, "is expected"),
        ({"digest": "latest"}, "is no digest"),
        ({"platform": "linux/s390x"}, "linux/s390x is needed"),
        ({"name": ["two words"]}, "no image name"),
        ({"name": ["$(id)"]}, "no image name"),
        ({"name": ["--force"]}, "no image name"),
        ({"name": ["x" * 4096]}, "no image name"),
        ({"name": ["a\nb"]}, "no image name"),
        ({"name": ["grün"]}, "no image name"),
    ],
)
def test_bad_input(daemon: Daemon, namespace: str, tmp_path: Path, params: dict, message: str) -> None:
    result = image(daemon, namespace, archive=archive_of(tmp_path, REF)[0], **params)
    assert result["failed"]
    assert message in result["msg"]
    assert listed(daemon, namespace) == {}


def test_foreign_architecture(daemon: Daemon, namespace: str, tmp_path: Path) -> None:
    archive, _digest = archive_of(tmp_path, REF, arch=oci.FOREIGN_ARCH)
    result = image(daemon, namespace, archive=archive)
    assert result["failed"]
    assert f"linux/{oci.FOREIGN_ARCH}" in result["msg"]
    assert listed(daemon, namespace) == {}


def test_truncated_archive(daemon: Daemon, namespace: str, tmp_path: Path) -> None:
    archive, _digest = archive_of(tmp_path, REF, text=os.urandom(100000))
    os.truncate(archive, 60000)
    result = image(daemon, namespace, archive=archive)
    assert result["failed"]
    assert "truncated" in result["msg"]
    assert listed(daemon, namespace) == {}


def test_an_altered_layer_is_refused_before_anything_changes(daemon: Daemon, namespace: str, tmp_path: Path) -> None:
    entries, _digest = oci.oci_entries(b"layer", REF)
    entries[oci.blob_name(b"layer")] = b"rayel"
    path = tmp_path / "altered.tar"
    path.write_bytes(oci.tar(entries))
    result = image(daemon, namespace, archive=str(path))
    assert result["failed"]
    assert "altered" in result["msg"]
    assert listed(daemon, namespace) == {}


def test_the_names_that_cri_gives_go_with_the_last_of_the_others() -> None:
    """What CRI really does in k8s.io is proven by the molecule scenario ggen_image."""
    held = {REF: "sha256:a", f"{REF}-b": "sha256:a", "sha256:1": "sha256:a", "sha256:2": "sha256:other"}
    assert cri_names(held, {REF: "sha256:a"}) == {}
    assert cri_names(held, {REF: "sha256:a", f"{REF}-b": "sha256:a"}) == {"sha256:1": "sha256:a"}
    assert cri_names(held, {}) == {}


def test_absent(daemon: Daemon, namespace: str, tmp_path: Path) -> None:
    archive, digest = archive_of(tmp_path, REF, f"{REF}-b")
    image(daemon, namespace, archive=archive)
    assert image(daemon, namespace, name=[REF, "docker.io/library/never:1"], state="absent")["changed"]
    assert listed(daemon, namespace) == {f"{REF}-b": digest}
    assert image(daemon, namespace, archive=archive, state="absent")["changed"]
    assert not image(daemon, namespace, archive=archive, state="absent")["changed"]
    assert listed(daemon, namespace) == {}


def test_no_containerd(tmp_path: Path) -> None:
    archive, _digest = archive_of(tmp_path, REF)
    result = run_module("containerd_image", address=str(tmp_path / "no.sock"), archive=archive)
    assert result["failed"]
    assert "does not answer" in result["msg"]


def pins(daemon: Daemon, namespace: str = "k8s.io") -> dict[str, str]:
    """Return the names with a label of the pin's key: name → the label's value, as containerd itself keeps it."""
    rows = daemon.ctr("images", "ls", namespace=namespace).stdout.splitlines()[1:]
    found = {row.split()[0]: re.search(r"io\.cri-containerd\.pinned=(\w*)", row.split()[-1]) for row in rows}
    return {name: label.group(1) for name, label in found.items() if label}


@pytest.fixture
def kubernetes(daemon: Daemon) -> Iterator[str]:
    """The namespace of Kubernetes, without images afterwards."""
    yield "k8s.io"
    for name in listed(daemon, "k8s.io"):
        daemon.ctr("images", "rm", "--sync", name, namespace="k8s.io")


LATEST, PREVIOUS = "docker.io/library/tool:latest", "docker.io/library/tool:previous"


def test_an_image_is_pinned_in_kubernetes_namespace_alone(daemon: Daemon, namespace: str, kubernetes: str, tmp_path: Path) -> None:
    archive, digest = archive_of(tmp_path, REF, LATEST)
    options = {"archive": archive, "pinned": True, "diff": True}
    first = image(daemon, [namespace, kubernetes], **options)
    assert (first["changed"], first["missing"]) == (True, [namespace, kubernetes])
    assert f"k8s.io {REF} {digest} pinned\n" in first["diff"]["after"]
    assert f"{namespace} {REF} {digest}\n" in first["diff"]["after"]
    assert pins(daemon) == {REF: "pinned", LATEST: "pinned"}
    assert pins(daemon, namespace) == {}
    again = image(daemon, [namespace, kubernetes], **options)
    assert (again["changed"], again["missing"], again["diff"]["before"]) == (False, [], again["diff"]["after"])
    # Nobody asked for the pin to go.
    assert not image(daemon, kubernetes, archive=archive)["changed"]
    assert pins(daemon) == {REF: "pinned", LATEST: "pinned"}


@pytest.mark.parametrize("label", ["", "io.cri-containerd.pinned=", "io.cri-containerd.pinned=no", "note=io.cri-containerd.pinned=pinned"])
def test_what_is_there_is_pinned_without_the_archive(daemon: Daemon, kubernetes: str, tmp_path: Path, label: str) -> None:
    archive, _digest = archive_of(tmp_path, REF, LATEST)
    with Archive(archive) as opened:
        images = [one.to_dict() for one in opened.images()]
    image(daemon, kubernetes, archive=archive)
    if label:
        daemon.ctr("images", "label", REF, label, namespace=kubernetes)
    daemon.ctr("images", "label", LATEST, "io.cri-containerd.pinned=pinned", namespace=kubernetes)
    asked = {"src": "/none", "images": images, "pinned": True}
    checked = image(daemon, kubernetes, check=True, diff=True, **asked)
    assert (checked["changed"], checked["missing"]) == (True, [])
    assert (checked["diff"]["before"].count(" pinned\n"), checked["diff"]["after"].count(" pinned\n")) == (1, 2)
    assert pins(daemon).get(REF) != "pinned" or label.startswith("note")
    done = image(daemon, kubernetes, **asked)
    assert (done["changed"], done["missing"]) == (True, [])
    assert not image(daemon, kubernetes, **asked)["changed"]
    assert Ctr(daemon.address, kubernetes).pinned() == {REF, LATEST}


def test_a_new_image_takes_the_pin_and_the_one_before_keeps_it(daemon: Daemon, kubernetes: str, tmp_path: Path) -> None:
    for number, text in enumerate((b"one", b"two")):
        archive, _digest = archive_of(tmp_path, f"docker.io/library/tool:{number}", LATEST, text=text)
        image(daemon, kubernetes, archive=archive, keep_previous=True, pinned=True)
    every = ["docker.io/library/tool:0", "docker.io/library/tool:1", LATEST, PREVIOUS]
    assert pins(daemon) == dict.fromkeys(every, "pinned")
    assert image(daemon, kubernetes, name=[LATEST], state="previous")["restored"] == ["k8s.io"]
    assert pins(daemon) == dict.fromkeys(every[:3], "pinned")


def test_a_further_name_is_pinned_as_well(daemon: Daemon, kubernetes: str, tmp_path: Path) -> None:
    image(daemon, kubernetes, archive=archive_of(tmp_path, REF)[0])
    more = {"source": REF, "name": [LATEST, "docker.io/library/tool:mine"], "pinned": True}
    assert image(daemon, kubernetes, check=True, **more)["changed"]
    assert pins(daemon) == {}
    assert image(daemon, kubernetes, **more)["changed"]
    assert sorted(pins(daemon)) == sorted(more["name"])
    daemon.ctr("images", "label", LATEST, "io.cri-containerd.pinned=", namespace=kubernetes)
    assert image(daemon, kubernetes, **more)["changed"]
    assert not image(daemon, kubernetes, **more)["changed"]


@pytest.mark.parametrize("version", ["1.7.24", "2.1.9"])
def test_newer_containerds_keep_the_pin(version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their CRI plugin, which is told of each image in its namespace, writes labels of its own."""
    monkeypatch.setenv("PATH", ensure(version).path)
    with Daemon(tmp_path / "daemon") as newer:
        archive, digest = archive_of(tmp_path, REF)
        assert image(newer, "k8s.io", archive=archive, pinned=True)["changed"]
        deadline = time.monotonic() + 20
        while "io.cri-containerd.image=managed" not in newer.ctr("images", "ls", f"name=={REF}", namespace="k8s.io").stdout:
            assert time.monotonic() < deadline, newer.log()[-2000:]
            time.sleep(0.05)
        assert pins(newer)[REF] == "pinned"
        assert not image(newer, "k8s.io", archive=archive, pinned=True)["changed"]
        # The name by digest that it gives stays without, and goes with the last of the others.
        assert set(pins(newer)) == {REF}
        assert image(newer, "k8s.io", name=[REF], state="absent")["changed"]
        assert digest not in listed(newer, "k8s.io").values()


def test_a_pinned_image_can_be_removed(daemon: Daemon, kubernetes: str, tmp_path: Path) -> None:
    image(daemon, kubernetes, archive=archive_of(tmp_path, REF)[0], pinned=True)
    assert image(daemon, kubernetes, name=[REF], state="absent")["changed"]
    assert listed(daemon, kubernetes) == {}
