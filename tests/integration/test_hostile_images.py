# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images that try to steer what runs them: the host's programs in their pod, containerd, and the proof of gVisor. On a real containerd."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._containerd.ctr import Ctr
from ansible_collections.ggen.gvisor.plugins.module_utils._containerd.image_config import image_config
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox import host_tools
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.pod import Command, Mount, Pod, PodSpec
from support import oci
from support.containerd import Daemon
from support.containerd_debs import VERSIONS, ensure
from support.gvisor import gvisor_dir
from support.module import finish_module, run_module
from support.runs import IMAGE, RUNTIMES, USER, Host, gvisor_daemon, own

pytest_plugins = ("support.run_fixtures",)

SOURCE = Path(__file__).parent / "attacker" / "preloaded.c"
LIBRARY = "usr/lib/evil.so"


@dataclasses.dataclass
class Attack:
    """What an image has beside busybox."""

    files: dict = dataclasses.field(default_factory=dict)
    env: tuple[str, ...] = ()
    user: str = ""
    library: str = LIBRARY  # where the hostile library lies


PASSWD = b"root:x:0:0::/:/bin/sh\n1000:x:0:0::/:/bin/sh\n"
# Where a loader looks by itself.
NSS = f"usr/lib/{'x86_64' if oci.ARCH == 'amd64' else 'aarch64'}-linux-gnu/libnss_evil.so.2"
ATTACKS = {
    "preload file": Attack({"etc/ld.so.preload": f"/{LIBRARY}\n".encode()}),
    "LD_PRELOAD": Attack(env=(f"LD_PRELOAD=/{LIBRARY}",)),
    "LD_AUDIT": Attack(env=(f"LD_AUDIT=/{LIBRARY}",)),
    "LD_LIBRARY_PATH": Attack(env=("LD_LIBRARY_PATH=/usr/lib",), library="usr/lib/libc.so.6"),
    "tunables": Attack(env=("GLIBC_TUNABLES=glibc.malloc.check=3", f"LD_PRELOAD=/{LIBRARY}")),
    "a user whose name is a number": Attack({"etc/passwd": PASSWD, "etc/group": b"root:x:0:\n1000:x:0:\n"}),
    "name service": Attack({"etc/nsswitch.conf": b"passwd: evil\ngroup: evil\n"}, library=NSS),
    "the shell's files": Attack(
        {"evil.sh": b"touch /workspace/of-root\n"},
        ("ENV=/evil.sh", "BASH_ENV=/evil.sh", "SHELLOPTS=xtrace", "PS4=$(touch /workspace/of-root)", "IFS=/", "CDPATH=/etc"),
    ),
    "the shell's functions": Attack(env=("BASH_FUNC_echo%%=() { touch /workspace/of-root; }",)),
    "a user of its own": Attack({"etc/ld.so.preload": f"/{LIBRARY}\n".encode()}, user="1234:0"),
    "groups": Attack({"etc/passwd": b"root:x:0:0::/:\nevil:x:1000:1000::/:\n", "etc/group": b"root:x:0:evil\nshadow:x:42:evil,root\n"}),
}


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    target = tmp_path_factory.mktemp("library") / "evil.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-o", target, SOURCE], check=True)
    return target.read_bytes()


def layer(library: bytes, attack: Attack) -> bytes:
    entries = {
        "bin/busybox": (Path(oci.BUSYBOX).read_bytes(), 0o755),
        attack.library: (library, 0o755),
        **{f"bin/{name}": "busybox" for name in ("sh", "cat", "id", "touch", "env", "sleep")},
        **attack.files,
    }
    return oci.tar(entries)


def image_of(daemon: Daemon, name: str, data: bytes, **more: object) -> str:
    """Import an image without the collection's help, and return its name."""
    image = f"localhost/{name}:1"
    archive = daemon.root / f"{name}.tar"
    archive.write_bytes(oci.tar(oci.oci_entries(data, image, **more)[0]))
    daemon.ctr("images", "import", str(archive))
    return image


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory, library: bytes) -> Iterator[Daemon]:
    with gvisor_daemon(tmp_path_factory.mktemp("containerd")) as running:
        import_attacks(running, library)
        yield running


def import_attacks(daemon: Daemon, library: bytes) -> None:
    for name, attack in ATTACKS.items():
        image_of(daemon, slug(name), layer(library, attack), env=attack.env, user=attack.user)


def slug(name: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in name.lower())


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    return own(tmp_path / "workspace")


def contents(workspace: Path) -> dict[str, tuple[int, int, int]]:
    return {path.name: (path.lstat().st_uid, path.lstat().st_gid, path.lstat().st_mode & 0o7000) for path in workspace.iterdir()}


SAYS = "cat /proc/self/status; echo; id -u; id -g; touch made"


def is_harmless(stdout: str) -> None:
    facts = {line.partition(":")[0]: line.partition(":")[2].split() for line in stdout.splitlines() if ":" in line}
    assert set(facts["Uid"]) == set(facts["Gid"]) == {str(USER)}
    assert set(facts["Groups"]) <= {str(USER)}
    assert {word for name in ("CapInh", "CapPrm", "CapEff", "CapAmb") for word in facts.get(name, ())} == {"0" * 16}


# The host's programs in the pod


@pytest.mark.parametrize("name", ATTACKS)
def test_nothing_of_an_image_reaches_the_host_s_programs(host: Host, workspace: Path, name: str) -> None:
    """… where it could leave a set-user-id file of root's in a user's workspace."""
    result = host.run(SAYS, workspace, image=f"localhost/{slug(name)}:1")
    assert contents(workspace) == {"made": (USER, USER, 0)}, result
    assert not result["failed"], result
    assert "faults" not in result
    is_harmless(result["stdout"])
    assert result["stdout"].endswith(f"\n{USER}\n{USER}\n")


# With ctr of 1.6 a pod's first process becomes the user by itself, or a second one is the user's; ctr of 1.7 can say which user.
WAYS = {"by itself": {"unshare-user"}, "a second process": set()}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ATTACKS)
def test_nor_where_the_shell_needs_a_loader(
    host: Host, workspace: Path, name: str, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_tools, "STATIC_SHELLS", ())
    said = run_pod(host, workspace, f"localhost/{slug(name)}:1", tmp_path, WAYS[way])
    assert contents(workspace) == {"made": (USER, USER, 0)}
    is_harmless(said)


def run_pod(host: Host, workspace: Path, image: str, folder: Path, abilities: set[str]) -> str:
    tools = host_tools.prepare(host.state_dir)
    tools = tools._replace(abilities=frozenset(abilities))
    assert "sh" not in tools.static
    ctr = Ctr(host.daemon.address)
    config = image_config(ctr, image, oci.ARCH, str(folder / "images"))
    place = folder / "pod"
    place.mkdir()
    mounts = [Mount(str(workspace), "/workspace", True)]
    user = f"{USER}:{USER}"
    spec = PodSpec(f"{host.name}-1", image, host.runtime, mounts, tools, user=user, image_env=config.env, image_user=config.user)
    pod = Pod(ctr, spec, str(place))
    try:
        pod.start()
        done = pod.execute(Command(["/bin/sh", "-c", SAYS], "/workspace", {}, 60, 10000))
    finally:
        pod.remove()
    assert done.rc == 0, done.stderr.text()
    return done.stdout.text()


@pytest.mark.parametrize("version", VERSIONS[1:])  # with the first one, all tests above are made
def test_nor_where_ctr_says_which_user(
    tmp_path: Path, workspace: Path, library: bytes, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", ensure(version).path)
    with gvisor_daemon(tmp_path / "containerd") as daemon:
        import_attacks(daemon, library)
        one = Host(daemon, tmp_path, RUNTIMES["runsc"])
        for name in ATTACKS:
            result = one.run(SAYS, workspace, image=f"localhost/{slug(name)}:1")
            assert contents(workspace) == {"made": (USER, USER, 0)}, (name, result)
            is_harmless(result["stdout"])
        assert "CapBnd:\t0000000000000000" in result["stdout"]
        assert one.settle() == {}


def test_a_command_gets_the_image_s_variables_as_they_are(host: Host, workspace: Path) -> None:
    result = host.run(["env"], workspace, image="localhost/the-shell-s-files:1", env={"PS4": "mine", "x.y": "z"})
    variables = dict(line.partition("=")[::2] for line in result["stdout"].splitlines())
    assert variables["PATH"] == "/bin:/usr/local/bin"
    assert (variables["ENV"], variables["IFS"], variables["PS4"], variables["x.y"]) == ("/evil.sh", "/", "mine", "z")


@pytest.mark.parametrize(
    ("env", "said"), [(("LD_AUDIT=/a", "LD_AUDIT=/b"), "LD_AUDIT"), (("LD_TRACE_LOADED_OBJECTS=1",), "LD_TRACE"), (("NAKED",), "NAKED")]
)
def test_variables_that_could_not_be_kept_away_are_refused(host: Host, env: tuple[str, ...], said: str) -> None:
    """containerd replaces the last of two variables of a name, and the loader takes both."""
    image = image_of(host.daemon, f"variables-{slug(env[0])}", oci.busybox_layer(), env=env)
    result = host.run("true", image=image)
    assert result["failed"]
    assert "sets variables that cannot be kept from the host's programs" in result["msg"]
    assert said in result["msg"]


LINKS = {
    "tools in the workspace": {".ggen.gvisor": "/workspace/x"},
    "preload in the workspace": {"etc/ld.so.preload": "/workspace/list"},
    "preload in nowhere": {"etc/ld.so.preload": "/nowhere/list"},
}


@pytest.mark.parametrize("name", LINKS)
def test_links_where_the_host_s_files_are_mounted(host: Host, workspace: Path, library: bytes, name: str) -> None:
    lists = ("list", "ld.so.preload")
    for existing in lists:
        (workspace / existing).write_text(f"/{LIBRARY}\n")
        os.chown(workspace / existing, USER, USER)
    image = image_of(host.daemon, f"link-{slug(name)}", layer(library, Attack(LINKS[name])))
    result = host.run(SAYS, workspace, image=image)
    assert contents(workspace) == dict.fromkeys(["made", *lists], (USER, USER, 0)), result
    is_harmless(result["stdout"])


def test_an_image_whose_etc_is_in_the_workspace(host: Host, workspace: Path, library: bytes) -> None:
    """The pod does not start, and the empty file that the runtime made for that is named."""
    image = image_of(host.daemon, "link-etc", layer(library, Attack({"etc": "/workspace"})))
    result = host.run(SAYS, workspace, image=image)
    assert result["failed"]
    assert "stdout" not in result
    assert "did not start" in result["msg"]
    assert "1 files do not belong to the command's user 1000:1000 after it: ld.so.preload (0:0); remove them" in result["msg"]
    assert [(path.name, path.stat().st_size, path.stat().st_mode & 0o7022) for path in workspace.iterdir()] == [("ld.so.preload", 0, 0)]


def test_a_link_to_a_file_that_is_not_there_leaves_an_empty_one_that_is_named(host: Host, workspace: Path, library: bytes) -> None:
    """The place for a mount is made by the runtime, which follows the image's link."""
    image = image_of(host.daemon, "link-absent", layer(library, Attack({"etc/ld.so.preload": "/workspace/absent"})))
    result = host.run(SAYS, workspace, image=image)
    assert result["failed"]
    assert "absent (0:0); remove them" in result["msg"]
    assert (workspace / "absent").stat().st_size == 0
    is_harmless(result["stdout"])


# The shell that runs a command is the command's user


def test_a_command_cannot_speak_for_the_shell_of_its_pod(host: Host, workspace: Path) -> None:
    """It is the same user, and sees neither its memory nor its input."""
    tries = [
        "for n in 0 10 11; do echo 'echo INJECTED' > /proc/1/fd/$n; done",
        "dd if=/proc/1/mem of=copy bs=4096 count=1 skip=1024",
        "for n in $(seq 3 20); do cat /proc/1/fd/$n; done",
    ]
    result = host.run(["/bin/busybox", "sh", "-c", f"({'; '.join(tries)}) 2>/dev/null; echo end; exit 3"], workspace, fail_on_rc=False)
    assert (result["rc"], result["stdout"]) == (3, "end\n"), result
    assert not (workspace / "copy").exists() or (workspace / "copy").stat().st_size == 0


def test_a_command_that_ends_its_shell_ends_its_own_pod_and_no_other(host: Host, tmp_path: Path) -> None:
    folders = []
    for number in range(3):
        folders.append(tmp_path / f"ws{number}")
        folders[-1].mkdir()
        os.chown(folders[-1], USER, USER)
    common = {key: value for key, value in host.params("", None).items() if key not in ("argv", "workspace")}
    jobs = [
        {"workspace": str(folder), "argv": ["sh", "-c", "echo said; [ $0 != 1 ] || kill -9 1; sleep 1", str(number)]}
        for number, folder in enumerate(folders)
    ]
    result = run_module("containerd_run", **common, jobs=jobs, pods="one")
    assert [job["failed"] for job in result["jobs"]] == [False, True, False]
    assert [job["stdout"] for job in result["jobs"]] == ["said\n"] * 3
    assert "ended before the command did" in result["jobs"][1]["msg"]


def test_jobs_of_two_users_have_a_pod_each(host: Host, tmp_path: Path) -> None:
    folders = []
    for number, owner in enumerate((1000, 1001, 1000)):
        folders.append(tmp_path / f"ws{number}")
        folders[-1].mkdir()
        os.chown(folders[-1], owner, owner)
    common = {key: value for key, value in host.params("", None).items() if key not in ("argv", "workspace")}
    jobs = [{"workspace": str(folder), "argv": ["sh", "-c", "id -u; ls /workspaces /workspace"]} for folder in folders]
    result = run_module("containerd_run", **common, jobs=jobs, pods="one", fail_on_rc=False)
    pods = [job["pod"] for job in result["jobs"]]
    assert pods[0] == pods[2] != pods[1]
    assert [job["stdout"].split()[0] for job in result["jobs"]] == ["1000", "1001", "1000"]


@pytest.mark.parametrize("user", ["4294967296:1000", "1000:2147483648", "2147483648"])
def test_users_that_would_become_others_are_refused(host: Host, user: str) -> None:
    result = host.run("id", user=user)
    assert result["failed"]
    assert "choose a smaller one" in result["msg"]


# The proof of gVisor

SAY = """
#include <stdio.h>
#include <string.h>
#include <unistd.h>
static void say(void) { puts("[    0.000000] Starting gVisor..."); fflush(stdout); _exit(0); }
"""
PROGRAM = f"{SAY} int main(void) {{ say(); }}"
SPEAKER = f"""{SAY}
__attribute__((constructor)) static void attack(void) {{
    char words[4096];
    FILE *mine = fopen("/proc/self/cmdline", "r");
    size_t size = mine ? fread(words, 1, sizeof words, mine) : 0;
    if (memmem(words, size, "dmesg", 5)) say();
}}
"""


def build(source: str, target: Path, *options: str) -> Path:
    subprocess.run(
        ["gcc", "-O1", "-D_GNU_SOURCE", "-Wall", "-Werror", *options, "-x", "c", "-o", target, "-"], input=source, text=True, check=True
    )
    return target


@pytest.fixture
def impostor(tmp_path: Path) -> Iterator[Daemon]:
    """A containerd whose shim of gVisor's name is runc's."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "containerd-shim-runsc-v1").symlink_to("/usr/bin/containerd-shim-runc-v2")
    (folder / "runsc").symlink_to(gvisor_dir(tmp_path / "real") / "runsc")
    with Daemon(tmp_path / "containerd", bin_dir=folder) as running:
        yield running


@pytest.mark.parametrize("way", ["preload file", "LD_PRELOAD"])
def test_an_image_that_says_itself_that_it_is_in_gvisor(impostor: Daemon, tmp_path: Path, workspace: Path, way: str) -> None:
    library = build(SPEAKER, tmp_path / "say.so", "-shared", "-fPIC").read_bytes()
    attack = ATTACKS[way]
    image = image_of(impostor, "speaker", layer(library, attack), env=attack.env)
    host = Host(impostor, tmp_path, RUNTIMES["runsc"])
    result = host.run("touch started", workspace, image=image)
    assert result["failed"]
    assert "is not gVisor" in result["msg"]
    assert contents(workspace) == {}
    assert host.settle() == {}


def test_whatever_is_said_in_a_pod_its_process_on_the_host_is_runsc(impostor: Daemon, daemon: Daemon, tmp_path: Path) -> None:
    """The host's own dmesg says it here: the strongest that an image could come to."""
    image = image_of(impostor, "plain", oci.busybox_layer())
    tools = host_tools.prepare(str(tmp_path / "state"))
    build(PROGRAM, Path(tools.folder) / "dmesg", "-static")
    tools = tools._replace(static=tools.static | {"dmesg"})
    for number, (running, where, fails) in enumerate(((impostor, image, True), (daemon, IMAGE, False))):
        place = tmp_path / f"pod{number}"
        place.mkdir()
        pod = Pod(Ctr(running.address), PodSpec(f"proof-{number}", where, RUNTIMES["runsc"], [], tools), str(place))
        try:
            if fails:
                with pytest.raises(GvisorError, match=r"its process on the host is /\S+ where \S+/bin/runsc was expected; the job was not"):
                    pod.start()
            else:
                assert pod.start() == "Starting gVisor..."
        finally:
            pod.remove()


def test_a_script_before_the_installed_program_adds_flags(tmp_path: Path) -> None:
    """docs/decisions/runsc-flags.md: how runs come to runsc's flags. The sandbox is the installed program all the same."""
    real, script = gvisor_dir(tmp_path / "real"), tmp_path / "script/runsc"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nexec {real}/runsc --directfs=false "$@"\n')
    script.chmod(0o755)
    capabilities = {}
    for name, path in (("without", str(real)), ("with", f"{script.parent}:{real}")):
        with Daemon(tmp_path / name, bin_dir=path) as running:
            image = image_of(running, "plain", oci.busybox_layer())
            place = tmp_path / f"pod-{name}"
            place.mkdir()
            tools = host_tools.prepare(str(tmp_path / "state"))
            pod = Pod(Ctr(running.address), PodSpec(f"flags-{name}", image, RUNTIMES["runsc"], [], tools), str(place))
            try:
                assert pod.start() == "Starting gVisor..."
                status = Path(f"/proc/{pod.pid()}/status").read_text()
            finally:
                pod.remove()
        capabilities[name] = next(int(line.split()[1], 16) for line in status.splitlines() if line.startswith("CapEff"))
    assert capabilities["without"] != 0
    assert capabilities["with"] == 0


def test_the_proof_of_a_host_needs_the_installed_program(impostor: Daemon, tmp_path: Path) -> None:
    tools = host_tools.prepare(str(tmp_path / "state"))
    build(PROGRAM, Path(tools.folder) / "dmesg", "-static")
    result = run_module("containerd_proof", address=impostor.address, state_dir=str(tmp_path / "state"))
    assert result["failed"]
    assert f"and not {tmp_path}/bin/runsc" in result["msg"]


# Labels

RESTART = {
    "containerd.io/restart.status": "running",
    "containerd.io/restart.policy": "always",
    "containerd.io/restart.logpath": "/root/log-of-a-hostile-image",
}
REFUSED = {
    "containerd restarts": {"labels": RESTART},
    "the CRI plugin": {"labels": {"io.cri-containerd.kind": "sandbox"}},
    "Kubernetes": {"labels": {"io.kubernetes.pod.namespace": "kube-system"}},
    "a snapshotter": {"annotations": {"containerd.io/snapshot/uidmapping": "0:0:1"}},
    "gVisor": {"labels": {"dev.gvisor.flag.debug": "true"}},
    "us": {"labels": {"ggen.gvisor/pod": "nobody"}},
    "in another case": {"labels": {"Containerd.IO/restart.status": "running"}},
}
ALLOWED = {
    "maintainer": "somebody",
    "Version": "1",
    "version": "2",
    "org.opencontainers.image.source": "https://example.org",
    "io.k8s.display-name": "An image of Red Hat's",
    "app.kubernetes.io/name": "model",
}


@pytest.mark.parametrize("name", REFUSED)
def test_labels_that_others_act_on_are_refused_at_import_and_at_run(host: Host, tmp_path: Path, name: str) -> None:
    ref = f"localhost/labels-{slug(name)}:1"
    archive = tmp_path / "image.tar"
    archive.write_bytes(oci.tar(oci.oci_entries(oci.busybox_layer(), ref, **REFUSED[name])[0]))
    result = run_module("containerd_image", archive=str(archive), address=host.daemon.address)
    assert result["failed"]
    assert "that containerd, Kubernetes or gVisor would act on" in result["msg"]
    assert ref not in host.daemon.ctr("images", "ls", "-q").stdout
    host.daemon.ctr("images", "import", str(archive))
    result = host.run("true", image=ref)
    assert result["failed"]
    assert "that containerd, Kubernetes or gVisor would act on" in result["msg"]
    assert next(iter({**REFUSED[name]}.values())).keys() >= set(result["labels"]) != set()


def test_a_docker_archive_is_refused_as_well(host: Host, tmp_path: Path) -> None:
    entries, digest = oci.docker_entries(oci.busybox_layer(), "localhost/docker:1")
    config = json.loads(entries.pop(f"{digest[7:]}.json"))
    config["config"]["Labels"] = RESTART
    data = json.dumps(config).encode()
    manifest = json.loads(entries["manifest.json"])
    manifest[0]["Config"] = f"{oci.digest(data)[7:]}.json"
    entries |= {manifest[0]["Config"]: data, "manifest.json": json.dumps(manifest).encode()}
    (tmp_path / "image.tar").write_bytes(oci.tar(entries))
    result = run_module("containerd_image", archive=str(tmp_path / "image.tar"), address=host.daemon.address)
    assert "containerd.io/restart.logpath" in result["msg"]


def test_labels_for_people_are_allowed(host: Host, tmp_path: Path) -> None:
    ref = "localhost/labels-for-people:1"
    more = {"labels": ALLOWED, "annotations": {"containerd.io/distribution.source.docker.io": "library/model"}}
    (tmp_path / "image.tar").write_bytes(oci.tar(oci.oci_entries(oci.busybox_layer(), ref, **more)[0]))
    assert run_module("containerd_image", archive=str(tmp_path / "image.tar"), address=host.daemon.address)["changed"]
    assert host.run("echo yes", image=ref)["stdout"] == "yes\n"


HIDDEN = {
    "another case": '"Labels":{},"labels":{"containerd.io/restart.status":"running"}',
    "the letter of Kelvin's": '"Env":["PATH=/bin"],"Label\u017f":{"containerd.io/restart.status":"running"}',
    "twice": '"Labels":{"containerd.io/restart.status":"running"},"Labels":{}',
    "variables": '"Env":["PATH=/bin"],"ENV":["LD_AUDIT=/evil.so"]',
}


@pytest.mark.parametrize("name", HIDDEN)
def test_a_document_that_containerd_reads_otherwise_is_refused(host: Host, tmp_path: Path, name: str) -> None:
    layer_ = oci.busybox_layer()
    rest = f'"architecture":"{oci.ARCH}","os":"linux","rootfs":{{"type":"layers","diff_ids":["{oci.digest(layer_)}"]}}'
    ref = f"localhost/hidden-{slug(name)}:1"
    archive = tmp_path / "image.tar"
    archive.write_bytes(oci.tar(oci.oci_entries(layer_, ref, config=f'{{{rest},"config":{{{HIDDEN[name]}}}}}'.encode())[0]))
    result = run_module("containerd_image", archive=str(archive), address=host.daemon.address)
    assert result["failed"]
    host.daemon.ctr("images", "import", str(archive))
    result = host.run("true", image=ref)
    assert "cannot be read as containerd would read it" in result["msg"]


def test_containers_have_no_label_by_which_they_are_restarted(host: Host, tmp_path: Path) -> None:
    """Whatever an image says, were it not refused."""
    image = image_of(host.daemon, "restarted", oci.busybox_layer(), labels=RESTART)
    ctr = Ctr(host.daemon.address)
    (tmp_path / "pod").mkdir()
    pod = Pod(ctr, PodSpec(f"{host.name}-1", image, host.runtime, [], host_tools.prepare(host.state_dir)), str(tmp_path / "pod"))
    try:
        pod.start()
        labels = json.loads(ctr.check("containers", "info", f"{host.name}-1"))["Labels"]
    finally:
        pod.remove()
    assert {name for name in labels if name.startswith("containerd.io/restart.")} == set()  # what is empty is not kept


def test_what_outlives_a_run_without_a_record_is_swept_by_its_label_and_group(host: Host, workspace: Path) -> None:
    """The run, its watcher and the folder that knew of the pod are gone; another state folder's pods stay."""
    other = Host(host.daemon, workspace.parent / "other", host.runtime)
    alive = other.start("touch alive; while [ ! -e stop ]; do sleep 0.1; done; echo fine", workspace)
    process = host.start("touch begun; sleep 1000", workspace)
    deadline = time.monotonic() + 60
    while not {"alive", "begun"} <= set(os.listdir(workspace)):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    (supervisor,) = (int(word) for word in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split())
    process.send_signal(signal.SIGSTOP)
    os.kill(supervisor, signal.SIGKILL)
    process.kill()
    process.communicate()
    (pod,) = host.pods()
    for mount in (Path(host.state_dir) / "pods" / pod / "mounts").iterdir():
        subprocess.run(["umount", "--lazy", mount], check=True)
    subprocess.run(["rm", "-rf", Path(host.state_dir) / "pods" / pod], check=True)
    assert {"containers", "tasks", "cgroups"} <= set(host.left())
    result = host.run("echo next")
    assert result["stdout"] == "next\n"
    assert any(f"pod {pod}, which was still there though its run had ended, was removed" in warning for warning in result["warnings"])
    assert pod not in host.daemon.ctr("containers", "ls", "-q").stdout
    (workspace / "stop").touch()
    assert finish_module(alive)["stdout"] == "fine\n"
