# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a kubelet's files say, in all ways to write YAML that somebody may use, and in ways that only an attacker would."""

from __future__ import annotations

import pytest
import yaml
from ansible_collections.ggen.gvisor.plugins.plugin_utils._kubernetes import kubelet
from hypothesis import given, settings
from hypothesis import strategies as st

KUBEADM = """\
apiVersion: kubelet.config.k8s.io/v1beta1
authentication:
  anonymous: {enabled: false}
  x509:
    clientCAFile: /etc/kubernetes/pki/ca.crt
cgroupDriver: systemd
clusterDNS:
- 10.96.0.10
containerRuntimeEndpoint: ""
kind: KubeletConfiguration
logging:
  options:
    json: {infoBufferSize: "0"}
"""


@pytest.mark.parametrize(
    "text",
    [
        KUBEADM,
        "cgroupDriver: systemd",
        "cgroupDriver: 'systemd'\n",
        'cgroupDriver: "systemd" # why\n',
        '"cgroupDriver" :   "system\\x64"\n',
        "? cgroupDriver\n: systemd\n",
        "---\ncgroupDriver: systemd\n...\n---\ncgroupDriver: cgroupfs\n",
        "%YAML 1.1\n---\ncgroupDriver: systemd\n",
        "cgroupDriver:\n  systemd\n",
        "cgroupDriver: |-\n  systemd\n",
        "cgroupDriver: !!str systemd\n",
        "cgroupDriver: &driver systemd\nkubeletCgroups: *driver\n",
        "{kind: KubeletConfiguration, cgroupDriver: systemd}",
        '{"cgroupDriver": "systemd"}',
        '{\n\t"kind": "KubeletConfiguration",\n\t"cgroupDriver": "systemd"\n}\n',
        "cgroupDriver: cgroupfs\ncgroupDriver: systemd\n",
        "\ufeffcgroupDriver: systemd\n",
        "cgroupDriver: systemd\r\nkind: KubeletConfiguration\r\n",
        "[a, b]: {cgroupDriver: cgroupfs}\ncgroupDriver: systemd\n",
    ],
)
def test_ways_to_say_systemd(text):
    assert kubelet.settings_in(text) == {"cgroupDriver": "systemd"}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# nothing\n",
        "---\n",
        "null\n",
        "{}",
        "kind: KubeletConfiguration\n",
        "cgroupDriver:\n",
        "cgroupDriver: ''\n",
        "cgroupDriver: ~\n",
        '{"cgroupDriver": null}',
        "cgroupdriver: systemd\n",
        "# cgroupDriver: systemd\n",
        "nested:\n  cgroupDriver: systemd\n",
        "nested: {cgroupDriver: systemd}\n",
        "list:\n- cgroupDriver: systemd\n",
        "text: |\n  cgroupDriver: systemd\n",
        'text: "\n\n  cgroupDriver: systemd"\n',
        "kubeletCgroups: cgroupDriver\n",
        "kubeletCgroups:\n- cgroupDriver\n- systemd\n",
    ],
)
def test_texts_that_say_nothing_of_it(text):
    assert kubelet.settings_in(text) == {}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("cgroupDriver: [systemd]\n", "its cgroupDriver is no text"),
        ("cgroupDriver: {}\n", "its cgroupDriver is no text"),
        ("a: &x systemd\ncgroupDriver: *x\n", "its cgroupDriver is no text"),
        ("a: &x {cgroupDriver: systemd}\n<<: *x\n", "merge key"),
        ("- cgroupDriver: systemd\n", "no mapping"),
        ("systemd", "no mapping"),
        ('"null"', "no mapping"),
        ("cgroupDriver: systemd\n bad\n  - :", "no YAML (line 3)"),
        ("kind: *nowhere {", "no YAML"),
        ("{cgroupDriver: systemd", "no YAML"),
        ("cgroupDriver: \x00", "no YAML"),
        ("\tcgroupDriver: systemd", "no YAML"),
        ("#" * (kubelet.MAX_TEXT + 1), "larger than 64 KiB"),
    ],
)
def test_texts_that_are_refused(text, words):
    with pytest.raises(ValueError, match=words.replace("(", r"\(").replace(")", r"\)")):
        kubelet.settings_in(text)


@pytest.mark.parametrize(
    "text",
    [
        # Loaded, the first would be ten thousand million texts, and the second call a program.
        "a0: &a0 [x, x]\n"
        + "".join(f"a{n + 1}: &a{n + 1} [{', '.join([f'*a{n}'] * 10)}]\n" for n in range(10))
        + "cgroupDriver: systemd\n",
        "a: !!python/object/apply:os.system [exit 1]\ncgroupDriver: systemd\n",
        "a: !!binary xxx\ncgroupDriver: !!python/name:os.system systemd\n",
    ],
)
def test_nothing_is_made_of_a_text(text):
    assert kubelet.settings_in(text) == {"cgroupDriver": "systemd"}


@pytest.mark.parametrize("text", ["[" * 60000, "{" * 60000, "- " * 30000, '{"a":' * 12000, "a: " + "[" * 900 + "]" * 900 + "\n"])
def test_depth_is_no_matter(text):
    try:
        assert kubelet.settings_in(text) == {}
    except ValueError as error:
        assert str(error).startswith("it is no")


@settings(deadline=None)
@given(
    st.dictionaries(st.sampled_from(["cgroupDriver", "kind", "a b", "'", "#"]), st.text(max_size=20)),
    st.sampled_from(["block", "flow", "json"]),
)
def test_it_reads_what_a_yaml_library_reads(document, style):
    text = {
        "block": lambda: yaml.safe_dump(document, default_flow_style=False),
        "flow": lambda: yaml.safe_dump(document, default_flow_style=True, allow_unicode=True),
        "json": lambda: yaml.safe_dump(document, default_style='"'),
    }[style]()
    there = {name: value for name, value in document.items() if name == "cgroupDriver" and value}
    assert kubelet.settings_in(text) == there


@settings(deadline=None)
@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text):
    try:
        kubelet.settings_in(text)
    except ValueError as error:
        assert str(error).startswith("it")


@pytest.mark.parametrize(
    ("endpoint", "path"),
    [
        ("unix:///run/containerd/containerd.sock", "/run/containerd/containerd.sock"),
        ("unix:///var/run/containerd/containerd.sock", "/run/containerd/containerd.sock"),
        ("/run//k3s/containerd/containerd.sock", "/run/k3s/containerd/containerd.sock"),
        ("npipe:////./pipe/x", "npipe:/pipe/x"),
    ],
)
def test_sockets(endpoint, path):
    assert kubelet.socket_of(endpoint) == path


def told(*texts: str | None, **flags: str) -> dict:
    files = [
        {"path": f"/{number}", "text": text, "error": None if text is not None else "it is no file"} for number, text in enumerate(texts)
    ]
    return {"pid": 7, "flags": {name.replace("_", "-"): value for name, value in flags.items()}, "files": files}


def test_no_kubelet():
    assert kubelet.describe(None)["found"] is False


def test_what_a_kubelet_takes_where_nobody_says_anything():
    described = kubelet.describe(told())
    assert (described["cgroup_driver"], described["address"], described["error"]) == ("cgroupfs", "/run/containerd/containerd.sock", None)


def test_later_files_win_and_flags_over_all():
    one, two = "cgroupDriver: systemd\ncontainerRuntimeEndpoint: unix:///run/a.sock\n", "cgroupDriver: cgroupfs\n"
    described = kubelet.describe(told(one, two))
    assert (described["cgroup_driver"], described["address"], described["files"]) == ("cgroupfs", "/run/a.sock", ["/0", "/1"])
    described = kubelet.describe(told(one, two, cgroup_driver="systemd", container_runtime_endpoint="unix:///run/b.sock"))
    assert (described["cgroup_driver"], described["address"]) == ("systemd", "/run/b.sock")


@pytest.mark.parametrize(
    ("given", "error"),
    [
        (told("cgroupDriver: systemd\n", None), "/1: it is no file"),
        (told("- x\n"), "/0: it is no mapping"),
        (told("cgroupDriver: Systemd\n"), "its cgroupDriver is 'Systemd', and there are cgroupfs and systemd"),
        (told("cgroupDriver: true\n"), "its cgroupDriver is 'true'"),
        (told(cgroup_driver="\x1b[2J"), r"its cgroupDriver is '\x1b[2J'"),
    ],
)
def test_what_cannot_be_understood_is_no_driver(given, error):
    described = kubelet.describe(given)
    assert described["cgroup_driver"] is None
    assert described["error"].startswith(error)
