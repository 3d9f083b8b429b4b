"""What becomes of an image's names when another one is imported."""

from __future__ import annotations

from ansible_collections.ggen.gvisor.plugins.plugin_utils._containerd.image_names import image_names

NAME = "docker.io/library/ggen"


def names(digest: str, remembered: str = "", **tags: str) -> dict:
    """Decide for the namespace `default` with ``tags`` (tag=digest), and somebody else's image with the same digests."""
    images = {f"{NAME}:{tag}": value for tag, value in tags.items()}
    return image_names(
        {"default": {**images, f"{NAME}-other:1": "A", "busybox:1": "B"}}, NAME, ["default"], digest, {"default": remembered}
    )


def test_a_host_without_an_image_replaces_nothing():
    assert image_names({}, NAME, ["default", "k8s.io"], "A") == {
        "latest": {},
        "replaced": [],
        "outdated": {},
        "kept": [],
        "ours": {"default": [], "k8s.io": []},
    }


def test_the_same_image_is_not_replaced():
    found = names("A", v1="A", latest="A")
    assert (found["replaced"], found["outdated"], found["kept"]) == ([], {}, [])
    assert found["ours"] == {"default": [f"{NAME}:v1", f"{NAME}:latest"]}


def test_another_one_is_replaced_and_can_be_kept():
    found = names("B", v1="A", latest="A")
    assert (found["replaced"], found["outdated"]) == (["default"], {})


def test_the_one_before_the_last_goes_under_all_of_its_names():
    found = names("C", v1="A", previous="A", v2="B", latest="B")
    assert found["outdated"] == {"default": [f"{NAME}:v1", f"{NAME}:previous"]}
    assert len(found["ours"]["default"]) == 4


def test_only_what_the_last_upgrade_replaced_is_gone_back_to():
    there = {"v1": "A", "previous": "A", "v2": "B", "latest": "B"}
    assert names("B", **there)["latest"] == {"default": "B"}
    assert names("B", remembered="A", **there)["kept"] == ["default"]
    assert names("B", remembered="B", **there)["kept"] == [], "the last upgrade found B and left it"
    assert names("B", **there)["kept"] == [], "nothing is remembered"
    assert names("B", remembered="A", previous="A", latest="A")["kept"] == [], "it is there already"


def test_what_is_imported_again_does_not_go():
    assert names("A", v1="A", previous="A", v2="B", latest="B")["outdated"] == {}


def test_a_user_s_own_tag_is_not_ours():
    assert f"{NAME}:mine" not in names("B", mine="X", v1="A", latest="A")["ours"]["default"]
