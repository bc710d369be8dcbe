//! What a shard counts. Counters are plain numbers of one shard; whoever wants totals adds them up.

pub mod counters;
pub mod histogram;
pub mod latency;
pub mod notes;
pub mod talkers;
pub mod traffic;
