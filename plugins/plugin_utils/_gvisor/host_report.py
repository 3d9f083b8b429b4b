# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host's report: what it has, how that differs from what it should have, and what was observed to work."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import tomllib
from ansible_collections.ggen.gvisor.plugins.module_utils._base.text import visible_all
from ansible_collections.ggen.gvisor.plugins.module_utils._gvisor.history import COMMAND, NAMES
from ansible_collections.ggen.gvisor.plugins.plugin_utils._containerd import boot_config as boot_configs
from ansible_collections.ggen.gvisor.plugins.plugin_utils._gvisor.host_plan import host_plan

KUBERNETES = "k8s.io"  # the namespace of containerd's CRI plugin
NODE = ("driver", "by")
PROOF = ("kernel", "runc", "cri", "seconds")
RUN = ("path", "args", "rc", "duration", "timings", "kernel", "summary", "error")


def missing_images(images: Mapping[str, Mapping[str, str]], image: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return (namespace, name) wherever ``images`` (by namespace: name to digest) has not ``image``'s digest under one of its references."""
    pairs = ((namespace, name) for namespace in image["namespaces"] for name in image["references"])
    return [(namespace, name) for namespace, name in pairs if images.get(namespace, {}).get(name) != image["digest"]]


def unpinned_images(images: Mapping[str, Mapping[str, str]], pinned: Mapping[str, Iterable[str]], image: Mapping[str, Any]) -> list[str]:
    """Return ``image``'s names in Kubernetes' namespace, where it should be, that the kubelet may remove: those that are there and not ``pinned``."""
    there = images.get(KUBERNETES, {}) if KUBERNETES in image["namespaces"] else {}
    return [name for name in image["references"] if there.get(name) == image["digest"] and name not in pinned.get(KUBERNETES, ())]


def drift(
    info: Mapping[str, Any], plan: Mapping[str, Any], handler: Mapping[str, Any], image: Mapping[str, Any] | None = None
) -> list[str]:
    """Return a sentence for each thing on the host that is not as it should be.

    ``info`` is containerd_info's result with its option runtime, so that what is said of the configuration is what containerd_runtime would do;
    ``plan`` is host_plan's, and may have the ``members`` that there should be; ``handler`` has the runtime handler's name; ``image`` has the
    references, digest and namespaces of an image that should be there.
    """
    containerd, config, gvisor = info["containerd"], info["config"], info["gvisor"]
    found = [f"{plan['folder']}/{name} is missing, changed or has another mode" for name in plan["files"]]
    found += [f"the link {name} does not lead to release {plan['release']}" for name in plan["links"]]
    found += [f"the link {name} is there, and should not be" for name in plan.get("unwanted", [])]
    found += _members(gvisor.get("members", {}), plan["members"]) if "members" in plan else []
    if plan["options"]:
        found.append(f"the shim's options file is missing or changed{_options(gvisor['runsc_config'], plan.get('runsc_config'))}")
    if not containerd["installed"]:
        found.append("containerd is not installed")
    elif not containerd["running"]:
        found.append(f"containerd does not answer on {containerd['address']}")
    found += config["drift"]
    found += filter(
        None, [boot_configs.sentence(config["boot_config"], handler["name"], config["path"])] if "boot_config" in config else []
    )
    found += [
        f"containerd's plugin {name} is in state {state}"
        for name, state in containerd["plugins"].items()
        if state == "error" and ".cri" in name
    ]
    for namespace, name in missing_images(info["images"], image) if image else ():
        there = info["images"].get(namespace, {}).get(name, "missing")
        found.append(f"image {name} in namespace {namespace} is {there} instead of {image['digest']}")
    for name in unpinned_images(info["images"], info["pinned"], image) if image else ():
        found.append(f"image {name} in namespace {KUBERNETES} is not pinned, and the kubelet may remove it")
    return visible_all(found)


def _members(there: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each of the two files that let members of a group run the command, where it is not as it should be."""
    found = []
    for part in ("program", "rule"):
        if there.get(part) != wanted.get(part):
            state = "missing, changed or has another mode" if part in wanted else "there, and should not be"
            found.append(f"the {part} that lets members of a group run {COMMAND} is {state}")
    return found


def _options(there: str | None, wanted: str | None) -> str:
    """Return the end of a sentence about the shim's options file: which of runsc's flags differ, as far as both texts can be read."""
    try:
        has, should = (tomllib.loads(text or "").get("runsc_config", {}) for text in (there, wanted))
        names = [name for name in sorted({*has, *should}) if has.get(name) != should.get(name)]
    except (tomllib.TOMLDecodeError, AttributeError, TypeError):
        return ""
    if there is None or wanted is None or not names:
        return ""
    return ": " + ", ".join(f"{name} is {has.get(name, 'missing')} instead of {should.get(name, 'missing')}" for name in names)


def faults(
    info: Mapping[str, Any],
    handler: Mapping[str, Any],
    releases: Mapping[str, Any],
    built: Mapping[str, Mapping[str, Any]],
    *,
    folder: str,
    shim: str = "auto",
) -> list[str]:
    """Return a sentence for each thing that is wrong on a host with what it has, whatever release it should have.

    ``releases`` is the table of releases.yml; ``built`` has the files, with sha256, of the build that the host has, where the controller knows it.
    The options file has to be there, and may differ from what is asked for: it is written with the release.
    """
    gvisor, release = info["gvisor"], info["gvisor"]["release"]
    if release is None:
        return ["it has no gVisor that this collection installed"]
    present = gvisor["files"].get(release, {})
    if release in releases:
        row = releases[release]
        sums = {name: item["sha256"] for name, item in built.items()} or row["sha256"][info["host"]["architecture"]]
        plan = host_plan(info, release, row, sums, folder=folder, shim=shim)
    else:  # no longer in the table: nobody knows its sums, and the proof has to do
        links = [name for name in NAMES if gvisor["links"].get(name) != f"{folder}/{release}/{name}"]
        plan = {
            "folder": f"{folder}/{release}",
            "release": release,
            "files": [name for name in NAMES if name not in present],
            "links": links,
        }
    return drift(info, {**plan, "options": gvisor["runsc_config"] is None}, handler)


def host_report(
    info: Mapping[str, Any],
    plan: Mapping[str, Any],
    handler: Mapping[str, Any],
    *,
    image: Mapping[str, Any] | None = None,
    proof: Mapping[str, Any] | None = None,
    runs: Iterable[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Return the report as one document. ``proof`` is what containerd_proof observed, ``runs`` what ran in the sandbox.

    ``plan`` is host_plan's, and of a Kubernetes node it has kubernetes_node's result as its ``node``; its ``members`` are what should let members of a
    group run the command, as containerd_info tells it.

    A run proves its kernel too: without a proof of its own the report has the last run's.
    """
    differences = drift(info, plan, handler, image)
    gvisor, config, containerd = info["gvisor"], info["config"], info["containerd"]
    node = plan.get("node", {"node": False})
    runs = [_run(run) for run in runs]
    seen = [{"kernel": run["kernel"]} for run in runs if run["kernel"]]
    report = {
        "healthy": not differences,
        "drift": differences,
        "host": dict(info["host"]),
        "gvisor": {
            "release": gvisor["release"],
            "version": gvisor["runsc_version"],
            "shim": plan["shim"],
            "files": {f"{plan['folder']}/{name}": sha256 for name, sha256 in plan["sha256"].items()},
            "links": gvisor["links"],
        },
        "containerd": {
            **{key: containerd[key] for key in ("version", "server_version", "running")},
            "plugins": {name: state for name, state in containerd["plugins"].items() if state == "error" or ".cri" in name},
            **{key: containerd[key] for key in ("package", "advisories") if key in containerd},
        },
        "config": {
            **{key: config[key] for key in ("path", "version", "sha256", "default_runtime")},
            "handlers": sorted(config["runtimes"]),
            **({"boot_config": config["boot_config"]["source"]} if "boot_config" in config else {}),
        },
        "kubernetes": {key: node[key] for key in NODE} if node["node"] else None,
        "image": dict(image) if image else None,
        "proof": {key: proof[key] for key in PROOF if key in proof} if proof else (seen or [None])[-1],
        "runs": runs,
    }
    return visible_all(report)


def _run(run: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a report tells of a run: not its log, and of its files those that count."""
    files = [file for file in run.get("changed_files") or [] if not file.get("ignored")]
    return {**{key: run.get(key) for key in RUN}, "changed_files": files}
