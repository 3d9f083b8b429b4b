# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: project_root
short_description: The folder that build output and reports belong to
version_added: 1.0.0
description:
  - From C(playbook_dir), the folder of the project that a playbook runs for; C(bin/), C(dist/) and C(reports/) are made in it.
  - That is the folder of the playbook, or the one above where the playbook is in C(playbooks/). A playbook of an installed collection (run as
    C(ansible-playbook ggen.gvisor.site)) works for the current folder, because nothing should be written among the installed files.
options:
  _input:
    description: C(playbook_dir).
    type: path
    required: true
"""

EXAMPLES = r"""
runsc_build_dest: "{{ playbook_dir | ggen.gvisor.project_root }}/bin"
"""

RETURN = r"""
_value:
  description: The folder's absolute path.
  type: path
"""


from ansible_collections.ggen.gvisor.plugins.plugin_utils._base.commands import project_root
from ansible_collections.ggen.gvisor.plugins.plugin_utils._base.filters import Filter, filters


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Filter]:
        """Return the filters by name."""
        return filters(project_root=project_root)
