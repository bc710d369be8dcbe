//! The configuration that a running broker goes by, and how it is read anew.
//!
//! Invariant: what is in force was checked as a whole, as at a start.

use crate::control::admin::kept::InForce;
use crate::control::cgroup::Bound;
use crate::control::config::{Config, ConfigError, Renewed, Source, limits_in_force};
use crate::control::listening::Listening;
use crate::control::machine::MemoryShare;
use crate::engine::codec::topic::TopicLimits;
use crate::engine::shard::Settings;
use std::collections::BTreeSet;

/// The configuration in force, and what it is read from.
pub struct Running {
    source: Source,
    config: Config,
    memory: MemoryShare,
    /// The memory of its control group, if that is bounded.
    group_memory: Option<Bound>,
    descriptors_left: usize,
}

impl Running {
    /// In force from the start, in so much memory and with so many descriptors for connections.
    #[must_use]
    pub fn new(
        source: Source,
        config: Config,
        group_memory: Option<Bound>,
        descriptors_left: usize,
    ) -> Self {
        let wanted = config.settings.limits.memory_max_bytes;
        Running {
            source,
            memory: MemoryShare::new(wanted, group_memory.as_ref()),
            config,
            group_memory,
            descriptors_left,
        }
    }

    /// How much memory another configuration takes, where it says something else of that.
    #[must_use]
    pub fn other_memory(&self, config: &Config) -> Option<MemoryShare> {
        let wanted = config.settings.limits.memory_max_bytes;
        let is_other = wanted != self.config.settings.limits.memory_max_bytes;
        is_other.then(|| MemoryShare::new(wanted, self.group_memory.as_ref()))
    }

    /// What is in force.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// How much memory may be used.
    #[must_use]
    pub const fn memory(&self) -> &MemoryShare {
        &self.memory
    }

    /// Reads everything anew; nothing of it is in force yet.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn read(&self) -> Result<Renewed, ConfigError> {
        self.source.renew(&self.config)
    }

    /// This is in force from now on.
    pub fn take(&mut self, config: Config) {
        if let Some(memory) = self.other_memory(&config) {
            self.memory = memory;
        }
        self.config = config;
    }

    /// The settings of shards, with the limits that follow from the memory of this machine.
    #[must_use]
    pub fn settings(&self) -> Settings {
        let mut settings = self.config.settings.clone();
        settings.descriptors_for_connections = self.descriptors_left;
        settings.limits.memory_max_bytes = self.memory.max_bytes;
        if !self.config.says_retained_bytes {
            let retained_bytes_max = &mut settings.limits.retained_bytes_max;
            *retained_bytes_max = self.memory.retained_bytes_max(*retained_bytes_max);
        }
        settings
    }

    /// The configuration, as operators are shown it.
    #[must_use]
    pub fn in_force(&self, listening: &Listening) -> InForce {
        let limits = self.settings().limits;
        InForce {
            said: self.config.said.shown(),
            overridden: self.source.overridden(),
            limits: limits_in_force(&limits),
            listeners: listening.names(),
            listens_at: listening.open_names(&BTreeSet::new()),
            drain_rate: self.config.drain_rate,
            topic_limits: TopicLimits {
                bytes_max: limits.topic_bytes_max,
                levels_max: limits.topic_levels_max,
            },
        }
    }
}
