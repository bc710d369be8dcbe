//! The program's commands: flags as typed, what runs without a broker, and what is asked of a running one.

pub mod bench_storage;
pub mod flags;
pub mod import;
pub mod operator;
pub mod pages;
pub mod passwd;
pub mod store;
pub mod token;
