# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How action plugins end."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase
from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.plugin_utils._base.action import Action


class Plugin(Action):
    """An action plugin whose work returns or raises ``work``."""

    def __init__(self, work: Any = None, transport: str = "ssh") -> None:
        self.work = work
        self.seen: dict[str, Any] | None = None
        self._connection = SimpleNamespace(transport=transport)

    def perform(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        self.seen = task_vars
        if isinstance(self.work, Exception):
            raise self.work
        return self.work


@pytest.fixture(autouse=True)
def _ansible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ActionBase, "run", lambda *_args: {"invocation": "kept"})


@pytest.mark.parametrize(
    ("work", "result"),
    [
        ({"changed": True}, {"changed": True}),
        ({"changed": False, "failed": True, "msg": "no"}, {"changed": False, "failed": True, "msg": "no"}),
        (GvisorError("no", rc=3), {"failed": True, "changed": False, "msg": "no", "rc": 3}),
        (
            PermissionError(13, "Permission denied", "/file"),
            {"failed": True, "changed": False, "msg": "on the controller: /file: Permission denied"},
        ),
    ],
)
def test_an_action_ends_with_its_result_or_a_sentence(work: Any, result: dict[str, Any]) -> None:
    assert Plugin(work).run() == {"invocation": "kept", **result}


@pytest.mark.parametrize("said", [None, "text", [], {"files": None}, {"files": {"a": None}}, {"files": {"a": {"size": "x"}}}])
def test_whatever_a_host_says_is_a_sentence(said: Any) -> None:
    class Sum(Plugin):
        def perform(self, task_vars: dict[str, Any]) -> dict[str, Any]:
            super().perform(task_vars)
            return {"size": sum(entry["size"] for entry in self.work["files"].values())}

    result = Sum(said).run()
    assert (result["failed"], result["changed"], result["invocation"]) == (True, False, "kept")
    assert "a host said what this task cannot work with" in result["msg"]
    assert "in perform" in result["exception"]


def test_an_error_of_ansible_s_stays_one() -> None:
    class Mixed(AnsibleError, TypeError):
        pass

    with pytest.raises(Mixed):
        Plugin(Mixed("no")).run()


def test_the_work_gets_the_variables() -> None:
    plugin = Plugin({})
    plugin.run(task_vars={"one": 1})
    assert plugin.seen == {"one": 1}
    plugin.run()
    assert plugin.seen == {}


@pytest.mark.parametrize(("transport", "there"), [("local", True), ("ssh", False)])
def test_the_controller_is_where_no_connection_leads_elsewhere(transport: str, there: bool) -> None:
    assert Plugin({}, transport).on_controller is there
