//! What there is to tell of the whole broker, and who asks for it.

use crate::control::bridges::BridgeState;
use crate::control::inquiries::Gathered;
use crate::control::watch::bans::Who;
use crate::engine::keys::ShardId;
use crate::engine::telemetry::talkers::{Loudest, Talker};
use crate::shard::inquiries::Asked;
use crate::shard::report::{Report, Slow, Waiting};
use crate::storage::log::progress::StoreFigures;
use serde::Serialize;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// A shard that has not turned for so many seconds does not serve.
pub const SILENCE_SECONDS_MAX: u32 = 3;

/// What one shard told last.
#[derive(Clone, Debug, Default)]
pub struct OfShard {
    /// `None` if it has never answered.
    pub report: Option<Arc<Report>>,
    /// It did not answer this time: the report is an older one.
    pub is_silent: bool,
    /// Seconds for which it has not turned.
    pub silence_seconds: u32,
}

/// The whole broker at one time.
#[derive(Clone, Debug, Default)]
pub struct Overview {
    /// By number.
    pub shards: Vec<OfShard>,
    /// What is not of one shard: names and values, in a fixed order.
    pub counts: Vec<(&'static str, u64)>,
    /// Seconds until the first of the server's certificates ends, less than 0 after it; `None` without one.
    pub certificate_expires_s: Option<i64>,
    /// What is kept on disk; `None` where nothing is.
    pub store: Option<StoreFigures>,
    /// Seconds since the start.
    pub uptime_seconds: u64,
}

/// Somebody, or some topics, and how loud.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Loud {
    /// A client identifier, or a topic prefix.
    pub name: String,
    /// Publishes.
    pub messages_per_second: f64,
    /// Bytes of their topics and payloads.
    pub bytes_per_second: f64,
}

impl Overview {
    /// A gauge or counter of all shards together.
    #[must_use]
    pub fn sum(&self, name: &str) -> u64 {
        let reports = self
            .shards
            .iter()
            .filter_map(|shard| shard.report.as_deref());
        let counts = reports.flat_map(|report| &report.counts);
        let found = counts.filter(|(known, _)| *known == name);
        found.map(|(_, value)| value).sum()
    }

    /// Slow clients with the shards that have them, slowest first.
    #[must_use]
    pub fn slow(&self, max: usize) -> Vec<(ShardId, &Slow)> {
        let mut all: Vec<_> = self
            .reports()
            .flat_map(|(shard, report)| report.slow.iter().map(move |slow| (shard, slow)))
            .collect();
        all.sort_by_key(|(_, slow)| (Reverse(slow.waits_ms), &slow.client_id));
        all.truncate(max);
        all
    }

    /// Clients, or topic prefixes, to which most is published; per second.
    #[must_use]
    pub fn loud(&self, of: fn(&Loudest) -> &[Talker], max: usize) -> Vec<Loud> {
        let mut all: BTreeMap<&str, Loud> = BTreeMap::new();
        for (_, report) in self.reports() {
            let seconds = report.loudest.over_ms.max(1_000) as f64 / 1e3;
            for talker in of(&report.loudest) {
                let loud = all.entry(&talker.name).or_default();
                loud.messages_per_second += talker.messages as f64 / seconds;
                loud.bytes_per_second += talker.bytes as f64 / seconds;
            }
        }
        let all = all.into_iter();
        let mut all: Vec<_> = all
            .map(|(name, loud)| Loud {
                name: name.to_owned(),
                ..loud
            })
            .collect();
        all.sort_by(|one, other| {
            other
                .messages_per_second
                .total_cmp(&one.messages_per_second)
        });
        all.truncate(max);
        all
    }

    /// What waits for bridges, with the shards that have their sessions.
    pub fn waiting(&self) -> impl Iterator<Item = (ShardId, &Waiting)> {
        self.reports()
            .flat_map(|(shard, report)| report.bridges.iter().map(move |it| (shard, it)))
    }

    /// What waits for the bridge whose session has this client identifier.
    #[must_use]
    pub fn waiting_for(&self, client_id: &str) -> Option<&Waiting> {
        let mut all = self.waiting().map(|(_, waiting)| waiting);
        all.find(|waiting| &*waiting.client_id == client_id)
    }

    fn reports(&self) -> impl Iterator<Item = (ShardId, &Report)> {
        let shards = (0..).zip(&self.shards);
        shards.filter_map(|(shard, of_shard)| Some((shard, of_shard.report.as_deref()?)))
    }

    /// Sums of all whose names begin so.
    #[must_use]
    pub fn sum_of_all(&self, prefix: &str) -> u64 {
        let reports = self
            .shards
            .iter()
            .filter_map(|shard| shard.report.as_deref());
        let counts = reports.flat_map(|report| &report.counts);
        let found = counts.filter(|(name, _)| name.starts_with(prefix));
        found.map(|(_, value)| value).sum()
    }

    /// What is not of one shard.
    #[must_use]
    pub fn count(&self, name: &str) -> u64 {
        let mut counts = self.counts.iter();
        counts
            .find(|(known, _)| *known == name)
            .map_or(0, |(_, value)| *value)
    }
}

/// Whether the broker serves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Health {
    /// Of each shard, by number.
    pub shards: Vec<ShardHealth>,
    /// Why it does not serve as it should, in an operator's words; empty if it does.
    pub problems: Vec<String>,
    /// Where it listens.
    pub listeners: Vec<String>,
}

/// Whether a shard turns.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ShardHealth {
    /// Its number.
    pub shard: ShardId,
    /// Seconds for which it has not turned.
    pub silence_seconds: u32,
}

impl Health {
    /// Whether every shard turns.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        let mut shards = self.shards.iter();
        shards.all(|shard| shard.silence_seconds < SILENCE_SECONDS_MAX)
    }
}

/// Bans with the time until each ends, and how many there are.
pub type BanList = (Vec<(Who, Option<Duration>)>, usize);

/// What came of reading everything anew, in an operator's words.
#[derive(Debug, Default)]
pub struct ReloadOutcome {
    /// Files that were read.
    pub reloaded: Vec<String>,
    /// Keys of the configuration that are in force with another value.
    pub changed: Vec<String>,
    /// Keys that have another value, and need a restart.
    pub needs_restart: Vec<String>,
    /// What is wrong: then nothing was changed.
    pub errors: Vec<String>,
}

/// Something that is to be answered by the control plane.
#[derive(Debug)]
pub enum Ask {
    /// Everything; the shards are asked for it.
    Overview(oneshot::Sender<Arc<Overview>>),
    /// Whether the broker serves; answered at once.
    Health(oneshot::Sender<Health>),
    /// Something that shards know or do: all of them, or one. Who loses its answer has asked one too many.
    Shards(Arc<Asked>, Option<ShardId>, oneshot::Sender<Gathered>),
    /// Of each listener whether it is open, and its connections; `None` for one that was removed.
    Listeners(oneshot::Sender<Vec<Option<(bool, u64)>>>),
    /// A listener is closed, or all are: then the broker stops when nobody is there any more.
    Close(Option<u16>, oneshot::Sender<()>),
    /// Bans in force, so many at most, and how many there are.
    Bans(usize, oneshot::Sender<BanList>),
    /// Ban somebody for a time; whether it is kept from now on.
    Ban(Who, Duration, oneshot::Sender<bool>),
    /// End a ban for a time; `None` if it stands in the file.
    Unban(Who, oneshot::Sender<Option<bool>>),
    /// How each bridge is.
    Bridges(oneshot::Sender<Vec<BridgeState>>),
    /// Read everything anew, as on SIGHUP.
    Reload(oneshot::Sender<ReloadOutcome>),
}
