# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Image archives for tests, written in pure Python: FROM scratch, one layer.

``python tests/support/oci.py FILE`` writes the archive of the busybox image, for a playbook, and prints its manifest digest.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import sys
import tarfile
from pathlib import Path

BUSYBOX = "/bin/busybox"  # Debian's busybox-static
CATATONIT = "/usr/bin/catatonit"
ARCH = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
FOREIGN_ARCH = "arm64" if ARCH == "amd64" else "amd64"
APPLETS = (
    "cat chmod cp dd dmesg env false head id ip ln ls mkdir mkfifo mv nc "
    "ping ps pwd rm rmdir seq sh sleep stat tail tee touch true uname wc wget yes"
).split()


def tar(entries: dict[str, bytes | tuple[bytes, int] | str]) -> bytes:
    """Return a tar of ``entries``: name → data, (data, mode), or a symlink's target."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, value in entries.items():
            info = tarfile.TarInfo(name)
            if isinstance(value, str):
                info.type, info.linkname = tarfile.SYMTYPE, value
                archive.addfile(info)
                continue
            data, info.mode = value if isinstance(value, tuple) else (value, 0o644)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def digest(data: bytes) -> str:
    """Return sha256:<hex>."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def blob_name(data: bytes) -> str:
    """Return the entry of an OCI layout that holds ``data``."""
    return f"blobs/sha256/{hashlib.sha256(data).hexdigest()}"


def busybox_layer() -> bytes:
    """Return a layer with a shell, its applets and catatonit."""
    entries: dict[str, bytes | tuple[bytes, int] | str] = {
        "bin/busybox": (Path(BUSYBOX).read_bytes(), 0o755),
        "usr/local/bin/catatonit": (Path(CATATONIT).read_bytes(), 0o755),
        "etc/passwd": b"root:x:0:0:root:/:/bin/sh\n",
    }
    entries.update({f"bin/{applet}": "busybox" for applet in APPLETS})
    return tar(entries)


def oci_entries(
    layer: bytes,
    *refs: str,
    arch: str = ARCH,
    user: str = "",
    env: tuple[str, ...] = (),
    labels: dict[str, str] | None = None,
    annotations: dict[str, str] | None = None,
    config: bytes = b"",
) -> tuple[dict[str, bytes], str]:
    """Return the entries of an OCI layout that names one image ``refs``, and that image's manifest digest.

    ``annotations`` are the manifest's; ``config`` is the whole configuration instead of the one that is made.
    """
    config = (
        config
        or json.dumps(
            {
                "architecture": arch,
                "os": "linux",
                "config": {"Env": ["PATH=/bin:/usr/local/bin", *env], "Cmd": ["/bin/sh"], "User": user, "Labels": labels or {}},
                "rootfs": {"type": "layers", "diff_ids": [digest(layer)]},
            }
        ).encode()
    )
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "annotations": annotations or {},
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": digest(config),
                "size": len(config),
            },
            "layers": [
                {
                    "mediaType": "application/vnd.oci.image.layer.v1.tar",
                    "digest": digest(layer),
                    "size": len(layer),
                }
            ],
        }
    ).encode()
    descriptor = {
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": digest(manifest),
        "size": len(manifest),
    }
    named = [{**descriptor, "annotations": {"org.opencontainers.image.ref.name": ref}} for ref in refs]
    return {
        "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
        "index.json": json.dumps({"schemaVersion": 2, "manifests": named or [descriptor]}).encode(),
        blob_name(manifest): manifest,
        blob_name(config): config,
        blob_name(layer): layer,
    }, digest(manifest)


def docker_entries(layer: bytes, *refs: str, arch: str = ARCH) -> tuple[dict[str, bytes], str]:
    """Return the entries of a docker-archive with one image, and its configuration's digest."""
    config = json.dumps(
        {"architecture": arch, "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": [digest(layer)]}}
    ).encode()
    name = digest(config)[7:]
    manifest = [{"Config": f"{name}.json", "RepoTags": list(refs) or None, "Layers": [f"{name}/layer.tar"]}]
    return {
        "manifest.json": json.dumps(manifest).encode(),
        f"{name}.json": config,
        f"{name}/layer.tar": layer,
    }, digest(config)


def busybox_archive(path: Path, ref: str = "localhost/busybox:1") -> str:
    """Write an OCI archive of the busybox image to ``path`` and return its manifest digest."""
    entries, manifest = oci_entries(busybox_layer(), ref)
    path.write_bytes(tar(entries))
    return manifest


if __name__ == "__main__":
    file = Path(sys.argv[1])
    file.parent.mkdir(parents=True, exist_ok=True)
    print(busybox_archive(file))
