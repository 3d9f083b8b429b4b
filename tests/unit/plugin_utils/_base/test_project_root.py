"""Where build output and reports go."""

from __future__ import annotations

import os

import pytest
from ansible_collections.ggen.gvisor.plugins.plugin_utils._base.commands import project_root


@pytest.mark.parametrize(
    ("playbook_dir", "root"),
    [
        ("/srv/checkout", "/srv/checkout"),
        ("/srv/checkout/playbooks", "/srv/checkout"),
        ("/home/x/.ansible/collections/ansible_collections/ggen/gvisor/playbooks", os.getcwd()),
    ],
)
def test_output_belongs_to_the_project(playbook_dir, root):
    assert project_root(playbook_dir) == root
