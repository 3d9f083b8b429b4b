#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: build_fetch
short_description: Bring the results of builds from a build host to the controller
version_added: 1.0.0
description:
  - For build hosts that are not the controller. Takes what M(ggen.gvisor.build_cache) has left in a folder there, and files it in the
    controller's cache and destination, as if it had been built on the controller.
  - All results come in one transfer, compressed. Each file is compared with the build's manifest, the manifest with the inputs as
    the controller knows them, and the sums that are expected. What differs is refused, and nothing is filed.
options:
  cache:
    description:
      - The controller's cache.
      - The default is C(ggen.gvisor) in E(XDG_CACHE_HOME), or in C(~/.cache).
    type: path
  artifacts:
    description: What was built.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: As for M(ggen.gvisor.build_cache).
        type: str
        required: true
      inputs:
        description: As for M(ggen.gvisor.build_cache). Other inputs than the build's own are refused.
        type: dict
        default: {}
      expected:
        description: The sha256 that files must have.
        type: dict
        default: {}
      source:
        description: The folder on the build host, with its C(manifest.json).
        type: path
        required: true
      dest:
        description: The folder on the controller that the files belong in.
        type: path
        required: true
      links:
        description: Symbolic links on the controller, as for M(ggen.gvisor.build_cache).
        type: dict
        default: {}
attributes:
  check_mode:
    description: Says that it would fetch. Nothing is read.
    support: full
  diff_mode:
    description: Shows the sha256 of the controller's files that differ.
    support: full
  idempotent:
    description: A second run fetches again and changes nothing. Ask M(ggen.gvisor.build_cache) on the controller first.
    support: partial
  platform:
    description: Linux and macOS.
    platforms: posix
    support: full
author:
  - The ggen.gvisor authors (@ggen-gvisor)
"""

EXAMPLES = r"""
- name: Bring the build from the build host
  ggen.gvisor.build_fetch:
    artifacts:
      - name: hello
        inputs: {version: 1.2.0, flags: [-trimpath]}
        source: ~/.cache/ggen.gvisor/builds/hello
        dest: "{{ playbook_dir }}/bin/hello"
"""

RETURN = r"""
artifacts:
  description: Each artifact with its C(name), C(key), C(dest), C(files) and C(manifest), as M(ggen.gvisor.build_cache) returns them.
  returned: success
  type: list
  elements: dict
fetched:
  description: The bytes that came from the build host.
  returned: success
  type: int
"""

import os
import tarfile
import tempfile
from typing import Any, Dict, List

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._base.module import run
from ansible_collections.ggen.gvisor.plugins.module_utils._builds.manifest import differing, read_manifest
from ansible_collections.ggen.gvisor.plugins.module_utils._builds.result_folder import reading

ARTIFACT = {
    "name": {"type": "str", "required": True},
    "inputs": {"type": "dict", "default": {}},
    "expected": {"type": "dict", "default": {}},
    "source": {"type": "path", "required": True},
    "dest": {"type": "path", "required": True},
    "links": {"type": "dict", "default": {}},
}
LEVEL = 1  # 140 MB in 2 s; on its way for seconds, and not kept


def manifest_of(name: str, folder: str) -> Dict[str, Any]:
    """Return the manifest of the result in ``folder``. Raises GvisorError unless every file is as it says."""
    manifest = read_manifest(folder)
    if manifest is None:
        raise GvisorError(f"{name}: {folder} on the build host has no build with a manifest of its own; build it again")
    wrong = differing(folder, manifest["files"])
    if wrong:
        raise GvisorError(f"{name}: {', '.join(wrong)} in {folder} on the build host changed since the build; run again to fix that")
    return manifest


def pack(path: str, artifacts: List[Dict[str, Any]]) -> List[Dict[str, Any]]:
    """Write all files to the archive ``path``, each under its artifact's number, and return the manifests. Raises GvisorError or OSError."""
    with reading(*(artifact["source"] for artifact in artifacts)):
        manifests = [manifest_of(artifact["name"], artifact["source"]) for artifact in artifacts]
        with tarfile.open(path, "w:gz", compresslevel=LEVEL) as archive:
            for number, (artifact, manifest) in enumerate(zip(artifacts, manifests)):
                for name in sorted(manifest["files"]):
                    archive.add(os.path.join(artifact["source"], name), f"{number}/{name}", recursive=False)
    os.chmod(path, 0o644)  # the connection's user fetches what another user may have packed, from a folder that is closed to others
    return manifests


def perform(module: AnsibleModule) -> Dict[str, Any]:
    """Pack the builds into the module's temporary folder and return the result. Raises GvisorError or OSError."""
    descriptor, path = tempfile.mkstemp(dir=module.tmpdir, prefix="builds.", suffix=".tar.gz")
    os.close(descriptor)
    manifests = pack(path, module.params["artifacts"])
    return {"changed": False, "path": path, "size": os.path.getsize(path), "manifests": manifests}


def main() -> None:
    """Pack what the action plugin then fetches."""
    module = AnsibleModule(
        argument_spec={
            "cache": {"type": "path"},
            "artifacts": {"type": "list", "elements": "dict", "required": True, "options": ARTIFACT},
        },
        supports_check_mode=True,
    )
    run(module, perform, place=module.tmpdir)


if __name__ == "__main__":
    main()
