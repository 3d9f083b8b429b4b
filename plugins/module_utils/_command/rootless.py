# Copyright (c) 2026, the ggen.gvisor authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""Runs without root and without containerd: containerd_run's engine of that name, and where its program and image are where nobody says."""

from __future__ import annotations

import os
import shutil
import sys
from typing import Any, Dict, List, Mapping

from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._command.engine import Engine
from ansible_collections.ggen.gvisor.plugins.module_utils._command.table import SHARED_ARCHIVE
from ansible_collections.ggen.gvisor.plugins.module_utils._rootless.engine import Rootless, open_engine
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.jobs import Job, Mode, Streams

OF_CONTAINERD = ("namespace", "runtime", "address")  # options that mean nothing here
WITH_TERMINAL = "is not possible with --rootless: it is containerd that connects a terminal to a sandbox; leave one of the two out"


class RootlessEngine(Engine):
    """What runs a job as the caller."""

    _runner: Rootless

    def job(self, params: Mapping[str, Any], mode: Mode, streams: Streams) -> Job:
        """Return the job that ``params``, with ``runsc``, ask for, checked. Raises GvisorError or OSError."""
        self._runner, own = open_engine(params)
        job = Job(mode, own, streams=streams)
        self._runner.check(job)
        return job

    def runner(self, job: Job) -> Rootless:  # noqa: ARG002 - containerd's is told by the job
        """Return what makes its pod."""
        return self._runner


def settled(verb: str, options: Mapping[str, Any]) -> Dict[str, Any]:
    """Return the options of a command line with ``runsc`` and ``image`` in any case. Raises GvisorError for those that are not possible, or not found."""
    named = [f"--{name}" for name in OF_CONTAINERD if name in options]
    if named:
        raise GvisorError(f"{' and '.join(named)}: containerd's alone, and --rootless does without it; leave one of the two out")
    if verb == "shell" or "terminal" in options:
        raise GvisorError(f"{'shell' if verb == 'shell' else '--terminal'} {WITH_TERMINAL}")
    program, image = options.get("runsc"), options.get("image")
    return {**options, "runsc": program or find_runsc(), "image": os.path.abspath(image) if image else find_archive()}


def find_runsc() -> str:
    """Return gVisor's program: the one beside this command, as a release has it, or the caller's own on PATH. Raises GvisorError."""
    beside = os.path.join(os.path.dirname(os.path.realpath(sys.argv[0])), "runsc")
    found = beside if os.access(beside, os.X_OK) else shutil.which("runsc")
    if not found:
        raise GvisorError(f"runsc is missing: neither {beside} nor a folder of PATH has it; name gVisor's program with --runsc")
    return os.path.abspath(found)


def archives(environment: Mapping[str, str]) -> List[str]:
    """Return where ggen's image is looked for, the caller's own first."""
    data = environment.get("XDG_DATA_HOME") or os.path.join(os.path.expanduser("~"), ".local", "share")
    return [os.path.join(data, "ggen.gvisor", "ggen.tar"), SHARED_ARCHIVE]


def find_archive() -> str:
    """Return the archive of ggen's image. Raises GvisorError."""
    places = archives(os.environ)
    for place in places:
        if os.path.exists(place):
            return place
    raise GvisorError(
        f"the image is missing: neither {places[0]} nor {places[1]} is there. Copy ggen.tar of a build there (dist/RELEASE/linux_ARCH/ggen.tar), "
        "or name an image's archive, or a folder that is a root file system, with --image"
    )
