# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host's configuration where a file on the controller replaces it at each start of the host, as Colima does (from 0.10.2).

Colima copies the first file that there is: the profile's own, one for all profiles, else a text of its own. Only the profile's own is ever written
here. Where it has to be made first, it begins with a comment of ours that has the sum of what it was made from: taking the handler out again then
tells whether anybody else has changed it, and the file goes if nobody has.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tomllib
from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.plugin_utils._containerd import runtime_config as config
from ansible_collections.ggen.gvisor.plugins.plugin_utils._containerd import toml_text as toml

# What Colima writes where the controller has no file: without the group, its socket on the Mac does not work.
EMBEDDED = "[grpc]\ngid = 1000\n"
EMBEDDED_NAME = "Colima's built-in default"
HEAD = f"{config.MARK}made from "
_HEAD = re.compile(re.escape(HEAD) + r"(?P<source>[^\n]*), sha256 (?P<sha256>[0-9a-f]{64})\n")
MODE = 0o644

Remove = Callable[[str], str]


@dataclass(frozen=True)
class BootConfig:
    """The profile's own file at ``path`` with its ``text`` (None: it is not there), and what stands in for it: a ``fallback`` and its name."""

    path: str
    text: str | None
    fallback: str
    fallback_name: str

    @property
    def source(self) -> str:
        """The file that the next start uses."""
        return self.fallback_name if self.text is None else self.path

    @property
    def used(self) -> str:
        """The text that the host gets at its next start."""
        return self.fallback if self.text is None else self.text

    @property
    def body(self) -> str:
        """The text without our first line."""
        return strip_head(self.used)


@dataclass(frozen=True)
class Wanted:
    """What is to be: the profile's own file (None: none) and the text that the host gets from then on."""

    text: str | None
    used: str


# --- pure functions ---


def strip_head(text: str) -> str:
    """Return the text without the line that says what it was made from."""
    match = _HEAD.match(text)
    return text[match.end() :] if match else text


def _is_ours(boot_config: BootConfig, remove: Remove) -> bool:
    """Tell whether we made the file and nobody else has changed it."""
    match = _HEAD.match(boot_config.text or "")
    return bool(match) and _sum(remove(boot_config.body)) == match["sha256"]


def _sum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def base_of(boot_config: BootConfig, remove: Remove) -> str:
    """Return the text to edit: a file that only we have changed is made anew from what it stands in for, which may have changed since."""
    return boot_config.fallback if boot_config.text is None or _is_ours(boot_config, remove) else boot_config.body


def present(boot_config: BootConfig, edited: str, remove: Remove) -> Wanted:
    """Return what is to be when the handler is to be there; ``edited`` is the text of ``base_of`` with it, ``remove`` takes it out of a text."""
    if boot_config.text is None and edited == boot_config.fallback:
        return Wanted(None, edited)
    if boot_config.text is None or _is_ours(boot_config, remove):
        head = f"{HEAD}{boot_config.fallback_name}, sha256 {_sum(boot_config.fallback)}\n"
    else:
        head = boot_config.text[: len(boot_config.text) - len(boot_config.body)]
    return Wanted(head + edited, head + edited)


def absent(boot_config: BootConfig, remove: Remove) -> Wanted:
    """Return what is to be without the handler: a file that we made goes, unless somebody else has put something into it."""
    if boot_config.text is None or _is_ours(boot_config, remove):
        return Wanted(None, boot_config.fallback)
    rest = remove(boot_config.body)
    text = boot_config.text if rest == boot_config.body else rest
    return Wanted(text, text)


def describe(boot_config: BootConfig, sha256: str | None) -> dict[str, Any]:
    """Return what a look at a host tells of its boot_config.

    That is where the next start's configuration is from, whether the host's file, which has ``sha256``, is the same, and which handlers the boot_config
    has: none where it is no TOML.
    """
    try:
        names = sorted(config.handlers(tomllib.loads(boot_config.used)))
    except tomllib.TOMLDecodeError:
        names = []
    return {"path": boot_config.path, "source": boot_config.source, "same": _sum(boot_config.used) == sha256, "handlers": names}


# --- files on the controller ---


def read(paths: Sequence[str]) -> BootConfig:
    """Read the files in the order in which they are looked for; the first is the profile's own. Raises GvisorError."""
    own, *others = (os.path.abspath(os.path.expanduser(path)) for path in paths)
    for path in others:
        text = _read(path)
        if text is not None:
            return BootConfig(own, _read(own), text, path)
    return BootConfig(own, _read(own), EMBEDDED, EMBEDDED_NAME)


def _read(path: str) -> str | None:
    try:
        with open(path, "rb") as stream:
            return toml.decode(stream.read(), path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise GvisorError(f"{path} on the controller: {error.strerror}. Nothing was written.", file=path) from error


class Staged:
    """The profile's new file, written under another name and renamed at the end, when the host has accepted the text.

    What the constructor makes is gone again unless ``commit`` is called. Both raise GvisorError.
    """

    def __init__(self, boot_config: BootConfig, text: str | None) -> None:
        self.boot_config = boot_config
        self.text = text
        # A link, as people have who keep their configuration elsewhere, stays one.
        self.target = os.path.realpath(boot_config.path)
        self.folder = os.path.dirname(self.target)
        self.made = False
        self.temporary = ""

    def __enter__(self) -> Staged:
        if self.text is None:
            return self
        try:
            if not os.path.isdir(self.folder):
                os.mkdir(self.folder, 0o755)
                self.made = True
            descriptor, self.temporary = tempfile.mkstemp(dir=self.folder, prefix=".config.toml.")
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(self.text.encode())
                os.fchmod(stream.fileno(), os.stat(self.target).st_mode & 0o7777 if self.boot_config.text is not None else MODE)
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            self.__exit__()
            raise GvisorError(
                f"{self.target} on the controller cannot be written: {error.strerror} ({error.filename}). Nothing was written, here or on the "
                "host. Does the profile exist, and is its folder yours?",
                file=self.target,
            ) from error
        return self

    def commit(self) -> None:
        """Put the new file in its place, or remove the old one and its folder where that is empty then."""
        try:
            if _read(self.boot_config.path) != self.boot_config.text:
                raise GvisorError(
                    f"{self.boot_config.path} on the controller was changed by someone else in the meantime and was left as it is. The host has the new "
                    "configuration until its next start. Run again.",
                    file=self.boot_config.path,
                )
            if self.text is not None:
                os.replace(self.temporary, self.target)
                self.temporary, self.made = "", False
            elif self.boot_config.text is not None:
                os.unlink(self.target)
                with contextlib.suppress(OSError):
                    os.rmdir(self.folder)
        except OSError as error:
            raise GvisorError(
                f"{self.target} on the controller: {error.strerror}. The host has the new configuration until its next start. Fix it and run again.",
                file=self.target,
            ) from error

    def __exit__(self, *_unused: object) -> None:
        if self.temporary:
            with contextlib.suppress(OSError):
                os.unlink(self.temporary)
        if self.made:
            with contextlib.suppress(OSError):
                os.rmdir(self.folder)


def sentence(described: Mapping[str, Any], handler: str, path: str) -> str:
    """Return how a host and its boot_config differ, empty where they do not. ``described`` is ``describe``'s, ``path`` the host's file."""
    if handler not in described["handlers"]:
        return f"{described['source']} has no runtime handler {handler}, and the host's next start copies it over {path}"
    if not described["same"]:
        return f"{path} is not the same as {described['source']} on the controller, which replaces it at the host's next start"
    return ""
