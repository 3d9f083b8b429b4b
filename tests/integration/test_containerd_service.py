"""containerd_service on a real containerd without systemd, and the commands it gives where systemd runs."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.ggen.gvisor.plugins.module_utils._base import processes as _processes
from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._containerd.service import DaemonService, Setup, SystemdService, service_for
from support.containerd_debs import ensure
from support.containerd_runtime import Host
from support.missing import MISSING
from support.module import run_module


@pytest.fixture(name="host")
def fixture_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    """A containerd that is not running; its configuration says where it is."""
    monkeypatch.setenv("PATH", ensure("1.7.24").path)
    host = Host(tmp_path)
    text = f'version = 2\nroot = "{tmp_path}/root"\nstate = "{host.state}"\n[grpc]\naddress = "{host.address}"\n'
    Path(host.config_path).write_text(text)
    try:
        yield host
    finally:
        host.stop()


def arguments(host: Host, **more: object) -> dict:
    options = host.options(**more)
    options["config"] = options.pop("path")
    return options


def test_life_of_a_plain_daemon(host: Host) -> None:
    assert run_module("containerd_service", check=True, state="started", **arguments(host))["changed"]
    assert host.pid() is None
    started = run_module("containerd_service", state="started", **arguments(host))
    assert (started["changed"], started["manager"], started["pid"]) == (True, "daemon", host.pid())
    assert (host.root / "pid").read_text() == f"{host.pid()}\n"
    assert os.getsid(started["pid"]) == started["pid"]
    again = run_module("containerd_service", state="started", **arguments(host))
    assert (again["changed"], again["pid"]) == (False, started["pid"])
    restarted = run_module("containerd_service", state="restarted", **arguments(host))
    assert restarted["changed"]
    assert restarted["pid"] not in (0, started["pid"])
    stopped = run_module("containerd_service", state="stopped", **arguments(host))
    assert (stopped["changed"], stopped["pid"], host.pid()) == (True, 0, None)
    assert not (host.root / "pid").exists()
    assert not run_module("containerd_service", state="stopped", **arguments(host))["changed"]


def test_a_daemon_of_somebody_else_keeps_its_arguments_and_environment(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """No PID file, other flags: the socket leads to the process, and a restart starts the same."""
    monkeypatch.setenv("THEIR_PROXY", "http://proxy.example")
    host.start()
    monkeypatch.delenv("THEIR_PROXY")
    before = _processes.argv_of(host.pid())
    result = run_module("containerd_service", state="restarted", **arguments(host))
    assert not result["failed"], result
    assert _processes.argv_of(host.pid()) == before == host.argv
    assert b"THEIR_PROXY=http://proxy.example\0" in Path(f"/proc/{host.pid()}/environ").read_bytes()


def test_says_why_it_does_not_start(host: Host) -> None:
    Path(host.config_path).write_text("version = 2\n[")
    result = run_module("containerd_service", state="started", **arguments(host))
    assert result["failed"]
    assert "containerd ended before it answered" in result["msg"]
    assert "toml" in result["journal"]


def test_a_stale_pid_file_means_nothing(host: Host) -> None:
    """The number in it belongs to somebody else by now, who must not be stopped."""
    (host.root / "pid").write_text(f"{os.getpid()}\n")
    assert not run_module("containerd_service", state="stopped", **arguments(host))["changed"]
    assert run_module("containerd_service", state="started", **arguments(host))["changed"]


def test_a_daemon_that_does_not_listen_in_time(tmp_path: Path) -> None:
    """Bounded waiting: a process that never opens its socket."""
    program = tmp_path / "containerd"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    service = DaemonService(Setup("containerd", "/c", f"{tmp_path}/s", str(program), "ctr", f"{tmp_path}/pid", f"{tmp_path}/log"))
    service.start()
    pid = int((tmp_path / "pid").read_text())
    try:
        with pytest.raises(GvisorError, match=r"did not open .* within 0.3 s|ended before it answered"):
            service.wait_api(0.3)
    finally:
        os.kill(pid, signal.SIGKILL)


def test_program_that_is_not_there(tmp_path: Path) -> None:
    service = DaemonService(Setup("containerd", "/c", f"{tmp_path}/s", MISSING, "ctr", f"{tmp_path}/p", f"{tmp_path}/l"))
    with pytest.raises(GvisorError, match=f"cannot start {MISSING}: No such file"):
        service.start()


# --- systemd: this needs a booted one, which the test hosts have; here is what is asked of it ---


@pytest.fixture(name="systemctl")
def fixture_systemctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A systemctl that notes its arguments and fails to restart while the file ``fail`` is there."""
    log = tmp_path / "calls"
    for name in ("systemctl", "journalctl"):
        program = tmp_path / name
        program.write_text(
            f'#!/bin/sh\necho {name} "$@" >> {log}\n'
            f'[ {name} = journalctl ] && echo "last words"\n[ "$2" = --property=MainPID ] && echo 4242\n'
            f'[ "$2" = --property=KillMode ] && cat {tmp_path}/mode\n'
            f'[ "$1" = restart ] && [ -e {tmp_path}/fail ] && echo "Job failed" >&2 && exit 1\nexit 0\n'
        )
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return tmp_path


def test_systemd_unit(systemctl: Path) -> None:
    service = service_for(Setup(service="containerd-two", manager="systemd"))
    assert isinstance(service, SystemdService)
    assert service.pid() == 4242
    service.restart()
    calls = (systemctl / "calls").read_text().splitlines()
    assert calls == [
        "systemctl show --property=MainPID --value containerd-two",
        "systemctl reset-failed containerd-two",  # else systemd may refuse after many failures
        "systemctl restart containerd-two",
    ]


@pytest.mark.parametrize(("mode", "kills"), [("process", False), ("none", False), ("control-group", True), ("mixed", True)])
def test_a_unit_that_takes_its_containers_along(mode: str, kills: bool, systemctl: Path) -> None:
    (systemctl / "mode").write_text(f"{mode}\n")
    reason = service_for(Setup(manager="systemd")).why_containers_would_die()
    assert reason == (f"unit containerd has KillMode={mode}; set KillMode=process" if kills else "")


def test_systemd_failure_has_the_journal(systemctl: Path) -> None:
    (systemctl / "fail").touch()
    with pytest.raises(GvisorError, match="systemctl restart containerd failed: Job failed; its last lines:\nlast words"):
        service_for(Setup(manager="systemd")).restart()


def test_systemd_failure_without_a_journal(systemctl: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A journal that cannot be read hides no reason, and keeps nobody from rolling back."""
    (systemctl / "fail").touch()
    (systemctl / "journalctl").unlink()
    monkeypatch.setenv("PATH", str(systemctl))
    with pytest.raises(GvisorError, match=r"systemctl restart containerd failed: Job failed$"):
        service_for(Setup(manager="systemd")).restart()


def test_systemd_that_takes_too_long_has_the_journal(systemctl: Path) -> None:
    (systemctl / "systemctl").write_text('#!/bin/sh\n[ "$1" = restart ] && exec sleep 60\nexit 0\n')
    with pytest.raises(GvisorError, match=r"systemctl restart containerd did not end within 0\.5 s; its last lines:\nlast words"):
        service_for(Setup(manager="systemd")).restart(0.5)


def start_sleeper() -> subprocess.Popen:
    return subprocess.Popen(["sleep", "60"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def test_deaths_are_noted() -> None:
    with start_sleeper() as first, start_sleeper() as second:
        with _processes.Deaths([first.pid, second.pid, 0]) as deaths:
            started = _processes.now()
            first.kill()
            first.wait()
            wait_for(deaths, first.pid)
        assert list(deaths.seen) == [first.pid]
        assert started <= deaths.seen[first.pid] <= _processes.now()
        second.kill()


def test_waits_without_pidfd_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python 3.8 has none."""
    monkeypatch.delattr(os, "pidfd_open")
    assert not _processes.wait_exit(os.getpid(), 0.05)
    with start_sleeper() as sleeper:
        with _processes.Deaths([sleeper.pid]) as deaths:
            sleeper.kill()
            assert _processes.wait_exit(sleeper.pid, 5)
            wait_for(deaths, sleeper.pid)
        assert list(deaths.seen) == [sleeper.pid]


def wait_for(deaths: _processes.Deaths, pid: int) -> None:
    deadline = time.monotonic() + 5
    while pid not in deaths.seen:
        assert time.monotonic() < deadline
        time.sleep(0.01)
