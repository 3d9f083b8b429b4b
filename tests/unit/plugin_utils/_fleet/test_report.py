"""From reports and failures to the fleet's rows, page and recap."""

from __future__ import annotations

import re

import pytest
from ansible_collections.ggen.gvisor.plugins.plugin_utils._base.failures import fix, reason
from ansible_collections.ggen.gvisor.plugins.plugin_utils._base.text import LONGEST, plain
from ansible_collections.ggen.gvisor.plugins.plugin_utils._fleet import report as fleet_report
from ansible_collections.ggen.gvisor.plugins.plugin_utils._fleet.report import STATES, Run, fleet, page, recap
from support.fleet import ABOUT, HOSTILE, TEMPLATE, failure, mixed, report


@pytest.fixture(autouse=True)
def _on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet_report, "program", lambda: "ansible-playbook")


def rows(hosts, **known) -> dict[str, dict]:
    return {row["name"]: row for row in fleet(Run(hosts, **{"reports": {}, "failures": {}, **known}))["rows"]}


def test_every_host_is_a_row_and_the_worst_come_first():
    view = mixed()
    assert [(row["name"], row["state"]) for row in view["rows"]] == [
        ("web10", "unreachable"),
        ("cache1", "failed"),
        ("localhost", "failed"),
        ("late1", "unfinished"),
        ("db1", "drifted"),
        ("web2", "healthy"),
        ("old1", "earlier"),
    ]
    assert {item["state"]: item["count"] for item in view["summary"]["states"]} == {**dict.fromkeys(STATES, 1), "failed": 2}
    assert view["summary"]["bad"] == 5


def test_a_healthy_row_has_versions_proof_and_times():
    row = rows(["a"], reports={"a": report()}, failures={}, seconds={"a": 2.34})["a"]
    shown = ("gvisor", "shim", "containerd", "tag", "proof", "proof_seconds", "seconds", "state", "why")
    assert [row[key] for key in shown] == [
        "20260701",
        "upstream",
        "1.7.24",
        "ggen:26.5.19",
        "Starting gVisor...",
        0.91,
        2.34,
        "healthy",
        [],
    ]
    assert row["digest"].startswith("sha256:8c1d")
    assert row["runs"][0]["pod_seconds"] == 0.5


def test_names_are_in_the_order_that_people_count():
    view = fleet(Run(["web10", "web9", "web1", "db"], reports={name: report() for name in ("web10", "web9", "web1", "db")}, failures={}))
    assert [row["name"] for row in view["rows"]] == ["db", "web1", "web9", "web10"]


def test_a_failed_host_shows_what_was_known_of_it_and_says_from_when():
    row = rows(["a"], reports={}, failures={"a": failure("boom")}, earlier={"a": report()})["a"]
    assert (row["state"], row["gvisor"], row["stale"], row["seen"]) == ("failed", "20260701", True, "2026-11-25T16:00:00+00:00")


def test_a_host_whose_report_says_drift_is_not_called_failed():
    found = {"a": failure("a: the link runsc …. Fix it with ansible-playbook site.yml")}
    row = rows(
        ["a"], reports={"a": report(drift=["the link runsc …"])}, failures=found, again="playbooks/verify.yml", fixing="playbooks/site.yml"
    )["a"]
    assert (row["state"], row["why"], row["command"]) == (
        "drifted",
        ["the link runsc …"],
        "ansible-playbook playbooks/site.yml --limit a,build_hosts",
    )


def test_a_run_that_ended_early_names_who_ended_it():
    row = rows(["a"], reports={}, failures={"localhost": failure("no Go")})["a"]
    assert row["state"] == "unfinished"
    assert "localhost failed" in row["why"][0]


@pytest.mark.parametrize(
    "broken", [{"drift": []}, {"image": None, "proof": None}, {"gvisor": [], "runs": None, "host": 3}, {"runs": [None, {"timings": None}]}]
)
def test_reports_of_other_versions_are_no_error(broken):
    row = rows(["a"], reports={"a": broken}, failures={})["a"]
    assert row["state"] == "healthy"
    assert page(fleet(Run(["a"], reports={"a": broken}, failures={})), TEMPLATE, **ABOUT)


@pytest.mark.parametrize(
    ("result", "words"),
    [
        ({"msg": "no workspace"}, "no workspace"),
        ({"msg": "Task failed: Action failed: no workspace"}, "no workspace"),
        (
            {"msg": "non-zero return code", "stderr": "W: x\nE: You don't have enough free space in /var/cache/apt/archives/."},
            "enough free space",
        ),
        (
            {"msg": "MODULE FAILURE", "module_stderr": "Traceback …\n  x\nOSError: [Errno 28] No space left on device\n"},
            "No space left on device",
        ),
        ({"msg": "non-zero return code", "stderr": "", "stdout": "it was me"}, "it was me"),
        (
            {
                "msg": "non-zero return code",
                "stderr": "E: Sub-process /usr/bin/dpkg returned an error code (2)",
                "stdout": "dpkg: unrecoverable fatal error, aborting:\r\n unable to create '/var/lib/dpkg/updates/tmp.i': No space left on device",
            },
            "/var/lib/dpkg/updates/tmp.i': No space left",
        ),
        ({"msg": "One or more items failed", "results": [{"msg": "fine"}, {"failed": True, "msg": "this one"}]}, "this one"),
        ({"censored": "the output has been hidden"}, "hidden"),
        ({}, "no reason"),
    ],
)
def test_the_reason_is_what_was_said_and_not_that_something_failed(result, words):
    found = reason(result)
    assert words in found
    assert "fine" not in found
    assert not found.startswith(("Task failed", "Action failed"))


@pytest.mark.parametrize(
    ("why", "words"),
    [
        ("OSError: [Errno 28] No space left on device", "Free space"),
        ("ctr: write /var/lib/containerd/x: no space left on device: unknown", "Free space"),
        ("E: You don't have enough free space in /var/cache/apt/archives/.", "Free space"),
        ("FileNotFoundError: [Errno 2] No usable temporary directory found in ['/tmp', '/root']", "Free space"),
        ("ssh: connect to host web1 port 22: No route to host", "Start the host"),
        ("ssh: connect to host web1 port 22: Connection timed out", "Start the host"),
        ("root@web1: Permission denied (publickey).", "ansible_user"),
        ("Host key verification failed.", "known_hosts"),
        ("ssh: Could not resolve hostname web1: Name or service not known", "ansible_host"),
        ("Missing sudo password", "--ask-become-pass"),
    ],
)
def test_common_failures_have_a_mend(why, words):
    assert words in fix(why)


def test_other_failures_are_left_to_their_own_words():
    assert fix("gVisor runs on amd64 and arm64, and this host is riscv64.") == ""


@pytest.mark.parametrize("text", ["a\x1b[31mb\x1b[0m", "a\x1b]0;title\x07b", "a\u202eb", "a\x00b", "a\u2066b", "a\rb", "a\x9bb"])
def test_nothing_reaches_a_terminal_that_could_drive_it(text):
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", plain(text))
    view = fleet(Run([text], reports={text: report(drift=[text])}, failures={}))
    assert all(line.isprintable() for line in recap(view, text))


def test_long_texts_are_cut():
    assert len(plain("x" * 10 * LONGEST)) <= LONGEST + 2


def test_the_recap_is_one_line_of_counts_then_who_why_and_the_fix():
    lines = recap(mixed(), "reports/fleet.html")
    assert lines[0] == "fleet: 1 healthy, 1 unreachable, 2 failed, 1 not finished, 1 not as it should be, 1 not in this run"
    assert lines[1:4] == [
        '  web10 unreachable at "Look at the host"',
        "    No route to host",
        "    → Start the host, or see why ssh does not reach it, then: ansible-playbook site.yml --limit web10,build_hosts",
    ]
    assert lines[-1] == "page: reports/fleet.html"
    assert not any("web2" in line for line in lines)


def test_the_recap_of_a_healthy_fleet_is_two_lines():
    hosts = [f"web{number}" for number in range(200)]
    assert recap(fleet(Run(hosts, reports={name: report() for name in hosts}, failures={})), "p") == ["fleet: 200 healthy", "page: p"]


def test_a_host_s_name_is_quoted_in_the_command():
    assert "--limit 'a;reboot,build_hosts'" in rows(["a;reboot"], reports={}, failures={"a;reboot": failure("x")})["a;reboot"]["command"]


def test_every_text_on_the_page_is_escaped():
    hostile = report(
        drift=[HOSTILE],
        host={"distribution": HOSTILE, "distribution_version": HOSTILE, "architecture": HOSTILE},
        gvisor={"release": HOSTILE, "version": HOSTILE, "shim": HOSTILE, "files": {HOSTILE: HOSTILE}},
        containerd={"version": HOSTILE, "server_version": HOSTILE},
        image={"references": [HOSTILE], "digest": HOSTILE},
        proof={"kernel": HOSTILE, "runc": HOSTILE, "seconds": HOSTILE},
        runs=[{"path": HOSTILE, "args": [HOSTILE], "rc": HOSTILE, "duration": HOSTILE, "timings": {"pod": HOSTILE}}],
        time=HOSTILE,
    )
    found = {f"{HOSTILE}2": {"task": HOSTILE, "why": HOSTILE, "unreachable": False}}
    view = fleet(
        Run(
            [HOSTILE, f"{HOSTILE}2"],
            reports={HOSTILE: hostile},
            failures=found,
            earlier={f"{HOSTILE}2": hostile},
            again=HOSTILE,
            fixing=HOSTILE,
        ),
    )
    text = page(view, TEMPLATE, time=HOSTILE, command=HOSTILE)
    assert "<script" not in text
    assert "<img" not in text
    assert text.count("&lt;script&gt;") > 10


def test_the_page_loads_nothing_and_runs_nothing():
    text = page(mixed(), TEMPLATE, **ABOUT)
    assert "content=\"default-src 'none'; style-src 'unsafe-inline'" in text
    assert not re.findall(r"<(?:script|link|img|iframe|object|embed)|\son\w+=|javascript:|url\(|@import|https?:", text)
    assert " style=" not in text
