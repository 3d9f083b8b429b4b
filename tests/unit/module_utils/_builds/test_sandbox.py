# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a compile's gVisor sandbox is told, and which runsc makes it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._base.platform import architecture
from ansible_collections.ggen.gvisor.plugins.module_utils._builds.sandbox import FOLDER, Command, config, find

ARCH = architecture(os.uname().machine)


def program(path: Path, mode: int = 0o755) -> Path:
    path.parent.mkdir(parents=True)
    path.touch()
    path.chmod(mode)
    return path


def test_the_first_place_and_the_newest_release_serve(tmp_path):
    places = [str(tmp_path / "bin/*/linux_{arch}/runsc"), str(tmp_path / "local/runsc")]
    with pytest.raises(GvisorError, match=rf"it has no runsc \({tmp_path}/bin/\*/linux_{ARCH}/runsc, {tmp_path}/local/runsc\)"):
        find(places)
    local = program(tmp_path / "local/runsc")
    program(tmp_path / "bin/20990101/linux_other/runsc")
    program(tmp_path / f"bin/20990102/linux_{ARCH}/runsc", 0o644)
    assert find(places) == str(local)
    for release in ("20260224", "20260701"):
        newest = program(tmp_path / f"bin/{release}/linux_{ARCH}/runsc")
    assert find(places) == str(newest)
    (tmp_path / "link").symlink_to(newest)
    assert find([str(tmp_path / "link")]) == str(newest), "only its real name is shown behind the walls"


def test_nothing_is_written_but_what_is_named_and_nobody_has_rights():
    wanted = json.loads(config(Command(["go", "build"], {"GOPROXY": "off", "A": "b=c"}, "/src"), ["/out", "/later"]))
    assert wanted["root"] == {"path": "/", "readonly": True}
    assert [mount["destination"] for mount in wanted["mounts"] if "rw" in mount.get("options", [])] == ["/out", "/later"]
    assert [mount["source"] for mount in wanted["mounts"] if mount["type"] == "bind"] == ["/out", "/later"]
    assert FOLDER in [mount["destination"] for mount in wanted["mounts"] if mount["type"] == "tmpfs"]
    process = wanted["process"]
    assert (process["capabilities"], process["noNewPrivileges"], process["cwd"]) == ({}, True, "/src")
    assert (process["args"], process["env"]) == (["go", "build"], ["GOPROXY=off", "A=b=c"])
    assert {"type": "network"} in wanted["linux"]["namespaces"]


def test_names_are_bytes():
    assert b"\xff" in config(Command(["\udcff"], {}, "/"), [])
