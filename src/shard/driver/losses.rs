//! Telling an operator which clients lose messages: when it begins, then in sums, and not all of many.
//!
//! Invariant: what is not told at once is summed up when the quiet time ends, or with the shard.

use crate::engine::bridge::CLIENT_ID_PREFIX;
use crate::engine::session::losses::Losses;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// How often a shard asks which clients have lost messages.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long nothing more is said of a client, and how many are named in that time.
const QUIET: Duration = Duration::from_secs(60);
const NAMED_MAX: usize = 10;
/// Others that are told apart to count them.
const OTHERS_MAX: usize = 1_000;

/// What was told, and what is to be told.
#[derive(Debug)]
pub(super) struct LossReports {
    looks_at: Instant,
    /// Until then only those are named that have not been.
    quiet_until: Instant,
    /// Who was named, with what each has lost since.
    named: BTreeMap<Rc<str>, Losses>,
    others: BTreeSet<Rc<str>>,
    of_others: Losses,
}

impl LossReports {
    pub fn new(now: Instant) -> Self {
        LossReports {
            looks_at: now,
            quiet_until: now,
            named: BTreeMap::new(),
            others: BTreeSet::new(),
            of_others: Losses::default(),
        }
    }

    /// When something is to be done; sooner where there are losses that were not taken yet.
    pub fn due_at(&self, has_losses: bool) -> Option<Instant> {
        let takes_at = has_losses.then_some(self.looks_at);
        let tells_at = self.has_untold().then_some(self.quiet_until);
        takes_at.into_iter().chain(tells_at).min()
    }

    fn has_untold(&self) -> bool {
        !self.of_others.is_empty() || self.named.values().any(|lost| !lost.is_empty())
    }

    /// The lines that are due, with these losses; the next may follow after a while.
    pub fn tell(
        &mut self,
        now: Instant,
        losses: &[(Rc<str>, Losses)],
        is_end: bool,
    ) -> Vec<String> {
        self.looks_at = now + INTERVAL;
        let mut lines = Vec::new();
        if now >= self.quiet_until {
            self.sum_up(now, &mut lines);
        }
        for (client_id, lost) in losses {
            if let Some(sum) = self.named.get_mut(client_id) {
                sum.add_all(lost);
            } else if self.named.len() < NAMED_MAX {
                lines.push(format!("{} has lost messages: {lost}", name(client_id)));
                self.named.insert(Rc::clone(client_id), Losses::default());
            } else {
                self.of_others.add_all(lost);
                if self.others.len() < OTHERS_MAX {
                    self.others.insert(Rc::clone(client_id));
                }
            }
        }
        if is_end {
            self.sum_up(now, &mut lines);
        }
        lines
    }

    /// What came meanwhile. Who has lost nothing gives its place to others.
    fn sum_up(&mut self, now: Instant, lines: &mut Vec<String>) {
        self.quiet_until = now + QUIET;
        self.named.retain(|client_id, sum| {
            let lost = std::mem::take(sum);
            if !lost.is_empty() {
                let who = name(client_id);
                lines.push(format!(
                    "{who} has lost more messages within a minute: {lost}"
                ));
            }
            !lost.is_empty()
        });
        let lost = std::mem::take(&mut self.of_others);
        let count = std::mem::take(&mut self.others).len();
        if !lost.is_empty() {
            let at_least = if count < OTHERS_MAX { "" } else { "at least " };
            lines.push(format!(
                "{at_least}{count} more clients have lost messages within a minute: {lost}; \
                 `ringmq clients` tells what each has lost"
            ));
        }
    }
}

fn name(client_id: &str) -> String {
    match client_id.strip_prefix(CLIENT_ID_PREFIX) {
        Some(bridge) => format!("bridge {bridge}"),
        None => format!("client {client_id:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::session::losses::LossReason;

    fn lost(client_id: &str, count: u64) -> (Rc<str>, Losses) {
        let mut lost = Losses::default();
        lost.add(LossReason::TooLarge, count);
        (client_id.into(), lost)
    }

    #[test]
    fn a_loser_is_told_of_when_it_begins_and_then_once_a_minute_with_the_sum() {
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        let mut reports = LossReports::new(now);
        assert_eq!(
            (reports.due_at(false), reports.due_at(true)),
            (None, Some(now))
        );
        let mut lines = Vec::new();
        for second in 0..=125 {
            let more = reports.tell(at(second), &[lost("c", 97)], false);
            lines.extend(more.into_iter().map(|line| (second, line)));
        }
        let of = |what: &str, sum: u64| {
            format!("client \"c\" has lost {what}: {sum} as larger than its maximum packet size")
        };
        let expected = [
            (0, of("messages", 97)),
            (60, of("more messages within a minute", 59 * 97)),
            (120, of("more messages within a minute", 60 * 97)),
        ];
        assert_eq!(lines, expected);
        // The rest is told without another loss; after a minute without any it is as at first.
        assert_eq!(reports.due_at(false), Some(at(180)));
        let rest = reports.tell(at(180), &[], false);
        assert_eq!(rest, [of("more messages within a minute", 6 * 97)]);
        assert_eq!(reports.due_at(false), None);
        let again = reports.tell(at(300), &[lost("c", 1)], false);
        assert_eq!(again, [of("messages", 1)]);
        reports.tell(at(301), &[lost("c", 2)], false);
        let at_end = reports.tell(at(302), &[lost("c", 3)], true);
        assert_eq!(at_end, [of("more messages within a minute", 5)]);
    }

    #[test]
    fn many_losers_are_counted_together() {
        let now = Instant::now();
        let mut reports = LossReports::new(now);
        let losers = |count| -> Vec<_> {
            let all = (0..count).map(|number| lost(&format!("c{number}"), 3));
            all.collect()
        };
        let lines = reports.tell(now, &losers(NAMED_MAX + 2), false);
        assert_eq!(lines.len(), NAMED_MAX);
        assert!(lines[0].starts_with("client \"c0\" has lost messages: "));
        let lines = reports.tell(now + QUIET, &losers(NAMED_MAX + 2), false);
        let more = "2 more clients have lost messages within a minute: 6 as larger";
        assert!(lines[0].starts_with(more), "{lines:?}");
        let losers = losers(NAMED_MAX + 2 * OTHERS_MAX);
        reports.tell(now + QUIET * 3, &losers, false);
        assert_eq!(
            (reports.named.len(), reports.others.len()),
            (NAMED_MAX, OTHERS_MAX)
        );
        let lines = reports.tell(now + QUIET * 4, &[], false);
        let more = format!("at least {OTHERS_MAX} more clients have lost messages");
        assert!(lines.last().unwrap().starts_with(&more), "{lines:?}");
    }

    #[test]
    fn a_bridge_is_called_so() {
        let now = Instant::now();
        let lines = LossReports::new(now).tell(now, &[lost("$bridge/hq", 1)], false);
        let of_bridge = "bridge hq has lost messages: ";
        assert!(lines[0].starts_with(of_bridge), "{lines:?}");
    }
}
