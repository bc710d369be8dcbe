//! How many connections each address has at the admin listener, so that one cannot keep all others out.

use super::door::From;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// All that are there.
#[derive(Clone, Default)]
pub(super) struct Guests(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// One of them; its place is free again when it goes.
pub(super) struct Guest {
    all: Guests,
    ip: Option<IpAddr>,
}

impl Guests {
    /// One more, if its address may have one; `max` 0 is for no limit.
    pub fn enter(&self, from: From, max: usize) -> Option<Guest> {
        let ip = match from {
            From::Address(ip) if max > 0 => ip,
            _ => return Some(self.guest(None)),
        };
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(ip).or_default();
        // Who is refused has others there, so that its count is no new entry.
        if *count >= max {
            return None;
        }
        *count += 1;
        Some(self.guest(Some(ip)))
    }

    fn guest(&self, ip: Option<IpAddr>) -> Guest {
        let all = self.clone();
        Guest { all, ip }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let Some(ip) = self.ip else { return };
        let mut counts = self.all.0.lock().unwrap_or_else(PoisonError::into_inner);
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
    fn an_address_has_so_many_places_and_gives_them_back() {
        let guests = Guests::default();
        let [one, other] = [1, 2].map(|last| From::Address([10, 0, 0, last].into()));
        let first = guests.enter(one, 1);
        assert!(first.is_some() && guests.enter(one, 1).is_none());
        assert!(guests.enter(other, 1).is_some() && guests.enter(From::User(0), 1).is_some());
        drop(first);
        assert!(guests.0.lock().unwrap().is_empty());
        let all: Vec<_> = (0..9).map(|_| guests.enter(one, 0)).collect();
        assert!(all.iter().all(Option::is_some));
    }
}
