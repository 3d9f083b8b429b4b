# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: colima
short_description: The virtual machines of Colima and Lima
version_added: 1.0.0
author: The ggen.gvisor authors (@ggen-gvisor)
description:
  - Lists Colima's profiles and Lima's instances as hosts, named as their SSH configuration names them, V(colima) for Colima's default profile,
    V(colima-NAME) for another one and V(lima-NAME) for an instance of Lima.
  - Connections go through the SSH configuration that the tools keep (C(~/.colima/ssh_config), C(~/.lima/NAME/ssh.config)), because user, key and
    above all the port are theirs, and the port changes with every boot.
  - Hosts are in the groups C(colima_guests) or C(lima_guests), and by what they are in C(runtime_containerd), C(arch_arm64), C(state_running)
    and so on. Others can be made of the variables with O(groups) and O(keyed_groups).
  - Needs C(colima) or C(limactl) in the PATH, where Homebrew's folders (C(/opt/homebrew/bin), C(/usr/local/bin)) are looked into as well.
extends_documentation_fragment:
  - constructed
  - inventory_cache
options:
  plugin:
    description: Says that the file is this plugin's. Its name ends in C(colima.yml) or C(colima.yaml).
    type: str
    required: true
    choices: [ggen.gvisor.colima]
  sources:
    description: The tools to ask, V(colima) and V(lima). Without it those that are installed; one that is named here and is not installed is an error.
    type: list
    elements: str
    choices: [colima, lima]
    default: []
  stopped:
    description: List machines that do not run as well. They cannot be connected to.
    type: bool
    default: false
  profiles:
    description: Patterns of the Colima profiles to list, such as V(default) or V(build-*).
    type: list
    elements: str
    default: ["*"]
  instances:
    description: Patterns of the Lima instances to list.
    type: list
    elements: str
    default: ["*"]
  colima_home:
    description: Colima's folder. Without it the one that Colima finds itself, mostly C(~/.colima).
    type: path
    env:
      - name: COLIMA_HOME
  lima_home:
    description: Lima's folder. Without it C(~/.lima).
    type: path
    env:
      - name: LIMA_HOME
  timeout:
    description: Seconds that a tool may take.
    type: int
    default: 30
notes:
  - Each host has the variables C(vm_name), C(vm_state), C(vm_arch) (V(arm64) or V(amd64)), C(vm_cpus), C(vm_memory) and C(vm_disk) in bytes,
    C(vm_runtime) (V(containerd), V(docker), V(incus), V(none), or V(rootless) for Lima's containerd without root), C(vm_kubernetes), C(vm_mounts) (a
    list of C(location) here, C(mount_point) in the guest and C(writable)) and C(vm_first), which is true for the first running host with its runtime.
  - Colima's hosts also have C(colima_profile), C(colima_home), C(colima_version) and C(colima_config), the files that C(colima start) looks for the
    configuration of a guest with containerd in. Role P(ggen.gvisor.containerd_gvisor#role) keeps the runtime handler there. Lima's have C(lima_instance).
"""

EXAMPLES = r"""
# inventories/colima/colima.yml: the guests with containerd run sandboxes, the first of them also builds.
plugin: ggen.gvisor.colima
groups:
  sandbox_hosts: vm_runtime == 'containerd'
  build_hosts: vm_runtime == 'containerd' and vm_first

# Everything that there is, in groups by size; asked for once an hour.
---
plugin: ggen.gvisor.colima
stopped: true
cache: true
cache_plugin: ansible.builtin.jsonfile
cache_connection: ~/.cache/ansible-inventory
keyed_groups:
  - prefix: cpus
    key: vm_cpus | string
"""

import os
import shlex
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from typing import Any

import yaml
from ansible.errors import AnsibleParserError
from ansible.plugins.inventory import BaseInventoryPlugin, Cacheable, Constructable
from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.plugin_utils._fleet import colima

# Programs that launchd, cron or an editor starts on a Mac do not have them in their PATH.
HOMEBREW = ("/opt/homebrew/bin", "/usr/local/bin")
NAMES = ("colima.yml", "colima.yaml")


class InventoryModule(BaseInventoryPlugin, Constructable, Cacheable):
    """Runs the tools, reads the files beside, and leaves the rest to pure functions."""

    NAME = "ggen.gvisor.colima"

    def verify_file(self, path: str) -> bool:
        """Tell whether the file can be this plugin's."""
        return super().verify_file(path) and path.endswith(NAMES)

    def parse(self, inventory: Any, loader: Any, path: str, cache: bool = True) -> None:
        """Put the hosts into the inventory. Raises AnsibleParserError with what to fix."""
        super().parse(inventory, loader, path, cache)
        self._read_config_data(path)
        key = self.get_cache_key(path)
        cached = cache and self.get_option("cache")
        try:
            found = self._cache[key] if cached else None
        except KeyError:
            found = None
        if found is None:
            try:
                found = [list(guest) for guest in self._guests()]
            except GvisorError as error:
                raise AnsibleParserError(f"{path}: {error.message}") from error
            if self.get_option("cache"):
                self._cache[key] = found
        guests = [colima.Guest(*guest) for guest in found]
        if not guests:
            self.display.warning(
                f"{path}: no {'virtual machine' if self.get_option('stopped') else 'running virtual machine'} of "
                "Colima or Lima. Start one with: colima start --runtime containerd"
            )
        for guest in guests:
            self._add(guest)

    def _add(self, guest: colima.Guest) -> None:
        """Add one host with its variables and groups."""
        self.inventory.add_host(guest.name)
        for group in guest.groups:
            self.inventory.add_child(self.inventory.add_group(self._sanitize_group_name(group)), guest.name)
        for name, value in guest.variables.items():
            self.inventory.set_variable(guest.name, name, value)
        strict = self.get_option("strict")
        self._set_composite_vars(self.get_option("compose"), guest.variables, guest.name, strict=strict)
        self._add_host_to_composed_groups(self.get_option("groups"), guest.variables, guest.name, strict=strict)
        self._add_host_to_keyed_groups(self.get_option("keyed_groups"), guest.variables, guest.name, strict=strict)

    # --- asking ---

    def _guests(self) -> list[colima.Guest]:
        """Ask the tools. Raises GvisorError."""
        environ = {**os.environ, "PATH": os.pathsep.join([os.environ.get("PATH", os.defpath), *HOMEBREW])}
        for name in ("colima_home", "lima_home"):
            if self.get_option(name):
                environ[name.upper()] = self.get_option(name)
        home = os.path.expanduser("~")
        listed = self._lists(environ)
        guests = [
            *self._of_colima(listed["colima"], environ, home),
            *(
                colima.lima_guest(entry, home=home, lima=colima.lima_home(environ, home))
                for entry in listed["lima"]
                if _matches(entry["name"], self.get_option("instances"))
            ),
        ]
        return colima.choose(guests, self.get_option("stopped"))

    def _of_colima(self, entries: list[dict[str, Any]], environ: dict[str, str], home: str) -> list[colima.Guest]:
        entries = [entry for entry in entries if _matches(entry["name"], self.get_option("profiles"))]
        if not entries:
            return []
        folder = colima.colima_home(environ, home, os.path.isdir)
        there = colima.Colima(environ, home, folder, colima.parse_version(self._run(["colima", "version"], environ)[1]))
        guests = []
        for entry in entries:
            instance = colima.instance_folder(environ, folder, entry["name"])
            chosen = [os.path.join(instance, "colima.yaml"), os.path.join(folder, entry["name"], "colima.yaml")]
            files = self._yaml(os.path.join(instance, "lima.yaml")), next(filter(None, map(self._yaml, chosen)), {})
            guests.append(colima.colima_guest(entry, there, *files))
        return guests

    def _lists(self, environ: dict[str, str]) -> dict[str, list[dict[str, Any]]]:
        """Return what each tool lists; nothing of one that is not installed and was not asked for."""
        named = self.get_option("sources")
        there = [source for source, command in colima.LISTS.items() if shutil.which(command[0], path=environ["PATH"])]
        missing = [source for source in named if source not in there]
        if missing or not there:
            absent = missing or list(colima.LISTS)
            programs = [colima.LISTS[source][0] for source in absent]
            what = f"neither {programs[0]} nor {programs[1]} is" if len(programs) > 1 else f"{programs[0]} is not"
            raise GvisorError(f"{what} in the PATH. {colima.FIXES[absent[0]]}")
        asked = [source for source in there if source in named or not named]
        with ThreadPoolExecutor() as pool:
            done = pool.map(lambda source: self._run(colima.LISTS[source], environ), asked)
            lists = {
                source: colima.parse_list(source, colima.check_ran(source, *result)) for source, result in zip(asked, done, strict=True)
            }
        return {source: lists.get(source, []) for source in colima.LISTS}

    def _run(self, command: list[str], environ: dict[str, str]) -> tuple[int, str, str]:
        """Return exit code, output and errors. Raises GvisorError when the tool does not end or cannot be started."""
        program = shutil.which(command[0], path=environ["PATH"]) or command[0]
        try:
            done = subprocess.run(
                [program, *command[1:]],
                env=environ,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=self.get_option("timeout"),
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise GvisorError(
                f"`{shlex.join(command)}` did not end within {error.timeout:g} s. Run it by hand, or raise timeout in this file."
            ) from error
        except OSError as error:
            raise GvisorError(f"{program} cannot be started: {error.strerror}. Fix or reinstall it.") from error
        return done.returncode, done.stdout, done.stderr

    def _yaml(self, path: str) -> dict[str, Any]:
        """Return a file that a tool keeps, nothing where it has none; one that cannot be read costs variables, not the host."""
        try:
            with open(path, encoding="utf-8") as stream:
                data = yaml.safe_load(stream)
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, yaml.YAMLError) as error:
            self.display.warning(f"{path} cannot be read, so mounts and runtime of its machine are not known: {error}")
            return {}
        return data if isinstance(data, dict) else {}


def _matches(name: str, patterns: list[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
