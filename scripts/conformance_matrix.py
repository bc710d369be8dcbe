#!/usr/bin/env python3
"""Prints the conformance matrix: rule, what it asks, test, result on 1 and on 4 shards.

    cargo test --test conformance 2>&1 | scripts/conformance_matrix.py > matrix.md

Without test output on standard input the results are left open. Exit code 1 when a rule failed or
has neither test nor reason.
"""

import pathlib
import re
import sys

FOLDER = pathlib.Path(__file__).resolve().parent.parent / "tests" / "conformance"
TABLES = [("3.1", "mqtt31.tsv", ""), ("3.1.1", "mqtt311.tsv", "mqtt311_"), ("5.0", "mqtt5.tsv", "mqtt5_"), ("both", "rules.tsv", "")]


def prefix(stem, rule):
    return stem + re.sub(r"[.-]", "_", rule.removeprefix("MQTT-").lower())


def tests_by_rule():
    found = {}
    for source in sorted(FOLDER.glob("*.rs")):
        for name in re.findall(r"\nrule!\(\s*(\w+)", source.read_text()):
            found.setdefault(name.split("__")[0], []).append(f"{source.stem}::{name}")
    return found


def reasons():
    lines = (FOLDER / "not_applicable.txt").read_text().splitlines()
    return dict(line.split("\t", 1) for line in lines if line and not line.startswith("#"))


def results():
    if sys.stdin.isatty():
        return {}
    return dict(re.findall(r"^test (\S+) \.\.\. (ok|FAILED)", sys.stdin.read(), re.M))


def main():
    tests, excused, ran = tests_by_rule(), reasons(), results()
    bad = 0
    print("| version | rule | role | must | test | 1 shard | 4 shards |")
    print("|---|---|---|---|---|---|---|")
    for version, table, stem in TABLES:
        for line in (FOLDER / table).read_text().splitlines()[1:]:
            rule, role, _, must = line.split("\t")[:4]
            key, must = prefix(stem, rule), must.replace("|", "\\|")
            if key in excused:
                print(f"| {version} | {rule} | {role} | {must} | none: {excused[key]} | | |")
                continue
            if key not in tests:
                bad += 1
                print(f"| {version} | {rule} | {role} | {must} | **missing** | | |")
            for name in tests.get(key, []):
                one, four = (ran.get(f"{name}::on_{n}", "") for n in ("1_shard", "4_shards"))
                bad += "FAILED" in (one, four)
                print(f"| {version} | {rule} | {role} | {must} | `{name}` | {one} | {four} |")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
