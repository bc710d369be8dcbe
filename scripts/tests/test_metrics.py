"""A real Prometheus reads the broker's metrics: each panel of the dashboard and each alert finds its numbers."""

import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.error
import urllib.parse
import urllib.request

SCRIPTS = pathlib.Path(__file__).resolve().parent.parent
DASHBOARD = SCRIPTS / "grafana-dashboard.json"
ALERTS = SCRIPTS / "prometheus-alerts.yml"
PATIENCE_S = 90


def missing(program):
    return f"{program} is missing: run scripts/test.sh --setup"


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def eventually(what, probe):
    """Waits until `probe` finds something."""
    by = time.monotonic() + PATIENCE_S
    while time.monotonic() < by:
        found = probe()
        if found:
            return found
        time.sleep(0.2)
    raise AssertionError(f"never came true: {what}")


def panels():
    """Title and query of each panel."""
    dashboard = json.loads(DASHBOARD.read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]


class Prometheus(unittest.TestCase):
    def setUp(self):
        for program in ["prometheus", "promtool", "mosquitto_pub", "mosquitto_sub"]:
            self.assertTrue(shutil.which(program), missing(program))
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.place = pathlib.Path(self.folder.name)
        self.log = (self.place / "log").open("w+")
        self.addCleanup(self.log.close)

    def start(self, *words, log=subprocess.DEVNULL, env=None):
        # With all that it starts: a publisher that has lost its broker would try for good.
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=log, env=env, start_new_session=True)

        def end():
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

        self.addCleanup(end)
        return process

    def in_log(self, pattern):
        return re.search(pattern, (self.place / "log").read_text())

    def start_broker(self):
        config = self.place / "ringmq.toml"
        config.write_text(
            'listen = ["mqtt://127.0.0.1:0"]\nshards = 2\n[admin]\nlisten = "http://127.0.0.1:0"\n'
            f'[mqtt]\nsys_interval_s = 0\n[storage]\ndirectory = "{self.place / "state"}"\n'
        )
        binary = os.environ.get("RINGMQ", str(SCRIPTS.parent / "target/debug/ringmq"))
        self.start(binary, "--config", str(config), log=self.log)
        port = eventually("the broker listens", lambda: self.in_log(r"listening on mqtt://127.0.0.1:(\d+)"))
        admin = eventually("it answers", lambda: self.in_log(r"metrics at http://([0-9.:]+)/"))
        return port.group(1), admin.group(1)

    def load(self, port):
        """Messages at QoS 1 for somebody who stays and somebody who does not, as long as the test lasts."""
        at = ["-h", "127.0.0.1", "-p", port, "-q", "1"]
        self.start("mosquitto_sub", *at, "-t", "load/#", "-c", "-i", "stays")
        script = 'while echo message; do sleep 0.01; done | mosquitto_pub "$@"'
        self.start("sh", "-c", script, "sh", *at, "-t", "load/a", "-l")

    def start_prometheus(self, target):
        config = self.place / "prometheus.yml"
        config.write_text(
            "global: { scrape_interval: 1s, evaluation_interval: 1s }\n"
            f'rule_files: ["{ALERTS}"]\n'
            "scrape_configs:\n"
            f'  - {{ job_name: ringmq, static_configs: [{{ targets: ["{target}"] }}] }}\n'
        )
        # Others may take the port before it does.
        for _ in range(5):
            port = free_port()
            prometheus = self.start(
                "prometheus",
                f"--config.file={config}",
                f"--storage.tsdb.path={self.place / 'tsdb'}",
                f"--web.listen-address=127.0.0.1:{port}",
            )
            self.api = f"http://127.0.0.1:{port}"
            if eventually("Prometheus is ready", lambda: self.is_ready() or prometheus.poll() is not None):
                if prometheus.poll() is None:
                    return
        self.fail("Prometheus does not start")

    def is_ready(self):
        try:
            return urllib.request.urlopen(f"{self.api}/-/ready", timeout=5).status == 200
        except OSError:
            return False

    def ask(self, path, **parameters):
        url = f"{self.api}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            self.fail(f"{parameters}: {error.read().decode()}")

    def test_each_query_of_the_dashboard_is_answered_and_no_alert_fires(self):
        subprocess.run(["promtool", "check", "rules", ALERTS], check=True, stdout=subprocess.DEVNULL)
        port, admin = self.start_broker()
        self.load(port)
        self.start_prometheus(admin)
        queries = list(panels())
        self.assertGreater(len(queries), 15)
        for title, query in queries:
            query = query.replace("$__rate_interval", "5s")
            eventually(f"{title} ({query}) has numbers", lambda: self.ask("query", query=query)["result"])
        groups = self.ask("rules")["groups"]
        rules = [rule for group in groups for rule in group["rules"]]
        self.assertGreater(len(rules), 8)
        for rule in rules:
            self.assertEqual(rule.get("lastError", ""), "", rule["name"])
            self.assertNotEqual(rule["state"], "firing", rule["name"])
        # A rule that names what is not there would never fire.
        names = set(self.ask("label/__name__/values"))
        for name in set(re.findall(r"\bringmq_\w+", ALERTS.read_text() + DASHBOARD.read_text())):
            # Only with TLS.
            if name != "ringmq_certificate_expires_seconds":
                self.assertIn(name, names)
        targets = self.ask("targets")["activeTargets"]
        self.assertEqual([target["lastError"] for target in targets], [""])


if __name__ == "__main__":
    sys.argv[0] = "test_metrics.py"
    unittest.main()
