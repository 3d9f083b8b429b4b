#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: bundle
short_description: One archive with all that hosts without network need
version_added: 1.0.0
description:
  - V(packed) makes a bundle of builds, images and packages. Its bytes depend on its contents alone.
  - V(unpacked) reads a bundle to its end, compares every block and every sum, and only then writes. A bundle in which anything was changed, added, left
    out or made to lead elsewhere is refused as a whole.
  - Runs on the controller.
options:
  state:
    description: Whether to make a bundle or to take one apart.
    type: str
    choices: [packed, unpacked]
    required: true
  path:
    description:
      - The bundle. With O(state=unpacked) it may also be an address that begins with C(https://), C(http://) or C(file://).
      - What comes from a server is kept in the folder C(bundles) of the build cache, so that the next run asks for nothing.
    type: path
    required: true
  sha256:
    description: With O(state=unpacked), the sha256 that the whole file must have. For what comes from a server it is necessary.
    type: str
    default: ""
  bin:
    description: The folder of the builds, as role C(runsc_build) leaves them.
    type: path
    required: true
  dist:
    description: The folder of ggen's images, as role C(ggen_build) leaves them.
    type: path
    required: true
  packages:
    description: The folder of the distributions' packages, each distribution in one such as C(debian-13_amd64).
    type: path
    required: true
  contents:
    description: With O(state=packed), the folders to pack, by their names in the bundle.
    type: list
    elements: str
    default: []
  version:
    description: With O(state=packed), the collection's version.
    type: str
    default: ""
attributes:
  check_mode:
    description: Says whether the bundle would be another one, or reads it and says what would be written. What comes from a server is fetched for that
      and not kept.
    support: full
  diff_mode:
    description: Shows the sha256 of the files that differ.
    support: full
  idempotent:
    description: A second run changes nothing.
    support: full
  platform:
    description: Linux and macOS.
    platforms: posix
    support: full
author:
  - The ggen.gvisor authors (@ggen-gvisor)
"""

EXAMPLES = r"""
- name: Make a bundle
  ggen.gvisor.bundle:
    state: packed
    path: dist/bundle.tar
    bin: bin
    dist: dist
    packages: dist/packages
    contents: [bin/20260701/linux_amd64, dist/26.5.19/linux_amd64, packages/debian-13_amd64]
    version: 0.1.0

- name: Take it apart
  ggen.gvisor.bundle:
    state: unpacked
    path: bundle.tar
    sha256: 5b7d0a2b997eec8b6afd2c5d4d0b37ab39cdb63731a9c1b480cd7d53e122c113
    bin: bin
    dist: dist
    packages: dist/packages
"""

RETURN = r"""
contents:
  description:
    - What is in the bundle, its own C(bundle.json). The C(version) of the collection that made it; the key of each build in C(releases) and the digest of
      each image in C(images), by architecture; the C(architectures); for each of the C(distributions) its packages with their versions and files; and
      sha256, size and mode of all C(files).
  returned: always
  type: dict
  sample:
    schema: 1
    version: 0.1.0
    releases: {'20260701': {amd64: 5c5e…}}
    images: {26.5.19: {amd64: 'sha256:8f2c…'}}
    architectures: [amd64]
    distributions: {debian-13_amd64: {runc: {version: 1.1.15+ds1-2+b4, file: runc_1.1.15+ds1-2+b4_amd64.deb}}}
    files: {bin/20260701/linux_amd64/runsc: {sha256: 5b7d…, size: 51200000, mode: '0755'}}
path:
  description: The bundle.
  returned: always
  type: str
sha256:
  description: The sha256 of the whole file, for O(sha256). Empty where check mode has no builds to make one of.
  returned: always
  type: str
size:
  description: Its size in bytes.
  returned: always
  type: int
"""

import os
import re
from typing import Any, Dict, Mapping, Tuple

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._base.files import sha256_file, staged
from ansible_collections.ggen.gvisor.plugins.module_utils._base.module import run
from ansible_collections.ggen.gvisor.plugins.module_utils._builds.cache import cache_root
from ansible_collections.ggen.gvisor.plugins.module_utils._builds.download import File, is_url, path_of, save
from ansible_collections.ggen.gvisor.plugins.module_utils._builds.result_folder import reading, writing
from ansible_collections.ggen.gvisor.plugins.module_utils._bundle import archive as _bundle

MAX_BUNDLE = 8 << 30  # bytes; some hundred million are usual


def packed(params: Mapping[str, Any], folders: Mapping[str, str], dry: bool) -> Tuple[Dict[str, Any], str, str]:
    """Return the result, and the lines before and after."""
    with reading(*_bundle.results(folders, params["contents"])):
        try:
            contents = _bundle.gather(params["version"], folders, params["contents"])
        except GvisorError:
            if not dry:
                raise
            # Check mode has neither built nor fetched anything before this.
            return {"changed": True, "sha256": "", "size": 0, "contents": {}}, "", f"{params['path']}\n"
        before = _bundle.contents_before(params["path"])
        result = _bundle.pack(params["path"], contents, folders, dry)
    return {**result, "contents": contents}, _bundle.lines(before), _bundle.lines(contents)


def brought(url: str, sha256: str, keep: str) -> str:
    """Fetch the bundle from its server into the folder ``keep``, unless it is there, and return its path. Raises GvisorError and OSError."""
    if not re.fullmatch("[0-9a-f]{64}", sha256):
        raise GvisorError(
            f"the sha256 of {url} is not given, and nothing else says whose it is. Set gvisor_bundle_sha256 to what playbook bundle.yml printed."
        )
    path = os.path.join(keep, f"{sha256}.tar")
    if os.path.isfile(path) and sha256_file(path) == sha256:
        return path
    os.makedirs(keep, exist_ok=True)
    with staged(keep, os.path.basename(path), 0o644) as new:
        try:
            save(url, File(sha256, MAX_BUNDLE), new.stream)
        except GvisorError as error:
            raise GvisorError(f"{error.message}. Nothing was unpacked.") from error
        new.keep(path)
    return path


def unpacked(params: Mapping[str, Any], folders: Mapping[str, str], dry: bool) -> Tuple[Dict[str, Any], str, str]:
    """Return the result, and the lines before and after."""
    stream, bundle = _bundle.open_bundle(params["path"], params["sha256"])
    places = _bundle.results(folders, [os.path.dirname(name) for name in bundle.contents["files"]])
    with stream, reading(*places) if dry else writing(*places):
        changes = _bundle.unpack(stream, bundle, folders, dry)
    before = "".join(f"{path} {old}\n" for path, (old, _new) in sorted(changes.items()) if old)
    after = "".join(f"{path} {new}\n" for path, (_old, new) in sorted(changes.items()) if new)
    return {"changed": bool(changes), "sha256": bundle.sha256, "size": bundle.size, "contents": bundle.contents}, before, after


def perform(module: AnsibleModule) -> Dict[str, Any]:
    """Pack or unpack and return the result. Raises GvisorError or OSError."""
    params = dict(module.params)
    if params["state"] == "unpacked" and is_url(params["path"]):
        path = path_of(params["path"])
        keep = module.tmpdir if module.check_mode else os.path.join(cache_root(), "bundles")
        params["path"] = path or brought(params["path"], params["sha256"].lower(), keep)
    params["path"] = os.path.abspath(params["path"])
    folders = {part: os.path.abspath(params[part]) for part in _bundle.PARTS}
    result, before, after = (packed if params["state"] == "packed" else unpacked)(params, folders, module.check_mode)
    if before != after:
        result["diff"] = {"before_header": "files", "after_header": "files", "before": before, "after": after}
    return {"path": params["path"], **result}


def main() -> None:
    """Make the bundle, or take it apart."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["packed", "unpacked"], "required": True},
            "path": {"type": "path", "required": True},
            "sha256": {"type": "str", "default": ""},
            "bin": {"type": "path", "required": True},
            "dist": {"type": "path", "required": True},
            "packages": {"type": "path", "required": True},
            "contents": {"type": "list", "elements": "str", "default": []},
            "version": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    run(module, perform, place=module.params["path"])


if __name__ == "__main__":
    main()
