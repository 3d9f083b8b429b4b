# Copyright (c) 2026, the ggen.gvisor authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""containerd through ctr, the only interface that every distribution ships (no maintained Python client exists)."""

from __future__ import annotations

import socket
from typing import Dict, List, Optional, Set

from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError, rights_fix
from ansible_collections.ggen.gvisor.plugins.module_utils._base.process import Completed, Feed, run

DEFAULT_ADDRESS = "/run/containerd/containerd.sock"
KUBERNETES = "k8s.io"  # the namespace of containerd's CRI plugin
# The label of an image's name by which the CRI plugin tells the kubelet, which removes what nobody uses, that this one stays. From 1.7 on.
_PINNED, _PIN = "io.cri-containerd.pinned", "pinned"


class Ctr:
    """One containerd (its socket) and one of its namespaces."""

    def __init__(self, address: str = DEFAULT_ADDRESS, namespace: str = "default", program: str = "ctr") -> None:
        self.address = address
        self.namespace = namespace
        self.program = program

    def argv(self, *args: str) -> List[str]:
        """Return the command line for ``ctr args…`` against this containerd and namespace."""
        return [self.program, "--address", self.address, "--namespace", self.namespace, *args]

    def run(self, *args: str, timeout: float = 60.0, feed: Optional[Feed] = None) -> Completed:
        """Run ``ctr args…``; ``timeout`` in seconds, ``feed`` writes its standard input. Raises GvisorError only when ctr is missing or hangs."""
        return run(self.argv(*args), timeout=timeout, feed=feed)

    def check(self, *args: str, timeout: float = 60.0, feed: Optional[Feed] = None) -> str:
        """Run ``ctr args…`` and return its standard output. Raises GvisorError with ctr's own words when it fails."""
        done = self.run(*args, timeout=timeout, feed=feed)
        if done.rc != 0:
            raise GvisorError(
                f"ctr {' '.join(args)} failed on {self.address}: {done.stderr.strip() or done.stdout.strip()}",
                rc=done.rc,
                stderr=done.stderr,
            )
        return done.stdout

    def connect(self) -> None:
        """Raise GvisorError at once when no containerd listens; ctr itself would try for ten seconds."""
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(10)
            try:
                client.connect(self.address)
            except PermissionError as error:
                raise GvisorError(
                    f"containerd's socket {self.address} cannot be used: {error.strerror}{rights_fix(error)}", address=self.address
                ) from error
            except OSError as error:
                raise GvisorError(
                    f"containerd does not answer at {self.address} ({error.strerror or error}); start it or give its address",
                    address=self.address,
                    missing="containerd",
                ) from error

    def images(self) -> Dict[str, str]:
        """Return the namespace's images: name → manifest digest."""
        rows = (line.split() for line in self.check("images", "ls").splitlines()[1:])
        return {row[0]: row[2] for row in rows if len(row) > 2}

    def pinned(self) -> Set[str]:
        """Return the names of the namespace's images that are pinned against the kubelet's collection."""
        return set(self.check("images", "ls", "--quiet", f'labels."{_PINNED}"=={_PIN}').split())

    def pin(self, name: str) -> None:
        """Pin an image that the namespace has under this name. Raises GvisorError where it has none."""
        self.check("images", "label", name, f"{_PINNED}={_PIN}")

    def blobs(self) -> Set[str]:
        """Return the digests of all content that the namespace has."""
        return set(self.check("content", "ls", "--quiet").split())

    def has_snapshot(self, key: str) -> bool:
        """Tell whether ctr's snapshotter has what ``key`` names."""
        return self.run("snapshots", "info", key).rc == 0

    def namespaces(self) -> List[str]:
        """Return the names of containerd's namespaces."""
        return self.check("namespaces", "ls", "--quiet").split()

    def plugins(self) -> List[Dict[str, str]]:
        """Return containerd's plugins as dicts of type, id and status ("ok", "skip" or "error")."""
        rows = (line.split() for line in self.check("plugins", "ls").splitlines()[1:])
        return [{"type": row[0], "id": row[1], "status": row[-1]} for row in rows if len(row) > 3]

    def server_version(self) -> str:
        """Return the running daemon's version without packaging suffixes, for example 1.6.20."""
        server = self.check("version").partition("Server:")[2]
        for line in server.splitlines():
            key, colon, value = line.partition(":")
            if colon and key.strip() == "Version":
                return value.strip().split("~")[0].split("+")[0].lstrip("v")
        raise GvisorError(f"ctr version names no server version on {self.address}")
