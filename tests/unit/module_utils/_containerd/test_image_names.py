# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What becomes of an image's names when another one is imported."""

from __future__ import annotations

import pytest
from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._containerd import image_names as names

NAME = "docker.io/library/ggen"


def images(**tags: str) -> dict[str, str]:
    """A namespace with ``tags`` (tag=digest), and somebody else's images with the same digests."""
    return {**{f"{NAME}:{tag}": value for tag, value in tags.items()}, f"{NAME}-other:1": "A", "busybox:1": "B"}


def test_a_host_without_an_image_replaces_nothing():
    assert not names.is_replaced({}, NAME, "A")
    assert names.outdated({}, NAME, "A") == names.generations({}, NAME) == []
    assert not names.is_kept({}, NAME)


def test_the_same_image_is_not_replaced():
    found = images(v1="A", latest="A")
    assert not names.is_replaced(found, NAME, "A")
    assert names.outdated(found, NAME, "A") == []
    assert names.generations(found, NAME) == [f"{NAME}:v1", f"{NAME}:latest"]


@pytest.mark.parametrize("digest", ["B", None])
def test_another_one_is_replaced_and_can_be_kept(digest):
    found = images(v1="A", latest="A")
    assert names.is_replaced(found, NAME, digest)
    assert names.outdated(found, NAME, digest) == []


def test_the_one_before_the_last_goes_under_all_of_its_names():
    found = images(v1="A", previous="A", v2="B", latest="B")
    assert names.outdated(found, NAME, "C") == [f"{NAME}:v1"]
    assert len(names.generations(found, NAME)) == 4


def test_what_is_latest_already_is_nothing_to_go_back_to():
    assert names.is_kept(images(v1="A", previous="A", v2="B", latest="B"), NAME)
    assert not names.is_kept(images(previous="A", latest="A"), NAME)


def test_what_is_imported_again_does_not_go():
    assert names.outdated(images(v1="A", previous="A", v2="B", latest="B"), NAME, "A") == []


def test_a_user_s_own_tag_is_not_ours():
    assert f"{NAME}:mine" not in names.generations(images(mine="X", v1="A", latest="A"), NAME)


@pytest.mark.parametrize("given", [[], [f"{NAME}:1"], [f"{NAME}:latest", "other:latest"]])
def test_the_repository_is_that_of_one_latest(given):
    assert names.repository_of([f"{NAME}:1", f"{NAME}:latest"]) == NAME
    with pytest.raises(GvisorError, match="need one name with the tag latest"):
        names.repository_of(given)


@pytest.mark.parametrize(
    ("short", "full"),
    [
        ("ggen", f"{NAME}:latest"),
        ("ggen:1", f"{NAME}:1"),
        ("library/ggen", f"{NAME}:latest"),
        ("team/ggen", "docker.io/team/ggen:latest"),
        ("docker.io/ggen", f"{NAME}:latest"),
        ("index.docker.io/team/ggen:1", "docker.io/team/ggen:1"),
        ("localhost/ggen", "localhost/ggen:latest"),
        ("localhost:5000/ggen", "localhost:5000/ggen:latest"),
        ("ghcr.io/a/b:1", "ghcr.io/a/b:1"),
        (f"ggen@sha256:{'0' * 64}", f"{NAME}@sha256:{'0' * 64}"),
        (f"ggen:1@sha256:{'0' * 64}", f"{NAME}:1@sha256:{'0' * 64}"),
        (f"sha256:{'0' * 64}", f"sha256:{'0' * 64}"),
    ],
)
def test_short_names_are_completed_as_docker_does(short, full):
    assert names.full_name(short) == full
    assert names.full_names([short, full]) == [full]


@pytest.mark.parametrize("name", ["", "two words", "--force", "a\nb", "gr\u00fcn", "x" * 513])
def test_what_is_no_name_is_refused(name):
    with pytest.raises(GvisorError, match="is no image name"):
        names.full_name(name)
