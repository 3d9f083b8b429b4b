"""The proof of a host, against a real containerd with gVisor and runc."""

from __future__ import annotations

import os
import subprocess

import pytest
from support.containerd import Daemon
from support.gvisor import gvisor_dir
from support.module import run_module


@pytest.fixture(scope="module")
def daemon(tmp_path_factory):
    folder = tmp_path_factory.mktemp("proof")
    with Daemon(folder / "containerd", bin_dir=gvisor_dir(folder / "bin")) as running:
        yield running


def prove(daemon, tmp_path, **options):
    return run_module("containerd_proof", address=daemon.address, state_dir=str(tmp_path), **options)


def leftovers(daemon):
    return [daemon.ctr(kind, "ls", "-q").stdout for kind in ("containers", "tasks")] + [daemon.shims()]


def test_gvisor_and_runc_are_observed(daemon, tmp_path):
    result = prove(daemon, tmp_path)
    assert not result["failed"], result
    assert result["kernel"].startswith("Starting gVisor")
    assert result["runc"] is True
    assert not result["changed"]
    assert leftovers(daemon) == ["", "", {}]


def test_nothing_stays_in_ansible_s_folder_on_the_host(daemon, tmp_path):
    folder = tmp_path / "ansible-tmp"
    folder.mkdir()
    for runtime in ("io.containerd.runsc.v1", "io.containerd.absent.v1"):
        prove(daemon, tmp_path, runtime=runtime, _ansible_tmpdir=str(folder))
        assert list(folder.iterdir()) == []


def test_a_sandbox_that_was_made_and_cannot_start_goes_away(daemon, tmp_path):
    """There is room for folders and none for the file with its process: ctr gives up between making and starting."""
    folder = tmp_path / "full"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", folder], check=True)
    try:
        (folder / "filler").write_bytes(bytes(4096))
        result = prove(daemon, tmp_path, _ansible_tmpdir=str(folder))
    finally:
        subprocess.run(["umount", folder], check=True)
    assert result["failed"]
    assert "no space left on device (the disk of this host is full)" in result["msg"]
    assert leftovers(daemon) == ["", "", {}]


def test_the_sandbox_s_program_is_told_and_compared(daemon, tmp_path):
    program = prove(daemon, tmp_path)["program"]
    assert os.path.basename(program) == "runsc"
    link = tmp_path / "the same by another name"
    link.symlink_to(program)
    assert not prove(daemon, tmp_path, program=str(link))["failed"]
    result = prove(daemon, tmp_path, program="/bin/sh")
    assert result["failed"]
    assert result["msg"] == f"a new sandbox is {program} and not /bin/sh"
    assert leftovers(daemon) == ["", "", {}]


def test_runc_in_gvisor_s_place_is_no_proof(daemon, tmp_path):
    result = prove(daemon, tmp_path, runtime="io.containerd.runc.v2")
    assert result["failed"]
    assert "did not show gVisor's kernel" in result["msg"]
    assert leftovers(daemon) == ["", "", {}]


def test_a_missing_shim_is_named(daemon, tmp_path):
    result = prove(daemon, tmp_path, runtime="io.containerd.absent.v1")
    assert result["failed"]
    assert "does not find the runtime's shim" in result["msg"]
    assert leftovers(daemon) == ["", "", {}]


def test_a_dead_containerd_is_named(tmp_path):
    result = run_module("containerd_proof", address=str(tmp_path / "none.sock"), state_dir=str(tmp_path))
    assert result["failed"]
    assert "nothing could be proven" in result["msg"]


def test_a_broken_cri_plugin_is_named(tmp_path):
    text = 'version = 2\n[plugins."io.containerd.grpc.v1.cri".containerd]\ndefault_runtime_name = "none"\n'
    with Daemon(tmp_path / "containerd", config_text=text, bin_dir=gvisor_dir(tmp_path / "bin")) as daemon:
        assert os.path.exists(daemon.address), "the daemon itself stays up, which is the trap"
        result = prove(daemon, tmp_path)
    assert result["failed"]
    assert "io.containerd.grpc.v1.cri is in state error" in result["msg"]
