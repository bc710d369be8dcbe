//! How many connections come from each address, over all shards.
//!
//! Looked at when a connection comes and goes, and only where that is limited: not on the data path.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// Connections by address; `None` inside where they are not limited.
#[derive(Clone, Debug)]
pub struct Addresses {
    max: usize,
    counts: Option<Arc<Mutex<HashMap<IpAddr, usize>>>>,
}

impl Addresses {
    /// At most `max` of each address, 0 for no limit.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Addresses {
            max,
            counts: (max > 0).then(Arc::default),
        }
    }

    /// One more from `ip`; false if there are too many now.
    #[must_use]
    pub fn enter(&self, ip: IpAddr) -> bool {
        let Some(counts) = &self.counts else {
            return true;
        };
        let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(ip.to_canonical()).or_insert(0);
        *count += 1;
        *count <= self.max
    }

    /// One less.
    pub fn leave(&self, ip: IpAddr) {
        let Some(counts) = &self.counts else {
            return;
        };
        let ip = ip.to_canonical();
        let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&ip) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&ip);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_has_its_own_count() {
        let addresses = Addresses::new(2);
        let ip = |last| IpAddr::from([10, 0, 0, last]);
        assert!(addresses.enter(ip(1)) && addresses.enter(ip(1)));
        assert!(!addresses.enter(ip(1)));
        assert!(addresses.enter(ip(2)));
        addresses.leave(ip(1));
        addresses.leave(ip(1));
        assert!(addresses.enter(ip(1)));
    }
}
