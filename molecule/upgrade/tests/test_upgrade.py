"""Three hosts after their upgrade, and in order what may come next: back, a roll-out that fails and is fixed, an older release by name.

The commands are those of docs/fleets.md, section "Upgrade and rollback". Every test begins with what the one before it has left.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from pathlib import Path

import pytest
import testinfra

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "tests"))

from support.playbook import Play, play  # noqa: E402

LAB = ROOT / ".artifacts" / "lab" / "molecule"
HOSTS = ("upgrade1", "upgrade2", "upgrade3")
OLD, NEW = "20260518", "20260701"
FOLDER = "/usr/local/lib/gvisor"
IMAGE = "docker.io/library/ggen"
# One look at a host: where the links lead, the files that decide what new sandboxes are, the releases, what is recorded.
LOOK = f"""
readlink /usr/local/bin/runsc /usr/local/bin/containerd-shim-runsc-v1 /usr/local/bin/ggen-gvisor
sha256sum /etc/containerd/runsc.toml /etc/containerd/config.toml
test ! -e {FOLDER}/installed.json || cat {FOLDER}/installed.json
"""


@pytest.fixture(scope="module")
def hosts() -> dict:
    return {name: testinfra.get_host(f"ssh://{name}", ssh_config=str(LAB / "ssh_config")) for name in HOSTS}


def commands() -> list[list[str]]:
    """The commands of the document's section, each as its playbook and options."""
    section = (ROOT / "docs" / "fleets.md").read_text().partition("\n## Upgrade and rollback\n")[2].partition("\n## ")[0]
    block = re.search(r"```sh\n(.*?)```", section, re.DOTALL).group(1)
    words = [shlex.split(line, comments=True) for line in block.splitlines()]
    assert all(line[:3] == [".venv/bin/ansible-playbook", "-i", "inventories/fleet"] for line in words)
    return [line[3:] for line in words]


CHECK, UPGRADE, IN_BATCHES, ROLLBACK, BY_NAME = commands()


def run(command: list[str], *options: str) -> Play:
    """Run a command of the document on the lab's hosts."""
    os.environ["MOLECULE_PROJECT_DIRECTORY"] = str(ROOT)
    inventories = [f"--inventory={ROOT}/molecule/{name}" for name in ("inventory.yml", "upgrade/inventory.yml")]
    return play(command[0], *inventories, *command[1:], *options, inventory=LAB / "inventory.yml")


def release_of(host) -> str:
    """The release that all links lead to."""
    targets = [host.file(f"/usr/local/bin/{name}").linked_to for name in ("runsc", "containerd-shim-runsc-v1", "ggen-gvisor")]
    (folder,) = {Path(target).parent for target in targets}
    return folder.name


def releases(hosts: dict) -> list[str]:
    return [release_of(hosts[name]) for name in HOSTS]


def images(host) -> dict[str, str]:
    """ggen's tags and their digests."""
    rows = [line.split() for line in host.check_output("ctr images ls").splitlines()[1:]]
    return {row[0].removeprefix(f"{IMAGE}:"): row[2] for row in rows if row[0].startswith(IMAGE)}


def new_sandbox(host) -> str:
    """The file on the host that a new sandbox's process runs, seen while it waits."""
    start = "ctr run --detach --null-io --annotation io.kubernetes.cri.container-type=sandbox --runtime io.containerd.runsc.v1 --read-only"
    end = "ctr tasks rm --force after > /dev/null; ctr containers rm after; rm /run/after.pid"
    pod = f"--pid-file /run/after.pid {IMAGE}:latest after /usr/local/bin/catatonit -P"
    return host.check_output(f'{start} {pod} && readlink "/proc/$(cat /run/after.pid)/exe"; {end}')


def healthy(release: str, *hosts: str) -> None:
    """Prove that the hosts are healthy with that release, by verify.yml."""
    image = [] if release == NEW else ["-e", "ggen_build_version=1.0", "-e", "ggen_build_source=binary"]
    done = run(["playbooks/verify.yml"], "-e", f"containerd_gvisor_release={release}", *image, "--limit", ",".join(hosts))
    assert done.rc == 0, done.errors
    assert all(f"{host} is healthy: gVisor {release}" in done.output for host in hosts)


def test_new_sandboxes_are_the_new_release_s(hosts):
    assert releases(hosts) == [NEW] * 3
    for host in hosts.values():
        assert new_sandbox(host) == f"{FOLDER}/{NEW}/runsc"
        assert host.check_output("runsc --version").startswith("runsc version 20260622.0-")


def test_sandboxes_that_ran_still_run_from_the_old_release(hosts):
    for host in hosts.values():
        pid = host.check_output("cat /run/before.pid")
        assert host.check_output("ctr tasks ls").split()[3:] == ["before", pid, "RUNNING"]
        assert host.check_output(f"readlink /proc/{pid}/exe") == f"{FOLDER}/{OLD}/runsc"
        said = host.run("ctr tasks exec --exec-id alive before /usr/local/bin/catatonit --version < /dev/null")
        assert said.rc == 0, said.stderr
        assert said.stdout.startswith("tini version"), said.stdout


def test_one_image_is_kept(hosts):
    for host in hosts.values():
        tags = images(host)
        assert sorted(tags) == ["1.0", "26.5.19", "latest", "previous"]
        assert (tags["latest"], tags["previous"]) == (tags["26.5.19"], tags["1.0"])


def test_check_mode_tells_and_does_nothing(hosts):
    before = [host.check_output(LOOK) for host in hosts.values()]
    done = run(CHECK, "-e", f"containerd_gvisor_release={OLD}")
    assert done.rc == 0, done.errors
    assert all(f"{name}: gVisor {NEW} → {OLD}" in done.output for name in HOSTS)
    assert f'-binary_name = "{FOLDER}/{NEW}/runsc"' in done.output
    back = run(ROLLBACK, "--check")
    assert back.rc == 0, back.errors
    assert all(f"{name}: gVisor {NEW} → {OLD}" in back.output for name in HOSTS)
    assert [host.check_output(LOOK) for host in hosts.values()] == before


def test_rollback_needs_no_build_and_gives_everything_back(hosts, tmp_path):
    done = run(ROLLBACK, "-e", f"containerd_gvisor_source={tmp_path}", "-e", f"ggen_build_dest={tmp_path}")
    assert done.rc == 0, done.errors
    assert releases(hosts) == [OLD] * 3
    for host in hosts.values():
        assert new_sandbox(host) == f"{FOLDER}/{OLD}/runsc"
        tags = images(host)
        assert (tags["latest"], "previous" in tags) == (tags["1.0"], False)
    healthy(OLD, *HOSTS)
    again = run(ROLLBACK)
    assert (again.rc, again.changed) == (0, []), again.errors
    assert "remembers no release before it" in again.output


def test_a_host_that_fails_goes_back_and_stops_the_roll_out(hosts):
    second = hosts["upgrade2"]
    # For real: the new release's files cannot be executed there.
    second.check_output(f"rm -r {FOLDER}/{NEW} && mkdir {FOLDER}/{NEW} && mount -t tmpfs -o noexec,mode=0755 tmpfs {FOLDER}/{NEW}")
    before = {name: host.check_output(LOOK) for name, host in hosts.items()}
    tags = {name: images(host) for name, host in hosts.items()}
    done = run(UPGRADE)
    assert done.rc != 0
    (failed,) = [line for line in done.errors.splitlines() if "The roll-out stops here" in line]
    assert failed.startswith(f"upgrade2: gVisor {NEW} failed at ")
    assert "permission denied" in failed
    assert f"back on gVisor {OLD}" in failed
    assert "Not touched: upgrade3." in failed
    assert releases(hosts) == [NEW, OLD, OLD]
    for name in ("upgrade2", "upgrade3"):
        assert hosts[name].check_output(LOOK) == before[name]
        assert images(hosts[name]) == tags[name]
        assert new_sandbox(hosts[name]) == f"{FOLDER}/{OLD}/runsc"
    healthy(NEW, "upgrade1")
    healthy(OLD, "upgrade2", "upgrade3")


def test_after_the_fix_the_same_command_completes_it(hosts):
    hosts["upgrade2"].check_output(f"umount {FOLDER}/{NEW}")
    done = run(UPGRADE)
    assert done.rc == 0, done.errors
    assert "upgrade1" not in {event["host"] for event in done.results if event["res"].get("changed")}
    assert releases(hosts) == [NEW] * 3
    healthy(NEW, *HOSTS)


def test_an_older_release_by_name_and_a_host_that_is_not_healthy_is_left_alone(hosts):
    third = hosts["upgrade3"]
    third.check_output("mv /etc/containerd/runsc.toml /etc/containerd/away.toml")
    # What nothing needs goes, and what a process still runs from stays.
    hosts["upgrade1"].check_output(f"mkdir {FOLDER}/20250101 && touch {FOLDER}/20250101/runsc")
    hosts["upgrade2"].check_output(f"mkdir {FOLDER}/20250101 && cp /usr/bin/sleep {FOLDER}/20250101/runsc")
    hosts["upgrade2"].check_output(f"{FOLDER}/20250101/runsc 600 > /dev/null 2>&1 & echo $! > /run/sleep.pid")
    done = run(BY_NAME)
    assert done.rc != 0
    assert done.errors.splitlines()[-1].startswith(
        "upgrade3 was not touched, because it is not healthy with what it has: the shim's options file"
    )
    assert releases(hosts) == [OLD, OLD, NEW]
    assert not third.file("/etc/containerd/runsc.toml").exists
    assert sorted(hosts["upgrade1"].file(FOLDER).listdir()) == [OLD, NEW, "installed.json"]
    assert sorted(hosts["upgrade2"].file(FOLDER).listdir()) == ["20250101", OLD, NEW, "installed.json"]
    third.check_output("mv /etc/containerd/away.toml /etc/containerd/runsc.toml")
    hosts["upgrade2"].check_output(f"kill $(cat /run/sleep.pid) && rm -r {FOLDER}/20250101")


def test_rollback_goes_up_again_where_the_last_step_went_down(hosts):
    done = run(ROLLBACK, "--limit", "upgrade1,upgrade2")
    assert done.rc == 0, done.errors
    assert releases(hosts) == [NEW] * 3
    # The last step had found this image and left it, so it stays, although an older one is kept.
    assert all(images(host)["latest"] == images(host)["26.5.19"] for host in hosts.values())
    finished = run(IN_BATCHES)
    assert finished.rc == 0, finished.errors
    assert not [event["task"] for event in finished.results if event["res"].get("changed") and event["host"] in HOSTS]
    begun = [
        event["res"]["ansible_facts"]["gvisor_upgrade_batch"] for event in finished.results if event["task"].startswith("Note the batch")
    ]
    assert sorted(begun) == [[name] for name in HOSTS], "10% and 50% of three hosts are one each"
