#!/usr/bin/env python3
"""What the goals ask beyond `compare.py`: how others fare while one client, a storm or a large replay is hard on the broker.

    scripts/overload.py [--rounds 5] [--experiments slow,storm] [--host NAME]

Every experiment starts the broker anew on CPU 0, runs loadgen on CPU 1, and shows medians with lowest and highest.
Writes perf/runs/<date>-<host>-overload-<commit>/ like `compare.py`, with which it shares the way to start brokers.
"""

import argparse
import contextlib
import dataclasses
import datetime
import json
import os
import socket
import statistics
import subprocess
import sys
import time

from compare import LOADGEN, git, host_facts, new_folder, raise_open_files
from compare_brokers import ROOT, Broker, Skipped
from compare_tables import COLUMNS, latency, shown

PAIRS = "p2p --pairs=50 --rate=1000 --warmup=1s"


def loadgen(words, running, options):
    return ["taskset", "-c", options.loadgen_cpus, LOADGEN, *words.split(), f"--broker={running.url}", *running.options,
            "--json", "--quiet"]


def run(words, running, options):
    done = subprocess.run(loadgen(words, running, options), cwd=ROOT, capture_output=True, text=True, timeout=600)
    return json.loads(done.stdout) if done.stdout.strip() else {"failed": done.stderr.strip()[-300:]}


@contextlib.contextmanager
def beside(words, running, options):
    """Another loadgen at the same time."""
    process = subprocess.Popen(loadgen(words, dataclasses.replace(running, options=[]), options), cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.communicate(timeout=600)


def slow(count):
    words = f"slow --subscribers=1000 --slow={count} --rate=40 --duration=6s --warmup=1s"
    return lambda running, options: run(words, running, options)


def storm(clients):
    words = f"storm --clients={clients} --pairs=50 --rate=1000 --after=2s --settle=3s"
    return lambda running, options: run(words, running, options)


def pairs_only(running, options):
    return run(f"{PAIRS} --duration=8s", running, options)


def replay(topics):
    def measure(running, options):
        with beside(f"retained --topics={topics} --subscribers=1", running, options):
            # The pairs run while a million messages are retained and then replayed to one subscriber.
            return run(f"{PAIRS} --duration=14s", running, options)
    return measure


def idle(running, options):
    return run("connect --clients=19000 --hold=5s", running, options)


def paced(running, options):
    return run("fanout --subscribers=1000 --rate=60 --duration=6s --warmup=1s", running, options)


# Name: what to do, on which CPUs the broker, which brokers.
BOTH = ("ringmq", "mosquitto")
EXPERIMENTS = {
    "slow-0-of-1000": (slow(0), "0", BOTH),
    "slow-1-of-1000": (slow(1), "0", BOTH),
    "pairs-alone": (pairs_only, "0", BOTH),
    "pairs-beside-replay-1M": (replay(1_000_000), "0", BOTH),
    "storm-18k": (storm(18_000), "0", BOTH),
    "idle-19k": (idle, "0", BOTH),
    "fanout-60k-1-shard": (paced, "0", ("ringmq",)),
    "fanout-60k-2-shards": (paced, "0,1", ("ringmq",)),
}


def per_connection(result):
    return result.get("bytes_per_connection")


COLUMNS = [*COLUMNS, ("bytes per connection", per_connection)]


def table(results):
    out = ["| experiment | broker | " + " | ".join(title for title, _ in COLUMNS) + " |"]
    out.append("|---|---|" + "---:|" * len(COLUMNS))
    for (experiment, broker), runs in results.items():
        cells = []
        for _, column in COLUMNS:
            values = [v for v in (column(r) for r in runs if "failed" not in r) if v is not None]
            spread = f" ({shown(min(values))}..{shown(max(values))})" if len(values) > 1 else ""
            cells.append((shown(statistics.median(values)) if values else "-") + spread)
        out.append(f"| {experiment} | {broker} | " + " | ".join(cells) + " |")
    failed = {r["failed"] for runs in results.values() for r in runs if "failed" in r}
    return "\n".join([*out, "", *(f"- failed: {why}" for why in sorted(failed))])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiments", default=",".join(EXPERIMENTS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--loadgen-cpus", default="1")
    parser.add_argument("--host", default=socket.gethostname().split(".")[0])
    parser.add_argument("--allow-dirty", action="store_true")
    options = parser.parse_args()
    options.broker_cpus = "0"
    os.chdir(ROOT)
    dirty = git("status", "--porcelain")
    if dirty and not options.allow_dirty:
        sys.exit("the work tree has changes: commit them, or say --allow-dirty")
    raise_open_files()
    subprocess.run(["cargo", "build", "--release", "-p", "loadgen"], check=True)
    brokers = {}
    for name in BOTH:
        with contextlib.suppress(Skipped):
            brokers[name] = Broker(name, None)
    commit = git("rev-parse", "--short", "HEAD") + ("-dirty" if dirty else "")
    folder = new_folder(ROOT / "perf" / "runs", f"{datetime.date.today()}-{options.host}-overload-{commit}")
    results = {}
    with open(folder / "raw.jsonl", "w") as raw:
        for round_number in range(options.rounds):
            for experiment in options.experiments.split(","):
                measure, cpus, names = EXPERIMENTS[experiment]
                for name in names:
                    if name not in brokers:
                        continue
                    with brokers[name].started("tuned", cpus) as running:
                        result = measure(running, options)
                    time.sleep(0.5)
                    results.setdefault((experiment, name), []).append(result)
                    entry = {"experiment": experiment, "broker": name, "round": round_number, "result": result}
                    raw.write(json.dumps(entry) + "\n")
                    raw.flush()
                    said = result.get("failed") or f"p99 {shown(latency('p99')(result))} ms"
                    print(f"round {round_number + 1}  {experiment:<24} {name:<10} {said}", flush=True)
    facts = host_facts(options)
    (folder / "README.md").write_text("\n".join([
        "# Overload, memory and shards", "",
        f"Made by `{' '.join(['scripts/overload.py', *sys.argv[1:]])}` at commit `{commit}`; {options.rounds} rounds, interleaved, the broker",
        "started anew for each, with its tuned configuration; what each experiment runs is in that script. Broker on CPU 0",
        "(2 shards: CPUs 0 and 1, where loadgen is too), loadgen on CPU 1, loopback.", "",
        f"Host: {facts['cpu']}, {facts['memory_mib']} MiB, Linux {facts['kernel']}; load before the run {facts['load_before']:.2f}.",
        *(f"- {name}: {broker.version}" for name, broker in brokers.items()), "",
        "Medians, lowest and highest round in parentheses.", "", table(results), "",
    ]))
    print(folder.relative_to(ROOT))


if __name__ == "__main__":
    main()
