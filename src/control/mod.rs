//! What is not on a shard: configuration, files that change, who clients are, accounts, the machine.
//!
//! It may block and allocate as it likes; shards hear of it by bounded channels and never wait for it.

pub mod admin;
pub mod authn;
pub mod bridges;
pub mod census;
pub mod cgroup;
pub mod check;
pub mod config;
pub mod inquiries;
pub mod judges;
pub mod listening;
pub mod log;
pub mod machine;
pub mod memory;
pub mod overview;
mod placed;
pub mod plane;
pub mod reload;
pub mod renewal;
pub mod rollout;
pub mod running;
pub mod service;
pub mod sys;
pub mod terms;
pub mod text;
pub mod visible;
pub mod watch;
pub mod watchdog;
