//! What the admin listener answers with, besides what it asks of the control plane.

use super::tls::AdminTls;
use super::tokens::Tokens;
use crate::control::watch::Records;
use crate::engine::codec::topic::TopicLimits;
use serde_json::{Map, Value};
use std::sync::{Arc, PoisonError, RwLock};

/// All of it.
pub struct Kept {
    /// The configuration, as it is shown.
    pub in_force: Arc<ShownConfig>,
    /// Where changes are recorded.
    pub records: Records,
    /// What of files may change meanwhile.
    pub files: KeptFiles,
}

/// What of files may change while it answers.
#[derive(Clone, Default)]
pub struct KeptFiles {
    /// Who may do what; `None` where nobody has a token.
    pub tokens: Option<Arc<Tokens>>,
    /// `None` where it is not over TLS.
    pub tls: Option<Arc<AdminTls>>,
}

/// The configuration in force, which may become another one.
#[derive(Debug)]
pub struct ShownConfig(RwLock<Arc<InForce>>);

impl ShownConfig {
    /// This.
    #[must_use]
    pub fn new(in_force: InForce) -> Self {
        ShownConfig(RwLock::new(Arc::new(in_force)))
    }

    /// This, from now on.
    pub fn replace(&self, in_force: InForce) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(in_force);
    }

    /// As it is now.
    #[must_use]
    pub fn now(&self) -> Arc<InForce> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The configuration in force, as operators see it.
#[derive(Clone, Debug)]
pub struct InForce {
    /// What was said, without secrets.
    pub said: Map<String, Value>,
    /// Keys that environment or command line say, whatever the file does.
    pub overridden: Vec<String>,
    /// All limits.
    pub limits: Map<String, Value>,
    /// Listeners, by number; those that were removed too.
    pub listeners: Vec<String>,
    /// Where the broker listens.
    pub listens_at: Vec<String>,
    /// Clients that a drain sends away in a second.
    pub drain_rate: u32,
    /// Bounds of topics.
    pub topic_limits: TopicLimits,
}
