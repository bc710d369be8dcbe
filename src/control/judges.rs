//! Who judges who clients are: the methods that are configured, on threads that are there from the start, so
//! that methods may come and go while the broker runs.
//!
//! ```text
//!   configuration ─► what can fail ─► files in force ─► methods in their order ─► threads (authn::pool)
//! ```

use crate::control::authn::certificate::CertificateMethod;
use crate::control::authn::guesses::{Guesses, Rule};
use crate::control::authn::http::HttpMethod;
use crate::control::authn::{Authenticators, Method, Pool};
use crate::control::config::{BansConfig, Config, MethodName};
use crate::control::reload::Files;
use crate::control::watch::bans::Who;
use crate::shard::bans::InForce;
use crate::shard::question_queue::QuestionQueue;
use crate::shard::questions::Reply;
use crate::shard::ring::Waker;
use crossbeam_channel::{Sender, TrySendError};
use std::io;
use std::sync::Arc;

/// What of methods can fail, made before anything is changed.
pub struct Prepared {
    http: Option<Arc<HttpMethod>>,
}

impl Prepared {
    /// Makes it.
    ///
    /// # Errors
    /// What is wrong, with its key.
    pub fn new(config: &Config) -> Result<Self, String> {
        let http = config.authentication.http.as_ref().map(HttpMethod::new);
        let http = http.transpose();
        let http = http.map_err(|error| format!("authentication.http: {error}"))?;
        Ok(Prepared {
            http: http.map(Arc::new),
        })
    }

    /// The methods, in the order configured, by the files in force.
    #[must_use]
    pub fn authenticators(self, config: &Config, files: &Files, banned: InForce) -> Authenticators {
        let wanted = &config.authentication;
        let mut chain: Vec<Arc<dyn Method>> = Vec::new();
        let mut scram = None;
        for name in &wanted.methods {
            // The configuration lets only those be named that are configured.
            match name {
                MethodName::PasswordFile => {
                    chain.extend(files.users().map(|m| m as Arc<dyn Method>));
                }
                MethodName::Jwt => chain.extend(files.tokens().map(|m| m as Arc<dyn Method>)),
                MethodName::Certificate => {
                    if let Some(from) = wanted.certificate {
                        chain.push(Arc::new(CertificateMethod { from }));
                    }
                }
                MethodName::Scram => scram = files.users(),
                MethodName::Http => {
                    chain.extend(self.http.clone().map(|m| m as Arc<dyn Method>));
                }
            }
        }
        Authenticators {
            chain,
            scram,
            banned,
            client_id: config.settings.authentication.client_id,
        }
    }
}

/// The threads.
pub struct Judges {
    pool: Pool,
    banned: InForce,
}

impl Judges {
    /// Starts them; who fails too often at one address is told to `misbehaving`.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(
        config: &Config,
        authenticators: Authenticators,
        questions: &QuestionQueue,
        replies: Vec<(Sender<Reply>, Waker)>,
        misbehaving: &Sender<Who>,
    ) -> io::Result<Self> {
        let misbehaving = misbehaving.clone();
        let tell = move |network| {
            let told = misbehaving.try_send(Who::Network(network));
            !matches!(told, Err(TrySendError::Full(_)))
        };
        let guesses = Guesses::new(rule(&config.bans), Box::new(tell));
        let banned = authenticators.banned.clone();
        let pool = Pool::start(
            config.authentication.threads,
            authenticators,
            (guesses, config.bans.ipv6_prefix_bits),
            questions,
            replies,
        )?;
        Ok(Judges { pool, banned })
    }

    /// Goes by this configuration from now on, with other methods if there are any.
    pub fn follow(&self, config: &Config, files: &Files, prepared: Option<Prepared>) {
        self.pool.set_rule(rule(&config.bans));
        if let Some(prepared) = prepared {
            let banned = self.banned.clone();
            let authenticators = prepared.authenticators(config, files, banned);
            self.pool.set_authenticators(authenticators);
        }
    }
}

const fn rule(bans: &BansConfig) -> Rule {
    Rule {
        failures_max: bans.failed_logins_max,
        window: bans.failed_logins_window,
        duration: bans.duration,
    }
}
