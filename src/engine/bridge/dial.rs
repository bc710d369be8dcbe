//! When a bridge's next attempt comes, to which address and by which protocol: decided by what became of the
//! attempts before, without clock, socket or chance of its own.

use super::plan::Protocol;
use crate::engine::time::Timestamp;

/// Lines in a row that a remote of 3.x has cut short, without a word, after which it is asked more rarely: it
/// may be that another client has the bridge's identifier, and 3.x cannot say so.
pub const CUTS_MAX: u32 = 5;

/// Attempts in a row after which an address where a line was up, and that closes before CONNACK now, may be
/// somebody else's who does not speak that protocol. Until then it is taken for one that is being started.
const CLOSED_MAX: u32 = 20;

/// In which order addresses are tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AddressOrder {
    /// The first, as long as it answers; each attempt after a line that was up begins with it.
    #[default]
    InOrder,
    /// One after the other.
    RoundRobin,
}

/// How attempts follow each other.
#[derive(Clone, Debug)]
pub struct DialRule {
    /// How many addresses there are.
    pub addresses: usize,
    /// Their order.
    pub order: AddressOrder,
    /// Protocols, the best first; never empty.
    pub protocols: Vec<Protocol>,
    /// The wait after the first failure, ...
    pub reconnect_ms_min: u64,
    /// ... which doubles up to this one.
    pub reconnect_ms_max: u64,
    /// How often the first address is tried while another one answers; 0 for never.
    pub failback_ms: u64,
    /// Redirects that are followed until a line is up.
    pub redirects_max: u32,
}

/// What became of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The line was up, and ended.
    WasUp,
    /// The same, by a remote that cannot say why.
    WasCut,
    /// It never was.
    Failed,
    /// It never was, since the remote does not speak the protocol.
    FailedByProtocol,
    /// It never was, and the remote has not said why: that may be the protocol.
    Closed,
    /// The remote broke the protocol, whether it was up or not, or another client has its identifier there.
    Broke,
}

/// The next attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Place of the address.
    pub address: usize,
    /// The protocol.
    pub protocol: Protocol,
}

/// A bridge's attempts.
#[derive(Debug)]
pub struct Dial {
    rule: DialRule,
    address: usize,
    protocol: usize,
    /// By address the protocol by which a line was up last.
    spoken: Vec<Option<usize>>,
    /// Failures since a line was up.
    failures: u32,
    /// Lines in a row that were cut before they were up for long.
    cuts: u32,
    /// Since when a line is up.
    up_since: Option<Timestamp>,
    /// When the first address is to be tried.
    probe_at: Option<Timestamp>,
    /// Redirects that were followed since a line was up.
    redirects: u32,
    /// When the next attempt is due.
    due_at: Timestamp,
}

impl Dial {
    /// The first attempt is due at once.
    #[must_use]
    pub fn new(rule: DialRule) -> Self {
        Dial {
            spoken: vec![None; rule.addresses],
            rule,
            address: 0,
            protocol: 0,
            failures: 0,
            cuts: 0,
            up_since: None,
            probe_at: None,
            redirects: 0,
            due_at: Timestamp::default(),
        }
    }

    /// When the next attempt is due.
    #[must_use]
    pub const fn due_at(&self) -> Timestamp {
        self.due_at
    }

    /// The next attempt.
    #[must_use]
    pub fn attempt(&self) -> Attempt {
        let protocol = self.rule.protocols.get(self.protocol).copied();
        Attempt {
            address: self.address,
            protocol: protocol.unwrap_or(Protocol::V5),
        }
    }

    /// Failures since a line was up.
    #[must_use]
    pub const fn failures(&self) -> u32 {
        self.failures
    }

    /// Lines in a row that the remote has cut short.
    #[must_use]
    pub const fn cuts(&self) -> u32 {
        self.cuts
    }

    /// The line is up.
    pub fn came_up(&mut self, now: Timestamp) {
        self.up_since = Some(now);
        self.redirects = 0;
        if let Some(spoken) = self.spoken.get_mut(self.address) {
            *spoken = Some(self.protocol);
        }
        self.probe_failed(now);
    }

    /// When the first address is to be tried, if the line is up to another and that is wanted.
    #[must_use]
    pub const fn probe_at(&self) -> Option<Timestamp> {
        self.probe_at
    }

    /// The first address does not answer yet, or was not tried: when it is tried next.
    pub fn probe_failed(&mut self, now: Timestamp) {
        let wants = self.rule.order == AddressOrder::InOrder && self.rule.failback_ms > 0;
        let is_away = self.address != 0 && self.up_since.is_some();
        self.probe_at = (wants && is_away).then(|| now.plus_ms(self.rule.failback_ms));
    }

    /// The first address answers: the attempt under way is the one to it.
    pub const fn go_back(&mut self) {
        self.address = 0;
        self.up_since = None;
        self.probe_at = None;
    }

    /// The next attempt does not wait any more; if it fails the one after that waits as long as it would
    /// have.
    pub fn hurry(&mut self, now: Timestamp) {
        self.due_at = self.due_at.min(now);
    }

    /// The line has ended as it was meant to: the next attempt is the first of them again, and due at once.
    pub fn rest(&mut self, now: Timestamp) {
        let _ = self.ended(now, Outcome::WasUp, 0);
        self.due_at = now;
    }

    /// The remote says to go elsewhere: whether that may be, which it does at once then.
    pub fn redirected(&mut self, now: Timestamp) -> bool {
        let may = self.redirects < self.rule.redirects_max;
        if may {
            self.redirects += 1;
            self.due_at = now;
            (self.up_since, self.probe_at) = (None, None);
        }
        may
    }

    /// An attempt is over; how long the next one waits, in milliseconds. `chance` is any number.
    pub fn ended(&mut self, now: Timestamp, outcome: Outcome, chance: u64) -> u64 {
        let up_since = self.up_since.take();
        (self.probe_at, self.redirects) = (None, 0);
        if up_since.is_some_and(|since| since.plus_ms(self.rule.reconnect_ms_max) <= now) {
            (self.failures, self.cuts) = (0, 0);
        }
        match outcome {
            Outcome::WasCut => self.cuts = self.cuts.saturating_add(1),
            Outcome::WasUp | Outcome::Broke => self.cuts = 0,
            Outcome::Failed | Outcome::FailedByProtocol | Outcome::Closed => {}
        }
        let wait_ms = match outcome {
            Outcome::WasUp | Outcome::WasCut if self.cuts < CUTS_MAX => {
                self.failures = 0;
                self.protocol = 0;
                self.next_address(self.rule.order == AddressOrder::InOrder);
                self.wait_ms(chance)
            }
            // Another protocol costs no wait, as long as there is one.
            _ if self.may_be_protocol(outcome) => {
                self.protocol += 1;
                0
            }
            _ => {
                self.protocol = 0;
                self.next_address(false);
                let wait_ms = self.wait_ms(chance);
                self.failures = self.failures.saturating_add(1);
                // Only when all of them have failed it is waited longer.
                if self.address == 0 {
                    wait_ms
                } else {
                    wait_ms.min(self.rule.reconnect_ms_min)
                }
            }
        };
        self.due_at = now.plus_ms(wait_ms);
        wait_ms
    }

    /// Whether the next protocol is worth an attempt. Who has spoken this one and only closes is as likely on
    /// its way up: the next one may be there, but carries less.
    fn may_be_protocol(&self, outcome: Outcome) -> bool {
        let is_last = self.protocol + 1 >= self.rule.protocols.len();
        let spoken = self.spoken.get(self.address).copied().flatten();
        let is_spoken = spoken == Some(self.protocol) && self.failures < CLOSED_MAX;
        match outcome {
            Outcome::FailedByProtocol => !is_last,
            Outcome::Closed => !is_last && !is_spoken,
            _ => false,
        }
    }

    fn next_address(&mut self, begins_anew: bool) {
        let next = (self.address + 1) % self.rule.addresses.max(1);
        self.address = if begins_anew { 0 } else { next };
    }

    /// The least wait, doubled for each round of failures; up to half of it is left out.
    fn wait_ms(&self, chance: u64) -> u64 {
        let rounds = self.failures / self.rule.addresses.max(1) as u32;
        let doubled = self
            .rule
            .reconnect_ms_min
            .saturating_mul(1 << rounds.min(20));
        let whole = doubled.min(self.rule.reconnect_ms_max).max(1);
        whole - chance % (whole / 2 + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dial(addresses: usize, order: AddressOrder) -> Dial {
        Dial::new(DialRule {
            addresses,
            order,
            protocols: vec![Protocol::V5, Protocol::V3_1_1_BRIDGE, Protocol::V3_1_1],
            reconnect_ms_min: 1_000,
            reconnect_ms_max: 8_000,
            failback_ms: 60_000,
            redirects_max: 2,
        })
    }

    #[test]
    fn waits_double_up_to_the_longest_and_begin_anew() {
        let mut dial = dial(1, AddressOrder::InOrder);
        let now = Timestamp::from_ms(5);
        assert!(dial.due_at() <= now);
        let mut waits = Vec::new();
        for _ in 0..5 {
            waits.push(dial.ended(now, Outcome::Failed, 0));
        }
        assert_eq!(waits, [1_000, 2_000, 4_000, 8_000, 8_000]);
        assert_eq!(dial.due_at(), now.plus_ms(8_000));
        let shortest = (0..100_000).map(|chance| dial.wait_ms(chance)).min();
        assert_eq!(shortest, Some(4_000));
        dial.ended(now, Outcome::WasUp, 0);
        assert_eq!(dial.ended(now, Outcome::Failed, 0), 1_000);
    }

    #[test]
    fn who_breaks_the_protocol_whenever_it_is_up_is_asked_more_and_more_rarely() {
        let mut dial = dial(1, AddressOrder::InOrder);
        let mut now = Timestamp::from_ms(5);
        let mut waits = Vec::new();
        for up_ms in [10, 10, 10, 8_000] {
            dial.came_up(now);
            now = now.plus_ms(up_ms);
            waits.push(dial.ended(now, Outcome::Broke, 0));
        }
        assert_eq!(waits, [1_000, 2_000, 4_000, 1_000]);
    }

    #[test]
    fn who_cuts_lines_short_without_a_word_is_asked_more_and_more_rarely() {
        let mut dial = dial(1, AddressOrder::InOrder);
        let mut now = Timestamp::from_ms(5);
        let mut end = |dial: &mut Dial, up_ms, outcome| {
            // That it does not speak 5.0 is seen anew each time.
            assert_eq!(dial.ended(now, Outcome::FailedByProtocol, 0), 0);
            dial.came_up(now);
            now = now.plus_ms(up_ms);
            dial.ended(now, outcome, 0)
        };
        let cuts = [(); 8].map(|()| end(&mut dial, 10, Outcome::WasCut));
        let first = CUTS_MAX as usize - 1;
        assert_eq!(cuts[..first], [1_000; 4]);
        assert_eq!(cuts[first..], [1_000, 2_000, 4_000, 8_000]);
        assert_eq!(end(&mut dial, 8_000, Outcome::WasCut), 1_000, "it was long");
        assert_eq!(dial.cuts(), 1);
        for _ in 0..2 * CUTS_MAX {
            assert_eq!(end(&mut dial, 10, Outcome::WasCut), 1_000);
            assert_eq!(end(&mut dial, 10, Outcome::WasUp), 1_000, "it says why");
        }
    }

    #[test]
    fn the_first_address_is_tried_again_while_another_answers() {
        let now = Timestamp::from_ms(5);
        for (order, wanted) in [
            (AddressOrder::InOrder, Some(now.plus_ms(60_000))),
            (AddressOrder::RoundRobin, None),
        ] {
            let mut dial = dial(2, order);
            dial.came_up(now);
            assert_eq!(dial.probe_at(), None, "it is there");
            dial.ended(now, Outcome::Failed, 0);
            dial.came_up(now);
            assert_eq!(dial.probe_at(), wanted);
        }
        let mut dial = dial(2, AddressOrder::InOrder);
        dial.ended(now, Outcome::Failed, 0);
        dial.came_up(now);
        let later = now.plus_ms(60_000);
        dial.probe_failed(later);
        assert_eq!(dial.probe_at(), Some(later.plus_ms(60_000)));
        dial.go_back();
        dial.came_up(later);
        assert_eq!((dial.attempt().address, dial.probe_at()), (0, None));
    }

    #[test]
    fn redirects_are_followed_at_once_and_so_many_in_a_row() {
        let mut dial = dial(1, AddressOrder::InOrder);
        let now = Timestamp::from_ms(5);
        let follow = |dial: &mut Dial| (dial.redirected(now), dial.due_at() <= now);
        assert_eq!([(); 3].map(|()| follow(&mut dial).0), [true, true, false]);
        assert!(dial.ended(now, Outcome::Failed, 0) > 0);
        assert_eq!(
            follow(&mut dial),
            (true, true),
            "the configured address begins anew"
        );
        dial.came_up(now);
        assert_eq!([(); 3].map(|()| follow(&mut dial).0), [true, true, false]);
    }

    #[test]
    fn protocols_are_tried_at_once_the_best_first_again_after_a_wait() {
        let mut dial = dial(1, AddressOrder::InOrder);
        let now = Timestamp::from_ms(5);
        let mut tried = Vec::new();
        for wanted in [0, 0, 1_000, 0] {
            tried.push(dial.attempt().protocol);
            assert_eq!(dial.ended(now, Outcome::FailedByProtocol, 0), wanted);
        }
        let all = [
            Protocol::V5,
            Protocol::V3_1_1_BRIDGE,
            Protocol::V3_1_1,
            Protocol::V5,
        ];
        assert_eq!(tried, all);
        dial.ended(now, Outcome::WasUp, 0);
        assert_eq!(dial.attempt().protocol, Protocol::V5);
    }

    #[test]
    fn who_has_spoken_a_protocol_and_closes_is_not_asked_by_a_lesser_one_soon() {
        let mut dial = dial(1, AddressOrder::InOrder);
        let now = Timestamp::from_ms(5);
        assert_eq!(
            dial.ended(now, Outcome::Closed, 0),
            0,
            "nobody knows it yet"
        );
        assert_eq!(dial.attempt().protocol, Protocol::V3_1_1_BRIDGE);
        dial.came_up(now);
        dial.ended(now, Outcome::WasUp, 0);
        assert_eq!(dial.ended(now, Outcome::Closed, 0), 0, "it never spoke 5.0");
        assert!(
            dial.ended(now, Outcome::Closed, 0) > 0,
            "it spoke 3.1.1 as a bridge"
        );
        assert_eq!(dial.attempt().protocol, Protocol::V5);
        dial.came_up(now);
        dial.ended(now, Outcome::WasUp, 0);
        for _ in 0..CLOSED_MAX {
            assert!(dial.ended(now, Outcome::Closed, 0) > 0);
            assert_eq!(dial.attempt().protocol, Protocol::V5);
        }
        assert_eq!(
            dial.ended(now, Outcome::Closed, 0),
            0,
            "it may be somebody else"
        );
        dial.came_up(now);
        dial.ended(now, Outcome::WasUp, 0);
        assert_eq!(
            dial.ended(now, Outcome::FailedByProtocol, 0),
            0,
            "it says so"
        );
        assert_eq!(dial.attempt().protocol, Protocol::V3_1_1_BRIDGE);
    }

    #[test]
    fn addresses_go_in_order_or_round() {
        let now = Timestamp::from_ms(5);
        for (order, wanted) in [
            (AddressOrder::InOrder, [0, 1, 2, 0, 0]),
            (AddressOrder::RoundRobin, [0, 1, 2, 0, 1]),
        ] {
            let mut dial = dial(3, order);
            let mut tried = Vec::new();
            for outcome in [
                Outcome::Failed,
                Outcome::Failed,
                Outcome::Failed,
                Outcome::WasUp,
            ] {
                tried.push(dial.attempt().address);
                dial.ended(now, outcome, 0);
            }
            tried.push(dial.attempt().address);
            assert_eq!(tried, wanted);
        }
    }
}
