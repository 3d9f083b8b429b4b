# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A hostile member of the group that sudo lets run ggen-gvisor-member, with a real sudo, containerd and gVisor.

sudo reads the rule of the role's in a mount namespace of the test's, where the host's own rules are not; they are looser there than any host's should
be: the caller's environment is kept, and there is no secure_path. Users and groups exist there alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import jinja2
import pytest
import yaml
from ansible_collections.ggen.gvisor.plugins.module_utils._command.table import NOT_RUN, WOULD_CHANGE
from ansible_collections.ggen.gvisor.plugins.plugin_utils._command import zipapp
from support.containerd import Daemon
from support.module import ROOT
from support.runs import IMAGE, PATIENCE

pytest_plugins = ("support.run_fixtures",)

ROLE = ROOT / "roles/containerd_gvisor"
MALLORY, VICTIM, ROOTY, GROUP = 64321, 64322, 64323, 64400
SUDO = ("sudo", "-n")
LOOSE = "Defaults !env_reset, setenv, !lecture\n"
# In namespaces of their own for /etc alone: what the command mounts below its state folder containerd must see.
AS = 'mount --make-private / && for f in passwd group sudoers; do mount --bind "$1/etc/$f" /etc/$f || exit 99; done && shift && exec "$@"'


def rendered(name: str, **variables: object) -> str:
    environment = jinja2.Environment(keep_trailing_newline=True, autoescape=False)  # noqa: S701 - no page
    environment.filters["to_json"] = json.dumps
    return environment.from_string((ROLE / "templates" / name).read_text()).render(**variables)


class Members:
    """A host with a victim and a hostile member, and what the role installs."""

    def __init__(self, place: Path, daemon: Daemon) -> None:
        self.place, self.daemon = place, daemon
        place.chmod(0o755)
        self.bin, self.etc, self.state = place / "bin", place / "etc", place / "state"
        for folder in (self.bin, self.etc, self.state):
            folder.mkdir()
        zipapp.write(str(self.bin / "ggen-gvisor"))
        self.program = self.bin / "ggen-gvisor-member"
        variables = {
            "_containerd_gvisor_command": {str(self.bin / "ggen-gvisor"): "ggen-gvisor"},
            "_containerd_gvisor_member": {"program": str(self.program)},
            "_containerd_gvisor_state": str(self.state),
            "containerd_gvisor_address": daemon.address,
            "containerd_gvisor_command_group": "sandboxes",
        }
        self.program.write_text(rendered("member.py.j2", **variables))
        self.program.chmod(0o755)
        (self.etc / "sudoers").write_text(LOOSE + rendered("sudoers.j2", **variables))
        (self.etc / "sudoers").chmod(0o440)
        users = {"mallory": (MALLORY, MALLORY), "victim": (VICTIM, VICTIM), "rooty": (ROOTY, 0)}
        lines = [f"{name}:*:{uid}:{gid}::{place}/{name}:/bin/sh\n" for name, (uid, gid) in users.items()]
        (self.etc / "passwd").write_text(Path("/etc/passwd").read_text() + "".join(lines))
        groups = [f"mallory:x:{MALLORY}:\n", f"victim:x:{VICTIM}:\n", f"sandboxes:x:{GROUP}:mallory,rooty\n"]
        (self.etc / "group").write_text(Path("/etc/group").read_text() + "".join(groups))
        self.root_s = self.folder("root's", 0, 0o700)
        (self.root_s / "secret").write_text("root's own secret\n")
        self.home, self.victim = self.folder("mallory", MALLORY, 0o700), self.folder("victim", VICTIM, 0o755)
        for folder, mode in ((self.victim / "model", 0o755), (self.victim / "closed", 0o700)):
            folder.mkdir()
            folder.chmod(mode)
            (folder / "secret").write_text("victim's secret\n")
            os.chown(folder, VICTIM, VICTIM)
            os.chown(folder / "secret", VICTIM, VICTIM)
        self.workspace = self.home / "model"
        self.workspace.mkdir()
        (self.workspace / "input").write_text("input\n")
        self.own(self.workspace)

    def folder(self, name: str, uid: int, mode: int) -> Path:
        folder = self.place / name
        folder.mkdir()
        os.chown(folder, uid, uid)
        folder.chmod(mode)
        return folder

    @staticmethod
    def own(path: Path) -> None:
        for one in [path, *path.rglob("*")]:
            os.chown(one, MALLORY, MALLORY, follow_symlinks=False)

    def argv(self, *words: str, user: int = MALLORY, env: dict[str, str] | None = None) -> list[str]:
        """Return what runs ``words`` as a user of the host."""
        gid, groups = (0, f"0,{GROUP}") if user == ROOTY else (user, f"{user},{GROUP}" if user == MALLORY else str(user))
        who = ["setpriv", f"--reuid={user}", f"--regid={gid}", f"--groups={groups}"]
        variables = {"PATH": "/usr/bin:/bin", "HOME": str(self.home), **(env or {})}
        view = ["unshare", "--mount", "--propagation", "unchanged", "sh", "-c", AS, "sh", str(self.place)]
        return [*view, *who, "env", "-i", *(f"{name}={value}" for name, value in variables.items()), *words]

    def start(self, *words: str, cwd: Path | None = None, **who: object) -> subprocess.Popen:
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        argv = self.argv(*words, **who)
        return subprocess.Popen(argv, **pipes, text=True, cwd=cwd or self.workspace)

    def call(self, *words: str, **options: object) -> tuple[int, str, str]:
        process = self.start(*words, **options)
        out, err = process.communicate(timeout=120)
        return process.returncode, out, err

    def sudo(self, *words: str, **options: object) -> tuple[int, str, str]:
        return self.call(*SUDO, str(self.program), *words, **options)

    def run(self, script: str, *options: str, **others: object) -> tuple[int, str, str]:
        return self.sudo("run", "--image", IMAGE, *options, "--", "sh", "-c", script, **others)

    def host(self) -> dict[str, object]:
        """What must stay as it is, whatever the member does."""
        found: dict[str, object] = {}
        for top in (self.root_s, self.victim, self.bin, self.etc, Path("/etc"), Path("/root")):
            for path in [top, *(top.iterdir() if top == Path("/root") else top.rglob("*"))]:
                status = path.lstat()
                told = (status.st_mode, status.st_uid, status.st_gid)
                found[str(path)] = told if top == Path("/root") else (*told, status.st_mtime_ns, status.st_size)
        found["shadow"] = hashlib.sha256(Path("/etc/shadow").read_bytes()).hexdigest()
        return found

    def left(self) -> dict:
        pods = self.state / "pods"
        names = [name for name in os.listdir(pods) if name != ".lock"] if pods.exists() else []
        mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if f" {self.state}/" in line]
        running = [pid for pid in filter(str.isdigit, os.listdir("/proc")) if str(self.program) in _cmdline(pid)]
        found = {**self.daemon.leftovers(), "pods": names, "mounts": mounts, "running": running}
        return {name: value for name, value in found.items() if value}

    def settle(self) -> dict:
        deadline = time.monotonic() + PATIENCE
        while self.left() and time.monotonic() < deadline:
            time.sleep(0.1)
        return self.left()


def _cmdline(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


@pytest.fixture(scope="module")
def installed(daemon: Daemon) -> Iterator[Members]:
    with tempfile.TemporaryDirectory(prefix="members-", dir="/tmp") as folder:  # root's own are closed to others
        one = Members(Path(folder), daemon)
        subprocess.run(["mount", "--bind", one.state, one.state], check=True)
        subprocess.run(["mount", "--make-shared", one.state], check=True)
        yield one
        one.settle()
        subprocess.run(["umount", one.state], check=True)


@pytest.fixture
def members(installed: Members) -> Iterator[Members]:
    before = installed.host()
    yield installed
    assert installed.settle() == {}
    assert installed.host() == before


# What members may


def test_a_member_runs_commands_as_themselves_on_a_folder_of_their_own(members: Members) -> None:
    (members.home / "key").write_text("much too secret")
    (members.home / "data").mkdir()
    members.own(members.home)
    options = ["--workspace", ".", "--secret", f"key={members.home / 'key'}", "--mount", f"{members.home / 'data'}:/data"]
    rc, out, err = members.run("id -u; id -g; cat /run/secrets/key; echo; echo 1 > made; echo 2 > /data/made; exit 3", *options)
    assert (rc, out, err) == (3, f"{MALLORY}\n{MALLORY}\n********\n", "")
    for made in (members.workspace / "made", members.home / "data/made"):
        assert made.stat().st_uid == MALLORY
        made.unlink()
    rc, out, err = members.sudo("check", "--image", IMAGE, "--", "sh", "-c", "echo more >> input; exit 0")
    assert (rc, err) == (WOULD_CHANGE, "")
    assert out.endswith(" input\n+more\n")
    assert (members.workspace / "input").read_text() == "input\n"
    record = json.loads((members.state / "audit/runs.jsonl").read_text().splitlines()[-1])
    assert (record["user"], record["asked_by"]["sudo_user"]) == (f"{MALLORY}:{MALLORY}", "mallory")


def test_sudo_takes_the_rule_and_only_members_have_it(members: Members) -> None:
    subprocess.run(["visudo", "-cf", members.etc / "sudoers"], check=True, capture_output=True)
    assert members.run("true", user=VICTIM, cwd=members.victim / "model")[0] == 1
    rc, _out, err = members.run("true", user=ROOTY, cwd=members.place)
    assert (rc, "in root's group" in err) == (NOT_RUN, True)


# What a hostile one tries: what is said to it


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--workspace", "/etc"], "/etc belongs to 0:0 and not to mallory"),
        (["--workspace", "/"], "is the whole host"),
        (["--workspace", "{link}"], "is a link"),
        (["--workspace", "{link}/"], "is a link"),
        (["--workspace", "{victim}/model"], "belongs to 64322:64322 and not to mallory"),
        (["--workspace", "{victim}/closed/deeper"], "Permission denied"),
        (["--workspace", "{home}/../victim/model"], "belongs to 64322"),
        (["--mount", "/root:/x"], "/root belongs to 0:0"),
        (["--mount", "/root/.ssh:/x:ro"], "Permission denied"),
        (["--mount", "/etc/shadow:/x:ro"], "/etc/shadow belongs to 0"),
        (["--mount", "/etc:/x"], "/etc belongs to 0:0"),
        (["--mount", "{link}:/x:ro"], "is a link"),
        (["--mount", "/proc/self/root/etc:/x:ro"], "is a link"),
        (["--mount", "{address}:/x"], "neither a folder nor a regular file"),
        (["--mount", "/dev/kmsg:/x"], "neither a folder nor a regular file"),
        (["--secret", "x=/etc/shadow"], "/etc/shadow: Permission denied"),
        (["--secret", "x={shadow}"], "Permission denied"),
        (["--secret", "x={root_s}/secret"], "Permission denied"),
        (["--secret", "x=/proc/self/mem"], "Permission denied"),
        (["--secret", "x=/dev/zero"], "more than"),
        (["--user", "0:0"], "--user is root's"),
        (["--user=64322"], "--user is root's"),
        (["--state-dir", "{home}"], "--state-dir is root's"),
        (["--address", "{home}/sock"], "--address is root's"),
        (["--namespace", "k8s.io"], "--namespace is root's"),
        (["--runtime", "io.containerd.runc.v2"], "--runtime is root's"),
        (["--rootless"], "--rootless is root's"),
        (["--metrics", "{home}"], "--metrics is root's"),
        (["--trace"], "--trace is root's"),
        (["--runsc", "{home}/runsc"], "--runsc is root's"),
        (["--use", "0:0"], "unrecognized arguments"),
        (["--memory", "0"], "--memory 0"),
        (["--image", "localhost/none:1"], "localhost/none:1"),
        (["--image", "{home}/image.tar"], "is no image name"),
        (["--image", "\x1b]0;owned\x07"], r"\x1b]0;owned"),
        (["--env", "SUDO_COMMAND"], "has no value"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_not_the_member_s_is_denied(members: Members, options: list[str], said: str) -> None:
    links = {"link": "/etc", "shadow": "/etc/shadow"}
    for name, target in links.items():
        if not (members.home / name).is_symlink():
            (members.home / name).symlink_to(target)
    members.own(members.home)
    places = {"home": members.home, "victim": members.victim, "root_s": members.root_s, "address": members.daemon.address}
    named = {name: str(members.home / name) for name in links}
    words = [option.format(**places, **named) for option in options]
    image = [] if "--image" in words else ["--image", IMAGE]
    rc, out, err = members.sudo(
        "run", *image, *words, "--", "sh", "-c", "cat /x/* /x /run/secrets/*; echo evil > evil; echo evil > /x/evil"
    )
    assert (rc, out) == (NOT_RUN, ""), err
    assert said in err
    assert "\x1b" not in err


@pytest.mark.parametrize(
    "words",
    [
        ("doctor",),
        ("stats",),
        ("--", "run", "--user", "0:0"),
        ("run", "--image", IMAGE, "--", "--user", "0:0"),
        ("run --user 0:0", "--", "id"),
        ("run", "--workspace=--", "--", "id"),
        ("shell", "--rootless"),
        ("shell", "--failed"),
        ("sync", "--user", "0:0"),
        ("check", "--workspace", "/etc", "--", "cat", "shadow"),
        (),
    ],
    ids=" ".join,
)
def test_no_other_way_of_saying_it_helps(members: Members, words: tuple[str, ...]) -> None:
    rc, out, _err = members.sudo(*words)
    assert (rc, out) == (NOT_RUN, "")


@pytest.mark.parametrize(
    "words",
    [
        ["{bin}/ggen-gvisor", "run", "--user", "0:0", "--", "id"],
        ["/usr/bin/python3", "-IS", "{bin}/ggen-gvisor", "run", "--", "id"],
        ["{home}/bin/ggen-gvisor-member", "run", "--", "id"],
        ["-u", "victim", "{bin}/ggen-gvisor-member", "run", "--", "id"],
        ["-g", "victim", "{bin}/ggen-gvisor-member", "run", "--", "id"],
        ["LD_PRELOAD={home}/evil.so", "{bin}/ggen-gvisor-member", "run", "--", "id"],
        ["PYTHONPATH={home}/bin", "{bin}/ggen-gvisor-member", "run", "--", "id"],
        ["-E", "{bin}/ggen-gvisor-member", "run", "--", "id"],
        ["{bin}/../{home_name}/bin/ggen-gvisor-member", "run", "--", "id"],
        ["-s"],
    ],
    ids=" ".join,
)
def test_sudo_allows_nothing_else(members: Members, words: list[str]) -> None:
    evil = members.home / "bin"
    evil.mkdir(exist_ok=True)
    (evil / "ggen-gvisor-member").write_text("#!/bin/sh\nid\n")
    (evil / "ggen-gvisor-member").chmod(0o755)
    members.own(members.home)
    places = {"bin": members.bin, "home": members.home, "home_name": "mallory"}
    rc, out, err = members.call(*SUDO, *(word.format(**places) for word in words))
    assert (rc, out) == (1, ""), err
    assert re.search("password is required|not allowed", err), err


def test_nothing_of_the_caller_s_environment_has_a_say(members: Members) -> None:
    """Each of these would leave a mark, and as root."""
    evil = members.home / "evil"
    evil.mkdir()
    mark = members.home / "mark"
    shout = f"import os\nopen({str(mark)!r}, 'a').write(f'{{__name__}} {{os.geteuid()}}\\n')\n"
    for name in ("sitecustomize", "usercustomize", "argparse", "os", "ansible_collections", "startup"):
        (evil / f"{name}.py").write_text(shout)
    for name in ("python3", "env", "ctr", "setsid", "containerd", "sh", "mount"):
        (evil / name).write_text(f'#!/bin/bash\necho "$0 $EUID" >> {mark}\n')
        (evil / name).chmod(0o755)
    (evil / "evil.c").write_text(
        textwrap.dedent(f"""
        #include <fcntl.h>
        #include <unistd.h>
        __attribute__((constructor)) static void mark(void) {{
            if (geteuid() == 0) close(open("{mark}", O_WRONLY | O_CREAT, 0600));
        }}
        """)
    )
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", evil / "evil.so", evil / "evil.c"], check=True)
    members.own(evil)
    env = {
        "PATH": f"{evil}:/usr/bin:/bin",
        "LD_PRELOAD": str(evil / "evil.so"),
        "LD_LIBRARY_PATH": str(evil),
        **dict.fromkeys(("PYTHONPATH", "PYTHONHOME", "PYTHONUSERBASE", "PYTHONPLATLIBDIR"), str(evil)),
        "PYTHONSTARTUP": str(evil / "startup.py"),
        "PYTHONINSPECT": "1",
        "PYTHONBREAKPOINT": "startup.x",
        "SUDO_UID": "0",
        "SUDO_USER": "root",
        "XDG_STATE_HOME": str(evil),
        "TMPDIR": str(evil),
        "CONTAINERD_ADDRESS": str(evil / "sock"),
        "BASH_ENV": str(evil / "sh"),
        "TERM": "../../x\x1b",
    }
    words = ["/usr/bin/sudo", "-n", str(members.program), "run", "--image", IMAGE, "--workspace", str(members.workspace)]
    rc, out, err = members.call(*words, "--", "sh", "-c", "id -u; env", cwd=evil, env=env)
    assert rc == 0, err
    assert out.splitlines()[0] == str(MALLORY)
    assert str(evil) not in out
    assert not mark.exists(), mark.read_text()
    shutil.rmtree(evil)


@pytest.mark.parametrize("kind", ["workspace", "mount"])
def test_what_is_exchanged_meanwhile_is_never_seen(members: Members, kind: str) -> None:
    """A program of the member's puts a link, or another's folder, in the place of the folder all the time."""
    swapped = members.home / "swapped"
    (swapped / "mine/model").mkdir(parents=True)
    (swapped / "mine/model/mine").write_text("mine\n")
    (swapped / "link").mkdir()
    (swapped / "link/model").symlink_to(members.root_s)
    (swapped / "other").symlink_to(members.victim)
    members.own(swapped)
    swap = f"""
import os
os.chdir({str(swapped)!r})
while True:
    for name in ("mine", "link", "mine", "other"):
        os.rename(name, "here")
        os.rename("here", name)
"""
    swapper = members.start("/usr/bin/python3", "-c", swap)
    try:
        codes = set()
        option = ["--workspace", f"{swapped}/here/model"] if kind == "workspace" else ["--mount", f"{swapped}/here/model:/seen"]
        place = "/workspace" if kind == "workspace" else "/seen"
        for _attempt in range(12):
            rc, out, err = members.run(f"ls {place}; cat {place}/secret; echo evil > {place}/evil", *option)
            codes.add(rc)
            assert "secret" not in out, (out, err)
            assert rc in (0, NOT_RUN), err
    finally:
        swapper.kill()
        swapper.wait()
        shutil.rmtree(swapped)
    assert NOT_RUN in codes


def test_a_file_of_another_s_in_a_folder_of_one_s_own_is_not_read(members: Members) -> None:
    """The member may move it there: who has a folder need not have what is in it."""
    left = members.home / "left by root"
    left.write_text("root's own secret\n")
    left.chmod(0o600)
    left.rename(members.workspace / "mine now")
    for words in (["check", "--image", IMAGE, "--", "rm", "mine now"], ["run", "--image", IMAGE, "--workspace", ".", "--json", "--", "id"]):
        rc, out, err = members.sudo(*words)
        assert rc == NOT_RUN, out
        assert "holds what is not 64321's" in out + err
        assert "root's own secret" not in out + err
    (members.workspace / "mine now").rename(left)
    digest = hashlib.sha256(left.read_bytes()).hexdigest()
    process = members.start(
        "sudo", "-n", str(members.program), "run", "--image", IMAGE, "--workspace", ".", "--json", "--",
        "sh", "-c", "touch begun; while [ ! -e end ]; do sleep 0.1; done",
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not (members.workspace / "begun").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    left.rename(members.workspace / "moved")
    (members.workspace / "end").touch()
    os.chown(members.workspace / "end", MALLORY, MALLORY)
    out, _err = process.communicate(timeout=60)
    found = {file["path"]: file["sha256"] for file in json.loads(out)["changed_files"]}
    assert found["moved"] == ""
    assert digest not in out
    assert found["begun"] == hashlib.sha256(b"").hexdigest()
    for name in ("moved", "begun", "end"):
        (members.workspace / name).unlink()


@pytest.mark.parametrize(
    "low",
    ["ulimit -t 1", "ulimit -f 0", "ulimit -n 8", "ulimit -v 200000", "ulimit -s 256", "trap '' CHLD TERM USR1"],
)
def test_limits_and_signals_of_the_caller_s_leave_nothing_half_done(members: Members, low: str) -> None:
    call = f'{low}; exec sudo -n "$@"'
    words = [str(members.program), "run", "--image", IMAGE, "--workspace", ".", "--", "sh", "-c", "echo out; echo 1 > made"]
    rc, out, err = members.call("sh", "-c", call, "sh", *words)
    # sudo itself may not bear it, and then nothing has begun.
    assert (rc, out) == (0, "out\n") or not (members.workspace / "made").exists(), err
    (members.workspace / "made").unlink(missing_ok=True)


def test_a_member_can_kill_sudo_alone_and_nothing_stays_then(members: Members) -> None:
    """sudo is half its caller's: the kernel lets them kill it. It waits for a process of root's that they cannot kill, and that ends with it."""
    process = members.start(*SUDO, str(members.program), "run", "--image", IMAGE, "--", "sh", "-c", "echo ready; sleep 600")
    assert process.stdout.readline() == "ready\n"
    mine = [pid for pid in filter(str.isdigit, os.listdir("/proc")) if str(members.program) in _cmdline(pid)]
    assert len(mine) >= 3
    kill = f"""
import contextlib, os
for pid in {list(map(int, mine))}:
    with contextlib.suppress(PermissionError):
        os.kill(pid, 9)
        print(pid)
"""
    assert members.call("/usr/bin/python3", "-c", kill)[:2] == (0, f"{process.pid}\n")
    assert process.wait(60) == -signal.SIGKILL
    assert members.settle() == {}
    process.communicate()


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGINT])
def test_a_member_may_end_it(members: Members, number: signal.Signals) -> None:
    process = members.start(*SUDO, str(members.program), "run", "--image", IMAGE, "--", "sh", "-c", "echo ready; sleep 600")
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    process.communicate(timeout=60)
    assert members.settle() == {}


def test_set_id_bits_do_not_stay(members: Members) -> None:
    rc, _out, err = members.run("cp /bin/busybox mine; chmod 6755 mine", "--workspace", ".")
    assert rc == 0, err
    assert not (members.workspace / "mine").stat().st_mode & 0o6000
    (members.workspace / "mine").unlink()


def _wait(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.05)


@pytest.fixture
def inbox(members: Members) -> Iterator[Path]:
    """A folder of the victim's that the member cannot enter, in one of the member's, which can be moved."""
    folder = members.home / "outer/inbox"
    folder.mkdir(parents=True)
    for name, mode in (("letter", 0o644), ("tool", 0o4755), ("signing.key", 0o644)):
        (folder / name).write_text("victim's\n")
        (folder / name).chmod(mode)
    folder.chmod(0o700)
    members.own(members.home)
    for path in (folder, *folder.iterdir()):
        mode = path.stat().st_mode
        os.chown(path, VICTIM, VICTIM)
        path.chmod(mode)
    yield folder
    shutil.rmtree(members.home / "outer", ignore_errors=True)


def _seen(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mode for path in folder.iterdir()}


@pytest.mark.parametrize("kind", ["workspace", "mount"])
def test_a_folder_of_another_s_that_comes_meanwhile_is_left_alone(members: Members, inbox: Path, kind: str) -> None:
    """With rights of root's the clean-up would take away what is in it, and the result would tell its names."""
    before = _seen(inbox)
    work = members.home / "work"
    work.mkdir()
    members.own(work)
    where = ["--workspace", str(work)] if kind == "workspace" else ["--mount", f"{work}:/w"]
    process = members.start(
        "sudo", "-n", str(members.program), "run", "--image", IMAGE, *where, "--protect", "**/letter", "--protect", "**/tool", "--json", "--",
        "sh", "-c", "cd $0; touch begun; while [ ! -e end ]; do sleep 0.1; done", "/workspace" if kind == "workspace" else "/w",
    )  # fmt: skip
    _wait(work / "begun")
    (members.home / "outer").rename(work / "came")
    (work / "end").touch()
    out, err = process.communicate(timeout=60)
    (work / "came").rename(members.home / "outer")
    shutil.rmtree(work)
    assert _seen(inbox) == before
    assert "letter" not in out + err


@pytest.mark.parametrize("verb", ["run", "check"])
def test_a_folder_of_another_s_is_refused(members: Members, inbox: Path, verb: str) -> None:
    where = ["--workspace", str(members.home / "outer")]
    rc, out, err = members.sudo(verb, "--image", IMAGE, *where, "--", "true")
    assert (rc, out) == (NOT_RUN, "")
    assert "inbox" in err
    assert "letter" not in err
    rc, out, err = members.run("true", "--mount", f"{members.home}/outer:/x")
    assert (rc, out) == (NOT_RUN, "")
    assert "letter" not in err


def test_no_place_for_a_mount_is_made_in_a_folder_of_another_s(members: Members, inbox: Path) -> None:
    before = inbox.stat().st_mtime_ns
    for target in ("/x/inbox/new", "/x/inbox/new/deeper"):
        rc, _out, err = members.run("true", "--mount", f"{members.home}/outer:/x", "--mount", f"{members.workspace}:{target}")
        assert rc == NOT_RUN, err
    assert inbox.stat().st_mtime_ns == before


def _states(members: Members) -> dict[str, str]:
    """Return the states of the command's own processes."""
    mine = [pid for pid in filter(str.isdigit, os.listdir("/proc")) if _cmdline(pid).startswith("/usr/bin/python3 -IS ")]
    return {
        pid: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] for pid in mine if str(members.program) in _cmdline(pid)
    }


def test_a_member_cannot_stop_root_s_processes(members: Members) -> None:
    """They may hold a lock that all runs take: who stops one there stops everybody. The kernel lets whoever sits at a terminal do that."""
    master, slave = os.openpty()
    words = " ".join([*SUDO, str(members.program), "run", "--image", IMAGE, "--", "sh", "-c", "'echo ready; sleep 600'"])
    argv = members.argv("setsid", "--ctty", "sh", "-mc", f"{words}; sleep 600")
    with subprocess.Popen(argv, stdin=slave, stdout=slave, stderr=slave, cwd=members.workspace) as process:
        os.close(slave)
        said = b""
        while b"ready" not in said:
            said += os.read(master, 1 << 10)
        os.write(master, b"\x1a")
        time.sleep(1)
        states = _states(members)
        for pid in states:
            os.kill(int(pid), signal.SIGCONT)
        process.kill()
    os.close(master)
    assert len(states) >= 2
    assert "T" not in states.values()


def test_a_member_cannot_freeze_root_s_processes(members: Members) -> None:
    """As where systemd gives a user's own groups to the user, who may freeze and kill what is in them."""
    unified = Path("/sys/fs/cgroup/cgroup.procs").exists()
    group = Path("/sys/fs/cgroup" if unified else "/sys/fs/cgroup/freezer") / f"members-{os.getpid()}"
    group.mkdir()
    try:
        words = [*SUDO, str(members.program), "run", "--image", IMAGE, "--", "sh", "-c", "echo ready; sleep 600"]
        process = subprocess.Popen(
            ["sh", "-c", f'echo $$ > {group}/cgroup.procs; exec "$@"', "sh", *members.argv(*words)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, cwd=members.workspace,
        )  # fmt: skip
        assert process.stdout.readline() == "ready\n"
        inside = set((group / "cgroup.procs").read_text().split())
        assert str(process.pid) in inside
        assert not inside & set(_states(members))
        process.terminate()
        process.communicate(timeout=60)
        assert members.settle() == {}
    finally:
        group.rmdir()


@pytest.mark.parametrize("before", ["", "trap '' TERM; "])
def test_nothing_waits_for_a_pipe_when_sudo_is_killed(members: Members, before: str) -> None:
    pipe = members.home / "pipe"
    os.mkfifo(pipe)
    members.own(members.home)
    words = [*SUDO, str(members.program), "run", "--image", IMAGE, "--secret", f"x={pipe}", "--", "true"]
    process = members.start("sh", "-c", f'{before}exec "$@"', "sh", *words)
    deadline = time.monotonic() + 60
    while not _states(members) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(1)
    process.kill()
    process.communicate()
    pipe.unlink()
    assert members.settle() == {}


def test_nothing_of_the_kernel_s_is_shown(members: Members) -> None:
    """What is written there is said by root's sandbox, which would leave its limits for a group of the member's."""
    root = Path("/sys/fs/cgroup")
    group = (root if (root / "cgroup.procs").exists() else root / "memory") / f"members-{os.getpid()}"
    group.mkdir()
    sleeper = members.start("sleep", "60")
    try:
        for path in (group, group / "cgroup.procs"):
            os.chown(path, MALLORY, MALLORY)
        for place in (f"{group}", f"{group}/cgroup.procs", f"/proc/{sleeper.pid}", f"/proc/{sleeper.pid}/fdinfo"):
            for option in (["--workspace", place], ["--mount", f"{place}:/x"], ["--mount", f"{place}:/x:ro"]):
                rc, out, err = members.run("echo 0 > /x/cgroup.procs; cat /x/cgroup.procs", *option)
                assert (rc, out) == (NOT_RUN, ""), option
                assert "is the kernel's" in err or "is not a folder" in err
    finally:
        sleeper.kill()
        sleeper.communicate()
        group.rmdir()


# What installs it


def test_the_role_installs_it_once_and_takes_it_away(tmp_path: Path) -> None:
    variables = {
        "_containerd_gvisor_member": {"program": str(tmp_path / "member"), "rule": str(tmp_path / "rule")},
        "_containerd_gvisor_folder": "/usr/local/lib/gvisor",
    }
    sums = " ".join(
        f"{name}={{{{ lookup('ansible.builtin.template', '{ROLE}/templates/{template}') | hash('sha256') }}}}"
        for name, template in (("member", "member.py.j2"), ("rule", "sudoers.j2"))
    )
    play = [
        {
            "hosts": "localhost",
            "connection": "local",
            "gather_facts": False,
            "vars": {"ansible_python_interpreter": "/usr/bin/python3"},
            "tasks": [
                {"ansible.builtin.include_role": {"name": "ggen.gvisor.containerd_gvisor", "tasks_from": "members.yml", "public": True}},
                {"ansible.builtin.debug": {"msg": sums}},  # as the role compares them with the host's
            ],
        }
    ]
    (tmp_path / "play.yml").write_text(yaml.safe_dump(play))

    def role(group: str, *options: str) -> str:
        (tmp_path / "variables.json").write_text(json.dumps({**variables, "containerd_gvisor_command_group": group}))
        argv = ["ansible-playbook", "-i", "localhost,", tmp_path / "play.yml", "-e", f"@{tmp_path / 'variables.json'}", *options]
        done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def there() -> dict[str, str]:
        return {name: f"{(tmp_path / name).stat().st_mode & 0o7777:o}" for name in ("member", "rule") if (tmp_path / name).exists()}

    said = role("sandboxes", "--check", "--diff")
    assert "+%sandboxes ALL=(root:root) NOPASSWD: NOSETENV: " in said
    assert there() == {}
    assert "changed=2 " in role("sandboxes")
    assert there() == {"member": "755", "rule": "440"}
    said = role("sandboxes")
    assert "changed=0 " in said
    for name in ("member", "rule"):
        assert f"{name}={hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()}" in said
    assert "changed=1 " in role("others")
    assert "%others ALL=(root:root)" in (tmp_path / "rule").read_text()
    before = (tmp_path / "rule").read_bytes()
    (tmp_path / "variables.json").write_text(json.dumps({**variables, "containerd_gvisor_command_group": "a b\nc ("}))
    argv = ["ansible-playbook", "-i", "localhost,", tmp_path / "play.yml", "-e", f"@{tmp_path / 'variables.json'}"]
    assert subprocess.run(argv, cwd=ROOT, capture_output=True, check=False, timeout=120).returncode != 0
    assert (tmp_path / "rule").read_bytes() == before
    assert "changed=1 " in role("")
    assert there() == {}
