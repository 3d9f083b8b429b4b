# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""containerd_image with a reference: a real registry, a real containerd and skopeo; and servers that do what no registry should."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from conftest import ROOT
from support import oci
from support.containerd import Daemon
from support.http import serving
from support.module import Result, finish_module, run_module, start_module
from support.playbook import play
from support.registry import PASSWORD, Registry, auth_file
from support.runs import RUNTIMES, Host, gvisor_daemon, own

_number = itertools.count()
INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
DOCKER = "application/vnd.docker.distribution.manifest.v2+json"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with gvisor_daemon(tmp_path_factory.mktemp("containerd"), small()) as running:
        yield running


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with Registry(tmp_path_factory.mktemp("registry") / "data") as running:
        yield running


@pytest.fixture
def namespace() -> str:
    return f"pull{next(_number)}"


@pytest.fixture
def pull(daemon: Daemon, namespace: str, tmp_path: Path) -> Callable[..., Result]:
    """Run the module; afterwards nothing of a pull is left on the host, and no result has held the password."""
    state = tmp_path / "state"

    def run(**params: object) -> Result:
        result = run_module("containerd_image", **{"address": daemon.address, "namespace": [namespace], "state_dir": str(state), **params})
        assert PASSWORD not in json.dumps({**result, "invocation": ""})
        assert os.listdir(state / "pulls") == [] if (state / "pulls").exists() else True
        return result

    return run


@pytest.fixture
def access(registry: Registry, tmp_path: Path) -> dict[str, str]:
    """What the module needs to be let in."""
    return {"auth_file": auth_file(tmp_path / "auth.json", registry.name), "ca_file": str(registry.authority)}


def documents(layer: bytes, **more: object) -> tuple[bytes, bytes]:
    """Return a manifest and its configuration."""
    entries, digest = oci.oci_entries(layer, **more)
    manifest = entries[f"blobs/sha256/{digest[7:]}"]
    return manifest, entries[f"blobs/sha256/{json.loads(manifest)['config']['digest'][7:]}"]


def pushed(registry: Registry, name: str, layer: bytes, **more: object) -> str:
    manifest, config = documents(layer, **more)
    return registry.push(name, manifest, blobs=(config, layer))


def small(text: bytes = b"#!tool") -> bytes:
    return oci.tar({"bin/tool": (text, 0o755)})


def listed(daemon: Daemon, namespace: str) -> dict[str, str]:
    rows = daemon.ctr("images", "ls", namespace=namespace).stdout.splitlines()[1:]
    return {row.split()[0]: row.split()[2] for row in rows}


def test_a_job_runs_in_an_image_of_a_registry(
    daemon: Daemon, registry: Registry, access: dict[str, str], pull: Callable[..., Result], namespace: str, tmp_path: Path
) -> None:
    reference = pushed(registry, "tools/busybox", oci.busybox_layer())
    done = pull(reference=reference, **access)
    assert (done["failed"], done["names"]) == (False, [reference]), done
    host = Host(daemon, tmp_path, RUNTIMES["runsc"])
    ran = host.run("echo pulled > result; cat result", own(tmp_path / "work"), image=reference, namespace=namespace)
    assert (ran["rc"], ran["stdout"].strip(), [one["path"] for one in ran["changed_files"]]) == (0, "pulled", ["result"]), ran
    assert host.settle() == {}


def test_once_it_is_there_no_registry_is_asked(
    daemon: Daemon, registry: Registry, access: dict[str, str], pull: Callable[..., Result], namespace: str
) -> None:
    reference = pushed(registry, "tools/tool", small())
    name, digest = reference.split("@")
    wanted = {"reference": f"{name}:1.2@{digest}", **access}
    asked = registry.log().count("/v2/tools/tool")
    checked = pull(**wanted, check=True, diff=True)
    assert (checked["changed"], checked["missing"], checked["fetched"]) == (True, [namespace], 0), checked
    assert f"{namespace} {name}:1.2 {digest}" in checked["diff"]["after"]
    assert (listed(daemon, namespace), registry.log().count("/v2/tools/tool")) == ({}, asked)
    done = pull(**wanted, diff=True)
    assert (done["changed"], done["digest"], done["missing"]) == (True, digest, [namespace]), done
    assert (done["diff"], done["fetched"] > len(small())) == (checked["diff"], True)
    assert listed(daemon, namespace) == {f"{name}:1.2": digest, reference: digest}
    asked = registry.log().count("/v2/tools/tool")
    for check in (True, False):
        again = pull(**wanted, check=check)
        assert (again["changed"], again["fetched"], again["config_digest"]) == (False, 0, done["config_digest"])
    assert registry.log().count("/v2/tools/tool") == asked
    assert pull(reference=wanted["reference"], state="absent")["changed"]
    assert listed(daemon, namespace) == {}


def test_of_an_index_the_platform_s_part_comes(
    daemon: Daemon, registry: Registry, access: dict[str, str], pull: Callable[..., Result], namespace: str
) -> None:
    layers = {oci.ARCH: small(b"ours"), oci.FOREIGN_ARCH: small(b"theirs" * 1000)}
    parts = {arch: documents(layer, arch=arch) for arch, layer in layers.items()}
    children = [
        {"mediaType": MANIFEST, "digest": oci.digest(manifest), "size": len(manifest), "platform": {"os": "linux", "architecture": arch}}
        for arch, (manifest, _config) in parts.items()
    ]
    index = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": children}).encode()
    blobs = (*layers.values(), *(config for _manifest, config in parts.values()))
    reference = registry.push("tools/both", *(manifest for manifest, _config in parts.values()), index, blobs=blobs)
    done = pull(reference=reference, **access)
    assert (done["digest"], done["platforms"]) == (oci.digest(index), [f"linux/{oci.ARCH}"]), done
    assert oci.digest(layers[oci.FOREIGN_ARCH]) not in daemon.ctr("content", "ls", "-q", namespace=namespace).stdout
    assert not pull(reference=reference, **access)["changed"]
    only = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": children[1:]}).encode()
    other = registry.push("tools/both", only, blobs=())
    assert f"image {other} is for linux/{oci.FOREIGN_ARCH}, and linux/{oci.ARCH} is needed" in pull(reference=other, **access)["msg"]


def test_docker_s_manifests_keep_their_digest(registry: Registry, access: dict[str, str], pull: Callable[..., Result]) -> None:
    manifest, config = documents(small())
    docker = json.loads(manifest)
    docker.pop("annotations")
    docker["mediaType"] = DOCKER
    docker["config"]["mediaType"] = "application/vnd.docker.container.image.v1+json"
    docker["layers"][0]["mediaType"] = "application/vnd.docker.image.rootfs.diff.tar"
    reference = registry.push("tools/docker", json.dumps(docker, indent=3).encode(), blobs=(config, small()))
    done = pull(reference=reference, **access)
    assert reference.endswith(str(done["digest"])), done
    assert not pull(reference=reference, **access)["changed"]


def test_the_image_before_is_kept_and_gone_back_to(
    daemon: Daemon, registry: Registry, access: dict[str, str], pull: Callable[..., Result], namespace: str
) -> None:
    latest, previous = "docker.io/library/tool:latest", "docker.io/library/tool:previous"
    digests = []
    for text in (b"first", b"second"):
        reference = pushed(registry, "tools/kept", small(text))
        digests.append(reference.partition("@")[2])
        checked = pull(reference=reference, name=[latest], keep_previous=True, check=True, **access)
        done = pull(reference=reference, name=[latest], keep_previous=True, **access)
        assert (done["failed"], done["replaced"]) == (False, checked["replaced"]), done
    assert listed(daemon, namespace) == {latest: digests[1], previous: digests[0]}
    assert pull(name=[latest], state="previous")["restored"] == [namespace]
    assert listed(daemon, namespace) == {latest: digests[0]}
    # What containerd has under no name any more, or not in all namespaces, is brought again.
    again = pull(reference=reference, name=[latest], namespace=[namespace, f"{namespace}-b"], **access)
    assert again["missing"] == [namespace, f"{namespace}-b"]
    assert listed(daemon, f"{namespace}-b") == {latest: digests[1]}


def test_an_image_that_would_steer_the_host_is_refused(
    daemon: Daemon, registry: Registry, access: dict[str, str], pull: Callable[..., Result], namespace: str
) -> None:
    reference = pushed(registry, "tools/bad", small(), labels={"containerd.io/restart.status": "running"})
    refused = pull(reference=reference, **access)
    assert f"image {reference} has labels or annotations" in refused["msg"]
    assert listed(daemon, namespace) == {}


def test_who_may_not_is_told_what_to_do(registry: Registry, access: dict[str, str], pull: Callable[..., Result], tmp_path: Path) -> None:
    reference = pushed(registry, "tools/closed", small())
    ca = {"reference": reference, "ca_file": access["ca_file"]}
    begin = f"image {reference} cannot be pulled: {registry.name} "
    assert pull(**ca)["msg"].startswith(f"{begin}lets nobody in with no credentials; give an auth_file")
    wrong = pull(**ca, auth_file=auth_file(tmp_path / "wrong.json", registry.name, "wrong-horse-8"))
    assert wrong["msg"] == f"{begin}lets nobody in with the credentials of auth_file; log in again"
    assert "wrong-horse-8" not in json.dumps(wrong)
    other = pull(**ca, auth_file=auth_file(tmp_path / "other.json", "registry.example.org"))
    assert f"auth_file has no credentials for {registry.name}" in other["msg"]
    absent = reference[:-1] + ("0" if reference[-1] != "0" else "1")
    assert "does not have it; compare name and digest" in pull(**{**access, "reference": absent})["msg"]
    unproven = pull(reference=reference, auth_file=access["auth_file"])
    assert f"{registry.name} does not prove who it is" in unproven["msg"]
    assert "give its authority's certificate as ca_file" in unproven["msg"]


def test_credentials_that_others_can_read_are_not_used(
    registry: Registry, access: dict[str, str], pull: Callable[..., Result], tmp_path: Path
) -> None:
    reference = pushed(registry, "tools/closed", small())
    path = Path(access["auth_file"])
    for mode in (0o640, 0o604):
        path.chmod(mode)
        assert f"auth_file {path} is not its owner's alone to read: mode {mode:04o}" in pull(reference=reference, **access)["msg"]
    path.chmod(0o600)
    os.chown(path, 1000, 1000)
    assert "uid 1000" in pull(reference=reference, **access)["msg"]
    own(tmp_path / "theirs")
    (tmp_path / "theirs/auth.json").symlink_to(path)
    refused = pull(**{**access, "reference": reference, "auth_file": str(tmp_path / "theirs/auth.json")})
    assert "is a link" in refused["msg"]
    authority = tmp_path / "ca.crt"
    authority.write_bytes(registry.authority.read_bytes())
    authority.chmod(0o666)
    assert "is not its owner's alone to write" in pull(reference=reference, ca_file=str(authority))["msg"]


def test_what_is_too_large_does_not_come(registry: Registry, access: dict[str, str], pull: Callable[..., Result]) -> None:
    reference = pushed(registry, "tools/large", os.urandom(200_000))
    assert "and 0.1 MB are the most; set max_size" in pull(reference=reference, max_size="100K", **access)["msg"]


def test_what_has_no_room_does_not_come(registry: Registry, access: dict[str, str], pull: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=755", "tmpfs", tmp_path / "state"], check=True)
    try:
        refused = pull(reference=pushed(registry, "tools/large", os.urandom(600_000)), **access)
        assert f"needs 1.2 MB at {tmp_path}/state/pulls until it is imported" in refused["msg"]
        (tmp_path / "state/full").write_bytes(b"x" * 1_010_000)
        refused = pull(reference=pushed(registry, "tools/tool", small()), **access)
        assert "too little room on the file system of the state folder" in refused["msg"]
    finally:
        subprocess.run(["umount", tmp_path / "state"], check=True)


def test_what_a_killed_pull_left_goes(registry: Registry, access: dict[str, str], pull: Callable[..., Result], tmp_path: Path) -> None:
    left = tmp_path / "state/pulls/tmpabc/image"
    left.mkdir(parents=True)
    (left / "blob").write_bytes(b"half")
    assert pull(reference=pushed(registry, "tools/tool", small()), **access)["changed"]  # the fixture looks


def test_references_that_leave_something_open_are_refused(pull: Callable[..., Result]) -> None:
    for reference in ("localhost:1/tool:latest", f"localhost:1/Tool@sha256:{'0' * 64}", "tool@sha256:12"):
        assert pull(reference=reference)["msg"].startswith(f"reference={reference!r} ")
    secret = pull(reference=f"me:{PASSWORD}@registry.example.org/tool@sha256:{'0' * 64}")
    assert "write registry.example.org" in secret["msg"]
    assert "plain_http is for a registry on the host itself" in pull(reference=f"example.org/a@sha256:{'0' * 64}", plain_http=True)["msg"]


def test_without_skopeo_its_package_is_named(pull: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, daemon: Daemon) -> None:
    from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
    from ansible_collections.ggen.gvisor.plugins.module_utils._containerd import registry

    monkeypatch.setattr(registry.shutil, "which", lambda *_words, **_more: None)
    asking = registry.Asking(registry.parse_reference(f"localhost/a@sha256:{'0' * 64}"), "linux/amd64")
    with pytest.raises(GvisorError, match=r"skopeo was not found on this host.*apt-get install skopeo"):
        registry.pull(asking, registry.Bounds(1, 1, lambda: None), "/nonexistent")


# Servers that are none

LAYER = oci.tar({"data": os.urandom(300_000)})
Answers = dict[str, bytes | Callable[[BaseHTTPRequestHandler], object] | None]


def head(handler: BaseHTTPRequestHandler, length: int, code: int = 200, **headers: str) -> None:
    handler.send_response(code)
    for name, value in {"Content-Length": str(length), **headers}.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()


def half(handler: BaseHTTPRequestHandler) -> None:
    head(handler, len(LAYER))
    handler.wfile.write(LAYER[: len(LAYER) // 2])
    handler.close_connection = True


def endless(handler: BaseHTTPRequestHandler) -> None:
    head(handler, 1 << 40)
    while True:
        handler.wfile.write(LAYER)


def silent(_handler: BaseHTTPRequestHandler) -> None:
    time.sleep(6)


def around(handler: BaseHTTPRequestHandler) -> None:
    head(handler, 0, 307, Location=handler.path)


@pytest.mark.parametrize(
    ("what", "answer", "said"),
    [
        ("manifest", b"{}", "sends other bytes than the digest says"),
        ("manifest", endless, "sends a manifest that is too long for one|sends more than its manifest says"),
        ("manifest", around, "leads from one address to the next without an end"),
        ("manifest", silent, "did not come within 1 s; see why"),
        ("layer", None, "does not have it; compare name and digest"),
        ("layer", half, "ended in the middle; run again"),
        ("layer", endless, "sends more than its manifest says"),
        ("layer", b"x" * len(LAYER), "sends other bytes than the digest says"),
        ("layer", around, "leads from one address to the next without an end"),
        ("layer", silent, "did not come within 1 s; see why"),
    ],
)
def test_what_is_wrong_with_a_registry_is_one_sentence(
    daemon: Daemon, pull: Callable[..., Result], namespace: str, what: str, answer: bytes | Callable | None, said: str
) -> None:
    with hostile({what: answer}) as (reference, _asked):
        begin = time.monotonic()
        refused = pull(reference=reference, plain_http=True, timeout=1 if answer is silent else 30)
        assert refused["failed"]
        assert any(words in refused["msg"] for words in said.split("|")), refused
        assert refused["msg"].startswith(f"image {reference} ")
        assert "\n" not in refused["msg"]
        assert time.monotonic() - begin < 20
    assert listed(daemon, namespace) == {}


def test_nobody_listens(pull: Callable[..., Result]) -> None:
    assert (
        "nothing listens at localhost:1; start the registry" in pull(reference=f"localhost:1/a@sha256:{'0' * 64}", plain_http=True)["msg"]
    )


def test_credentials_go_to_their_registry_alone(pull: Callable[..., Result], tmp_path: Path) -> None:
    """A registry may lead to a store elsewhere: that gets none, and the store's own token in the address is not shown."""
    seen: list[str | None] = []

    def store(path: str) -> Callable[[BaseHTTPRequestHandler], None]:
        def answer(handler: BaseHTTPRequestHandler) -> None:
            seen.append(handler.headers.get("Authorization"))
            if "broken" in path:
                head(handler, 0, 403)
                return
            head(handler, len(LAYER))
            handler.wfile.write(LAYER)

        return answer

    with serving(store) as (address, _asked):
        elsewhere = address.replace("127.0.0.1", "localhost")
        for place in ("whole", "broken"):
            lead = {"layer": lambda handler, place=place: head(handler, 0, 307, Location=f"{elsewhere}/{place}?token=let-me-in")}
            with hostile(lead, closed=True) as (reference, _asked):
                auth = auth_file(tmp_path / f"{place}.json", reference.partition("/")[0])
                done = pull(reference=reference, plain_http=True, auth_file=auth)
                assert done["failed"] is (place == "broken"), done
                assert "let-me-in" not in json.dumps(done)
    assert seen
    assert set(seen) == {None}


def test_no_command_line_has_credentials(pull: Callable[..., Result], daemon: Daemon, namespace: str, tmp_path: Path) -> None:
    with hostile({"layer": silent}, closed=True) as (reference, asked):
        auth = auth_file(tmp_path / "auth.json", reference.partition("/")[0])
        state = tmp_path / "state"
        running = start_module(
            "containerd_image",
            **{"reference": reference, "auth_file": auth, "plain_http": True, "timeout": 3, "state_dir": str(state)},
            **{"address": daemon.address, "namespace": [namespace]},
        )
        wait_until(lambda: any("/blobs/" in path for path in asked))
        found = skopeos(reference)
        assert len(found) == 1
        secret = json.loads(Path(auth).read_text())["auths"][reference.partition("/")[0]]["auth"]
        for name in ("cmdline", "environ"):
            text = read(found[0] / name).decode(errors="replace")
            assert PASSWORD not in text
            assert secret not in text
        assert (files_with(secret, state), (state / "pulls").stat().st_mode & 0o777) == ([], 0o700)
        assert "did not come within 3 s" in finish_module(running)["msg"]


def test_of_a_pull_that_is_killed_neither_skopeo_nor_credentials_stay(daemon: Daemon, namespace: str, tmp_path: Path) -> None:
    """Nobody would watch how much more comes, until the timeout."""
    with hostile({"layer": silent}, closed=True) as (reference, asked):
        registry = reference.partition("/")[0]
        auth, state = auth_file(tmp_path / "auth.json", registry), tmp_path / "state"
        running = start_module(
            "containerd_image",
            **{"reference": reference, "auth_file": auth, "plain_http": True, "timeout": 60, "state_dir": str(state)},
            **{"address": daemon.address, "namespace": [namespace]},
        )
        wait_until(lambda: any("/blobs/" in path for path in asked))
        assert skopeos(reference)
        running.kill()
        running.communicate()
        wait_until(lambda: not skopeos(reference), 2)
        secret = json.loads(Path(auth).read_text())["auths"][registry]["auth"]
        assert (os.listdir(state / "pulls") != [], files_with(secret, state)) == (True, [])


def wait_until(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def skopeos(reference: str) -> list[Path]:
    """Return the processes that pull it."""
    found = [Path(f"/proc/{pid}") for pid in os.listdir("/proc") if pid.isdigit()]
    return [path for path in found if b"skopeo" in read(path / "cmdline") and reference.encode() in read(path / "cmdline")]


def files_with(secret: str, folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]


def read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


class hostile:
    """A registry of one image whose parts named in ``answers`` are answered so; gives the reference and the paths that were asked for."""

    def __init__(self, answers: Answers, closed: bool = False) -> None:
        self._manifest, config = documents(LAYER)
        parts: Answers = {"manifest": self._manifest, "layer": LAYER, **answers}
        digest = oci.digest(self._manifest)

        def answer(path: str) -> bytes | Callable[[BaseHTTPRequestHandler], object] | None:
            wanted = path.rpartition("/")[2]
            found = {digest: parts["manifest"], oci.digest(LAYER): parts["layer"], oci.digest(config): config, "": b"{}"}.get(wanted)

            def reply(handler: BaseHTTPRequestHandler) -> None:
                if closed and not handler.headers.get("Authorization"):
                    head(handler, 0, 401, WWW_Authenticate='Basic realm="tests"')
                elif callable(found):
                    found(handler)
                else:
                    head(handler, len(found or b""), 404 if found is None else 200, Content_Type=MANIFEST)
                    handler.wfile.write(found or b"")

            return reply

        self._serving = serving(answer)
        self._stack = contextlib.ExitStack()
        self._digest = digest

    def __enter__(self) -> tuple[str, list[str]]:
        address, asked = self._stack.enter_context(self._serving)
        return f"{address.partition('://')[2]}/tools/hostile@{self._digest}", asked

    def __exit__(self, *error: object) -> None:
        self._stack.__exit__(*error)


# In plays


def archive_in_registry(registry: Registry, access: dict[str, str], folder: Path) -> str:
    """Put ggen's archive into the registry, as docs/registries.md says, and return its reference."""
    built = ROOT / f"dist/26.5.19/linux_{oci.ARCH}"
    (folder / "certs").mkdir()
    (folder / "certs/ca.crt").write_bytes(registry.authority.read_bytes())
    (command,) = re.findall(r"(?m)^skopeo copy .*oci-archive:\S+ ", (ROOT / "docs/registries.md").read_text())
    options = ["--dest-authfile", access["auth_file"], "--dest-cert-dir", folder / "certs"]
    subprocess.run([*command.split(), *options, f"docker://{registry.name}/tools/ggen:26.5.19"], cwd=built.parents[2], check=True)
    return f"{registry.name}/tools/ggen@{json.loads((built / 'manifest.json').read_text())['metadata']['digest']}"


def test_ggen_s_image_comes_from_a_registry(daemon: Daemon, registry: Registry, access: dict[str, str], tmp_path: Path) -> None:
    """As role ggen_image brings it, in place of an archive that was built."""
    variables = {
        "ggen_image_auth_file": access["auth_file"],
        "ggen_image_ca_file": access["ca_file"],
        "ggen_image_namespaces": ["tools"],
        "ggen_image_kubernetes": "false",
        "ggen_image_address": daemon.address,
        "ggen_image_dest": str(tmp_path / "nothing-was-built"),
    }
    latest, previous = "docker.io/library/ggen:latest", "docker.io/library/ggen:previous"
    first, second = pushed(registry, "tools/ggen", small()), archive_in_registry(registry, access, tmp_path)

    def bring(reference: str, **more: object) -> dict[str, object]:
        role = {"role": "ggen.gvisor.ggen_image", "vars": {**variables, "ggen_image_reference": reference, **more}}
        return {"hosts": "localhost", "gather_facts": False, "roles": [role]}

    # As with --check, but for what the role knows of that.
    checked = {**bring(first, ggen_image_namespaces=["checked"]), "check_mode": True}
    plays = [checked, bring(first), bring(first), bring(second), bring("registry.example.org/ggen:latest")]
    (tmp_path / "play.yml").write_text(json.dumps(plays))
    done = play(str(tmp_path / "play.yml"))
    assert done.changed == ["Import the image by digest"] * 3, done.output
    assert "has no digest, and what a name leads to can change" in done.errors
    assert PASSWORD not in done.output
    assert listed(daemon, "tools") == {latest: second.partition("@")[2], previous: first.partition("@")[2]}
    assert listed(daemon, "checked") == {}
