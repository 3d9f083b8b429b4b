# Copyright (c) 2026, the ggen.gvisor authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""What an image says of itself that reaches a container: labels, which containerd and others act on, and variables.

Documents are read as containerd reads them, or not at all: Go takes a name in any case, and the last of two.
"""

from __future__ import annotations

import fnmatch
import json
import os
from typing import Any, Dict, Iterable, Iterator, List, NamedTuple, Sequence, Tuple

from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._containerd.ctr import Ctr

INDEX_TYPES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
# Name spaces of labels and annotations that containerd, its CRI plugin, its tools, Kubernetes, gVisor and we act on …
RESERVED = (
    *("containerd.io/*", "*.containerd.io/*", "io.containerd.*", "io.cri-containerd*", "cri.*", "nerdctl/*"),
    *("io.kubernetes.*", "io.k8s.*", "kubernetes.io/*", "*.kubernetes.io/*", "k8s.io/*", "*.k8s.io/*"),
    *("dev.gvisor.*", "ggen.gvisor/*"),
)
# … and what of these only describes an image.
HARMLESS = (
    "io.containerd.image.name",  # a name in an archive
    "containerd.io/distribution.source.*",  # where it was pulled from
    "containerd.io/snapshot/stargz/toc.digest",  # a layer's table of contents, for a snapshotter that reads layers lazily
    "io.k8s.description",
    "io.k8s.display-name",  # for people, in the images of Red Hat
    "app.kubernetes.io/*",  # for people, by Kubernetes' recommendation
)
# Variables by whose mere presence a loader does something else than running a program.
_UNBEARABLE = ("LD_TRACE_LOADED_OBJECTS", "LD_TRACE_PRELINKING", "LD_SHOW_AUXV")
_FIX = "make the image without them, or take another one"


def reserved(names: Iterable[str]) -> List[str]:
    """Return those names of labels or annotations that others than people act on."""
    found = set()
    for name in names:
        low = name.lower()
        if any(fnmatch.fnmatchcase(low, pattern) for pattern in RESERVED) and not any(
            fnmatch.fnmatchcase(low, pattern) for pattern in HARMLESS
        ):
            found.add(name)
    return sorted(found)


class Document(Dict[str, Any]):
    """A JSON object that remembers which names stood in it, each as often as it did."""

    def __init__(self, pairs: List[Tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.names = [name for name, _value in pairs]

    def check(self, *fields: str) -> "Document":
        """Return this. Raises ValueError where one of the fields is there twice, or in another case, which Go would read and we would not."""
        for field in fields:
            found = [name for name in self.names if name.casefold() == field.casefold()]
            if found not in ([], [field]):
                raise ValueError(f"{field} is there as {', '.join(found)}")
        return self


def read_document(text: str) -> Any:
    """Return what JSON says, with Document for its objects. Raises ValueError."""
    return json.loads(text, object_pairs_hook=Document)


def check_manifest(document: Document) -> Document:
    """Return a manifest or an index that is not ambiguous. Raises ValueError, or TypeError or AttributeError where its form is another."""
    document.check("mediaType", "manifests", "config", "layers", "annotations")
    if "manifests" in document and ("config" in document or "layers" in document):
        raise ValueError("it is a manifest and an index at the same time")
    for descriptor in descriptors(document):
        descriptor.check("mediaType", "digest", "size", "annotations", "platform")
    return document


def descriptors(document: Document) -> List[Document]:
    """Return all that a manifest or an index points to."""
    return [*(document.get("manifests") or []), *([document["config"]] if "config" in document else []), *(document.get("layers") or [])]


def annotations(document: Document) -> Iterator[str]:
    """Yield the names of the annotations of a manifest or an index, and of what it points to."""
    for one in [document, *descriptors(document)]:
        yield from one.get("annotations") or {}


class ImageConfig(NamedTuple):
    """What of an image's documents reaches a container."""

    labels: Sequence[str] = ()  # names alone, of annotations too
    env: Sequence[str] = ()  # NAME=value
    user: str = ""
    digest: str = ""  # what its name stood for in containerd when this was read


def read_config(document: Document) -> ImageConfig:
    """Return what an image's configuration says. Raises ValueError, or TypeError or AttributeError where its form is another."""
    config = (document.check("config", "architecture", "os", "variant").get("config") or Document([])).check("Env", "Labels", "User")
    return ImageConfig(list(config.get("Labels") or {}), [str(one) for one in config.get("Env") or []], str(config.get("User") or ""))


def check_reserved(name: str, wrong: Sequence[str]) -> None:
    """Raise GvisorError where the image ``name`` has reserved labels or annotations."""
    if wrong:
        raise GvisorError(
            f"image {name} has labels or annotations that containerd, Kubernetes or gVisor would act on ({', '.join(wrong[:5])}); {_FIX}",
            labels=list(wrong),
        )


def check_config(config: ImageConfig, name: str) -> None:
    """Raise GvisorError where an image would steer what runs it."""
    check_reserved(name, reserved(config.labels))
    names = [one.partition("=")[0] for one in config.env]
    twice = sorted({one for one in names if names.count(one) > 1})
    unbearable = sorted({*names} & {*_UNBEARABLE})
    odd = sorted(one for one in config.env if "\0" in one or one.startswith("=") or "=" not in one)
    if twice or unbearable or odd:
        raise GvisorError(
            f"image {name} sets variables that cannot be kept from the host's programs ({', '.join([*twice, *unbearable, *odd][:5])}); {_FIX}"
        )


class _Blobs:
    """The documents of images that one containerd has."""

    def __init__(self, ctr: Ctr, image: str) -> None:
        self.ctr = ctr
        self.image = image

    def read(self, digest: Any) -> str:
        return self.ctr.check("content", "get", str(digest))

    def manifests(self, digest: str, architecture: str) -> Iterator[Document]:
        """Yield the manifests that containerd may choose for this host."""
        document = check_manifest(read_document(self.read(digest)))
        if "manifests" not in document:
            yield document
            return
        for descriptor in document["manifests"]:
            platform = (descriptor.get("platform") or Document([])).check("architecture", "os")
            foreign = platform and (platform.get("architecture"), platform.get("os")) != (architecture, "linux")
            if not foreign and self.ctr.run("content", "get", str(descriptor["digest"])).rc == 0:
                yield from self.manifests(descriptor["digest"], architecture)

    def config(self, digest: str, architecture: str) -> ImageConfig:
        """Return what all manifests for this host have in common, but for labels. Raises ValueError where they have something else not in common."""
        labels: List[str] = []
        found: List[Tuple[List[str], str]] = []
        for manifest in self.manifests(digest, architecture):
            one = read_config(read_document(self.read(manifest["config"]["digest"])))
            labels += [*annotations(manifest), *one.labels]
            found.append((one.env, one.user))
        if not found or any(one != found[0] for one in found):
            raise ValueError(f"{len(found)} images for this host are in it, which differ" if found else "no image for this host is in it")
        return ImageConfig(labels, *found[0])


def image_config(ctr: Ctr, name: str, architecture: str, cache: str) -> ImageConfig:
    """Return what containerd's image ``name`` would give to a container, from the folder ``cache`` where it was read before.

    Raises GvisorError for an image that is not there, that cannot be read, or that would steer what runs it.
    """
    rows = [line.split() for line in ctr.check("images", "ls", f"name=={json.dumps(name)}").splitlines()[1:]]
    digest = next((row[2] for row in rows if row[:1] == [name] and len(row) > 2), None)
    if digest is None:
        names = sorted(ctr.images())
        there = f"has {', '.join(names)}" if names else "has no images"
        raise GvisorError(
            f"image {name} is not in containerd's namespace {ctr.namespace}, which {there}; "
            "import it (module containerd_image) or give its full name",
            image=name,
            images=names,
            missing="image",
        )
    path = os.path.join(cache, f"{digest.rpartition(':')[2]}.json")
    try:
        with open(path, encoding="utf-8") as stream:
            config = ImageConfig(**json.load(stream))
    except (OSError, ValueError, TypeError):
        try:
            config = _Blobs(ctr, name).config(digest, architecture)
        except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
            raise GvisorError(f"image {name} cannot be read as containerd would read it: {error}; make it again") from error
        _keep(path, config)
    check_config(config, name)
    return config._replace(digest=digest)


def _keep(path: str, config: ImageConfig) -> None:
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    new = f"{path}.{os.getpid()}"
    with open(new, "w", encoding="utf-8") as stream:
        json.dump(config._asdict(), stream)
    os.rename(new, path)
