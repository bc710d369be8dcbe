//! The program's commands: flags as typed, and what runs without a broker.

pub mod bench_storage;
pub mod flags;
pub mod import;
pub mod passwd;
pub mod store;
pub mod token;
