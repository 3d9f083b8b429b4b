#!/usr/bin/python
# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run one command to completion in a gVisor pod."""

from __future__ import annotations

DOCUMENTATION = r"""
module: containerd_run
short_description: Run one command to completion in a sandbox
version_added: 0.1.0
author: The ggen.gvisor authors (@ggen-gvisor)
description:
  - Starts a pod (a sandbox that waits) with containerd, runs one command in it, and removes the pod whatever happens, also when the
    module, its SSH connection or the controller is killed.
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
    description: The command and its arguments. They replace the image's entrypoint and command.
    type: list
    elements: str
    required: true
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
    description: Environment variables beside the image's own. They appear in the host's process list while the pod starts.
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
"""

RETURN = r"""
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

import os
import re
import time
import uuid
from typing import Any, Dict, List, Optional, Tuple

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


class Run:
    """One run of the module."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.params: Dict[str, Any] = module.params
        self.begin = time.monotonic()
        self.timings: Dict[str, float] = {}
        self.warnings: List[str] = []

    def _timed_scan(self, name: str, root: str, known: Optional[Scan] = None) -> Scan:
        begin = time.monotonic()
        result = scan(root, known, texts=bool(self.module._diff))
        self.timings[name] = round(time.monotonic() - begin, 3)
        return result

    def execute(self) -> Dict[str, Any]:
        """Check, run, compare; returns the module's result, which has ``failed`` when the task failed."""
        params = self.params
        check(params)
        workspace = os.path.realpath(params["workspace"]) if params["workspace"] else None
        user = owner_of(params, workspace)
        contents: Dict[str, str] = {}
        ctr = Ctr(params["address"], params["namespace"])
        ctr.connect()
        pod = f"{params['name']}-{uuid.uuid4().hex[:12]}"
        folder = PodFolder(params["state_dir"], pod, ctr)
        try:
            seen = workspace
            if params["archive"]:
                seen = os.path.join(folder.path, "copy")
                unpack(params["archive"], seen, *map(int, user.split(":")))
            elif workspace and self.module.check_mode:
                seen = self._rehearsal(workspace, os.path.join(folder.path, "copy"))
            supervisor = Supervisor(folder, *self._plan(pod, seen, user))
        except BaseException:
            folder.remove()
            raise
        with supervisor:
            before: Scan = {}
            after: Scan = {}
            if seen:
                before = self._timed_scan("scan_before", seen)
            supervisor.go()
            self.warnings += sweep(params["state_dir"])
            job = supervisor.expect("job")
            if seen:
                after = self._timed_scan("scan_after", seen, before)
                if workspace and not self.module.check_mode:
                    self._strip(workspace, before, after)
                if params["archive"] and not self.module.check_mode:
                    contents = contents_of(seen, compare(before, after, ignore_matcher([])))
            removed = supervisor.expect("removed")
        self.timings.update(job["timings"], removed=removed["seconds"], total=round(time.monotonic() - self.begin, 3))
        result = self._result(pod, user, job, before, after)
        return {**result, "contents": contents} if contents else result

    def _rehearsal(self, workspace: str, copy: str) -> str:
        """Make check mode's throw-away copy, whole before the pod can see it, and return its path."""
        os.mkdir(copy, 0o700)
        skipped = copy_tree(workspace, copy)
        if skipped:
            self.warnings.append(f"check mode's copy is without {len(skipped)} sockets, pipes or devices: {', '.join(skipped[:5])}")
        return copy

    def _plan(self, pod: str, workspace: Optional[str], user: str) -> Tuple[Plan, Command]:
        params = self.params
        mounts = [Mount(workspace, WORKSPACE, True)] if workspace else []
        mounts += [Mount(os.path.realpath(item["source"]), item["target"], item["writable"]) for item in params["mounts"]]
        memory = bytes_of(params["memory"]) if params["memory"] else None
        plan = Plan(
            id=pod,
            image=params["image"],
            runtime=params["runtime"],
            mounts=mounts,
            lent=lend(params["state_dir"]),
            gvisor=params["runtime"].startswith(GVISOR),
            read_only=params["read_only"],
            limits=Limits(memory, params["cpus"], params["pids"] or None),
        )
        command = Command(
            argv=params["argv"],
            user=user,
            cwd=params["cwd"] or (WORKSPACE if workspace else "/"),
            env={str(key): str(value) for key, value in params["env"].items()},
            timeout=params["timeout"],
            max_output=params["max_output"],
        )
        return plan, command

    def _strip(self, workspace: str, before: Scan, after: Scan) -> None:
        stripped = strip_setid(workspace, before, after)
        if stripped:
            self.warnings.append(f"set-user-id or set-group-id bits were taken off {len(stripped)} files: {', '.join(stripped[:5])}")

    def _result(self, pod: str, user: str, job: Dict[str, Any], before: Scan, after: Scan) -> Dict[str, Any]:
        params = self.params
        ignored = ignore_matcher(params["ignore"])
        result: Dict[str, Any] = {
            "pod": pod,
            "user": user,
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
        if params["workspace"] or params["archive"]:
            result["changed_files"] = compare(before, after, ignored)
            result["changed"] = any(not item["ignored"] for item in result["changed_files"])
            if self.module._diff:
                result["diff"] = diffs(before, after, ignored)
        if job["why"] != "exit" or job["rc"] != 0:
            result["msg"] = message_of(job, params)
            result["failed"] = job["rc"] is None or job["why"] != "exit" or params["fail_on_rc"]
        self.warnings += job["warnings"]
        return result


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "image": {"type": "str", "required": True},
            "argv": {"type": "list", "elements": "str", "required": True},
            "workspace": {"type": "path"},
            "workspace_from": {"type": "str", "choices": ["host", "controller"], "default": "host"},
            "archive": {"type": "path"},
            "mounts": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "source": {"type": "path", "required": True},
                    "target": {"type": "str", "required": True},
                    "writable": {"type": "bool", "default": False},
                },
            },
            "env": {"type": "dict", "default": {}},
            "user": {"type": "str"},
            "cwd": {"type": "str"},
            "timeout": {"type": "float", "default": 600},
            "memory": {"type": "str"},
            "cpus": {"type": "float"},
            "pids": {"type": "int", "default": 2048},
            "namespace": {"type": "str", "default": "default"},
            "runtime": {"type": "str", "default": "io.containerd.runsc.v1"},
            "network": {"type": "str", "choices": ["none"], "default": "none"},
            "read_only": {"type": "bool", "default": True},
            "ignore": {"type": "list", "elements": "str", "default": []},
            "fail_on_rc": {"type": "bool", "default": True},
            "max_output": {"type": "int", "default": 1 << 20},
            "name": {"type": "str", "default": "run"},
            "address": {"type": "path", "default": DEFAULT_ADDRESS},
            "state_dir": {"type": "path", "default": DEFAULT_STATE_DIR},
        },
        supports_check_mode=True,
    )
    run = Run(module)
    try:
        result = run.execute()
    except GvisorError as error:
        for warning in run.warnings:
            module.warn(warning)
        if module.check_mode and "missing" in error.details:
            # An earlier task would have brought it; what the command would change cannot be known.
            module.exit_json(changed=True, skipped=True, msg=f"not rehearsed: {error.message}", **error.details)
        module.fail_json(msg=error.message, **error.details)
    for warning in run.warnings:
        module.warn(warning)
    if result.pop("failed", False):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
