//! What a shard's engine wants kept, written into frames.
//!
//! A message that goes to many sessions in a row is one body and one list of sessions; nothing is allocated
//! for any of them. That a message was written is known by where it lies in memory: a weak reference is held
//! as long as it may be named, so that nothing else gets its place, and its content may go.
//!
//! Not here: when frames go to the log, and when they are safe.

use super::fields::{
    AS_PUBLISHED, EVERYTHING, EXPIRES, GROUP, IDS, NO_LOCAL, RETAIN, RULES, SHARE, USER, WHOLE,
    WILL, Wall, access_bits, flag, method_bits, parts_of, put_bytes, put_difference, put_session,
    put_text, put_varint,
};
use super::frames::Frames;
use super::tag::Tag;
use super::window::Window;
use crate::engine::codec::Version;
use crate::engine::keys::{Origin, SessionNumber, ShardId};
use crate::engine::message::Message;
use crate::engine::record::{Opened, Persist, Record, Step, Subscription};
use crate::engine::session::will::Will;
use crate::engine::session::{Delivery, FixedMap};
use crate::storage::log::frame::{FRAME_BYTES_MAX, Frame, Kind};
use std::collections::vec_deque::Drain;
use std::sync::{Arc, Weak};

/// A list of sessions ends when it has so many bytes.
const LIST_BYTES_MAX: usize = 16 * 1024;

/// Writes the records of one shard.
#[derive(Debug)]
pub struct Encoder {
    wall: Wall,
    frames: Frames,
    bodies: Bodies,
    list: List,
    /// Fields of the record at hand.
    fields: Vec<u8>,
    queued: u64,
    queued_bytes: u64,
    /// The last message that was written only since it is retained, and its bytes.
    only_retained: Option<(u64, u64)>,
}

/// The messages that may be named.
#[derive(Debug)]
struct Bodies {
    written: Window<Weak<Message>>,
    /// Their numbers, by where they lie.
    numbers: FixedMap<usize, u64>,
    /// The newest of them.
    newest: Option<(usize, u64)>,
}

/// One message's way to the sessions seen last.
#[derive(Debug, Default)]
struct List {
    /// Not a record yet; empty if there is none.
    fields: Vec<u8>,
    body: u64,
    /// The publish, as long as it is not known to be complete.
    origin: Option<Origin>,
    /// The session before.
    last: (u64, ShardId),
    ticket: u64,
}

impl Encoder {
    /// For a process that has begun when a wall clock showed `origin_ms`, which is its engine's time 0.
    #[must_use]
    pub fn new(shard: ShardId, origin_ms: u64) -> Self {
        let mut frames = Frames::new(shard);
        frames.write(Tag::Began, &[]);
        Encoder {
            wall: Wall { origin_ms },
            frames,
            bodies: Bodies {
                written: Window::new(1),
                numbers: FixedMap::default(),
                newest: None,
            },
            list: List::default(),
            fields: Vec::new(),
            queued: 0,
            queued_bytes: 0,
            only_retained: None,
        }
    }

    /// With frames that are smaller than the log allows: records in parts are no rarity then.
    #[must_use]
    pub fn with_frame_bytes_max(mut self, bytes: usize) -> Self {
        self.frames.limit(bytes);
        self
    }

    /// One more record. Tickets ascend.
    pub fn put(&mut self, persist: &Persist) {
        match &persist.record {
            Record::Queued {
                session,
                delivery,
                origin,
            } => return self.queue(*session, delivery, *origin, persist.ticket),
            Record::Retained { message } => self.retain(message),
            Record::Checkpoint(step) => self.go_on_with_checkpoint(*step),
            record => self.write(record),
        }
        self.frames.complete(persist.ticket);
    }

    /// No more records come for now: all there are go into frames.
    pub fn flush(&mut self) {
        self.end_list();
        self.frames.close();
    }

    /// The frames that are full, or were flushed.
    pub fn frames(&mut self) -> Drain<'_, Frame> {
        self.frames.full().drain(..)
    }

    /// The buffer of a frame that is on the disk.
    pub fn reuse(&mut self, buffer: Vec<u8>) {
        self.frames.reuse(buffer);
    }

    /// A frame begins where a checkpoint does, and where it ends: the log sees it by the frame's kind.
    /// Nothing before its beginning is named behind it.
    fn go_on_with_checkpoint(&mut self, step: Step) {
        self.end_list();
        let (tag, kind) = match step {
            Step::Begins => (Tag::CheckpointBegins, Some(Kind::CheckpointBegins)),
            Step::Restates => (Tag::Restates, None),
            Step::Changes => (Tag::Changes, None),
            Step::Ends => (Tag::CheckpointEnds, Some(Kind::CheckpointEnds)),
        };
        if step == Step::Begins {
            self.forget_messages();
        }
        if let Some(kind) = kind {
            self.frames.begin(kind);
        }
        self.frames.write(tag, &[]);
    }

    /// How many messages on their way to sessions were written, and the bytes of them and of their bodies.
    #[must_use]
    pub const fn queued(&self) -> (u64, u64) {
        (self.queued, self.queued_bytes)
    }

    /// What is named from now on is written again.
    pub fn forget_messages(&mut self) {
        self.end_list();
        self.bodies.written.clear();
        self.bodies.numbers.clear();
        self.bodies.newest = None;
    }

    /// ```text
    /// queued:      body varint | each: flags u8 | session or difference | entry varint | [ids] | [group]
    /// queued once: shard varint | number varint | as above
    /// ```
    fn queue(
        &mut self,
        session: SessionNumber,
        delivery: &Delivery,
        origin: Option<Origin>,
        ticket: u64,
    ) {
        let body = self.body(&delivery.message, || {
            Arc::downgrade(&delivery.message.share())
        });
        let is_same = (self.list.body, self.list.origin) == (body, origin);
        if !is_same || self.list.fields.len() >= LIST_BYTES_MAX {
            self.end_list();
        }
        let list = &mut self.list;
        let is_first = list.fields.is_empty();
        if is_first {
            (list.body, list.origin) = (body, origin);
            if let Some(origin) = origin {
                put_varint(&mut list.fields, u64::from(origin.shard));
                put_varint(&mut list.fields, origin.number.get());
            }
            put_varint(&mut list.fields, body);
            let retained = self.only_retained.take_if(|(number, _)| *number == body);
            self.queued_bytes += retained.map_or(0, |(_, bytes)| bytes);
        }
        let session_parts = parts_of(session);
        let is_whole = is_first || list.last.1 != session_parts.1;
        let ids = delivery.subscription_ids.as_slice();
        let flags = delivery.qos.bits()
            | flag(RETAIN, delivery.retain)
            | flag(IDS, !ids.is_empty())
            | flag(GROUP, delivery.group.is_some())
            | flag(WHOLE, is_whole);
        let fields = &mut list.fields;
        fields.push(flags);
        if is_whole {
            put_session(fields, session);
        } else {
            put_difference(fields, list.last.0, session_parts.0);
        }
        put_varint(fields, delivery.entry);
        if !ids.is_empty() {
            put_varint(fields, ids.len() as u64);
            ids.iter().for_each(|id| put_varint(fields, u64::from(*id)));
        }
        if let Some(group) = &delivery.group {
            put_text(fields, &group.filter);
            put_text(fields, &group.name);
        }
        (list.last, list.ticket) = (session_parts, ticket);
        self.queued += 1;
    }

    fn end_list(&mut self) {
        if self.list.fields.is_empty() {
            return;
        }
        let tag = match self.list.origin {
            None => Tag::Queued,
            Some(_) => Tag::QueuedOnce,
        };
        self.frames.write(tag, &[&self.list.fields]);
        self.queued_bytes += self.list.fields.len() as u64;
        self.frames.complete(self.list.ticket);
        self.list.fields.clear();
    }

    /// The number of a message; it is written if it cannot be named yet.
    /// ```text
    /// number varint | flags u8 | [expires at] | topic | properties | payload
    /// ```
    fn body(&mut self, message: &Message, hold: impl FnOnce() -> Weak<Message>) -> u64 {
        let place = std::ptr::from_ref(message).addr();
        if let Some(number) = self.bodies.number(place) {
            return number;
        }
        self.end_list();
        let number = self.bodies.written.next();
        let fields = &mut self.fields;
        fields.clear();
        put_varint(fields, number);
        fields.push(
            message.qos.bits()
                | flag(RETAIN, message.retain)
                | flag(EXPIRES, message.expires_at.is_some()),
        );
        if let Some(at) = message.expires_at {
            put_varint(fields, self.wall.ms(at));
        }
        put_text(fields, message.topic());
        put_varint(fields, message.properties().len() as u64);
        let parts = [fields.as_slice(), message.properties(), message.payload()];
        self.queued_bytes += parts.iter().map(|part| part.len() as u64).sum::<u64>();
        self.frames.write(Tag::Body, &parts);
        self.bodies.note(place, message, hold());
        number
    }

    /// `body varint`
    fn retain(&mut self, message: &Arc<Message>) {
        self.end_list();
        // It says nothing about what is on its way to sessions, until it is.
        let queued_bytes = self.queued_bytes;
        let body = self.body(message, || Arc::downgrade(message));
        if self.queued_bytes > queued_bytes {
            self.only_retained = Some((body, self.queued_bytes - queued_bytes));
        }
        self.queued_bytes = queued_bytes;
        self.fields.clear();
        put_varint(&mut self.fields, body);
        self.frames.write(Tag::Retained, &[&self.fields]);
    }

    fn write(&mut self, record: &Record) {
        self.end_list();
        self.fields.clear();
        // A session may have had a very large will.
        self.fields.shrink_to(FRAME_BYTES_MAX);
        if let Some(tag) = put_record(&mut self.fields, self.wall, record) {
            self.frames.write(tag, &[&self.fields]);
        }
    }
}

impl Bodies {
    fn number(&self, place: usize) -> Option<u64> {
        match self.newest {
            Some((newest, number)) if newest == place => Some(number),
            _ => self.numbers.get(&place).copied(),
        }
    }

    fn note(&mut self, place: usize, message: &Message, held: Weak<Message>) {
        let number = self.written.next();
        let numbers = &mut self.numbers;
        self.written.push(held, message, |dropped| {
            numbers.remove(&dropped.as_ptr().addr());
        });
        numbers.insert(place, number);
        self.newest = Some((place, number));
    }
}

/// A record's fields; none of one that names a message. Those that have no line of their own:
/// ```text
/// complete: after varint | count varint
/// accepted: session | packet identifier u16 | [number varint]
/// ```
fn put_record(out: &mut Vec<u8>, wall: Wall, record: &Record) -> Option<Tag> {
    let (session, tag) = match record {
        Record::Queued { .. } | Record::Retained { .. } | Record::Checkpoint(_) => return None,
        Record::Opened(opened) => return Some(put_opened(out, opened)),
        Record::Subscribed(subscription) => return Some(put_subscribed(out, subscription)),
        Record::Unsubscribed {
            session,
            filter,
            share,
        } => return Some(put_unsubscribed(out, *session, filter, share.as_deref())),
        Record::RetainedGone { topic } => {
            put_text(out, topic);
            return Some(Tag::RetainedGone);
        }
        Record::Complete { after, through } => {
            put_varint(out, *after);
            put_varint(out, through.saturating_sub(*after));
            return Some(Tag::Complete);
        }
        Record::Expires { session, .. } => (session, Tag::Expires),
        Record::Left { session, .. } => (session, Tag::Left),
        Record::Ended { session } => (session, Tag::Ended),
        Record::WillGone { session } => (session, Tag::WillGone),
        Record::Sent { session, .. } => (session, Tag::Sent),
        Record::Unsent { session, .. } => (session, Tag::Unsent),
        Record::Received { session, .. } => (session, Tag::Received),
        Record::Settled { session, .. } => (session, Tag::Settled),
        Record::Accepted { session, .. } => (session, Tag::Accepted),
        Record::Released { session, .. } => (session, Tag::Released),
    };
    put_session(out, *session);
    match record {
        Record::Expires { seconds, .. } => put_varint(out, u64::from(*seconds)),
        Record::Left { at, .. } => put_varint(out, wall.ms(*at)),
        Record::Unsent { entry, .. } | Record::Settled { entry, .. } => put_varint(out, *entry),
        Record::Sent {
            entry, packet_id, ..
        }
        | Record::Received {
            entry, packet_id, ..
        } => {
            put_varint(out, *entry);
            out.extend_from_slice(&packet_id.to_le_bytes());
        }
        Record::Accepted {
            packet_id, number, ..
        } => {
            out.extend_from_slice(&packet_id.to_le_bytes());
            if *number > 0 {
                put_varint(out, *number);
            }
        }
        Record::Released { packet_id, .. } => out.extend_from_slice(&packet_id.to_le_bytes()),
        _ => {}
    }
    Some(tag)
}

/// ```text
/// session | flags u8 | version u8 | client | [user] | [method u8 | [rules]] | expiry varint |
/// queue bytes varint | [will]
/// rules: count varint | each: access u8 | topics
/// ```
fn put_opened(out: &mut Vec<u8>, opened: &Opened) -> Tag {
    put_session(out, opened.session);
    let rules = opened.own_rules.as_ref();
    let listed = rules.and_then(|(_, acl)| acl.listed());
    out.push(
        flag(USER, opened.user_name.is_some())
            | flag(WILL, opened.will.is_some())
            | flag(RULES, rules.is_some())
            | flag(EVERYTHING, rules.is_some() && listed.is_none()),
    );
    out.push(match opened.version {
        Version::V3_1 => 3,
        Version::V3_1_1 => 4,
        Version::V5 => 5,
    });
    put_text(out, &opened.client_id);
    if let Some(name) = &opened.user_name {
        put_text(out, name);
    }
    if let Some((method, _)) = rules {
        out.push(method_bits(method));
    }
    if let Some(listed) = listed {
        put_varint(out, listed.len() as u64);
        for (access, topics) in listed {
            out.push(access_bits(*access));
            put_text(out, topics);
        }
    }
    put_varint(out, u64::from(opened.expiry_seconds));
    put_varint(out, opened.queue_bytes_max as u64);
    if let Some(will) = &opened.will {
        put_will(out, will);
    }
    Tag::Opened
}

/// ```text
/// flags u8 | topic | payload | properties | [expiry varint] | delay varint
/// ```
fn put_will(out: &mut Vec<u8>, will: &Will) {
    let expiry = will.expiry_seconds;
    out.push(will.qos.bits() | flag(RETAIN, will.retain) | flag(EXPIRES, expiry.is_some()));
    put_text(out, &will.topic);
    put_bytes(out, &will.payload);
    put_bytes(out, &will.forwarded);
    if let Some(seconds) = expiry {
        put_varint(out, u64::from(seconds));
    }
    put_varint(out, u64::from(will.delay_seconds));
}

/// ```text
/// session | flags u8 | filter | [share] | id varint
/// ```
fn put_subscribed(out: &mut Vec<u8>, subscription: &Subscription) -> Tag {
    put_session(out, subscription.session);
    out.push(
        subscription.qos.bits()
            | flag(SHARE, subscription.share.is_some())
            | flag(NO_LOCAL, subscription.no_local)
            | flag(AS_PUBLISHED, subscription.retain_as_published),
    );
    put_text(out, &subscription.filter);
    if let Some(share) = &subscription.share {
        put_text(out, share);
    }
    put_varint(out, u64::from(subscription.subscription_id));
    Tag::Subscribed
}

/// ```text
/// session | flags u8 | filter | [share]
/// ```
fn put_unsubscribed(
    out: &mut Vec<u8>,
    session: SessionNumber,
    filter: &str,
    share: Option<&str>,
) -> Tag {
    put_session(out, session);
    out.push(flag(SHARE, share.is_some()));
    put_text(out, filter);
    if let Some(share) = share {
        put_text(out, share);
    }
    Tag::Unsubscribed
}
