//! Files that may change while the broker runs: read anew on SIGHUP and when they change.
//!
//! All or nothing per kind: a file that is wrong leaves the set of before in force, and is named.
//!
//! Not here: settings of the configuration file itself, which are fixed until a restart.

use crate::net::certificates::{CertificateError, TlsFiles, TlsSettings};
use crate::net::listener::ListenerConfig;
use rustls::ServerConfig;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// TLS settings of all listeners.
#[derive(Debug)]
pub struct Certificates {
    listeners: Vec<Option<Tls>>,
}

#[derive(Debug)]
struct Tls {
    files: TlsFiles,
    stamps: Vec<Option<SystemTime>>,
    settings: TlsSettings,
}

impl Tls {
    fn load(files: &TlsFiles) -> Result<Self, CertificateError> {
        // Before reading: a change in between shows at the next look.
        let stamps = files.stamps();
        Ok(Tls {
            files: files.clone(),
            stamps,
            settings: files.load()?,
        })
    }
}

impl Certificates {
    /// Reads the files of all listeners.
    ///
    /// # Errors
    /// Names the first file that is wrong.
    pub fn load(listeners: &[ListenerConfig]) -> Result<Self, CertificateError> {
        let loaded = listeners.iter().map(|listener| {
            let files = listener.tls.as_ref();
            files.map(Tls::load).transpose()
        });
        Ok(Certificates {
            listeners: loaded.collect::<Result<_, _>>()?,
        })
    }

    /// For new connections, by the listeners' numbers.
    #[must_use]
    pub fn configs(&self) -> Arc<[Option<Arc<ServerConfig>>]> {
        let configs = self.listeners.iter().map(|tls| {
            let tls = tls.as_ref()?;
            Some(Arc::clone(&tls.settings.config))
        });
        configs.collect()
    }

    /// Whether a file changed since it was read.
    #[must_use]
    pub fn have_changed(&self) -> bool {
        let mut all = self.listeners.iter().flatten();
        all.any(|tls| tls.files.stamps() != tls.stamps)
    }

    /// Reads all files again; what was in force stays if one is wrong.
    ///
    /// # Errors
    /// Names the first file that is wrong.
    pub fn reload(&mut self) -> Result<(), CertificateError> {
        let read = self.listeners.iter().map(|tls| {
            let files = tls.as_ref().map(|tls| &tls.files);
            files.map(Tls::load).transpose()
        });
        match read.collect::<Result<_, _>>() {
            Ok(listeners) => {
                self.listeners = listeners;
                Ok(())
            }
            Err(error) => {
                // Said once; the next change of a file is the next attempt.
                for tls in self.listeners.iter_mut().flatten() {
                    tls.stamps = tls.files.stamps();
                }
                Err(error)
            }
        }
    }

    /// Whether there are any.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.listeners.iter().all(Option::is_none)
    }

    /// Seconds until the first server certificate expires; negative once it has.
    #[must_use]
    pub fn expire_in_s(&self) -> Option<i64> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
        let all = self.listeners.iter().flatten();
        let first = all.map(|tls| tls.settings.expires_unix_s).min()?;
        Some(first.saturating_sub_unsigned(now.as_secs()))
    }
}
