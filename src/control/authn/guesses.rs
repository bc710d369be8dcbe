//! Logins that fail, by the address that they come from: counted where they are judged.
//!
//! A question takes one of its address's places before it is judged and gives it back with the answer; a
//! failure keeps it for the window. There are as many places as failures lead to a ban, so however many
//! guesses come at once, no more than that fail. Who finds no place while others are judged waits for them:
//! that many log in rightly at once is no reason to refuse one.
//!
//! Invariant: where questions of an address wait, at least one of it is being judged, whose end takes them
//! up.
//!
//! The rule may change meanwhile. What was begun without a limit has no place, and gives none back that
//! counts: for a moment one more may be judged then.
//!
//! Not here: the ban that closes connections and is told (`control::watch::bans`); it hears from here.

use ipnet::IpNet;
use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Addresses with failures at once; beyond that the count begins anew.
const ADDRESSES_MAX: usize = 100_000;
/// Questions that wait for others of their address, ...
const WAITING_MAX: usize = 1_024;
/// ... and of one address.
const WAITING_OF_ADDRESS_MAX: usize = 256;

/// How many failures are too many.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// So many within the window; 0 for no limit.
    pub failures_max: u32,
    /// The window, from the first failure on.
    pub window: Duration,
    /// How long nothing more is judged.
    pub duration: Duration,
}

/// What becomes of a question.
#[derive(Debug, PartialEq, Eq)]
pub enum Turn<Q> {
    /// It may be judged; [`Guesses::end`] has to follow.
    Judge(Q),
    /// It is taken up when another ends.
    Waits,
    /// Its address is banned.
    Banned(Q),
    /// Too many wait.
    Busy(Q),
}

/// What is known of an address.
#[derive(Debug)]
struct Count<Q> {
    failures: u32,
    begun: Instant,
    banned_until: Option<Instant>,
    /// Whether it is known outside that it is banned.
    is_told: bool,
    judging: u32,
    waiting: VecDeque<Q>,
}

impl<Q> Count<Q> {
    fn new(now: Instant) -> Self {
        Count {
            failures: 0,
            begun: now,
            banned_until: None,
            is_told: true,
            judging: 0,
            waiting: VecDeque::new(),
        }
    }

    /// Ends what is over.
    fn look(&mut self, rule: &Rule, now: Instant) {
        if rule.failures_max == 0 || self.banned_until.is_some_and(|until| until <= now) {
            self.banned_until = None;
        }
        if now.saturating_duration_since(self.begun) > rule.window {
            self.failures = 0;
        }
    }

    fn fail(&mut self, rule: &Rule, now: Instant) {
        if rule.failures_max == 0 {
            return;
        }
        if self.failures == 0 {
            self.begun = now;
        }
        self.failures += 1;
        if self.failures >= rule.failures_max {
            self.failures = 0;
            self.banned_until = Some(now + rule.duration);
            self.is_told = false;
        }
    }

    const fn has_place(&self, rule: &Rule) -> bool {
        rule.failures_max == 0 || self.failures.saturating_add(self.judging) < rule.failures_max
    }

    const fn is_idle(&self) -> bool {
        self.judging == 0 && self.failures == 0 && self.banned_until.is_none()
    }
}

#[derive(Debug)]
struct Counts<Q> {
    rule: Rule,
    by_address: HashMap<IpNet, Count<Q>>,
    waiting: usize,
}

/// The counts of all addresses; for the threads that judge, never a shard.
pub struct Guesses<Q> {
    counts: Mutex<Counts<Q>>,
    tell: Tell,
}

/// Has it known outside that an address is banned; false if there is no room for that now.
pub type Tell = Box<dyn Fn(IpNet) -> bool + Send + Sync>;

impl<Q> Guesses<Q> {
    /// None has failed so far.
    #[must_use]
    pub fn new(rule: Rule, tell: Tell) -> Self {
        Guesses {
            counts: Mutex::new(Counts {
                rule,
                by_address: HashMap::new(),
                waiting: 0,
            }),
            tell,
        }
    }

    /// So many are too many from now on.
    pub fn set_rule(&self, rule: Rule) {
        self.counts().rule = rule;
    }

    fn counts(&self) -> MutexGuard<'_, Counts<Q>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A question comes, of a client whose address counts as `address`; of none where it has none.
    pub fn begin(&self, address: Option<IpNet>, question: Q, now: Instant) -> Turn<Q> {
        let mut counts = self.counts();
        let Some(address) = address.filter(|_| counts.rule.failures_max > 0) else {
            return Turn::Judge(question);
        };
        counts.make_room(address);
        let Counts {
            rule,
            by_address,
            waiting,
        } = &mut *counts;
        let count = by_address.entry(address).or_insert_with(|| Count::new(now));
        count.look(rule, now);
        if count.banned_until.is_some() {
            self.tell_of(count, address);
            return Turn::Banned(question);
        }
        if count.has_place(rule) {
            count.judging += 1;
            return Turn::Judge(question);
        }
        if *waiting >= WAITING_MAX || count.waiting.len() >= WAITING_OF_ADDRESS_MAX {
            return Turn::Busy(question);
        }
        *waiting += 1;
        count.waiting.push_back(question);
        Turn::Waits
    }

    /// A question that was judged ends; whether it failed. What becomes now of those that waited: their
    /// places are taken already.
    #[must_use]
    pub fn end(&self, address: Option<IpNet>, has_failed: bool, now: Instant) -> Vec<Turn<Q>> {
        let Some(address) = address else {
            return Vec::new();
        };
        let mut counts = self.counts();
        let Counts {
            rule,
            by_address,
            waiting,
        } = &mut *counts;
        let Some(count) = by_address.get_mut(&address) else {
            return Vec::new();
        };
        count.judging = count.judging.saturating_sub(1);
        count.look(rule, now);
        if has_failed {
            count.fail(rule, now);
        }
        let mut next = Vec::new();
        if count.banned_until.is_some() {
            next.extend(count.waiting.drain(..).map(Turn::Banned));
        }
        while count.has_place(rule)
            && let Some(question) = count.waiting.pop_front()
        {
            count.judging += 1;
            next.push(Turn::Judge(question));
        }
        *waiting -= next.len();
        if count.is_idle() {
            by_address.remove(&address);
        }
        next
    }

    /// Has it known outside if an address is banned. After the answers that led to it: they are not to be
    /// overtaken by what closes its connections.
    pub fn tell(&self, address: Option<IpNet>) {
        let mut counts = self.counts();
        if let Some(address) = address
            && let Some(count) = counts.by_address.get_mut(&address)
        {
            self.tell_of(count, address);
        }
    }

    /// Who has no room for it now hears it with the next question.
    fn tell_of(&self, count: &mut Count<Q>, address: IpNet) {
        if !count.is_told {
            count.is_told = (self.tell)(address);
        }
    }
}

impl<Q> Counts<Q> {
    /// Forgets, if there are too many, those of whom nothing is being judged: first who is not banned.
    fn make_room(&mut self, address: IpNet) {
        let all = &mut self.by_address;
        if all.len() < ADDRESSES_MAX || all.contains_key(&address) {
            return;
        }
        all.retain(|_, count| count.judging > 0 || count.banned_until.is_some());
        if all.len() >= ADDRESSES_MAX {
            all.retain(|_, count| count.judging > 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam_channel::Receiver;
    use std::net::IpAddr;

    const RULE: Rule = Rule {
        failures_max: 3,
        window: Duration::from_secs(10),
        duration: Duration::from_secs(100),
    };

    fn guesses(rule: Rule, room: usize) -> (Guesses<u32>, Receiver<IpNet>) {
        let (sender, banned) = crossbeam_channel::bounded(room);
        let tell = move |address| sender.try_send(address).is_ok();
        (Guesses::new(rule, Box::new(tell)), banned)
    }

    fn at(n: u32) -> Option<IpNet> {
        Some(IpAddr::from(n.to_be_bytes()).into())
    }

    #[test]
    fn no_more_are_judged_than_may_fail_however_many_come_at_once() {
        let (guesses, banned) = guesses(RULE, 1);
        let now = Instant::now();
        let turns = (0..6).map(|n| guesses.begin(at(1), n, now));
        let turns: Vec<_> = turns.collect();
        let judged = turns.iter().filter(|turn| matches!(turn, Turn::Judge(_)));
        assert_eq!(judged.count(), 3);
        assert_eq!(guesses.begin(at(2), 9, now), Turn::Judge(9), "another's");
        // A right one gives its place to the next, a wrong one does not.
        assert_eq!(guesses.end(at(1), false, now), [Turn::Judge(3)]);
        assert_eq!(guesses.end(at(1), true, now), []);
        assert_eq!(guesses.end(at(1), true, now), []);
        assert!(banned.is_empty());
        let rest = guesses.end(at(1), true, now);
        assert_eq!(rest, [Turn::Banned(4), Turn::Banned(5)]);
        assert!(banned.is_empty(), "after the answer");
        guesses.tell(at(1));
        assert_eq!(banned.try_recv(), Ok(at(1).unwrap()));
        assert_eq!(guesses.begin(at(1), 7, now), Turn::Banned(7));
        assert!(banned.is_empty(), "told once");
        let later = now + RULE.duration;
        assert_eq!(guesses.begin(at(1), 8, later), Turn::Judge(8));
        let _ = guesses.end(at(1), false, later);
        let _ = guesses.end(at(2), false, later);
        let counts = guesses.counts();
        assert!(counts.by_address.is_empty() && counts.waiting == 0);
    }

    #[test]
    fn failures_count_within_their_window() {
        let (guesses, banned) = guesses(RULE, 1);
        let start = Instant::now();
        let fail = |seconds| {
            let now = start + Duration::from_secs(seconds);
            assert_eq!(guesses.begin(at(1), 0, now), Turn::Judge(0), "{seconds}");
            let _ = guesses.end(at(1), true, now);
        };
        for seconds in [0, 1, 20, 21] {
            fail(seconds);
        }
        assert!(banned.is_empty());
        fail(22);
        guesses.tell(at(1));
        assert_eq!(banned.len(), 1);
    }

    #[test]
    fn a_ban_that_could_not_be_told_is_told_later_and_is_in_force() {
        let (guesses, banned) = guesses(RULE, 1);
        let now = Instant::now();
        for address in [at(1), at(2)] {
            for _ in 0..3 {
                assert_eq!(guesses.begin(address, 0, now), Turn::Judge(0));
                let _ = guesses.end(address, true, now);
                guesses.tell(address);
            }
        }
        assert_eq!(banned.try_recv(), Ok(at(1).unwrap()));
        assert!(banned.is_empty());
        assert_eq!(guesses.begin(at(2), 1, now), Turn::Banned(1));
        assert_eq!(banned.try_recv(), Ok(at(2).unwrap()));
    }

    #[test]
    fn those_that_wait_are_bounded_in_all_and_by_address() {
        let (guesses, _banned) = guesses(RULE, 1);
        let now = Instant::now();
        for address in 0..(WAITING_MAX / WAITING_OF_ADDRESS_MAX) as u32 {
            for _ in 0..RULE.failures_max {
                assert_eq!(guesses.begin(at(address), 0, now), Turn::Judge(0));
            }
            for _ in 0..WAITING_OF_ADDRESS_MAX {
                assert_eq!(guesses.begin(at(address), 0, now), Turn::Waits);
            }
            assert_eq!(guesses.begin(at(address), 1, now), Turn::Busy(1));
        }
        for _ in 0..RULE.failures_max {
            assert_eq!(guesses.begin(at(99), 0, now), Turn::Judge(0));
        }
        assert_eq!(guesses.begin(at(99), 1, now), Turn::Busy(1), "all places");
    }

    #[test]
    fn addresses_are_bounded_and_none_is_forgotten_that_is_being_judged() {
        let (guesses, _banned) = guesses(RULE, 1);
        let now = Instant::now();
        assert_eq!(guesses.begin(at(0), 0, now), Turn::Judge(0));
        for n in 1..=ADDRESSES_MAX as u32 {
            assert_eq!(guesses.begin(at(n), 0, now), Turn::Judge(0));
            let _ = guesses.end(at(n), true, now);
        }
        let counts = guesses.counts();
        assert!(counts.by_address.len() < ADDRESSES_MAX);
        assert!(counts.by_address.contains_key(&at(0).unwrap()));
    }

    #[test]
    fn another_rule_takes_up_who_waits_and_ends_bans_where_it_is_none() {
        let (guesses, _banned) = guesses(RULE, 1);
        let now = Instant::now();
        for n in 0..3 {
            assert_eq!(guesses.begin(at(1), n, now), Turn::Judge(n));
        }
        assert_eq!(guesses.begin(at(1), 3, now), Turn::Waits);
        let rule = |failures_max| Rule {
            failures_max,
            ..RULE
        };
        guesses.set_rule(rule(0));
        assert_eq!(guesses.begin(at(1), 4, now), Turn::Judge(4));
        assert_eq!(guesses.end(at(1), true, now), [Turn::Judge(3)]);
        for _ in 0..4 {
            assert_eq!(guesses.end(at(1), true, now), []);
        }
        assert!(guesses.counts().by_address.is_empty());
        guesses.set_rule(rule(1));
        assert_eq!(guesses.begin(at(1), 5, now), Turn::Judge(5));
        assert_eq!(guesses.end(at(1), true, now), []);
        assert_eq!(guesses.begin(at(1), 6, now), Turn::Banned(6));
        guesses.set_rule(rule(0));
        assert_eq!(guesses.begin(at(1), 7, now), Turn::Judge(7));
    }

    #[test]
    fn without_a_limit_or_an_address_nothing_is_counted() {
        let now = Instant::now();
        let none = Rule {
            failures_max: 0,
            ..RULE
        };
        for (rule, address) in [(none, at(1)), (RULE, None)] {
            let (guesses, banned) = guesses(rule, 1);
            for _ in 0..10 {
                assert_eq!(guesses.begin(address, 0, now), Turn::Judge(0));
                assert_eq!(guesses.end(address, true, now), []);
            }
            assert!(banned.is_empty() && guesses.counts().by_address.is_empty());
        }
    }
}
