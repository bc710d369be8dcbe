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
            Work::Connect(visitor) => match &visitor.shown.exchange {
                Some(bytes) => self.begin(bytes),
                None => {
                    let methods = visitor.methods.clone();
                    (self.judge(&(*visitor).into(), methods.as_deref()), None)
                }
            },
            Work::Begin(bytes) => self.begin(&bytes),
            Work::Continue(exchange, bytes) => (exchange.go_on(&bytes), None),
        }
    }

    fn judge(&self, credentials: &Credentials, only: Option<&[&str]>) -> Answer {
        let may_be_asked =
            |method: &&Arc<dyn Method>| only.is_none_or(|o| o.contains(&method.name()));
        for method in self.chain.iter().filter(may_be_asked) {
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

    fn begin(&self, bytes: &[u8]) -> (Answer, Option<Box<dyn Exchange>>) {
        let Some(users) = &self.scram else {
            return (Answer::Refuse(Refusal::Unavailable), None);
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
                    method: "scram",
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
