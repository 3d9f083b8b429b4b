# Copyright (c) 2026, the ggen.gvisor authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""The lock on a build's result folder (below bin/, dist/ or a build host's cache): nobody sees one that is half exchanged.

It belongs to the folder itself, so it is the same one for everybody who runs as the same user, whatever cache they use. Whoever needs an object's lock as well
takes that one first; whoever needs several folders takes them in the order of their paths.
"""

from __future__ import annotations

import contextlib
import os
from typing import Iterable, Iterator

from ansible_collections.ggen.gvisor.plugins.module_utils._base.files import locked


@contextlib.contextmanager
def reading(*folders: str) -> Iterator[None]:
    """Keep the folders as they are, together with others who read; one that is not there has nothing to keep. Raises OSError."""
    with _held(folders, shared=True):
        yield


@contextlib.contextmanager
def writing(*folders: str) -> Iterator[None]:
    """Be the only one at work in the folders, which are made where they are not there. Raises OSError."""
    for folder in folders:
        os.makedirs(folder, exist_ok=True)
    with _held(folders, shared=False):
        yield


@contextlib.contextmanager
def _held(folders: Iterable[str], shared: bool) -> Iterator[None]:
    with contextlib.ExitStack() as locks:
        for folder in sorted({os.path.realpath(folder) for folder in folders}):
            _take(locks, folder, shared)
        yield


def _take(locks: contextlib.ExitStack, folder: str, shared: bool) -> None:
    """Lock what is at the path now: while we waited it may have been removed and made anew."""
    while True:
        with contextlib.ExitStack() as tried:
            try:
                descriptor = tried.enter_context(locked(folder, shared=shared))
                if os.path.samestat(os.fstat(descriptor), os.stat(folder)):
                    locks.push(tried.pop_all())
                    return
            except (FileNotFoundError, NotADirectoryError):
                if shared:
                    return
                os.makedirs(folder, exist_ok=True)
