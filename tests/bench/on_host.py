# Copyright (c) 2026, the ggen.gvisor authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The comparisons that one host makes by itself: the module beside `docker run`, turn by turn. Runs on that host, where only Python is.

python3 on_host.py FOLDER TURNS     # FOLDER holds ansible's module_utils, the collection and the workspace; prints JSON
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from typing import Any, Callable

MODULE = "ansible_collections.ggen.gvisor.plugins.modules.containerd_run"
IMAGE = "docker.io/library/ggen:latest"
MANY = 20
RDFS = "http://www.w3.org/2000/01/rdf-schema#"
QUERY = f"""PREFIX rdfs: <{RDFS}>
SELECT ?name (GROUP_CONCAT(?label; separator="|") AS ?fields)
WHERE {{
  ?class a rdfs:Class ; <urn:large#field> ?property .
  ?property rdfs:label ?label .
  BIND(REPLACE(STR(?class), "^.*#", "") AS ?name)
}}
GROUP BY ?name
ORDER BY ?name
"""
MANIFEST = f"""[project]
name = "large"
version = "1.0.0"
description = "Many classes"

[ontology]
source = "ontology/large.ttl"

[[inference.rules]]
name = "fields"
order = 1
description = "A property of a class is a field of it."
construct = '''
CONSTRUCT {{ ?class <urn:large#field> ?property }}
WHERE {{ ?property <{RDFS}domain> ?class }}
ORDER BY ?class ?property
'''

[generation]
output_dir = "."

[[generation.rules]]
name = "classes"
query = {{ file = "queries/classes.rq" }}
template = {{ file = "templates/class.tera" }}
output_file = "generated/{{{{ name }}}}.md"
mode = "Overwrite"
"""


class Bench:
    """The folder with everything, and how often each thing is timed."""

    def __init__(self, folder: str, turns: int) -> None:
        self.folder = folder
        self.turns = turns
        self.environment = {**os.environ, "PYTHONPATH": os.path.join(folder, "python"), "LC_ALL": "C.UTF-8"}

    def workspace(self, number: int = 0) -> str:
        """A workspace of its own, in which everything is generated already."""
        path = os.path.join(self.folder, f"workspace{number}")
        if not os.path.isdir(path):
            shutil.copytree(os.path.join(self.folder, "workspace"), path)
        return path

    def module(self, **params: Any) -> dict[str, Any]:
        """Run the module as Ansible does, its own process with its arguments on standard input. Raises AssertionError when it fails."""
        arguments = {"image": IMAGE, "argv": ["/usr/local/bin/ggen", "sync"], "user": "0:0", **params, "_ansible_version": "2.19.0"}
        done = subprocess.run(
            [sys.executable, "-m", MODULE],
            input=json.dumps({"ANSIBLE_MODULE_ARGS": arguments}),
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        result = json.loads(done.stdout)
        assert not result.get("failed"), result
        return result

    def docker(self, workspace: str, *options: str) -> None:
        """The same by Docker. Raises CalledProcessError."""
        argv = [
            "docker",
            "run",
            "--rm",
            "--runtime=runsc",
            "--network=none",
            "--volume",
            f"{workspace}:/workspace",
            "--workdir",
            "/workspace",
        ]
        subprocess.run([*argv, *options, "ggen:latest", "sync"], check=True, capture_output=True)

    def interleaved(self, ways: dict[str, Callable[[], Any]], turns: int = 0) -> dict[str, list[float]]:
        """Time every way once a turn, after one turn that does not count; return the seconds of each."""
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for turn in range((turns or self.turns) + 1):
            for name, way in ways.items():
                begin = time.monotonic()
                way()
                if turn:
                    seconds[name].append(time.monotonic() - begin)
        return seconds

    def large(self) -> dict[str, Any]:
        """ggen's own work on a large workspace: by itself, with runc and with gVisor."""
        place = os.path.join(self.folder, "large")
        write_large(place)
        env = {"RUST_LOG": "warn,opentelemetry_sdk=off"}
        parts: dict[str, list[dict[str, float]]] = {"runc": [], "gvisor": []}

        def native() -> None:
            subprocess.run(
                [os.path.join(self.folder, "ggen"), "sync"], cwd=place, env={**os.environ, **env}, check=True, capture_output=True
            )

        def contained(name: str, runtime: str) -> None:
            parts[name].append(self.module(workspace=place, runtime=runtime, env=env)["timings"])

        seconds = self.interleaved(
            {
                "native": native,
                "runc": lambda: contained("runc", "io.containerd.runc.v2"),
                "gvisor": lambda: contained("gvisor", "io.containerd.runsc.v1"),
            }
        )
        return {"seconds": seconds, "parts": {name: rows[1:] for name, rows in parts.items()}}

    def memory(self) -> dict[str, Any]:
        """MiB of the daemons at rest, and with one sandbox what serves it besides; gVisor's own processes are the same for both."""
        daemons = ("containerd", "dockerd")
        place = self.workspace()
        wait = ["/usr/local/bin/catatonit", "-P"]
        arguments = {"image": IMAGE, "argv": wait, "workspace": place, "user": "0:0", "timeout": 60, "_ansible_version": "2.19.0"}
        volume = f"--volume={place}:/workspace"
        docker = ["docker", "run", "--rm", "--runtime=runsc", "--network=none", volume, f"--entrypoint={wait[0]}", "ggen:latest", *wait[1:]]
        ways = {
            "ours": ([sys.executable, "-m", MODULE], json.dumps({"ANSIBLE_MODULE_ARGS": arguments}), ("containerd-shim-runsc-v1", MODULE)),
            "docker": (docker, "", ("containerd-shim-runc-v2", "docker")),
        }
        found: dict[str, Any] = {"at_rest": {name: resident(name) for name in daemons}}
        for name, (argv, said, others) in ways.items():
            process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=self.environment, text=True)
            process.stdin.write(said)
            process.stdin.close()
            time.sleep(5)  # for the sandbox to be there and at rest
            assert process.poll() is None, name
            found[name] = {part: resident(part) for part in (*daemons, *others)}
            process.terminate() if name == "docker" else process.kill()
            process.wait()
            time.sleep(2)
        return found

    def warm_and_many(self) -> dict[str, Any]:
        """MANY workspaces in one run: a pod each, one pod for all, and as many times Docker. The jobs of a pod that is there already are the warm runs."""
        places = [self.workspace(number) for number in range(MANY)]
        jobs = [{"workspace": place} for place in places]
        warm: list[list[float]] = []

        def one_pod() -> None:
            done = self.module(jobs=jobs, pods="one")
            warm.append([job["timings"]["total"] for job in done["jobs"][1:-1]])

        def docker() -> None:
            for place in places:
                self.docker(place)

        seconds = self.interleaved({"each": lambda: self.module(jobs=jobs), "one": one_pod, "docker": docker}, max(self.turns // 3, 1))
        return {"seconds": seconds, "warm": [value for values in warm[1:] for value in values]}

    def one_run(self) -> dict[str, Any]:
        """One ggen sync, from the command to its exit."""
        place = self.workspace()
        parts: list[dict[str, float]] = []
        seconds = self.interleaved(
            {
                "ours": lambda: parts.append(self.module(workspace=place)["timings"]),
                "command": lambda: command(place),
                "docker": lambda: self.docker(place),
            }
        )
        return {"seconds": seconds, "parts": parts[1:]}


def command(workspace: str) -> None:
    """The same by ggen-gvisor, as a person types it. Raises CalledProcessError."""
    subprocess.run(["/usr/local/bin/ggen-gvisor", "sync", f"--workspace={workspace}", "--user=0:0"], check=True, capture_output=True)


def resident(*words: str) -> float:
    """Return the MiB that the processes with one of ``words`` in their command line have to themselves (PSS)."""
    total = 0
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", encoding="utf-8", errors="replace") as stream:
                argv = stream.read().split("\0")
            if any(word in (os.path.basename(argv[0]), *argv[1:3]) for word in words):
                with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as stream:
                    total += sum(int(line.split()[1]) for line in stream if line.startswith("Pss:"))
        except OSError:
            continue
    return round(total / 1024, 1)


def write_large(path: str, classes: int = 600, properties: int = 56) -> None:
    """Write a workspace of over 100,000 triples from which ggen makes a file for each class."""
    for name in ("ontology", "queries", "templates"):
        os.makedirs(os.path.join(path, name), exist_ok=True)

    def write(name: str, text: str) -> None:
        with open(os.path.join(path, name), "w", encoding="utf-8") as stream:
            stream.write(text)

    lines = [
        f"@prefix {name}: <{iri}> ." for name, iri in (("", "urn:large#"), ("rdfs", RDFS), ("xsd", "http://www.w3.org/2001/XMLSchema#"))
    ]
    for number in range(classes):
        lines.append(f':Class{number} a rdfs:Class ; rdfs:label "Class {number}" .')
        for other in range(properties):
            about = f'rdfs:domain :Class{number} ; rdfs:range xsd:string ; rdfs:label "Property {other} of {number}"'
            lines.append(f":p{number}_{other} {about} .")
    write("ontology/large.ttl", "\n".join(lines) + "\n")
    write("queries/classes.rq", QUERY)
    write("templates/class.tera", '# {{ name }}\n{% for field in fields | split(pat="|") | sort %}- {{ field }}\n{% endfor %}')
    write("ggen.toml", MANIFEST)


def main() -> None:
    """Make every comparison that is asked for."""
    folder, turns, *names = sys.argv[1:]
    bench = Bench(folder, int(turns))
    print(json.dumps({name: getattr(bench, name)() for name in names}))


if __name__ == "__main__":
    main()
