//! Every rule of MQTT 3.1, 3.1.1 and 5.0 that can be seen from outside, one test per rule.
//!
//! The tables `mqtt31.tsv` (what 3.1 has of its own), `mqtt311.tsv`, `mqtt5.tsv` and `rules.tsv` list the rules; a test carries the id of its
//! rule in its name (`mqtt5_3_3_4_9__...` for MQTT-3.3.4-9 of 5.0) and runs on one and on four shards.
//! Rules without a test stand in `not_applicable.txt` with their reason; `completeness` sees to it that
//! none is in neither. `scripts/conformance_matrix.py` prints rules, tests and results as a table.

#![allow(
    non_snake_case,
    reason = "two underscores end the rule's id in a test's name"
)]
#![allow(
    clippy::redundant_closure,
    reason = "a closure gives rules that share a check the same form as all others"
)]

#[path = "../support/mod.rs"]
#[allow(
    dead_code,
    unused_imports,
    reason = "each test binary uses a part of the support"
)]
mod support;

mod availability;
mod checks;
mod completeness;
mod connect;
mod flow;
mod keep_alive;
mod malformed;
mod mqtt31;
mod properties;
mod qos;
mod retained;
mod session;
mod shared_subscriptions;
mod subscribe;
mod topics;
mod will;

use support::{Broker, Version, shared};

pub const V3: Version = Version::V3;
pub const V4: Version = Version::V4;
pub const V5: Version = Version::V5;

/// What most rules are tested against: default settings, with topic aliases both ways.
pub const CONFIG: &str = "[limits]\ntopic_alias_max = 10\ntopic_alias_out_max = 10\n";

/// The shared broker with `extra` settings; an empty text means [`CONFIG`].
pub fn on(shards: usize, extra: &str, body: fn(&Broker)) {
    let config = if extra.is_empty() { CONFIG } else { extra };
    body(&shared(shards, config));
}

/// A rule's test on one and on four shards: `rule!(name, |broker| ...)`, with the configuration before
/// the closure where the default one does not do.
#[macro_export]
macro_rules! rule {
    ($name:ident, $body:expr) => {
        $crate::rule!($name, "", $body);
    };
    ($name:ident, $config:expr, $body:expr) => {
        mod $name {
            #[allow(unused_imports, reason = "short bodies need few names")]
            use super::*;

            #[test]
            fn on_1_shard() {
                $crate::on(1, $config, $body);
            }

            #[test]
            fn on_4_shards() {
                $crate::on(4, $config, $body);
            }
        }
    };
}
