# Copyright (c) 2026, the ggen.gvisor authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""Replace containerd's configuration files on this host: all of it happens, or none of it.

The work is done by a process in a session of its own, so that it ends well even when the connection that started it
breaks. The module only watches it: should that process be killed, the module puts the old files back, and should both be
killed, the next run on the host does (recover). What they need for that lies beside the configuration file: a journal, and for each
file a hard link to the old one, which keeps owner, mode, times and labels because it is the old file itself.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import signal
import syslog
import time
from typing import Any, Dict, List, NamedTuple, Optional

from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._base.files import atomic_write, locked, sha256_file
from ansible_collections.ggen.gvisor.plugins.module_utils._base.process import run
from ansible_collections.ggen.gvisor.plugins.module_utils._base.processes import Deaths, is_alive, now, shim_of, started_at
from ansible_collections.ggen.gvisor.plugins.module_utils._containerd.service import Service, Setup, service_for

JOURNAL = ".ggen.gvisor.transaction"
LOCK_SECONDS = 300.0  # how long a run waits for another one to be done with the folder
# The steps in their order.
STEPS = (
    "locked",
    "compared",
    "observed",
    "staged",
    "journaled",
    "backed-up",
    "switched",
    "restarted",
    "answering",
    "verified",
    "committed",
)


class Change(NamedTuple):
    """One file: where it is, the sha256 that it must have now, and its new content. None means no file."""

    path: str
    before: Optional[str]
    after: Optional[bytes]

    @property
    def new(self) -> str:
        """The new file's name before it takes its place; no pattern for configuration files matches it."""
        return self._beside("new")

    @property
    def old(self) -> str:
        """The name under which the old file stays until the transaction is over."""
        return self._beside("old")

    @property
    def after_sha(self) -> Optional[str]:
        """The new content's sha256."""
        return None if self.after is None else hashlib.sha256(self.after).hexdigest()

    def _beside(self, kind: str) -> str:
        folder, name = os.path.split(self.path)
        return os.path.join(folder, ".{0}.ggen.gvisor.{1}".format(name, kind))


def sha_of(path: str) -> Optional[str]:
    """Return the file's sha256, None when there is no file."""
    try:
        return sha256_file(path)
    except FileNotFoundError:
        return None


def dump(program: str, path: str) -> Dict[str, Any]:
    """Return what the host's containerd makes of the configuration file at ``path``: exit code, dump and notes.

    Without a file that is what it makes of an empty one. It runs in the root as services do: 1.6 looks for relative imports where it was started.
    """
    done = run([program, "--config", path if os.path.exists(path) else os.devnull, "config", "dump"], cwd="/")
    return {"rc": done.rc, "stdout": done.stdout, "stderr": done.stderr.strip()}


def meaning_of(dumped: str) -> str:
    """Return the sha256 of a dump without the names of the files that were imported: a candidate's are not those of the real file."""
    return hashlib.sha256(re.sub(r"(?m)^imports = \[.*\]\n", "", dumped).encode()).hexdigest()


def has_handler(dumped: str, name: str) -> bool:
    """Tell whether a dump has a runtime handler."""
    return bool(re.search(r"(?m)^\s*\[.*\.runtimes\.[\"']?{0}[\"']?\]".format(re.escape(name)), dumped))


class Running(NamedTuple):
    """A container's task, and the shim that looks after it."""

    namespace: str
    container: str
    pid: int
    shim: int


class Observed(NamedTuple):
    """What of a daemon must survive a restart."""

    running: bool
    answers: bool
    tasks: List[Running]
    cri: str  # "ok", "absent", or what is wrong with it
    runc: bool


def observe(service: Service) -> Observed:
    """Return what the daemon does now."""
    running = service.is_running()
    if not running or service.ctr.run("version", timeout=20).rc != 0:
        return Observed(running, False, [], "absent", False)
    return Observed(True, True, _tasks(service), _cri(service), _runc(service))


def _tasks(service: Service) -> List[Running]:
    found = []
    for namespace in service.ctr.namespaces():
        listing = _in_namespace(service, namespace, "tasks", "ls")
        for row in (line.split() for line in listing.splitlines()[1:]):
            if len(row) == 3 and row[2] == "RUNNING":
                found.append(Running(namespace, row[0], int(row[1]), shim_of(int(row[1]))))
    return found


def _in_namespace(service: Service, namespace: str, *args: str) -> str:
    return run([service.ctr.program, "--address", service.address, "--namespace", namespace, *args]).stdout


def _cri(service: Service) -> str:
    """Return "ok" when the CRI plugin and its parts are, "absent" when it is turned off, else what containerd says of it."""
    parts = [p for p in service.ctr.plugins() if p["type"].startswith("io.containerd.cri.") or (p["type"], p["id"]) == CRI]
    if CRI not in [(part["type"], part["id"]) for part in parts]:
        return "absent"
    bad = [part for part in parts if part["status"] != "ok"]
    if not bad:
        return "ok"
    details = service.ctr.run("plugins", "ls", "--detailed", "id=={0}".format(bad[0]["id"])).stdout
    reasons = [line.split(":", 1)[1].strip() for line in details.splitlines() if line.strip().startswith("Message:")]
    return "{0}.{1} is in state {2}{3}".format(bad[0]["type"], bad[0]["id"], bad[0]["status"], ": " + reasons[0] if reasons else "")


CRI = ("io.containerd.grpc.v1", "cri")


def _runc(service: Service) -> bool:
    """Tell whether the daemon can use runc: from 2.0 on it says so itself, before that its shim and runc are looked for on its PATH."""
    asked = service.ctr.run("plugins", "inspect-runtime", "--runtime", "io.containerd.runc.v2")
    if asked.rc == 0 and asked.stdout.lstrip().startswith("{"):
        return True
    path = os.environ.get("PATH")
    with contextlib.suppress(OSError), open("/proc/{0}/environ".format(service.pid()), "rb") as stream:
        path = next((os.fsdecode(part[5:]) for part in stream.read().split(b"\0") if part.startswith(b"PATH=")), path)
    runc = shutil.which("runc", path=path)
    return bool(runc and shutil.which("containerd-shim-runc-v2", path=path) and run([runc, "--version"]).rc == 0)


def verify(service: Service, before: Observed, deaths: Dict[int, float], since: float) -> Observed:
    """Return what the daemon does after a restart. Raises GvisorError when something worked before and does not any more.

    ``deaths`` tells when shims ended, ``since`` when the restart began, both in seconds after the machine's start.
    """
    after = observe(service)
    if not after.answers:
        raise service.failure("containerd does not answer on {0}".format(service.address))
    if after.cri not in ("ok", "absent") and before.cri in ("ok", "absent"):
        raise service.failure("containerd runs but its CRI plugin does not: {0}".format(after.cri))
    if after.cri == "absent" and before.cri == "ok":
        raise service.failure("containerd runs but its CRI plugin is gone")
    if before.runc and not after.runc:
        raise service.failure("containerd no longer finds runc or its shim")
    lost = _lost(service, before.tasks, after.tasks, deaths, since)
    if lost:
        names = ", ".join("{0}/{1}".format(task.namespace, task.container) for task in lost)
        raise service.failure("the restart lost running containers: {0}".format(names))
    return after


def _lost(service: Service, before: List[Running], after: List[Running], deaths: Dict[int, float], since: float) -> List[Running]:
    """Return the tasks that the restart took away.

    A container may end by itself meanwhile: then its shim stays until the new daemon has heard of it. A shim that ended between the
    restart's beginning and the new daemon's was killed, and a process that runs on but is not listed was forgotten.
    """
    back = started_at(service.pid() or 0) + 0.02  # the kernel notes it in hundredths of a second, rounded down
    kept = {(task.namespace, task.container, task.pid) for task in after}
    return sorted(
        task
        for task in before
        if (task.namespace, task.container, task.pid) not in kept
        and (since <= deaths.get(task.shim, 0.0) <= back or (task.shim not in deaths and is_alive(task.pid)))
    )


# --- one transaction ---


class Transaction:
    """One change of configuration files, as the plan from the controller describes it."""

    def __init__(self, plan: Dict[str, Any]) -> None:
        self.changes = [
            Change(os.path.realpath(f["path"]), f["before"], None if f["after"] is None else base64.b64decode(f["after"]))
            for f in plan["files"]
        ]
        self.folder = os.path.realpath(plan["folder"])
        self.backup = bool(plan.get("backup"))
        self.restart = bool(plan.get("restart"))
        self.emptied: List[str] = plan.get("emptied", [])  # folders to remove if nothing is left in them
        self.timeout = float(plan.get("timeout", 60))
        self.main = os.path.realpath(plan.get("main") or os.path.join(self.folder, "config.toml"))
        self.meaning: Optional[str] = plan.get("meaning")  # of the dump that was judged; None where none was
        self.handler: Optional[Dict[str, Any]] = plan.get("handler")  # what a service that makes the file is to have put in, or left out
        self.service_options = plan["service"]
        self.service = service_for(Setup(**plan["service"]))
        self.step = ""
        self.made: List[str] = []  # folders
        self.old_bytes: Dict[str, bytes] = {}

    def _reached(self, step: str) -> None:
        """Mark a step as done; errors tell it, and tests kill the worker here."""
        self.step = step

    def run(self) -> Dict[str, Any]:
        """Do it all and return the result's fields. Raises GvisorError when nothing was changed, or all was put back."""
        for folder in dict.fromkeys([self.folder, *(os.path.dirname(change.path) for change in self.changes)]):
            self._make_folder(folder)
        with locked(self.folder, LOCK_SECONDS):
            self._reached("locked")
            if os.path.exists(os.path.join(self.folder, JOURNAL)):
                _recover(self.folder)
            self._compare()
            self._reached("compared")
            before = observe(self.service) if self.restart else Observed(False, False, [], "absent", False)
            self._spare(before)
            self._reached("observed")
            try:
                self._stage()
                self._reached("staged")
                self._write_journal(before)
                self._reached("journaled")
                backups = self._back_up() if self.backup else {}
                self._reached("backed-up")
                self._compare()
            except BaseException as error:
                self._clean_up()
                _remove_folders(self.made)
                raise _named(error) from error
            result: Dict[str, Any] = {"backup_files": backups, "restarted": False, "rolled_back": False, "remarks": []}
            try:
                for change in self.changes:
                    _switch(change)
                self._reached("switched")
                self._judge()
                if self.restart:
                    since = now()
                    with Deaths({task.shim for task in before.tasks}) as deaths:
                        self.service.restart(self.timeout)
                        self._reached("restarted")
                        self.service.wait_api(self.timeout)
                        self._reached("answering")
                    after = verify(self.service, before, deaths.seen, since)
                    self._look_for_what_was_written()
                    result.update(restarted=True, cri=after.cri)
                    if after.cri not in ("ok", "absent"):
                        result["remarks"].append("The CRI plugin did not work before and does not now: {0}".format(after.cri))
                self._reached("verified")
            except BaseException as error:
                raise self._roll_back(_named(error), before) from error
            self._clean_up()
            _remove_folders(self.emptied)
            self._reached("committed")
            return result

    def _spare(self, before: Observed) -> None:
        """Raise GvisorError when the restart would end containers that run."""
        reason = self.service.why_containers_would_die() if before.tasks else ""
        if reason:
            raise GvisorError(
                "restarting containerd would end {0} running containers: {1}. Nothing was written.".format(len(before.tasks), reason)
            )

    def _judge(self) -> None:
        """Raise GvisorError unless the host's containerd makes of the files what it made of their candidates."""
        if self.meaning is None:
            return
        made = dump(self.service.program, self.main)
        if made["rc"] != 0 or meaning_of(made["stdout"]) != self.meaning:
            raise GvisorError(
                "containerd makes something else of {0} than of the candidate that it was shown{1}".format(
                    self.main, ": " + made["stderr"] if made["rc"] else ""
                ),
                file=self.main,
            )

    def _look_for_what_was_written(self) -> None:
        """Raise GvisorError where the service has written a file anew while it started: what was put into it is lost."""
        for change in self.changes:
            if sha_of(change.path) != change.after_sha:
                raise GvisorError(
                    "{0} was written anew when containerd was restarted, so the service makes it at each start and the change is lost; "
                    "change what it is made from".format(change.path),
                    file=change.path,
                )
        if self.handler:
            told = dump(self.service.program, self.main)
            if told["rc"] != 0 or has_handler(told["stdout"], self.handler["name"]) != self.handler["present"]:
                raise GvisorError(
                    "{0}, which is made from it, {1} handler {2} after the restart{3}".format(
                        self.main,
                        "has no" if self.handler["present"] else "still has the",
                        self.handler["name"],
                        ": " + told["stderr"] if told["rc"] else "",
                    ),
                    file=self.main,
                )

    def _make_folder(self, folder: str) -> None:
        """Make a folder with its parents, and remember what was made."""
        if not os.path.isdir(folder):
            self._make_folder(os.path.dirname(folder))
            os.mkdir(folder, 0o755)
            self.made.append(folder)

    def _compare(self) -> None:
        for change in self.changes:
            now = sha_of(change.path)
            if now != change.before:
                raise GvisorError(
                    "{0} was changed by someone else between reading and writing: nothing was written. Run again.".format(change.path),
                    file=change.path,
                )
            if now is not None:
                with open(change.path, "rb") as stream:
                    self.old_bytes[change.path] = stream.read()

    def _stage(self) -> None:
        """Write the new files under their other names, and hold the old ones."""
        for change in self.changes:
            try:
                self._stage_one(change)
            except OSError as error:
                raise unwritable(change.path, error) from error

    def _stage_one(self, change: Change) -> None:
        for leftover in (change.new, change.old):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(leftover)
        if change.before is not None:
            _hold(change.path, change.old)
        if change.after is not None:
            atomic_write(change.new, change.after, 0o644)
            if change.before is not None:
                _copy_attributes(change.path, change.new, times=False)
            else:
                _default_label(change.path, change.new)

    def _write_journal(self, before: Observed) -> None:
        journal = {
            "files": [{"path": c.path, "before": c.before, "after": c.after_sha} for c in self.changes],
            "service": self.service_options,
            "restart": self.restart,
            "was_running": before.running,
            "timeout": self.timeout,
        }
        atomic_write(os.path.join(self.folder, JOURNAL), json.dumps(journal).encode(), 0o600)

    def _back_up(self) -> Dict[str, str]:
        backups = {}
        for change in self.changes:
            if change.before is not None:
                name = "{0}.{1}.{2}~".format(change.path, os.getpid(), time.strftime("%Y-%m-%d@%H:%M:%S~", time.localtime())[:-1])
                shutil.copy2(change.path, name)
                _copy_attributes(change.path, name, times=True)
                backups[change.path] = name
        return backups

    def _clean_up(self) -> None:
        """Remove what only the transaction needed; the journal first, as its absence says that the transaction is over."""
        for path in [
            os.path.join(self.folder, JOURNAL),
            *(p for change in self.changes for p in (change.new, change.old)),
        ]:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)

    def _roll_back(self, error: GvisorError, before: Observed) -> GvisorError:
        """Put the old files back and containerd with them, and return the error with what came of it."""
        journal = error.details.pop("journal", "") or (self.service.journal() if self.restart else "")
        problems = []
        for change in self.changes:
            try:
                _restore(change.path, change.old, change.before, change.after_sha, self.old_bytes.get(change.path))
            except OSError as problem:
                problems.append("{0} could not be put back: {1}".format(change.path, problem.strerror))
        theirs = [change.path for change in self.changes if sha_of(change.path) != change.before]
        if not problems:
            self._clean_up()
            _remove_folders(self.made)
        remark = ""
        if self.restart:
            try:
                _revive(self.service, before.running, self.timeout)
                cri = _cri(self.service) if before.answers else "absent"
                if cri != before.cri:
                    remark = ", but its CRI plugin does not work with that either, so it was broken before this change: {0}".format(cri)
            except (GvisorError, OSError) as problem:
                problems.append(_named(problem).message)
        state = "containerd runs with it again" if before.running else "containerd is not running, as before"
        kept = "what was written to {0} meanwhile stays".format(", ".join(theirs)) if theirs else "the old configuration is back"
        back = "{0}{1}{2}".format(kept, " and " + state if self.restart else "", remark)
        outcome = "Rolling back failed: " + "; ".join(problems) if problems else "Rolled back: " + back
        return GvisorError(
            "{0}\n{1}.".format(error.message, outcome),
            rolled_back=not problems,
            reason=error.message,
            after_step=self.step,
            journal=journal,
            **error.details,
        )


def _named(error: BaseException) -> GvisorError:
    """Return the error as the module's own."""
    if isinstance(error, GvisorError):
        return error
    if isinstance(error, OSError):
        return GvisorError(
            "{0}: {1}{2}".format(error.filename2 or error.filename or "write", error.strerror, FIXES.get(error.errno or 0, ""))
        )
    return GvisorError("{0}: {1}".format(type(error).__name__, error))


_MOUNT = "; it is a mount of its own and cannot be replaced: unmount it, or change the file that is mounted there"
FIXES = {
    errno.ENOSPC: "; make room and run again",
    errno.EDQUOT: "; make room and run again",
    errno.EROFS: "; mount it writable",
    errno.EACCES: "; become root, and make its folder writable",
    errno.EPERM: "; it may be immutable (lsattr)",
    errno.EBUSY: _MOUNT,
    errno.EXDEV: _MOUNT,
}


def unwritable(path: str, error: OSError) -> GvisorError:
    """Return why the configuration file at ``path`` cannot be written and what helps: the error may be about a file beside it."""
    return GvisorError("{0}: {1}{2}. Nothing was written.".format(path, error.strerror, FIXES.get(error.errno or 0, "")), file=path)


def _hold(path: str, old: str) -> None:
    """Give the file a second name; a copy with all its attributes where the file system has no hard links."""
    try:
        os.link(path, old)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS):
            raise
        shutil.copy2(path, old)
        _copy_attributes(path, old, times=True)


def _copy_attributes(source: str, target: str, times: bool) -> None:
    """Give ``target`` the owner, mode and extended attributes (with the SELinux label) of ``source``, and its times if asked."""
    status = os.stat(source)
    os.chown(target, status.st_uid, status.st_gid)
    os.chmod(target, status.st_mode & 0o7777)
    for name in os.listxattr(source):
        with contextlib.suppress(OSError):
            os.setxattr(target, name, os.getxattr(source, name))
    if times:
        os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))


def _default_label(path: str, new: str) -> None:
    """Give a new file the SELinux label of its folder, as if it had been made in place."""
    with contextlib.suppress(OSError):
        os.setxattr(new, "security.selinux", os.getxattr(os.path.dirname(path), "security.selinux"))


def _remove_folders(folders: List[str]) -> None:
    """Remove folders that are empty, the innermost first."""
    for folder in sorted(folders, key=len, reverse=True):
        with contextlib.suppress(OSError):
            os.rmdir(folder)


def _switch(change: Change) -> None:
    if change.after is None:
        os.unlink(change.path)
    else:
        os.replace(change.new, change.path)
    _sync(os.path.dirname(change.path))


def _sync(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _restore(path: str, old: str, before: Optional[str], after: Optional[str], remembered: Optional[bytes] = None) -> bool:
    """Put one old file back where the new one still lies, and tell whether that was needed. Someone else's edit stays."""
    now = sha_of(path)
    if now == before or now != after:
        return False
    if before is None:
        os.unlink(path)
    elif sha_of(old) == before:
        os.replace(old, path)
    elif remembered is not None:
        status = os.stat(path) if now is not None else None
        atomic_write(path, remembered, status.st_mode & 0o7777 if status else 0o644)
    else:
        return False  # the old file is lost: the new one is at least whole
    _sync(os.path.dirname(path))
    return True


def _revive(service: Service, was_running: bool, timeout: float) -> None:
    """Have the daemon run with the files as they are now, or not run if it did not."""
    if not was_running:
        service.stop(timeout)
        return
    service.restart(timeout)
    service.wait_api(timeout)


def recover(folder: str) -> Optional[str]:
    """Undo a transaction that was killed on this host, if there is one, and return what was done."""
    folder = os.path.realpath(folder)
    if not os.path.exists(os.path.join(folder, JOURNAL)):
        return None
    with locked(folder, LOCK_SECONDS):
        return _recover(folder)


def _recover(folder: str) -> Optional[str]:
    path = os.path.join(folder, JOURNAL)
    try:
        with open(path, encoding="utf-8") as stream:
            journal = json.load(stream)
    except FileNotFoundError:
        return None
    changes = [Change(f["path"], f["before"], None) for f in journal["files"]]
    restored = [change.path for change, f in zip(changes, journal["files"]) if _restore(change.path, change.old, f["before"], f["after"])]
    service = service_for(Setup(**journal["service"]))
    try:
        if journal["restart"]:
            # The daemon may run with either version, or not at all: make it run with what is there now.
            _revive(service, journal["was_running"], journal["timeout"])
    finally:
        for leftover in [path, *(p for change in changes for p in (change.new, change.old))]:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(leftover)
    what = "put back " + ", ".join(restored) if restored else "found the files as they were"
    return "An earlier run was killed in the middle: {0}{1}.".format(what, " and restarted containerd" if journal["restart"] else "")


# --- the worker and its watcher ---


def run_detached(plan: Dict[str, Any]) -> Dict[str, Any]:
    """Run the transaction in a process that a broken connection does not reach, and return its result.

    Raises GvisorError when it failed, or when the process was killed; the old files are back then.
    """
    transaction = Transaction(plan)
    reader, writer = os.pipe()
    worker = os.fork()
    if worker == 0:
        os.close(reader)
        _work(transaction, writer)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        said = stream.read()
    with contextlib.suppress(ChildProcessError):
        os.waitpid(worker, 0)
    if not said:
        done = recover(transaction.folder)
        raise GvisorError("the process that was changing the configuration was killed. {0}".format(done or "It had not changed anything."))
    outcome = json.loads(said.decode("utf-8"))
    if "error" in outcome:
        raise GvisorError(outcome["error"], **outcome["details"])
    return outcome


def _work(transaction: Transaction, writer: int) -> None:
    """Be the worker: never returns."""
    try:
        os.setsid()
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGPIPE):
            signal.signal(number, signal.SIG_IGN)
        os.chdir("/")
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(null, descriptor)
        try:
            outcome = transaction.run()
        except GvisorError as error:
            outcome = {"error": error.message, "details": error.details}
        except BaseException as error:
            outcome = {"error": _named(error).message, "details": {}}
        try:
            with os.fdopen(writer, "wb") as stream:
                stream.write(json.dumps(outcome).encode("utf-8"))
        except OSError:  # nobody is listening any more
            syslog.openlog("ggen.gvisor")
            syslog.syslog("containerd's configuration: {0}".format(outcome.get("error", "changed as asked for")))
    finally:
        os._exit(0)
