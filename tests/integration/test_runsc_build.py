# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Role runsc_build, run by Ansible.

Most tests give it a table of their own, whose release is a Go program of a few lines with one vendored module: the
role, Go, the cache and the sums are real, and a build takes seconds. The tests marked slow build gVisor itself.
"""

from __future__ import annotations

import base64
import copy
import fcntl
import hashlib
import io
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import ansible_runner
import pytest
import yaml
from ansible_collections.ggen.gvisor.plugins.module_utils._builds import release_index
from ansible_collections.ggen.gvisor.plugins.plugin_utils._gvisor.releases import module_sums, usable
from conftest import ROOT
from support import containerd_debs
from support.containerd import Daemon
from support.gvisor import gvisor_dir
from support.http import serving
from support.missing import MISSING
from support.module import run_module
from support.supply import checked_sbom, checked_statement, digests

PROGRAM = """package main

import (
    "fmt"
    "os"

    "made.up/score"
)

var version = "none"

func main() {
    if len(os.Args) > 1 && os.Args[1] == "--version" {
        fmt.Println("runsc version", version)
        return
    }
    fmt.Println("Starting gVisor...", score.Word())
}
"""
LIBRARY = 'package score\n\nfunc Word() string { return "strict" }\n'
PATCH = 'package score\n\nfunc Word() string { return "tolerant" }\n'
RELEASE = "20990101"
PROGRAMS = ("runsc", "runsc-shim", "runsc.patched")
MODULE_SUM = f"h1:{base64.b64encode(bytes(32)).decode()}"
GO = shutil.which("go") or "/usr/local/go/bin/go"
TABLE = yaml.safe_load((ROOT / "vendors" / "gvisor" / "releases.yml").read_text())


def go_version() -> str:
    found = run_module("go_toolchain", version="1.21", dest=MISSING, go=GO)
    return found["version"].split()[0].removeprefix("go")


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


class Project:
    """A table of releases with one row, a cache, and a project that uses the role."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.vendors, self.cache, self.bin = root / "vendors", root / "cache", root / "bin"
        self.folder = self.vendors / "gvisor" / RELEASE
        write(
            self.folder / "go.mod",
            "module made.up\n\ngo 1.21\n\nrequire made.up/score v0.0.0\n\nreplace made.up/score => ./score\n",
        )
        write(self.folder / "go.sum", f"made.up/score v0.0.0 {MODULE_SUM}\n")
        for package in ("runsc", "shim"):
            write(self.folder / package / "main.go", PROGRAM)
        write(self.folder / "score" / "go.mod", "module made.up/score\n\ngo 1.21\n")
        write(self.folder / "score" / "score.go", LIBRARY)
        write(self.vendors / "gvisor" / "overlay" / "score.go", PATCH)
        self.table = copy.deepcopy(TABLE)
        self.table["go"]["version"] = go_version()
        self.table["build"]["ldflags"] = "-s -w -X main.version={stamp}"
        files = [
            {"name": "runsc", "package": "made.up/runsc", "mode": "0755"},
            {"name": "runsc-shim", "package": "made.up/shim", "mode": "0755"},
            {
                "name": "runsc.patched",
                "package": "made.up/runsc",
                "mode": "0755",
                "overlay": {"made.up/score/score.go": "score.go"},
            },
        ]
        row = {
            **self.table["releases"]["20260518"],
            "stamp": "20990101.0-made",
            "needs_go": "1.21",
            "files": files,
            "sha256": {},
        }
        self.table["releases"] = {RELEASE: row}
        self.runs = itertools.count()

    @property
    def row(self) -> dict:
        return self.table["releases"][RELEASE]

    @property
    def built(self) -> Path:
        return self.bin / RELEASE / "linux_amd64"

    def run(self, cmdline: str = "", **variables: object) -> ansible_runner.Runner:
        write(self.vendors / "gvisor" / "releases.yml", yaml.safe_dump(self.table, sort_keys=False))
        return play(self.root / f"run{next(self.runs)}", cmdline, **{**self.variables, **variables})

    @property
    def variables(self) -> dict[str, object]:
        return {
            "runsc_build_arch": ["amd64"],
            "runsc_build_dest": str(self.bin),
            "runsc_build_cache": str(self.cache),
            "_runsc_build_vendors": str(self.vendors),
            "_runsc_build_gocache": str(self.root.parent / "go-build"),
        }


def play(folder: Path, cmdline: str = "", **variables: object) -> ansible_runner.Runner:
    """Run the role on this machine, as ansible-playbook would."""
    folder.mkdir(parents=True)
    return ansible_runner.run(
        private_data_dir=str(folder),
        playbook=[{"hosts": "all", "gather_facts": False, "roles": ["ggen.gvisor.runsc_build"]}],
        inventory={
            "all": {
                "hosts": {
                    "builder": {
                        "ansible_connection": "local",
                        "ansible_python_interpreter": "{{ ansible_playbook_python }}",
                    }
                }
            }
        },
        envvars={
            "ANSIBLE_PIPELINING": "1",
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".collections"),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        },
        extravars=variables,
        cmdline=cmdline,
        quiet=True,
    )


def stats(runner: ansible_runner.Runner) -> tuple[int, int]:
    """Return how many tasks changed something and how many failed."""
    assert runner.stats, runner.stdout.read()
    return sum(runner.stats["changed"].values()), sum(runner.stats["failures"].values())


def output(runner: ansible_runner.Runner) -> str:
    return " ".join(runner.stdout.read().split())


# What runs on the controller alone, without starting a Python anywhere.
LOCAL_ACTIONS = {"debug", "include_role", "include_tasks", "set_fact", "validate_argument_spec", "assert"}


def executions(runner: ansible_runner.Runner) -> list[str]:
    """Return the tasks for which a module was executed."""
    done = [event["event_data"] for event in runner.events if event["event"] in ("runner_on_ok", "runner_on_failed")]
    return [data["task"] for data in done if data["task_action"].split(".")[-1] not in LOCAL_ACTIONS]


def sums(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, ansible_runner.Runner]:
    project = Project(tmp_path_factory.mktemp("first"))
    return project, project.run()


@pytest.fixture
def project(first: tuple[Project, ansible_runner.Runner], tmp_path: Path) -> Project:
    """A copy of the first project, built."""
    mine = Project(tmp_path)
    for name in ("cache", "bin"):
        shutil.copytree(first[0].root / name, tmp_path / name, symlinks=True)
    return mine


def test_a_build_from_nothing(first):
    project, runner = first
    assert stats(runner)[1] == 0, runner.stdout.read()
    said = subprocess.run([project.bin / "runsc", "--version"], capture_output=True, text=True, check=True).stdout
    assert said == "runsc version 20990101.0-made\n"
    manifest = json.loads((project.built / "manifest.json").read_text())
    found = sums(project.built)
    assert {name: entry["sha256"] for name, entry in manifest["files"].items()} == {
        name: found[name] for program in PROGRAMS for name in (program, f"{program}.cdx.json", f"{program}.intoto.json")
    }
    inputs = manifest["made_from"]["inputs"]
    assert inputs["go"] == project.table["go"]["version"]
    assert inputs["ldflags"].endswith("20990101.0-made")
    assert inputs["patches"] == {"overlay/score.go": hashlib.sha256(PATCH.encode()).hexdigest()}
    assert manifest["metadata"]["modules"] == {"made.up/score@v0.0.0": MODULE_SUM}
    assert list((project.cache / "work").iterdir()) == []
    assert "runsc version 20990101.0-made works, and runs a program in its sandbox" in output(runner)


def test_the_patch_is_in_the_patched_program_alone(first):
    for name, word in (("runsc", "strict"), ("runsc-shim", "strict"), ("runsc.patched", "tolerant")):
        said = subprocess.run([first[0].built / name, "run"], capture_output=True, text=True, check=True).stdout
        assert word in said


def test_the_compile_had_no_network_and_no_rights_and_that_is_told(first):
    project, runner = first
    compiled = [event["event_data"].get("res", {}) for event in runner.events if event["event_data"].get("task") == "Compile the programs"]
    compiled = [result for result in compiled if "network" in result]
    # One for the programs of the same sources, one for the patched program.
    assert [(result["network"], result["confined"]) for result in compiled] == [("isolated", True)] * 2
    told = {"network": "isolated", "confined": True, "sandbox": "namespaces"}
    assert json.loads((project.built / "manifest.json").read_text())["metadata"]["build"] == told
    statement = checked_statement((project.built / "runsc.intoto.json").read_text())
    assert statement["predicate"]["buildDefinition"]["internalParameters"]["build"] == told


def test_in_gvisor_it_is_the_same_bytes_and_the_same_key(first, tmp_path):
    project = Project(tmp_path)
    there = project.bin / "20200101" / "linux_amd64"
    there.mkdir(parents=True)
    (there / "runsc").symlink_to(ROOT / "bin" / "runsc")
    # With object files of its own: nothing of what it compiles comes from the other build.
    runner = project.run(runsc_build_sandbox="gvisor", _runsc_build_gocache="")
    assert stats(runner)[1] == 0, output(runner)
    mine, other = (json.loads((of.built / "manifest.json").read_text()) for of in (project, first[0]))
    assert mine["metadata"]["build"] == {"network": "isolated", "confined": True, "sandbox": "gvisor"}
    assert mine["key"] == other["key"]
    assert {name: mine["files"][name] for name in PROGRAMS} == {name: other["files"][name] for name in PROGRAMS}
    shutil.rmtree(project.bin)
    assert stats(project.run(runsc_build_sandbox="gvisor"))[1] == 0, "what is in the cache needs no runsc"


def test_without_runsc_a_build_in_gvisor_is_refused_before_anything_is_fetched(tmp_path):
    project = Project(tmp_path)
    said = output(project.run(runsc_build_sandbox="gvisor", _runsc_build_runscs=["/nowhere/{arch}/runsc"]))
    for part in ("this host gives a build no gVisor sandbox: it has no runsc (/nowhere/amd64/runsc)", "runsc_build_sandbox: namespaces"):
        assert part in said
    assert not (project.cache / "work").exists()
    assert not project.bin.exists()


@pytest.mark.parametrize("confinement", ["required", "best_effort"])
def test_a_host_without_the_right_to_confine(tmp_path, confinement):
    """A container without CAP_SYS_ADMIN: refused before anything is compiled, or told."""
    project = Project(tmp_path)
    write(project.vendors / "gvisor" / "releases.yml", yaml.safe_dump(project.table, sort_keys=False))
    told = {
        "ansible_connection": "local",
        "ansible_python_interpreter": sys.executable,
        "runsc_build_confinement": confinement,
        **project.variables,
    }
    book = tmp_path / "play.yml"
    book.write_text(json.dumps([{"hosts": "all", "gather_facts": False, "roles": ["ggen.gvisor.runsc_build"]}]))
    done = subprocess.run(
        [
            *("setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin"),
            *(Path(sys.executable).with_name("ansible-playbook"), "-i", "localhost,", book, "-e", json.dumps(told)),
        ],
        env={**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".collections")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    said = " ".join((done.stdout + done.stderr).split())
    if confinement == "required":
        assert done.returncode != 0
        assert "this host cannot keep a build from its files and the network" in said
        assert "runsc_build_confinement: best_effort" in said
        assert not project.bin.exists()
    else:
        assert done.returncode == 0, said[-3000:]
        assert "this host confines no build, so it ran as the user who runs this, with the network" in said
        manifest = json.loads((project.built / "manifest.json").read_text())
        assert manifest["metadata"]["build"] == {"confined": False, "network": "shared", "sandbox": "none"}


def test_a_second_run_is_one_execution_and_changes_nothing(project):
    runner = project.run()
    assert stats(runner) == (0, 0)
    assert executions(runner) == ["Look in its place and in the controller's cache"]


def test_a_second_clone_builds_nothing(project):
    shutil.rmtree(project.bin)
    runner = project.run()
    assert stats(runner) == (1, 0)
    assert len(executions(runner)) == 1
    assert (project.bin / "runsc").resolve() == project.built / "runsc"


def test_a_release_gives_what_the_sources_give(project):
    """The build of the sources is the release; another checkout with an empty cache takes it, and a Go would be seen: none can be found."""
    release, theirs = project.root / "release", project.root / "theirs"
    project.row["sha256"] = {"amd64": {name: sums(project.built)[name] for name in PROGRAMS}}
    made = release_index.write(str(release), [str(project.built)])
    options = {
        "runsc_build_source": "release",
        "gvisor_release_url": release.as_uri(),
        "gvisor_release_sha256": made["sha256"],
        "runsc_build_dest": str(theirs / "bin"),
        "runsc_build_cache": str(theirs / "cache"),
    }
    checked = project.run("--check --diff", **options)
    assert stats(checked) == (1, 0), output(checked)
    assert not theirs.exists()
    taken = project.run(**options)
    assert stats(taken) == (1, 0), output(taken)
    assert not {"Find the pinned Go, or fetch it", "Look on the build host"} & set(executions(taken))
    same = theirs / "bin" / RELEASE / "linux_amd64"
    assert sums(same) == sums(project.built)
    assert [(same / name).stat().st_mode for name in PROGRAMS] == [(project.built / name).stat().st_mode for name in PROGRAMS]
    assert (theirs / "bin" / "runsc").resolve() == same / "runsc"
    key = json.loads((same / "manifest.json").read_text())["key"]
    assert sums(theirs / "cache/objects" / key) == sums(project.cache / "objects" / key)
    again = project.run(**options)
    assert (stats(again), len(executions(again))) == ((0, 0), 1)


def test_a_release_of_other_programs_is_refused(project):
    """Whoever made it: its index has the sum that the user trusts, and a program is not the pinned one."""
    release, theirs = project.root / "release", project.root / "theirs"
    made = release_index.write(str(release), [str(project.built)])
    project.row["sha256"] = {"amd64": {"runsc": "0" * 64}}
    options = {
        "runsc_build_source": "release",
        "gvisor_release_url": str(release),
        "gvisor_release_sha256": made["sha256"],
        "runsc_build_dest": str(theirs / "bin"),
        "runsc_build_cache": str(theirs / "cache"),
    }
    refused = project.run(**options)
    assert stats(refused) == (0, 1)
    assert f"runsc: {sums(project.built)['runsc']} instead of {'0' * 64}" in output(refused)
    assert not theirs.exists()
    named = project.run(**options, runsc_build_go=GO)
    assert "Leave runsc_build_go" in output(named)


def test_a_changed_byte_is_fixed_without_a_build(project):
    before = sums(project.built)
    data = bytearray((project.built / "runsc").read_bytes())
    data[-1] ^= 1
    (project.built / "runsc").write_bytes(data)
    assert sums(project.built) != before
    runner = project.run("--check --diff")
    assert stats(runner) == (1, 0)
    assert sums(project.built) != before
    runner = project.run()
    assert (stats(runner), len(executions(runner))) == ((1, 0), 1)
    assert sums(project.built) == before
    assert stats(project.run()) == (0, 0)


def test_check_mode_on_a_bare_machine(tmp_path):
    project = Project(tmp_path)
    runner = project.run("--check --diff")
    assert stats(runner) == (1, 0)
    assert f"would build runsc {RELEASE}/amd64" in output(runner)
    assert not project.cache.exists()
    assert not project.bin.exists()


def change_flag(project: Project) -> None:
    project.table["build"]["ldflags"] = "-s -X main.version={stamp}"


def change_patch(project: Project) -> None:
    write(project.vendors / "gvisor" / "overlay" / "score.go", PATCH.replace("tolerant", "very tolerant"))


def change_pin(project: Project) -> None:
    write(project.folder / "go.sum", f"made.up/score v0.0.0 h1:{base64.b64encode(bytes(31) + b'x').decode()}\n")


@pytest.mark.parametrize("change", [change_flag, change_patch, change_pin])
def test_a_changed_input_is_another_build(project, change: Callable[[Project], None]):
    before = json.loads((project.built / "manifest.json").read_text())
    change(project)
    runner = project.run()
    assert stats(runner)[1] == 0, runner.stdout.read()
    assert "Compile the programs" in executions(runner)
    after = json.loads((project.built / "manifest.json").read_text())
    assert before["key"] != after["key"]
    same = {name for name, entry in before["files"].items() if entry == after["files"][name]}
    assert ("runsc.patched" in same) == (change is change_pin)
    assert not same & {f"{name}.intoto.json" for name in PROGRAMS}, "they tell of each input"


def test_a_build_that_differs_from_the_table_fails_and_is_not_kept(project):
    right = sums(project.built)
    project.row["sha256"] = {"amd64": {"runsc": right["runsc"], "runsc.patched": "0" * 64}}
    runner = project.run()
    assert stats(runner)[1] == 1
    said = output(runner)
    assert "gave other programs than releases.yml tells. Wrong: runsc.patched." in said
    assert right["runsc.patched"] in said
    assert list((project.cache / "objects").iterdir()) == []
    project.row["sha256"]["amd64"]["runsc.patched"] = right["runsc.patched"]
    assert stats(project.run())[1] == 0


def test_another_go_is_recorded_and_not_compared(project):
    project.row["sha256"] = {"amd64": {"runsc": "0" * 64}}
    go = shutil.which("go") or "/usr/local/go/bin/go"
    runner = project.run(runsc_build_go=go)
    assert stats(runner)[1] == 0, runner.stdout.read()
    assert "its programs were not compared" in output(runner)
    manifest = json.loads((project.built / "manifest.json").read_text())
    assert manifest["metadata"]["compared"] is False
    assert set(manifest["made_from"]["inputs"]["go"]) == {"version", "sha256"}
    assert stats(project.run(runsc_build_go=go)) == (0, 0)


def test_a_build_host_of_its_own(project):
    """The build host's cache and the controller's are two: built there, fetched, and kept here."""
    controller, host = project.root / "controller-home", project.root / "host-home"
    inventory = {"runsc_build_cache": "", "_runsc_build_remote": True, "_runsc_build_host_cache": str(host)}
    shutil.rmtree(project.bin)
    os.environ["XDG_CACHE_HOME"] = str(controller)
    try:
        runner = project.run(**inventory)
    finally:
        del os.environ["XDG_CACHE_HOME"]
    assert stats(runner)[1] == 0, runner.stdout.read()
    assert (host / "builds" / RELEASE / "linux_amd64" / "runsc").exists()
    there = host / "builds" / RELEASE / "linux_amd64"
    ours = {"manifest.json", *(f"{name}.{kind}.json" for name in PROGRAMS for kind in ("cdx", "intoto"))}
    assert {name: sum for name, sum in sums(project.built).items() if name not in ours} == {
        name: sum for name, sum in sums(there).items() if name != "manifest.json"
    }, "nothing besides what the controller itself writes"
    assert ours <= sums(project.built).keys()
    assert os.access(project.built / "runsc", os.X_OK)
    assert len(list((controller / "ggen.gvisor" / "objects").iterdir())) >= 1


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"runsc_build_release": "20991231"}, "there is no release '20991231'; known: 20990101"),
        ({"runsc_build_arch": ["mips"]}, "'mips' is no architecture built here; known: amd64, arm64"),
        ({"runsc_build_targets": [{"containerd": "1.5.9"}]}, "containerd 1.5.9 works with the shim of no release"),
        ({"runsc_build_go": f"{MISSING}/go"}, f"{MISSING}/go is not a program"),
    ],
)
def test_bad_input_is_refused_before_anything_changes(tmp_path, variables, message):
    project = Project(tmp_path)
    write(project.vendors / "gvisor" / "releases.yml", yaml.safe_dump(project.table, sort_keys=False))
    defaults = {"runsc_build_dest": str(project.bin), "runsc_build_cache": str(project.cache)}
    runner = play(tmp_path / "run", _runsc_build_vendors=str(project.vendors), **{**defaults, **variables})
    assert stats(runner) == (0, 1)
    assert message in output(runner)
    assert not project.cache.exists()
    assert not project.bin.exists()


def test_two_runs_at_the_same_time_build_once(project):
    """Both from nothing: whoever is first builds, the other one joins in or finds the result."""
    for path in (project.bin, project.cache / "objects"):
        shutil.rmtree(path)
    change_patch(project)
    with ThreadPoolExecutor(2) as pool:
        runners = list(pool.map(lambda _number: project.run(), range(2)))
    for runner in runners:
        assert stats(runner)[1] == 0, runner.stdout.read()
    results = [event["event_data"].get("res", {}) for runner in runners for event in runner.events]
    compiled = [result["log"] for result in results if result.get("changed") and result.get("attached") is False]
    assert len(compiled) == len(set(compiled)), "something was compiled twice"
    assert stats(project.run()) == (0, 0)
    assert list((project.cache / "work").iterdir()) == []


def test_a_run_that_fails_leaves_what_another_one_compiles(project):
    """It used to take away the folder that the other run's go build was about to write to."""
    key = json.loads((project.built / "manifest.json").read_text())["key"][:16]
    for path in (project.bin, project.cache / "objects"):
        shutil.rmtree(path)
    half = project.cache / "work" / key / "programs" / "0" / "half"
    write(half, "")
    job = project.cache / "jobs" / key / f"runsc-{RELEASE}-amd64-runsc-and-runsc-shim"
    with (job / "lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        (job / "job.json").write_text(json.dumps({"id": "another", "pid": 1, "argv": ["another", "command"]}))
        runner = project.run()
    assert stats(runner)[1] == 1
    assert "another command of this name is running" in output(runner)
    assert half.exists()


def test_a_module_that_go_sum_does_not_pin_stops_the_build(tmp_path, monkeypatch):
    """It comes from a proxy that serves other bytes than those that go.sum was written for; nothing is compiled, kept or put in its place."""
    project = Project(tmp_path)
    write(project.folder / "go.mod", "module made.up\n\ngo 1.21\n\nrequire made.up/score v0.0.1\n")
    write(project.folder / "go.sum", f"made.up/score v0.0.1 {MODULE_SUM}\nmade.up/score v0.0.1/go.mod {MODULE_SUM}\n")
    module = b"module made.up/score\n\ngo 1.21\n"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("made.up/score@v0.0.1/go.mod", module)
        archive.writestr("made.up/score@v0.0.1/score.go", LIBRARY)
    files = {"info": b'{"Version": "v0.0.1"}', "mod": module, "zip": buffer.getvalue()}
    with serving(lambda path: files.get(path.rpartition(".")[2])) as (address, asked):
        monkeypatch.setenv("GOPROXY", address)
        monkeypatch.setenv("GOMODCACHE", str(tmp_path / "modules"))
        monkeypatch.setenv("GOFLAGS", "-modcacherw")
        # What would keep Go from asking its database of sums says nothing of go.sum.
        monkeypatch.setenv("GONOSUMDB", "*")
        runner = project.run()
    assert asked
    assert stats(runner)[1] == 1, runner.stdout.read()
    assert "checksum mismatch" in output(runner)
    assert not project.bin.exists()
    assert list((project.cache / "objects").glob("*")) == []


def test_each_program_has_its_provenance(first):
    project, _runner = first
    found, patch = sums(project.built), hashlib.sha256(PATCH.encode()).hexdigest()
    told = {name: checked_statement((project.built / f"{name}.intoto.json").read_text()) for name in PROGRAMS}
    for name, statement in told.items():
        assert digests(statement["subject"]) == {name: found[name]}
        dependencies = digests(statement["predicate"]["buildDefinition"]["resolvedDependencies"])
        assert dependencies[f"vendors/gvisor/{RELEASE}/go.sum"] == hashlib.sha256((project.folder / "go.sum").read_bytes()).hexdigest()
        assert dependencies.get("vendors/gvisor/overlay/score.go") == (patch if name == "runsc.patched" else None)
        assert digests(statement["predicate"]["runDetails"]["byproducts"]) == {f"{name}.cdx.json": found[f"{name}.cdx.json"]}


def test_each_program_has_the_sbom_that_go_tells(first):
    project, _runner = first
    found, go = sums(project.built), f"go{project.table['go']['version']}"
    for name in PROGRAMS:
        sbom = checked_sbom((project.built / f"{name}.cdx.json").read_text())
        assert sbom["metadata"]["component"]["hashes"] == [{"alg": "SHA-256", "content": found[name]}]
        told = {one["name"]: (one["version"], one.get("hashes")) for one in sbom["components"]}
        assert told == {"made.up/score": ("v0.0.0", [{"alg": "SHA-256", "content": bytes(32).hex()}]), "std": (go, None)}


def test_a_build_without_its_documents_gets_them(project):
    """The build is in the cache without documents, as another controller's build host keeps it."""
    manifest = json.loads((project.built / "manifest.json").read_text())
    described = sums(project.built)
    shutil.rmtree(project.cache)
    manifest["files"] = {name: entry for name, entry in manifest["files"].items() if not name.endswith(".json")}
    (project.built / "manifest.json").write_text(json.dumps(manifest))
    for path in (*project.built.glob("*.intoto.json"), *project.built.glob("*.cdx.json")):
        path.unlink()
    assert stats(project.run("--check")) == (1, 0)
    assert [path.name for path in project.built.glob("*.json")] == ["manifest.json"]
    assert stats(project.run()) == (1, 0)
    assert sums(project.built) == described
    assert stats(project.run()) == (0, 0)


@pytest.mark.parametrize("name", ["runsc.cdx.json", "runsc.intoto.json"])
def test_a_changed_document_is_fixed(project, name):
    path = project.built / name
    original = path.read_bytes()
    path.write_bytes(original.replace(b"{", b"[", 1))
    assert stats(project.run("--check")) == (1, 0)
    assert stats(project.run()) == (1, 0)
    assert path.read_bytes() == original


# gVisor itself.


def cold_build(root: Path) -> tuple[Path, dict]:
    """Build the oldest release with nothing in the cache; Go's own build cache is empty."""
    release = "20260224"
    runner = play(
        root / "run",
        runsc_build_release=release,
        runsc_build_arch=["amd64"],
        runsc_build_dest=str(root / "bin"),
        runsc_build_cache=str(root / "cache"),
    )
    assert stats(runner)[1] == 0, runner.stdout.read()
    assert "Compile the programs" in executions(runner)
    return root / "bin" / release / "linux_amd64", TABLE["releases"][release]


@pytest.mark.slow
def test_two_builds_of_gvisor_in_different_folders_are_the_same_bytes(tmp_path):
    """Both are real builds. The table's sums come from a third one, on another day."""
    one, row = cold_build(tmp_path / "one")
    two, _row = cold_build(tmp_path / "a longer" / "path")
    assert sums(one) == sums(two)  # the manifest and the SBOMs too
    assert {name: sums(one)[name] for name in row["sha256"]["amd64"]} == row["sha256"]["amd64"]
    sbom = json.loads((one / "runsc.cdx.json").read_text())
    assert sbom["bomFormat"] == "CycloneDX"
    assert sums(one)["runsc"] in json.dumps(sbom)
    assert len(sbom["components"]) > 10
    print(f"first  {sums(one)['runsc']}\nsecond {sums(two)['runsc']}")


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every release for this machine, from the user's cache; what that lacks is built."""
    root = tmp_path_factory.mktemp("releases")
    runner = play(root / "run", runsc_build_release=list(TABLE["releases"]), runsc_build_dest=str(root / "bin"))
    assert stats(runner)[1] == 0, runner.stdout.read()
    return root / "bin"


@pytest.mark.slow
@pytest.mark.parametrize("release", TABLE["releases"])
def test_sbom_and_provenance_of_gvisor_tell_what_the_programs_do(releases, release):
    """By the tools that others would use: CycloneDX's validator, in-toto's library, and Go, which reads the program's own list of modules."""
    (built,) = (releases / release).glob("linux_*")
    row, found = TABLE["releases"][release], sums(built)
    for name in (file["name"] for file in row["files"]):
        sbom = checked_sbom((built / f"{name}.cdx.json").read_text())
        said = subprocess.run([GO, "version", "-m", built / name], capture_output=True, text=True, check=True).stdout
        modules = dict(re.findall(r"^\tdep\t(\S+)\t(\S+)", said, re.MULTILINE))
        assert len(modules) > 10
        assert {one["name"]: one["version"] for one in sbom["components"]} == {**modules, "std": f"go{TABLE['go']['version']}"}
        assert sbom["metadata"]["component"]["hashes"] == [{"alg": "SHA-256", "content": found[name]}]

        statement = checked_statement((built / f"{name}.intoto.json").read_text())
        assert digests(statement["subject"]) == {name: found[name]}
        definition = statement["predicate"]["buildDefinition"]
        resolved = {one["name"]: one["digest"] for one in definition["resolvedDependencies"]}
        sources = module_sums(*((ROOT / "vendors" / "gvisor" / release / pin).read_text() for pin in ("go.mod", "go.sum")))
        listed = {one["name"]: one.get("hashes") for one in sbom["components"]}
        for module, version in {**modules, "gvisor.dev/gvisor": row["module"]}.items():
            h1 = base64.b64decode(sources[f"{module}@{version}"].removeprefix("h1:")).hex()
            assert resolved[f"{module}@{version}"] == {"dirHash1": h1}
            assert module not in modules or listed[module] == [{"alg": "SHA-256", "content": h1}]
        assert {wheel["file"] for wheel in TABLE["go"]["wheels"].values()} <= resolved.keys()


@pytest.mark.slow
@pytest.mark.parametrize("version", containerd_debs.VERSIONS)
@pytest.mark.parametrize("release", TABLE["releases"])
def test_a_release_works_with_the_containerds_that_its_row_names(releases, tmp_path, monkeypatch, release, version):
    """And with no other: a row's range is neither too wide nor too narrow."""
    monkeypatch.setenv("PATH", containerd_debs.ensure(version).path)
    monkeypatch.setenv("GGEN_GVISOR_TEST_BIN", str(next((releases / release).glob("linux_*"))))
    with Daemon(tmp_path / "containerd", bin_dir=gvisor_dir(tmp_path / "bin")) as daemon:
        result = run_module("containerd_proof", address=daemon.address, state_dir=str(tmp_path / "proof"))
    assert result["failed"] is not usable(TABLE["releases"][release], version), result
    if not result["failed"]:
        assert result["kernel"].startswith("Starting gVisor")


@pytest.mark.slow
def test_the_unpatched_shim_needs_the_capability(releases, tmp_path, monkeypatch):
    """Where this stops to fail, the patch is no longer needed."""
    built = next((releases / "20260224").glob("linux_*"))
    (tmp_path / "bin").mkdir()
    for name in ("runsc", "containerd-shim-runsc-v1"):
        (tmp_path / "bin" / name).symlink_to(built / name)
    monkeypatch.setenv("PATH", containerd_debs.ensure("1.6.20").path)
    with Daemon(tmp_path / "containerd", bin_dir=tmp_path / "bin") as daemon:
        result = run_module("containerd_proof", address=daemon.address, state_dir=str(tmp_path / "proof"))
    capable = int(re.search(r"^CapEff:\s*(\S+)", Path("/proc/self/status").read_text(), re.M)[1], 16) >> 24 & 1
    assert result["failed"] is not bool(capable), result
    if not capable:
        assert "OOM" in result["msg"]


def test_the_role_asks_for_room_for_the_largest_release():
    needs = yaml.safe_load((ROOT / "roles/containerd_gvisor/vars/main.yml").read_text())["_containerd_gvisor_needs"]
    sizes = [sum(path.stat().st_size for path in folder.glob("linux_*/*") if "." not in path.name) for folder in (ROOT / "bin").glob("2*")]
    assert sizes, "ansible-playbook tests/build.yml"
    assert needs["release"]["mb"] * 1000000 > max(sizes)
