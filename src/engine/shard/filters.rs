//! SUBSCRIBE and UNSUBSCRIBE, filter by filter: one with many or deep filters is worked off over turns.
//!
//! Its connection is held meanwhile, so that the next packet waits, and its answer leaves at the end. If the
//! connection ends before, what was done stays as if the answer had been lost.
//!
//! Invariant: a connection with a packet under way is held.
//!
//! Not here: what one filter means (`super::subscribe`).

use super::ShardCore;
use super::interest::{Answer, Pending};
use crate::engine::codec::subscribe::{Request, Subscribe, Unsubscribe};
use crate::engine::codec::{Reason, Version};
use crate::engine::keys::{ConnectionKey, SessionKey};
use crate::engine::session::changing::{Changing, Progress, Wanted};
use crate::engine::time::Timestamp;

/// What a filter costs that is subscribed to or given up, in deliveries.
const FILTER_WORK: usize = 32;
/// What each of its levels costs beyond the first.
const LEVEL_WORK: usize = 4;

/// What a filter costs that goes into the trie or out of it, in deliveries.
pub(super) fn filter_work(filter: &str) -> usize {
    let levels = filter.bytes().filter(|byte| *byte == b'/').count();
    FILTER_WORK + LEVEL_WORK * levels
}

/// Whose packet it is.
#[derive(Clone, Copy)]
pub(super) struct Asker {
    pub connection: ConnectionKey,
    pub session: SessionKey,
    pub version: Version,
}

impl ShardCore {
    /// Begins with the filters of a SUBSCRIBE, which have been checked.
    pub(super) fn begin_subscribing(
        &mut self,
        now: Timestamp,
        asker: Asker,
        subscribe: &Subscribe<'_>,
    ) {
        let mut progress = Progress::default();
        let requests = subscribe.requests.iter().copied();
        self.subscribe_some(
            now,
            asker,
            subscribe.subscription_id,
            requests,
            &mut progress,
        );
        if progress.reasons.len() == subscribe.requests.len() {
            let packet_id = subscribe.packet_id;
            return self.answer_filters(now, asker, (Answer::Suback, packet_id), progress);
        }
        let requests = subscribe.requests.iter();
        let wanted = Wanted::Subscribe {
            subscription_id: subscribe.subscription_id,
            requests: requests
                .map(|request| (request.filter.into(), request.options))
                .collect(),
        };
        let packet_id = subscribe.packet_id;
        let changing = Changing {
            packet_id,
            wanted,
            progress,
        };
        self.leave_filters(asker, Box::new(changing));
    }

    /// Begins with the filters of an UNSUBSCRIBE, which have been checked.
    pub(super) fn begin_unsubscribing(
        &mut self,
        now: Timestamp,
        asker: Asker,
        unsubscribe: &Unsubscribe<'_>,
    ) {
        let mut progress = Progress::default();
        let filters = unsubscribe.filters.iter().copied();
        self.unsubscribe_some(now, asker, filters, &mut progress);
        let packet_id = unsubscribe.packet_id;
        if progress.reasons.len() == unsubscribe.filters.len() {
            return self.answer_filters(now, asker, (Answer::Unsuback, packet_id), progress);
        }
        let filters = unsubscribe.filters.iter();
        let wanted = Wanted::Unsubscribe(filters.map(|filter| (*filter).into()).collect());
        let changing = Changing {
            packet_id,
            wanted,
            progress,
        };
        self.leave_filters(asker, Box::new(changing));
    }

    /// Subscribes to one filter, and to more as far as this turn's work allows.
    fn subscribe_some<'a>(
        &mut self,
        now: Timestamp,
        asker: Asker,
        subscription_id: u32,
        requests: impl Iterator<Item = Request<'a>>,
        progress: &mut Progress,
    ) {
        let before = self.interest.sequence();
        let tasks_before = progress.tasks.len();
        for request in requests {
            let tasks = &mut progress.tasks;
            let reason = self.subscribe_to(now, asker, subscription_id, &request, tasks);
            progress.reasons.push(reason);
            self.backlog.spend(filter_work(request.filter));
            if self.backlog.is_share_over() {
                break;
            }
        }
        if progress.tasks.len() > tasks_before && self.interest.sequence() == before {
            self.wait_for_retained(asker.session);
        }
        if let Some(session) = self.clients.sessions.get_mut(asker.session) {
            session.has_subscribed = true;
        }
    }

    /// Gives up one filter, and more as far as this turn's work allows. What waits for them goes on at once:
    /// what comes from now on must not overtake it.
    fn unsubscribe_some<'a>(
        &mut self,
        now: Timestamp,
        asker: Asker,
        filters: impl Iterator<Item = &'a str>,
        progress: &mut Progress,
    ) {
        let mut has_changed = false;
        for filter in filters {
            let reason = self.unsubscribe_from(asker, filter);
            progress.reasons.push(reason);
            has_changed |= reason == Reason::Success;
            self.backlog.spend(filter_work(filter));
            if self.backlog.is_share_over() {
                break;
            }
        }
        if has_changed {
            self.review_held(asker.session, now);
        }
        self.pump_replay(asker.session, now);
    }

    /// Leaves the rest of a packet for a later turn; its connection is held.
    fn leave_filters(&mut self, asker: Asker, changing: Box<Changing>) {
        if let Some(connection) = self.clients.connections.get_mut(asker.connection) {
            connection.changing = Some(changing);
        }
        let full = self.staged.take_full();
        if full.is_empty() {
            self.hold_for_turn(asker.connection);
        } else {
            self.hold_for_room(asker.connection, full);
        }
    }

    /// Goes on with the packet of which a connection had to leave a part, if there is one.
    pub(super) fn go_on_with_filters(&mut self, now: Timestamp, key: ConnectionKey) {
        let Some(connection) = self.clients.connections.get_mut(key) else {
            return;
        };
        let (Some(session), version) = (connection.session, connection.version) else {
            return;
        };
        let Some(mut changing) = connection.changing.take() else {
            return;
        };
        let asker = Asker {
            connection: key,
            session,
            version,
        };
        self.backlog.begin_share();
        self.staged.take_full();
        let progress = &mut changing.progress;
        let done = progress.reasons.len();
        match &changing.wanted {
            Wanted::Subscribe {
                subscription_id,
                requests,
            } => {
                let left = requests.iter().skip(done);
                let left = left.map(|(filter, options)| Request {
                    filter,
                    options: *options,
                });
                self.subscribe_some(now, asker, *subscription_id, left, progress);
            }
            Wanted::Unsubscribe(filters) => {
                let left = filters.iter().skip(done).map(|filter| &**filter);
                self.unsubscribe_some(now, asker, left, progress);
            }
        }
        if changing.progress.reasons.len() < changing.filters() {
            self.leave_filters(asker, changing);
        } else {
            self.end_filters(now, asker, *changing);
            let full = self.staged.take_full();
            if !full.is_empty() {
                self.hold_for_room(key, full);
            }
        }
        self.mind_memory(now);
    }

    /// No more is done of a packet: all of it is, or its connection is gone.
    pub(super) fn end_filters(&mut self, now: Timestamp, asker: Asker, changing: Changing) {
        let answer = match changing.wanted {
            Wanted::Subscribe { .. } => Answer::Suback,
            Wanted::Unsubscribe(_) => Answer::Unsuback,
        };
        let answer = (answer, changing.packet_id);
        self.answer_filters(now, asker, answer, changing.progress);
    }

    fn answer_filters(
        &mut self,
        now: Timestamp,
        asker: Asker,
        (answer, packet_id): (Answer, u16),
        progress: Progress,
    ) {
        let pending = Pending {
            sequence: 0,
            ticket: 0,
            connection: asker.connection,
            session: asker.session,
            version: asker.version,
            packet_id,
            answer,
            reasons: progress.reasons,
            tasks: progress.tasks,
        };
        self.answer_when_known(pending, now);
    }
}
