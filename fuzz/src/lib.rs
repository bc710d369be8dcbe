//! The bodies of the fuzz targets: bytes in, panic on a broken promise.
//!
//! They are plain functions, so that `tests/inputs.rs` runs every kept input on a stable toolchain and
//! `fuzz_targets/` hands them to libFuzzer. A body is deterministic: the same input takes the same
//! path. What clients and brokers say to each other is written and read by `tests/support`, never by
//! the codec under test alone.

mod acl;
mod connection;
mod frames;
mod layers;
mod matching;
mod mosquitto;
mod packets;
mod passwords;
mod records;
mod salvage;
mod topics;

#[allow(dead_code, reason = "shared with the tests, which use more of it")]
#[path = "../../tests/support/decode.rs"]
mod decode;
#[allow(dead_code, reason = "shared with the tests, which use more of it")]
#[path = "../../tests/support/wire.rs"]
mod wire;

pub use acl::acl;
pub use connection::connection;
pub use frames::frames;
pub use layers::layers;
pub use matching::matching;
pub use mosquitto::mosquitto;
pub use packets::{packets_v3, packets_v5};
pub use passwords::passwords;
pub use records::records;
pub use salvage::salvage;
pub use topics::topics;

/// The body of a target.
pub type Target = fn(&[u8]);

/// Every target by name.
pub const TARGETS: &[(&str, Target)] = &[
    ("frames", frames),
    ("packets_v3", packets_v3),
    ("packets_v5", packets_v5),
    ("topics", topics),
    ("matching", matching),
    ("connection", connection),
    ("passwords", passwords),
    ("acl", acl),
    ("layers", layers),
    ("records", records),
    ("salvage", salvage),
    ("mosquitto", mosquitto),
];
