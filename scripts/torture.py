#!/usr/bin/env python3
"""Does everything arrive that is owed, while clients die and come back, and the broker hardly gets a CPU?

    scripts/torture.py --seconds 1800 --shards 4 --hogs 2
    scripts/torture.py --seconds 60 --seed 7 --broker target/release/ringmq

Beside busy loops of a higher priority, a broker serves publishers of QoS 0, 1 and 2 and of retained values, persistent plain
subscribers, share groups, subscribers that come and go, and new ones that ask for retained values. Clients are reset, take over
their own session, leave and come back, subscribe again; the broker is stopped and continued. Half of them speak 3.1.1, half 5.0.
At the end all come back, the hogs stop, everything is drained, and an oracle that knows only what clients did and saw checks:

- QoS 1 and 2 to a plain subscription: each acknowledged message came, first copies in the publisher's order; QoS 2 came once;
  QoS 1 came again only with DUP or if its publisher had sent it again.
- QoS 0: no gap while publisher's and subscriber's connection stand.
- Share group: each acknowledged message came; again only with DUP, after the end of the connection that had it, or if it was
  published again.
- Retained: a new subscription starts with nothing older than what was acknowledged before it, no value goes back, and the last
  acknowledged value is the last that old and new subscribers have.
- A PINGRESP takes a second at most beyond what the hogs, SIGSTOP and the client's own process explain.
- A session is there when its client comes back, and a connection that was taken over is closed.

Exit code 1, and a line for each violation, or 0 and one line of totals. Decisions follow from the seed, their times do not.
"""

import argparse
import array
import bisect
import collections
import heapq
import multiprocessing
import os
import random
import selectors
import signal
import socket
import struct
import sys
import threading
import time

import wire
from wire import Broker, Client

CONFIG = """
[limits]
queue_messages_max = 100000000
queue_bytes_max = 17179869184
outbox_bytes_max = 2147483648
"""
PUBLISHERS, PLAIN, GROUPS, MEMBERS, COMERS, WATCHERS, RETAINED = 8, 6, 3, 5, 6, 3, 4
WINDOW = 60
PING_SECONDS_MAX = 1.0
# What is acknowledged so long before an UNSUBSCRIBE has been sent to the subscriber by then.
LEAVING_SECONDS = 3.0
SHOWN_MAX = 20
NEVER = float("inf")

# A stream is what one publisher numbers: (kind, publisher, topic); its place in the list goes with each message.
STREAMS = [
    (kind, publisher, topic)
    for publisher in range(PUBLISHERS)
    for kind, topic in [
        *((f"q{qos}", f"q{qos}/{publisher}") for qos in range(3)),
        *((f"s{group}", f"s{group}/{publisher}") for group in range(GROUPS)),
        *(("r", f"r/{publisher}/{value}") for value in range(RETAINED)),
    ]
]
BY_TOPIC = {topic: number for number, (_, _, topic) in enumerate(STREAMS)}


def qos_of(stream):
    kind = STREAMS[stream][0]
    return int(kind[1]) if kind[0] == "q" else 1


def payload_of(stream, sequence):
    return struct.pack(">HI", stream, sequence) + b"x" * (sequence % 50 + (4_000 if sequence % 97 == 0 else 0))


class Published:
    """What a publisher knows of a stream: by number, when first sent, when acknowledged (0: not), how often, on which connection."""

    def __init__(self):
        self.sent, self.acked = array.array("d"), array.array("d")
        self.copies, self.connection = array.array("B"), array.array("H")


class Received:
    """What a subscriber has of a stream, in order."""

    def __init__(self):
        self.sequence, self.at = array.array("I"), array.array("d")
        self.is_dup, self.connection = array.array("B"), array.array("H")

    def add(self, sequence, is_dup, connection, at):
        self.sequence.append(sequence)
        self.is_dup.append(is_dup)
        self.connection.append(connection)
        self.at.append(at)


# The clients: a process has a loop and some of them.

class Loop:
    def __init__(self, port, orders, seed):
        self.port, self.orders, self.seed = port, orders, seed
        self.selector, self.timers, self.count = selectors.DefaultSelector(), [], 0
        self.peers, self.complaints, self.stalls, self.pings = [], [], collections.deque(maxlen=1_000), [0, []]
        self.is_calm = self.has_begun = False
        self.selector.register(orders, selectors.EVENT_READ, None)

    def after(self, seconds, action):
        self.count += 1
        heapq.heappush(self.timers, (time.monotonic() + seconds, self.count, action))

    def complain(self, text):
        self.complaints.append(text)

    def turn(self, last):
        """One round; returns when it began to work."""
        timeout = max(0, min(0.2, self.timers[0][0] - time.monotonic() if self.timers else 0.2))
        ready = self.selector.select(timeout)
        began = time.monotonic()
        for key, events in ready:
            if key.data is not None:
                key.data(events)
        while self.timers and self.timers[0][0] <= time.monotonic():
            heapq.heappop(self.timers)[2]()
        took = time.monotonic() - min(began, last + timeout + 0.05)
        if took > 0.05:
            self.stalls.append((began, took))
        return began

    def run(self):
        last, wanted, told = time.monotonic(), lambda: all(peer.is_ready() for peer in self.peers), False
        while True:
            last = self.turn(last)
            if not told and wanted():
                told = True
                self.orders.send("done")
            if self.orders.poll():
                order, told = self.orders.recv(), False
                if order == "go":
                    self.has_begun = True
                    for peer in self.peers:
                        peer.begin()
                    told = True
                elif order == "calm":
                    self.is_calm = True
                    wanted = lambda: all(peer.is_drained() for peer in self.peers)
                elif order == "ping":
                    asked = {peer: peer.answered + 1 for peer in self.peers}
                    for peer in self.peers:
                        peer.ping()
                    wanted = lambda: all(peer.answered >= asked[peer] for peer in asked)
                else:
                    self.orders.send((
                        {peer.name: peer.result() for peer in self.peers}, self.complaints, self.pings,
                    ))
                    return


def own_wait():
    with open("/proc/self/schedstat") as file:
        return int(file.read().split()[1]) / 1e9


class Peer:
    """A client identifier and what is behind it: one connection at a time, or two while it takes over."""

    def __init__(self, loop, name, number, clean=False):
        self.loop, self.name, self.clean, self.version = loop, name, clean, 5 if number % 2 else 4
        self.random = random.Random(f"{loop.seed}/{name}")
        self.socket, self.is_there, self.has_session, self.may_leave = None, False, False, True
        self.buffer, self.out = bytearray(), bytearray()
        self.connections, self.unreleased, self.old = [], set(), {}
        self.ping_sent, self.answered = None, 0
        loop.peers.append(self)
        loop.after(self.random.random() * 0.2, self.come)
        loop.after(self.random.random(), self.ping_sometimes)

    # Connections.

    def come(self):
        if self.socket:
            return
        self.socket = socket.create_connection(("127.0.0.1", self.loop.port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.loop.selector.register(self.socket, selectors.EVENT_READ, self.happens)
        self.buffer, self.out = bytearray(), bytearray()
        # When it began, when CONNACK came, when it ended.
        self.connections.append([time.monotonic(), 0, NEVER])
        lasting = wire.session_expiry(0xFFFFFFFF) if self.version == 5 and not self.clean else b""
        self.send(wire.connect(self.name, self.version, self.clean, properties=lasting))

    def forget_connection(self):
        self.count_ping("unanswered")
        self.loop.selector.unregister(self.socket)
        self.connections[-1][2] = time.monotonic()
        gone, self.socket, self.is_there = self.socket, None, False
        return gone

    def reset(self):
        gone = self.forget_connection()
        gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, wire.LINGER_NOT)
        gone.close()

    def take_over(self):
        """A second connection; what comes on the first is not looked at any more."""
        gone = self.forget_connection()
        self.old[gone] = time.monotonic()

        def drain(_):
            try:
                if gone.recv(1 << 16):
                    return
            except BlockingIOError:
                return
            except OSError:
                pass
            self.loop.selector.unregister(gone)
            gone.close()
            del self.old[gone]
        self.loop.selector.register(gone, selectors.EVENT_READ, drain)
        self.come()

    def send(self, data):
        self.out += data
        self.flush()

    def flush(self):
        try:
            sent = self.socket.send(self.out) if self.out else 0
            del self.out[:sent]
        except BlockingIOError:
            pass
        except OSError:
            return
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if self.out else 0)
        self.loop.selector.modify(self.socket, events, self.happens)

    def happens(self, events):
        if events & selectors.EVENT_WRITE:
            self.flush()
        if not events & selectors.EVENT_READ:
            return
        try:
            data = self.socket.recv(1 << 18)
        except BlockingIOError:
            return
        except OSError as why:
            data = str(why).encode() and b""
        if not data:
            self.loop.complain(f"{self.name}: the broker closed connection {len(self.connections) - 1}")
            self.forget_connection().close()
            self.loop.after(0.1, self.come)
            return
        self.buffer += data
        now = time.monotonic()
        for first, body in wire.take(self.buffer):
            self.packet(now, first, body)

    def packet(self, now, first, body):
        kind = first >> 4
        if kind == wire.CONNACK:
            if body[1]:
                return self.loop.complain(f"{self.name}: CONNACK {body.hex()}")
            if self.has_session and not body[0] & 1:
                self.loop.complain(f"{self.name}: its session was gone on connection {len(self.connections) - 1}")
            self.connections[-1][1] = now
            self.is_there, self.has_session = True, not self.clean
            self.arrived(now)
        elif kind == wire.PINGRESP:
            self.count_ping(None)
            self.answered += 1
            self.ping_answered(now)
        elif kind == wire.DISCONNECT:
            self.loop.complain(f"{self.name}: DISCONNECT {body.hex()}")
        else:
            self.take(now, kind, first, body)

    # Pings.

    def ping_sometimes(self):
        self.ping()
        self.loop.after(0.3 + self.random.random(), self.ping_sometimes)

    def ping(self):
        if self.is_there and self.ping_sent is None:
            self.ping_sent = (time.monotonic(), own_wait())
            self.send(wire.PINGREQ)
            self.ping_asked()

    def count_ping(self, what):
        if self.ping_sent is None:
            return
        (sent, waited), now = self.ping_sent, time.monotonic()
        self.ping_sent = None
        self.loop.pings[0] += 1
        if now - sent > 0.25:
            longest = max((took for at, took in self.loop.stalls if at >= sent - took), default=0)
            self.loop.pings[1].append((now - sent, sent, max(own_wait() - waited, longest), self.name, what))

    # What happens to it.

    def begin(self):
        self.loop.after(self.random.uniform(1, 10), self.suffer)

    def suffer(self):
        if self.loop.is_calm:
            return
        if self.is_there and self.may_leave:
            what = self.random.choices(("reset", "take over", "leave", "again"), (4, 3, 1, 2))[0]
            if what == "reset":
                self.reset()
                self.loop.after(self.random.choice((0, 0.01, 0.3, 2)) * self.random.random(), self.come)
            elif what == "take over":
                self.take_over()
            elif what == "leave":
                self.socket.send(wire.GOODBYE)
                self.forget_connection().close()
                self.loop.after(3 * self.random.random(), self.come)
            else:
                self.again()
        self.loop.after(self.random.choice((0.05, 5, 10)) * self.random.random(), self.suffer)

    def arrived(self, now):
        pass

    def again(self):
        pass

    def take(self, now, kind, first, body):
        pass

    def ping_asked(self):
        pass

    def ping_answered(self, now):
        pass

    def is_ready(self):
        return self.is_there

    def is_drained(self):
        return self.is_there and not self.old

    def result(self):
        for since in self.old.values():
            if time.monotonic() - since > 10:
                self.loop.complain(f"{self.name}: a connection that it had taken over stands after {time.monotonic() - since:.0f} s")
        return {"connections": self.connections}


class Publisher(Peer):
    def __init__(self, loop, number):
        super().__init__(loop, f"publisher-{number}", number)
        self.streams = [i for i, (_, publisher, _) in enumerate(STREAMS) if publisher == number]
        self.published = {stream: Published() for stream in self.streams}
        # By packet identifier, in order: [stream, number, packet, whether the broker has said that it has it].
        self.unacknowledged, self.identifier = {}, 0
        self.zero = next(stream for stream in self.streams if STREAMS[stream][0] == "q0")
        self.zero_known = self.zero_asked = 0

    def begin(self):
        super().begin()
        self.publish_some()

    def publish_some(self):
        if self.loop.is_calm:
            return
        if self.is_there and len(self.unacknowledged) < WINDOW:
            for _ in range(self.random.choice((1, 1, 2, 10))):
                self.publish(self.random.choice(self.streams))
        self.loop.after(self.random.choice((0.005, 0.05, 0.1, 0.3)) * self.random.random(), self.publish_some)

    def publish(self, stream):
        retained, qos, known = STREAMS[stream][0] == "r", qos_of(stream), self.published[stream]
        if retained and any(entry[0] == stream for entry in self.unacknowledged.values()):
            return
        sequence = len(known.sent)
        identifier = self.free_identifier() if qos else 0
        data = wire.publish(STREAMS[stream][2], payload_of(stream, sequence), qos, identifier, retained, False, self.version)
        known.sent.append(time.monotonic())
        known.acked.append(0)
        known.copies.append(1)
        known.connection.append(len(self.connections) - 1)
        if qos:
            self.unacknowledged[identifier] = [stream, sequence, data, False]
        self.send(data)

    def free_identifier(self):
        while True:
            self.identifier = self.identifier % 65_535 + 1
            if self.identifier not in self.unacknowledged:
                return self.identifier

    def arrived(self, now):
        for identifier, (stream, sequence, data, is_taken) in self.unacknowledged.items():
            if is_taken:
                self.send(wire.acknowledge(wire.PUBREL, identifier))
            else:
                self.published[stream].copies[sequence] = min(255, self.published[stream].copies[sequence] + 1)
                self.send(bytes([data[0] | 8]) + data[1:])

    def take(self, now, kind, first, body):
        identifier = body[0] << 8 | body[1]
        entry = self.unacknowledged.get(identifier)
        # A PUBREL that is sent again may find that its message was released already (0x92).
        if len(body) > 2 and body[2] >= 0x80 and (kind, body[2]) != (wire.PUBCOMP, 0x92):
            self.loop.complain(f"{self.name}: acknowledgement {first:#x} {body.hex()}")
        if kind == wire.PUBREC:
            self.send(wire.acknowledge(wire.PUBREL, identifier))
        if entry is None:
            return
        known, sequence = self.published[entry[0]], entry[1]
        if not known.acked[sequence]:
            known.acked[sequence] = now
        if kind == wire.PUBREC:
            entry[3] = True
        elif kind in (wire.PUBACK, wire.PUBCOMP):
            del self.unacknowledged[identifier]

    def ping_asked(self):
        self.zero_asked = len(self.published[self.zero].sent)

    def ping_answered(self, now):
        """What went before the PINGREQ on this connection has been handled."""
        known = self.published[self.zero]
        for sequence in range(self.zero_known, self.zero_asked):
            if known.connection[sequence] == len(self.connections) - 1:
                known.acked[sequence] = now
        self.zero_known = max(self.zero_known, self.zero_asked)

    def is_drained(self):
        return super().is_drained() and not self.unacknowledged

    def result(self):
        return super().result() | {"published": self.published}


class Subscriber(Peer):
    """Subscribes to its filters, all at once, and records what comes."""

    def __init__(self, loop, name, number, filters, qos, clean=False, plant=None):
        super().__init__(loop, name, number, clean)
        self.filters, self.qos, self.plant = filters, qos, plant
        self.identifier, self.pending, self.is_subscribed, self.asked_at = 0, {}, False, None
        # Each [SUBSCRIBE sent, SUBACK, UNSUBSCRIBE sent, UNSUBACK].
        self.subscriptions, self.received, self.kept_back = [], {}, None

    def arrived(self, now):
        self.pending = {}
        if self.clean:
            self.is_subscribed = False
            self.unreleased = set()
        if not self.is_subscribed:
            self.subscribe()

    def again(self):
        if self.is_subscribed:
            self.subscribe()

    def subscribe(self):
        self.identifier = self.identifier % 65_535 + 1
        self.pending[self.identifier] = time.monotonic()
        # What had no answer may have been handled all the same.
        self.asked_at = self.asked_at or self.pending[self.identifier]
        # 5.0: retained messages only if the subscription is new, for some.
        options = self.qos | (0x10 if self.version == 5 and self.identifier % 2 else 0)
        self.send(wire.subscribe(self.identifier, self.filters, options, self.version))

    def take(self, now, kind, first, body):
        if kind == wire.PUBLISH:
            topic, payload, qos, identifier = wire.open_publish(first, body, self.version)
            if qos == 1:
                self.send(wire.acknowledge(wire.PUBACK, identifier))
            elif qos == 2:
                self.send(wire.acknowledge(wire.PUBREC, identifier))
                if identifier in self.unreleased:
                    return
                self.unreleased.add(identifier)
            self.record(now, topic, payload, bool(first & 8))
        elif kind == wire.PUBREL:
            identifier = body[0] << 8 | body[1]
            self.unreleased.discard(identifier)
            self.send(wire.acknowledge(wire.PUBCOMP, identifier))
        elif kind == wire.SUBACK:
            self.subscribed(now, body)
        elif kind == wire.UNSUBACK:
            self.unsubscribed(now, body)

    def subscribed(self, now, body):
        sent = self.pending.pop(body[0] << 8 | body[1], None)
        if max(body[3 if self.version == 5 else 2:]) > 2:
            self.loop.complain(f"{self.name}: SUBACK {body.hex()}")
        if sent is not None and not self.is_subscribed:
            self.is_subscribed = True
            self.subscriptions.append([self.asked_at, now, NEVER, NEVER])

    def unsubscribed(self, now, body):
        if self.pending.pop(body[0] << 8 | body[1], None) is not None and self.subscriptions:
            self.subscriptions[-1][3] = now
            self.asked_at = None

    def record(self, now, topic, payload, is_dup):
        stream, sequence = struct.unpack(">HI", payload[:6])
        if BY_TOPIC.get(topic) != stream or payload != payload_of(stream, sequence):
            return self.loop.complain(f"{self.name}: a damaged message on {topic}: {payload[:20].hex()}, {len(payload)} bytes")
        received = self.received.get(stream)
        if received is None:
            received = self.received[stream] = Received()
        connection = len(self.connections) - 1
        if self.plant and self.planted(STREAMS[stream][0], received, sequence, is_dup, connection, now):
            return
        received.add(sequence, is_dup, connection, now)

    def planted(self, kind, received, sequence, is_dup, connection, now):
        """Records a fault once, so that the oracle can be seen to find it; whether the message is dealt with."""
        what, of = self.plant
        if kind != of or sequence < 20 or is_dup:
            return False
        if what == "swap":
            if self.kept_back is None:
                self.kept_back = sequence
                return True
            received.add(sequence, is_dup, connection, now)
            received.add(self.kept_back, False, connection, now)
        elif what == "double":
            received.add(sequence, False, connection, now)
            received.add(sequence, False, connection, now)
        elif what == "back":
            received.add(sequence, False, connection, now)
            received.add(sequence - 1, False, connection, now)
        self.plant = None
        return True

    def is_ready(self):
        return self.is_there and self.is_subscribed

    def result(self):
        return super().result() | {"received": self.received, "subscriptions": self.subscriptions}


class Comer(Subscriber):
    """Subscribes and unsubscribes all the time."""

    def begin(self):
        super().begin()
        self.loop.after(self.random.random(), self.change)

    def arrived(self, now):
        self.pending = {}
        # Whether an UNSUBSCRIBE that had no answer was handled is not known: once more.
        if self.subscriptions and self.subscriptions[-1][2] != NEVER and self.subscriptions[-1][3] == NEVER:
            self.unsubscribe()
        elif not self.is_subscribed and not self.loop.has_begun:
            self.subscribe()

    def again(self):
        if self.is_subscribed and not self.pending:
            self.subscribe()

    def change(self):
        if self.is_there and not self.pending and not self.loop.is_calm:
            if self.is_subscribed:
                self.is_subscribed = False
                self.subscriptions[-1][2] = time.monotonic()
                self.unsubscribe()
            else:
                self.subscribe()
        self.loop.after(self.random.choice((1, 5, 15)) * self.random.random(), self.change)

    def unsubscribe(self):
        self.identifier = self.identifier % 65_535 + 1
        self.pending[self.identifier] = time.monotonic()
        self.send(wire.unsubscribe(self.identifier, self.filters, self.version))


class Newcomer(Subscriber):
    """Comes again and again as somebody new and asks for retained values."""

    def begin(self):
        self.loop.after(self.random.random(), self.renew)

    def arrived(self, now):
        # Before SUBSCRIBE is sent.
        self.starts = getattr(self, "starts", [])
        self.starts.append(now)
        super().arrived(now)

    def renew(self):
        if self.loop.is_calm:
            return
        if self.is_there:
            self.socket.send(wire.GOODBYE)
            self.forget_connection().close()
            self.come()
        self.loop.after(0.2 + 3 * self.random.random(), self.renew)

    def result(self):
        return super().result() | {"starts": self.starts}


def clients(port, orders, seed, make):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    loop = Loop(port, orders, seed)
    make(loop)
    loop.run()


def casts(plant):
    """What each process of clients plays."""
    of = {"lose": ("lose", "q1"), "double": ("double", "q2"), "swap": ("swap", "q1"), "gap": ("lose", "q0"),
          "lose-shared": ("lose", "s0"), "double-shared": ("double", "s0"), "back": ("back", "r")}.get(plant)
    for_plain = of if of and of[1][0] == "q" else None
    for_shared = of if of and of[1][0] == "s" else None
    for_retained = of if of and of[1] == "r" else None

    def publishers(numbers):
        return lambda loop: [Publisher(loop, number) for number in numbers]

    def plain(loop):
        for i in range(PLAIN):
            Subscriber(loop, f"plain-{i}", i, ["q0/+", "q1/+", "q2/#"], 2, plant=for_plain if i == 0 else None)

    def shared(loop):
        for group in range(GROUPS):
            for i in range(MEMBERS):
                # The last ones have no session to come back to: what they had goes to others.
                name, clean = f"member-{group}-{i}", i >= MEMBERS - 2
                Subscriber(loop, name, i, [f"$share/g{group}/s{group}/+"], 1, clean, for_shared if (group, i) == (0, 0) else None)

    def others(loop):
        for i in range(COMERS):
            Comer(loop, f"comer-{i}", i, [f"q{i % 3}/{i % PUBLISHERS}"], i % 3)
        for i in range(WATCHERS):
            Subscriber(loop, f"watcher-{i}", i, ["r/+/+"], 1, plant=for_retained if i == 0 else None)
            Newcomer(loop, f"newcomer-{i}", i, ["r/#"], i % 2, clean=True)

    return [publishers(range(0, PUBLISHERS, 2)), publishers(range(1, PUBLISHERS, 2)), plain, shared, others]


def hog(seed):
    wire.be_nice(-5)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pick = random.Random(seed)
    while True:
        end = time.monotonic() + pick.choice((0.05, 0.15, 0.3, 0.6))
        while time.monotonic() < end:
            pass
        time.sleep(pick.choice((0.001, 0.01, 0.05)))


class Sampler(threading.Thread):
    """How long the broker's threads have waited for a CPU, and when it was stopped."""

    def __init__(self, broker):
        super().__init__(daemon=True)
        self.broker, self.at, self.waits, self.stops, self.is_over = broker, [], [], [], False

    def sample(self):
        try:
            waits = {thread: wait for thread, (_, wait) in self.broker.schedule().items()}
        except OSError:
            return
        self.at.append(time.monotonic())
        self.waits.append(waits)

    def run(self):
        while not self.is_over:
            self.sample()
            time.sleep(0.1)

    def waited(self, begin, end):
        """Seconds that the thread which waited most was ready to run without a CPU."""
        first = self.waits[max(0, bisect.bisect_left(self.at, begin) - 1)]
        last = self.waits[min(len(self.at) - 1, bisect.bisect_right(self.at, end))]
        return max((last[thread] - first.get(thread, 0) for thread in last), default=0) / 1e9

    def stopped(self, begin, end):
        return sum(max(0, min(end, until) - max(begin, since)) for since, until in self.stops)


# The oracle.

class Oracle:
    def __init__(self, results, start):
        self.results, self.start, self.found, self.totals = results, start, collections.Counter(), collections.Counter()
        self.lines = []
        self.published = {}
        for result in results.values():
            self.published |= result.get("published", {})

    def violation(self, kind, text):
        self.found[kind] += 1
        if self.found[kind] <= SHOWN_MAX:
            self.lines.append(f"{kind}: {text}")

    def what(self, stream, sequence):
        known = self.published[stream]
        if sequence >= len(known.sent):
            return f"number {sequence} of {STREAMS[stream][2]}, which was never published"
        acked = f"acknowledged at {known.acked[sequence] - self.start:.3f} s" if known.acked[sequence] else "not acknowledged"
        return (f"number {sequence} of publisher-{STREAMS[stream][1]} on {STREAMS[stream][2]} (sent at {known.sent[sequence] - self.start:.3f} s, "
                f"{known.copies[sequence]} times, {acked})")

    def streams(self, *kinds):
        return [i for i, (kind, _, _) in enumerate(STREAMS) if kind[:1] in kinds or kind in kinds]

    def check(self):
        for name, result in self.results.items():
            if name.startswith(("plain", "comer")):
                for stream in self.streams("q1", "q2"):
                    self.plain(name, result, stream)
                for stream in self.streams("q0"):
                    self.gaps(name, result, stream)
            if name.startswith(("watcher", "newcomer")):
                for stream in self.streams("r"):
                    self.retained(name, result, stream)
        for group in range(GROUPS):
            for stream in self.streams(f"s{group}"):
                self.shared(group, stream)
        for stream, known in self.published.items():
            self.totals[f"published {STREAMS[stream][0][0] + (STREAMS[stream][0][1:] if STREAMS[stream][0][0] == 'q' else '')}"] += len(known.sent)
            if qos_of(stream):
                for sequence, acked in enumerate(known.acked):
                    if not acked:
                        self.violation("not acknowledged", self.what(stream, sequence))

    def is_owed(self, result, stream, sequence):
        """Sent after a SUBACK had come, and acknowledged well before UNSUBSCRIBE was sent: by the standard, an UNSUBSCRIBE
        may drop what has not been sent yet."""
        known = self.published[stream]
        sent, acked = known.sent[sequence], known.acked[sequence] + LEAVING_SECONDS
        return known.acked[sequence] and any(suback < sent and acked < until for _, suback, until, _ in result["subscriptions"])

    def plain(self, name, result, stream):
        filters = name.startswith("plain") or STREAMS[stream][2] == f"q{int(name[6:]) % 3}/{int(name[6:]) % PUBLISHERS}"
        received, known = result["received"].get(stream) or Received(), self.published[stream]
        seen, last = set(), -1
        for sequence, is_dup, at in zip(received.sequence, received.is_dup, received.at):
            self.totals["received plain"] += 1
            if sequence >= len(known.sent) or not filters:
                self.violation("not asked for", f"{name} got {self.what(stream, sequence)}")
                continue
            if sequence in seen:
                self.totals["repeated"] += 1
                if qos_of(stream) == 2 or not (is_dup or known.copies[sequence] > 1):
                    self.violation(f"QoS {qos_of(stream)} doubled", f"{name} got once more at {at - self.start:.3f} s {self.what(stream, sequence)}")
            else:
                seen.add(sequence)
                if sequence < last:
                    self.violation(f"QoS {qos_of(stream)} out of order", f"{name} got at {at - self.start:.3f} s, after {last}, {self.what(stream, sequence)}")
                last = max(last, sequence)
        if not filters:
            return
        for sequence in range(len(known.sent)):
            if sequence not in seen and self.is_owed(result, stream, sequence):
                self.violation(f"QoS {qos_of(stream)} lost", f"{name} never got {self.what(stream, sequence)}; subscribed "
                               f"{self.times(result, known.sent[sequence])}")
        self.unasked(name, result, stream, seen)

    def times(self, result, at):
        """The subscriptions around a time."""
        near = [sub for sub in result["subscriptions"] if sub[1] - 5 < at < sub[2] + 5]
        return ", ".join(f"{since - self.start:.3f} s to {until - self.start:.3f} s" for _, since, until, _ in near)

    def unasked(self, name, result, stream, seen):
        """What was sent after an UNSUBACK had come and acknowledged before the next SUBSCRIBE was sent is not for it."""
        known, subscriptions = self.published[stream], result["subscriptions"]
        for before, after in zip(subscriptions, [*subscriptions[1:], [NEVER] * 4]):
            begin = bisect.bisect_right(known.sent, before[3])
            for sequence in range(begin, len(known.sent)):
                if known.sent[sequence] >= after[0]:
                    break
                if sequence in seen and 0 < known.acked[sequence] < after[0]:
                    self.violation("not asked for", f"{name}, who had left at {before[3] - self.start:.3f} s, got {self.what(stream, sequence)}")

    def gaps(self, name, result, stream):
        """On one connection, nothing is left out of what was handled and sent after CONNACK, and before the last that came."""
        received, known = result["received"].get(stream) or Received(), self.published[stream]
        by_connection = collections.defaultdict(list)
        for sequence, connection, at in zip(received.sequence, received.connection, received.at):
            by_connection[connection].append(sequence)
            self.totals["received QoS 0"] += 1
        for connection, sequences in by_connection.items():
            for before, after in zip(sequences, sequences[1:]):
                if after <= before:
                    self.violation("QoS 0 out of order", f"{name}, connection {connection}, got after {before} {self.what(stream, after)}")
        is_comer = name.startswith("comer")
        if is_comer and STREAMS[stream][2] != f"q{int(name[6:]) % 3}/{int(name[6:]) % PUBLISHERS}":
            return
        for connection, (_, connack, end) in enumerate(result["connections"]):
            if not connack:
                continue
            got = by_connection.get(connection, [])
            # A connection that stands at the end gets everything; one that was cut what came before its last.
            last = len(known.sent) if end == NEVER else (got[-1] if got else -1)
            via = known.connection[last] if last < len(known.sent) and last >= 0 else None
            having = set(got)
            for sequence in range(bisect.bisect_right(known.sent, connack), last):
                is_handled = known.acked[sequence] or known.connection[sequence] == via
                if sequence in having or not is_handled:
                    continue
                if is_comer and not self.is_owed(result, stream, sequence):
                    continue
                if known.sent[sequence] > min(sub[1] for sub in result["subscriptions"]):
                    self.violation("QoS 0 lost", f"{name}, connection {connection} since {connack - self.start:.3f} s, never got {self.what(stream, sequence)}")

    def shared(self, group, stream):
        known, members = self.published[stream], {}
        receipts = collections.defaultdict(list)
        for name, result in self.results.items():
            received = name.startswith("member-") and result["received"].get(stream)
            if not received:
                continue
            if not name.startswith(f"member-{group}-"):
                self.violation("not asked for", f"{name} got something of {STREAMS[stream][2]}")
            members[name] = result
            for sequence, is_dup, connection, at in zip(received.sequence, received.is_dup, received.connection, received.at):
                receipts[sequence].append((at, name, is_dup, result["connections"][connection][2]))
                self.totals["received shared"] += 1
        for sequence, acked in enumerate(known.acked):
            if acked and sequence not in receipts:
                self.violation("shared lost", f"no member of g{group} got {self.what(stream, sequence)}")
        for sequence, all_of_it in receipts.items():
            if len(all_of_it) < 2:
                continue
            self.totals["repeated"] += len(all_of_it) - 1
            all_of_it.sort()
            for (first_at, first, _, ended), (at, name, is_dup, _) in zip(all_of_it, all_of_it[1:]):
                if not is_dup and known.copies[sequence] < 2 and ended > at:
                    self.violation("shared doubled", f"{name} got at {at - self.start:.3f} s, after {first} at {first_at - self.start:.3f} s, "
                                   f"{self.what(stream, sequence)}")

    def retained(self, name, result, stream):
        received, known = result["received"].get(stream) or Received(), self.published[stream]
        highest, connection_before = -1, None
        for sequence, is_dup, connection, at in zip(received.sequence, received.is_dup, received.connection, received.at):
            self.totals["received retained"] += 1
            if name.startswith("newcomer") and connection != connection_before:
                # Nothing of what it had before counts; but what was acknowledged before it asked does.
                highest, connection_before = -1, connection
                asked = result["starts"][connection] if connection < len(result["starts"]) else 0
                newest = self.acknowledged_before(known, asked)
                if sequence < newest:
                    self.violation("retained stale", f"{name}, who subscribed at {asked - self.start:.3f} s, began with {self.what(stream, sequence)}, "
                                   f"though {newest} was acknowledged before")
            if sequence < highest and not is_dup:
                self.violation("retained went back", f"{name}, connection {connection}, got at {at - self.start:.3f} s, after {highest}, "
                               f"{self.what(stream, sequence)}")
            highest = max(highest, sequence)
        last_acked = max((sequence for sequence, acked in enumerate(known.acked) if acked), default=-1)
        last_got = received.sequence[-1] if len(received.sequence) else -1
        if last_got < last_acked:
            self.violation("retained stale", f"{name} has {last_got} at last, not {self.what(stream, last_acked)}")

    @staticmethod
    def acknowledged_before(known, at):
        """One is under way at a time: acknowledgements are in order."""
        newest = bisect.bisect_right(known.sent, at) - 1
        while newest >= 0 and not 0 < known.acked[newest] < at:
            newest -= 1
        return newest

    def pings(self, pings, sampler):
        worst = []
        for count, slow in pings:
            self.totals["pings"] += count
            for wait, sent, own, name, what in slow:
                stopped, waited = sampler.stopped(sent, sent + wait), sampler.waited(sent, sent + wait)
                rest = wait - stopped - waited - own
                worst.append((wait, stopped, waited, own, name, sent))
                if rest > PING_SECONDS_MAX:
                    self.violation("late PINGRESP", f"{name} {'had none' if what else 'waited'} after {wait:.2f} s, since {sent - self.start:.3f} s: the broker was "
                                   f"stopped for {stopped:.2f} s, waited for a CPU for {waited:.2f} s; the client was late by {own:.2f} s")
        return max(worst, default=None)


def last_values(oracle, port, name="the last to come"):
    """A new subscriber at the end has the last acknowledged value of each retained topic."""
    client, values = Client(port).open("last"), {}
    client.send(wire.subscribe(1, ["r/#"], 1))
    wanted = {s: max((i for i, acked in enumerate(oracle.published[s].acked) if acked), default=-1) for s in oracle.streams("r")}
    client.socket.settimeout(3)
    try:
        while sum(value >= 0 for value in wanted.values()) > len(values):
            _, payload, _, _ = wire.open_publish(0x32, client.read_kind(wire.PUBLISH))
            stream, sequence = struct.unpack(">HI", payload[:6])
            values[stream] = sequence
    except TimeoutError:
        pass
    for stream, last in wanted.items():
        if values.get(stream, -1) != last:
            oracle.violation("retained stale", f"{name} has {values.get(stream, 'nothing')}, not {oracle.what(stream, last)}")
    client.close()


def await_all(pipes, what, seconds):
    end = time.monotonic() + seconds
    for pipe in pipes:
        if not pipe.poll(max(0, end - time.monotonic())):
            return f"clients are not {what} after {seconds} s"
        pipe.recv()
    return None


def drain(broker, pipes):
    """Everybody comes back, all is acknowledged; what goes on is said, if it does not end."""
    for pipe in pipes:
        pipe.send("calm")
    problem = await_all(pipes, "back with everything acknowledged", 120)
    end = time.monotonic() + 60
    while not problem:
        counters = broker.counters()
        if not counters["queued_messages"] and not counters["inflight_messages"]:
            break
        if time.monotonic() > end:
            problem = f"{counters['queued_messages']} messages stay queued, {counters['inflight_messages']} in flight"
        time.sleep(0.3)
    for pipe in pipes:
        while pipe.poll(0):
            pipe.recv()
    time.sleep(0.5)
    for pipe in pipes:
        pipe.send("ping")
    return problem or await_all(pipes, "answered", 60)


def torture(broker, options, sampler, pipes):
    """Chaos for the time that was asked for."""
    pick, end = random.Random(options.seed), time.monotonic() + options.seconds
    next_stop = time.monotonic() + pick.uniform(2, 15)
    while time.monotonic() < end and broker.is_alive():
        time.sleep(0.05)
        if time.monotonic() >= next_stop:
            since = time.monotonic()
            broker.signal(signal.SIGSTOP)
            time.sleep(pick.choice((0.01, 0.1, 0.5, 2)) * pick.random())
            broker.signal(signal.SIGCONT)
            sampler.stops.append((since, time.monotonic()))
            next_stop = time.monotonic() + pick.uniform(2, 15)


def judge(oracle, options, broker, sampler, told, problem):
    if problem:
        oracle.violation("does not drain", problem)
    for complaint in (text for _, complaints, _ in told for text in complaints):
        oracle.violation("client", complaint)
    oracle.check()
    worst = oracle.pings([pings for _, _, pings in told], sampler)
    last_values(oracle, broker.port)
    counters = broker.counters()
    for name, value in counters.items():
        # QoS 0 for who is away is dropped by design.
        if value and name.startswith(("dropped_", "protocol_errors", "shards_silent")) and name != "dropped_client_absent":
            oracle.violation("counter", f"{name}={value}")
    for line in oracle.lines:
        print(line)
    for kind, count in oracle.found.items():
        if count > SHOWN_MAX:
            print(f"{kind}: {count} in all")
    if worst:
        wait, stopped, waited, own, name, sent = worst
        print(f"worst PINGRESP: {name} after {wait:.2f} s, since {sent - oracle.start:.3f} s: broker stopped {stopped:.2f} s, waited for a CPU "
              f"{waited:.2f} s; client late {own:.2f} s")
    totals = ", ".join(f"{name} {count:,}" for name, count in sorted(oracle.totals.items()))
    print(f"{'VIOLATED' if oracle.found else 'clean'}: seed {options.seed}, {options.seconds} s, {options.shards} shards, {options.hogs} hogs: {totals}, "
          f"connections {counters['connections_accepted']:,}, takeovers {counters['takeovers']:,}, stops {len(sampler.stops)}, "
          f"longest turn {counters['turn_us_max'] / 1000:.1f} ms, {sampler.waited(0, NEVER):.1f} s without a CPU")
    return not oracle.found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--hogs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--plant", help=argparse.SUPPRESS)
    wire.broker_option(parser)
    options = parser.parse_args()
    options.seed = random.randrange(1 << 32) if options.seed is None else options.seed
    print(f"seed {options.seed}", flush=True)
    wire.raise_open_files()
    with Broker(os.path.abspath(options.broker), options.shards, CONFIG) as broker:
        pipes, processes = [], []
        for make in casts(options.plant):
            ours, theirs = multiprocessing.Pipe()
            processes.append(multiprocessing.Process(target=clients, args=(broker.port, theirs, options.seed, make), daemon=True))
            processes[-1].start()
            theirs.close()
            pipes.append(ours)
        hogs = [multiprocessing.Process(target=hog, args=(f"{options.seed}/{i}",), daemon=True) for i in range(options.hogs)]
        sampler = Sampler(broker)
        try:
            if problem := await_all(pipes, "there", 60):
                sys.exit(problem)
            sampler.start()
            for process in hogs:
                process.start()
            start = time.monotonic()
            for pipe in pipes:
                pipe.send("go")
            torture(broker, options, sampler, pipes)
            for process in hogs:
                process.kill()
            if not broker.is_alive():
                sys.exit(f"VIOLATED: seed {options.seed}: the broker has ended: {broker.log()[-3000:]}")
            problem = drain(broker, pipes)
            sampler.is_over = True
            sampler.sample()
            for pipe in pipes:
                while pipe.poll(0):
                    pipe.recv()
                pipe.send("finish")
            told = [pipe.recv() for pipe in pipes]
            results = {name: result for by_name, _, _ in told for name, result in by_name.items()}
            is_clean = judge(Oracle(results, start), options, broker, sampler, told, problem)
        finally:
            for process in [*processes, *hogs]:
                if process.pid:
                    process.kill()
    sys.exit(0 if is_clean else 1)


if __name__ == "__main__":
    main()
