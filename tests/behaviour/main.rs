//! What the broker does, behaviour by behaviour, against the real binary over real sockets.
//!
//! One module per behaviour; each runs on one, two and four shards where shards can make a difference.
//! The rules of the standard one by one are in `tests/conformance`, real clients in `tests/clients`.

#[path = "../support/mod.rs"]
#[allow(
    dead_code,
    unused_imports,
    reason = "each test binary uses a part of the support"
)]
mod support;

mod access;
mod admin;
mod api;
mod bounds;
mod bounds_driven;
mod bridge;
mod bridge_lines;
mod bridge_presets;
mod bridge_qos;
mod bridge_queue;
mod bridge_remotes;
mod bridge_told;
mod bridge_ways;
mod bridges;
mod comparison;
mod containers;
mod cross_shard;
mod dashboard;
mod drain;
mod files;
mod fixture;
mod groups;
mod guard;
mod guesses;
mod intruders;
mod limits;
mod liveness;
mod login;
mod mosquitto_conf;
mod one_client;
mod operator;
mod overload;
mod passwd;
mod power_cut;
mod program;
mod qos;
mod readme;
mod reload;
mod reload_who;
mod shared;
mod storage;
mod storage_levels;
mod storage_space;
mod store_tools;
mod surroundings;
mod survival;
mod sys;
mod top;
mod top_live;
mod trace;
mod transports;
