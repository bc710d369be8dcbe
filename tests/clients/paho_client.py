"""Everything the interoperability tests ask of a client, done by Paho Python.

Called as: paho_client.py PORT VERSION(4|5) SCENARIO [SCHEME [CA [CERTIFICATE KEY]]]. Exit code 0 means the
scenario held.
"""

import queue
import socket
import sys
import uuid

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

PATIENCE = 60
PORT, VERSION = int(sys.argv[1]), int(sys.argv[2])
SCHEME = sys.argv[4] if len(sys.argv) > 4 else "mqtt"
FILES = sys.argv[5:]
V5 = VERSION == 5


class Peer:
    """One connection with its events in queues."""

    def __init__(self, client_id=None, persistent=False, will=None):
        self.client_id = client_id or "paho-" + uuid.uuid4().hex[:12]
        self.events, self.messages = queue.Queue(), queue.Queue()
        extra = {} if V5 else {"clean_session": not persistent}
        self.client = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2,
            client_id=self.client_id,
            protocol=mqtt.MQTTv5 if V5 else mqtt.MQTTv311,
            transport="websockets" if SCHEME.startswith("ws") else "tcp",
            reconnect_on_failure=False,
            **extra,
        )
        if SCHEME in ("mqtts", "wss"):
            self.client.tls_set(*FILES)
        self.client.max_inflight_messages_set(20)
        self.client.max_queued_messages_set(0)
        self.client.on_connect = lambda c, u, flags, code, p: self.events.put((flags, code))
        self.client.on_subscribe = lambda c, u, mid, codes, p: self.events.put(codes)
        self.client.on_message = lambda c, u, message: self.messages.put(message)
        if will:
            self.client.will_set(will, "gone", qos=1)
        options = {}
        if V5:
            properties = Properties(PacketTypes.CONNECT)
            if persistent:
                properties.SessionExpiryInterval = 600
            options = {"clean_start": not persistent, "properties": properties}
        # Short: of a packet that ended with the hundredth read in a row Paho takes note when more bytes come only,
        # which are those of the PINGRESP.
        self.client.connect("localhost" if FILES else "127.0.0.1", PORT, keepalive=10, **options)
        self.client.loop_start()
        flags, code = self.events.get(timeout=PATIENCE)
        assert not code.is_failure, code
        self.session_present = flags.session_present

    def subscribe(self, topic, qos):
        self.client.subscribe(topic, options=SubscribeOptions(qos=qos)) if V5 else (
            self.client.subscribe(topic, qos)
        )
        codes = self.events.get(timeout=PATIENCE)
        assert [code.value for code in codes] == [qos], codes

    def publish(self, topic, payload, qos, retain=False, properties=None):
        sent = self.client.publish(topic, payload, qos, retain, properties)
        sent.wait_for_publish(PATIENCE)
        assert sent.is_published()

    def get(self):
        return self.messages.get(timeout=PATIENCE)

    def expect_only(self, sender, topic):
        """Whatever came until `sender` publishes a marker on `topic` was not wanted."""
        sender.publish(topic, b"marker", 1)
        got = self.get()
        assert got.payload == b"marker", (got.topic, got.payload[:40])

    def leave(self):
        self.client.disconnect()
        self.client.loop_stop()

    def kill(self):
        connection = self.client.socket()
        getattr(connection, "_socket", connection).shutdown(socket.SHUT_RDWR)
        self.client.loop_stop()


def topic():
    return "paho/" + uuid.uuid4().hex


def round_trips():
    a, b, where = Peer(), Peer(), topic()
    a.subscribe(where, 2)
    for qos in (0, 1, 2):
        b.publish(where, f"at {qos}", qos)
        got = a.get()
        assert (got.payload, got.qos) == (f"at {qos}".encode(), qos)
    a.expect_only(b, where)


def retained():
    a, b, where = Peer(), Peer(), topic()
    a.publish(where, "old", 1, retain=True)
    a.publish(where, "kept", 1, retain=True)
    b.subscribe(where, 1)
    got = b.get()
    assert got.retain and got.payload == b"kept"
    a.publish(where, b"", 1, retain=True)
    assert b.get().payload == b""
    c = Peer()
    c.subscribe(where, 1)
    c.expect_only(a, where)


def will():
    where = topic()
    watcher = Peer()
    watcher.subscribe(where, 1)
    Peer(will=where).kill()
    assert watcher.get().payload == b"gone"
    Peer(will=where).leave()
    watcher.expect_only(Peer(), where)


def resume():
    where, name, sender = topic(), "paho-" + uuid.uuid4().hex[:12], Peer()
    first = Peer(name, persistent=True)
    assert not first.session_present
    first.subscribe(where, 2)
    first.leave()
    for n in range(20):
        sender.publish(where, str(n), 1 + n % 2)
    # Order is owed per QoS only.
    again = Peer(name, persistent=True)
    assert again.session_present
    got = [again.get() for _ in range(20)]
    for qos in (1, 2):
        assert [int(m.payload) for m in got if m.qos == qos] == list(range(qos - 1, 20, 2))
    again.expect_only(sender, where)


def shared():
    where, sender = topic(), Peer()
    members = [Peer() for _ in range(4)]
    for member in members:
        member.subscribe("$share/g/" + where, 1)
        member.subscribe(where + "/end", 1)
    for n in range(100):
        sender.publish(where, str(n), 1)
    sender.publish(where + "/end", "end", 1)
    seen = []
    for member in members:
        while (got := member.get()).payload != b"end":
            seen.append(int(got.payload))
    assert sorted(seen) == list(range(100)), seen


def properties():
    where, a, b = topic(), Peer(), Peer()
    a.subscribe(where, 1)
    sent = Properties(PacketTypes.PUBLISH)
    sent.PayloadFormatIndicator = 1
    sent.MessageExpiryInterval = 600
    sent.ContentType = "text/plain"
    sent.ResponseTopic = "answer/here"
    sent.CorrelationData = b"\x00\xff\x80"
    sent.UserProperty = [("b", "1"), ("a", "2"), ("b", "3")]
    b.publish(where, "with all", 1, properties=sent)
    got = a.get().properties
    assert got.PayloadFormatIndicator == 1 and got.ContentType == "text/plain"
    assert 590 <= got.MessageExpiryInterval <= 600
    assert got.ResponseTopic == "answer/here" and got.CorrelationData == b"\x00\xff\x80"
    assert got.UserProperty == [("b", "1"), ("a", "2"), ("b", "3")]


def large():
    a, b, where = Peer(), Peer(), topic()
    a.subscribe(where, 1)
    payload = bytes(range(256)) * (10 * 4096)
    b.publish(where, payload, 1)
    assert a.get().payload == payload


def thousand():
    a, b = Peer(), Peer()
    for qos in (0, 1, 2):
        where = topic()
        a.subscribe(where, qos)
        last = [b.client.publish(where, str(n), qos) for n in range(1000)][-1]
        got = [int(a.get().payload) for _ in range(1000)]
        assert got == list(range(1000)), f"at QoS {qos}"
        last.wait_for_publish(PATIENCE)
        a.expect_only(b, where)


globals()[sys.argv[3]]()
