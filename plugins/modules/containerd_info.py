#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: containerd_info
short_description: Everything worth knowing about a containerd and gVisor host, in one remote execution
version_added: 1.0.0
description:
  - Reads what a host has of containerd, its configuration, runtime handlers, plugins and images, of gVisor's releases,
    and what the kernel and service manager allow. Changes nothing.
  - Each part is read by itself, so that a host without containerd, or with a daemon that is down, is described and not an error.
options:
  path:
    description: containerd's configuration file.
    type: path
    default: /etc/containerd/config.toml
  address:
    description: containerd's socket.
    type: path
    default: /run/containerd/containerd.sock
  releases:
    description: The folder that holds one folder for each installed gVisor release.
    type: path
    default: /usr/local/lib/gvisor
  bin:
    description: The folder that holds the links to C(runsc) and its shim.
    type: path
    default: /usr/local/bin
  package:
    description: The package that would bring containerd where it is not installed.
    type: str
    default: containerd
  runsc_config:
    description: The shim's options file.
    type: path
    default: /etc/containerd/runsc.toml
  space:
    description: Folders whose free space is wanted. They need not be there yet.
    type: list
    elements: path
    default: []
    version_added: 1.0.0
  boot_config:
    description: The files on the controller that replace the configuration at each start of the host, as M(ggen.gvisor.containerd_runtime) takes them.
    type: list
    elements: str
    default: []
    version_added: 1.0.0
  stamps:
    description: Further files whose sha256 is wanted, for roles that stamp what they brought to the host.
    type: list
    elements: path
    default: []
    version_added: 1.0.0
  runtime:
    description:
      - The runtime handler that the host should have, as M(ggen.gvisor.containerd_runtime) would be given it. C(config.ready) then tells whether that
        would change nothing, so that it need not be run, and C(config.drift) what it would change or refuse.
    type: dict
    version_added: 1.0.0
attributes:
  check_mode:
    description: It only reads.
    support: full
  diff_mode:
    description: There is nothing to compare.
    support: none
  idempotent:
    support: full
    description: A second run with the same options changes nothing.
  platform:
    platforms: linux
    support: full
    description: The systems that the module runs on.
author:
  - The ggen.gvisor authors (@ggen-gvisor)
"""

EXAMPLES = r"""
- name: Look at the host
  ggen.gvisor.containerd_info:
  become: true
  register: host

- name: Stop where the CRI plugin is down although systemd calls containerd active
  ansible.builtin.assert:
    that: host.containerd.plugins['io.containerd.grpc.v1.cri'] | default('ok') == 'ok'

- name: Is gVisor a handler that Kubernetes can name?
  ansible.builtin.debug:
    msg: "{{ 'runsc' in host.config.runtimes }}"
"""

RETURN = r"""
containerd:
  description:
    - The daemon. C(version) is that of the program on disk, C(server_version) that of the running daemon, C(candidate) what the package manager
      would install where it is missing, C(plugins) maps I(type.id) to its status. C(config) is the file that the running daemon reads, by its command
      line (C(real_config) with links followed), C(running_version) and C(running_program) are those of its process.
    - C(package) is the package that brought it, where that is one of dpkg's. C(advisories) are those of containerd's security advisories whose fixes it
      lacks, by the table in C(plugin_utils/_containerd/advisories.py), which knows what Debian brought back. They are a warning and no drift.
  returned: always
  type: dict
  sample:
    installed: true
    path: /usr/bin/containerd
    version: 1.7.24
    candidate: null
    running: true
    server_version: 1.7.24
    package: {name: containerd, version: 1.7.24~ds1-6+deb13u1}
    advisories: [CVE-2026-53488]
    plugins: {io.containerd.grpc.v1.cri: ok}
    config: /etc/containerd/config.toml
config:
  description:
    - The configuration file, its version (1 where it names none), and the runtime handlers that containerd reads from it.
    - With O(runtime), C(ready) tells whether the daemon's own reading of its files has the handler as it should be, and C(drift) what is not so, a
      sentence each. Where the next start brings other files (O(boot_config)) it is V(false).
    - With O(boot_config), C(boot_config) tells where the next start's configuration is from (C(source)), whether it is the C(same), and its C(handlers).
  returned: always
  type: dict
  sample:
    path: /etc/containerd/config.toml
    exists: true
    sha256: 5b0b…
    version: 2
    default_runtime: runc
    runtimes: {runsc: {runtime_type: io.containerd.runsc.v1}}
    error: null
gvisor:
  description:
    - What is installed of gVisor. C(release) is the one that the links lead to, C(files) the sha256 of each file by release,
      C(in_use) the releases that a process runs a file of, C(runsc_config) the text of the shim's options file,
      C(foreign) the files of a gVisor that somebody else installed, C(members) sha256 and mode of the C(program) and the C(rule) that let members of
      a group run the command, C(installed)
      what C(installed.json) says - what the roles brought to this host and will take away again, and what there was before the last switch.
  returned: always
  type: dict
  sample:
    release: '20260518'
    links: {runsc: /usr/local/lib/gvisor/20260518/runsc}
    files: {'20260518': {runsc: 0c1f…}}
    in_use: ['20260518']
    runsc_version: runsc version 20260511.0-209a0ce076a1
    runsc_config_sha256: 93aa…
    foreign: []
    members: {}
    installed: {packages: [containerd]}
images:
  description: Images with their manifest digest, by containerd namespace. Empty where the daemon does not answer.
  returned: always
  type: dict
  sample: {default: {'docker.io/library/ggen:26.5.19': 'sha256:8c1d…'}}
kubelet:
  description:
    - The host's kubelet. One was C(found) by its process, or by its configuration where kubeadm has it. C(running) tells which, C(files) what was read.
    - C(cgroup_driver) and C(address), its runtime's socket, are by its files and flags. C(error) is why the files cannot be understood.
  returned: always
  type: dict
  version_added: 1.0.0
  sample: {found: true, running: true, files: [/var/lib/kubelet/config.yaml], cgroup_driver: systemd, address: /run/containerd/containerd.sock, error: null}
pinned:
  description: The names of images that are pinned against the kubelet's collection. Only V(k8s.io) has such.
  returned: always
  type: dict
  version_added: 1.0.0
  sample: {k8s.io: ['docker.io/library/ggen:26.5.19']}
stamps:
  description: The sha256 of each file of O(stamps), null where there is none.
  returned: always
  type: dict
  sample: {/srv/model/.stamp: null}
host:
  description:
    - The machine. C(capabilities) are containerd's where it runs; without CAP_SYS_RESOURCE gVisor's unmodified shim cannot start.
    - C(interrupted_packages) tells whether dpkg was interrupted, so that apt does nothing until C(dpkg --configure -a) was run.
    - C(sudo) tells whether there is sudo.
    - C(space) has for each folder of O(space) the C(free_mb) of its file system and that file system's C(device) number.
  returned: always
  type: dict
  sample:
    architecture: amd64
    kernel: 6.12.0
    distribution: debian
    distribution_version: '13'
    service_manager: systemd
    cgroup_version: 2
    capabilities: [CAP_CHOWN, CAP_SYS_RESOURCE]
    sudo: true
    space: {/usr/local/lib/gvisor: {free_mb: 41230, device: 65024}}
"""

import hashlib
import os
from typing import Any, Dict, Optional

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._base.module import run
from ansible_collections.ggen.gvisor.plugins.module_utils._containerd.config_files import kind_of, read_for
from ansible_collections.ggen.gvisor.plugins.module_utils._containerd.config_transaction import JOURNAL
from ansible_collections.ggen.gvisor.plugins.module_utils._containerd.host import containerd, host, images, pinned, read_config
from ansible_collections.ggen.gvisor.plugins.module_utils._gvisor.history import gvisor
from ansible_collections.ggen.gvisor.plugins.module_utils._kubernetes.kubelet import kubelet
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.pinned import pin, read_file


def stamp(path: str) -> Optional[str]:
    """Return the sha256 of a small file as its folder's owner can read it; None where there is none. A job may have had that folder."""
    try:
        with pin(os.path.dirname(path), "stamps") as folder:
            data = read_file(folder, os.path.basename(path))
    except GvisorError:
        return None
    return None if data is None else hashlib.sha256(data).hexdigest()


def perform(module: AnsibleModule) -> Dict[str, Any]:
    """Read the host and return the result. Raises GvisorError or OSError."""
    parameters = module.params
    daemon = containerd(parameters["address"], parameters["package"])
    found = None
    if parameters["runtime"] and not kind_of(parameters["path"]):
        found = read_for(parameters["path"], daemon["path"] or "containerd", parameters["runtime"]["name"], address=parameters["address"])
    config = read_config(parameters["path"], daemon["path"], found and found["dump"])
    if parameters["runtime"]:
        folder = os.path.dirname(os.path.realpath(parameters["path"]))
        config["interrupted"] = os.path.exists(os.path.join(folder, JOURNAL))
        config["found"] = found
    listed = images(parameters["address"]) if daemon["running"] else {}
    return {
        "changed": False,
        "containerd": daemon,
        "config": config,
        "gvisor": gvisor(parameters["releases"], parameters["bin"], parameters["runsc_config"]),
        "images": listed,
        "pinned": pinned(parameters["address"], listed),
        "kubelet": kubelet(),
        "host": host(daemon["pid"] or os.getpid(), parameters["space"]),
        "stamps": {path: stamp(path) for path in parameters["stamps"]},
    }


def main() -> None:
    """Read the host, part by part."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "default": "/etc/containerd/config.toml"},
            "address": {"type": "path", "default": "/run/containerd/containerd.sock"},
            "releases": {"type": "path", "default": "/usr/local/lib/gvisor"},
            "bin": {"type": "path", "default": "/usr/local/bin"},
            "package": {"type": "str", "default": "containerd"},
            "runsc_config": {"type": "path", "default": "/etc/containerd/runsc.toml"},
            "space": {"type": "list", "elements": "path", "default": []},
            "stamps": {"type": "list", "elements": "path", "default": []},
            # For the action plugin, which judges what is read for it.
            "boot_config": {"type": "list", "elements": "str", "default": []},
            "runtime": {"type": "dict"},
        },
        supports_check_mode=True,
    )
    run(module, perform, about="the host could not be read")


if __name__ == "__main__":
    main()
