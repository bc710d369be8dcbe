//! Listeners that change while shards work: what a shard goes by from now on, as an order.

use crate::shard::listener::ListenerSetup;
use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

/// A new listening socket, and the number of its listener.
pub type Opened = (u16, OwnedFd);

/// What one shard is to know of listeners. It may be copied as an order is: whoever comes first has the
/// sockets.
#[derive(Clone)]
pub struct Opening {
    /// Of all listeners, by their numbers.
    pub setups: Arc<[ListenerSetup]>,
    /// Those that accept nobody any more, and whose clients are sent away.
    pub closed: Arc<[u16]>,
    /// So many of their clients in a second, on all shards together.
    pub drain_rate: u32,
    sockets: Arc<Mutex<Vec<Opened>>>,
}

impl Opening {
    /// With these sockets that are new.
    #[must_use]
    pub fn new(
        setups: Arc<[ListenerSetup]>,
        (closed, drain_rate): (Arc<[u16]>, u32),
        sockets: Vec<Opened>,
    ) -> Self {
        Opening {
            setups,
            closed,
            drain_rate,
            sockets: Arc::new(Mutex::new(sockets)),
        }
    }

    /// Takes the sockets out.
    #[must_use]
    pub fn take(&self) -> Vec<Opened> {
        let mut sockets = self.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut sockets)
    }
}

impl fmt::Debug for Opening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Opening")
    }
}
