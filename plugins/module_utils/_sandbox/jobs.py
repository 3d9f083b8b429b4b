# Copyright (c) 2026, the ggen.gvisor authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""Commands on workspaces: what is checked before, what their pods see, and what they came to."""

from __future__ import annotations

import contextlib
import os
import re
import time
import uuid
from collections import deque
from typing import Any, Deque, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._containerd.ctr import Ctr
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.cgroup import Limits
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.host_tools import TARGET, HostTools, prepare
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.pod import MAX_ID, Command, Mount, PodSpec
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.supervisor import PodFolder, Supervisor, sweep
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.workspace import (
    Scan,
    close_to_others,
    compare,
    contents_of,
    copy_tree,
    diffs,
    ignore_matcher,
    scan,
    strip_setid,
    unpack,
)

WORKSPACE = "/workspace"
GVISOR = "io.containerd.runsc."
_ID = re.compile(r"[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*")
_IMAGE = re.compile(r"[A-Za-z0-9][\x21-\x7e]{0,511}")
_SIZES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
OF_THE_POD = ("mounts", "memory", "cpus")  # the same for all jobs in a pod
_WHY = {
    "sandbox": "the sandbox ended before the command did",
    "shim": "the sandbox's shim ended before the command did, which was killed then",
    "abort": "the run was given up because the controller or the module is gone",
}
_STRUCK = {
    "memory": "out of memory: the pod reached its limit of {memory}",
    "pids": "too many processes: the pod reached its limit of {pids} tasks",
}


def bytes_of(text: str) -> int:
    """Return the bytes that ``text`` says, for example 512M. Raises GvisorError."""
    found = re.fullmatch(r"(\d+)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    value = int(found.group(1)) * _SIZES[found.group(2).upper()] if found else 0
    if value <= 0:
        raise GvisorError(f"memory={text!r} is no size; write for example 512M or 2G")
    return value


def check(params: Dict[str, Any]) -> None:
    """Refuse bad options before anything changes. Raises GvisorError that names the option and the fix."""
    if not params["argv"] or not params["argv"][0]:
        raise GvisorError("argv is empty; name the program to run, for example [ggen, sync]")
    if params["argv"][0].startswith("-") or "=" in params["argv"][0]:
        raise GvisorError(
            f"argv has the program {params['argv'][0]!r}, which would be taken for an option or a variable; write its whole path"
        )
    if not _IMAGE.fullmatch(params["image"]):
        raise GvisorError(f"image={params['image']!r} is no image name; write for example docker.io/library/ggen:latest")
    longest = MAX_ID - 13
    for option, limit in (("name", longest), ("namespace", MAX_ID)):
        value = params[option]
        if not _ID.fullmatch(value) or len(value) > limit:
            raise GvisorError(
                f"{option}={value!r} is not possible; use letters and digits with single . _ - between them, at most {limit} characters"
            )
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9./_-]*", params["runtime"]):
        raise GvisorError(f"runtime={params['runtime']!r} is no runtime name; write for example io.containerd.runsc.v1")
    for option in ("timeout", "max_output"):
        if params[option] <= 0:
            raise GvisorError(f"{option}={params[option]} must be more than 0")
    if params["cpus"] is not None and params["cpus"] < 0.01:
        raise GvisorError(f"cpus={params['cpus']} must be at least 0.01")
    if params["pids"] < 0:
        raise GvisorError(f"pids={params['pids']} must not be negative; 0 is no limit")
    if params["user"] is not None and not re.fullmatch(r"\d{1,10}(:\d{1,10})?", params["user"]):
        raise GvisorError(f"user={params['user']!r} must be uid or uid:gid in numbers; names of the host mean nothing in an image")
    if params["cwd"] is not None and not params["cwd"].startswith("/"):
        raise GvisorError(f"cwd={params['cwd']!r} must be an absolute path")
    for key, value in params["env"].items():
        if not key or "=" in key or "\0" in f"{key}{value}":
            raise GvisorError(f"env has {key!r}, which cannot be the name of a variable")
    if any("\0" in word for word in [*params["argv"], params["workspace"] or "", params["cwd"] or ""]):
        raise GvisorError("argv, workspace and cwd must not hold NUL characters")
    for path in params["private"]:
        if os.path.isabs(path) or os.path.normpath(path) != path or path.split("/")[0] in ("", ".", ".."):
            raise GvisorError(
                f"private has {path!r}, which is no plain path from the workspace on; write for example .ggen/keys/signing.key"
            )
    _check_folders(params)


def _check_folders(params: Dict[str, Any]) -> None:
    workspace = params["workspace"]
    if workspace is not None:
        if not os.path.isabs(workspace):
            raise GvisorError(f"workspace={workspace!r} is a relative path; write where it is from / on")
        if not os.path.exists(workspace):
            raise GvisorError(f"workspace {workspace} does not exist on this host; make the folder or copy the project there")
        if not os.path.isdir(workspace):
            raise GvisorError(f"workspace {workspace} is not a folder; name the folder that the project is in")
        if os.path.realpath(workspace) == "/":
            raise GvisorError("workspace / is the whole host; name the project's folder")
    for mount in params["mounts"]:
        source, target = mount["source"], mount["target"]
        if not os.path.isabs(source) or not os.path.exists(source):
            raise GvisorError(f"mounts has the source {source!r}, which is not an existing absolute path of this host")
        if not target.startswith("/") or os.path.normpath(target) != target or "\0" in target:
            raise GvisorError(f"mounts has the target {target!r}, which is not a plain absolute path")
        if target in ("/", WORKSPACE, TARGET) or target.split("/")[1] in ("proc", "sys", "dev"):
            raise GvisorError(f"mounts has the target {target!r}, which the pod itself needs; choose another place")


def owner_of(params: Dict[str, Any], workspace: Optional[str]) -> str:
    """Return the uid:gid that the command runs as; ``workspace`` is the folder that will be mounted, links resolved."""
    uid, gid = 65534, 65534
    if workspace:
        status = os.lstat(workspace)
        uid, gid = status.st_uid, status.st_gid
    if not params["user"]:
        return f"{uid}:{gid}"
    return params["user"] if ":" in params["user"] else f"{params['user']}:{gid}"


def message_of(outcome: Dict[str, Any], params: Dict[str, Any]) -> str:
    """Return what went wrong with a job that did not exit 0."""
    struck = [_STRUCK[name].format(memory=params["memory"], pids=params["pids"]) for name in outcome["struck"]]
    if outcome["why"] == "timeout":
        text = f"{params['argv'][0]} did not end within {params['timeout']:g} s and was killed"
    elif outcome["rc"] is not None:
        text = f"{params['argv'][0]} ended with exit code {outcome['rc']}"
    else:
        text = _WHY[outcome["why"]]
    return "; ".join([*struck, text])


class Mode(NamedTuple):
    """Ansible's modes: in check mode a command works on a copy, in diff mode the result shows the texts."""

    check: bool
    diff: bool


class Job:
    """One command and its workspace. ``number`` tells it from others in the same pod."""

    def __init__(self, mode: Mode, params: Dict[str, Any], number: int = 0) -> None:
        """Check everything. Raises GvisorError."""
        check(params)
        self.mode = mode
        self.params = params
        self.number = number
        self.workspace = os.path.realpath(params["workspace"]) if params["workspace"] else None
        self.user = owner_of(params, self.workspace)
        self.seen: Optional[str] = self.workspace  # what the pod sees of the host: the workspace, or a copy of it
        self.target = WORKSPACE
        self.begin = time.monotonic()
        self.timings: Dict[str, float] = {}
        self.warnings: List[str] = []
        self._before: Scan = {}
        self._after: Scan = {}

    def place(self, folder: str, target: str) -> None:
        """Make the copy, where the pod works on one, in the pod's own ``folder``, whole before the pod can see it."""
        self.target = target
        copy = os.path.join(folder, f"copy{self.number}")
        if self.params["archive"]:
            self.seen = copy
            unpack(self.params["archive"], copy, *map(int, self.user.split(":")))
        elif self.workspace and self.mode.check:
            self.seen = copy
            os.mkdir(copy, 0o700)
            skipped = copy_tree(self.workspace, copy)
            if skipped:
                self.warnings.append(f"check mode's copy is without {len(skipped)} sockets, pipes or devices: {', '.join(skipped[:5])}")

    @property
    def mounts(self) -> List[Mount]:
        """What of the host the pod needs for this command alone."""
        return [Mount(self.seen, self.target, True)] if self.seen else []

    @property
    def command(self) -> Command:
        """What runs in the pod."""
        params = self.params
        return Command(
            argv=params["argv"],
            user=self.user,
            cwd=params["cwd"] or (self.target if self.seen else "/"),
            env={str(key): str(value) for key, value in params["env"].items()},
            timeout=params["timeout"],
            max_output=params["max_output"],
        )

    def look(self) -> None:
        """Remember the workspace as it is before the command."""
        begin = time.monotonic()
        if self.seen:
            self._before = scan(self.seen, None, texts=self.mode.diff)
            self.timings["scan_before"] = round(time.monotonic() - begin, 3)

    def compare(self, outcome: Dict[str, Any], pod: str) -> Dict[str, Any]:
        """Return the result of ``outcome``, the supervisor's message, once the workspace stays as the command left it."""
        params, real = self.params, not self.mode.check
        begin = time.monotonic()
        result = self._result(pod, outcome)
        if self.seen:
            self._after = scan(self.seen, self._before, texts=self.mode.diff)
            self.timings["scan_after"] = round(time.monotonic() - begin, 3)
            if self.workspace and real:
                stripped = strip_setid(self.workspace, self._before, self._after)
                if stripped:
                    self.warnings.append(
                        f"set-user-id or set-group-id bits were taken off {len(stripped)} files: {', '.join(stripped[:5])}"
                    )
            close_to_others(self.seen, params["private"], self._after)
            ignored = ignore_matcher(params["ignore"])
            result["changed_files"] = compare(self._before, self._after, ignored)
            result["changed"] = any(not item["ignored"] for item in result["changed_files"])
            if self.mode.diff:
                result["diff"] = diffs(self._before, self._after, ignored)
            if params["archive"] and real:
                result["contents"] = contents_of(self.seen, compare(self._before, self._after, ignore_matcher([])))
        return result

    def _result(self, pod: str, outcome: Dict[str, Any]) -> Dict[str, Any]:
        self.timings.update(outcome["timings"])
        self.warnings += outcome["warnings"]
        result: Dict[str, Any] = {
            "pod": pod,
            "user": self.user,
            "kernel": outcome["kernel"],
            "stdout": outcome["stdout"],
            "stderr": outcome["stderr"],
            "stdout_bytes": outcome["stdout_bytes"],
            "stderr_bytes": outcome["stderr_bytes"],
            "output_truncated": outcome["truncated"],
            "timed_out": outcome["why"] == "timeout",
            "limits_hit": outcome["struck"],
            "duration": outcome["timings"]["job"],
            "timings": self.timings,
            "changed": False,
        }
        if outcome["rc"] is not None:
            result["rc"] = outcome["rc"]
        if outcome["why"] != "exit" or outcome["rc"] != 0:
            result["msg"] = message_of(outcome, self.params)
            result["failed"] = outcome["rc"] is None or outcome["why"] != "exit" or self.params["fail_on_rc"]
        return result


class PodJobs:
    """The jobs of one pod, begun when this is made. A context manager: nothing is left when it ends."""

    def __init__(self, ctr: Ctr, jobs: List[Job]) -> None:
        """Start the pod. Raises GvisorError."""
        self.jobs = jobs
        params = jobs[0].params
        self.pod = f"{params['name']}-{uuid.uuid4().hex[:12]}"
        tools = prepare(params["state_dir"])
        # From here to the supervisor's start a kill leaves an empty folder, for the next run to sweep: the less between, the better.
        folder = PodFolder(params["state_dir"], self.pod, ctr)
        try:
            for job in jobs:
                job.place(folder.path, WORKSPACE if len(jobs) == 1 else f"{WORKSPACE}s/{job.number}")
            self.supervisor = Supervisor(folder, self._spec(tools), [job.command for job in jobs])
        except BaseException:
            folder.remove()
            raise

    def __enter__(self) -> "PodJobs":
        """Let the first command begin as soon as the pod is there."""
        self._go(self.jobs[0])
        return self

    def __exit__(self, *exc: Any) -> None:
        """Remove the pod."""
        self.supervisor.__exit__(*exc)

    def _go(self, job: Job) -> None:
        job.look()
        self.supervisor.go()

    def results(self) -> Iterator[Dict[str, Any]]:
        """Yield the jobs' results; the pod is gone with the last one, or with one that did not end by itself. Raises GvisorError."""
        for job in self.jobs:
            if job is not self.jobs[0]:
                job.begin = time.monotonic()
                self._go(job)
            outcome = self.supervisor.expect("job")
            result = job.compare(outcome, self.pod)
            last = job is self.jobs[-1] or outcome["why"] != "exit"
            if last:
                try:
                    job.timings["removed"] = self.supervisor.expect("removed")["seconds"]
                except GvisorError as error:
                    # The command has ended and its sandbox is dead: what it came to is true all the same.
                    job.warnings.append(error.message)
            job.timings["total"] = round(time.monotonic() - job.begin, 3)
            yield result
            if last:
                return

    def _spec(self, tools: HostTools) -> PodSpec:
        params = self.jobs[0].params
        mounts = [mount for job in self.jobs for mount in job.mounts]
        mounts += [Mount(os.path.realpath(item["source"]), item["target"], item["writable"]) for item in params["mounts"]]
        memory = bytes_of(params["memory"]) if params["memory"] else None
        return PodSpec(
            id=self.pod,
            image=params["image"],
            runtime=params["runtime"],
            mounts=mounts,
            tools=tools,
            gvisor=params["runtime"].startswith(GVISOR),
            read_only=params["read_only"],
            limits=Limits(memory, params["cpus"], params["pids"] or None),
        )


def groups(jobs: List[Job], shared: bool) -> List[List[Job]]:
    """Return the jobs that go into one pod each. A pod's own options are the same for all in it."""
    found: List[List[Job]] = []
    for job in jobs:
        if shared and found and all(found[-1][0].params[name] == job.params[name] for name in OF_THE_POD):
            found[-1].append(job)
        else:
            found.append([job])
    return found


def overlap(jobs: List[Job]) -> bool:
    """Return whether some of the jobs' workspaces are the same, or one in another, so that they must not run at the same time."""
    paths = sorted(f"{job.workspace}/" for job in jobs if job.workspace)
    return any(later.startswith(earlier) for earlier, later in zip(paths, paths[1:]))


def run_all(ctr: Ctr, jobs: List[Job], shared: bool, width: int) -> Dict[int, Dict[str, Any]]:
    """Return the jobs' results by number, each as from ``PodJobs.results``; one that could not be had is ``failed`` and has ``msg``."""
    waiting = deque(groups(jobs, shared))
    found: Dict[int, Dict[str, Any]] = {}
    swept = False
    with contextlib.ExitStack() as stack:
        running: Deque[Tuple[PodJobs, contextlib.ExitStack]] = deque()
        while waiting or running:
            while waiting and len(running) < width:
                batch = waiting.popleft()
                try:
                    own = contextlib.ExitStack()
                    running.append((own.enter_context(PodJobs(ctr, batch)), own))
                    stack.push(own)
                except GvisorError as error:
                    found.update({job.number: {"failed": True, "changed": False, "msg": error.message, **error.details} for job in batch})
            if not swept:
                jobs[0].warnings += sweep(jobs[0].params["state_dir"])
                swept = True
            if not running:
                continue
            group, own = running.popleft()
            done = 0
            with own:
                try:
                    for job, result in zip(group.jobs, group.results()):
                        found[job.number] = result
                        done += 1
                except GvisorError as error:
                    found[group.jobs[done].number] = {"failed": True, "changed": False, "msg": error.message, **error.details}
                    done += 1
            if group.jobs[done:]:
                waiting.appendleft(group.jobs[done:])
    return found


def names_of(jobs: Sequence[Mapping[str, Any]], argv: Optional[Sequence[str]]) -> List[str]:
    """Return what to call each of several jobs: its workspace, or its command, which is ``argv`` where it has none of its own."""
    return [str(job.get("workspace") or " ".join(job.get("argv") or argv or [])) for job in jobs]


def summary(results: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Dict[str, Any]:
    """Return what several jobs' results make of their task; ``names`` are what to call the jobs."""
    told = [f"{name}: {result['msg']}" for name, result in zip(names, results) if result.get("failed")]
    changed = any(result.get("changed") for result in results)
    return {"changed": changed, "failed": bool(told), **({"msg": "\n".join(told)} if told else {})}
