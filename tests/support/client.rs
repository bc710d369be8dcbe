//! A blocking MQTT client for tests that can send any bytes.
//!
//! Packets that arrive while the client waits for another kind of packet are kept in order and handed
//! out later, so a PUBLISH may come before the SUBACK. All waits end after [`PATIENCE`] with a failed
//! test; nothing waits for time to pass.

use super::broker::Broker;
use super::decode::{self, Packet};
use super::link::Link;
use super::wire::{Ack, Props, Publish, Version, frame, put_str};
use std::collections::VecDeque;
use std::io::ErrorKind;
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

/// How long a test waits for what must happen. Generous, so that a busy machine fails no test.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// One connection to the broker.
pub struct Client {
    stream: Box<dyn Link>,
    pub version: Version,
    received: Vec<u8>,
    stash: VecDeque<Packet>,
    next_id: u16,
    /// Session present flag of the CONNACK.
    pub session_present: bool,
    /// Properties of the CONNACK.
    pub connack: Props,
    /// Size of the largest packet the broker sent on this connection.
    pub largest_packet_bytes: usize,
}

impl Client {
    /// Opens the TCP connection and sends nothing.
    pub fn dial(broker: &Broker, version: Version) -> Self {
        let stream = TcpStream::connect(broker.address()).expect("connect to the broker");
        Self::over(stream, version)
    }

    /// A client over a socket that the test opened and perhaps tuned.
    pub fn over(stream: TcpStream, version: Version) -> Self {
        stream.set_nodelay(true).expect("set TCP_NODELAY");
        stream
            .set_read_timeout(Some(PATIENCE))
            .expect("set the read timeout");
        stream
            .set_write_timeout(Some(PATIENCE))
            .expect("set the write timeout");
        Self::across(Box::new(stream), version)
    }

    /// A client over layers that are set up already.
    pub fn across(stream: Box<dyn Link>, version: Version) -> Self {
        Client {
            stream,
            version,
            received: Vec::new(),
            stash: VecDeque::new(),
            next_id: 1,
            session_present: false,
            connack: Props::new(),
            largest_packet_bytes: 0,
        }
    }

    /// The socket, for tests about sockets.
    pub fn stream(&self) -> &TcpStream {
        self.stream.tcp()
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("send to the broker");
    }

    /// Sends bytes that the broker may already refuse by having closed the connection.
    pub fn send_lossy(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// A packet identifier this client has not used for 65,535 packets.
    pub fn fresh_id(&mut self) -> u16 {
        let id = self.next_id;
        self.next_id = self.next_id.checked_add(1).unwrap_or(1);
        id
    }

    /// The next packet, `None` when the broker closed the connection.
    pub fn next_packet(&mut self) -> Option<Packet> {
        if let Some(packet) = self.stash.pop_front() {
            return Some(packet);
        }
        self.read_packet()
    }

    fn read_packet(&mut self) -> Option<Packet> {
        loop {
            if let Some((header, length)) = decode::whole_packet(&self.received) {
                let total = header + length;
                let packet = decode::packet(
                    self.received[0],
                    &self.received[header..total],
                    self.version,
                );
                self.largest_packet_bytes = self.largest_packet_bytes.max(total);
                self.received.drain(..total);
                return Some(packet);
            }
            let mut chunk = [0u8; 65536];
            match self.stream.read(&mut chunk) {
                Ok(0) => return None,
                Ok(count) => self.received.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                // A read with a timeout is interrupted when the process was stopped meanwhile.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => panic!("no packet from the broker: {error}"),
            }
        }
    }

    /// The next packet; the connection has to be open.
    pub fn recv(&mut self) -> Packet {
        self.next_packet()
            .expect("the broker closed the connection")
    }

    /// Waits for the packet that `pick` takes and keeps the others for later.
    pub fn wait_for<T>(&mut self, what: &str, mut pick: impl FnMut(&Packet) -> Option<T>) -> T {
        for index in 0..self.stash.len() {
            if let Some(found) = pick(&self.stash[index]) {
                self.stash.remove(index);
                return found;
            }
        }
        loop {
            let packet = self
                .read_packet()
                .unwrap_or_else(|| panic!("the broker closed instead of {what}"));
            match pick(&packet) {
                Some(found) => return found,
                None => self.stash.push_back(packet),
            }
        }
    }

    /// The next packet, which has to be a PUBLISH; it is not acknowledged.
    pub fn recv_publish(&mut self) -> Publish {
        match self.recv() {
            Packet::Publish(publish) => publish,
            other => panic!("expected a PUBLISH, got {other:?}"),
        }
    }

    /// The next PUBLISH, acknowledged as its QoS asks.
    pub fn accept(&mut self) -> Publish {
        let publish = self.recv_publish();
        self.complete(&publish);
        publish
    }

    /// Takes the next PUBLISH and checks where it comes from and what it holds.
    pub fn expect(&mut self, topic: &str, payload: impl AsRef<[u8]>) -> Publish {
        let publish = self.accept();
        assert_eq!(publish.topic_str(), topic, "topic of {publish:?}");
        assert_eq!(
            String::from_utf8_lossy(&publish.payload),
            String::from_utf8_lossy(payload.as_ref()),
            "payload on {topic}"
        );
        publish
    }

    /// Acknowledges `publish` to the end of its QoS flow.
    pub fn complete(&mut self, publish: &Publish) {
        match publish.qos {
            1 => self.ack(Ack::Puback, publish.id),
            2 => {
                self.ack(Ack::Pubrec, publish.id);
                assert_eq!(self.wait_ack(Ack::Pubrel, publish.id), 0);
                self.ack(Ack::Pubcomp, publish.id);
            }
            _ => {}
        }
    }

    /// Sends an acknowledgement in its shortest form.
    pub fn ack(&mut self, kind: Ack, id: u16) {
        let flags = if kind == Ack::Pubrel { 2 } else { 0 };
        self.send(&frame((kind as u8) << 4 | flags, &id.to_be_bytes()));
    }

    /// Sends an acknowledgement with a reason code (5.0).
    pub fn ack_with(&mut self, kind: Ack, id: u16, code: u8) {
        let flags = if kind == Ack::Pubrel { 2 } else { 0 };
        let [high, low] = id.to_be_bytes();
        self.send(&frame((kind as u8) << 4 | flags, &[high, low, code]));
    }

    /// Waits for the acknowledgement `kind` of `id` and gives its reason code (0 before 5.0).
    pub fn wait_ack(&mut self, kind: Ack, id: u16) -> u8 {
        self.wait_for(&format!("{kind:?} {id}"), |packet| match packet {
            Packet::Ack {
                kind: k,
                id: i,
                code,
                ..
            } if *k == kind && *i == id => Some(*code),
            _ => None,
        })
    }

    /// Sends `publish` and waits for nothing; gives the identifier that was used.
    pub fn send_publish(&mut self, publish: &Publish) -> u16 {
        let mut publish = publish.clone();
        if publish.qos > 0 && publish.id == 0 {
            publish.id = self.fresh_id();
        }
        let bytes = publish.encode(self.version);
        self.send(&bytes);
        publish.id
    }

    /// Publishes to the end of the QoS flow; the broker has to accept. QoS 0 ends with a ping, so the
    /// broker has handled the message when this returns.
    pub fn publish_packet(&mut self, publish: &Publish) {
        let id = self.send_publish(publish);
        match publish.qos {
            0 => self.ping(),
            1 => {
                let code = self.wait_ack(Ack::Puback, id);
                assert!(code < 0x80, "PUBACK {code:#04x}");
            }
            _ => {
                let code = self.wait_ack(Ack::Pubrec, id);
                assert!(code < 0x80, "PUBREC {code:#04x}");
                self.ack(Ack::Pubrel, id);
                assert_eq!(self.wait_ack(Ack::Pubcomp, id), 0);
            }
        }
    }

    /// Publishes to the end of the QoS flow.
    pub fn publish(&mut self, topic: &str, qos: u8, payload: impl AsRef<[u8]>) {
        self.publish_packet(&Publish::new(topic, qos, payload));
    }

    /// Publishes with RETAIN to the end of the QoS flow.
    pub fn retain(&mut self, topic: &str, qos: u8, payload: impl AsRef<[u8]>) {
        self.publish_packet(&Publish::new(topic, qos, payload).retain());
    }

    /// The bytes of a SUBSCRIBE.
    pub fn subscribe_bytes<F: AsRef<[u8]>>(
        &self,
        id: u16,
        props: &Props,
        filters: &[(F, u8)],
    ) -> Vec<u8> {
        let mut body = id.to_be_bytes().to_vec();
        if self.version == Version::V5 {
            props.put(&mut body);
        }
        for (filter, options) in filters {
            put_str(&mut body, filter);
            body.push(*options);
        }
        frame(0x82, &body)
    }

    /// Sends a SUBSCRIBE and gives the codes of its SUBACK.
    pub fn subscribe_with<F: AsRef<[u8]>>(
        &mut self,
        props: &Props,
        filters: &[(F, u8)],
    ) -> Vec<u8> {
        let id = self.fresh_id();
        let bytes = self.subscribe_bytes(id, props, filters);
        self.send(&bytes);
        self.wait_suback(id)
    }

    /// Waits for the SUBACK of `id`.
    pub fn wait_suback(&mut self, id: u16) -> Vec<u8> {
        self.wait_for(&format!("SUBACK {id}"), |packet| match packet {
            Packet::Suback { id: i, codes, .. } if *i == id => Some(codes.clone()),
            _ => None,
        })
    }

    /// Subscribes to one filter, which the broker has to grant at the asked QoS.
    pub fn subscribe(&mut self, filter: &str, options: u8) {
        let codes = self.subscribe_with(&Props::new(), &[(filter, options)]);
        assert_eq!(codes, [options & 3], "subscription to {filter}");
    }

    /// Subscribes to one filter, which the broker has to refuse with this code.
    pub fn subscribe_refused(&mut self, filter: &str, code: u8) {
        let codes = self.subscribe_with(&Props::new(), &[(filter, 1)]);
        assert_eq!(codes, [code], "subscription to {filter}");
    }

    /// Publishes with QoS 1 and gives the reason code of the PUBACK.
    pub fn publish_code(&mut self, topic: &str) -> u8 {
        let id = self.send_publish(&Publish::new(topic, 1, "x"));
        self.wait_ack(Ack::Puback, id)
    }

    /// Waits for an AUTH.
    pub fn recv_auth(&mut self) -> Packet {
        self.wait_for("AUTH", |packet| {
            matches!(packet, Packet::Auth { .. }).then(|| packet.clone())
        })
    }

    /// The bytes of an UNSUBSCRIBE.
    pub fn unsubscribe_bytes<F: AsRef<[u8]>>(&self, id: u16, filters: &[F]) -> Vec<u8> {
        let mut body = id.to_be_bytes().to_vec();
        if self.version == Version::V5 {
            body.push(0);
        }
        for filter in filters {
            put_str(&mut body, filter);
        }
        frame(0xA2, &body)
    }

    /// Unsubscribes and gives the codes of the UNSUBACK (none before 5.0).
    pub fn unsubscribe(&mut self, filters: &[&str]) -> Vec<u8> {
        let id = self.fresh_id();
        let bytes = self.unsubscribe_bytes(id, filters);
        self.send(&bytes);
        self.wait_for(&format!("UNSUBACK {id}"), |packet| match packet {
            Packet::Unsuback { id: i, codes, .. } if *i == id => Some(codes.clone()),
            _ => None,
        })
    }

    /// Waits for `count` UNSUBACKs of any requests.
    pub fn expect_unsubacks(&mut self, count: usize) {
        for _ in 0..count {
            self.wait_for("UNSUBACK", |packet| {
                matches!(packet, Packet::Unsuback { .. }).then_some(())
            });
        }
    }

    /// PINGREQ and its PINGRESP: the broker has read all that was sent before.
    pub fn ping(&mut self) {
        self.send(&[0xC0, 0]);
        self.wait_for("PINGRESP", |packet| {
            (*packet == Packet::Pingresp).then_some(())
        });
    }

    /// Waits until all that any shard accepted for this client before now has been sent to it, as far
    /// as its window lets it. A SUBACK leaves only when every shard has confirmed, and mail between
    /// shards keeps its order, so whatever was on its way has arrived before; a live message behind it
    /// comes after all that waited for retained ones.
    pub fn settle(&mut self) {
        self.ping();
        let filter = super::unique("barrier");
        self.subscribe(&filter, 0);
        self.send_publish(&Publish::new(&filter, 0, ""));
        self.wait_for("the barrier", |packet| match packet {
            Packet::Publish(publish) => (publish.topic == filter.as_bytes()).then_some(()),
            _ => None,
        });
        self.unsubscribe(&[&filter]);
    }

    /// Fails if anything was sent to this client that the test has not taken.
    pub fn expect_nothing(&mut self) {
        self.settle();
        assert!(
            self.stash.is_empty(),
            "nothing was expected, but there came {:?}",
            self.stash
        );
    }

    /// All PUBLISH packets that have been sent to this client, not acknowledged.
    pub fn drain(&mut self) -> Vec<Publish> {
        self.settle();
        let mut all = Vec::new();
        while let Some(packet) = self.stash.pop_front() {
            match packet {
                Packet::Publish(publish) => all.push(publish),
                other => panic!("expected only PUBLISH packets, got {other:?}"),
            }
        }
        all
    }

    /// The broker closes the connection and sends nothing more.
    pub fn expect_closed(&mut self) {
        if let Some(packet) = self.next_packet() {
            panic!("expected the end of the connection, got {packet:?}");
        }
        self.expect_no_partial_packet();
    }

    /// The broker ends the connection for an error: 5.0 by DISCONNECT with one of `codes` and a close,
    /// older versions by the close alone.
    pub fn expect_error(&mut self, codes: &[u8]) {
        if self.version == Version::V5 {
            match self.next_packet() {
                Some(Packet::Disconnect { code, .. }) => assert!(
                    codes.contains(&code),
                    "DISCONNECT {code:#04x}, expected {codes:02x?}"
                ),
                other => panic!("expected DISCONNECT {codes:02x?}, got {other:?}"),
            }
        }
        self.expect_closed();
    }

    /// Reads until the broker closes, and drops what comes before.
    pub fn drain_to_close(&mut self) -> Vec<Packet> {
        let mut all = Vec::new();
        while let Some(packet) = self.next_packet() {
            all.push(packet);
        }
        all
    }

    fn expect_no_partial_packet(&self) {
        assert!(
            self.received.is_empty(),
            "the broker closed in the middle of a packet: {:02x?}",
            self.received
        );
    }

    /// Sends DISCONNECT and waits until the broker has closed.
    pub fn disconnect(mut self) {
        self.send(&[0xE0, 0]);
        self.drain_to_close();
    }

    /// Sends DISCONNECT with a reason code and properties (5.0) and waits until the broker has closed.
    pub fn disconnect_with(mut self, code: u8, props: &Props) {
        let mut body = vec![code];
        props.put(&mut body);
        self.send(&frame(0xE0, &body));
        self.drain_to_close();
    }

    /// Ends the connection without DISCONNECT and waits until the broker has noticed.
    pub fn cut(mut self) {
        self.stream
            .tcp()
            .shutdown(Shutdown::Write)
            .expect("shut the connection down");
        self.drain_to_close();
    }

    /// Ends the connection by a TCP reset: what a killed peer with unread data looks like.
    pub fn reset(self) {
        let socket = socket2::SockRef::from(self.stream.tcp());
        socket
            .set_linger(Some(Duration::ZERO))
            .expect("set SO_LINGER");
    }
}
