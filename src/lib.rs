#![doc = include_str!("ARCHITECTURE.md")]
#![warn(missing_docs)]

pub mod cli;
pub mod control;
pub mod engine;
pub mod shard;
pub mod storage;
