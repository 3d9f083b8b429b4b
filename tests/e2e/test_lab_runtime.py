"""containerd_runtime over SSH on hosts with systemd: a change, changes that fail, connections and machines that die in the middle."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest
from ansible_collections.ggen.gvisor.plugins.plugin_utils._containerd import runtime_config as config
from conftest import ROOT
from support.playbook import play

LAB = [sys.executable, str(ROOT / "tests/lab/lab.py"), "--lab", "runtime", "--hosts", str(ROOT / "tests/e2e/runtime_hosts.yml")]
FOLDER = ROOT / ".artifacts" / "lab" / "runtime"
HOSTS = ("bookworm", "trixie")
CONFIG = "/etc/containerd/config.toml"
JOURNAL = "/etc/containerd/.ggen.gvisor.transaction"
# runc itself under another name: a handler that works without anything to install.
HANDLER = {"name": "crun2", "runtime_type": "io.containerd.runc.v2", "options": {"BinaryName": "/usr/sbin/runc"}}


def ssh(host: str, script: str, given: str | None = None, check: bool = True) -> str:
    """Run a shell script on a host and return what it printed; the connection is the script's own."""
    argv = ["ssh", "-F", str(FOLDER / "ssh_config"), host, script]
    done = subprocess.run(argv, input=given or "", capture_output=True, text=True, check=False, timeout=60)
    assert not check or done.returncode == 0, f"{host}: {script}: {done.stdout}{done.stderr}"
    return done.stdout.strip("\n")


def everywhere(script: str, given: str | None = None, check: bool = True) -> dict[str, str]:
    """Run a shell script on all hosts at once and return what it printed on each."""
    with ThreadPoolExecutor() as pool:
        return dict(zip(HOSTS, pool.map(lambda host: ssh(host, script, given, check), HOSTS), strict=True))


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The hosts, fresh, with a container that runs all the time; a folder for playbooks."""
    subprocess.run([*LAB, "down"], check=True, capture_output=True)
    up = subprocess.run([*LAB, "up"], check=False, capture_output=True, text=True)
    assert up.returncode == 0, up.stderr
    try:
        # A root file system of one program and its libraries: nothing to download.
        everywhere(
            "mkdir /srv/rootfs && cp --parents -L /usr/bin/sleep $(ldd /usr/bin/sleep | grep -o '/[^ ]*') /srv/rootfs &&"
            "ctr run --detach --rootfs /srv/rootfs keeper /usr/bin/sleep 1h"
        )
        yield tmp_path_factory.mktemp("playbooks")
    finally:
        subprocess.run([*LAB, "down"], check=True, capture_output=True)


class State(NamedTuple):
    """What a host has. ``handlers`` are those that the daemon which runs now has loaded, by its own log."""

    text: str
    unit: str
    pid: int
    cri: str
    handlers: set[str]
    keeper: str
    leftovers: list[str]


def states() -> dict[str, State]:
    return {host: state_of(json.loads(said)) for host, said in everywhere("python3 -", given=OBSERVE).items()}


def state_of(found: dict) -> State:
    started = [line for line in found.pop("log").splitlines() if "cri plugin with config" in line]
    return State(handlers=set(re.findall(r"[\[ ](\w+):\{Type:", started[-1])) if started else set(), **found)


OBSERVE = r"""
import glob, json, subprocess
def said(*argv):
    return subprocess.run(argv, capture_output=True, text=True).stdout
def show(name):
    return said("systemctl", "show", "--value", "--property", name, "containerd").strip()
print(json.dumps({
    "text": open("/etc/containerd/config.toml").read(),
    "unit": show("ActiveState"),
    "pid": int(show("MainPID")),
    "cri": next((line.split()[-1] for line in said("ctr", "plugins", "ls").splitlines() if line.split()[1] == "cri"), ""),
    "keeper": " ".join(said("ctr", "tasks", "ls").split()[3:]),
    "log": said("journalctl", "_SYSTEMD_INVOCATION_ID=" + show("InvocationID"), "--output", "cat"),
    "leftovers": glob.glob("/etc/containerd/.*ggen*"),
}))
"""


@pytest.fixture(name="before")
def fixture_before(lab: Path) -> Iterator[dict[str, State]]:
    """What each host has before a test; afterwards it has that again."""
    everywhere(f"cp -a {CONFIG} /srv/before")
    yield states()
    everywhere(f"{AS_INSTALLED}; cp -a /srv/before {CONFIG}; systemctl reset-failed containerd; systemctl restart containerd")


# What takes the tests' lines from the unit again.
AS_INSTALLED = "rm -rf /run/systemd/system/containerd.service.d; systemctl daemon-reload"


def with_handler(text: str) -> str:
    changed = config.set_present(text, config.Handler(**HANDLER), config.Place(where="config.toml")).text
    assert changed is not None
    return changed


def playbook(folder: Path, **arguments: object) -> Path:
    task = {"ggen.gvisor.containerd_runtime": {**HANDLER, "restart": True, **arguments}}
    path = folder / "change.yml"
    path.write_text(json.dumps([{"hosts": "sandbox_hosts", "gather_facts": False, "tasks": [task]}]))
    return path


def change(folder: Path, **arguments: object) -> dict[str, dict]:
    """Run the module with a restart on all hosts and return each one's result."""
    done = play(str(playbook(folder, **arguments)), inventory=FOLDER / "inventory.yml")
    results = {event["host"]: {**event["res"], "failed": event["event"] != "runner_on_ok"} for event in done.results}
    assert set(results) == set(HOSTS), done.output
    return results


def check_works(now: State, text: str, leftovers: Iterable[str] = ()) -> None:
    """containerd runs, and with this text."""
    assert now.text == text
    assert (now.unit, now.cri, now.leftovers) == ("active", "ok", list(leftovers))
    assert ("crun2" in now.handlers) == ("crun2" in text)


def check_kept(now: State, before: State) -> None:
    """The container that ran before runs still, as the same process."""
    assert re.fullmatch(r"keeper \d+ RUNNING", now.keeper)
    assert now.keeper == before.keeper


def test_a_change_and_back(lab: Path, before: dict[str, State]) -> None:
    for result in change(lab).values():
        assert (result.get("msg"), result["changed"], result["restarted"], result["cri"]) == (None, True, True, "ok")
    changed = states()
    for host in HOSTS:
        check_works(changed[host], with_handler(before[host].text))
        check_kept(changed[host], before[host])
        assert changed[host].pid != before[host].pid
    for result in change(lab).values():
        assert (result["changed"], result["restarted"]) == (False, False)
    assert states() == changed
    for result in change(lab, state="absent").values():
        assert (result["changed"], result["restarted"]) == (True, True)
    for host, now in states().items():
        check_works(now, before[host].text)
        check_kept(now, before[host])


# --- changes that fail ---

# The old form of systemd_cgroup goes with shims of the first kind only: containerd's own parser takes any default runtime, its CRI plugin does not.
OLD_FORM = """\
version = 2
[plugins."io.containerd.grpc.v1.cri"]
  systemd_cgroup = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    default_runtime_name = "old"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.old]
      runtime_type = "io.containerd.runtime.v1.linux"
"""


def drop_in(line: str) -> None:
    """Add a line to the unit. It is gone after a reboot."""
    folder = "/run/systemd/system/containerd.service.d"
    everywhere(f"mkdir -p {folder}; cat >{folder}/test.conf; systemctl daemon-reload", given=f"[Service]\n{line}\n")


FAILURES: dict[str, tuple[str | None, str, dict, str, str]] = {
    # name: the configuration, what the unit has besides, the module's options, the reason, the journal
    "CRI plugin": (
        OLD_FORM,
        "",
        {"default": True},
        r"containerd runs but its CRI plugin does not: .*`systemd_cgroup` only works for runtime",
        r"failed to load plugin.*`systemd_cgroup` only works for runtime",
    ),
    "unit": (
        None,
        """ExecStartPre=/bin/sh -c 'if grep crun2 /etc/containerd/config.toml; then echo no crun2 in this house; exit 1; fi'""",
        {},
        r"systemctl restart containerd failed: Job for containerd.service failed because the control process exited",
        r"no crun2 in this house",
    ),
    "hanging": (
        None,
        """ExecStartPre=/bin/sh -c 'if grep crun2 /etc/containerd/config.toml; then echo thinking; exec sleep 1h; fi'""",
        {"timeout": 6},
        r"systemctl restart containerd did not end within 6 s",
        r"thinking",
    ),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_change_that_fails_is_taken_back(failure: str, lab: Path, before: dict[str, State]) -> None:
    text, line, options, reason, journal = FAILURES[failure]
    drop_in(line)
    if text:
        everywhere(f"cat >{CONFIG}; systemctl restart containerd", given=text)
    old = states()
    for result in change(lab, **options).values():
        assert result["failed"]
        assert result["rolled_back"], result
        assert re.search(reason, result["reason"]), result["reason"]
        assert result["msg"].endswith("Rolled back: the old configuration is back and containerd runs with it again.")
        assert re.search(journal, result["journal"]), result["journal"]
        assert result["journal"] in result["msg"]
    for host, now in states().items():
        check_works(now, old[host].text)
        check_kept(now, before[host])
        assert now.pid != old[host].pid


def test_a_unit_that_is_not_there(lab: Path, before: dict[str, State]) -> None:
    for result in change(lab, service="containerd-two").values():
        assert result["rolled_back"], result
        assert "Unit containerd-two.service not found." in result["reason"]
        assert result["msg"].endswith("Rolled back: the old configuration is back and containerd is not running, as before.")
    assert states() == before


def test_a_unit_that_takes_its_containers_along(lab: Path, before: dict[str, State]) -> None:
    drop_in("KillMode=mixed")
    for result in change(lab).values():
        assert "restarting containerd would end 1 running containers: unit containerd has KillMode=mixed" in result["msg"]
    assert states() == before


# --- connections that break, in the middle ---

# Where root's lock on the folder is.
LOCK = "/run/ggen.gvisor/$(stat -c %d-%i /etc/containerd)"
# A transaction waits at a gate until somebody writes to /run/go.
GATE = "/bin/sh -c 'echo >/run/reached; read answer </run/go'"


def at_lock() -> None:
    """Another reader of the configuration keeps the transaction from beginning."""
    everywhere(f"install -d -m 0700 /run/ggen.gvisor; flock --shared {LOCK} {GATE} >/dev/null 2>&1 & timeout 20 cat /run/reached")


def reach_lock() -> None:
    everywhere("for i in $(seq 300); do grep -q -e '-> FLOCK' /proc/locks && exit 0; sleep 0.1; done; exit 1")


def reach_gate() -> None:
    everywhere("timeout 30 cat /run/reached")


MOMENTS: dict[str, tuple[Callable[[], None], Callable[[], None]]] = {
    "waiting for its turn": (at_lock, reach_lock),
    "containerd is starting": (lambda: drop_in(f"ExecStartPre={GATE}"), reach_gate),
    "containerd has started": (lambda: drop_in(f"ExecStartPost={GATE}"), reach_gate),
}
# With pipelining the module reads from the connection and may outlive it; without it has a terminal, and the hang-up kills it.
PIPELINING = ({"ANSIBLE_PIPELINING": "true"}, ())
TERMINAL = ({"ANSIBLE_PIPELINING": "false"}, ())
SUDO = ({"ANSIBLE_PIPELINING": "false"}, ("-e", "ansible_user=admin", "-e", "ansible_become=true"))


class Run:
    """ansible-playbook at work, whose connections can be cut as if the controller lost its power."""

    def __init__(self, folder: Path, sockets: str, kind: tuple[dict[str, str], tuple[str, ...]]) -> None:
        environment, options = kind
        self.sockets = sockets
        program = Path(sys.executable).parent / "ansible-playbook"
        argv = [program, "-i", FOLDER / "inventory.yml", "-e", f"ansible_control_path_dir={sockets}", *options, playbook(folder)]
        self.output = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the run
        environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), **environment}
        self.process = subprocess.Popen(
            argv, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=self.output, stderr=self.output, start_new_session=True
        )

    def said(self) -> str:
        self.output.seek(0)
        return self.output.read().decode()

    def cut(self) -> None:
        """Kill ansible-playbook, its workers, their ssh and the connections that they share."""
        pids = [self.process.pid]
        listing = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
        children = [tuple(map(int, line.split())) for line in listing.splitlines()]
        for pid in pids:  # grows
            pids += [child for child, parent in children if parent == pid]
        for path in Path(self.sockets).iterdir():
            asked = subprocess.run(["ssh", "-O", "check", "-o", f"ControlPath={path}", "lab"], capture_output=True, text=True, check=False)
            pids += [int(pid) for pid in re.findall(r"pid=(\d+)", asked.stderr + asked.stdout)]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


@contextlib.contextmanager
def held(folder: Path, moment: str, kind: tuple[dict[str, str], tuple[str, ...]]) -> Iterator[Run]:
    """A run whose transactions on all hosts have come to the moment and wait there."""
    prepare, reach = MOMENTS[moment]
    everywhere("rm -f /run/reached /run/go; mkfifo /run/reached /run/go")
    prepare()
    with tempfile.TemporaryDirectory(prefix="cp.", dir="/tmp") as sockets:
        run = Run(folder, sockets, kind)
        try:
            try:
                reach()
            except BaseException:
                print(run.said())
                raise
            yield run
        finally:
            run.cut()
            run.output.close()


WORKER = "$(find /proc/[0-9]*/fd -lname /etc/containerd 2>/dev/null | cut -d/ -f3 | xargs -I% sh -c 'readlink /proc/%/exe | grep -q python && echo %')"
MODULE = f"$(ps -o ppid= -p {WORKER})"
LET_GO = "echo >/run/go"
FINISHED = f"timeout 30 flock {LOCK} true"


@pytest.mark.parametrize(
    ("moment", "kind"),
    [
        ("waiting for its turn", PIPELINING),
        ("waiting for its turn", TERMINAL),
        ("containerd is starting", PIPELINING),
        ("containerd is starting", SUDO),
        ("containerd has started", TERMINAL),
    ],
    ids=lambda value: value if isinstance(value, str) else ("pipelining", "terminal", "sudo")[(PIPELINING, TERMINAL, SUDO).index(value)],
)
def test_a_broken_connection(moment: str, kind: tuple, lab: Path, before: dict[str, State]) -> None:
    """The work on the host ends well all the same, and tells the journal if nobody else listens."""
    with held(lab, moment, kind) as run:
        modules = everywhere(f"echo {MODULE}")
        run.cut()
        if kind is not PIPELINING:
            for host, pid in modules.items():
                ssh(host, f"timeout 20 tail --pid={pid.strip()} -f /dev/null")
        everywhere(LET_GO)
        everywhere(FINISHED)
    for host, now in states().items():
        check_works(now, with_handler(before[host].text))
        check_kept(now, before[host])
    if kind is not PIPELINING:
        for line in everywhere("journalctl -t ggen.gvisor -n 1 -o cat").values():
            assert line == "containerd's configuration: changed as asked for"
    everywhere(AS_INSTALLED)
    for result in change(lab).values():
        assert (result.get("msg"), result["changed"]) == (None, False)


def kill_on_hosts() -> None:
    """Kill what works on the hosts: the module and its worker."""
    everywhere(f"worker={WORKER}; kill -KILL $(ps -o ppid= -p $worker) $worker")


def check_recovers(lab: Path, before: dict[str, State]) -> None:
    """Killed in the middle, containerd runs with the new file; the next run takes that back and does it again."""
    for host, now in states().items():
        check_works(now._replace(leftovers=[]), with_handler(before[host].text))
        assert JOURNAL in now.leftovers
    for result in change(lab).values():
        assert (result.get("msg"), result["changed"], result["restarted"]) == (None, True, True)
        assert result["warnings"] == [f"An earlier run was killed in the middle: put back {CONFIG} and restarted containerd."]
    for host, now in states().items():
        check_works(now, with_handler(before[host].text))


def test_killed_on_the_host_too(lab: Path, before: dict[str, State]) -> None:
    """No process of the run is left anywhere: the next one puts all in order."""
    with held(lab, "containerd is starting", PIPELINING) as run:
        run.cut()
        kill_on_hosts()
        everywhere(AS_INSTALLED)
        everywhere(LET_GO)
        everywhere("for i in $(seq 300); do systemctl is-active containerd && exit 0; sleep 0.1; done; exit 1")
    check_recovers(lab, before)
    for host, now in states().items():
        check_kept(now, before[host])


# --- machines that go down ---

BOOT = "cat /proc/sys/kernel/random/boot_id"


def reboot() -> None:
    """Have all hosts reboot and wait until they are up again."""
    boots = everywhere(BOOT)
    # Nothing but SIGKILL ends a container's first process that is no init; systemd would wait 90 s before it thinks of that.
    everywhere("pkill -KILL --full '^/usr/bin/sleep 1h$'; systemctl reboot", check=False)
    deadline = time.monotonic() + 60
    for host, boot in boots.items():
        while ssh(host, BOOT, check=False) in ("", boot):
            assert time.monotonic() < deadline, f"{host} does not come back"
            time.sleep(0.1)
        assert ssh(host, "systemctl is-system-running --wait", check=False) == "running", host


def test_a_reboot_after_a_change(lab: Path, before: dict[str, State]) -> None:
    for result in change(lab).values():
        assert (result.get("msg"), result["changed"]) == (None, True)
    reboot()
    for host, now in states().items():
        check_works(now, with_handler(before[host].text))
    for result in change(lab).values():
        assert (result.get("msg"), result["changed"]) == (None, False)


def test_a_reboot_in_the_middle(lab: Path, before: dict[str, State]) -> None:
    """systemd takes the restart back: so does the transaction, in the time that is left to it."""
    with held(lab, "containerd is starting", TERMINAL):
        reboot()
    for host, now in states().items():
        check_works(now, before[host].text)
    for result in change(lab).values():
        assert (result.get("msg"), result["changed"], result.get("warnings", [])) == (None, True, [])


def test_a_machine_that_goes_down_at_once(lab: Path, before: dict[str, State]) -> None:
    with held(lab, "containerd is starting", PIPELINING):
        kill_on_hosts()
        reboot()
    check_recovers(lab, before)
