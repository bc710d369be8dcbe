//! What a client, the network or the clock does next.
//!
//! Packets are written here and not by the codec under test. An operation that gives the broker a
//! reason to close marks its peer guilty; everything else must be borne.

use super::peer::{Asked, Peer, Stage, answer};
use super::world::{SOCKETS, World};
use crate::wire::{Ack, Props, Publish, Version, frame, prop, put_str};
use arbitrary::Arbitrary;
use ringmq::engine::message::Qos;
use std::rc::Rc;

const TOPICS: [&str; 8] = ["a", "a/b", "a/b/c", "b", "", "$x", "longer/topic/name", "+"];
const FILTERS: [&str; 18] = [
    "a",
    "#",
    "a/+",
    "a/#",
    "+",
    "+/b",
    "a/b",
    "$share/g/a",
    "$share/g/#",
    "$share/h/a/+",
    "b",
    "$x/#",
    "live",
    "a#",
    "",
    "$share/g",
    "longer/topic/name",
    "$share/+/a",
];
const PAYLOAD_BYTES: [usize; 8] = [1, 0, 20, 300, 2_047, 2_048, 5_000, 20_000];
const PASSING_MS: [u64; 8] = [
    1,
    100,
    1_000,
    10_000,
    15_000,
    100_000,
    3_600_000,
    86_400_000 * 400,
];
const CLIENTS: u8 = 5;

/// How often a flood repeats its packet at most.
const FLOOD_MAX: u16 = 200;
/// How often a flood of pings does: together their answers fill the smallest outbox.
const PINGS_MAX: u16 = 2_400;

/// One step of a history.
#[derive(Arbitrary, Debug)]
pub struct Operation {
    socket: u8,
    act: Act,
    /// How much of it arrives, and whether the shards get their turn.
    then: u8,
}

#[derive(Arbitrary, Debug)]
enum Act {
    Connect(Connect),
    Publish(Publication),
    Subscribe(Subscription),
    Unsubscribe { filters: [u8; 2], id: u8 },
    Acknowledge { which: u8, fails: bool },
    AcknowledgeAll,
    Stray { kind: u8, id: u8, code: u8 },
    Ping,
    Disconnect { code: u8, expiry: u8 },
    Authenticate,
    Raw(Vec<u8>),
    OpenRaw { shard: u8, bytes: Vec<u8> },
    Flood { what: Publication, count: u16 },
    FloodPings { count: u16 },
    Cut,
    Sent { is_ok: u8 },
    Turn { shard: u8, stores: bool },
    Pass(u8),
}

#[derive(Arbitrary, Debug)]
struct Connect {
    shard: u8,
    client: u8,
    version: u8,
    clean: bool,
    expiry: u8,
    keep_alive: u8,
    receive_maximum: u8,
    packet_bytes_max: u8,
    topic_alias_max: u8,
    will: u8,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
struct Publication {
    topic: u8,
    size: u8,
    flags: u8,
    id: u8,
    props: u8,
}

#[derive(Arbitrary, Debug)]
struct Subscription {
    filters: [u8; 3],
    options: u8,
    id: u8,
    subscription_id: u8,
}

impl Operation {
    /// Lets it happen.
    pub fn apply(&self, world: &mut World) {
        let socket = usize::from(self.socket) % SOCKETS;
        match &self.act {
            Act::Connect(connect) => connect.apply(world, socket),
            Act::OpenRaw { shard, bytes } => {
                let mut peer = Peer::new(asked(Version::V5, String::new()));
                peer.is_wild = true;
                world.has_unknown_sessions = true;
                if world.open(socket, usize::from(*shard), peer) {
                    world.send(socket, bytes);
                }
            }
            Act::Cut => world.cut(socket),
            Act::Sent { is_ok } => world.complete_send(socket, is_ok % 8 != 0),
            Act::Turn { shard, stores } => world.turn(usize::from(*shard), *stores),
            Act::Pass(time) => world.now_ms += PASSING_MS[usize::from(*time) % PASSING_MS.len()],
            packet => {
                if let Some(peer) = world.peer(socket) {
                    let is_wild = matches!(packet, Act::Raw(_)) && !peer.is_open;
                    world.has_unknown_sessions |= is_wild;
                    send(packet, world, socket);
                }
            }
        }
        self.go_on(world, socket);
    }

    fn go_on(&self, world: &mut World, socket: usize) {
        match self.then % 8 {
            5 => {}
            6 => world.deliver(socket, usize::from(self.then >> 3)),
            7 => world.deliver(socket, usize::MAX),
            _ => {
                world.deliver(socket, usize::MAX);
                for shard in 0..world.shards() {
                    world.turn(shard, true);
                }
                if self.then % 8 < 3 {
                    world.complete_send(socket, true);
                }
            }
        }
    }
}

fn send(packet: &Act, world: &mut World, socket: usize) {
    match packet {
        Act::Publish(publication) => {
            publication.send(world, socket);
        }
        Act::Flood { what, count } => {
            for number in 0..count % FLOOD_MAX {
                let id = what.id.wrapping_add(number as u8);
                if !(Publication { id, ..*what }.send(world, socket)) {
                    break;
                }
            }
        }
        Act::FloodPings { count } => {
            send_pings(world, socket, count % PINGS_MAX);
        }
        Act::Subscribe(subscription) => subscription.send(world, socket),
        Act::Unsubscribe { filters, id } => send_unsubscribe(world, socket, *filters, *id),
        Act::Acknowledge { which, fails } => acknowledge(world, socket, *which, *fails),
        Act::AcknowledgeAll => {
            acknowledge_all(world, socket);
        }
        Act::Stray { kind, id, code } => {
            let kinds = [Ack::Puback, Ack::Pubrec, Ack::Pubrel, Ack::Pubcomp];
            let kind = kinds[usize::from(*kind) % 4];
            let fails = if code % 4 == 0 { failure(kind) } else { 0 };
            if let Some(peer) = world.peer(socket) {
                peer.has_strayed = true;
            }
            send_ack(world, socket, kind, packet_id(*id), fails);
        }
        Act::Ping => send_pings(world, socket, 1),
        Act::Disconnect { code, expiry } => send_disconnect(world, socket, *code, *expiry),
        Act::Authenticate => {
            blame(world, socket);
            let mut body = vec![0x18];
            let method = Props::new().text(prop::AUTH_METHOD, "X");
            method.put(&mut body);
            world.send(socket, &frame(0xF0, &body));
        }
        Act::Raw(bytes) => {
            if let Some(peer) = world.peer(socket) {
                peer.is_wild = true;
                world.send(socket, bytes);
            }
        }
        _ => {}
    }
}

fn blame(world: &mut World, socket: usize) {
    if let Some(peer) = world.peer(socket) {
        peer.is_guilty = true;
    }
}

fn packet_id(number: u8) -> u16 {
    1 + u16::from(number)
}

/// A CONNECT with nothing asked for.
pub fn asked(version: Version, client_id: String) -> Asked {
    Asked {
        version,
        client_id,
        clean: false,
        keep_alive_seconds: 0,
        packet_bytes_max: None,
        receive_maximum: None,
        topic_alias_max: 0,
    }
}

/// Opens a connection and sends its CONNECT; who has the same identifier may be closed for it.
pub fn connect(
    world: &mut World,
    socket: usize,
    shard: usize,
    mut peer: Peer,
    props: Props,
    will: Option<(u8, Props, Publish)>,
) {
    let asked = peer.asked.clone();
    let name = if asked.version == Version::V3 {
        "MQIsdp"
    } else {
        "MQTT"
    };
    let mut body = Vec::new();
    put_str(&mut body, name);
    let will_flags = will.as_ref().map_or(0, |(flags, ..)| *flags);
    body.extend([asked.version as u8, u8::from(asked.clean) << 1 | will_flags]);
    body.extend(asked.keep_alive_seconds.to_be_bytes());
    let is_v5 = peer.is_v5();
    if is_v5 {
        props.put(&mut body);
    }
    put_str(&mut body, &asked.client_id);
    if let Some((_, props, message)) = will {
        if is_v5 {
            props.put(&mut body);
        }
        put_str(&mut body, &message.topic);
        put_str(&mut body, &message.payload);
    }
    peer.is_guilty |= world.connections() >= world.settings.limits.connections_max;
    // Either of two connections with one identifier may come first.
    let id = Some(&asked.client_id).filter(|id| !id.is_empty());
    for other in (0..world.sockets.len()).filter(|other| *other != socket) {
        if let Some(other) = world.peer(other)
            && (Some(&other.asked.client_id) == id || other.assigned_id.as_ref() == id)
            && id.is_some()
        {
            other.is_guilty = true;
            peer.is_guilty = true;
        }
    }
    if world.open(socket, shard, peer) {
        world.client_ids.insert(asked.client_id);
        world.send(socket, &frame(0x10, &body));
    }
}

impl Connect {
    fn apply(&self, world: &mut World, socket: usize) {
        if world.peer(socket).is_some() {
            // A second CONNECT breaks the protocol.
            blame(world, socket);
            world.send(socket, b"\x10\x0D\x00\x04MQTT\x04\x02\x00\x3C\x00\x01c");
            return;
        }
        let version = [Version::V5, Version::V4, Version::V3][usize::from(self.version) % 3];
        let client_id = match self.client % (CLIENTS + 1) {
            CLIENTS => String::new(),
            number => format!("c{number}"),
        };
        let mut asked = asked(version, client_id);
        asked.clean = self.clean;
        asked.keep_alive_seconds = [0, 0, 1, 10][usize::from(self.keep_alive) % 4];
        let mut props = Props::new();
        if version == Version::V5 {
            props = self.ask(&mut asked);
        }
        let mut peer = Peer::new(asked);
        let is_nameless = peer.asked.client_id.is_empty();
        let may_be_nameless = match version {
            Version::V3 => false,
            Version::V4 => self.clean,
            Version::V5 => true,
        };
        peer.is_guilty = is_nameless && !may_be_nameless;
        let max = world.settings.keep_alive_seconds_max;
        if max > 0 && (peer.keep_alive_seconds == 0 || peer.keep_alive_seconds > max) {
            // 5.0 is told so, too.
            peer.keep_alive_seconds = max;
        }
        let will = (self.will % 4 > 0).then(|| self.will(world, &mut peer));
        connect(world, socket, usize::from(self.shard), peer, props, will);
    }

    fn ask(&self, asked: &mut Asked) -> Props {
        let mut props = Props::new();
        let expiry = [0, 1, 100, 100_000, u32::MAX, u32::MAX - 1];
        let expiry = expiry[usize::from(self.expiry) % expiry.len()];
        if expiry > 0 {
            props = props.four(prop::SESSION_EXPIRY, expiry);
        }
        if let Some(max) = [None, Some(1), Some(2), Some(20)][usize::from(self.receive_maximum) % 4]
        {
            asked.receive_maximum = Some(max);
            props = props.two(prop::RECEIVE_MAXIMUM, max);
        }
        let packets = [None, None, Some(100), Some(3_000)];
        if let Some(max) = packets[usize::from(self.packet_bytes_max) % packets.len()] {
            asked.packet_bytes_max = Some(max);
            props = props.four(prop::MAXIMUM_PACKET_SIZE, max);
        }
        asked.topic_alias_max = [0, 1, 2, 100][usize::from(self.topic_alias_max) % 4];
        if asked.topic_alias_max > 0 {
            props = props.two(prop::TOPIC_ALIAS_MAXIMUM, asked.topic_alias_max);
        }
        if self.expiry & 0x80 != 0 {
            props = props.byte(prop::REQUEST_RESPONSE_INFO, 1);
        }
        props
    }

    fn will(&self, world: &World, peer: &mut Peer) -> (u8, Props, Publish) {
        let topic = TOPICS[usize::from(self.will >> 2) % TOPICS.len()];
        let qos = self.will % 4 - 1;
        let retain = self.will & 0x40 != 0;
        let settings = &world.settings;
        let is_fine = Some(settings.qos_max) >= Qos::from_bits(qos)
            && (!retain || settings.retain_available)
            && is_valid_topic(world, topic);
        peer.is_guilty |= !is_fine;
        let delay = [0, 1, 1_000][usize::from(self.will >> 5) % 3];
        let props = Props::new().four(prop::WILL_DELAY, delay);
        let flags = 0x04 | qos << 3 | u8::from(retain) << 5;
        (flags, props, Publish::new(topic, qos, "gone"))
    }
}

fn is_valid_topic(world: &World, topic: &str) -> bool {
    let limits = &world.settings.limits;
    !topic.is_empty()
        && !topic.contains(['+', '#'])
        && topic.len() <= limits.topic_bytes_max
        && topic.split('/').count() <= limits.topic_levels_max
}

impl Publication {
    /// Returns whether there was room for it.
    fn send(self, world: &mut World, socket: usize) -> bool {
        let settings = Rc::clone(&world.settings);
        let qos = self.flags % 4 % 3;
        let mut topic = TOPICS[usize::from(self.topic) % TOPICS.len()];
        let payload = vec![b'p'; PAYLOAD_BYTES[usize::from(self.size) % PAYLOAD_BYTES.len()]];
        let mut is_fine = is_valid_topic(world, topic) || topic.is_empty();
        let retain = self.flags & 0x10 != 0;
        is_fine &= Some(settings.qos_max) >= Qos::from_bits(qos);
        is_fine &= !retain || settings.retain_available;
        let Some(peer) = world.peer(socket) else {
            return false;
        };
        let mut props = Props::new();
        let alias = u16::from(self.props % 4);
        if peer.is_v5() && alias > 0 {
            props = props.two(prop::TOPIC_ALIAS, alias);
            is_fine &= alias <= settings.limits.topic_alias_max && !topic.is_empty();
        } else if topic.is_empty() {
            topic = "a";
        }
        if peer.is_v5() {
            if self.props & 0x10 != 0 {
                props = props.four(prop::MESSAGE_EXPIRY, u32::from(self.props >> 5));
            }
            if self.props & 0x04 != 0 {
                props = props.user("name", "value");
            }
        }
        let mut publish = Publish::new(topic, qos, payload).props(props);
        publish.retain = retain;
        publish.dup = qos > 0 && self.flags & 0x20 != 0;
        publish.id = packet_id(self.id);
        let bytes = publish.encode(peer.asked.version);
        is_fine &= bytes.len() <= settings.limits.max_packet_bytes;
        let id = peer.asked.client_id.clone();
        let id = peer.assigned_id.clone().unwrap_or(id);
        let (is_v5, outstanding) = (peer.is_v5(), peer.outstanding);
        let receive_maximum = usize::from(settings.limits.receive_maximum);
        if qos == 2 {
            let count = world.exactly_once.entry(id).or_default();
            *count += 1;
            is_fine &= !is_v5 || *count <= receive_maximum;
        }
        // A message beyond the receive maximum breaks the protocol; 3.x has no such thing.
        is_fine &= !is_v5 || qos == 0 || outstanding < receive_maximum;
        if !world.send(socket, &bytes) {
            return false;
        }
        let Some(peer) = world.peer(socket) else {
            return false;
        };
        peer.is_guilty |= !is_fine;
        match qos {
            0 => {}
            1 => peer.expect(answer::PUBACK, packet_id(self.id), 0),
            _ => peer.expect(answer::PUBREC, packet_id(self.id), 0),
        }
        peer.outstanding += usize::from(qos > 0);
        true
    }
}

fn is_broken_filter(filter: &str) -> bool {
    filter.is_empty() || filter == "a#"
}

impl Subscription {
    fn send(&self, world: &mut World, socket: usize) {
        let settings = Rc::clone(&world.settings);
        let Some(peer) = world.peer(socket) else {
            return;
        };
        let is_v5 = peer.is_v5();
        let mut body = packet_id(self.id).to_be_bytes().to_vec();
        let mut is_fine = true;
        if is_v5 {
            let id = u32::from(self.subscription_id % 4) * 100;
            let props = match id {
                0 => Props::new(),
                id => Props::new().variable(prop::SUBSCRIPTION_ID, id),
            };
            is_fine &= id == 0 || settings.subscription_identifiers;
            props.put(&mut body);
        }
        let count = 1 + usize::from(self.options >> 6) % self.filters.len();
        for filter in self.filters.iter().take(count) {
            let filter = FILTERS[usize::from(*filter) % FILTERS.len()];
            let is_shared = filter.starts_with("$share/") || filter.starts_with("$queue/");
            let mut options = self.options & 0x03;
            options = if options == 3 { 2 } else { options };
            if is_v5 {
                options |= self.options & 0x0C | (self.options >> 4) % 3 << 4;
                is_fine &= !(is_shared && options & 0x04 != 0);
                is_fine &= settings.shared_subscriptions || !is_shared;
                is_fine &= settings.wildcard_subscriptions || !filter.contains(['+', '#']);
            } else {
                is_fine &= !is_broken_filter(filter);
            }
            put_str(&mut body, filter);
            body.push(options);
        }
        is_fine &= count <= settings.limits.filters_per_subscribe_max;
        send_counted(world, socket, &frame(0x82, &body), is_fine);
        if let Some(peer) = world.peer(socket) {
            peer.expect(answer::SUBACK, packet_id(self.id), count);
        }
    }
}

fn send_counted(world: &mut World, socket: usize, bytes: &[u8], is_fine: bool) {
    let is_small = bytes.len() <= world.settings.limits.max_packet_bytes;
    if let Some(peer) = world.peer(socket) {
        peer.is_guilty |= !is_fine || !is_small;
    }
    world.send(socket, bytes);
}

fn send_unsubscribe(world: &mut World, socket: usize, filters: [u8; 2], id: u8) {
    let Some(peer) = world.peer(socket) else {
        return;
    };
    let is_v5 = peer.is_v5();
    let mut body = packet_id(id).to_be_bytes().to_vec();
    if is_v5 {
        Props::new().put(&mut body);
    }
    let mut is_fine = filters.len() <= world.settings.limits.filters_per_subscribe_max;
    for filter in filters {
        let filter = FILTERS[usize::from(filter) % FILTERS.len()];
        is_fine &= is_v5 || !is_broken_filter(filter);
        put_str(&mut body, filter);
    }
    send_counted(world, socket, &frame(0xA2, &body), is_fine);
    if let Some(peer) = world.peer(socket) {
        peer.expect(answer::UNSUBACK, packet_id(id), filters.len());
    }
}

fn send_pings(world: &mut World, socket: usize, count: u16) {
    if world.send(socket, &[0xC0, 0].repeat(usize::from(count)))
        && let Some(peer) = world.peer(socket)
    {
        peer.pings += usize::from(count);
    }
}

fn send_disconnect(world: &mut World, socket: usize, code: u8, expiry: u8) {
    blame(world, socket);
    let Some(peer) = world.peer(socket) else {
        return;
    };
    let mut body = Vec::new();
    if peer.is_v5() && code > 0 {
        body.push([0x00, 0x04, 0x80][usize::from(code) % 3]);
        let props = match expiry % 4 {
            0 => Props::new(),
            expiry => Props::new().four(prop::SESSION_EXPIRY, u32::from(expiry - 1) * 1_000),
        };
        props.put(&mut body);
    }
    world.send(socket, &frame(0xE0, &body));
}

fn failure(kind: Ack) -> u8 {
    match kind {
        Ack::Puback | Ack::Pubrec => 0x80,
        Ack::Pubrel | Ack::Pubcomp => 0x92,
    }
}

fn send_ack(world: &mut World, socket: usize, kind: Ack, id: u16, code: u8) {
    let Some(peer) = world.peer(socket) else {
        return;
    };
    let code = if peer.is_v5() { code } else { 0 };
    let mut body = id.to_be_bytes().to_vec();
    if code > 0 {
        body.push(code);
    }
    let flags = if kind == Ack::Pubrel { 2 } else { 0 };
    if world.send(socket, &frame((kind as u8) << 4 | flags, &body))
        && let Some(peer) = world.peer(socket)
    {
        peer.acknowledge(kind, id, code);
    }
}

/// The next acknowledgement that is due for one message.
fn acknowledge(world: &mut World, socket: usize, which: u8, fails: bool) {
    let Some(peer) = world.peer(socket) else {
        return;
    };
    let count = peer.unfinished.len().max(1);
    let Some(known) = peer.unfinished.get(usize::from(which) % count).copied() else {
        return;
    };
    let kind = match (known.qos, known.stage) {
        (1, _) => Ack::Puback,
        (_, Stage::Published) => Ack::Pubrec,
        (_, Stage::Released) => Ack::Pubcomp,
        (_, Stage::Received) => return,
    };
    let fails = fails && kind != Ack::Pubcomp;
    let code = if fails { failure(kind) } else { 0 };
    send_ack(world, socket, kind, known.id, code);
}

/// Everything that a client owes now; returns whether that was anything.
pub fn acknowledge_all(world: &mut World, socket: usize) -> bool {
    let mut is_busy = false;
    let count = world.peer(socket).map_or(0, |peer| peer.unfinished.len());
    // From the end: what is finished leaves the list.
    for which in (0..count).rev() {
        let due = world.peer(socket).and_then(|peer| {
            let known = peer.unfinished.get(which).copied()?;
            match (known.qos, known.stage) {
                (1, _) => Some((Ack::Puback, known.id)),
                (_, Stage::Published) => Some((Ack::Pubrec, known.id)),
                (_, Stage::Released) => Some((Ack::Pubcomp, known.id)),
                (_, Stage::Received) => None,
            }
        });
        if let Some((kind, id)) = due {
            send_ack(world, socket, kind, id, 0);
            is_busy = true;
        }
    }
    is_busy
}
