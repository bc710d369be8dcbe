#!/usr/bin/env python3
"""Measures RingMQ over its shards, and draws it. `scripts/scale.sh` builds the programs and calls this.

Shard n runs on the n-th of --cpus, loadgen on those that no number of shards needs. Where there are not enough it takes those that are left, or
shares: each such row says so. Rounds are interleaved, and the order moves on by one from round to round.

Writes <date>-<host>-scale-<commit>/ in --runs: raw.jsonl, facts.json, README.md, one SVG for each workload.

Exit codes: 0 every run gave numbers; 1 none did; 2 wrong arguments; 3 some gave none.
"""

import argparse
import datetime
import json
import math
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import compare_tables as tables
from compare import (
    ALL_FAILED, SOME_FAILED, cpu_list, cpu_set, git, host_facts, measure, new_folder, number, quoted, raise_open_files,
)
from compare_brokers import ROOT, SCHEMES, Running, Skipped, free_port, process, run_text, serves, wait_for

WORKLOADS = {
    "fanout": "fanout --publishers=4 --subscribers=1000 --window=8",
    "pairs": "p2p --pairs=400 --window=10",
    "connects": "connect --clients=10000 --hold=1s",
}
SHARES = "shares CPUs with loadgen"


def shard_list(text):
    parts = text.split(",")
    if not all(part.isdigit() and int(part) for part in parts):
        raise argparse.ArgumentTypeError(f"`{text}` is no list of numbers of shards such as 1,2,4")
    return sorted({int(part) for part in parts})


def usual_shards(cpus):
    """1, 2, 4, ... up to half of the CPUs, and 2 in any case."""
    powers = [1 << n for n in range(20)]
    return [n for n in powers if n <= max(2, cpus // 2)]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    say = parser.add_argument
    say("--shards", type=shard_list, help="1,2,4,... up to half of the CPUs unless given")
    say("--cpus", type=cpu_list, help="of broker and loadgen; all unless given; leave one of two hyperthreads out")
    say("--workloads", default=",".join(WORKLOADS), help=",".join(WORKLOADS))
    say("--rounds", type=number(1), default=3)
    say("--duration", type=number(1), default=6, help="seconds, warm-up included")
    say("--warmup", type=number(0), default=1, help="seconds")
    say("--ringmq", default=os.environ.get("RINGMQ"), metavar="PATH", help="or $RINGMQ")
    say("--loadgen", default=os.environ.get("LOADGEN"), metavar="PATH", help="or $LOADGEN")
    say("--commit", help="of the programs, where this is no checkout")
    say("--host", default=socket.gethostname().split(".")[0], help="name of the machine in the record")
    say("--runs", type=lambda text: Path(text).resolve(), default=ROOT / "perf" / "runs", metavar="FOLDER")
    options = parser.parse_args()
    options.workloads = options.workloads.split(",")
    for name in options.workloads:
        if name not in WORKLOADS:
            parser.error(f"there is no workload `{name}`; there are {', '.join(WORKLOADS)}")
    if options.warmup >= options.duration:
        parser.error("the warm-up is as long as the run (--warmup, --duration)")
    for name in ("ringmq", "loadgen"):
        path = getattr(options, name)
        if not path or not shutil.which(path):
            parser.error(f"there is no program {path or ''} for {name}: --{name} PATH or ${name.upper()}")
        setattr(options, name, str(Path(shutil.which(path)).resolve()))
    options.cpus = sorted(cpu_set(options.cpus) if options.cpus else os.sched_getaffinity(0))
    options.shards = options.shards or usual_shards(len(options.cpus))
    if options.shards[-1] > len(options.cpus):
        parser.error(f"{options.shards[-1]} shards need as many CPUs; there are {len(options.cpus)}")
    return options


def layout(shards, most, cpus):
    """The CPUs of broker and loadgen, and whether they share some."""
    broker = cpus[:shards]
    others = cpus[most:] or cpus[shards:]
    return broker, others or cpus, not others


def measure_one(workload, shards, options):
    broker_cpus, loadgen_cpus, _ = layout(shards, options.shards[-1], options.cpus)
    listed = ",".join(map(str, broker_cpus))
    options.loadgen_cpus = ",".join(map(str, loadgen_cpus))
    port = free_port()
    command = ["taskset", "-c", listed, options.ringmq, "--listen", f"mqtt://127.0.0.1:{port}", "--shards", str(shards), "--cpus", listed,
               "--log", "warn"]
    try:
        with tempfile.TemporaryDirectory() as place, process(command, Path(place) / "log", {}) as broker:
            wait_for(port, broker, Path(place) / "log", serves)
            running = Running(SCHEMES["tcp"].format(f"127.0.0.1:{port}"), [f"--pid={pid}" for pid in broker.own()], port)
            return measure(WORKLOADS[workload], running, options)
    except (Skipped, OSError, subprocess.SubprocessError) as why:
        return {"failed": str(why)}


def measure_all(folder, options):
    runs = {}
    points = [(workload, shards) for workload in options.workloads for shards in options.shards]
    with open(folder / "raw.jsonl", "w") as raw:
        for round_number in range(options.rounds):
            first = round_number % len(points)
            for workload, shards in points[first:] + points[:first]:
                result = measure_one(workload, shards, options)
                runs.setdefault((workload, shards), []).append(result)
                raw.write(json.dumps({"workload": workload, "shards": shards, "round": round_number, "result": result}) + "\n")
                raw.flush()
                said = result.get("failed") or f"{tables.shown(tables.rate(result))} /s {tables.verdict(result)}"
                print(f"round {round_number + 1}  {workload:<10} {shards:>3} shards  {said}", flush=True)
    return runs


def marks(results, shards, options):
    shares = layout(shards, options.shards[-1], options.cpus)[2]
    return ", ".join(part for part in (SHARES if shares else "", tables.marks(results, options.rounds)) if part)


COLUMNS = [("rate /s", tables.rate), ("p99 ms", tables.latency("p99")), ("broker CPU us", tables.cpu),
           (tables.WHOLE_COST, tables.field("per_delivery", "machine_less_own_us")), ("RSS MB", tables.resident_mb), ("lost", tables.breached("lost"))]


def median(results, column):
    return tables.medians(tables.good(results), column)[0]


def table(workload, runs, options):
    out = ["| shards | CPUs | loadgen's | " + " | ".join(title for title, _ in COLUMNS) + " | shards x | marks |",
           "|---:|---|---|" + "---:|" * (len(COLUMNS) + 1) + "---|"]
    base = None
    for shards in options.shards:
        results = runs[workload, shards]
        broker, loadgen, _ = layout(shards, options.shards[-1], options.cpus)
        rate = median(results, tables.rate)
        base = base or (rate / shards if rate else None)
        gain = f"{rate / base:.2f}" if rate and base else "-"
        cells = [tables.cell(results, column) for _, column in COLUMNS]
        out.append(f"| {shards} | {spans(broker)} | {spans(loadgen)} | " + " | ".join(cells) + f" | {gain} | {marks(results, shards, options)} |")
    return "\n".join(out)


def spans(cpus):
    """0-3,6."""
    out = []
    for cpu in cpus:
        if out and out[-1][1] == cpu - 1:
            out[-1][1] = cpu
        else:
            out.append([cpu, cpu])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in out)


# Drawing.

WIDE, HIGH, LEFT, TOP, BOTTOM = 420, 300, 80, 50, 50


def ticks(most):
    """0 and three to six more, as a person would write them."""
    power = 10 ** math.floor(math.log10(most / 3))
    step = next(n * power for n in (1, 2, 5, 10) if n * power * 6 >= most)
    return [step * n for n in range(int(most / step) + 1)]


def panel(at, title, points, ideal):
    """One plot: (shards, value, is_marked) each; marked points are hollow."""
    points = [point for point in points if point[1] is not None]
    if not points:
        return []
    highest = max(value for _, value, _ in points) or 1
    most_x, most_y = max(shards for shards, _, _ in points), 1.1 * max([highest, *(value for _, value in ideal if value <= 2 * highest)])
    x = lambda value: at + LEFT + (WIDE - LEFT - 20) * value / most_x
    y = lambda value: TOP + (HIGH - TOP - BOTTOM) * (1 - value / most_y)
    out = [f'<text x="{at + LEFT}" y="34" font-weight="bold">{title}</text>']
    for value in ticks(most_y):
        out.append(f'<line x1="{x(0):.1f}" x2="{x(most_x):.1f}" y1="{y(value):.1f}" y2="{y(value):.1f}" stroke="#ddd"/>')
        out.append(f'<text x="{x(0) - 6:.1f}" y="{y(value) + 4:.1f}" text-anchor="end">{tables.shown(value)}</text>')
    line = lambda ends, style: f'<polyline fill="none" points="{" ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in ends)}" {style}/>'
    shown = [(a, b) for a, b in ideal if b <= most_y]
    if len(shown) > 1:
        out.append(line(shown, 'stroke="#999" stroke-dasharray="4"'))
    out.append(line([p[:2] for p in points], 'stroke="#1565c0" stroke-width="2"'))
    for shards, value, is_marked in points:
        fill = "white" if is_marked else "#1565c0"
        out.append(f'<circle cx="{x(shards):.1f}" cy="{y(value):.1f}" r="4" stroke="#1565c0" stroke-width="2" fill="{fill}"/>')
        out.append(f'<text x="{x(shards):.1f}" y="{HIGH - BOTTOM + 18}" text-anchor="middle">{shards}</text>')
    out.append(f'<text x="{at + WIDE / 2 + 30}" y="{HIGH - 14}" text-anchor="middle">shards</text>')
    return out


def draw(workload, runs, options, facts):
    what = "connects" if workload == "connects" else "deliveries"
    unit = "connect" if workload == "connects" else "delivery"
    point = lambda n, column: (n, median(runs[workload, n], column), bool(marks(runs[workload, n], n, options)))
    series = lambda column: [point(n, column) for n in options.shards]
    rates, costs = series(tables.rate), series(tables.cpu)
    first = next(((n, value) for n, value, _ in rates if value), None)
    ideal = [(n, first[1] / first[0] * n) for n in options.shards] if first else []
    body = panel(0, f"{workload}: {what} per second", rates, ideal) + panel(WIDE, f"broker CPU per {unit}, us", costs, [])
    foot = f"{facts['version']}, commit {facts['commit']}, {facts['date']}, {facts['host']['cpu']}; dashed: as much per shard; hollow: marked in the table"
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{2 * WIDE}" height="{HIGH + 20}" font-family="sans-serif" font-size="12">',
        f'<rect width="{2 * WIDE}" height="{HIGH + 20}" fill="white"/>', *body,
        f'<text x="10" y="{HIGH + 10}" font-size="10" fill="#555">{foot}</text>', "</svg>", ""])


def readme(runs, options, facts):
    host = facts["host"]
    failed = {r["failed"] for results in runs.values() for r in results if "failed" in r}
    warned = {w for results in runs.values() for r in results for w in r.get("warnings", [])}
    out = ["# RingMQ over its shards", "",
           f"Made by `{facts['command']}` at commit `{facts['commit']}` ({facts['version']}, {facts['loadgen']}) on {facts['date']};",
           f"{options.rounds} rounds, interleaved, the broker started anew for each. Loopback.", "",
           f"Host: {host['cpu']}, {host['memory_mib']} MiB, Linux {host['kernel']}; load before the run {host['load_before']:.2f}.", "",
           "Medians, with lowest and highest round in parentheses. `shards x`: the rate as a multiple of that of one shard (of the fewest, by their",
           f"number). A row with marks is not what the shards can do: `{SHARES}` where there were not CPUs enough for both,",
           "`generator-bound` where loadgen was the limit.", ""]
    for workload in options.workloads:
        out += [f"## {workload}", "", f"`loadgen {WORKLOADS[workload]}`", "", table(workload, runs, options), "",
                f"![{workload} over shards]({workload}.svg)", ""]
    out += [f"- {said}" for said in [*sorted(failed), *sorted(warned)][:10]]
    return "\n".join(out).rstrip() + "\n"


def main():
    options = arguments()
    raise_open_files()
    commit = options.commit or git("rev-parse", "--short", "HEAD") or "unknown"
    options.broker_cpus, options.loadgen_cpus = spans(options.cpus[:options.shards[-1]]), ""
    facts = {
        "commit": commit, "date": str(datetime.date.today()), "host": host_facts(options), "version": run_text([options.ringmq, "--version"]),
        "loadgen": run_text([options.loadgen, "--version"]), "shards": options.shards, "rounds": options.rounds,
        "layout": {n: layout(n, options.shards[-1], options.cpus) for n in options.shards},
        "command": " ".join(["scripts/scale.sh", *map(quoted, sys.argv[1:])]),
    }
    folder = new_folder(options.runs, f"{facts['date']}-{options.host}-scale-{commit}")
    (folder / "facts.json").write_text(json.dumps(facts, indent=1) + "\n")
    runs = measure_all(folder, options)
    for workload in options.workloads:
        (folder / f"{workload}.svg").write_text(draw(workload, runs, options, facts))
    (folder / "README.md").write_text(readme(runs, options, facts))
    print(folder)
    failed = [("failed" in r) for results in runs.values() for r in results]
    sys.exit(ALL_FAILED if all(failed) else SOME_FAILED if any(failed) else 0)


if __name__ == "__main__":
    main()
