# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: apt_index
short_description: The index of a folder of Debian packages
version_added: 1.0.0
author: The ggen.gvisor authors (@ggen-gvisor)
description:
  - From what C(apt-cache show) says of packages, the file C(Packages) that makes their folder a source of packages for apt. It keeps the sums that the
    distribution has signed.
positional: _input, archives
options:
  _input:
    description: What C(apt-cache show) prints.
    type: str
    required: true
  archives:
    description: The paths of the files that C(apt-get --download-only) has left.
    type: list
    elements: path
    required: true
"""

EXAMPLES = r"""
repository: "{{ shown.stdout | ggen.gvisor.apt_index(found.files | map(attribute='path')) }}"
"""

RETURN = r"""
_value:
  description:
    - The C(index), by path the name that each file gets in the folder as C(files), and by package the C(versions).
  type: dict
  sample:
    index: "Package: runc\n…"
    versions: {runc: 1.1.5+ds1-1}
    files: {/tmp/apt/archives/runc_1.1.5+ds1-1_amd64.deb: runc_1.1.5+ds1-1_amd64.deb}
"""


from ansible_collections.ggen.gvisor.plugins.module_utils._bundle.apt_index import apt_index
from ansible_collections.ggen.gvisor.plugins.plugin_utils._base.filters import Filter, filters


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Filter]:
        """Return the filters by name."""
        return filters(apt_index=apt_index)
