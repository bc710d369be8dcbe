//! Files that a bridge's configuration names, which are read again when they change, as all others are.

use super::prepared::Told;
use super::{Bridge, Bridges, State};
use crate::control::config::BridgeConfig;
use crate::control::placed::{Stamp, Watched, stamp};
use crate::engine::shard::Settings;
use crate::engine::time::Timestamp;
use std::path::PathBuf;
use tracing::{error, info};

/// What they are like.
pub(super) struct BridgeFiles(Watched<Vec<Stamp>>);

impl std::fmt::Debug for BridgeFiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BridgeFiles")
    }
}

fn named(config: &BridgeConfig) -> impl Iterator<Item = &PathBuf> {
    let tls = &config.tls;
    let files = [&tls.ca, &tls.certificate, &tls.key];
    let secrets = [&config.password_file, &config.sas_key_file];
    files.into_iter().chain(secrets).flatten()
}

fn stamps(config: &BridgeConfig) -> Vec<Stamp> {
    named(config).map(|path| stamp(path)).collect()
}

impl BridgeFiles {
    /// As they are now, when they are read.
    pub fn new(config: &BridgeConfig) -> Self {
        BridgeFiles(Watched::new(stamps(config)))
    }
}

impl Bridges {
    /// Reads files again that have changed and have rested since. One that is wrong is named, and what was
    /// before stays in force; a bridge that waits for its next attempt makes it at once.
    pub fn reload_changed(&mut self, settings: &Settings) {
        let now = self.now();
        for bridge in &mut self.bridges {
            let stamps = stamps(&bridge.config);
            if !bridge.files.0.is_due(stamps, false) {
                continue;
            }
            let name = bridge.config.name.clone();
            match Told::load(&bridge.config, settings) {
                Ok(told) => {
                    info!("bridge {name}: its files are read again, for its next connection");
                    bridge.take(told, now);
                }
                Err(text) => error!("not reloaded, what was before stays in force: {text}"),
            }
        }
    }
}

impl Bridge {
    /// Goes by what was read anew from its next attempt on. That is made at once if it waits for one: what
    /// has changed may help.
    pub(super) fn take(&mut self, told: Told, now: Timestamp) {
        (self.config, self.plan) = (told.config, told.plan);
        (self.tls, self.sas) = (told.tls, told.sas);
        if self.state == State::Waiting {
            self.dial.hurry(now);
        }
    }
}
