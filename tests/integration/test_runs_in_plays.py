# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a task with containerd_run comes to in a play: the engine, the action and the module together, on a real containerd."""

from __future__ import annotations

import contextlib
import io
import json
import os
import socket
import stat
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support import oci
from support.containerd import Daemon
from support.containerd_debs import VERSIONS, ensure
from support.gvisor import gvisor_dir
from support.playbook import Play, play
from support.runs import IMAGE, RUNTIMES, Host, gvisor_daemon

OWNER = 1000
PASSWD = b"root:x:0:0:root:/root:/bin/sh\nmaker:x:1000:1000::/home/maker:/bin/sh\nbare:x:1001:1001::/home/absent:/bin/sh\n"
OTHER = "localhost/own-home:1"


def layer() -> bytes:
    """busybox with users, one of which has a home."""
    with tarfile.open(fileobj=io.BytesIO(oci.busybox_layer())) as old:
        kept = {
            member.name: member.linkname if member.issym() else (old.extractfile(member).read(), member.mode)
            for member in old
            if member.name != "etc/passwd"
        }
    made = io.BytesIO(oci.tar({**kept, "etc/passwd": PASSWD, "home/maker/.profile": b""}))
    with tarfile.open(fileobj=made, mode="a") as archive:
        home = tarfile.TarInfo("home/maker")
        home.type, home.mode, home.uid, home.gid = tarfile.DIRTYPE, 0o755, OWNER, OWNER
        archive.addfile(home)
    return made.getvalue()


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    root = tmp_path_factory.mktemp("containerd")
    with Daemon(root, bin_dir=gvisor_dir(root / "bin")) as running:
        for name, env in ((IMAGE, ["spring.profiles=a b", "my-flag=1", "PLAIN=yes", "AWAY=here"]), (OTHER, ["HOME=/srv/own"])):
            entries, _digest = oci.oci_entries(layer(), name, env=tuple(env))
            (root / "image.tar").write_bytes(oci.tar(entries))
            running.ctr("images", "import", str(root / "image.tar"))
        yield running


class Tasks:
    """A playbook of named tasks, run once; their results by name."""

    def __init__(self, host: Host, root: Path) -> None:
        self.host = host
        self.root = root
        self.tasks: list[dict[str, Any]] = []

    def add(self, name: str, script: str | list[str], /, task: dict[str, Any] | None = None, **params: Any) -> None:
        """Add a task; ``task`` are keywords of the task itself."""
        options = {key: value for key, value in self.host.params(script, None).items() if key != "workspace"}
        if "jobs" in params:
            del options["argv"]
        self.tasks.append({"name": name, "ggen.gvisor.containerd_run": {**options, **params}, "ignore_errors": True, **(task or {})})

    def play(self, *options: str) -> Results:
        """Run them on this machine."""
        (self.root / "hosts.yml").write_text(
            yaml.safe_dump({"all": {"hosts": {"here": {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}}}})
        )
        (self.root / "play.yml").write_text(yaml.safe_dump([{"hosts": "all", "gather_facts": False, "tasks": self.tasks}]))
        return Results(play(str(self.root / "play.yml"), *options, inventory=self.root / "hosts.yml"))


class Results(dict):
    """Results of tasks by name; ``failed`` is what the engine made of each, which it does not leave in the result."""

    def __init__(self, played: Play) -> None:
        super().__init__((event["task"], {**event["res"], "failed": event["event"] == "runner_on_failed"}) for event in played.results)
        self.output = " ".join(played.output.split())


def owned(folder: Path, owner: int = OWNER) -> Path:
    folder.mkdir(exist_ok=True)
    os.chown(folder, owner, owner)
    return folder


@pytest.fixture
def tasks(daemon: Daemon, tmp_path: Path) -> Iterator[Tasks]:
    """… in gVisor; nothing may be left."""
    found = Tasks(Host(daemon, tmp_path, RUNTIMES["runsc"]), tmp_path)
    yield found
    assert found.host.left() == {}


def test_a_code_other_than_0_fails_only_where_it_is_to(tasks: Tasks) -> None:
    tasks.add("fails", "exit 3")
    tasks.add("may", "exit 4", fail_on_rc=False)
    tasks.add("several", "", jobs=[{"argv": ["sh", "-c", "exit 5"]}], fail_on_rc=False)
    played = tasks.play()
    assert (played["fails"]["failed"], played["fails"]["rc"]) == (True, 3)
    assert (played["may"]["failed"], played["may"]["rc"]) == (False, 4)
    assert (played["several"]["failed"], played["several"]["jobs"][0]["rc"]) == (False, 5)


NO_STRINGS = {"TRUE": True, "VERSION": 1.10, "MODE": 0o644, "LIST": ["a"]}


def test_a_variable_is_a_string_or_not_set(tasks: Tasks) -> None:
    for name, value in NO_STRINGS.items():
        tasks.add(name, "true", env={name: value})
    tasks.add("null", 'echo "${AWAY-none} ${HOME-none} ${PLAIN}"', env={"AWAY": None, "HOME": None})
    played = tasks.play()
    for name in NO_STRINGS:
        result = played[name]
        assert result["failed"]
        assert f"env has for {name} a value of the type {type(NO_STRINGS[name]).__name__} where" in result["msg"]
        assert "put it into quotes" in result["msg"]
    assert played["null"]["stdout"] == "none none yes\n"


def test_variables_of_the_image_come_through_whatever_their_names(tasks: Tasks) -> None:
    tasks.add("image", ["env"])
    tasks.add("odd", ["env"], env={"my-flag": "2", "a.b": "c", "-x": "y", "EMPTY": ""})
    played = tasks.play()
    seen = {name: dict(line.split("=", 1) for line in played[name]["stdout"].splitlines()) for name in ("image", "odd")}
    assert seen["image"] == {
        "PATH": "/bin:/usr/local/bin",
        "spring.profiles": "a b",
        "my-flag": "1",
        "PLAIN": "yes",
        "AWAY": "here",
        "HOME": "/.ggen.gvisor.home",
        "PWD": "/",
    }
    assert seen["odd"] == {**seen["image"], "my-flag": "2", "a.b": "c", "-x": "y", "EMPTY": ""}


def test_home_is_the_users(tasks: Tasks, tmp_path: Path) -> None:
    """… of the image where it can be written, else a folder of the user's own."""
    look = 'echo "$HOME"; echo x > "$HOME/x" && stat -c "%u %a" "$HOME"'
    tasks.add("maker", look, user="1000:1000", read_only=False)
    tasks.add("read-only", look, user="1000:1000")
    tasks.add("absent", look, user="1001:1001", read_only=False)
    tasks.add("stranger", look, user="4711:4711")
    tasks.add("root", look, user="0:0")
    tasks.add("image", "echo $HOME; mkdir $HOME/a", image=OTHER, user="0:0", mounts=[])
    mine, other = (owned(tmp_path / name) for name in ("mine", "other"))
    mount = {"source": str(mine), "target": "/home/maker"}
    tasks.add("mounted", look, user="1000:1000", mounts=[{**mount, "writable": True}])
    tasks.add("mounted read-only", look, user="1000:1000", read_only=False, mounts=[{**mount, "source": str(other)}])
    tasks.add("said", "echo $HOME", env={"HOME": "/said"})
    played = tasks.play()
    seen = {
        name: played[name].get("stdout")
        for name in ("maker", "read-only", "absent", "stranger", "root", "mounted", "mounted read-only", "said")
    }
    spare = "/.ggen.gvisor.home"
    assert seen == {
        "maker": "/home/maker\n1000 755\n",
        "read-only": f"{spare}\n1000 700\n",
        "absent": f"{spare}\n1001 700\n",
        "stranger": f"{spare}\n4711 700\n",
        "root": f"{spare}\n0 700\n",
        "mounted": "/home/maker\n1000 755\n",
        "mounted read-only": f"{spare}\n1000 700\n",
        "said": "/said\n",
    }
    assert played["image"]["stdout"] == f"{spare}\n"


# Run by this machine's Python, which the pod sees; prints what each address gives.
TALK = """
import json, socket, sys
seen = {"name": socket.gethostname()}
for family, to in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"), (socket.AF_INET, "localhost"), (socket.AF_INET6, "localhost"),
                   *((socket.AF_INET, name) for name in sys.argv[2:])):
    with socket.create_server((to, 0), family=family) as server:
        port = server.getsockname()[1]
        with socket.socket(family) as client:
            client.settimeout(5)
            client.connect((to, port))
            client.sendall(b"hello")
            client.shutdown(socket.SHUT_WR)
            there, _address = server.accept()
            with there:
                seen[f"{family.name} {to}"] = there.makefile().read()
for to in [("192.0.2.1", 80), ("2001:db8::1", 80), ("127.0.0.1", int(sys.argv[1]))]:
    try:
        socket.create_connection(to, timeout=3).close()
        seen[to[0]] = "connected"
    except OSError as error:
        seen[to[0]] = error.strerror
print(json.dumps(seen))
"""
PYTHON = [{"source": "/usr", "target": "/usr"}, {"source": "/usr/lib", "target": "/lib"}, {"source": "/usr/lib64", "target": "/lib64"}]


@pytest.fixture(scope="module")
def newest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A containerd whose ctr can give gVisor a host name."""
    with contextlib.ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PATH", ensure("2.1.9").path)
            running = stack.enter_context(gvisor_daemon(tmp_path_factory.mktemp("newest")))
        yield running


@pytest.mark.parametrize(
    ("which", "runtime", "name"), [("daemon", "runsc", ""), ("daemon", "runc", "sandbox"), ("newest", "runsc", "sandbox")]
)
def test_a_pod_has_loopback_and_no_other_network(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, which: str, runtime: str, name: str
) -> None:
    daemon = request.getfixturevalue(which)
    if which == "newest":
        monkeypatch.setenv("PATH", ensure("2.1.9").path)
    tasks = Tasks(Host(daemon, tmp_path, RUNTIMES[runtime]), tmp_path)
    (tmp_path / "own").write_text("own\n")
    (tmp_path / "own").chmod(0o644)
    tasks.add("hosts", "cat /etc/hosts; echo x >> /etc/hosts", user="0:0", read_only=False)
    tasks.add("own", "cat /etc/hosts", mounts=[{"source": str(tmp_path / "own"), "target": "/etc/hosts"}])
    tasks.add("interfaces", "cat /proc/net/dev")
    with socket.create_server(("127.0.0.1", 0)) as ours:
        tasks.add("talk", ["/usr/bin/python3", "-c", TALK, str(ours.getsockname()[1]), *filter(None, [name])], mounts=PYTHON)
        played = tasks.play()
        ours.settimeout(0)
        with pytest.raises(BlockingIOError):
            ours.accept()
    assert played["hosts"]["rc"] != 0
    assert played["hosts"]["stdout"].splitlines()[0] == "127.0.0.1 localhost"
    assert played["own"]["stdout"] == "own\n"
    assert played["interfaces"]["rc"] == 0
    assert {line.split(":")[0].strip() for line in played["interfaces"]["stdout"].splitlines() if ":" in line} == {"lo"}
    assert played["talk"]["rc"] == 0, played["talk"]["stderr"]
    seen = json.loads(played["talk"]["stdout"])
    assert {seen.pop(name) for name in list(seen) if name.startswith("AF_INET")} == {"hello"}
    assert seen == {
        "name": name,
        "192.0.2.1": "Network is unreachable",
        "2001:db8::1": "Network is unreachable",
        "127.0.0.1": "Connection refused",
    }
    assert tasks.host.left() == {}


@pytest.mark.parametrize(("version", "runtime"), [(VERSIONS[0], "runc"), *((version, "runsc") for version in VERSIONS)])
def test_the_host_name_is_the_hosts_file_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, runtime: str) -> None:
    """To a pod of gVisor's ctr of 1.6 can give none: then there is none, for which busybox has a sign."""
    monkeypatch.setenv("PATH", ensure(version).path)
    name = "" if (version, runtime) == ("1.6.20", "runsc") else "sandbox"
    with gvisor_daemon(tmp_path / "containerd") as daemon:
        host = Host(daemon, tmp_path, RUNTIMES[runtime])
        result = host.run("hostname; uname -n; cat /proc/sys/kernel/hostname /etc/hosts")
    assert result["stdout"].splitlines() == [
        name or "?",
        name,
        name,
        "127.0.0.1 localhost",
        "::1 localhost ip6-localhost ip6-loopback",
        *([f"127.0.0.1 {name}"] if name else []),
    ]


def test_a_working_folder_that_is_not_there_is_no_exit_code(tasks: Tasks, tmp_path: Path) -> None:
    closed = owned(tmp_path / "closed", 4711)
    closed.chmod(0o700)
    mounts = [{"source": str(closed), "target": "/closed"}]
    tasks.add("absent", "echo started", cwd="/absent", fail_on_rc=False)
    tasks.add("a file", "echo started", cwd="/etc/passwd")
    tasks.add("closed", "echo started", cwd="/closed", mounts=mounts)
    tasks.add("several", "", jobs=[{"argv": ["true"], "cwd": "/absent"}, {"argv": ["true"]}], pods="one")
    tasks.add("there", "pwd; exit 2", cwd="/etc", fail_on_rc=False)
    tasks.add("held", "sleep 100 & echo done; exit 2", cwd="/etc", fail_on_rc=False)
    played = tasks.play()
    for name, cwd in (("absent", "/absent"), ("a file", "/etc/passwd"), ("closed", "/closed")):
        result = played[name]
        assert result["failed"], result
        assert "rc" not in result
        assert result["stdout"] == ""
        assert f"sh was not started: cwd={cwd} is no folder of the pod that user 65534:65534 can enter" in result["msg"]
    assert [job["failed"] for job in played["several"]["jobs"]] == [True, False]
    assert (played["there"]["rc"], played["there"]["stdout"]) == (2, "/etc\n")
    assert (played["held"]["rc"], played["held"]["stdout"]) == (2, "done\n")
    assert played["held"]["duration"] < 30


def test_a_mounts_target_cannot_take_away_that_it_is_read_only(tasks: Tasks, tmp_path: Path) -> None:
    source = owned(tmp_path / "source", 65534)
    odd = ("/x\n", "/x\ny", "/x\ry", "/x\x1b[0m", "/x\ty", "/x\x7f")
    for target in odd:
        tasks.add(repr(target), "true", mounts=[{"source": str(source), "target": target}])
    legal = '/a b,c="d":e,options=rbind:rw'
    tasks.add("legal", f"touch '{legal}/written'; ls -d '{legal}'", mounts=[{"source": str(source), "target": legal}], fail_on_rc=False)
    tasks.add("state", "true", state_dir=f"{tmp_path}/a\nb")
    tasks.add("variables", 'printf "%s" "$A"', env={"A": 'a,b\n"c":d\r'})
    played = tasks.play()
    for target in odd:
        assert played[repr(target)]["failed"], target
        assert "holds control characters" in played[repr(target)]["msg"]
    assert played["legal"]["stdout"] == f"{legal}\n"
    assert os.listdir(source) == []
    assert "holds control characters" in played["state"]["msg"]
    assert played["variables"]["stdout"] == 'a,b\n"c":d\r'


def test_times_and_numbers_that_nobody_can_count(tasks: Tasks) -> None:
    tasks.add("long", "echo ran", timeout=1e12)
    for option, value in (("timeout", float("inf")), ("timeout", float("nan")), ("cpus", float("inf")), ("cpus", float("nan"))):
        tasks.add(f"{option} {value}", "true", **{option: value})
    played = tasks.play()
    assert (played["long"]["rc"], played["long"]["stdout"]) == (0, "ran\n")
    for name in ("timeout inf", "timeout nan", "cpus inf", "cpus nan"):
        assert "is no number that can be counted to" in played[name]["msg"]
        assert name.replace(" ", "=") in played[name]["msg"]


def test_who_is_not_root_is_told_to_become_root(tasks: Tasks, tmp_path: Path) -> None:
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == 0 and not folder.stat().st_mode & stat.S_IXOTH:
            folder.chmod(folder.stat().st_mode | stat.S_IXOTH)
    nobody = {
        "become": True,
        "become_user": "nobody",
        "become_method": "ansible.builtin.su",
        "become_flags": "-s /bin/sh",
        "vars": {"ansible_python_interpreter": "/usr/bin/python3", "ansible_pipelining": True},
    }
    tasks.add("socket", "true", nobody)
    played = tasks.play()
    result = played["socket"]
    assert result["failed"]
    assert "missing" not in result
    assert "Permission denied; become root (become: true)" in result["msg"]


def test_what_is_not_copied_back_is_shown_for_each_of_several(tasks: Tasks, tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
    jobs = [{"workspace": str(folder), "workspace_from": "controller"} for folder in folders]
    tasks.add("several", "", jobs=[{**job, "argv": ["ln", "-s", "/etc", "link"]} for job in jobs])
    tasks.add("single", ["ln", "-s", "/etc", "link"], **jobs[0])
    played = tasks.play()
    for name in ("several", "single"):
        assert not played[name]["failed"], played[name]
    for folder in folders:
        assert f"{folder}: link is a symlink that may lead out of the workspace, and was not copied back" in played.output
    assert subprocess.run(["ls", "-A", *folders], capture_output=True, check=True, text=True).stdout.split() == [
        f"{folders[0]}:",
        f"{folders[1]}:",
    ]


def tree(folder: Path) -> dict[str, tuple[int, str]]:
    return {
        str(path.relative_to(folder)): (path.lstat().st_uid, path.read_text() if path.is_file() else "folder")
        for path in sorted(folder.rglob("*"))
    }


@pytest.mark.parametrize("runtime", list(RUNTIMES))
def test_a_mount_below_a_folder_of_the_host_leaves_nothing_there(daemon: Daemon, tmp_path: Path, runtime: str) -> None:
    tasks = Tasks(Host(daemon, tmp_path, RUNTIMES[runtime]), tmp_path)
    workspace, shared, source, file = (tmp_path / name for name in ("workspace", "shared", "source", "file"))
    for folder in (workspace, shared, source, workspace / "there"):
        owned(folder)
    (source / "in").write_text("in\n")
    file.write_text("file\n")
    (workspace / "link").symlink_to("there")
    before = tree(workspace)
    nested = [
        {"source": str(source), "target": "/workspace/a/b"},
        {"source": str(source), "target": "/workspace/there"},
        {"source": str(file), "target": "/workspace/a/file"},
        {"source": str(source), "target": "/shared/c"},
        {"source": str(shared), "target": "/shared", "writable": True},
    ]
    look = "cat a/b/in there/in a/file /shared/c/in; stat -c %u a; touch own"
    tasks.add("rehearsed", look, {"check_mode": True}, workspace=str(workspace), mounts=nested)
    tasks.add("nested", look, workspace=str(workspace), mounts=nested)
    tasks.add("used", "mkdir -p a; touch a/own", workspace=str(workspace), mounts=[nested[0]])
    tasks.add("link", "true", workspace=str(workspace), mounts=[{"source": str(source), "target": "/workspace/link/x"}])
    tasks.add("a file", "true", workspace=str(workspace), mounts=[{"source": str(source), "target": "/workspace/own"}])
    tasks.add("read-only", "true", mounts=[{"source": str(shared), "target": "/s"}, {"source": str(source), "target": "/s/x"}])
    played = tasks.play()
    for name in ("nested", "rehearsed"):
        assert played[name].get("stdout") == "in\nin\nfile\nin\n1000\n", played[name]
        assert [item["path"] for item in played[name]["changed_files"]] == ["own"]
    assert played["used"]["rc"] == 0
    assert tree(workspace) == {**before, "own": (OWNER, ""), "a": (OWNER, "folder"), "a/own": (OWNER, "")}
    assert tree(shared) == {}
    assert "link is there, and is no folder" in played["link"]["msg"]
    assert "own is there, and is no folder" in played["a file"]["msg"]
    assert "x is missing in /s, which is read-only" in played["read-only"]["msg"]
    assert tasks.host.left() == {}
