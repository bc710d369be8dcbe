//! Topic aliases toward a remote broker that takes some: topics get them as they come, and keep them as long
//! as the line. With more topics than aliases those that came first save their bytes, and no topic costs more
//! than it would without.
//!
//! Invariant: an alias counts as known to the remote only when a packet with it and its topic has left.

use std::collections::BTreeMap;

/// Bytes of the property.
const ALIAS_BYTES: usize = 3;

/// How a topic is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Alias {
    /// With its name alone.
    None,
    /// With its name and this alias, which stands for it from then on.
    New(u16),
    /// With this alone.
    Known(u16),
}

/// Those of a line.
#[derive(Debug, Default)]
pub(super) struct Aliases {
    known: BTreeMap<Box<str>, u16>,
    max: u16,
}

impl Aliases {
    /// So many at most from now on; none is known.
    pub fn begin(&mut self, max: u16) {
        self.known.clear();
        self.max = max;
    }

    /// How to write a topic.
    pub fn of(&self, topic: &str) -> Alias {
        if self.max == 0 || topic.len() <= ALIAS_BYTES {
            return Alias::None;
        }
        match self.known.get(topic) {
            Some(alias) => Alias::Known(*alias),
            None if self.known.len() < usize::from(self.max) => {
                Alias::New(self.known.len() as u16 + 1)
            }
            None => Alias::None,
        }
    }

    /// A packet with this topic and its new alias has left.
    pub fn learn(&mut self, topic: &str, alias: u16) {
        self.known.insert(topic.into(), alias);
    }
}
