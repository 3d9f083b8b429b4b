# Copyright (c) 2026, the ggen.gvisor authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""From the options of a run to its result: what runs it is an engine, of which containerd is one."""

from __future__ import annotations

import os
from typing import Any, Dict, List, Mapping, NamedTuple, Sequence

from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError, failure
from ansible_collections.ggen.gvisor.plugins.module_utils._containerd.ctr import Ctr
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.jobs import Engine as Runner
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.jobs import Job, Mode, Streams, run_all
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.secret_files import mask, mask_result, words_of


class Done(NamedTuple):
    """A run's result, as containerd_run's, and what else should be known; no secret is in either."""

    result: Dict[str, Any]
    warnings: List[str]


class Engine:
    """What runs a job: a pod of containerd's."""

    def job(self, params: Mapping[str, Any], mode: Mode, streams: Streams) -> Job:
        """Return the job that ``params`` ask for, checked. Raises GvisorError or OSError."""
        return Job(mode, dict(params), streams=streams)

    def runner(self, job: Job) -> Runner:
        """Return what makes its pod. Raises GvisorError."""
        if os.geteuid() != 0:
            raise GvisorError("containerd is root's: use sudo, or --rootless")
        return Runner(Ctr(job.params["address"], job.params["namespace"]))

    def run(self, job: Job) -> Dict[str, Any]:
        """Run it and return the result of containerd_run. Raises GvisorError or OSError."""
        runner = self.runner(job)
        runner.connect()
        return run_all(runner, [job], False, 1)[job.number]


def run(params: Mapping[str, Any], mode: Mode, streams: Streams, engine: Engine) -> Done:
    """Run what ``params``, all options of containerd_run for one command, ask for; what went wrong is in the result, which has ``failed`` then."""
    words: Sequence[str] = ()
    warnings: List[str] = []
    try:
        job = engine.job(params, mode, streams)
        words = words_of(job.secrets)
        warnings = job.warnings
        result = engine.run(job)
    except (GvisorError, OSError) as error:
        result = {"changed": False, **failure(error)}
    return Done(mask_result(result, words), mask(warnings, words))
