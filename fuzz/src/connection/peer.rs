//! The client's end of a connection: reads all that the broker sends and holds it against what was
//! asked for.

use crate::decode::{self, Packet};
use crate::wire::{Ack, Publish, Version, prop};
use std::collections::{BTreeMap, BTreeSet};

/// What a client asked for in its CONNECT.
#[derive(Clone, Debug)]
pub struct Asked {
    pub version: Version,
    pub client_id: String,
    pub clean: bool,
    pub keep_alive_seconds: u16,
    pub packet_bytes_max: Option<u32>,
    pub receive_maximum: Option<u16>,
    pub topic_alias_max: u16,
}

/// How far a PUBLISH from the broker has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Published,
    /// PUBREC has been sent.
    Received,
    /// PUBREL has come.
    Released,
}

/// A PUBLISH above QoS 0 that is not finished.
#[derive(Clone, Copy, Debug)]
pub struct Unfinished {
    pub id: u16,
    pub qos: u8,
    pub stage: Stage,
}

/// One client on one connection.
#[derive(Debug)]
pub struct Peer {
    pub asked: Asked,
    /// Bytes of a packet that is not whole yet.
    partial: Vec<u8>,
    pub is_open: bool,
    pub is_over: bool,
    has_session: bool,
    /// It gave the broker a reason to close.
    pub is_guilty: bool,
    /// It acknowledged what it had not got: the broker may take that for a message that was on its way, or for
    /// an acknowledgement of the wrong kind, and close.
    pub has_strayed: bool,
    /// It sent bytes whose meaning is not known here.
    pub is_wild: bool,
    pub keep_alive_seconds: u16,
    pub assigned_id: Option<String>,
    pub unfinished: Vec<Unfinished>,
    pubrecs: BTreeSet<u16>,
    aliases: BTreeMap<u16, Vec<u8>>,
    /// Packets that wait for an answer, by what answers them.
    awaited: BTreeMap<(u8, u16), Vec<usize>>,
    pub pings: usize,
    /// PUBLISH packets sent above QoS 0 that are not answered.
    pub outstanding: usize,
    /// Payloads received.
    pub payloads: Vec<Vec<u8>>,
    /// Codes of the last SUBACK.
    pub granted: Vec<u8>,
}

/// Packet types as they answer.
pub mod answer {
    pub const PUBACK: u8 = 4;
    pub const PUBREC: u8 = 5;
    pub const PUBCOMP: u8 = 7;
    pub const SUBACK: u8 = 9;
    pub const UNSUBACK: u8 = 11;
}

impl Peer {
    pub fn new(asked: Asked) -> Self {
        Peer {
            keep_alive_seconds: asked.keep_alive_seconds,
            asked,
            partial: Vec::new(),
            is_open: false,
            is_over: false,
            has_session: false,
            is_guilty: false,
            has_strayed: false,
            is_wild: false,
            assigned_id: None,
            unfinished: Vec::new(),
            pubrecs: BTreeSet::new(),
            aliases: BTreeMap::new(),
            awaited: BTreeMap::new(),
            pings: 0,
            outstanding: 0,
            payloads: Vec::new(),
            granted: Vec::new(),
        }
    }

    pub fn is_v5(&self) -> bool {
        self.asked.version == Version::V5
    }

    /// Notes that `kind` is due for `id`; `count` is how many codes it will have.
    pub fn expect(&mut self, kind: u8, id: u16, count: usize) {
        self.awaited.entry((kind, id)).or_default().push(count);
    }

    fn answered(&mut self, kind: u8, id: u16, count: Option<usize>) {
        if self.is_wild {
            return;
        }
        let waiting = self.awaited.entry((kind, id)).or_default();
        let position = waiting
            .iter()
            .position(|waits| count.is_none_or(|count| count == *waits));
        let Some(position) = position else {
            panic!("packet type {kind} for {id} answers nothing ({count:?} codes)");
        };
        waiting.remove(position);
    }

    /// Reads what the broker sent.
    pub fn hear(&mut self, bytes: &[u8]) {
        self.partial.extend_from_slice(bytes);
        let stream = std::mem::take(&mut self.partial);
        let mut rest = &stream[..];
        while let Some((header, length)) = decode::whole_packet(rest) {
            let (packet, left) = rest.split_at(header + length);
            self.check_size(packet.len());
            if self.is_wild && !self.is_open && length == 2 {
                // Its CONNECT came from unknown bytes; only 3.x has a CONNACK so short.
                self.asked.version = Version::V4;
            }
            let packet = decode::packet(packet[0], &packet[header..], self.asked.version);
            self.take(packet);
            rest = left;
        }
        self.partial = rest.to_vec();
    }

    /// The broker has closed: was there a reason, and did it send whole packets? It `may_overflow` where a
    /// full queue ends the connection.
    pub fn closed(&self, may_overflow: bool) {
        assert!(
            self.partial.is_empty(),
            "cut within a packet: {:02x?}",
            self.partial
        );
        assert!(
            self.is_guilty || self.is_wild || self.has_strayed || may_overflow,
            "closed without a reason: {self:?}"
        );
    }

    fn check_size(&self, bytes: usize) {
        let max = self.asked.packet_bytes_max.filter(|_| self.is_v5());
        assert!(
            max.is_none_or(|max| bytes <= max as usize) || self.is_wild,
            "[MQTT-3.1.2-24] a packet of {bytes} bytes for a client that takes {max:?}"
        );
    }

    fn take(&mut self, packet: Packet) {
        assert!(!self.is_over, "{packet:?} after the end");
        if !self.is_open {
            return self.take_connack(packet);
        }
        match packet {
            Packet::Connack { .. } => panic!("a second CONNACK"),
            Packet::Publish(publish) => self.take_publish(publish),
            Packet::Ack { kind, id, code, .. } => self.take_ack(kind, id, code),
            Packet::Suback { id, codes, .. } => {
                self.answered(answer::SUBACK, id, Some(codes.len()));
                self.granted = codes;
            }
            Packet::Unsuback { id, codes, .. } => {
                let count = self.is_v5().then_some(codes.len());
                self.answered(answer::UNSUBACK, id, count);
            }
            Packet::Pingresp => {
                assert!(self.pings > 0 || self.is_wild, "PINGRESP for nothing");
                self.pings = self.pings.saturating_sub(1);
            }
            Packet::Disconnect { .. } => self.is_over = true,
            Packet::Auth { .. } => panic!("AUTH to a client that knows no method"),
        }
    }

    fn take_connack(&mut self, packet: Packet) {
        let Packet::Connack {
            session_present,
            code,
            props,
        } = packet
        else {
            panic!("{packet:?} before CONNACK");
        };
        self.is_open = code == 0;
        self.is_over = code != 0;
        // 3.1 has no flag for it.
        self.has_session = session_present || self.asked.version == Version::V3;
        assert!(
            !(session_present && self.asked.clean) || self.is_wild,
            "a clean start finds a session"
        );
        self.assigned_id = props.string(prop::ASSIGNED_CLIENT_ID);
        let is_due = code == 0 && self.is_v5() && self.asked.client_id.is_empty();
        assert!(self.assigned_id.is_some() == is_due || self.is_wild);
        if let Some(seconds) = props.number(prop::SERVER_KEEP_ALIVE) {
            self.keep_alive_seconds = seconds as u16;
        }
    }

    fn take_publish(&mut self, publish: Publish) {
        let alias = publish.props.number(prop::TOPIC_ALIAS).unwrap_or(0) as u16;
        if alias > 0 {
            let max = self.asked.topic_alias_max;
            assert!(alias <= max || self.is_wild, "alias {alias} of {max}");
            if publish.topic.is_empty() {
                assert!(self.aliases.contains_key(&alias), "unknown alias {alias}");
            } else {
                self.aliases.insert(alias, publish.topic);
            }
        } else {
            assert!(!publish.topic.is_empty(), "neither topic nor alias");
        }
        self.payloads.push(publish.payload);
        if publish.qos == 0 {
            return;
        }
        let id = publish.id;
        let is_known = self.unfinished.iter().any(|known| known.id == id);
        let is_wild = self.is_wild || self.has_strayed;
        assert!(!is_known || is_wild, "identifier {id} is in use");
        assert!(!publish.dup || self.has_session || self.is_wild, "a repeat");
        let qos = publish.qos;
        let stage = Stage::Published;
        self.unfinished.push(Unfinished { id, qos, stage });
        let max = usize::from(self.asked.receive_maximum.unwrap_or(u16::MAX));
        assert!(
            !self.is_v5() || self.unfinished.len() <= max || is_wild,
            "[MQTT-3.3.4-9] {} unfinished messages for a client that takes {max}",
            self.unfinished.len()
        );
    }

    fn take_ack(&mut self, kind: Ack, id: u16, code: u8) {
        match kind {
            Ack::Puback | Ack::Pubrec => {
                self.answered(kind as u8, id, None);
                self.outstanding = self.outstanding.saturating_sub(1);
            }
            Ack::Pubcomp => self.answered(answer::PUBCOMP, id, None),
            Ack::Pubrel => {
                let is_due = self.pubrecs.contains(&id) || self.has_session;
                assert!(is_due || self.is_wild, "PUBREL for {id} without PUBREC");
                if code != 0 {
                    return;
                }
                match self.unfinished.iter_mut().find(|known| known.id == id) {
                    Some(known) => known.stage = Stage::Released,
                    None => self.unfinished.push(Unfinished {
                        id,
                        qos: 2,
                        stage: Stage::Released,
                    }),
                }
            }
        }
    }

    /// Notes an acknowledgement that this client sends; the broker hears of it later.
    pub fn acknowledge(&mut self, kind: Ack, id: u16, code: u8) {
        if kind == Ack::Pubrec {
            self.pubrecs.insert(id);
        }
        if kind == Ack::Pubrel {
            self.expect(answer::PUBCOMP, id, 0);
        }
        let position = self.unfinished.iter().position(|known| known.id == id);
        let Some(position) = position else { return };
        let known = &mut self.unfinished[position];
        let is_done = match kind {
            Ack::Puback => known.qos == 1,
            Ack::Pubrec if known.qos == 2 && known.stage == Stage::Published => {
                known.stage = Stage::Received;
                code >= 0x80
            }
            Ack::Pubcomp => known.qos == 2 && known.stage != Stage::Published,
            Ack::Pubrec | Ack::Pubrel => false,
        };
        if is_done {
            self.unfinished.remove(position);
        }
    }
}
