//! Fan-out: from one publish and its matches to bytes waiting in outboxes.

pub mod encoder;
pub mod publication;
