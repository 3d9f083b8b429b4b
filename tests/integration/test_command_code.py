# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What ggen-gvisor keeps of its compiled code: root's starts write it, everybody's read it, and nobody else's is believed."""

from __future__ import annotations

import os
import subprocess
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ansible_collections.ggen.gvisor.plugins.module_utils._command import compiled
from ansible_collections.ggen.gvisor.plugins.plugin_utils._command import zipapp
from support.rootless import PYTHON

NOBODY = 65534
PLANTED = "planted code ran"


@pytest.fixture
def place() -> Iterator[Path]:
    """A state folder, and the command beside it, where everybody can look: pytest's own folders are root's alone."""
    with tempfile.TemporaryDirectory(prefix="code-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "state").mkdir(mode=0o755)
        zipapp.write(str(folder / "ggen-gvisor"), str(folder / "state/code"))
        yield folder


def start(place: Path, user: int = 0) -> str:
    argv = [PYTHON, "-IS", str(place / "ggen-gvisor"), "--version"]
    done = subprocess.run(argv, capture_output=True, text=True, user=user, group=user, extra_groups=[], timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


def kept(place: Path) -> Path:
    (found,) = (place / "state/code").iterdir()
    return found


# By the Python that the command runs on: other versions' code differs.
PLANT = """
import hashlib, marshal, sys
from importlib.util import MAGIC_NUMBER
path, module, said = sys.argv[1:]
head = len(MAGIC_NUMBER) + 32
codes = marshal.loads(open(path, "rb").read()[head:])
codes[module] = compile("def main(version): print(%r)" % said, "planted", "exec")
body = marshal.dumps(codes)
open(path, "wb").write(MAGIC_NUMBER + hashlib.sha256(body).digest() + body)
"""


def plant(path: Path) -> None:
    """Write code whose use one sees, as it would be kept."""
    subprocess.run([PYTHON, "-c", PLANT, str(path), zipapp.MAIN, PLANTED], check=True, timeout=60)


@pytest.fixture
def real(place: Path) -> str:
    said = start(place)
    assert said.startswith("ggen-gvisor ")
    return said


@pytest.mark.parametrize("user", [0, NOBODY])
def test_what_root_kept_is_used_by_everybody(place: Path, real: str, user: int) -> None:
    assert start(place, user) == real  # the kept code is the command
    plant(kept(place))
    assert start(place, user) == PLANTED


def _give_away(path: Path) -> None:
    os.chown(path, NOBODY, NOBODY)


def _open_file(path: Path) -> None:
    path.chmod(0o664)


def _open_folder(path: Path) -> None:
    path.parent.chmod(0o777)


def _open_state(path: Path) -> None:
    path.parents[1].chmod(0o775)


def _give_folder_away(path: Path) -> None:
    os.chown(path.parent, NOBODY, NOBODY)


def _link(path: Path) -> None:
    elsewhere = path.parents[2] / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


def _link_folder(path: Path) -> None:
    elsewhere = path.parents[2] / "folder"
    path.parent.rename(elsewhere)
    path.parent.symlink_to(elsewhere)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _other_python(path: Path) -> None:
    path.write_bytes(b"\0\0\r\n" + path.read_bytes()[4:])


def _fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


HOSTILE = [_give_away, _open_file, _open_folder, _open_state, _give_folder_away, _link, _link_folder, _cut, _other_python, _fifo]


@pytest.mark.parametrize("spoil", HOSTILE, ids=lambda spoil: spoil.__name__.strip("_"))
@pytest.mark.parametrize("user", [0, NOBODY])
def test_what_others_could_have_written_is_not_believed(place: Path, real: str, user: int, spoil: Callable[[Path], None]) -> None:
    path = kept(place)
    plant(path)
    spoil(path)
    assert start(place, user) == real


def test_others_than_root_write_nothing(place: Path) -> None:
    (place / "state").chmod(0o777)
    assert start(place, NOBODY).startswith("ggen-gvisor ")
    assert list((place / "state").iterdir()) == []


def test_without_a_state_folder_none_is_made(place: Path) -> None:
    (place / "state").rmdir()
    assert start(place).startswith("ggen-gvisor ")
    assert not (place / "state").exists()


def test_another_command_takes_its_own_and_the_last_one_s_goes(place: Path, real: str) -> None:
    before = kept(place)
    plant(before)
    with open(place / "ggen-gvisor", "ab") as stream:
        stream.write(b"\n")  # a zip may have something behind it, so this one is another that does the same
    assert start(place) == real
    assert kept(place) != before
    assert start(place) == real


def test_what_is_kept_is_of_the_command_whose_sum_it_has(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An upgrade puts another command in its place between two looks at it."""
    archive = place / "ggen-gvisor"

    def exchange(_path: str) -> None:
        with zipfile.ZipFile(archive, "w") as other:
            other.writestr("other.py", "")
        raise ValueError

    monkeypatch.setattr(compiled, "load", exchange)
    assert not compiled.use(str(archive), str(place / "state/code"))
    monkeypatch.undo()
    assert zipapp.MAIN in compiled.load(str(kept(place)))


def test_what_is_kept_is_written_whole_and_for_all_to_read(place: Path, real: str) -> None:
    path = kept(place)
    modes = [stat.st_mode & 0o7777 for stat in (path.stat(), path.parent.stat())]
    assert modes == [0o644, 0o755]
    path.unlink()
    mask = os.umask(0o077)
    try:
        assert start(place) == real
    finally:
        os.umask(mask)
    assert [stat.st_mode & 0o7777 for stat in (kept(place).stat(), path.parent.stat())] == modes
