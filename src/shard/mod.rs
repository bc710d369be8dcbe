//! A shard: what one core owns. No lock crosses it, and nothing mutable is shared with another.
//!
//! `core` is the deterministic part (sans-IO); `mail` is what shards say to each other. The shell
//! around them (`driver`, `mailbox`, `boot`) moves bytes and mail and knows the time.

pub mod boot;
pub mod control;
pub mod core;
pub mod driver;
pub mod mail;
pub mod mailbox;
pub mod timer;
