# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The collection beside what one would use instead, on hosts of the lab. `make bench` makes every comparison and writes docs/bench.*.

    .venv/bin/python tests/bench/bench.py [--turns 5] [--only one_run noop …]

Every comparison is interleaved: each way once a turn, after one turn that does not count. A row is the ratio of the medians and a goal for it; no
time alone is a pass mark. Earlier results of comparisons that are not made again stay in docs/bench.json.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BIN = Path(sys.executable).parent
ENVIRONMENT = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "PATH": f"{BIN}:{os.environ['PATH']}", "LC_ALL": "C.UTF-8"}
LAB = ROOT / ".artifacts" / "lab" / "bench"
INVENTORY = ["--inventory", str(LAB / "inventory.yml")]
FLEET = [f"fleet{number}" for number in range(1, 7)]
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ggen.gvisor"
RESULT = ROOT / "docs" / "bench.json"
LINK = "100mbit"
sys.path.insert(0, str(ROOT / "tests"))


class Row(NamedTuple):
    """One comparison: what was measured, against what, both medians (seconds or MiB), and the ratio that is to be reached."""

    work: str
    against: str
    ours: float
    theirs: float
    goal: float
    note: str = ""

    @property
    def ratio(self) -> float:
        return self.ours / self.theirs


def run(*argv: str | Path, check: bool = True, cwd: Path = ROOT, **more: Any) -> str:
    """Run a command and return what it printed. Raises SystemExit with the end of that where it fails."""
    done = subprocess.run([str(word) for word in argv], cwd=cwd, env={**ENVIRONMENT, **more}, capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise SystemExit(f"{' '.join(map(str, argv))}: exit code {done.returncode}\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
    return done.stdout


def timed(way: Callable[[], Any]) -> float:
    begin = time.monotonic()
    way()
    return time.monotonic() - begin


def interleaved(
    ways: dict[str, Callable[[], Any]], turns: int, between: Callable[[], Any] = lambda: None, warm: bool = True
) -> dict[str, float]:
    """Return each way's median in seconds; ``between`` is done before each and not timed."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(turns + warm):
        for name, way in ways.items():
            between()
            taken = timed(way)
            if turn or not warm:
                seconds[name].append(taken)
    return {name: statistics.median(values) for name, values in seconds.items()}


def lab(*words: str) -> None:
    run(BIN / "python", ROOT / "tests/lab/lab.py", words[0], *words[1:], "--lab", "bench", "--hosts", HERE / "hosts.yml")


def ssh(host: str, command: str, data: bytes | None = None) -> str:
    done = subprocess.run(["ssh", "-F", str(LAB / "ssh_config"), host, command], input=data, capture_output=True, check=False)
    if done.returncode:
        raise SystemExit(f"{host}: {command}: {done.stderr.decode()[-3000:]}")
    return done.stdout.decode()


def playbook(name: str | Path, *options: str) -> str:
    return run(BIN / "ansible-playbook", name, *INVENTORY, *options)


def built() -> tuple[Path, Path, Path]:
    """Return where the controller has the release of the lab's hosts, the image's archive and ggen itself."""
    programs = ROOT / "bin" / "20260701" / "linux_amd64"
    version = yaml.safe_load((ROOT / "roles/ggen_build/defaults/main.yml").read_text(encoding="utf-8"))["ggen_build_version"]
    return programs, ROOT / "dist" / version / "linux_amd64" / "ggen.tar", CACHE / "ggen" / version / "linux_amd64" / "ggen"


# --- On one host, beside Docker ---------------------------------------------------------------------------------------


def prepare_docker() -> None:
    """Give the host with Docker gVisor for both, and what on_host.py needs."""
    lab("up", "docker")
    playbook("site.yml", "--limit", "docker,build_hosts")
    _programs, _archive, ggen = built()
    core = next(Path(path) for path in sys.path if (Path(path) / "ansible" / "module_utils").is_dir()) / "ansible"
    with tempfile.TemporaryDirectory() as folder:
        python = Path(folder) / "python"
        for source, target in (
            *((core / name, f"ansible/{name}") for name in ("__init__.py", "release.py", "_vendor", "module_utils")),
            *((ROOT / "plugins" / name, f"ansible_collections/ggen/gvisor/plugins/{name}") for name in ("modules", "module_utils")),
        ):
            (python / target).parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if source.is_dir() else shutil.copy2)(source, python / target)
        shutil.copytree(ROOT / "examples" / "organization", Path(folder) / "workspace")
        shutil.copy2(HERE / "on_host.py", folder)
        shutil.copy2(ggen, folder)
        packed = subprocess.run(["tar", "-C", folder, "-c", "."], check=True, capture_output=True).stdout
    ssh("docker", "rm -rf /var/tmp/bench && mkdir /var/tmp/bench && tar -C /var/tmp/bench -x", packed)
    ssh(
        "docker",
        """mkdir -p /etc/docker && echo '{"runtimes": {"runsc": {"path": "/usr/local/bin/runsc"}}}' > /etc/docker/daemon.json &&
        systemctl restart docker && ctr images export /var/tmp/bench/docker.tar docker.io/library/ggen:latest && docker load -i /var/tmp/bench/docker.tar""",
    )


def on_docker(name: str, turns: int) -> dict[str, Any]:
    return json.loads(ssh("docker", f"python3 /var/tmp/bench/on_host.py /var/tmp/bench {turns} {name}"))[name]


def medians(rows: list[dict[str, float]]) -> dict[str, float]:
    return {name: round(statistics.median(row[name] for row in rows), 3) for name in rows[0]}


def one_run(turns: int) -> list[Row]:
    found = on_docker("one_run", 2 * turns)
    seconds = {name: statistics.median(values) for name, values in found["seconds"].items()}
    parts = medians(found["parts"])
    said = ", ".join(f"{name} {value}" for name, value in parts.items() if name != "total")
    exit_known, inside = parts["total"] - parts["removed"], parts["total"]
    docker = "docker run --rm --runtime=runsc --network=none"
    return [
        Row("one ggen sync: from the module's start to the command's exit", docker, exit_known, seconds["docker"], 1.0, said),
        Row("… until the pod is removed", docker, inside, seconds["docker"], 1.0),
        Row("… with the start of Python and its imports", docker, seconds["ours"], seconds["docker"], 1.0),
        Row("ggen-gvisor sync, from its start to its end, when the pod is removed", docker, seconds["command"], seconds["docker"], 0.9),
    ]


def warm_and_many(turns: int) -> list[Row]:
    found = on_docker("warm_and_many", turns)
    seconds = {name: statistics.median(values) for name, values in found["seconds"].items()}
    warm = statistics.median(found["warm"])
    return [
        Row("a further ggen sync in a warm pod", "docker run", warm, seconds["docker"] / 20, 0.5),
        Row(
            "20 workspaces in one pod",
            "20 times docker run",
            seconds["one"],
            seconds["docker"],
            0.3,
            "they could see each other's files; other users' not",
        ),
        Row(
            "20 workspaces, a pod each",
            "20 times docker run",
            seconds["each"],
            seconds["docker"],
            0.3,
            "nothing shared; as many at a time as processors",
        ),
    ]


def large(turns: int) -> list[Row]:
    found = on_docker("large", turns)
    seconds = {name: statistics.median(values) for name, values in found["seconds"].items()}
    jobs = {name: medians(rows) for name, rows in found["parts"].items()}
    said = ", ".join(f"{name} {value}" for name, value in jobs["gvisor"].items())
    work = "ggen on 101,400 triples, 600 files"
    return [
        Row(f"{work}: ggen's own time in gVisor", "natively", jobs["gvisor"]["job"], seconds["native"], 1.6, said),
        Row(f"{work}: the same with runc", "natively", jobs["runc"]["job"], seconds["native"], 1.6),
    ]


def memory(turns: int) -> list[Row]:
    del turns
    found = on_docker("memory", 1)
    rest, ours, docker = found["at_rest"], found["ours"], found["docker"]
    clients = (
        {name: mib for name, mib in docker.items() if name not in rest},
        {name.rpartition(".")[2]: mib for name, mib in ours.items() if name not in rest},
    )
    said = "; ".join(", ".join(f"{name} {mib}" for name, mib in parts.items()) for parts in clients)
    everything = sum(ours.values()) - ours["dockerd"], sum(docker.values())
    return [
        Row("MiB of the daemons at rest", "dockerd + containerd", rest["containerd"], sum(rest.values()), 0.4),
        Row("MiB of the daemons with one sandbox", "the same", ours["containerd"], docker["containerd"] + docker["dockerd"], 0.4),
        Row("MiB with shim, module or command line besides", "the same", *everything, 0.4, said),
    ]


# --- On a fleet -------------------------------------------------------------------------------------------------------


def noop(turns: int) -> list[Row]:
    from support.playbook import play

    rows = []
    for size in (1, 2, 4, 6):
        hosts = ",".join(FLEET[:size])
        limit = ("--limit", f"{hosts},build_hosts")
        playbook("site.yml", *limit)  # the controller's link bin/runsc follows the releases that a run asks for
        done = play("site.yml", *INVENTORY, *limit, inventory=())
        if done.rc or done.changed:
            raise SystemExit(f"{hosts}: nothing was to be done, and this failed or changed: {done.errors or done.changed}")
        ping = [BIN / "ansible", hosts, *INVENTORY, "-m", "ansible.builtin.ping"]
        seconds = interleaved({"site": lambda limit=limit: playbook("site.yml", *limit), "ping": lambda ping=ping: run(*ping)}, turns)
        executions = max(len(done.executions(host)) for host in FLEET[:size])
        note = f"{executions} remote executions a host"
        rows.append(Row(f"site.yml that changes nothing, {size} hosts", "ansible -m ping", seconds["site"], seconds["ping"], 6.0, note))
    return rows


def fresh(turns: int) -> list[Row]:
    programs, archive, _ggen = built()
    workspace = ROOT / "examples" / "organization"

    def again() -> None:
        lab("down", "fresh1", "fresh2")
        lab("up", "fresh1", "fresh2")

    ways: dict[str, Callable[[], Any]] = {
        "site": lambda: playbook("site.yml", "--limit", "fresh1,build_hosts"),
        "script": lambda: run(HERE / "by_hand.sh", LAB / "ssh_config", "fresh2", programs, archive, workspace),
    }
    seconds = interleaved(ways, turns, between=again, warm=False)
    lab("down", "fresh1", "fresh2")
    return [Row("site.yml on a fresh host, everything built", "a shell script by hand", seconds["site"], seconds["script"], 1.5)]


@contextlib.contextmanager
def slow_links(rate: str) -> Iterator[None]:
    """Let no more than ``rate`` go to each host of the fleet: they are on the machine itself, and bytes cost next to nothing there."""
    devices = []
    for host in FLEET:
        address = re.search(r"^hostname (.*)$", run("ssh", "-G", "-F", LAB / "ssh_config", host), re.MULTILINE)[1]
        devices.append(json.loads(run("ip", "-json", "route", "get", address))[0]["dev"])
    try:
        for device in devices:
            run("tc", "qdisc", "add", "dev", device, "root", "tbf", "rate", rate, "burst", "64k", "latency", "50ms")
        yield
    finally:
        for device in devices:
            run("tc", "qdisc", "del", "dev", device, "root", check=False)


def shipping(turns: int) -> list[Row]:
    programs, archive, _ggen = built()
    sums = json.loads((programs / "manifest.json").read_text(encoding="utf-8"))["files"]
    names = ["runsc", "containerd-shim-runsc-v1"]
    variables = {
        "programs": str(programs),
        "archive": str(archive),
        "files": [{"name": name, "sha256": sums[name]["sha256"], "mode": "0755"} for name in names],
    }

    def empty() -> None:
        for host in FLEET:
            ssh(
                host,
                "rm -rf /usr/local/lib/bench /etc/bench.toml /root/scp && mkdir /root/scp && ctr images rm --sync localhost/bench:1 2> /dev/null || true",
            )

    def scp() -> None:
        files = [str(programs / name) for name in names] + [str(archive)]
        running = [subprocess.Popen(["scp", "-q", "-F", str(LAB / "ssh_config"), *files, f"{host}:/root/scp/"]) for host in FLEET]
        if any(process.wait() for process in running):
            raise SystemExit("scp failed")

    def ship() -> str:
        return playbook(HERE / "ship.yml", "--extra-vars", json.dumps(variables))

    seconds = interleaved({"ours": ship, "scp": scp}, turns, between=empty)
    with slow_links(LINK):
        slowly = interleaved({"ours": ship, "scp": scp}, turns, between=empty)
    # In site.yml the look at the host has told that nothing is missing, and these two tasks decide that nothing is sent.
    from support.playbook import play

    done = play("site.yml", *INVENTORY, "--limit", ",".join([*FLEET, "build_hosts"]), inventory=())
    deciding = sum(done.seconds(task) for task in ("Change what is not as it should be", "Bring the image to a host that lacks it"))
    return [
        Row(
            "shipping runsc, shim and image to 6 hosts",
            "scp of the same files",
            seconds["ours"],
            seconds["scp"],
            1.2,
            "the playbook verifies and imports too, and all hosts do so on the controller's own processors",
        ),
        Row(f"… over links of {LINK} to each host", "scp of the same files", slowly["ours"], slowly["scp"], 1.2),
        Row("… in site.yml when they are there", "scp of the same files", deciding, seconds["scp"], 0.05, "0 bytes, 0 remote executions"),
        Row(f"… in site.yml when they are there, over links of {LINK}", "scp of the same files", deciding, slowly["scp"], 0.05),
    ]


# --- Builds -----------------------------------------------------------------------------------------------------------


def build(turns: int) -> list[Row]:
    del turns  # minutes each
    table = yaml.safe_load((ROOT / "vendors/gvisor/releases.yml").read_text(encoding="utf-8"))
    release = "20260701"
    row, common = table["releases"][release], table["build"]
    own_go = sorted(CACHE.glob(f"tools/go{table['go']['version']}*/bin/go"))
    go = own_go[0] if own_go else "go"
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        plain, own = Path(folder) / "plain", Path(folder) / "own"
        shutil.copytree(ROOT / "vendors" / "gvisor" / release, plain)
        overlay = plain / "overlay.json"
        environment = {**common["env"], "GOARCH": "amd64", "GOCACHE": f"{folder}/cache", "GOTOOLCHAIN": f"go{table['go']['version']}"}

        def by_hand() -> None:
            run(go, "mod", "vendor", cwd=plain, **environment)
            for item in row["files"]:
                replaced = {
                    str(plain / "vendor" / old): str(ROOT / "vendors/gvisor/overlay" / new) for old, new in item.get("overlay", {}).items()
                }
                overlay.write_text(json.dumps({"Replace": replaced}), encoding="utf-8")
                flags = [*common["flags"], f"-overlay={overlay}", f"-ldflags={common['ldflags'].format(stamp=row['stamp'])}"]
                run(go, "build", *flags, "-o", Path(folder) / "out" / item["name"], item["package"], cwd=plain, **environment)

        def role() -> None:
            variables = {"runsc_build_release": [release], "runsc_build_dest": str(own), "runsc_build_cache": f"{folder}/own-cache"}
            run(
                *(BIN / "ansible-playbook", HERE / "build.yml", "--inventory", ROOT / "inventories/local"),
                *("--extra-vars", json.dumps(variables)),
            )

        seconds = {"role": timed(role), "by hand": timed(by_hand)}
        again = timed(role)
    return [
        Row(
            "runsc and its shims, cold",
            "go mod vendor and go build of the same pin",
            seconds["role"],
            seconds["by hand"],
            1.1,
            "with SBOMs and a trial",
        ),
        Row("the same, unchanged", "the same go build", again, seconds["by hand"], 0.02, "the whole playbook run"),
    ]


COMPARISONS: dict[str, Callable[[int], list[Row]]] = {
    function.__name__: function for function in (one_run, warm_and_many, large, memory, noop, fresh, shipping, build)
}
OF_DOCKER = {"one_run", "warm_and_many", "large", "memory"}
OF_FLEET = {"noop", "shipping"}


# --- Results ----------------------------------------------------------------------------------------------------------


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw each ratio as a share of its goal: left of the line it is reached."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams.update({"svg.hashsalt": "bench", "font.family": "sans-serif", "font.size": 9})
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 0.34 * len(rows) + 1))
    shares = [row["ratio"] / row["goal"] for row in rows]
    bars = axes.barh([row["work"] for row in rows], shares, color=["#2e7d32" if share <= 1 else "#c62828" for share in shares], height=0.6)
    axes.bar_label(bars, [f" {row['ratio']:.2f} (goal {row['goal']:g})" for row in rows])
    axes.axvline(1, color="#333333", linewidth=1)
    axes.set_xlim(0, max(*shares, 1) * 1.25)
    axes.set_xlabel("ratio to the rival, as a share of the goal")
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def write(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Write JSON, plot and table; return the rows of the table."""
    RESULT.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    rows = [row for name in COMPARISONS if name in found for row in found[name]["rows"]]
    plot(rows, RESULT.with_suffix(".svg"))
    lines = ["| work | against | ours | theirs | ratio | goal | |", "|---|---|---|---|---|---|---|"]
    for row in rows:
        mark = "reached" if row["ratio"] <= row["goal"] else "**not reached**"
        unit = "MiB" if row["work"].startswith("MiB") else "s"
        lines.append(
            f"| {row['work']} | {row['against']} | {row['ours']:.2f} {unit} | {row['theirs']:.2f} {unit} | {row['ratio']:.2f} | {row['goal']:g} | {mark}"
            f"{'. ' + row['note'] if row['note'] else ''} |"
        )
    made = ", ".join(f"{name} {found[name]['date']} (load {found[name]['load']})" for name in COMPARISONS if name in found)
    text = "# Benchmarks\n\nWritten by `make bench`. Medians, interleaved, on hosts of the lab that share one machine of two cores.\n\n"
    text += "![ratios](bench.svg)\n\n" + "\n".join(lines) + f"\n\nMade: {made}.\n"
    RESULT.with_suffix(".md").write_text(text, encoding="utf-8")
    return rows


@contextlib.contextmanager
def hosts(names: set[str]) -> Iterator[None]:
    """Have the lab's hosts for these comparisons up and provisioned, and down in the end."""
    try:
        lab("down")
        if names & OF_DOCKER:
            prepare_docker()
        if names & OF_FLEET:
            lab("up", *FLEET)
            playbook("site.yml", "--limit", ",".join([*FLEET, "build_hosts"]))
        if "fresh" in names:
            run(BIN / "ansible-playbook", ROOT / "tests/build.yml")
        yield
    finally:
        lab("down")


def main() -> None:
    """Make the comparisons one after another, print each as it comes, and write them all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=3, help="how often each way is timed (default: %(default)s)")
    parser.add_argument("--only", nargs="+", choices=list(COMPARISONS), default=list(COMPARISONS), help="the comparisons to make")
    arguments = parser.parse_args()
    found = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {}
    with hosts(set(arguments.only)):
        for name in arguments.only:
            print(f"=== {name}", flush=True)
            rows = COMPARISONS[name](arguments.turns)
            for row in rows:
                print(
                    f"{row.work} | {row.against}: {row.ours:.2f} : {row.theirs:.2f} = {row.ratio:.2f} (goal {row.goal:g}) {row.note}",
                    flush=True,
                )
            found[name] = {
                "date": datetime.datetime.now(tz=datetime.timezone.utc).strftime("%Y-%m-%d"),
                "load": round(os.getloadavg()[0], 1),
                "processors": os.cpu_count(),
                "rows": [{**row._asdict(), "ratio": row.ratio} for row in rows],
            }
            write(found)
    missed = [row["work"] for row in write(found) if row["ratio"] > row["goal"]]
    print(f"not reached: {'; '.join(missed) or 'nothing'}")


if __name__ == "__main__":
    main()
