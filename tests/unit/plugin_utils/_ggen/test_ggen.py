# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pure functions of plugin_utils/_ggen/ and their filters."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import tomllib
from ansible.errors import AnsibleFilterError
from ansible_collections.ggen.gvisor.plugins.filter.ggen_jobs import FilterModule
from ansible_collections.ggen.gvisor.plugins.filter.ggen_problem import ggen_problem
from ansible_collections.ggen.gvisor.plugins.filter.ggen_results import ggen_results
from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._ggen import advice, output
from ansible_collections.ggen.gvisor.plugins.plugin_utils._ggen import jobs as planned
from ansible_collections.ggen.gvisor.plugins.plugin_utils._ggen import manifest as manifests

COMMON = {"args": "sync", "timeout": 300, "mounts": []}
MANIFEST = '[project]\nname = "p"\n[ontology]\nsource = "o.ttl"\n[generation]\nrules = []\n'

ggen_jobs = FilterModule().filters()["ggen_jobs"]


def job(path: str = "/srv/m", **options: object) -> dict[str, object]:
    """Return one job."""
    return planned.jobs([{"path": path, **options}], COMMON)[0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sync", ["sync"]),
        ("sync --rule 'a b' --dry_run true", ["sync", "--rule", "a b", "--dry_run", "true"]),
        (["sync", "--timeout", 5000], ["sync", "--timeout", "5000"]),
        ("sync $HOME `id` ; rm *", ["sync", "$HOME", "`id`", ";", "rm", "*"]),
    ],
)
def test_arguments_are_split_without_a_shell(text: object, words: list[str]) -> None:
    assert planned.split_arguments(text) == words


@pytest.mark.parametrize(("text", "message"), [("sync 'a", "Balance the quotes"), ("  ", "is empty"), ([], "is empty")])
def test_bad_arguments_are_refused(text: object, message: str) -> None:
    with pytest.raises(GvisorError, match=message):
        planned.split_arguments(text)


def test_a_workspace_lays_its_options_over_the_common_ones() -> None:
    first, second = planned.jobs([{"path": "/a"}, {"path": "/b/", "args": ["init"], "timeout": 5}], COMMON)
    assert first == {"path": "/a", "args": ["sync"], "timeout": 300, "mounts": [], "manifest": "/a/ggen.toml"}
    assert second == {"path": "/b", "args": ["init"], "timeout": 5, "mounts": [], "manifest": ""}


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([{"path": ""}], "has no path"),
        ([{}], "has no path"),
        ([{"path": "/a", "argz": "x"}], "unknown key argz"),
        ([{"path": "/a"}, {"path": "/a/"}], "names /a twice"),
        ([{"path": "a"}], "on another host and not absolute"),
        ([{"path": "~/a"}], "on another host and not absolute"),
    ],
)
def test_bad_workspaces_are_refused(entries: list[dict[str, object]], message: str) -> None:
    with pytest.raises(GvisorError, match=message):
        planned.jobs(entries, COMMON)


def test_relative_paths_and_the_home_folder_mean_something_on_the_controller() -> None:
    found = planned.jobs([{"path": "a/../b"}, {"path": "~/c"}, {"path": "~"}, {"path": "/d"}], COMMON, "/here", "/home/u")
    assert [entry["path"] for entry in found] == ["/here/b", "/home/u/c", "/home/u", "/d"]


@pytest.mark.parametrize(
    ("args", "manifest"),
    [
        ("sync", "/srv/m/ggen.toml"),
        ("sync --manifest sub/x.toml", "/srv/m/sub/x.toml"),
        ("sync --manifest=sub/x.toml", "/srv/m/sub/x.toml"),
        ("sync --queries q", ""),
        ("sync --queries=q", ""),
        ("init", ""),
        ("--version", ""),
    ],
)
def test_the_manifest_that_ggen_opens(args: str, manifest: str) -> None:
    assert job(args=args)["manifest"] == manifest


def test_the_filter_resolves_paths_only_here_and_puts_the_example_where_the_host_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert ggen_jobs([{"path": "x"}], COMMON, local=True)[0]["path"] == f"{tmp_path}/x"
    assert ggen_jobs([{"path": "~/x"}], COMMON, local=True)[0]["path"] == os.path.expanduser("~/x")
    assert ggen_jobs([{"path": "/here/e"}], COMMON, moved={"/here/e": "/there"})[0]["path"] == "/there"
    assert ggen_jobs([{"path": "/here/e"}], COMMON, moved={"/here/e": "/there"}, in_place=True)[0]["path"] == "/there"
    with pytest.raises(AnsibleFilterError, match="not absolute"):
        ggen_jobs([{"path": "x"}], COMMON)


@pytest.fixture(name="home")
def fixture_home(tmp_path, monkeypatch):
    """The home of a Mac's user, which a virtual machine sees elsewhere, and a folder that it may only read."""
    for name in ("home/model", "data/model", "outside/model"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "home")
    return tmp_path


def mounts_of(home):
    return [
        {"location": f"{home}/home", "mount_point": "/guest/home", "writable": True},
        {"location": f"{home}/data", "mount_point": f"{home}/data", "writable": False},
    ]


def placed(path, home, mounts=None, **options):
    (found,) = ggen_jobs([{"path": path}], COMMON, from_controller=True, mounts=mounts_of(home) if mounts is None else mounts, **options)
    return found["path"], found["from"]


def test_a_virtual_machine_works_on_the_controller_s_folder_where_it_lies(home):
    (home / "link").symlink_to("home/model")
    for path in ("~/model", "model", f"{home}/home/model", f"{home}/link", f"{home}/home/../home/model/"):
        assert placed(path, home) == ("/guest/home/model", "host"), path
    assert placed("~", home) == ("/guest/home", "host")


def test_of_a_folder_that_it_does_not_see_or_may_not_write_it_gets_a_copy(home):
    (home / "home-2").mkdir()
    (home / "home" / "link").symlink_to("../outside/model")
    for path, there in (("outside/model",) * 2, ("data/model",) * 2, ("home-2",) * 2, ("home/link", "outside/model")):
        assert placed(f"{home}/{path}", home) == (f"{home}/{there}", "controller"), path
    assert placed("~/model", home, mounts=[]) == (f"{home}/home/model", "controller")


def test_a_folder_that_is_not_there_is_refused(home):
    with pytest.raises(
        AnsibleFilterError, match=r"/srv/model is no folder of this machine\. For a folder of the host itself set ggen_run_from"
    ):
        placed("/srv/model", home)
    assert ggen_jobs([{"path": "/srv/model"}], COMMON, mounts=mounts_of(home))[0]["from"] == "host"


def not_root_s(folder):
    """Make sure that the folder is a user's, whoever runs the tests."""
    if os.geteuid() == 0:
        os.chown(folder, 1234, 1234)


def test_the_example_is_used_where_it_lies_or_copied(home):
    moved = {f"{home}/home/model": "/there", f"{home}/outside/model": "/there"}
    not_root_s(home / "home/model")
    for name, in_place, there in (("home", True, "/guest/home/model"), ("home", False, "/there"), ("outside", True, "/there")):
        assert placed(f"{home}/{name}/model", home, moved=moved, in_place=in_place) == (there, "host")


@pytest.mark.parametrize(
    ("addition", "paths"),
    [
        ("", []),
        ('imports = ["a.ttl", "sub/../b.ttl", "../../lib/x.ttl", "/abs/y.ttl"]', ["../../lib/x.ttl", "/abs/y.ttl"]),
        ('imports = ["/workspace/z.ttl", "../workspace/z.ttl"]', []),
    ],
)
def test_files_outside_of_the_workspace(addition: str, paths: list[str]) -> None:
    text = MANIFEST.replace('source = "o.ttl"', f'source = "o.ttl"\n{addition}')
    assert manifests.outside(tomllib.loads(text)) == paths


def test_every_kind_of_file_can_lie_outside() -> None:
    manifest = {
        "ontology": {"source": "../a.ttl"},
        "validation": {"shacl": ["../b.ttl"]},
        "generation": {"rules": [{"query": {"file": "../c.rq"}, "template": {"file": "../d.tera"}}, "nonsense"]},
    }
    assert manifests.outside(manifest) == ["../a.ttl", "../b.ttl", "../c.rq", "../d.tera"]
    assert manifests.outside({"ontology": {"source": "../a.ttl"}}, "sub") == []


@pytest.mark.parametrize(
    ("output_dir", "output_file", "found"),
    [
        (".", "a.txt", []),
        ("out", "../a.txt", []),
        ("out", "{{ name }}/a.txt", []),
        ("out", "../../a.txt", ["../a.txt"]),
        ("../out", "a.txt", ["../out", "../out/a.txt"]),
        ("out", "/etc/a.txt", ["/etc/a.txt"]),
    ],
)
def test_outputs_outside_of_the_workspace(output_dir: str, output_file: str, found: list[str]) -> None:
    assert manifests.outputs_outside({"generation": {"output_dir": output_dir, "rules": [{"output_file": output_file}]}}) == found


def test_a_mount_puts_the_file_where_the_sandbox_looks() -> None:
    assert advice.mounts_for(["../../lib/x.ttl", "/abs/y.ttl"], "/home/u/models/m") == [
        {"source": "/home/u/lib/x.ttl", "target": "/lib/x.ttl"},
        {"source": "/abs/y.ttl", "target": "/abs/y.ttl"},
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "/srv/m is no ggen project: there is no /srv/m/ggen.toml"),
        ("[x", "is no valid TOML"),
        ("x = 1", r"has no \[project\], \[ontology\], \[generation\]"),
        (MANIFEST.replace("o.ttl", "../o.ttl"), r'outside of the workspace: ../o.ttl.*"source": "/srv/o.ttl"'),
        (MANIFEST.replace("rules", 'output_dir = "../x"\nrules'), "writes outside of the workspace: ../x"),
    ],
)
def test_bad_manifests_are_refused(text: str | None, message: str) -> None:
    with pytest.raises(GvisorError, match=message):
        manifests.check_manifest(text, job())


@pytest.mark.parametrize("target", ["/lib/o.ttl", "/lib", "/lib/"])
def test_a_mount_shows_a_file_outside(target: str) -> None:
    manifests.check_manifest(MANIFEST.replace("o.ttl", "../lib/o.ttl"), job(mounts=[{"source": "/srv/lib", "target": target}]))


def test_a_mount_beside_it_does_not() -> None:
    with pytest.raises(GvisorError, match="outside of the workspace"):
        manifests.check_manifest(MANIFEST.replace("o.ttl", "../o.ttl"), job(mounts=[{"source": "/x", "target": "/o"}]))


def test_the_problem_filter_takes_what_was_read_on_the_host() -> None:
    def problem(**read: object) -> str:
        return ggen_problem(job(), {"/srv/m/ggen.toml": {"text": None, "problem": "", "link": False, **read}})

    assert problem(text=MANIFEST) == ""
    assert "is no valid TOML" in problem(text="\ufffd[")
    assert "is no ggen project" in problem()
    assert "is no ggen project" in ggen_problem(job())
    assert problem(problem="it is not a regular file") == "it is not a regular file"
    assert problem(problem="it is a link", link=True) == ""


def test_the_problem_filter_reads_the_controller_s_itself(tmp_path: Path) -> None:
    def problem() -> str:
        return ggen_problem({**job(str(tmp_path)), "from": "controller"})

    assert "is no ggen project" in problem()
    os.mkfifo(tmp_path / "ggen.toml")
    assert "is not a regular file" in problem()
    (tmp_path / "ggen.toml").unlink()
    (tmp_path / "ggen.toml").write_text(MANIFEST)
    assert problem() == ""
    (tmp_path / "ggen.toml").write_text("#" * (1 << 20) + MANIFEST)
    assert "is larger than" in problem()


def test_a_user_is_passed_on_only_where_there_is_one() -> None:
    entries = [{"path": "/a", "user": "0:0"}, {"path": "/b"}]
    assert [entry["run"].get("user") for entry in ggen_jobs(entries, {**COMMON, "user": ""})] == ["0:0", None]


def test_an_example_of_root_s_is_not_used_where_it_lies(tmp_path: Path) -> None:
    """A command would be root there."""
    moved, options = {str(tmp_path): "/there", "/usr": "/there"}, {"local": True, "in_place": True}
    assert ggen_jobs([{"path": "/usr"}], COMMON, moved=moved, **options)[0]["path"] == "/there"
    not_root_s(tmp_path)
    assert ggen_jobs([{"path": str(tmp_path)}], COMMON, moved=moved, **options)[0]["path"] == str(tmp_path)
    assert ggen_jobs([{"path": str(tmp_path)}], COMMON, moved=moved, local=True)[0]["path"] == "/there"


def test_what_is_wrong_with_what_a_run_left_is_its_error() -> None:
    faults = ["2 files do not belong to the command's user"]
    assert ggen_result(run(faults=faults))["error"]["cause"] == faults[0]
    assert faults[0] in ggen_result(run(rc=1, faults=faults))["error"]["cause"]


def run(**values: object) -> dict[str, object]:
    """Return what the module gives for a run that went well."""
    good = {
        "rc": 0,
        "changed": True,
        "duration": 0.4,
        "pod": "ggen-1",
        "kernel": "Starting gVisor...",
        "changed_files": [],
    }
    return {**good, "stdout": "", "stderr": "", **values}


def ggen_result(run: dict[str, object]) -> dict[str, object]:
    """Return what the filter says of one job's run."""
    (result,) = ggen_results({"jobs": [run]}, [job()])
    return result


def changed(path: str, change: str = "created", mode: str = "0600") -> dict[str, object]:
    """Return one of the module's changed files."""
    return {"path": path, "change": change, "mode": mode, "ignored": False, "kind": "file", "size": 1, "sha256": "0"}


def test_files_are_listed_once_with_what_really_happened() -> None:
    line = (
        '{"status":"success","files":[{"path":"./a","size_bytes":1,"action":"created"},'
        '{"path":"./a","size_bytes":2,"action":"created"},{"path":"out/b","size_bytes":3,"action":"created"}]}'
    )
    result = ggen_result(run(stdout=line, changed_files=[changed("a", "modified")]))
    assert result["files"] == [
        {"path": "a", "size": 2, "change": "modified"},
        {"path": "out/b", "size": 3, "change": "unchanged"},
    ]
    assert result["ggen"]["status"] == "success"
    assert result["error"] is None
    assert result["summary"] == ("ggen sync in /srv/m: exit code 0 in 0.4 s, files: 1 modified, 1 unchanged; kernel: Starting gVisor...")


def test_a_run_that_did_not_take_place_is_told_with_the_modules_words() -> None:
    failed = {"failed": True, "msg": "workspace /srv/m does not exist on this host"}
    (result,) = ggen_results(failed, [job()])
    assert result["rc"] is None
    assert result["error"]["message"] == "ggen sync in /srv/m failed: workspace /srv/m does not exist on this host."
    assert result["not_ready"] is False
    assert "not run to its end: workspace /srv/m does not exist" in result["summary"]


def test_a_module_that_could_not_begin_says_why() -> None:
    """As on a full disk: the exit code is Python's."""
    said = "Traceback …\n  x\nFileNotFoundError: [Errno 2] No usable temporary directory found in ['/tmp', '/root']\n"
    failed = {"failed": True, "msg": "Module result deserialization failed", "module_stderr": said, "module_stdout": "", "rc": 1}
    (result,) = ggen_results(failed, [job()])
    assert result["rc"] is None
    assert "No usable temporary directory found in ['/tmp', '/root']. Free space on the host" in result["error"]["message"]


@pytest.mark.parametrize("part", ["containerd", "image", "shim"])
def test_a_host_without_a_sandbox_is_known(part: str) -> None:
    run = {"msg": "not rehearsed: …", "missing": part, "skipped": True, "changed": True}
    assert ggen_results(run, [job()])[0]["not_ready"] is True


@pytest.mark.parametrize("flags", [{"rc": None, "timed_out": True}, {"rc": 137, "limits_hit": ["memory"]}])
def test_a_killed_run_is_not_explained_by_ggens_output(flags: dict[str, object]) -> None:
    result = ggen_result(run(**flags, msg="it was killed", stderr="ERROR: CLI execution failed: Manifest not found\n --> x"))
    assert result["error"]["cause"] == "it was killed"


def test_an_unknown_failure_keeps_the_exit_code_and_the_last_lines() -> None:
    log = "\n".join(f"line {number}" for number in range(40))
    result = ggen_result(run(rc=139, stderr=log, msg="ggen ended with exit code 139"))
    assert result["rc"] == 139
    assert "exit code 139" in result["error"]["message"]
    assert result["error"]["message"].endswith("line 39")
    assert "line 10\n" not in result["error"]["message"]


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        (
            "Context:\n  Cannot create output directory: generated\n  Reason: Permission denied (os error 13)\n",
            "may not make the output folder generated: Permission denied",
        ),
        (
            "ERROR: CLI execution failed: Command execution failed: Audit failure: Permission denied (os error 13)",
            "may not write its records in .ggen",
        ),
        (
            "  = error: Failed to create parent directory /srv: Read-only file system (os error 30)",
            "wanted to write outside of the workspace: Failed to create parent directory /srv",
        ),
        (
            "  = error: Failed to read ontology 'o.ttl': Permission denied (os error 13)",
            "o.ttl cannot be read: Permission",
        ),
    ],
)
def test_failures_that_need_another_user_or_a_sandbox(text: str, cause: str) -> None:
    assert cause in output.explain("", text)["cause"]


def test_json_that_is_not_the_outcome_stays_in_the_log() -> None:
    text = '{"x": 1}\n{broken\n[1]\n{"status": "success"}\n{"status": "later"} trailing'
    outcome, log = output.parse_output(text)
    assert outcome == {"status": "success"}
    assert log == ['{"x": 1}', "{broken", "[1]", '{"status": "later"} trailing']
    assert output.parse_output("") == (None, [])


def test_every_rule_can_be_formatted() -> None:
    for rule in output.RULES:
        names = dict.fromkeys(re.compile(rule.pattern).groupindex, "x")
        assert rule.cause.format(**names)
        assert rule.fix.format(**names, **advice.ROLE.names)
