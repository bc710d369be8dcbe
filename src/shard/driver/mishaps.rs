//! What went wrong for clients, the last of each: why it was refused, disconnected or denied something, and
//! what it has lost.
//!
//! Invariants: it is written only when something goes wrong, never for a packet that is served; names, and
//! what is kept of each, are bounded: who has had nothing for longest gives way, and is counted.

use crate::shard::inquiries::Mishap;
use std::collections::{BTreeMap, VecDeque};

/// Clients of whom something is kept.
pub(super) const CLIENTS_MAX: usize = 1_000;
/// That is kept of each.
const OF_CLIENT_MAX: usize = 10;
/// Bytes of a text, and of a name: a longer one is not kept.
const TEXT_BYTES_MAX: usize = 400;
const NAME_BYTES_MAX: usize = 1_024;

/// What is kept of one client.
#[derive(Debug)]
struct OfClient {
    /// Number of the last one.
    last: u64,
    /// Oldest first.
    mishaps: VecDeque<Mishap>,
}

/// Of all clients.
#[derive(Debug, Default)]
pub(super) struct Mishaps {
    by_client: BTreeMap<Box<str>, OfClient>,
    /// Names by the number of their last one.
    by_last: BTreeMap<u64, Box<str>>,
    /// How many there were.
    count: u64,
    /// Clients that gave way.
    pub displaced: u64,
}

impl Mishaps {
    /// Something has gone wrong for a client, at this time of the wall clock.
    pub fn note(&mut self, client_id: &str, at_ms: u64, text: &str) {
        if client_id.is_empty() || client_id.len() > NAME_BYTES_MAX {
            return;
        }
        self.count += 1;
        let mut text = text.to_owned();
        text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
        let mishap = Mishap {
            at_ms,
            seconds_ago: 0,
            text,
        };
        if let Some(known) = self.by_client.get_mut(client_id) {
            if let Some(name) = self.by_last.remove(&known.last) {
                self.by_last.insert(self.count, name);
            }
            known.last = self.count;
            if known.mishaps.len() >= OF_CLIENT_MAX {
                known.mishaps.pop_front();
            }
            return known.mishaps.push_back(mishap);
        }
        if self.by_client.len() >= CLIENTS_MAX
            && let Some((_, name)) = self.by_last.pop_first()
        {
            self.by_client.remove(&name);
            self.displaced += 1;
        }
        let of_client = OfClient {
            last: self.count,
            mishaps: VecDeque::from([mishap]),
        };
        self.by_client.insert(client_id.into(), of_client);
        self.by_last.insert(self.count, client_id.into());
    }

    /// What is known of a client, newest first.
    pub fn of(&self, client_id: &str, now_ms: u64) -> Vec<Mishap> {
        let known = self.by_client.get(client_id);
        let known = known
            .into_iter()
            .flat_map(|known| known.mishaps.iter().rev());
        let told = known.map(|mishap| Mishap {
            seconds_ago: now_ms.saturating_sub(mishap.at_ms) / 1_000,
            ..mishap.clone()
        });
        told.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_each_are_kept_and_who_has_had_none_for_longest_gives_way() {
        let mut mishaps = Mishaps::default();
        for number in 0..15 {
            mishaps.note("a", number, &format!("{number}"));
        }
        let of_a: Vec<_> = mishaps.of("a", 15).iter().map(|it| it.at_ms).collect();
        assert_eq!(of_a, (5..15).rev().collect::<Vec<_>>());
        mishaps.note("b", 20, "x");
        mishaps.note("a", 21, "y");
        for number in 0..CLIENTS_MAX - 1 {
            mishaps.note(&format!("c{number}"), 22, "z");
        }
        assert_eq!((mishaps.of("b", 0).len(), mishaps.displaced), (0, 1));
        let last = &mishaps.of("a", 3_021)[0];
        assert_eq!((last.text.as_str(), last.seconds_ago), ("y", 3));
        assert_eq!(mishaps.by_client.len(), mishaps.by_last.len());
        assert!(mishaps.of("nobody", 0).is_empty());
    }

    #[test]
    fn a_long_text_is_cut_and_who_has_no_name_is_nobody() {
        let mut mishaps = Mishaps::default();
        mishaps.note("a", 0, &"é".repeat(TEXT_BYTES_MAX));
        assert_eq!(mishaps.of("a", 0)[0].text.len(), TEXT_BYTES_MAX);
        mishaps.note("", 0, "x");
        mishaps.note(&"n".repeat(NAME_BYTES_MAX + 1), 0, "x");
        assert_eq!(mishaps.by_client.len(), 1);
    }
}
