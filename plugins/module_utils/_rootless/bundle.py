# Copyright (c) 2026, the ggen.gvisor authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""The root file system of an image, made from its archive by a user who is not root, and kept by the digest of its manifest.

Whoever made the archive chose its names and links. Everything goes by descriptors of folders, and no link is followed on the way to a place: one
of a lower layer leads nowhere. What is made belongs to the user; devices, pipes and set-user-id bits are not made.
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import hashlib
import os
import posixpath
import stat
import tarfile
import tempfile
import time
import zlib
from typing import BinaryIO, Callable, Iterable, Iterator, Mapping, NamedTuple, Optional, Sequence, Tuple

from ansible_collections.ggen.gvisor.plugins.module_utils._base import tar
from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._base.files import locked
from ansible_collections.ggen.gvisor.plugins.module_utils._containerd.image_archive import (
    Archive,
    Image,
    Layer,
    Parts,
    Variant,
    best_variant,
    host_platform,
)
from ansible_collections.ggen.gvisor.plugins.module_utils._containerd.image_config import ImageConfig, check_config
from ansible_collections.ggen.gvisor.plugins.module_utils._containerd.image_names import full_name
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.pinned import FOLDER, folder_below, own_folder
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.walker import remove_tree

MAX_ENTRIES = 300_000  # of one layer
MAX_LAYERS = 127  # what Docker's own storage stops at
MAX_BYTES = 16 << 30  # of all layers, unpacked
REMOVE_SECONDS = 300.0
ROOTFS = "rootfs"  # in a bundle
NAMELESS = "localhost/image"  # what an image without a name is called
_NEW = ".new-"  # how the folder of a bundle that is being made begins
_WHITEOUT, _OPAQUE, _AUFS = ".wh.", ".wh..wh..opq", ".wh..wh."
_ZSTD = b"\x28\xb5\x2f\xfd"
# Any layer, as containerd takes it; what each entry becomes is decided here.
LAYER = tar.Trust(frozenset({tar.FILE, tar.FOLDER, tar.LINK, tar.OTHER}), entries=MAX_ENTRIES, cleaned=True)

Fail = Callable[[str], GvisorError]


class Bundle(NamedTuple):
    """A root file system for sandboxes, and what its image says of itself."""

    rootfs: str
    name: str  # the image's, in full
    config: ImageConfig


def bundles_folder(environment: Mapping[str, str]) -> str:
    """Return the folder that the bundles of the user who has this ``environment`` are kept in."""
    cache = environment.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(cache, "ggen.gvisor", "bundles")


def open_image(path: str, machine: str, folder: str) -> Bundle:
    """Return the bundle of the image at ``path``: of an archive the one in ``folder``, made where it is missing, or a folder that is a root file system.

    Raises GvisorError, or OSError.
    """
    if os.path.isdir(path):
        return Bundle(own_folder(path, "image"), full_name(NAMELESS), ImageConfig())
    with Archive(path) as archive:
        image, variant = _choose(archive.images(), host_platform(machine), path)
        parts = archive.parts(variant)
        name = full_name(image.names[0] if image.names else NAMELESS)
        check_config(parts.config, name)
        folder = own_folder(folder, "the folder of bundles")
        place = os.path.join(folder, parts.digest.partition(":")[2])
        if not os.path.isdir(place):
            with locked(folder):
                if not os.path.isdir(place):  # otherwise another run was faster
                    _make(archive, parts, folder, place)
    return Bundle(os.path.join(place, ROOTFS), name, parts.config._replace(digest=parts.digest))


def _choose(images: Sequence[Image], platform: str, path: str) -> Tuple[Image, Variant]:
    if len(images) != 1:
        raise GvisorError(
            f"image archive {path} has {len(images)} images and should have one; save the one that is wanted alone", archive=path
        )
    variant = best_variant(images[0], platform)
    if variant is None or variant.problem:
        why = variant.problem if variant else f"it is for {', '.join(images[0].platforms)} and this host is {platform}"
        raise GvisorError(f"image archive {path} cannot be used here: {why}", archive=path)
    return images[0], variant


def _make(archive: Archive, parts: Parts, folder: str, place: str) -> None:
    """Make the bundle ``place`` beside its name, and rename it when it is whole. Its ``folder`` is locked."""
    descriptor = os.open(folder, FOLDER)
    new = ""
    try:
        for name in os.listdir(folder):
            if name.startswith(_NEW):  # of a run that was killed: nobody else holds the lock
                remove_tree(descriptor, name, time.monotonic() + REMOVE_SECONDS)
        new = tempfile.mkdtemp(dir=folder, prefix=_NEW)
        os.mkdir(os.path.join(new, ROOTFS), 0o755)
        if len(parts.layers) > MAX_LAYERS:
            raise GvisorError(f"image archive {archive.path} has more than {MAX_LAYERS} layers", archive=archive.path)
        left = MAX_BYTES
        for number, layer in enumerate(parts.layers, 1):
            left -= _add_layer(archive, layer, number, new, left)
        os.sync()  # a power cut must not leave a bundle that is whole by its name alone
        os.rename(new, place)
        new = ""
    except OSError as error:
        raise GvisorError(f"the image cannot be unpacked into {folder}: {error.strerror or error}", archive=archive.path) from error
    finally:
        if new:
            remove_tree(descriptor, os.path.basename(new), time.monotonic() + REMOVE_SECONDS)
        os.close(descriptor)


def _add_layer(archive: Archive, layer: Layer, number: int, new: str, left: int) -> int:
    """Put a layer on top of the root file system in the folder ``new``; return its bytes. Raises GvisorError or OSError."""

    def fail(what: str) -> GvisorError:
        return GvisorError(f"image archive {archive.path}: layer {number} ({layer.diff_id}): {what}", archive=archive.path)

    with tempfile.TemporaryFile(dir=new) as blob, tempfile.NamedTemporaryFile(dir=new) as plain:
        _keep(archive.blocks(layer.entry), blob, layer.digest, layer.size, MAX_BYTES, fail)
        size = _keep(_plain(blob, fail), plain, layer.diff_id, None, left, fail)
        plain.flush()
        root = os.open(os.path.join(new, ROOTFS), FOLDER)
        try:
            apply_layer(plain.name, root, fail)
        finally:
            os.close(root)
    return size


def _keep(blocks: Iterable[bytes], target: BinaryIO, digest: Optional[str], size: Optional[int], most: int, fail: Fail) -> int:
    """Write the blocks and return how many bytes they are. Raises GvisorError where they are not what digest and size say, or too many."""
    sha256, length = hashlib.sha256(), 0
    for block in blocks:
        sha256.update(block)
        length += len(block)
        if length > most:
            raise fail(f"the image is larger than {MAX_BYTES} bytes")
        target.write(block)
    if digest is not None and digest != f"sha256:{sha256.hexdigest()}":
        raise fail(f"it has the digest sha256:{sha256.hexdigest()} where {digest} is stated; the archive was altered or damaged")
    if size is not None and size != length:
        raise fail(f"it has {length} bytes where its descriptor says {size}")
    return length


def _plain(blob: BinaryIO, fail: Fail) -> Iterator[bytes]:
    """Yield the tar that a layer's blob is or, compressed, holds."""
    blob.seek(0)
    head = blob.read(4)
    blob.seek(0)
    if head == _ZSTD:
        raise fail("it is compressed with zstd, which Python cannot read; save the image with gzip")
    stream = gzip.GzipFile(fileobj=blob) if head[:2] == b"\x1f\x8b" else blob
    try:
        while True:
            block = stream.read(tar.MAX_READ)
            if not block:
                return
            yield block
    except (OSError, EOFError, zlib.error) as error:
        raise fail(f"it cannot be decompressed ({error}); the archive is damaged") from error


def apply_layer(path: str, root: int, fail: Fail) -> None:
    """Put the layer, a tar file, on top of what is in the folder ``root`` (a descriptor).

    Its whiteouts first: they hide what lower layers have, never what is in the same layer. Raises what ``fail`` makes of a sentence.
    """
    for step in (_hide, _put):
        with tar.Reader(path, LAYER, fail) as entries:
            for name, member in entries:
                if name == ".":
                    continue
                try:
                    step(entries, name, member, root, fail)
                except OSError as error:
                    why = "is behind a link, or behind what is no folder" if error.errno in (errno.ELOOP, errno.ENOTDIR) else error.strerror
                    raise fail(f"entry {name!r} {why}") from error


def _is_whiteout(name: str) -> bool:
    return any(word.startswith(_WHITEOUT) for word in name.split("/"))


def _hide(_entries: tar.Reader, name: str, _member: tarfile.TarInfo, root: int, fail: Fail) -> None:
    """Take away what the entry, if it is a whiteout, says."""
    *parents, last = name.split("/")
    if not last.startswith(_WHITEOUT) or (last.startswith(_AUFS) and last != _OPAQUE):
        return
    hidden = last[len(_WHITEOUT) :]
    if hidden in ("", ".", ".."):
        raise fail(f"entry {name!r} hides no name")
    try:
        folder = folder_below(root, parents)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return  # there is nothing to hide
        raise
    try:
        for one in os.listdir(folder) if last == _OPAQUE else [hidden]:
            _remove(folder, one, name, fail)
    finally:
        os.close(folder)


def _remove(folder: int, one: str, name: str, fail: Fail) -> None:
    problems = remove_tree(folder, one, time.monotonic() + REMOVE_SECONDS)
    if problems:
        raise fail(f"what entry {name!r} replaces cannot be removed: {problems[0]}")


def _put(entries: tar.Reader, name: str, member: tarfile.TarInfo, root: int, fail: Fail) -> None:
    """Make what the entry is, in place of what is there."""
    if _is_whiteout(name):
        return
    *parents, last = name.split("/")
    kind = tar.kind_of(member)
    if kind == tar.OTHER and not member.islnk():
        if member.ischr() or member.isblk() or member.isfifo():
            return  # a sandbox has devices of its own
        raise fail(f"entry {name!r} is of a kind that no layer should have")
    folder = folder_below(root, parents, 0o755)
    try:
        if kind == tar.FOLDER:
            _put_folder(folder, last, name, member, fail)
            return
        if member.islnk():
            _put_name(folder, last, name, member, root, fail)
            return
        _remove(folder, last, name, fail)
        if kind == tar.LINK:
            os.symlink(member.linkname, last, dir_fd=folder)
            return
        made = os.open(last, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder)
        with open(made, "wb") as stream:
            stream.writelines(entries.blocks(name, member))
            stream.flush()
            os.fchmod(made, member.mode & 0o777 | 0o400)  # its owner is no root that could read it all the same
            with contextlib.suppress(OverflowError, ValueError, OSError):
                os.utime(made, (member.mtime, member.mtime))
    finally:
        os.close(folder)


def _put_folder(folder: int, last: str, name: str, member: tarfile.TarInfo, fail: Fail) -> None:
    try:
        os.mkdir(last, 0o700, dir_fd=folder)
    except FileExistsError:
        if not stat.S_ISDIR(os.stat(last, dir_fd=folder, follow_symlinks=False).st_mode):
            _remove(folder, last, name, fail)
            os.mkdir(last, 0o700, dir_fd=folder)
    made = os.open(last, FOLDER, dir_fd=folder)
    try:
        os.fchmod(made, member.mode & 0o777 | 0o700)
    finally:
        os.close(made)


def _put_name(folder: int, last: str, name: str, member: tarfile.TarInfo, root: int, fail: Fail) -> None:
    """Make a further name of a file that is there."""
    words = posixpath.normpath(member.linkname).lstrip("/").split("/")
    if ".." in member.linkname.split("/") or "\0" in member.linkname or words == ["."]:
        raise fail(f"entry {name!r} is a further name of {member.linkname!r}, which leads outside")
    if words == name.split("/"):
        return
    *parents, first = words
    there = folder_below(root, parents)
    try:
        if not stat.S_ISREG(os.stat(first, dir_fd=there, follow_symlinks=False).st_mode):
            raise fail(f"entry {name!r} is a further name of {member.linkname!r}, which is no file")
        _remove(folder, last, name, fail)
        os.link(first, last, src_dir_fd=there, dst_dir_fd=folder, follow_symlinks=False)
    finally:
        os.close(there)
