"""Configurations that people published, and situations in which "done" was believed and not so, on real containerds of four releases.

What counts is what the daemon has: each result is compared with the host's own ``config dump``, and the daemon is restarted with it.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import tomllib
from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._containerd import config_transaction as tx
from ansible_collections.ggen.gvisor.plugins.module_utils._containerd.config_files import read_for
from ansible_collections.ggen.gvisor.plugins.module_utils._containerd.service import DaemonService
from ansible_collections.ggen.gvisor.plugins.plugin_utils._containerd import plan as planning
from ansible_collections.ggen.gvisor.plugins.plugin_utils._containerd import runtime_config as config
from conftest import ROOT
from support import fixtures
from support.containerd_debs import VERSIONS, ensure
from support.containerd_runtime import Host, make_host, run_action

WANTED = {
    "name": "zz-sandbox",
    "runtime_type": "io.containerd.runsc.v1",
    "options": {"TypeUrl": "io.containerd.runsc.v1.options", "ConfigPath": "/etc/containerd/runsc.toml"},
}
NEEDS_2 = "config.toml, line 1: config version 3 needs containerd 2.0 or newer"
NEEDS_2_3 = "config.toml, line 1: config version 4 needs containerd 2.3 or newer"
# Where a case is refused: the message's words. All others get the handler, and give it back.
OVERRIDDEN = r"config.toml is as it should be, but containerd .* has no effect: .*conf.d/99-nvidia.toml is read later and its table .*\(line 2\) replaces"
NESTED = r".*/b.toml, which .*/a.toml imports, has the handler \(line 4\)"
REFUSED = {
    ("15-talos-v3", "1"): NEEDS_2,
    ("F2-overridden-by-import", "1"): OVERRIDDEN,
    (
        "F2b-nested-import",
        "1",
    ): r"options.TypeUrl would not be in effect, it would be missing instead of .*: .*/b.toml, which .*/a.toml imports, has the handler \(line 4\)",
    ("F5a-leftover-v1-table", "1"): NEEDS_2,
    ("F5b-capital-version", ""): "line 1: containerd 2.x reads Version as version and older ones do not",
    ("F10-drop-in-of-version-3", "1.7"): r"refuses the result: (?s:.*)conf.d/99-nvidia.toml: unsupported config version",
    ("F15-bom", ""): "line 1: the file begins with a byte order mark",
    **{
        (case, release): NEEDS_2_3
        for case in ("V4-default-imports", "V4-grpc-table", "V4-nri-and-transfer", "V4-table-of-version-2")
        for release in ("1", "2.1")
    },
    ("V4-drop-in-of-version-2", "2.1"): NEEDS_2_3,
    ("V4-drop-in-of-version-4", "1"): NEEDS_2,
}
# What containerd itself does not start with.
BROKEN = {("V4-drop-in-of-version-4", "2.1"): "got `4`"}
# What of a case's own files a handler is written to, where that is not the main file or a drop-in of ours.
PLACE = {("F3-import-has-the-cri-table", "1"): "conf.d/99-nvidia.toml"}
# What cannot be taken out, and who has it.
STAYS = {("F2b-nested-import", "2"): f"zz-sandbox would still be there: {NESTED}"}


def of_release(table: dict[tuple[str, str], str], case: str, version: str) -> str | None:
    return next((value for (name, release), value in table.items() if name == case and version.startswith(release)), None)


def dump(host: Host) -> dict:
    argv = ["containerd", "--config", host.config_path, "config", "dump"]
    return tomllib.loads(subprocess.run(argv, capture_output=True, text=True, check=True, cwd="/").stdout)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.toml")}


def start(folder: Path, version: str, case: str, monkeypatch: pytest.MonkeyPatch) -> Host:
    folder.mkdir(exist_ok=True)
    return make_host(folder, version, fixtures.lay_out_case(case, folder), monkeypatch)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("case", fixtures.cases())
def test_a_case_is_done_when_the_daemon_has_it(case: str, version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = start(tmp_path / "etc", version, case, monkeypatch)
    before = files(host.root)
    options = host.options(restart=True)
    words = of_release(REFUSED, case, version)
    try:
        if words:
            result = run_action(**WANTED, **options)
            assert result["failed"]
            assert re.search(words, result["msg"]), result["msg"]
            assert files(host.root) == before
            return
        if of_release(BROKEN, case, version):
            with pytest.raises(RuntimeError, match=of_release(BROKEN, case, version)):
                host.start()
            return
        host.start()
        had = config.handlers(dump(host))
        result = run_action(**WANTED, **options)
        assert not result["failed"], result["msg"]
        has = config.handlers(dump(host))
        assert has["zz-sandbox"]["options"] == WANTED["options"]
        assert {name: table.get("runtime_type") for name, table in had.items()}.items() <= {
            name: table.get("runtime_type") for name, table in has.items()
        }.items()
        place = of_release(PLACE, case, version)
        assert place is None or result["files"] == [f"{host.root}/{place}"]
        assert run_action(**WANTED, **options)["phases"] == ["read"]
        result = run_action(name="zz-sandbox", state="absent", **options)
        stays = of_release(STAYS, case, version)
        if stays:
            assert re.search(stays, result["msg"])
            return
        assert not result["failed"], result["msg"]
        assert "zz-sandbox" not in config.handlers(dump(host))
        if case == "F12-runc-stays" and version < "2":
            # kata needs it by now: a default runtime that names no handler would keep the CRI plugin down.
            assert set(config.handlers(tomllib.loads(host.text() or ""))) == {"kata", "runc"}
        elif case == "V4-drop-in-of-version-2" and version < "2":
            # Of a main file without tables 1.x does not care which version it says, and the drop-in has nvidia without runc.
            assert set(config.handlers(tomllib.loads((host.root / "conf.d/99-nvidia.toml").read_text()))) == {"nvidia", "runc"}
        elif case != "F2-overridden-by-import":
            assert files(host.root) == before
    finally:
        host.stop()


def test_the_document_has_the_outcome_of_each_case() -> None:
    text = (ROOT / "docs/decisions/containerd-cases.md").read_text()
    lines = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith(("| case |", "| `"))]
    head, *rows = [[cell.rpartition("→")[2].strip(" `†") for cell in cells] for cells in lines]
    assert head == ["case", *VERSIONS]
    words = {"refused": REFUSED, "does not start": BROKEN, "stays": STAYS}
    assert {row[0]: row[1:] for row in rows} == {
        case: [next((word for word, table in words.items() if of_release(table, case, version)), "done") for version in VERSIONS]
        for case in fixtures.cases()
    }
    properties = (ROOT / "tests/unit/plugin_utils/_containerd/test_runtime_config_properties.py").read_text()
    (examples,) = re.findall(r'"GGEN_GVISOR_EXAMPLES", "(\d+)"', properties)
    number = properties.count("\n@given(")
    assert f"by {number} properties with {examples} generated configurations each" in " ".join(text.split())


# --- nothing to do, and yet not so ---


@pytest.mark.parametrize("version", ["1.6.20", "1.7.24"])
def test_absent_is_not_believed_where_a_nested_import_has_the_handler(
    version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = start(tmp_path / "etc", version, "F2b-nested-import", monkeypatch)
    result = run_action(name="zz-sandbox", state="absent", **host.options())
    assert result["failed"]
    assert result["phases"] == ["read"]
    assert re.search(f"is still there: {NESTED}", result["msg"])


@pytest.mark.parametrize("version", VERSIONS)
def test_a_relative_import_is_found_where_the_daemon_finds_it(version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """1.6 looks for it where it was started, which is the root; the newer ones beside the file."""
    host = start(tmp_path / "etc", version, "F3-import-has-the-cri-table", monkeypatch)
    Path(host.config_path).write_text('version = 2\nimports = ["conf.d/*.toml"]\n')
    result = run_action(**WANTED, **host.options())
    assert not result["failed"], result["msg"]
    assert "zz-sandbox" in config.handlers(dump(host))
    assert (result["file"] == host.config_path) == (version == "1.6.20")


@pytest.mark.parametrize(
    ("case", "version", "sentence"),
    [
        ("F2-overridden-by-import", "1.6.20", OVERRIDDEN),
        ("F2-overridden-by-import", "1.7.24", OVERRIDDEN),
        ("F2-overridden-by-import", "2.1.9", None),
        ("F1a-runc-v1", "1.7.24", "config.toml has no runtime handler zz-sandbox"),
        ("F15-bom", "1.7.24", "byte order mark"),
    ],
)
def test_a_host_is_ready_when_the_daemon_has_the_handler(
    case: str, version: str, sentence: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What containerd_info says, and with it site, verify and upgrade."""
    host = start(tmp_path / "etc", version, case, monkeypatch)
    found = read_for(host.config_path, "containerd", "zz-sandbox", address=host.address)
    (said,) = planning.drift(found, {**WANTED, "path": host.config_path}) or [None]
    assert said is None if sentence is None else re.search(sentence, said or "")


def test_drift_names_annotations_and_the_default_with_both_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = start(tmp_path / "etc", "1.7.24", "F1a-runc-v1", monkeypatch)
    assert not run_action(**WANTED, **host.options())["failed"]
    found = read_for(host.config_path, "containerd", "zz-sandbox", address=host.address)
    assert planning.drift(found, {**WANTED, "path": host.config_path}) == []
    said = planning.drift(found, {**WANTED, "path": host.config_path, "pod_annotations": ["dev.gvisor.*"], "default": True})
    assert said == [
        f"{host.config_path}: handler zz-sandbox: pod_annotations is not in effect, it is [] instead of ['dev.gvisor.*']",
        f"{host.config_path}: the default runtime is runc instead of zz-sandbox",
    ]


def test_default_false_is_judged_by_the_dump_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A nested import makes the handler the default: no file that would be edited says so."""
    host = start(tmp_path / "etc", "2.1.9", "F2b-nested-import", monkeypatch)
    assert not run_action(**WANTED, **host.options())["failed"]
    with open(host.root / "b.toml", "a") as nested:
        nested.write('[plugins."io.containerd.grpc.v1.cri".containerd]\ndefault_runtime_name = "zz-sandbox"\n')
    result = run_action(**WANTED, **host.options(default=False))
    assert re.search("the default runtime is still zz-sandbox: .*/b.toml", result["msg"])


def test_both_tables_in_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On 2.x the newer table counts, whatever the file's version is; taking the handler out takes it out of both."""
    new, old = ('[plugins."io.containerd.{0}".containerd.runtimes.{1}]\nruntime_type = "io.containerd.runc.v2"\n', "grpc.v1.cri")
    text = f"version = 2\n{new.format(old, 'zz-sandbox')}{new.format('cri.v1.runtime', 'nvidia')}"
    host = make_host(tmp_path, "2.1.9", text, monkeypatch)
    assert not run_action(**{**WANTED, "options": {}}, dropin="never", **host.options())["failed"]
    assert {"nvidia", "runc", "zz-sandbox"} == set(config.handlers(dump(host)))
    assert not run_action(name="zz-sandbox", state="absent", **host.options())["failed"]
    assert "zz-sandbox" not in (host.text() or "")


@pytest.mark.parametrize("version", ["1.6.20", "1.7.24"])
def test_the_deprecated_default_wins_and_is_named(version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = start(tmp_path / "etc", version, "F11-default-runtime-table", monkeypatch)
    result = run_action(**WANTED, **host.options(default=True))
    assert re.search(r"config.toml, line 2: the deprecated table .*default_runtime \(io.containerd.runc.v2\) wins", result["msg"])
    # It is a default of its own, so runc need not be written out beside another handler.
    kata = '[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.kata]\nruntime_type = "io.containerd.kata.v2"\n'
    Path(host.config_path).write_text(f"{host.text()}{kata}")
    before = host.text()
    assert not run_action(**WANTED, **host.options())["failed"]
    assert "runc" not in config.handlers(tomllib.loads(host.text() or ""))
    assert not run_action(name="zz-sandbox", state="absent", **host.options())["failed"]
    assert host.text() == before


def test_a_change_of_runc_is_told_with_both_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """runc's options come from an imported file; on 1.x our table in the main file would not replace them, on a file of ours it would."""
    host = start(tmp_path / "etc", "1.7.24", "F1a-runc-v1", monkeypatch)
    original = tx.dump

    def before(program: str, path: str) -> dict:
        told = original(program, path)
        if path == host.config_path:
            told["stdout"] = told["stdout"].replace("io.containerd.runc.v1", "io.containerd.runc.v9")
        return told

    monkeypatch.setattr("ansible_collections.ggen.gvisor.plugins.module_utils._containerd.config_files.dump", before)
    result = run_action(**WANTED, **host.options())
    assert "handler runc would change: runtime_type was 'io.containerd.runc.v9' and would be 'io.containerd.runc.v1'" in result["msg"]


def test_the_real_file_is_judged_after_the_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What containerd accepted as a candidate and makes something else of in its place is put back."""
    host = start(tmp_path / "etc", "1.7.24", "F1a-runc-v1", monkeypatch)
    before = host.text()
    original = tx.dump
    monkeypatch.setattr(tx, "dump", lambda program, path: {**original(program, path), "stdout": "version = 2\n"})
    result = run_action(**WANTED, **host.options())
    assert "containerd makes something else of" in result["msg"]
    assert (result["rolled_back"], host.text()) == (True, before)


# --- the daemon that runs is asked ---


@pytest.fixture(name="elsewhere")
def fixture_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    """A containerd whose --config is not where its configuration is usually looked for."""
    host = make_host(tmp_path / "etc", "1.7.24", "version = 2\n", monkeypatch)
    try:
        yield host.start()
    finally:
        host.stop()


def test_a_file_that_the_daemon_does_not_read_is_refused(elsewhere: Host, tmp_path: Path) -> None:
    other = tmp_path / "other.toml"
    other.write_text("version = 2\n")
    for state in ({**WANTED}, {"name": "zz-sandbox", "state": "absent"}):
        result = run_action(**state, **{**elsewhere.options(restart=True), "path": str(other)})
        assert result["failed"]
        assert (
            f"{other} is not what containerd reads: the daemon that runs (process {elsewhere.pid()}) reads {elsewhere.config_path}."
            in result["msg"]
        )
    assert other.read_text() == "version = 2\n"


def test_a_path_that_is_left_alone_follows_the_daemon(elsewhere: Host) -> None:
    options = {key: value for key, value in elsewhere.options(restart=True).items() if key != "path"}
    result = run_action(**WANTED, **options)
    assert not result["failed"], result["msg"]
    assert (result["file"], result["restarted"], result["cri"]) == (elsewhere.config_path, True, "ok")
    assert run_action(**WANTED, **options)["phases"] == ["read"]
    assert not run_action(name="zz-sandbox", state="absent", **options)["failed"]
    assert elsewhere.text() == "version = 2\n"


def test_the_program_of_the_daemon_is_taken_where_the_path_has_none(
    elsewhere: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on k3s, whose containerd is in a folder of its own."""
    (tmp_path / "none").mkdir()
    monkeypatch.setattr(
        "ansible_collections.ggen.gvisor.plugins.module_utils._containerd.config_files.shutil.which", lambda *_a, **_k: None
    )
    result = run_action(**WANTED, **elsewhere.options())
    assert not result["failed"], result["msg"]
    assert result["validation"] == "accepted by containerd 1.7.24"


def test_another_containerd_on_the_path_is_refused(elsewhere: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", ensure("2.1.9").path)
    result = run_action(**WANTED, **elsewhere.options(restart=True))
    assert result["failed"]
    assert re.search(
        r"the containerd that runs \(.*/1.7.24/usr/bin/containerd, process \d+\) is 1.7.24.*the program on the PATH is 2.1.9", result["msg"]
    )
    assert elsewhere.text() == "version = 2\n"


def test_a_file_that_the_service_writes_anew_is_told(elsewhere: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    original = DaemonService.start

    def generate(self: DaemonService, timeout: float = 60.0) -> None:
        Path(elsewhere.config_path).write_text("version = 2\n# made at each start\n")
        original(self, timeout)

    monkeypatch.setattr(DaemonService, "start", generate)
    result = run_action(**WANTED, **elsewhere.options(restart=True))
    assert result["failed"]
    assert f"{elsewhere.config_path} was written anew when containerd was restarted" in result["msg"]
    assert f"Rolled back: what was written to {elsewhere.config_path} meanwhile stays and containerd runs with it again." in result["msg"]
    assert list(elsewhere.root.rglob(".*ggen.gvisor*")) == []


# --- what is no configuration file ---


def test_a_fifo_a_folder_and_a_template_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", ensure("1.7.24").path)
    os.mkfifo(tmp_path / "fifo")
    template = tmp_path / "config.toml.tmpl"
    template.write_text('version = 2\n{{ template "base" . }}\n')
    options = {"address": str(tmp_path / "none.sock")}
    for path, words in (
        (tmp_path / "fifo", "fifo is a FIFO, which has no content to read; name the configuration file"),
        (tmp_path, "is a folder; name the configuration file"),
        (template, "line 2: not valid TOML: .*looks like a Go template"),
    ):
        assert re.search(words, run_action(**WANTED, path=str(path), **options)["msg"])
    (tmp_path / "config.toml").write_text(f'version = 2\nimports = ["{tmp_path}/fifo"]\n')
    assert "fifo is a FIFO" in run_action(**WANTED, path=str(tmp_path / "config.toml"), **options)["msg"]


def test_a_file_that_is_a_mount_is_named_with_what_helps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = make_host(tmp_path / "etc", "1.7.24", "version = 2\n", monkeypatch)
    real = tmp_path / "real.toml"
    real.write_text("version = 2\n")
    subprocess.run(["mount", "--bind", str(real), host.config_path], check=True)
    try:
        result = run_action(**WANTED, **host.options())
    finally:
        subprocess.run(["umount", host.config_path], check=True)
    assert re.search(
        f"^{host.config_path}: .*; it is a mount of its own and cannot be replaced: unmount it, or change the file", result["msg"]
    )
    assert (os.listdir(host.root), real.read_text()) == (["config.toml"], "version = 2\n")


def test_a_read_only_folder_is_named_with_what_helps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = make_host(tmp_path / "etc", "1.7.24", "version = 2\n", monkeypatch)
    subprocess.run(["mount", "--bind", str(host.root), str(host.root)], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(host.root)], check=True)
        result = run_action(**WANTED, **host.options())
    finally:
        subprocess.run(["umount", str(host.root)], check=True)
    assert result["msg"] == f"{host.config_path}: Read-only file system; mount it writable. Nothing was written."


# --- services that make the file anew at each start ---

RUNTIMES = {2: 'plugins."io.containerd.grpc.v1.cri"', 3: 'plugins."io.containerd.cri.v1.runtime"'}
RUNC = '[{0}.containerd.runtimes.runc]\nruntime_type = "io.containerd.runc.v2"\n'


def make_k3s(folder: Path, version: int, imports: bool) -> None:
    """Make what k3s and rke2 make: their own text, or a template's with that text in the place of {{ template "base" . }}."""
    dropins = folder / {2: "config.toml.d", 3: "config-v3.toml.d"}[version]
    base = "# File generated by k3s. DO NOT EDIT. Use config.toml.tmpl instead.\n" + f"version = {version}\n"
    base += f'imports = ["{dropins}/*.toml"]\n' if imports else ""
    base += RUNC.format(RUNTIMES[version])
    template = folder / {2: "config.toml.tmpl", 3: "config-v3.toml.tmpl"}[version]
    text = template.read_text() if template.exists() else '{{ template "base" . }}'
    (folder / "config.toml").write_text(text.replace('{{ template "base" . }}', base))


def make_k0s(folder: Path, version: int) -> None:
    """Make what k0s makes: a file of its own with all that the drop-ins have for the CRI plugin, and the file that imports it."""
    merged = RUNC.format(RUNTIMES[version])
    for path in sorted((folder / "containerd.d").glob("*.toml")):
        merged += re.sub("(?m)^version = .*$", "", path.read_text())
    (folder / "run.toml").write_text(f"version = {version}\n{merged}")
    (folder / "containerd.toml").write_text(f'# k0s_managed=true\nversion = {version}\nimports = ["{folder}/run.toml"]\n')


def make_microk8s(folder: Path, version: int) -> None:
    """Make what MicroK8s makes: its template with the variables' values."""
    template = folder / "containerd-template.toml"
    if not template.exists():
        template.write_text(
            f'version = {version}\noom_score = 0\n{RUNC.format(RUNTIMES[version])}BinaryName = "${{RUNTIME}}"\n'.replace("BinaryName", "#")
        )
    (folder / "containerd.toml").write_text(template.read_text().replace("${RUNTIME}", "runc"))


SERVICES = {
    "k3s-imports": (
        "k3s/agent/etc/containerd",
        "config.toml",
        "2.1.9",
        lambda at: make_k3s(at, 3, True),
        "config-v3.toml.d/zz-sandbox.toml",
    ),
    "k3s-template": ("k3s/agent/etc/containerd", "config.toml", "2.1.9", lambda at: make_k3s(at, 3, False), "config-v3.toml.tmpl"),
    "rke2-1.7": ("rke2/agent/etc/containerd", "config.toml", "1.7.24", lambda at: make_k3s(at, 2, True), "config.toml.tmpl"),
    "k0s-1.7": ("k0s", "containerd.toml", "1.7.24", lambda at: make_k0s(at, 2), "containerd.d/zz-sandbox.toml"),
    "k0s-2.1": ("k0s", "containerd.toml", "2.1.9", lambda at: make_k0s(at, 3), "containerd.d/zz-sandbox.toml"),
    "microk8s-1.6": ("microk8s/1234/args", "containerd.toml", "1.6.20", lambda at: make_microk8s(at, 2), "containerd-template.toml"),
}


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_that_makes_the_file_makes_it_with_the_handler(service: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    where, name, version, make, place = SERVICES[service]
    folder = tmp_path / where
    folder.mkdir(parents=True)
    host = make_host(folder, version, "", monkeypatch)
    os.unlink(host.config_path)
    host.config_path = str(folder / name)
    make(folder)
    before = files(folder)
    original = DaemonService.start

    def generate(self: DaemonService, timeout: float = 60.0) -> None:
        make(folder)
        original(self, timeout)

    monkeypatch.setattr(DaemonService, "start", generate)
    options = host.options(restart=True)
    try:
        host.start()
        result = run_action(**WANTED, **options)
        assert not result["failed"], result["msg"]
        assert (result["files"], result["cri"]) == ([f"{folder}/{place}"], "ok")
        assert config.handlers(dump(host))["zz-sandbox"]["options"] == WANTED["options"]
        assert "runc" in config.handlers(dump(host))
        assert run_action(**WANTED, **options)["phases"] == ["read"]
        # Without its source the handler would go with the next start, although the file that is made has it.
        kept = (folder / place).read_text()
        if place.endswith(".tmpl"):
            (folder / place).unlink()
            assert run_action(check=True, **WANTED, **options)["files"] == [f"{folder}/{place}"]
            (folder / place).write_text(kept)
        result = run_action(name="zz-sandbox", state="absent", **options)
        assert not result["failed"], result["msg"]
        assert "zz-sandbox" not in config.handlers(dump(host))
        assert files(folder) == before
        assert not (folder / place).exists() or place == "containerd-template.toml"
        assert run_action(name="zz-sandbox", state="absent", **options)["phases"] == ["read"]
    finally:
        host.stop()


def test_a_service_that_does_not_heed_its_source_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "k0s"
    host = make_host(folder, "1.7.24", "", monkeypatch)
    host.config_path = str(folder / "containerd.toml")
    make_k0s(folder, 2)
    before = files(folder)
    try:
        host.start()
        result = run_action(**WANTED, **host.options(restart=True))
        assert "containerd.toml, which is made from it, has no handler zz-sandbox after the restart" in result["msg"]
        assert (result["rolled_back"], files(folder)) == (True, before)
    finally:
        host.stop()


def test_a_file_that_somebody_unknown_makes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "\n# This file is auto-generated by Some Desktop\nversion = 2\n"
    host = make_host(tmp_path / "etc", "1.7.24", text, monkeypatch)
    result = run_action(**WANTED, **host.options())
    assert (
        "config.toml, line 2: the file says that it is made by something else (# This file is auto-generated by Some Desktop)"
        in result["msg"]
    )
    assert host.text() == text
    # Nothing to change is nothing to refuse.
    assert not run_action(name="zz-sandbox", state="absent", **host.options())["failed"]


def test_a_template_that_has_the_handler_by_hand_stays(tmp_path: Path) -> None:
    handler = config.Handler("runsc", "io.containerd.runsc.v1")
    by_hand = '{{ template "base" . }}\n[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runsc]\nruntime_type = "x.y"\n'
    base = '{{ template "base" . }}\n'
    template = config.Template("t", base, 3)
    assert config.set_block(by_hand, handler, "runsc", template, is_met=True) == by_hand
    with pytest.raises(GvisorError, match="t, line 2: the template has the handler runsc already"):
        config.set_block(by_hand, handler, "runsc", template)
    theirs = "# mine\n" + base
    ours = config.set_block(theirs, handler, "runsc", template) or ""
    assert config.set_block(ours, handler, "runsc", template) == ours
    assert config.set_block(ours, None, "runsc", template) == theirs
    with pytest.raises(GvisorError, match="an option of its own for the default runtime"):
        config.set_block(None, config.Handler("runsc", "io.containerd.runsc.v1", default=True), "runsc", template)
