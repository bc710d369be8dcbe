//! A shard's records, read out of its frames.
//!
//! Invariant: nothing is put aside of what was read but the messages that may still be named and the
//! beginning of a record in parts: memory is in proportion to the bytes read, whatever they say.
//!
//! Not here: frames that lie in the log, and whose they are ([`crate::storage::log`]).

use super::fields::{
    AS_PUBLISHED, EVERYTHING, EXPIRES, Fields, GROUP, IDS, NO_LOCAL, QOS, RETAIN, RULES, SHARE,
    USER, WHOLE, WILL, Wall, access_of, method_of, parts_of, qos_of, session_of,
};
use super::refusal::{Fault, Refusal};
use super::tag::Tag;
use super::window::{NUMBER_END, Window};
use crate::engine::access::acl::Acl;
use crate::engine::codec::Version;
use crate::engine::keys::{GroupKey, Origin, SessionNumber, ShardId};
use crate::engine::message::{LocalMessage, Message, Qos};
use crate::engine::record::{Opened, Record, Step, Subscription};
use crate::engine::session::will::Will;
use crate::engine::session::{Delivery, SubscriptionIds};
use std::rc::Rc;
use std::sync::Arc;

/// Most bytes of a record: a packet has at most 256 MiB.
pub const RECORD_BYTES_MAX: u64 = 512 * 1024 * 1024;

/// Numbers of publishes end here.
const PUBLISH_NUMBER_END: u64 = 1 << 55;

/// Reads the records of one shard.
#[derive(Debug)]
pub struct Decoder {
    wall: Wall,
    /// `None` stands for one that is lost.
    bodies: Window<Option<LocalMessage>>,
    /// What is there of a record in parts; empty if there is none.
    parts: Vec<u8>,
    /// Something is missing before the next message.
    has_lost: bool,
    /// What comes is told anew.
    is_restating: bool,
}

impl Decoder {
    /// Times are told as of a process whose engine's time 0 is when a wall clock showed `origin_ms`, and what
    /// was before that as 0. With 0 they are those of the wall.
    #[must_use]
    pub const fn new(origin_ms: u64) -> Self {
        Decoder {
            wall: Wall { origin_ms },
            bodies: Window::new(0),
            parts: Vec::new(),
            has_lost: false,
            is_restating: false,
        }
    }

    /// The records of the shard's next frame, in order.
    ///
    /// # Errors
    /// One is not as they are written. Those before it were told; what comes after it cannot be read.
    pub fn read(&mut self, records: &[u8], mut take: impl FnMut(Record)) -> Result<(), Refusal> {
        let mut rest = Fields(records);
        while !rest.is_empty() {
            let at = records.len() - rest.0.len();
            let tag = rest.0.first().copied().unwrap_or_default();
            let told = split(&mut rest).and_then(|(tag, fields)| self.one(tag, fields, &mut take));
            told.map_err(|fault| Refusal { at, tag, fault })?;
        }
        Ok(())
    }

    fn one(
        &mut self,
        tag: Tag,
        fields: Fields<'_>,
        take: &mut impl FnMut(Record),
    ) -> Result<(), Fault> {
        match tag {
            Tag::Began => {
                // What the process before had begun to write was never acknowledged.
                self.parts = Vec::new();
                self.bodies = Window::new(0);
                // Nor does the one that goes on tell the rest of what that told anew.
                if std::mem::take(&mut self.is_restating) {
                    take(Record::Checkpoint(Step::Changes));
                }
                fields.finish()
            }
            Tag::NextPart => {
                if self.parts.is_empty() {
                    return Err(Fault::NoFirstPart);
                }
                self.part(fields, take)
            }
            _ if !self.parts.is_empty() => Err(Fault::Interrupts),
            Tag::Part => self.part(fields, take),
            tag => self.whole(tag, fields, take),
        }
    }

    fn part(&mut self, mut fields: Fields<'_>, take: &mut impl FnMut(Record)) -> Result<(), Fault> {
        if fields.is_empty() {
            return Err(Fault::TooShort);
        }
        self.parts.extend_from_slice(fields.rest());
        let mut so_far = Fields(&self.parts);
        let (tag, length) = match begin(&mut so_far) {
            Ok(begun) => begun,
            Err(Fault::TooShort) => return Ok(()),
            Err(fault) => return Err(fault),
        };
        if matches!(tag, Tag::Began | Tag::Part | Tag::NextPart) {
            return Err(Fault::PartInParts);
        }
        match (so_far.0.len() as u64).cmp(&length) {
            std::cmp::Ordering::Less => Ok(()),
            std::cmp::Ordering::Greater => Err(Fault::TooLong),
            std::cmp::Ordering::Equal => {
                let whole = std::mem::take(&mut self.parts);
                let mut whole = Fields(&whole);
                let (tag, fields) = split(&mut whole)?;
                self.whole(tag, fields, take)
            }
        }
    }

    fn whole(
        &mut self,
        tag: Tag,
        mut fields: Fields<'_>,
        take: &mut impl FnMut(Record),
    ) -> Result<(), Fault> {
        match tag {
            Tag::Body => self.body(fields),
            Tag::Queued => self.queued(None, fields, take),
            Tag::QueuedOnce => {
                let origin = origin(&mut fields)?;
                self.queued(Some(origin), fields, take)
            }
            Tag::Retained => {
                let message = self.named(&mut fields)?.share();
                fields.finish()?;
                take(Record::Retained { message });
                Ok(())
            }
            tag => {
                let record = plain(tag, &mut fields, self.wall)?;
                fields.finish()?;
                if let Record::Checkpoint(step) = record {
                    self.is_restating = step == Step::Restates;
                }
                take(record);
                Ok(())
            }
        }
    }

    fn body(&mut self, mut fields: Fields<'_>) -> Result<(), Fault> {
        let number = fields.entry()?;
        if number >= NUMBER_END {
            return Err(Fault::Value);
        }
        match self.bodies.next() {
            // The frames with those before it were not needed any more.
            0 => self.bodies = Window::new(number),
            due if due == number => {}
            due if self.has_lost && due < number => self.bodies.skip_to(number, || None),
            _ => return Err(Fault::BodyOrder),
        }
        let flags = fields.flags(QOS | RETAIN | EXPIRES)?;
        let qos = qos_of(flags)?;
        let expires_at = if flags & EXPIRES != 0 {
            Some(self.wall.timestamp(fields.varint()?))
        } else {
            None
        };
        let topic = fields.text()?;
        let properties = fields.bytes()?;
        let retain = flags & RETAIN != 0;
        let message = Message::new(topic, properties, fields.rest(), qos, retain, expires_at);
        let message = Arc::new(message);
        let local = LocalMessage::new(Arc::clone(&message));
        self.bodies.push(Some(local), &message, drop);
        self.has_lost = false;
        Ok(())
    }

    fn named(&self, fields: &mut Fields<'_>) -> Result<&LocalMessage, Fault> {
        let number = fields.varint()?;
        let known = self.bodies.get(number).and_then(Option::as_ref);
        known.ok_or(Fault::NoBody)
    }

    fn queued(
        &self,
        origin: Option<Origin>,
        mut fields: Fields<'_>,
        take: &mut impl FnMut(Record),
    ) -> Result<(), Fault> {
        let message = self.named(&mut fields)?;
        entries(message, origin, fields, take)
    }
}

/// Reads on behind what is missing or cannot be read.
impl Decoder {
    /// Frames of the shard are missing here. Whether the next one is of the same process as the last:
    /// otherwise nothing that was written before may be named.
    pub fn lost(&mut self, is_same_process: bool) {
        self.parts = Vec::new();
        if !is_same_process {
            self.bodies = Window::new(0);
        }
        self.has_lost = true;
    }

    /// As [`Decoder::read`], but leaves out what cannot be read, which is told as well.
    pub fn read_on(&mut self, records: &[u8], mut take: impl FnMut(Result<Record, LeftOut>)) {
        let mut rest = Fields(records);
        while !rest.is_empty() {
            let at = records.len() - rest.0.len();
            let bits = rest.0.first().copied().unwrap_or_default();
            let refusal = |fault| Refusal {
                at,
                tag: bits,
                fault,
            };
            let (tag, fields) = match split(&mut rest) {
                Ok(record) => record,
                Err(fault) => {
                    // Where the next one begins is not known.
                    self.lost(true);
                    return take(Err(LeftOut::Rest(refusal(fault))));
                }
            };
            if !self.parts.is_empty() && tag != Tag::NextPart && tag != Tag::Began {
                self.parts = Vec::new();
                take(Err(LeftOut::Record(refusal(Fault::Interrupts))));
            }
            let read = self.one(tag, fields, &mut |record| take(Ok(record)));
            match read {
                Ok(()) => {}
                Err(Fault::NoBody) if tag == Tag::Queued => names(fields, &mut take),
                Err(Fault::NoBody) if tag == Tag::QueuedOnce => {
                    let mut fields = fields;
                    // It was read before.
                    let _ = origin(&mut fields);
                    names(fields, &mut take);
                }
                Err(Fault::NoBody) if tag == Tag::Retained => take(Err(LeftOut::Retained)),
                Err(Fault::NoFirstPart) => take(Err(LeftOut::Part)),
                Err(fault) => {
                    self.lost(true);
                    take(Err(LeftOut::Record(refusal(fault))));
                }
            }
        }
    }
}

/// What was left out in reading on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeftOut {
    /// A message on its way to a session: its content is lost.
    Entry {
        /// To which.
        session: SessionNumber,
        /// Which entry.
        entry: u64,
    },
    /// A retained message: its topic and content are lost.
    Retained,
    /// A part of a record whose beginning is lost.
    Part,
    /// A record that cannot be read.
    Record(Refusal),
    /// It and all behind it in its frame.
    Rest(Refusal),
}

/// Who would get a message that is lost.
fn names(mut fields: Fields<'_>, take: &mut impl FnMut(Result<Record, LeftOut>)) {
    let nothing = Message::new("", b"", b"", Qos::AtLeastOnce, false, None);
    let nothing = LocalMessage::new(Arc::new(nothing));
    let mut name = |record| {
        if let Record::Queued {
            session, delivery, ..
        } = record
        {
            let entry = delivery.entry;
            take(Err(LeftOut::Entry { session, entry }));
        }
    };
    // It was refused for the message alone, which comes first.
    let _ = fields.varint();
    let _ = entries(&nothing, None, fields, &mut name);
}

/// The publish of a list that may not be complete.
fn origin(fields: &mut Fields<'_>) -> Result<Origin, Fault> {
    let shard = ShardId::try_from(fields.varint()?).map_err(|_| Fault::Value)?;
    let number = publish_number(fields.varint()?)?;
    Origin::new(shard, number).ok_or(Fault::Value)
}

/// The number of a publish, or 0.
const fn publish_number(number: u64) -> Result<u64, Fault> {
    if number >= PUBLISH_NUMBER_END {
        return Err(Fault::Value);
    }
    Ok(number)
}

/// The entries of a list.
fn entries(
    message: &LocalMessage,
    origin: Option<Origin>,
    mut fields: Fields<'_>,
    take: &mut impl FnMut(Record),
) -> Result<(), Fault> {
    let mut last = None;
    loop {
        let flags = fields.flags(QOS | RETAIN | IDS | GROUP | WHOLE)?;
        let qos = qos_of(flags)?;
        if qos == Qos::AtMostOnce {
            return Err(Fault::Value);
        }
        let session = match last {
            _ if flags & WHOLE != 0 => fields.session()?,
            Some((counter, shard)) => session_of(fields.difference(counter)?, shard)?,
            None => return Err(Fault::Value),
        };
        last = Some(parts_of(session));
        let entry = fields.entry()?;
        let subscription_ids = if flags & IDS != 0 {
            ids(&mut fields)?
        } else {
            SubscriptionIds::None
        };
        let group = if flags & GROUP != 0 {
            Some(Rc::new(GroupKey {
                filter: fields.text()?.into(),
                name: fields.text()?.into(),
            }))
        } else {
            None
        };
        let delivery = Delivery {
            message: message.clone(),
            qos,
            retain: flags & RETAIN != 0,
            subscription_ids,
            group,
            entry,
            queued_at_ds: 0,
        };
        if origin.is_some() && qos != Qos::ExactlyOnce {
            return Err(Fault::Value);
        }
        take(Record::Queued {
            session,
            delivery,
            origin,
        });
        if fields.is_empty() {
            return Ok(());
        }
    }
}

/// The records of a frame one by one as they stand there: where each begins, what it is called, its bytes.
/// What cannot be told apart any more is not told.
pub fn outline(records: &[u8], mut take: impl FnMut(usize, &'static str, usize)) {
    let mut rest = Fields(records);
    while !rest.is_empty() {
        let at = records.len() - rest.0.len();
        let Ok((tag, _)) = split(&mut rest) else {
            return;
        };
        take(at, tag.name(), records.len() - rest.0.len() - at);
    }
}

/// A record's tag and the length of its fields.
fn begin(from: &mut Fields<'_>) -> Result<(Tag, u64), Fault> {
    let tag = Tag::from_bits(from.byte()?).ok_or(Fault::UnknownTag)?;
    let length = from.varint()?;
    if length > RECORD_BYTES_MAX {
        return Err(Fault::TooLarge);
    }
    Ok((tag, length))
}

/// The next record.
fn split<'a>(from: &mut Fields<'a>) -> Result<(Tag, Fields<'a>), Fault> {
    let (tag, length) = begin(from)?;
    Ok((tag, Fields(from.take(length)?)))
}

fn ids(fields: &mut Fields<'_>) -> Result<SubscriptionIds, Fault> {
    let count = fields.varint()?;
    if count == 1 {
        return Ok(SubscriptionIds::One(fields.u32()?));
    }
    if count == 0 {
        return Err(Fault::Value);
    }
    // Not collected by the count: that is only what somebody says.
    let mut ids = Vec::new();
    for _ in 0..count {
        ids.push(fields.u32()?);
    }
    Ok(SubscriptionIds::Many(ids.into()))
}

/// A record that names no message.
fn plain(tag: Tag, fields: &mut Fields<'_>, wall: Wall) -> Result<Record, Fault> {
    if tag == Tag::RetainedGone {
        let topic = fields.text()?.into();
        return Ok(Record::RetainedGone { topic });
    }
    if tag == Tag::Complete {
        let after = publish_number(fields.varint()?)?;
        let through = after.checked_add(fields.entry()?).ok_or(Fault::Number)?;
        let through = publish_number(through)?;
        return Ok(Record::Complete { after, through });
    }
    if let Some(step) = step(tag) {
        return Ok(Record::Checkpoint(step));
    }
    let session = fields.session()?;
    Ok(match tag {
        Tag::Opened => Record::Opened(Box::new(opened(session, fields)?)),
        Tag::Expires => Record::Expires {
            session,
            seconds: fields.u32()?,
        },
        Tag::Left => Record::Left {
            session,
            at: wall.timestamp(fields.varint()?),
        },
        Tag::Ended => Record::Ended { session },
        Tag::WillGone => Record::WillGone { session },
        Tag::Subscribed => Record::Subscribed(Box::new(subscribed(session, fields)?)),
        Tag::Unsubscribed => {
            let flags = fields.flags(SHARE)?;
            Record::Unsubscribed {
                session,
                filter: fields.text()?.into(),
                share: share(flags, fields)?,
            }
        }
        Tag::Sent => Record::Sent {
            session,
            entry: fields.entry()?,
            packet_id: fields.packet_id()?,
        },
        Tag::Unsent => Record::Unsent {
            session,
            entry: fields.entry()?,
        },
        Tag::Received => Record::Received {
            session,
            entry: fields.entry()?,
            packet_id: fields.packet_id()?,
        },
        Tag::Settled => Record::Settled {
            session,
            entry: fields.entry()?,
        },
        Tag::Accepted => Record::Accepted {
            session,
            packet_id: fields.packet_id()?,
            number: match fields.is_empty() {
                true => 0,
                false => publish_number(fields.entry()?)?,
            },
        },
        Tag::Released => Record::Released {
            session,
            packet_id: fields.packet_id()?,
        },
        _ => return Err(Fault::UnknownTag),
    })
}

const fn step(tag: Tag) -> Option<Step> {
    match tag {
        Tag::CheckpointBegins => Some(Step::Begins),
        Tag::Restates => Some(Step::Restates),
        Tag::Changes => Some(Step::Changes),
        Tag::CheckpointEnds => Some(Step::Ends),
        _ => None,
    }
}

fn opened(session: SessionNumber, fields: &mut Fields<'_>) -> Result<Opened, Fault> {
    let flags = fields.flags(USER | WILL | RULES | EVERYTHING)?;
    let version = match fields.byte()? {
        3 => Version::V3_1,
        4 => Version::V3_1_1,
        5 => Version::V5,
        _ => return Err(Fault::Value),
    };
    let client_id = fields.text()?.into();
    let user_name = if flags & USER != 0 {
        Some(fields.text()?.into())
    } else {
        None
    };
    let own_rules = own_rules(flags, fields)?;
    let expiry_seconds = fields.u32()?;
    let queue_bytes_max = usize::try_from(fields.varint()?).map_err(|_| Fault::Number)?;
    let will = if flags & WILL != 0 {
        Some(Box::new(will(fields)?))
    } else {
        None
    };
    Ok(Opened {
        session,
        client_id,
        version,
        user_name,
        own_rules,
        expiry_seconds,
        queue_bytes_max,
        will,
    })
}

fn own_rules(
    flags: u8,
    fields: &mut Fields<'_>,
) -> Result<Option<(&'static str, Arc<Acl>)>, Fault> {
    if flags & RULES == 0 {
        let is_none = flags & EVERYTHING == 0;
        return if is_none { Ok(None) } else { Err(Fault::Value) };
    }
    let method = method_of(fields.byte()?)?;
    if flags & EVERYTHING != 0 {
        return Ok(Some((method, Arc::new(Acl::everything()))));
    }
    let mut rules = Vec::new();
    // Not collected by the count: that is only what somebody says.
    for _ in 0..fields.varint()? {
        rules.push((access_of(fields.byte()?)?, fields.text()?));
    }
    let acl = Acl::from_rules(rules.into_iter()).map_err(|_| Fault::Value)?;
    Ok(Some((method, Arc::new(acl))))
}

fn will(fields: &mut Fields<'_>) -> Result<Will, Fault> {
    let flags = fields.flags(QOS | RETAIN | EXPIRES)?;
    let (topic, payload, forwarded) = (fields.text()?, fields.bytes()?, fields.bytes()?);
    let expiry_seconds = if flags & EXPIRES != 0 {
        Some(fields.u32()?)
    } else {
        None
    };
    Ok(Will {
        topic: topic.into(),
        payload: payload.into(),
        forwarded: forwarded.into(),
        qos: qos_of(flags)?,
        retain: flags & RETAIN != 0,
        expiry_seconds,
        delay_seconds: fields.u32()?,
    })
}

fn subscribed(session: SessionNumber, fields: &mut Fields<'_>) -> Result<Subscription, Fault> {
    let flags = fields.flags(QOS | SHARE | NO_LOCAL | AS_PUBLISHED)?;
    Ok(Subscription {
        session,
        filter: fields.text()?.into(),
        share: share(flags, fields)?,
        subscription_id: fields.u32()?,
        qos: qos_of(flags)?,
        no_local: flags & NO_LOCAL != 0,
        retain_as_published: flags & AS_PUBLISHED != 0,
    })
}

fn share(flags: u8, fields: &mut Fields<'_>) -> Result<Option<Arc<str>>, Fault> {
    if flags & SHARE == 0 {
        return Ok(None);
    }
    Ok(Some(fields.text()?.into()))
}
