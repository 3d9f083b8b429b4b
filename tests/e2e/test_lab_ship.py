"""gvisor_release over SSH: one transfer, only of what is missing, whole or not at all."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from support.playbook import Play, play

LAB = [sys.executable, str(ROOT / "tests/lab/lab.py"), "--lab", "ship", "--hosts", str(ROOT / "tests/e2e/ship_hosts.yml")]
FOLDER = ROOT / ".artifacts" / "lab" / "ship"
RELEASE = "/usr/local/lib/example/1"
TASK = "Install the release"


def ssh(host: str, command: str) -> str:
    argv = ["ssh", "-F", str(FOLDER / "ssh_config"), host, command]
    return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60).stdout


@pytest.fixture(scope="module")
def hosts():
    """The hosts, fresh."""
    subprocess.run([*LAB, "down"], check=True, capture_output=True)
    up = subprocess.run([*LAB, "up"], check=False, capture_output=True, text=True)
    assert up.returncode == 0, up.stderr
    try:
        yield
    finally:
        subprocess.run([*LAB, "down"], check=True, capture_output=True)


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """Programs that compress to a third, as Go's do."""
    folder = tmp_path_factory.mktemp("source")
    for name, size in (("runsc", 30_000_000), ("shim", 3_000_000)):
        (folder / name).write_bytes(os.urandom(size // 3) + bytes(size - size // 3))
    return folder


def install(source: Path, *options: str, **variables: object) -> Play:
    files = [{"name": name, "sha256": hashlib.sha256((source / name).read_bytes()).hexdigest()} for name in ("runsc", "shim")]
    given = {
        "folder": RELEASE,
        "source": str(source),
        "files": files,
        "links": {f"/usr/local/bin/{file['name']}": file["name"] for file in files},
        **variables,
    }
    before = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(source / "cache")
    try:
        return play("tests/e2e/ship.yml", *options, inventory=FOLDER / "inventory.yml", **given)
    finally:
        os.environ.pop("XDG_CACHE_HOME") if before is None else os.environ.update(XDG_CACHE_HOME=before)


def result(done: Play, host: str) -> dict:
    (found,) = [event["res"] for event in done.results if event["task"] == TASK and event["host"] == host]
    return found


def sent(done: Play) -> list[str]:
    return [line for line in done.output.splitlines() if ": sending " in line]


def test_check_mode_sends_nothing(hosts, source):
    done = install(source, "--check", "--diff", missing=["runsc", "shim"])
    assert done.rc == 0, done.errors
    assert result(done, "roomy")["changed"]
    assert sent(done) == []
    assert ssh("roomy", "ls -A /usr/local/lib /usr/local/bin").count("example") == 0


def test_both_hosts_get_it_compressed_once(hosts, source):
    done = install(source)
    assert done.rc == 0, done.errors
    assert sorted(sent(done)) == [f"{host}: sending runsc (30.0 MB), shim (3.0 MB) as 11.0 MB" for host in ("roomy", "small")]
    assert len(os.listdir(source / "cache/ggen.gvisor/shipped")) == 2
    for host in ("roomy", "small"):
        assert hashlib.sha256((source / "runsc").read_bytes()).hexdigest() in ssh(host, "sha256sum /usr/local/bin/runsc")
        assert ssh(host, "ls -A ~admin/.ansible/tmp").strip() == "", "nothing is left of the transfer"


def test_what_the_host_has_is_not_sent_again(hosts, source):
    done = install(source)
    assert done.rc == 0, done.errors
    assert done.changed == []
    assert sent(done) == []
    ssh("roomy", "echo >> /usr/local/bin/shim")
    done = install(source)
    assert sent(done) == ["roomy: sending shim (3.0 MB) as 1.0 MB"]
    assert (result(done, "roomy")["installed"], result(done, "small")["changed"]) == (["shim"], False)


def test_a_plan_that_is_wrong_is_put_right(hosts, source):
    """The caller knows of one program that is missing, and the host lacks another one too."""
    ssh("roomy", f"rm {RELEASE}/shim; echo >> {RELEASE}/runsc")
    done = install(source, "--limit", "roomy", missing=["shim"])
    assert done.rc == 0, done.errors
    assert result(done, "roomy")["installed"] == ["runsc", "shim"]
    assert "OK" in ssh(
        "roomy", f"cd /usr/local/bin && echo '{hashlib.sha256((source / 'runsc').read_bytes()).hexdigest()}  runsc' | sha256sum -c"
    )


def test_a_full_disk_keeps_what_it_had(hosts, source):
    before = ssh("small", f"ls -A -l {RELEASE} /usr/local/bin")
    ssh("small", "fallocate -l $(($(df --output=avail -B1 / | tail -1) - 20000000)) /filler")
    (source / "runsc").write_bytes((source / "runsc").read_bytes()[::-1])
    done = install(source)
    assert result(done, "roomy")["changed"], "the other host is not held up"
    message = result(done, "small")["msg"]
    assert f"{RELEASE}: 30.0 MB are needed for runsc and " in message, message
    assert ssh("small", f"ls -A -l {RELEASE} /usr/local/bin") == before
    ssh("small", "fallocate -l $(($(df --output=avail -B1 / | tail -1) - 1000000)) /filler2")
    message = result(install(source), "small")["msg"]
    assert "10.0 MB could not be sent to /home/admin/.ansible/tmp/" in message, message
    assert "/filler" in ssh("small", "ls /filler; ls -A ~admin/.ansible/tmp")
    ssh("small", "rm /filler /filler2")
    done = install(source)
    assert done.rc == 0, done.errors
    assert result(done, "small")["installed"] == ["runsc"]


def test_a_source_that_is_not_what_was_built_is_refused(hosts, source):
    files = [{"name": "runsc", "sha256": "0" * 64}]
    done = install(source, "--limit", "roomy", files=files, links={})
    assert f"{source}/runsc on the controller has the sha256" in done.errors
    assert sent(done) == []
    done = install(source, "--limit", "roomy", files=[{"name": "absent", "sha256": "0" * 64}], links={})
    assert "build it first" in done.errors, done.output
