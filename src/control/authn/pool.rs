//! The threads on which methods work: questions of shards in, answers out.
//!
//! The queue of questions is bounded (`shard::question_queue`); a shard whose question finds no room
//! refuses the client. A question whose client waits no longer is not judged: that would only keep others
//! waiting. Threads wait for a shard that does not take its answers, so nothing is lost and nothing grows.

use super::guesses::{Guesses, Rule, Turn};
use super::password::PasswordMethod;
use super::{Credentials, Method, Verdict, certificate, scram};
use crate::engine::access::{Admitted, Answer, ClientIdRule, Identity, Refusal};
use crate::engine::keys::{ConnectionKey, ShardId};
use crate::engine::shard::ClientIdPolicy;
use crate::shard::addresses::counted_as;
use crate::shard::bans::InForce;
use crate::shard::question_queue::{QuestionQueue, Taken};
use crate::shard::questions::{Asker, Exchange, Question, Reply, Visitor, Work};
use crate::shard::ring::Waker;
use crossbeam_channel::Sender;
use ipnet::IpNet;
use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::sync::{Arc, PoisonError, RwLock};
use std::thread;
use std::time::Instant;

/// Methods that a listener lets its clients use, by name; `None` for all. Every way of showing who one is has
/// to pass it.
struct Gate(Option<Arc<[&'static str]>>);

impl Gate {
    fn lets_through(&self, method: &str) -> bool {
        self.0.as_ref().is_none_or(|names| names.contains(&method))
    }
}

/// All methods.
#[derive(Default)]
pub struct Authenticators {
    /// In the order in which they are asked.
    pub chain: Vec<Arc<dyn Method>>,
    /// Where SCRAM finds its users.
    pub scram: Option<Arc<PasswordMethod>>,
    /// Names that are banned now.
    pub banned: InForce,
    /// Which identifier who asks for none gets, and with it the ban on it.
    pub client_id: ClientIdPolicy,
}

impl Authenticators {
    /// Answers one question.
    fn answer(&self, work: Work) -> (Answer, Option<Box<dyn Exchange>>) {
        match work {
            Work::Connect(visitor) => {
                let gate = Gate(visitor.methods.clone());
                match &visitor.shown.exchange {
                    Some(bytes) => self.begin(bytes, &gate, None),
                    None => (self.judge(*visitor, &gate), None),
                }
            }
            Work::Begin(again) => self.begin(&again.bytes, &Gate(again.methods), again.user_name),
            Work::Continue(exchange, bytes) => (exchange.go_on(&bytes), None),
        }
    }

    fn judge(&self, visitor: Visitor, gate: &Gate) -> Answer {
        let may_be_anonymous = visitor.shown.may_be_anonymous;
        let credentials = Credentials::from(visitor);
        let chain = self.chain.iter();
        for method in chain.filter(|method| gate.lets_through(method.name())) {
            match method.authenticate(&credentials) {
                Verdict::Allow(identity) if self.bans(&identity, &credentials.client_id) => {
                    return Answer::BannedUnseen(identity);
                }
                Verdict::Allow(identity) => {
                    return Answer::Allow(Box::new(Admitted {
                        identity: *identity,
                        ..Admitted::default()
                    }));
                }
                Verdict::Refuse(refusal) => return Answer::Refuse(refusal),
                Verdict::NotMine => {}
            }
        }
        let shows_nothing = credentials.user_name.is_none() && credentials.password.is_none();
        match (shows_nothing, may_be_anonymous) {
            (true, true) => Answer::NotMine,
            (true, false) => Answer::Refuse(Refusal::NotAuthorized),
            (false, _) => Answer::Refuse(self.why_unknown(gate, &credentials)),
        }
    }

    /// Why nobody knows who shows something: told to it as a wrong password is.
    fn why_unknown(&self, gate: &Gate, credentials: &Credentials) -> Refusal {
        let asked = self
            .chain
            .iter()
            .map(|method| (method.name(), method.takes()));
        let asked = asked.filter(|(name, _)| gate.lets_through(name));
        let taken: BTreeSet<_> = asked.filter_map(|(_, takes)| takes).collect();
        let key = match &gate.0 {
            Some(methods) => format!("listener.methods = {methods:?}"),
            None => "authentication.methods".to_owned(),
        };
        let has_password = credentials.password.is_some();
        match taken.first() {
            None => Refusal::BadProof(format!("no password is taken here ({key})").into()),
            Some(only) if taken.len() == 1 && *only != "a password" && has_password => {
                let text =
                    format!("its password is not {only}, and nothing else is taken here ({key})");
                Refusal::BadProof(text.into())
            }
            Some(_) => Refusal::BadCredentials,
        }
    }

    /// Whether somebody who has proved who it is, is banned by what it turned out to be. Who said so itself
    /// is refused by its shard, whatever is answered here.
    fn bans(&self, identity: &Identity, asked_id: &str) -> bool {
        let user_name = identity.user_name.as_deref();
        let rule = identity.client_id.clone();
        let rule = rule.or_else(|| self.client_id.for_user(user_name));
        let client_id = match &rule {
            Some(ClientIdRule::Exactly(id)) if asked_id.is_empty() => id,
            _ => asked_id,
        };
        self.banned.names().contain(client_id, user_name)
    }

    /// Begins an exchange, which may end as a certain user only.
    fn begin(
        &self,
        bytes: &[u8],
        gate: &Gate,
        only: Option<Box<str>>,
    ) -> (Answer, Option<Box<dyn Exchange>>) {
        let users = self.scram.as_ref();
        let Some(users) = users.filter(|_| gate.lets_through(scram::METHOD)) else {
            return (Answer::Refuse(Refusal::BadCredentials), None);
        };
        match scram::begin(&users.file(), bytes, &scram::nonce()) {
            Ok((bytes, exchange)) => {
                let user_name = exchange.user_name().into();
                let users = Arc::clone(users);
                let exchange = ByScram {
                    exchange,
                    only,
                    users,
                };
                (
                    Answer::Continue(bytes.into(), user_name),
                    Some(Box::new(exchange)),
                )
            }
            Err(refusal) => (Answer::Refuse(refusal), None),
        }
    }
}

/// An exchange by SCRAM, and as whom only it may end.
#[derive(Debug)]
struct ByScram {
    exchange: scram::Exchange,
    only: Option<Box<str>>,
    users: Arc<PasswordMethod>,
}

impl Exchange for ByScram {
    fn user_name(&self) -> &str {
        self.exchange.user_name()
    }

    fn go_on(self: Box<Self>, bytes: &[u8]) -> Answer {
        match scram::finish(self.exchange, bytes, &self.users.file()) {
            // Somebody else's right password counts as a wrong one, or it could be told apart.
            Ok((_, user_name)) if self.only.as_ref().is_some_and(|only| *only != user_name) => {
                Answer::Refuse(Refusal::BadCredentials)
            }
            Ok((bytes, user_name)) => Answer::Allow(Box::new(Admitted {
                identity: Identity {
                    user_name: Some(user_name),
                    method: scram::METHOD,
                    ..Identity::default()
                },
                exchange_end: Some(bytes.into()),
                ..Admitted::default()
            })),
            Err(refusal) => Answer::Refuse(refusal),
        }
    }
}

impl From<Visitor> for Credentials {
    fn from(visitor: Visitor) -> Self {
        let names = visitor.certificate.as_deref().and_then(certificate::names);
        Credentials {
            client_id: visitor.shown.client_id,
            user_name: visitor.shown.user_name,
            password: visitor.shown.password,
            version: visitor.shown.version,
            peer: visitor.peer,
            certificate: names.map(Arc::new),
        }
    }
}

/// The threads, and what they work with.
pub struct Pool {
    worker: Worker,
}

impl Pool {
    /// Starts `threads` threads that answer until every shard has gone.
    ///
    /// # Errors
    /// The system has no more threads.
    pub fn start(
        threads: usize,
        authenticators: Authenticators,
        (guesses, ipv6_prefix_bits): (Guesses<Question>, u8),
        questions: &QuestionQueue,
        shards: Vec<(Sender<Reply>, Waker)>,
    ) -> io::Result<Self> {
        let worker = Worker {
            authenticators: Arc::new(RwLock::new(Arc::new(authenticators))),
            guesses: Arc::new(guesses),
            ipv6_prefix_bits,
            questions: questions.clone(),
            shards,
        };
        for number in 0..threads {
            let worker = worker.clone();
            let thread = thread::Builder::new().name(format!("authn-{number}"));
            thread.spawn(move || worker.work())?;
        }
        Ok(Pool { worker })
    }

    /// What is asked from now on is judged by these; an exchange that has begun goes on as it began.
    pub fn set_authenticators(&self, authenticators: Authenticators) {
        let known = &self.worker.authenticators;
        *known.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(authenticators);
    }

    /// So many failed logins are too many from now on.
    pub fn set_rule(&self, rule: Rule) {
        self.worker.guesses.set_rule(rule);
    }
}

/// What each thread works with.
#[derive(Clone)]
struct Worker {
    authenticators: Arc<RwLock<Arc<Authenticators>>>,
    guesses: Arc<Guesses<Question>>,
    ipv6_prefix_bits: u8,
    questions: QuestionQueue,
    shards: Vec<(Sender<Reply>, Waker)>,
}

/// Whether a question was a guess that failed.
fn has_failed(answer: &Answer) -> bool {
    match answer {
        Answer::Refuse(refusal) => refusal.is_failure(),
        Answer::BannedUnseen(_) => true,
        Answer::Allow(_)
        | Answer::NotMine
        | Answer::Continue(..)
        | Answer::Banned
        | Answer::Busy
        | Answer::Late => false,
    }
}

impl Worker {
    fn work(&self) {
        while let Some(taken) = self.questions.next() {
            let question = match taken {
                Taken::Next(question) => question,
                Taken::Displaced(question) => {
                    self.take(Turn::Busy(question));
                    continue;
                }
            };
            let address = self.address(&question);
            let first = self.guesses.begin(address, question, Instant::now());
            let mut turns = VecDeque::from([first]);
            while let Some(turn) = turns.pop_front() {
                turns.extend(self.take(turn));
            }
        }
    }

    /// The methods in force.
    fn authenticators(&self) -> Arc<Authenticators> {
        let known = self.authenticators.read();
        Arc::clone(&known.unwrap_or_else(PoisonError::into_inner))
    }

    /// The network that counts as the address that a question comes from.
    fn address(&self, question: &Question) -> Option<IpNet> {
        let ip = question.asker.origin.peer.ip();
        ip.map(|ip| counted_as(ip, self.ipv6_prefix_bits))
    }

    /// Answers a question whose turn it is; those that waited for its end.
    fn take(&self, turn: Turn<Question>) -> Vec<Turn<Question>> {
        let (question, answer) = match turn {
            Turn::Judge(question) => return self.judge(question),
            Turn::Waits => return Vec::new(),
            Turn::Banned(question) => (question, Answer::Banned),
            Turn::Busy(question) => (question, Answer::Busy),
        };
        self.reply(
            question.shard,
            question.connection,
            question.asker,
            (answer, None),
        );
        Vec::new()
    }

    fn judge(&self, question: Question) -> Vec<Turn<Question>> {
        let address = self.address(&question);
        // Nothing is learned from an answer that is not given, so this is no guess either.
        let answer = if question.is_over(Instant::now()) {
            (Answer::Late, None)
        } else {
            self.authenticators().answer(question.work)
        };
        // Counted before anybody can be told.
        let has_failed = has_failed(&answer.0);
        let next = self.guesses.end(address, has_failed, Instant::now());
        self.reply(question.shard, question.connection, question.asker, answer);
        if has_failed {
            self.guesses.tell(address);
        }
        next
    }

    fn reply(
        &self,
        shard: ShardId,
        connection: ConnectionKey,
        asker: Asker,
        (answer, exchange): (Answer, Option<Box<dyn Exchange>>),
    ) {
        if let Some((replies, waker)) = self.shards.get(usize::from(shard)) {
            // A shard that has stopped needs no answer.
            let _ = replies.send(Reply {
                connection,
                asker,
                answer,
                exchange,
            });
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::authn::password::{PasswordFile, hash_scram};
    use crate::engine::access::{Secret, Shown};
    use crate::engine::codec::Version;
    use crate::shard::peer::Peer;
    use crate::shard::questions::Again;

    #[test]
    fn one_gate_stands_before_every_method() {
        let file = format!("ann:{}\n", hash_scram(b"secret"));
        let users = Arc::new(PasswordMethod::new(PasswordFile::parse(&file).unwrap()));
        let all = Authenticators {
            chain: vec![Arc::clone(&users) as Arc<dyn Method>],
            scram: Some(users),
            ..Authenticators::default()
        };
        let connect = |methods: &Option<Arc<[&'static str]>>, exchange: Option<&[u8]>| {
            let shown = Shown {
                client_id: "c".into(),
                user_name: Some("ann".into()),
                password: Some(Secret::new(b"secret")),
                version: Version::V5,
                exchange: exchange.map(Into::into),
                may_be_anonymous: false,
            };
            Work::Connect(Box::new(Visitor {
                shown,
                peer: Peer::Unix,
                certificate: None,
                methods: methods.clone(),
            }))
        };
        let first = b"n,,n=ann,r=nonce";
        let passes = |work| !matches!(all.answer(work).0, Answer::Refuse(_));
        for (methods, by_password, by_scram) in [
            (None, true, true),
            (Some(vec!["jwt"]), false, false),
            (Some(vec!["scram"]), false, true),
            (Some(vec!["password_file"]), true, false),
            (Some(vec![]), false, false),
        ] {
            let methods = methods.map(Arc::from);
            assert_eq!(passes(connect(&methods, None)), by_password, "{methods:?}");
            assert_eq!(
                passes(connect(&methods, Some(first))),
                by_scram,
                "{methods:?}"
            );
            let again = Work::Begin(Again {
                bytes: first[..].into(),
                user_name: None,
                methods: methods.clone(),
            });
            assert_eq!(passes(again), by_scram, "{methods:?}");
        }
    }
}
