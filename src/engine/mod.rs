//! The broker as a pure machine: inputs and the time go in, effects come out.
//!
//! It knows no socket, file, clock, thread or runtime, and nobody outside this folder, so that tests and
//! the simulator run the very code that serves clients. [`shard::ShardCore`] is the whole of it for one
//! shard; the other rooms are the stages of a message's way and what they share.

pub mod access;
pub mod bridge;
pub mod codec;
pub mod fanout;
pub mod growing;
pub mod hashing;
pub mod keys;
pub mod limits;
pub mod listed;
pub mod mail;
pub mod message;
pub mod outbox;
pub mod overload;
pub mod parted;
pub mod receipt;
pub mod record;
pub mod route;
pub mod session;
pub mod shard;
pub mod slots;
pub mod telemetry;
pub mod time;
pub mod timer;
pub mod trace;
pub mod turn;
