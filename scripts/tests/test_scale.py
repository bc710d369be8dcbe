"""`scale.sh` with a fake broker and a fake loadgen.

    python3 scripts/tests/test_scale.py [CLASS]
"""

import json
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
sys.dont_write_bytecode = True

import scale

FAKE_RINGMQ = """#!/bin/sh
[ "$1" = --version ] && echo ringmq fake && exit
echo "$@" >>"$FAKE_LOADGEN/brokers"
exec {python} {broker} "$(echo "$2" | sed 's/.*://')"
"""


class Scale(unittest.TestCase):
    def setUp(self):
        place = tempfile.TemporaryDirectory()
        self.addCleanup(place.cleanup)
        self.place = Path(place.name)
        self.ringmq = self.place / "ringmq"
        self.ringmq.write_text(FAKE_RINGMQ.format(python=sys.executable, broker=HERE / "fake_broker.py"))
        self.ringmq.chmod(0o755)
        self.cpu = str(min(os.sched_getaffinity(0)))

    def scale(self, *lines, words=()):
        """Through the shell script, on one CPU, which both share."""
        (self.place / "script").write_text("\n".join(json.dumps(line) for line in lines))
        environment = os.environ | {"FAKE_LOADGEN": str(self.place), "RINGMQ": str(self.ringmq), "LOADGEN": str(HERE / "fake_loadgen.py"),
                                    "PYTHONDONTWRITEBYTECODE": "1"}
        command = [HERE.parent / "scale.sh", "--cpus", self.cpu, "--shards", "1", "--runs", self.place / "runs", *words]
        return subprocess.run([*map(str, command)], env=environment, capture_output=True, text=True, timeout=120)

    def folder(self):
        (folder,) = (self.place / "runs").iterdir()
        return folder

    def test_given_programs_are_measured_and_nothing_is_built(self):
        done = self.scale({"verdict": "clean", "rate": 1000}, {"verdict": "clean", "rate": 3000}, words=["--workloads", "pairs", "--rounds", "2"])
        self.assertEqual(done.returncode, 0, done.stderr)
        readme = (self.folder() / "README.md").read_text()
        self.assertIn("(ringmq fake, loadgen fake)", readme)
        self.assertIn("| 2,000 (1,000..3,000) |", readme)
        self.assertIn(f"--shards 1 --cpus {self.cpu}", (self.place / "brokers").read_text())
        self.assertEqual(len((self.folder() / "raw.jsonl").read_text().splitlines()), 2)

    def test_rows_that_share_cpus_or_are_not_clean_are_marked(self):
        self.scale({"verdict": "generator_bound"}, words=["--workloads", "pairs", "--rounds", "1"])
        readme = (self.folder() / "README.md").read_text()
        self.assertIn("| shares CPUs with loadgen, 1 of 1 generator-bound |", readme)

    def test_each_workload_is_drawn(self):
        self.scale({"verdict": "clean"}, words=["--rounds", "1"])
        for name in scale.WORKLOADS:
            drawn = (self.folder() / f"{name}.svg").read_text()
            ElementTree.fromstring(drawn)
            self.assertIn("per second", drawn)
            self.assertEqual(drawn.count('fill="white"/>') - 1, 2, "marked points are hollow")

    def test_exit_codes_say_whether_there_are_numbers(self):
        words = ["--workloads", "pairs", "--rounds", "2"]
        self.assertEqual(self.scale({"says": "refused"}, words=words).returncode, scale.ALL_FAILED)
        self.assertEqual(self.scale({"verdict": "clean"}, {"says": "refused"}, words=words).returncode, scale.SOME_FAILED)
        for wrong in (["--shards", "0"], ["--shards", "2"], ["--workloads", "nothing"], ["--rounds", "0"], ["--ringmq", "/nowhere/ringmq"]):
            self.assertEqual(self.scale({"verdict": "clean"}, words=wrong).returncode, 2, wrong)

    def test_loadgen_has_the_same_cpus_for_all_numbers_of_shards_if_there_are_enough(self):
        sixteen = list(range(16))
        self.assertEqual(scale.layout(1, 8, sixteen), ([0], sixteen[8:], False))
        self.assertEqual(scale.layout(8, 8, sixteen), (sixteen[:8], sixteen[8:], False))
        self.assertEqual(scale.layout(1, 2, [0, 1]), ([0], [1], False))
        self.assertEqual(scale.layout(2, 2, [0, 1]), ([0, 1], [0, 1], True))

    def test_shards_go_up_in_powers_to_half_of_the_cpus(self):
        self.assertEqual(scale.usual_shards(2), [1, 2])
        self.assertEqual(scale.usual_shards(24), [1, 2, 4, 8])

    def test_ticks_are_those_of_a_person(self):
        self.assertEqual(scale.ticks(1_766_599), [0, 500_000, 1_000_000, 1_500_000])
        self.assertEqual([round(tick, 3) for tick in scale.ticks(0.608)], [0, 0.2, 0.4, 0.6])
        self.assertEqual(scale.ticks(6), [0, 1, 2, 3, 4, 5, 6])

    def test_a_gain_is_told_beside_each_rate(self):
        result = lambda rate: {"verdict": "clean", "delivered": {"messages": rate, "messages_per_second": rate}, "warnings": []}
        options = SimpleNamespace(shards=[2, 4], cpus=list(range(8)), rounds=1)
        table = scale.table("pairs", {("pairs", 2): [result(1000)], ("pairs", 4): [result(1500)]}, options)
        self.assertIn("| 2.00 |  |", table.splitlines()[2])
        self.assertIn("| 3.00 |  |", table.splitlines()[3])


if __name__ == "__main__":
    unittest.main()
