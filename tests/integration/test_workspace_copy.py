# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A workspace of the controller, run on a copy elsewhere: what is sent, what comes back, and what must not. The runs are in a real containerd."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.ggen.gvisor.plugins.module_utils._base.carried import encode
from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox import copies
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox import workspace as _workspace
from ansible_collections.ggen.gvisor.plugins.plugin_utils._transfer.workspace_copy import pack, write_back
from conftest import ROOT
from support import oci
from support.adhoc import JSON_OUTPUT
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


def record(data: bytes | None, kind: str = "file", mode: int = 0o644, **more: object) -> dict | None:
    """What a run tells of a path; None where it is gone."""
    if data is None:
        return None
    content = {"data": base64.b64encode(data).decode(), "sha256": hashlib.sha256(data).hexdigest()} if kind == "file" else {}
    return {"kind": kind, "mode": mode, "mtime_ns": 10**18, **content, **more}


def back(workspace: Path, sent: dict, files: dict[str, bytes | None], **more: object) -> list[str]:
    """Write changes back; None is a file that the run removed."""
    return write_back(str(workspace), sent, {encode(path): record(data, **more) for path, data in files.items()})


@pytest.fixture(name="sent")
def fixture_sent(workspace: Path, tmp_path: Path) -> dict[str, str]:
    return pack(str(workspace), str(tmp_path / "archive.tar"))


def test_what_is_packed_is_unpacked_for_one_owner(workspace, sent, tmp_path):
    assert sorted(sent) == ["input", "link", "sub", "sub/old", "sub/run"]
    target = tmp_path / "copy"
    _workspace.unpack(str(tmp_path / "archive.tar"), str(target), 1234, 1234)
    copies.dress(str(tmp_path / "archive.tar"), str(target))
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


def test_changes_come_back_with_their_modes_and_times(workspace, sent):
    before = state(workspace)
    changes = {
        "input": record(b"new\n"),
        "sub/run": {"kind": "file", "mode": 0o700, "mtime_ns": 5},  # its bytes are as they were
        "sub/old": None,
        "new": record(b"", "folder", 0o750),
        "new/deep": record(b"", "folder", 0o755),
        "new/deep/file": record(b"x", mode=0o600),
    }
    assert write_back(str(workspace), sent, changes) == []
    assert state(workspace) == {
        **{path: text for path, text in before.items() if path != "sub/old"},
        "input": "0644 new\n",
        "sub/run": "0700 #!/bin/sh\n",
        "new": "folder",
        "new/deep": "folder",
        "new/deep/file": "0600 x",
    }
    assert stat.S_IMODE((workspace / "new").stat().st_mode) == 0o750
    assert [(workspace / path).stat().st_mtime_ns for path in ("input", "sub/run", "new")] == [10**18, 5, 10**18]


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
    "made in a folder that went": (lambda w: (w / "sub/mine").touch(), {"sub": None, "sub/old": None, "sub/run": None}),
    "made in a folder that is a file": (lambda w: (w / "sub/mine").touch(), {"sub": b"now a file", "sub/old": None, "sub/run": None}),
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


@pytest.mark.parametrize(
    ("path", "target", "inside"),
    [
        ("a", "b", True),
        ("a", "./b//c", True),
        ("a/b/c", "../../d", True),
        ("a", "", False),
        ("a", "..", False),
        ("a/b", "../..", False),
        ("a/b", "../x/../y", False),  # where x is a link elsewhere, .. is not where it seems to be
        ("a", "/etc/passwd", False),
    ],
)
def test_links_of_the_run_come_back_where_they_stay_inside(path, target, inside, workspace, sent):
    folders = {"a": record(b"", "folder"), "a/b": record(b"", "folder")} if "/" in path else {}
    folders.pop(path, None)
    changes = {**folders, path: record(b"", "symlink", target=target)}
    remarks = write_back(str(workspace), sent, changes)
    assert (workspace / path).is_symlink() == inside
    if inside:
        assert (remarks, os.readlink(workspace / path), os.lstat(workspace / path).st_mtime_ns) == ([], target, 10**18)
    else:
        assert remarks == [f"{path} is a symlink that may lead out of the workspace, and was not copied back"]


def test_sockets_and_set_user_id_bits_of_the_run_stay_there(workspace, sent):
    assert write_back(str(workspace), sent, {"s": record(b"", "socket")}) == ["s is a socket and was not copied back"]
    back(workspace, sent, {"tool": b"x"}, mode=0o6755)
    assert stat.S_IMODE((workspace / "tool").stat().st_mode) == 0o755


NAMED = {"kind": "file", "mode": 0o600, "mtime_ns": 0}
IMPOSSIBLE = {
    "other bytes": ({"new": {**record(b"a"), "sha256": "0" * 64}}, "not those that the run reported"),
    "below a file": ({"new": record(b"a"), "new/below": record(b"b")}, "in what is no folder"),
    "far below what went": ({"input": None, "input/a/b": record(b"b")}, "in what is no folder"),
    "a name of what is elsewhere": ({"new": {**NAMED, "same_as": "../../etc/passwd"}}, "another name of what is no file"),
    "a name of what went": ({"sub/old": None, "new": {**NAMED, "same_as": "sub/old"}}, "another name of what is no file"),
    "a name of itself": ({"new": {**NAMED, "same_as": "new"}}, "another name of what is no file"),
    "a name of a link": ({"new": {**NAMED, "same_as": "link"}}, "new in .* changed"),
    "a name of what was not sent": ({"new": {**NAMED, "same_as": "other"}}, "new in .* changed"),
}


@pytest.mark.parametrize("what", IMPOSSIBLE)
def test_what_no_run_can_have_done_is_refused(what, workspace, sent):
    changes, why = IMPOSSIBLE[what]
    before = state(workspace.parent)
    with pytest.raises(GvisorError, match=why):
        write_back(str(workspace), sent, changes)
    assert state(workspace.parent) == before


@pytest.mark.parametrize(
    "contents",
    [
        "everything",
        ["input"],
        5,
        {"new": {}},
        {"new": []},
        {"new": "file"},
        {"new": {"kind": "file"}},
        {"new": {**record(b"a"), "kind": None}},
        {"new": {**record(b"a"), "kind": ""}},
        {"new": {**record(b"a"), "mode": "0644"}},
        {"new": {**record(b"a"), "mode": None}},
        {"new": {**record(b"a"), "mode": True}},
        {"new": {**record(b"a"), "mtime_ns": 1 << 62}},
        {"new": {**record(b"a"), "mtime_ns": -(1 << 80)}},
        {"new": {**record(b"a"), "mtime_ns": 1.5}},
        {"new": {**record(b"a"), "data": "\ud800"}},
        {"new": {**record(b"a"), "data": "é"}},
        {"new": {**record(b"a"), "data": "YQ"}},
        {"new": {**record(b"a"), "data": 5}},
        {"new": {**record(b"a"), "sha256": None}},
        {"new": {**NAMED, "same_as": 5}},
        {"new": {**NAMED, "kind": "symlink"}},
        {"new": {**NAMED, "kind": "symlink", "target": None}},
        {"\ud800": None},
        {"a/..": None},
        {"%2e%2e/up": None},
        {"nul%00": None},
        {"d/" * 1600 + "new": None},
        {"ä" * 128: None},
    ],
)
def test_whatever_a_hostile_host_says_is_an_error_and_writes_nothing(contents, workspace, sent):
    before = state(workspace.parent)
    if isinstance(contents, dict):
        contents = {"input": record(b"x"), **contents}
    with pytest.raises(GvisorError, match="Nothing was written back"):
        write_back(str(workspace), sent, contents)
    assert state(workspace.parent) == before


def test_a_file_in_a_folder_that_is_not_here_is_a_conflict(workspace, sent):
    """A host made it up, or somebody took the folder away meanwhile; what else there is must not be written then."""
    for path in ("nowhere/new", "sub/new"):
        if path == "sub/new":
            shutil.rmtree(workspace / "sub")
        before = state(workspace)
        with pytest.raises(GvisorError, match="Nothing was written back"):
            back(workspace, sent, {"input": b"x", path: b"new"})
        assert state(workspace) == before


def test_nested_folders_that_a_run_made_do_not_keep_the_next_from_being_sent(workspace, sent, tmp_path):
    deep = "d/" * 1100 + "new"
    try:
        folders = ["/".join(["d"] * depth) for depth in range(1, 1101)]
        assert write_back(str(workspace), sent, {**{path: record(b"", "folder") for path in folders}, deep: record(b"x")}) == []
        again = pack(str(workspace), str(tmp_path / "again.tar"))
        assert again == {**sent, **dict.fromkeys(folders, "folder"), deep: hashlib.sha256(b"x").hexdigest()}
        _workspace.unpack(str(tmp_path / "again.tar"), str(tmp_path / "copy"), 1234, 1234)
        assert (tmp_path / "copy" / deep).read_text() == "x"
    finally:
        subprocess.run(["rm", "-rf", workspace / "d", tmp_path / "copy"], check=True)  # Python's own rmtree recurses, and pytest's with it


def test_too_much_to_come_back_is_refused(workspace, monkeypatch):
    root = os.open(workspace, os.O_RDONLY)
    late = time.monotonic() + 60
    tree, before = copies.tree_of(root, late), _workspace.scan(root, late)
    (workspace / "input").write_text("other\n")
    after = _workspace.scan(root, late)
    found = copies.changes_of(root, tree, before, after, late)
    assert [(path, base64.b64decode(change["data"])) for path, change in found.items()] == [("input", b"other\n")]
    monkeypatch.setattr(copies, "MAX_CARRIED", 0)
    with pytest.raises(GvisorError, match="changed more than the 0 files and folders that can be copied back"):
        copies.changes_of(root, tree, before, after, late)
    monkeypatch.setattr(copies, "MAX_CONTENTS", 3)
    with pytest.raises(GvisorError, match="wrote 6 bytes, more than the 3 that can be copied back"):
        copies.changes_of(root, tree, before, after, late)
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
    done = subprocess.run(argv, cwd=ROOT, env={**os.environ, **JSON_OUTPUT}, capture_output=True, text=True, check=False, timeout=120)
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
        "out/file": "0644 made\n",
        "sub": "folder",
        "sub/old": "0644 old\n",
    }
    assert "evil is a symlink that may lead out of the workspace, and was not copied back" in result["shown"]
    again = run(daemon, workspace, "cat out/file")
    assert (again["changed"], again["stdout"]) == (False, "made\n")


def everything(folder: Path) -> dict[str, tuple[int, int]]:
    return {os.path.relpath(path, folder): (path.lstat().st_mode, path.lstat().st_mtime_ns) for path in folder.rglob("*")}


def test_what_the_command_did_is_here_to_the_bit(daemon, workspace):
    """Names that are no UTF-8, empty folders, permissions, files in the place of links and folders, and times."""
    os.utime(workspace / "sub" / "old", ns=(1, 1_234_567_890_123_456_789))
    (workspace / os.fsdecode(b"sent \xe9")).write_text("sent")
    script = r"""
        cat sent*; stat -c %y sub/old
        printf made > "$(printf 'made \377\351')"; mkdir -p empty/inner; chmod 700 sub/run; ln -s sub/old new; ln input second
        rm link; (umask 077; echo secret > link); rm -r sub/old; mkdir sub/old; echo x > sub/old/x
    """
    result = run(daemon, workspace, script)
    assert result["rc"] == 0, result
    assert result["stdout"].startswith("sent2009-02-13 23:31:30.123456789 ")
    found = everything(workspace)
    assert {path: stat.S_IMODE(mode) for path, (mode, _time) in found.items() if not stat.S_ISLNK(mode)} == {
        **{"input": 0o644, "second": 0o644, "link": 0o600, "sub": 0o755, "sub/run": 0o700, "sub/old": 0o755, "sub/old/x": 0o644},
        **{"empty": 0o755, "empty/inner": 0o755, os.fsdecode(b"made \xff\xe9"): 0o644, os.fsdecode(b"sent \xe9"): 0o644},
    }
    assert (workspace / os.fsdecode(b"made \xff\xe9")).read_text() == "made"
    assert ((workspace / "new").readlink(), (workspace / "second").stat().st_nlink) == (Path("sub/old"), 2)
    again = run(daemon, workspace, "chmod 700 sub/run; touch input")
    assert (again["changed"], again["changed_files"]) == (False, []), again
    assert {path for path, entry in everything(workspace).items() if entry != found[path]} == {"input", "second"}


def test_folders_of_a_host_count(daemon, tmp_path):
    folder = tmp_path / "there"
    (folder / "sub").mkdir(parents=True)
    for path in (folder, folder / "sub"):
        os.chown(path, 1000, 1000)
    script = "mkdir -p a/b .ggen; chmod 700 sub"
    result = run_task(daemon, workspace=str(folder), argv=["sh", "-c", script], ignore=[".ggen/**"])
    told = [(item["path"], item["change"], item["kind"], item["ignored"]) for item in result["changed_files"]]
    assert told == [(".ggen", "created", "folder", True), ("a/b", "created", "folder", False), ("sub", "modified", "folder", False)]
    assert (result["changed"], result["changed_counts"]) == (True, {"created": 2, "modified": 1, "removed": 0, "ignored": 1})
    checked = run_task(daemon, "--check", "--diff", workspace=str(folder), argv=["sh", "-c", "rmdir a/b"])
    assert [(item["path"], item["change"]) for item in checked["changed_files"]] == [("a/b", "removed")]
    assert (folder / "a/b").is_dir()


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
