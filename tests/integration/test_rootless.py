# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""containerd_run without root and without containerd, as a user who owns nothing else; nothing may be left after any test."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import ansible
import pytest
from support import oci
from support.module import ROOT
from support.rootless import PYTHON, User, runscs


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="rootless-", dir="/tmp") as folder:  # root's own are closed to others
        yield Path(folder)


@pytest.fixture(scope="module")
def somebody(place: Path) -> User:
    return User(place)


@pytest.fixture
def user(somebody: User) -> Iterator[User]:
    yield somebody
    assert somebody.settle() == {}


@pytest.fixture
def workspace(user: User) -> Iterator[Path]:
    folder = user.folder("job space,a=b:c")
    (folder / "input").write_text("input\n")
    (folder / "sub").mkdir()
    (folder / "sub/old").write_text("old\n")
    (folder / ".git/hooks").mkdir(parents=True)
    (folder / ".git/config").write_text("as it was\n")
    user.own(folder)
    yield folder
    shutil.rmtree(folder)


def paths(result: dict) -> list[tuple[str, str]]:
    return [(change["change"], change["path"]) for change in result["changed_files"]]


def tree(folder: Path) -> dict[str, object]:
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


@pytest.mark.parametrize("runsc", runscs(), ids=lambda path: path.parts[-3])
def test_every_release_returns_the_command_s_own_exit_code_and_output(user: User, runsc: Path):
    program = user.home / runsc.parts[-3]
    shutil.copy2(runsc, program)
    user.own(program)
    for code in (0, 3):
        done = user.run(f"echo out; echo err >&2; exit {code}", runsc=str(program))
        assert (done["rc"], done["stdout"], done["stderr"], done["failed"]) == (code, "out\n", "err\n", code != 0), done
        assert done["kernel"] == "Starting gVisor..."
        assert done["user"] == f"{user.uid}:{user.uid}"
        assert not done["changed"]


@pytest.mark.parametrize("runsc", runscs(), ids=lambda path: path.parts[-3])
def test_every_release_tells_what_a_command_does_with_files(user: User, workspace: Path, runsc: Path):
    program = user.home / runsc.parts[-3]
    shutil.copy2(runsc, program)
    user.own(program)
    done = user.run("cat input > made; cat /etc/passwd /nowhere; cd sub; ls . > /dev/null", workspace, trace=True, runsc=str(program))
    assert done["trace"] == {
        "opened": ["/workspace/input", "/workspace/sub", "/etc/passwd"],
        "written": ["/workspace/made", "/dev/null"],
        "executed": ["/bin/busybox"],
        "truncated": False,
    }, done
    assert "trace" not in user.run("true", workspace)


def test_a_command_is_fed_and_has_its_image_s_variables(user: User):
    done = user.run("cat; echo $PATH $NAME; pwd", stdin="fed\n" * 20_000, env={"NAME": "value"})
    assert (done["rc"], done["stdout"]) == (0, "fed\n" * 20_000 + "/bin:/usr/local/bin value\n/\n")


def test_what_the_command_did_is_told_and_belongs_to_the_caller(user: User, workspace: Path):
    done = user.run("cat input; echo new > made; echo more >> sub/old; rm input; mkdir empty", workspace, diff=True)
    assert done["stdout"] == "input\n"
    assert paths(done) == [("created", "empty"), ("removed", "input"), ("created", "made"), ("modified", "sub/old")]
    assert done["changed_counts"] == {"created": 2, "modified": 1, "removed": 1, "ignored": 0}
    assert {"before": "old\n", "after": "old\nmore\n"}.items() <= next(d for d in done["diff"] if d["after_header"] == "sub/old").items()
    assert {path.stat().st_uid for path in workspace.rglob("*")} == {user.uid}
    assert user.run("true", workspace)["changed"] is False


def test_check_mode_works_on_a_copy(user: User, workspace: Path):
    (workspace / "somebody else's").write_text("readable\n")  # of which a copy cannot be theirs
    os.chown(workspace / "somebody else's", 0, 0)
    before = tree(workspace)
    done = user.run("echo new > made; rm input", workspace, check=True, diff=True)
    assert paths(done) == [("removed", "input"), ("created", "made")]
    assert done["changed"]
    assert tree(workspace) == before


def test_there_is_nothing_of_the_host_but_the_workspace(user: User, workspace: Path):
    script = """
      [ "$(id -u):$(id -g)" = 0:0 ] && grep -E '^Cap(Prm|Eff|Bnd|Inh|Amb)' /proc/self/status | grep -vq 0000000000000000 && exit 10
      touch /made 2> /dev/null && exit 11
      [ -e /root ] || [ -e /home ] && exit 12
      nc -w 1 1.1.1.1 80 2> /dev/null && exit 13
      grep -v lo: /proc/net/dev | grep -q : && exit 14
      touch /tmp/x && echo y > "$HOME/x" || exit 15
      cat /etc/hosts && hostname 2> /dev/null; ls /
    """
    done = user.run(script, workspace)
    assert "127.0.0.1 localhost" in done["stdout"], done
    assert {"bin", "etc", "proc", "workspace"} <= set(done["stdout"].split())


def test_a_command_that_does_not_end_is_killed(user: User, workspace: Path):
    begin = time.monotonic()
    done = user.run("echo begun; touch made; (sleep 600 &) ; sleep 600", workspace, timeout=1.5)
    assert done["timed_out"]
    assert done["failed"]
    assert "rc" not in done
    assert done["stdout"] == "begun\n"
    assert paths(done) == [("created", "made")]
    assert time.monotonic() - begin < 25


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGHUP], ids=lambda number: number.name)
def test_nothing_is_left_of_a_run_that_is_killed(user: User, workspace: Path, number: signal.Signals):
    process = user.start("touch begun; sleep 600", workspace)
    wait_for(workspace / "begun")
    process.send_signal(number)
    process.communicate(timeout=30)
    assert user.settle() == {}
    records = (user.state / "ggen.gvisor/audit/runs.jsonl").read_text().splitlines()
    assert json.loads(records[-1])["ended"] in ("killed", "abort")


def test_nothing_runs_on_when_all_of_its_watchers_are_killed(user: User, workspace: Path):
    process = user.start("touch begun; sleep 600", workspace)
    wait_for(workspace / "begun")
    for line in user.processes():
        if "containerd_run" in line:
            os.kill(int(line.split()[0]), signal.SIGKILL)
    process.communicate(timeout=30)
    deadline = time.monotonic() + 10
    while user.processes() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert user.processes() == []
    done = user.run("true")  # which removes the folder
    assert any("of an earlier run that was killed" in warning for warning in done.get("warnings", [])) or user.left() == {}


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not come"
        time.sleep(0.02)


def test_what_is_protected_stays(user: User, workspace: Path):
    done = user.run("echo evil > .git/config; echo evil > .git/hooks/post-commit; mv .git old; echo x > made", workspace)
    assert done["failed"], done
    assert [path.read_text() for path in workspace.glob("*/config")] == ["as it was\n"]  # moved it was, and that fails the run
    assert not list(workspace.rglob("post-commit"))
    done = user.run("echo x > elsewhere; echo y > sub/other", workspace, outputs=["sub/**"])
    assert (workspace / "sub/other").exists()
    assert not (workspace / "elsewhere").exists()


def test_mounts_and_secrets(user: User, workspace: Path):
    data = user.folder("data")
    (data / "read").write_text("data\n")
    writable = user.folder("writable")
    user.own(data)
    script = """
      cat /srv/data/read; echo no > /srv/data/read 2> /dev/null && exit 10
      echo yes > /srv/out/made; cat /run/secrets/key > /dev/null || exit 11; [ "$(cat /run/secrets/key)" = s3cret-word ] || exit 12
      echo no > /run/secrets/key 2> /dev/null && exit 13
      cat /run/secrets/key; echo x > /workspace/in/side/x || exit 14
    """
    inside = user.folder("inside")
    mounts = [
        {"source": str(data), "target": "/srv/data"},
        {"source": str(writable), "target": "/srv/out", "writable": True},
        {"source": str(inside), "target": "/workspace/in/side", "writable": True},
    ]
    (workspace / "in").mkdir()
    user.own(workspace)
    done = user.run(script, workspace, mounts=mounts, secrets={"key": base64.b64encode(b"s3cret-word").decode()})
    assert done["rc"] == 0, done
    assert done["stdout"] == "data\n********"
    assert (writable / "made").read_text() == "yes\n"
    assert (inside / "x").exists()
    assert paths(done) == []
    assert sorted(os.listdir(workspace / "in")) == []


@pytest.mark.parametrize("pods", ["each", "one"])
def test_several_jobs(user: User, workspace: Path, pods: str):
    other = user.folder(f"other {pods}")
    jobs = [{"workspace": str(workspace)}, {"workspace": str(other), "argv": ["sh", "-c", "echo two > made; exit 2"]}, {"workspace": "/"}]
    done = user.run("echo one > made", jobs=jobs, pods=pods)
    assert [job.get("rc") for job in done["jobs"]] == [0, 2, None]
    assert [(folder / "made").read_text() for folder in (workspace, other)] == ["one\n", "two\n"]


def test_limits_are_kept(user: User, workspace: Path):
    done = user.run("a=x; while :; do a=$a$a; done", workspace, memory="256M", timeout=60)
    assert done["limits_hit"] == ["memory"], done
    assert "out of memory: the pod reached its limit of 256M" in done["msg"]
    done = user.run("dd if=/dev/zero of=big bs=65536 count=64", workspace, file_size="1M")
    assert done["rc"] != 0
    assert (workspace / "big").stat().st_size == 1 << 20
    done = user.run("grep Cpus_allowed_list /proc/self/status; :", cpus=1)
    assert done["rc"] == 0
    begin = time.monotonic()
    done = user.run("while :; do sleep 600 & done", workspace, pids=100, timeout=20)
    assert done["failed"], done
    assert time.monotonic() - begin < 45
    done = user.run("touch made", workspace, keep_free="1000T")
    assert done["failed"]
    assert not (workspace / "made").exists()


def test_what_cannot_be_enforced_is_said_and_fails_where_it_is_required(user: User, workspace: Path):
    done = user.run("touch made", workspace, cpus=0.5)
    assert done["failed"]
    assert "the limit cpus=0.5 is not enforced on this host" in done["msg"]
    assert not (workspace / "made").exists()
    done = user.run("true", workspace, cpus=0.5, limits="best_effort")
    assert done["rc"] == 0
    assert any("the limit cpus=0.5 is not enforced" in warning for warning in done["warnings"])


def test_the_cache_is_not_changed_by_runs(user: User, workspace: Path):
    user.run("true", workspace)
    bundles = user.cache / "ggen.gvisor/bundles"
    before = tree(bundles)
    done = user.run("touch /made /bin/made; mkdir /d; ls / /bin", workspace, read_only=False)
    assert "made" in done["stdout"]
    assert tree(bundles) == before
    assert "made" not in user.run("ls / /bin", workspace)["stdout"]


def test_a_hostile_image_leads_no_mount_elsewhere(user: User, workspace: Path):
    """Its links lie where the pod's own folders and files are mounted, and lead to the workspace and to the host."""
    busybox = Path(oci.BUSYBOX).read_bytes(), 0o755
    links = {"etc": "workspace", "tmp": "/workspace", "run": "/workspace/sub", "srv": str(workspace), ".ggen.gvisor.home": "workspace"}
    entries, _digest = oci.oci_entries(oci.tar({"bin/busybox": busybox, "bin/sh": "busybox", **links}))
    (user.home / "hostile.tar").write_bytes(oci.tar(entries))
    user.own(user.home)
    before = tree(workspace)
    done = user.run("cd /; for f in etc/hosts run/secrets/k; do read x < $f && echo $x; done", workspace, image=str(user.home / "hostile.tar"),
                    secrets={"k": base64.b64encode(b"a secret word\n").decode()})  # fmt: skip
    assert "127.0.0.1 localhost" in done["stdout"], done
    assert tree(workspace) == before


def test_a_hostile_archive_writes_nowhere(user: User):
    entries, _digest = oci.oci_entries(oci.tar({"a": str(user.home), "a/evil": b"evil"}))
    (user.home / "hostile.tar").write_bytes(oci.tar(entries))
    user.own(user.home)
    done = user.run("true", image=str(user.home / "hostile.tar"))
    assert "entry 'a/evil' is behind a link" in done["msg"]
    assert not (user.home / "evil").exists()


def test_a_workspace_is_the_caller_s_and_no_link(user: User, place: Path, workspace: Path):
    root_s = place / "root's"
    root_s.mkdir(exist_ok=True)
    assert "belongs to 0:0, and without root a command runs as the caller" in user.run("true", root_s)["msg"]
    link = user.home / "link"
    link.symlink_to(workspace)
    assert "is a link" in user.run("true", link)["msg"]
    link.unlink()
    assert "is not possible without root" in user.run("true", workspace, user="0:0")["msg"]
    assert user.run("true", workspace, user=str(user.uid))["rc"] == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image": "docker.io/library/ggen:latest"}, "is no absolute path"),
        ({"image": "/nonexistent.tar"}, "does not exist on this host"),
        ({"runsc": "/nonexistent/runsc"}, "is no program that this user can run"),
        ({"runsc": "/bin/true"}, "the sandbox did not start with /bin/true"),
        ({"cwd": "/nowhere"}, "is no folder of the pod"),
    ],
)
def test_what_cannot_work_is_said(user: User, options: dict, message: str):
    done = user.run("true", **options)
    assert done["failed"]
    assert message in done["msg"]


def test_the_audit_trail_tells_of_each_run(user: User, workspace: Path):
    user.run("exit 4", workspace)
    record = json.loads((user.state / "ggen.gvisor/audit/runs.jsonl").read_text().splitlines()[-1])
    assert {"rc": 4, "ended": "exit", "namespace": "rootless", "user": f"{user.uid}:{user.uid}"}.items() <= record.items()
    assert record["digest"].startswith("sha256:")


def test_root_may_do_it_too_where_root_says_so(somebody: User, place: Path):
    folder = place / "of-root"
    folder.mkdir(exist_ok=True)
    own = User.__new__(User)
    own.__dict__.update(somebody.__dict__, uid=0)
    own.home = place / "home-of-root"
    own.home.mkdir(exist_ok=True)
    own.runsc, own.image = shutil.copy2(somebody.runsc, own.home), shutil.copy2(somebody.image, own.home)
    own.cache, own.state = own.home / "cache", own.home / "state"
    assert "is root, or in root's group, only where that is asked for" in own.run("true", folder)["msg"]
    done = own.run("echo x > made", folder, user="0:0", limits="best_effort")
    assert (done["rc"], paths(done)) == (0, [("created", "made")]), done


@pytest.fixture(scope="module")
def checkout(somebody: User) -> Path:
    """A copy of this checkout with what was built, and an environment that others than root can use."""
    copy = somebody.folder("checkout")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).exists() and not name.startswith("tests/"):
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name, follow_symlinks=False)
    for name in ("bin", "dist"):
        shutil.copytree(ROOT / name, copy / name, symlinks=True)
    packages = [copy / ".packages", Path(ansible.__file__).parent.parent]
    for pattern in ("ansible*", "jinja2*", "markupsafe*", "yaml", "packaging*", "resolvelib*", "tomlkit*"):
        for path in packages[1].glob(pattern):
            shutil.copytree(path, packages[0] / path.name, ignore=shutil.ignore_patterns("__pycache__"))
    (copy / ".venv/bin").mkdir(parents=True)
    program = f"import sys\nsys.path.insert(0, {str(packages[0])!r})\nfrom ansible.cli.playbook import main\nmain()\n"
    (copy / ".venv/bin/ansible-playbook").write_text(f"#!{PYTHON}\n{program}")
    (copy / ".venv/bin/ansible-playbook").chmod(0o755)
    (copy / ".venv/run.stamp").touch()
    somebody.own(copy)
    return copy


def test_make_try_as_anybody(user: User, checkout: Path):
    begin = time.time()
    home = user.folder("untouched home")
    command = user.command("env", "-u", "PYTHONPATH", f"HOME={home}", "make", "-C", str(checkout), f"PYTHON={PYTHON}", "try")
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    assert 'proof: the sandbox\'s kernel log begins with "Starting gVisor..."' in done.stdout
    made = user.cache / "ggen.gvisor/try/organization/generated"
    assert "generated/model.py" in done.stdout
    assert (made / "model.py").stat().st_uid == user.uid
    assert list(home.iterdir()) == [], "something was left in the user's home"
    others = [path for path in user.place.parent.iterdir() if path.lstat().st_uid == user.uid and path.lstat().st_mtime > begin]
    assert others == [], "something was left in /tmp"
