# Copyright (c) 2026, the ggen.gvisor authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""Read an image archive (OCI layout or docker-archive) without extracting or trusting it.

containerd imports a nameless archive as nothing with exit code 0, and an image of a foreign architecture without a word, so
everything is looked at before ctr is: names, platform, and that each blob is there, whole and what its digest says.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
import re
import tarfile
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Tuple, cast

from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._base.platform import architecture
from ansible_collections.ggen.gvisor.plugins.module_utils._base.tar import FILE, FOLDER, LINK, OTHER, Reader, Trust, kind_of

MAX_DOCUMENT = 4 << 20  # bytes of an index, manifest or configuration; registries and containerd stop at 4 or 8 MiB
# Anybody's archive, as containerd takes it: what is no file matters only where an image names it. A few dozen entries are usual.
TRUST = Trust(frozenset({FILE, FOLDER, LINK, OTHER}), entries=100_000, gzip=True, cleaned=True)

_NAME_ANNOTATIONS = ("io.containerd.image.name", "org.opencontainers.image.ref.name")
_INDEX_TYPES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class Image(NamedTuple):
    """One image of an archive."""

    names: List[str]  # references that the archive gives it; may be empty
    digest: Optional[str]  # what containerd will list; None for a docker-archive, whose manifest containerd makes itself
    config_digest: str
    platforms: List[str]  # os/architecture[/variant]
    blobs: Dict[str, Tuple[Optional[str], Optional[int]]]  # entry → its digest and size, as far as the archive states them


def host_platform(machine: str) -> str:
    """Return OCI's name for a Linux host of uname's ``machine``, for example linux/amd64."""
    return f"linux/{architecture(machine)}"


def platform_fits(offered: str, wanted: str) -> bool:
    """Tell whether an image for ``offered`` is one for ``wanted``; a variant counts only when both name one."""
    return all(left == right for left, right in zip(offered.split("/"), wanted.split("/")))


class Archive:
    """An opened image archive. Every method raises GvisorError that names the archive and what is wrong with it."""

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            self._tar = Reader(path, TRUST, self._fail)
        except OSError as error:
            raise GvisorError(f"image archive {path} cannot be read: {error.strerror}", archive=path) from error
        try:
            self._entries: Dict[str, tarfile.TarInfo] = {name: member for name, member in self._tar if not member.isdir()}
        except BaseException:
            self._tar.close()
            raise

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._tar.close()

    def _fail(self, what: str) -> GvisorError:
        return GvisorError(f"image archive {self.path}: {what}", archive=self.path)

    def _blocks(self, name: str) -> Iterator[bytes]:
        member = self._entries.get(name)
        if member is not None and member.issym():
            # docker save of versions before 25 writes the second of two equal layers as a link to the first.
            member = self._entries.get(posixpath.normpath(posixpath.join(posixpath.dirname(name), member.linkname)))
        if member is None:
            raise self._fail(f"{name} is missing; the archive is incomplete, make or copy it again")
        if kind_of(member) != FILE:
            raise self._fail(f"{name} is not a regular file")
        yield from self._tar.blocks(name, member)

    def _document(self, name: str, digest: Optional[str] = None) -> Any:
        size = self._entries[name].size if name in self._entries else 0
        if size > MAX_DOCUMENT:
            raise self._fail(f"{name} claims {size} bytes; more than {MAX_DOCUMENT} is no image document")
        data = b"".join(self._blocks(name))
        if digest and hashlib.sha256(data).hexdigest() != digest.partition(":")[2]:
            raise self._fail(f"{name} does not have the digest that its name says; the archive was altered or damaged")
        try:
            return json.loads(data.decode("utf-8"))
        except (ValueError, RecursionError) as error:
            raise self._fail(f"{name} is not valid JSON: {error}") from error

    def _blob(self, descriptor: Dict[str, Any]) -> Tuple[str, str, Optional[int]]:
        digest, size = descriptor.get("digest"), descriptor.get("size")
        if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
            raise self._fail(f"a descriptor has the digest {digest!r}; sha256:<64 hex digits> is what works here")
        return f"blobs/sha256/{digest[7:]}", digest, size if isinstance(size, int) else None

    def images(self) -> List[Image]:
        """Return the archive's images, with their documents verified and their layers not yet read."""
        try:
            if "index.json" in self._entries:
                return self._oci_images()
            if "manifest.json" in self._entries:
                return self._docker_images()
        except (AttributeError, KeyError, TypeError, RecursionError) as error:
            raise self._fail(f"its index does not have the form of the OCI image layout ({error!r})") from error
        raise self._fail("neither index.json (OCI layout) nor manifest.json (docker-archive) is in it")

    def _oci_images(self) -> List[Image]:
        images: Dict[str, Image] = {}
        for descriptor in self._document("index.json")["manifests"]:
            _entry, digest, _size = self._blob(descriptor)
            annotations = descriptor.get("annotations") or {}
            name = next((annotations[key] for key in _NAME_ANNOTATIONS if annotations.get(key)), None)
            if digest not in images:
                images[digest] = self._oci_image(descriptor)
            if name:
                images[digest].names.append(name)
        return list(images.values())

    def _oci_image(self, descriptor: Dict[str, Any], depth: int = 0) -> Image:
        entry, digest, size = self._blob(descriptor)
        document = self._document(entry, digest)
        blobs = {entry: (cast(Optional[str], digest), size)}
        if descriptor.get("mediaType") in _INDEX_TYPES or "manifests" in document:
            if depth:
                raise self._fail("an image index inside an image index is not supported")
            inner = [self._oci_image(child, 1) for child in document["manifests"] if self._blob(child)[0] in self._entries]
            if not inner:
                raise self._fail(f"the image index {digest} names no manifest that is in the archive")
            for image in inner:
                blobs.update(image.blobs)
            return Image([], digest, inner[0].config_digest, [name for image in inner for name in image.platforms], blobs)
        config_entry, config_digest, _size = self._blob(document["config"])
        for child in [document["config"], *document["layers"]]:
            child_entry, child_digest, child_size = self._blob(child)
            blobs[child_entry] = (child_digest, child_size)
        return Image([], digest, config_digest, [self._platform(config_entry, config_digest)], blobs)

    def _docker_images(self) -> List[Image]:
        images = []
        for item in self._document("manifest.json"):
            config = posixpath.normpath(item["Config"])
            digest = f"sha256:{hashlib.sha256(b''.join(self._blocks(config))).hexdigest()}" if self._small(config) else ""
            blobs: Dict[str, Tuple[Optional[str], Optional[int]]] = {posixpath.normpath(name): (None, None) for name in item["Layers"]}
            blobs[config] = (digest, None)
            images.append(Image(list(item.get("RepoTags") or []), None, digest, [self._platform(config, digest)], blobs))
        return images

    def _small(self, name: str) -> bool:
        if name in self._entries and self._entries[name].size > MAX_DOCUMENT:
            raise self._fail(f"{name} claims {self._entries[name].size} bytes; more than {MAX_DOCUMENT} is no image document")
        return True

    def _platform(self, entry: str, digest: str) -> str:
        config = self._document(entry, digest)
        parts = [config.get("os") or "linux", config.get("architecture") or "unknown", config.get("variant") or ""]
        return "/".join(part for part in parts if part)

    def verify(self, image: Image) -> int:
        """Read every blob of ``image``, compare digests and sizes, and return the bytes read."""
        total = 0
        for entry, (digest, size) in sorted(image.blobs.items()):
            actual = hashlib.sha256()
            length = 0
            for block in self._blocks(entry):
                actual.update(block)
                length += len(block)
            if digest and digest != f"sha256:{actual.hexdigest()}":
                raise self._fail(f"{entry} has the digest sha256:{actual.hexdigest()}; the archive was altered or damaged")
            if size is not None and size != length:
                raise self._fail(f"{entry} has {length} bytes where its descriptor says {size}")
            total += length
        return total
