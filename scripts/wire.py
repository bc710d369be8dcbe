"""MQTT packets by hand, clients that hide nothing, and a broker watched from outside.

What `worst_case.py` and `torture.py` share. It knows nothing of the broker's code but where a client identifier lives.
"""

import os
import re
import resource
import signal
import socket
import struct
import subprocess
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP = range(2, 8)
SUBACK, UNSUBACK, PINGRESP, DISCONNECT = 9, 11, 13, 14
PINGREQ, GOODBYE = b"\xc0\0", b"\xe0\0"
LINGER_NOT = struct.pack("ii", 1, 0)


def number(value):
    """A variable byte integer."""
    out = bytearray()
    while True:
        value, low = value >> 7, value & 127
        out.append(low | (128 if value else 0))
        if not value:
            return bytes(out)


def text(value):
    value = value.encode() if isinstance(value, str) else value
    return struct.pack(">H", len(value)) + value


def packet(first, body):
    return bytes([first]) + number(len(body)) + body


def block(version, properties):
    return number(len(properties)) + properties if version == 5 else b""


def connect(client_id, version=4, clean=True, keep_alive=0, properties=b"", will=None):
    """CONNECT; a will is (topic, payload, QoS, properties)."""
    tail, flags = text(client_id), 2 if clean else 0
    if will:
        topic, payload, qos, of_will = will
        flags |= 4 | qos << 3
        tail += block(version, of_will) + text(topic) + text(payload)
    head = text("MQTT") + bytes([version, flags]) + struct.pack(">H", keep_alive)
    return packet(0x10, head + block(version, properties) + tail)


def publish(topic, payload=b"", qos=0, identifier=0, retain=False, dup=False, version=4):
    body = text(topic) + (struct.pack(">H", identifier) if qos else b"") + block(version, b"")
    return packet(0x30 | dup << 3 | qos << 1 | retain, body + payload)


def subscribe(identifier, filters, options=0, version=4, properties=b""):
    body = struct.pack(">H", identifier) + block(version, properties)
    return packet(0x82, body + b"".join(text(f) + bytes([options]) for f in filters))


def unsubscribe(identifier, filters, version=4):
    return packet(0xA2, struct.pack(">H", identifier) + block(version, b"") + b"".join(map(text, filters)))


def acknowledge(kind, identifier):
    """PUBACK, PUBREC, PUBREL or PUBCOMP."""
    return bytes([kind << 4 | (2 if kind == PUBREL else 0), 2, identifier >> 8, identifier & 255])


def session_expiry(seconds):
    return b"\x11" + struct.pack(">I", seconds)


def receive_maximum(count):
    return b"\x21" + struct.pack(">H", count)


def subscription_identifier(value):
    return b"\x0b" + number(value)


def take(buffer):
    """Takes the whole packets out of a buffer: (first byte, body)."""
    at, end, found = 0, len(buffer), []
    while end - at >= 2:
        length, shift, i = 0, 0, at + 1
        while True:
            if i >= end:
                length = None
                break
            byte = buffer[i]
            length |= (byte & 127) << shift
            shift, i = shift + 7, i + 1
            if byte < 128:
                break
        if length is None or end - i < length:
            break
        found.append((buffer[at], bytes(buffer[i:i + length])))
        at = i + length
    del buffer[:at]
    return found


def open_publish(first, body, version=4):
    """Topic, payload, QoS and packet identifier of a PUBLISH."""
    at = 2 + (body[0] << 8 | body[1])
    topic, qos, identifier = body[2:at], first >> 1 & 3, 0
    if qos:
        identifier, at = body[at] << 8 | body[at + 1], at + 2
    if version == 5:
        shift = length = 0
        while True:
            byte = body[at]
            length, shift, at = length | (byte & 127) << shift, shift + 7, at + 1
            if byte < 128:
                break
        at += length
    return topic.decode(), body[at:], qos, identifier


class Refused(Exception):
    """The broker did not take a connection or closed it."""


class Client:
    """A connection whose calls wait."""

    def __init__(self, port, timeout=60, receive_buffer=None):
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(timeout)
        self.socket.connect(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer, self.packets, self.version = bytearray(), [], 4

    def open(self, client_id, version=4, **more):
        self.version = version
        self.send(connect(client_id, version, **more))
        first, body = self.read()
        if first != 0x20 or body[1]:
            raise Refused(f"{client_id}: CONNACK {body.hex()}")
        return self

    def send(self, data):
        self.socket.sendall(data)

    def read(self):
        while not self.packets:
            data = self.socket.recv(1 << 18)
            if not data:
                raise Refused("closed by the broker")
            self.buffer += data
            self.packets = take(self.buffer)
        return self.packets.pop(0)

    def read_kind(self, kind):
        """The next packet of a kind; others are left out."""
        while True:
            first, body = self.read()
            if first >> 4 == kind:
                return body

    def subscribe(self, filters, options=0, properties=b"", per_packet=1000):
        filters = list(filters)
        for i in range(0, len(filters), per_packet):
            self.send(subscribe(i // per_packet + 1, filters[i:i + per_packet], options, self.version, properties))
            codes = self.read_kind(SUBACK)[3 if self.version == 5 else 2:]
            if max(codes) > 2:
                raise Refused(f"SUBACK {codes[:20].hex()}")
        return self

    def ping(self):
        """Waits until everything before it is handled."""
        self.send(PINGREQ)
        self.read_kind(PINGRESP)

    def close(self):
        self.socket.close()

    def reset(self):
        """Ends without DISCONNECT and leaves nothing behind in the kernel."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NOT)
        self.socket.close()


def home(client_id, shards):
    """The shard where a client identifier lives (`route::home_shard`)."""
    mask, value = (1 << 64) - 1, 0xCBF29CE484222325
    for byte in client_id.encode():
        value = (value ^ byte) * 0x100000001B3 & mask
    value ^= value >> 32
    value = value * 0x9E3779B97F4A7C15 & mask
    return (value ^ value >> 29) % shards


def named(prefix, shard, shards, count):
    """So many client identifiers that live on one shard."""
    found, i = [], 0
    while len(found) < count:
        name = f"{prefix}{i}"
        if shards == 1 or home(name, shards) == shard:
            found.append(name)
        i += 1
    return found


def raise_open_files():
    """Returns how many descriptors this process, and a broker it starts, may have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def be_nice(value):
    """Another priority, where that is allowed."""
    try:
        os.setpriority(os.PRIO_PROCESS, 0, value)
    except OSError:
        pass


def broker_option(parser):
    default = os.environ.get("RINGMQ", ROOT / "target" / "release" / "ringmq")
    parser.add_argument("--broker", default=default, help="the binary (RINGMQ, target/release/ringmq)")


class Broker:
    """A broker of its own, on a port of its own, with what `/proc` and its log tell about it."""

    def __init__(self, binary, shards, config="", files=None):
        if not os.access(binary, os.X_OK):
            raise SystemExit(f"there is no broker at {binary}: cargo build --release, or --broker PATH")
        self.folder = tempfile.TemporaryDirectory(prefix="ringmq-")
        self.place = Path(self.folder.name)
        for name, content in (files or {}).items():
            (self.place / name).write_text(content)
        (self.place / "config.toml").write_text(config)
        self.log_file = open(self.place / "log", "w")
        command = [binary, "--config", "config.toml", "--shards", str(shards), "--listen", "mqtt://127.0.0.1:0"]
        self.process = subprocess.Popen(command, cwd=self.place, stdout=self.log_file, stderr=self.log_file)
        self.pid, self.shards, self.turn_us_max = self.process.pid, shards, 0
        self.port = self.find_port()

    def find_port(self):
        for _ in range(400):
            if found := re.search(r"listening on mqtt://127\.0\.0\.1:(\d+)", self.log()):
                return int(found[1])
            if self.process.poll() is not None:
                break
            time.sleep(0.025)
        raise SystemExit(f"the broker does not start: {self.log()}")

    def log(self):
        return (self.place / "log").read_text()

    def is_alive(self):
        return self.process.poll() is None

    def signal(self, which):
        self.process.send_signal(which)

    def counters(self, timeout=30):
        """What SIGUSR1 prints; `turn_us_max` counts from one print to the next."""
        before = self.log().count(" counters ")
        self.signal(signal.SIGUSR1)
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            lines = [line for line in self.log().splitlines(keepends=True) if " counters " in line]
            if len(lines) > before and lines[-1].endswith("\n"):
                found = {k: int(v) for k, v in re.findall(r"(\w+)=(\d+)", lines[-1])}
                self.turn_us_max = max(self.turn_us_max, found["turn_us_max"])
                return found
            if not self.is_alive():
                raise SystemExit(f"the broker has ended: {self.log()[-3000:]}")
            time.sleep(0.02)
        raise SystemExit("the broker prints no counters")

    def rss(self):
        return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{self.pid}/status").read_text())[1]) * 1024

    def cpu_seconds(self):
        return sum(run for run, _ in self.schedule().values()) / 1e9

    def schedule(self):
        return schedule(self.pid)

    def stop(self):
        if self.is_alive():
            self.signal(signal.SIGCONT)
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.log_file.close()
        self.folder.cleanup()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


def schedule(pid):
    """Of each thread: ns that it ran, ns that it was ready and waited for a CPU."""
    found = {}
    for thread in os.listdir(f"/proc/{pid}/task"):
        try:
            with open(f"/proc/{pid}/task/{thread}/schedstat") as file:
                run, wait, _ = file.read().split()
        except OSError:
            continue
        found[int(thread)] = (int(run), int(wait))
    return found


def percentile(ordered, share):
    """Of an ordered list; None if there is nothing in it."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else None
