# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A Mac's side of Colima and Lima, imitated: the tools print what Colima 0.10 and Lima 2 print, and their homes have the files that those keep.

The virtual machines are whatever a test names: nothing, or a real host that is reached over SSH. Macs alone can run the real tools.
``mac()`` makes it all below one folder; the executables that it writes run this file. State is one JSON file, so that a test can change it between
two calls of a tool, and a tool (`colima start`, `colima stop`) can too.

Left out, because nothing here depends on it: SSH's connection sharing, sockets, disks and logs of the virtual machines.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

# What Colima writes into a guest that has no configuration of its own on the Mac, byte for byte.
EMBEDDED = "[grpc]\ngid = 1000\n"
GIB = 1 << 30
CONFIG = "/etc/containerd/config.toml"
# An Apple silicon Mac's.
UNAME = """\
#!/bin/sh
case "$*" in
  "" | -s) echo Darwin ;;
  -m) echo arm64 ;;
  -sm) echo Darwin arm64 ;;
  *) echo "uname $*: not imitated" >&2; exit 1 ;;
esac
"""


@dataclasses.dataclass(frozen=True)
class Guest:
    """A virtual machine. ``name`` is a Colima profile or a Lima instance; the SSH fields say where it really is.

    ``memory`` and ``disk`` are bytes. ``mounts`` are (location, writable, mount point or empty); none is Colima's default, the home and
    /tmp/colima. ``ssh`` are further lines of its SSH configuration.
    """

    name: str = "default"
    status: str = "Running"
    arch: str = "aarch64"
    cpus: int = 2
    memory: int = 2 * GIB
    disk: int = 100 * GIB
    runtime: str = "containerd"
    kubernetes: bool = False
    mounts: tuple[tuple[str, bool, str], ...] = ()
    address: str = "127.0.0.1"
    port: int = 50022
    user: str = "dev"
    key: str = ""
    ssh: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Mac:
    """What ``mac()`` made: ``env`` has the variables that make programs use it; ``colima`` and ``lima`` are the tools' homes."""

    root: Path
    env: dict[str, str]
    home: Path
    colima: Path
    lima: Path

    @property
    def state(self) -> dict[str, Any]:
        """What the tools read: ``version``, ``colima`` and ``lima`` (the guests), ``says`` (what a tool prints instead)."""
        return _load(self.root / "state.json")

    def update(self, **state: Any) -> None:
        """Change the state, and the homes with it."""
        _save(self.root / "state.json", {**self.state, **state})

    def says(self, tool: str, stdout: str = "", stderr: str = "", rc: int = 0) -> None:
        """Have a tool print just that, whatever it is asked for."""
        self.update(says={**self.state["says"], tool: {"stdout": stdout, "stderr": stderr, "rc": rc}})

    def profile_config(self, profile: str = "default") -> Path:
        """The containerd configuration that a profile has on the Mac, where it has one."""
        return self.colima / profile / "containerd" / "config.toml"

    @property
    def central_config(self) -> Path:
        """The containerd configuration that all profiles without one of their own share."""
        return self.home / ".config" / "containerd" / "config.toml"

    def run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """Run a tool as a user of the Mac would, and fail when it does."""
        return subprocess.run(argv, env=self.env, check=True, capture_output=True, text=True, timeout=300)


def mac(
    root: Path,
    colima: Iterable[Guest] = (),
    lima: Iterable[Guest] = (),
    version: str = "0.10.3",
    tools: Iterable[str] = ("colima", "limactl"),
) -> Mac:
    """Make a Mac's home with these virtual machines below ``root``, and executables for ``tools`` and ``uname`` in ``root``/bin."""
    made = Mac(
        root,
        {
            **{name: value for name, value in os.environ.items() if name not in ("LIMA_HOME", "XDG_CONFIG_HOME", "COLIMA_PROFILE")},
            "PATH": f"{root / 'bin'}:{os.environ['PATH']}",
            "HOME": str(root / "home"),
            "COLIMA_HOME": str(root / "home" / ".colima"),
        },
        root / "home",
        root / "home" / ".colima",
        root / "home" / ".lima",
    )
    (root / "bin").mkdir(parents=True)
    made.colima.mkdir(parents=True)
    made.lima.mkdir()
    for tool in tools:
        program = root / "bin" / tool
        command = [sys.executable, str(Path(__file__).resolve()), tool, str(root / "state.json")]
        program.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
        program.chmod(0o755)
    uname = root / "bin" / "uname"
    uname.write_text(UNAME)
    uname.chmod(0o755)
    guests = {"colima": [dataclasses.asdict(guest) for guest in colima], "lima": [dataclasses.asdict(guest) for guest in lima]}
    _save(root / "state.json", {"version": version, "home": str(made.home), "says": {}, **guests})
    return made


# --- the files that the tools keep ---


def _load(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def _save(path: Path, state: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(state))
    home = Path(state["home"])
    running = []
    for guest in state["colima"]:
        folder = home / ".colima" / "_lima" / _ssh_name("colima", guest)
        _write(folder / "lima.yaml", {"arch": guest["arch"], "mounts": _mounts(guest, home)})
        chosen = {"runtime": guest["runtime"], "kubernetes": {"enabled": guest["kubernetes"]}, "mounts": _chosen_mounts(guest)}
        _write(folder / "colima.yaml", chosen)
        _write(home / ".colima" / guest["name"] / "colima.yaml", chosen)
        (folder / "ssh.config").write_text(_ssh_config(f"lima-{_ssh_name('colima', guest)}", guest))
        if guest["status"] == "Running":
            running.append(_ssh_config(_ssh_name("colima", guest), guest))
    (home / ".colima" / "ssh_config").write_text("\n".join(running))
    for guest in state["lima"]:
        folder = home / ".lima" / guest["name"]
        _write(folder / "lima.yaml", {"arch": guest["arch"]})
        (folder / "ssh.config").write_text(_ssh_config(_ssh_name("lima", guest), guest))


def _write(path: Path, data: Mapping[str, Any]) -> None:
    """Write YAML; JSON is YAML too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data))


def _ssh_name(kind: str, guest: Mapping[str, Any]) -> str:
    if kind == "lima":
        return f"lima-{guest['name']}"
    return "colima" if guest["name"] == "default" else f"colima-{guest['name']}"


def _ssh_config(host: str, guest: Mapping[str, Any]) -> str:
    lines = [
        *([f'IdentityFile "{guest["key"]}"', "IdentitiesOnly yes"] if guest["key"] else []),
        "StrictHostKeyChecking no",
        "UserKnownHostsFile /dev/null",
        "NoHostAuthenticationForLocalhost yes",
        "PreferredAuthentications publickey",
        "Compression no",
        "BatchMode yes",
        f"User {guest['user']}",
        f"Hostname {guest['address']}",
        f"Port {guest['port']}",
        *guest["ssh"],
    ]
    return "".join([f"Host {host}\n", *(f"  {line}\n" for line in lines)])


def _chosen_mounts(guest: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {"location": location, "writable": writable, **({"mountPoint": point} if point else {})}
        for location, writable, point in guest["mounts"]
    ]


def _mounts(guest: Mapping[str, Any], home: Path) -> list[dict[str, Any]]:
    """The mounts as Colima has Lima do them."""
    default = [{"location": str(home), "writable": True}, {"location": f"/tmp/{_ssh_name('colima', guest)}", "writable": True}]  # noqa: S108 - the guest's own
    return _chosen_mounts(guest) or default


# --- the tools ---


def _list_colima(state: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One object a profile. The runtime is told of running ones only."""
    found = []
    for guest in state["colima"]:
        told = {key: guest[key] for key in ("name", "status", "arch", "cpus", "memory", "disk")}
        if guest["status"] == "Running":
            told["runtime"] = guest["runtime"] + ("+k3s" if guest["kubernetes"] else "")
        found.append(told)
    return found


def _list_lima(state: Mapping[str, Any], home: str) -> list[dict[str, Any]]:
    """One object an instance: what it is, and its whole configuration."""
    found = []
    for guest in state["lima"]:
        folder = f"{home}/.lima/{guest['name']}"
        running = {"sshLocalPort": guest["port"], "hostAgentPID": 4711, "driverPID": 4712} if guest["status"] == "Running" else {}
        found.append(
            {
                "name": guest["name"],
                "hostname": _ssh_name("lima", guest),
                "status": guest["status"],
                "dir": folder,
                "vmType": "vz",
                **{key: guest[key] for key in ("arch", "cpus", "memory", "disk")},
                **running,
                "sshConfigFile": f"{folder}/ssh.config",
                "config": {
                    "arch": guest["arch"],
                    "cpus": guest["cpus"],
                    "mounts": [{"mountPoint": item["location"], **item} for item in _mounts(guest, Path(home))],
                    "containerd": {"system": guest["runtime"] == "containerd", "user": guest["runtime"] == "rootless"},
                },
                "sshAddress": guest["address"],
                "protected": False,
                "limaVersion": "2.2.0",
                "HostOS": "darwin",
                "HostArch": guest["arch"],
                "LimaHome": f"{home}/.lima",
            }
        )
    return found


def _print_lines(objects: Iterable[Mapping[str, Any]]) -> None:
    """One JSON object a line, without spaces: no list around them."""
    for item in objects:
        print(json.dumps(item, separators=(",", ":")))


def _start(path: Path, state: dict[str, Any], profile: str) -> None:
    """Mark the profile as running and give its guest the configuration, as every start does.

    From 0.10.2 on that is the profile's own file, else the central one, else the embedded one, which is left in the central place; before, it is
    the embedded one always.
    """
    guest = next(item for item in state["colima"] if item["name"] == profile)
    if guest["status"] == "Running":
        sys.stderr.write('time="2026-11-25T10:00:00Z" level=warning msg="already running, ignoring"\n')
        return
    guest["status"] = "Running"
    _save(path, state)
    if guest["runtime"] != "containerd":
        return
    home = Path(state["home"])
    central = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config") / "containerd" / "config.toml"
    sources = [home / ".colima" / profile / "containerd" / "config.toml", central]
    number = tuple(map(int, state["version"].split(".")))
    found = next((source for source in sources if source.is_file()), None) if number >= (0, 10, 2) else None
    if found is None and number >= (0, 10, 2):
        central.parent.mkdir(parents=True, exist_ok=True)
        central.write_text(EMBEDDED)
    text = found.read_bytes() if found else EMBEDDED.encode()
    ssh = ["ssh", "-F", str(home / ".colima" / "ssh_config"), _ssh_name("colima", guest)]
    for command, given in ((f"sudo tee {CONFIG} >/dev/null", text), ("sudo service containerd restart", b"")):
        subprocess.run([*ssh, command], input=given, check=True, timeout=120)


def main(tool: str, path: Path, *arguments: str) -> int:
    """Be the tool."""
    state = _load(path)
    if tool in state["says"]:
        told = state["says"][tool]
        sys.stdout.write(told["stdout"])
        sys.stderr.write(told["stderr"])
        return int(told["rc"])
    words = [word for word in arguments if not word.startswith("-")]
    profile = words[1] if len(words) > 1 else "default"
    for option in ("-p", "--profile"):
        if option in arguments:
            profile = arguments[arguments.index(option) + 1]
    if tool == "limactl" and words[:1] == ["list"]:
        if not state["lima"]:
            sys.stderr.write(
                'time="2026-11-25T10:00:00Z" level=warning msg="No instance found. Run `limactl create` to create an instance."\n'
            )
        _print_lines(_list_lima(state, state["home"]))
    elif words[:1] == ["list"]:
        _print_lines(_list_colima(state))
    elif words[:1] == ["version"]:
        print(f"colima version {state['version']}\ngit commit: 0123456789abcdef0123456789abcdef01234567")
    elif words[:1] == ["ssh-config"]:
        guest = next(item for item in state["colima"] if item["name"] == profile)
        print(_ssh_config(_ssh_name("colima", guest), guest), end="")
    elif words[:1] == ["start"]:
        _start(path, state, profile)
    elif words[:1] == ["stop"]:
        next(item for item in state["colima"] if item["name"] == profile)["status"] = "Stopped"
        _save(path, state)
    else:
        sys.stderr.write(f"{tool} {shlex.join(arguments)}: not imitated\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:]))
