# Copyright (c) 2026, the ggen.gvisor authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""An image from a registry, by its digest, as an archive like any other. skopeo speaks to the registry, and is watched while it does.

Neither a registry nor what lies on the way to it is trusted: the digest says what the image is, its manifest how many bytes it has, and more of them,
or none for too long, end it. Credentials are in no file but the one that is named, and never in a command line, a message or a result.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import io
import ipaddress
import json
import os
import re
import shutil
import signal
import subprocess
import tarfile
import tempfile
import time
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional

from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._base.files import locked, make_folders
from ansible_collections.ggen.gvisor.plugins.module_utils._base.kernel import die_with_parent
from ansible_collections.ggen.gvisor.plugins.module_utils._base.process import SEARCH_PATH
from ansible_collections.ggen.gvisor.plugins.module_utils._base.text import megabytes, visible_line
from ansible_collections.ggen.gvisor.plugins.module_utils._containerd.ctr import Ctr
from ansible_collections.ggen.gvisor.plugins.module_utils._containerd.image_archive import MAX_DOCUMENT, platform_fits
from ansible_collections.ggen.gvisor.plugins.module_utils._containerd.image_config import check_manifest, descriptors, read_document
from ansible_collections.ggen.gvisor.plugins.module_utils._containerd.image_names import full_name

PACKAGE = "skopeo"  # Debian's and Ubuntu's, with the policy of signatures that it needs
FOLDER = "pulls"  # below the state folder: an image on its way, as long as that takes
MASK = "********"
SLACK = 1 << 20  # bytes for skopeo's own files
LOOK = 0.1  # seconds between two looks at what has come
LEAST_WORD = 4  # a shorter part of a credential cannot be told from other text
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_HOST = re.compile(r"(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*(?::[0-9]{1,5})?")
_PATH = re.compile(r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_MALFORMED = (AttributeError, KeyError, TypeError, ValueError, RecursionError)
_DOCKER = ("docker.io", "index.docker.io", "registry-1.docker.io")
EXAMPLE = "registry.example.org/tools/tool@sha256:<64 hex digits>"

# What skopeo says, by what it means, and what to do. It ends with the words of the server, so what is looked for is in the middle of a line.
_REASONS = (
    (
        r"(?i)unauthorized|authentication required|\b40[13]\b|access to the resource is denied|no basic auth",
        "{registry} lets nobody in with {credentials}; {login}",
    ),
    (
        r"(?i)manifest unknown|name unknown|not known to registry|\b404\b|blob unknown",
        "{registry} does not have it; compare name and digest",
    ),
    (
        r"(?i)digest did not match|does not match provided manifest digest|digest.*mismatch",
        "{registry} sends other bytes than the digest says; it is broken, or somebody is in between",
    ),
    (r"(?i)x509|certificate", "{registry} does not prove who it is ({said}); give its authority's certificate as ca_file"),
    (
        r"(?i)gave HTTP response to HTTPS client",
        "{registry} speaks HTTP where HTTPS is needed; have it serve HTTPS (on the host itself plain_http is possible)",
    ),
    (r"(?i)connection refused", "nothing listens at {registry}; start the registry or correct its port"),
    (
        r"(?i)no such host|server misbehaving|name resolution",
        "the host finds no address of {registry}; correct the name, or the host's DNS",
    ),
    (r"(?i)stopped after \d+ redirects", "{registry} leads from one address to the next without an end; see what is in front of it"),
    (
        r"(?i)i/o timeout|timeout exceeded|deadline exceeded|TLS handshake timeout",
        "{registry} does not answer; see whether the host can reach it",
    ),
    (
        r"(?i)unexpected EOF|EOF$|connection reset|broken pipe|closed (network )?connection|connection closed",
        "the connection to {registry} ended in the middle; run again",
    ),
    (
        r"(?i)exceeded maximum allowed size|too large",
        "{registry} sends a manifest that is too long for one; it is broken, or somebody is in between",
    ),
    (r"(?i)toomanyrequests|\b429\b", "{registry} has had too many requests; wait, or give an auth_file"),
    (
        r"policy\.json",
        "skopeo has no policy of signatures; install the package golang-github-containers-image, or write /etc/containers/policy.json",
    ),
    (r"no space left on device", "the disk is full; free some space"),
)


class Reference(NamedTuple):
    """An image of a registry."""

    registry: str  # host[:port]
    repository: str  # with the registry, as containerd has it
    tag: str  # may be empty
    digest: str

    def __str__(self) -> str:
        return f"{self.repository}{':' if self.tag else ''}{self.tag}@{self.digest}"

    @property
    def names(self) -> List[str]:
        """The names that it has in containerd where no others are asked for: by its digest, and its tag."""
        return [f"{self.repository}@{self.digest}", *([f"{self.repository}:{self.tag}"] if self.tag else [])]

    @property
    def is_local(self) -> bool:
        """Whether the registry is on the host itself."""
        host = self.registry.partition(":")[0]
        try:
            return host == "localhost" or ipaddress.ip_address(host).is_loopback
        except ValueError:
            return False


def parse_reference(text: str) -> Reference:
    """Return what a reference says. Raises GvisorError for one that leaves open which image is meant, or which registry."""
    if "://" in text or text.count("@") > 1 or (":" in text.partition("@")[0].partition("/")[0] and "@" in text.partition("/")[0]):
        # Not shown: it may hold a password.
        raise GvisorError(
            f"reference is an address, or has a user or a password in it, and is not taken; write {EXAMPLE}, and credentials into auth_file"
        )
    name, at, digest = text.partition("@")
    if not at:
        raise GvisorError(
            f"reference={text!r} has no digest, and what a name leads to can change; write {EXAMPLE} (skopeo inspect docker://NAME:TAG tells it)"
        )
    if not _DIGEST.fullmatch(digest):
        raise GvisorError(f"reference={text!r} has no digest that works here; write {EXAMPLE}")
    registry, _slash, rest = name.partition("/")
    if not rest or not (_HOST.fullmatch(registry) and ("." in registry or ":" in registry or registry == "localhost")):
        raise GvisorError(f"reference={text!r} does not begin with a registry; write {EXAMPLE}, for Docker's docker.io/library/NAME@…")
    path, colon, tag = rest.partition(":")
    if not _PATH.fullmatch(path) or len(path) > 200 or (colon and not _TAG.fullmatch(tag)):
        raise GvisorError(
            f"reference={text!r} has a name that no registry has: lower-case letters, digits and . _ - / alone are possible; write {EXAMPLE}"
        )
    repository = full_name(f"{registry}/{path}").rpartition(":")[0]
    return Reference(repository.partition("/")[0], repository, tag, digest)


class Asking(NamedTuple):
    """How a registry is asked for an image."""

    reference: Reference
    platform: str
    auth: bytes = b""  # auth.json, as docker and skopeo write it; nothing for nobody
    authority: bytes = b""  # a certificate beside those of the system
    plain_http: bool = False


class Bounds(NamedTuple):
    """How much an image may take."""

    size: int  # bytes, as the registry has them
    seconds: float
    low: Callable[[], Optional[str]]  # which file system has too little room left, and how little


def _host_of(key: str) -> str:
    """Return the registry that an entry of auth.json is for."""
    host = re.sub(r"^https?://", "", key).partition("/")[0]
    return "docker.io" if host in _DOCKER else host


def credentials_for(reference: Reference, auth: bytes) -> Dict[str, Any]:
    """Return the entries of auth.json that are for the reference's registry. Raises GvisorError, which holds nothing of them, where there is none."""
    try:
        document = json.loads(auth.decode())
        entries = {key: entry for key, entry in (document.get("auths") or {}).items() if _host_of(key) == reference.registry}
        # An entry without anything is what a helper's look like: a program of the user's would be run for it.
        found = {
            key: entry for key, entry in entries.items() if any(entry.get(name) for name in ("auth", "identitytoken", "registrytoken"))
        }
    except _MALFORMED:
        raise GvisorError('auth_file is no auth.json; write {"auths": {"REGISTRY": {"auth": "<base64 of USER:PASSWORD>"}}}') from None
    if not found:
        raise GvisorError(
            f"auth_file has no credentials for {reference.registry} (helpers are not asked); skopeo login --authfile FILE {reference.registry} writes them"
        )
    return found


def secret_words(entries: Dict[str, Any]) -> List[str]:
    """Return what of credentials must not be seen anywhere."""
    words = {str(value) for entry in entries.values() for name, value in entry.items() if name != "username" and value}
    for entry in entries.values():
        with contextlib.suppress(binascii.Error, ValueError):
            plain = base64.b64decode(str(entry.get("auth") or ""), validate=True).decode()
            words |= {plain, plain.partition(":")[2]}
    return sorted((word for word in words if len(word) >= LEAST_WORD), key=len, reverse=True)


def without(text: str, words: List[str]) -> str:
    """Return the text without credentials: ``words``, and what follows a ? in addresses, by which a store lets in whoever has them."""
    for word in words:
        text = text.replace(word, MASK)
    return re.sub(r"(\w+://[^\s\"?]+)\?[^\s\"]*", r"\1?" + MASK, text)


def explain(reference: Reference, said: str, known: bool) -> str:
    """Return in one sentence why skopeo failed, from what it ``said``; ``known`` tells whether it had credentials."""
    found = re.findall(r'level=fatal msg="((?:[^"\\]|\\.)*)"', said)
    words = visible_line((found[-1].replace('\\"', '"') if found else said.strip().rpartition("\n")[2]) or "it did not say why")
    # A name, an address or a digest may have any word or number in it.
    plain = re.sub(r"\w+://[^\s\"]+|[0-9a-f]{64}", "", words)
    for name in (reference.repository, f"/v2/{reference.repository.partition('/')[2]}/", reference.registry):
        plain = plain.replace(name, "")
    sentence = next((sentence for pattern, sentence in _REASONS if re.search(pattern, plain)), "{said}")
    told = sentence.format(
        registry=reference.registry,
        said=words.rpartition(": ")[2] if sentence != "{said}" else words[:500],
        credentials="the credentials of auth_file" if known else "no credentials",
        login="log in again" if known else "give an auth_file (skopeo login --authfile FILE REGISTRY writes one)",
    )
    return f"image {reference} cannot be pulled: {told}"


def child_for(index: Dict[str, Any], platform: str) -> Optional[Dict[str, Any]]:
    """Return what an index has for the platform: what says just that, else the first that fits, and one that says nothing last. Raises _MALFORMED."""
    children = [(_told(child.get("platform")), child) for child in index["manifests"]]
    fitting = [(told, child) for told, child in children if platform_fits(told, platform)]
    exact = [child for told, child in fitting if told == platform]
    silent = [child for told, child in children if not told]
    return next(iter([*exact, *(child for told, child in fitting if told), *silent]), None)


def _told(platform: Optional[Dict[str, Any]]) -> str:
    return "/".join(str(platform[key]) for key in ("os", "architecture", "variant") if platform.get(key)) if platform else ""


def size_of_blobs(manifest: Dict[str, Any]) -> int:
    """Return the bytes of all that a manifest names, each once. Raises ValueError, or another of what a malformed one raises."""
    sizes = {}
    for one in descriptors(check_manifest(manifest)):
        if not isinstance(one["digest"], str) or not _DIGEST.fullmatch(one["digest"]):
            raise ValueError(f"{one['digest']!r} is no digest")
        if not isinstance(one["size"], int) or isinstance(one["size"], bool) or one["size"] < 0:
            raise ValueError(f"{one['size']!r} is no size")
        sizes[one["digest"]] = one["size"]
    return sum(sizes.values())


def documents_in_containerd(ctr: Ctr, digest: str, platform: str) -> Dict[str, bytes]:
    """Return what containerd has of the documents of an image, by digest: an index, a manifest, a configuration; nothing where one of them is missing."""
    found: Dict[str, bytes] = {}

    def read(wanted: Any) -> Dict[str, Any]:
        text = ctr.check("content", "get", str(wanted))
        found[str(wanted)] = text.encode()
        return read_document(text)

    try:
        document = read(digest)
        if "manifests" in document:
            child = child_for(document, platform)
            document = read(child["digest"]) if child else document
        read(document["config"]["digest"])
    except (GvisorError, *_MALFORMED):
        return {}
    return found


def write_layout(path: str, descriptor: Dict[str, Any], documents: Dict[str, bytes], blobs: Dict[str, str]) -> None:
    """Write an archive of an OCI layout: ``documents`` by digest, and ``blobs``, files by digest, each of which is removed as soon as it is in it."""
    index = json.dumps({"schemaVersion": 2, "manifests": [descriptor]}).encode()
    entries = {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}', "index.json": index}
    entries.update((f"blobs/sha256/{digest[7:]}", data) for digest, data in documents.items())
    with tarfile.open(path, "w") as tar:
        for name, data in entries.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for digest, file in blobs.items():
            tar.add(file, f"blobs/sha256/{digest[7:]}", recursive=False)
            os.unlink(file)


def descriptor_of(digest: str, data: bytes) -> Dict[str, Any]:
    """Return what an index says of a document. Raises one of _MALFORMED."""
    document = read_document(data.decode())
    kind = "application/vnd.oci.image.index.v1+json" if "manifests" in document else "application/vnd.oci.image.manifest.v1+json"
    return {"mediaType": document.get("mediaType") or kind, "digest": digest, "size": len(data)}


@contextlib.contextmanager
def pull_folder(state_dir: str, seconds: float) -> Iterator[str]:
    """Give a folder of root's alone for one pull, which is gone afterwards. One pull of a host at a time: what a killed one has left goes first.

    Raises GvisorError where another one takes longer than ``seconds``, and OSError.
    """
    place = os.path.join(state_dir, FOLDER)
    make_folders(place, 0o700)
    with locked(place, seconds):
        for name in os.listdir(place):
            shutil.rmtree(os.path.join(place, name), ignore_errors=True)
        folder = tempfile.mkdtemp(dir=place)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def pull(asking: Asking, bounds: Bounds, folder: str) -> str:
    """Bring the image's part for the platform into ``folder`` and return the path of its archive.

    Raises GvisorError that names the reference, and OSError.
    """
    with _Skopeo(asking, bounds, folder) as skopeo:
        return _pull(skopeo, asking, folder)


def _pull(skopeo: _Skopeo, asking: Asking, folder: str) -> str:
    reference = asking.reference
    documents = {reference.digest: skopeo.document(reference.digest)}
    try:
        top = check_manifest(read_document(documents[reference.digest].decode()))
        descriptor = descriptor_of(reference.digest, documents[reference.digest])
        digest, manifest = reference.digest, top
        if "manifests" in top:
            child = child_for(top, asking.platform)
            if child is None:
                there = ", ".join(sorted({_told(one.get("platform")) for one in top["manifests"]})) or "nothing"
                raise GvisorError(
                    f"image {reference} is for {visible_line(there)}, and {asking.platform} is needed; take one for {asking.platform}"
                )
            digest = str(child["digest"])
            if not _DIGEST.fullmatch(digest):
                raise ValueError(f"{digest!r} is no digest")
            documents[digest] = skopeo.document(digest)
            manifest = check_manifest(read_document(documents[digest].decode()))
        names = {str(one["digest"]) for one in [manifest["config"], *manifest["layers"]]}
        size = size_of_blobs(manifest)
    except _MALFORMED as error:
        raise GvisorError(f"image {reference} has a manifest that is none: {error!r}") from error
    skopeo.copy(digest, size)
    path = os.path.join(folder, "image.tar")
    write_layout(path, descriptor, documents, {name: os.path.join(skopeo.target, name[7:]) for name in sorted(names)})
    return path


class _Skopeo:
    """skopeo for one image, with nothing of the user's and everything that it writes in a folder of its own; credentials are in no file of a disk's.

    A context manager.
    """

    def __init__(self, asking: Asking, bounds: Bounds, folder: str) -> None:
        self._reference, self._bounds, self._folder = asking.reference, bounds, folder
        self._deadline = time.monotonic() + bounds.seconds
        self.target = os.path.join(folder, "image")
        program = shutil.which("skopeo", path=f"{os.environ.get('PATH', '')}:{SEARCH_PATH}")
        if program is None:
            raise GvisorError(
                "skopeo was not found on this host, which pulls images from registries; "
                f"install it (apt-get install {PACKAGE}), or give the image as an archive",
                missing=PACKAGE,
            )
        entries = credentials_for(asking.reference, asking.auth) if asking.auth else {}
        self._words, self._known = secret_words(entries), bool(entries)
        self._begin = [program, "--command-timeout", f"{int(bounds.seconds) + 1}s"]  # also where nobody watches any more
        self._auth = os.fdopen(os.memfd_create("auth.json"), "wb")
        self._auth.write(json.dumps({"auths": entries}).encode())
        self._auth.flush()
        os.mkdir(os.path.join(folder, "certs"), 0o700)
        if asking.authority:
            with open(os.path.join(folder, "certs/authority.crt"), "wb") as stream:
                stream.write(asking.authority)
        self._tls = str(not asking.plain_http).lower()

    def __enter__(self) -> _Skopeo:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._auth.close()

    @property
    def _auth_path(self) -> str:
        return f"/proc/self/fd/{self._auth.fileno()}"  # as skopeo finds it

    def document(self, digest: str) -> bytes:
        """Return a manifest or an index. Raises GvisorError unless it is what the digest says."""
        certs = os.path.join(self._folder, "certs")
        options = ["--authfile", self._auth_path, "--cert-dir", certs, f"--tls-verify={self._tls}"]
        data = self._run(["inspect", "--raw", *options, self._source(digest)], MAX_DOCUMENT + SLACK)
        if f"sha256:{hashlib.sha256(data).hexdigest()}" != digest:
            raise GvisorError(
                f"image {self._reference} cannot be pulled: {self._reference.registry} sends other bytes than the digest says; "
                "it is broken, or somebody is in between"
            )
        return data

    def copy(self, digest: str, size: int) -> None:
        """Have the blobs of a manifest, which have ``size`` bytes, in the target folder. Raises GvisorError."""
        if size > self._bounds.size:
            raise GvisorError(
                f"image {self._reference} has {megabytes(size)}, and {megabytes(self._bounds.size)} are the most; set max_size if that is right",
                size=size,
            )
        status = os.statvfs(self._folder)
        # The blobs, and the archive that is made of them.
        if 2 * size > status.f_bavail * status.f_frsize:
            raise GvisorError(
                f"image {self._reference} needs {megabytes(2 * size)} at {os.path.dirname(self._folder)} until it is imported, and "
                f"{megabytes(status.f_bavail * status.f_frsize)} are free; free some space, or give another state_dir"
            )
        certs = os.path.join(self._folder, "certs")
        options = ["--src-authfile", self._auth_path, "--src-cert-dir", certs, f"--src-tls-verify={self._tls}", "--remove-signatures"]
        self._run(["copy", "--quiet", *options, self._source(digest), f"dir:{self.target}"], size + MAX_DOCUMENT + SLACK)

    def _source(self, digest: str) -> str:
        return f"docker://{self._reference.repository}@{digest}"

    def _run(self, arguments: List[str], most: int) -> bytes:
        """Run skopeo to its end and return what it printed. Raises GvisorError where it fails, takes too long, or writes more than ``most`` bytes."""
        environment = {
            **{name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")},
            **dict.fromkeys(("HOME", "TMPDIR", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "XDG_DATA_HOME"), self._folder),
            "PATH": SEARCH_PATH,
            "LC_ALL": "C",
            "_CONTAINERS_ROOTLESS_UID": "1",  # or it would keep where blobs were in /var/lib/containers
        }
        paths = [os.path.join(self._folder, name) for name in ("said", "errors")]
        with open(paths[0], "wb") as said, open(paths[1], "wb") as errors:
            # run_command has no limits.
            process = subprocess.Popen(  # pylint: disable=ansible-bad-function
                [*self._begin, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=errors,
                env=environment,
                cwd=self._folder,
                pass_fds=[self._auth.fileno()],
                preexec_fn=_end_with_us,
            )
        try:
            while True:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(LOOK)
                self._watch(most, process.returncode is None)
                if process.returncode is not None:
                    break
        finally:
            process.kill()
            process.wait()
        with open(paths[1], encoding="utf-8", errors="replace") as stream:
            words = without(stream.read(1 << 16), self._words)
        if process.returncode != 0:
            raise GvisorError(explain(self._reference, words, self._known), rc=process.returncode, stderr=words)
        with open(paths[0], "rb") as stream:
            return stream.read()

    def _watch(self, most: int, running: bool) -> None:
        """Raise GvisorError where too much has come, or too little in time."""
        if _bytes_below(self._folder) > most:
            raise GvisorError(
                f"image {self._reference} cannot be pulled: {self._reference.registry} sends more than its manifest says; "
                "it is broken, or somebody is in between"
            )
        low = self._bounds.low()
        if low:
            raise GvisorError(
                f"image {self._reference} cannot be pulled: too little room on the file system of {low}; free some space",
                limits_hit=["space"],
            )
        if running and time.monotonic() > self._deadline:
            raise GvisorError(
                f"image {self._reference} did not come within {self._bounds.seconds:g} s; see why {self._reference.registry} is slow, or set timeout"
            )


def _end_with_us() -> None:
    """Be killed with whoever watches what comes."""
    die_with_parent(signal.SIGKILL)


def _bytes_below(folder: str) -> int:
    total = 0
    for place, _folders, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += os.lstat(os.path.join(place, name)).st_size
    return total
