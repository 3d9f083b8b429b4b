# Copyright (c) 2026, the ggen.gvisor authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""A folder of Debian packages that apt can install from: what its index ``Packages`` says.

The index is made of what ``apt-cache show`` prints, so that it carries the sums that the distribution has signed.
"""

from __future__ import annotations

import re
from typing import Any, Dict, Iterable, List
from urllib.parse import unquote

from ansible_collections.ggen.gvisor.plugins.module_utils._base.errors import GvisorError

INDEX = "Packages"
# What a file of the pool is called: the version without its epoch. No "%" (apt would decode it), no leading dot.
_FILE = re.compile(r"[a-z0-9][a-z0-9.+-]+_[A-Za-z0-9.+~-]+_[a-z0-9-]+\.deb")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def _stanzas(text: str) -> List[str]:
    return [stanza.strip("\n") for stanza in re.split(r"\n[ \t]*\n", text) if stanza.strip()]


def _fields(stanza: str) -> Dict[str, str]:
    """Return a stanza's fields, of those with several lines the first one: none of them is used here."""
    return dict(re.findall(r"^([A-Za-z0-9-]+):[ \t]*(.*?)[ \t]*$", stanza, re.MULTILINE))


def apt_index(shown: str, archives: Iterable[str]) -> Dict[str, Any]:
    """Return the ``index`` of a folder with these packages, as ``files`` the name that each gets in it, and their ``versions``.

    ``shown`` is what apt-cache show prints, ``archives`` what apt-get --download-only has left: paths that end in
    NAME_VERSION_ARCH.deb, percent-encoded. Raises GvisorError when the two do not fit.
    """
    described = {}
    for stanza in _stanzas(shown):
        fields = _fields(stanza)
        described[(fields.get("Package"), fields.get("Version"))] = (stanza, fields)
    index, files, versions = [], {}, {}
    for path in sorted(archives):
        package, _underscore, rest = unquote(path.rpartition("/")[2]).partition("_")
        key = (package, rest.partition("_")[0])
        if key not in described:
            raise GvisorError(f"apt-cache show does not describe {path}; run this again")
        stanza, fields = described[key]
        name = fields.get("Filename", "").rpartition("/")[2]
        if not _FILE.fullmatch(name) or name in files.values():
            raise GvisorError(f"{path}: apt's lists call its file {name!r}, which is no name of a package's file")
        index.append(re.sub(r"(?m)^Filename:.*$", f"Filename: ./{name}", stanza))
        files[path], versions[package] = name, fields["Version"]
    return {"index": "".join(f"{stanza}\n\n" for stanza in index), "files": files, "versions": versions}


def packages_of(index: str) -> Dict[str, Dict[str, Any]]:
    """Return each package of the index with its ``version``, ``file``, ``sha256`` and ``size`` in bytes.

    Raises GvisorError for an index that apt_index cannot have made.
    """
    packages: Dict[str, Dict[str, Any]] = {}
    for stanza in _stanzas(index):
        fields = _fields(stanza)
        name, file = fields.get("Package", ""), fields.get("Filename", "")
        if not (
            name
            and name not in packages
            and fields.get("Version")
            and file.startswith("./")
            and _FILE.fullmatch(file[2:])
            and _SHA256.fullmatch(fields.get("SHA256", ""))
            and re.fullmatch("[0-9]{1,12}", fields.get("Size", ""))
        ):
            raise GvisorError(f"the stanza of package {name!r} is not one of a folder with packages: {stanza[:200]!r}")
        packages[name] = {
            "version": fields["Version"],
            "file": file[2:],
            "sha256": fields["SHA256"],
            "size": int(fields["Size"]),
        }
    return packages
