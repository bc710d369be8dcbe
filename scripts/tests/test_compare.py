"""`compare.py` with a fake loadgen and fake brokers; and that the published tables are those of the published raw data.

    python3 scripts/tests/test_compare.py [CLASS]

cargo runs it, class by class: tests/behaviour/comparison.rs.
"""

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
sys.dont_write_bytecode = True

import compare
import compare_brokers as brokers
import compare_tables as tables
from compare_workloads import WORKLOADS, Workload

CPU = str(min(os.sched_getaffinity(0)))
FAKE = f"{sys.executable} {HERE}/fake_broker.py {{port}}"


class Run:
    """compare.py in a folder of its own, with a loadgen that follows a script."""

    def __init__(self, place, *lines):
        self.place = Path(place)
        self.runs = self.place / "runs"
        self.script(*lines)

    def script(self, *lines):
        (self.place / "script").write_text("\n".join(json.dumps(line) for line in lines))

    def compare(self, *words, given=("fake=" + FAKE,), workloads="fanout-w1", rounds=1):
        command = [sys.executable, HERE.parent / "compare.py", "--allow-dirty", "--loadgen", HERE / "fake_loadgen.py", "--brokers", "",
                   "--runs", self.runs, "--broker-cpus", CPU, "--loadgen-cpus", CPU, "--wide-cpus", CPU, "--workloads", workloads,
                   "--rounds", str(rounds), *(word for one in given for word in ("--broker", one)), *words]
        environment = os.environ | {"FAKE_LOADGEN": str(self.place), "PYTHONDONTWRITEBYTECODE": "1"}
        return subprocess.run([*map(str, command)], env=environment, capture_output=True, text=True, timeout=120)

    @property
    def folder(self):
        (only,) = self.runs.iterdir()
        return only

    def readme(self):
        return (self.folder / "README.md").read_text()

    def row(self, title="fake"):
        """The row of a broker in the first table of all numbers."""
        numbers = self.readme().split("## All numbers")[1]
        return next(line for line in numbers.splitlines() if line.startswith(f"| {title} |"))

    def raw(self):
        return [json.loads(line) for line in (self.folder / "raw.jsonl").read_text().splitlines()]

    def calls(self):
        return [json.loads(line) for line in (self.place / "calls").read_text().splitlines()]


class WithRun(unittest.TestCase):
    def setUp(self):
        place = tempfile.TemporaryDirectory()
        self.addCleanup(place.cleanup)
        self.run_ = Run(place.name, {"verdict": "clean"})


class Marks(WithRun):
    """What a run was worth stands in its row."""

    def measured(self, *lines, rounds=None):
        self.run_.script(*lines)
        done = self.run_.compare(rounds=rounds or len(lines))
        return done, self.run_.row()

    def test_a_clean_run_has_no_mark(self):
        done, row = self.measured({"verdict": "clean"}, {"verdict": "clean"})
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertTrue(row.endswith("| 2 of 2 |  |"), row)

    def test_each_verdict_is_counted_of_the_rounds_asked_for(self):
        for word in ("generator_bound", "machine_bound", "breach", "lossy", "objective_missed", "incomplete"):
            with self.subTest(word), tempfile.TemporaryDirectory() as place:
                run = Run(place, {"verdict": "clean"}, {"verdict": word})
                run.compare(rounds=2)
                shown = word.replace("_bound", "-bound").replace("_", " ")
                self.assertTrue(run.row().endswith(f"| 1 of 2 | 1 of 2 {shown} |"), run.row())

    def test_a_round_without_numbers_is_marked_and_gives_3(self):
        done, row = self.measured({"verdict": "clean"}, {"says": "connection refused"})
        self.assertEqual(done.returncode, compare.SOME_FAILED)
        self.assertTrue(row.endswith("| 1 of 2 | 1 of 2 failed |"), row)
        self.assertIn("connection refused", self.run_.readme())

    def test_no_numbers_at_all_give_1(self):
        done, row = self.measured({"says": "connection refused"})
        self.assertEqual(done.returncode, compare.ALL_FAILED)
        self.assertIn("no run gave numbers", done.stderr)
        self.assertIn("1 of 1 failed", row)

    def test_rounds_that_are_missing_are_marked(self):
        _, _ = self.measured({"verdict": "clean"}, rounds=2)
        raw = self.run_.folder / "raw.jsonl"
        raw.write_text(raw.read_text().splitlines()[0] + "\n")
        self.assertIn("| 1 of 2 | only 1 of 2 rounds |", tables.report(self.run_.folder))

    def test_spread_stands_beside_medians_and_losses_have_a_column(self):
        _, row = self.measured({"verdict": "clean", "rate": 1000}, {"verdict": "breach", "rate": 3000, "lost": 12})
        cells = [cell.strip() for cell in row.split("|")]
        heads = [title for title, _ in tables.COLUMNS]
        self.assertEqual(cells[2 + heads.index("rate /s")], "2,000 (1,000..3,000)")
        self.assertEqual(cells[2 + heads.index("lost")], "6 (0..12)")

    def test_cpus_that_broker_and_loadgen_share_are_told(self):
        self.measured({"verdict": "clean"})
        self.assertIn("**Broker and loadgen share CPUs", self.run_.readme())

    def test_results_of_the_first_schema_are_put_into_the_same_words(self):
        breaches = lambda kind: [dict(dict.fromkeys(["lost", "duplicated", "reordered", "corrupt"], 0), **{kind: 1})]
        for result, word in (
            ({"is_clean": True, "warnings": [], "breaches": []}, "clean"),
            ({"is_clean": True, "warnings": ["the generator may be the limit: 97 % busy"]}, "generator-bound"),
            ({"is_clean": False, "breaches": breaches("reordered")}, "breach"),
            ({"is_clean": False, "breaches": breaches("lost")}, "breach"),
            ({"is_clean": False}, "not clean"),
            ({"failed": "no broker"}, "failed"),
        ):
            self.assertEqual(tables.verdict(result), word)

    def test_a_plot_names_what_was_not_clean(self):
        bound = {"is_clean": True, "warnings": ["the generator may be the limit"]}
        self.assertEqual(compare.label("FlashMQ", bound), "FlashMQ (generator-bound)")
        self.assertEqual(compare.label("FlashMQ", {"is_clean": True}), "FlashMQ")
        self.assertEqual(compare.label("FlashMQ", {"verdict": "breach"}), "FlashMQ")

    def test_a_goal_is_reached_by_clean_and_complete_runs_only(self):
        result = lambda us, word="clean": {"verdict": word, "per_delivery": {"machine_less_own_us": us, "broker_us": us}}
        facts = {"rounds": 1}
        runs = {"fanout-w1": {"ringmq-tuned": [result(1)], "mosquitto-tuned": [result(10)]}}
        self.assertIn("reached |", tables.goals(runs, facts))
        self.assertIn("not judged: only 1 of 2 rounds", tables.goals(runs, {"rounds": 2}))
        runs["fanout-w1"]["mosquitto-tuned"] = [result(10, "generator_bound")]
        self.assertIn("not judged: 1 of 1 generator-bound", tables.goals(runs, facts))
        self.assertIn("0.10 *", tables.ratios(runs, facts))


class Rounds(WithRun):
    """Order, folders, workloads."""

    def test_each_broker_comes_first_in_turn_and_the_order_is_recorded(self):
        done = self.run_.compare(given=[f"{name}={FAKE}" for name in "abc"], rounds=3)
        self.assertEqual(done.returncode, 0, done.stderr)
        order = [[e["broker"] for e in self.run_.raw() if e["round"] == n] for n in range(3)]
        self.assertEqual(order, [["a-given", "b-given", "c-given"], ["b-given", "c-given", "a-given"], ["c-given", "a-given", "b-given"]])
        self.assertEqual(json.loads((self.run_.folder / "facts.json").read_text())["order"], order)
        self.assertEqual([e["position"] for e in self.run_.raw()], [0, 1, 2] * 3)
        self.assertIn("a-given, b-given, c-given; b-given, c-given, a-given;", self.run_.readme())

    def test_a_second_run_of_a_day_has_a_folder_of_its_own(self):
        for _ in range(3):
            self.assertEqual(self.run_.compare().returncode, 0)
        names = sorted(folder.name for folder in self.run_.runs.iterdir())
        self.assertEqual(names, [names[0], f"{names[0]}-2", f"{names[0]}-3"])

    def test_copies_of_programs_are_recorded_as_of_the_commit_that_is_named(self):
        done = self.run_.compare("--commit", "1a2b3c4")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertTrue(self.run_.folder.name.endswith("-1a2b3c4"), self.run_.folder)
        self.assertEqual(json.loads((self.run_.folder / "facts.json").read_text())["commit"], "1a2b3c4")

    def test_an_overload_is_twice_what_the_closed_loop_reached(self):
        self.run_.script({"verdict": "clean", "rate": 5000}, {"verdict": "clean", "rate": 4500})
        done = self.run_.compare(workloads="overload-qos1")
        self.assertEqual(done.returncode, 0, done.stderr)
        closed, opened = self.run_.calls()
        self.assertIn("--window=8", closed)
        self.assertIn("--rate=10000", opened)
        self.assertIn("fake: 90% of its closed loop's 5,000 per second", self.run_.readme())

    def test_a_workload_that_a_broker_cannot_do_is_told_and_not_run(self):
        done = self.run_.compare(workloads="fanout-w1,tls-fanout-w1")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("tls-fanout-w1: without fake: given on the command line: plain TCP only", done.stdout)
        self.assertEqual([e["workload"] for e in self.run_.raw()], ["fanout-w1"])
        self.assertIn("| given on the command line: plain TCP only |", self.run_.readme().split("### tls-fanout-w1")[1])

    def test_a_workload_with_a_configuration_of_its_own_is_measured_once(self):
        class Durable:
            name, why_not = "durable", lambda *_: None

        found = [(Durable(), "default"), (Durable(), "tuned")]
        self.assertEqual(list(compare.left_out(["durable-qos1"], found)["durable-qos1"]), ["durable-tuned"])
        self.assertEqual(compare.left_out(["fanout-w1"], found), {})

    def test_qos_transport_threads_and_versions_decide_what_a_broker_can_do(self):
        class Installed(brokers.Broker):
            def __init__(self, name, version):
                self.name, self.version, self.folder = name, version, brokers.BROKERS / name
                self.settings = brokers.settings_of(name)

        why = lambda name, version, workload: Installed(name, version).why_not(workload, WORKLOADS[workload])
        self.assertEqual(why("rabbitmq", "4.3.6", "pairs-qos2-w8"), "it has no QoS 2")
        self.assertEqual(why("nats", "nats-server: v2.9.10", "pairs-qos2-w8"), "it has no QoS 2")
        self.assertIsNone(why("nats", "nats-server: v2.15.1", "pairs-qos2-w8"))
        self.assertIn("no listener for websocket", why("nats", "2.15.1", "ws-fanout-w1"))
        self.assertIn("one thread", why("mosquitto", "2.0.11", "wide-fanout-w16"))
        self.assertIsNone(why("ringmq", "0.1.0", "durable-qos1"))
        self.assertIn("from time to time", why("mosquitto", "2.0.11", "durable-qos1"))
        self.assertIn("needs version 2.10", why("nats", "2.9.10", "durable-qos1"))
        self.assertIsNone(why("nats", "2.15.1", "durable-qos1"))
        self.assertIn("needs version 3.12", Installed("rabbitmq", "3.10.8").why_not_kind("tuned"))
        self.assertIn("filters with wildcards", why("rabbitmq", "4.3.6", "retained-10k"))
        self.assertIn("does not speak", why("floor", "0.1.0", "pairs-w1"))
        self.assertIn("does not speak", why("floor_fanin", "0.1.0", "fanout-w1"))
        self.assertIsNone(why("floor_fanin", "0.1.0", "fanin-w1"))

    def test_the_highest_qos_of_a_workload_is_known(self):
        self.assertEqual(Workload("p2p --qos=2").qos, 2)
        self.assertEqual(Workload("fanout --window=1").qos, 0)
        self.assertEqual(Workload("preset fanout-1-1K-1-1K").qos, 1)
        self.assertEqual(WORKLOADS["telemetry-day"].qos, 1)


class Arguments(WithRun):
    """Nothing is taken that is not understood, and what is wrong is named with what would be right."""

    def refused(self, *words, **more):
        done = self.run_.compare(*words, **more)
        self.assertEqual(done.returncode, compare.WRONG_ARGUMENTS, done.stdout + done.stderr)
        self.assertFalse(self.run_.runs.exists())
        return done.stderr

    def test_unknown_names_are_refused_with_the_valid_ones(self):
        self.assertIn("no configuration `fast`; there are default, tuned", self.refused("--configurations", "fast"))
        self.assertIn("fanout-w1, fanout-w16", self.refused(workloads="fanout-w2"))
        said = self.refused("--brokers", "mosquito")
        self.assertIn("no broker `mosquito`; there are", said)
        self.assertIn("mosquitto,", said)

    def test_numbers_and_cpus_are_checked(self):
        self.assertIn("no whole number from 1 on", self.refused(rounds=0))
        self.assertIn("no whole number", self.refused(rounds="two"))
        self.assertIn("as long as the run", self.refused("--duration", "2", "--warmup", "2"))
        self.assertIn("no list of CPUs", self.refused("--broker-cpus", "1-0"))
        self.assertIn("may not run on CPU 9999", self.refused("--loadgen-cpus", "9999"))

    def test_what_is_named_twice_is_refused(self):
        self.assertIn("named twice", self.refused(workloads="fanout-w1,fanout-w1"))
        self.assertIn("`fake` is named twice", self.refused(given=[f"fake={FAKE}"] * 2))

    def test_a_command_needs_a_place_for_the_port(self):
        self.assertIn("a command needs {port}", self.refused(given=["mine=mine --port 1883"]))
        self.assertIn("there is no program", self.refused(given=["mine=/nowhere/mine {port}"]))
        self.assertIn("is not NAME=WHAT", self.refused(given=["127.0.0.1:1883"]))

    def test_options_without_effect_are_refused(self):
        self.assertIn("does not take part", self.refused("--binary", "mosquitto=/bin/true"))
        self.assertIn("does not take part", self.refused("--accept"))
        self.assertIn("stands alone", self.refused("--list"))

    def test_paths_count_from_where_it_is_started(self):
        os.chdir("/tmp")
        self.addCleanup(os.chdir, brokers.ROOT)
        options = compare.arguments(["--brokers=mosquitto", "--binary=mosquitto=./mosquitto", "--loadgen=./loadgen", "--runs=runs",
                                     f"--broker-cpus={CPU}", f"--loadgen-cpus={CPU}"])
        self.assertEqual(options.binary, [("mosquitto", "/tmp/mosquitto")])
        self.assertEqual((options.loadgen, str(options.runs)), ("/tmp/loadgen", "/tmp/runs"))

    def test_a_report_needs_the_folder_of_a_run(self):
        self.assertIn("raw.jsonl and facts.json", self.refused("--report", "/tmp"))


class Given(WithRun):
    """Brokers without a folder."""

    def test_a_command_gets_a_port_and_its_processes_are_watched(self):
        log = self.run_.place / "pids"
        wrapper = self.run_.place / "wrapper"
        wrapper.write_text(f"#!/bin/sh\n{sys.executable} {HERE}/fake_broker.py $1 --log {log}\nexit 0\n")
        wrapper.chmod(0o755)
        done = self.run_.compare(given=[f"mine={wrapper} {{port}}"])
        self.assertEqual(done.returncode, 0, done.stderr)
        (pid,) = log.read_text().split()
        (call,) = self.run_.calls()
        self.assertIn(f"--pid={pid}", call, "the broker, not the script alone")
        self.assertFalse(brokers.is_alive(int(pid)), "it is ended with its script")

    def test_what_makes_itself_a_daemon_is_watched_and_ended_too(self):
        log = self.run_.place / "pids"
        done = self.run_.compare(given=[f"mine={FAKE} --daemon --log {log}"])
        self.assertEqual(done.returncode, 0, done.stderr)
        (pid,) = log.read_text().split()
        (call,) = self.run_.calls()
        self.assertIn(f"--pid={pid}", call)
        self.assertFalse(brokers.is_alive(int(pid)))

    def test_asking_for_a_version_leaves_nothing_running(self):
        asked = self.run_.place / "pid"
        script = f"sleep 1000 >/dev/null 2>&1 & echo $! >{asked}; echo version 1.2"
        self.assertEqual(brokers.run_text(["sh", "-c", script]), "version 1.2")
        self.assertFalse(brokers.is_alive(int(asked.read_text())))

    def test_a_broker_that_listens_before_it_serves_is_waited_for(self):
        done = self.run_.compare(given=[f"mine={FAKE} --refuse 3"])
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_an_address_takes_part_and_what_is_not_known_of_it_is_told(self):
        with running_broker() as port:
            done = self.run_.compare(given=[f"there=127.0.0.1:{port}"])
        self.assertEqual(done.returncode, 0, done.stderr)
        (call,) = self.run_.calls()
        self.assertIn(f"--broker=mqtt://127.0.0.1:{port}", call)
        self.assertFalse([word for word in call if word.startswith("--pid")])
        self.assertIn(f"there: ran already at 127.0.0.1:{port}, not started anew; its CPU is not measured", self.run_.readme())

    def test_an_address_where_nobody_answers_gives_no_numbers(self):
        port = brokers.free_port()
        done = self.run_.compare(given=[f"there=127.0.0.1:{port}"])
        self.assertEqual(done.returncode, compare.ALL_FAILED)
        self.assertIn(f"no broker answers at 127.0.0.1:{port}", self.run_.readme())

    def test_a_command_that_ends_at_once_is_told_with_its_last_words(self):
        done = self.run_.compare(given=["mine=sh -c 'echo no licence; exit 1' {port}"])
        self.assertEqual(done.returncode, compare.ALL_FAILED)
        self.assertIn("it did not start: no licence", self.run_.readme())


@contextlib.contextmanager
def running_broker():
    port = brokers.free_port()
    process = subprocess.Popen([sys.executable, HERE / "fake_broker.py", str(port)])
    try:
        while not brokers.serves(port):
            assert process.poll() is None
        yield port
    finally:
        process.kill()
        process.wait()


class Published(unittest.TestCase):
    """Every number leads to raw data."""

    RUN = brokers.ROOT / "perf" / "runs" / "2026-11-26-peers-a29a801"

    def test_the_table_of_the_readme_is_what_its_raw_data_make(self):
        content = (brokers.ROOT / "README.md").read_text()
        made = tables.put_section(content, tables.readme_section(self.RUN))
        self.assertEqual(made, content, f"scripts/compare.py --readme {self.RUN.relative_to(brokers.ROOT)} writes it")

    def test_the_readme_of_the_run_is_what_its_raw_data_make(self):
        made = tables.report(self.RUN, compare.preface_of(self.RUN)) + "\n"
        self.assertEqual(made, (self.RUN / "README.md").read_text())

    def test_the_table_has_marks_versions_ages_and_the_newest_mosquitto(self):
        section = tables.readme_section(self.RUN)
        for part in ("**2 of 2 generator-bound**", "**2 of 2 breach**", "**only 1 of 2 rounds**", "2.1.2", "1.26.2",
                     "2.0.11, of 2021-06-08: 5.5 years old then"):
            self.assertIn(part, section)

    def test_a_number_can_be_found_in_the_raw_data(self):
        runs, _ = tables.load_run(self.RUN)
        rates = [r["delivered"]["messages_per_second"] for r in runs["fanin-w1"]["flashmq-tuned"]]
        row = next(line for line in tables.readme_section(self.RUN).splitlines() if line.startswith("| fanin-w1 |"))
        self.assertIn(f"{sum(rates) / 2:,.0f} ({min(rates):,.0f}..{max(rates):,.0f}) /s", row)


class Folders(unittest.TestCase):
    """perf/brokers."""

    def test_each_says_how_it_starts_and_with_which_versions_it_was_tried(self):
        for name in brokers.folders():
            settings = brokers.settings_of(name)
            self.assertIsInstance(settings.get("tried"), list, name)
            self.assertTrue("start" in settings or "image" in settings, name)
            self.assertTrue((brokers.BROKERS / name / "default").is_dir(), name)
            self.assertIn(f"| {settings['title']} |", (brokers.BROKERS / "README.md").read_text())

    def test_nothing_is_left_to_fill_in(self):
        for name in brokers.folders():
            broker = brokers.Broker.__new__(brokers.Broker)
            broker.folder, broker.settings = brokers.BROKERS / name, brokers.settings_of(name)
            for kind in broker.kinds():
                for transport in broker.transports():
                    with tempfile.TemporaryDirectory() as place:
                        place = Path(place)
                        _, environment = broker.configuration(kind, place, 1883, "0", transport)
                        texts = [file.read_text() for file in place.iterdir() if file.is_file()] + list(environment.values())
                        for placeholder in ("port", "second_port", "dir", "config", "cpus", "certificate", "key", "listener"):
                            self.assertFalse([t for t in texts if "{" + placeholder + "}" in t], f"{name} {kind} {transport}")


class Starts(unittest.TestCase):
    """Each folder's `start` works where its program is installed, in each configuration and over each transport."""

    def test_each_folder_that_can(self):
        for name in brokers.folders():
            with self.subTest(name):
                try:
                    broker = brokers.Broker(name, None, self.binary(name))
                except brokers.Skipped as why:
                    print(f"{name}: skipped: {why}", file=sys.stderr)
                    continue
                for kind in broker.kinds():
                    if why := broker.why_not_kind(kind):
                        print(f"{name} {kind}: skipped: {why}", file=sys.stderr)
                        continue
                    for transport in broker.transports():
                        with broker.started(kind, CPU, transport) as running:
                            self.assertTrue(brokers.listens(running.port), f"{name} {kind} {transport}")

    @staticmethod
    def binary(name):
        """Those of this workspace as cargo built them; nothing is built here."""
        loadgen = os.environ.get("LOADGEN")
        programs = {"ringmq": os.environ.get("RINGMQ"), "floor": loadgen, "floor_fanin": loadgen}
        if name in programs and not programs[name]:
            raise brokers.Skipped("it is not built: cargo test --workspace")
        return programs.get(name)


if __name__ == "__main__":
    unittest.main()
