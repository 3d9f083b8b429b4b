#!/usr/bin/python
# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An image in containerd's namespaces, from an archive on the controller or on the host, or from a registry."""

from __future__ import annotations

DOCUMENTATION = r"""
module: containerd_image
short_description: Import an image from an archive or a registry into containerd, go back to the image before, or remove an image
version_added: 1.0.0
author: The ggen.gvisor authors (@ggen-gvisor)
description:
  - Reads an OCI archive or a docker-archive without extracting it, compares digests with what containerd has, and imports it only
    if they differ or the image is incomplete. Afterwards it lists the images again and compares once more.
  - An archive that is truncated, altered, without a name or for another architecture is refused before anything changes. containerd
    itself would import some of these as nothing, or without a word.
  - So is an image with labels or annotations of containerd's, its CRI plugin's, Kubernetes' or gVisor's name spaces, on which these would act when it runs,
    such as C(containerd.io/restart.status). Those that only describe an image are allowed.
  - An archive on the controller (O(src)) is sent once for all namespaces, into the module's temporary folder, and only to a host
    that lacks the image.
  - An image of a registry (O(reference)) is named by its digest. The host fetches it with C(skopeo) into a folder of root's alone, and imports it as any
    archive. Where containerd has that digest, nothing is fetched and no registry is asked; in check mode neither.
requirements:
  - containerd 1.6 or newer with C(ctr)
  - C(skopeo), for O(reference) alone
attributes:
  check_mode:
    support: full
    description: Can run in check mode and tell what would change without changing it.
  diff_mode:
    support: full
    description: Returns the difference.
  idempotent:
    support: full
    description: A second run with the same options changes nothing.
  platform:
    support: full
    platforms: linux
    description: The systems that the module runs on.
options:
  archive:
    description: Path of the archive on the host. O(state=present) needs it, O(src), O(reference) or O(source). It may be compressed with gzip.
    type: path
  src:
    description: Path of the archive on the controller.
    type: path
  reference:
    description:
      - The image in a registry, C(REGISTRY/NAME@sha256:DIGEST) or C(REGISTRY/NAME:TAG@sha256:DIGEST). The digest says which one it is, a tag is only a
        further name. Of an image for several platforms, whose index has the digest, only O(platform) is fetched.
      - Without O(name) it is called C(REGISTRY/NAME@sha256:DIGEST), and C(REGISTRY/NAME:TAG) where there is a tag.
    type: str
    version_added: 1.0.0
  auth_file:
    description:
      - Path of credentials on the host, as C(skopeo login --authfile) writes them. Only its owner, root or the user who connects, may have rights on it.
      - Only what it has for the registry is used. Neither a command line nor a message or result has it. Without it nobody logs in, whatever other files
        of the host have. Programs that keep credentials (C(credHelpers)) are not asked.
    type: path
    version_added: 1.0.0
  ca_file:
    description: Path on the host of the certificate of the registry's authority, beside those that the host trusts. Only its owner may be able to write it.
    type: path
    version_added: 1.0.0
  plain_http:
    description: The registry speaks HTTP, or does not prove who it is. Only for one on the host itself, C(localhost) or C(127.0.0.1).
    type: bool
    default: false
    version_added: 1.0.0
  max_size:
    description:
      - The most that an image of a registry may have there, for example V(512M) or V(4G). While it comes, and until it is imported, it needs that room
        twice in O(state_dir).
    type: str
    default: 4G
    version_added: 1.0.0
  timeout:
    description: The seconds that it may take until an image of a registry is there.
    type: int
    default: 1800
    version_added: 1.0.0
  state_dir:
    description: The collection's folder on the host. In it an image of a registry is while it comes.
    type: path
    default: /var/lib/ggen.gvisor
    version_added: 1.0.0
  missing:
    description: The host is known to lack the image. It is sent at once, which saves the execution that would ask.
    type: bool
    default: false
  source:
    description: The name of an image that containerd has, which gets the further names O(name), whatever had them before. Nothing is imported.
    type: str
    version_added: 1.0.0
  name:
    description:
      - Names that the image gets, for example C(docker.io/library/ggen:latest). The default is the names in the archive.
      - A short name is completed as Docker does it, C(ggen) is C(docker.io/library/ggen:latest), in O(source) as well.
      - For O(state=absent) the names to remove; the default is again the names in the archive, or those of O(reference). With the last of them goes the
        name by digest that containerd's CRI plugin gave the image in V(k8s.io).
    type: list
    elements: str
  digest:
    description: The manifest digest that the archive, or O(source), must have, C(sha256:) and 64 hex digits. O(reference) has its own.
    type: str
  namespace:
    description: containerd's namespaces, one or several. V(default) is that of C(ctr), V(k8s.io) that of Kubernetes.
    type: list
    elements: str
    default: [default]
  platform:
    description:
      - The platform that the image must be for, for example V(linux/arm64). The default is the host's.
      - Of an archive for several platforms only this one is looked at and imported.
    type: str
  state:
    description:
      - Whether the image is there.
      - With V(previous) the image that O(keep_previous) has kept gets its tag C(latest) back, and is C(previous) no longer. Where none is kept nothing
        changes. O(name) has the name with the tag C(latest).
    type: str
    choices: [present, absent, previous]
    default: present
  keep_previous:
    description:
      - With O(state=present), the image that has the tag C(latest) of O(name) until now is kept under the tag C(previous), the way back without an archive.
        The image that was C(previous) until then goes, under all of its names in that repository.
      - With O(state=absent), all names of the images C(latest) and C(previous) in that repository go.
    type: bool
    default: false
  pinned:
    description:
      - Pin the image in V(k8s.io) under all of O(name), so that the kubelet does not remove it when the disk gets full and no pod uses it. An image from
        an archive could not be pulled again.
      - Other namespaces have nobody who would remove it, and get no label. V(false) leaves what is pinned.
      - containerd 1.6 has no pinned images. The label is set there as well, and counts after an upgrade.
    type: bool
    default: false
    version_added: 1.0.0
  address:
    description: containerd's socket.
    type: path
    default: /run/containerd/containerd.sock
  images:
    description: Set by the action plugin, which has read O(src). Leave it out.
    type: list
    elements: dict
"""

EXAMPLES = r"""
- name: Import ggen under the names in the archive
  ggen.gvisor.containerd_image:
    archive: /var/cache/ggen.gvisor/ggen.tar

- name: Send it from the controller, for ctr and for Kubernetes under two names, and only if it is the image that was built
  ggen.gvisor.containerd_image:
    src: dist/26.5.19/linux_amd64/ggen.tar
    name: [docker.io/library/ggen:26.5.19, docker.io/library/ggen:latest]
    digest: sha256:74aaef2ea0eb88a8d1c047253917e711c95a8d158c2634693bf7acf6254b1208
    namespace: [default, k8s.io]
    pinned: true

- name: Fetch one from a registry, with credentials that root alone can read
  ggen.gvisor.containerd_image:
    reference: registry.example.org/tools/lint:2.1@sha256:74aaef2ea0eb88a8d1c047253917e711c95a8d158c2634693bf7acf6254b1208
    auth_file: /etc/ggen.gvisor/auth.json
  register: lint

- name: Run it in gVisor
  ggen.gvisor.containerd_run:
    image: "{{ lint.names[0] }}"
    argv: [lint, --version]

- name: Keep the image under another name, before another one takes its name
  ggen.gvisor.containerd_image:
    source: docker.io/library/ggen:latest
    name: [docker.io/library/ggen:previous]

- name: Go back to the image that was there before the last import with keep_previous
  ggen.gvisor.containerd_image:
    name: [docker.io/library/ggen:latest]
    state: previous

- name: Remove it
  ggen.gvisor.containerd_image:
    name: [docker.io/library/ggen:latest]
    state: absent
"""

RETURN = r"""
replaced:
  description: containerd's namespaces in which another image was latest and is previous now, or would be. A run that fails tells them as well.
  type: list
  elements: str
  returned: with O(state=present) and an archive or a reference
missing:
  description: containerd's namespaces that lacked the image, whole and under all of its names, or lack it.
  type: list
  elements: str
  returned: with O(state=present) and an archive or a reference
restored:
  description: containerd's namespaces in which the previous image is latest again, or would be.
  type: list
  elements: str
  returned: with O(state=previous)
names:
  description: The names that the image has, or had.
  type: list
  elements: str
  returned: always
digest:
  description: The manifest digest in the archive or, for a docker-archive, as containerd lists it.
  type: str
  returned: when an archive, a reference or a source was given
config_digest:
  description: The digest of the image's configuration.
  type: str
  returned: when an archive was given, or a reference, unless in check mode containerd lacks it
platforms:
  description: What the image is for, or what of it was fetched.
  type: list
  elements: str
  returned: as config_digest
fetched:
  description: The bytes that came from the registry; in check mode, and where the image was there, 0.
  type: int
  returned: when O(reference) was given
sent:
  description: The bytes that went to the host.
  type: int
  returned: when O(src) was given
"""

import contextlib
import json
import os
import re
import tempfile
from typing import Any, Dict, Iterator, List, Optional, Set, Tuple

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError
from ansible_collections.ggen.gvisor.plugins.module_utils._base.files import locked, remove_stale_transfers
from ansible_collections.ggen.gvisor.plugins.module_utils._base.module import run
from ansible_collections.ggen.gvisor.plugins.module_utils._containerd import image_names
from ansible_collections.ggen.gvisor.plugins.module_utils._containerd.ctr import DEFAULT_ADDRESS, KUBERNETES, Ctr
from ansible_collections.ggen.gvisor.plugins.module_utils._containerd.image_archive import (
    UNKNOWN,
    Archive,
    Image,
    best_variant,
    host_platform,
)
from ansible_collections.ggen.gvisor.plugins.module_utils._containerd.image_config import check_reserved
from ansible_collections.ggen.gvisor.plugins.module_utils._containerd.image_names import full_name, full_names
from ansible_collections.ggen.gvisor.plugins.module_utils._containerd.registry import (
    Asking,
    Bounds,
    Reference,
    descriptor_of,
    documents_in_containerd,
    parse_reference,
    pull,
    pull_folder,
    write_layout,
)
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.limits import Room, bytes_of
from ansible_collections.ggen.gvisor.plugins.module_utils._sandbox.pinned import PRIVATE, UNTOUCHED, own_folder, read_own

IMPORT_TIMEOUT = 1800.0  # seconds; unpacking gigabytes on a slow disk takes minutes
IMPORTED = "ggen.gvisor/import-"  # what a name begins with that is there during an import


def wanted_names(image: Image, asked: Optional[List[str]], archive: str) -> List[str]:
    """Return the full names that the image gets. Raises GvisorError for an archive without any, and for impossible ones."""
    if asked:
        return full_names(asked)
    if not image.names:
        raise GvisorError(
            f"image archive {archive} gives its image no name, and containerd would import nothing; set name, or write the archive "
            "with a full reference (oci-archive:FILE:docker.io/library/NAME:TAG)",
            archive=archive,
        )
    for name in image.names:
        full_name(name)
        if ":" not in name and "/" not in name:
            raise GvisorError(
                f"image archive {archive} names its image {name!r}, which is only a tag; set name to a full reference such as "
                f"docker.io/library/NAME:{name}",
                archive=archive,
            )
    return full_names(image.names)


def choose(images: List[Image], params: Dict[str, Any], platform: str) -> Image:
    """Return the one image of the archive that is meant, of its platforms only the one that is wanted. Raises GvisorError.

    The platform comes first: what an archive has for others, under the same name or damaged, does not matter.
    """
    archive, asked = params["archive"] or params["src"], set(full_names(params["name"] or []))
    if not images:
        raise GvisorError(f"image archive {archive} holds no image; make it again", archive=archive)
    named = [image for image in images if asked & _readable(image.names)]
    found = [(image, best_variant(image, platform)) for image in named or images]
    fitting = [image._replace(variants=[variant]) for image, variant in found if variant]
    if not fitting:
        variants = [variant for image, _none in found for variant in image.variants]
        problem = next((variant.problem for variant in variants if variant.problem and variant.platform == UNKNOWN), None)
        platforms = [variant.platform for variant in variants]
        raise GvisorError(
            problem
            or f"image archive {archive} is for {', '.join(platforms)}, and {platform} is needed; build or copy the one for {platform}",
            platforms=platforms,
        )
    # Asked for a name that is none of the archive's: it must have one image then, whatever it has that for.
    meant = fitting if named or not asked or len({tuple(image.names) for image in images}) == 1 else images
    if len(meant) > 1:
        every = sorted(name for image in images for name in image.names)
        raise GvisorError(f"image archive {archive} holds {len(meant)} images ({', '.join(every)}); set name to one of them")
    image = fitting[0]
    if image.variants[0].problem:
        raise GvisorError(image.variants[0].problem, archive=archive)
    check_reserved(f"archive {archive}", image.variants[0].reserved)
    if params["digest"] and image.digest and image.digest != params["digest"]:
        raise GvisorError(
            f"image archive {archive} has the digest {image.digest}, and {params['digest']} is expected; copy or build it again",
            digest=image.digest,
        )
    return image


def _readable(names: List[str]) -> Set[str]:
    """Return the full names of those of an archive's names that are any."""
    readable = set()
    for name in names:
        with contextlib.suppress(GvisorError):
            readable.add(full_name(name))
    return readable


def manifest_of(ctr: Ctr, digest: str) -> Dict[str, Any]:
    """Return a manifest that containerd has, or an empty one."""
    done = ctr.run("content", "get", digest)
    with contextlib.suppress(ValueError):
        manifest = json.loads(done.stdout) if done.rc == 0 else {}
        return manifest if isinstance(manifest, dict) else {}
    return {}


def is_image(ctr: Ctr, digest: str, image: Image) -> bool:
    """Tell whether what containerd has under ``digest`` is the archive's image, all its blobs are there, and it is unpacked.

    ``ctr images check`` does not tell: it speaks of the host's platform, and fails where any image of the namespace is for another one.
    """
    (variant,) = image.variants
    if image.digest is not None:
        if digest != image.digest:
            return False
        needed = {blob for blob, _size in variant.blobs.values()}
    else:
        manifest = manifest_of(ctr, digest)
        try:
            needed = {digest, manifest["config"]["digest"], *(layer["digest"] for layer in manifest["layers"])}
        except (KeyError, TypeError):
            return False
        if manifest["config"]["digest"] != variant.config_digest:
            return False
    return needed <= ctr.blobs() and (not variant.chain or ctr.has_snapshot(variant.chain))


def import_image(ctr: Ctr, archive: Archive, image: Image, names: List[str]) -> None:
    """Import and name it. Raises GvisorError when containerd does not have the image afterwards.

    containerd is handed this one image, under one name of our own: it would take each name of an archive from the image that has it, and import
    what nobody asked for.
    """
    (variant,) = image.variants
    name = f"{IMPORTED}{variant.config_digest[7:19]}:{image_names.LATEST}"
    # What an import that was killed has left; who imports holds the lock.
    stale = [held for held in ctr.images() if held.startswith(IMPORTED)]
    if stale:
        ctr.check("images", "rm", *stale)
    try:
        said = ctr.check(
            *("images", "import", "--platform", variant.platform, "-"),
            feed=lambda stream: archive.write(image, name, stream),
            timeout=IMPORT_TIMEOUT,
        )
        imported = ctr.images().get(name)
        if imported is None or not is_image(ctr, imported, image):
            raise GvisorError(
                f"ctr imported {archive.path} without an error, but containerd does not have its image complete: {imported or 'nothing'}",
                stdout=said,
            )
        ctr.check("images", "tag", "--force", name, *names)
    finally:
        ctr.run("images", "rm", name)
    missing = wrong_names(ctr, image, names)[1]
    if missing:
        raise GvisorError(f"after the import containerd does not list {', '.join(missing)} with the archive's digest")


# By namespace: the images before (or what is to be there after), name to digest.
Table = Dict[str, Dict[str, str]]


def wrong_names(ctr: Ctr, image: Image, names: List[str]) -> Tuple[Dict[str, str], List[str]]:
    """Return what the namespace has under ``names``, and those of them that are not the image, whole."""
    every = ctr.images()
    held = {name: every[name] for name in names if name in every}
    good = {digest for digest in set(held.values()) if is_image(ctr, digest, image)}
    return held, [name for name in names if held.get(name) not in good]


def unpinned(ctr: Ctr, names: List[str]) -> List[str]:
    """Return those of the names that are to be pinned and are not; only Kubernetes' namespace has a kubelet that collects."""
    pinned = ctr.pinned() if ctr.namespace == KUBERNETES else set(names)
    return [name for name in names if name not in pinned]


def pin(module: AnsibleModule, namespaces: List[Ctr], names: List[str]) -> None:
    """Pin the names, which are there, where the module is asked to. Raises GvisorError where containerd does not list them as pinned afterwards."""
    if not module.params["pinned"] or module.check_mode:
        return
    with locked(os.path.dirname(module.params["address"])):
        for ctr in namespaces:
            for name in unpinned(ctr, names):
                ctr.pin(name)
            left = unpinned(ctr, names)
            if left:
                raise GvisorError(f"after pinning them containerd does not list {', '.join(left)} as pinned in namespace {ctr.namespace}")


def with_pins(held: Dict[str, str], loose: List[str]) -> Dict[str, str]:
    """Return a table of names and digests as it is shown where pins count."""
    return {name: digest if name in loose else f"{digest} pinned" for name, digest in held.items()}


def present(module: AnsibleModule, namespaces: List[Ctr]) -> Tuple[Dict[str, Any], Table, Table]:
    """Have the image there; returns the module's result and the images before and after."""
    params = module.params
    platform = params["platform"] or host_platform(os.uname().machine)
    # Without an archive the action plugin asks whether it must be sent.
    with Archive(params["archive"]) if params["archive"] else contextlib.nullcontext() as archive:
        images = archive.images() if archive else [Image.from_dict(read) for read in params["images"]]
        image = choose(images, params, platform)
        names = wanted_names(image, params["name"], params["archive"] or params["src"])
        found = {ctr.namespace: wrong_names(ctr, image, names) for ctr in namespaces}
        loose = {ctr.namespace: unpinned(ctr, names) for ctr in namespaces if params["pinned"] and ctr.namespace == KUBERNETES}
        missing = [ctr for ctr in namespaces if found[ctr.namespace][1]]
        if missing and archive:
            archive.verify(image)
        repository = image_names.repository_of(names) if params["keep_previous"] else ""
        replaced = [ctr.namespace for ctr in missing if repository and image_names.is_replaced(ctr.images(), repository, image.digest)]
        if archive and not module.check_mode:
            # Another run that imports the same image would remove the name that ours has until it is tagged, and may have imported it meanwhile.
            with locked(os.path.dirname(params["address"])):
                replaced = []  # what this run does itself, also where it then fails: that much is to be taken back
                try:
                    for ctr in missing:
                        wrong = wrong_names(ctr, image, names)[1]
                        if wrong and repository and keep_previous(ctr, repository, image.digest):
                            replaced.append(ctr.namespace)
                        if wrong:
                            import_image(ctr, archive, image, names)
                except GvisorError as error:
                    error.details["replaced"] = replaced
                    raise
    if archive and not module.check_mode:
        remove_stale_transfers(params["archive"])
    if archive or not missing:
        pin(module, namespaces, names)
    before = {namespace: held for namespace, (held, _wrong) in found.items()}
    # A docker-archive has no manifest: containerd makes one at the import.
    digest = image.digest
    if digest is None and not (missing and (module.check_mode or not archive)):
        digest = namespaces[0].images().get(names[0])
    after = {**before, **{ctr.namespace: dict.fromkeys(names, digest or "(made at import)") for ctr in missing}}
    for namespace, names_there in loose.items():
        before[namespace], after[namespace] = with_pins(before[namespace], names_there), with_pins(after[namespace], [])
    return (
        {
            "changed": bool(missing) or any(loose.values()),
            "missing": [ctr.namespace for ctr in missing],
            "replaced": replaced,
            "names": names,
            "digest": digest,
            "config_digest": image.variants[0].config_digest,
            "platforms": next(whole.platforms for whole in images if (whole.names, whole.digest) == (image.names, image.digest)),
        },
        before,
        after,
    )


def image_there(module: AnsibleModule, namespaces: List[Ctr], reference: Reference, platform: str) -> Optional[Image]:
    """Return the image of a registry as containerd has its documents, from the first namespace that has them, whole or not; None where none has."""
    for ctr in namespaces:
        documents = documents_in_containerd(ctr, reference.digest, platform)
        if not documents:
            continue
        with tempfile.NamedTemporaryFile(dir=module.tmpdir) as file, contextlib.suppress(GvisorError, ValueError):
            write_layout(file.name, descriptor_of(reference.digest, documents[reference.digest]), documents, {})
            with Archive(file.name) as archive:
                return archive.images()[0]
    return None


def fetched(module: AnsibleModule, namespaces: List[Ctr]) -> Tuple[Dict[str, Any], Table, Table]:
    """Have the image of a registry there; returns the module's result and the images before and after."""
    params = module.params
    reference = parse_reference(params["reference"])
    if params["plain_http"] and not reference.is_local:
        raise GvisorError(
            f"plain_http is for a registry on the host itself, and {reference.registry} is none; have it serve HTTPS, and give its ca_file"
        )
    platform = params["platform"] or host_platform(os.uname().machine)
    names = full_names(params["name"]) if params["name"] else reference.names
    params.update(src=str(reference), name=names, digest=reference.digest, images=None)
    asking = Asking(
        reference,
        platform,
        read_own(params["auth_file"], "auth_file", PRIVATE) if params["auth_file"] else b"",
        read_own(params["ca_file"], "ca_file", UNTOUCHED) if params["ca_file"] else b"",
        params["plain_http"],
    )
    most = bytes_of(params["max_size"], "max_size")

    def without_registry() -> Optional[Tuple[Dict[str, Any], Table, Table]]:
        image = image_there(module, namespaces, reference, platform)
        if image is None:
            return would_fetch(namespaces, params, names) if module.check_mode else None
        params["images"] = [image.to_dict()]
        with named_after(reference, str(reference)):
            done = present(module, namespaces)
        return done if module.check_mode or not done[0]["missing"] else None

    found = without_registry()
    if found is None:
        folder = own_folder(params["state_dir"], "state_dir")
        with pull_folder(folder, params["timeout"]) as place, Room({"the state folder": place}, None) as room:
            found = without_registry()  # another run may have been faster
            if found is None:
                path = params["archive"] = pull(asking, Bounds(most, params["timeout"], room.low), place)
                with named_after(reference, path):
                    result, before, after = present(module, namespaces)
                return {**result, "fetched": os.path.getsize(path)}, before, after
    result, before, after = found
    return {**result, "fetched": 0}, before, after


@contextlib.contextmanager
def named_after(reference: Reference, path: str) -> Iterator[None]:
    """Have errors speak of the reference where they say archive: nobody has given one, and it is gone with its folder."""
    try:
        yield
    except GvisorError as error:
        error.message = re.sub(rf"(image )?archive {re.escape(path)}", lambda found: f"{found.group(1) or ''}{reference}", error.message)
        error.details.pop("archive", None)
        raise


def would_fetch(namespaces: List[Ctr], params: Dict[str, Any], names: List[str]) -> Tuple[Dict[str, Any], Table, Table]:
    """Tell what a run would do with an image that containerd does not have, of which nothing but its digest is known."""
    held = {ctr.namespace: ctr.images() for ctr in namespaces}
    repository = image_names.repository_of(names) if params["keep_previous"] else ""
    result = {
        "changed": True,
        "missing": list(held),
        "replaced": [one for one, images in held.items() if repository and image_names.is_replaced(images, repository, params["digest"])],
        "names": names,
        "digest": params["digest"],
    }
    before = {namespace: {name: images[name] for name in names if name in images} for namespace, images in held.items()}
    return result, before, {namespace: dict.fromkeys(names, params["digest"]) for namespace in held}


def keep_previous(ctr: Ctr, repository: str, digest: Optional[str]) -> bool:
    """Have what is latest kept as previous, before the image with ``digest`` becomes latest; tell whether there was one. Raises GvisorError.

    The tag moves first: a run that ends here has both tags on one image, which is nothing to go back to.
    """
    images = ctr.images()
    if not image_names.is_replaced(images, repository, digest):
        return False
    gone = image_names.outdated(images, repository, digest)
    ctr.check("images", "tag", "--force", f"{repository}:{image_names.LATEST}", f"{repository}:{image_names.PREVIOUS}")
    if gone:
        ctr.check("images", "rm", *gone)
    return True


def previous(module: AnsibleModule, namespaces: List[Ctr]) -> Tuple[Dict[str, Any], Table, Table]:
    """Have the image that was kept as latest again; returns the module's result and the images before and after."""
    params = module.params
    repository = image_names.repository_of(full_names(params["name"]))
    latest, kept = (f"{repository}:{tag}" for tag in (image_names.LATEST, image_names.PREVIOUS))
    before, after, restored = {}, {}, []
    with locked(os.path.dirname(params["address"])):
        for ctr in namespaces:
            images = ctr.images()
            before[ctr.namespace] = after[ctr.namespace] = {name: images[name] for name in (latest, kept) if name in images}
            if not image_names.is_kept(images, repository):
                continue
            restored.append(ctr.namespace)
            after[ctr.namespace] = {latest: images[kept]}
            if not module.check_mode:
                ctr.check("images", "tag", "--force", kept, latest)
                ctr.check("images", "rm", kept)
                if ctr.images().get(latest) != images[kept]:
                    raise GvisorError(f"after going back containerd does not list {latest} with the digest {images[kept]}")
    return {"changed": bool(restored), "names": [latest], "restored": restored}, before, after


def named(module: AnsibleModule, namespaces: List[Ctr]) -> Tuple[Dict[str, Any], Table, Table]:
    """Have the names lead to the image that containerd has as ``source``; returns the module's result and the images before and after."""
    params = module.params
    source, names = full_name(params["source"]), full_names(params["name"])
    held = {ctr.namespace: ctr.images() for ctr in namespaces}
    before, after = {}, {}
    for namespace, images in held.items():
        if source not in images:
            raise GvisorError(f"containerd has no image {source} in namespace {namespace}, which {', '.join(names)} should be")
        digest = images[source]
        if params["digest"] and digest != params["digest"]:
            raise GvisorError(f"image {source} has the digest {digest}, and {params['digest']} is expected", digest=digest)
        before[namespace] = {name: images[name] for name in names if name in images}
        after[namespace] = dict.fromkeys(names, digest)
    loose = {ctr.namespace: unpinned(ctr, names) for ctr in namespaces if params["pinned"] and ctr.namespace == KUBERNETES}
    for ctr in namespaces:
        wrong = [name for name, digest in after[ctr.namespace].items() if before[ctr.namespace].get(name) != digest]
        if wrong and not module.check_mode:
            ctr.check("images", "tag", "--force", source, *wrong)
            now = ctr.images()
            missing = [name for name in names if now.get(name) != after[ctr.namespace][name]]
            if missing:
                raise GvisorError(f"after naming it containerd does not list {', '.join(missing)} with the digest of {source}")
    pin(module, namespaces, names)
    for namespace, names_there in loose.items():
        before[namespace], after[namespace] = with_pins(before[namespace], names_there), with_pins(after[namespace], [])
    return {"changed": before != after, "names": names, "digest": held[namespaces[0].namespace][source]}, before, after


def absent(module: AnsibleModule, namespaces: List[Ctr]) -> Tuple[Dict[str, Any], Table, Table]:
    """Have the names gone; returns the module's result and the images before and after."""
    params = module.params
    names = params["name"] or (parse_reference(params["reference"]).names if params["reference"] else [])
    if not names:
        with Archive(params["archive"]) as archive:
            names = [name for image in archive.images() for name in image.names]
    names = full_names(names)
    before = {}
    for ctr in namespaces:
        held = ctr.images()
        both = image_names.generations(held, image_names.repository_of(names)) if params["keep_previous"] else []
        there = before[ctr.namespace] = {name: held[name] for name in dict.fromkeys([*names, *both]) if name in held}
        there.update(cri_names(held, there))
        if there and not module.check_mode:
            ctr.check("images", "rm", *there)
            left = [name for name in there if name in ctr.images()]
            if left:
                raise GvisorError(f"containerd still lists {', '.join(left)} in namespace {ctr.namespace} after removing them")
    return {"changed": any(before.values()), "names": names}, before, {}


def cri_names(held: Dict[str, str], there: Dict[str, str]) -> Dict[str, str]:
    """Return those of ``held`` (name: digest) that would be left of the images whose names ``there`` go, though nobody gave them.

    Each image that appears in Kubernetes' namespace gets a further name from containerd's CRI plugin, sha256:<configuration's digest>; with it all of
    the image would stay. It is kept as long as the image has another name.
    """
    others = {name: digest for name, digest in held.items() if name not in there and digest in there.values()}
    kept = {digest for name, digest in others.items() if not name.startswith("sha256:")}
    return {name: digest for name, digest in others.items() if digest not in kept}


def difference(before: Table, after: Table) -> Dict[str, str]:
    """Return Ansible's diff of two tables of names and digests."""
    texts = [
        "".join(f"{namespace} {name} {digest}\n" for namespace in sorted(table) for name, digest in sorted(table[namespace].items()))
        for table in (before, after)
    ]
    header = "containerd images by namespace"
    return {"before_header": header, "after_header": header, "before": texts[0], "after": texts[1]}


def perform(module: AnsibleModule) -> Dict[str, Any]:
    """Bring about the state and return the result. Raises GvisorError or OSError."""
    params = module.params
    if params["digest"] and not re.fullmatch(r"sha256:[0-9a-f]{64}", params["digest"]):
        raise GvisorError(f"digest={params['digest']!r} is no digest; write sha256: and 64 hex digits")
    namespaces = [Ctr(params["address"], name) for name in dict.fromkeys(params["namespace"])]
    if not namespaces:
        raise GvisorError("namespace is empty; name one, such as default")
    namespaces[0].connect()
    there = fetched if params["reference"] else named if params["source"] else present
    bring = {"present": there, "absent": absent, "previous": previous}[params["state"]]
    result, before, after = bring(module, namespaces)
    return {**result, "diff": difference(before, after)} if module._diff else result


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "archive": {"type": "path"},
            "src": {"type": "path"},
            "reference": {"type": "str"},
            "auth_file": {"type": "path"},
            "ca_file": {"type": "path"},
            "plain_http": {"type": "bool", "default": False},
            "max_size": {"type": "str", "default": "4G"},
            "timeout": {"type": "int", "default": 1800},
            "state_dir": {"type": "path", "default": "/var/lib/ggen.gvisor"},
            "missing": {"type": "bool", "default": False},
            "images": {"type": "list", "elements": "dict"},
            "source": {"type": "str"},
            "name": {"type": "list", "elements": "str"},
            "digest": {"type": "str"},
            "namespace": {"type": "list", "elements": "str", "default": ["default"]},
            "platform": {"type": "str"},
            "state": {"type": "str", "choices": ["present", "absent", "previous"], "default": "present"},
            "keep_previous": {"type": "bool", "default": False},
            "pinned": {"type": "bool", "default": False},
            "address": {"type": "path", "default": DEFAULT_ADDRESS},
        },
        required_if=[("state", "present", ["archive", "src", "reference", "source"], True), ("state", "previous", ["name"])],
        required_one_of=[("archive", "src", "reference", "name")],
        required_by={"source": "name"},
        mutually_exclusive=[
            ("archive", "source"),
            ("src", "source"),
            *(("reference", other) for other in ("archive", "src", "source", "digest")),
        ],
        supports_check_mode=True,
    )
    run(module, perform)


if __name__ == "__main__":
    main()
