# Copyright (c) 2026, the ggen.gvisor authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""Who owns a pod's life: a process of its own, so that a killed module, SSH connection or controller leaves nothing behind.

The module forks the supervisor, scans the workspace meanwhile, and says when the job may begin. The supervisor sees the end of
their pipe when the module is gone, whatever killed it. If the supervisor itself is killed the module removes the pod; if both
are, the next run does: each pod has a folder with a lock that is free only when both are gone.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import select
import signal
import struct
import time
from typing import Any, Callable, Dict, Iterator, List, Mapping, NamedTuple, NoReturn, Optional, Sequence, Tuple, Union

from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError, rights_fix
from ansible_collections.ggen.gvisor.plugins.module_utils._base.files import atomic_write
from ansible_collections.ggen.gvisor.plugins.module_utils._containerd.ctr import Ctr
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox import audit, secret_files
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.binds import bind, unbind
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.cgroup import groups_of, remove_groups
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.cleaning import Note, clean_noted
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.host_tools import HostTools
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.limits import Room, RoomWatch
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.mount_points import remove_points
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.pinned import FOLDER, Pinned, pin
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.pipes import Outlet, write_out
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.pod import GROUP, LABEL, Command, Pod, PodSpec
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.terminal import Console, Typed
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.walker import remove_tree

REMOVE_SECONDS = 120.0  # for a pod's own folder, which may hold copies of workspaces
SWEEP_SECONDS = 30.0  # for what earlier runs left; what is not done then the next run goes on with
DEFAULT_STATE_DIR = "/var/lib/ggen.gvisor"
_GO = struct.Struct("=d")  # when the job must have ended (time.monotonic)


class PodFolder:
    """A pod's private folder: locked as long as anyone who answers for the pod is alive."""

    def __init__(self, state_dir: str, pod: str, ctr: Ctr) -> None:
        self.path = os.path.join(state_dir, "pods", pod)
        self.ctr = ctr
        try:
            os.makedirs(os.path.dirname(self.path), mode=0o700, exist_ok=True)
            with _registry(state_dir):
                os.mkdir(self.path, 0o700)
                self.lock = _lock(self.path)
            for name in ("mounts", "notes"):
                os.mkdir(os.path.join(self.path, name), 0o700)
            with open(os.path.join(self.path, "pod.json"), "w", encoding="utf-8") as stream:
                json.dump({"address": ctr.address, "namespace": ctr.namespace, "program": ctr.program}, stream)
        except OSError as error:
            raise GvisorError(f"{self.path} cannot be made: {error.strerror}{rights_fix(error)}", path=self.path) from error

    def bind(self, pinned: Pinned) -> str:
        """Return a path in the folder that shows what ``pinned`` holds until the folder is removed. Raises GvisorError."""
        target = self.mount_point()
        bind(pinned, target, self.ctr.address)
        return target

    def mount_point(self) -> str:
        """Return the path of a mount to be made in the folder, which is unmounted when the folder is removed."""
        mounts = os.path.join(self.path, "mounts")
        return os.path.join(mounts, str(len(os.listdir(mounts))))

    def place_secrets(self, secrets: Mapping[str, bytes], user: str) -> str:
        """Return a path in the folder that has the secrets in memory, for ``user`` (uid:gid) alone. Raises GvisorError."""
        target = self.mount_point()
        secret_files.place(secrets, target, *map(int, user.split(":")), self.ctr.address)
        return target

    @property
    def descriptors(self) -> List[int]:
        """What the pod's supervisor keeps open for it."""
        return [self.lock]

    def pod(self, spec: PodSpec) -> Pod:
        """Return the pod that this is the folder of."""
        return Pod(self.ctr, spec, self.path)

    def note(self, name: str, note: Note) -> None:
        """Write down what cleaning up after a job needs, before the job begins. Raises OSError."""
        atomic_write(os.path.join(self.path, "notes", name), json.dumps(note._asdict()).encode(), 0o600, durable=False)

    def done(self, name: str) -> None:
        """Forget the note: what it says was done, and nobody can write there any more."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(self.path, "notes", name))

    def remove(self) -> None:
        """Do what the notes say that are left, remove the folder and what is in it, and give up the lock."""
        settle(self.path, time.monotonic() + REMOVE_SECONDS)
        with contextlib.suppress(OSError):
            os.close(self.lock)


def settle(folder: str, deadline: float) -> List[str]:
    """Clean up what the notes in a pod's folder tell of, and remove the folder with its mounts; return what was found, and what could not be done."""
    said: List[str] = audit.settle(folder)
    for name in _names(os.path.join(folder, "notes")):
        try:
            with open(os.path.join(folder, "notes", name), encoding="utf-8") as stream:
                fields = json.load(stream)
            cleaned = clean_noted(fields)
            if cleaned.count:
                said.append(
                    f"set-user-id or set-group-id bits that a run which was killed had left in {fields['path']} were taken off "
                    f"{cleaned.count} files: {', '.join(cleaned.stripped[:5])}"
                )
            said += [f"{fields['path']}: {problem}" for problem in (*cleaned.refused, *cleaned.problems)]
        except GvisorError as error:
            said.append(error.message)
        except (OSError, ValueError, TypeError) as error:
            said.append(f"{folder}/notes/{name}: {error}")
    said += remove_points(folder)
    for name in _names(os.path.join(folder, "mounts")):
        try:
            unbind(os.path.join(folder, "mounts", name))
        except OSError as error:
            said.append(f"{folder}/mounts/{name}: {error.strerror}")
    try:
        above = os.open(os.path.dirname(folder), FOLDER)
        try:
            said += [
                f"{folder} could not be removed whole: {problem}" for problem in remove_tree(above, os.path.basename(folder), deadline)[:1]
            ]
        finally:
            os.close(above)
    except OSError as error:
        said.append(f"{folder}: {error.strerror}")
    return said


def _names(folder: str) -> List[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


@contextlib.contextmanager
def _registry(state_dir: str) -> Iterator[None]:
    """Hold off others for the moment between making a folder and locking it."""
    descriptor = os.open(os.path.join(state_dir, "pods", ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _lock(folder: str) -> int:
    """Return the descriptor that holds the folder's lock. Raises BlockingIOError when somebody alive has it."""
    descriptor = os.open(os.path.join(folder, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def owner_of(state_dir: str) -> str:
    """Return the sign of a state folder: several may share a containerd, and each sweeps what is its own."""
    return hashlib.sha256(os.path.realpath(state_dir).encode("utf-8", "surrogateescape")).hexdigest()[:12]


def pod_of(ctr: Ctr, state_dir: str, name: str) -> Pod:
    """Return a pod of another run, of which no more is known than its name."""
    return Pod(ctr, PodSpec(name, "", "", [], HostTools("", ""), owner=owner_of(state_dir)), os.path.join(state_dir, "pods", name))


def sweep(state_dir: str, ctr: Ctr) -> List[str]:
    """Remove pods whose owners were killed, and those of which the state folder does not know; return what was done, and what could not be."""
    # First: a pod that ends meanwhile has its folder until it is gone.
    unknown = _unknown(state_dir, ctr)
    said = sweep_folders(state_dir)
    for name in unknown:
        pod = pod_of(ctr, state_dir, name)
        try:
            remove_groups(pod.spec.group())
            pod.remove()
            said.append(f"pod {name}, which was still there though its run had ended, was removed")
        except GvisorError as error:
            said.append(error.message)
    return said


def _unknown(state_dir: str, ctr: Ctr) -> List[str]:
    """Return the pods that are ours by their label or their control group, and have no folder: something else than a run made, or kept, them."""
    owner = owner_of(state_dir)
    prefix = f"{GROUP}.{owner}."
    there = {name[len(prefix) :] for name in groups_of(prefix)}
    there.update(ctr.run("containers", "ls", "--quiet", f'labels."{LABEL}"=={owner}').stdout.split())
    return sorted(name for name in there if not os.path.isdir(os.path.join(state_dir, "pods", name)))


def sweep_folders(state_dir: str) -> List[str]:
    """Remove the pods of runs that were killed, with their folders; return what was done, and what could not be."""
    root = os.path.join(state_dir, "pods")
    said: List[str] = []
    stale: Dict[str, int] = {}
    if not os.path.isdir(root):
        return said
    with _registry(state_dir):
        for name in sorted(os.listdir(root)):
            folder = os.path.join(root, name)
            if name != ".lock":
                with contextlib.suppress(OSError):
                    stale[folder] = _lock(folder)
    deadline = time.monotonic() + SWEEP_SECONDS
    for folder, lock in stale.items():
        name = os.path.basename(folder)
        try:
            with open(os.path.join(folder, "pod.json"), encoding="utf-8") as stream:
                known = json.load(stream)
            if os.path.exists(known["address"]):
                ctr = Ctr(known["address"], known["namespace"], known["program"])
                pod_of(ctr, state_dir, name).remove()
                said.append(f"pod {name} of an earlier run that was killed was removed")
            elif os.path.isdir(os.path.dirname(known["address"])):
                said.append(f"pod {name} of an earlier run that was killed is still there: {known['address']} is missing")
                continue
            # A containerd whose whole run folder is gone has no pods.
            said += settle(folder, deadline)
        except (OSError, ValueError, KeyError, TypeError):
            said += settle(folder, deadline)  # killed before the pod was begun
        except GvisorError as error:
            said.append(error.message)
        finally:
            os.close(lock)
    return said


def remove_state(state_dir: str) -> Tuple[List[str], List[str]]:
    """Remove the folder of all runs, with what killed ones left; return what was done, and what keeps it there. Raises GvisorError or OSError.

    Pods whose containerd is gone are killed by their processes.
    """
    said, stays = sweep_folders(state_dir), []
    root = os.path.join(state_dir, "pods")
    for name in _names(root):
        folder = os.path.join(root, name)
        if name == ".lock":
            continue
        try:
            lock = _lock(folder)
        except OSError:
            stays.append(f"pod {name} is of a run that goes on")
            continue
        try:
            pod_of(Ctr(), state_dir, name).kill()
            said += settle(folder, time.monotonic() + REMOVE_SECONDS)
        finally:
            os.close(lock)
    if not stays:
        for group in groups_of(f"{GROUP}.{owner_of(state_dir)}."):  # of which the folder does not know
            remove_groups(group)
        with pin(os.path.dirname(os.path.abspath(state_dir)), "state_dir") as above:
            folder_above = os.open(".", FOLDER, dir_fd=above.descriptor)
            try:
                stays = remove_tree(folder_above, os.path.basename(os.path.abspath(state_dir)), time.monotonic() + REMOVE_SECONDS)
            finally:
                os.close(folder_above)
    return said, stays


# Takes what a command prints, as it comes: 1 or 2, for standard output or error, and the bytes.
Live = Callable[[int, bytes], None]


class _Ends(NamedTuple):
    """The supervisor's ends of its pipes."""

    down: int
    up: int
    live: Sequence[int]


class Supervisor:
    """The module's side: start it, say go, take the results. A context manager: nothing is left when it ends.

    ``live`` is told what the commands print as it comes; none of it is lost, and a command waits while ``live`` does not take it.
    """

    def __init__(self, folder: PodFolder, spec: PodSpec, commands: List[Command], live: Optional[Live] = None) -> None:
        self.folder = folder
        self.spec = spec
        self._rest = b""
        self._live = live
        down_read, self._down = os.pipe()
        self._up, up_write = os.pipe()
        pairs = [os.pipe() for _stream in (1, 2)] if live else []
        self._streams = {read: number for number, (read, _write) in enumerate(pairs, 1)}
        ends = _Ends(down_read, up_write, [write for _read, write in pairs])
        stdin, terminal = commands[0].stdin, commands[0].terminal
        self._typed: Union[Typed, Console, None] = None
        if terminal is not None:
            self._typed = Console(terminal)
            commands = [commands[0]._replace(terminal=self._typed.reading)]
        elif stdin is not None and os.isatty(stdin):
            self._typed = Typed(stdin)
            commands = [commands[0]._replace(stdin=self._typed.reading)]
        self.child = os.fork()
        if self.child == 0:
            _supervise(folder, spec, commands, ends)
        for end in (ends.down, ends.up, *ends.live, *([self._typed.reading] if self._typed else [])):
            os.close(end)

    def __enter__(self) -> Supervisor:
        return self

    def __exit__(self, *_exc: object) -> None:
        """Wait until the supervisor has removed everything; if it died before, do that here."""
        self._live = None
        self._end_typing()
        self._give_up()
        with contextlib.suppress(GvisorError):
            while self._message() is not None:
                pass
        for end in (self._up, self._down, *self._streams):
            os.close(end)
        _pid, status = os.waitpid(self.child, 0)
        if status != 0 and os.path.exists(self.folder.path):
            self.folder.pod(self.spec).remove()
            self.folder.remove()

    def go(self, deadline: float) -> None:
        """Let the job begin as soon as its pod is there; it is killed after ``deadline`` (time.monotonic), whatever its own time is."""
        with contextlib.suppress(BrokenPipeError):
            os.write(self._down, _GO.pack(deadline))

    def expect(self, name: str) -> Dict[str, Any]:
        """Return the supervisor's message ``name``. Raises GvisorError: its error, or that it or the controller is gone."""
        message = self._message()
        if message is None:
            raise GvisorError(f"the process that watches pod {self.spec.id} was killed; the pod was removed")
        if message["name"] == "error":
            raise GvisorError(message["message"], **message["details"])
        if message["name"] != name:
            raise GvisorError(f"expected {name} of pod {self.spec.id} and got {message['name']}")
        if name == "job":
            self._end_typing()
        return message

    def _give_up(self) -> None:
        """Have the supervisor see the end of its pipe; a second time that is nothing."""
        os.close(self._down)
        self._down = os.open(os.devnull, os.O_WRONLY)

    def _end_typing(self) -> None:
        if self._typed:
            self._typed.end()
            self._typed = None

    def _hand_on(self, stream: int, poll: "select.poll") -> None:
        data = os.read(stream, 1 << 16)
        if not data:
            poll.unregister(stream)
            del self._streams[stream]
            os.close(stream)
        elif self._live:
            self._live(self._streams[stream], data)

    def rest(self) -> None:
        """Have ``live`` told what a command has printed that has ended."""
        poll = select.poll()
        for stream in self._streams:
            poll.register(stream, select.POLLIN)
        while self._streams:
            for stream, _event in poll.poll():
                self._hand_on(stream, poll)

    def _message(self) -> Optional[Dict[str, Any]]:
        poll = select.poll()
        poll.register(self._up, select.POLLIN)
        # Standard output leads to the controller: its other end closes when the SSH connection does.
        poll.register(1, 0)
        for stream in self._streams:
            poll.register(stream, select.POLLIN)
        while b"\n" not in self._rest:
            timeout = self._typed.watch(poll) if self._typed else None
            for descriptor, _event in poll.poll(timeout):
                if self._typed and self._typed.take(descriptor):
                    continue
                if descriptor in self._streams:
                    self._hand_on(descriptor, poll)
                    continue
                if descriptor == 1:
                    poll.unregister(1)
                    self._give_up()
                    continue
                data = os.read(self._up, 1 << 16)
                if not data:
                    return None
                self._rest += data
        line, _newline, self._rest = self._rest.partition(b"\n")
        return json.loads(line.decode("utf-8"))


def _supervise(folder: PodFolder, spec: PodSpec, commands: List[Command], ends: _Ends) -> NoReturn:
    """Be the supervisor: never returns into the module's code."""
    code = 1
    try:
        os.setsid()
        # A module's own standard input is closed below; a command may be fed with a copy of it.
        kinds = [name for name in ("stdin", "terminal") if getattr(commands[0], name) is not None]
        sources = [os.dup(getattr(commands[0], name)) for name in kinds]
        if kinds:  # alone
            commands = [commands[0]._replace(**dict(zip(kinds, sources)))]
        # What the module holds for others would outlive it here: their locks, and their pipes, whose end they wait for.
        for name in os.listdir("/proc/self/fd"):
            if int(name) not in (0, 1, 2, *ends[:2], *ends.live, *folder.descriptors, *sources):
                with contextlib.suppress(OSError):
                    os.close(int(name))
        for stream in ends.live:
            os.set_blocking(stream, False)
        # Ansible waits for the end of the module's output: nobody else may hold it open.
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(null, descriptor)
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGPIPE):
            signal.signal(number, signal.SIG_IGN)  # the pod is removed whoever asks for an end: see the pipe
        pod = folder.pod(spec)

        def say(name: str, **fields: Any) -> None:
            data = json.dumps({"name": name, **fields}).encode() + b"\n"
            with contextlib.suppress(BrokenPipeError):
                while data:
                    data = data[os.write(ends.up, data) :]

        try:
            _work(pod, commands, ends, say)
        except GvisorError as error:
            say("error", message=error.message, details=error.details)
        finally:
            begin = time.monotonic()
            pod.remove()
        say("removed", seconds=round(time.monotonic() - begin, 3))
        # The module may still look at a copy of the workspace in the folder: its end of the pipe closes when it is done.
        while os.read(ends.down, 1 << 10):
            pass
        folder.remove()
        code = 0
    finally:
        os._exit(code)


def _work(pod: Pod, commands: List[Command], ends: _Ends, say: Any) -> None:
    """Run the commands one after another, each when the module says so, until one has not ended by itself."""
    begin = time.monotonic()
    kernel = pod.start()
    warnings = pod.limit()
    trace = pod.trace()
    ready = round(time.monotonic() - begin, 3)
    struck: List[str] = []
    places = dict(pod.spec.places)
    if not pod.spec.read_only:
        places.update((f"the root file system of pod {pod.spec.id}", path) for path in pod.rootfs())
    for number, command in enumerate(commands, 1):
        went = os.read(ends.down, _GO.size)
        if len(went) != _GO.size:
            return
        (deadline,) = _GO.unpack(went)
        command = command._replace(timeout=max(min(command.timeout, deadline - time.monotonic()), 0.0))
        with Room(places, pod.spec.limits.keep_free) as room, RoomWatch(room) as watch:
            live = [Outlet(descriptor) for descriptor in ends.live]
            if command.terminal is None:
                job = pod.execute(command, ends.down, alone=len(commands) == 1, room=watch, live=live)
            else:
                job = pod.attach(command, command.terminal, ends.down, watch)
        before, struck = struck, pod.struck()
        # The workspace stays as it is from here on.
        last = number == len(commands) or job.why != "exit"
        if last and not pod.kill():
            pod.remove()
        write_out(live, ends.down)
        if last:
            for stream in ends.live:
                os.close(stream)
        say(
            "job",
            rc=job.rc,
            why=job.why,
            space=watch.said,
            stdout=job.stdout.text(),
            stderr=job.stderr.text(),
            stdout_bytes=job.stdout.size,
            stderr_bytes=job.stderr.size,
            truncated=job.stdout.truncated or job.stderr.truncated,
            struck=[*(name for name in struck if name not in before), *(["space"] if job.why == "space" else [])],
            kernel=kernel or None,
            warnings=warnings,
            trace=trace.end_of_command() if trace else None,
            timings={"pod": ready, "job": round(job.seconds, 3)},
        )
        if job.why != "exit":
            return
        ready, warnings = 0.0, []
