# Copyright (c) 2026, the ggen.gvisor authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""What a pod without a network has of one: a loopback interface that is up, a host name, and a hosts file with both.

ctr gives a container a network namespace whose loopback interface is down, and gVisor has in its own network what is up there.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
from typing import Dict, Iterator

from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError, rights_fix
from ansible_collections.ggen.gvisor.plugins.module_utils._base.kernel import check_call, libc

HOST_NAME = "sandbox"  # the same in every pod: what a command generates may hold it
HOSTS_FILE = "/etc/hosts"
LOCALHOST = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n"

_KINDS = {"network": ("net", 0x40000000), "uts": ("uts", 0x04000000)}  # ctr's name → the kernel's
_GET_FLAGS, _SET_FLAGS, _UP = 0x8913, 0x8914, 1


def _raise_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sH22x", b"lo", 0)
        (flags,) = struct.unpack_from("H", fcntl.ioctl(any_socket, _GET_FLAGS, request), 16)
        fcntl.ioctl(any_socket, _SET_FLAGS, struct.pack("16sH22x", b"lo", flags | _UP))


def hosts(name: str) -> str:
    """Return the hosts file of a pod with this host name, or with none."""
    return f"{LOCALHOST}127.0.0.1 {name}\n" if name else LOCALHOST


@contextlib.contextmanager
def namespaces() -> Iterator[Dict[str, str]]:
    """Give the paths of new namespaces, by ctr's names of their kinds, that are there as long as this is or a process is in them.

    Raises GvisorError. This thread is in its own ones again before anything else happens.
    """
    with contextlib.ExitStack() as stack:

        def opened(kind: str) -> int:
            descriptor = os.open(f"/proc/thread-self/ns/{_KINDS[kind][0]}", os.O_RDONLY | os.O_CLOEXEC)
            stack.callback(os.close, descriptor)
            return descriptor

        try:
            own = {kind: opened(kind) for kind in _KINDS}
            check_call(libc().unshare(sum(flag for _name, flag in _KINDS.values())))
            try:
                _raise_loopback()
                socket.sethostname(HOST_NAME)
                new = {kind: opened(kind) for kind in _KINDS}
            finally:
                for kind, descriptor in own.items():
                    check_call(libc().setns(descriptor, _KINDS[kind][1]))
        except OSError as error:
            raise GvisorError(
                f"this host gives a pod no network namespace with a loopback interface: {error.strerror}{rights_fix(error)}"
            ) from error
        yield {kind: f"/proc/{os.getpid()}/fd/{descriptor}" for kind, descriptor in new.items()}
