#!/usr/bin/env python3
"""What brokers lose when they are killed, beside how fast they acknowledge.

One publisher of QoS 1 with so many messages in flight, one absent session that is to get them; the broker is
killed (SIGKILL) while it publishes and started again on the same directory; what was acknowledged and does
not come is lost. `recovery` fills a store of RingMQ with sessions and messages and starts it again.

  scripts/durability.py loss --ringmq target/release/ringmq [--seconds 5] [--rounds 2]
  scripts/durability.py recovery --ringmq target/release/ringmq [--messages 1000000] [--sessions 100000] [--size 64]
      [--queues 2] [--against OLD_BINARY]: so many sessions have the messages, and another binary starts in turns
  scripts/durability.py pairs --loadgen target/release/loadgen: QoS 1 to sessions that last and are there, by level
  scripts/durability.py writes: bytes written beside those of the records, where all leaves and where a quarter never does
"""
import argparse, json, os, re, select, shutil, signal, socket, subprocess, tempfile, time

HZ = os.sysconf("SC_CLK_TCK")


def varint(n):
    out = b""
    while True:
        n, low = n >> 7, n & 127
        out += bytes([low | (128 if n else 0)])
        if not n:
            return out


def packet(first, body):
    return bytes([first]) + varint(len(body)) + body


def text(s):
    return len(s).to_bytes(2, "big") + s.encode()


def publish(topic, number, packet_id, size, qos=1):
    body = text(topic) + packet_id.to_bytes(2, "big") + number.to_bytes(8, "big").ljust(size, b".")
    return packet(0x30 | qos << 1, body)


class Client:
    def __init__(self, port, name, clean=False):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.bytes = b""
        head = text("MQTT") + bytes([4, 2 if clean else 0]) + (0).to_bytes(2, "big")
        self.socket.sendall(packet(0x10, head + text(name)))
        kind, body = self.next()
        assert kind >> 4 == 2 and body[1] == 0, (name, kind, body)
        self.session_present = body[0] == 1

    def next(self, timeout=60):
        """The next packet; None after that time."""
        while True:
            at, length, shift = 1, 0, 0
            while at < len(self.bytes):
                length |= (self.bytes[at] & 127) << shift
                shift += 7
                at += 1
                if self.bytes[at - 1] < 128:
                    if len(self.bytes) >= at + length:
                        found = self.bytes[0], self.bytes[at : at + length]
                        self.bytes = self.bytes[at + length :]
                        return found
                    break
            if not select.select([self.socket], [], [], timeout)[0]:
                return None
            more = self.socket.recv(1 << 16)
            if not more:
                raise ConnectionError("closed")
            self.bytes += more

    def subscribe(self, topic_filter, qos=1):
        self.socket.sendall(packet(0x82, b"\0\1" + text(topic_filter) + bytes([qos])))
        while (found := self.next())[0] >> 4 != 9:
            pass
        assert found[1][2] == qos, found

    def leave(self):
        self.socket.sendall(b"\xe0\0")
        self.socket.close()


class Broker:
    """One that is started on its directory, killed and started again."""

    def __init__(self, kind, binaries, extra=""):
        self.kind = kind
        self.place = tempfile.mkdtemp(prefix="durability-", dir=binaries.directory)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        config = os.path.join(self.place, "config")
        store = os.path.join(self.place, "store")
        os.makedirs(store)
        if kind.startswith("ringmq"):
            level = kind.split("-")[1]
            with open(config, "w") as out:
                out.write(f'listen = ["mqtt://127.0.0.1:{self.port}"]\nshards = {binaries.shards}\n[limits]\n')
                out.write("queue_messages_max = 100000000\nqueue_bytes_max = 100000000000\nconnect_rate_max = 0\n")
                out.write(f'[storage]\ndirectory = "{store}"\nlevel = "{level}"\n{extra}\n[admin]\nlisten = "off"\n')
            self.command = [binaries.ringmq, "--config", config]
        elif kind.startswith("mosquitto"):
            with open(config, "w") as out:
                out.write(f"listener {self.port} 127.0.0.1\nallow_anonymous true\npersistence true\nuser root\n")
                out.write(f"persistence_location {store}/\nautosave_interval 1\nmax_queued_messages 0\n")
                out.write("max_inflight_messages 0\n")
            self.command = [binaries.mosquitto, "-c", config]
        else:
            interval = kind.split("-")[1]
            with open(config, "w") as out:
                out.write('server_name: one\nlisten: "127.0.0.1:-1"\n')
                # Debian 12 has 2.9, which does not know the key.
                sync = "" if interval == "default" else f', sync_interval: "{interval}"'
                out.write(f'jetstream {{ store_dir: "{store}"{sync} }}\n')
                out.write(f'mqtt {{ listen: "127.0.0.1:{self.port}", max_ack_pending: 16000 }}\n')
            self.command = [binaries.nats, "--config", config]
        self.start()

    def start(self):
        begun = time.monotonic()
        self.log = open(os.path.join(self.place, "log"), "ab")
        self.process = subprocess.Popen(self.command, stdout=self.log, stderr=self.log)
        while True:
            try:
                # What was killed may still be taken down by the kernel, and accept: only an answer counts.
                Client(self.port, "probe", clean=True).leave()
                return time.monotonic() - begun
            except OSError:
                if self.process.poll() is not None or time.monotonic() - begun > 120:
                    tail = open(os.path.join(self.place, "log")).read()[-400:]
                    raise SystemExit(f"{self.kind} does not start: {tail}")
                time.sleep(0.002)

    def cpu_s(self):
        fields = open(f"/proc/{self.process.pid}/stat").read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / HZ

    def written_bytes(self):
        lines = open(f"/proc/{self.process.pid}/io").read().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("write_bytes"))

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def remove(self):
        self.kill()
        shutil.rmtree(self.place, ignore_errors=True)


def send_and_time(broker, window, seconds, size, topic="d/x", most=1 << 60):
    """Publishes for so long or so many, with so many in flight; numbers acknowledged, and how long each took."""
    client = Client(broker.port, "publisher", clean=True)
    client.socket.setblocking(False)
    sent_at, waits, open_ids, number, rest = {}, [], {}, 0, b""
    acknowledged, out = set(), b""
    begun = time.perf_counter()
    cpu = broker.cpu_s()
    while (now := time.perf_counter()) - begun < seconds and len(acknowledged) < most:
        while len(open_ids) < min(window, most - len(acknowledged)):
            packet_id = number % 60_000 + 1
            out += publish(topic, number, packet_id, size)
            open_ids[packet_id] = number
            sent_at[packet_id] = now
            number += 1
        if out:
            try:
                out = out[client.socket.send(out) :]
            except BlockingIOError:
                pass
        select.select([client.socket], [client.socket] if out else [], [], 1)
        try:
            rest += client.socket.recv(1 << 16)
        except BlockingIOError:
            continue
        now = time.perf_counter()
        whole = len(rest) // 4 * 4
        for at in range(0, whole, 4):
            packet_id = int.from_bytes(rest[at + 2 : at + 4], "big")
            acknowledged.add(open_ids.pop(packet_id))
            waits.append(now - sent_at[packet_id])
        rest = rest[whole:]
    took = time.perf_counter() - begun
    return acknowledged, sorted(waits), took, broker.cpu_s() - cpu


def loss(kind, window, args):
    broker = Broker(kind, args)
    absent = Client(broker.port, "absent")
    absent.subscribe("d/#")
    absent.leave()
    time.sleep(1.5 if kind.startswith("mosquitto") else 0.2)
    acknowledged, waits, took, cpu = send_and_time(broker, window, args.seconds, args.size)
    broker.kill()
    restart = broker.start()
    back = Client(broker.port, "absent")
    came, doubled = set(), 0
    if back.session_present:
        while found := back.next(3):
            if found[0] >> 4 == 3:
                length = int.from_bytes(found[1][:2], "big")
                packet_id = found[1][2 + length : 4 + length]
                number = int.from_bytes(found[1][4 + length : 12 + length], "big")
                doubled += number in came
                came.add(number)
                back.socket.sendall(b"\x40\x02" + packet_id)
    broker.remove()
    count = max(1, len(waits))
    return {
        "broker": kind,
        "window": window,
        "publishes_per_s": round(len(waits) / took),
        "p50_ms": round(waits[count // 2] * 1000, 3),
        "p99_ms": round(waits[count * 99 // 100] * 1000, 3),
        "cpu_us": round(cpu / count * 1e6, 2),
        "acknowledged": len(acknowledged),
        "lost": len(acknowledged - came),
        "doubled": doubled,
        "session_present": back.session_present,
        "restart_s": round(restart, 3),
    }


def drop_caches():
    subprocess.run(["sync"], check=True)
    try:
        open("/proc/sys/vm/drop_caches", "w").write("3")
        return True
    except OSError:
        return False


def recovery(args):
    """Sessions, of which 10,000 get one message; then one of them has so many queued."""
    broker = Broker("ringmq-disk", args)
    for number in range(args.sessions):
        client = Client(broker.port, f"session-{number}")
        if number < 10_000:
            client.subscribe("fan/x")
        client.leave()
    result = {"sessions": args.sessions, "messages": args.messages, "size": args.size}
    if args.sessions >= 10_000:
        publisher = Client(broker.port, "publisher", clean=True)
        store = ["du", "-sb", os.path.join(broker.place, "store")]
        begun = time.perf_counter()
        publisher.socket.sendall(publish("fan/x", 1, 1, args.size))
        publisher.next()
        result["fan_10000_puback_ms"] = round((time.perf_counter() - begun) * 1000, 2)
    queued = 0
    for queue in range(args.queues):
        absent = Client(broker.port, f"absent-{queue}")
        absent.subscribe(f"d/{queue}")
        absent.leave()
        most = args.messages // args.queues
        queued += len(send_and_time(broker, 1_000, 600, args.size, f"d/{queue}", most)[0])
    broker.kill()
    segments = [os.path.join(broker.place, "store", name) for name in os.listdir(os.path.join(broker.place, "store"))]
    result["store_bytes"] = sum(os.path.getsize(path) for path in segments)
    result["queued"] = queued
    stats = subprocess.run([args.ringmq, "store", "stats", os.path.join(broker.place, "store")], capture_output=True)
    result["stats"] = stats.stdout.decode() + stats.stderr.decode()
    runs = []
    for _ in range(args.rounds):
        run = {}
        for binary in [args.ringmq] + ([args.against] if args.against else []):
            broker.command[0] = binary
            is_cold = drop_caches()
            begun = time.perf_counter()
            for path in segments:
                with open(path, "rb", buffering=0) as file:
                    while file.read(1 << 20):
                        pass
            run["read_s"] = round(time.perf_counter() - begun, 3)
            for state in ["cold", "warm"] if is_cold else ["warm"]:
                if state == "cold":
                    drop_caches()
                start_s, cpu_s = round(broker.start(), 3), broker.cpu_s()
                run[f"{state} {os.path.basename(binary)}"] = {"start_s": start_s, "cpu_s": cpu_s}
                broker.kill()
        runs.append(run)
        print(json.dumps(run), flush=True)
    for key in runs[0]:
        of_key = [run[key]["start_s"] if isinstance(run[key], dict) else run[key] for run in runs]
        result[f"median {key}"] = sorted(of_key)[len(of_key) // 2]
    log = open(os.path.join(broker.place, "log"), errors="replace").read()
    result["log"] = re.findall(r"[^\n]*session\(s\)[^\n]*", log)[-1:]
    shutil.rmtree(broker.place)
    return result


PAIRS = """duration = "{seconds}s"
[[group]]
name = "publishers"
clients = {pairs}
[group.publish]
topic = "p/{{run}}/{{i}}"
qos = 1
size = "{size}"
window = {window}
[[group]]
name = "subscribers"
clients = {pairs}
clean = false
[group.subscribe]
filters = ["p/{{run}}/{{i}}"]
qos = 1
"""


def pairs(level, args):
    """Pairs of a publisher and a session that lasts and is there: what a message costs the broker."""
    broker = Broker(f"ringmq-{level}", args)
    load = os.path.join(broker.place, "load.toml")
    with open(load, "w") as out:
        out.write(PAIRS.format(seconds=args.seconds, pairs=args.pairs, size=args.size, window=args.window))
    before, written = broker.cpu_s(), broker.written_bytes()
    command = [args.loadgen, "mixed", load, "--broker", f"mqtt://127.0.0.1:{broker.port}", "--json"]
    told = subprocess.run(command, capture_output=True, text=True)
    cpu, written = broker.cpu_s() - before, broker.written_bytes() - written
    broker.remove()
    found = json.loads(told.stdout)
    return {"level": level, "cpu_s": round(cpu, 2), "written": written, "exit": told.returncode, "loadgen": found}


def drain(client, count):
    """Takes so many messages and acknowledges them, many at a time."""
    came, out = 0, b""
    while came < count:
        kind, body = client.next()
        if kind >> 4 == 3:
            length = int.from_bytes(body[:2], "big")
            out += b"\x40\x02" + body[2 + length : 4 + length]
            came += 1
            if len(out) >= 400 or came == count:
                client.socket.sendall(out)
                out = b""


def record_bytes(args, broker):
    command = [args.ringmq, "store", "stats", os.path.join(broker.place, "store")]
    told = subprocess.run(command, capture_output=True, text=True).stdout
    return sum(int(found) for found in re.findall(r"(?m)^  \w+ +\d+ +(\d+)$", told))


def writes(stays, segment_bytes, args):
    """Rounds of messages to four sessions, which then come and take them; a session that stays away keeps them.
    With segments so large that none goes, the records are there to be counted."""
    broker = Broker("ringmq-disk", args, f"segment_bytes = {segment_bytes}")
    names = range(4)
    for name in names:
        client = Client(broker.port, f"session-{name}")
        client.subscribe(f"d/{name}")
        client.leave()
    each = 5_000
    for _ in range(args.messages // (each * len(names))):
        for name in names:
            send_and_time(broker, 1_000, 600, args.size, f"d/{name}", each)
            if name or not stays:
                client = Client(broker.port, f"session-{name}")
                drain(client, each)
                client.leave()
    time.sleep(1)
    written = broker.written_bytes()
    broker.kill()
    records = record_bytes(args, broker)
    broker.remove()
    return written, records


def amplification(stays, args):
    whole, records = writes(stays, 1 << 30, args)
    written, left = writes(stays, args.segment_bytes, args)
    return {
        "never_leave": 0.25 if stays else 0,
        "record_bytes": records,
        "written_uncleaned": whole,
        "written": written,
        "left_in_log": left,
        "written_by_records": round(written / records, 3),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["loss", "recovery", "pairs", "writes"])
    parser.add_argument("--ringmq", default="target/release/ringmq")
    parser.add_argument("--mosquitto", default="mosquitto")
    parser.add_argument("--nats", default="nats-server")
    parser.add_argument("--brokers", default="ringmq-disk,ringmq-os,ringmq-memory,mosquitto,nats-default")
    parser.add_argument("--windows", default="1,100")
    parser.add_argument("--directory", help="where stores are made, on the disk to measure")
    parser.add_argument("--shards", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--sessions", type=int, default=100_000)
    parser.add_argument("--queues", type=int, default=1)
    parser.add_argument("--against")
    parser.add_argument("--loadgen", default="target/release/loadgen")
    parser.add_argument("--levels", default="disk,os,memory")
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--window", type=int, default=10)
    parser.add_argument("--segment-bytes", type=int, default=4 << 20)
    args = parser.parse_args()
    args.directory = args.directory and os.path.abspath(args.directory)
    if args.what == "recovery":
        print(json.dumps(recovery(args), indent=1))
        return
    if args.what == "writes":
        for stays in [False, True]:
            print(json.dumps(amplification(stays, args)), flush=True)
        return
    if args.what == "pairs":
        levels = args.levels.split(",")
        for round_number in range(args.rounds):
            turn = round_number % len(levels)
            for level in levels[turn:] + levels[:turn]:
                print(json.dumps(pairs(level, args)), flush=True)
        return
    brokers = args.brokers.split(",")
    for round_number in range(args.rounds):
        for window in map(int, args.windows.split(",")):
            for kind in brokers[round_number:] + brokers[:round_number]:
                try:
                    print(json.dumps(loss(kind, window, args)), flush=True)
                except (SystemExit, Exception) as error:
                    print(json.dumps({"broker": kind, "window": window, "failed": str(error)[-300:]}), flush=True)


if __name__ == "__main__":
    main()
