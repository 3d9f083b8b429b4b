# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: visible
short_description: Text that is safe to show
version_added: 1.0.0
author: The ggen.gvisor authors (@ggen-gvisor)
description:
  - Puts escapes that people see in place of the characters that a terminal would obey, or not show - control characters, a carriage return,
    marks that change the direction of text, characters without a shape, and bytes that are no UTF-8.
  - For standard output, standard error and the names of files, which a job, a host or an image has the choice of. The collection's own messages,
    warnings, differences and reports need it no more.
positional: _input
options:
  _input:
    description: The text.
    type: raw
    required: true
  one_line:
    description: Whether new lines and tabs become visible, too, as those in the name of a file should.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Show what the job printed
  ansible.builtin.debug:
    msg: "{{ (job.stdout | ggen.gvisor.visible).splitlines() }}"
"""

RETURN = r"""
_value:
  description: The text.
  type: str
"""

from typing import Any

from ansible_collections.ggen.gvisor.plugins.module_utils._base.text import visible, visible_line
from ansible_collections.ggen.gvisor.plugins.plugin_utils._base.filters import Filter, filters


def to_visible(text: Any, one_line: bool = False) -> str:
    """Return the text; see DOCUMENTATION."""
    return visible_line(text) if one_line else visible(text)


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Filter]:
        """Return the filters by name."""
        return filters(visible=to_visible)
