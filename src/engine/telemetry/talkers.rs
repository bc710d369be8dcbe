//! Who publishes most, and where to: sketches of bounded size, fed by samples.
//!
//! ```text
//!   publish ─► one of so many, at random ─► client, topic prefix ─► sketch of this window ─► of the last one
//! ```
//! A sketch has so many names (space-saving): one more takes the place of that with least, and begins with
//! what that had, which is not its own and is left out where it is told. So who has more than one of
//! [`TRACKED_MAX`] parts of all publishes is in it for certain. Which publishes are looked at is drawn by
//! chance: clients that publish in turn would else be seen or missed for ever. How many are adapts, so that a
//! window has about [`SAMPLES_GOAL`] of them.

use crate::engine::hashing::Hashing;
use crate::engine::time::Timestamp;

/// Names in a sketch.
pub const TRACKED_MAX: usize = 256;
/// Bytes of a name.
const NAME_BYTES_MAX: usize = 256;
/// Levels of a topic that are its prefix.
const LEVELS_MAX: usize = 2;
/// How long is counted into one sketch.
const WINDOW_MS: u64 = 10_000;
/// Samples in a window, about.
const SAMPLES_GOAL: u64 = 10_000;
/// One of so many publishes is looked at, at least.
const STRIDE_MAX: u64 = 4_096;

/// Somebody, or some topics, and how loud.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Talker {
    /// A client identifier, or a topic prefix.
    pub name: String,
    /// Publishes.
    pub messages: u64,
    /// Bytes of their topics and payloads.
    pub bytes: u64,
}

/// The loudest, in descending order of messages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loudest {
    /// Of so many milliseconds.
    pub over_ms: u64,
    /// Clients.
    pub clients: Vec<Talker>,
    /// Topic prefixes.
    pub topics: Vec<Talker>,
}

/// What a sketch has of one name.
#[derive(Debug)]
struct Entry {
    talker: Talker,
    /// What it has begun with: messages and bytes of others.
    of_others: (u64, u64),
}

#[derive(Debug, Default)]
struct Sketch {
    /// Hashes of names, by which they are found.
    hashes: Vec<u64>,
    entries: Vec<Entry>,
}

impl Sketch {
    /// Adds to a name; whether another one lost its place.
    fn add(&mut self, hash: u64, name: &str, (messages, bytes): (u64, u64)) -> bool {
        let places = self.hashes.iter().zip(&mut self.entries);
        let mut found = places.filter(|(known, _)| **known == hash);
        if let Some((_, entry)) = found.find(|(_, entry)| entry.talker.name == name) {
            entry.talker.messages += messages;
            entry.talker.bytes += bytes;
            return false;
        }
        let entry = |of_others: (u64, u64)| Entry {
            talker: Talker {
                name: name.to_owned(),
                messages: of_others.0 + messages,
                bytes: of_others.1 + bytes,
            },
            of_others,
        };
        if self.entries.len() < TRACKED_MAX {
            self.hashes.push(hash);
            self.entries.push(entry((0, 0)));
            return false;
        }
        let places = self.hashes.iter_mut().zip(&mut self.entries);
        if let Some((known, least)) = places.min_by_key(|(_, entry)| entry.talker.messages) {
            *known = hash;
            *least = entry((least.talker.messages, least.talker.bytes));
        }
        true
    }

    /// What is certain of each.
    fn certain(&self) -> impl Iterator<Item = Talker> {
        self.entries.iter().map(|entry| Talker {
            name: entry.talker.name.clone(),
            messages: entry.talker.messages - entry.of_others.0,
            bytes: entry.talker.bytes - entry.of_others.1,
        })
    }
}

/// Sketches of one window.
#[derive(Debug, Default)]
struct Window {
    clients: Sketch,
    topics: Sketch,
}

/// Who talks most on a shard.
#[derive(Debug)]
pub struct Talkers {
    hashing: Hashing,
    now: Window,
    last: Window,
    /// When the windows began.
    now_began: Timestamp,
    last_began: Timestamp,
    /// The publish that is looked at next, by its number.
    next: u64,
    /// How many it stands for.
    weight: u64,
    /// One of so many is looked at.
    stride: u64,
    /// Samples of this window.
    samples: u64,
    random: u64,
    /// Room for the prefix of a topic.
    prefix: String,
    /// Names that lost their place to others.
    pub displaced: u64,
}

impl Talkers {
    /// Nobody has said anything.
    #[must_use]
    pub fn new(hashing: Hashing) -> Self {
        Talkers {
            random: hashing.of(1, "talkers") | 1,
            hashing,
            now: Window::default(),
            last: Window::default(),
            now_began: Timestamp::default(),
            last_began: Timestamp::default(),
            next: 1,
            weight: 1,
            stride: 1,
            samples: 0,
            prefix: String::new(),
            displaced: 0,
        }
    }

    /// Whether the publish of that number is to be looked at.
    #[inline]
    #[must_use]
    pub const fn is_due(&self, number: u64) -> bool {
        number >= self.next
    }

    /// It is looked at.
    pub fn note(&mut self, now: Timestamp, number: u64, client: &str, topic: &str, bytes: usize) {
        self.begin_window(now);
        let client = cut(client);
        // Kept: who is known already costs no allocation.
        let mut prefix = std::mem::take(&mut self.prefix);
        write_prefix(topic, &mut prefix);
        let counts = (self.weight, self.weight * bytes as u64);
        let of_client = self.hashing.of(2, client);
        let of_topic = self.hashing.of(3, &prefix);
        let lost = self.now.clients.add(of_client, client, counts);
        let lost_too = self.now.topics.add(of_topic, &prefix, counts);
        self.prefix = prefix;
        self.displaced += u64::from(lost) + u64::from(lost_too);
        self.samples += 1;
        if self.samples.is_multiple_of(SAMPLES_GOAL) {
            self.stride = (self.stride * 2).min(STRIDE_MAX);
        }
        self.weight = self.stride;
        self.next = number + 1 + self.draw() % (2 * self.stride - 1);
    }

    /// The loudest for the last ten to twenty seconds, so many at most.
    pub fn loudest(&mut self, now: Timestamp, max: usize) -> Loudest {
        self.begin_window(now);
        let both = |of: fn(&Window) -> &Sketch| {
            let mut all: Vec<Talker> = of(&self.now).certain().collect();
            for talker in of(&self.last).certain() {
                match all.iter_mut().find(|known| known.name == talker.name) {
                    Some(known) => {
                        known.messages += talker.messages;
                        known.bytes += talker.bytes;
                    }
                    None => all.push(talker),
                }
            }
            all.retain(|talker| talker.messages > 0);
            all.sort_by(|one, other| {
                (other.messages, other.bytes, &one.name).cmp(&(
                    one.messages,
                    one.bytes,
                    &other.name,
                ))
            });
            all.truncate(max);
            all
        };
        Loudest {
            over_ms: now.ms_since(self.last_began),
            clients: both(|window| &window.clients),
            topics: both(|window| &window.topics),
        }
    }

    /// The window is the next one, if this has lasted long enough.
    fn begin_window(&mut self, now: Timestamp) {
        let lasted_ms = now.ms_since(self.now_began);
        if lasted_ms < WINDOW_MS {
            return;
        }
        let is_over_long = lasted_ms >= 2 * WINDOW_MS;
        self.last = match std::mem::take(&mut self.now) {
            // Nobody has said anything since.
            _ if is_over_long => Window::default(),
            window => window,
        };
        self.last_began = if is_over_long { now } else { self.now_began };
        self.now_began = now;
        let wanted = self.samples * self.stride / SAMPLES_GOAL;
        self.stride = wanted.clamp(1, STRIDE_MAX);
        self.samples = 0;
    }

    /// A number by chance.
    const fn draw(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random >> 11
    }
}

fn cut(name: &str) -> &str {
    name.get(..name.floor_char_boundary(NAME_BYTES_MAX))
        .unwrap_or(name)
}

/// The first levels of a topic, as a filter that it matches.
fn write_prefix(topic: &str, into: &mut String) {
    into.clear();
    let mut ends = topic.match_indices('/').map(|(at, _)| at);
    let end = ends.nth(LEVELS_MAX - 1);
    into.push_str(cut(end.and_then(|end| topic.get(..end)).unwrap_or(topic)));
    if end.is_some() {
        into.push_str("/#");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(topic: &str) -> String {
        let mut written = String::from("before");
        write_prefix(topic, &mut written);
        written
    }

    fn names(list: &[Talker]) -> Vec<&str> {
        list.iter().map(|talker| talker.name.as_str()).collect()
    }

    #[test]
    fn who_publishes_most_is_found_among_very_many() {
        let mut talkers = Talkers::new(Hashing::new(7));
        let at = Timestamp::from_ms(100_000);
        let mut number = 0;
        let mut looked_at = 0;
        for round in 0..200_000_u64 {
            // One of four is by the loud one, who says as much as 50,000 others.
            number += 1;
            if talkers.is_due(number) {
                looked_at += 1;
                match round % 4 {
                    0 => talkers.note(at, number, "loud", "a/b/c", 100),
                    _ => talkers.note(at, number, &format!("c{}", round % 50_000), "x/y/z", 10),
                }
            }
        }
        // Twice as many each time that there were enough.
        assert!((10_000..60_000).contains(&looked_at), "{looked_at}");
        assert!(talkers.displaced > 1_000);
        let told = talkers.loudest(at.plus_ms(1_000), 3);
        assert_eq!((told.clients.len(), names(&told.clients)[0]), (3, "loud"));
        let about = |count: u64, wanted: u64| (wanted * 9 / 10..wanted * 11 / 10).contains(&count);
        assert!(
            about(told.clients[0].messages, 50_000),
            "{:?}",
            told.clients[0]
        );
        assert!(
            about(told.clients[0].bytes, 5_000_000),
            "{:?}",
            told.clients[0]
        );
        assert!(told.clients[1].messages < 1_000, "{:?}", told.clients[1]);
        assert_eq!(names(&told.topics), ["x/y/#", "a/b/#"]);
    }

    #[test]
    fn clients_that_take_turns_are_seen_alike() {
        let mut talkers = Talkers::new(Hashing::new(1));
        (talkers.stride, talkers.weight) = (64, 64);
        let at = Timestamp::from_ms(1);
        for number in 1..=400_000 {
            if talkers.is_due(number) {
                let client = if number % 2 == 0 { "even" } else { "odd" };
                talkers.note(at, number, client, "t", 1);
            }
        }
        let told = talkers.loudest(at, 2);
        let counts: Vec<_> = told.clients.iter().map(|talker| talker.messages).collect();
        assert!(
            counts
                .iter()
                .all(|count| (180_000..220_000).contains(count)),
            "{counts:?}"
        );
    }

    #[test]
    fn what_was_said_long_ago_is_forgotten() {
        let mut talkers = Talkers::new(Hashing::new(1));
        let at = Timestamp::from_ms(1_000_000);
        talkers.note(at, 1, "c", "t", 1);
        talkers.note(at.plus_ms(WINDOW_MS), 2, "d", "t", 1);
        let told = talkers.loudest(at.plus_ms(WINDOW_MS + 10), 9);
        assert_eq!(
            (names(&told.clients), told.over_ms),
            (vec!["c", "d"], WINDOW_MS + 10)
        );
        let told = talkers.loudest(at.plus_ms(2 * WINDOW_MS), 9);
        assert_eq!(names(&told.clients), ["d"]);
        let told = talkers.loudest(at.plus_ms(9 * WINDOW_MS), 9);
        assert_eq!((told.clients.len(), told.topics.len()), (0, 0));
    }

    #[test]
    fn a_prefix_has_two_levels_and_is_not_long() {
        for (topic, wanted) in [
            ("a", "a"),
            ("a/b", "a/b"),
            ("a/b/c", "a/b/#"),
            ("/a/b", "/a/#"),
            ("", ""),
        ] {
            assert_eq!(prefix(topic), wanted);
        }
        assert_eq!(prefix(&"é".repeat(200)).len(), NAME_BYTES_MAX);
    }
}
