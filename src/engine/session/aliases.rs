//! Topic aliases of a connection, in both directions; they live as long as it does `[MQTT-3.3.2-7]`.
//!
//! Invariant: the broker's aliases are 1, 2, 3 ... without a gap, at most as many as the client takes, and a
//! topic keeps its own.

use super::FixedMap;
use foldhash::fast::FixedState;

/// The alias that a publish is sent with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutgoingAlias {
    /// 0 for none.
    pub number: u16,
    /// Whether the client knows it already, so that the topic is left out.
    pub is_known: bool,
}

impl OutgoingAlias {
    /// The topic itself.
    pub const NONE: Self = OutgoingAlias {
        number: 0,
        is_known: false,
    };
}

/// The aliases of one connection. By default the topics of the broker's have hashes that can be foreseen:
/// for a client that takes aliases, use [`Aliases::new`].
#[derive(Debug, Default)]
pub struct Aliases {
    /// Set by the client.
    inbound: FixedMap<u16, Box<str>>,
    /// Set by the broker.
    outbound: FixedMap<Box<str>, u16>,
}

impl Aliases {
    /// None so far; topics, which any publisher chooses, are hashed by that state.
    #[must_use]
    pub fn new(hashed_by: FixedState) -> Self {
        Aliases {
            inbound: FixedMap::default(),
            outbound: FixedMap::with_hasher(hashed_by),
        }
    }

    /// The client gives a topic an alias, or an alias another topic.
    pub fn set_inbound(&mut self, alias: u16, topic: &str) {
        self.inbound.insert(alias, topic.into());
    }

    /// The topic of a client's alias.
    #[must_use]
    pub fn inbound(&self, alias: u16) -> Option<&str> {
        self.inbound.get(&alias).map(Box::as_ref)
    }

    /// The topic of the broker's alias, which is looked for among all.
    #[must_use]
    pub fn outbound(&self, alias: u16) -> Option<&str> {
        let mut all = self.outbound.iter();
        let (topic, _) = all.find(|(_, number)| **number == alias)?;
        Some(topic)
    }

    /// The alias to send a topic with to a client that takes `max` of them `[MQTT-3.3.2-11]`.
    pub fn outgoing(&mut self, topic: &str, max: u16) -> OutgoingAlias {
        if let Some(&number) = self.outbound.get(topic) {
            return OutgoingAlias {
                number,
                is_known: true,
            };
        }
        if self.outbound.len() >= usize::from(max) {
            return OutgoingAlias::NONE;
        }
        let number = self.outbound.len() as u16 + 1;
        self.outbound.insert(topic.into(), number);
        OutgoingAlias {
            number,
            is_known: false,
        }
    }

    /// The packet that would have told the client of a new alias was not sent.
    pub fn take_back(&mut self, topic: &str, alias: OutgoingAlias) {
        if alias.number != 0 && !alias.is_known {
            self.outbound.remove(topic);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_keeps_its_alias_and_those_beyond_the_maximum_get_none() {
        let mut aliases = Aliases::new(FixedState::with_seed(1));
        let alias = |number, is_known| OutgoingAlias { number, is_known };
        assert_eq!(aliases.outgoing("a", 2), alias(1, false));
        assert_eq!(aliases.outgoing("b", 2), alias(2, false));
        assert_eq!(aliases.outgoing("a", 2), alias(1, true));
        assert_eq!(aliases.outgoing("c", 2), OutgoingAlias::NONE);
        assert_eq!(
            (aliases.outbound(2), aliases.outbound(3)),
            (Some("b"), None)
        );
    }

    #[test]
    fn an_alias_that_was_not_told_is_free_again() {
        let mut aliases = Aliases::default();
        let first = aliases.outgoing("a", 9);
        aliases.take_back("a", first);
        assert_eq!(aliases.outgoing("b", 9), first);
        let known = aliases.outgoing("b", 9);
        aliases.take_back("b", known);
        assert_eq!(aliases.outgoing("b", 9), known, "the client was told of it");
    }

    #[test]
    fn a_client_may_give_an_alias_another_topic() {
        let mut aliases = Aliases::default();
        assert_eq!(aliases.inbound(1), None);
        aliases.set_inbound(1, "a");
        aliases.set_inbound(1, "b");
        assert_eq!(aliases.inbound(1), Some("b"));
    }
}
