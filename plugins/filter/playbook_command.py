# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: playbook_command
short_description: The command that runs a playbook of this collection
version_added: 1.0.0
author: The ggen.gvisor authors (@ggen-gvisor)
description:
  - For messages that tell people what to run next. Names C(ansible-playbook) as the user has started it, by its path where C(PATH) does not find it,
    and the playbook as a file of the checkout or by the collection's name.
positional: _input, playbook_dir
options:
  _input:
    description: The playbook's name, such as V(verify).
    type: str
    required: true
  playbook_dir:
    description: Ansible's variable C(playbook_dir).
    type: path
    required: true
  options:
    description: What follows the playbook, as a shell's words.
    type: str
    default: ""
"""

EXAMPLES = r"""
msg: "It tells more: {{ 'verify' | ggen.gvisor.playbook_command(playbook_dir, '--limit web1') }}"
"""

RETURN = r"""
_value:
  description: The command.
  type: str
  sample: .venv/bin/ansible-playbook playbooks/verify.yml --limit web1
"""


from ansible_collections.ggen.gvisor.plugins.plugin_utils._base.commands import playbook_command
from ansible_collections.ggen.gvisor.plugins.plugin_utils._base.filters import Filter, filters


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Filter]:
        """Return the filters by name."""
        return filters(playbook_command=playbook_command)
