//! RingMQ: an MQTT broker for high-fanout telemetry on Linux servers.

pub mod codec;
pub mod fanout;
pub mod message;
pub mod net;
pub mod time;
