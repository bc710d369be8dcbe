//! What went wrong for clients, the last causes of each: why it was refused, disconnected or denied
//! something, and what it has lost. What happens for one cause is counted, so that it leaves others
//! their place.
//!
//! Invariants: it is written only when something goes wrong, never for a packet that is served; names, and
//! what is kept of each, are bounded: who has had nothing for longest gives way, and is counted.

use crate::shard::inquiries::Mishap;
use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

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
    /// By the hash of the cause; whose last is longest ago comes first.
    mishaps: VecDeque<(u64, Mishap)>,
}

impl OfClient {
    fn note(&mut self, cause: u64, mut mishap: Mishap) {
        let known = self.mishaps.iter().position(|(of, _)| *of == cause);
        if let Some((_, before)) = known.and_then(|place| self.mishaps.remove(place)) {
            mishap.count += before.count;
        } else if self.mishaps.len() >= OF_CLIENT_MAX {
            self.mishaps.pop_front();
        }
        self.mishaps.push_back((cause, mishap));
    }
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
    /// Something has gone wrong for a client, at this time of the wall clock, so many times for this cause.
    pub fn note(&mut self, client_id: &str, at_ms: u64, cause: &str, text: &str, count: u64) {
        if client_id.is_empty() || client_id.len() > NAME_BYTES_MAX {
            return;
        }
        self.count += 1;
        let mut text = text.to_owned();
        text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
        let mishap = Mishap {
            at_ms,
            seconds_ago: 0,
            count,
            text,
        };
        let cause = hash_of(cause);
        if let Some(known) = self.by_client.get_mut(client_id) {
            if let Some(name) = self.by_last.remove(&known.last) {
                self.by_last.insert(self.count, name);
            }
            known.last = self.count;
            return known.note(cause, mishap);
        }
        if self.by_client.len() >= CLIENTS_MAX
            && let Some((_, name)) = self.by_last.pop_first()
        {
            self.by_client.remove(&name);
            self.displaced += 1;
        }
        let of_client = OfClient {
            last: self.count,
            mishaps: VecDeque::from([(cause, mishap)]),
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
        let told = known.map(|(_, mishap)| Mishap {
            seconds_ago: now_ms.saturating_sub(mishap.at_ms) / 1_000,
            ..mishap.clone()
        });
        told.collect()
    }
}

fn hash_of(cause: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    cause.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Mishaps {
        /// One whose text is its cause.
        fn note_one(&mut self, client_id: &str, at_ms: u64, text: &str) {
            self.note(client_id, at_ms, text, text, 1);
        }
    }

    #[test]
    fn what_goes_on_for_one_cause_is_one_row_and_leaves_others_theirs() {
        let mut mishaps = Mishaps::default();
        mishaps.note("a", 1, "refused", "from 1.2.3.4:5 refused", 1);
        for second in 0..100 {
            mishaps.note("a", second, "queue full", "it has lost messages", 97);
        }
        mishaps.note("a", 50, "refused", "from 1.2.3.4:6 refused", 1);
        let told = mishaps.of("a", 99_099);
        let row = |mishap: &Mishap| (mishap.at_ms, mishap.count, mishap.text.clone());
        let expected = [
            (50, 2, "from 1.2.3.4:6 refused".to_owned()),
            (99, 9_700, "it has lost messages".to_owned()),
        ];
        assert_eq!(told.iter().map(row).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn the_last_of_each_are_kept_and_who_has_had_none_for_longest_gives_way() {
        let mut mishaps = Mishaps::default();
        for number in 0..15 {
            mishaps.note_one("a", number, &format!("{number}"));
        }
        let of_a: Vec<_> = mishaps.of("a", 15).iter().map(|it| it.at_ms).collect();
        assert_eq!(of_a, (5..15).rev().collect::<Vec<_>>());
        mishaps.note_one("b", 20, "x");
        mishaps.note_one("a", 21, "y");
        for number in 0..CLIENTS_MAX - 1 {
            mishaps.note_one(&format!("c{number}"), 22, "z");
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
        mishaps.note_one("a", 0, &"é".repeat(TEXT_BYTES_MAX));
        assert_eq!(mishaps.of("a", 0)[0].text.len(), TEXT_BYTES_MAX);
        mishaps.note_one("", 0, "x");
        mishaps.note_one(&"n".repeat(NAME_BYTES_MAX + 1), 0, "x");
        assert_eq!(mishaps.by_client.len(), 1);
    }
}
