"""Each variable has its effect: in files, in what containerd understands of its configuration, in a pod, in the report."""

from __future__ import annotations

import json

import pytest
import tomllib
from support.playbook import ROOT
from support.scenario import ARTIFACTS, run

testinfra_hosts = ["ansible://containerd_gvisor"]

CTR = "ctr --address /run/stranger/containerd.sock"
FOLDER = "/usr/local/lib/gvisor/20260518"
BUILT = ROOT / "bin/20260518/linux_amd64"
SHIM = "containerd-shim-runsc-v1"


@pytest.fixture
def dump(host) -> dict:
    """What containerd understands of its configuration: the CRI plugin's runtimes."""
    text = host.check_output("containerd --config /srv/containerd/config.toml config dump")
    return tomllib.loads(text)["plugins"]["io.containerd.grpc.v1.cri"]["containerd"]


@pytest.fixture
def report() -> dict:
    """The report of the last run, which changed nothing."""
    return json.loads((ARTIFACTS / "reports" / "alone-gvisor.json").read_text())


def sha256(path) -> str:
    return json.loads((BUILT / "manifest.json").read_text())["files"][path]["sha256"]


def test_the_named_release_with_the_forced_shim(host):
    assert host.file(f"{FOLDER}/runsc").sha256sum == sha256("runsc")
    assert host.file(f"{FOLDER}/{SHIM}").sha256sum == sha256(f"{SHIM}.no-oom-score")
    assert sorted(host.file("/usr/local/lib/gvisor").listdir()) == ["20260518"]


def test_somebody_else_s_runsc_was_replaced(host):
    assert host.file("/usr/local/bin/runsc").linked_to == f"{FOLDER}/runsc"


def test_there_is_no_command(host):
    assert not host.file("/usr/local/bin/ggen-gvisor").exists
    assert not host.file(f"{FOLDER}/ggen-gvisor").exists


def test_the_handler(dump):
    handler = dump["runtimes"]["untrusted"]
    assert handler["runtime_type"] == "io.containerd.runsc.v1"
    assert handler["pod_annotations"] == ["dev.gvisor.*", "example.org/*"]
    assert handler["options"] == {"TypeUrl": "io.containerd.runsc.v1.options", "ConfigPath": "/srv/containerd/untrusted.toml"}
    assert sorted(dump["runtimes"]) == ["runc", "untrusted"]


def test_it_is_the_default(dump):
    assert dump["default_runtime_name"] == "untrusted"


def test_the_options_file_has_every_flag_as_a_string(host):
    options = tomllib.loads(host.file("/srv/containerd/untrusted.toml").content_string)
    flags = {"platform": "ptrace", "oci-seccomp": "true", "num-network-channels": "2", "debug-log": '/var/log/"runsc"/'}
    assert options == {"binary_name": f"{FOLDER}/runsc", "runsc_config": flags}


def test_runsc_knows_the_flags(host):
    assert host.run("/usr/local/bin/runsc --platform=ptrace --oci-seccomp=true --num-network-channels=2 --version").rc == 0
    assert host.run("/usr/local/bin/runsc --no-such-flag=1 --version").rc != 0


def test_the_usual_places_were_left_alone(host):
    assert not host.file("/etc/containerd/runsc.toml").exists
    assert "runtimes" not in host.file("/etc/containerd/config.toml").content_string
    assert not host.file("/run/containerd/containerd.sock").exists


def test_the_report_is_in_its_own_folder_and_knows_the_image(report):
    assert report["healthy"], report["drift"]
    assert report["config"]["path"] == "/srv/containerd/config.toml"
    assert report["config"]["default_runtime"] == "untrusted"
    assert report["image"]["digest"] == (ARTIFACTS / "digest").read_text()
    assert not (ROOT / "reports" / "alone-gvisor.json").exists()


def test_the_report_has_the_driver_of_the_node(report):
    assert report["kubernetes"] == {"driver": "cgroupfs", "by": "the kubelet's configuration"}


def test_a_run_that_changed_nothing_proved_it_all_the_same(report):
    assert report["proof"]["kernel"].startswith("Starting gVisor")


def test_a_kubelet_that_changes_its_driver(host):
    """The kubelet is a stand-in, its configuration alone. With cgroup version 1 the host is refused as it is, with 2 the options follow."""
    options = host.file("/srv/containerd/untrusted.toml").content_string
    host.check_output("sed -i 's/cgroupDriver: .*/cgroupDriver: \"systemd\" # changed/' /var/lib/kubelet/config.yaml")
    done = run("molecule/containerd_gvisor/converge.yml")
    now = host.file("/srv/containerd/untrusted.toml").content_string
    if host.file("/sys/fs/cgroup/cgroup.controllers").exists:
        assert done.rc == 0, done.errors
        assert tomllib.loads(now)["runsc_config"] == {**tomllib.loads(options)["runsc_config"], "systemd-cgroup": "true"}
    else:
        assert "no limit of theirs would hold" in done.errors
        assert (now, done.changed) == (options, [])
    host.check_output("sed -i 's/cgroupDriver: .*/cgroupDriver: cgroupfs/' /var/lib/kubelet/config.yaml")
    done = run("molecule/containerd_gvisor/converge.yml")
    assert done.rc == 0, done.errors
    assert host.file("/srv/containerd/untrusted.toml").content_string == options


def test_a_pod_runs_in_gvisor(host):
    kind = "io.kubernetes.cri.container-type=sandbox"
    start = f"{CTR} run --detach --null-io --runtime io.containerd.runsc.v1 --annotation {kind} localhost/busybox:1 pod"
    host.check_output(f"{start} /usr/local/bin/catatonit -P")
    try:
        said = host.check_output(f"{CTR} tasks exec --exec-id job pod /bin/dmesg < /dev/null")
        assert said.splitlines()[0].endswith("Starting gVisor...")
    finally:
        host.run(f"{CTR} tasks kill --signal SIGKILL pod; {CTR} tasks rm --force pod; {CTR} containers rm pod")


def test_containerd_was_not_restarted_and_takes_the_handler_when_it_is(host):
    """The last but one: it restarts containerd."""
    pid = "systemctl show --property=MainPID containerd"
    assert host.check_output(pid) == host.file("/root/pid").content_string.strip()
    host.check_output("systemctl restart containerd")
    assert host.check_output(f"{CTR} plugins ls id==cri").split()[-1] == "ok"
    log = host.check_output("journalctl --unit containerd --output cat --grep 'Start cri plugin with config'").splitlines()[-1]
    assert "DefaultRuntimeName:untrusted" in log


def test_it_is_taken_away_from_where_it_was_put(host):
    """The last test."""
    done = run("molecule/containerd_gvisor/uninstall.yml")
    assert done.rc == 0, done.errors
    assert host.file("/srv/containerd/config.toml").content_string == host.file("/root/config.toml").content_string
    assert host.file("/srv/containerd").listdir() == ["config.toml"]
    assert not any(host.file(path).exists for path in ("/usr/local/bin/runsc", f"/usr/local/bin/{SHIM}", "/usr/local/lib/gvisor"))
    assert host.service("containerd").is_running
