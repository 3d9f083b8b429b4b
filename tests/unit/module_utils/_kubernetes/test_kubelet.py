# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Finding a kubelet: its process, its flags and its files. Processes are stand-ins that only have its name."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ansible_collections.ggen.gvisor.plugins.module_utils._kubernetes import kubelet as subject

Start = Callable[..., int]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Starts processes that are called kubelet, in tmp_path; only they count here, whoever runs the tests."""
    processes: list[subprocess.Popen] = []
    monkeypatch.setattr(subject, "_is_root", lambda pid: pid in {process.pid for process in processes})

    def run(*words: str) -> int:
        # A shell that waits: it takes any further words.
        argv = ["kubelet", "-c", "read line", *words]
        processes.append(subprocess.Popen(argv, executable="/bin/sh", cwd=tmp_path, stdin=subprocess.PIPE))
        deadline = time.monotonic() + 10  # the kernel tells the command line a moment after the program has started
        while not subject.argv_of(processes[-1].pid) and time.monotonic() < deadline:
            time.sleep(0.01)
        return processes[-1].pid

    yield run
    for process in processes:
        process.communicate()


def found(tmp_path: Path) -> dict | None:
    return subject.kubelet(str(tmp_path / "default.yaml"), str(tmp_path / "flags.env"))


@pytest.mark.parametrize(
    ("words", "flags"),
    [
        ([], {}),
        (["kubelet", "--config=/a", "--v=2"], {"config": "/a"}),
        (["kubelet", "--config", "/a", "--cgroup-driver", "systemd"], {"config": "/a", "cgroup-driver": "systemd"}),
        (["kubelet", "--cgroup_driver=cgroupfs", "--cgroup-driver=systemd"], {"cgroup-driver": "systemd"}),
        (["kubelet", "--config"], {"config": ""}),
        (["kubelet", "-config=/a", "config=/a", "--configs=/a"], {}),
        (["kubelet", "--container-runtime-endpoint=unix:///x=y"], {"container-runtime-endpoint": "unix:///x=y"}),
        (["kubelet", "--token=secret", "--config-dir=/d"], {"config-dir": "/d"}),
    ],
)
def test_the_flags_that_count(words, flags):
    assert subject.flags_of(words) == flags


def test_a_kubelet_that_runs_is_read_by_its_own_flags_from_its_own_folder(tmp_path, start):
    (tmp_path / "kubelet.yaml").write_text("cgroupDriver: systemd\n")
    (tmp_path / "default.yaml").write_text("cgroupDriver: cgroupfs\n")
    pid = start("--config", "kubelet.yaml", "--cgroup-driver=systemd", "--token=secret")
    told = found(tmp_path)
    assert told == {
        "pid": pid,
        "flags": {"config": "kubelet.yaml", "cgroup-driver": "systemd"},
        "files": [{"path": str(tmp_path / "kubelet.yaml"), "text": "cgroupDriver: systemd\n", "error": None}],
    }


def test_one_without_files_counts(tmp_path, start):
    pid = start("--cgroup-driver=systemd")
    assert found(tmp_path) == {"pid": pid, "flags": {"cgroup-driver": "systemd"}, "files": []}


def test_one_that_has_no_configuration_yet_is_none(tmp_path, start):
    start(f"--config={tmp_path}/missing.yaml")
    assert found(tmp_path) is None


def test_somebody_s_process_of_that_name_is_none(tmp_path, start, monkeypatch):
    (tmp_path / "kubelet.yaml").write_text("cgroupDriver: systemd\n")
    start("--config=kubelet.yaml")
    monkeypatch.setattr(subject, "_is_root", lambda _pid: False)
    assert found(tmp_path) is None


def test_one_in_a_container_is_none(tmp_path, start, monkeypatch):
    (tmp_path / "kubelet.yaml").write_text("cgroupDriver: systemd\n")
    start("--config=kubelet.yaml")
    monkeypatch.setattr(subject, "_pid_space", lambda _pid: "pid:[1]")
    assert found(tmp_path) is None


def test_who_is_root():
    with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE) as child:
        assert subject._is_root(child.pid) == (os.getuid() == 0)
        child.communicate()
    assert not subject._is_root(1 << 30)


def test_without_a_process_kubeadm_s_files_count(tmp_path):
    assert found(tmp_path) is None
    (tmp_path / "default.yaml").write_text("kind: KubeletConfiguration\n")
    assert found(tmp_path)["flags"] == {}
    (tmp_path / "flags.env").write_text('# x\nKUBELET_KUBEADM_ARGS="--container-runtime-endpoint=unix:///run/crio.sock --v=2"\n')
    told = found(tmp_path)
    assert told["pid"] is None
    assert told["flags"] == {"container-runtime-endpoint": "unix:///run/crio.sock"}
    assert [file["path"] for file in told["files"]] == [str(tmp_path / "default.yaml")]
    (tmp_path / "flags.env").write_text('KUBELET_KUBEADM_ARGS="--v=2\n')
    assert found(tmp_path)["flags"] == {}


def test_drop_ins_come_in_the_kubelet_s_order(tmp_path, start):
    for name in ("10-a.conf", "20-b/x.conf", "30-c.conf", "30-c.yaml", "b.conf.d/y", "B.conf", ".conf"):
        (tmp_path / "d" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "d" / name).write_text(name)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/z.conf").write_text("z")
    (tmp_path / "d/linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "d/linked.conf").symlink_to(tmp_path / "elsewhere/z.conf")
    start("--config-dir=d")
    texts = [file["text"] for file in found(tmp_path)["files"]]
    assert texts == [".conf", "10-a.conf", "20-b/x.conf", "30-c.conf", "B.conf", "z"]


def test_too_many_drop_ins_are_an_error_and_not_a_part(tmp_path, start, monkeypatch):
    monkeypatch.setattr(subject, "MAX_DROPINS", 2)
    (tmp_path / "d").mkdir()
    for name in "abc":
        (tmp_path / f"d/{name}.conf").write_text(name)
    start("--config-dir=d")
    assert found(tmp_path)["files"][-1] == {"path": str(tmp_path / "d"), "text": None, "error": "it has more than 2 files"}


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (make_fifo, "it is no file"),
        (Path.mkdir, "it is no file"),
        (lambda path: path.symlink_to("/dev/zero"), "it is no file"),
        (lambda path: path.symlink_to("/dev/full"), "it is no file"),
        (lambda path: path.write_bytes(b"#" * (subject.MAX_BYTES + 1)), "it is larger than 64 KiB"),
        (lambda path: path.write_bytes(b"cgroupDriver: \xff"), "it is no UTF-8"),
        (lambda path: path.symlink_to(path.name), "Too many levels of symbolic links"),
        (Path.exists, "No such file or directory"),
    ],
)
def test_what_cannot_be_read_says_why_and_is_not_waited_for(make, error, tmp_path):
    make(tmp_path / "config.yaml")
    assert subject.read_config(str(tmp_path / "config.yaml")) == {"path": str(tmp_path / "config.yaml"), "text": None, "error": error}
