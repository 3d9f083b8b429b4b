# Copyright (c) 2026, the ggen.gvisor authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""Files from a server or a folder that nobody trusts: bounded in size, time and redirects, and compared by their sha256."""

from __future__ import annotations

import hashlib
import http.client
import os
import stat
import threading
import time
from typing import Any, BinaryIO, Callable, List, NamedTuple, Optional
from urllib.error import HTTPError, URLError
from urllib.parse import quote, unquote, urlsplit
from urllib.request import (
    HTTPDefaultErrorHandler,
    HTTPErrorProcessor,
    HTTPHandler,
    HTTPRedirectHandler,
    HTTPSHandler,
    OpenerDirector,
    ProxyHandler,
    Request,
    getproxies_environment,
)

from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._base.files import CHUNK

SILENCE = 30  # seconds that a server may say nothing
PATIENCE = 60  # seconds that any file may take
SLOWEST = 50000  # bytes a second that come on the average after that
REDIRECTS = 5
WEB = ("http", "https")


class File(NamedTuple):
    """What a file must be: its sha256 and, where it is known, its size; ``most`` bytes in any case."""

    sha256: str
    most: int
    size: Optional[int] = None


def is_url(place: str) -> bool:
    """Tell whether it is an address and no path."""
    return "://" in place


def folder_of(place: str) -> str:
    """Return an address or path of a folder as this module's functions take it. Raises GvisorError for another kind, or with what a folder has not."""
    if not is_url(place):
        return os.path.abspath(os.path.expanduser(place))
    _checked(place)
    if "?" in place or "#" in place:
        raise GvisorError(f"{place}: the address of a folder has no ? and no #")
    return place.rstrip("/")


def path_of(place: str) -> Optional[str]:
    """Return the path of what is on this machine, or None for what a server has. Raises GvisorError for an address that is not taken."""
    if _checked(place) in WEB:
        return None
    return unquote(urlsplit(place).path) if is_url(place) else os.path.abspath(os.path.expanduser(place))


def below(folder: str, name: str) -> str:
    """Return the address or path of a file in a folder; the caller knows that the name leads nowhere else."""
    return f"{folder}/{quote(name)}" if is_url(folder) else os.path.join(folder, name)


def read(place: str, file: File) -> bytes:
    """Return the bytes of a small file. Raises GvisorError unless it is the one that it must be."""
    parts: List[bytes] = []
    _bring(place, file, parts.append)
    return b"".join(parts)


def save(place: str, file: File, stream: BinaryIO) -> None:
    """Write the file to ``stream``. Raises GvisorError unless it is the one that it must be, and OSError where writing fails."""
    _bring(place, file, stream.write)


def _bring(place: str, file: File, write: Callable[[bytes], Any]) -> None:
    pump = _Pump(place, file, write)
    path = path_of(place)
    if path is None:
        _in_time(pump, lambda: _from_server(place, pump))
    else:
        _from_disk(path, pump)
    pump.end()


def _checked(place: str) -> str:
    """Return the address's kind, file for a path. Raises GvisorError for one that is not taken."""
    if not is_url(place):
        return "file"
    try:
        address = urlsplit(place)
        user, port = address.username, address.port
    except ValueError as error:
        raise GvisorError(f"{place} is no address: {error}") from error
    if user is not None:
        # Not shown: it may hold a password.
        raise GvisorError("an address with a user or a password in it is not taken: others can read it in messages and lists of processes")
    if address.scheme not in (*WEB, "file"):
        raise GvisorError(f"{place}: {address.scheme} is not among https, http and file")
    if address.scheme == "file" and (address.netloc not in ("", "localhost") or port):
        raise GvisorError(f"{place}: a file of another machine cannot be read; this machine's begins with file:///")
    if address.scheme in WEB and not address.hostname:
        raise GvisorError(f"{place} names no server")
    return address.scheme


class _Pump:
    """Passes on what comes, counts it and compares it."""

    def __init__(self, place: str, file: File, write: Callable[[bytes], Any]) -> None:
        self.place, self.count = place, 0
        self._file, self._write = file, write
        self._digest = hashlib.sha256()

    def announced(self, size: Optional[int]) -> None:
        """Compare the size that is said beforehand."""
        if size is None:
            return
        if self._file.size is not None and size != self._file.size:
            raise GvisorError(f"{self.place} has {size} bytes and {self._file.size} are expected")
        if size > self._file.most:
            raise GvisorError(f"{self.place} has {size} bytes; {self._file.most} is the most")

    def take(self, block: bytes) -> None:
        self.count += len(block)
        most = self._file.most if self._file.size is None else self._file.size
        if self.count > most:
            raise GvisorError(f"{self.place} has more than the {most} bytes that it may have")
        self._digest.update(block)
        self._write(block)

    def end(self) -> None:
        """Compare the whole."""
        if self._file.size is not None and self.count != self._file.size:
            raise GvisorError(f"{self.place} ends after {self.count} of {self._file.size} bytes")
        found = self._digest.hexdigest()
        if found != self._file.sha256:
            raise GvisorError(f"{self.place} has the sha256 {found} and {self._file.sha256} is expected")


def _from_disk(path: str, pump: _Pump) -> None:
    try:
        # Without O_NONBLOCK a pipe would have us wait for somebody who writes to it.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as stream:
            status = os.fstat(stream.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise GvisorError(f"{pump.place} is no regular file")
            pump.announced(status.st_size)
            for block in iter(lambda: stream.read(CHUNK), b""):
                pump.take(block)
    except (OSError, ValueError) as error:
        raise GvisorError(f"{pump.place} cannot be read: {getattr(error, 'strerror', None) or error}") from error


class _Redirects(HTTPRedirectHandler):
    """Follows few, and none that leads to another kind of address or from a server that proves who it is to one that does not."""

    max_redirections = REDIRECTS
    max_repeats = 1

    def redirect_request(self, req: Request, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Optional[Request]:
        scheme = urlsplit(newurl).scheme
        if scheme not in WEB or (req.type == "https" and scheme != "https"):
            raise HTTPError(newurl, code, f"it leads to {newurl}, which is not followed", headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> OpenerDirector:
    """Return what speaks HTTP and nothing else. Proxies are those of the environment: asking macOS for its own ends a forked process."""
    opener = OpenerDirector()
    handlers = (ProxyHandler(getproxies_environment()), HTTPHandler(), HTTPSHandler(), _Redirects(), HTTPDefaultErrorHandler())
    for handler in (*handlers, HTTPErrorProcessor()):
        opener.add_handler(handler)
    return opener


def _from_server(place: str, pump: _Pump) -> None:
    request = Request(place, headers={"User-Agent": "ggen.gvisor", "Accept-Encoding": "identity"})  # noqa: S310 - _checked
    try:
        with _opener().open(request, timeout=SILENCE) as answer:
            length = answer.headers.get("Content-Length", "")
            pump.announced(int(length) if length.isdigit() else None)
            # What is there, and not the whole block: a slow server is seen to be one.
            for block in iter(lambda: answer.read1(CHUNK), b""):
                pump.take(block)
    except HTTPError as error:
        raise GvisorError(f"{place}: the server answers {error.code} ({error.reason})") from error
    except URLError as error:
        raise GvisorError(f"{place} cannot be reached: {getattr(error.reason, 'strerror', None) or error.reason}") from error
    except (http.client.HTTPException, ValueError) as error:
        raise GvisorError(f"{place}: the server does not answer as one does: {type(error).__name__}: {error}") from error
    except OSError as error:
        # A write that failed tells its file; what is about the connection has none.
        if error.filename is not None:
            raise
        raise GvisorError(f"{place}: after {pump.count} bytes the connection failed: {error.strerror or error}") from error


def _in_time(pump: _Pump, work: Callable[[], None]) -> None:
    """Do it in a thread that is left alone where it takes too long: looking up a name and reading headers have no limit of their own."""
    ended: List[Optional[BaseException]] = []

    def job() -> None:
        try:
            work()
        except BaseException as error:  # raised below, where somebody catches it
            ended.append(error)
        else:
            ended.append(None)

    begin = time.monotonic()
    thread = threading.Thread(target=job, daemon=True)
    thread.start()
    while not ended:
        thread.join(0.2)
        if not ended and time.monotonic() - begin > PATIENCE + pump.count / SLOWEST:
            raise GvisorError(f"{pump.place}: {pump.count} bytes came in {time.monotonic() - begin:.0f} s, which is too slow")
    if ended[0] is not None:
        raise ended[0]
