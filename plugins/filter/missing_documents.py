# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: missing_documents
short_description: Which builds lack their SBOM or provenance
version_added: 1.0.0
author: The ggen.gvisor authors (@ggen-gvisor)
description:
  - Works out the documents of each build from its manifest and the collection's pins, and compares them with those that lie beside it.
  - SBOMs are CycloneDX 1.6, provenance is SLSA 1.0 in an in-toto statement. See C(docs/decisions/supply-chain.md).
positional: _input, vendors
options:
  _input:
    description: The C(artifacts) that M(ggen.gvisor.build_cache) has found.
    type: list
    elements: dict
    required: true
  vendors:
    description: The collection's folder C(vendors/).
    type: path
    required: true
"""

EXAMPLES = r"""
missing: "{{ built.artifacts | ggen.gvisor.missing_documents('vendors') }}"
"""

RETURN = r"""
_value:
  description: What to ask M(ggen.gvisor.build_cache) to describe, one artifact a build that lacks documents or has other ones.
  type: list
  elements: dict
"""


from ansible_collections.ggen.gvisor.plugins.plugin_utils._base.filters import Filter, filters
from ansible_collections.ggen.gvisor.plugins.plugin_utils._gvisor.documents import missing_documents


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Filter]:
        """Return the filters by name."""
        return filters(missing_documents=missing_documents)
