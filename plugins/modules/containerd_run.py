#!/usr/bin/python
# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run one command to completion in a gVisor pod."""

from __future__ import annotations

DOCUMENTATION = r"""
module: containerd_run
short_description: Run commands to completion in sandboxes
version_added: 1.0.0
author: The ggen.gvisor authors (@ggen-gvisor)
description:
  - Starts a pod (a sandbox that waits) with containerd, runs a command in it, and removes the pod whatever happens, also when the
    module, its SSH connection or the controller is killed. A restart of containerd does not end the command.
  - Several commands (O(jobs)) get a pod each, some at the same time, or share one.
  - Each run leaves one line of JSON in C(audit/runs.jsonl) below O(state_dir), for root alone; C(docs/audit.md) has its keys. What cannot be told there
    does not run.
  - Returns the command's own exit code, standard output and standard error apart from each other, and what it did to its workspace.
  - The command has no network, no capabilities, no new privileges and, by default, a read-only root file system with a temporary
    C(/tmp). It runs as the workspace's owner, so that what it writes belongs to that owner.
  - With O(engine=rootless) the same is done by gVisor's program alone, as the user who asks and without containerd. C(docs/rootless.md) tells what differs.
requirements:
  - containerd 1.6 or newer with C(ctr)
  - the shim of the runtime on containerd's PATH
  - or, with O(engine=rootless), C(runsc), Linux 5.11 or newer, and user namespaces
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
    description:
      - An image in the namespace, for example C(docker.io/library/ggen:latest). C(ggen) is that one, too, as it is for Docker.
      - One with labels or annotations that containerd, its CRI plugin, Kubernetes or gVisor act on is refused. Its variables are for the command alone.
      - With O(engine=rootless) the absolute path of an image's archive on the host, which is unpacked once into the user's cache, or of a folder that is a root
        file system.
    type: str
    required: true
  argv:
    description: The command and its arguments. They replace the image's entrypoint and command. Required where O(jobs) do not say it.
    type: list
    elements: str
  stdin:
    description:
      - Text for the command's standard input, which otherwise is empty. What the command does not read of it is dropped. Outside of the sandbox nobody sees it,
        unless the command prints it.
      - Of O(jobs), one that has it has a pod of its own.
    type: str
    version_added: 1.0.0
  workspace:
    description:
      - Absolute path of a folder on the host that the command sees as C(/workspace) and may write to.
      - A link in it is followed only where root alone can change it. What the path leads to is opened once, and only that is shown to the command.
      - Without it the command has no folder of the host.
    type: path
  workspace_from:
    description:
      - Where O(workspace) is. One of the controller is copied to the host, and when the command has ended all that it did to the copy is done here. Nothing is
        written where any of that was changed here in the meantime.
      - Both ways files, folders (empty ones too), links and further names of a file come with their names, permissions and times of change. Whose they are,
        set-user-id and like bits, access control lists and attributes do not.
      - Links that lead out of the workspace are refused. Those that the command makes are left out, as are sockets, pipes and devices; a warning names them.
    type: str
    choices: [host, controller]
    default: host
    version_added: 1.0.0
  archive:
    description: Set by the action plugin, which sends a workspace of the controller with it. Leave it alone.
    type: path
    version_added: 1.0.0
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
        description: Absolute path in the pod. What of it is missing in the workspace, or in another mount that is writable, is there during the run.
        type: str
        required: true
      writable:
        description: Whether the command may write there. Changes there are not reported.
        type: bool
        default: false
  env:
    description:
      - Environment variables beside the image's own, each a string; null takes one of the image's away. Outside of the sandbox nobody sees their values,
        unless the command prints them. Every process of the command has them; for what is secret there is O(secrets).
      - E(HOME) is what the image sets, or the home of the user in its C(/etc/passwd), where the user can write there, else a folder that ends with
        the pod.
    type: dict
    default: {}
  secrets:
    description:
      - Secrets for the command, as files C(/run/secrets/NAME) in the pod. They are in memory, can be read by the command's user alone and changed by nobody,
        and are gone when the pod is, also after a run that was killed, with the next run at the latest.
      - Each is the path of a file on the controller, which may be encrypted by a vault, or text that comes from a vault. A dict with C(text), or with
        C(file), is for text from elsewhere, a lookup for example.
      - A value is in no log, no list of processes and no result. Where the command prints one, or one line of it that has at least 8 characters,
        asterisks are in its place; what it wrote into a file stays. One of less than 4 characters is not looked for.
      - On the way to the host they are part of the module's arguments, so that without pipelining Ansible has them in its temporary folder there
        for a moment.
    type: dict
    default: {}
    version_added: 1.0.0
  user:
    description:
      - Numeric C(uid) or C(uid:gid) of the command. The default is the workspace's owner and group, without a workspace 65534.
      - A workspace that belongs to root, or to root's group, is refused unless V(0:0), or another user, is said here. With V(0:0) the command is root as
        far as files go. Set-user-id bits are taken off when it has ended, so until then nobody else should be able to reach such a workspace.
    type: str
  cwd:
    description:
      - The command's working folder. The default is C(/workspace), without a workspace C(/).
      - Where it is missing, or the user cannot enter it, the command is not started and has no exit code.
    type: str
  timeout:
    description:
      - Seconds after which the command is killed.
      - They bound the whole run. The pod's start, copying and looking at the workspace before and after the command must end with it or at most 30 seconds
        later, whatever is there; what was not looked at by then fails the job. Taking set-user-id bits off always comes first.
    type: float
    default: 600
  memory:
    description:
      - Most memory of the whole pod, for example V(512M); bytes, or a number with K, M, G or T. V(0) is no limit.
      - The default is a quarter of the host's memory, and at least V(1G).
    type: str
  cpus:
    description: Most processors' worth of time, for example V(1.5).
    type: float
  engine:
    description:
      - What makes the sandbox. With V(rootless) that is O(runsc) alone. The task needs no root and no containerd, and the command runs as the user who asks,
        whose the workspace must be. O(address), O(namespace), O(runtime) and other users in O(user) have no meaning then.
      - Processors are whole ones then, and O(memory) is watched a hundred times a second instead of being kept by the kernel.
    type: str
    choices: [containerd, rootless]
    default: containerd
    version_added: 1.0.0
  runsc:
    description: Absolute path of gVisor's program on the host, for O(engine=rootless).
    type: path
    version_added: 1.0.0
  jobs:
    description:
      - Several commands instead of one; each has options of its own, and of the others this module's. The result then has C(jobs).
      - One that fails, or whose options are refused, does not keep the others from running, and makes the task fail in the end.
    type: list
    elements: dict
    version_added: 1.0.0
    suboptions:
      argv:
        description: As O(argv).
        type: list
        elements: str
      stdin:
        description: As O(stdin).
        type: str
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
      secrets:
        description: As O(secrets). With O(pods=one) jobs with other secrets, or another user, have a pod of their own.
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
      protect:
        description: As O(protect). With O(pods=one) jobs with other patterns have a pod of their own.
        type: list
        elements: str
      outputs:
        description: As O(outputs).
        type: list
        elements: str
      ignore:
        description: As O(ignore).
        type: list
        elements: str
  pods:
    description:
      - Of O(jobs), V(each) has a pod of its own, so that none can see another's workspace.
      - With V(one) those with the same user, O(mounts), O(memory) and O(cpus) run one after another in one pod, which is several times as fast. They
        see each other's workspaces (in C(/workspaces), each is the working folder of its job) as far as modes allow, and C(/tmp). Processes
        that a job left behind are killed before the next one, and after one that did not end by itself the others go on in a new pod.
    type: str
    choices: [each, one]
    default: each
    version_added: 1.0.0
  parallel:
    description: Most pods at the same time. The default is the number of the host's processors, and 1 where workspaces overlap.
    type: int
    version_added: 1.0.0
  pids:
    description:
      - Most tasks of the pod as the host counts them. gVisor needs about 30 for itself and ends the whole pod at the limit.
      - V(0) is no limit.
    type: int
    default: 2048
  file_size:
    description:
      - The largest file that a command may write, written as O(memory); V(0) is no limit. Commands leave no core files.
    type: str
    default: 4G
    version_added: 1.0.0
  keep_free:
    description:
      - How much stays free on each of the host's file systems that a run can fill, written as O(memory). These are those of the workspace, of writable
        O(mounts), of O(state_dir) and, without O(read_only), of the pod's root. With less than that the pod does not start, and a command that comes
        so far is killed. V(0) lets commands fill them.
      - The default is a twentieth of the file system, and at most V(1G).
    type: str
    version_added: 1.0.0
  limits:
    description:
      - What is done where the host cannot enforce one of O(memory), O(cpus), O(pids), O(file_size) and O(keep_free), or cannot forbid core files.
      - With V(required) the command does not run, and the message names the limits and what enables them. With V(best_effort) it runs without them,
        and a warning names them.
    type: str
    choices: [required, best_effort]
    default: required
    version_added: 1.0.0
  namespace:
    description: containerd's namespace.
    type: str
    default: default
  runtime:
    description: containerd's runtime. Pods of the default one are proven to be gVisor's before the command starts.
    type: str
    default: io.containerd.runsc.v1
  network:
    description:
      - The network of the pod; V(none) is loopback only (127.0.0.1 and ::1), with the name C(localhost) and the pod's host name, C(sandbox).
      - In gVisor a pod has no host name with containerd 1.6, whose C(ctr) cannot give one.
    type: str
    choices: [none]
    default: none
  read_only:
    description: Whether the pod's root file system is read-only.
    type: bool
    default: true
  protect:
    description:
      - Patterns of files in O(workspace), and in writable O(mounts), which programs of the host obey and the command may not write, as O(ignore) has
        them; here neither case nor characters without a shape count. What is there the command sees read-only.
      - What it puts there all the same, where nothing was or after it has moved a folder, is taken away when it has ended and fails it. So does a link,
        or a file, in the place of a folder on the way there. Nothing is copied back then.
      - The default is what git and editors act on, so that a look at the workspace runs nothing that the command has written. An empty list protects nothing.
    type: list
    elements: str
    default: ["**/.git/config", "**/.git/config.worktree", "**/.git/commondir", "**/.git/hooks/**", "**/.git/modules/**/config",
      "**/.git/modules/**/hooks/**", ".envrc", "**/.vscode/**"]
    version_added: 1.0.0
  outputs:
    description:
      - Patterns of the files that the command may create, modify or remove, as O(ignore) has them. A change of anything else in O(workspace) fails it and is
        named; where it worked on a copy, in check mode or with O(workspace_from=controller), nothing of it is kept.
      - Where all of them are folders that are there, V(generated/**) for example, the rest of the workspace is read-only for the command. It then can move
        nothing from one of them to another.
      - Without this option the command may change all that is not protected; with an empty list nothing.
    type: list
    elements: str
    version_added: 1.0.0
  ignore:
    description:
      - Patterns of files whose changes do not count as a change; they are still listed. C(out/**) is for the folder C(out) itself, too.
      - A pattern without a slash matches names in any folder, one with a slash paths from the workspace on. C(**) spans folders.
      - What a link of the workspace leads to counts all the same.
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
    version_added: 1.0.0
  fail_on_rc:
    description: Whether an exit code other than 0 fails the task.
    type: bool
    default: true
  max_output:
    description: Bytes kept of standard output and of standard error, half from the beginning and half from the end.
    type: int
    default: 1048576
  trace:
    description:
      - Whether the result tells which files the command opened, wrote and executed, as gVisor's kernel saw it. C(docs/decisions/trace.md) tells how, and what
        it costs. gVisor's runtimes alone have it.
    type: bool
    default: false
    version_added: 1.0.0
  metrics:
    description:
      - Absolute path of an existing folder in which each run is counted, in the file C(ggen_gvisor.prom) for the textfile collector of Prometheus'
        node_exporter. C(docs/audit.md) has what is counted.
      - Root alone may be able to write to it, and with O(engine=rootless) only root can say it. Where it cannot be written a warning tells so.
    type: path
    version_added: 1.0.0
  name:
    description: What the pod's id begins with.
    type: str
    default: run
  address:
    description: containerd's socket.
    type: path
    default: /run/containerd/containerd.sock
  state_dir:
    description:
      - Folder for locks, throw-away copies and the host's programs that sandboxes see (host_tools).
      - It is made where it is missing. One that others than root can change, or exchange, is refused.
      - With O(engine=rootless) the default is C(ggen.gvisor) in E(XDG_STATE_HOME), or in C(~/.local/state).
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

- name: The same without root and without containerd
  ggen.gvisor.containerd_run:
    engine: rootless
    runsc: /home/me/ggen.gvisor/bin/runsc
    image: /home/me/ggen.gvisor/dist/26.5.19/linux_amd64/ggen.tar
    argv: [ggen, sync]
    workspace: /home/me/model
  become: false

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
  description: Limits that struck during the run (memory, pids, file_size, and space where the disk was about to be full, see O(keep_free)).
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
    - Files that the command created, modified or removed, in the workspace or, in check mode, in its copy. Folders are listed, too, where nothing else tells
      of them, so empty ones that came or went, and those whose permissions changed.
    - Each has path, change, kind, size, sha256, mode, contents and ignored. C(contents) is false where nothing changed that git keeps.
    - C(sha256) is empty for a file of more than 64 MiB that is mostly holes, where all
      such files that changed have more than 16 GiB together, or there was no time left.
    - At most 5000 are listed, and paths of a megabyte together, those that are not ignored first. C(changed_counts) has the total.
  type: list
  elements: dict
  returned: when a workspace was given
contents_changed:
  description: Whether a file that is not ignored came, went, has other contents, or another right of its owner's to execute it. C(changed) is also true
    where only other permissions changed, which a fresh clone never has as a program leaves them.
  type: bool
  returned: when a workspace was given
changed_counts:
  description: How many files were created, modified and removed, listed or not, and how many of all these are ignored.
  type: dict
  returned: when a workspace was given
  sample: {created: 3, modified: 0, removed: 0, ignored: 1}
trace:
  description:
    - Absolute paths in the pod, as the command named them, without following links. C(opened) has files and folders that it opened for reading, C(written)
      what it opened for writing, C(executed) the programs that it became or started. Calls that failed are not there, and what was renamed, removed or linked
      is among C(changed_files) alone.
    - Each list has every path once, those of the workspace first. At most 5000 paths of workspaces are told, and as many others. C(truncated) tells whether
      some are missing, because of that or because the kernel could not send them.
  type: dict
  returned: with O(trace), when the command was started
  sample: {opened: [/workspace/ggen.toml, /etc/localtime], written: [/workspace/out.py], executed: [/usr/local/bin/ggen], truncated: false}
faults:
  description:
    - What is wrong with what the command left, beside its exit code, each of which fails the task. Not all of the workspace could be looked at or cleaned,
      files in it do not belong to the command's user, or it wrote what it may not (O(protect), O(outputs)).
  type: list
  elements: str
  returned: when there is something
kernel:
  description: The first line of the kernel log that a program in the pod read; null for runtimes other than gVisor's.
  type: str
  returned: when the command was started
  sample: Starting gVisor...
missing:
  description: What of containerd, image, shim or runsc is missing; in check mode the task is then skipped instead of failing.
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
from typing import Any, Dict, List, Tuple

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError, failure
from ansible_collections.ggen.gvisor.plugins.module_utils._base.module import end
from ansible_collections.ggen.gvisor.plugins.module_utils._base.text import visible
from ansible_collections.ggen.gvisor.plugins.module_utils._containerd.ctr import Ctr
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.defaults import DEFAULTS
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.jobs import Engine, Job, Mode, fed, names_of, overlap, run_all, summary
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.secret_files import hide_options, mask, mask_result, words_of

# The options of one of several jobs; the module's own of the same name, with their defaults, are what a job does not say.
OF_A_JOB: Dict[str, Dict[str, Any]] = {
    "argv": {"type": "list", "elements": "str"},
    "stdin": {"type": "str", "no_log": True},
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
    "env": {"type": "dict", "no_log": True},
    "secrets": {"type": "dict", "no_log": True},
    "user": {"type": "str"},
    "cwd": {"type": "str"},
    "timeout": {"type": "float"},
    "memory": {"type": "str"},
    "cpus": {"type": "float"},
    "protect": {"type": "list", "elements": "str"},
    "outputs": {"type": "list", "elements": "str"},
    "ignore": {"type": "list", "elements": "str"},
}


def job_of(engine: Engine, mode: Mode, params: Dict[str, Any], number: int = 0) -> Job:
    """Return what to run. Raises GvisorError."""
    job = Job(mode, params, number, fed(params["stdin"]))
    engine.check(job)
    return job


def engine_of(params: Dict[str, Any]) -> Tuple[Engine, Dict[str, Any]]:
    """Return what makes the sandboxes, and the options as it needs them. Raises GvisorError or OSError."""
    if params["engine"] == "rootless":
        # Here, as the others need not read it: on a host each run compiles all that it imports.
        from ansible_collections.ggen.gvisor.plugins.module_utils._rootless.engine import open_engine

        return open_engine(params)
    return Engine(Ctr(params["address"], params["namespace"])), params


def jobs_of(engine: Engine, mode: Mode, params: Dict[str, Any]) -> Tuple[List[Job], Dict[int, Dict[str, Any]]]:
    """Return what to run, the jobs, each over the module's own options, and the results of those that cannot be. Raises GvisorError."""
    if params["parallel"] is not None and params["parallel"] < 1:
        raise GvisorError(f"parallel={params['parallel']} must be at least 1")
    wanted: List[Job] = []
    refused: Dict[int, Dict[str, Any]] = {}
    for number, job in enumerate(params["jobs"]):
        try:
            wanted.append(job_of(engine, mode, {**params, **{key: value for key, value in job.items() if value is not None}}, number))
        except GvisorError as error:
            refused[number] = {"failed": True, "changed": False, "msg": error.message, **error.details}
    return wanted, refused


def rehearsed(module: AnsibleModule, result: Dict[str, Any]) -> Dict[str, Any]:
    """In check mode an earlier task would have brought what is missing; what the command would change cannot be known."""
    if not module.check_mode or "missing" not in result:
        return result
    return {**result, "failed": False, "changed": True, "skipped": True, "msg": f"not rehearsed: {result['msg']}"}


def together(results: List[Dict[str, Any]], names: List[str]) -> Dict[str, Any]:
    """Return the module's result for several jobs; ``names`` are what to call them."""
    headers = ("before_header", "after_header")
    parts = [(name, part) for name, result in zip(names, results) for part in result.pop("diff", [])]
    return {
        "jobs": [{**result, "failed": bool(result.get("failed"))} for result in results],
        "diff": [{**part, **{header: f"{name}/{part[header]}" for header in headers}} for name, part in parts],
        **summary(results, names),
    }


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "image": {"type": "str", "required": True},
            **{name: {**spec, **({"default": DEFAULTS[name]} if name in DEFAULTS else {})} for name, spec in OF_A_JOB.items()},
            "workspace_from": {"type": "str", "choices": ["host", "controller"], "default": "host"},
            # All of it: in the log Ansible looks for a value as it is, and writes the list as Python would.
            "jobs": {"type": "list", "elements": "dict", "options": OF_A_JOB, "no_log": True},
            "engine": {"type": "str", "choices": ["containerd", "rootless"], "default": "containerd"},
            "runsc": {"type": "path"},
            "pods": {"type": "str", "choices": ["each", "one"], "default": "each"},
            "parallel": {"type": "int"},
            "pids": {"type": "int", "default": DEFAULTS["pids"]},
            "file_size": {"type": "str", "default": DEFAULTS["file_size"]},
            "keep_free": {"type": "str"},
            "limits": {"type": "str", "choices": ["required", "best_effort"], "default": DEFAULTS["limits"]},
            "namespace": {"type": "str", "default": DEFAULTS["namespace"]},
            "runtime": {"type": "str", "default": DEFAULTS["runtime"]},
            "network": {"type": "str", "choices": ["none"], "default": DEFAULTS["network"]},
            "read_only": {"type": "bool", "default": DEFAULTS["read_only"]},
            "private": {"type": "list", "elements": "str", "default": DEFAULTS["private"]},
            "fail_on_rc": {"type": "bool", "default": DEFAULTS["fail_on_rc"]},
            "max_output": {"type": "int", "default": DEFAULTS["max_output"]},
            "trace": {"type": "bool", "default": DEFAULTS["trace"]},
            "metrics": {"type": "path"},
            "name": {"type": "str", "default": DEFAULTS["name"]},
            "address": {"type": "path", "default": DEFAULTS["address"]},
            "state_dir": {"type": "path", "default": DEFAULTS["state_dir"]},
        },
        required_one_of=[("argv", "jobs")],
        required_if=[("engine", "rootless", ["runsc"])],
        mutually_exclusive=[("jobs", "workspace"), ("jobs", "archive")],
        supports_check_mode=True,
    )
    params, jobs = module.params, module.params["jobs"]
    # Ansible would put asterisks for each word of these options into the whole result, for a 1 too. What was logged by now it has kept out.
    module.no_log_values, module.params = set(), hide_options(params)
    mode = Mode(module.check_mode, module._diff)
    wanted: List[Job] = []
    try:
        engine, params = engine_of(params)
        wanted, refused = ([job_of(engine, mode, params)], {}) if jobs is None else jobs_of(engine, mode, params)
        engine.connect()
        width = 1 if overlap(wanted) else params["parallel"] or os.cpu_count() or 1
        found = {**refused, **run_all(engine, wanted, params["pods"] == "one", width)}
        results = [rehearsed(module, found[number]) for number in sorted(found)]
        result = results[0] if jobs is None else together(results, names_of(jobs, params["argv"]))
    except (GvisorError, OSError) as error:
        result = rehearsed(module, {"changed": False, **failure(error, params["state_dir"])})
    words = words_of({f"{job.number} {name}": value for job in wanted for name, value in job.secrets.items()})
    for job in wanted:
        for warning in mask(job.warnings, words):
            module.warn(visible(warning))
    result = mask_result(result, words)
    if "jobs" in result:
        result["jobs"] = [mask_result(job, words) for job in result["jobs"]]
    end(module, result)


if __name__ == "__main__":
    main()
