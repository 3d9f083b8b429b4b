# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run of site.yml costs that has nothing to do: wall time and remote executions for 1, 2, 4 … hosts, beside `ansible -m ping` on the same ones.

    .venv/bin/python tests/bench/noop.py --inventory inventories/fleet --limit sandbox_hosts

The hosts must be provisioned. Ping and playbook have the same forks, pipelining and open connections: each is run once before it is timed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
sys.path.insert(0, str(ROOT / "tests"))
ENVIRONMENT = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "PATH": f"{BIN}:{os.environ['PATH']}"}
GOAL_PINGS, GOAL_EXECUTIONS = 6, 6


def timed(*argv: str) -> float:
    """Run a command to its end and return its seconds. Raises SystemExit with what it said where it failed."""
    begin = time.monotonic()
    done = subprocess.run(argv, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    seconds = time.monotonic() - begin
    if done.returncode:
        raise SystemExit(f"{' '.join(argv)}: exit code {done.returncode}\n{done.stdout[-4000:]}{done.stderr[-2000:]}")
    return seconds


def measure(hosts: list[str], options: list[str], repeat: int) -> dict[str, Any]:
    """Return the row for these hosts: the medians of the two commands and the remote executions of the busiest host."""
    from support.playbook import play

    ping = [str(BIN / "ansible"), ",".join(hosts), *options, "-m", "ansible.builtin.ping"]
    site = [str(BIN / "ansible-playbook"), "site.yml", *options, "--limit", ",".join([*hosts, "build_hosts"])]
    timed(*ping)
    timed(*site)  # other hosts than last time: the controller's link bin/runsc follows the releases that a run asks for
    # Also counts, and shows that there is nothing to do.
    done = play("site.yml", *options, "--limit", ",".join([*hosts, "build_hosts"]), inventory=())
    if done.rc or done.changed:
        raise SystemExit(f"{', '.join(hosts)}: nothing was to be done, and this failed or changed: {done.errors or done.changed}")
    times = {name: statistics.median(timed(*argv) for _turn in range(repeat)) for name, argv in (("ping", ping), ("site", site))}
    return {
        "hosts": len(hosts),
        "ping_seconds": round(times["ping"], 2),
        "site_seconds": round(times["site"], 2),
        "pings": round(times["site"] / times["ping"], 1),
        "executions": max(len(done.executions(host)) for host in hosts),
        "tasks": max(sum(result["host"] == host for result in done.results) for host in hosts),
    }


def main() -> None:
    """Print a table, or JSON; exit with 1 where a goal is missed and --check was given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inventory", "-i", action="append", required=True, help="as ansible-playbook's; again for more")
    parser.add_argument("--extra-vars", "-e", action="append", default=[], help="as ansible-playbook's")
    parser.add_argument("--limit", default="sandbox_hosts", help="the hosts to measure (default: %(default)s)")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 2, 4, 6])
    parser.add_argument("--repeat", type=int, default=3, help="runs of each; the median counts (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="also write the rows there")
    parser.add_argument("--check", action="store_true", help=f"fail above {GOAL_PINGS} pings or {GOAL_EXECUTIONS} executions")
    arguments = parser.parse_args()
    options = [word for path in arguments.inventory for word in ("-i", str(Path(path).resolve()))]
    options += [word for text in arguments.extra_vars for word in ("-e", text)]
    listed = subprocess.run(
        [BIN / "ansible", arguments.limit, *options, "--list-hosts"], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=True
    )
    hosts = [line.strip() for line in listed.stdout.splitlines()[1:]]
    rows = []
    print("hosts   ping      site.yml   pings   executions and tasks of a host", flush=True)
    for size in [size for size in arguments.sizes if size <= len(hosts)]:
        row = measure(hosts[:size], options, arguments.repeat)
        rows.append(row)
        print(
            f"{row['hosts']:5}   {row['ping_seconds']:6.2f} s  {row['site_seconds']:6.2f} s   {row['pings']:5.1f}   {row['executions']:3}  {row['tasks']:3}",
            flush=True,
        )
    if arguments.json:
        about = {"load": os.getloadavg()[0], "processors": os.cpu_count(), "rows": rows}
        arguments.json.write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    if arguments.check and any(row["pings"] > GOAL_PINGS or row["executions"] > GOAL_EXECUTIONS for row in rows):
        raise SystemExit("above the goal")


if __name__ == "__main__":
    main()
