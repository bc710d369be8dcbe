//! A client that publishes, one message after the other, or subscribes. Publishers speak 3.1.1, subscribers
//! 5.0: they see where a message has been.

use super::heard::Heard;
use super::{MESSAGES, TOPICS, qos_of, topic_of};
use crate::world::LinkId;
use ringmq::engine::codec::frame::{Split, split};
use ringmq::engine::codec::publish::{Publish, PublishHead};
use ringmq::engine::codec::remote::{Asked, ConnectTo, put_subscribe};
use ringmq::engine::codec::{PacketType, Version};
use ringmq::engine::message::Qos;
use std::collections::BTreeSet;

const EXPIRY_NEVER: u32 = u32::MAX;

/// What a publisher waits for.
#[derive(Clone, Copy, PartialEq)]
enum Awaits {
    Connack,
    Nothing,
    Puback,
    Pubrec,
    Pubcomp,
}

/// One of them.
pub struct Client {
    /// The broker to which it goes.
    pub broker: usize,
    id: String,
    /// What it has heard, if it subscribes.
    pub heard: Option<Heard>,
    pub link: Option<LinkId>,
    from_broker: Vec<u8>,
    awaits: Awaits,
    /// The message under way, and how far it is.
    next: usize,
    is_sent: bool,
    is_received: bool,
    pub subscribed: bool,
    unreleased: BTreeSet<u16>,
}

impl Client {
    pub fn new(broker: usize, heard: Option<Heard>) -> Self {
        let role = if heard.is_some() { "s" } else { "p" };
        Client {
            broker,
            id: format!("{role}{broker}"),
            heard,
            link: None,
            from_broker: Vec::new(),
            awaits: Awaits::Connack,
            next: 0,
            is_sent: false,
            is_received: false,
            subscribed: false,
            unreleased: BTreeSet::new(),
        }
    }

    /// How far it has come.
    pub fn told(&self) -> String {
        let is_there = self.link.is_some();
        match &self.heard {
            Some(heard) => format!("{}: there {is_there}, {}", self.id, heard.told()),
            None => format!("{}: there {is_there}, sent {}", self.id, self.next),
        }
    }

    /// Everything was published, or has come.
    pub fn is_done(&self) -> bool {
        match &self.heard {
            Some(heard) => heard.is_complete() && self.unreleased.is_empty(),
            None => self.next == MESSAGES,
        }
    }

    const fn version(&self) -> Version {
        match self.heard {
            Some(_) => Version::V5,
            None => Version::V3_1_1,
        }
    }

    pub fn connect(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        ConnectTo {
            version: self.version(),
            is_bridge: false,
            client_id: &self.id,
            clean_start: false,
            keep_alive_seconds: 0,
            user_name: None,
            password: None,
            will: None,
            will_retain: false,
            session_expiry_seconds: EXPIRY_NEVER,
            receive_maximum: u16::MAX,
            packet_bytes_max: 0,
            user_property: None,
        }
        .encode(&mut bytes);
        bytes
    }

    pub fn lost(&mut self) {
        self.link = None;
        self.from_broker.clear();
        self.awaits = Awaits::Connack;
    }

    /// Handles what came; what it answers, or what is wrong with it.
    pub fn hear(&mut self, bytes: &[u8]) -> Result<Vec<u8>, String> {
        self.from_broker.extend_from_slice(bytes);
        let mut out = Vec::new();
        let stream = std::mem::take(&mut self.from_broker);
        let mut used = 0;
        while let Ok(Split::Whole(frame, bytes)) = split(&stream[used..], usize::MAX) {
            used += bytes;
            self.packet(frame.first_byte, frame.body, &mut out)?;
        }
        self.from_broker = stream[used..].to_vec();
        Ok(out)
    }

    fn packet(&mut self, first: u8, body: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
        let ack = |kind: PacketType, out: &mut Vec<u8>| {
            out.extend_from_slice(&[kind.first_byte(), 2, body[0], body[1]]);
        };
        match PacketType::from_first_byte(first).expect("a packet") {
            PacketType::Connack if self.heard.is_none() => {
                self.awaits = Awaits::Nothing;
                self.go_on(out);
            }
            PacketType::Connack => {
                let asked = [Asked {
                    filter: "t/#",
                    qos: Qos::ExactlyOnce,
                    retain_handling: 0,
                }];
                if !self.subscribed {
                    put_subscribe(self.version(), 9, &asked, out);
                }
            }
            PacketType::Suback => self.subscribed = true,
            PacketType::Puback if self.awaits == Awaits::Puback => self.done(out),
            PacketType::Pubrec if self.awaits == Awaits::Pubrec => {
                self.is_received = true;
                self.awaits = Awaits::Pubcomp;
                ack(PacketType::Pubrel, out);
            }
            PacketType::Pubcomp if self.awaits == Awaits::Pubcomp => self.done(out),
            PacketType::Publish => self.publish(first, body, out)?,
            PacketType::Pubrel => {
                self.unreleased
                    .remove(&u16::from_be_bytes([body[0], body[1]]));
                ack(PacketType::Pubcomp, out);
            }
            _ => {}
        }
        Ok(())
    }

    fn publish(&mut self, first: u8, body: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
        let publish = Publish::decode(first, body, self.version()).expect("a PUBLISH");
        let [high, low] = publish.packet_id.to_be_bytes();
        let is_news = match publish.qos {
            Qos::ExactlyOnce => self.unreleased.insert(publish.packet_id),
            _ => true,
        };
        if let Some(heard) = &mut self.heard
            && is_news
        {
            let told = heard.hear(&publish);
            told.map_err(|fault| format!("{} {fault}", self.id))?;
        }
        match publish.qos {
            Qos::AtMostOnce => return Err(format!("{} got QoS 0", self.id)),
            Qos::AtLeastOnce => out.extend_from_slice(&[0x40, 2, high, low]),
            Qos::ExactlyOnce => out.extend_from_slice(&[0x50, 2, high, low]),
        }
        Ok(())
    }

    fn done(&mut self, out: &mut Vec<u8>) {
        self.next += 1;
        (self.is_sent, self.is_received) = (false, false);
        self.awaits = Awaits::Nothing;
        self.go_on(out);
    }

    /// Begins the next message, or goes on with the one under way.
    fn go_on(&mut self, out: &mut Vec<u8>) {
        if self.next >= MESSAGES {
            return;
        }
        let packet_id = 1 + self.next as u16;
        if self.is_received {
            let [high, low] = packet_id.to_be_bytes();
            out.extend_from_slice(&[0x62, 2, high, low]);
            self.awaits = Awaits::Pubcomp;
            return;
        }
        let payload = format!("{}-{}", self.broker, self.next);
        let qos = qos_of(self.next);
        let head = PublishHead {
            version: Version::V3_1_1,
            dup: self.is_sent,
            qos,
            retain: false,
            topic: TOPICS[topic_of(self.next)],
            packet_id,
            forwarded: &[],
            expiry_seconds: None,
            topic_alias: 0,
            subscription_ids: &[],
            payload_bytes: payload.len(),
        };
        head.encode(out);
        out.extend_from_slice(payload.as_bytes());
        self.is_sent = true;
        self.awaits = match qos {
            Qos::ExactlyOnce => Awaits::Pubrec,
            _ => Awaits::Puback,
        };
    }
}
