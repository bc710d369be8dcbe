//! One thread around one engine: bytes, mail, orders and time in; what the engine wants done, out.
//!
//! Nothing mutable is shared with another shard but mailboxes, a sleep flag each and a few counts. All
//! `unsafe` of the project is in `ring`.

mod atomic {
    //! What `sleeper` is made of; its model in the tests puts others in their place.
    pub(super) use std::sync::atomic::{AtomicBool, Ordering, fence};
}

pub mod account;
pub mod addresses;
pub mod bans;
pub mod boot;
pub mod bridge;
pub mod certificates;
pub mod driver;
pub mod files;
pub mod handover;
pub mod inquiries;
pub mod link;
pub mod listener;
pub mod mailbox;
pub mod meter;
pub mod opening;
pub mod orders;
pub mod peer;
pub mod pem;
pub mod proposals;
pub mod pulse;
pub mod question_queue;
pub mod questions;
pub mod recovery;
pub mod report;
pub mod ring;
pub mod sleeper;
pub mod store;
pub mod trace;
pub mod transport;
pub mod vouching;
