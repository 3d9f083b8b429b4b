# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host on which all works, and what is then done to it: tampering, full and read-only file systems, hostile workspaces and names.

Each error names the cause, nothing is lost or left, and when the cause is gone site.yml fixes the rest.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.faults import EXAMPLE, Victim, check_works, fresh_host
from support.playbook import ROOT, Play

CONFIG = "/etc/containerd/config.toml"
IMAGE = "docker.io/library/ggen:26.5.19"
RUN = "playbooks/run.yml"
FORGET_IMAGE = "ctr images rm --sync $(ctr images ls -q)"


@pytest.fixture(scope="module")
def working() -> Iterator[Victim]:
    with fresh_host() as victim:
        done = victim.site()
        assert done.rc == 0, done.errors
        yield victim


@pytest.fixture(name="victim")
def fixture_victim(working: Victim) -> Iterator[Victim]:
    """The host, and a look afterwards whether anything is left of the fault."""
    yield working
    assert working.leftovers() == []


# --- tampering ---


def flip(path: Path) -> None:
    """Change one byte in the middle, as an attacker would: another file under the name. The build cache may share the old one's bytes."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.with_name(f"{path.name}.flipped").write_bytes(data)
    shutil.copymode(path, path.with_name(f"{path.name}.flipped"))
    path.with_name(f"{path.name}.flipped").replace(path)


TAMPERING = {
    # what is done to the host, and what verify.yml says
    "the shim of the release": ("f=$(realpath /usr/local/bin/containerd-shim-runsc-v1); printf x >>$f", r"containerd-shim-runsc-v1"),
    "a program that is no longer executable": ("chmod 0644 /usr/local/bin/runsc", r"runsc"),
    "the options of the shim": (
        "sed -i 's,^binary_name.*,binary_name = \"/bin/true\",' /etc/containerd/runsc.toml",
        r"the shim's options file is missing or changed",
    ),
    "the path of the options": (
        f"sed -i 's,/etc/containerd/runsc.toml,/tmp/runsc.toml,' {CONFIG}",
        r"ConfigPath '/tmp/runsc\.toml' instead of",
    ),
    "the runtime's type": (
        f"sed -i 's/io.containerd.runsc.v1\"/io.containerd.runc.v2\"/' {CONFIG}",
        r"runtime_type 'io\.containerd\.runc\.v2' instead of",
    ),
    "the runtime's table": (
        f"sed -i '/runtimes.runsc/d' {CONFIG} && sed -i '/ConfigPath\\|TypeUrl\\|io.containerd.runsc.v1\"/d' {CONFIG}",
        r"no runtime handler runsc",
    ),
    "the image under its name": (
        f"ctr images tag --force $(ctr images ls -q | grep ':latest') {IMAGE}.other && ctr images rm {IMAGE}",
        r"image docker\.io/library/ggen:26\.5\.19 in namespace default is missing",
    ),
}


@pytest.mark.parametrize("what", TAMPERING)
def test_tampering_is_found_and_fixed(what: str, victim: Victim) -> None:
    script, words = TAMPERING[what]
    victim.ssh(f"set -e; {script}; systemctl restart containerd")
    found = victim.site(playbook="playbooks/verify.yml")
    assert found.rc != 0
    assert re.search(words, found.errors), found.errors
    done = victim.site()
    assert done.rc == 0, done.errors
    assert done.changed
    victim.ssh(f"ctr images rm {IMAGE}.other")
    check_works(victim)


def builds() -> list[Path]:
    """The program and the archive that the host got from this machine."""
    return [*ROOT.glob("bin/20260701/linux_*/runsc"), *ROOT.glob("dist/26.5.19/linux_*/ggen.tar")]


def test_tampered_builds_never_reach_a_host(victim: Victim) -> None:
    """The controller's own output: provision.yml sends no such byte, and site.yml takes it from the build cache again."""
    paths = [*ROOT.glob("bin/20260701/linux_*/runsc"), *ROOT.glob("dist/26.5.19/linux_*/ggen.tar")]
    assert len(paths) == 2
    before = [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
    for path in paths:
        flip(path)
    installed = victim.ssh("sha256sum /usr/local/bin/runsc")
    victim.ssh(f"rm $(realpath /usr/local/bin/runsc); {FORGET_IMAGE}")
    refused = victim.site(playbook="playbooks/provision.yml")
    assert refused.rc != 0
    assert f"{paths[1]}: blobs/sha256/" in refused.errors, refused.errors
    assert "altered or damaged" in refused.errors
    # Of the program the build cache keeps a compressed copy, which is the one that is sent.
    assert victim.ssh("sha256sum /usr/local/bin/runsc; ctr images ls -q") == installed
    done = victim.site()
    assert done.rc == 0, done.errors
    assert [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths] == before
    check_works(victim)


# --- full and read-only file systems ---

WORKSPACE = "/srv/model"
MAKE_WORKSPACE = f"rm -rf {WORKSPACE}; mkdir {WORKSPACE}; cd {EXAMPLE}; cp -a ggen.toml ontology queries templates {WORKSPACE}; chown -R admin: {WORKSPACE}"
READ_ONLY = "mount --bind {0} {0}; mount -o remount,bind,ro {0}"
# Something for site.yml to fix.
ANOTHER_PATH = f"sed -i 's,/etc/containerd/runsc.toml,/tmp/runsc.toml,' {CONFIG}"
FILL = "! dd if=/dev/zero of={0}/filler bs=4k 2>/dev/null"


@contextlib.contextmanager
def changed(victim: Victim, script: str, back: str) -> Iterator[None]:
    """The host as ``script`` makes it, and afterwards as it was."""
    try:
        victim.ssh(f"set -e; {script}")
        yield
    finally:
        victim.ssh(f"set -e; {back}")


def run(victim: Victim, workspace: str = WORKSPACE, *options: str, **variables: object) -> Play:
    return victim.site(*options, playbook=RUN, ggen_run_workspace=workspace, **variables)


def results(done: Play) -> list[dict]:
    """What each of the runs came to."""
    (found,) = (event["res"]["ansible_facts"] for event in done.results if "ggen_run_results" in event["res"].get("ansible_facts", {}))
    return found["ggen_run_results"]


FILE_SYSTEMS = {
    # what is done, how it is taken back, and what the error says
    "containerd's, full": (
        "systemctl stop containerd; mount -t tmpfs -o size=8M tmpfs /var/lib/containerd; systemctl start containerd",
        "systemctl stop containerd; umount /var/lib/containerd; systemctl start containerd",
        r"/var/lib/containerd|no space left on device",
    ),
    "containerd's, read-only": (
        f"{FORGET_IMAGE}; " + READ_ONLY.format("/var/lib/containerd") + "; systemctl restart containerd || true",
        "umount /var/lib/containerd; systemctl reset-failed containerd; systemctl restart containerd",
        r"(?i)read-only file system",
    ),
    "the configuration's, read-only": (
        f"{ANOTHER_PATH}; " + READ_ONLY.format("/etc/containerd"),
        "umount /etc/containerd",
        r"/etc/containerd/.*Read-only file system",
    ),
    "the configuration's, full": (
        "cp -a /etc/containerd /root/held; mount -t tmpfs -o size=64k tmpfs /etc/containerd; cp -a /root/held/. /etc/containerd;"
        f"{ANOTHER_PATH}; " + FILL.format("/etc/containerd"),
        f"umount /etc/containerd; rm -rf /root/held; {ANOTHER_PATH}",
        r"/etc/containerd/.*No space left on device",
    ),
    "the release's, read-only": (
        "chmod 0644 /usr/local/lib/gvisor/*/runsc; " + READ_ONLY.format("/usr/local/lib/gvisor"),
        "umount /usr/local/lib/gvisor",
        r"/usr/local/lib/gvisor.*Read-only file system",
    ),
    "the state's, full": (
        "cp -a /var/lib/ggen.gvisor /root/held; mount -t tmpfs -o size=512k,mode=755 tmpfs /var/lib/ggen.gvisor;"
        + FILL.format("/var/lib/ggen.gvisor"),
        "umount /var/lib/ggen.gvisor; rm -rf /root/held",
        r"No space left on device",
    ),
    "the state's, read-only": (
        READ_ONLY.format("/var/lib/ggen.gvisor"),
        "umount /var/lib/ggen.gvisor",
        r"(?i)read-only file system",
    ),
}


@pytest.mark.parametrize("what", FILE_SYSTEMS)
def test_a_file_system_that_cannot_be_written(what: str, victim: Victim) -> None:
    script, back, words = FILE_SYSTEMS[what]
    with changed(victim, script, back):
        done = victim.site()
        assert done.rc != 0
        assert re.search(words, done.errors), done.errors
    done = victim.site()
    assert done.rc == 0, done.errors
    check_works(victim)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (
            f"mount -t tmpfs -o size=256k tmpfs {WORKSPACE}; cp -a /root/held/. {WORKSPACE}; " + FILL.format(WORKSPACE),
            "No space left on device",
        ),
        (READ_ONLY.format(WORKSPACE), "(?i)read-only file system"),
    ],
    ids=["full", "read-only"],
)
def test_a_workspace_that_cannot_be_written(script: str, words: str, victim: Victim) -> None:
    victim.ssh(f"{MAKE_WORKSPACE}; cp -a {WORKSPACE} /root/held")
    with changed(victim, script, f"umount {WORKSPACE}; rm -rf /root/held"):
        done = run(victim)
        assert done.rc != 0
        assert re.search(words, done.errors), done.errors
        assert "outside of the workspace" not in done.errors
    assert run(victim).rc == 0
    assert run(victim).changed == []


@pytest.mark.parametrize("folder", ["bin", "dist"])
def test_the_controller_s_folder_is_full(folder: str, victim: Victim) -> None:
    """The folder of the builds, with too little room to take them from the cache."""
    place = ROOT / folder
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4M", "tmpfs", place], check=True)
    try:
        done = victim.site()
        assert done.rc != 0
        assert re.search(f"{place}/.*: No space left on device", done.output), done.output
        assert sum(path.stat().st_size for path in place.rglob("*") if path.is_file()) < 4_000_000
        assert done.changed == []
    finally:
        subprocess.run(["umount", place], check=True)
    check_works(victim)


# --- workspaces ---

HOSTILE = r"""
import os, socket, stat
os.chdir("/srv/model")
os.mkfifo("pipe")
os.mknod("device", stat.S_IFCHR | 0o666, os.makedev(1, 3))
socket.socket(socket.AF_UNIX).bind("socket")
os.symlink("/etc/shadow", "link-out")
os.symlink("/", "folder-out")
os.symlink("loop", "loop")
names = ["a\nb", "$(touch pwned)", "`touch pwned`", "; touch pwned", "--help", "-rf", "ümläut €", "a'b\"c", "\\", "{{ 7 * 7 }}", "%s", " "]
for name in [*names, "\x1b[31m", b"\xff\xfe"]:
    open(name, "w").close()
# As deep as the kernel has paths: one name after the other.
here = os.open(".", os.O_RDONLY)
for _ in range(17):
    os.mkdir("d" * 240, dir_fd=here)
    here = os.open("d" * 240, os.O_RDONLY, dir_fd=here)
os.close(os.open("f" * 240, os.O_CREAT | os.O_WRONLY, dir_fd=here))
"""
# What there is, by type, size and, for links, target.
LIST = f"cd {WORKSPACE} && find . -name '.ggen' -prune -o -name generated -prune -o -printf '%y %s %l %p\\0' | sort -z | sha256sum"


@pytest.mark.parametrize("options", [("--check", "--diff"), ()], ids=["check mode", "for real"])
def test_a_workspace_full_of_traps(options: tuple[str, ...], victim: Victim) -> None:
    victim.ssh(MAKE_WORKSPACE)
    victim.ssh("python3 -", given=HOSTILE)
    victim.ssh(f"chown -hR admin: {WORKSPACE}")
    shadow, before = victim.ssh("sha256sum /etc/shadow; stat -c '%a %U' /etc/shadow /dev/null"), victim.ssh(LIST)
    done = run(victim, WORKSPACE, *options)
    assert done.rc == 0, done.errors
    assert victim.ssh(LIST) == before
    assert victim.ssh("sha256sum /etc/shadow; stat -c '%a %U' /etc/shadow /dev/null") == shadow
    assert victim.ssh("ls -d /pwned pwned /root/pwned /srv/model/pwned", check=False) == ""
    assert victim.ssh(f"ls {WORKSPACE}/generated", check=False).count("\n") == (0 if options else 3)


def test_a_hundred_thousand_files(victim: Victim) -> None:
    victim.ssh(f"{MAKE_WORKSPACE}; cd {WORKSPACE} && mkdir many && cd many && seq 100000 | xargs -n 2000 touch; chown -R admin: .")
    done = run(victim)
    assert done.rc == 0, done.errors
    (result,) = results(done)
    assert {item["path"].split("/")[0] for item in result["changed_files"]} == {"generated", ".ggen"}
    assert result["timings"]["scan_before"] + result["timings"]["scan_after"] < 30
    assert run(victim).changed == []


NAMES = [
    *(
        "with space",
        "$(touch pwned)",
        "`touch pwned`;&|",
        "new\nline",
        "ümläut €",
        "a'b\"c",
        "-rf",
        "--help",
        "comma,src=etc",
        "back\\slash",
        "%s %n",
        "*",
    ),
    "/".join(["d" * 200] * 19),  # with what ggen makes in it as long as the kernel has paths
]


def test_workspaces_with_hostile_names(victim: Victim) -> None:
    """All of them in one run; a workspace that is one of them is only itself."""
    folders = [f"/srv/names/{name}" for name in NAMES]
    ignore = "ignore=shutil.ignore_patterns('generated', '.ggen', '*.backup')"
    copy = f"import shutil\nfor folder in {folders!r}:\n    shutil.copytree({EXAMPLE!r}, folder, {ignore})"
    victim.ssh("python3 -", given=copy)
    done = victim.site(playbook=RUN, ggen_run_workspaces=[{"path": folder} for folder in folders])
    assert done.rc == 0, done.errors
    assert [(result["path"], result["rc"]) for result in results(done)] == [(folder, 0) for folder in folders]
    made = victim.ssh("python3 -", given=f"import os\nfor folder in {folders!r}:\n    print(len(os.listdir(folder + '/generated')))")
    assert made.split() == ["4"] * len(folders)
    assert victim.ssh("find / -xdev -name pwned", check=False) == ""


@pytest.mark.parametrize("image", ["--help", "$(touch /pwned)", "a\nb", "../../etc", "x" * 5000])
def test_an_image_with_a_hostile_name(image: str, victim: Victim) -> None:
    done = run(victim, EXAMPLE, ggen_run_image=image)
    assert done.rc != 0
    assert "is no image name; write for example" in done.errors, done.errors
    assert "Traceback" not in done.output
    assert victim.ssh("find / -xdev -name pwned", check=False) == ""
