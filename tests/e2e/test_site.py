"""The newcomer's path on this machine, for real and in order: check, site, site again, runs that fail, tampering, uninstall."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from conftest import ROOT
from support.missing import MISSING
from support.playbook import play
from support.snapshot import differences, snapshot
from support.supply import checked_sbom, checked_statement, digests

EXAMPLE = ROOT / "examples" / "organization"
# Where site runs it: a folder of root's would make ggen root.
PLACE = EXAMPLE if EXAMPLE.stat().st_uid else Path("/var/lib/ggen.gvisor/workspaces/organization")
EXPECTED = ROOT / "tests" / "fixtures" / "examples" / "organization" / "expected"
IMAGE = "docker.io/library/ggen:26.5.19"


def ctr(*args: str) -> list[str]:
    """Lines that ctr prints on this machine."""
    return subprocess.run(["ctr", *args], capture_output=True, text=True, check=True).stdout.splitlines()


def left_behind() -> list[str]:
    """Containers, tasks and running snapshots in the namespace that ggen runs in."""
    tasks = ctr("tasks", "ls", "--quiet")
    containers = ctr("containers", "ls", "--quiet")
    active = [line for line in ctr("snapshots", "ls")[1:] if "Active" in line]
    return tasks + containers + active


def files_of(folder) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def bare():
    """This machine without the collection's work, as it was found; what an earlier, broken run left is taken away first."""
    play("playbooks/uninstall.yml")
    shutil.rmtree(EXAMPLE / "generated", ignore_errors=True)
    shutil.rmtree(EXAMPLE / ".ggen", ignore_errors=True)
    shutil.rmtree(ROOT / "reports", ignore_errors=True)
    return snapshot()


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """A user's own workspace: the example's inputs, owned by somebody who is not root."""
    folder = tmp_path_factory.mktemp("home") / "model"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("generated", ".ggen", "*.backup"))
    for path in [folder, *folder.rglob("*")]:
        os.chown(path, 1234, 1234)
    return folder


def test_check_mode_runs_through_where_nothing_is_installed(bare):
    done = play("site.yml", "--check", "--diff")
    assert done.rc == 0, done.errors
    assert done.changed, "it must say what it would do"
    assert differences(bare, snapshot()) == []
    assert not (PLACE / "generated").exists()


def test_the_first_run_does_everything(bare):
    done = play("site.yml")
    assert done.rc == 0, done.errors
    assert files_of(PLACE / "generated") == files_of(EXPECTED)
    assert "Starting gVisor" in done.output
    assert "reports/localhost.json" in done.output
    assert left_behind() == []


def test_the_report_tells_what_is_installed():
    report = json.loads((ROOT / "reports" / "localhost.json").read_text())
    assert report["healthy"], report["drift"]
    assert report["proof"]["kernel"].startswith("Starting gVisor")
    assert report["gvisor"]["shim"] == ("upstream" if "CAP_SYS_RESOURCE" in report["host"]["capabilities"] else "no-oom-score")
    for path, sha256 in report["gvisor"]["files"].items():
        assert subprocess.run(["sha256sum", path], capture_output=True, text=True, check=True).stdout.split()[0] == sha256
    assert "runsc" in report["config"]["handlers"]
    assert "runc" in report["config"]["handlers"]
    listed = [line.split() for line in ctr("images", "ls", f"name=={IMAGE}")[1:]]
    assert [row[2] for row in listed] == [report["image"]["digest"]]


def compiled_in(archive: Path) -> tuple[str, set[str]]:
    """Return the sha256 of ggen in an image's archive, and name-version of the crates whose source files its panic messages name."""
    with tarfile.open(archive) as tar:
        for member in tar:
            if member.name.startswith("./blobs/") and member.size > 1 << 20:
                with tarfile.open(fileobj=tar.extractfile(member), mode="r:gz") as layer:
                    data = layer.extractfile("usr/local/bin/ggen").read()
    found = re.findall(rb"/cargo/registry/src/[^/]+/([A-Za-z0-9_.+-]+)/", data)
    return hashlib.sha256(data).hexdigest(), {name.decode() for name in found}


def test_sbom_and_provenance_tell_what_was_built():
    built = list((ROOT / "bin").glob("*/linux_*")) + list((ROOT / "dist").glob("*/linux_*"))
    for folder in built:
        for name, entry in json.loads((folder / "manifest.json").read_text())["files"].items():
            if not name.endswith(".json"):
                checked_sbom((folder / f"{name}.cdx.json").read_text())
                statement = checked_statement((folder / f"{name}.intoto.json").read_text())
                assert digests(statement["subject"])[name] == entry["sha256"]
    (folder,) = (ROOT / "dist").glob("26.5.19/linux_*")
    sbom = checked_sbom((folder / "ggen.cdx.json").read_text())
    sha256, crates = compiled_in(folder / "ggen.tar")
    assert sbom["metadata"]["component"]["hashes"][0]["content"] == sha256
    assert digests(checked_statement((folder / "ggen.intoto.json").read_text())["subject"]) == {"ggen": sha256}
    assert len(crates) > 100
    assert crates <= {f"{one['name']}-{one['version']}" for one in sbom["components"]}


def test_the_second_run_changes_nothing():
    done = play("site.yml")
    assert done.rc == 0, done.errors
    assert done.changed == []
    assert done.total("failures") == 0


def test_what_it_prints_then_fits_two_screens():
    argv = [str(Path(sys.executable).parent / "ansible-playbook"), "site.yml"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, cwd=ROOT)
    assert "Starting gVisor" in done.stdout
    assert len((done.stdout + done.stderr).splitlines()) <= 100, done.stdout


def test_check_mode_has_nothing_to_say_then():
    done = play("site.yml", "--check", "--diff")
    assert done.rc == 0, done.errors
    assert done.changed == []


def test_verify_proves_the_host():
    done = play("playbooks/verify.yml")
    assert done.rc == 0, done.errors
    assert done.changed == []
    assert "localhost is healthy" in done.output


def test_check_mode_of_a_run_shows_the_files_and_leaves_them(workspace):
    before = files_of(workspace)
    done = play("playbooks/run.yml", "--check", "--diff", ggen_run_workspace=str(workspace))
    assert done.rc == 0, done.errors
    assert "Run ggen in the sandbox" in done.changed
    assert "+++" in done.output
    assert files_of(workspace) == before


def test_a_run_writes_as_the_workspace_s_owner(workspace):
    done = play("playbooks/run.yml", ggen_run_workspace=str(workspace), ggen_run_args="sync")
    assert done.rc == 0, done.errors
    assert files_of(workspace / "generated") == files_of(EXPECTED)
    owners = {(path.stat().st_uid, path.stat().st_gid) for path in workspace.rglob("*")}
    assert owners == {(1234, 1234)}
    keys = list(workspace.rglob("*.key"))
    assert all(path.stat().st_mode & 0o077 == 0 for path in keys if "sign" in path.name)
    assert left_behind() == []


def test_an_unchanged_workspace_is_no_change(workspace):
    done = play("playbooks/run.yml", ggen_run_workspace=str(workspace))
    assert done.rc == 0, done.errors
    assert done.changed == []


def test_a_failing_workspace_fails_with_ggen_s_exit_code(workspace, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(workspace, broken)
    (broken / "ggen.toml").write_text("[project\n")
    for path in [broken, *broken.rglob("*")]:
        os.chown(path, 1234, 1234)
    done = play("playbooks/run.yml", ggen_run_workspace=str(broken))
    assert done.rc != 0
    assert "ggen.toml" in done.errors
    assert "(exit code 1)" in done.errors
    assert left_behind() == []


def test_a_folder_that_is_no_workspace_is_refused_before_anything_runs(tmp_path):
    (tmp_path / "empty").mkdir()
    done = play("playbooks/run.yml", ggen_run_workspace=str(tmp_path / "empty"))
    assert done.rc != 0
    assert str(tmp_path / "empty") in done.errors
    assert list((tmp_path / "empty").iterdir()) == []


def test_a_missing_workspace_is_named(tmp_path):
    done = play("playbooks/run.yml", ggen_run_workspace=str(tmp_path / "none"))
    assert done.rc != 0
    assert str(tmp_path / "none") in done.errors


def test_a_timeout_ends_the_run_and_leaves_nothing(workspace):
    done = play("playbooks/run.yml", ggen_run_workspace=str(workspace), ggen_run_timeout=0.01)
    assert done.rc != 0
    assert "0.01" in done.errors
    assert left_behind() == []


def test_the_documents_pod_by_hand_works(workspace):
    block = re.search(r"```sh\n(# 1\. gVisor.*?)```", (ROOT / "docs/by-hand.md").read_text(), re.DOTALL).group(1)
    commands = block[block.index("# 3.") :].replace("$HOME/model", str(workspace))
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", commands], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert IMAGE in done.stdout
    assert "exit code 0" in done.stdout
    assert left_behind() == []


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"containerd_gvisor_release": "19990101"}, "20260224, 20260518, 20260701"),
        ({"containerd_gvisor_config": "/etc/hostname"}, "/etc/hostname"),
        ({"runsc_build_arch": ["mips"]}, "amd64, arm64"),
        ({"runsc_build_go": f"{MISSING}/go"}, f"{MISSING}/go"),
        ({"ggen_build_source": "floppy"}, "registry, path, binary"),
        ({"ggen_build_source": "binary"}, "ggen_build_binary_sha256"),
        ({"ggen_build_source": "path"}, "ggen_build_path"),
        ({"ggen_run_workspace": f"{MISSING}/model"}, f"{MISSING}/model"),
    ],
)
def test_bad_input_is_refused_before_anything_changes(variables, words):
    before = snapshot()
    done = play("site.yml", **variables)
    assert done.rc != 0
    assert words in done.errors
    assert done.changed == []
    assert differences(before, snapshot()) == []


@pytest.mark.parametrize("path", ["/usr/local/bin/containerd-shim-runsc-v1", "/usr/local/bin/runsc", "/etc/containerd/runsc.toml"])
def test_a_changed_byte_is_found_and_fixed(path):
    real = os.path.realpath(path)
    with open(real, "rb") as stream:
        original = stream.read()
    # As an attacker or a package would: another file under the name.
    with open(f"{real}.new", "wb") as stream:
        stream.write(original[:-1] + bytes([original[-1] ^ 1]))
    shutil.copymode(real, f"{real}.new")
    os.replace(f"{real}.new", real)
    found = play("playbooks/verify.yml")
    assert found.rc != 0
    assert play("site.yml").rc == 0
    with open(real, "rb") as stream:
        assert stream.read() == original
    assert play("playbooks/verify.yml").rc == 0


def test_a_changed_byte_in_what_was_built_is_found_and_fixed():
    """Programs, SBOMs and provenance alike, of every release: all are in their folder's manifest."""
    files = [path for part in ("bin", "dist") for path in (ROOT / part).glob("*/linux_*/*") if path.name != "manifest.json"]
    assert {".json", ".tar"} <= {path.suffix for path in files}
    before = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    for path in files:
        with path.open("r+b") as stream:
            first = stream.read(1)
            stream.seek(0)
            stream.write(bytes([first[0] ^ 1]))
    found = play("tests/build.yml", "--check", "--diff")
    assert [path for path in files if str(path) not in found.output] == []
    assert play("tests/build.yml").rc == 0
    assert {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files} == before
    assert play("tests/build.yml").changed == []


def test_uninstall_leaves_the_machine_as_it_was(bare):
    done = play("playbooks/uninstall.yml")
    assert done.rc == 0, done.errors
    assert done.changed
    assert differences(bare, snapshot()) == []


def test_a_second_uninstall_has_nothing_to_do(bare):
    done = play("playbooks/uninstall.yml")
    assert done.rc == 0, done.errors
    assert done.changed == []
    assert differences(bare, snapshot()) == []
