//! The program's commands: flags as typed, and what runs without a broker.

pub mod flags;
pub mod passwd;
