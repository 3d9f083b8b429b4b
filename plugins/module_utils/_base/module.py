# Copyright (c) 2026, the ggen.gvisor authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""How a module ends: with its result, or with a sentence that tells what went wrong."""

from __future__ import annotations

from typing import Any, Callable, Dict

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError, failure
from ansible_collections.ggen.gvisor.plugins.module_utils._base.text import visible_result

Perform = Callable[[AnsibleModule], Dict[str, Any]]


def run(module: AnsibleModule, perform: Perform, *, about: str = "", place: str = "") -> None:
    """Have ``perform`` do the module's work and end with its result; with ``failed`` in it, as a failure.

    ``about`` begins each message of a failure. ``place`` is the file or folder that an error of the operating system is about where it names none.
    """
    try:
        result = perform(module)
    except (GvisorError, OSError) as error:
        failed = failure(error, place)
        result = {**failed, "msg": f"{about}: {failed['msg']}"} if about else failed
    end(module, result)


def end(module: AnsibleModule, result: Dict[str, Any]) -> None:
    """End with ``result``; with ``failed`` in it, as a failure. What people are shown of it is made safe to show.

    Ansible infers a failure from any ``rc`` but 0 in a result that does not say ``failed``.
    """
    shown = visible_result(result)
    if shown.get("failed"):
        module.fail_json(**{key: value for key, value in shown.items() if key != "failed"})
    module.exit_json(**{**shown, "failed": False})
