#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: build_cache
short_description: Keep the results of builds, filed under a hash of what they were made from
version_added: 1.0.0
description:
  - V(restored) asks whether a build is necessary. A destination that holds the files of exactly these inputs,
    untouched, is left alone. Otherwise the files come from the cache, if it has them. Otherwise the artifact is among
    RV(misses), and it is time to build.
  - V(stored) files what a build made, writes C(manifest.json) beside it, and brings both to the destination.
  - V(described) adds documents about a build, such as its provenance, to the files of a destination that holds it, and
    to the cache. Key and build stay what they were.
  - Every use compares each file with the manifest and the manifest with the key. An object of the cache that was
    tampered with is thrown away and counts as a miss; a file changed in the destination is fixed.
  - Runs at the same time are safe. The cache may be removed at any time.
options:
  state:
    description: Whether to look for the files, to file them, or to file documents beside them.
    type: str
    choices: [restored, stored, described]
    default: restored
  cache:
    description:
      - The cache's folder. It is made when something is stored.
      - The default is C(ggen.gvisor) in E(XDG_CACHE_HOME), or in C(~/.cache).
    type: path
  artifacts:
    description: What is built. All are looked at in one execution.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: What it is, for messages. Part of the key.
        type: str
        required: true
      inputs:
        description: Everything that decides what the build's bytes are, such as versions, flags and the sums of
          sources.
        type: dict
        default: {}
      dest:
        description: The folder the files belong in. Files there that no manifest lists are left alone.
        type: path
        required: true
      expected:
        description: The sha256 that files must have. A build that differs is not stored; one found that differs is a
          miss.
        type: dict
        default: {}
      links:
        description: Symbolic links to keep by their absolute path, each with the name of the file in
          O(artifacts[].dest) that it leads to.
        type: dict
        default: {}
      source:
        description: With O(state=stored), the folder that the build left its files in, and nothing else.
        type: path
      metadata:
        description: With O(state=stored), what the manifest should tell besides. It is no part of the key.
        type: dict
        default: {}
      documents:
        description: With O(state=described), the text of each document by its file's name. They are no part of the key.
        type: dict
        default: {}
  controller:
    description: Look on the controller, in its own process, whichever host the task is for. That takes a tenth of the time of an execution.
    type: bool
    default: false
    version_added: 1.0.0
attributes:
  check_mode:
    description: Says what would be restored or stored. A tampered object is then only passed over.
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
- name: Is there anything to build?
  ggen.gvisor.build_cache:
    artifacts: ["{{ hello }}"]
  register: built

- name: Build
  ansible.builtin.command:
    cmd: go build -trimpath -o /tmp/hello/ .
    chdir: src
  when: built.misses

- name: Keep it
  ggen.gvisor.build_cache:
    state: stored
    artifacts: ["{{ hello | combine({'source': '/tmp/hello'}) }}"]
  when: built.misses
  vars:
    hello:
      name: hello
      inputs: {version: 1.2.0, flags: [-trimpath], sources: {go.mod: 5b0b…, go.sum: 1f9a…}}
      dest: bin/hello
"""

RETURN = r"""
artifacts:
  description:
    - Each artifact with its C(name), C(key), C(dest), whether it was a C(hit), whether something C(changed), its
      C(files) and its C(manifest), which is null on a miss.
  returned: always
  type: list
  elements: dict
  sample:
    - name: hello
      key: 8c1d…
      dest: /src/bin/hello
      hit: true
      changed: false
      files: {hello: {sha256: 93aa…, size: 1520000, mode: '0755'}}
      manifest:
        name: hello
        key: 8c1d…
        made_from: {name: hello, inputs: {version: 1.2.0}, input_files: [], schema: 1}
        files: {hello: {sha256: 93aa…, size: 1520000, mode: '0755'}}
        metadata: {}
misses:
  description: The names of the artifacts that must be built.
  returned: always
  type: list
  elements: str
cache:
  description: The cache's folder.
  returned: always
  type: str
controller:
  description: That it looked on the controller, in its own process.
  returned: when O(controller) is set
  type: bool
"""


from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ggen.gvisor.plugins.module_utils._base.module import run
from ansible_collections.ggen.gvisor.plugins.module_utils._builds.cache import ARGUMENT_SPEC, perform


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    run(module, lambda ansible: perform(ansible.params, ansible.check_mode))


if __name__ == "__main__":
    main()
