# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A registry on this machine, for tests: the program of the distribution project, compiled from the modules that the go.sum beside this file pins."""

from __future__ import annotations

import base64
import json
import os
import socket
import ssl
import subprocess
import time
import urllib.request
from pathlib import Path

import yaml

from support import go_programs, oci

USER, PASSWORD = "puller", "correct-horse-7"
HTPASSWD = f"{USER}:$2b$05$abcdefghijklmnopqrstuuBYe9o9CGi/BHa4OAlLpruMUDfwV3Rby\n"  # bcrypt of it


def certificate(folder: Path) -> tuple[Path, Path]:
    """Make a certificate for this machine, which is its own authority, and its key; return their paths."""
    paths = folder / "registry.crt", folder / "registry.key"
    names = "subjectAltName=IP:127.0.0.1,DNS:localhost"
    argv = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=registry"]
    subprocess.run([*argv, "-addext", names, "-days", "2", "-out", paths[0], "-keyout", paths[1]], check=True, capture_output=True)
    return paths


def auth_file(path: Path, registry: str, password: str = PASSWORD) -> str:
    """Write credentials as skopeo login does and return the path."""
    entry = {"auth": base64.b64encode(f"{USER}:{password}".encode()).decode()}
    path.write_text(json.dumps({"auths": {registry: entry}}))
    path.chmod(0o600)
    return str(path)


class Registry:
    """A registry with HTTPS that lets in one user. A context manager; ``name`` is its host and port."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.authority, key = certificate(folder)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.name = f"127.0.0.1:{free.getsockname()[1]}"
        (folder / "htpasswd").write_text(HTPASSWD)
        config = {
            "version": 0.1,
            "log": {"level": "info", "accesslog": {"disabled": False}},
            "storage": {"filesystem": {"rootdirectory": str(folder / "blobs")}},
            "auth": {"htpasswd": {"realm": "tests", "path": str(folder / "htpasswd")}},
            "http": {"addr": self.name, "secret": "tests", "tls": {"certificate": str(self.authority), "key": str(key)}},
        }
        self._config, self._log = folder / "config.yml", folder / "log"
        self._config.write_text(yaml.safe_dump(config))
        self._process: subprocess.Popen | None = None

    def __enter__(self) -> Registry:
        environment = {"PATH": os.environ["PATH"], "OTEL_TRACES_EXPORTER": "none"}
        with open(self._log, "ab") as log:
            self._process = subprocess.Popen(
                [go_programs.registry(), "serve", self._config], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment
            )
        deadline = time.monotonic() + 20
        while True:
            with socket.socket() as client:
                if client.connect_ex(("127.0.0.1", int(self.name.partition(":")[2]))) == 0:
                    return self
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.__exit__()
                raise RuntimeError(f"the registry did not start:\n{self.log()[-2000:]}")
            time.sleep(0.05)

    def __exit__(self, *_: object) -> None:
        if self._process:
            self._process.terminate()
            self._process.wait(10)

    def log(self) -> str:
        """What it has logged so far."""
        return self._log.read_text(errors="replace")

    def _send(self, method: str, url: str, data: bytes, kind: str) -> str:
        """Send a request and return the Location of the answer."""
        request = urllib.request.Request(url, data=data, method=method)  # noqa: S310 - our own
        request.add_header("Authorization", f"Basic {base64.b64encode(f'{USER}:{PASSWORD}'.encode()).decode()}")
        request.add_header("Content-Type", kind)
        with urllib.request.urlopen(request, context=ssl.create_default_context(cafile=self.authority)) as answer:  # noqa: S310
            return answer.headers.get("Location") or ""

    def push(self, name: str, *documents: bytes, blobs: tuple[bytes, ...]) -> str:
        """Put blobs, and manifests with an index last; return the reference of the last one."""
        base = f"https://{self.name}/v2/{name}"
        for blob in blobs:
            place = self._send("POST", f"{base}/blobs/uploads/", b"", "application/octet-stream")
            self._send("PUT", f"{place}&digest={oci.digest(blob)}", blob, "application/octet-stream")
        for document in documents:
            self._send("PUT", f"{base}/manifests/{oci.digest(document)}", document, json.loads(document)["mediaType"])
        return f"{self.name}/{name}@{oci.digest(documents[-1])}"
