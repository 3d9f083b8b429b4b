# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which addresses are taken, and files of this machine. Servers: tests/integration/test_build_release.py."""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path

import pytest
from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._builds.download import File, below, folder_of, path_of, read, save

DATA = b"some bytes"
WANTED = File(hashlib.sha256(DATA).hexdigest(), 100, len(DATA))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a file"
    path.write_bytes(DATA)
    return path


def test_a_file_of_this_machine_is_read_by_path_and_by_address(file):
    assert read(str(file), WANTED) == DATA
    assert read(file.as_uri(), WANTED) == DATA
    assert "%20" in file.as_uri()
    stream = io.BytesIO()
    save(below(folder_of(file.parent.as_uri() + "/"), file.name), WANTED, stream)
    assert stream.getvalue() == DATA


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (WANTED._replace(sha256="0" * 64), "has the sha256 .* and 0+ is expected"),
        (WANTED._replace(size=9), "has 10 bytes and 9 are expected"),
        (WANTED._replace(size=11), "has 10 bytes and 11 are expected"),
        (WANTED._replace(size=None, most=9), "has 10 bytes; 9 is the most"),
    ],
)
def test_another_file_is_refused(file, wanted, said):
    with pytest.raises(GvisorError, match=said):
        read(str(file), wanted)


def test_a_pipe_or_a_device_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (str(tmp_path / "pipe"), "/dev/zero", str(tmp_path)):
        with pytest.raises(GvisorError, match=r"no regular file|cannot be read"):
            read(path, WANTED)
    with pytest.raises(GvisorError, match="No such file"):
        read(str(tmp_path / "missing"), WANTED)


@pytest.mark.parametrize(
    "address",
    [
        "ftp://host/x",
        "data://text",
        "gopher://host",
        "file://host/etc/passwd",
        "http://",
        "https:///x",
        "http://[::1/x",
        "http://host:x/",
        "jar:file:///x://",
    ],
)
def test_other_addresses_are_not_taken(address):
    with pytest.raises(GvisorError):
        path_of(address)


def test_a_password_is_not_shown():
    with pytest.raises(GvisorError) as refused:
        read("https://me:secret@host/x", WANTED)
    assert "secret" not in refused.value.message


def test_a_folder_s_address_has_no_query():
    assert folder_of("https://host/a/") == "https://host/a"
    for address in ("https://host/a?b", "https://host/a#b"):
        with pytest.raises(GvisorError, match="no \\? and no #"):
            folder_of(address)
