# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What Colima and Lima tell of their virtual machines, as Ansible's hosts. Pure functions: the inventory plugin runs the tools and reads the files.

Formats are those of Colima 0.8 to 0.10 and Lima 1 and 2: one JSON object a line, no list around them, nothing at all without a machine.
"""

from __future__ import annotations

import json
import posixpath
import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._base.platform import architecture

LISTS = {"colima": ["colima", "list", "--json"], "lima": ["limactl", "list", "--format", "json"]}
FIXES = {
    "colima": "Install it (brew install colima), or name the tools that there are in sources.",
    "lima": "Install it (brew install lima), or name the tools that there are in sources.",
}
RUNNING = "running"
SHOWN = 300  # characters of what a tool printed that an error repeats


class Guest(NamedTuple):
    """A virtual machine as a host: its name in the inventory, its variables and the groups that it is in."""

    name: str
    variables: dict[str, Any]
    groups: list[str]


class Colima(NamedTuple):
    """A user's Colima."""

    environ: Mapping[str, str]
    home: str  # the user's
    folder: str  # its own
    version: str


# --- where things are on the controller ---


def colima_home(environ: Mapping[str, str], home: str, is_there: Callable[[str], bool]) -> str:
    """Return the folder that Colima uses: COLIMA_HOME where it exists, ~/.colima where it exists, else the one in the XDG folder."""
    if environ.get("COLIMA_HOME") and is_there(environ["COLIMA_HOME"]):
        return environ["COLIMA_HOME"]
    plain = posixpath.join(home, ".colima")
    xdg = posixpath.join(_xdg(environ, home), "colima")
    return xdg if not is_there(plain) and (environ.get("XDG_CONFIG_HOME") or is_there(xdg)) else plain


def lima_home(environ: Mapping[str, str], home: str) -> str:
    """Return the folder that Lima uses."""
    return environ.get("LIMA_HOME") or posixpath.join(home, ".lima")


def instance_folder(environ: Mapping[str, str], colima: str, profile: str) -> str:
    """Return the folder of the Lima instance behind a profile of the Colima whose home is ``colima``."""
    return posixpath.join(environ.get("LIMA_HOME") or posixpath.join(colima, "_lima"), profile_id(profile))


def config_sources(environ: Mapping[str, str], home: str, colima: str, profile: str) -> list[str]:
    """Return the files that `colima start` looks for a guest's containerd configuration in, the profile's own first."""
    return [
        posixpath.join(colima, profile, "containerd", "config.toml"),
        posixpath.join(_xdg(environ, home), "containerd", "config.toml"),
    ]


def _xdg(environ: Mapping[str, str], home: str) -> str:
    return environ.get("XDG_CONFIG_HOME") or posixpath.join(home, ".config")


def profile_id(profile: str) -> str:
    """Return the name that a profile has for Lima and in ssh_config."""
    return "colima" if profile == "default" else f"colima-{profile}"


# --- what the tools print ---


def check_ran(source: str, rc: int, stdout: str, stderr: str) -> str:
    """Return what the tool printed. Raises GvisorError when it failed."""
    if rc == 0:
        return stdout
    command = shlex.join(LISTS[source])
    raise GvisorError(
        f"`{command}` failed with exit code {rc}: {_shown(stderr or stdout)}. Run it by hand; this inventory needs it to work."
    )


def parse_list(source: str, text: str) -> list[dict[str, Any]]:
    """Return the machines in what a tool printed. Raises GvisorError that names the tool and the line that is not as it should be."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except ValueError:
            entry = None
        if not isinstance(entry, dict) or not all(isinstance(entry.get(key), str) and entry[key] for key in ("name", "status")):
            raise GvisorError(
                f"`{shlex.join(LISTS[source])}` printed something else than one JSON object with name and status a line. Line {number} is: "
                f"{_shown(line)}. Run it by hand; a wrapper or an alias may print more, and Colima must be 0.5 and Lima 0.14 or newer."
            )
        found.append(entry)
    return found


def parse_version(text: str) -> str:
    """Return the version in what `colima version` printed, empty where it names none (a build from a checkout)."""
    match = re.search(r"^colima version v?(\d+(?:\.\d+)+)", text, re.MULTILINE)
    return match[1] if match else ""


def _shown(text: str) -> str:
    text = " ".join(text.split())
    return repr(text if len(text) <= SHOWN else text[:SHOWN] + "…")


# --- hosts ---


def colima_guest(entry: Mapping[str, Any], colima: Colima, instance: Mapping[str, Any], chosen: Mapping[str, Any]) -> Guest:
    """Return one line of Colima's list as a host.

    ``instance`` is the lima.yaml that the machine was started from, ``chosen`` the profile's colima.yaml:
    of a machine that does not run Colima's list tells no runtime.
    """
    profile = entry["name"]
    runtime, _plus, kubernetes = str(entry.get("runtime") or chosen.get("runtime") or "").partition("+")
    variables = {
        **_common(entry, profile_id(profile), posixpath.join(colima.folder, "ssh_config")),
        "vm_runtime": runtime,
        "vm_kubernetes": bool(kubernetes) or ("runtime" not in entry and bool(_mapping(chosen.get("kubernetes")).get("enabled"))),
        "vm_mounts": mounts_of(instance.get("mounts"), colima.home),
        "colima_profile": profile,
        "colima_home": colima.folder,
        "colima_version": colima.version,
        "colima_config": config_sources(colima.environ, colima.home, colima.folder, profile) if runtime == "containerd" else [],
    }
    return Guest(profile_id(profile), variables, ["colima_guests", *_groups(variables)])


def lima_guest(entry: Mapping[str, Any], *, home: str, lima: str) -> Guest:
    """Return one line of Lima's list as a host. Its containerd counts as a runtime where it runs as root."""
    name = str(entry.get("hostname") or f"lima-{entry['name']}")
    config = _mapping(entry.get("config"))
    containerd = _mapping(config.get("containerd"))
    ssh_config = str(entry.get("sshConfigFile") or posixpath.join(lima, entry["name"], "ssh.config"))
    variables = {
        **_common(entry, name, ssh_config),
        "vm_runtime": "containerd" if containerd.get("system") else "rootless" if containerd.get("user") else "none",
        "vm_kubernetes": False,
        "vm_mounts": mounts_of(config.get("mounts"), home),
        "lima_instance": entry["name"],
    }
    return Guest(name, variables, ["lima_guests", *_groups(variables)])


def _common(entry: Mapping[str, Any], host: str, ssh_config: str) -> dict[str, Any]:
    """Return what both tools tell alike. User, key and port are in the SSH configuration, which changes with each boot: nothing of it is repeated here."""
    arch = str(entry.get("arch") or "")
    return {
        "ansible_host": host,
        "ansible_ssh_common_args": f"-F {shlex.quote(ssh_config)}",
        "vm_name": entry["name"],
        "vm_state": entry["status"].lower(),
        "vm_arch": architecture(arch),
        "vm_cpus": entry.get("cpus") or 0,
        "vm_memory": entry.get("memory") or 0,
        "vm_disk": entry.get("disk") or 0,
    }


def mounts_of(mounts: Any, home: str) -> list[dict[str, Any]]:
    """Return a machine's mounts with absolute paths: where a folder is on the controller, where in the guest, and whether it can be written there."""
    found = []
    for mount in mounts if isinstance(mounts, list) else []:
        location = _mapping(mount).get("location")
        if isinstance(location, str) and location:
            location = _absolute(location, home)
            point = mount.get("mountPoint")
            point = _absolute(point, home) if isinstance(point, str) and point else location
            found.append({"location": location, "mount_point": point, "writable": mount.get("writable") is True})
    return found


def in_guest(path: str, mounts: Iterable[Mapping[str, Any]]) -> tuple[str | None, bool]:
    """Return where a folder of the controller is in the guest, None where no mount shows it, and whether it can be written there.

    Both ``path`` and the mounts' locations are without symbolic links. The innermost mount counts.
    """
    covering = [mount for mount in mounts if f"{path}/".startswith(f"{mount['location'].rstrip('/')}/")]
    if not covering:
        return None, False
    mount = max(covering, key=lambda mount: len(mount["location"]))
    rest = posixpath.relpath(path, mount["location"])
    return posixpath.normpath(posixpath.join(mount["mount_point"], rest)), bool(mount["writable"])


def _absolute(path: str, home: str) -> str:
    return posixpath.normpath(posixpath.join(home, path[2:]) if path == "~" or path.startswith("~/") else path)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _groups(variables: Mapping[str, Any]) -> list[str]:
    kinds = {"runtime": "vm_runtime", "arch": "vm_arch", "state": "vm_state"}
    return [f"{kind}_{variables[name]}" for kind, name in kinds.items() if variables[name]]


def choose(guests: Iterable[Guest], stopped: bool) -> list[Guest]:
    """Return the guests to list, Colima's default profile first, each with ``vm_first``: whether it is the first running one with its runtime.

    Names are unique: with LIMA_HOME set, Colima's machines are in Lima's list as well, and Colima's word on them counts.
    """
    unique: dict[str, Guest] = {}
    known = set()
    for guest in guests:
        if "colima_profile" in guest.variables:
            known.add(profile_id(guest.variables["colima_profile"]))
        elif guest.variables["lima_instance"] in known:
            continue
        unique.setdefault(guest.name, guest)
    order = sorted(unique.values(), key=lambda guest: ("lima_instance" in guest.variables, guest.name))
    seen: set[str] = set()
    result = []
    for guest in order:
        running = guest.variables["vm_state"] == RUNNING
        if running or stopped:
            runtime = guest.variables["vm_runtime"]
            result.append(guest._replace(variables={**guest.variables, "vm_first": running and runtime not in seen}))
            if running:
                seen.add(runtime)
    return result
