# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The callback plugin that loads once what every task needs: in a process like ansible-playbook's, before and after."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from conftest import ROOT

# What a task of a role would import in its own process. Ansible's own filters do not show: their loader keeps them without a module's name.
LOOK = f"""
import json, runpy, sys
from ansible.plugins import loader
loader.init_plugin_loader([{str(ROOT / ".collections")!r}])
preload = runpy.run_path({str(ROOT / "plugins/callback/preload.py")!r})
loaded = lambda: sorted(name for name in sys.modules if name.startswith(("ansible.plugins.", "ansible_collections.ggen.gvisor.plugins.")))
before = loaded()
preload["CallbackModule"]().v2_playbook_on_start(None)
after = [name for name in loaded() if name not in before]
unknown = [name for kind, names in preload["PLUGINS"].items() for name in names if getattr(loader, kind).get(name, class_only=True) is None]
print(json.dumps([unknown, after]))
"""


def test_what_tasks_need_is_loaded_before_the_first_of_them() -> None:
    done = subprocess.run([sys.executable, "-c", LOOK], capture_output=True, text=True, check=True, cwd=ROOT)
    unknown, loaded = json.loads(done.stdout)
    assert unknown == []
    own = "ansible_collections.ggen.gvisor.plugins"
    assert {f"{own}.filter.{path.stem}" for path in (ROOT / "plugins" / "filter").glob("[a-z]*.py")} <= set(loaded)
    assert {
        "ansible.plugins.lookup.file",
        "ansible.plugins.connection.ssh",
        f"{own}.action.containerd_run",
    } <= set(loaded)


def test_what_lies_beside_the_playbooks_are_links_to_the_callbacks() -> None:
    """Ansible loads what lies there by itself; ansible-doc and the collection have the plugins where plugins are."""
    plugins = {path.stem for path in (ROOT / "plugins" / "callback").glob("*.py")} - {"brief"}  # ansible.cfg names it
    links = {path.name: path for path in (ROOT / "playbooks" / "callback_plugins").glob("*.py")}
    assert set(links) == {f"ggen_gvisor_{name}.py" for name in plugins}
    for name in plugins:
        assert links[f"ggen_gvisor_{name}.py"].readlink() == Path(f"../../plugins/callback/{name}.py")
