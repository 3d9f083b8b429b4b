# Copyright (c) 2026, the ggen.gvisor authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""One archive with all that hosts without network need: builds, ggen's image and the distributions' packages.

A bundle is a plain tar with one possible form: bundle.json first, then the files that it lists, in order, each with the
one header that its name, size and mode allow. Reading compares with that form block by block, so that nothing of a
strange archive is ever interpreted: a link, a device, a path that leads elsewhere, a file too many or too few and a lying
size are all the same thing, a block that is not the expected one.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from typing import Any, BinaryIO, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._base.files import CHUNK, sha256_file, sha256_of, staged
from ansible_collections.ggen.gvisor.plugins.module_utils._builds.manifest import MANIFEST, differing
from ansible_collections.ggen.gvisor.plugins.module_utils._bundle.apt_index import INDEX, packages_of

SCHEMA = 1
CONTENTS = "bundle.json"
PARTS = ("bin", "dist", "packages")
BLOCK = 512  # bytes; tar's unit
MAX_DOCUMENT = 4 << 20  # bytes of bundle.json, of a build's manifest or of an index of packages; a few thousand are usual
# Where builds, images and packages lie in the archive, and the file that describes each folder.
_FOLDERS = {
    "bin": re.compile(r"bin/(?P<release>[0-9][0-9.]*)/linux_(?P<arch>[a-z0-9]+)"),
    "dist": re.compile(r"dist/(?P<version>[A-Za-z0-9][A-Za-z0-9._+-]*)/linux_(?P<arch>[a-z0-9]+)"),
    "packages": re.compile(r"packages/(?P<distribution>[a-z0-9][a-z0-9.-]*_[a-z0-9]+)"),
}
_DOCUMENTS = {"bin": MANIFEST, "dist": MANIFEST, "packages": INDEX}
# No part begins with a dot, so that none is "..".
_NAME = re.compile(rf"(?:{'|'.join(PARTS)})(?:/[A-Za-z0-9][A-Za-z0-9._+~-]*)+")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class Bundle(NamedTuple):
    """A bundle that was read from its first byte to its last and found whole."""

    contents: Dict[str, Any]
    offsets: Dict[str, int]  # in bytes, where each file's data begins
    sha256: str
    size: int


def _header(name: str, size: int, mode: str) -> bytes:
    """Return tar's header (POSIX ustar) of a regular file that belongs to root and is as old as time itself.

    Not by tarfile, whose bytes differ between versions of Python. Raises GvisorError for what does not fit in.
    """
    path = name.encode()
    if len(path) > 100 or size >= 8**11:
        raise GvisorError(f"{name} with {size} bytes does not fit into a bundle: a name has 100 bytes at most, a file less than 8 GiB")
    fields = b"".join(
        [
            path.ljust(100, b"\0"),
            b"%07o\0" % int(mode, 8),
            b"0000000\0" * 2,  # owner and group
            b"%011o\0" % size,
            b"00000000000\0",  # seconds since 1970
            b" " * 8,  # the sum is taken over spaces here
            b"0",  # a regular file
            bytes(100),
            b"ustar\x0000",
        ]
    ).ljust(BLOCK, b"\0")
    return b"%s%06o\0 %s" % (fields[:148], sum(fields), fields[156:])


def _padding(size: int) -> int:
    return -size % BLOCK


def _folder_of(name: str) -> Tuple[str, str, "re.Match[str]"]:
    """Return the part, the folder and what the folder's name tells. Raises GvisorError for a folder that no bundle has."""
    folder, _slash, _file = name.rpartition("/")
    part = folder.partition("/")[0]
    match = _FOLDERS[part].fullmatch(folder) if part in _FOLDERS else None
    if match is None:
        raise GvisorError(f"{name}: a bundle has no such folder")
    return part, folder, match


def is_document(name: str) -> bool:
    """Tell whether the file describes its folder: a build's manifest, or an index of packages."""
    return name.rpartition("/")[2] == _DOCUMENTS.get(name.partition("/")[0])


def contents_of(version: str, files: Mapping[str, Mapping[str, Any]], documents: Mapping[str, bytes]) -> Dict[str, Any]:
    """Return bundle.json: what the ``documents`` tell of the ``files``.

    ``version`` is the collection's. Each file is in a document with the same sha256, size and mode. Raises GvisorError
    that names the first thing which is not so.
    """
    contents: Dict[str, Any] = {"schema": SCHEMA, "version": version, "releases": {}, "images": {}, "distributions": {}}
    described = set(documents)
    for name, data in sorted(documents.items()):
        part, folder, match = _folder_of(name)
        try:
            listed = _listed(part, data, contents, match)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise GvisorError(f"{name} is not what describes such a folder ({error!r})") from error
        for file, entry in listed.items():
            path = f"{folder}/{file}"
            if not _NAME.fullmatch(path):
                raise GvisorError(f"{name} describes {path!r}, which is no name of a bundle's file")
            described.add(path)
            if {key: files.get(path, {}).get(key) for key in entry} != dict(entry):
                raise GvisorError(f"{path} is not the file that {name} describes")
    more = sorted(set(files) ^ described)
    if more:
        raise GvisorError(f"{more[0]}: its folder's {_DOCUMENTS.get(more[0].partition('/')[0])} does not fit")
    contents["architectures"] = sorted({arch for row in (*contents["releases"].values(), *contents["images"].values()) for arch in row})
    contents["files"] = {name: dict(files[name]) for name in sorted(files)}
    return contents


def _listed(part: str, data: bytes, contents: Dict[str, Any], match: "re.Match[str]") -> Dict[str, Dict[str, Any]]:
    """Note what the document tells in ``contents`` and return the files that it lists, each with what it says of it."""
    if part == "packages":
        packages = packages_of(data.decode())
        contents["distributions"][match["distribution"]] = {
            name: {"version": package["version"], "file": package["file"]} for name, package in packages.items()
        }
        return {row["file"]: {"sha256": row["sha256"], "size": row["size"], "mode": "0644"} for row in packages.values()}
    manifest = json.loads(data)
    if part == "bin":
        contents["releases"].setdefault(match["release"], {})[match["arch"]] = manifest["key"]
    else:
        contents["images"].setdefault(match["version"], {})[match["arch"]] = manifest["metadata"]["digest"]
    return manifest["files"]


def _serialized(contents: Mapping[str, Any]) -> bytes:
    return (json.dumps(contents, sort_keys=True, indent=1, ensure_ascii=False) + "\n").encode()


def place(folders: Mapping[str, str], name: str) -> str:
    """Return where a file of the bundle belongs; ``folders`` says where each part does."""
    part, _slash, rest = name.partition("/")
    return os.path.join(folders[part], rest)


def results(folders: Mapping[str, str], wanted: Sequence[str]) -> List[str]:
    """Return where those of the bundle's folders are that hold a build's result."""
    return sorted({place(folders, folder) for folder in wanted if folder.partition("/")[0] in ("bin", "dist")})


def _differs(path: str, entry: Mapping[str, Any]) -> bool:
    folder, name = os.path.split(path)
    return bool(differing(folder, {name: entry}))


# --- Packing ---------------------------------------------------------------------------------------------------------


def gather(version: str, folders: Mapping[str, str], wanted: Sequence[str]) -> Dict[str, Any]:
    """Return bundle.json of the ``wanted`` folders, such as bin/20260701/linux_amd64, every file of them compared.

    Raises GvisorError for a folder that is not there or whose files are not what its document says.
    """
    files: Dict[str, Dict[str, Any]] = {}
    documents: Dict[str, bytes] = {}
    for folder in sorted(set(wanted)):
        part, _folder, match = _folder_of(f"{folder}/")
        name = f"{folder}/{_DOCUMENTS[part]}"
        path = place(folders, name)
        try:
            with open(path, "rb") as stream:
                data = stream.read(MAX_DOCUMENT + 1)
        except OSError as error:
            raise GvisorError(f"{path} cannot be read ({error.strerror}): nothing has been built or fetched there") from error
        try:
            listed = _listed(part, data, {"releases": {}, "images": {}, "distributions": {}}, match)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise GvisorError(f"{path} is not what describes such a folder ({error!r}); remove it and run this again") from error
        listed[_DOCUMENTS[part]] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "mode": "0644"}
        for file, entry in sorted(listed.items()):
            if _sum_of(place(folders, f"{folder}/{file}")) != entry["sha256"]:
                raise GvisorError(
                    f"{place(folders, f'{folder}/{file}')} is not the file that {path} describes; remove the folder and run this again"
                )
        files.update({f"{folder}/{file}": entry for file, entry in listed.items()})
        documents[name] = data
    return contents_of(version, files, documents)


def write(stream: BinaryIO, contents: Mapping[str, Any], folders: Mapping[str, str]) -> Tuple[str, int]:
    """Write the bundle and return its sha256 and its size in bytes. Raises GvisorError when a file changes meanwhile."""
    digest, total = hashlib.sha256(), 0

    def put(data: bytes) -> None:
        nonlocal total
        digest.update(data)
        total += len(data)
        stream.write(data)

    data = _serialized(contents)
    put(_header(CONTENTS, len(data), "0644") + data + bytes(_padding(len(data))))
    for name, entry in sorted(contents["files"].items()):
        put(_header(name, entry["size"], entry["mode"]))
        path = place(folders, name)
        with open(path, "rb") as source:
            found = sha256_of(source, put, entry["size"])
        if found != entry["sha256"]:
            raise GvisorError(f"{path} changed while it was packed; run this again")
        put(bytes(_padding(entry["size"])))
    put(bytes(2 * BLOCK))
    return digest.hexdigest(), total


class _Sink:
    """A stream that goes nowhere, for check mode."""

    def write(self, data: bytes) -> int:
        return len(data)


def pack(path: str, contents: Mapping[str, Any], folders: Mapping[str, str], dry: bool = False) -> Dict[str, Any]:
    """Write the bundle at ``path`` unless it is there already. Returns ``changed``, ``sha256`` and ``size`` in bytes."""
    if dry:
        sha256, size = write(_Sink(), contents, folders)  # type: ignore[arg-type]
        return {"changed": _sum_of(path) != sha256, "sha256": sha256, "size": size}
    folder = os.path.dirname(path)
    os.makedirs(folder, exist_ok=True)
    with staged(folder, os.path.basename(path), 0o644) as new:
        sha256, size = write(new.stream, contents, folders)
        changed = _sum_of(path) != sha256
        if changed:
            new.keep(path)
    return {"changed": changed, "sha256": sha256, "size": size}


def contents_before(path: str) -> Dict[str, Any]:
    """Return the bundle.json of what lies at ``path``, unverified; without a readable one it is empty."""
    try:
        with open(path, "rb") as stream:
            reader = _Reader(stream, path)
            return _checked(reader, _first(reader))
    except (OSError, GvisorError):
        return {}


def lines(contents: Mapping[str, Any]) -> str:
    """Return a line a file, for a diff."""
    return "".join(f"{name} {entry['sha256']}\n" for name, entry in sorted(contents.get("files", {}).items()))


def _sum_of(path: str) -> Optional[str]:
    try:
        return sha256_file(path)
    except OSError:
        return None


# --- Reading ---------------------------------------------------------------------------------------------------------


class _Reader:
    """Reads a bundle from its begin to its end and compares it with what it must be."""

    def __init__(self, stream: BinaryIO, path: str) -> None:
        self._stream, self._path = stream, path
        self._digest = hashlib.sha256()
        self.position = 0

    def fail(self, what: str) -> GvisorError:
        """Return the error to raise, with the fix."""
        return GvisorError(f"{self._path} is not a whole bundle: {what}. Nothing was unpacked; copy or make it again.", path=self._path)

    def take(self, size: int, what: str) -> bytes:
        data = self._stream.read(size)
        self._digest.update(data)
        self.position += len(data)
        if len(data) != size:
            raise self.fail(f"it ends within {what}")
        return data

    def header(self, name: str, size: int, mode: str) -> None:
        found = self.take(BLOCK, f"the header of {name}")
        try:
            expected = _header(name, size, mode)
        except GvisorError as error:
            raise self.fail(error.message) from error
        if found != expected:
            raise self.fail(f"{_describe(found)} is where {name} of {size} bytes should be")

    def data(self, name: str, size: int, keep: bool) -> Tuple[str, bytes]:
        """Read a file and its padding; return its sha256 and, where asked to ``keep`` it, its bytes."""
        digest, kept, left = hashlib.sha256(), [], size
        while left:
            block = self.take(min(left, CHUNK), name)
            digest.update(block)
            left -= len(block)
            kept += [block] if keep else []
        if any(self.take(_padding(size), name)):
            raise self.fail(f"there is something behind {name}")
        return digest.hexdigest(), b"".join(kept)

    def end(self) -> str:
        """Return the sha256 of all, at the end."""
        if any(self.take(2 * BLOCK, "its last blocks")):
            raise self.fail("there is a file that bundle.json does not list")
        if self._stream.read(1):
            raise self.fail("there is something behind its end")
        return self._digest.hexdigest()


def _describe(block: bytes) -> str:
    """Return for a message what a header's block seems to be."""
    if not any(block):
        return "the end"
    kind = {
        b"0": "a file",
        b"1": "a hard link",
        b"2": "a symbolic link",
        b"3": "a device",
        b"4": "a device",
        b"5": "a folder",
        b"6": "a pipe",
    }
    name = block[:100].rstrip(b"\0").decode("ascii", "backslashreplace")
    size = block[124:135].decode("ascii", "backslashreplace")
    return f"{kind.get(block[156:157], 'something')} {name!r} (mode {block[100:107].decode('ascii', 'backslashreplace')}, size {size} in octal)"


def _first(reader: _Reader) -> bytes:
    """Return bundle.json."""
    first = reader.take(BLOCK, "its first header")
    try:
        size = int(first[124:135], 8)
        right = 0 <= size <= MAX_DOCUMENT and first == _header(CONTENTS, size, "0644")
    except ValueError:
        right = False
    if not right:
        raise reader.fail(f"it does not begin with {CONTENTS}, as what playbook bundle.yml makes does")
    _sum, data = reader.data(CONTENTS, size, keep=True)
    return data


def _checked(reader: _Reader, data: bytes) -> Dict[str, Any]:
    """Return bundle.json when its form is right; whether it tells the truth is seen later."""
    try:
        contents = json.loads(data)
        if contents["schema"] != SCHEMA:
            raise reader.fail(f"its form is {contents['schema']!r} and this version of the collection reads {SCHEMA}")
        if not isinstance(contents["version"], str):
            raise reader.fail(f"bundle.json says that its version is {contents['version']!r}")
        files = contents["files"]
        for name, entry in files.items():
            if not _NAME.fullmatch(name):
                raise reader.fail(f"bundle.json lists {name!r}, which is no name of a bundle's file")
            size = entry["size"]
            right = (
                set(entry) == {"sha256", "size", "mode"}
                and isinstance(size, int)
                and not isinstance(size, bool)
                and size >= 0
                and entry["mode"] in ("0644", "0755")
            )
            if not right or not _SHA256.fullmatch(entry["sha256"]):
                raise reader.fail(f"bundle.json says of {name}: {entry!r}")
            if is_document(name) and size > MAX_DOCUMENT:
                raise reader.fail(f"{name} has {size} bytes; {MAX_DOCUMENT} is the most")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise reader.fail(f"bundle.json does not have its form ({error!r})") from error
    return contents


def read(stream: BinaryIO, path: str) -> Bundle:
    """Read the bundle to its end and return it. Raises GvisorError, with ``path`` in it, unless every block is right."""
    reader = _Reader(stream, path)
    data = _first(reader)
    contents = _checked(reader, data)
    offsets, documents = {}, {}
    for name, entry in sorted(contents["files"].items()):
        reader.header(name, entry["size"], entry["mode"])
        offsets[name] = reader.position
        sha256, kept = reader.data(name, entry["size"], keep=is_document(name))
        if sha256 != entry["sha256"]:
            raise reader.fail(f"{name} has the sha256 {sha256} and bundle.json says {entry['sha256']}")
        if is_document(name):
            documents[name] = kept
    sha256 = reader.end()
    try:
        told = contents_of(contents["version"], contents["files"], documents)
    except GvisorError as error:
        raise reader.fail(error.message) from error
    if told != contents:
        raise reader.fail("bundle.json tells something else than the files do")
    return Bundle(contents, offsets, sha256, reader.position)


def open_bundle(path: str, sha256: str = "") -> Tuple[BinaryIO, Bundle]:
    """Open and read the bundle; ``sha256`` is the one that the whole file must have.

    What is unpacked comes from the same open file: nobody can put another in its place meanwhile. Raises GvisorError.
    """
    try:
        stream = open(path, "rb")  # noqa: SIM115 - the caller closes it
    except OSError as error:
        raise GvisorError(f"the bundle {path} cannot be read: {error.strerror}", path=path) from error
    try:
        if sha256:
            found = sha256_of(stream)
            if found != sha256.lower():
                raise GvisorError(f"the bundle {path} has the sha256 {found} and {sha256} is expected. Nothing was unpacked.")
            stream.seek(0)
        return stream, read(stream, path)
    except OSError as error:
        stream.close()
        raise GvisorError(f"the bundle {path} cannot be read: {error.strerror}", path=path) from error
    except BaseException:
        stream.close()
        raise


def unpack(
    stream: BinaryIO, bundle: Bundle, folders: Mapping[str, str], dry: bool = False
) -> Dict[str, Tuple[Optional[str], Optional[str]]]:
    """Bring every file to its place, and packages that the bundle does not have away from beside those that it has.

    Returns the sha256 before and after of each path that changes; with ``dry`` none does. What describes a folder is
    written last. Raises GvisorError and OSError.
    """
    files = bundle.contents["files"]
    changes: Dict[str, Tuple[Optional[str], Optional[str]]] = {}
    for name in sorted(files, key=lambda name: (is_document(name), name)):
        path = place(folders, name)
        if _differs(path, files[name]):
            changes[path] = (_sum_of(path), files[name]["sha256"])
            if not dry:
                _extract(stream, bundle.offsets[name], path, files[name])
    for path in _stale(bundle.contents, folders):
        changes[path] = (_sum_of(path), None)
        if not dry:
            os.unlink(path)
    return changes


def _extract(stream: BinaryIO, offset: int, path: str, entry: Mapping[str, Any]) -> None:
    folder = os.path.dirname(path)
    os.makedirs(folder, exist_ok=True)
    stream.seek(offset)
    with staged(folder, os.path.basename(path), int(entry["mode"], 8)) as new:
        if sha256_of(stream, new.stream.write, entry["size"]) != entry["sha256"]:
            raise GvisorError(f"the bundle changed while {path} was unpacked; run this again")
        new.keep(path)


def _stale(contents: Mapping[str, Any], folders: Mapping[str, str]) -> List[str]:
    """Return the packages of other bundles that lie beside this one's."""
    paths = []
    for key, packages in contents["distributions"].items():
        folder = os.path.join(folders["packages"], key)
        names = os.listdir(folder) if os.path.isdir(folder) else []
        kept = {package["file"] for package in packages.values()}
        paths += [os.path.join(folder, name) for name in sorted(names) if name.endswith(".deb") and name not in kept]
    return paths
