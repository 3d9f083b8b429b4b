#!/usr/bin/python
# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run one command to completion in a gVisor pod."""

from __future__ import annotations

DOCUMENTATION = r"""
module: containerd_run
short_description: Run commands to completion in sandboxes
version_added: 0.1.0
author: The ggen.gvisor authors (@ggen-gvisor)
description:
  - Starts a pod (a sandbox that waits) with containerd, runs a command in it, and removes the pod whatever happens, also when the
    module, its SSH connection or the controller is killed. A restart of containerd does not end the command.
  - Several commands (O(jobs)) get a pod each, some at the same time, or share one.
  - Returns the command's own exit code, standard output and standard error apart from each other, and what it did to its workspace.
  - The command has no network, no capabilities, no new privileges and, by default, a read-only root file system with a temporary
    C(/tmp). It runs as the workspace's owner, so that what it writes belongs to that owner.
requirements:
  - containerd 1.6 or newer with C(ctr)
  - the shim of the runtime on containerd's PATH
attributes:
  check_mode:
    support: full
    description: The command runs on a throw-away copy of the workspace; the workspace itself stays as it is.
  diff_mode:
    support: full
    description: Returns the difference.
  idempotent:
    support: partial
    details: The command runs each time; C(changed) is true only when files outside of O(ignore) changed.
    description: A second run with the same options changes nothing.
  platform:
    support: full
    platforms: linux
    description: The systems that the module runs on.
options:
  image:
    description: Full name of an image in the namespace, for example C(docker.io/library/ggen:latest).
    type: str
    required: true
  argv:
    description: The command and its arguments. They replace the image's entrypoint and command. Required where O(jobs) do not say it.
    type: list
    elements: str
  workspace:
    description:
      - Absolute path of a folder on the host that the command sees as C(/workspace) and may write to.
      - Without it the command has no folder of the host.
    type: path
  workspace_from:
    description:
      - Where O(workspace) is. One of the controller is copied to the host, and files that the command created, modified or removed are changed in the
        same way here when it has ended. Links that lead out of the workspace are refused, those that the command makes are left out, and nothing is written
        where any of these files was changed here in the meantime.
      - New files are readable for their owner alone, and folders are never removed.
    type: str
    choices: [host, controller]
    default: host
    version_added: 0.2.0
  archive:
    description: Set by the action plugin, which sends a workspace of the controller with it. Leave it alone.
    type: path
    version_added: 0.2.0
  mounts:
    description: Further folders or files of the host for the command.
    type: list
    elements: dict
    default: []
    suboptions:
      source:
        description: Absolute path on the host.
        type: path
        required: true
      target:
        description: Absolute path in the pod.
        type: str
        required: true
      writable:
        description: Whether the command may write there. Changes there are not reported.
        type: bool
        default: false
  env:
    description: Environment variables beside the image's own. Outside of the sandbox nobody sees them.
    type: dict
    default: {}
  user:
    description:
      - Numeric C(uid) or C(uid:gid) of the command. The default is the workspace's owner and group, without a workspace 65534.
      - In a workspace that belongs to root the command is root as far as files go. Set-user-id bits are taken off when it has ended, so until
        then nobody else should be able to reach such a workspace.
    type: str
  cwd:
    description: The command's working folder. The default is C(/workspace), without a workspace C(/).
    type: str
  timeout:
    description: Seconds after which the command is killed.
    type: float
    default: 600
  memory:
    description: Most memory of the whole pod, for example V(512M); bytes, or a number with K, M, G or T.
    type: str
  cpus:
    description: Most processors' worth of time, for example V(1.5).
    type: float
  jobs:
    description:
      - Several commands instead of one; each has options of its own, and of the others this module's. The result then has C(jobs).
      - One that fails, or whose options are refused, does not keep the others from running, and makes the task fail in the end.
    type: list
    elements: dict
    version_added: 0.2.0
    suboptions:
      argv:
        description: As O(argv).
        type: list
        elements: str
      workspace:
        description: As O(workspace).
        type: path
      workspace_from:
        description: As O(workspace_from).
        type: str
        choices: [host, controller]
      archive:
        description: As O(archive).
        type: path
      mounts:
        description: As O(mounts).
        type: list
        elements: dict
        suboptions:
          source:
            description: Absolute path on the host.
            type: path
            required: true
          target:
            description: Absolute path in the pod.
            type: str
            required: true
          writable:
            description: Whether the command may write there. Changes there are not reported.
            type: bool
            default: false
      env:
        description: As O(env).
        type: dict
      user:
        description: As O(user).
        type: str
      cwd:
        description: As O(cwd).
        type: str
      timeout:
        description: As O(timeout).
        type: float
      memory:
        description: As O(memory).
        type: str
      cpus:
        description: As O(cpus).
        type: float
      ignore:
        description: As O(ignore).
        type: list
        elements: str
  pods:
    description:
      - Of O(jobs), V(each) has a pod of its own, so that none can see another's workspace.
      - With V(one) those with the same O(mounts), O(memory) and O(cpus) run one after another in one pod, which is several times as fast. They see
        each other's workspaces (in C(/workspaces), each is the working folder of its job) as far as owners and modes allow, and C(/tmp). Processes
        that a job left behind are killed before the next one, and after one that did not end by itself the others go on in a new pod.
    type: str
    choices: [each, one]
    default: each
    version_added: 0.2.0
  parallel:
    description: Most pods at the same time. The default is the number of the host's processors, and 1 where workspaces overlap.
    type: int
    version_added: 0.2.0
  pids:
    description:
      - Most tasks of the pod as the host counts them. gVisor needs about 30 for itself and ends the whole pod at the limit.
      - V(0) is no limit.
    type: int
    default: 2048
  namespace:
    description: containerd's namespace.
    type: str
    default: default
  runtime:
    description: containerd's runtime. Pods of the default one are proven to be gVisor's before the command starts.
    type: str
    default: io.containerd.runsc.v1
  network:
    description: The network of the pod; V(none) is loopback only.
    type: str
    choices: [none]
    default: none
  read_only:
    description: Whether the pod's root file system is read-only.
    type: bool
    default: true
  ignore:
    description:
      - Patterns of files whose changes do not count as a change; they are still listed.
      - A pattern without a slash matches names in any folder, one with a slash paths from the workspace on. C(**) spans folders.
    type: list
    elements: str
    default: []
  private:
    description:
      - Files, by their paths from the workspace on, that nobody but their owner may read, whoever made them and when. Where they are, the rights of
        group and others are taken off them when the command has ended.
    type: list
    elements: str
    default: []
    version_added: 0.2.0
  fail_on_rc:
    description: Whether an exit code other than 0 fails the task.
    type: bool
    default: true
  max_output:
    description: Bytes kept of standard output and of standard error, half from the beginning and half from the end.
    type: int
    default: 1048576
  name:
    description: What the pod's id begins with.
    type: str
    default: run
  address:
    description: containerd's socket.
    type: path
    default: /run/containerd/containerd.sock
  state_dir:
    description: Folder for locks, throw-away copies and the programs that the host lends to sandboxes.
    type: path
    default: /var/lib/ggen.gvisor
"""

EXAMPLES = r"""
- name: Generate code from an ontology
  ggen.gvisor.containerd_run:
    image: docker.io/library/ggen:latest
    argv: [ggen, sync]
    workspace: /srv/model
    ignore: [".ggen/**", "*.backup"]
    memory: 1G
    timeout: 120

- name: Show what it would change
  ggen.gvisor.containerd_run:
    image: docker.io/library/ggen:latest
    argv: [ggen, sync]
    workspace: /srv/model
  check_mode: true
  diff: true

- name: Generate for several workspaces of one team, in one pod
  ggen.gvisor.containerd_run:
    image: docker.io/library/ggen:latest
    argv: [ggen, sync]
    jobs:
      - workspace: /srv/orders
      - workspace: /srv/stock
        timeout: 60
    pods: one
"""

RETURN = r"""
jobs:
  description: For each of O(jobs) what follows here, C(failed) and, where it failed, C(msg).
  type: list
  elements: dict
  returned: when jobs were given
rc:
  description: The command's exit code; absent when it did not end by itself.
  type: int
  returned: when the command ended
  sample: 0
stdout:
  description: What the command printed, at most O(max_output) bytes of it.
  type: str
  returned: when the command was started
stderr:
  description: What it printed to standard error, at most O(max_output) bytes of it.
  type: str
  returned: when the command was started
stdout_bytes:
  description: The full size of standard output.
  type: int
  returned: when the command was started
stderr_bytes:
  description: The full size of standard error.
  type: int
  returned: when the command was started
output_truncated:
  description: Whether something of either was left out.
  type: bool
  returned: when the command was started
timed_out:
  description: Whether the command was killed because of O(timeout).
  type: bool
  returned: when the command was started
limits_hit:
  description: Limits that struck during the run (memory, pids).
  type: list
  elements: str
  returned: when the command was started
duration:
  description: Seconds from the start of the command to its exit.
  type: float
  returned: when the command was started
timings:
  description: Seconds by part (pod, job, scan_before, scan_after, removed, total); C(pod) includes the proof.
  type: dict
  returned: when the command was started
changed_files:
  description:
    - Files that the command created, modified or removed, in the workspace or, in check mode, in its copy.
    - Each has path, change, kind, size, sha256, mode and ignored.
  type: list
  elements: dict
  returned: when a workspace was given
kernel:
  description: The first line of the kernel log that a program in the pod read; null for runtimes other than gVisor's.
  type: str
  returned: when the command was started
  sample: Starting gVisor...
missing:
  description: What of containerd, image or shim is missing; in check mode the task is then skipped instead of failing.
  type: str
  returned: when one of them is missing
pod:
  description: The pod's id.
  type: str
  returned: when the command was started
user:
  description: The uid:gid that the command ran as.
  type: str
  returned: when the command was started
"""

import contextlib
import os
import re
import time
import uuid
from collections import deque
from typing import Any, Deque, Dict, Iterator, List, Optional, Tuple

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ggen.gvisor.plugins.module_utils._cgroup import Limits
from ansible_collections.ggen.gvisor.plugins.module_utils._ctr import DEFAULT_ADDRESS, Ctr
from ansible_collections.ggen.gvisor.plugins.module_utils._errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._lent import TARGET, lend
from ansible_collections.ggen.gvisor.plugins.module_utils._pod import MAX_ID, Command, Mount, Plan
from ansible_collections.ggen.gvisor.plugins.module_utils._supervisor import (
    DEFAULT_STATE_DIR,
    PodFolder,
    Supervisor,
    sweep,
)
from ansible_collections.ggen.gvisor.plugins.module_utils._workspace import (
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
# The options of one of several jobs; the module's own of the same name, with these defaults, are what a job does not say.
OF_A_JOB: Dict[str, Dict[str, Any]] = {
    "argv": {"type": "list", "elements": "str"},
    "workspace": {"type": "path"},
    "workspace_from": {"type": "str", "choices": ["host", "controller"]},
    "archive": {"type": "path"},
    "mounts": {
        "type": "list",
        "elements": "dict",
        "options": {
            "source": {"type": "path", "required": True},
            "target": {"type": "str", "required": True},
            "writable": {"type": "bool", "default": False},
        },
    },
    "env": {"type": "dict"},
    "user": {"type": "str"},
    "cwd": {"type": "str"},
    "timeout": {"type": "float"},
    "memory": {"type": "str"},
    "cpus": {"type": "float"},
    "ignore": {"type": "list", "elements": "str"},
}
DEFAULTS: Dict[str, Dict[str, Any]] = {
    "workspace_from": {"default": "host"},
    "mounts": {"default": []},
    "env": {"default": {}},
    "timeout": {"default": 600},
    "ignore": {"default": []},
}
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
    """Refuse bad options before anything changes. Raises GvisorError that names the option and the mend."""
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


def message_of(job: Dict[str, Any], params: Dict[str, Any]) -> str:
    """Return what went wrong with a job that did not exit 0."""
    struck = [_STRUCK[name].format(memory=params["memory"], pids=params["pids"]) for name in job["struck"]]
    if job["why"] == "timeout":
        text = f"{params['argv'][0]} did not end within {params['timeout']:g} s and was killed"
    elif job["rc"] is not None:
        text = f"{params['argv'][0]} ended with exit code {job['rc']}"
    else:
        text = _WHY[job["why"]]
    return "; ".join([*struck, text])


class Work:
    """One command and its workspace. ``number`` tells it from others in the same pod."""

    def __init__(self, module: AnsibleModule, params: Dict[str, Any], number: int = 0) -> None:
        """Check everything. Raises GvisorError."""
        check(params)
        self.module = module
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
        elif self.workspace and self.module.check_mode:
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
            self._before = scan(self.seen, None, texts=bool(self.module._diff))
            self.timings["scan_before"] = round(time.monotonic() - begin, 3)

    def compare(self, job: Dict[str, Any], pod: str) -> Dict[str, Any]:
        """Return the result of ``job``, the supervisor's message, once the workspace stays as the command left it."""
        params, real = self.params, not self.module.check_mode
        begin = time.monotonic()
        result = self._result(pod, job)
        if self.seen:
            self._after = scan(self.seen, self._before, texts=bool(self.module._diff))
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
            if self.module._diff:
                result["diff"] = diffs(self._before, self._after, ignored)
            if params["archive"] and real:
                result["contents"] = contents_of(self.seen, compare(self._before, self._after, ignore_matcher([])))
        return result

    def _result(self, pod: str, job: Dict[str, Any]) -> Dict[str, Any]:
        self.timings.update(job["timings"])
        self.warnings += job["warnings"]
        result: Dict[str, Any] = {
            "pod": pod,
            "user": self.user,
            "kernel": job["kernel"],
            "stdout": job["stdout"],
            "stderr": job["stderr"],
            "stdout_bytes": job["stdout_bytes"],
            "stderr_bytes": job["stderr_bytes"],
            "output_truncated": job["truncated"],
            "timed_out": job["why"] == "timeout",
            "limits_hit": job["struck"],
            "duration": job["timings"]["job"],
            "timings": self.timings,
            "changed": False,
        }
        if job["rc"] is not None:
            result["rc"] = job["rc"]
        if job["why"] != "exit" or job["rc"] != 0:
            result["msg"] = message_of(job, self.params)
            result["failed"] = job["rc"] is None or job["why"] != "exit" or self.params["fail_on_rc"]
        return result


class Group:
    """The works of one pod, begun when this is made. A context manager: nothing is left when it ends."""

    def __init__(self, ctr: Ctr, works: List[Work]) -> None:
        """Start the pod. Raises GvisorError."""
        self.works = works
        params = works[0].params
        self.pod = f"{params['name']}-{uuid.uuid4().hex[:12]}"
        folder = PodFolder(params["state_dir"], self.pod, ctr)
        try:
            for work in works:
                work.place(folder.path, WORKSPACE if len(works) == 1 else f"{WORKSPACE}s/{work.number}")
            self.supervisor = Supervisor(folder, self._plan(), [work.command for work in works])
        except BaseException:
            folder.remove()
            raise

    def __enter__(self) -> "Group":
        """Let the first command begin as soon as the pod is there."""
        self._go(self.works[0])
        return self

    def __exit__(self, *exc: Any) -> None:
        """Remove the pod."""
        self.supervisor.__exit__(*exc)

    def _go(self, work: Work) -> None:
        work.look()
        self.supervisor.go()

    def results(self) -> Iterator[Dict[str, Any]]:
        """Yield the works' results; the pod is gone with the last one, or with one that did not end by itself. Raises GvisorError."""
        for work in self.works:
            if work is not self.works[0]:
                work.begin = time.monotonic()
                self._go(work)
            job = self.supervisor.expect("job")
            result = work.compare(job, self.pod)
            last = work is self.works[-1] or job["why"] != "exit"
            if last:
                try:
                    work.timings["removed"] = self.supervisor.expect("removed")["seconds"]
                except GvisorError as error:
                    # The command has ended and its sandbox is dead: what it came to is true all the same.
                    work.warnings.append(error.message)
            work.timings["total"] = round(time.monotonic() - work.begin, 3)
            yield result
            if last:
                return

    def _plan(self) -> Plan:
        params = self.works[0].params
        mounts = [mount for work in self.works for mount in work.mounts]
        mounts += [Mount(os.path.realpath(item["source"]), item["target"], item["writable"]) for item in params["mounts"]]
        memory = bytes_of(params["memory"]) if params["memory"] else None
        return Plan(
            id=self.pod,
            image=params["image"],
            runtime=params["runtime"],
            mounts=mounts,
            lent=lend(params["state_dir"]),
            gvisor=params["runtime"].startswith(GVISOR),
            read_only=params["read_only"],
            limits=Limits(memory, params["cpus"], params["pids"] or None),
        )


def groups(works: List[Work], shared: bool) -> List[List[Work]]:
    """Return the works that go into one pod each. A pod's own options are the same for all in it."""
    found: List[List[Work]] = []
    for work in works:
        if shared and found and all(found[-1][0].params[name] == work.params[name] for name in OF_THE_POD):
            found[-1].append(work)
        else:
            found.append([work])
    return found


def overlap(works: List[Work]) -> bool:
    """Return whether some of the works' workspaces are the same, or one in another, so that they must not run at the same time."""
    paths = sorted(f"{work.workspace}/" for work in works if work.workspace)
    return any(later.startswith(earlier) for earlier, later in zip(paths, paths[1:]))


def run_all(ctr: Ctr, works: List[Work], shared: bool, width: int) -> Dict[int, Dict[str, Any]]:
    """Return the works' results by number, each as from ``Group.results``; one that could not be had is ``failed`` and has ``msg``."""
    waiting = deque(groups(works, shared))
    found: Dict[int, Dict[str, Any]] = {}
    swept = False
    with contextlib.ExitStack() as stack:
        running: Deque[Tuple[Group, contextlib.ExitStack]] = deque()
        while waiting or running:
            while waiting and len(running) < width:
                batch = waiting.popleft()
                try:
                    own = contextlib.ExitStack()
                    running.append((own.enter_context(Group(ctr, batch)), own))
                    stack.push(own)
                except GvisorError as error:
                    found.update({work.number: {"failed": True, "changed": False, "msg": error.message, **error.details} for work in batch})
            if not swept:
                works[0].warnings += sweep(works[0].params["state_dir"])
                swept = True
            if not running:
                continue
            group, own = running.popleft()
            done = 0
            with own:
                try:
                    for work, result in zip(group.works, group.results()):
                        found[work.number] = result
                        done += 1
                except GvisorError as error:
                    found[group.works[done].number] = {"failed": True, "changed": False, "msg": error.message, **error.details}
                    done += 1
            if group.works[done:]:
                waiting.appendleft(group.works[done:])
    return found


def works_of(module: AnsibleModule) -> Tuple[List[Work], Dict[int, Dict[str, Any]]]:
    """Return what to run, the jobs, each over the module's own options, and the results of those that cannot be. Raises GvisorError."""
    params = module.params
    if params["parallel"] is not None and params["parallel"] < 1:
        raise GvisorError(f"parallel={params['parallel']} must be at least 1")
    works: List[Work] = []
    refused: Dict[int, Dict[str, Any]] = {}
    for number, job in enumerate(params["jobs"]):
        try:
            works.append(Work(module, {**params, **{key: value for key, value in job.items() if value is not None}}, number))
        except GvisorError as error:
            refused[number] = {"failed": True, "changed": False, "msg": error.message, **error.details}
    return works, refused


def rehearsed(module: AnsibleModule, result: Dict[str, Any]) -> Dict[str, Any]:
    """In check mode an earlier task would have brought what is missing; what the command would change cannot be known."""
    if not module.check_mode or "missing" not in result:
        return result
    return {**result, "failed": False, "changed": True, "skipped": True, "msg": f"not rehearsed: {result['msg']}"}


def together(results: List[Dict[str, Any]], names: List[str]) -> Dict[str, Any]:
    """Return the module's result for several jobs; ``names`` are what to call them."""
    told = [f"{name}: {result['msg']}" for name, result in zip(names, results) if result.get("failed")]
    headers = ("before_header", "after_header")
    parts = [(name, part) for name, result in zip(names, results) for part in result.pop("diff", [])]
    return {
        "jobs": [{**result, "failed": bool(result.get("failed"))} for result in results],
        "changed": any(result["changed"] for result in results),
        "failed": bool(told),
        "diff": [{**part, **{header: f"{name}/{part[header]}" for header in headers}} for name, part in parts],
        **({"msg": "\n".join(told)} if told else {}),
    }


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "image": {"type": "str", "required": True},
            **{name: {**spec, **DEFAULTS.get(name, {})} for name, spec in OF_A_JOB.items()},
            "jobs": {"type": "list", "elements": "dict", "options": OF_A_JOB},
            "pods": {"type": "str", "choices": ["each", "one"], "default": "each"},
            "parallel": {"type": "int"},
            "pids": {"type": "int", "default": 2048},
            "namespace": {"type": "str", "default": "default"},
            "runtime": {"type": "str", "default": "io.containerd.runsc.v1"},
            "network": {"type": "str", "choices": ["none"], "default": "none"},
            "read_only": {"type": "bool", "default": True},
            "private": {"type": "list", "elements": "str", "default": []},
            "fail_on_rc": {"type": "bool", "default": True},
            "max_output": {"type": "int", "default": 1 << 20},
            "name": {"type": "str", "default": "run"},
            "address": {"type": "path", "default": DEFAULT_ADDRESS},
            "state_dir": {"type": "path", "default": DEFAULT_STATE_DIR},
        },
        required_one_of=[("argv", "jobs")],
        mutually_exclusive=[("jobs", "workspace"), ("jobs", "archive")],
        supports_check_mode=True,
    )
    params, jobs = module.params, module.params["jobs"]
    works: List[Work] = []
    try:
        works, refused = ([Work(module, params)], {}) if jobs is None else works_of(module)
        ctr = Ctr(params["address"], params["namespace"])
        ctr.connect()
        width = 1 if overlap(works) else params["parallel"] or os.cpu_count() or 1
        found = {**refused, **run_all(ctr, works, params["pods"] == "one", width)}
        results = [rehearsed(module, found[number]) for number in sorted(found)]
        names = [job["workspace"] or " ".join(job["argv"] or params["argv"] or []) for job in jobs or []]
        result = results[0] if jobs is None else together(results, names)
    except GvisorError as error:
        result = rehearsed(module, {"failed": True, "changed": False, "msg": error.message, **error.details})
    for work in works:
        for warning in work.warnings:
            module.warn(warning)
    if result.pop("failed", False):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
