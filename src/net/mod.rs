//! The network shell: sockets, the ring and the engines between bytes and MQTT frames.

pub mod addresses;
pub mod certificates;
pub mod listener;
pub mod ring;
pub mod transport;
