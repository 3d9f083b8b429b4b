# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What references, credentials, manifests and skopeo's words are taken for."""

from __future__ import annotations

import base64
import json

import pytest
from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._containerd import registry
from ansible_collections.ggen.gvisor.plugins.module_utils._containerd.image_config import read_document

DIGEST = f"sha256:{'ab' * 32}"
HIDDEN = "s3cret-word"


@pytest.mark.parametrize(
    ("text", "registry_", "names"),
    [
        (f"registry.example.org/tools/lint@{DIGEST}", "registry.example.org", [f"registry.example.org/tools/lint@{DIGEST}"]),
        (f"localhost:5000/a:1.2@{DIGEST}", "localhost:5000", [f"localhost:5000/a@{DIGEST}", "localhost:5000/a:1.2"]),
        (f"docker.io/alpine@{DIGEST}", "docker.io", [f"docker.io/library/alpine@{DIGEST}"]),
        (f"index.docker.io/library/alpine@{DIGEST}", "docker.io", [f"docker.io/library/alpine@{DIGEST}"]),
        (f"ghcr.io/a-b/c__d.e/f@{DIGEST}", "ghcr.io", [f"ghcr.io/a-b/c__d.e/f@{DIGEST}"]),
    ],
)
def test_a_reference_names_one_image(text: str, registry_: str, names: list[str]):
    reference = registry.parse_reference(text)
    assert (reference.registry, reference.names) == (registry_, names)
    assert registry.parse_reference(str(reference)) == reference


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("registry.example.org/tools/lint:latest", "has no digest, and what a name leads to can change"),
        (f"registry.example.org/tools/lint@{DIGEST[:-1]}", "has no digest that works here"),
        (f"registry.example.org/tools/lint@{DIGEST.upper()}", "has no digest that works here"),
        (f"registry.example.org/tools/lint@sha512:{'ab' * 64}", "has no digest that works here"),
        (f"alpine@{DIGEST}", "does not begin with a registry"),
        (f"tools/alpine@{DIGEST}", "does not begin with a registry"),
        (f"Registry.example.org/a@{DIGEST}", "does not begin with a registry"),
        (f"registry.example.org/Tools/lint@{DIGEST}", "has a name that no registry has"),
        (f"registry.example.org/../lint@{DIGEST}", "has a name that no registry has"),
        (f"registry.example.org/a b@{DIGEST}", "has a name that no registry has"),
        (f"registry.example.org/a\n@{DIGEST}", "has a name that no registry has"),
        (f"registry.example.org/{'a' * 201}@{DIGEST}", "has a name that no registry has"),
        (f"registry.example.org/a:-1@{DIGEST}", "has a name that no registry has"),
        (f"--config.example.org/a@{DIGEST}", "does not begin with a registry"),
    ],
)
def test_one_that_leaves_something_open_is_refused(text: str, said: str):
    with pytest.raises(GvisorError, match=said) as refused:
        registry.parse_reference(text)
    assert registry.EXAMPLE in refused.value.message


@pytest.mark.parametrize(
    "text", [f"me:{HIDDEN}@registry.example.org/a@{DIGEST}", f"https://me:{HIDDEN}@example.org/a", f"me:{HIDDEN}@example.org/a"]
)
def test_a_password_in_one_is_refused_and_not_shown(text: str):
    with pytest.raises(GvisorError, match="has a user or a password in it") as refused:
        registry.parse_reference(text)
    assert HIDDEN not in refused.value.message


def test_only_a_registry_on_the_host_itself_is_local():
    local = {
        name: registry.parse_reference(f"{name}/a@{DIGEST}").is_local
        for name in ("localhost:1", "127.0.0.1:1", "127.1.2.3:1", "10.0.0.1:1", "localhost.example.org")
    }
    assert [name for name, found in local.items() if found] == ["localhost:1", "127.0.0.1:1", "127.1.2.3:1"]


def auth(**entries: dict) -> bytes:
    return json.dumps({"auths": {key.replace("__", "/").replace("_", "."): entry for key, entry in entries.items()}}).encode()


def test_of_the_credentials_only_the_registry_s_are_used():
    plain = base64.b64encode(f"me:{HIDDEN}".encode()).decode()
    both = auth(registry_example_org={"auth": plain}, other_example_org={"auth": "b3RoZXI="})
    entries = registry.credentials_for(registry.parse_reference(f"registry.example.org/a@{DIGEST}"), both)
    assert entries == {"registry.example.org": {"auth": plain}}
    assert set(registry.secret_words(entries)) == {plain, f"me:{HIDDEN}", HIDDEN}
    docker = json.dumps({"auths": {"https://index.docker.io/v1/": {"identitytoken": HIDDEN}}, "credsStore": "desktop"}).encode()
    assert registry.credentials_for(registry.parse_reference(f"docker.io/a@{DIGEST}"), docker)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"{", "is no auth.json"),
        (b"[]", "is no auth.json"),
        (b'{"auths": {"registry.example.org": "text"}}', "is no auth.json"),
        (b"\xff", "is no auth.json"),
        (b"{}", "has no credentials for registry.example.org"),
        (b'{"auths": {"registry.example.org": {}}, "credHelpers": {"registry.example.org": "x"}}', "helpers are not asked"),
    ],
)
def test_credentials_that_are_none_are_refused(data: bytes, said: str):
    with pytest.raises(GvisorError, match=said):
        registry.credentials_for(registry.parse_reference(f"registry.example.org/a@{DIGEST}"), data)


def test_what_is_said_has_no_credentials():
    said = f'Get "https://store.example.org/blob?X-Signature=abc&token=def": 403, {HIDDEN}'
    assert registry.without(said, [HIDDEN]) == 'Get "https://store.example.org/blob?********": 403, ********'


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("reading manifest x in y: unauthorized: authentication required", "lets nobody in with no credentials; give an auth_file"),
        ("pinging container registry x: Get x: dial tcp: lookup x: no such host", "the host finds no address of registry.example.org"),
        ("pinging container registry x: Get x: dial tcp 10.0.0.1:443: i/o timeout", "does not answer; see whether the host can reach it"),
        ("Error loading trust policy: open /etc/containers/policy.json: no such file or directory", "skopeo has no policy of signatures"),
        ("writing blob: write /x: no space left on device", "the disk is full"),
        ("something that nobody has seen", "cannot be pulled: something that nobody has seen"),
    ],
)
def test_what_skopeo_says_becomes_a_sentence(words: str, said: str):
    reference = registry.parse_reference(f"registry.example.org/a@{DIGEST}")
    log = f'time="x" level=warning msg="a"\ntime="x" level=fatal msg="{words}"\n'
    told = registry.explain(reference, log, known=False)
    assert told.startswith(f"image {reference} cannot be pulled: ")
    assert said in told


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ('reading blob sha256:{digest}: fetching blob: StatusCode: 404, \\"\\"', "does not have it"),
        ('reading blob sha256:{digest}: Get \\"https://example.org/x509/403?closed=1\\": stopped after 10 redirects', "without an end"),
        ("reading manifest in registry.example.org:401/unauthorized/certificate: i/o timeout", "does not answer"),
        ("invalid status code from registry 403 (Forbidden)", "lets nobody in"),
    ],
)
def test_names_addresses_and_digests_decide_nothing(words: str, said: str):
    reference = registry.parse_reference(f"registry.example.org:401/unauthorized/certificate@{DIGEST}")
    digest = ("401x403x" * 8).replace("x", "a")
    assert said in registry.explain(reference, f'level=fatal msg="{words.format(digest=digest)}"', known=False)


def index(*platforms: dict | None) -> dict:
    return {"manifests": [{"digest": str(number), **({} if one is None else {"platform": one})} for number, one in enumerate(platforms)]}


def test_of_an_index_the_part_that_says_just_the_platform_is_taken():
    arm = {"os": "linux", "architecture": "arm64"}
    choices = {
        "linux/arm64": index({"os": "linux", "architecture": "amd64"}, {**arm, "variant": "v8"}, arm, None),
        "linux/arm64/v8": index(arm, {**arm, "variant": "v8"}),
        "linux/amd64": index(arm, {"os": "unknown", "architecture": "unknown"}),
        "linux/riscv64": index(arm, None),
    }
    taken = {platform: registry.child_for(of, platform) for platform, of in choices.items()}
    assert {platform: child and child["digest"] for platform, child in taken.items()} == {
        "linux/arm64": "2",
        "linux/arm64/v8": "1",
        "linux/amd64": None,
        "linux/riscv64": "1",
    }


def test_a_manifest_s_bytes_are_counted_once_and_none_is_negative():
    def manifest(*sizes: object) -> dict:
        layers = [{"digest": f"sha256:{number:064x}", "size": size} for number, size in enumerate(sizes)]
        return read_document(json.dumps({"config": layers[0], "layers": [*layers, layers[-1]]}))

    assert registry.size_of_blobs(manifest(1, 10, 100)) == 111
    for wrong in (-1, "1", None, True, 1.5):
        with pytest.raises(ValueError, match="is no size"):
            registry.size_of_blobs(manifest(1, wrong))
