//! Elementary fields, written and read.

use super::refusal::Fault;
use crate::engine::access::METHODS_WITH_RULES;
use crate::engine::access::acl::RuleAccess;
use crate::engine::keys::{SessionNumber, ShardId};
use crate::engine::message::Qos;
use crate::engine::time::Timestamp;
use std::num::NonZeroU64;

/// Most bytes of a varint.
pub(super) const VARINT_BYTES_MAX: usize = 10;

/// A record's first bytes at most.
pub(super) const HEAD_BYTES_MAX: usize = 1 + VARINT_BYTES_MAX;

/// Flags: the low two bits are a QoS.
pub(super) const QOS: u8 = 0b11;
/// Flags: RETAIN.
pub(super) const RETAIN: u8 = 0b100;

/// Flags of a message: it expires.
pub(super) const EXPIRES: u8 = 0b1000;

/// Flags of an entry: subscription identifiers follow.
pub(super) const IDS: u8 = 0b1000;
/// Flags of an entry: its share group follows.
pub(super) const GROUP: u8 = 0b1_0000;
/// Flags of an entry: the session's whole number, not how far it is from the one before.
pub(super) const WHOLE: u8 = 0b10_0000;

/// Flags of a session: a user's name follows.
pub(super) const USER: u8 = 0b1;
/// Flags of a session: its will follows.
pub(super) const WILL: u8 = 0b10;
/// Rules of its own stand there.
pub(super) const RULES: u8 = 0b100;
/// It may do everything by them.
pub(super) const EVERYTHING: u8 = 0b1000;

/// Flags of a subscription: a share name follows.
pub(super) const SHARE: u8 = 0b100;
/// Flags of a subscription: no local.
pub(super) const NO_LOCAL: u8 = 0b1000;
/// Flags of a subscription: retain as published.
pub(super) const AS_PUBLISHED: u8 = 0b1_0000;

/// Between the shards' time and that of the wall.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wall {
    /// What a wall clock shows at the shards' time 0.
    pub(super) origin_ms: u64,
}

impl Wall {
    pub(super) const fn ms(self, at: Timestamp) -> u64 {
        at.as_ms().saturating_add(self.origin_ms)
    }

    pub(super) const fn timestamp(self, ms: u64) -> Timestamp {
        if ms == u64::MAX {
            return Timestamp::NEVER;
        }
        Timestamp::from_ms(ms.saturating_sub(self.origin_ms))
    }
}

/// A session's number in two: which of its shard, and that.
pub(super) const fn parts_of(session: SessionNumber) -> (u64, ShardId) {
    let number = session.0.get();
    (number >> ShardId::BITS, number as ShardId)
}

pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A difference, small in both directions.
pub(super) fn put_difference(out: &mut Vec<u8>, from: u64, to: u64) {
    let difference = to.wrapping_sub(from) as i64;
    put_varint(out, (difference << 1 ^ difference >> 63) as u64);
}

pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

pub(super) fn put_text(out: &mut Vec<u8>, text: &str) {
    put_bytes(out, text.as_bytes());
}

pub(super) fn put_session(out: &mut Vec<u8>, session: SessionNumber) {
    let (counter, shard) = parts_of(session);
    put_varint(out, counter);
    put_varint(out, u64::from(shard));
}

/// A method's place among those that give rules, from 1; 0 for another.
pub(super) fn method_bits(method: &str) -> u8 {
    let mut known = METHODS_WITH_RULES.iter();
    known
        .position(|it| *it == method)
        .map_or(0, |at| at as u8 + 1)
}

pub(super) fn method_of(bits: u8) -> Result<&'static str, Fault> {
    match bits.checked_sub(1) {
        None => Ok(""),
        Some(at) => METHODS_WITH_RULES
            .get(usize::from(at))
            .copied()
            .ok_or(Fault::Value),
    }
}

pub(super) const fn access_bits(access: RuleAccess) -> u8 {
    match access {
        RuleAccess::Read => 1,
        RuleAccess::Write => 2,
        RuleAccess::ReadWrite => 3,
        RuleAccess::Deny => 4,
    }
}

pub(super) const fn access_of(bits: u8) -> Result<RuleAccess, Fault> {
    match bits {
        1 => Ok(RuleAccess::Read),
        2 => Ok(RuleAccess::Write),
        3 => Ok(RuleAccess::ReadWrite),
        4 => Ok(RuleAccess::Deny),
        _ => Err(Fault::Value),
    }
}

/// A flag if something is so.
pub(super) const fn flag(bits: u8, is_so: bool) -> u8 {
    if is_so { bits } else { 0 }
}

/// Reads fields from the front of a slice.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) const fn finish(&self) -> Result<(), Fault> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(Fault::TooLong)
        }
    }

    /// All that is left.
    pub(super) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    pub(super) fn take(&mut self, length: u64) -> Result<&'a [u8], Fault> {
        let length = usize::try_from(length).map_err(|_| Fault::TooShort)?;
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Fault::TooShort)?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn byte(&mut self) -> Result<u8, Fault> {
        let (first, rest) = self.0.split_first().ok_or(Fault::TooShort)?;
        self.0 = rest;
        Ok(*first)
    }

    /// A byte of which only some bits may be set.
    pub(super) fn flags(&mut self, known: u8) -> Result<u8, Fault> {
        let flags = self.byte()?;
        if flags & !known != 0 {
            return Err(Fault::Value);
        }
        Ok(flags)
    }

    pub(super) fn varint(&mut self) -> Result<u64, Fault> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7F);
            value |= bits << shift;
            if byte & 0x80 == 0 {
                let is_padded = byte == 0 && shift > 0;
                let is_cut = bits << shift >> shift != bits;
                return if is_padded || is_cut {
                    Err(Fault::Number)
                } else {
                    Ok(value)
                };
            }
        }
        Err(Fault::Number)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Fault> {
        u32::try_from(self.varint()?).map_err(|_| Fault::Number)
    }

    pub(super) fn difference(&mut self, from: u64) -> Result<u64, Fault> {
        let coded = self.varint()?;
        Ok(from.wrapping_add(coded >> 1 ^ (coded & 1).wrapping_neg()))
    }

    pub(super) fn bytes(&mut self) -> Result<&'a [u8], Fault> {
        let length = self.varint()?;
        self.take(length)
    }

    pub(super) fn text(&mut self) -> Result<&'a str, Fault> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Fault::Text)
    }

    pub(super) fn session(&mut self) -> Result<SessionNumber, Fault> {
        let counter = self.varint()?;
        let shard = self.varint()?;
        session_of(counter, ShardId::try_from(shard).map_err(|_| Fault::Value)?)
    }

    /// A number that is not 0.
    pub(super) fn entry(&mut self) -> Result<u64, Fault> {
        match self.varint()? {
            0 => Err(Fault::Value),
            entry => Ok(entry),
        }
    }

    pub(super) fn packet_id(&mut self) -> Result<u16, Fault> {
        let [low, high] = [self.byte()?, self.byte()?];
        match u16::from_le_bytes([low, high]) {
            0 => Err(Fault::Value),
            id => Ok(id),
        }
    }
}

pub(super) fn session_of(counter: u64, shard: ShardId) -> Result<SessionNumber, Fault> {
    if counter >> (u64::BITS - ShardId::BITS) != 0 {
        return Err(Fault::Value);
    }
    let number = NonZeroU64::new(counter << ShardId::BITS | u64::from(shard));
    number.map(SessionNumber).ok_or(Fault::Value)
}

pub(super) fn qos_of(flags: u8) -> Result<Qos, Fault> {
    Qos::from_bits(flags & QOS).ok_or(Fault::Value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_they_were_written_and_in_no_other_form() {
        for value in [0, 1, 0x7F, 0x80, 0x3FFF, 0x4000, u64::MAX - 1, u64::MAX] {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            let mut fields = Fields(&out);
            assert_eq!(fields.varint(), Ok(value));
            assert!(fields.is_empty() && out.len() <= VARINT_BYTES_MAX);
            for cut in 0..out.len() {
                assert_eq!(Fields(&out[..cut]).varint(), Err(Fault::TooShort));
            }
        }
        assert_eq!(Fields(&[0x80, 0]).varint(), Err(Fault::Number));
        let too_many_bits = [0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 2];
        assert_eq!(Fields(&too_many_bits).varint(), Err(Fault::Number));
        assert_eq!(Fields(&[0x80; 11]).varint(), Err(Fault::Number));
    }

    #[test]
    fn differences_go_both_ways() {
        for (from, to) in [(5, 5), (5, 6), (6, 5), (0, u64::MAX), (1 << 40, 3)] {
            let mut out = Vec::new();
            put_difference(&mut out, from, to);
            assert_eq!(Fields(&out).difference(from), Ok(to));
        }
        let mut out = Vec::new();
        put_difference(&mut out, 100, 40);
        assert_eq!(out.len(), 1);
    }

    #[test]
    fn wall_clock_times_come_back() {
        let wall = Wall { origin_ms: 1_000 };
        let at = Timestamp::from_ms(7);
        assert_eq!((wall.ms(at), wall.timestamp(1_007)), (1_007, at));
        assert_eq!(wall.timestamp(wall.ms(Timestamp::NEVER)), Timestamp::NEVER);
        assert_eq!(
            wall.timestamp(3),
            Timestamp::from_ms(0),
            "before the origin"
        );
    }
}
