# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A workspace of the controller, run on a copy elsewhere: what is sent, what comes back, and what must not. The runs are in a real containerd."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import stat
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox import workspace as _workspace
from ansible_collections.ggen.gvisor.plugins.plugin_utils._transfer.workspace_copy import pack, write_back
from conftest import ROOT
from support import oci
from support.containerd import Daemon
from support.containerd_debs import ensure
from support.module import finish_module, run_module, start_module

IMAGE = "localhost/busybox:1"


@pytest.fixture(name="workspace")
def fixture_workspace(tmp_path: Path) -> Path:
    folder = tmp_path / "model 1"
    (folder / "sub").mkdir(parents=True)
    (folder / "input").write_text("input\n")
    (folder / "sub" / "old").write_text("old\n")
    (folder / "sub" / "run").write_text("#!/bin/sh\n")
    (folder / "sub" / "run").chmod(0o750)
    (folder / "link").symlink_to("sub/old")
    return folder


def state(folder: Path) -> dict[str, str]:
    """Every name below the folder, with a file's mode and text or a link's target."""
    return {
        str(path.relative_to(folder)): os.readlink(path)
        if path.is_symlink()
        else "folder"
        if path.is_dir()
        else f"{stat.S_IMODE(path.stat().st_mode):04o} {path.read_text()}"
        for path in sorted(folder.rglob("*"))
    }


def change(path: str, what: str, data: bytes | None = None, kind: str = "file", mode: str = "0644") -> dict:
    sha256 = "" if data is None else hashlib.sha256(data).hexdigest()
    return {"path": path, "change": what, "kind": kind, "size": len(data or b""), "sha256": sha256, "mode": mode, "ignored": False}


def back(workspace: Path, sent: dict, files: dict[str, bytes | None], **more: str) -> list[str]:
    """Write changes back; None is a file that the run removed."""
    changes = [
        change(path, "removed" if data is None else "modified" if path in sent else "created", data, **more) for path, data in files.items()
    ]
    return write_back(
        str(workspace), sent, changes, {path: base64.b64encode(data).decode() for path, data in files.items() if data is not None}
    )


@pytest.fixture(name="sent")
def fixture_sent(workspace: Path, tmp_path: Path) -> dict[str, str]:
    return pack(str(workspace), str(tmp_path / "archive.tar"))


def test_what_is_packed_is_unpacked_for_one_owner(workspace, sent, tmp_path):
    assert sorted(sent) == ["input", "link", "sub/old", "sub/run"]
    target = tmp_path / "copy"
    _workspace.unpack(str(tmp_path / "archive.tar"), str(target), 1234, 1234)
    assert state(target) == state(workspace)
    assert {os.lstat(path).st_uid for path in [target, *target.rglob("*")]} == {1234}
    assert stat.S_IMODE(target.stat().st_mode) == 0o700


@pytest.mark.parametrize("target", ["../outside", "/etc/passwd", "sub/up/../outside"])
def test_links_that_lead_out_are_not_packed(target, workspace, tmp_path):
    (workspace / "sub" / "up").symlink_to("..")  # leads to the workspace itself, so what is beside it is outside
    (workspace / "bad").symlink_to(target)
    with pytest.raises(GvisorError, match=r"bad is a link that leads out of it"):
        pack(str(workspace), str(tmp_path / "a.tar"))


def test_what_is_no_file_is_not_packed(workspace, tmp_path):
    os.mkfifo(workspace / "pipe")
    with pytest.raises(GvisorError, match="pipe is neither file, folder nor link"):
        pack(str(workspace), str(tmp_path / "a.tar"))


@pytest.mark.parametrize("name", ["../out", "/etc/out", "link/out", "sub/../../out"])
def test_an_archive_that_leads_out_is_not_unpacked(name, tmp_path):
    archive = tmp_path / "a.tar"
    with tarfile.open(archive, "w") as tar:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, ".."
        tar.addfile(link)
        tar.addfile(tarfile.TarInfo(name))
    with pytest.raises(GvisorError, match="leads outside of"):
        _workspace.unpack(str(archive), str(tmp_path / "copy"), 0, 0)
    assert not (tmp_path / "out").exists()


def test_changes_come_back_and_modes_stay(workspace, sent):
    before = state(workspace)
    remarks = back(workspace, sent, {"input": b"new\n", "sub/run": b"#!/bin/true\n", "sub/old": None, "new/deep/file": b"x"})
    assert remarks == []
    assert state(workspace) == {
        **{path: text for path, text in before.items() if path != "sub/old"},
        "input": "0644 new\n",
        "sub/run": "0750 #!/bin/true\n",
        "new": "folder",
        "new/deep": "folder",
        "new/deep/file": "0600 x",
    }


@pytest.mark.parametrize("path", ["../out", "/out", "sub/../../out", "", "a//b", "./a", "nul\0"])
def test_a_path_that_leads_out_is_refused(path, workspace, sent):
    before = state(workspace.parent)
    with pytest.raises(GvisorError, match="not below the workspace"):
        back(workspace, sent, {"input": b"new\n", path: b"evil"})
    assert state(workspace.parent) == before


CONFLICTS = {
    "changed": (lambda w: (w / "input").write_text("mine\n"), {"input": b"new\n"}),
    "changed, removed there": (lambda w: (w / "input").write_text("mine\n"), {"input": None}),
    "removed": (lambda w: (w / "input").unlink(), {"input": b"new\n"}),
    "made": (lambda w: (w / "new").write_text("mine\n"), {"new": b"new\n"}),
    "made a folder": (lambda w: (w / "new").mkdir(), {"new": b"new\n"}),
    "made a link": (lambda w: (w / "new").symlink_to("/etc/passwd"), {"new": b"new\n"}),
    "made a link of a folder": (lambda w: ((w / "sub").rename(w / "moved"), (w / "sub").symlink_to("/etc")), {"sub/new": b"new\n"}),
    "linked elsewhere": (lambda w: ((w / "link").unlink(), (w / "link").symlink_to("input")), {"link": None}),
}


@pytest.mark.parametrize("name", CONFLICTS)
def test_what_changed_here_in_the_meantime_is_not_overwritten(name, workspace, sent):
    meanwhile, files = CONFLICTS[name]
    meanwhile(workspace)
    before = state(workspace.parent)
    with pytest.raises(GvisorError, match=r"changed while the command ran elsewhere on a copy. Nothing was written back"):
        back(workspace, sent, {"other": b"1", **files})
    assert state(workspace.parent) == before


def test_a_link_through_which_nothing_was_sent_leads_nowhere(workspace, tmp_path):
    (workspace / "there").symlink_to("sub")
    sent = pack(str(workspace), str(tmp_path / "a.tar"))
    with pytest.raises(GvisorError, match="there/new"):
        back(workspace, sent, {"there/new": b"1"})


def test_links_of_the_run_stay_there_and_set_user_id_bits_too(workspace, sent):
    (remark,) = write_back(str(workspace), sent, [change("evil", "created", b"", kind="symlink")], {})
    assert remark == "evil is a symlink and was not copied back"
    back(workspace, sent, {"tool": b"x"}, mode="6755")
    assert stat.S_IMODE((workspace / "tool").stat().st_mode) == 0o700


def test_bytes_that_were_not_reported_are_refused(workspace, sent):
    with pytest.raises(GvisorError, match="not those that the run reported"):
        write_back(str(workspace), sent, [change("new", "created", b"a")], {"new": base64.b64encode(b"b").decode()})


@pytest.mark.parametrize(
    ("told", "contents"),
    [
        ("everything", {}),
        (None, {}),
        ([None], {}),
        ([{}], {}),
        ([change("new", "created", b"a", mode="0o644")], {"new": "YQ=="}),
        ([change("new", "created", b"a", mode="-1")], {"new": "YQ=="}),
        ([change("new", "created", b"a", mode="rw")], {"new": "YQ=="}),
        ([{**change("new", "created", b"a"), "mode": None}], {"new": "YQ=="}),
        ([change("new", "renamed", b"a")], {"new": "YQ=="}),
        ([change("\ud800", "created", b"a")], {"\ud800": "YQ=="}),
        ([change("a/\udcff", "removed")], {}),
        ([change("d/" * 1600 + "new", "created", b"a")], {"d/" * 1600 + "new": "YQ=="}),
        ([change("ä" * 128, "created", b"a")], {"ä" * 128: "YQ=="}),
        ([change("new", "created", b"a")], {"new": "\ud800"}),
        ([change("new", "created", b"a")], {"new": "é"}),
        ([change("new", "created", b"a")], {"new": 5}),
        ([change("new", "created", b"a")], ["new"]),
        ([change("new", "created", b"a")], "new"),
    ],
)
def test_whatever_a_hostile_host_says_is_an_error_and_writes_nothing(told, contents, workspace, sent):
    before = state(workspace)
    if isinstance(told, list):
        told = [change("input", "modified", b"x"), *told]
    if isinstance(contents, dict):
        contents = {"input": "eA==", **contents}
    with pytest.raises(GvisorError, match="Nothing was written back"):
        write_back(str(workspace), sent, told, contents)
    assert state(workspace) == before


def test_nested_folders_that_a_run_made_do_not_keep_the_next_from_being_sent(workspace, sent, tmp_path):
    deep = "d/" * 1100 + "new"
    try:
        assert back(workspace, sent, {deep: b"x"}) == []
        again = pack(str(workspace), str(tmp_path / "again.tar"))
        assert again == {**sent, deep: hashlib.sha256(b"x").hexdigest()}
        _workspace.unpack(str(tmp_path / "again.tar"), str(tmp_path / "copy"), 1234, 1234)
        assert (tmp_path / "copy" / deep).read_text() == "x"
    finally:
        subprocess.run(["rm", "-rf", workspace / "d", tmp_path / "copy"], check=True)  # Python's own rmtree recurses, and pytest's with it


def test_too_much_to_come_back_is_refused(workspace, monkeypatch):
    root = os.open(workspace, os.O_RDONLY)
    before = _workspace.scan(root, time.monotonic() + 60)
    (workspace / "input").write_text("other\n")
    after = _workspace.scan(root, time.monotonic() + 60)
    assert _workspace.contents_of(root, before, after, time.monotonic() + 60) == {"input": base64.b64encode(b"other\n").decode()}
    monkeypatch.setattr(_workspace, "MAX_LISTED", 0)
    with pytest.raises(GvisorError, match="changed more than the 0 files that can be copied back"):
        _workspace.contents_of(root, before, after, time.monotonic() + 60)
    monkeypatch.setattr(_workspace, "MAX_CONTENTS", 3)
    with pytest.raises(GvisorError, match="wrote 6 bytes, more than the 3 that can be copied back"):
        _workspace.contents_of(root, before, after, time.monotonic() + 60)
    os.close(root)


# --- the whole way, with Ansible and a containerd ---


@pytest.fixture(scope="module", name="daemon")
def fixture_daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    root = tmp_path_factory.mktemp("containerd")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", ensure("1.7.24").path)
        with Daemon(root) as running:
            oci.busybox_archive(root / "busybox.tar", IMAGE)
            running.ctr("images", "import", str(root / "busybox.tar"))
            yield running


def run(daemon: Daemon, workspace: Path, script: str, *options: str) -> dict:
    """Run one command with ansible and return the task's result."""
    return run_task(daemon, *options, argv=["sh", "-c", script], workspace=str(workspace), workspace_from="controller")


def run_task(daemon: Daemon, *options: str, **more: object) -> dict:
    """Run the task with ansible and return its result."""
    places = {"address": daemon.address, "state_dir": str(daemon.root / "state_dir")}
    task = {"image": IMAGE, "runtime": "io.containerd.runc.v2", **places, **more}
    argv = [str(Path(sys.executable).parent / "ansible"), "localhost", "-m", "ggen.gvisor.containerd_run", "-a", json.dumps(task), *options]
    env = {**os.environ, "ANSIBLE_LOAD_CALLBACK_PLUGINS": "1", "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.minimal"}
    done = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=120)
    assert " => {" in done.stdout, done.stdout + done.stderr
    result = {**json.loads(done.stdout[done.stdout.index(" => {") + 4 :]), "shown": " ".join(done.stderr.split())}
    pods = daemon.root / "state_dir" / "pods"
    assert not pods.exists() or [name for name in os.listdir(pods) if name != ".lock"] == []
    return result


def test_a_run_on_a_copy_changes_the_workspace_here(daemon, workspace):
    script = "id -u; cat link; echo new > input; mkdir out; echo made > out/file; rm sub/run; ln -s /etc/passwd evil"
    result = run(daemon, workspace, script)
    assert (result["rc"], result["changed"], result["stdout"]) == (0, True, "65534\nold\n"), result
    assert "contents" not in result
    assert [item["path"] for item in result["changed_files"]] == ["evil", "input", "out/file", "sub/run"]
    assert state(workspace) == {
        "input": "0644 new\n",
        "link": "sub/old",
        "out": "folder",
        "out/file": "0600 made\n",
        "sub": "folder",
        "sub/old": "0644 old\n",
    }
    assert "evil is a symlink and was not copied back" in result["shown"]
    again = run(daemon, workspace, "cat out/file")
    assert (again["changed"], again["stdout"]) == (False, "made\n")


def test_check_mode_runs_and_writes_nothing_back(daemon, workspace):
    before = state(workspace)
    result = run(daemon, workspace, "echo new > input", "--check", "--diff")
    assert result["changed"], result
    assert result["changed_files"][0]["path"] == "input"
    assert state(workspace) == before


def test_a_failing_command_s_files_come_back_too(daemon, workspace):
    result = run(daemon, workspace, "echo new > input; exit 3")
    assert (result["rc"], (workspace / "input").read_text()) == (3, "new\n"), result


def test_a_folder_that_is_not_on_the_controller(daemon, tmp_path):
    result = run(daemon, tmp_path / "nowhere", "true")
    assert "is no folder of the controller; name one, or set workspace_from: host" in result["msg"]


def test_several_jobs_here_and_there(daemon, workspace, tmp_path):
    """One works on a copy, one on the host's own folder; what the copy's job did comes back, whatever the others' ends."""
    there = tmp_path / "there"
    there.mkdir()
    os.chown(there, 1000, 1000)
    jobs = [
        {"workspace": str(there), "argv": ["sh", "-c", "echo there > out"]},
        {"workspace": str(workspace), "workspace_from": "controller", "argv": ["sh", "-c", "echo new > input; exit 3"]},
        {"workspace": str(tmp_path / "absent")},
    ]
    result = run_task(daemon, argv=["true"], jobs=jobs)
    assert [job.get("rc") for job in result["jobs"]] == [0, 3, None], result
    assert [job["failed"] for job in result["jobs"]] == [False, True, True]
    assert f"{workspace}: sh ended with exit code 3" in result["msg"]
    assert "absent does not exist" in result["msg"]
    assert ((there / "out").read_text(), (workspace / "input").read_text()) == ("there\n", "new\n")
    assert not any("contents" in job for job in result["jobs"])


def test_a_job_whose_folder_is_not_here_stops_before_any_runs(daemon, tmp_path):
    jobs = [
        {"workspace": str(tmp_path), "argv": ["touch", "out"]},
        {"workspace": str(tmp_path / "no"), "workspace_from": "controller", "argv": ["true"]},
    ]
    result = run_task(daemon, jobs=jobs)
    assert f"workspace {tmp_path}/no is no folder of the controller" in result["msg"]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("pods", ["each", "one"])
def test_a_copy_has_no_name_on_the_host_while_it_is_used(daemon, workspace, tmp_path, pods):
    """Whoever is killed, nothing of a private workspace stays. One job takes its pod with it, so the other's copy is unpacked twice."""
    places = {"address": daemon.address, "state_dir": str(daemon.root / "state_dir"), "runtime": "io.containerd.runc.v2", "image": IMAGE}
    archives = [tmp_path / f"workspace{number}.tar" for number in range(2)]
    for archive in archives:
        pack(str(workspace), str(archive))
    (tmp_path / "seen").mkdir()
    os.chown(tmp_path / "seen", 65534, 65534)
    wait = ["sh", "-c", "touch /seen/begun; while [ ! -e /seen/go ]; do sleep 0.05; done; sleep 1000"]
    jobs = [{"archive": str(archives[0]), "argv": wait, "timeout": 5}, {"archive": str(archives[1]), "argv": ["cat", "input"]}]
    for job in jobs:
        job["mounts"] = [{"source": str(tmp_path / "seen"), "target": "/seen", "writable": True}]
    process = start_module("containerd_run", **places, jobs=jobs, pods=pods, parallel=1)
    deadline = time.monotonic() + 60
    while not (tmp_path / "seen/begun").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    there = [archive.exists() for archive in archives]
    (tmp_path / "seen/go").touch()
    result = finish_module(process)
    assert there == [False, False]
    assert (result["jobs"][0]["timed_out"], result["jobs"][1]["stdout"]) == (True, "input\n"), result


def test_what_is_no_archive_is_refused(daemon, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/etc/shadow")
    places = {"address": daemon.address, "state_dir": str(daemon.root / "state_dir"), "image": IMAGE, "argv": ["true"]}
    for name in ("pipe", "link", "absent"):
        result = run_module("containerd_run", **places, archive=str(tmp_path / name))
        assert f"archive {tmp_path}/{name} " in result["msg"], result
    assert (tmp_path / "pipe").exists()
