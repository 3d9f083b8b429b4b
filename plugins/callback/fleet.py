# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: fleet
type: aggregate
short_description: The fleet's page and recap at the end of site.yml and verify.yml
version_added: 1.0.0
description:
  - Ansible loads it by itself for the playbooks beside it. It does nothing unless one of the plays has the variable C(ggen_gvisor_fleet).
  - It sees every failure of the run, also that of a host that was never reached or of all hosts at once, where no task could run any more.
  - Writes C(fleet.html) beside the hosts' reports and prints the fleet's recap, to standard error where the output of Ansible is JSON.
"""

import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from typing import Any

from ansible import constants as C
from ansible import context
from ansible.plugins.callback import CallbackBase
from ansible.template import Templar
from ansible_collections.ggen.gvisor.plugins.module_utils._base.files import atomic_write
from ansible_collections.ggen.gvisor.plugins.plugin_utils._base.commands import program, project_root, shown
from ansible_collections.ggen.gvisor.plugins.plugin_utils._base.failures import reason
from ansible_collections.ggen.gvisor.plugins.plugin_utils._base.text import plain
from ansible_collections.ggen.gvisor.plugins.plugin_utils._fleet.report import Run, fleet, page, recap

MARK = "ggen_gvisor_fleet"  # the variable of the plays that report hosts
FOLDER = "containerd_gvisor_reports"
REPORT = "ggen.gvisor.report_file"  # the action whose result is a host's report
TEMPLATE = os.path.join(
    os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__)))), "playbooks", "templates", "fleet.html.j2"
)


class CallbackModule(CallbackBase):
    """Collects reports and failures while a playbook runs."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "ggen.gvisor.fleet"
    CALLBACK_NEEDS_ENABLED = False

    def v2_playbook_on_start(self, playbook: Any) -> None:
        """Begin anew: one command can run several playbooks."""
        self._plays = [play for play in playbook.get_plays() if play.vars.get(MARK)]
        self._reports: dict[str, dict[str, Any]] = {}
        self._failures: dict[str, dict[str, Any]] = {}
        self._begun: dict[tuple[str, str], float] = {}
        self._seconds: dict[str, float] = {}
        self._hosts: dict[str, Any] = {}
        self._folder = ""

    def v2_runner_on_start(self, host: Any, task: Any) -> None:
        """Take the time of a host's task."""
        self._begun[host.name, task._uuid] = time.monotonic()

    def _end(self, result: Any) -> None:
        name = result.host.name
        self._hosts[name] = result.host
        begun = self._begun.pop((name, result.task._uuid), None)
        if begun is not None:
            self._seconds[name] = self._seconds.get(name, 0.0) + time.monotonic() - begun

    def v2_runner_on_skipped(self, result: Any) -> None:
        """Count the time."""
        self._end(result)

    def v2_runner_on_ok(self, result: Any) -> None:
        """Keep the host's report when the role has made it."""
        self._end(result)
        if result.task.action == REPORT:
            self._reports[result.host.name] = {"time": _now(), **result.result}
            self._folder = os.path.dirname(result.result["path"])

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        """Remember the last failure; whether the host was rescued the statistics tell."""
        self._end(result)
        if not ignore_errors:
            self._fail(result, unreachable=False)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        """Remember that the host could not be reached."""
        self._end(result)
        self._fail(result, unreachable=True)

    def _fail(self, result: Any, *, unreachable: bool) -> None:
        self._failures[result.host.name] = {"task": result.task_name, "why": reason(result.result), "unreachable": unreachable}

    def v2_playbook_on_stats(self, stats: Any) -> None:
        """Write the page and print the recap."""
        if not self._plays or not stats.processed:
            return
        variables = self._plays[0].get_variable_manager().get_vars(play=self._plays[0])
        limited = set(variables["ansible_play_hosts_all"])
        known = list(dict.fromkeys([*variables["groups"].get("sandbox_hosts", []), *variables["ansible_play_hosts_all"]]))
        folder = self._folder or self._reports_folder(known, variables)
        path = os.path.join(folder, "fleet.html")
        asked = shown(str(context.CLIARGS["args"][0]))
        view = fleet(
            Run(
                [name for name in known if name in limited],
                others=[name for name in known if name not in limited],
                reports=self._reports,
                failures={name: failure for name, failure in self._failures.items() if name in stats.failures or name in stats.dark},
                earlier=dict(_earlier(folder, known)),
                seconds=self._seconds,
                again=asked,
                fixing=re.sub(r"\bverify(\.yml)?$", r"site\1", asked),
            ),
        )
        with open(TEMPLATE, encoding="utf-8") as stream:
            text = page(view, stream.read(), time=_now(), command=plain(self._command(asked)))
        lines = recap(view, shown(path))
        try:
            os.makedirs(folder, mode=0o755, exist_ok=True)
            atomic_write(path, text.encode(), 0o644)
        except OSError as error:
            lines[-1] = f"page: {path} cannot be written: {error.strerror}. Set {FOLDER} to a folder of yours."
        for line in lines:
            color = C.COLOR_ERROR if line.startswith("  ") else None
            self._display.display(line, color=color, stderr="json" in C.DEFAULT_STDOUT_CALLBACK)

    def _reports_folder(self, names: list[str], variables: Mapping[str, Any]) -> str:
        """Return the reports' folder of a run in which no host came as far as its report."""
        host = next((self._hosts[name] for name in names if name in self._hosts), None)
        if host:
            variables = self._plays[0].get_variable_manager().get_vars(play=self._plays[0], host=host)
        asked = variables.get(FOLDER)
        if asked:
            return str(Templar(loader=self._plays[0].get_loader(), variables=variables).template(asked))
        return os.path.join(project_root(variables["playbook_dir"]), "reports")

    @staticmethod
    def _command(asked: str) -> str:
        options = [f"--limit {context.CLIARGS['subset']}"] if context.CLIARGS.get("subset") else []
        options += ["--check"] if context.CLIARGS.get("check") else []
        return " ".join([program(), asked, *options])


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime())


def _earlier(folder: str, names: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the reports that earlier runs have left; a damaged one counts as none."""
    for name in names:
        try:
            with open(os.path.join(folder, f"{name}.json"), encoding="utf-8") as stream:
                report = json.load(stream)
        except (OSError, ValueError):
            continue
        if isinstance(report, dict):
            yield name, report
