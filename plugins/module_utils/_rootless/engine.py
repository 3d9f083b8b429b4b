# Copyright (c) 2026, the ggen.gvisor authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""Pods of a user who is not root, without containerd: runsc itself, with the same jobs and the same results. See docs/rootless.md.

The sandbox is started in a user namespace with mounts of its own. What it sees of the host is mounted there by descriptor, so that no path is looked
up twice, and all of these mounts are gone with its last process.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import stat
import subprocess
import time
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Tuple

from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._base.kernel import NODEV, NOEXEC, NOSUID, die_with_parent, mount
from ansible_collections.ggen.gvisor.plugins.module_utils._base.processes import descendants
from ansible_collections.ggen.gvisor.plugins.module_utils._containerd.ctr import Ctr
from ansible_collections.ggen.gvisor.plugins.module_utils._containerd.image_config import ImageConfig
from ansible_collections.ggen.gvisor.plugins.module_utils._rootless import host
from ansible_collections.ggen.gvisor.plugins.module_utils._rootless.bundle import Bundle, bundles_folder, open_image
from ansible_collections.ggen.gvisor.plugins.module_utils._rootless.limits import (
    ROOTLESS_FIXES,
    MemoryWatch,
    end_all,
    take,
    unenforced,
)
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.host_tools import EMPTY
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.jobs import Engine, Job
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.limits import check_ulimits, judge
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.network import HOST_NAME, HOSTS_FILE
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.pinned import Pinned, through
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.pipes import HeadAndTail, UntilMark, read_until
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.pod import (
    END_TIMEOUT,
    KILL_TIMEOUT,
    PRELOAD,
    START_TIMEOUT,
    Mount,
    Pod,
    PodSpec,
    first_line,
    gather,
    is_user,
    opening,
    without_time,
)
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.supervisor import DEFAULT_STATE_DIR, PodFolder, sweep_folders
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.surroundings import SEARCH_PATH, SPARE_HOME

NAMESPACE = "rootless"  # what the audit trail calls the place of these pods
NO_CONTAINERD = Ctr("", NAMESPACE, "")
UID, GID = 0, 0
INSIDE = f"{UID}:{GID}"  # who a command is in the sandbox: the one user that is mapped there, without any of root's rights
SECRETS = "secrets"  # the place of secrets in a pod's folder


def state_folder(environment: Mapping[str, str]) -> str:
    """Return, for the user who has this ``environment``, the folder for what runs need while they last, and for their audit trail."""
    state = environment.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
    return os.path.join(state, "ggen.gvisor")


def open_engine(params: Mapping[str, Any]) -> "Tuple[Rootless, Dict[str, Any]]":
    """Return the engine for a job's options, among them ``runsc`` and as ``image`` a path, and these options as it needs them.

    Raises GvisorError where the host does not allow it, before anything is done, or OSError.
    """
    host.check()
    image = params["image"]
    if not os.path.isabs(image):
        raise GvisorError(
            f"image={image!r} is no absolute path; without containerd name an image's archive, or a folder that is a root file system"
        )
    if not os.path.exists(image):
        raise GvisorError(f"image archive {image} does not exist on this host; build or copy it", missing="image")
    engine = Rootless(params["runsc"], open_image(image, os.uname().machine, bundles_folder(os.environ)))
    return engine, own_options(params, engine.bundle)


def own_options(params: Mapping[str, Any], bundle: Bundle) -> Dict[str, Any]:
    """Return a job's options as they are without root: the caller is who the command runs as. Raises GvisorError."""
    uid, gid = os.geteuid(), os.getegid()
    own = f"{uid}:{gid}"
    if params["user"] not in (None, str(uid), own):
        raise GvisorError(f"user={params['user']!r} is not possible without root: the command runs as the caller, {own}; leave it out")
    if params.get("metrics") and uid != 0:
        raise GvisorError(f"metrics={params['metrics']!r} is not possible without root: the host's counts are root's; leave it out")
    state_dir = state_folder(os.environ) if params["state_dir"] == DEFAULT_STATE_DIR else params["state_dir"]
    # Root must say so, as with containerd.
    return {**params, "image": bundle.name, "state_dir": state_dir, "user": params["user"] if uid == 0 else own}


class Rootless(Engine):
    """What runs pods: the program ``runsc``, with one image's root file system."""

    def __init__(self, runsc: str, bundle: Bundle) -> None:
        """Raises GvisorError where there is no such program."""
        super().__init__(NO_CONTAINERD)
        self.runsc = runsc
        self.bundle = bundle
        if not os.path.isabs(runsc) or not os.path.isfile(runsc) or not os.access(runsc, os.X_OK):
            raise GvisorError(f"runsc={runsc} is no program that this user can run; name gVisor's by its absolute path", missing="runsc")

    def connect(self) -> None:
        """There is nothing to connect to."""

    def check(self, job: Job) -> None:
        """Raise GvisorError where a job's workspace is not the caller's."""
        own = (os.geteuid(), os.getegid())
        if job.user != f"{own[0]}:{own[1]}":
            raise GvisorError(f"without root a command runs as the caller, {own[0]}:{own[1]}, and not as {job.user}")
        if job.owner is not None and job.owner[0] != own[0]:
            raise GvisorError(
                f"workspace {job.workspace} belongs to {job.owner[0]}:{job.owner[1]}, and without root a command runs as the caller, "
                f"{own[0]}:{own[1]}; name a folder of your own"
            )

    def image(self, params: Mapping[str, Any]) -> ImageConfig:  # noqa: ARG002 - an engine may have several
        """Return what the image says of itself."""
        return self.bundle.config

    def folder(self, state_dir: str, pod: str) -> PodFolder:
        """Return a new pod's own folder. Raises GvisorError."""
        return RootlessFolder(state_dir, pod, self)

    def sweep(self, state_dir: str) -> List[str]:
        """Remove what killed runs left; return what was done, and what could not be."""
        return sweep_folders(state_dir)


class RootlessFolder(PodFolder):
    """The folder of a pod, which shows what it sees of the host by descriptors."""

    def __init__(self, state_dir: str, pod: str, engine: Rootless) -> None:
        super().__init__(state_dir, pod, engine.ctr)
        self.engine = engine
        self.secrets: Mapping[str, bytes] = {}
        self._shown: List[int] = []

    def bind(self, pinned: Pinned) -> str:
        """Return a path that leads to what ``pinned`` holds, in this process and in the pod's supervisor."""
        descriptor = os.dup(pinned.descriptor)
        self._shown.append(descriptor)
        return f"{through(descriptor)}/." if pinned.is_folder else through(descriptor)

    def place_secrets(self, secrets: Mapping[str, bytes], user: str) -> str:  # noqa: ARG002 - there is one alone
        """Return the path where the sandbox' own mounts have the secrets in memory."""
        self.secrets = secrets
        return os.path.join(self.path, SECRETS)

    @property
    def descriptors(self) -> List[int]:
        """What the pod's supervisor keeps open for it."""
        return [*super().descriptors, *self._shown]

    def pod(self, spec: PodSpec) -> Pod:
        """Return the pod that this is the folder of."""
        return RootlessPod(self, spec)


class View(NamedTuple):
    """What is mounted in the sandbox' own namespace before it starts: a place in the pod's folder."""

    source: str
    place: str


class RootlessPod(Pod):
    """One sandbox of runsc's own. The process that starts it is the parent of all that it needs."""

    def __init__(self, folder: RootlessFolder, spec: PodSpec) -> None:
        super().__init__(folder.ctr, spec._replace(user=INSIDE), folder.path)
        self.engine = folder.engine
        self.secrets = folder.secrets
        self.watch: Optional[MemoryWatch] = None
        self._runsc: Optional[subprocess.Popen] = None

    def start(self) -> str:
        """Start the pod and return the first line of its kernel log. Raises GvisorError when it does not start, or is not gVisor."""
        self._write_hosts()
        begin = time.monotonic()
        try:
            process = self._run()
        except OSError as error:
            raise GvisorError(f"{error.filename or self.folder}: {error.strerror}") from error
        out, err = HeadAndTail(1 << 16), HeadAndTail(1 << 16)
        said = UntilMark(f"{self.spec.id} ".encode(), out)
        stdin, stdout, stderr = (stream.fileno() for stream in (process.stdin, process.stdout, process.stderr))
        others = {stderr: gather(err)}
        if not read_until({stdout: said}, others, begin + START_TIMEOUT, (stdin, opening(self.spec))):
            raise GvisorError(
                f"pod {self.spec.id} did not start within {START_TIMEOUT:g} s: {_explain(err.text()) or 'runsc says nothing'}"
            )
        if said.line is None:
            read_until(others, {}, time.monotonic() + KILL_TIMEOUT)
            raise GvisorError(f"the sandbox did not start with {self.engine.runsc}: {_explain(err.text())}", runsc_stderr=err.text())
        self._pipes = [stdin, stdout, stderr]
        if not is_user(said.line, INSIDE):
            raise GvisorError(f"a process in the pod is not {INSIDE} without further rights: {said.line}; nothing was started")
        self._unlimited = check_ulimits(out.text(), self.spec.limits.file_size)
        return without_time(first_line(out.text(), err.text(), self.engine.runsc))

    def _run(self) -> subprocess.Popen:
        """Start the sandbox in namespaces of its own. Raises GvisorError or OSError."""
        host.adopt_orphans()
        views, mounts = self._views()
        bundle, root = os.path.join(self.folder, "bundle"), os.path.join(self.folder, "root")
        for place in (bundle, root, os.path.join(self.folder, "runsc")):
            os.mkdir(place, 0o700)
        for view in views:
            _make_place(view)
        with open(os.path.join(bundle, "config.json"), "w", encoding="utf-8", errors="surrogateescape") as stream:
            json.dump(self._config(root, mounts), stream, ensure_ascii=False)
        reading, writing = os.pipe()

        def enter() -> None:
            try:
                seen = [None if view.source == view.place else host.Seen.of(view.source) for view in views]
                host.enter()
                take(self.spec.limits.group)  # tasks are counted in the new namespace
                self._mount(root, list(zip(views, seen)), [mount.target for mount in mounts])
                die_with_parent(signal.SIGKILL)
            except (OSError, ValueError) as error:
                said = f"{getattr(error, 'filename', None) or 'a namespace'}: {getattr(error, 'strerror', None) or error}"
                os.write(writing, said.encode("utf-8", "backslashreplace"))
                raise

        overlay = "none" if self.spec.read_only else "root:memory"
        argv = [self.engine.runsc, "--rootless", "--network=none", f"--overlay2={overlay}", "--root", os.path.join(self.folder, "runsc")]
        try:
            # Of the caller's variables none is runsc's business. run_command waits for the end.
            self._runsc = subprocess.Popen(  # pylint: disable=ansible-bad-function,subprocess-popen-preexec-fn
                [*argv, "run", "--bundle", bundle, self.spec.id],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={"PATH": SEARCH_PATH, "LC_ALL": "C"},
                preexec_fn=enter,
            )
        except subprocess.SubprocessError as error:
            os.write(writing, b".")
            said = os.read(reading, 1 << 12).decode("utf-8", "replace")
            raise GvisorError(f"the sandbox' own namespaces cannot be made ({said}): {host.reason()}") from error
        finally:
            os.close(reading)
            os.close(writing)
        os.set_blocking(self._runsc.stdin.fileno(), False)
        return self._runsc

    def _views(self) -> Tuple[List[View], List[Mount]]:
        """Return what is to be mounted before runsc starts, and what runsc then mounts from there, the outer ones first."""
        spec = self.spec
        targets = [mount.target for mount in spec.mounts]
        hosts = [] if HOSTS_FILE in targets else [Mount(os.path.join(self.folder, "hosts"), HOSTS_FILE)]
        tools = [Mount(spec.tools.folder, spec.tools.target), Mount(os.path.join(spec.tools.folder, EMPTY), PRELOAD)]
        found, views = [], []
        for number, shown in enumerate([*hosts, *sorted(spec.mounts, key=lambda mount: mount.target.count("/")), *tools]):
            place = shown.source
            if place != os.path.join(self.folder, SECRETS):
                place = os.path.join(self.folder, "mounts", str(number))
            views.append(View(shown.source, place))
            found.append(shown._replace(source=place))
        return views, found

    def _mount(self, root: str, views: "List[Tuple[View, Optional[host.Seen]]]", targets: List[str]) -> None:
        """Mount what the sandbox sees, in its own namespace: nobody outside of it does. Raises OSError."""
        upper, work = os.path.join(root, "upper"), os.path.join(root, "work")
        mount("tmpfs", root, "tmpfs", NOSUID | NODEV, "mode=0700")
        for name in ("upper", "work", "whole"):
            os.mkdir(os.path.join(root, name), 0o755)
        os.chmod(upper, 0o755)  # noqa: S103 - the root of the pod's file system
        # Places for mounts lie over what the image has there: no link of it leads elsewhere, and nothing is made in what other runs use.
        for target in [*targets, SPARE_HOME, "/tmp"]:  # noqa: S108 - in the pod
            if not any(target.startswith(f"{other}/") for other in targets):
                is_file = any(of == target and seen is not None and not seen.is_folder for (_view, seen), of in zip(views, targets))
                _make_point(upper, target, is_file)
        layers = f"lowerdir={_escape(self.engine.bundle.rootfs)},upperdir={_escape(upper)},workdir={_escape(work)}"
        mount("overlay", os.path.join(root, "whole"), "overlay", NOSUID | NODEV, layers)
        for view, seen in views:
            if seen is None:
                self._mount_secrets(view.place)
            else:
                seen.bind(view.place)

    def _mount_secrets(self, place: str) -> None:
        mount("tmpfs", place, "tmpfs", NOSUID | NODEV | NOEXEC, "mode=0700")
        for name, value in self.secrets.items():
            with open(os.open(os.path.join(place, name), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o400), "wb") as stream:
                stream.write(value)
        os.chmod(place, 0o500)

    def _config(self, root: str, mounts: List[Mount]) -> Dict[str, Any]:
        """Return the OCI runtime's configuration."""
        targets = [mount.target for mount in mounts]
        temporary = [] if "/tmp" in targets else [("/tmp", "mode=1777", "size=1g")]  # noqa: S108 - in the pod
        fixed: List[Dict[str, Any]] = [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
        ]
        for place, mode, size in [(SPARE_HOME, "mode=0700", "size=256m"), *temporary]:
            fixed.append({"destination": place, "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", mode, size]})
        binds = [
            {
                "destination": mount.target,
                "type": "bind",
                "source": mount.source,
                "options": ["rbind", "nosuid", "nodev", "rw" if mount.writable else "ro"],
            }
            for mount in mounts
        ]
        return {
            "ociVersion": "1.0.2",
            "hostname": HOST_NAME,
            "root": {"path": os.path.join(root, "whole"), "readonly": self.spec.read_only},
            "process": {
                "user": {"uid": UID, "gid": GID},
                "args": self.spec.tools.argv("sh"),
                "env": [f"PATH={SEARCH_PATH}"],
                "cwd": "/",
                "noNewPrivileges": True,
                "capabilities": {},
            },
            "mounts": [*fixed, *binds],
            "linux": {"namespaces": [{"type": name} for name in ("pid", "network", "ipc", "uts", "mount")]},
        }

    def limit(self) -> List[str]:
        """Put the pod's limits into force; return warnings. Raises GvisorError for those that cannot be where they are required."""
        limits = self.spec.limits
        if limits.group.memory is not None and self._runsc is not None:
            with contextlib.suppress(ProcessLookupError):
                self.watch = MemoryWatch(descendants(self._runsc.pid), limits.group.memory)
        found = {**self._unlimited, **unenforced(limits.group, self.watch is not None)}
        return judge(found, limits.required, ROOTLESS_FIXES)

    def _runsc_argv(self) -> List[str]:
        """Return the command line that asks the pod's sandbox, without what to ask."""
        return [self.engine.runsc, "--rootless", "--root", os.path.join(self.folder, "runsc")]

    def struck(self) -> List[str]:
        """Return the limits that the pod has reached."""
        return self.watch.struck() if self.watch else []

    def pid(self) -> Optional[int]:
        """Return the host's process that is runsc, if it is there."""
        return self._runsc.pid if self._runsc else None

    def _dead(self) -> bool:
        if self._runsc is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._runsc.wait(KILL_TIMEOUT)  # its streams have ended, or it was killed
        return True

    def kill(self) -> bool:
        """Kill the sandbox and everything that it needs, at once; returns whether it is gone."""
        if self._runsc is None:  # another process started it, and it died with that
            return True
        gone = end_all(END_TIMEOUT)
        self._runsc.poll()
        return gone

    def remove(self) -> None:
        """Kill all; the mounts are gone with it. Raises GvisorError where it cannot."""
        if self.watch:
            self.watch.close()
        if not self.kill():
            raise GvisorError(f"pod {self.spec.id} could not be removed: its processes are still there")
        if self._runsc is not None:
            for stream in (self._runsc.stdin, self._runsc.stdout, self._runsc.stderr):
                with contextlib.suppress(OSError):
                    stream.close()
        self._pipes = []

    def rootfs(self) -> List[str]:
        """Return nothing: what a pod writes to its root file system is in memory."""
        return []


def _make_place(view: View) -> None:
    """Make what is mounted over. Raises OSError."""
    if view.source == view.place or stat.S_ISDIR(os.stat(view.source).st_mode):
        os.mkdir(view.place, 0o700)
    else:
        os.close(os.open(view.place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


def _make_point(upper: str, target: str, is_file: bool) -> None:
    """Make the place of a mount in the empty layer ``upper``. Raises OSError."""
    path = upper + target
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    if is_file:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644))
    else:
        os.makedirs(path, mode=0o755, exist_ok=True)


def _escape(path: str) -> str:
    """Return a path as an overlay's options have it."""
    return path.replace("\\", "\\\\").replace(",", "\\,").replace(":", "\\:")


def _explain(stderr: str) -> str:
    """Return the end of what runsc says, which is often JSON or Go's form of a log."""
    return " ".join(stderr.strip().splitlines()[-2:])
