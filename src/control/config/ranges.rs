//! Between what every number of the configuration has to be. One that is absurd is refused by name: it would
//! be cut, overflow a clock, or mean the contrary of what was meant.

use super::error::ConfigError;
use super::file::{FileBridge, FileConfig};
use super::place::Places;
use crate::engine::limits::{Limits, OUTBOX_BYTES_MIN, PACKET_BYTES_MAX, PACKET_BYTES_MIN};
use crate::shard::report::SLOW_MAX;
use crate::storage::log::LogConfig;
use std::ops::RangeInclusive;

/// A year.
const SECONDS_MAX: u64 = 31_536_000;
/// An hour.
const WAIT_MS_MAX: u64 = 3_600_000;
const PACKET_BYTES: RangeInclusive<u64> = PACKET_BYTES_MIN as u64..=PACKET_BYTES_MAX as u64;
const CONNECTIONS_MAX: u64 = 100_000_000;
/// A segment holds its first block, a frame of the largest size and notes.
const SEGMENT_BYTES_MIN: u64 = 2 << 20;
/// What is written to, one made in advance, what makes room and what tells anew what there is.
const SEGMENTS_MIN: u64 = 8;
const RATE: RangeInclusive<u64> = 0..=1 << 30;

/// What a broker without clients needs, so that four fifths of `limits.memory_max_bytes`, where shortage
/// begins, leave something for clients. Measured with 1 to 16 shards: 19 to 171 MB, most of it mailboxes.
const MEMORY_BYTES: u64 = 24 << 20;
const MEMORY_OF_SHARD_BYTES: u64 = 8 << 20;
const MEMORY_OF_LETTER_BYTES: u64 = 96;

/// Below so much memory a broker of so many shards cannot serve.
pub(super) fn least_memory(limits: &Limits, shards: usize) -> u64 {
    let shards = shards as u64;
    let mailboxes = shards * (shards - 1);
    let letters = mailboxes.saturating_mul(limits.mailbox_letters_max as u64);
    (MEMORY_BYTES + shards * MEMORY_OF_SHARD_BYTES)
        .saturating_add(letters.saturating_mul(MEMORY_OF_LETTER_BYTES))
}

/// What is wrong with a bound of memory that is less than that.
pub(super) fn too_little_memory(limits: &Limits, shards: usize) -> Option<String> {
    let least = least_memory(limits, shards);
    let max = limits.memory_max_bytes;
    (max > 0 && max < least).then(|| {
        format!("{max} is less than {shards} shard(s) need without clients, {least}; or 0")
    })
}

/// What is wrong with the value of a key.
pub(super) fn wrong(value: u64, range: &RangeInclusive<u64>) -> Option<String> {
    let (min, max) = (range.start(), range.end());
    (!range.contains(&value)).then(|| format!("{value} is not between {min} and {max}"))
}

/// Names, values and ranges of keys that have a value.
macro_rules! said {
    ($section:expr; $($name:ident: $range:expr,)+) => {
        [$((stringify!($name), $section.$name.map(|value| value as u64), $range)),+]
    };
}

/// Names, values and ranges of limits.
macro_rules! limits {
    ($limits:ident; $($name:ident: $range:expr,)+) => {
        [$((stringify!($name), $limits.$name as u64, $range)),+]
    };
}

/// A key, its value if it has one, and between what that has to be.
type Said = (&'static str, Option<u64>, RangeInclusive<u64>);

/// Those of the admin listener.
fn admin(raw: &FileConfig) -> [Said; 12] {
    said! { raw.admin;
        connections_max: 1..=10_000,
        // The least that its parser takes.
        header_bytes_max: 8_192..=1 << 20,
        body_bytes_max: 1..=1 << 28,
        request_timeout_ms: 1..=WAIT_MS_MAX,
        request_rate_max: RATE,
        connections_per_address_max: 0..=10_000,
        top_max: 0..=SLOW_MAX as u64,
        traces_max: 0..=64,
        trace_seconds_max: 1..=86_400,
        trace_lines_max: 1..=1 << 40,
        trace_queue_max: 1..=65_536,
        trace_payload_bytes_max: 0..=4_096,
    }
}

/// What is wrong with a number of a bridge: its key, and what would be right.
pub(super) fn wrong_in_bridge(raw: &FileBridge) -> Option<(&'static str, String)> {
    let ranges = said! { raw;
        keep_alive_seconds: 0..=65_534,
        connect_timeout_ms: 1..=WAIT_MS_MAX,
        reconnect_ms_min: 1..=WAIT_MS_MAX,
        reconnect_ms_max: 1..=WAIT_MS_MAX,
        failback_ms: 0..=WAIT_MS_MAX,
        redirects_max: 1..=16,
        connections: 1..=64,
        idle_seconds: 1..=86_400,
        sas_seconds: 2..=SECONDS_MAX,
        hops_max: 0..=64,
        topic_alias_max: 0..=65_535,
        queue_messages_max: 0..=1 << 40,
        queue_bytes_max: 0..=1 << 50,
        queue_seconds_max: 1..=SECONDS_MAX,
    };
    let mut ranges = ranges.into_iter();
    ranges.find_map(|(name, value, range)| Some((name, wrong(value?, &range)?)))
}

/// Checks the numbers of all sections but `[limits]`; those of listeners are checked with them.
pub(super) fn check_sections(raw: &FileConfig, places: &Places<'_>) -> Result<(), ConfigError> {
    let check = |section: &str, said: &[Said]| {
        for (name, value, range) in said {
            if let Some(text) = value.and_then(|value| wrong(value, range)) {
                return Err(places.wrong(&format!("{section}.{name}"), text));
            }
        }
        Ok(())
    };
    let bans = said! { raw.bans;
        seconds: 1..=SECONDS_MAX,
        failed_logins_max: 0..=1_000_000,
        failed_logins_seconds: 1..=SECONDS_MAX,
        flapping_connects_max: 0..=1_000_000,
        flapping_seconds: 1..=SECONDS_MAX,
        ipv6_prefix_bits: 1..=128,
    };
    check("bans", &bans)?;
    let threads = said! { raw.authentication; threads: 1..=64, };
    check("authentication", &threads)?;
    if let Some(jwt) = &raw.authentication.jwt {
        let of_jwt = said! { jwt;
            jwks_refresh_seconds: 1..=SECONDS_MAX,
            leeway_seconds: 0..=86_400,
        };
        check("authentication.jwt", &of_jwt)?;
    }
    if let Some(http) = &raw.authentication.http {
        let of_http = said! { http;
            timeout_ms: 1..=WAIT_MS_MAX,
            cache_ttl_ms: 0..=SECONDS_MAX * 1_000,
            cache_max: 1..=10_000_000,
        };
        check("authentication.http", &of_http)?;
    }
    let shutdown = said! { raw.shutdown; deadline_ms: 0..=WAIT_MS_MAX, drain_rate: 1..=1_000_000, };
    check("shutdown", &shutdown)?;
    let watchdog = said! { raw.watchdog; silence_seconds_max: 0..=86_400, };
    check("watchdog", &watchdog)?;
    let storage = said! { raw.storage;
        segment_bytes: SEGMENT_BYTES_MIN..=1 << 34,
        disk_bytes_max: 0..=1 << 50,
        free_bytes_min: 0..=1 << 50,
        pending_bytes_max: 1 << 20..=1 << 40,
        commit_interval_us: 0..=1_000_000,
    };
    check("storage", &storage)?;
    check("admin", &admin(raw))?;
    let mqtt = said! { raw.mqtt; sys_interval_s: 0..=SECONDS_MAX, };
    check("mqtt", &mqtt)?;
    let (bytes_max, segment) = (raw.storage.disk_bytes_max, raw.storage.segment_bytes);
    let segment = segment.unwrap_or_else(|| LogConfig::default().segment_bytes);
    let least = SEGMENTS_MIN * segment;
    match bytes_max.filter(|max| (1..least).contains(max)) {
        Some(max) => Err(places.wrong(
            "storage.disk_bytes_max",
            format!(
                "{max} is less than {SEGMENTS_MIN} segments of storage.segment_bytes, {least}; or 0"
            ),
        )),
        None => Ok(()),
    }
}

/// The first limit that is out of its range: its name, and what is wrong.
pub(super) fn wrong_limit(limits: &Limits) -> Option<(&'static str, String)> {
    let ranges = limits! { limits;
        turn_deliveries_max: 1..=1 << 30,
        turn_sends_max: 1..=1 << 30,
        turn_send_bytes_max: 1..=1 << 30,
        turn_us_goal: 100..=60_000_000,
        gather_us_max: 0..=100_000,
        mailbox_letters_max: 1..=1 << 20,
        max_packet_bytes: PACKET_BYTES,
        topic_bytes_max: 1..=65_535,
        topic_levels_max: 1..=1_024,
        filters_per_subscribe_max: 1..=65_535,
        subscriptions_per_session_max: 1..=10_000_000,
        inflight_max: 1..=65_535,
        receive_maximum: 1..=65_535,
        connections_max: 1..=CONNECTIONS_MAX,
        connecting_max: 1..=CONNECTIONS_MAX,
        connecting_per_address_max: 0..=CONNECTIONS_MAX,
        connect_rate_max: 0..=CONNECTIONS_MAX,
        accept_lag_ms_max: 1..=WAIT_MS_MAX,
        connect_timeout_ms: 1..=WAIT_MS_MAX,
        takeover_wait_ms: 0..=WAIT_MS_MAX,
        connect_bytes_max: PACKET_BYTES,
        socket_send_bytes_max: 0..=1 << 30,
        socket_unsent_bytes_max: 0..=1 << 30,
        socket_receive_bytes_max: 0..=1 << 30,
        // As the kernel takes them.
        tcp_keepalive_idle_seconds: 0..=32_767,
        tcp_keepalive_interval_seconds: 1..=32_767,
        tcp_keepalive_probes_max: 1..=127,
        outbox_bytes_max: OUTBOX_BYTES_MIN as u64..=1 << 40,
        queue_messages_max: 0..=1 << 40,
        queue_bytes_max: 0..=1 << 50,
        memory_max_bytes: 0..=1 << 50,
        retained_messages_max: 0..=1 << 40,
        retained_bytes_max: 0..=1 << 50,
        topic_alias_max: 0..=65_535,
        topic_alias_out_max: 0..=65_535,
        connections_per_address_max: 0..=CONNECTIONS_MAX,
        publish_rate_max: RATE,
        publish_bytes_rate_max: 0..=1 << 40,
        subscribe_rate_max: RATE,
        delivery_rate_max: RATE,
    };
    let mut ranges = ranges.into_iter();
    ranges.find_map(|(name, value, range)| Some((name, wrong(value, &range)?)))
}

/// Ranges of a listener's own numbers.
pub(super) const LISTENER_CONNECTIONS: RangeInclusive<u64> = 1..=CONNECTIONS_MAX;
/// Of its rate.
pub(super) const LISTENER_CONNECT_RATE: RangeInclusive<u64> = 0..=CONNECTIONS_MAX;
/// What may be said of the plain text of a TLS record: what small devices hold, and what TLS allows.
pub(super) const RECORD_BYTES: RangeInclusive<u64> = 512..=16_384;
