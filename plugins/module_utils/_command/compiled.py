# Copyright (c) 2026, the ggen.gvisor authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""Start the command from code that was compiled before: of a zipapp Python compiles all anew at each start, which is half of its time.

Root's runs keep what they compiled beside the other things that they need; everybody's starts read it. It is believed where nobody but root
could have written it, and named by the sum of the zipapp that it was compiled of, so that another one never takes it.
"""

from __future__ import annotations

import hashlib
import marshal
import os
import stat
import sys
from importlib.machinery import ModuleSpec
from importlib.util import MAGIC_NUMBER
from types import CodeType, ModuleType
from typing import Callable, Dict, Optional, Sequence

FOLDER = "/var/lib/ggen.gvisor/code"  # below the state folder of containerd's runs
_LARGEST = 1 << 24  # bytes


class Finder:
    """Finds modules in compiled code by their names; a package's ends with .__init__, as its file does."""

    def __init__(self, codes: Dict[str, CodeType]) -> None:
        self.codes = codes

    def find_spec(self, name: str, _path: Optional[Sequence[str]] = None, _target: Optional[ModuleType] = None) -> Optional[ModuleSpec]:
        """Return how to load a module that is here."""
        package = f"{name}.__init__" in self.codes
        return ModuleSpec(name, self, is_package=package) if package or name in self.codes else None

    def create_module(self, _spec: ModuleSpec) -> Optional[ModuleType]:
        """Have Python make it."""
        return None

    def exec_module(self, module: ModuleType) -> None:
        """Run a module's code."""
        package = f"{module.__name__}.__init__"
        exec(self.codes[package if package in self.codes else module.__name__], module.__dict__)  # noqa: S102 - that is how modules are loaded


def use(archive: str, folder: str = FOLDER) -> bool:
    """Import the modules of a zipapp from what was compiled before, and have root's starts compile them; return whether they were there."""
    with open(archive, "rb") as stream:
        data = stream.read()
    name = f"{hashlib.sha256(data).hexdigest()}.{sys.implementation.cache_tag}"
    try:
        codes = load(os.path.join(folder, name))
    except (OSError, ValueError):
        if os.geteuid() == 0:
            keep(data, archive, os.path.join(folder, name))
        return False
    sys.meta_path.insert(0, Finder(codes))
    return True


def load(path: str) -> Dict[str, CodeType]:
    """Return the compiled code of each module by name. Raises OSError, or ValueError where it is not to be believed, or another Python's."""
    for place in (os.path.dirname(os.path.dirname(path)), os.path.dirname(path)):
        _check(os.lstat(place), stat.S_ISDIR)
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as stream:
        _check(os.fstat(descriptor), stat.S_ISREG)
        data = stream.read(_LARGEST)
    head, body = data[: len(MAGIC_NUMBER) + 32], data[len(MAGIC_NUMBER) + 32 :]
    if head != MAGIC_NUMBER + hashlib.sha256(body).digest():
        raise ValueError("another Python's, or not whole")
    return marshal.loads(body)  # noqa: S302 - nobody but root has written it


def _check(status: os.stat_result, kind: Callable[[int], bool]) -> None:
    if status.st_uid != 0 or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) or not kind(status.st_mode):
        raise ValueError("others than root could have written it")


def keep(data: bytes, archive: str, path: str) -> None:
    """Compile the modules of a zipapp's ``data`` and keep them at ``path``, in the place of those of other zipapps, where the state folder is root's.

    ``archive`` is what it is called, which may be another one by now. That it cannot is no matter: the next start tries again.
    """
    import contextlib
    import io
    import zipfile

    folder, name = os.path.split(path)

    with contextlib.suppress(OSError, ValueError):
        _check(os.lstat(os.path.dirname(folder)), stat.S_ISDIR)
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder)
            os.chmod(folder, 0o755)  # noqa: S103 - whatever the umask is; everybody's starts read it
        _check(os.lstat(folder), stat.S_ISDIR)
        with zipfile.ZipFile(io.BytesIO(data)) as texts:
            paths = [path for path in texts.namelist() if path.endswith(".py") and path != "__main__.py"]
            codes = {
                path[:-3].replace("/", "."): compile(texts.read(path), f"{archive}/{path}", "exec", dont_inherit=True) for path in paths
            }
        body = marshal.dumps(codes)
        temporary = os.path.join(folder, f".{os.getpid()}")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with open(descriptor, "wb") as stream:
                stream.write(MAGIC_NUMBER + hashlib.sha256(body).digest() + body)
                os.fchmod(descriptor, 0o644)
            os.rename(temporary, path)
        except OSError:
            os.unlink(temporary)
            raise
        for other in os.listdir(folder):
            if other != name:
                os.unlink(os.path.join(folder, other))
