"""The callback plugin that sums a fleet up, in real runs of an installed collection without any settings. Nobody listens where the hosts should be."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

JSON_OUTPUT = """
from ansible.plugins.callback import CallbackBase


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "some_json"

    def v2_playbook_on_stats(self, stats):
        print("{}")
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder of collections that has this one."""
    folder = tmp_path_factory.mktemp("collections")
    place = folder / "ansible_collections" / "ggen" / "gvisor"
    place.mkdir(parents=True)
    for name in ("meta", "playbooks", "plugins", "roles", "vendors"):
        shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.fixture
def run(installed, tmp_path):
    """Run a playbook of the installed collection in a folder of the user's own and return what came of it."""
    hosts = {name: {"ansible_host": "127.0.0.1", "ansible_port": 1} for name in ("web1", "web2")}
    (tmp_path / "hosts.json").write_text(json.dumps({"all": {"children": {"sandbox_hosts": {"hosts": hosts}}}}))

    def play(playbook: str, *options: str, **env: str) -> subprocess.CompletedProcess[str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
        return subprocess.run(
            [Path(sys.executable).with_name("ansible-playbook"), "-i", "hosts.json", playbook, *options],
            cwd=tmp_path,
            env={**clean, "ANSIBLE_COLLECTIONS_PATH": str(installed), "ANSIBLE_NOCOLOR": "1", **env},
            capture_output=True,
            text=True,
            check=False,
        )

    return play


def states(page: Path) -> dict[str, str]:
    """Return each row's state by its host."""
    found = re.findall(r'<tbody [^>]*class="(\w+)[^"]*">.*?<bdi>(.*?)</bdi>', page.read_text(), re.DOTALL)
    return {host: state for state, host in found}


def test_where_no_host_is_left_the_page_is_written_all_the_same(run, tmp_path):
    done = run("ggen.gvisor.verify")
    assert done.returncode == 4, "Ansible's own: hosts were unreachable"
    assert re.findall(r"^web[12] .*unreachable=1 .*failed=0", done.stdout, re.MULTILINE)
    end = done.stdout[done.stdout.index("\nfleet: ") :].strip().splitlines()
    assert end[0] == "fleet: 0 healthy, 2 unreachable"
    assert end[1] == '  web1 unreachable at "Look at the host"'
    assert end[3].endswith("ansible-playbook ggen.gvisor.verify --limit web1")
    assert end[-1] == "page: reports/fleet.html"
    assert states(tmp_path / "reports/fleet.html") == {"web1": "unreachable", "web2": "unreachable"}


def test_a_limit_keeps_the_others_rows(run, tmp_path):
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports/web2.json").write_text(json.dumps({"time": "2026-11-25T16:00:00+00:00", "gvisor": {"release": "20260701"}}))
    done = run("ggen.gvisor.verify", "--limit", "web1")
    assert "fleet: 0 healthy, 1 unreachable, 1 not in this run" in done.stdout
    assert states(tmp_path / "reports/fleet.html") == {"web1": "unreachable", "web2": "earlier"}
    assert "20260701" in (tmp_path / "reports/fleet.html").read_text()


def test_a_damaged_report_of_an_earlier_run_is_no_report(run, tmp_path):
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports/web2.json").write_text('{"time": ')
    assert "fleet: 0 healthy" in run("ggen.gvisor.verify", "--limit", "web1").stdout


def test_the_page_goes_where_the_reports_go(run, tmp_path):
    done = run(
        "ggen.gvisor.verify", "--extra-vars", json.dumps({"place": str(tmp_path), "containerd_gvisor_reports": "{{ place }}/elsewhere"})
    )
    assert "page: elsewhere/fleet.html" in done.stdout
    assert states(tmp_path / "elsewhere/fleet.html")
    assert not (tmp_path / "reports").exists()


def test_a_page_that_cannot_be_written_does_not_cost_the_recap(run, tmp_path):
    (tmp_path / "reports").write_text("in the way")
    done = run("ggen.gvisor.verify")
    assert "fleet: 0 healthy, 2 unreachable" in done.stdout
    assert f"page: {tmp_path}/reports/fleet.html cannot be written" in done.stdout


def test_output_that_programs_read_stays_what_it_is(run, tmp_path):
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins/some_json.py").write_text(JSON_OUTPUT)
    done = run("ggen.gvisor.verify", ANSIBLE_CALLBACK_PLUGINS=str(tmp_path / "plugins"), ANSIBLE_STDOUT_CALLBACK="some_json")
    assert json.loads(done.stdout) == {}
    assert "fleet: 0 healthy" in done.stderr


@pytest.mark.parametrize("playbook", ["ggen.gvisor.uninstall", "ggen.gvisor.run"])
def test_other_playbooks_leave_the_page_alone(run, tmp_path, playbook):
    done = run(playbook)
    assert "PLAY RECAP" in done.stdout
    assert "fleet:" not in done.stdout
    assert not (tmp_path / "reports").exists()
