# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a module ends, whatever its work does."""

from __future__ import annotations

import os
from typing import Any, NoReturn

import pytest
from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError, sentence
from ansible_collections.ggen.gvisor.plugins.module_utils._base.module import run


class Module:
    """An AnsibleModule that keeps what it ended with; as the real one, it ends by an exit."""

    def __init__(self) -> None:
        self.ended: dict[str, Any] = {}

    def exit_json(self, **result: Any) -> NoReturn:
        self.ended = result
        raise SystemExit(0)

    def fail_json(self, **result: Any) -> NoReturn:
        self.ended = {**result, "failed": True}
        raise SystemExit(1)


def ended(work: Any, **options: str) -> dict[str, Any]:
    """What a module ends with whose work returns or raises this."""

    def perform(_module: Any) -> dict[str, Any]:
        if isinstance(work, Exception):
            raise work
        return work

    module = Module()
    with pytest.raises(SystemExit):
        run(module, perform, **options)  # type: ignore[arg-type]
    return module.ended


@pytest.mark.parametrize(
    ("work", "options", "result"),
    [
        ({"changed": True}, {}, {"changed": True, "failed": False}),
        ({"changed": False, "failed": False}, {}, {"changed": False, "failed": False}),
        ({"failed": True, "msg": "no", "rc": 3}, {}, {"failed": True, "msg": "no", "rc": 3}),
        (GvisorError("no", rc=3), {}, {"failed": True, "msg": "no", "rc": 3}),
        (GvisorError("no"), {"about": "the build"}, {"failed": True, "msg": "the build: no"}),
        (PermissionError(13, "Permission denied", "/file"), {"place": "/folder"}, {"failed": True, "msg": "/file: Permission denied"}),
        (OSError(28, "No space left on device"), {"place": "/folder"}, {"failed": True, "msg": "/folder: No space left on device"}),
        (OSError("odd"), {"about": "the build"}, {"failed": True, "msg": "the build: odd"}),
    ],
)
def test_a_module_ends_with_its_result_or_a_sentence(
    work: Any, options: dict[str, str], result: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)  # others are told to become root
    assert ended(work, **options) == result


def test_a_name_in_bytes_is_shown_as_text() -> None:
    assert sentence(FileNotFoundError(2, "No such file or directory", b"/a\xff")) == "/a\\xff: No such file or directory"
