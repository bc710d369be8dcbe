#!/usr/bin/env python3
"""Compares MQTT brokers with loadgen: pinned, interleaved, several times, medians and spread.

    scripts/compare.py                               all brokers found, all workloads, 5 rounds
    scripts/compare.py --brokers ringmq,mosquitto --workloads fanout-w1,pairs-w10 --rounds 3
    scripts/compare.py --brokers ringmq --broker 'mine=/opt/mine/mine --port {port}' --broker there=10.0.0.9:1883
    scripts/compare.py --commit 1a2b3c4              on a machine that has copies of the programs and no toolchain
    scripts/compare.py --report perf/runs/FOLDER     print all tables of a run, made from its raw data
    scripts/compare.py --readme perf/runs/FOLDER     write the README's benchmark section from a run
    scripts/compare.py --list                        workloads and brokers

Each round starts every broker anew for every workload, pinned to --broker-cpus, with loadgen on --loadgen-cpus; the order of the brokers
moves on by one from round to round. A broker that is not on the machine (nor a container engine with its image) is reported as skipped.
The run is written to perf/runs/<date>-<host>-<commit>/: how it was made, raw JSON, summary, plots.

Exit codes: 0 every run gave numbers (the table says what they are worth); 1 none did, or nothing could be measured; 2 wrong arguments;
3 some runs gave none: the table says which.
"""

import argparse
import collections
import datetime
import json
import os
import platform
import re
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import compare_tables as tables
from compare_brokers import KINDS, ROOT, Broker, Given, Skipped, container_engine, cpu_count, folders, run_text
from compare_tables import COLUMNS, cpu, latency, load_run, rate, shown
from compare_workloads import NO_DURATION, WORKLOADS

LOADGEN = "target/release/loadgen"
# The others can be drawn from the raw file again.
KEPT_PLOTS = ("-latency", "-replay", "-connect")
ALL_FAILED, WRONG_ARGUMENTS, SOME_FAILED = 1, 2, 3


def loadgen_words(words, running, options):
    """The command line of loadgen for a workload."""
    scenario = words[0]
    command = ["taskset", "-c", options.loadgen_cpus, options.loadgen, *words, f"--broker={running.url}", *running.options,
               "--json", "--quiet"]
    if scenario not in NO_DURATION and "--find-max" not in words:
        command += [f"--duration={options.duration}s"]
        command += [f"--warmup={options.warmup}s"] if "conn-tcp-10K-100" not in words else []
    return command


def measure(words, running, options):
    """One run of loadgen; its result."""
    command = loadgen_words(words.split(), running, options)
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1800)
    if not done.stdout.strip():
        return {"failed": done.stderr.strip()[-300:] or f"loadgen ended with exit code {done.returncode}", "command": command}
    try:
        result = json.loads(done.stdout)
    except ValueError:
        return {"failed": f"loadgen printed no JSON: {done.stdout[:100]}", "command": command}
    result["exit_code"] = done.returncode
    result.setdefault("host", {})["name"] = options.host
    return result


def measure_one(broker, kind, name, options):
    """A workload on a broker started anew; in the words of loadgen, or why there is no result."""
    workload = WORKLOADS[name]
    cpus = options.wide_cpus if workload.is_wide else options.broker_cpus
    kind = workload.configuration or kind
    words, closed = workload.words, None
    try:
        if workload.closed:
            with broker.started(kind, cpus, workload.transport) as running:
                closed = rate(measure(workload.closed, running, options))
            if not closed:
                return {"failed": "its closed loop, on which the load rests, gave no rate"}
            words = words.replace("{twice}", str(round(2 * closed)))
        with broker.started(kind, cpus, workload.transport) as running:
            result = measure(words, running, options)
    except (Skipped, OSError, subprocess.SubprocessError) as why:
        return {"failed": str(why)}
    if closed:
        result["closed_rate_per_second"] = closed
    return result


def git(*words):
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True).stdout.strip()


def host_facts(options):
    cpu_model = next((l.split(":")[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name")), "?")
    memory = next(int(l.split()[1]) // 1024 for l in open("/proc/meminfo") if l.startswith("MemTotal"))
    return {
        "host": options.host,
        "kernel": platform.release(),
        "cpu": f"{cpu_model}, {os.cpu_count()} CPUs",
        "memory_mib": memory,
        "load_before": os.getloadavg()[0],
        "broker_cpus": options.broker_cpus,
        "loadgen_cpus": options.loadgen_cpus,
        "open_files": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
    }


def plots(folder, runs, facts, loadgen):
    """The middle round of each broker, drawn together."""
    for workload, by_broker in runs.items():
        with tempfile.TemporaryDirectory() as place:
            files = []
            for key, results in by_broker.items():
                good = sorted((r for r in results if rate(r)), key=rate)
                if good:
                    chosen = dict(good[len(good) // 2], scenario=workload)
                    files.append(Path(place) / f"{label(facts['titles'][key], chosen)}.json")
                    files[-1].write_text(json.dumps(chosen))
            if files:
                command = [loadgen, "report", *map(str, files), "--svg", str(folder / "plots")]
                subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    for plot in (folder / "plots").glob("*.svg"):
        of_connects = plot.stem.endswith("-connect") and not plot.stem.startswith(("conn", "storm"))
        if of_connects or not plot.stem.endswith(KEPT_PLOTS):
            plot.unlink()


def label(title, result):
    """Its name in a plot; loadgen adds what is not clean, but does not know who was the limit in results of its first schema."""
    word = tables.verdict(result)
    return f"{title} ({word})" if "verdict" not in result and result.get("is_clean") and word != "clean" else title


def raise_open_files():
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


# The command line.


def choice(what, valid):
    """A list of names, each of which has to be known."""
    def names(text):
        chosen = [name for name in text.split(",") if name]
        unknown = [name for name in chosen if name not in valid]
        if unknown:
            raise argparse.ArgumentTypeError(f"there is no {what} `{unknown[0]}`; there are {', '.join(valid)}")
        twice = [name for name, count in collections.Counter(chosen).items() if count > 1]
        if twice:
            raise argparse.ArgumentTypeError(f"the {what} `{twice[0]}` is named twice")
        return chosen
    return names


def number(least):
    def parse(text):
        if not text.isdigit() or int(text) < least:
            raise argparse.ArgumentTypeError(f"`{text}` is no whole number from {least} on")
        return int(text)
    return parse


def cpu_list(text):
    spans = [[int(n) for n in part.split("-")] for part in text.split(",")] if re.fullmatch(r"\d+(-\d+)?(,\d+(-\d+)?)*", text) else []
    if not spans or any(span[0] > span[-1] for span in spans):
        raise argparse.ArgumentTypeError(f"`{text}` is no list of CPUs such as 0-3,6")
    missing = [cpu for span in spans for cpu in range(span[0], span[-1] + 1) if cpu not in os.sched_getaffinity(0)]
    if missing:
        raise argparse.ArgumentTypeError(f"this process may not run on CPU {missing[0]}")
    return text


def named(text):
    """NAME=WHAT."""
    name, equals, what = text.partition("=")
    if not equals or not what.strip() or not re.fullmatch(r"[A-Za-z0-9_.]+", name):
        raise argparse.ArgumentTypeError(f"`{text}` is not NAME=WHAT (letters, digits, `_` and `.` in a name)")
    return name, what.strip()


def program(text):
    """A path counts from where this was started, not from the repository."""
    return str(Path(text).resolve()) if "/" in text else text


def program_of(text):
    name, path = named(text)
    return name, program(path)


def run_folder(text):
    folder = Path(text).resolve()
    if not (folder / "raw.jsonl").exists() or not (folder / "facts.json").exists():
        raise argparse.ArgumentTypeError(f"{text} is no folder of a run: it needs raw.jsonl and facts.json")
    return folder


def arguments(words=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    say = parser.add_argument
    wide = ",".join(map(str, sorted(os.sched_getaffinity(0))[:2]))
    say("--brokers", type=choice("broker", folders()), help="of perf/brokers; all unless given; '' for none")
    say("--broker", type=named, action="append", default=[], metavar="NAME=COMMAND|HOST:PORT",
        help="takes part without a folder: a command with {port} (and {dir}, an empty folder), or one that runs already")
    say("--binary", type=program_of, action="append", default=[], metavar="NAME=PATH", help="the program of a broker of perf/brokers")
    say("--loadgen", type=program, metavar="PATH", help="instead of one built here")
    say("--configurations", type=choice("configuration", KINDS), default=list(KINDS), help="default,tuned")
    say("--workloads", type=choice("workload", WORKLOADS), default=[], help="all unless given")
    say("--rounds", type=number(1), default=5)
    say("--duration", type=number(1), default=6, help="seconds, warm-up included")
    say("--warmup", type=number(0), default=1, help="seconds")
    say("--broker-cpus", type=cpu_list, default="0")
    say("--loadgen-cpus", type=cpu_list, default="1")
    say("--wide-cpus", type=cpu_list, default=wide, help="the broker's in workloads with wide-")
    say("--commit", help="of the programs in target/release, where this is no checkout: nothing is built")
    say("--host", default=socket.gethostname().split(".")[0], help="name of the machine in the record")
    say("--runs", type=lambda text: Path(text).resolve(), default=ROOT / "perf" / "runs", metavar="FOLDER", help="where the run's folder is made")
    say("--allow-dirty", action="store_true", help="measure what is not committed")
    say("--accept", action="store_true", help="add a line to perf/history.jsonl")
    say("--readme", type=run_folder, metavar="FOLDER")
    say("--report", type=run_folder, metavar="FOLDER")
    say("--list", action="store_true")
    options = parser.parse_args(words)
    alone = [f"--{name}" for name in ("readme", "report", "list") if getattr(options, name)]
    if alone and len(sys.argv[1:] if words is None else words) > (1 if alone == ["--list"] else 2):
        parser.error(f"{alone[0]} measures nothing: it stands alone")
    if options.warmup >= options.duration:
        parser.error("the warm-up is as long as the run (--warmup, --duration)")
    options.brokers = folders() if options.brokers is None else options.brokers
    names = options.brokers + [name for name, _ in options.broker]
    for name, count in collections.Counter(names).items():
        if count > 1:
            parser.error(f"the broker `{name}` is named twice (--brokers, --broker)")
    for name, _ in options.binary:
        if name not in options.brokers:
            parser.error(f"--binary {name}: does not take part (--brokers)")
    if options.accept and "ringmq" not in options.brokers:
        parser.error("--accept remembers RingMQ's medians, and it does not take part (--brokers)")
    try:
        options.given = [Given(name, what) for name, what in options.broker]
    except ValueError as why:
        parser.error(str(why))
    return options


def find_brokers(options):
    """What can be compared, why the rest cannot, and what else is to be said."""
    engine = container_engine()
    found, skipped, said = [], {}, []
    for name in options.brokers:
        try:
            broker = Broker(name, engine, dict(options.binary).get(name), is_built=bool(options.commit))
            kinds = [kind for kind in options.configurations if not broker.why_not_kind(kind)]
            said += [f"{name}: {why}" for kind in options.configurations if (why := broker.why_not_kind(kind))]
            if not kinds:
                kinds = ["default"]
                said.append(f"{name}: takes part with `default` instead")
            found += [(broker, kind) for kind in kinds]
        except Skipped as why:
            skipped[name] = str(why)
            print(f"{name}: skipped: {why}")
    said += [f"{name}: the program {path}, not built from this commit" for name, path in options.binary]
    for broker in options.given:
        if not broker.is_started_anew:
            said.append(f"{broker.name}: ran already at {broker.what}, not started anew; its CPU is not measured, --broker-cpus are not its")
        found.append((broker, "given"))
    for line in said:
        print(line)
    return found, skipped, said


def left_out(chosen, found):
    """Which workloads a broker cannot do, and why; by workload and key."""
    out = {}
    for name in chosen:
        measured = set()
        for broker, kind in found:
            why = broker.why_not(name, WORKLOADS[name])
            if not why and WORKLOADS[name].configuration and broker.name in measured:
                why = f"measured once: its configuration is `{WORKLOADS[name].configuration}`"
            if why:
                out.setdefault(name, {})[f"{broker.name}-{kind}"] = why
            measured.add(broker.name)
    return out


def order_of(found, round_number):
    """The brokers of a round: each comes first in turn."""
    first = round_number % len(found)
    return found[first:] + found[:first]


def new_folder(runs, name):
    """A folder for this run: a second one on a day gets a number."""
    for number in range(1, 1000):
        folder = runs / (name if number == 1 else f"{name}-{number}")
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            continue
    sys.exit(f"{runs / name} and its numbers are taken")


def commit_of_tree(options):
    if options.commit:
        return options.commit
    dirty = git("status", "--porcelain")
    if dirty and not options.allow_dirty:
        sys.exit("the work tree has changes: commit them, or say --allow-dirty")
    return git("rev-parse", "--short", "HEAD") + ("-dirty" if dirty else "")


def facts_of(options, commit, chosen, found, skipped, said):
    wide = cpu_set(options.wide_cpus) if any(WORKLOADS[name].is_wide for name in chosen) else set()
    host = host_facts(options)
    if wide:
        host["wide_cpus"] = options.wide_cpus
        if wide & cpu_set(options.loadgen_cpus):
            said = [*said, "in workloads with wide- the broker and loadgen share CPUs: the numbers are those of both together"]
    host["shares_cpus"] = bool(cpu_set(options.broker_cpus) & cpu_set(options.loadgen_cpus))
    return {
        "commit": commit, "rounds": options.rounds, "host": host,
        "titles": {f"{b.name}-{kind}": b.title if kind == "given" else f"{b.title} {kind}" for b, kind in found},
        "versions": {b.name: b.version for b, _ in found}, "loadgen": run_text([options.loadgen, "--version"]),
        "given": {b.name: b.what for b in options.given}, "binaries": dict(options.binary),
        "skipped": skipped, "said": said, "left_out": left_out(chosen, found),
        "asked": {name: asked_rounds(name, options) for name in chosen},
        "order": [[f"{b.name}-{kind}" for b, kind in order_of(found, n)] for n in range(options.rounds)],
        "command": " ".join(["scripts/compare.py", *map(quoted, sys.argv[1:])]),
    }


def quoted(word):
    return word if re.fullmatch(r"[\w@%+=:,./-]+", word) else "'" + word.replace("'", "'\\''") + "'"


def cpu_set(text):
    spans = [[int(n) for n in part.split("-")] for part in text.split(",")]
    return {cpu for span in spans for cpu in range(span[0], span[-1] + 1)}


def asked_rounds(name, options):
    return 1 if WORKLOADS[name].is_long and not options.workloads else options.rounds


def measure_all(folder, chosen, found, facts, options):
    """All rounds; how many runs gave numbers, and how many did not."""
    counts = collections.Counter()
    with open(folder / "raw.jsonl", "w") as raw:
        for round_number in range(options.rounds):
            for name in chosen:
                if round_number >= facts["asked"][name]:
                    continue
                for position, (broker, kind) in enumerate(order_of(found, round_number)):
                    key = f"{broker.name}-{kind}"
                    if key in facts["left_out"].get(name, {}):
                        continue
                    result = measure_one(broker, kind, name, options)
                    counts["failed" in result] += 1
                    entry = {"workload": name, "broker": key, "round": round_number, "position": position, "result": result}
                    raw.write(json.dumps(entry) + "\n")
                    raw.flush()
                    words = result["failed"] if "failed" in result else f"{shown(rate(result))} {tables.verdict(result)}"
                    print(f"round {round_number + 1}  {name:<22} {facts['titles'][key]:<20} {words}", flush=True)
    return counts[False], counts[True]


def remember(runs, facts):
    """One line per accepted run in perf/history.jsonl: RingMQ's medians, and what was not clean."""
    columns = {"rate": rate, "p99_ms": latency("p99"), "broker_cpu_us": cpu}
    results, marked = {}, {}
    for workload, by_broker in runs.items():
        ours = by_broker.get(tables.ringmq(runs), [])
        results[workload] = {name: tables.medians(tables.good(ours), column)[0] for name, column in columns.items()}
        if said := tables.marks(ours, tables.rounds_asked(workload, facts)):
            marked[workload] = said
    line = {"date": str(datetime.date.today()), "commit": facts["commit"], "host": facts["host"]["host"],
            "rounds": facts["rounds"], "results": results, "marks": marked}
    with open(ROOT / "perf" / "history.jsonl", "a") as history:
        history.write(json.dumps(line) + "\n")


def write_readme_section(folder):
    readme = ROOT / "README.md"
    content = tables.put_section(readme.read_text(), tables.readme_section(folder))
    if content is None:
        sys.exit("README.md has no benchmark markers")
    readme.write_text(content)


def print_list():
    for name, workload in WORKLOADS.items():
        print(f"{name:<24} {workload.shown().replace('`', '')}")
    print("brokers:", ",".join(folders()))


def preface_of(folder):
    preface = folder / "preface.md"
    return preface.read_text() if preface.exists() else ""


def main():
    options = arguments()
    os.chdir(ROOT)
    if options.readme:
        write_readme_section(options.readme)
    elif options.report:
        print(tables.report(options.report, preface_of(options.report)))
    elif options.list:
        print_list()
    else:
        sys.exit(compare(options))


def compare(options):
    commit = commit_of_tree(options)
    raise_open_files()
    if options.loadgen is None:
        options.loadgen = LOADGEN
        if not options.commit:
            subprocess.run(["cargo", "build", "--release", "-p", "loadgen"], check=True)
    if not shutil.which(options.loadgen):
        sys.exit(f"--loadgen: there is no program {options.loadgen}")
    chosen = options.workloads or list(WORKLOADS)
    found, skipped, said = find_brokers(options)
    if not found:
        sys.exit("no broker is left to compare")
    facts = facts_of(options, commit, chosen, found, skipped, said)
    for name, brokers in facts["left_out"].items():
        for key, why in brokers.items():
            print(f"{name}: without {facts['titles'][key]}: {why}")
    folder = new_folder(options.runs, f"{datetime.date.today()}-{options.host}-{commit}")
    (folder / "facts.json").write_text(json.dumps(facts, indent=1) + "\n")
    with_numbers, failed = measure_all(folder, chosen, found, facts, options)
    runs, facts = load_run(folder)
    plots(folder, runs, facts, options.loadgen)
    (folder / "README.md").write_text(tables.report(folder))
    print(folder.relative_to(ROOT) if folder.is_relative_to(ROOT) else folder)
    if not with_numbers:
        print("no run gave numbers", file=sys.stderr)
        return ALL_FAILED
    if options.accept:
        remember(runs, facts)
    return SOME_FAILED if failed else 0


if __name__ == "__main__":
    main()
