#!/usr/bin/env python3
"""Compares MQTT brokers with loadgen: pinned, interleaved, several times, medians and spread.

    scripts/compare.py                               all brokers found, all workloads, 5 rounds
    scripts/compare.py --brokers ringmq,mosquitto --workloads fanout-w1,p2p-w10 --rounds 3
    scripts/compare.py --readme perf/runs/FOLDER     write the README's benchmark section from a run
    scripts/compare.py --list                        workloads and brokers

Each round starts every broker anew for every workload, in turn (A B C, A B C), pinned to --broker-cpus, with loadgen
on --loadgen-cpus. A broker that is not on the machine (nor a container engine with its image) is reported as skipped.
The run is written to perf/runs/<date>-<host>-<commit>/: how it was made, raw JSON, summary, plots.
"""

import argparse
import contextlib
import datetime
import json
import os
import platform
import re
import resource
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BROKERS = ROOT / "perf" / "brokers"
LOADGEN = "target/release/loadgen"
FANOUT = "fanout --subscribers=1000"

# Name, loadgen's arguments, rounds if fewer than asked for, brokers that cannot do it.
WORKLOADS = {
    "fanout-w1": f"{FANOUT} --window=1",
    "fanout-w16": f"{FANOUT} --window=16",
    "fanout-16k-w4": f"{FANOUT} --window=4 --size=16384",
    "fanout-qos1-w4": f"{FANOUT} --window=4 --qos=1",
    "fanout-open-40k": "fanout --subscribers=100 --rate=400",
    "pairs-w1": "p2p --pairs=200 --window=1",
    "pairs-w10": "p2p --pairs=200 --window=10",
    "pairs-qos1-w8": "p2p --pairs=100 --window=8 --qos=1",
    "pairs-qos2-w8": "p2p --pairs=100 --window=8 --qos=2",
    "fanin-w1": "fanin --publishers=200 --window=1",
    "shared-qos1-w4": "shared --publishers=100 --subscribers=10 --window=4 --qos=1",
    "retained-10k": "retained --topics=10000 --subscribers=10",
    "connect-5k": "connect --clients=5000 --hold=2s",
    "connect-19k": "connect --clients=19000 --hold=2s",
    "storm-2k": "storm --clients=2000 --pairs=50 --rate=1000 --after=2s --settle=2s",
    "slow-5-of-200": "slow --subscribers=200 --slow=5 --rate=100 --size=1024",
    "fanout-1-1K-1-1K": "preset fanout-1-1K-1-1K",
    "fanout-5-1000-5-250K": "preset fanout-5-1000-5-250K",
    "p2p-1K-1K-1K-1K": "preset p2p-1K-1K-1K-1K",
    "sharedsub-1K-5-1K-1K": "preset sharedsub-1K-5-1K-1K",
    "conn-tcp-10K-100": "preset conn-tcp-10K-100",
    "max-fanout-100": "fanout --subscribers=100 --find-max --slo=p99=10ms --from=200 --trial=3s",
}
# Long ones, done once unless --workloads names them.
LONG = {"conn-tcp-10K-100", "max-fanout-100"}
# What RingMQ is to reach, as ratios to another broker in the same run: at most, or at least where negative.
WHOLE_COST = "CPU per delivery, machine less loadgen"
GOALS = [
    ("fanout-w1", WHOLE_COST, "floor-default", 1.10),
    ("fanout-w1", WHOLE_COST, "mosquitto-tuned", 0.42),
    ("fanout-w16", WHOLE_COST, "mosquitto-tuned", 0.045),
    ("fanout-16k-w4", WHOLE_COST, "mosquitto-tuned", 0.35),
    ("pairs-w1", WHOLE_COST, "mosquitto-tuned", 0.55),
    ("pairs-w10", WHOLE_COST, "mosquitto-tuned", 0.07),
    ("pairs-qos1-w8", WHOLE_COST, "mosquitto-tuned", 0.12),
    ("pairs-qos2-w8", WHOLE_COST, "mosquitto-tuned", 0.07),
    ("fanin-w1", WHOLE_COST, "mosquitto-tuned", 0.40),
    ("fanout-open-40k", "p99 ms", "mosquitto-tuned", 0.5),
    ("fanout-open-40k", "p99.9 ms", "mosquitto-tuned", 0.5),
    ("connect-19k", "rate /s", "mosquitto-tuned", -1.5),
]
# The others can be drawn from the raw file again.
KEPT_PLOTS = ("-latency", "-replay", "-connect")
NO_DURATION = {"retained", "connect", "storm"}


class Skipped(Exception):
    """Why a broker cannot be compared here."""


def run_text(command):
    """First line that a command prints, whatever its exit code."""
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return "?"
    return (done.stdout + done.stderr).strip().splitlines()[0] if done.stdout or done.stderr else "?"


def container_engine():
    for engine in ("podman", "docker"):
        if shutil.which(engine):
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                if subprocess.run([engine, "info"], capture_output=True, timeout=30).returncode == 0:
                    return engine
    return None


class Broker:
    """A broker of perf/brokers and how it can be started here."""

    def __init__(self, name, engine):
        self.name = name
        self.folder = BROKERS / name
        if not (self.folder / "broker.toml").exists():
            sys.exit(f"there is no broker `{name}` in perf/brokers")
        self.settings = tomllib.loads((self.folder / "broker.toml").read_text())
        self.engine = None
        self.version = "?"
        self.find(engine)

    def find(self, engine):
        binary = self.settings.get("binary")
        if build := self.settings.get("build"):
            subprocess.run(build, cwd=ROOT, check=True)
        package = self.settings.get("debian_package")
        if binary and not self.has(binary) and package and os.geteuid() == 0 and shutil.which("apt-get"):
            # Without starting it as a service.
            environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
            install = ["apt-get", "install", "-qy", "--no-install-recommends", package]
            subprocess.run(["apt-get", "update", "-q"], check=False, stdout=subprocess.DEVNULL)
            subprocess.run(install, env=environment, check=False, stdout=subprocess.DEVNULL)
        if binary and self.has(binary):
            self.version = run_text(self.settings["version"])
        elif engine and "image" in self.settings:
            self.engine = engine
            pulled = subprocess.run([engine, "pull", self.settings["image"]], capture_output=True)
            if pulled.returncode != 0:
                raise Skipped(f"the image {self.settings['image']} cannot be pulled")
            self.version = run_text([engine, "image", "inspect", "-f", "{{.Id}}", self.settings["image"]])
        else:
            raise Skipped("not on this machine, and no container engine runs here")

    @staticmethod
    def has(binary):
        return (ROOT / binary).exists() if "/" in binary else shutil.which(binary) is not None

    def configuration(self, kind, port, place):
        """Copies the configuration with its placeholders filled in; returns more environment."""
        fill = lambda text: text.replace("{port}", str(port)).replace("{dir}", str(place / "data"))
        (place / "data").mkdir()
        os.chmod(place, 0o755)
        os.chmod(place / "data", 0o777)
        environment = {k: fill(v) for k, v in self.settings.get("environment", {}).items()}
        for file in sorted((self.folder / kind).iterdir()):
            text = fill(file.read_text())
            if file.name == "environment.toml":
                environment |= tomllib.loads(text)
            else:
                (place / file.name).write_text(text)
        return environment

    @contextlib.contextmanager
    def started(self, kind, cpus):
        """Runs the broker; gives its port and how loadgen watches it."""
        port = free_port()
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder)
            environment = self.configuration(kind, port, place)
            fill = lambda words: [w.replace("{config}", folder).replace("{port}", str(port)) for w in words]
            log = open(place / "log", "w")
            if self.engine:
                options = [f"-e{k}={v}" for k, v in environment.items()] + fill(self.settings["container"])
                command = [self.engine, "run", "--rm", "--net=host", f"--cpuset-cpus={cpus}",
                           f"--name=compare-{port}", *options, self.settings["image"]]
            else:
                command = ["taskset", "-c", cpus, *fill(self.settings["start"])]
            process = subprocess.Popen(command, cwd=ROOT, env=os.environ | environment, stdout=log, stderr=log)
            try:
                wait_for(port, process, place / "log")
                yield port, [*self.watch(process.pid, port), f"--broker-version={self.version}"]
            finally:
                if self.engine:
                    subprocess.run([self.engine, "stop", f"compare-{port}"], capture_output=True)
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(15)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()

    def watch(self, pid, port):
        if not self.engine:
            return [f"--pid={pid}"]
        inspect = [self.engine, "inspect", "-f", "{{.State.Pid}}", f"compare-{port}"]
        inner = subprocess.run(inspect, capture_output=True, text=True).stdout.strip()
        cgroup = Path(f"/proc/{inner}/cgroup").read_text().strip().rsplit(":", 1)[-1]
        return [f"--broker-cgroup=/sys/fs/cgroup{cgroup}"]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(port, process, log):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            time.sleep(0.3)
            return
        time.sleep(0.1)
    raise Skipped("it did not start: " + log.read_text()[-500:].strip())


def measure(arguments, port, watch, options):
    """One run of loadgen; its result."""
    words = arguments.split()
    command = ["taskset", "-c", options.loadgen_cpus, LOADGEN, *words, f"--broker=127.0.0.1:{port}", *watch,
               "--json", "--quiet"]
    if words[0] not in NO_DURATION and "--find-max" not in words:
        command += [f"--duration={options.duration}s"]
        command += [f"--warmup={options.warmup}s"] if "conn-tcp" not in arguments else []
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1800)
    if not done.stdout.strip():
        return {"failed": done.stderr.strip()[-300:], "command": command}
    result = json.loads(done.stdout)
    result["exit_code"] = done.returncode
    result["host"]["name"] = options.host
    return result


def git(*words):
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True).stdout.strip()


def host_facts(options):
    cpu = next((l.split(":")[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name")), "?")
    memory = next(int(l.split()[1]) // 1024 for l in open("/proc/meminfo") if l.startswith("MemTotal"))
    return {
        "host": options.host,
        "kernel": platform.release(),
        "cpu": f"{cpu}, {os.cpu_count()} CPUs",
        "memory_mib": memory,
        "load_before": os.getloadavg()[0],
        "broker_cpus": options.broker_cpus,
        "loadgen_cpus": options.loadgen_cpus,
        "open_files": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
    }


# What the summary shows: title, unit factor, how to find it.
def field(*path):
    def find(result):
        for key in path:
            result = result.get(key) if isinstance(result, dict) else None
        return result
    return find


def latency(quantile):
    def find(result):
        for name in ("deliver", "replay_whole", "connect"):
            if name in result.get("latency", {}):
                found = result["latency"][name]
                return found.get(quantile + "_ns", found.get(quantile)) / 1e6
        return None
    return find


def verdict(result):
    """One word; results before loadgen's second schema have only `is_clean`."""
    if "failed" in result:
        return "failed"
    return (result.get("verdict") or ("clean" if result.get("is_clean") else "not clean")).replace("_", " ")


def unclean(results):
    """The verdicts other than "clean", each once."""
    return ", ".join(sorted({verdict(r) for r in results} - {"clean"}))


def rate(result):
    if result.get("search"):
        return result["search"].get("rate_per_second", result["search"].get("rate"))
    if result.get("delivered", {}).get("messages"):
        return result["delivered"]["messages_per_second"]
    span = next((s for s in result.get("spans", []) if s["name"] == "connect"), None)
    return result["clients"] / span["elapsed_s"] if span else None


def cpu(result):
    cost = result.get("per_delivery")
    if cost and not result.get("search"):
        return cost["broker_us"]
    span = next((s for s in result.get("spans", []) if s["name"] == "connect"), None)
    if span and span["broker_cpu_s"] is not None and not result.get("search"):
        return span["broker_cpu_s"] * 1e6 / max(result["clients"], 1)
    return None


def resident_mb(result):
    spans = [s for s in result.get("spans", []) if s.get("broker_resident_bytes")]
    return max(s["broker_resident_bytes"][1] for s in spans) / 1e6 if spans else None


COLUMNS = [
    ("rate /s", rate),
    ("p50 ms", latency("p50")),
    ("p99 ms", latency("p99")),
    ("p99.9 ms", latency("p99.9")),
    ("max ms", latency("max")),
    ("broker CPU us", cpu),
    ("machine less loadgen us", field("per_delivery", "machine_less_own_us")),
    ("loadgen CPU us", field("per_delivery", "own_us")),
    ("RSS MB", resident_mb),
]


def shown(value):
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def medians(results, column):
    values = [v for v in (column(r) for r in results) if v is not None]
    if not values:
        return None, ""
    spread = f" ({shown(min(values))}..{shown(max(values))})" if len(values) > 1 else ""
    return statistics.median(values), spread


def summary(runs, titles):
    """Tables by workload: medians, lowest and highest of the rounds."""
    out = []
    for workload, by_broker in runs.items():
        out += [f"### {workload}", "", f"`loadgen {WORKLOADS.get(workload, workload)}`", ""]
        out += ["| broker | " + " | ".join(title for title, _ in COLUMNS) + " | clean |"]
        out += ["|---|" + "---:|" * len(COLUMNS) + "---|"]
        for key, results in by_broker.items():
            good = [r for r in results if "failed" not in r]
            cells = []
            for _, column in COLUMNS:
                value, spread = medians(good, column)
                cells.append(shown(value) + spread)
            clean = sum(1 for r in good if r.get("is_clean"))
            words = f" ({unclean(results)})" if unclean(results) else ""
            out.append(f"| {titles[key]} | " + " | ".join(cells) + f" | {clean} of {len(results)}{words} |")
        for key, results in by_broker.items():
            notes = {w for r in results for w in r.get("warnings", [])} | {r["failed"] for r in results if "failed" in r}
            out += ["", *(f"- {titles[key]}: {note}" for note in sorted(notes)[:2])] if notes else []
        out.append("")
    return "\n".join(out)


def ratios(runs):
    """One line per workload: RingMQ against the others."""
    first = ringmq(runs)
    others = list(dict.fromkeys(k for by_broker in runs.values() for k in by_broker if k != first))
    out = ["| workload | " + " | ".join(f"rate, x {k} | CPU, x {k}" for k in others) + " |"]
    out.append("|---|" + "---:|" * (2 * len(others)))
    for workload, by_broker in runs.items():
        cells = []
        for other in others:
            for column in (rate, cpu):
                ours, _ = medians([r for r in by_broker.get(first, []) if "failed" not in r], column)
                theirs, _ = medians([r for r in by_broker.get(other, []) if "failed" not in r], column)
                cells.append(f"{ours / theirs:.2f}" if ours and theirs else "-")
        out.append(f"| {workload} | " + " | ".join(cells) + " |")
    return "\n".join(out)


def ringmq(runs):
    """The configuration of RingMQ that is judged: the default one, if it took part."""
    keys = {key for by_broker in runs.values() for key in by_broker}
    return "ringmq-default" if "ringmq-default" in keys else "ringmq-tuned"


def goals(runs):
    """The goals that this run can tell of: goal, both sides, ratio."""
    columns = dict(COLUMNS) | {WHOLE_COST: field("per_delivery", "machine_less_own_us")}
    first = ringmq(runs)
    out = ["| workload | of what | RingMQ | other | ratio | goal | |", "|---|---|---:|---:|---:|---:|---|"]
    for workload, title, other, goal in GOALS:
        by_broker = runs.get(workload, {})
        of = lambda key: medians([r for r in by_broker.get(key, []) if "failed" not in r], columns[title])[0]
        ours, theirs = of(first), of(other)
        if not ours or not theirs:
            continue
        ratio = ours / theirs
        reached = ratio >= -goal if goal < 0 else ratio <= goal
        # A run that lost messages, or that something else than the broker limited, reaches nothing.
        words = unclean(by_broker.get(first, []) + by_broker.get(other, []))
        judged = f"not judged: {words}" if words else "reached" if reached else "missed"
        bound = f">= {-goal}" if goal < 0 else f"<= {goal}"
        out.append(f"| {workload} | {title} | {shown(ours)} | {other}: {shown(theirs)} | {ratio:.3f} | {bound} |"
                   f" {judged} |")
    return "\n".join(out) if len(out) > 2 else ""


def remember(runs, facts):
    """One line per accepted run in perf/history.jsonl: RingMQ's medians."""
    columns = {"rate": rate, "p99_ms": latency("p99"), "broker_cpu_us": cpu}
    results = {}
    for workload, by_broker in runs.items():
        good = [r for r in by_broker.get(ringmq(runs), []) if "failed" not in r]
        results[workload] = {name: medians(good, column)[0] for name, column in columns.items()}
    line = {"date": str(datetime.date.today()), "commit": facts["commit"], "host": facts["host"]["host"],
            "rounds": facts["rounds"], "results": results}
    with open(ROOT / "perf" / "history.jsonl", "a") as history:
        history.write(json.dumps(line) + "\n")


def load_run(folder):
    """The results of a run by workload and broker, from its raw file."""
    runs = {}
    for line in (folder / "raw.jsonl").read_text().splitlines():
        entry = json.loads(line)
        runs.setdefault(entry["workload"], {}).setdefault(entry["broker"], []).append(entry["result"])
    facts = json.loads((folder / "facts.json").read_text())
    return runs, facts


def write_readme_section(folder):
    runs, facts = load_run(folder)
    relative = folder.resolve().relative_to(ROOT)
    rows = ["| workload | " + " | ".join(facts["titles"][k] for k in facts["titles"]) + " |"]
    rows.append("|---|" + "---:|" * len(facts["titles"]))
    for workload, by_broker in runs.items():
        cells = []
        for key in facts["titles"]:
            good = [r for r in by_broker.get(key, []) if "failed" not in r]
            values = [shown(medians(good, column)[0]) for column in (rate, latency("p99"), cpu)]
            words = unclean(by_broker.get(key, []))
            cells.append(" / ".join(values) + (f" ({words})" if words else ""))
        rows.append(f"| {workload} | " + " | ".join(cells) + " |")
    text = "\n".join([
        f"Medians of {facts['rounds']} interleaved rounds on {facts['host']['cpu']}, Linux {facts['host']['kernel']}, loopback,"
        f" broker on CPU {facts['host']['broker_cpus']}, loadgen on CPU {facts['host']['loadgen_cpus']}; commit"
        f" `{facts['commit']}`. Each cell: deliveries per second (connections for connects, publishes for max-) / p99 in ms / broker CPU in us per"
        f" delivery (or connection); in brackets what runs were that were not clean. Everything else, with the spread and the raw data: [{relative}]({relative}/README.md).",
        "", *rows, "",
        f"![latency by percentile]({relative}/plots/fanout-open-40k-latency.svg)",
    ])
    readme = ROOT / "README.md"
    begin, end = "<!-- benchmark: written by scripts/compare.py --readme -->", "<!-- benchmark: end -->"
    pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.S)
    content = readme.read_text()
    if not pattern.search(content):
        sys.exit("README.md has no benchmark markers")
    readme.write_text(pattern.sub(lambda _: f"{begin}\n{text}\n{end}", content))


def plots(folder, runs, titles):
    """The middle round of each broker, drawn together."""
    for workload, by_broker in runs.items():
        with tempfile.TemporaryDirectory() as place:
            files = []
            for key, results in by_broker.items():
                good = sorted((r for r in results if rate(r)), key=rate)
                if good:
                    chosen = dict(good[len(good) // 2], scenario=workload)
                    files.append(Path(place) / f"{titles[key]}.json")
                    files[-1].write_text(json.dumps(chosen))
            if files:
                command = [LOADGEN, "report", *map(str, files), "--svg", str(folder / "plots")]
                subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    for plot in (folder / "plots").glob("*.svg"):
        of_connects = plot.stem.endswith("-connect") and not plot.stem.startswith(("conn", "storm"))
        if of_connects or not plot.stem.endswith(KEPT_PLOTS):
            plot.unlink()


def raise_open_files():
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--brokers", default=",".join(sorted(p.name for p in BROKERS.iterdir() if p.is_dir())))
    parser.add_argument("--configurations", default="default,tuned")
    parser.add_argument("--workloads", default="")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--duration", type=int, default=6, help="seconds, warm-up included")
    parser.add_argument("--warmup", type=int, default=1, help="seconds")
    parser.add_argument("--broker-cpus", default="0")
    parser.add_argument("--loadgen-cpus", default="1")
    parser.add_argument("--host", default=socket.gethostname().split(".")[0], help="name of the machine in the record")
    parser.add_argument("--allow-dirty", action="store_true", help="measure what is not committed")
    parser.add_argument("--accept", action="store_true", help="add a line to perf/history.jsonl")
    parser.add_argument("--readme", type=Path, metavar="FOLDER")
    parser.add_argument("--list", action="store_true")
    return parser.parse_args()


def find_brokers(options):
    """What can be compared, and why the rest cannot."""
    engine = container_engine()
    found, skipped = [], {}
    for name in options.brokers.split(","):
        try:
            broker = Broker(name, engine)
            kinds = [kind for kind in options.configurations.split(",") if (broker.folder / kind).is_dir()]
            found += [(broker, kind) for kind in kinds or ["default"]]
        except Skipped as why:
            skipped[name] = str(why)
            print(f"{name}: skipped: {why}")
    return found, skipped


def main():
    options = arguments()
    os.chdir(ROOT)
    if options.readme:
        write_readme_section(options.readme)
        return
    if options.list:
        for name, words in WORKLOADS.items():
            print(f"{name:<24} loadgen {words}")
        print("brokers:", options.brokers)
        return
    dirty = git("status", "--porcelain")
    if dirty and not options.allow_dirty:
        sys.exit("the work tree has changes: commit them, or say --allow-dirty")
    raise_open_files()
    subprocess.run(["cargo", "build", "--release", "-p", "loadgen"], check=True)
    chosen = options.workloads.split(",") if options.workloads else list(WORKLOADS)
    for name in chosen:
        if name not in WORKLOADS:
            sys.exit(f"there is no workload `{name}`; --list shows them")
    found, skipped = find_brokers(options)
    if not found:
        sys.exit("no broker is left to compare")
    titles = {f"{b.name}-{kind}": f"{b.settings['title']} {kind}" for b, kind in found}
    commit = git("rev-parse", "--short", "HEAD") + ("-dirty" if dirty else "")
    folder = ROOT / "perf" / "runs" / f"{datetime.date.today()}-{options.host}-{commit}"
    folder.mkdir(parents=True, exist_ok=False)
    facts = {
        "commit": commit, "rounds": options.rounds, "host": host_facts(options), "titles": titles,
        "versions": {b.name: b.version for b, _ in found}, "skipped": skipped,
        "command": " ".join(["scripts/compare.py", *sys.argv[1:]]),
    }
    (folder / "facts.json").write_text(json.dumps(facts, indent=1) + "\n")
    with open(folder / "raw.jsonl", "w") as raw:
        for round_number in range(options.rounds):
            for workload in chosen:
                if workload in LONG and not options.workloads and round_number > 0:
                    continue
                for broker, kind in found:
                    if workload not in broker.settings.get("workloads", WORKLOADS):
                        continue
                    key = f"{broker.name}-{kind}"
                    try:
                        with broker.started(kind, options.broker_cpus) as (port, watch):
                            result = measure(WORKLOADS[workload], port, watch, options)
                    except (Skipped, subprocess.TimeoutExpired) as why:
                        result = {"failed": str(why)}
                    raw.write(json.dumps({"workload": workload, "broker": key, "round": round_number, "result": result}) + "\n")
                    raw.flush()
                    found_rate = shown(rate(result)) if "failed" not in result else result["failed"]
                    print(f"round {round_number + 1}  {workload:<22} {titles[key]:<20} {found_rate}", flush=True)
    runs, facts = load_run(folder)
    plots(folder, runs, titles)
    write_folder_readme(folder, runs, facts)
    if options.accept:
        remember(runs, facts)
    print(folder.relative_to(ROOT))


def write_folder_readme(folder, runs, facts):
    host = facts["host"]
    out = [
        f"# {', '.join(facts['titles'].values())}", "",
        f"Made by `{facts['command']}` at commit `{facts['commit']}`; {facts['rounds']} rounds, interleaved, the broker started anew",
        f"for each. Broker on CPUs {host['broker_cpus']}, loadgen on CPUs {host['loadgen_cpus']}, loopback.", "",
        f"Host: {host['cpu']}, {host['memory_mib']} MiB, Linux {host['kernel']}; load before the run {host['load_before']:.2f}.", "",
        *(f"- {name}: {version}" for name, version in facts["versions"].items()),
        *(f"- {name}: skipped: {why}" for name, why in facts["skipped"].items()), "",
        "Cells are medians, with lowest and highest round in parentheses. Latency is publish to deliver (subscribe to last for",
        "retained, connect for connects), CPU is per delivery (per connection for connects); `machine less loadgen` holds what the",
        "kernel did for the broker outside its process. The search rows (max-) show the rate that was found. How to read this, and",
        "what it does not show: [perf/README.md](../../README.md).", "",
        *(["## Goals", "", goals(runs), ""] if goals(runs) else []),
        f"## {facts['titles'].get(ringmq(runs), 'RingMQ')} against the others", "", ratios(runs), "",
        "## All numbers", "", summary(runs, facts["titles"]),
    ]
    (folder / "README.md").write_text("\n".join(out))


if __name__ == "__main__":
    main()
