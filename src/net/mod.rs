//! The network shell: sockets, the ring and the engines between bytes and MQTT frames.

pub mod listener;
pub mod ring;
