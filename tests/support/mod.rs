//! What the test binaries share: a broker process under test and a test client of its own.
//!
//! The client's encoder and decoder are written apart from the broker's codec, so that a mistake in
//! one cannot hide itself in the other; the decoder is strict and fails the test on any packet the
//! standard does not allow a broker to send. Nothing here sleeps in order to see that something did
//! not happen: [`Client::expect_nothing`] uses a barrier.
//!
//! Each test binary uses a part of it, hence the `dead_code` exception where it is included.

mod broker;
mod certificates;
mod client;
mod connect;
mod decode;
mod link;
mod relay;
mod wire;

pub use broker::{Broker, Counters, Outcome, Setup, free_port, shared};
pub use certificates::Certificates;
pub use client::{Client, PATIENCE};
pub use connect::{Connect, Will};
pub use decode::Packet;
pub use link::{Link, Wire, refused_handshake};
pub use relay::Relay;
pub use wire::{
    Ack, Props, Publish, Value, Version, frame, option, prop, put_str, remaining_length,
};

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A name that no other test of this machine uses: `stem` plus a number.
pub fn unique(stem: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{stem}-{}-{number}", std::process::id())
}

/// Asks `probe` again and again until it answers `Some`; fails with `what` after [`PATIENCE`].
pub fn eventually<T>(what: &str, probe: impl FnMut() -> Option<T>) -> T {
    eventually_within(PATIENCE, what, probe)
}

/// The same, after another time: for programs that take long to start.
pub fn eventually_within<T>(
    patience: Duration,
    what: &str,
    mut probe: impl FnMut() -> Option<T>,
) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < deadline, "never came true: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Makes one `#[test]` per shard count out of functions that take the number of shards:
/// `on_shards!([1, 2, 4] a, b);` gives `a::on_1_shards`, `a::on_2_shards` and so on.
#[macro_export]
macro_rules! on_shards {
    ([$($shards:tt),+] $($name:ident),+ $(,)?) => {
        $crate::on_shards!(@names [$($shards)+] $($name)+);
    };
    (@names $shards:tt $($name:ident)+) => {
        $(mod $name { $crate::on_shards!(@one $name $shards); })+
    };
    (@one $name:ident [$($shards:tt)+]) => { $($crate::on_shards!(@test $name $shards);)+ };
    (@test $name:ident 1) => { #[test] fn on_1_shard() { super::$name(1); } };
    (@test $name:ident 2) => { #[test] fn on_2_shards() { super::$name(2); } };
    (@test $name:ident 4) => { #[test] fn on_4_shards() { super::$name(4); } };
}
