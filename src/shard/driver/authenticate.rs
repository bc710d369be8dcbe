//! Questions of the core to the authentication methods, and their answers.

use super::Shell;
use crate::engine::access::{Answer, Identity, Refusal, Step};
use crate::engine::keys::{ConnectionKey, ShardId};
use crate::engine::turn::Whereabouts;
use crate::shard::question_queue::Asking;
use crate::shard::questions::{Again, Asker, Question, Reply, Visitor, Work};
use crate::shard::ring::{OtherEnd, Ring, SocketKey};
use crossbeam_channel::Receiver;
use std::time::Instant;

/// The shard's ends of the methods' queues.
pub(super) struct Methods {
    shard: ShardId,
    questions: Asking,
    replies: Receiver<Reply>,
}

impl Methods {
    pub fn new(shard: ShardId, questions: Asking, replies: Receiver<Reply>) -> Self {
        Methods {
            shard,
            questions,
            replies,
        }
    }

    /// Whether no answer waits.
    pub fn is_empty(&self) -> bool {
        self.replies.is_empty()
    }

    /// Asks; false if too many questions wait, or too many of its address.
    fn ask(
        &self,
        connection: ConnectionKey,
        (asker, work): (Asker, Work),
        (asked_at, until): (Instant, Instant),
    ) -> bool {
        self.questions.ask(Question {
            shard: self.shard,
            connection,
            asker,
            work,
            asked_at,
            until,
        })
    }
}

impl Shell {
    /// Puts a question to the methods; one too many is answered at once.
    pub(super) fn ask(&mut self, connection: ConnectionKey, step: Step) {
        if self.is_at_banned_address(connection) {
            return self.core.ban(self.clock.now(), connection);
        }
        let Some(asked) = self.work(connection, step) else {
            return self.refuse_busy(connection);
        };
        let asked_at = self.clock.turn_at();
        let until = self.core.answer_by(self.clock.now(), connection);
        let until = self.clock.instant(until).unwrap_or(asked_at);
        if !self.methods.ask(connection, asked, (asked_at, until)) {
            self.refuse_busy(connection);
        }
    }

    /// Whether a connection comes from an address that is not served, by the bans of this moment: those that
    /// are there are looked at over turns.
    fn is_at_banned_address(&mut self, connection: ConnectionKey) -> bool {
        let socket = self.sockets.socket(connection);
        let entry = socket.and_then(|socket| self.sockets.entry(socket));
        let ip = entry.and_then(|entry| entry.origin.counted);
        ip.is_some_and(|ip| self.admission.is_banned(ip))
    }

    fn refuse_busy(&mut self, connection: ConnectionKey) {
        self.core.note_busy_methods();
        let refusal = Answer::Refuse(Refusal::Unavailable);
        self.core
            .authenticated(self.clock.now(), connection, refusal);
    }

    fn work(&mut self, connection: ConnectionKey, step: Step) -> Option<(Asker, Work)> {
        let socket = self.sockets.socket(connection)?;
        let listener = self.sockets.entry(socket)?.origin.listener;
        let setup = self.admission.setup(listener);
        let methods = setup.and_then(|setup| setup.methods.clone());
        let entry = self.sockets.entry(socket)?;
        let mut asker = Asker {
            origin: entry.origin,
            client_id: Box::default(),
            user_name: None,
        };
        let work = match step {
            Step::Connect(shown) => {
                asker.client_id.clone_from(&shown.client_id);
                asker.user_name.clone_from(&shown.user_name);
                let under = entry.under.as_ref();
                let certificate = under.and_then(|under| under.link.certificate());
                Work::Connect(Box::new(Visitor {
                    shown: *shown,
                    peer: entry.origin.peer,
                    certificate: certificate.map(Into::into),
                    methods,
                }))
            }
            Step::Again(bytes, user_name) => {
                asker.user_name.clone_from(&user_name);
                Work::Begin(Again {
                    bytes,
                    user_name,
                    methods,
                })
            }
            Step::Continue(bytes) => {
                let exchange = entry.exchange.take()?;
                asker.user_name = Some(exchange.user_name().into());
                Work::Continue(exchange, bytes)
            }
        };
        Some((asker, work))
    }

    /// Who does not wait for the answer has failed all the same, or guesses would cost nothing.
    fn account_for_gone(&mut self, reply: Reply) {
        if let Some((reason, why)) = self.core.refuse_gone(&reply.answer) {
            let identity = match reply.answer {
                Answer::BannedUnseen(identity) => *identity,
                _ => Identity::default(),
            };
            self.record_failed_login(&reply.asker, &identity, (reason, &why));
        }
    }

    /// What has become of a client that is to be let in. Who was not let in yet is not read, so only the
    /// kernel knows; what waits of one that has closed may be half a packet, or with layers under MQTT only
    /// that they end.
    pub(super) fn whereabouts(
        &mut self,
        ring: &mut Ring,
        connection: ConnectionKey,
    ) -> Whereabouts {
        let Some(socket) = self.sockets.socket(connection) else {
            return Whereabouts::There;
        };
        let link = self.sockets.link(socket);
        let waits = link.is_some_and(|link| !link.inbox.is_empty());
        match ring.other_end(socket) {
            OtherEnd::Broken => Whereabouts::Gone,
            OtherEnd::Closed { has_unread: true } => {
                ring.resume_receive(socket);
                Whereabouts::ReadOn
            }
            OtherEnd::Closed { has_unread: false }
                if !waits && !self.core.has_more_to_say(connection) =>
            {
                Whereabouts::Gone
            }
            OtherEnd::Open | OtherEnd::Closed { .. } => Whereabouts::There,
        }
    }

    /// Passes the methods' answers on to the core.
    pub(super) fn take_replies(&mut self, ring: &mut Ring) {
        while let Ok(reply) = self.methods.replies.try_recv() {
            if matches!(reply.answer, Answer::Late) {
                self.core.note_late_methods();
            }
            if !self.core.awaits_answer(reply.connection) {
                self.account_for_gone(reply);
                continue;
            }
            if self.is_at_banned_address(reply.connection) {
                self.core.ban(self.clock.now(), reply.connection);
                self.carry_out(ring);
                continue;
            }
            if matches!(reply.answer, Answer::Allow(_) | Answer::NotMine) {
                match self.whereabouts(ring, reply.connection) {
                    Whereabouts::There => {}
                    Whereabouts::Gone => {
                        self.core.gone_at_gate(reply.connection);
                        self.carry_out(ring);
                        continue;
                    }
                    Whereabouts::ReadOn => {
                        let socket = self.sockets.socket(reply.connection);
                        if let Some(entry) = socket.and_then(|socket| self.sockets.entry(socket)) {
                            entry.answer = Some(Box::new(reply));
                        }
                        continue;
                    }
                }
            }
            self.pass_on(ring, reply);
        }
    }

    fn pass_on(&mut self, ring: &mut Ring, reply: Reply) {
        let socket = self.sockets.socket(reply.connection);
        if let Some(entry) = socket.and_then(|socket| self.sockets.entry(socket)) {
            entry.exchange = reply.exchange;
        }
        let mut answer = reply.answer;
        if let Answer::Allow(admitted) = &mut answer
            && let Some(ends_s) = admitted.identity.expires_unix_s
        {
            admitted.ends_at = Some(self.clock.at_unix_s(ends_s));
        }
        self.core
            .authenticated(self.clock.now(), reply.connection, answer);
        self.carry_out(ring);
    }

    /// All that a client has sent before it closed has come: the answer that waited for it is given.
    pub(super) fn give_answer(&mut self, ring: &mut Ring, socket: SocketKey) {
        let entry = self.sockets.entry(socket);
        if let Some(reply) = entry.and_then(|entry| entry.answer.take())
            && self.core.awaits_answer(reply.connection)
        {
            self.pass_on(ring, *reply);
        }
    }
}
