"""Run a playbook of this checkout with ansible-runner and read its events."""

from __future__ import annotations

import datetime
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ansible_runner

ROOT = Path(__file__).resolve().parent.parent.parent


# Actions that never reach the host.
CONTROLLER = {
    *(
        f"ansible.builtin.{name}"
        for name in ("assert", "debug", "fail", "include_role", "include_tasks", "set_fact", "validate_argument_spec")
    ),
    "ggen.gvisor.report_file",
}


def _in_process(result: dict[str, Any]) -> bool:
    """Whether the controller did it in its own process: build_cache says so, in a loop each of its items."""
    return all(item.get("controller", False) for item in result.get("results") or [result])


class Play:
    """A playbook that ran: exit code, totals by host, the tasks' results in order, and everything that was printed."""

    def __init__(self, runner: ansible_runner.Runner) -> None:
        events = list(runner.events)
        self.rc: int = runner.rc
        self.output = "\n".join(event["stdout"] for event in events)
        self.stats: dict[str, Any] = next((e["event_data"] for e in events if e["event"] == "playbook_on_stats"), {})
        # A loop tells in its items alone that another host ran them.
        items = [e["event_data"] for e in events if e["event"].startswith("runner_item_on_")]
        self._delegated_loops = {(e["host"], e["task_uuid"]) for e in items if e["res"].get("_ansible_delegated_vars")}
        names = ("runner_on_ok", "runner_on_failed", "runner_on_unreachable")
        # Skipped tasks too, which are no results.
        self.timed = [e["event_data"] for e in events if e["event"].startswith("runner_on_") and "end" in e["event_data"]]
        self.results = [{**e["event_data"], "event": e["event"]} for e in events if e["event"] in names]

    def total(self, what: str) -> int:
        """Return the sum over all hosts of ok, changed, failures, dark, skipped …"""
        return sum(self.stats.get(what, {}).values())

    @property
    def changed(self) -> list[str]:
        """The tasks that changed something."""
        return [event["task"] for event in self.results if event["res"].get("changed")]

    def executions(self, host: str) -> list[str]:
        """The tasks that ran something on the host itself, once for each item of a loop; the others run on the controller."""
        events = [e for e in self.results if e["host"] == host and e["task_action"] not in CONTROLLER and not _in_process(e["res"])]
        events = [e for e in events if not e["res"].get("_ansible_delegated_vars") and (host, e["task_uuid"]) not in self._delegated_loops]
        return [e["task"] for e in events for _item in e["res"].get("results", [1])]

    @property
    def errors(self) -> str:
        """The messages of the tasks that failed, and of their items."""
        failed = [event["res"] for event in self.results if event["event"] != "runner_on_ok" and not event.get("ignore_errors")]
        failed += [item for result in failed for item in result.get("results", []) if item.get("failed")]
        return "\n".join(str(result.get("msg", result)) for result in failed)

    def seconds(self, task: str) -> float:
        """Return how long the task of this name took, from the first host's begin to the last one's end."""
        times = [(event["start"], event["end"]) for event in self.timed if event["task"] == task]
        moments = [[datetime.datetime.fromisoformat(moment) for moment in pair] for pair in times]
        return (max(end for _begin, end in moments) - min(begin for begin, _end in moments)).total_seconds()

    def result(self, task: str) -> dict[str, Any]:
        """Return the result of the one task that has this name."""
        (found,) = [event["res"] for event in self.results if event["task"] == task]
        return found


def play(
    playbook: str,
    *options: str,
    inventory: str | Path | Sequence[str | Path] = "inventories/local",
    project: Path = ROOT,
    collections: Path | None = None,
    **variables: Any,
) -> Play:
    """Run ``playbook`` with command line ``options``, one or several inventories (or none, where the options name them) and extra ``variables``.

    It is a path in the checkout; or, with ``collections``, a name of the collection that is installed there, run in the folder ``project`` with
    Ansible's own settings, as a user of Galaxy runs it.
    """
    inventories = [inventory] if isinstance(inventory, (str, Path)) else inventory
    settings = {"ANSIBLE_COLLECTIONS_PATH": str(collections)} if collections else {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
    with tempfile.TemporaryDirectory(prefix="runner.") as folder:
        runner = ansible_runner.run(
            private_data_dir=folder,
            project_dir=str(project),
            playbook=playbook,
            inventory=[str(ROOT / path) for path in inventories],
            extravars=variables,
            cmdline=" ".join(options) or None,
            envvars={
                **settings,
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            },
            quiet=True,
        )
        return Play(runner)
