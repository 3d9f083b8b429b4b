# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Secrets and variables of a command: it has them, and nobody else sees them; on a real containerd, in gVisor."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible.constants import DEFAULT_VAULT_ID_MATCH
from ansible.parsing.vault import VaultLib, VaultSecret
from support.module import run_module
from support.runs import IMAGE, PATIENCE, Host
from support.terminal import run_play

pytest_plugins = ("support.run_fixtures",)

TOKEN, PEM, LOOKED_UP, ENV = (
    "t0ken-in-a-file",
    "-----BEGIN KEY-----\nline'of\\a key\n-----END KEY-----",
    "looked-up-elsewhere",
    "value'of\na \\variable",
)
WORDS = (TOKEN, "line'of", "of\\a key", LOOKED_UP, "looked-up", "value'of", "of\\\\a key", "\\variable")
LOG = Path("/dev/log")


@pytest.fixture
def syslog() -> Iterator[list[str]]:
    """What is logged on this machine meanwhile: all messages, once the test is through with its run."""
    before = LOG.with_name("log.before-the-test")
    if LOG.exists() or LOG.is_symlink():
        LOG.rename(before)
    messages: list[str] = []
    over, ended = os.pipe()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
        log.bind(str(LOG))
        LOG.chmod(0o666)

        def read() -> None:
            while over not in select.select([log, over], [], [])[0]:
                messages.append(log.recv(1 << 20).decode("utf-8", "replace"))

        thread = threading.Thread(target=read)
        thread.start()
        try:
            yield messages
        finally:
            os.close(ended)
            thread.join()
            os.close(over)
            LOG.unlink()
            if before.exists() or before.is_symlink():
                before.rename(LOG)


@pytest.fixture
def processes() -> Iterator[set[str]]:
    """The command lines and environments of all processes meanwhile."""
    found: set[str] = set()
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.01):
            for pid in filter(str.isdigit, os.listdir("/proc")):
                for name in ("cmdline", "environ"):
                    try:
                        found.add(Path(f"/proc/{pid}/{name}").read_bytes().decode("utf-8", "replace"))
                    except OSError:
                        continue

    thread = threading.Thread(target=look)
    thread.start()
    yield found
    over.set()
    thread.join()


def vaulted(tmp_path: Path) -> list[str]:
    """Put the secrets where a play finds them, and return its command line's words."""
    vault = VaultLib([(DEFAULT_VAULT_ID_MATCH, VaultSecret(b"password"))])
    (tmp_path / "token").write_text(TOKEN)
    (tmp_path / "encrypted").write_bytes(vault.encrypt(TOKEN[::-1]))
    (tmp_path / "password").write_text("password")
    (tmp_path / "lookup").write_text(LOOKED_UP)
    text = vault.encrypt(PEM).decode().replace("\n", "\n  ")
    (tmp_path / "vars.yml").write_text(f"pem: !vault |\n  {text}\nvalue: {json.dumps(ENV)}\n")
    return ["-e", f"@{tmp_path}/vars.yml", "--vault-password-file", str(tmp_path / "password")]


def task(host: Host, **options: object) -> dict:
    places = {"address": host.daemon.address, "state_dir": host.state_dir, "image": IMAGE, "runtime": host.runtime, "name": host.name}
    return {"ggen.gvisor.containerd_run": {**places, **options}, "register": "done"}


SCRIPT = """
sleep 1
cd /run/secrets
test "$(cat token)" = "$WANTED" || exit 4
id -u; stat -c '%n %a %u' *
for file in token new; do echo x > $file; chmod 644 $file; rm -f $file; done 2>/dev/null
cat token pem text encrypted
printf '%s' "$VALUE" | sha256sum
cat token pem > "$OLDPWD/written"
mount | grep -c secrets
exit 3
"""


@pytest.mark.parametrize("where", ["host", "check", "controller", "jobs"])
def test_nobody_but_the_command_sees_them(host: Host, workspace: Path, tmp_path: Path, syslog: list, processes: set, where: str) -> None:
    words = vaulted(tmp_path)
    secrets = {
        "token": f"{tmp_path}/token",
        "pem": "{{ pem }}",
        "text": {"text": "{{ lookup('ansible.builtin.file', '" + str(tmp_path / "lookup") + "') }}"},
        "encrypted": {"file": f"{tmp_path}/encrypted"},
    }
    place = {"workspace": str(workspace), "workspace_from": "controller" if where == "controller" else "host"}
    # The command is told by its own arguments what to expect, the wrong way round.
    script = f"WANTED=$(echo {TOKEN[::-1]} | rev); {SCRIPT}"
    options = {"argv": ["sh", "-c", script], "env": {"VALUE": "{{ value }}", "ONE": "1"}, "secrets": secrets, **place}
    if where == "jobs":
        options = {"jobs": [options], "argv": ["true"]}
    keep = {
        "ansible.builtin.copy": {"content": "{{ done | to_json }}", "dest": str(tmp_path / "done"), "mode": "0600"},
        "diff": False,
        "check_mode": False,
    }
    words += ["-vvv", "--diff", *(["--check"] if where == "check" else [])]
    shown = run_play(tmp_path, [{**task(host, **options), "failed_when": False}, keep], *words)
    assert shown.rc == 0, shown.text
    done = json.loads((tmp_path / "done").read_text())
    (job,) = done["jobs"] if where == "jobs" else [done]
    assert job["rc"] == 3, job
    said = job["stdout"].split("\n")
    uid = said[0]
    assert said[:5] == [uid, *(f"{name} 400 {uid}" for name in ("encrypted", "pem", "text", "token"))], said
    assert job["stdout"].endswith(f"{hashlib.sha256(ENV.encode()).hexdigest()}  -\n1\n")
    if where not in ("check", "controller"):
        assert (workspace / "written").read_text() == f"{TOKEN}{PEM}"
    everything = {"output": shown.text, "result": json.dumps(done), "syslog": "\n".join(syslog)}
    everything["audit"] = (Path(host.state_dir) / "audit/runs.jsonl").read_text()
    for place_of_it, text in everything.items():
        assert not [word for word in [*WORDS, base64.b64encode(TOKEN.encode()).decode()] if word in text], (place_of_it, text)
    seen = [text for text in processes if str(host.state_dir) in text or "AnsiballZ" in text]
    assert seen
    assert not [(word, text) for word in WORDS for text in processes if word in text]
    assert "Invoked with" in everything["syslog"]
    assert "containerd_run" in everything["syslog"]
    assert "VALUE_SPECIFIED_IN_NO_LOG_PARAMETER" in shown.text
    assert "ONE" in shown.text


@pytest.mark.parametrize("where", ["one", "jobs"])
def test_nobody_but_the_command_sees_its_standard_input(host: Host, tmp_path: Path, syslog: list, processes: set, where: str) -> None:
    words = vaulted(tmp_path)
    options = {"argv": ["sh", "-c", "sleep 1; sha256sum"], "stdin": "{{ pem }}"}
    if where == "jobs":
        options = {"jobs": [options], "argv": ["true"]}
    keep = {"ansible.builtin.copy": {"content": "{{ done | to_json }}", "dest": str(tmp_path / "done"), "mode": "0600"}, "diff": False}
    shown = run_play(tmp_path, [task(host, **options), keep], *words, "-vvv", "--diff")
    assert shown.rc == 0, shown.text
    done = json.loads((tmp_path / "done").read_text())
    (job,) = done["jobs"] if where == "jobs" else [done]
    assert job["stdout"] == f"{hashlib.sha256(PEM.encode()).hexdigest()}  -\n"
    everything = {"output": shown.text, "result": json.dumps(done), "syslog": "\n".join(syslog), "processes": "\n".join(processes)}
    everything["audit"] = (Path(host.state_dir) / "audit/runs.jsonl").read_text()
    assert not [(word, place) for word in ("line'of", "BEGIN KEY") for place, text in everything.items() if word in text]
    assert "Invoked with" in everything["syslog"]


def test_a_value_of_a_variable_is_not_taken_out_of_what_a_command_prints(host: Host) -> None:
    assert host.run("echo 1; echo $ONE", env={"ONE": "1"})["stdout"] == "1\n1\n"


def test_jobs_share_a_pod_only_with_the_same_secrets_and_user(host: Host) -> None:
    def encoded(text: str) -> str:
        return base64.b64encode(text.encode()).decode()

    one, other = {"name": encoded("one-secret")}, {"name": encoded("other-secret")}
    common = {key: value for key, value in host.params("", None).items() if key != "workspace"}
    jobs = [{"secrets": one}, {"secrets": one}, {"secrets": other}, {"secrets": other, "user": "7:7"}, {}]
    common["argv"] = ["sh", "-c", "sha256sum /run/secrets/name; stat -c %u /run/secrets/name"]
    result = run_module("containerd_run", **common, jobs=jobs, pods="one", fail_on_rc=False)
    pods = [job["pod"] for job in result["jobs"]]
    assert len(set(pods)) == 4, result
    assert pods[0] == pods[1]
    assert [job["rc"] for job in result["jobs"]] == [0, 0, 0, 0, 1]
    assert [job["stdout"].split()[-1:] for job in result["jobs"]] == [["65534"], ["65534"], ["65534"], ["7"], []]
    assert len({job["stdout"] for job in result["jobs"]}) == 4


def test_a_killed_run_s_are_taken_away_by_the_next(host: Host, workspace: Path) -> None:
    value = base64.b64encode(b"a-secret-value").decode()
    process = host.start("cat /run/secrets/name > /dev/null && touch begun; sleep 100", workspace, secrets={"name": value})
    held = Path(host.state_dir) / "pods"
    while not (workspace / "begun").exists():
        time.sleep(0.02)
        assert process.poll() is None
    assert [path.read_bytes() for path in held.glob("*/mounts/*/name")] == [b"a-secret-value"]
    (supervisor,) = (int(word) for word in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split())
    process.send_signal(signal.SIGSTOP)
    os.kill(supervisor, signal.SIGKILL)
    process.kill()
    process.communicate(timeout=PATIENCE)
    assert list(held.glob("*/mounts/*/name"))
    assert any("of an earlier run that was killed was removed" in warning for warning in host.run("true")["warnings"])
    assert not list(held.glob("*/mounts/*/name"))


@pytest.mark.parametrize(
    ("secrets", "complaint"),
    [
        ({"name": "the-value-itself"}, "secrets' name is no vaulted text and no file of the controller"),
        ({"name": ["the-value-itself"]}, "secrets' name is neither text nor a path"),
        ({"name": {"text": "the-value-itself", "file": "the-value-itself"}}, "secrets' name is neither text nor a path"),
        ({"name": {"text": ""}}, "secrets has name without a value"),
        ({"na/me": {"text": "the-value-itself"}}, "secrets has the name 'na/me'"),
        ({"name": {"text": "the-value-itself" * 70000}}, "secrets has more than 1048576 bytes"),
        ("the-value-itself", "secrets must be a dict"),
    ],
)
def test_a_message_never_has_a_value(host: Host, tmp_path: Path, secrets: object, complaint: str) -> None:
    shown = run_play(tmp_path, [task(host, argv=["true"], secrets=secrets)], "-vvv")
    assert shown.rc == 2
    assert complaint in shown.text
    assert "the-value" not in shown.text


def test_a_mount_over_them(host: Host, workspace: Path) -> None:
    secrets = {"name": base64.b64encode(b"secret").decode()}
    for target in ("/run", "/run/secrets"):
        result = host.run("true", secrets=secrets, mounts=[{"source": str(workspace), "target": target}])
        assert "where the secrets are to be seen" in result["msg"]


def test_the_role_hands_them_on(host: Host, workspace: Path, tmp_path: Path) -> None:
    words = vaulted(tmp_path)
    role = {"ansible.builtin.include_role": {"name": "ggen.gvisor.ggen_run"}}
    variables = {
        "_ggen_run_program": "/bin/sh",
        "ggen_run_args": ["-c", "cat /run/secrets/* > copy; echo $VALUE >> copy"],
        "ggen_run_workspace": str(workspace),
        "ggen_run_image": IMAGE,
        "ggen_run_address": host.daemon.address,
        "ggen_run_secrets": {"token": f"{tmp_path}/token", "pem": "{{ pem }}"},
        "ggen_run_env": {"VALUE": "{{ value }}"},
    }
    shown = run_play(tmp_path, [{**role, "vars": variables}], *words, "-vvv", "--diff")
    assert shown.rc == 0, shown.text
    assert (workspace / "copy").read_text() == f"{PEM}{TOKEN}value'of a \\variable\n"
    assert not [word for word in WORDS if word in shown.text.replace("value'of a \\variable", "").replace("value'of a \\\\variable", "")]
