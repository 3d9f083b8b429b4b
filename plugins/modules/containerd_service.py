#!/usr/bin/python
# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: containerd_service
short_description: Start, stop or restart containerd, with systemd or without it
version_added: 1.0.0
author: The ggen.gvisor authors (@ggen-gvisor)
description:
  - Starts, stops or restarts containerd and returns when its API answers, or says why it does not.
  - Uses systemd where it is running. Elsewhere containerd runs as a plain daemon with a PID file and a log file; a daemon that
    somebody else started is found by its socket, and a restart keeps its arguments and its environment.
  - Running containers are not touched by any of this.
extends_documentation_fragment:
  - ggen.gvisor.containerd
attributes:
  check_mode:
    support: full
    description: Can run in check_mode and tell what would change without changing it.
  diff_mode:
    support: none
    description: There is no text to compare.
  idempotent:
    support: partial
    details:
      - O(state=restarted) always restarts.
    description: A second run with the same options changes nothing.
  platform:
    support: full
    platforms: linux
    description: The systems that the module runs on.
options:
  state:
    description: What containerd is to be. V(restarted) starts it when it is not running.
    type: str
    choices: [started, stopped, restarted]
    default: started
  config:
    description: The configuration file with which a plain daemon is started.
    type: path
    default: /etc/containerd/config.toml
  timeout:
    description: Seconds to wait for containerd to end, and to answer.
    type: float
    default: 60
  address:
    description: The socket of containerd's API.
    type: path
    default: /run/containerd/containerd.sock
"""

EXAMPLES = r"""
- name: Start containerd and wait until it answers
  ggen.gvisor.containerd_service:
    state: started

- name: Restart a containerd that has its own socket
  ggen.gvisor.containerd_service:
    state: restarted
    config: /srv/containerd/config.toml
    address: /run/containerd-two/containerd.sock
    pid_file: /run/containerd-two/containerd.pid
    log_file: /var/log/containerd-two.log
"""

RETURN = r"""
manager:
  description: What manages containerd on this host, V(systemd) or V(daemon).
  returned: always
  type: str
  sample: systemd
pid:
  description: containerd's process id, 0 when it is not running.
  returned: always
  type: int
  sample: 4242
"""

from typing import Any, Dict

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ggen.gvisor.plugins.module_utils._base.module import run
from ansible_collections.ggen.gvisor.plugins.module_utils._containerd.service import Service, Setup, service_for


def apply(service: Service, state: str, timeout: float, check_mode: bool) -> bool:
    """Bring the service to ``state`` and tell whether that changed, or would change, anything."""
    running = service.is_running()
    changed = state == "restarted" or running != (state == "started")
    if changed and not check_mode:
        {"started": service.start, "stopped": service.stop, "restarted": service.restart}[state](timeout)
    if state != "stopped" and not (changed and check_mode):
        service.wait_api(timeout)
    return changed


def perform(module: AnsibleModule) -> Dict[str, Any]:
    """Bring about the state and return the result. Raises GvisorError."""
    options = dict(module.params)
    state, timeout = options.pop("state"), options.pop("timeout")
    service = service_for(Setup(**options))
    changed = apply(service, state, timeout, module.check_mode)
    return {"changed": changed, "manager": service.manager, "pid": service.pid() or 0}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["started", "stopped", "restarted"], "default": "started"},
            "service": {"type": "str", "default": "containerd"},
            "manager": {"type": "str", "choices": ["auto", "systemd", "daemon"], "default": "auto"},
            "config": {"type": "path", "default": "/etc/containerd/config.toml"},
            "address": {"type": "path", "default": "/run/containerd/containerd.sock"},
            "pid_file": {"type": "path", "default": "/run/containerd/containerd.pid"},
            "log_file": {"type": "path", "default": "/var/log/containerd.log"},
            "timeout": {"type": "float", "default": 60},
        },
        supports_check_mode=True,
    )
    run(module, perform)


if __name__ == "__main__":
    main()
