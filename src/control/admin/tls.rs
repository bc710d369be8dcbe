//! TLS of the admin listener, which may change while it answers.

use rustls::ServerConfig;
use std::sync::{Arc, PoisonError, RwLock};

/// What new connections speak.
#[derive(Debug)]
pub struct AdminTls(RwLock<Arc<ServerConfig>>);

impl AdminTls {
    /// This.
    #[must_use]
    pub fn new(config: Arc<ServerConfig>) -> Self {
        AdminTls(RwLock::new(config))
    }

    /// This, from now on.
    pub fn replace(&self, config: Arc<ServerConfig>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = config;
    }

    /// For a connection that begins.
    #[must_use]
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}
