//! The threads on which methods work: questions of shards in, answers out.
//!
//! The queue of questions is bounded; a shard whose question finds no room refuses the client. Threads
//! wait for a shard that does not take its answers, so nothing is lost and nothing grows.

use super::password::PasswordMethod;
use super::{Credentials, Method, Verdict, certificate, scram};
use crate::engine::access::{Admitted, Answer, Identity, Refusal};
use crate::shard::questions::{Exchange, Question, Reply, Visitor, Work};
use crate::shard::ring::Waker;
use crossbeam_channel::{Receiver, Sender};
use std::io;
use std::sync::Arc;
use std::thread;

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
}

impl Authenticators {
    /// Answers one question.
    fn answer(&self, work: Work) -> (Answer, Option<Box<dyn Exchange>>) {
        match work {
            Work::Connect(visitor) => {
                let gate = Gate(visitor.methods.clone());
                match &visitor.shown.exchange {
                    Some(bytes) => self.begin(bytes, &gate),
                    None => (self.judge(&(*visitor).into(), &gate), None),
                }
            }
            Work::Begin(methods, bytes) => self.begin(&bytes, &Gate(methods)),
            Work::Continue(exchange, bytes) => (exchange.go_on(&bytes), None),
        }
    }

    fn judge(&self, credentials: &Credentials, gate: &Gate) -> Answer {
        let chain = self.chain.iter();
        for method in chain.filter(|method| gate.lets_through(method.name())) {
            match method.authenticate(credentials) {
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
        if shows_nothing {
            Answer::NotMine
        } else {
            Answer::Refuse(Refusal::BadCredentials)
        }
    }

    fn begin(&self, bytes: &[u8], gate: &Gate) -> (Answer, Option<Box<dyn Exchange>>) {
        let users = self.scram.as_ref();
        let Some(users) = users.filter(|_| gate.lets_through(scram::METHOD)) else {
            return (Answer::Refuse(Refusal::BadCredentials), None);
        };
        match scram::begin(&users.file(), bytes, &scram::nonce()) {
            Ok((bytes, exchange)) => (Answer::Continue(bytes.into()), Some(Box::new(exchange))),
            Err(refusal) => (Answer::Refuse(refusal), None),
        }
    }
}

impl Exchange for scram::Exchange {
    fn go_on(self: Box<Self>, bytes: &[u8]) -> Answer {
        match scram::finish(*self, bytes) {
            Ok((bytes, user_name)) => Answer::Allow(Box::new(Admitted {
                identity: Identity {
                    user_name: Some(user_name),
                    method: scram::METHOD,
                    ..Identity::default()
                },
                exchange_end: Some(bytes.into()),
                ends_at: None,
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

/// The threads.
pub struct Pool {
    threads: Vec<thread::JoinHandle<()>>,
}

impl Pool {
    /// Starts `threads` threads that answer until every shard has gone.
    ///
    /// # Errors
    /// The system has no more threads.
    pub fn start(
        threads: usize,
        authenticators: &Arc<Authenticators>,
        questions: &Receiver<Question>,
        shards: &[(Sender<Reply>, Waker)],
    ) -> io::Result<Self> {
        let started = (0..threads).map(|number| {
            let (authenticators, questions) = (Arc::clone(authenticators), questions.clone());
            let shards = shards.to_vec();
            thread::Builder::new()
                .name(format!("authn-{number}"))
                .spawn(move || work(&authenticators, &questions, &shards))
        });
        Ok(Pool {
            threads: started.collect::<io::Result<_>>()?,
        })
    }

    /// Number of threads.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.threads.len()
    }
}

fn work(
    authenticators: &Authenticators,
    questions: &Receiver<Question>,
    shards: &[(Sender<Reply>, Waker)],
) {
    for question in questions {
        let (answer, exchange) = authenticators.answer(question.work);
        let reply = Reply {
            connection: question.connection,
            asker: question.asker,
            answer,
            exchange,
        };
        if let Some((replies, waker)) = shards.get(usize::from(question.shard)) {
            // A shard that has stopped needs no answer.
            let _ = replies.send(reply);
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

    #[test]
    fn one_gate_stands_before_every_method() {
        let file = format!("ann:{}\n", hash_scram(b"secret"));
        let users = Arc::new(PasswordMethod::new(PasswordFile::parse(&file).unwrap()));
        let all = Authenticators {
            chain: vec![Arc::clone(&users) as Arc<dyn Method>],
            scram: Some(users),
        };
        let connect = |methods: &Option<Arc<[&'static str]>>, exchange: Option<&[u8]>| {
            let shown = Shown {
                client_id: "c".into(),
                user_name: Some("ann".into()),
                password: Some(Secret::new(b"secret")),
                version: Version::V5,
                exchange: exchange.map(Into::into),
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
            let again = Work::Begin(methods.clone(), first[..].into());
            assert_eq!(passes(again), by_scram, "{methods:?}");
        }
    }
}
