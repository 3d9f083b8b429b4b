# Copyright (c) 2026, the ggen.gvisor authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""The audit trail: one line of JSON for each command that a sandbox was made for, in a file of root's on the host.

What a line tells is written down in the pod's folder before the command may begin, so that whoever is left when the module is killed, its
supervisor or the next run, can write the line. See docs/audit.md.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import stat
import time
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence

from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._base.files import atomic_write, take_lock
from ansible_collections.ggen.gvisor.plugins.module_utils._containerd.ctr import Ctr
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox import metrics
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.pinned import FOLDER

NAME = "audit"  # the folder below the state folder, and that of what is not yet a line in a pod's
FILE = "runs.jsonl"
MAX_BYTES = 8 << 20  # of the file; a line more and it becomes .1
KEPT = 4  # older files
MAX_TEXT = 512  # characters of one text
MAX_WORDS = 64  # of one list
LOCK_SECONDS = 10.0
_FLAGS = os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
NOBODY_S = 0xFFFFFFFF  # the login of a process that has none


def asked_by(environment: Mapping[str, str], proc: str = "/proc") -> Dict[str, Any]:
    """Return who asked, as far as the host knows: the kernel's record of the login, and what sudo and sshd say to this process."""
    found: Dict[str, Any] = {"uid": os.getuid(), "login_uid": None}
    with contextlib.suppress(OSError, ValueError), open(f"{proc}/self/loginuid", encoding="ascii") as stream:
        login = int(stream.read())
        found["login_uid"] = None if login == NOBODY_S else login
    found["sudo_user"] = environment.get("SUDO_USER")
    found["ssh_client"] = (environment.get("SSH_CONNECTION") or "").split(" ")[0] or None
    return found


def bounded(value: Any) -> Any:
    """Return the value with its long texts and lists cut; what is cut says so."""
    if isinstance(value, str) and len(value) > MAX_TEXT:
        return f"{value[:MAX_TEXT]}… ({len(value)} characters)"
    if isinstance(value, Mapping):
        return {bounded(str(key)): bounded(item) for key, item in list(value.items())[:MAX_WORDS]}
    if isinstance(value, (list, tuple)):
        rest = [f"… ({len(value)} in all)"] if len(value) > MAX_WORDS else []
        return [*(bounded(item) for item in value[:MAX_WORDS]), *rest]
    return value


def argv_facts(argv: Sequence[str]) -> Dict[str, Any]:
    """Return a command line, and where the trail cuts it, the sha256 of all of it, its words ended by NUL."""
    if bounded(list(argv)) == list(argv):
        return {"argv": list(argv)}
    whole = b"".join(word.encode("utf-8", "surrogatepass") + b"\0" for word in argv)
    return {"argv": list(argv), "argv_sha256": hashlib.sha256(whole).hexdigest()}


def line_of(record: Mapping[str, Any]) -> bytes:
    """Return the record as one line of printable ASCII, whatever is in it."""
    return json.dumps(record, separators=(",", ":")).replace("\x7f", "\\u007f").encode("ascii") + b"\n"


@contextlib.contextmanager
def _opened(state_dir: str) -> Iterator[int]:
    """Give the descriptor of the trail's folder, which is made and root's alone, while nobody else writes there. Raises OSError."""
    path = os.path.join(state_dir, NAME)
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o700)
    folder = os.open(path, FOLDER)
    try:
        if os.fstat(folder).st_uid != os.geteuid():
            raise OSError(errno.EPERM, "belongs to somebody else", path)
        os.fchmod(folder, 0o700)
        if not take_lock(folder, fcntl.LOCK_EX, LOCK_SECONDS):
            raise OSError(errno.ETIMEDOUT, f"another process has held it for {LOCK_SECONDS:g} s", path)
        yield folder
    finally:
        os.close(folder)


def _file(folder: int) -> int:
    descriptor = os.open(FILE, os.O_RDWR | os.O_APPEND | _FLAGS, 0o600, dir_fd=folder)
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "is not a regular file", FILE)
    os.fchmod(descriptor, 0o600)
    return descriptor


def _rotate(folder: int) -> None:
    names = [FILE, *(f"{FILE}.{number}" for number in range(1, KEPT + 1))]
    for older, newer in zip(names[:0:-1], names[-2::-1]):
        with contextlib.suppress(FileNotFoundError):
            os.rename(newer, older, src_dir_fd=folder, dst_dir_fd=folder)


def append(state_dir: str, record: Mapping[str, Any]) -> None:
    """Append the record's line to the trail, all of it or nothing. Raises OSError."""
    line = line_of(record)
    with _opened(state_dir) as folder:
        descriptor = _file(folder)
        try:
            size = os.fstat(descriptor).st_size
            if size and size + len(line) > MAX_BYTES:
                _rotate(folder)
                os.close(descriptor)
                descriptor = _file(folder)
                size = 0
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                line = b"\n" + line  # the host went down in the middle of a line
            try:
                while line:
                    line = line[os.write(descriptor, line) :]
            except OSError:
                os.ftruncate(descriptor, size)
                raise
        finally:
            os.close(descriptor)


def check(state_dir: str) -> None:
    """Raise GvisorError where no line could be written: nothing is run that would not be told."""
    try:
        with _opened(state_dir) as folder:
            os.close(_file(folder))
    except OSError as error:
        raise GvisorError(
            f"the audit trail {state_dir}/{NAME}/{FILE} cannot be written: {error.strerror}; nothing is run without it", path=state_dir
        ) from error


class Trail:
    """The lines of one pod's jobs. ``folder`` is the pod's private folder below ``state_dir``."""

    def __init__(self, ctr: Ctr, state_dir: str, folder: str, image: str, digest: str) -> None:
        """Raise GvisorError where no line could be written."""
        check(state_dir)
        self.ctr = ctr
        self.image = image
        self.digest = digest
        self._state_dir = state_dir
        self._folder = os.path.join(folder, NAME)
        os.mkdir(self._folder, 0o700)

    def begin(self, number: int, facts: Mapping[str, Any], counted_in: Optional[str] = None) -> None:
        """Write down what is known of a job before it may begin, and the folder of the metrics that it is ``counted_in``. Raises OSError."""
        record = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "asked_by": asked_by(os.environ),
            "namespace": self.ctr.namespace,
            "image": self.image,
            "digest": self.digest,
            **facts,
        }
        begun = {"record": bounded(record), "counted_in": counted_in}
        atomic_write(os.path.join(self._folder, str(number)), line_of(begun), 0o600, durable=False)

    def end(self, number: int, facts: Mapping[str, Any]) -> List[str]:
        """Append the line of a job that has ended; return warnings. Raises OSError."""
        return _end(os.path.join(self._folder, str(number)), self._state_dir, bounded(facts))


def _end(path: str, state_dir: str, facts: Mapping[str, Any]) -> List[str]:
    """Append the line of a job that ``path`` tells the beginning of, and count it. Raises OSError, ValueError, TypeError or KeyError."""
    with open(path, "rb") as stream:
        begun = json.loads(stream.read().decode("ascii"))
    record = {**begun["record"], **facts}
    append(state_dir, record)
    os.unlink(path)
    return metrics.count(begun["counted_in"], record) if begun["counted_in"] else []


def settle(folder: str) -> List[str]:
    """Append the lines of jobs that have begun in the pod of this folder and whose end nobody saw; return what could not be done."""
    state_dir = os.path.dirname(os.path.dirname(folder))
    said: List[str] = []
    try:
        names = sorted(os.listdir(os.path.join(folder, NAME)))
    except OSError:
        return []
    for name in names:
        path = os.path.join(folder, NAME, name)
        try:
            said += _end(path, state_dir, {"ended": "killed", "rc": None})
        except (OSError, ValueError, TypeError, KeyError) as error:
            said.append(f"the end of a run is missing in {state_dir}/{NAME}/{FILE}: {path}: {error}")
    return said
