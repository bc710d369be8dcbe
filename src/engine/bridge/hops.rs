//! Where a message has been: a user property that names the brokers that it has left, so that none gets it
//! again in a ring of bridges.

use crate::engine::codec::primitive::Reader;
use crate::engine::codec::property::{id, put_user_property};

/// The user property.
pub const PROPERTY: &str = "ringmq-hops";
/// What stands between names.
const SEPARATOR: char = ',';
/// In place of the name of a broker that has not told it.
const NAMELESS: &str = "-";

/// Whether a message may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passage {
    /// It may, with the properties as they were written.
    Open,
    /// It has been where it would go.
    BeenThere,
    /// It has left as many brokers as it may.
    TooFar,
}

/// Whether a name can stand in a list.
#[must_use]
pub fn is_name(text: &str) -> bool {
    let is_usual = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    !text.is_empty() && text.len() <= 64 && text.chars().all(is_usual)
}

/// A message with these encoded properties leaves broker `from` for broker `to`; `into` becomes its
/// properties with the longer list. `hops_max` is how many brokers it may have left before.
pub fn pass(
    properties: &[u8],
    from: Option<&str>,
    to: Option<&str>,
    hops_max: usize,
    into: &mut Vec<u8>,
) -> Passage {
    into.clear();
    let mut list = String::new();
    if properties.is_empty() {
        // The usual case.
    } else if !has_list(properties) {
        into.extend_from_slice(properties);
    } else {
        take_out(properties, &mut list, into);
    }
    let mut names = list.split(SEPARATOR).filter(|name| !name.is_empty());
    if names.clone().count() >= hops_max {
        return Passage::TooFar;
    }
    if names.any(|name| Some(name) == to) {
        return Passage::BeenThere;
    }
    if !list.is_empty() {
        list.push(SEPARATOR);
    }
    list.push_str(from.unwrap_or(NAMELESS));
    put_user_property(PROPERTY, &list, into);
    Passage::Open
}

fn has_list(properties: &[u8]) -> bool {
    let mut windows = properties.windows(PROPERTY.len());
    windows.any(|window| window == PROPERTY.as_bytes())
}

/// Copies properties but for the list, which goes to `list`; they were checked when they were decoded.
fn take_out(properties: &[u8], list: &mut String, into: &mut Vec<u8>) {
    let mut reader = Reader::new(properties);
    while !reader.is_empty() {
        let start = reader.rest();
        let Ok(kind) = reader.byte() else { return };
        let is_list = match skip(&mut reader, kind) {
            Some((PROPERTY, value)) => {
                if list.is_empty() {
                    list.push_str(value);
                }
                true
            }
            Some(_) => false,
            None => return,
        };
        let taken = start.len() - reader.rest().len();
        if !is_list {
            into.extend_from_slice(start.get(..taken).unwrap_or_default());
        }
    }
}

/// The next value of what a message may carry on; name and value of a user property.
fn skip<'a>(reader: &mut Reader<'a>, kind: u8) -> Option<(&'a str, &'a str)> {
    match kind {
        id::USER_PROPERTY => return Some((reader.string().ok()?, reader.string().ok()?)),
        id::PAYLOAD_FORMAT_INDICATOR => drop(reader.byte().ok()?),
        _ => drop(reader.binary().ok()?),
    }
    Some(("", ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a message's list is after each of these hops, until it is stopped.
    fn travel(way: &[&str], hops_max: usize) -> (usize, Passage, Vec<u8>) {
        let mut properties = vec![id::PAYLOAD_FORMAT_INDICATOR, 1];
        put_user_property("a", "b", &mut properties);
        for (hop, pair) in way.windows(2).enumerate() {
            let mut after = Vec::new();
            let (from, to) = (Some(pair[0]), Some(pair[1]));
            let passage = pass(&properties, from, to, hops_max, &mut after);
            if passage != Passage::Open {
                return (hop, passage, properties);
            }
            properties = after;
        }
        (way.len() - 1, Passage::Open, properties)
    }

    #[test]
    fn a_ring_is_gone_round_once() {
        let (hop, passage, properties) = travel(&["a", "b", "c", "a", "b"], 8);
        assert_eq!((hop, passage), (2, Passage::BeenThere));
        let mut wanted = vec![id::PAYLOAD_FORMAT_INDICATOR, 1];
        put_user_property("a", "b", &mut wanted);
        put_user_property(PROPERTY, "a,b", &mut wanted);
        assert_eq!(properties, wanted);
    }

    #[test]
    fn no_way_is_longer_than_it_may_be() {
        assert_eq!(travel(&["a", "b", "c"], 1).1, Passage::TooFar);
        assert_eq!(travel(&["a", "b", "c"], 2).1, Passage::Open);
        let mut into = Vec::new();
        assert_eq!(pass(&[], None, None, 1, &mut into), Passage::Open);
        assert_eq!(
            pass(&into.clone(), Some("a"), None, 1, &mut into),
            Passage::TooFar
        );
    }

    #[test]
    fn names_have_nothing_that_stands_between_them() {
        assert!(
            is_name("site-1.example")
                && !is_name("a,b")
                && !is_name("")
                && !is_name(&"x".repeat(65))
        );
    }
}
