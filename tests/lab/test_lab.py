"""The lab itself: real hosts, and a machine that is as it was afterwards, whatever happened in between."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import lab as lab_module
import pytest
import yaml
from support.adhoc import JSON_OUTPUT

LAB_PY = Path(lab_module.__file__)
# The same as in hosts.yml, so that the same base file systems serve.
DEFAULTS = {"groups": ["sandbox_hosts"], "packages": ["python3-apt"]}
TWO = {"one": {"suite": "bookworm"}, "two": {"suite": "trixie"}}


def out(*argv: str | Path) -> str:
    return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60).stdout


def eventually(ready: Callable[[], object], what: str, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.01)


class Handle:
    """One lab, driven through the command line as everybody drives it."""

    def __init__(self, folder: Path, name: str, hosts: dict) -> None:
        self.folder, self.name, self.path = folder, name, folder / name
        self.hosts_file = folder / f"{name}.yml"
        self.hosts_file.write_text(yaml.safe_dump({"defaults": DEFAULTS, "hosts": hosts}), encoding="utf-8")
        self.numbers: set[int] = set()

    def argv(self, *arguments: str) -> list[str]:
        options = ("--lab", self.name, "--hosts", str(self.hosts_file), "--artifacts", str(self.folder))
        return [sys.executable, str(LAB_PY), *options, *arguments]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(self.argv(*arguments), capture_output=True, text=True, check=False, timeout=900)
        self.remember()
        return done

    def up(self, *names: str) -> str:
        done = self.run("up", *names)
        assert done.returncode == 0, done.stderr
        return done.stderr

    def down(self, *names: str) -> None:
        done = self.run("down", *names)
        assert done.returncode == 0, done.stderr

    def record(self) -> dict:
        return lab_module.Lab(self.name, self.folder).record()

    def remember(self) -> None:
        if number := self.record().get("number"):
            self.numbers.add(number)

    def ssh(self, host: str, command: str) -> str:
        return out("ssh", "-n", "-F", self.path / "ssh_config", host, command).strip()

    def answers(self, host: str) -> bool:
        with contextlib.suppress(subprocess.CalledProcessError):
            return self.ssh(host, "echo yes") == "yes"
        return False

    def pids(self, host: str, program: str = "") -> set[int]:
        """The host's processes as this machine numbers them, or those that run one program."""
        found = lab_module.processes(self.record()["hosts"][host])
        return {pid for pid in found if not program or lab_module.read(Path(f"/proc/{pid}/comm")).strip() == program}


def machine(numbers: set[int]) -> dict[str, set[str]]:
    """What a lab could leave behind on this machine; labs of others that come and go meanwhile are left out."""

    def lines(text: str) -> set[str]:
        labs = {line: {int(n) for n in re.findall(r"\b(?:gl|10\.213\.)(\d+)", line)} for line in text.splitlines()}
        return {line for line, found in labs.items() if found <= numbers}

    groups = (str(path) for path in Path("/sys/fs/cgroup").rglob("gl*-*") if path.is_dir())
    commands = (lab_module.read(path).replace("\0", " ") for path in Path("/proc").glob("[0-9]*/cmdline"))
    ours = re.compile(r"systemd-nspawn|boot\.sh|mmdebstrap|lab\.py|\[mux\]")
    folders = (*lab_module.STATE.glob("[0-9]*"), *lab_module.CACHE.glob("labs/*"))
    mounts = (line.split()[4] for line in lab_module.read(Path("/proc/self/mountinfo")).splitlines())
    return {
        "addresses": lines(re.sub(r"(?m)^\d+: ", "", out("ip", "-oneline", "-family", "inet", "address"))),
        "links": lines("\n".join(line.split()[0] for line in out("ip", "-brief", "link").splitlines())),
        "routes": lines(out("ip", "route")),
        "namespaces": lines(out("ip", "netns", "list")),
        "rules": lines("\n".join(line for line in out("iptables-save").splitlines() if line.startswith("-A"))),
        "mounts": {mount for mount in mounts if "lab" in mount or "nspawn" in mount or "netns" in mount},
        "cgroups": lines("\n".join(groups)),
        "processes": lines("\n".join(command for command in commands if ours.search(command))),
        "files": lines("\n".join(f"gl{path.name} {path}" for path in folders)),
    }


@pytest.fixture
def labs(tmp_path: Path) -> Iterator[Callable[..., Handle]]:
    """Make labs; in the end they are all taken down and the machine must be as it was."""
    before, forwarding, watchers = machine(set()), lab_module.read(lab_module.FORWARDING), lab_module.read(lab_module.WATCHERS)
    made: list[Handle] = []

    def make(name: str, **hosts: dict) -> Handle:
        made.append(Handle(tmp_path, name, hosts or TWO))
        return made[-1]

    yield make
    numbers = set().union(*(handle.numbers for handle in made))
    for handle in made:
        handle.down()
        assert not handle.path.exists()
        handle.down()  # also right when there is nothing to do
    # A process that ended stays in the table until the machine's first process has looked at it.
    with contextlib.suppress(AssertionError):
        eventually(lambda: machine(numbers) == before, "the machine is as before", 5)
    assert machine(numbers) == before
    others = bool(lab_module.json.loads(lab_module.read(lab_module.STATE / "labs.json") or '{"labs": {}}')["labs"])
    assert lab_module.read(lab_module.FORWARDING) == ("1\n" if others else forwarding)
    assert others or lab_module.read(lab_module.WATCHERS) == watchers


def test_the_comparison_can_see_a_lab(labs: Callable[..., Handle]) -> None:
    before, lab = machine(set()), labs("seen")
    lab.up()
    assert int(lab_module.read(lab_module.WATCHERS)) >= lab_module.WATCHERS_ENOUGH
    running = machine(lab.numbers)
    for kind in ("addresses", "links", "routes", "rules", "cgroups", "processes", "files"):
        assert running[kind] > before[kind], kind


def test_hosts_are_real_and_fast(labs: Callable[..., Handle]) -> None:
    lab = labs("real")
    said = lab.up()
    seconds = [float(number) for number in re.findall(r"running after (\d+\.\d) s", said)]
    assert len(seconds) == 2, said
    assert max(seconds) < 10

    for host, version in (("one", "1.6."), ("two", "1.7.")):
        assert lab.ssh(host, "systemctl is-system-running; hostname") == f"running\n{host}"
        assert lab.ssh(host, "cat /proc/1/comm") == "systemd"
        assert lab.ssh(host, "command -v containerd || echo none") == "none"
        lab.ssh(host, "apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy containerd")
        assert lab.ssh(host, "systemctl is-active containerd") == "active"
        assert version in lab.ssh(host, "ctr version | grep Version: | tail -1")
        plugins = lab.ssh(host, "ctr plugins ls").splitlines()
        assert "ok" in next(line for line in plugins if " overlayfs " in line)
        assert lab.ssh(host, "for c in /sys/fs/cgroup/*/; do mkdir $c/t && rmdir $c/t || echo $c; done") == ""
        assert lab.ssh(host, "su admin -c 'sudo -n id -u'") == "0"
    # What both hosts look like to each other, and that no two share an identity.
    assert lab.ssh("one", "exec 3<>/dev/tcp/two/22; head -c 4 <&3") == "SSH-"
    assert len({lab.ssh(host, "cat /etc/machine-id /etc/ssh/ssh_host_ed25519_key.pub") for host in ("one", "two")}) == 2


def test_the_inventory_is_complete(labs: Callable[..., Handle]) -> None:
    one = {"suite": "bookworm", "vars": {"ansible_user": "admin"}}
    lab = labs("ansible", one=one, gone={"suite": "bookworm", "boot": False})
    lab.up()
    argv = (Path(sys.executable).with_name("ansible"), "-i", lab.path / "inventory.yml", "sandbox_hosts", "-m")
    done = subprocess.run([*argv, "ping"], capture_output=True, text=True, check=False, timeout=60, env={**os.environ, **JSON_OUTPUT})
    assert re.search(r"one \| SUCCESS", done.stdout), done.stdout + done.stderr
    assert re.search(r"gone \| UNREACHABLE.*No route to host", done.stdout, re.DOTALL), done.stdout
    assert "uid=1000(admin)" in out(*argv, "command", "-a", "id", "--limit", "one")
    assert lab.run("inventory").stdout == (lab.path / "inventory.yml").read_text()
    for path in (lab.path / "id_ed25519", lab_module.STATE / "labs.json"):
        assert path.stat().st_mode & 0o777 == 0o600
    lab.up("gone")
    assert lab.ssh("gone", "hostname") == "gone"
    assert lab.run("status").stdout.count(" up\n") == 2


def test_two_labs_side_by_side(labs: Callable[..., Handle]) -> None:
    first, second = labs("first"), labs("second")
    with subprocess.Popen(first.argv("up"), stderr=subprocess.PIPE, text=True) as other:
        second.up()
        said = other.communicate(timeout=120)[1]
    first.remember()
    assert other.returncode == 0, said
    assert not first.numbers & second.numbers
    assert first.ssh("one", "hostname -I; cat /etc/machine-id") != second.ssh("one", "hostname -I; cat /etc/machine-id")
    pids = first.pids("one")
    assert first.up() == ""  # nothing to do
    second.down()
    assert first.pids("one") == pids
    assert first.ssh("two", "apt-get update -qq && echo reached") == "reached"


@pytest.mark.parametrize("victim", ["systemd-nspawn", "unshare", "boot.sh", "systemd"])
def test_a_killed_host_is_gone_at_once_and_comes_back(labs: Callable[..., Handle], victim: str) -> None:
    lab = labs("killed")
    lab.up()
    kept = lab.pids("two")
    # The host's systemd is the one that has systemd-nspawn for a parent.
    parents = lab.pids("one", "systemd-nspawn")
    pids = {pid for pid in lab.pids("one", victim) if victim != "systemd" or parent(pid) in parents}
    assert len(pids) == 1
    os.kill(pids.pop(), signal.SIGKILL)
    eventually(lambda: not lab.pids("one"), "all processes of the host have ended", 10)
    assert re.search(r"one .* down\n", lab.run("status").stdout)
    lab.up()
    assert lab.ssh("one", "hostname") == "one"
    assert lab.pids("two") >= kept


def parent(pid: int) -> int:
    return int(lab_module.read(Path(f"/proc/{pid}/stat")).rsplit(")", 1)[1].split()[1])


MOMENTS: dict[str, Callable[[Handle], object]] = {
    "recorded": lambda lab: lab.record()["hosts"],
    "key made": lambda lab: (lab.path / "id_ed25519").exists(),
    "host starts": lambda lab: lab.record()["hosts"] and lab.pids("one"),
    "systemd-nspawn starts": lambda lab: lab.record()["hosts"] and lab.pids("one", "systemd-nspawn"),
    "sshd starts": lambda lab: lab.record()["hosts"] and lab.pids("one", "sshd"),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_up_leaves_nothing_that_down_does_not_find(labs: Callable[..., Handle], moment: str) -> None:
    lab = labs("crash")
    with subprocess.Popen(lab.argv("up"), stderr=subprocess.DEVNULL) as process:
        eventually(lambda: MOMENTS[moment](lab), moment, 300)
        process.kill()
    lab.remember()
    assert lab.numbers
    if moment == "sshd starts":  # and a later `up` carries on
        lab.up()
        assert lab.ssh("one", "hostname") == "one"


def test_a_killed_build_stops_and_leaves_no_base(labs: Callable[..., Handle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    lab = labs("build", one={"suite": "trixie"})

    def builders() -> list[int]:
        found = ((path, lab_module.read(path / "cmdline")) for path in Path("/proc").glob("[0-9]*"))
        return [int(path.name) for path, text in found if str(tmp_path) in text and "lab.py" not in text]

    cache = tmp_path / "cache/ggen.gvisor/lab"
    with subprocess.Popen(lab.argv("up"), stderr=subprocess.DEVNULL) as process:
        eventually(lambda: list(cache.glob("base/.*.unfinished/var/lib/apt/lists/*InRelease")), "apt is at work", 120)
        assert builders()
        process.kill()
    eventually(lambda: not builders(), "the build has stopped", 5)
    assert not list(cache.glob("base/[a-z]*"))


def test_reboot_keeps_the_disk(labs: Callable[..., Handle]) -> None:
    lab = labs("reboot", one={"suite": "trixie"})
    lab.up()
    (first,) = lab.pids("one", "systemd-nspawn")
    lab.ssh("one", "touch /etc/kept /var/lib/kept; systemctl reboot")
    eventually(lambda: lab.pids("one", "systemd-nspawn") not in ({first}, set()), "it boots again")
    eventually(lambda: lab.answers("one"), "it answers again")
    assert lab.ssh("one", "systemctl is-system-running --wait; ls /etc/kept /var/lib/kept").split()[0] == "running"


def test_a_small_disk_gets_full_without_filling_the_machine(labs: Callable[..., Handle]) -> None:
    lab = labs("full", one={"suite": "trixie", "disk": "64M"})
    lab.up()
    said = lab.ssh("one", "dd if=/dev/zero of=/fill bs=1M count=100 2>&1; echo x >/var/lib/x || echo full")
    assert "No space left on device" in said
    assert said.endswith("full")


def test_a_host_that_cannot_start_says_why(labs: Callable[..., Handle]) -> None:
    lab = labs("broken", one={"suite": "trixie", "disk": "1M"}, two={"suite": "trixie"})
    done = lab.run("up")
    assert done.returncode == 1
    assert re.search(r"one: ended with exit code 1 while starting; .*console\.log:.*No space left", done.stderr, re.DOTALL)
    assert lab.ssh("two", "hostname") == "two"


def test_packages_of_a_host_are_in_its_base(labs: Callable[..., Handle]) -> None:
    lab = labs("installed", one={"suite": "trixie", "packages": ["containerd", *DEFAULTS["packages"]]})
    lab.up()
    assert lab.ssh("one", "systemctl is-active containerd") == "active"


def test_forky_boots_with_containerd_2(labs: Callable[..., Handle]) -> None:
    lab = labs("forky", one={"suite": "forky", "packages": ["containerd", *DEFAULTS["packages"]]})
    lab.up()
    assert lab.ssh("one", "systemctl is-system-running; systemctl is-active containerd") == "running\nactive"
    assert "Version:  2." in lab.ssh("one", "ctr version")
    assert lab.ssh("one", "stat -f -c %T /sys/fs/cgroup") == "cgroup2fs"
