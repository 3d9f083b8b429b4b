# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A confined command can do nothing but write its folders, as root's build and as the build of a user without rights, in a gVisor sandbox or not."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.ggen.gvisor.plugins.module_utils._builds.confinement import UNPRIVILEGED
from ansible_collections.ggen.gvisor.plugins.module_utils._builds.sandbox import FOLDER
from conftest import ROOT
from support.module import MODULES, Result

# What asks the kernel for namespaces without the right to, and no user namespace can give it.
POWERLESS = ("setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin")
USER = 12345


class Host:
    """Folders that a build may read and write, one that is nobody's business, and who runs the module."""

    def __init__(self, root: Path, uid: int, sandbox: str = "namespaces") -> None:
        self.root, self.uid, self.sandbox = root, uid, sandbox
        self.runsc = root.parent / "runsc"
        self.jobs, self.readable, self.writable, self.secret = (root / name for name in ("jobs", "readable", "writable", "secret"))
        for folder in (self.jobs, self.readable, self.writable, self.secret):
            folder.mkdir()
            (folder / "file").write_text(f"{folder.name}\n")
        for path in (root, *root.rglob("*")):
            os.chown(path, uid, uid)

    def arguments(self, *argv: str, **options: object) -> dict:
        walls = {"readable": [str(self.readable)], "writable": [str(self.writable)], "required": "nothing: here"}
        walls = {"sandbox": self.sandbox, "runsc": [str(self.runsc)], **options.pop("confinement", walls)}
        return {"name": "test", "state_dir": str(self.jobs), "argv": list(argv), "poll": 30, "confinement": walls, **options}

    def run(self, *argv: str, prefix: tuple[str, ...] = (), **options: object) -> Result:
        """Run the module to the command's end."""
        user = ("setpriv", f"--reuid={self.uid}", f"--regid={self.uid}", "--clear-groups") if self.uid else ()
        # A user without rights reaches neither root's Python nor root's checkout.
        python, path = ("/usr/bin/python3", self.root.parent / "code") if self.uid else (sys.executable, ROOT / ".collections")
        done = subprocess.run(
            [*prefix, *user, python, "-m", f"{MODULES}.build_command"],
            input=json.dumps({"ANSIBLE_MODULE_ARGS": self.arguments(*argv, **options)}),
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(path), "LC_ALL": "C.UTF-8", "TOKEN": "secret", "HOME": str(self.secret)},
            cwd=self.root,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.stdout, done.stderr
        return Result({"failed": False, **json.loads(done.stdout)})

    def shell(self, script: str, **options: object) -> Result:
        return self.run("sh", "-c", script, **options)

    def said(self, script: str) -> list[str]:
        result = self.shell(script)
        told = tuple(result[name] for name in ("failed", "confined", "network", "sandbox"))
        assert told == (False, True, "isolated", self.sandbox), result
        return result["log_tail"]


@pytest.fixture(scope="module")
def root_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder that everybody reaches, with the collection and ansible-core's module_utils for a user without rights."""
    folder = Path(f"/var/tmp/ggen-gvisor-{os.getpid()}")  # noqa: S108 - pytest's own folders are closed to others
    folder.mkdir(mode=0o755)
    shutil.copytree(ROOT / "plugins", folder / "code/ansible_collections/ggen/gvisor/plugins", ignore=shutil.ignore_patterns("__pycache__"))
    import ansible.module_utils

    target = folder / "code/ansible/module_utils"
    shutil.copytree(Path(ansible.module_utils.__path__[0]), target, ignore=shutil.ignore_patterns("__pycache__"))
    (target.parent / "__init__.py").touch()
    shutil.copy(Path(ansible.module_utils.__path__[0]).parent / "release.py", target.parent)
    shutil.copy(ROOT / "bin/runsc", folder)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(params=["namespaces", "gvisor"])
def sandbox(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=[0, USER], ids=["root", "a user without rights"])
def host(root_folder: Path, request: pytest.FixtureRequest, sandbox: str) -> Iterator[Host]:
    folder = root_folder / "host"
    folder.mkdir()
    yield Host(folder, request.param, sandbox)
    shutil.rmtree(folder)


def test_it_is_a_user_without_rights_for_good(host):
    said = host.said(
        "id -u; id -g; id -G; grep -E '^(Cap(Prm|Eff|Bnd|Inh|Amb)|NoNewPrivs)' /proc/self/status; su -c id; mount -t tmpfs none /tmp"
    )
    # In gVisor the number of the one user that there is, which says nothing: root's rights are the capabilities.
    uid = str(UNPRIVILEGED) if host.sandbox == "namespaces" else "0"
    assert said[:3] == [uid, uid, uid]
    assert {line.split()[1] for line in said[3:8]} == {"0" * 16}
    assert host.sandbox == "gvisor" or said[8].split() == ["NoNewPrivs:", "1"], "gVisor's kernel does not tell"
    assert not [line for line in said if line.startswith("uid=")]


def test_the_kernel_is_whose_it_says(host):
    said = host.said("dmesg | head -1; cat /proc/version")
    assert ("Starting gVisor" in said[0], "gvisor" in said[-1]) == (host.sandbox == "gvisor",) * 2, said


def test_a_set_user_id_file_is_nobody_s(host):
    program = host.writable / "program"
    host.said(f"cp /bin/true {program}; chown 0:0 {program}; chmod 6755 {program}; mknod {host.writable}/device c 1 1; :")
    assert program.stat().st_uid == (host.uid or UNPRIVILEGED)
    assert not (host.writable / "device").exists()


def test_it_writes_its_folders_and_nothing_else(host):
    victims = [host.readable, host.secret, *map(Path, ("/", "/etc", "/usr", "/opt", "/var", "/root", "/proc"))]
    script = "; ".join(f"echo x > {folder}/planted && echo wrote {folder}" for folder in (*victims, host.writable))
    said = host.said(
        f"{script}; echo y >> {host.readable}/file; rm -f {host.readable}/file; chmod 777 {host.readable}; ln {host.readable}/file {host.writable}/link; :"
    )
    assert [line for line in said if line.startswith("wrote")] == [f"wrote {host.writable}"]
    host.said(
        f"echo x > {host.root}/planted; echo x > {host.jobs}/planted; rm -rf {host.root}; echo x > {host.writable}/planted"
    )  # a temporary folder that has its name
    assert not [folder for folder in (*victims, host.root, host.jobs) if (folder / "planted").exists()]
    assert (host.readable / "file").read_text() == "readable\n"
    assert (host.secret / "file").read_text() == "secret\n"
    assert (host.writable / "planted").stat().st_uid == (host.uid or UNPRIVILEGED)


def test_it_reads_what_is_named_and_nothing_else(host):
    said = host.said(
        f"cat {host.readable}/file; cat {host.secret}/file {host.jobs}/test/job.json; ls -A {host.root} /home /root /run /srv /mnt /var"
    )
    assert said[0] == "readable"
    assert "secret" not in said
    assert sorted(line for line in said if line in ("readable", "writable", "secret", "jobs")) == ["readable", "readable", "writable"]
    assert [line for line in said if line == "tmp"] == ["tmp"], "of /var its temporary folder alone"
    assert host.said("env | cut -d= -f1 | sort") == ["HOME", "LC_ALL", "PATH", "PWD", "TMPDIR"]


def test_a_link_out_of_its_folders_leads_nowhere(host):
    (host.writable / "out").symlink_to(host.secret)
    (host.readable / "out").symlink_to(host.secret)
    for folder in (host.writable, host.readable):
        assert "secret" not in host.said(f"cat {folder}/out/file; echo x > {folder}/out/file; :")
    assert (host.secret / "file").read_text() == "secret\n"
    assert (host.secret / "file").stat().st_uid == host.uid, "what it leads to is not given away"


def test_it_reaches_nobody(host):
    path = host.root / "socket"
    with socket.create_server(("127.0.0.1", 0)) as inet, socket.socket(socket.AF_UNIX) as abstract, socket.socket(socket.AF_UNIX) as named:
        abstract.bind("\0ggen-gvisor-test")
        named.bind(str(path))
        path.chmod(0o777)
        for server in (abstract, named):
            server.listen()
        addresses = [inet.getsockname(), "\0ggen-gvisor-test", str(path)]
        script = (
            "import socket\n"
            f"for address in {addresses!r}:\n"
            "    with socket.socket(socket.AF_INET if isinstance(address, tuple) else socket.AF_UNIX) as client:\n"
            "        print('reached' if client.connect_ex(address) == 0 else 'refused')\n"
        )
        result = host.run("/usr/bin/python3", "-c", script)
        assert result["log_tail"] == ["refused"] * 3
        inet.settimeout(0.1)
        with pytest.raises(TimeoutError):
            inet.accept()
    assert [line.split(":")[0].strip() for line in host.said("cat /proc/net/dev") if ":" in line] == ["lo"]


def processes_of(host: Host, word: str) -> list[int]:
    """Return who has the word in its command line, or is of the sandbox, which shows nobody what runs in it."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if word in (path / "cmdline").read_bytes().decode(errors="replace").split("\0") or (path / "exe").samefile(host.runsc):
                found.append(int(path.name))
        except OSError:
            continue
    return found


def test_nothing_is_left_behind(host):
    """Not even what has a session of its own, ignores signals and has no parent."""
    seconds = "31415926"
    script = f"trap '' TERM HUP INT; for i in 1 2 3; do setsid -f sleep {seconds}; done; kill -0 1 && echo alive; kill -9 -1; echo end"
    result = host.shell(script)
    assert result["confined"]
    assert processes_of(host, seconds) == []


@pytest.mark.parametrize("how", ["it ends", "the job is killed", "the job is killed hard", "it takes too long"])
def test_all_of_it_ends_whoever_ends_it(host, how):
    seconds = f"2718281{len(how)}"
    script = f"setsid -f sleep {seconds}; echo ready; [ '{how}' = 'it ends' ] || sleep 100"
    result = host.shell(script, poll=1, timeout=2 if "too long" in how else 90)
    if "killed" in how:
        assert result["running"]
        assert processes_of(host, seconds)
        job = json.loads((host.jobs / "test/job.json").read_text())["pid"]
        os.kill(job, signal.SIGKILL if "hard" in how else signal.SIGTERM)
    deadline = time.monotonic() + 20
    while processes_of(host, seconds) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert processes_of(host, seconds) == []


def test_its_end_is_the_command_s(host):
    assert host.shell("exit 7")["rc"] == 7
    assert host.shell("kill -SEGV $$")["rc"] == 128 + signal.SIGSEGV
    missing = host.run("no-such-program")
    if host.sandbox == "gvisor":  # its own program says so, and ends with a number that is no command's
        assert (missing["rc"], "no-such-program" in missing["log_tail"][-1]) == (128, True)
    else:
        assert (missing["rc"], "no-such-program" in missing["error"] or "No such file" in missing["error"]) == (127, True)
    elsewhere = host.shell("true", chdir=str(host.secret))
    assert elsewhere["rc"] == 127
    assert "No such file" in elsewhere["error"]


def test_a_folder_inside_of_a_folder_to_read_is_written(host):
    inner = host.readable / "target"
    walls = {"readable": [str(host.readable)], "writable": [str(inner)]}
    result = host.shell(f"echo x > {inner}/made && ! touch {host.readable}/made", confinement=walls)
    assert result["rc"] == 0, result
    assert (inner / "made").exists()


def test_a_path_by_way_of_a_link_is_there_by_both_names(host):
    (host.root / "way").symlink_to(host.readable)
    walls = {"readable": [str(host.root / "way")]}
    assert host.shell(f"cat {host.root}/way/file {host.readable}/file", confinement=walls)["log_tail"] == ["readable", "readable"]


def test_what_is_missing_is_named(host):
    result = host.shell("true", confinement={"readable": [f"{host.root}/none"], "required": "nothing"})
    assert f"{host.root}/none is not there" in result["msg"]


def test_where_it_cannot_be_the_command_is_refused_or_says_so(root_folder):
    folder = root_folder / "refused"
    folder.mkdir()
    host = Host(folder, 0)
    mark = folder / "ran"
    refused = host.run("touch", str(mark), prefix=POWERLESS)
    assert refused["failed"]
    assert "make namespaces (unshare): Operation not permitted" in refused["msg"]
    assert "nothing: here" in refused["msg"]
    assert not mark.exists()
    walls = {"readable": [], "writable": [str(host.writable)], "required": ""}
    allowed = host.run("touch", str(mark), prefix=POWERLESS, confinement=walls)
    assert (allowed["rc"], allowed["confined"], allowed["network"]) == (0, False, "shared")
    assert mark.exists()


def test_what_was_made_before_tells_how(host):
    made = host.writable / "made"
    first = host.run("touch", str(made), creates=str(made))
    again = host.run("touch", str(made), creates=str(made))
    for result in (first, again):
        assert (result["confined"], result["network"]) == (True, "isolated")
    other = host.run("touch", "-a", str(made), creates=str(made))
    assert (other["changed"], other["confined"], other["network"]) == (False, False, "shared"), (
        "of what something else made nothing is known"
    )


@pytest.fixture
def alone(root_folder: Path) -> Iterator[Host]:
    """Root's build, in a gVisor sandbox."""
    folder = root_folder / "alone"
    folder.mkdir()
    yield Host(folder, 0, "gvisor")
    shutil.rmtree(folder)


@pytest.mark.parametrize("program", ["none", "no gVisor"])
def test_without_gvisor_nothing_is_run_or_namespaces_serve(alone, program):
    path = alone.root / "runsc"
    if program == "no gVisor":
        shutil.copy("/bin/echo", path)
    alone.runsc = path
    refused = alone.run("touch", str(alone.writable / "ran"))
    assert refused["failed"]
    reason = f"it has no runsc ({path})" if program == "none" else f"{path} starts no gVisor sandbox: --rootless"
    for part in ("this host gives a build no gVisor sandbox", reason, "Nothing was run", "nothing: here"):
        assert part in refused["msg"]
    assert not (alone.writable / "ran").exists()
    unsaid = {"writable": [str(alone.writable)]}
    assert "sandbox: namespaces" in alone.run("touch", str(alone.writable / "ran"), confinement=unsaid)["msg"], "it needs no word for it"
    alone.sandbox = "auto"
    result = alone.run("touch", str(alone.writable / "ran"))
    assert (result["rc"], result["sandbox"]) == (0, "namespaces")


def test_auto_takes_gvisor_where_it_is(alone):
    alone.sandbox = "auto"
    alone.runsc = alone.root.parent / "*" / "runsc"
    (alone.root.parent / "alone/runsc").symlink_to("../runsc")
    result = alone.shell(f"ls -A {FOLDER}; touch {FOLDER}/planted || echo refused")
    assert (result["rc"], result["sandbox"]) == (0, "gvisor")
    assert (len(result["log_tail"]), result["log_tail"][-1]) == (2, "refused"), (
        "what gVisor's program needs is not there for who runs in it"
    )


@pytest.mark.parametrize("release", [path.parent.parent.name for path in sorted((ROOT / "bin").glob("*/linux_*/runsc"))])
def test_every_release_makes_the_sandbox(alone, release):
    (alone.runsc,) = (ROOT / "bin").glob(f"{release}/linux_*/runsc")
    result = alone.shell(f"echo x > {alone.writable}/made; echo x > {alone.readable}/file || cat {alone.readable}/file; exit 3")
    assert (result["rc"], result["sandbox"], result["log_tail"][-1]) == (3, "gvisor", "readable")
    assert (alone.writable / "made").read_text() == "x\n"
