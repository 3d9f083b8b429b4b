"""Editing containerd's configuration: whole lives of whole files, refusals, and the judgement of containerd's dumps.

UPDATE_GOLDEN=1 writes the golden files anew; look at their difference before committing it.
"""

from __future__ import annotations

import os
import time

import pytest
import tomllib
from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._containerd import config_files
from ansible_collections.ggen.gvisor.plugins.plugin_utils._containerd import runtime_config as config
from ansible_collections.ggen.gvisor.plugins.plugin_utils._containerd import toml_text as toml
from ansible_collections.ggen.gvisor.plugins.plugin_utils._containerd import verdict
from support import fixtures

INPUTS = fixtures.inputs()
CASES = {"no-file": None, **INPUTS}

RUNSC = config.Handler(
    "runsc",
    "io.containerd.runsc.v1",
    {"TypeUrl": "io.containerd.runsc.v1.options", "ConfigPath": "/etc/containerd/runsc.toml"},
    pod_annotations=["dev.gvisor.*"],
)
SECOND = config.Handler("gvisor-kvm", "io.containerd.runsc.v1", {"Nested": {"Deep": True}}, snapshotter="native", default=True)


def present(text: str | None, handler: config.Handler = RUNSC, **more: object) -> str:
    result = config.set_present(text, handler, config.Place(where="config.toml", **more)).text
    assert result is not None
    return result


def absent(text: str | None, name: str = "runsc") -> str | None:
    return config.set_absent(text, name, where="config.toml").text


def golden(name: str, text: str | None) -> str:
    path = fixtures.CONTAINERD / "golden" / f"{name}.toml"
    if os.environ.get("UPDATE_GOLDEN"):
        fixtures.write(path, text or "")
    return fixtures.read(path)


@pytest.mark.parametrize("name", CASES)
def test_whole_life(name: str) -> None:
    original = CASES[name]
    had_it = original is not None and "runsc" in config.handlers(tomllib.loads(original))

    one = present(original)
    assert one == golden(f"{name}.1-runsc", one)
    two = present(one, SECOND)
    assert two == golden(f"{name}.2-and-default", two)
    # Each change is made once.
    assert present(one) == one
    assert present(two, SECOND) == two
    assert present(two) == two
    # Either handler can go first, and what is left is what would be there if the other had been alone.
    assert absent(two, "gvisor-kvm") == one
    assert absent(absent(two), "gvisor-kvm") == (absent(original) if had_it else original)
    gone = absent(one)
    if had_it:
        assert gone == golden(f"{name}.3-gone", gone)
    else:
        assert gone == original
        assert absent(original) == original


@pytest.mark.parametrize("name", CASES)
def test_default_and_back(name: str) -> None:
    one = present(CASES[name])
    default = present(one, config.Handler("runsc", default=True))
    assert config.default_name(tomllib.loads(default)) == "runsc"
    assert present(default, config.Handler("runsc", default=True)) == default
    assert present(default, config.Handler("runsc")) == default  # not named: left as it is
    assert present(default, config.Handler("runsc", default=False)) == one
    assert present(one, config.Handler("runsc", default=False)) == one
    assert absent(default) == absent(one)


@pytest.mark.parametrize("name", INPUTS)
def test_lines_of_others_stay(name: str) -> None:
    """Every original line is in the result, in its order; only a line that holds an inline table or a default may differ."""
    lines = iter(present(INPUTS[name]).splitlines(keepends=True))
    for line in INPUTS[name].splitlines(keepends=True):
        if name in ("v2-has-runsc", "v2-inline"):
            break
        assert any(line.rstrip("\r\n") == other.rstrip("\r\n") for other in lines), line


def test_line_ending_and_final_newline_are_the_files_own() -> None:
    text = present(INPUTS["v2-crlf"])
    assert text.count("\n") == text.count("\r\n")
    assert not text.endswith("\n")


def test_lines_look_like_their_neighbours() -> None:
    assert '\n\t\t\t[plugins.cri.containerd.runtimes.runsc]\n\t\t\t\truntime_type = "' in present(INPUTS["v1-kubespray-like"])
    assert "\n          runtime_type = 'io.containerd.runsc.v1'\n" in present(INPUTS["default-2.1.9"])


def test_only_named_keys_change() -> None:
    text = present(INPUTS["v2-has-runsc"], config.Handler("runsc", "io.containerd.runsc.v1", {"ConfigPath": "/new"}))
    expected = INPUTS["v2-has-runsc"].replace('"io.containerd.runtime.v1.linux"', '"io.containerd.runsc.v1"')
    assert text == expected.replace('"/etc/containerd/old.toml"', '"/new"')


def test_values_of_every_type() -> None:
    options = {"Flag": True, "Number": 7, "Ratio": 0.5, "Words": ["a", "b"], "Table": {"In": {"Side": 'q"\\'}}, "Empty": {}}
    text = present("version = 2\n", config.Handler("x", "io.containerd.x.v1", options))
    assert config.handlers(tomllib.loads(text))["x"]["options"] == options
    assert absent(text, "x") == "version = 2\n"
    changed = {**options, "Flag": False, "Number": 8, "Words": [], "Table": {"In": {"Side": "s"}}}
    text = present(text, config.Handler("x", "io.containerd.x.v1", changed))
    assert config.handlers(tomllib.loads(text))["x"]["options"] == changed


def test_true_is_not_one() -> None:
    text = present("version = 2\n", config.Handler("x", "io.containerd.x.v1", {"Flag": 1}))
    assert "Flag = true" in present(text, config.Handler("x", "io.containerd.x.v1", {"Flag": True}))


def test_somebody_elses_additions_stay() -> None:
    """What was added around our lines since is not taken away with them."""
    text = present("")
    cri = 'plugins."io.containerd.grpc.v1.cri"'
    ours = f"[{cri}.containerd.runtimes.runc]"
    theirs = f'\n# theirs\n[{cri}.containerd.runtimes.kata]\nruntime_type = "io.containerd.kata.v2"\n'
    kept = absent(text + theirs)
    assert kept is not None
    assert set(config.handlers(tomllib.loads(kept))) == {"runc", "kata"}
    assert kept.endswith(theirs)
    assert absent(kept, "kata") == "\n# theirs\n"
    # A runc that was given options is no longer ours.
    edited = text.replace(ours, f"[{cri}.containerd.runtimes.runc.options]\nSystemdCgroup = true\n{ours}")
    assert set(config.handlers(tomllib.loads(absent(edited) or ""))) == {"runc"}
    # A version line of ours stays as long as something depends on it.
    assert absent(f"{text}[{cri}]\nenable_selinux = true\n") == (f"version = 2 {config.VERSION_MARK}\n[{cri}]\nenable_selinux = true\n")


def test_default_that_was_changed_since_stays() -> None:
    text = present(INPUTS["v2-many-handlers"], config.Handler("runsc", "io.containerd.runsc.v1", default=True))
    theirs = text.replace('default_runtime_name = "runsc"', 'default_runtime_name = "kata"')
    assert config.default_name(tomllib.loads(absent(theirs) or "")) == "kata"


def test_default_of_somebody_else_falls_back_to_runc() -> None:
    text = INPUTS["v2-many-handlers"].replace('"nvidia"', '"kata"')
    assert absent(text, "kata") is not None
    assert config.default_name(tomllib.loads(absent(text, "kata") or "")) == "runc"


def test_version_line_of_ours_only_where_it_changes_nothing() -> None:
    assert present(INPUTS["colima"]).startswith(f"version = 2 {config.VERSION_MARK}\n[grpc]\n")
    for name in ("docker-stub", "docker-package", "v1-kubespray-like"):
        assert "version" not in tomllib.loads(present(INPUTS[name]))


def test_disabled_cri_is_told() -> None:
    edit = config.set_present(INPUTS["docker-package"], RUNSC, config.Place(where="config.toml"))
    assert edit.version == 1
    assert "config.toml, line 3: disabled_plugins turns the CRI plugin off" in edit.notes[0]


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("version = 2\n[a\n", 2, "not valid TOML"),
        ("version = 2\n\n[debug]\n[debug]\n", 4, "not valid TOML"),
        ("version = 2\n[debug]\nlevel = 1\nlevel = 2\n", 4, "not valid TOML"),
        ("version = 2\r\na = 'x\r\n", 2, "not valid TOML"),
        ("version = 2\nplugins = 3\n", 2, "plugins must be a table but is the value 3"),
        ("version = 2\n[[plugins]]\na = 1\n", 2, "plugins must be a table but is an array of tables"),
        ('version = 2\n[plugins]\n"io.containerd.grpc.v1.cri" = "x"\n', 3, "must be a table"),
        ('version = 2\n[plugins."io.containerd.grpc.v1.cri".containerd]\nruntimes = []\n', 3, "must be a table"),
        (
            'version = 2\n[plugins."io.containerd.grpc.v1.cri".containerd.runtimes]\nrunsc = 1\n',
            3,
            "runsc must be a table",
        ),
        (
            'version = 2\n[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runsc]\noptions = "x"\n',
            3,
            "options must be a table",
        ),
        (
            'version = 2\n[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runsc.runtime_type]\nx = 1\n',
            2,
            "runtime_type must be a value",
        ),
        ('# x\nversion = "2"\n', 2, "version must be a number from 1 to 4 but is '2'"),
        ("version = true\n", 1, "version must be a number"),
        ("version = 0\n", 1, "version must be a number"),
        ("\nversion = 5\n", 2, "config version 5 is newer than what this module knows"),
    ],
)
def test_refuses_with_the_line(text: str, line: int, words: str) -> None:
    with pytest.raises(GvisorError) as caught:
        present(text)
    assert f"config.toml, line {line}: " in caught.value.message
    assert words in caught.value.message
    assert caught.value.details["line"] == line


def test_refuses_bytes_that_are_no_text_with_the_line() -> None:
    with pytest.raises(GvisorError, match=r"config\.toml, line 3: byte 0xff is not UTF-8"):
        toml.decode(b"version = 2\n\n# \xff\n", "config.toml")


def test_newer_version_when_the_user_says_so() -> None:
    text = present("version = 5\n", allow_newer=True)
    assert '[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runsc]' in text
    assert config.set_absent(text, "runsc", where="config.toml", allow_newer=True).text == "version = 5\n"


@pytest.mark.parametrize("name", ["Runsc", "run_sc", "", "-runsc", "runsc-", "a.b", "x" * 64, "run sc", "rünsc"])
def test_refuses_names_that_no_runtime_class_can_have(name: str) -> None:
    with pytest.raises(GvisorError, match="RuntimeClass"):
        present("", config.Handler(name, "io.containerd.runsc.v1"))


def test_such_a_name_can_still_be_taken_away() -> None:
    text = 'version = 3\n[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.My_Runtime]\nruntime_type = "x.y"\n'
    assert absent(text, "My_Runtime") == "version = 3\n"


@pytest.mark.parametrize("runtime_type", ["runsc", "", "io containerd", 'io."x".v1'])
def test_refuses_types_that_are_none(runtime_type: str) -> None:
    with pytest.raises(GvisorError, match="runtime_type"):
        present("", config.Handler("runsc", runtime_type))


def test_a_new_handler_needs_a_type() -> None:
    with pytest.raises(GvisorError, match="runtime_type is needed"):
        present("", config.Handler("runsc"))


def test_refuses_null() -> None:
    with pytest.raises(GvisorError, match="no null"):
        present("", config.Handler("runsc", "io.containerd.runsc.v1", {"A": None}))


@pytest.mark.parametrize(("version", "containerd"), [(3, "1.6.20"), (3, "1.7.24"), (4, "2.1.9"), (4, "1.7.24")])
def test_refuses_a_version_that_the_daemon_does_not_read(version: int, containerd: str) -> None:
    with pytest.raises(GvisorError, match=f"line 1: config version {version} needs containerd"):
        present(f"version = {version}\n", containerd=containerd)


def test_refuses_to_leave_a_default_that_is_nothing() -> None:
    cri = 'plugins."io.containerd.grpc.v1.cri".containerd'
    text = f'version = 2\n[{cri}]\ndefault_runtime_name = "runsc"\n[{cri}.runtimes.runsc]\nruntime_type = "x.y"\n'
    with pytest.raises(GvisorError, match="line 3: runsc is the default runtime and there is no runc"):
        absent(text)
    # Version 3 is read by a containerd that has runc built in, whatever the file says.
    text = text.replace("version = 2", "version = 3").replace("grpc.v1.cri", "cri.v1.runtime")
    assert 'default_runtime_name = "runc"' in (absent(text) or "")


def test_a_default_that_was_nothing_becomes_runc() -> None:
    """A file whose default names no handler kept the CRI plugin down; taking the handler away must not bring that back."""
    text = 'version = 2\n[plugins."io.containerd.grpc.v1.cri".containerd]\ndefault_runtime_name = "runsc"\n'
    assert absent(present(text)) == text.replace('"runsc"', '"runc"')
    kata = 'version = 2\n[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.kata]\nruntime_type = "x.y"\n'
    assert set(config.handlers(tomllib.loads(absent(present(kata)) or ""))) == {"kata", "runc"}


def test_the_time_grows_with_the_number_of_tables_and_not_with_its_square() -> None:
    def seconds(tables: int) -> float:
        table = '[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.h{0}]\n  runtime_type = "io.containerd.runc.v2"\n'
        text = "version = 2\n" + RUNC_TABLE + "".join(table.format(number) for number in range(tables))
        start = time.process_time()
        assert absent(present(text)) == text
        return time.process_time() - start

    few = seconds(1000)
    many = seconds(10000)
    assert many < 30 * few
    assert many < 10, "2 s where nobody else uses the machine"


def test_keys_with_escapes_and_dots_are_one_part() -> None:
    assert toml._key_path('plugins . "a.b".\'c\\d\'."e\\u0041\\"f"') == ("plugins", "a.b", "c\\d", 'eA"f')


# --- drop-ins ---


@pytest.mark.parametrize(
    ("path", "pattern", "is_read"),
    [
        ("/etc/containerd/conf.d/a.toml", "/etc/containerd/*.toml", False),
        ("/etc/containerd/conf.d/a.toml", "/etc/containerd/*/*.toml", True),
        ("/etc/containerd/conf.d/.a.toml", "/etc/containerd/conf.d/*.toml", True),
        ("/etc/containerd/conf.d/a.toml", "/etc/containerd/conf.d/a.toml", True),
        ("/etc/containerd/conf.d/a.toml", "/etc/containerd/conf.d/?.toml", False),  # without a star it is a name
        ("/etc/containerd/conf.d/a.toml", "/etc/*/conf.d/[^b].toml", True),
        ("/etc/containerd/conf.d/b.toml", "/etc/*/conf.d/[^b].toml", False),
        ("/etc/containerd/conf.d/!.toml", "/etc/*/conf.d/[!b].toml", True),
        ("/etc/containerd/conf.d/*.toml", "/etc/*/conf.d/\\*.toml", True),
        ("/etc/containerd/conf.d/a.toml", "/etc/*/conf.d/\\*.toml", False),
        ("/etc/containerd/conf.d/a.toml", "/etc/*/conf.d/[z-a].toml", False),
    ],
)
def test_a_pattern_matches_as_in_go(path: str, pattern: str, is_read: bool) -> None:
    assert config_files.matches(path, pattern) == is_read


@pytest.mark.parametrize(
    ("words", "path"),
    [
        ("", "/etc/containerd/config.toml"),
        ("--log-level debug", "/etc/containerd/config.toml"),
        ("--config /usr/share/containerd/config.toml", "/usr/share/containerd/config.toml"),
        ("--config=/etc/k0s/containerd.toml --root /x", "/etc/k0s/containerd.toml"),
        ("-c relative.toml", "/srv/relative.toml"),
        ("-c=/a -config /b", "/b"),
    ],
)
def test_the_file_that_a_daemon_reads_is_on_its_command_line(words: str, path: str) -> None:
    assert config_files.config_of(["/usr/bin/containerd", *words.split()], "/srv") == path


def test_left_over_tables_of_a_dump_are_nothing() -> None:
    dumped = 'version = 3\n[plugins.cri.containerd.runtimes.old]\nruntime_type = "x.y"\n'
    assert config.handlers(tomllib.loads(dumped)) == {}
    assert config.default_name(tomllib.loads(f'{dumped}[plugins.cri.containerd]\ndefault_runtime_name = "old"\n')) == "runc"


def test_imports_come_and_go() -> None:
    for text in (
        "",
        "version = 2\n",
        "version = 2",
        "imports = []\n",
        "imports = [ ]\n",
        "version = 2\r\nimports = ['/a.toml'] # mine\r\n[debug]",
        'version = 3\nimports = [\n  "/a.toml",\n  "/b.toml"\n]\n',
        'version = 3\nimports = [\n  "/a.toml", # one\n  "/b.toml", # two\n]\n',
    ):
        added = config.add_import(text, "/etc/containerd/conf.d/*.toml", where="config.toml")
        before = tomllib.loads(text).get("imports", [])
        assert tomllib.loads(added)["imports"] == [*before, "/etc/containerd/conf.d/*.toml"]
        assert config.remove_import(added, "/etc/containerd/conf.d/*.toml", where="config.toml") == text
        assert config.remove_import(text, "/etc/containerd/conf.d/*.toml", where="config.toml") == text


def test_an_import_of_somebody_else_stays() -> None:
    text = 'imports = ["/etc/containerd/conf.d/*.toml"]\n'
    assert config.remove_import(text, "/etc/containerd/conf.d/*.toml", where="config.toml") == text


def test_refuses_imports_that_are_no_list_of_strings() -> None:
    with pytest.raises(GvisorError, match="line 2: imports must be a list of strings"):
        config.add_import("version = 3\nimports = [1]\n", "/x.toml", where="config.toml")


def test_a_dropin_has_the_main_files_version_and_no_runc() -> None:
    text = present(None, dropin_for=3)
    assert text.startswith(f"version = 3 {config.FILE_MARK}\n")
    assert set(config.handlers(tomllib.loads(text))) == {"runsc"}
    assert absent(text) is None


# --- the judgement of the dumps ---

V2 = 'version = 2\n[plugins."io.containerd.grpc.v1.cri".containerd]\ndefault_runtime_name = "runc"\n'
RUNC_TABLE = '[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]\nruntime_type = "io.containerd.runc.v2"\n'
KATA_TABLE = '[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.kata]\nruntime_type = "io.containerd.kata.v2"\n'
RUNSC_TABLE = (
    '[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runsc]\nruntime_type = "io.containerd.runsc.v1"\n'
    "[plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.runsc.options]\nConfigPath = '/x'\n"
)
WANTED = {"runtime_type": "io.containerd.runsc.v1", "options": {"ConfigPath": "/x"}}


def judge(after: str, rc: int = 0, stderr: str = "", before: str = V2 + RUNC_TABLE + KATA_TABLE, **more: object) -> None:
    arguments = {"where": "config.toml", "containerd": "1.7.24", "name": "runsc", "wanted": WANTED, "default": None, **more}
    verdict.judge({"rc": 0, "stdout": before, "stderr": ""}, {"rc": rc, "stdout": after, "stderr": stderr}, verdict.Wish(**arguments))


def test_judge_accepts_what_is_meant() -> None:
    judge(V2 + RUNC_TABLE + KATA_TABLE + RUNSC_TABLE)
    judge(V2 + RUNC_TABLE + KATA_TABLE, before=V2 + RUNC_TABLE + KATA_TABLE + RUNSC_TABLE, wanted=None)


@pytest.mark.parametrize(
    ("after", "more", "words"),
    [
        ("", {"rc": 1, "stderr": "toml: bad"}, "refuses the result: toml: bad"),
        (V2 + RUNC_TABLE + KATA_TABLE, {}, "handler runsc would have no effect"),
        (V2 + RUNC_TABLE + RUNSC_TABLE, {}, "handler kata would be lost"),
        (V2 + KATA_TABLE + RUNSC_TABLE, {}, "handler runc would be lost.*default runtime runc would name no handler"),
        (V2 + RUNC_TABLE + KATA_TABLE + RUNSC_TABLE.replace("/x", "/y"), {}, "options.ConfigPath would not be in effect"),
        (V2 + RUNC_TABLE + KATA_TABLE.replace("kata.v2", "kata.v1") + RUNSC_TABLE, {}, "handler kata would change"),
        (V2 + RUNC_TABLE + KATA_TABLE + RUNSC_TABLE, {"default": True}, "default runtime would be runc"),
        (V2 + RUNC_TABLE + KATA_TABLE + RUNSC_TABLE, {"wanted": None}, "runsc would still be there"),
        (
            V2 + RUNC_TABLE + KATA_TABLE + RUNSC_TABLE,
            {"stderr": 'level=warning msg="Ignoring unknown key in TOML for plugin" error="x" key="a b" plugin=io.p'},
            "does not know a b in io.p",
        ),
    ],
)
def test_judge_refuses(after: str, more: dict, words: str) -> None:
    with pytest.raises(GvisorError, match=words):
        judge(after, **more)


# --- the API's socket ---

SERVER = 'plugins."io.containerd.server.v1.grpc"'


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("", None),
        ('version = 2\n[grpc]\naddress = "/old"\n', "/old"),
        # containerd 2.3 reads its own table in files of all versions, and of version 4 that one alone.
        (f'version = 3\n[grpc]\naddress = "/old"\n[{SERVER}]\naddress = "/new"\n', "/new"),
        (f'version = 4\n[grpc]\naddress = "/old"\n[{SERVER}]\naddress = "/new"\n', "/new"),
        ('version = 4\n[grpc]\naddress = "/old"\n', None),
        (INPUTS["default-2.3.7"].replace("/run/containerd/containerd.sock'", "/new'"), "/new"),
    ],
)
def test_the_socket_is_where_containerd_of_that_version_reads_it(text: str, address: str | None) -> None:
    """Once as TOML, and once as hosts can tell, which have no parser for it."""
    assert (config.address_in(toml.parse(text, "config.toml")), config_files.address_in(text)) == (address, address)
