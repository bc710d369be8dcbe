//! Questions for retained messages, and answers, that wait for a drain of the mailboxes.
//!
//! Invariant: what is due at the end of a drain came before the drain began, so every update that was visible
//! then has been applied by now.

use crate::engine::keys::{SessionKey, ShardId};
use crate::engine::mail::RetainedQuery;
use crate::engine::route::retained::Answer;
use std::collections::VecDeque;

/// What waits on one shard.
#[derive(Default)]
pub(super) struct Questions {
    /// Number of the last question of this shard.
    last: u64,
    /// With the shards that ask.
    asked: VecDeque<(ShardId, RetainedQuery)>,
    /// With the sessions they are for and the numbers of their questions.
    answered: VecDeque<(SessionKey, u64, Answer)>,
    /// How many of the first of `asked` are due.
    asked_due: usize,
    /// The same of `answered`.
    answered_due: usize,
}

impl Questions {
    /// Numbers a question of this shard.
    pub(super) const fn next_number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// A shard asks.
    pub(super) fn ask(&mut self, from: ShardId, query: RetainedQuery) {
        self.asked.push_back((from, query));
    }

    /// A shard answers.
    pub(super) fn answer(&mut self, session: SessionKey, query: u64, answer: Answer) {
        self.answered.push_back((session, query, answer));
    }

    /// Whether a drain is wanted.
    pub(super) fn is_empty(&self) -> bool {
        self.asked.is_empty() && self.answered.is_empty()
    }

    /// A drain begins: what is here now is due at its end.
    pub(super) fn begin_drain(&mut self) {
        self.asked_due = self.asked.len();
        self.answered_due = self.answered.len();
    }

    /// The next answer that is due.
    pub(super) fn take_answer(&mut self) -> Option<(SessionKey, u64, Answer)> {
        self.answered_due = self.answered_due.checked_sub(1)?;
        self.answered.pop_front()
    }

    /// The next question that is due.
    pub(super) fn take_question(&mut self) -> Option<(ShardId, RetainedQuery)> {
        self.asked_due = self.asked_due.checked_sub(1)?;
        self.asked.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::slots::Slots;

    #[test]
    fn only_what_came_before_a_drain_is_due_at_its_end() {
        let session = Slots::default().insert(());
        let mut questions = Questions::default();
        let ask = |questions: &mut Questions| {
            let query = questions.next_number();
            let filter = "a".into();
            let after = None;
            questions.ask(
                0,
                RetainedQuery {
                    session,
                    query,
                    filter,
                    after,
                },
            );
            questions.answer(session, query, Answer::default());
        };
        let numbers = |questions: &mut Questions| {
            let asked = std::iter::from_fn(|| questions.take_question());
            let asked: Vec<_> = asked.map(|(_, query)| query.query).collect();
            let answered = std::iter::from_fn(|| questions.take_answer());
            let answered = answered.map(|(_, query, _)| query).collect::<Vec<_>>();
            (asked, answered)
        };
        ask(&mut questions);
        assert_eq!(numbers(&mut questions), (vec![], vec![]), "no drain began");
        questions.begin_drain();
        ask(&mut questions);
        assert_eq!(numbers(&mut questions), (vec![1], vec![1]));
        assert!(!questions.is_empty());
        questions.begin_drain();
        assert_eq!(numbers(&mut questions), (vec![2], vec![2]));
        assert!(questions.is_empty());
    }
}
