"""The admin API keeps what its description says, whatever it is asked: schemathesis makes the requests."""

import os
import pathlib
import re
import subprocess
import tempfile
import time
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
SCHEMATHESIS = ROOT / "target/clients/venv/bin/schemathesis"
PATIENCE_S = 30
# Of the tool, with what it makes of each request.
TIME_MAX_S = 55


class Api(unittest.TestCase):
    def test_every_answer_is_as_described(self):
        self.assertTrue(SCHEMATHESIS.exists(), "schemathesis is missing: run scripts/test.sh --setup")
        with tempfile.TemporaryDirectory() as folder:
            place = pathlib.Path(folder)
            ringmq = os.environ["RINGMQ"]
            tokens = place / "tokens"
            made = [ringmq, "token", "--create", str(tokens), "fuzz", "--role", "admin"]
            token = subprocess.run(made, check=True, capture_output=True, text=True).stdout.strip()
            config = place / "ringmq.toml"
            config.write_text(
                'listen = ["mqtt://127.0.0.1:0"]\nshards = 2\n[mqtt]\nsys_interval_s = 0\n[admin]\n'
                f'listen = "http://127.0.0.1:0"\nrequest_rate_max = 0\ntoken_file = "{tokens}"\n'
            )
            log = place / "log"
            with log.open("w") as to:
                broker = subprocess.Popen([ringmq, "--config", str(config)], stderr=to)
            try:
                self.fuzz(self.address(log), token, place)
                self.assertIsNone(broker.poll(), "the broker has ended")
            finally:
                broker.kill()
                broker.wait()

    def address(self, log):
        by = time.monotonic() + PATIENCE_S
        while time.monotonic() < by:
            found = re.search(r"metrics at (http://[^/]+)/", log.read_text())
            if found:
                return found[1]
            time.sleep(0.05)
        self.fail("the admin listener is not named: " + log.read_text())

    def fuzz(self, address, token, place):
        seed = os.environ.get("RINGMQ_TEST_API_SEED") or str(int.from_bytes(os.urandom(4), "big"))
        words = [
            str(SCHEMATHESIS), "run", f"{address}/api/v1/openapi.json",
            "-H", f"Authorization: Bearer {token}",
            "--phases", "examples,coverage,fuzzing", "--max-examples", "15", "--seed", seed,
            "--generation-database", "none", "--no-color",
            "--checks", "not_a_server_error,status_code_conformance,content_type_conformance,"
            "response_schema_conformance,negative_data_rejection",
            # It would do as it says, and nobody would answer any more.
            "--exclude-path", "/api/v1/drain",
            # It goes on until its time is over.
            "--exclude-path", "/api/v1/trace",
        ]  # fmt: skip
        again = f"again: RINGMQ_TEST_API_SEED={seed}"
        # What it notes for itself goes with the folder.
        done = subprocess.run(words, cwd=place, capture_output=True, text=True, timeout=TIME_MAX_S)
        self.assertEqual(done.returncode, 0, f"{done.stdout}\n{done.stderr}\n{again}")


if __name__ == "__main__":
    unittest.main()
