//! What a client proposes in its first message and its listener does not serve: rustls tells that it is so,
//! but not of what.
//!
//! Seen and told on one thread, one behind the other, so that a cell of the thread passes it on.

use crate::engine::telemetry::notes::quoted;
use std::cell::Cell;
use std::fmt;

/// So many of the proposed are told.
const TOLD_MAX: usize = 8;

/// Protocols of a client, by ALPN, none of which is served.
#[derive(Debug)]
pub struct Unserved {
    proposed: Vec<String>,
    served: &'static [&'static str],
}

impl fmt::Display for Unserved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "it proposes {} by ALPN; served here is {}, and who proposes nothing",
            self.proposed.join(", "),
            self.served.join(" or ")
        )
    }
}

thread_local! {
    static UNSERVED: Cell<Option<Unserved>> = const { Cell::new(None) };
}

/// A client has proposed these by ALPN.
pub fn look_at<'a>(proposed: impl Iterator<Item = &'a [u8]>, served: &'static [&'static str]) {
    let proposed: Vec<_> = proposed.collect();
    let is_served = |name: &&[u8]| served.iter().any(|served| served.as_bytes() == *name);
    let unserved = (!proposed.iter().any(is_served)).then(|| Unserved {
        proposed: (proposed.iter().take(TOLD_MAX))
            .map(|name| quoted(&String::from_utf8_lossy(name)))
            .collect(),
        served,
    });
    UNSERVED.set(unserved);
}

/// What was proposed last on this thread, if nothing of it is served.
pub fn take_unserved() -> Option<Unserved> {
    UNSERVED.take()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_proposed_and_not_served_is_told_with_what_is() {
        let served: &[_] = &["mqtt", "other"];
        let ask = |proposed: &[&'static [u8]]| {
            look_at(proposed.iter().copied(), served);
            take_unserved().map(|unserved| unserved.to_string())
        };
        assert_eq!(ask(&[b"h2", b"other"]), None);
        assert_eq!(
            ask(&[b"h2", b"http/1.1"]).as_deref(),
            Some(
                "it proposes \"h2\", \"http/1.1\" by ALPN; served here is mqtt or other, and who \
                 proposes nothing"
            )
        );
        assert!(take_unserved().is_none());
    }
}
