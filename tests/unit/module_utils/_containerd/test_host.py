"""Reading a host, against this machine's own /proc and real files."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.ggen.gvisor.plugins.module_utils._base import platform, processes
from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._containerd import host as _host
from ansible_collections.ggen.gvisor.plugins.module_utils._containerd.config_files import read_for
from ansible_collections.ggen.gvisor.plugins.module_utils._gvisor import history
from ansible_collections.ggen.gvisor.plugins.plugin_utils._containerd import plan as containerd_plan
from ansible_collections.ggen.gvisor.plugins.plugin_utils._containerd.verdict import describe_config
from ansible_collections.ggen.gvisor.plugins.plugin_utils._gvisor.host_plan import runsc_config
from conftest import ROOT
from support import fixtures
from support.missing import MISSING

FIXTURES = ROOT / "tests/fixtures/containerd/input"


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1+deb12u1", "1.6.20"),
        ("containerd containerd.io 1.7.24 88bf19b2105c8b17560993bee28a01ddc2f97182", "1.7.24"),
        ("2.1.9-1", "2.1.9"),
        ("(none)", None),
    ],
)
def test_version_numbers_lose_their_packaging(text, number):
    assert _host.version_number(text) == number


def test_the_listener_of_a_socket_is_known_by_the_kernel(tmp_path):
    address = str(tmp_path / "api.sock")
    assert processes.listener_pid(address) is None
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(address)
        assert processes.listener_pid(address) is None, "bound and not listening"
        server.listen()
        assert processes.listener_pid(address) == os.getpid()
    assert processes.listener_pid(address) is None, "the file is left and nobody listens"


def test_capabilities_have_names(tmp_path, monkeypatch):
    (tmp_path / "status").write_text("Name:\tx\nCapEff:\t000001fffeffffff\n")
    monkeypatch.setattr(platform, "read_text", lambda path: (tmp_path / "status").read_text() if path == "/proc/7/status" else None)
    assert "CAP_SYS_RESOURCE" not in _host.capabilities(7)
    assert len(_host.capabilities(7)) == 40
    assert _host.capabilities(8) == []


def test_a_bare_host_has_no_gvisor(tmp_path):
    found = history.gvisor(str(tmp_path / "releases"), str(tmp_path), str(tmp_path / "runsc.toml"))
    nothing = {"release": None, "links": {}, "files": {}, "in_use": [], "foreign": [], "members": {}, "installed": {}}
    assert found == {**nothing, "runsc_version": None, "runsc_config": None, "runsc_config_sha256": None}


def test_an_installed_release_is_described(tmp_path):
    folder = tmp_path / "releases" / "20260518"
    folder.mkdir(parents=True)
    (folder / "runsc").write_text("#!/bin/sh\necho runsc version 1\n")
    (folder / "runsc").chmod(0o755)
    (tmp_path / "releases" / "installed.json").write_text(json.dumps({"packages": ["containerd"]}))
    (tmp_path / "runsc").symlink_to(folder / "runsc")
    found = history.gvisor(str(tmp_path / "releases"), str(tmp_path), str(tmp_path / "runsc.toml"))
    assert found["release"] == "20260518"
    assert found["runsc_version"] == "runsc version 1"
    assert found["files"]["20260518"]["runsc"]["mode"] == "0755"
    assert found["installed"] == {"packages": ["containerd"]}


def test_a_release_that_a_process_runs_is_in_use(tmp_path):
    releases = tmp_path / "releases"
    for name in ("20260224", "20260518", "20260701"):
        (releases / name).mkdir(parents=True)
        shutil.copy("/bin/sleep", releases / name / "runsc")
    running = [subprocess.Popen([releases / name / "runsc", "60"]) for name in ("20260224", "20260518")]
    try:
        os.rename(releases / "20260701" / "runsc", releases / "20260518" / "runsc")  # a replaced file still runs
        assert history.releases_in_use(str(releases)) == ["20260224", "20260518"]
        (tmp_path / "link").symlink_to(releases)
        assert history.releases_in_use(str(tmp_path / "link")) == ["20260224", "20260518"]
    finally:
        for process in running:
            process.kill()
            process.wait()
    assert history.releases_in_use(str(releases)) == []


def test_another_s_gvisor_is_foreign(tmp_path):
    (tmp_path / "runsc").write_text("#!/bin/sh\necho runsc version 2\n")
    (tmp_path / "runsc").chmod(0o755)
    (tmp_path / "containerd-shim-runsc-v1").symlink_to(f"{MISSING}/shim")
    (tmp_path / "runsc.toml").write_text("[runsc_config]\n")
    found = history.gvisor(str(tmp_path / "releases"), str(tmp_path), str(tmp_path / "runsc.toml"))
    assert found["release"] is None
    assert sorted(found["foreign"]) == [str(tmp_path / name) for name in ("containerd-shim-runsc-v1", "runsc", "runsc.toml")]


def test_an_options_file_of_ours_is_not_foreign(tmp_path):
    (tmp_path / "runsc.toml").write_text(runsc_config({}, "/x/runsc"))
    assert history.gvisor(str(tmp_path / "releases"), str(tmp_path), str(tmp_path / "runsc.toml"))["foreign"] == []


@pytest.mark.parametrize(("content", "mode"), [(b"", 0o755), (b"\x7fELFbroken", 0o755), (b"#!/bin/sh\n", 0o644)])
def test_a_damaged_runsc_is_described_and_no_error(tmp_path, content, mode):
    folder = tmp_path / "releases" / "20260518"
    folder.mkdir(parents=True)
    (folder / "runsc").write_bytes(content)
    (folder / "runsc").chmod(mode)
    (tmp_path / "releases" / "installed.json").write_text("{broken")
    (tmp_path / "runsc").symlink_to(folder / "runsc")
    found = history.gvisor(str(tmp_path / "releases"), str(tmp_path), str(tmp_path / "runsc.toml"))
    assert found["runsc_version"] == ""
    assert found["installed"] == {}
    assert found["files"]["20260518"]["runsc"]["mode"] == f"{mode:04o}"


@pytest.mark.parametrize("version", ["1.6.20", "1.7.24", "2.1.9"])
def test_handlers_are_read_from_each_containerd_s_dump(version):
    dump = (FIXTURES / f"default-{version}.toml").read_text()
    described = describe_config({"path": "/x", "exists": True, "sha256": "0", "text": dump, "dump": dump, "error": None})
    assert described["runtimes"]["runc"]["runtime_type"] == "io.containerd.runc.v2"
    assert described["default_runtime"] == "runc"


@pytest.mark.parametrize("dump", ['disabled_plugins = ["cri"]\n', 'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n'])
def test_handlers_are_read_from_the_file_where_cri_is_disabled(dump):
    """The dumps of 1.6.20 and 1.7.24 have nothing of a disabled plugin."""
    text = f'{dump}[plugins.cri.containerd.runtimes.runsc]\nruntime_type = "io.containerd.runsc.v1"\n'
    config = {"path": "/x", "exists": True, "sha256": "0", "text": text, "dump": dump, "error": None}
    assert describe_config(config)["runtimes"] == {"runsc": {"runtime_type": "io.containerd.runsc.v1"}}
    assert describe_config({**config, "dump": ""})["runtimes"] == {}


def test_a_file_without_version_line_is_version_1():
    config = {"path": "/x", "exists": True, "sha256": "0", "text": 'root = "/r"\n', "dump": "", "error": None}
    assert describe_config(config)["version"] == 1
    assert "text" not in describe_config(config)


def test_a_broken_file_is_described_and_no_error():
    config = {"path": "/x.toml", "exists": True, "sha256": "0", "text": "version = = 2\n", "dump": "", "error": None}
    assert describe_config(config)["error"].startswith("/x.toml: ")


@pytest.mark.skipif(not shutil.which("apt-cache"), reason="apt is Debian's")
def test_asking_apt_leaves_no_caches_behind(tmp_path, monkeypatch):
    (tmp_path / "archives" / "partial").mkdir(parents=True)
    # Images of containers switch the caches off in apt.conf.d.
    (tmp_path / "apt.conf").write_text(f'Dir::Cache "{tmp_path}"; Dir::Etc::parts "{tmp_path}/none";\n')
    monkeypatch.setenv("APT_CONFIG", str(tmp_path / "apt.conf"))
    _host._candidate("containerd")
    assert list(tmp_path.glob("*.bin*")) == []


def test_an_interrupted_dpkg_is_known_as_apt_knows_it(tmp_path):
    assert not _host.interrupted_packages(str(tmp_path / "none"))
    assert not _host.interrupted_packages(str(tmp_path))
    (tmp_path / "tmp.i").touch()
    assert not _host.interrupted_packages(str(tmp_path))
    (tmp_path / "0001").touch()
    assert _host.interrupted_packages(str(tmp_path))


WANTED = {
    "name": "runsc",
    "runtime_type": "io.containerd.runsc.v1",
    "options": {"TypeUrl": "io.containerd.runsc.v1.options", "ConfigPath": "/etc/containerd/runsc.toml"},
    "pod_annotations": [],
    "default": False,
}


@pytest.mark.parametrize("name", ["absent", *sorted(path.stem for path in FIXTURES.glob("*.toml"))])
def test_a_host_has_drift_exactly_when_something_would_be_edited(tmp_path, name):
    """As containerd_runtime decides it: not before its edits, and after them; where it would refuse the file, not either."""
    path = tmp_path / "config.toml"
    if name != "absent":
        path.write_text(fixtures.inputs()[name])
    arguments = {**WANTED, "path": str(path), "program": f"{MISSING}/containerd"}

    def found():
        return read_for(str(path), f"{MISSING}/containerd", "runsc")

    checked = ArgumentSpecValidator(containerd_plan.ARGUMENT_SPEC).validate(arguments)
    try:
        plan = containerd_plan.decide(found(), checked.validated_parameters)
    except GvisorError:
        assert containerd_plan.drift(found(), arguments)
        return
    assert bool(containerd_plan.drift(found(), arguments)) == bool(plan.edits)
    for file in plan.edits:
        target = Path(file.path)
        target.parent.mkdir(exist_ok=True)
        target.write_text(file.after)
    assert containerd_plan.drift(found(), arguments) == []
    assert containerd_plan.drift(found(), {**arguments, "runtime_type": "io.containerd.other.v1"})


def test_a_handler_that_containerd_runtime_would_not_take_is_an_error(tmp_path):
    with pytest.raises(GvisorError, match="nonsense"):
        containerd_plan.drift(read_for(str(tmp_path / "config.toml"), "containerd", "runsc"), {**WANTED, "nonsense": 1})
