//! Where what must be kept is kept: each store takes the engine's records in order and tells the highest
//! ticket that is safe.

pub mod complete;
pub mod decided;
pub mod directory;
pub mod epoch;
pub mod image;
pub mod log;
pub mod pipe;
pub mod record;
pub mod rehome;
pub mod tool;

#[cfg(test)]
mod samples;
