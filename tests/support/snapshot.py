"""What a host has: files, packages and services, to compare before and after.

``python tests/support/snapshot.py FILE ssh HOST`` writes it to a file, for a playbook that comes before the test.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

# Runs on the host, where there may be nothing but Python. Files by type, mode, owner and digest; no times.
PROGRAM = r"""
import hashlib, json, os, stat, subprocess
def describe(path):
    status = os.lstat(path)
    said = [oct(status.st_mode), status.st_uid, status.st_gid]
    if stat.S_ISREG(status.st_mode):
        with open(path, "rb") as stream:
            said.append(hashlib.sha256(stream.read()).hexdigest())
    elif stat.S_ISLNK(status.st_mode):
        said.append(os.readlink(path))
    return said
tops = "/ /etc /usr /usr/local /usr/local/bin /usr/local/lib /var /var/lib /opt /run".split()
found = {path: describe(path) for path in tops}
found.update(("/var/log/" + name, "there") for name in os.listdir("/var/log") if name.startswith("containerd"))
for top in ("/etc", "/usr/local/bin", "/usr/local/lib/gvisor", "/usr/local/sbin", "/opt/containerd", "/opt/cni"):
    for parent, folders, names in os.walk(top):
        for name in folders + names:
            path = os.path.join(parent, name)
            found[path] = describe(path)
for name in os.listdir("/var/lib"):
    found["/var/lib/" + name] = "there"
def lines(*argv):
    return sorted(subprocess.run(argv, capture_output=True, text=True).stdout.splitlines())
packages = lines("dpkg-query", "-W", "-f", "${Package} ${Version} ${db:Status-Status}\n")
units = lines("systemctl", "list-unit-files", "--no-legend") if os.path.isdir("/run/systemd/system") else []
programs = []
for pid in filter(str.isdigit, os.listdir("/proc")):
    try:
        with open("/proc/%s/comm" % pid) as comm, open("/proc/%s/cmdline" % pid) as cmdline:
            name, words = comm.read().strip(), cmdline.read()
    except OSError:
        continue
    # Private daemons of other tests live under /tmp.
    if name.startswith(("containerd", "runsc")) and words and "/tmp/" not in words:
        programs.append(name)
programs.sort()
packages = [line for line in packages if line.endswith(" installed")]
print(json.dumps({"files": found, "packages": packages, "units": units, "programs": programs}))
"""

# What a package manager leaves for good reasons, and what no uninstall should touch.
ALLOWED = (
    "/etc/ld.so.cache",  # made anew by any package
    "/etc/mailcap",
    "/var/lib/containerd",  # other people's images and containers: purge leaves them to the administrator
)


def snapshot(*ssh: str) -> dict:
    """Take the snapshot of this machine, or through the command ``ssh`` of another one."""
    done = subprocess.run([*ssh, "python3", "-"], input=PROGRAM, capture_output=True, text=True, check=True, timeout=120)
    return json.loads(done.stdout)


def differences(before: dict, after: dict) -> list[str]:
    """Return a line for each difference that is not allowed."""
    lines = []
    for path in sorted(set(before["files"]) | set(after["files"])):
        was, now = before["files"].get(path), after["files"].get(path)
        if was != now and not path.startswith(ALLOWED):
            lines.append(f"{path}: {was} → {now}")
    for part in ("packages", "units"):
        lines += [f"{part}: - {item}" for item in before[part] if item not in after[part]]
    for part in ("packages", "units", "programs"):  # a program that has ended since is no difference: shims take their time
        lines += [f"{part}: + {item}" for item in after[part] if item not in before[part]]
    return lines


def write(path: Path, text: str) -> Path:
    """Write a file with its folders and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


if __name__ == "__main__":
    write(Path(sys.argv[1]), json.dumps(snapshot(*sys.argv[2:])))
