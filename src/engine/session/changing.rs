//! A SUBSCRIBE or UNSUBSCRIBE of which some filters are done and others wait for a turn.

use crate::engine::codec::Reason;
use crate::engine::codec::subscribe::SubscriptionOptions;
use crate::engine::route::trie::NodeId;

/// What it asks for, filter by filter.
#[derive(Debug)]
pub enum Wanted {
    /// SUBSCRIBE.
    Subscribe {
        /// Subscription identifier for all its filters, 0 for none.
        subscription_id: u32,
        /// The filters as sent, and their options.
        requests: Box<[(Box<str>, SubscriptionOptions)]>,
    },
    /// UNSUBSCRIBE, with its filters as sent.
    Unsubscribe(Box<[Box<str>]>),
}

/// What is done of it.
#[derive(Debug, Default)]
pub struct Progress {
    /// For each filter that is done, in their order.
    pub reasons: Vec<Reason>,
    /// Retained messages that are due for them: where the trie has the filter, and the number of the task.
    pub tasks: Vec<(NodeId, u64)>,
}

/// The packet.
#[derive(Debug)]
pub struct Changing {
    /// Identifier its answer repeats.
    pub packet_id: u16,
    /// All of it.
    pub wanted: Wanted,
    /// What is done.
    pub progress: Progress,
}

impl Changing {
    /// How many filters it has.
    #[must_use]
    pub const fn filters(&self) -> usize {
        match &self.wanted {
            Wanted::Subscribe { requests, .. } => requests.len(),
            Wanted::Unsubscribe(filters) => filters.len(),
        }
    }

    /// Memory that it takes.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        let text: usize = match &self.wanted {
            Wanted::Subscribe { requests, .. } => requests.iter().map(|(f, _)| f.len()).sum(),
            Wanted::Unsubscribe(filters) => filters.iter().map(|filter| filter.len()).sum(),
        };
        text + self.filters() * size_of::<(Box<str>, SubscriptionOptions)>()
    }
}
