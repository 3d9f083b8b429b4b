# Copyright (c) 2026, the ggen.gvisor authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""What a command finds around it: its variables and its home. They are built, and not inherited from the shell that drives the pod."""

from __future__ import annotations

import shlex
from typing import Dict, Mapping, Optional, Sequence

USERS_FILE = "/etc/passwd"
# The home of a pod's user where the image has none that can be written: a folder that nobody else can enter, and that ends with the pod.
SPARE_HOME = "/.ggen.gvisor.home"
SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"  # containerd's own default


def variables_of(image: Sequence[str], cwd: str, wanted: Mapping[str, Optional[str]]) -> Dict[str, str]:
    """Return the variables of a command: the ``image``'s, each as NAME=value, then what is ``wanted``, where None is one that is not to be set."""
    own = {name: value for name, _sign, value in (one.partition("=") for one in image)}
    found = {"PATH": SEARCH_PATH, **own, "PWD": cwd, **wanted}
    return {name: value for name, value in found.items() if value is not None}


def find_home(uid: str) -> str:
    """Return a line that has a shell keep, as ``home``, what the image's file of users says; only a regular file is read."""
    found = f'[ "$c" = {uid} ] && {{ home=$f; break; }}'
    return f'home=; [ ! -f {USERS_FILE} ] || while IFS=: read -r a b c d e f g || [ -n "$c" ]; do {found}; c=; done < {USERS_FILE}'


def choose_home(said: Optional[str], places: Mapping[str, bool]) -> str:
    """Return commands for a shell that leave in ``h`` the home of its user: what the image ``said`` in its variables, or in its file of users.

    ``places`` tells where, from a path on, anybody can write: some shells look at modes alone, and not at how a file system is mounted.
    """
    first = "$home" if said in (None, "", "/", "/root") else shlex.quote(said or "")
    deepest = sorted(places, key=len, reverse=True)
    cases = " ".join(f"{shlex.quote(place)}/*) {':' if places[place] else 'h='};;" for place in deepest)
    return f'h={first}; case "$h/" in {cases} esac; [ -d "$h" ] && [ -w "$h" ] || h={SPARE_HOME}'
