//! The queue in front of the authentication methods, which all shards fill and the methods' threads empty.
//!
//! Addresses take turns, so that what waits of one makes nobody else wait. Of one address the first to come
//! is first, until it has waited for [`HURRY`]: from then on the last is, since whoever waits longer than a
//! client has patience is gone, and to judge only those would let nobody in. What is too old to be answered
//! ([`Question::is_over`]) comes out first, for it costs nothing.
//!
//! Where the queue is full, the address that has most in it gives up its oldest question for one that has
//! fewer: a few addresses cannot keep all others out.
//!
//! The lock is held for as long as it takes to put in or take out one question.

use super::addresses::counted_as;
use super::questions::Question;
use crossbeam_channel::{Receiver, Sender, TrySendError};
use ipnet::IpNet;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A question that waits so long lets later ones of its address pass.
const HURRY: Duration = Duration::from_secs(1);

/// What may wait, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Most questions.
    pub questions_max: usize,
    /// Most of one address.
    pub of_address_max: usize,
    /// IPv6 addresses count by so many bits.
    pub ipv6_prefix_bits: u8,
}

/// Both ends of a new queue.
#[must_use]
pub fn question_queue(bounds: Bounds) -> (Asking, QuestionQueue) {
    // Those that gave up their places wait to be told so.
    let (tokens_to, tokens) = crossbeam_channel::bounded(2 * bounds.questions_max);
    let waiting = Arc::new(Mutex::new(Waiting::default()));
    let asking = Asking {
        bounds,
        waiting: Arc::clone(&waiting),
        tokens: tokens_to,
    };
    let queue = QuestionQueue { waiting, tokens };
    (asking, queue)
}

/// The shards' end.
#[derive(Clone, Debug)]
pub struct Asking {
    bounds: Bounds,
    waiting: Arc<Mutex<Waiting>>,
    /// One for each question that waits.
    tokens: Sender<()>,
}

/// The methods' end.
#[derive(Clone, Debug)]
pub struct QuestionQueue {
    waiting: Arc<Mutex<Waiting>>,
    tokens: Receiver<()>,
}

/// What comes out of the queue.
#[derive(Debug)]
pub enum Taken {
    /// To be judged.
    Next(Question),
    /// It gave up its place to one of another address: its client is to be told that too many wait.
    Displaced(Question),
}

#[derive(Debug, Default)]
struct Waiting {
    /// Those of one address in the order in which they came; none is empty.
    by_address: HashMap<Option<IpNet>, VecDeque<Question>>,
    /// Each address once, in the order of their turns.
    turns: VecDeque<Option<IpNet>>,
    /// How many each address has.
    counts: BTreeSet<(usize, Option<IpNet>)>,
    /// Those that gave up their places.
    displaced: VecDeque<Question>,
    count: usize,
}

fn lock(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Asking {
    /// Asks; false if too many questions wait, too many of its address, or nobody answers any more.
    #[must_use]
    pub fn ask(&self, question: Question) -> bool {
        let ip = question.asker.origin.peer.ip();
        let address = ip.map(|ip| counted_as(ip, self.bounds.ipv6_prefix_bits));
        let mut waiting = lock(&self.waiting);
        let of_address = waiting.by_address.get(&address).map_or(0, VecDeque::len);
        let is_full = address.is_some() && of_address >= self.bounds.of_address_max;
        let max = self.bounds.questions_max;
        if is_full || waiting.count >= max && !waiting.displace_for(of_address, max) {
            return false;
        }
        // No question without its token: whoever takes one finds one.
        match self.tokens.try_send(()) {
            Ok(()) => waiting.put(address, question),
            Err(TrySendError::Full(()) | TrySendError::Disconnected(())) => return false,
        }
        true
    }
}

impl QuestionQueue {
    /// The next question, waiting for it; `None` when nobody can ask any more.
    #[must_use]
    pub fn next(&self) -> Option<Taken> {
        loop {
            self.tokens.recv().ok()?;
            let mut waiting = lock(&self.waiting);
            if let Some(question) = waiting.displaced.pop_front() {
                return Some(Taken::Displaced(question));
            }
            if let Some(question) = waiting.take(Instant::now()) {
                return Some(Taken::Next(question));
            }
        }
    }
}

impl Waiting {
    fn put(&mut self, address: Option<IpNet>, question: Question) {
        let of_address = self.by_address.entry(address).or_default();
        if of_address.is_empty() {
            self.turns.push_back(address);
        }
        of_address.push_back(question);
        let now = of_address.len();
        self.recount(address, now - 1, now);
        self.count += 1;
    }

    fn recount(&mut self, address: Option<IpNet>, before: usize, now: usize) {
        self.counts.remove(&(before, address));
        if now > 0 {
            self.counts.insert((now, address));
        }
    }

    /// Makes room for a question of an address that has so many, if another has more than it would have then.
    fn displace_for(&mut self, of_address: usize, displaced_max: usize) -> bool {
        let Some(&(most, address)) = self.counts.last() else {
            return false;
        };
        if most <= of_address + 1 || self.displaced.len() >= displaced_max {
            return false;
        }
        // It keeps its turn: more of it are there.
        let oldest = self
            .by_address
            .get_mut(&address)
            .and_then(VecDeque::pop_front);
        let Some(oldest) = oldest else {
            return false;
        };
        self.recount(address, most, most - 1);
        self.displaced.push_back(oldest);
        self.count -= 1;
        true
    }

    fn take(&mut self, now: Instant) -> Option<Question> {
        let address = self.turns.pop_front()?;
        let of_address = self.by_address.get_mut(&address)?;
        let first = of_address.front()?;
        let is_over = first.is_over(now);
        let is_first = is_over || now.saturating_duration_since(first.asked_at) < HURRY;
        let question = if is_first {
            of_address.pop_front()
        } else {
            of_address.pop_back()
        };
        let left = of_address.len();
        if of_address.is_empty() {
            self.by_address.remove(&address);
        } else if is_over {
            // It costs its address no turn.
            self.turns.push_front(address);
        } else {
            self.turns.push_back(address);
        }
        self.recount(address, left + 1, left);
        self.count -= 1;
        question
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::keys::ConnectionKey;
    use crate::engine::slots::Slots;
    use crate::shard::handover::Origin;
    use crate::shard::peer::Peer;
    use crate::shard::questions::{Again, Asker, Work};

    const PATIENCE: Duration = Duration::from_secs(10);

    struct Clients {
        keys: Slots<crate::engine::keys::OfConnection, ()>,
        began: Instant,
    }

    impl Clients {
        fn new() -> Self {
            Clients {
                keys: Slots::default(),
                began: Instant::now(),
            }
        }

        /// Somebody at an address (0: at a socket in the file system) asks at a time.
        fn question(&mut self, last: u8, at_ms: u64) -> (ConnectionKey, Question) {
            let connection = self.keys.insert(());
            let peer = match last {
                0 => Peer::Unix,
                last => Peer::internet(([10, 0, 0, last], 1).into()),
            };
            let question = Question {
                shard: 0,
                connection,
                asker: Asker {
                    origin: Origin {
                        listener: 0,
                        peer,
                        counted: None,
                        is_among: false,
                    },
                    client_id: Box::default(),
                    user_name: None,
                },
                work: Work::Begin(Again {
                    bytes: Box::default(),
                    user_name: None,
                    methods: None,
                }),
                asked_at: self.began + Duration::from_millis(at_ms),
                until: self.began + Duration::from_millis(at_ms) + PATIENCE,
            };
            (connection, question)
        }
    }

    fn queue(questions_max: usize, of_address_max: usize) -> (Asking, QuestionQueue) {
        question_queue(Bounds {
            questions_max,
            of_address_max,
            ipv6_prefix_bits: 64,
        })
    }

    #[test]
    fn all_that_may_wait_is_bounded_and_of_an_address_too() {
        let (asking, queue) = queue(3, 1);
        let mut clients = Clients::new();
        let mut ask = |last| asking.ask(clients.question(last, 0).1);
        assert!(ask(1) && !ask(1) && ask(2) && ask(0) && !ask(3));
        drop(queue.next());
        assert!(ask(3) && !ask(4));
        drop(queue);
        let mut ask = |last| asking.ask(clients.question(last, 0).1);
        assert!(!ask(1), "nobody answers");
    }

    #[test]
    fn who_asks_without_an_address_is_bounded_with_all_only_and_makes_room_for_others() {
        let (asking, _queue) = queue(3, 1);
        let mut clients = Clients::new();
        let mut ask = |last| asking.ask(clients.question(last, 0).1);
        assert!(ask(0) && ask(0) && ask(0) && !ask(0));
        assert!(ask(1) && ask(2) && !ask(3));
    }

    #[test]
    fn addresses_take_turns() {
        let (asking, queue) = queue(9, 9);
        let mut clients = Clients::new();
        let mut keys = Vec::new();
        for last in [1, 1, 1, 2, 2, 3] {
            let (key, question) = clients.question(last, 0);
            assert!(asking.ask(question));
            keys.push(key);
        }
        drop(asking);
        let order: Vec<_> = std::iter::from_fn(|| queue.next())
            .map(|taken| match taken {
                Taken::Next(question) => keys.iter().position(|key| *key == question.connection),
                Taken::Displaced(question) => panic!("{question:?}"),
            })
            .collect();
        assert_eq!(order, [0, 3, 5, 1, 4, 2].map(Some));
    }

    #[test]
    fn who_has_most_gives_up_its_oldest_for_who_has_fewer() {
        let (asking, queue) = queue(6, 3);
        let mut clients = Clients::new();
        let mut keys = Vec::new();
        let mut ask = |last| {
            let (key, question) = clients.question(last, 0);
            let is_asked = asking.ask(question);
            is_asked.then(|| keys.push(key));
            is_asked
        };
        assert!([1, 1, 1, 2, 2, 2].map(&mut ask).iter().all(|it| *it));
        // Of the two that have three the one with the higher address, then the other.
        assert!(ask(3) && ask(3));
        assert!(!ask(3), "that would be more than others have");
        assert!(!ask(1) && !ask(2) && ask(4) && !ask(4));
        drop(asking);
        let (mut displaced, mut left) = (Vec::new(), 0);
        while let Some(taken) = queue.next() {
            match taken {
                Taken::Displaced(question) => {
                    displaced.extend(keys.iter().position(|key| *key == question.connection))
                }
                Taken::Next(_) => left += 1,
            }
        }
        assert_eq!((displaced, left), (vec![3, 0, 6], 6));
        assert_eq!(lock(&queue.waiting).counts.len(), 0);
    }

    #[test]
    fn the_last_is_first_where_the_first_has_waited_too_long_and_what_is_over_comes_out() {
        let mut clients = Clients::new();
        let (now, mut keys, mut waiting) = (20_000, Vec::new(), Waiting::default());
        let address = Some(IpNet::from(std::net::IpAddr::from([10, 0, 0, 1])));
        for at_ms in [9_000, 10_000, 15_000, 19_500, 19_900] {
            let (key, question) = clients.question(1, at_ms);
            waiting.put(address, question);
            keys.push(key);
        }
        let other = Some(IpNet::from(std::net::IpAddr::from([10, 0, 0, 2])));
        let (key, question) = clients.question(2, 19_000);
        waiting.put(other, question);
        keys.push(key);
        let now = clients.began + Duration::from_millis(now);
        let order: Vec<_> = std::iter::from_fn(|| waiting.take(now))
            .map(|question| keys.iter().position(|key| *key == question.connection))
            .collect();
        assert_eq!(order, [0, 1, 4, 5, 3, 2].map(Some));
        assert_eq!(waiting.count, 0);
    }
}
