"""The whole job in a virtual machine that is reached and started as Colima's is. Its last act is docs/vm-report.md.

A machine with a kernel of its own has every capability: upstream's unmodified shim runs here, which on the hosts of tests/lab it cannot.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import hashlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from conftest import ROOT
from support.playbook import Play, play
from support.snapshot import differences, snapshot

sys.path.insert(0, str(ROOT / "tests" / "lab"))
import vm as vm_module

# Apart from the VM of `make vm-up`, and yet the default profile: the one that is called just colima.
ARTIFACTS = ROOT / ".artifacts" / "vm-test"
VM = vm_module.Vm("default", ARTIFACTS)
EXPECTED = ROOT / "tests" / "fixtures" / "examples" / "organization" / "expected"
GENERATED = "/var/lib/ggen.gvisor/workspaces/organization/generated"
CONFIG = "/etc/containerd/config.toml"
SHIM = "containerd-shim-runsc-v1"
RELEASES = yaml.safe_load((ROOT / "vendors/gvisor/releases.yml").read_text())["releases"]
NEWEST = list(RELEASES)[-1]  # what Debian 13's containerd gets
CAP_SYS_RESOURCE = 24  # capability.h


def guest(command: str) -> str:
    """Run a shell command as root in the guest and return what it printed."""
    return VM.ssh("sh", "-ec", command, timeout=300).stdout.strip()


def vm(verb: str) -> str:
    """Run vm.py and return what it said."""
    argv = [sys.executable, ROOT / "tests/lab/vm.py", "--artifacts", ARTIFACTS, verb]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=1800)
    assert done.returncode == 0, done.stderr
    return done.stderr + done.stdout


@dataclasses.dataclass
class Record:
    """What the run has shown so far; the report is made of it."""

    steps: list[tuple[str, float, str]] = dataclasses.field(default_factory=list)
    tasks: list[tuple[float, str, str]] = dataclasses.field(default_factory=list)
    facts: dict[str, str] = dataclasses.field(default_factory=dict)
    excerpts: dict[str, str] = dataclasses.field(default_factory=dict)
    before: dict = dataclasses.field(default_factory=dict)
    load: float = dataclasses.field(default_factory=lambda: os.getloadavg()[0])

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[list[str]]:
        """Time a step; what is put into the list is told beside it."""
        notes: list[str] = []
        begin = time.monotonic()
        yield notes
        self.steps.append((name, time.monotonic() - begin, "; ".join(notes)))

    def play(self, name: str, playbook: str, *options: str) -> Play:
        """Run a playbook as a step."""
        with self.step(name) as notes:
            done = play(playbook, *options, inventory="tests/vm/inventory")
            notes.append(f"{len(done.executions('colima'))} remote executions, {done.total('changed')} changes")
        self.tasks += [(e["duration"], name, e["task"].rpartition(" : ")[2]) for e in done.results if e["host"] == "colima"]
        return done


@pytest.fixture(scope="module")
def record() -> Record:
    return Record()


@pytest.fixture(scope="module")
def machine(record: Record, request: pytest.FixtureRequest) -> Iterator[Record]:
    """The VM, fresh, what it has, and an environment in which it is Colima's. A run without a failure leaves the report."""
    vm("down")
    try:
        with record.step("`vm.py up` (`colima start`): first boot") as notes:
            notes.append(vm("up").strip().rpartition("default: ")[2])
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PATH", f"{VM.mac.root / 'bin'}", prepend=":")
            patch.setenv("COLIMA_HOME", str(VM.mac.colima))
            patch.setenv("XDG_CONFIG_HOME", str(VM.mac.home / ".config"))
            # Every Colima guest is named colima: without this, connections to another one would serve this one.
            patch.setenv("ANSIBLE_SSH_CONTROL_PATH_DIR", str(VM.sockets))
            record.before = snapshot("ssh", "-F", str(VM.ssh_config), "colima", "sudo")
            yield record
        if not request.session.testsfailed and "sha256" in record.facts and len(record.steps) == STEPS:
            (ROOT / "docs" / "vm-report.md").write_text(report(record))
    finally:
        vm("down")


STEPS = 8


def test_the_guest_is_like_colima_s(machine: Record) -> None:
    assert guest("stat -f -c %T /sys/fs/cgroup") == "cgroup2fs"
    assert guest("systemctl is-active containerd") == "active"
    assert guest(f"cat {CONFIG}") == "[grpc]\ngid = 1000"
    capabilities = int(guest("sed -n 's/^CapEff:\\s*//p' /proc/$(systemctl show --value --property MainPID containerd)/status"), 16)
    assert capabilities >> CAP_SYS_RESOURCE & 1
    said = subprocess.run(["ssh", "-F", VM.ssh_config, "colima", "id -un; sudo -n id -un"], capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["dev", "root"]
    machine.facts |= {
        "guest": guest(". /etc/os-release; echo $PRETTY_NAME, Linux $(uname -r), $(systemctl --version | head -n 1), cgroup v2"),
        "containerd": guest("containerd --version | cut -d' ' -f3"),
        "QEMU": subprocess.run(["qemu-system-x86_64", "--version"], capture_output=True, text=True, check=True).stdout.split("\n")[0],
    }


def test_one_run_provisions_it_with_upstream_s_shim(machine: Record) -> None:
    done = machine.play("`site.yml`", "site.yml")
    assert done.rc == 0, done.errors
    told = json.loads((ROOT / "reports" / "colima.json").read_text())
    assert told["healthy"], told["drift"]
    assert told["gvisor"]["release"] == NEWEST
    assert told["gvisor"]["shim"] == "upstream"
    assert told["host"]["cgroup_version"] == 2
    assert [run["rc"] for run in told["runs"]] == [0]
    assert told["proof"]["kernel"].startswith("Starting gVisor")
    sums = {name: guest(f"sha256sum $(readlink -f /usr/local/bin/{name})").split()[0] for name in (SHIM, "runsc")}
    assert sums == {name: RELEASES[NEWEST]["sha256"]["amd64"][name] for name in sums}
    machine.facts |= {
        "gVisor": guest("runsc --version | head -n 1"),
        "ansible-core": ansible_version(),
        "sha256": json.dumps(sums),
    }
    machine.excerpts["The end of `site.yml`"] = "\n".join(done.result("Say what was done")["msg"])


def ansible_version() -> str:
    argv = [Path(sys.executable).with_name("ansible"), "--version"]
    return re.search(r"core (\S+?)\]", subprocess.run(argv, capture_output=True, text=True, check=True, cwd=ROOT).stdout)[1]


def generated() -> dict[str, str]:
    """The files that ggen wrote in the guest: their sha256. The copies that it keeps of what it writes again are no output."""
    lines = guest(f"cd {GENERATED}; find . -type f ! -name '*.backup' -exec sha256sum {{}} +").splitlines()
    return {path.removeprefix("./"): digest for digest, path in (line.split(maxsplit=1) for line in lines)}


def expected() -> dict[str, str]:
    return {str(p.relative_to(EXPECTED)): hashlib.sha256(p.read_bytes()).hexdigest() for p in EXPECTED.rglob("*") if p.is_file()}


def test_ggen_wrote_what_the_example_should_give(machine: Record) -> None:
    assert generated() == expected()


def test_the_second_run_changes_nothing_and_costs_a_handful_of_executions(machine: Record) -> None:
    done = machine.play("`site.yml` again", "site.yml")
    assert done.rc == 0, done.errors
    assert done.changed == []
    assert len(done.executions("colima")) <= 6, done.executions("colima")


def test_a_power_cycle_gives_it_another_port_and_the_mac_s_configuration(machine: Record) -> None:
    port, boot = VM.mac.state["colima"][0]["port"], guest("cat /proc/sys/kernel/random/boot_id")
    # As if the guest had been changed by hand: Colima does not keep that.
    guest(f"echo '# by hand' >>{CONFIG}")
    with machine.step("`vm.py reboot` (`colima stop`, `colima start`)") as notes:
        notes.append(vm("reboot").strip().rpartition("default: ")[2])
    assert VM.mac.state["colima"][0]["port"] != port
    assert guest("cat /proc/sys/kernel/random/boot_id") != boot
    own = VM.mac.profile_config()
    assert own.exists(), "the handler belongs into the profile's file on the Mac"
    assert guest(f"cat {CONFIG}") == own.read_text().strip()
    assert "gid = 1000" in own.read_text()
    machine.excerpts["The profile's file on the Mac after it, and so the guest's `config.toml`"] = own.read_text().strip()


def test_everything_still_works_without_another_run(machine: Record) -> None:
    done = machine.play("`verify.yml` after it", "playbooks/verify.yml")
    assert done.rc == 0, done.errors
    assert done.changed == []
    machine.excerpts["What `verify.yml` says then"] = done.result("Say what is not as it should be")["msg"]
    done = machine.play("`run.yml` after it", "playbooks/run.yml")
    assert done.rc == 0, done.errors
    assert done.changed == []
    assert generated() == expected()


def test_uninstall_gives_the_guest_back_as_it_was(machine: Record) -> None:
    done = machine.play("`uninstall.yml`", "playbooks/uninstall.yml")
    assert done.rc == 0, done.errors
    with machine.step("the guest compared with what it was before"):
        assert differences(machine.before, snapshot("ssh", "-F", str(VM.ssh_config), "colima", "sudo")) == []
    assert guest(f"cat {CONFIG}") == "[grpc]\ngid = 1000"
    assert not VM.mac.profile_config().exists(), "the file was made for the handler alone"


def report(record: Record) -> str:
    """The report as Markdown."""
    sums = json.loads(record.facts["sha256"])
    table = RELEASES[NEWEST]["sha256"]["amd64"]
    versions = [f"- {name}: {record.facts[name]}" for name in ("guest", "containerd", "gVisor", "QEMU", "ansible-core")]
    lines = [
        "# The whole job in a virtual machine like Colima's",
        "",
        f"Written by `make test-vm` on {datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d %H:%M} UTC; nothing in it is by hand. The machine is that of",
        "`tests/lab/vm.py`, the inventory is `ggen.gvisor.colima`. All of it is emulated in software: the times say how steps compare, not what they take on",
        f"a Mac. The machine around it has {os.cpu_count()} cores; its load average was {record.load:.1f} before and {os.getloadavg()[0]:.1f} at the end.",
        "",
        *versions,
        "",
        "| step | seconds | |",
        "|---|---|---|",
        *(f"| {name} | {seconds:.1f} | {notes} |" for name, seconds, notes in record.steps),
        "",
        f"The guest's containerd has `CAP_SYS_RESOURCE`, so the shim of release {NEWEST} is upstream's, unmodified. Sums in the guest, and those of",
        "`vendors/gvisor/releases.yml`:",
        "",
        "| file | in the guest | releases.yml |",
        "|---|---|---|",
        *(f"| {name} | `{digest}` | {'the same' if table[name] == digest else table[name]} |" for name, digest in sums.items()),
        "",
        "The slowest tasks:",
        "",
        "| seconds | step | task |",
        "|---|---|---|",
        *(f"| {seconds:.1f} | {step} | {task} |" for seconds, step, task in sorted(record.tasks, reverse=True)[:12]),
        "",
    ]
    for title, text in record.excerpts.items():
        lines += [f"{title}:", "", *(f"    {line}" for line in text.splitlines()), ""]
    return "\n".join(lines).replace(str(ROOT), ".")
