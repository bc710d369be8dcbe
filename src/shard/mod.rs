//! One thread around one engine: bytes, mail, orders and time in; what the engine wants done, out.
//!
//! Nothing mutable is shared with another shard but mailboxes, a sleep flag each and a few counts. All
//! `unsafe` of the project is in `ring`.

pub mod account;
pub mod addresses;
pub mod boot;
pub mod certificates;
pub mod driver;
pub mod handover;
pub mod link;
pub mod listener;
pub mod mailbox;
pub mod orders;
pub mod questions;
pub mod ring;
pub mod transport;
