# Copyright (c) 2026, the ggen.gvisor authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""Read an image archive (OCI layout or docker-archive) without extracting or trusting it.

containerd imports a nameless archive as nothing with exit code 0, and an image of a foreign architecture without a word, so
everything is looked at before ctr is: names, platform, and that each blob is there, whole and what its digest says.
"""

from __future__ import annotations

import hashlib
import io
import json
import posixpath
import re
import tarfile
import zlib
from typing import IO, Any, BinaryIO, Dict, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Tuple, cast

from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._base.platform import architecture
from ansible_collections.ggen.gvisor.plugins.module_utils._base.tar import FILE, FOLDER, LINK, OTHER, Reader, Trust, kind_of
from ansible_collections.ggen.gvisor.plugins.module_utils._containerd.image_config import (
    INDEX_TYPES,
    ImageConfig,
    annotations,
    check_manifest,
    read_config,
    read_document,
    reserved,
)

MAX_DOCUMENT = 4 << 20  # bytes of an index, manifest or configuration; registries and containerd stop at 4 or 8 MiB
# Anybody's archive, as containerd takes it: what is no file matters only where an image names it. A few dozen entries are usual.
TRUST = Trust(frozenset({FILE, FOLDER, LINK, OTHER}), entries=100_000, gzip=True, cleaned=True)

_NAME_ANNOTATIONS = ("io.containerd.image.name", "org.opencontainers.image.ref.name")
_MALFORMED = (AttributeError, KeyError, TypeError, ValueError, RecursionError)
UNKNOWN = "unknown"  # the platform of what cannot be read and whose descriptor names none
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


Blobs = Dict[str, Tuple[Optional[str], Optional[int]]]  # entry → its digest and size, as far as the archive states them


class Variant(NamedTuple):
    """An image for one platform."""

    platform: str  # os/architecture[/variant]
    config_digest: str
    chain: str  # the snapshot that its layers give once they are unpacked; empty for none
    blobs: Blobs  # that of an index around it among them
    problem: str = ""  # why it cannot be used; another platform's is nobody's business
    reserved: Sequence[str] = ()  # labels and annotations that others than people act on


class Image(NamedTuple):
    """One image of an archive, for one or several platforms."""

    names: List[str]  # references that the archive gives it; may be empty
    digest: Optional[str]  # what containerd will list; None for a docker-archive, whose manifest containerd makes itself
    variants: List[Variant]

    @property
    def platforms(self) -> List[str]:
        """Return what the image is for."""
        return [variant.platform for variant in self.variants]

    def to_dict(self) -> Dict[str, Any]:
        """Return it as what JSON can carry."""
        return {**self._asdict(), "variants": [variant._asdict() for variant in self.variants]}

    @classmethod
    def from_dict(cls, data: Dict[str, Any]) -> Image:
        """Return what ``to_dict`` was made of."""
        return cls(**{**data, "variants": [Variant(**variant) for variant in data["variants"]]})


def host_platform(machine: str) -> str:
    """Return OCI's name for a Linux host of uname's ``machine``, for example linux/amd64."""
    return f"linux/{architecture(machine)}"


def platform_fits(offered: str, wanted: str) -> bool:
    """Tell whether an image for ``offered`` is one for ``wanted``; a variant counts only when both name one."""
    return all(left == right for left, right in zip(offered.split("/"), wanted.split("/")))


def best_variant(image: Image, wanted: str) -> Optional[Variant]:
    """Return the image's part for the platform ``wanted``: the one that says just that, else the first that fits."""
    fitting = [variant for variant in image.variants if platform_fits(variant.platform, wanted)]
    return next((variant for variant in fitting if variant.platform == wanted), fitting[0] if fitting else None)


class Layer(NamedTuple):
    """A layer of an image: its blob, and what it is when it is unpacked."""

    entry: str
    digest: Optional[str]  # of the blob, where the archive states it
    size: Optional[int]
    diff_id: str  # the digest of the tar in it


class Parts(NamedTuple):
    """What a file system is made of."""

    digest: str  # the manifest's; a docker-archive has none, and this is its configuration's
    layers: List[Layer]  # the lowest first
    config: ImageConfig


class _Writer:
    """A pipe that tarfile takes for a file."""

    def __init__(self, stream: BinaryIO) -> None:
        self._place = 0
        self._stream = stream

    def tell(self) -> int:
        return self._place

    def write(self, data: bytes) -> int:
        self._place += len(data)
        return self._stream.write(data)


def _add(tar: tarfile.TarFile, entry: str, size: int, data: Optional[IO[bytes]]) -> None:
    info = tarfile.TarInfo(entry)
    info.size = size
    tar.addfile(info, data)


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

    def _malformed(self, error: Exception) -> GvisorError:
        return self._fail(f"its index does not have the form of the OCI image layout ({error!r})")

    def _member(self, name: str) -> tarfile.TarInfo:
        member = self._entries.get(name)
        if member is not None and member.issym():
            # docker save of versions before 25 writes the second of two equal layers as a link to the first.
            member = self._entries.get(posixpath.normpath(posixpath.join(posixpath.dirname(name), member.linkname)))
        if member is None:
            raise self._fail(f"{name} is missing; the archive is incomplete, make or copy it again")
        if kind_of(member) != FILE:
            raise self._fail(f"{name} is not a regular file")
        return member

    def blocks(self, name: str) -> Iterator[bytes]:
        """Yield the bytes of a blob, whatever its digest is."""
        yield from self._tar.blocks(name, self._member(name))

    def _document(self, name: str, digest: Optional[str] = None) -> Any:
        size = self._entries[name].size if name in self._entries else 0
        if size > MAX_DOCUMENT:
            raise self._fail(f"{name} claims {size} bytes; more than {MAX_DOCUMENT} is no image document")
        data = b"".join(self.blocks(name))
        if digest and hashlib.sha256(data).hexdigest() != digest.partition(":")[2]:
            raise self._fail(f"{name} does not have the digest that its name says; the archive was altered or damaged")
        try:
            return read_document(data.decode("utf-8"))
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
        except _MALFORMED as error:
            raise self._malformed(error) from error
        raise self._fail("neither index.json (OCI layout) nor manifest.json (docker-archive) is in it")

    def _oci_images(self) -> List[Image]:
        images: Dict[str, Image] = {}
        for descriptor in check_manifest(self._document("index.json"))["manifests"]:
            _entry, digest, _size = self._blob(descriptor)
            given = descriptor.get("annotations") or {}
            name = next((given[key] for key in _NAME_ANNOTATIONS if given.get(key)), None)
            if digest not in images:
                images[digest] = Image([], digest, self._variants(descriptor))
            if name:
                images[digest].names.append(name)
        variants = [variant for image in images.values() for variant in image.variants]
        if variants and all(variant.problem for variant in variants):
            raise GvisorError(variants[0].problem, archive=self.path)
        return list(images.values())

    def _variants(self, descriptor: Dict[str, Any], depth: int = 0) -> List[Variant]:
        """Return the platforms of what a descriptor leads to; what is wrong with one is noted in it."""
        entry, digest, size = self._blob(descriptor)
        itself: Blobs = {entry: (digest, size)}
        try:
            document = check_manifest(self._document(entry, digest))
            said = reserved([*(descriptor.get("annotations") or {}), *annotations(document)])
            if descriptor.get("mediaType") not in INDEX_TYPES and "manifests" not in document:
                variant = self._variant(document, itself)
                return [variant._replace(reserved=[*said, *variant.reserved])]
            if depth:
                raise self._fail("an image index inside an image index is not supported")
            # A tool that saves an image for one platform leaves the others in its index.
            children = [child for child in document["manifests"] if self._blob(child)[0] in self._entries]
            if not children:
                raise self._fail(f"the image index {digest} names no manifest that is in the archive")
            inner = [variant for child in children for variant in self._variants(child, 1)]
            return [variant._replace(blobs={**itself, **variant.blobs}, reserved=[*said, *variant.reserved]) for variant in inner]
        except (GvisorError, *_MALFORMED) as error:
            problem = error.message if isinstance(error, GvisorError) else self._malformed(error).message
            stated = descriptor.get("platform")
            return [Variant(_platform(stated) if isinstance(stated, dict) else UNKNOWN, "", "", itself, problem)]

    def _variant(self, manifest: Dict[str, Any], blobs: Blobs) -> Variant:
        entry, digest, _size = self._blob(manifest["config"])
        for child in [manifest["config"], *manifest["layers"]]:
            child_entry, child_digest, child_size = self._blob(child)
            blobs[child_entry] = (child_digest, child_size)
        config = self._document(entry, digest)
        return Variant(_platform(config), digest, chain_of(config), blobs, reserved=reserved(read_config(config).labels))

    def _docker_images(self) -> List[Image]:
        images = []
        for item in self._document("manifest.json"):
            entry = posixpath.normpath(item["Config"])
            digest = f"sha256:{hashlib.sha256(b''.join(self.blocks(entry))).hexdigest()}" if self._small(entry) else ""
            blobs: Blobs = {posixpath.normpath(name): (None, None) for name in item["Layers"]}
            blobs[entry] = (digest, None)
            config = self._document(entry, digest)
            variant = Variant(_platform(config), digest, chain_of(config), blobs, reserved=reserved(read_config(config).labels))
            images.append(Image(list(item.get("RepoTags") or []), None, [variant]))
        return images

    def _small(self, name: str) -> bool:
        if name in self._entries and self._entries[name].size > MAX_DOCUMENT:
            raise self._fail(f"{name} claims {self._entries[name].size} bytes; more than {MAX_DOCUMENT} is no image document")
        return True

    def parts(self, variant: Variant) -> Parts:
        """Return the layers and the configuration of one variant, its documents verified and its layers not yet read."""
        try:
            config = self._document(next(entry for entry, (digest, _size) in variant.blobs.items() if digest == variant.config_digest))
            digest, blobs = self._layers_of(variant)
            diff_ids = list((config.check("rootfs").get("rootfs") or {}).get("diff_ids") or [])
            if len(diff_ids) != len(blobs) or not all(isinstance(one, str) and _DIGEST.fullmatch(one) for one in diff_ids):
                raise self._fail(f"the image has {len(blobs)} layers and names {len(diff_ids)} in its configuration")
            return Parts(digest, [Layer(*blob, diff_id) for blob, diff_id in zip(blobs, diff_ids)], read_config(config))
        except _MALFORMED as error:
            raise self._malformed(error) from error

    def _layers_of(self, variant: Variant) -> Tuple[str, List[Tuple[str, Optional[str], Optional[int]]]]:
        """Return the digest of a variant and its blobs, as its manifest lists them: one may be there twice."""
        if "index.json" not in self._entries:
            for item in self._document("manifest.json"):
                if variant.blobs.get(posixpath.normpath(item["Config"]), (None, None))[0] == variant.config_digest:
                    return variant.config_digest, [(posixpath.normpath(name), None, None) for name in item["Layers"]]
            raise self._fail("its manifest.json does not list the image")
        # An index, the manifest: in this order, before all else.
        for entry, (digest, _size) in variant.blobs.items():
            manifest = self._document(entry, digest)
            if "config" in manifest and manifest["config"].get("digest") == variant.config_digest:
                return str(digest), [self._blob(layer) for layer in manifest["layers"]]
        raise self._fail("the image has no manifest")

    def verify(self, image: Image) -> int:
        """Read every blob of ``image``, compare digests and sizes, and return the bytes read."""
        blobs: Blobs = {}
        for variant in image.variants:
            if variant.problem:
                raise GvisorError(variant.problem, archive=self.path)
            blobs.update(variant.blobs)
        total = 0
        for entry in self._in_order(blobs):
            digest, size = blobs[entry]
            actual = hashlib.sha256()
            length = 0
            for block in self.blocks(entry):
                actual.update(block)
                length += len(block)
            if digest and digest != f"sha256:{actual.hexdigest()}":
                raise self._fail(f"{entry} has the digest sha256:{actual.hexdigest()}; the archive was altered or damaged")
            if size is not None and size != length:
                raise self._fail(f"{entry} has {length} bytes where its descriptor says {size}")
            total += length
        return total

    def write(self, image: Image, name: str, target: BinaryIO) -> None:
        """Write an archive into ``target`` that has nothing but ``image``, under ``name`` alone. Raises BrokenPipeError as it is.

        ctr imports each name that it finds, and moves those that lead to other images.
        """
        blobs: Blobs = {}
        for variant in image.variants:
            blobs.update(variant.blobs)
        try:
            with tarfile.open(fileobj=cast(BinaryIO, _Writer(target)), mode="w:") as tar:
                for entry, document in self._index_of(image, name).items():
                    data = json.dumps(document).encode()
                    _add(tar, entry, len(data), io.BytesIO(data))
                for entry in self._in_order(blobs):
                    member = self._member(entry)
                    _add(tar, entry, member.size, self._tar.extractfile(member))
        except BrokenPipeError:
            raise
        except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
            raise self._fail(f"it cannot be read again ({error})") from error

    def _index_of(self, image: Image, name: str) -> Dict[str, Any]:
        if image.digest is not None:
            (descriptor,) = [one for one in self._document("index.json")["manifests"] if one["digest"] == image.digest][:1]
            named = {key: descriptor[key] for key in ("mediaType", "digest", "size") if key in descriptor}
            named["annotations"] = {_NAME_ANNOTATIONS[0]: name}
            return {"oci-layout": {"imageLayoutVersion": "1.0.0"}, "index.json": {"schemaVersion": 2, "manifests": [named]}}
        config = next(entry for entry, (digest, _size) in image.variants[0].blobs.items() if digest)
        for item in self._document("manifest.json"):
            if posixpath.normpath(item["Config"]) == config:
                layers = [posixpath.normpath(layer) for layer in item["Layers"]]
                return {"manifest.json": [{"Config": config, "RepoTags": [name], "Layers": layers}]}
        raise self._fail(f"{config} is in no image of it")

    def _in_order(self, entries: Iterable[str]) -> List[str]:
        """Return ``entries`` as they follow each other: going back in a compressed archive is to begin anew."""
        return sorted(entries, key=lambda entry: self._member(entry).offset)


def _platform(config: Dict[str, Any]) -> str:
    parts = [config.get("os") or "linux", config.get("architecture") or "unknown", config.get("variant") or ""]
    return "/".join(str(part) for part in parts if part)


def chain_of(config: Dict[str, Any]) -> str:
    """Return the name of the snapshot that an image's layers give, from its configuration."""
    chain = ""
    for digest in (config.get("rootfs") or {}).get("diff_ids") or []:
        chain = f"sha256:{hashlib.sha256(f'{chain} {digest}'.encode()).hexdigest()}" if chain else str(digest)
    return chain
