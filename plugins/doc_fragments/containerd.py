# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options that modules which handle the containerd service share."""

from __future__ import annotations


class ModuleDocFragment:
    """Where containerd runs and where its daemon leaves its traces."""

    DOCUMENTATION = r"""
options:
  service:
    description: The name of containerd's systemd unit.
    type: str
    default: containerd
  manager:
    description: What manages containerd. V(auto) is V(systemd) where systemd is running and V(daemon) elsewhere.
    type: str
    choices: [auto, systemd, daemon]
    default: auto
  pid_file:
    description: The PID file of a plain daemon.
    type: path
    default: /run/containerd/containerd.pid
  log_file:
    description: The file to which a plain daemon writes.
    type: path
    default: /var/log/containerd.log
"""
