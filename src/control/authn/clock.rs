//! The one place where authentication methods ask for the time of day.
//!
//! Methods hold it as a `fn() -> u64`, so that a test can put a time of its own in its place.

use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds since 1970, 0 if the machine's clock is before that.
pub fn now_unix_s() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
