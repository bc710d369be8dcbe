"""The tables of `compare.py`, made from a run's raw.jsonl and facts.json alone: each number leads to a line of it.

What a run was worth stands in the table itself: how many rounds are clean, what the others are, and how many rounds are there of those asked
for. Results of loadgen's first schema have no verdict; what they say of themselves is put into the same words.
"""

import datetime
import json
import re
import statistics

from compare_brokers import BROKERS, ROOT, settings_of, version_number
from compare_workloads import GOALS, WHOLE_COST, WORKLOADS


def load_run(folder):
    """The results of a run by workload and broker, from its raw file; and its facts. A workload that nobody could do is there too."""
    facts = json.loads((folder / "facts.json").read_text())
    runs = {workload: {} for workload in facts.get("asked", {})}
    for line in (folder / "raw.jsonl").read_text().splitlines():
        entry = json.loads(line)
        runs.setdefault(entry["workload"], {}).setdefault(entry["broker"], []).append(entry["result"])
    return runs, facts


# What a run was worth.


def verdict(result):
    """loadgen's word, or what results of its first schema say instead."""
    if "failed" in result:
        return "failed"
    if word := result.get("verdict"):
        return word.replace("_bound", "-bound").replace("_", " ")
    if any(b[kind] for b in result.get("breaches", []) for kind in ("duplicated", "reordered", "corrupt", "lost")):
        return "breach"
    if any("generator may be the limit" in warning for warning in result.get("warnings", [])):
        return "generator-bound"
    if any("machine may be the limit" in warning for warning in result.get("warnings", [])):
        return "machine-bound"
    return "clean" if result.get("is_clean") else "not clean"


def unclean(results):
    """The verdicts other than "clean", each once."""
    return ", ".join(sorted({verdict(r) for r in results} - {"clean"}))


def rounds_asked(workload, facts):
    """How many times a workload was to be measured."""
    return facts.get("asked", {}).get(workload, facts["rounds"])


def marks(results, asked):
    """Empty if every round that was asked for is there and clean, else what is wrong and how often."""
    words = [verdict(r) for r in results]
    said = [f"{words.count(word)} of {asked} {word}" for word in sorted(set(words) - {"clean"})]
    if len(results) < asked:
        said.append(f"only {len(results)} of {asked} rounds")
    return ", ".join(said)


def is_judged(results, asked):
    return not marks(results, asked)


# What is read from a result.


def field(*path):
    def find(result):
        for key in path:
            result = result.get(key) if isinstance(result, dict) else None
        return result
    return find


def latency(quantile):
    def find(result):
        for name in ("deliver", "replay_whole", "replay", "connect"):
            if name in result.get("latency", {}):
                found = result["latency"][name]
                return found.get(quantile + "_ns", found.get(quantile)) / 1e6
        return None
    return find


def rate(result):
    if result.get("search"):
        return result["search"].get("rate_per_second", result["search"].get("rate"))
    if result.get("delivered", {}).get("messages"):
        return result["delivered"]["messages_per_second"]
    span = next((s for s in result.get("spans", []) if s["name"] == "connect"), None)
    return result["clients"] / span["elapsed_s"] if span and span["elapsed_s"] else None


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


def breached(*kinds):
    def find(result):
        counts = [b[kind] for b in result.get("breaches", []) for kind in kinds]
        return sum(counts) if counts else None
    return find


COLUMNS = [
    ("rate /s", rate),
    ("p50 ms", latency("p50")),
    ("p99 ms", latency("p99")),
    ("p99.9 ms", latency("p99.9")),
    ("max ms", latency("max")),
    ("broker CPU us", cpu),
    (WHOLE_COST, field("per_delivery", "machine_less_own_us")),
    ("loadgen CPU us", field("per_delivery", "own_us")),
    ("RSS MB", resident_mb),
    ("lost", breached("lost")),
    ("doubled, reordered, damaged", breached("duplicated", "reordered", "corrupt")),
]


def shown(value):
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def good(results):
    return [r for r in results if "failed" not in r]


def medians(results, column):
    values = [v for v in (column(r) for r in results) if v is not None]
    if not values:
        return None, ""
    spread = f" ({shown(min(values))}..{shown(max(values))})" if len(values) > 1 and max(values) else ""
    return statistics.median(values), spread


def cell(results, column):
    value, spread = medians(good(results), column)
    return shown(value) + spread


# Brokers: their version, and how old it is.


def titles(facts):
    return facts["titles"]


def broker_of(key):
    """`mosquitto-tuned` is the broker mosquitto."""
    return key.rsplit("-", 1)[0]


def when(runs):
    """The day on which a run ended."""
    ends = [r["ended_unix_s"] for by_broker in runs.values() for rs in by_broker.values() for r in rs if r.get("ended_unix_s")]
    return datetime.datetime.fromtimestamp(max(ends), datetime.UTC).date() if ends else None


def version_line(name, facts, runs):
    """`2.0.11, of 2021-06-08: 5.5 years old then`."""
    version = facts["versions"].get(name, "?")
    numbers = version_number(version)
    short = ".".join(map(str, numbers)) if numbers else version
    day = released(name, numbers)
    at = when(runs)
    if name == "ringmq":
        return f"{short}, a program that was given" if name in facts.get("binaries", {}) else f"{short}, commit {facts['commit']}"
    if not day or not at:
        return f"{short}, of unknown age"
    return f"{short}, of {day}: {(at - day).days / 365.25:.1f} years old then"


def released(name, numbers):
    """The release date that a broker's folder knows for a version."""
    if not (BROKERS / name / "broker.toml").exists():
        return None
    for known, day in settings_of(name).get("released", {}).items():
        if version_number(known) == numbers:
            return day
    return None


# Tables.


def summary(runs, facts):
    """Tables by workload: medians, lowest and highest of the rounds."""
    out = []
    for workload, by_broker in runs.items():
        asked = rounds_asked(workload, facts)
        known = WORKLOADS.get(workload)
        out += [f"### {workload}", "", *([known.shown(), ""] if known else [])]
        out += ["| broker | " + " | ".join(title for title, _ in COLUMNS) + " | clean | marks |"]
        out += ["|---|" + "---:|" * len(COLUMNS) + "---:|---|"]
        for key, results in by_broker.items():
            cells = [cell(results, column) for _, column in COLUMNS]
            clean = sum(1 for r in results if verdict(r) == "clean")
            out.append(f"| {titles(facts)[key]} | " + " | ".join(cells) + f" | {clean} of {asked} | {marks(results, asked)} |")
        for key in titles(facts):
            if key not in by_broker and (why := why_absent(workload, key, facts)):
                out.append(f"| {titles(facts)[key]} |" + " |" * (len(COLUMNS) + 1) + f" {why} |")
        out += [*notes(by_broker, facts), ""]
    return "\n".join(out)


def why_absent(workload, key, facts):
    return facts.get("left_out", {}).get(workload, {}).get(key, "not measured")


def notes(by_broker, facts):
    """What the results of a workload say in words, and how much of its closed loop an overloaded broker delivered."""
    out = []
    for key, results in by_broker.items():
        said = {w for r in results for w in r.get("warnings", [])} | {r["failed"] for r in results if "failed" in r}
        # What was the limit first.
        first = sorted(said, key=lambda note: (" was the limit" not in note, note))
        out += [f"- {titles(facts)[key]}: {note}" for note in first[:3]]
        shares = [rate(r) / r["closed_rate_per_second"] for r in good(results) if r.get("closed_rate_per_second") and rate(r)]
        if shares:
            closed = statistics.median(r["closed_rate_per_second"] for r in good(results) if r.get("closed_rate_per_second"))
            out.append(f"- {titles(facts)[key]}: {statistics.median(shares):.0%} of its closed loop's {shown(closed)} per second")
    return ["", *out] if out else []


def ringmq(runs):
    """The configuration of RingMQ that is judged: the default one, if it took part."""
    keys = {key for by_broker in runs.values() for key in by_broker}
    return "ringmq-default" if "ringmq-default" in keys else "ringmq-tuned"


def ratios(runs, facts):
    """One line per workload: RingMQ against the others; a ratio of runs that are not clean is marked."""
    first = ringmq(runs)
    others = list(dict.fromkeys(k for by_broker in runs.values() for k in by_broker if k != first))
    out = ["| workload | " + " | ".join(f"rate, x {k} | CPU, x {k}" for k in others) + " |"]
    out.append("|---|" + "---:|" * (2 * len(others)))
    for workload, by_broker in runs.items():
        cells = []
        asked = rounds_asked(workload, facts)
        for other in others:
            pair = by_broker.get(first, []), by_broker.get(other, [])
            mark = "" if all(is_judged(results, asked) for results in pair) else " *"
            for column in (rate, cpu):
                ours, theirs = (medians(good(results), column)[0] for results in pair)
                cells.append(f"{ours / theirs:.2f}{mark}" if ours and theirs else "-")
        out.append(f"| {workload} | " + " | ".join(cells) + " |")
    return "\n".join([*out, "", "`*`: a round of one of the two is missing or was not clean."])


def goals(runs, facts):
    """The goals that this run can tell of: goal, both sides, ratio."""
    first = ringmq(runs)
    out = ["| workload | of what | RingMQ | other | ratio | goal | |", "|---|---|---:|---:|---:|---:|---|"]
    for workload, title, other, goal in GOALS:
        by_broker = runs.get(workload, {})
        of = lambda key: medians(good(by_broker.get(key, [])), dict(COLUMNS)[title])[0]
        ours, theirs = of(first), of(other)
        if not ours or not theirs:
            continue
        ratio = ours / theirs
        reached = ratio >= -goal if goal < 0 else ratio <= goal
        # A run that lost messages, or that something else than the broker limited, reaches nothing.
        asked = rounds_asked(workload, facts)
        words = [marks(by_broker[key], asked) for key in (first, other) if marks(by_broker[key], asked)]
        judged = f"not judged: {'; '.join(words)}" if words else "reached" if reached else "missed"
        bound = f">= {-goal}" if goal < 0 else f"<= {goal}"
        out.append(f"| {workload} | {title} | {shown(ours)} | {other}: {shown(theirs)} | {ratio:.3f} | {bound} |"
                   f" {judged} |")
    return "\n".join(out) if len(out) > 2 else ""


def readme_section(folder):
    """The README's table: one cell holds rate, p99, CPU of the broker and of the machine, losses, and the marks."""
    runs, facts = load_run(folder)
    relative = folder.resolve().relative_to(ROOT)
    heads = [f"{titles(facts)[key]}<br>{version_line(broker_of(key), facts, runs)}" for key in titles(facts)]
    rows = ["| workload | " + " | ".join(heads) + " |", "|---|" + "---|" * len(heads)]
    for workload, by_broker in runs.items():
        asked = rounds_asked(workload, facts)
        cells = [readme_cell(by_broker[key], asked) if key in by_broker else why_absent(workload, key, facts) for key in titles(facts)]
        rows.append(f"| {workload} | " + " | ".join(cells) + " |")
    host = facts["host"]
    plot = folder / "plots" / "fanout-open-40k-latency.svg"
    return "\n".join([
        f"Medians of {facts['rounds']} interleaved rounds with lowest and highest, measured {when(runs)} on {host['cpu']},"
        f" Linux {host['kernel']}, loopback, broker on CPU {host['broker_cpus']}, loadgen on CPU {host['loadgen_cpus']};"
        f" RingMQ of commit `{facts['commit']}`. A cell: deliveries per second; p99; CPU per delivery of the broker, and of the whole machine"
        f" less loadgen; **what was not clean, of how many rounds**. Where the generator was the limit, a broker can do more than its rate"
        f" says. Every number comes from [{relative}]({relative}/README.md), by `scripts/compare.py --report {relative}`.",
        "", *rows,
        *(["", f"![latency by percentile]({relative}/plots/{plot.name})"] if plot.exists() else []),
    ])


def readme_cell(results, asked):
    lines = [f"{cell(results, rate)} /s", f"p99 {cell(results, latency('p99'))} ms"]
    machine = dict(COLUMNS)[WHOLE_COST]
    lines.append(f"CPU {cell(results, cpu)} us; machine {cell(results, machine)} us")
    lost = breached("lost")
    if medians(good(results), lost)[0]:
        lines.append(f"lost {cell(results, lost)}")
    if said := marks(results, asked):
        lines.append(f"**{said}**")
    return "<br>".join(lines)


BEGIN, END = "<!-- benchmark: written by scripts/compare.py --readme -->", "<!-- benchmark: end -->"


def put_section(content, section):
    """README.md with its benchmark section replaced; None if it has no markers."""
    pattern = re.compile(re.escape(BEGIN) + ".*?" + re.escape(END), re.S)
    return pattern.sub(lambda _: f"{BEGIN}\n{section}\n{END}", content) if pattern.search(content) else None


def report(folder, preface=""):
    """All tables of a run, as the README of its folder has them."""
    runs, facts = load_run(folder)
    host = facts["host"]
    wide = f"; workloads with wide- on CPUs {host['wide_cpus']}" if host.get("wide_cpus") else ""
    versions = [f"- {name}: {version} ({version_line(name, facts, runs)})" for name, version in facts["versions"].items()]
    shared = host.get("shares_cpus") or host["broker_cpus"] == host["loadgen_cpus"]
    judged = goals(runs, facts)
    return "\n".join([
        f"# {', '.join(titles(facts).values())}", "", *([preface.strip(), ""] if preface else []),
        f"Made by `{facts['command']}` at commit `{facts['commit']}`; {facts['rounds']} rounds, interleaved, the broker started anew",
        f"for each. Broker on CPUs {host['broker_cpus']}, loadgen on CPUs {host['loadgen_cpus']}{wide}, loopback.", "",
        *(["**Broker and loadgen share CPUs: the numbers are those of both together.**", ""] if shared else []),
        f"Host: {host['cpu']}, {host['memory_mib']} MiB, Linux {host['kernel']}; load before the run {host['load_before']:.2f}.", "",
        *versions,
        *(f"- {name}: skipped: {why}" for name, why in facts["skipped"].items()),
        *(f"- {line}" for line in facts.get("said", [])), "",
        *([f"Order of the brokers, by round: {'; '.join(', '.join(names) for names in facts['order'])}.", ""] if "order" in facts else []),
        "Cells are medians, with lowest and highest round in parentheses. Latency is publish to deliver (subscribe to last for",
        "retained, connect for connects), CPU is per delivery (per connection for connects); `machine less loadgen` holds what the",
        "kernel did for the broker outside its process. The search rows (max-) show the rate that was found. `clean` counts rounds of those",
        "asked for; `marks` says what the others were. How to read this, and what it does not show: [perf/README.md](../../README.md).", "",
        *(["## Goals", "", judged, ""] if judged else []),
        f"## {titles(facts).get(ringmq(runs), 'RingMQ')} against the others", "", ratios(runs, facts), "",
        "## All numbers", "", summary(runs, facts),
    ])
