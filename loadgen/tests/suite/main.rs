//! The load generator as its users run it: against the broker, and against fakes that break their word.
//!
//! The broker's binary lies beside the load generator's when the whole workspace is tested.

mod agreement;
mod distributed;
mod durability;
mod fake;
mod faults;
mod latency;
mod output;
mod refusals;
mod scenarios;
mod support;
mod transports;
mod truth;
