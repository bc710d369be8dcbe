"""The clients of `torture.py`: what they publish, receive, suffer and remember.

A process has a loop and some clients. Each knows only what it did and saw, by the clock that all processes share.
"""

import array
import collections
import heapq
import random
import selectors
import socket
import struct
import time

import wire

PUBLISHERS, GROUPS, RETAINED = 8, 3, 4
WINDOW = 60
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
    """What a publisher knows of a stream, by number: when first sent, when acknowledged (0: not), how often sent, on
    which connection first."""

    def __init__(self):
        self.sent, self.acked = array.array("d"), array.array("d")
        self.copies, self.connection = array.array("B"), array.array("H")


class Received:
    """What a subscriber has of a stream, in order."""

    def __init__(self):
        self.sequence, self.at = array.array("I"), array.array("d")
        self.is_dup, self.is_live, self.connection = array.array("B"), array.array("B"), array.array("H")

    def add(self, sequence, is_dup, is_live, connection, at):
        self.sequence.append(sequence)
        self.is_dup.append(is_dup)
        self.is_live.append(is_live)
        self.connection.append(connection)
        self.at.append(at)

    def rows(self):
        return zip(self.sequence, self.is_dup, self.connection, self.at)


def topic_of_comer(name):
    """The topic that a client of this name comes for, and goes."""
    return f"q{int(name[6:]) % 3}/{int(name[6:]) % PUBLISHERS}"


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
        self.count_ping("had none")
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
                self.loop.complain(f"{self.name}: the broker has not closed a connection that was taken over")
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
        topic, payload = STREAMS[stream][2], payload_of(stream, sequence)
        data = wire.publish(topic, payload, qos, identifier, retained, False, self.version)
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
            self.record(now, topic, payload, bool(first & 8), not first & 1)
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

    def record(self, now, topic, payload, is_dup, is_live):
        stream, sequence = struct.unpack(">HI", payload[:6])
        if BY_TOPIC.get(topic) != stream or payload != payload_of(stream, sequence):
            shown = f"{payload[:20].hex()}, {len(payload)} bytes"
            return self.loop.complain(f"{self.name}: a damaged message on {topic}: {shown}")
        received = self.received.get(stream)
        if received is None:
            received = self.received[stream] = Received()
        connection = len(self.connections) - 1
        if self.plant and not is_dup and self.planted(STREAMS[stream][0], received, sequence, connection, now):
            return
        received.add(sequence, is_dup, is_live, connection, now)

    def planted(self, kind, received, sequence, connection, now):
        """Records a fault once, so that the oracle can be seen to find it; whether the message is dealt with."""
        what, of = self.plant
        if kind != of or sequence < 20 or self.kept_back not in (None, received):
            return False
        if what == "swap" and self.kept_back is None:
            self.kept_back = received
            return True
        recorded = {"lose": [], "double": [sequence] * 2}.get(what, [sequence, sequence - 1])
        for number in recorded:
            received.add(number, False, True, connection, now)
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
