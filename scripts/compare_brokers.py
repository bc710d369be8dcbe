"""How `compare.py` finds, starts, watches and stops brokers: those of perf/brokers, a command, or an address.

All of them say `started(kind, cpus, transport)`, a context that gives a `Running` broker, and `why_not(...)`, the reason for which a broker
cannot do a workload.
"""

import contextlib
import ctypes
import dataclasses
import os
import re
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BROKERS = ROOT / "perf" / "brokers"
KINDS = ("default", "tuned")
SCHEMES = {"tcp": "mqtt://{}", "tls": "mqtts://{}", "websocket": "ws://{}/mqtt"}
START_S = 60


class Skipped(Exception):
    """Why a broker cannot be compared here."""


@dataclasses.dataclass
class Running:
    """A broker that answers."""

    # For loadgen: URL and what it may watch.
    url: str
    options: list
    port: int = 0


def folders():
    """The brokers that have a folder."""
    return sorted(p.name for p in BROKERS.iterdir() if (p / "broker.toml").exists())


def settings_of(name):
    return tomllib.loads((BROKERS / name / "broker.toml").read_text())


def run_text(command):
    """First line that a command prints, whatever its exit code."""
    own = adopt()
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return "?"
    finally:
        # Erlang's tools leave a daemon behind.
        end(own)
    return (done.stdout + done.stderr).strip().splitlines()[0] if done.stdout.strip() or done.stderr.strip() else "?"


def container_engine():
    for engine in ("podman", "docker"):
        if shutil.which(engine):
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                if subprocess.run([engine, "info"], capture_output=True, timeout=30).returncode == 0:
                    return engine
    return None


def version_number(text):
    """The first that looks like a version, as numbers: `mosquitto version 2.0.11` is (2, 0, 11)."""
    found = re.search(r"\d+(\.\d+)+", text or "")
    return tuple(int(part) for part in found.group().split(".")) if found else ()


def cpu_count(cpus):
    """How many CPUs a list such as `0-3,6` names."""
    spans = [part.split("-") for part in cpus.split(",")]
    return sum(int(span[-1]) - int(span[0]) + 1 for span in spans)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Broker:
    """A broker of perf/brokers and how it can be started here."""

    is_started_anew = True

    def __init__(self, name, engine, binary=None, is_built=False):
        self.name = name
        self.folder = BROKERS / name
        if name not in folders():
            raise ValueError(f"there is no broker `{name}`: {', '.join(folders())}")
        self.settings = settings_of(name)
        self.title = self.settings["title"]
        self.engine = None
        self.version = "?"
        self.binary = binary
        self.find(engine, is_built)

    def find(self, engine, is_built):
        if not self.binary and not is_built and (build := self.settings.get("build")):
            subprocess.run(build, cwd=ROOT, check=True)
        binary = self.binary or self.settings.get("binary")
        if binary and self.has(binary):
            if self.settings.get("needs_root") and os.geteuid() != 0:
                raise Skipped("its start needs root")
            self.version = run_text(self.words(self.settings["version"]))
        elif self.binary:
            raise Skipped(f"there is no program {self.binary}")
        elif engine and "image" in self.settings:
            self.engine = engine
            pulled = subprocess.run([engine, "pull", self.settings["image"]], capture_output=True)
            if pulled.returncode != 0:
                raise Skipped(f"the image {self.settings['image']} cannot be pulled")
            self.version = run_text([engine, "image", "inspect", "-f", "{{.Id}}", self.settings["image"]])
        else:
            package = self.settings.get("debian_package")
            remedy = f" (Debian: apt-get install {package})" if package else ""
            raise Skipped(f"not on this machine{remedy}" + (", and no container engine runs here" if "image" in self.settings else ""))

    def words(self, command):
        """A command of the folder, with the program that --binary names."""
        return [self.binary, *command[1:]] if self.binary else command

    @staticmethod
    def has(binary):
        return (ROOT / binary).exists() if "/" in binary else shutil.which(binary) is not None

    def kinds(self):
        return [kind for kind in (*KINDS, "durable") if (self.folder / kind).is_dir()]

    def why_not_kind(self, kind):
        """Why it has no such configuration, or its version is too old for it."""
        if kind not in self.kinds():
            said = self.settings.get("missing", {}).get(kind)
            return said or f"perf/brokers/{self.name} has no configuration `{kind}`"
        needed = self.settings.get("needs", {}).get(kind)
        if needed and version_number(self.version) < version_number(needed):
            return f"its configuration `{kind}` needs version {needed}; here is {self.version}"
        return None

    def why_not(self, name, workload):
        """Why it cannot do a workload."""
        settings = self.settings
        if name not in settings.get("workloads", [name]):
            return "it does not speak what this workload needs"
        for start, why in settings.get("cannot", {}).items():
            if workload.words.startswith(start):
                return why
        if workload.qos > self.qos_max():
            return f"it has no QoS {workload.qos}"
        if workload.transport not in self.transports():
            return f"perf/brokers/{self.name} has no listener for {workload.transport}"
        if workload.is_wide and not settings.get("threads", True):
            return "it has one thread, whatever the CPUs"
        if workload.configuration:
            return self.why_not_kind(workload.configuration)
        return None

    def qos_max(self):
        since = self.settings.get("qos_2_since")
        if since and version_number(self.version) < version_number(since):
            return 1
        return self.settings.get("qos_max", 2)

    def transports(self):
        return self.settings.get("listener", {"tcp": ""}).keys()

    def configuration(self, kind, place, port, cpus, transport):
        """Copies the configuration with its placeholders filled in; returns how to fill words, and more environment."""
        values = {"port": port, "second_port": free_port(), "dir": place / "data", "config": place, "cpus": cpu_count(cpus),
                  "certificate": place / "server.pem", "key": place / "server.key"}

        def fill(text):
            text = text.replace("{listener}", self.settings.get("listener", {}).get(transport, ""))
            for name, value in values.items():
                text = text.replace("{" + name + "}", str(value))
            return text

        (place / "data").mkdir()
        os.chmod(place, 0o755)
        os.chmod(place / "data", 0o777)
        if transport == "tls":
            make_certificates(place)
        environment = {name: fill(value) for name, value in self.settings.get("environment", {}).items()}
        for file in sorted((self.folder / kind).iterdir()):
            text = fill(file.read_text())
            if file.name == "environment.toml":
                environment |= tomllib.loads(text)
            else:
                (place / file.name).write_text(text)
        return fill, environment

    @contextlib.contextmanager
    def started(self, kind, cpus, transport="tcp"):
        port = free_port()
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            place = Path(folder)
            fill, environment = self.configuration(kind, place, port, cpus, transport)
            if self.engine:
                options = [f"-e{k}={v}" for k, v in environment.items()] + [fill(w) for w in self.settings["container"]]
                command = [self.engine, "run", "--rm", "--net=host", f"--cpuset-cpus={cpus}",
                           f"--name=compare-{port}", *options, self.settings["image"]]
            else:
                command = ["taskset", "-c", cpus, *(fill(word) for word in self.words(self.settings["start"]))]
            with process(command, place / "log", environment) as broker:
                try:
                    wait_for(port, broker, place / "log", self.probe(transport))
                    time.sleep(self.settings.get("settle_s", 0))
                    more = [f"--ca={place / 'ca.pem'}"] if transport == "tls" else []
                    url = SCHEMES[transport].format(f"127.0.0.1:{port}")
                    yield Running(url, [*self.watch(broker, port), f"--broker-version={self.version}", *more], port)
                finally:
                    if self.engine:
                        subprocess.run([self.engine, "stop", f"compare-{port}"], capture_output=True)

    def probe(self, transport):
        """How to see that it serves: a message, where Python can send one."""
        return serves if transport == "tcp" and self.settings.get("is_mqtt", True) else listens

    def watch(self, broker, port):
        if not self.engine:
            return [f"--pid={pid}" for pid in broker.own()]
        inspect = [self.engine, "inspect", "-f", "{{.State.Pid}}", f"compare-{port}"]
        inner = subprocess.run(inspect, capture_output=True, text=True).stdout.strip()
        cgroup = Path(f"/proc/{inner}/cgroup").read_text().strip().rsplit(":", 1)[-1]
        return [f"--broker-cgroup=/sys/fs/cgroup{cgroup}"]


class Given:
    """A broker of the command line: a command, or the address of one that runs already."""

    def __init__(self, name, what):
        self.name = self.title = name
        self.what = what
        self.is_started_anew = not re.fullmatch(r"[\w.-]+:\d+|\[[0-9a-fA-F:]+\]:\d+", what)
        self.version = "?"
        self.settings = {}
        if self.is_started_anew:
            self.command = shlex.split(what)
            if not any("{port}" in word for word in self.command):
                raise ValueError(f"--broker {name}: a command needs {{port}} where the port goes, an address is HOST:PORT")
            if not shutil.which(self.command[0]):
                raise ValueError(f"--broker {name}: there is no program {self.command[0]}")

    def kinds(self):
        return ["given"]

    def why_not_kind(self, kind):
        return None if kind == "given" else f"only as given, no configuration `{kind}`"

    def why_not(self, _name, workload):
        if workload.transport != "tcp":
            return "given on the command line: plain TCP only"
        if workload.configuration:
            return "given on the command line: no other configuration"
        if workload.is_wide and not self.is_started_anew:
            return "it runs already: on its own CPUs"
        return None

    @contextlib.contextmanager
    def started(self, _kind, cpus, _transport="tcp"):
        if not self.is_started_anew:
            host, port = self.what.rsplit(":", 1)
            if not serves(int(port), host.strip("[]")):
                raise Skipped(f"no broker answers at {self.what}")
            yield Running(SCHEMES["tcp"].format(self.what), [], int(port))
            return
        port = free_port()
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            place = Path(folder)
            command = [word.replace("{port}", str(port)).replace("{dir}", folder) for word in self.command]
            with process(["taskset", "-c", cpus, *command], place / "log", {}) as broker:
                wait_for(port, broker, place / "log", serves)
                watch = [f"--pid={pid}" for pid in broker.own()]
                yield Running(SCHEMES["tcp"].format(f"127.0.0.1:{port}"), watch, port)


def tree(pid):
    """A process and all that it started: scripts that start brokers stay, and another user's program may be among them."""
    children = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            after_name = stat.read_text().rsplit(")", 1)[1].split()
            children.setdefault(int(after_name[1]), []).append(int(stat.parent.name))
    found, waiting = [], [pid]
    while waiting:
        found.append(waiting.pop())
        waiting += children.get(found[-1], [])
    return found


@contextlib.contextmanager
def process(command, log, environment):
    """Runs a command; ends it, and what it started."""
    own = adopt()
    with open(log, "w") as out:
        started = subprocess.Popen(command, cwd=ROOT, env=os.environ | environment, stdout=out, stderr=out)
    started.own = own
    try:
        yield started
    finally:
        end(own)
        started.wait()


def adopt():
    """A function that lists the processes that were started from now on, by us or by one of them: what makes itself a daemon
    becomes a child of ours."""
    PR_SET_CHILD_SUBREAPER = 36
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    before = set(tree(os.getpid()))
    return lambda: [pid for pid in tree(os.getpid()) if pid not in before and is_alive(pid)]


def end(own):
    """SIGTERM to the broker itself, and to scripts that wait for it; SIGKILL after 15 s."""
    seen = own()
    for pid in seen:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + 15
    while own() and time.monotonic() < deadline:
        time.sleep(0.02)
    for pid in own():
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    for pid in seen:
        # Those that were adopted; nobody else waits for them.
        with contextlib.suppress(OSError):
            os.waitpid(pid, os.WNOHANG)


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


def wait_for(port, process, log, probe):
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        if probe(port):
            return
        time.sleep(0.05)
    raise Skipped("it did not start: " + log.read_text(errors="replace")[-500:].strip())


def listens(port, host="127.0.0.1"):
    with contextlib.suppress(OSError), socket.create_connection((host, port), 1):
        return True
    return False


def serves(port, host="127.0.0.1"):
    """Whether a client gets what it publishes: some brokers listen before they serve."""
    topic = f"compare/{os.getpid()}".encode()
    text = lambda what: struct.pack("!H", len(what)) + what
    packet = lambda kind, body: bytes([kind, len(body)]) + body
    connect = packet(0x10, text(b"MQTT") + bytes([4, 2, 0, 30]) + text(b"compare-" + topic[8:]))
    subscribe = packet(0x82, b"\x00\x01" + text(topic) + b"\x00")
    publish = packet(0x30, text(topic) + b"ready")
    with contextlib.suppress(OSError), socket.create_connection((host, port), 1) as client:
        client.settimeout(2)
        for sent, wanted in ((connect, b"\x20\x02\x00\x00"), (subscribe, b"\x90\x03\x00\x01\x00"), (publish, publish)):
            client.sendall(sent)
            answer = b""
            while len(answer) < len(wanted):
                more = client.recv(len(wanted) - len(answer))
                if not more:
                    return False
                answer += more
            # The first byte of a CONNACK's flags says nothing here.
            if answer != wanted:
                return False
        client.sendall(b"\xe0\x00")
        return True
    return False


def make_certificates(place):
    """A CA, and a server's certificate of it for this machine."""
    openssl = lambda *words: subprocess.run(["openssl", *words], cwd=place, check=True, capture_output=True)
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=compare CA")
    openssl("req", *key, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=localhost")
    (place / "names").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    openssl("x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
            "-out", "server.pem", "-days", "2", "-extfile", "names")
    # Brokers give up root before they read it.
    os.chmod(place / "server.key", 0o644)
