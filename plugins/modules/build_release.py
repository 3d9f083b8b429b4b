#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: build_release
short_description: Write builds to a folder for others, or take builds from such a folder instead of compiling
version_added: 1.0.0
description:
  - V(written) makes a release, a folder that any web server can serve. Its C(index.json) lists every file with size and sha256 by release and
    architecture, C(SHA256SUMS) lists the same for C(sha256sum --check). Its bytes depend on the builds alone.
  - V(taken) brings builds from a release to their places and into the build cache, as if they had been built here. The index must have
    O(sha256), every file what the index says, programs the O(artifacts[].expected) sums, and the provenance must be the one that follows from the
    build's inputs and the collection's pins. Sizes, times and redirects are bounded. All is compared before anything is filed.
  - All of it happens on the controller, in its own process, whichever host the task is for.
options:
  state:
    description: Whether to make a release or to take builds from one.
    type: str
    choices: [written, taken]
    required: true
  path:
    description: With O(state=written), the release's folder.
    type: path
  results:
    description:
      - With O(state=written), the folders of the builds, each C(RELEASE/linux_ARCHITECTURE) as M(ggen.gvisor.build_cache) leaves them.
      - What the release before held and these are not is removed from O(path).
    type: list
    elements: path
    default: []
  url:
    description: With O(state=taken), the release. An address that begins with C(https://), C(http://) or C(file://), or a folder.
    type: str
    default: ""
  sha256:
    description: With O(state=taken), the sha256 of its C(index.json). Without it nothing is taken.
    type: str
    default: ""
  artifacts:
    description: With O(state=taken), what is wanted. All of it is taken, or nothing.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: What it is. Part of the key.
        type: str
        required: true
      inputs:
        description: What the build's key is made from, as for M(ggen.gvisor.build_cache). A build of other inputs is not taken.
        type: dict
        default: {}
      dest:
        description: The folder on the controller that the files belong in.
        type: path
        required: true
      expected:
        description: The sha256 that files must have.
        type: dict
        default: {}
      links:
        description: Symbolic links to keep, as for M(ggen.gvisor.build_cache).
        type: dict
        default: {}
      metadata:
        description: What the build's manifest must tell besides, at least.
        type: dict
        default: {}
  vendors:
    description: With O(state=taken), the collection's folder C(vendors/), for the provenance.
    type: path
  cache:
    description: With O(state=taken), the cache's folder. The default is C(ggen.gvisor) in E(XDG_CACHE_HOME), or in C(~/.cache).
    type: path
attributes:
  check_mode:
    description: Reads and compares index, manifests and provenance, and says what would be written or taken.
    support: full
  diff_mode:
    description: Shows the sha256 of the files that differ.
    support: full
  idempotent:
    description: A second run changes nothing. V(taken) fetches again; ask M(ggen.gvisor.build_cache) first.
    support: full
  platform:
    description: Linux and macOS.
    platforms: posix
    support: full
author:
  - The ggen.gvisor authors (@ggen-gvisor)
"""

EXAMPLES = r"""
- name: Write a release
  ggen.gvisor.build_release:
    state: written
    path: dist/release
    results: [bin/20260701/linux_amd64, dist/26.5.19/linux_amd64]
  register: release

- name: Take a build from it
  ggen.gvisor.build_release:
    state: taken
    url: https://example.org/release
    sha256: "{{ release.sha256 }}"
    artifacts:
      - name: hello
        inputs: {version: 1.2.0, flags: [-trimpath]}
        dest: bin/1.2.0/linux_amd64
    vendors: vendors
"""

RETURN = r"""
artifacts:
  description: Each artifact with its C(name), C(key), C(dest), C(files) and C(manifest), as M(ggen.gvisor.build_cache) returns them.
  returned: with O(state=taken)
  type: list
  elements: dict
index:
  description: What C(index.json) holds.
  returned: with O(state=written)
  type: dict
  sample:
    schema: 1
    releases: {'20260701': {amd64: {key: 5c5e…, files: {runsc: {sha256: 5b7d…, size: 80359586, mode: '0755'}}}}}
    images: {26.5.19: {amd64: {key: 94ef…, digest: 'sha256:1ab8…', files: {ggen.tar: {sha256: 0736…, size: 15912960, mode: '0644'}}}}}
path:
  description: The release's folder.
  returned: with O(state=written)
  type: str
sha256:
  description: The sha256 of C(index.json), for O(sha256).
  returned: with O(state=written)
  type: str
size:
  description: The bytes of all files that the index lists.
  returned: with O(state=written)
  type: int
"""
