# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The containerd_runtime action in this process, and a containerd of a chosen version for it to change."""

from __future__ import annotations

import json
import os
import platform
import shlex
import signal
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.ggen.gvisor.plugins.action.containerd_runtime import ActionModule
from ansible_collections.ggen.gvisor.plugins.module_utils._base import processes as _processes
from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._containerd.config_options import ARGUMENT_SPEC
from ansible_collections.ggen.gvisor.plugins.modules.containerd_runtime import perform

from support import oci
from support.containerd import Daemon
from support.containerd_debs import ensure
from support.gvisor import ROOT, SHIM, _has_cap_sys_resource

# The release whose shim each containerd can talk to (vendors/gvisor/releases.yml).
RELEASES = {"1.6.20": "20260224", "1.7.24": "20260518", "2.1.9": "20260518", "2.3.7": "20260518"}
RUNSC = {
    "name": "runsc",
    "runtime_type": "io.containerd.runsc.v1",
    "options": {"TypeUrl": "io.containerd.runsc.v1.options", "ConfigPath": "/etc/containerd/runsc.toml"},
}
IMAGE = "localhost/busybox:1"


class Action(ActionModule):
    """The action plugin with the module run in this process instead of on a host; ``phases`` are the remote executions."""

    def __init__(self, args: dict, check: bool = False) -> None:
        self._task = SimpleNamespace(args=args, check_mode=check)
        self.phases: list[str] = []

    def _execute_module(self, module_args: dict, **_more: object) -> dict:
        self.phases.append(module_args["plan"]["phase"])
        checked = ArgumentSpecValidator(ARGUMENT_SPEC).validate(json.loads(json.dumps(module_args)))
        assert not checked.error_messages, checked.error_messages
        try:
            return json.loads(json.dumps(perform(checked.validated_parameters, self._task.check_mode)))
        except GvisorError as error:
            return {"failed": True, "msg": error.message, **error.details}


def run_action(check: bool = False, **args: object) -> dict:
    """Run the action and return its result; ``failed`` and ``phases`` are always there."""
    action = Action(args, check)
    try:
        result = {"failed": False, **action.perform(None)}
    except GvisorError as error:
        result = {"failed": True, "changed": False, "msg": error.message, **error.details}
    return {**result, "phases": action.phases}


def runsc_dir(version: str, target: Path) -> Path:
    """Fill ``target`` with links to the runsc and the shim for containerd ``version``, and return it.

    Releases are below bin/ of this checkout or GGEN_GVISOR_RUNSC_DIR. Raises RuntimeError when the release is not there: a
    test without gVisor must not pass.
    """
    arch = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
    base = Path(os.environ.get("GGEN_GVISOR_RUNSC_DIR") or ROOT / "bin") / RELEASES[version]
    folder = base / f"linux_{arch}" if (base / f"linux_{arch}").is_dir() else base
    if not (folder / "runsc").exists():
        raise RuntimeError(f"no runsc in {folder}: build it (make site) or set GGEN_GVISOR_RUNSC_DIR")
    tolerant = folder / f"{SHIM}.no-oom-score"
    shim = tolerant if tolerant.exists() and not _has_cap_sys_resource() else folder / SHIM
    target.mkdir(parents=True, exist_ok=True)
    for name, source in (("runsc", folder / "runsc"), (SHIM, shim)):
        (target / name).symlink_to(source)
    return target


class Host(Daemon):
    """A private containerd that the module may restart: whoever runs at the end is stopped."""

    def __init__(self, root: Path, config_text: str | None = None, bin_dir: Path | None = None) -> None:
        super().__init__(root, config_text, bin_dir)
        self.started: list[str] = []

    def options(self, **more: object) -> dict:
        """The module's options that say where this containerd is."""
        return {
            "path": self.config_path,
            "address": self.address,
            "pid_file": f"{self.root}/pid",
            "log_file": self.log_path,
            "manager": "daemon",
            "timeout": 20,
            **more,
        }

    def pid(self) -> int | None:
        """The process that listens on the socket."""
        return _processes.listener_pid(self.address)

    def start_runc(self, name: str) -> str:
        """Start a runc container that waits, and return its name.

        runc's own state is below /run/containerd, whatever containerd's is: names are unique, and ``stop`` removes them.
        """
        name = f"{name}-{os.getpid()}-{self.state.name}"
        self.started.append(name)
        self.ctr("run", "-d", IMAGE, name, "/usr/local/bin/catatonit", "-P")
        return name

    def stop(self) -> None:
        """Stop the daemon that this object or the module started."""
        for name in self.started:
            self.ctr("tasks", "rm", "--force", name, check=False)
            root = "/run/containerd/runc/default"
            subprocess.run(["runc", "--root", root, "delete", "--force", name], check=False, capture_output=True)
        pid = self.pid()
        if pid and (self.process is None or pid != self.process.pid):
            os.kill(pid, signal.SIGTERM)
            if not _processes.wait_exit(pid, 15):
                os.kill(pid, signal.SIGKILL)
        super().stop()

    def text(self) -> str | None:
        """The main configuration file's content."""
        path = Path(self.config_path)
        return path.read_bytes().decode() if path.exists() else None

    def import_image(self) -> None:
        """Have the test image in the default namespace."""
        archive = self.root / "busybox.tar"
        if not archive.exists():
            oci.busybox_archive(archive)
        self.ctr("images", "import", str(archive))

    def run_runc(self, name: str, *argv: str) -> str:
        """Run a command in a runc container and return its output."""
        # ctr lost the output of a command that ended at once (1 run in 70, containerd 2.1.9): it ends a little later.
        script = f"{shlex.join(argv)}; sleep 0.3"
        return self.ctr("run", "--rm", IMAGE, f"{name}-{self.state.name}", "/bin/busybox", "sh", "-c", script).stdout

    def run_gvisor(self, name: str, *argv: str) -> str:
        """Run a command in a gVisor pod and return its output."""
        runtime = ("--runtime", "io.containerd.runsc.v1")
        kind = "io.kubernetes.cri.container-type"
        pod = f"pod-{name}"
        self.ctr("run", "-d", *runtime, "--annotation", f"{kind}=sandbox", IMAGE, pod, "/usr/local/bin/catatonit", "-P")
        try:
            marks = ("--annotation", f"{kind}=container", "--annotation", f"io.kubernetes.cri.sandbox-id={pod}")
            return self.ctr("run", "--rm", *runtime, *marks, IMAGE, name, *argv).stdout
        finally:
            self.ctr("tasks", "rm", "--force", pod, check=False)
            self.ctr("containers", "rm", pod, check=False)


def make_host(folder: Path, version: str, text: str | None, monkeypatch: pytest.MonkeyPatch, gvisor: bool = False) -> Host:
    """Return a host with that configuration; paths in it that would leave the host's folder lead into it."""
    monkeypatch.setenv("PATH", ensure(version).path)
    if text is not None:
        spec = folder / "base-runtime-spec.json"
        text = text.replace("/etc/containerd/base-runtime-spec.json", str(spec))
        text = text.replace("/var/lib/containerd", f"{folder}/lib").replace("/opt/containerd", f"{folder}/opt")
        if str(spec) in text:
            spec.write_text(subprocess.run(["ctr", "oci", "spec"], capture_output=True, text=True, check=True).stdout)
    host = Host(folder, config_text=text or "", bin_dir=runsc_dir(version, folder / "bin") if gvisor else None)
    if text is None:
        os.unlink(host.config_path)
    return host
