#![doc = include_str!("ARCHITECTURE.md")]
#![warn(missing_docs)]

pub mod auth;
pub mod authn;
pub mod cli;
pub mod codec;
pub mod config;
pub mod control;
pub mod fanout;
pub mod limits;
pub mod machine;
pub mod message;
pub mod net;
pub mod outbox;
pub mod overload;
pub mod passwd;
pub mod reload;
pub mod route;
pub mod session;
pub mod shard;
pub mod slots;
pub mod storage;
pub mod telemetry;
pub mod time;
pub mod watch;
