//! Bridges: sessions of this broker whose connection goes out to another one.
//!
//! [`plan`] is what a bridge is told, [`dial`] when and how its next attempt goes, [`line`] the connection
//! itself as a layer between two streams of bytes, [`hops`] where a message has been. None knows a socket or
//! the clock.

pub mod dial;
pub mod hops;
pub mod line;
pub mod plan;

/// The listener by which bridges' connections count as having come: none that is configured has this number.
pub const LISTENER: u16 = u16::MAX;

/// Client identifiers that begin so are those of bridges: nobody who comes in by a listener may use one.
pub const CLIENT_ID_PREFIX: &str = "$bridge/";
