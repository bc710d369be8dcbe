//! Behaviour of the network ring, on real loopback sockets.
//!
//! Every test runs with both ways in which the kernel may run completions' work.

mod accept;
mod close;
mod model;
mod receive;
mod send;
mod sleep;
mod support;
