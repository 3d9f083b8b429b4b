"""The decision between looking at a host and changing it."""

from __future__ import annotations

import copy
import hashlib

import pytest
import yaml
from ansible_collections.ggen.gvisor.plugins.filter.missing_image import missing_image
from ansible_collections.ggen.gvisor.plugins.module_utils._gvisor.history import COMMAND
from ansible_collections.ggen.gvisor.plugins.plugin_utils._gvisor.host_plan import host_plan, runsc_config, wanted_files
from ansible_collections.ggen.gvisor.plugins.plugin_utils._gvisor.host_report import drift, faults, host_report
from conftest import ROOT

FOLDER = "/usr/local/lib/gvisor"
SHIM = "containerd-shim-runsc-v1"
ROW = yaml.safe_load((ROOT / "vendors/gvisor/releases.yml").read_text())["releases"]["20260518"]
SUMS = ROW["sha256"]["amd64"]


HANDLER = {"name": "runsc", "runtime_type": "io.containerd.runsc.v1", "options": {"ConfigPath": "/etc/containerd/runsc.toml"}}


def perfect_host() -> dict:
    """A host on which nothing is missing, with every capability."""
    options = runsc_config({}, f"{FOLDER}/20260518/runsc")
    return {
        "containerd": {
            "installed": True,
            "running": True,
            "version": "1.7.24",
            "server_version": "1.7.24",
            "address": "/run/containerd/containerd.sock",
            "plugins": {"io.containerd.grpc.v1.cri": "ok"},
        },
        "config": {
            "path": "/etc/containerd/config.toml",
            "version": 2,
            "sha256": "ab",
            "default_runtime": "runc",
            "runtimes": {"runc": {}, "runsc": {"runtime_type": HANDLER["runtime_type"], "options": dict(HANDLER["options"])}},
            "ready": True,
            "drift": [],
        },
        "gvisor": {
            "release": "20260518",
            "runsc_version": "runsc version x",
            "links": {name: f"{FOLDER}/20260518/{name}" for name in ("runsc", SHIM)},
            "files": {"20260518": {name: {"sha256": SUMS[name], "mode": "0755"} for name in ("runsc", SHIM)}},
            "runsc_config": options,
            "runsc_config_sha256": hashlib.sha256(options.encode()).hexdigest(),
        },
        "images": {"default": {"docker.io/library/ggen:1": "sha256:1"}},
        "pinned": {},
        "host": {"capabilities": ["CAP_SYS_RESOURCE"], "architecture": "amd64"},
    }


def plan_of(info: dict, **options) -> dict:
    return host_plan(info, "20260518", ROW, SUMS, folder=FOLDER, **options)


def test_a_perfect_host_needs_nothing():
    plan = plan_of(perfect_host())
    assert not plan["needed"]
    assert (plan["files"], plan["links"], plan["options"]) == ({}, [], False)
    assert plan["shim"] == "upstream"


@pytest.mark.parametrize(
    ("path", "value", "part"),
    [
        (("files", "20260518", "runsc", "sha256"), "0" * 64, "files"),
        (("files", "20260518", "runsc", "mode"), "0700", "files"),
        (("files", "20260518"), {}, "files"),
        (("links", SHIM), "/opt/other/shim", "links"),
        (("links",), {}, "links"),
        (("runsc_config_sha256",), None, "options"),
    ],
)
def test_each_difference_is_planned_alone(path, value, part):
    info = perfect_host()
    place = info["gvisor"]
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    plan = plan_of(info)
    assert plan["needed"]
    assert [name for name in ("files", "links", "options") if plan[name]] == [part]


def test_a_host_without_the_capability_gets_the_tolerant_shim_and_no_other_does():
    names = {name: name for name in ("runsc", SHIM)}
    assert wanted_files(ROW, ["CAP_SYS_RESOURCE"]) == names
    assert wanted_files(ROW, ["CAP_CHOWN"]) == {**names, SHIM: f"{SHIM}.no-oom-score"}
    assert wanted_files(ROW, [], "upstream") == names
    assert wanted_files(ROW, ["CAP_SYS_RESOURCE"], "no-oom-score")[SHIM] == f"{SHIM}.no-oom-score"


def test_a_host_that_loses_the_capability_gets_the_other_shim():
    info = perfect_host()
    info["host"]["capabilities"] = []
    plan = plan_of(info)
    assert plan["files"] == {SHIM: f"{SHIM}.no-oom-score"}
    assert plan["shim"] == "no-oom-score"
    assert plan["sha256"][SHIM] == SUMS[f"{SHIM}.no-oom-score"]


def test_every_flag_is_a_quoted_string():
    text = runsc_config({"debug": True, "num-network-channels": 4, "debug-log": 'a"b\\c'}, "/x/runsc")
    assert 'debug = "true"\n' in text
    assert 'num-network-channels = "4"\n' in text
    assert 'debug-log = "a\\"b\\\\c"\n' in text
    assert 'binary_name = "/x/runsc"\n' in text


IMAGE = {"references": ["docker.io/library/ggen:1"], "digest": "sha256:1", "namespaces": ["default"]}


def test_a_perfect_host_is_reported_healthy():
    info = perfect_host()
    report = host_report(info, plan_of(info), HANDLER, image=IMAGE, proof={"kernel": "Starting gVisor..."})
    assert report["healthy"]
    assert report["config"]["handlers"] == ["runc", "runsc"]
    assert report["gvisor"]["files"][f"{FOLDER}/20260518/runsc"] == SUMS["runsc"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        # What containerd_runtime would change: the handler itself, its annotations, the default runtime.
        (
            lambda info: info["config"].update(ready=False, drift=["the default runtime is runc instead of runsc"]),
            "the default runtime is runc",
        ),
        (lambda info: info["containerd"].update(running=False), "does not answer"),
        (lambda info: info["containerd"].update(installed=False), "not installed"),
        (lambda info: info["containerd"]["plugins"].update({"io.containerd.grpc.v1.cri": "error"}), "in state error"),
        (lambda info: info["images"].clear(), "is missing instead of sha256:1"),
        (lambda info: info["images"]["default"].update({"docker.io/library/ggen:1": "sha256:2"}), "is sha256:2 instead"),
        (lambda info: info["gvisor"].update(runsc_config_sha256="00"), "options file"),
        (lambda info: info["gvisor"]["links"].clear(), "does not lead to release"),
        (lambda info: info["gvisor"]["files"].clear(), "is missing, changed"),
    ],
)
def test_drift_names_what_differs(change, words):
    info = copy.deepcopy(perfect_host())
    change(info)
    found = drift(info, plan_of(info), HANDLER, IMAGE)
    assert found
    assert all(words in sentence for sentence in found)


def in_kubernetes(pinned: dict, digest: str = "sha256:1") -> dict:
    info = perfect_host()
    info["images"]["k8s.io"] = {"docker.io/library/ggen:1": digest}
    info["pinned"] = pinned
    return info


@pytest.mark.parametrize(
    ("info", "found"),
    [
        (in_kubernetes({"k8s.io": ["docker.io/library/ggen:1"]}), []),
        (
            in_kubernetes({"k8s.io": []}),
            ["image docker.io/library/ggen:1 in namespace k8s.io is not pinned, and the kubelet may remove it"],
        ),
        (in_kubernetes({}), ["image docker.io/library/ggen:1 in namespace k8s.io is not pinned, and the kubelet may remove it"]),
        (in_kubernetes({}, "sha256:2"), ["image docker.io/library/ggen:1 in namespace k8s.io is sha256:2 instead of sha256:1"]),
    ],
)
def test_a_missing_pin_is_drift_where_the_image_should_be_in_kubernetes(info, found):
    both = {**IMAGE, "namespaces": ["default", "k8s.io"]}
    assert drift(info, plan_of(info), HANDLER, both) == found
    assert drift(info, plan_of(info), HANDLER, IMAGE) == []
    look = (info["images"], IMAGE["references"], IMAGE["digest"])
    assert missing_image(both["namespaces"], *look, info["pinned"]) == (["k8s.io"] if found else [])
    assert missing_image(both["namespaces"], *look) == (["k8s.io"] if "instead" in "".join(found) else [])
    assert missing_image(["default"], *look, info["pinned"]) == []


def with_options(text: str | None) -> dict:
    info = perfect_host()
    info["gvisor"].update(runsc_config=text, runsc_config_sha256=text and hashlib.sha256(text.encode()).hexdigest())
    return info


@pytest.mark.parametrize(
    ("text", "flags", "end"),
    [
        # A node whose cgroup driver has changed, either way.
        (runsc_config({}, f"{FOLDER}/20260518/runsc"), {"systemd-cgroup": True}, ": systemd-cgroup is missing instead of true"),
        (runsc_config({"systemd-cgroup": True}, f"{FOLDER}/20260518/runsc"), {}, ": systemd-cgroup is true instead of missing"),
        (
            runsc_config({"debug": True, "platform": "kvm"}, "/x"),
            {"platform": "ptrace"},
            ": debug is true instead of missing, platform is kvm instead of ptrace",
        ),
        (runsc_config({}, "/another/runsc"), {}, ""),
        ("runsc_config = 1\n", {"a": "b"}, ""),
        ("no TOML", {}, ""),
        (None, {"a": "b"}, ""),
    ],
)
def test_drift_of_the_options_file_names_the_flags(text, flags, end):
    info = with_options(text)
    plan = plan_of(info, flags=flags)
    assert plan["needed"]
    assert drift(info, plan, HANDLER) == [f"the shim's options file is missing or changed{end}"]


PROGRAM = {"program": {"sha256": "1", "mode": "0755"}}
RULE = {"rule": {"sha256": "2", "mode": "0440"}}


@pytest.mark.parametrize(
    ("there", "wanted", "found"),
    [
        ({}, {}, []),
        ({**PROGRAM, **RULE}, {**PROGRAM, **RULE}, []),
        (PROGRAM, {**PROGRAM, **RULE}, ["rule that lets members of a group run ggen-gvisor is missing, changed or has another mode"]),
        (
            {**PROGRAM, "rule": {**RULE["rule"], "mode": "0644"}},
            {**PROGRAM, **RULE},
            ["rule that lets members of a group run ggen-gvisor is missing, changed or has another mode"],
        ),
        (RULE, {}, ["rule that lets members of a group run ggen-gvisor is there, and should not be"]),
    ],
)
def test_what_lets_members_run_the_command_drifts_too(there, wanted, found):
    info = perfect_host()
    info["gvisor"]["members"] = there
    report = host_report(info, {**plan_of(info), "members": wanted}, HANDLER)
    assert report["drift"] == [f"the {sentence}" for sentence in found]
    assert report["healthy"] == (not found)
    assert host_report(info, plan_of(info), HANDLER)["healthy"]  # nothing is said where nobody asks


def test_a_node_s_report_has_its_driver():
    info, node = perfect_host(), {"node": True, "driver": "systemd", "by": "the kubelet's configuration", "flags": {}, "problem": None}
    report = host_report(info, {**plan_of(info), "node": node}, HANDLER)
    assert report["kubernetes"] == {"driver": "systemd", "by": "the kubelet's configuration"}
    assert host_report(info, {**plan_of(info), "node": {**node, "node": False}}, HANDLER)["kubernetes"] is None
    assert host_report(info, plan_of(info), HANDLER)["kubernetes"] is None


def faults_of(info: dict, built: dict | None = None, releases: dict | None = None) -> list[str]:
    return faults(info, HANDLER, {"20260518": ROW} if releases is None else releases, built or {}, folder=FOLDER)


def test_a_perfect_host_has_no_faults_whatever_options_it_gets_with_the_next_release():
    info = perfect_host()
    info["gvisor"]["runsc_config_sha256"] = "00"
    assert faults_of(info) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda info: info["gvisor"].update(release=None), "no gVisor that this collection installed"),
        (lambda info: info["gvisor"].update(runsc_config=None), "options file is missing"),
        (lambda info: info["gvisor"]["links"].update({SHIM: "/opt/shim"}), "does not lead to release 20260518"),
        (lambda info: info["gvisor"]["files"]["20260518"]["runsc"].update(sha256="00"), "20260518/runsc is missing, changed"),
        (lambda info: info["containerd"].update(running=False), "does not answer"),
        (lambda info: info["config"].update(ready=False, drift=["x has no runtime handler runsc"]), "no runtime handler runsc"),
        (lambda info: info["containerd"]["plugins"].update({"io.containerd.grpc.v1.cri": "error"}), "in state error"),
    ],
)
def test_faults_name_what_is_wrong(change, words):
    info = perfect_host()
    change(info)
    (found,) = faults_of(info)
    assert words in found


def test_a_build_of_the_user_s_own_is_compared_with_its_manifest():
    info = perfect_host()
    built = {name: {"sha256": "11"} for name in SUMS}
    assert len(faults_of(info, built)) == 2
    for name in ("runsc", SHIM):
        info["gvisor"]["files"]["20260518"][name]["sha256"] = "11"
    assert faults_of(info, built) == []


def test_a_release_that_the_table_has_forgotten_is_judged_by_what_is_there():
    info = perfect_host()
    assert faults_of(info, releases={}) == []
    del info["gvisor"]["files"]["20260518"][SHIM]
    assert faults_of(info, releases={}) == [f"{FOLDER}/20260518/{SHIM} is missing, changed or has another mode"]


def test_the_command_is_installed_where_it_is_wanted_and_its_link_removed_where_not():
    plan = plan_of(perfect_host(), command="c" * 64)
    assert (plan["needed"], plan["files"], plan["links"]) == (True, {COMMAND: COMMAND}, [COMMAND])
    assert plan["programs"][-1] == {"name": COMMAND, "src": COMMAND, "sha256": "c" * 64, "mode": "0755", "made": True}
    host = perfect_host()
    host["gvisor"]["files"]["20260518"][COMMAND] = {"sha256": "c" * 64, "mode": "0755"}
    host["gvisor"]["links"][COMMAND] = f"{FOLDER}/20260518/{COMMAND}"
    assert not plan_of(host, command="c" * 64)["needed"]
    assert plan_of(host, command="")["unwanted"] == [COMMAND]
    assert not plan_of(host)["needed"]  # nobody said
    host["gvisor"]["links"][COMMAND] = f"/usr/local/bin/{COMMAND}"  # a copy of its own
    assert plan_of(host, command="")["unwanted"] == []
    assert plan_of(host, command="c" * 64)["links"] == [COMMAND]
