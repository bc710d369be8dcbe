//! Who comes in: listeners, how many come from an address, and which networks are not served.

use super::Shell;
use super::sockets::State;
use crate::engine::shard::unheard::TurnedAway;
use crate::shard::addresses::Addresses;
use crate::shard::bans::BannedNetworks;
use crate::shard::handover::Origin;
use crate::shard::listener::ListenerSetup;
use crate::shard::opening::Opening;
use crate::shard::ring::{ListenerKey, Ring, SocketKey};
use crate::shard::transport::client::TlsSetup;
use ipnet::IpNet;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::warn;

/// How often it is said that descriptors have run out.
const BACKOFFS_INTERVAL: Duration = Duration::from_secs(10);

/// A shard's listeners, and what is known of addresses.
pub(super) struct Admission {
    /// Names in the ring, and the numbers of the listeners that they belong to.
    listeners: Vec<(ListenerKey, u16)>,
    /// By the listeners' numbers.
    setups: Vec<ListenerSetup>,
    is_accepting: bool,
    /// Pauses for lack of descriptors that were told of, and when more may be.
    backoffs_told: u64,
    backoffs_told_at: Option<Instant>,
    /// Connections by address, of all shards.
    addresses: Addresses,
    /// Networks that are not served.
    banned: Arc<BannedNetworks>,
}

impl Admission {
    /// Open doors.
    pub fn new(
        listeners: Vec<(ListenerKey, u16)>,
        setups: Vec<ListenerSetup>,
        addresses: Addresses,
        banned: Arc<BannedNetworks>,
    ) -> Self {
        Admission {
            listeners,
            setups,
            is_accepting: true,
            backoffs_told: 0,
            backoffs_told_at: None,
            addresses,
            banned,
        }
    }

    /// The number of a listener, and what is known of it.
    pub fn listener(&self, key: ListenerKey) -> Option<(u16, &ListenerSetup)> {
        let (_, number) = *self.listeners.iter().find(|(known, _)| *known == key)?;
        Some((number, self.setup(number)?))
    }

    /// What is known of a listener.
    pub fn setup(&self, number: u16) -> Option<&ListenerSetup> {
        self.setups.get(usize::from(number))
    }

    /// New connections use these TLS settings, by the listeners' numbers.
    pub fn set_tls(&mut self, configs: &[Option<Arc<TlsSetup>>]) {
        for (setup, config) in self.setups.iter_mut().zip(configs) {
            setup.transport.tls.clone_from(config);
        }
    }

    /// Whether connections are accepted now.
    pub fn is_accepting(&self) -> bool {
        self.is_accepting
    }

    /// Accepts more connections, or none for now.
    pub fn accept(&mut self, ring: &mut Ring, accepts: bool) {
        if accepts == std::mem::replace(&mut self.is_accepting, accepts) {
            return;
        }
        for &(listener, _) in &self.listeners {
            if accepts {
                ring.resume_listening(listener);
            } else {
                ring.pause_listening(listener);
            }
        }
    }

    /// A line for the log if descriptors have run out since the last, once in a while and at the end.
    fn backoffs_line(&mut self, backoffs: u64, now: Instant, is_end: bool) -> Option<String> {
        let told_lately = self
            .backoffs_told_at
            .is_some_and(|at| now.saturating_duration_since(at) < BACKOFFS_INTERVAL);
        let more = backoffs.saturating_sub(self.backoffs_told);
        if more == 0 || told_lately && !is_end {
            return None;
        }
        self.backoffs_told = backoffs;
        self.backoffs_told_at = Some(now);
        Some(format!(
            "connections are refused: all descriptors of the process, or the system's memory for \
             sockets, are in use ({more} more times); raise `ulimit -n` or LimitNOFILE="
        ))
    }

    /// Goes by other settings for connections that come from now on.
    fn renew(&mut self, setups: &[ListenerSetup]) {
        self.setups.clear();
        self.setups.extend_from_slice(setups);
    }

    /// A listener that was stopped is another one from now on.
    fn forget_listener(&mut self, number: u16) {
        self.listeners.retain(|(_, known)| *known != number);
    }

    /// Accepts at one more socket of a listener.
    fn open(&mut self, ring: &mut Ring, number: u16, socket: OwnedFd) {
        let key = ring.listen(socket);
        if !self.is_accepting {
            ring.pause_listening(key);
        }
        self.listeners.push((key, number));
    }

    /// Accepts nobody any more, at all listeners or at one.
    pub fn stop(&self, ring: &mut Ring, only: Option<u16>) {
        for &(listener, number) in &self.listeners {
            if only.is_none_or(|only| only == number) {
                ring.stop_listening(listener);
            }
        }
    }

    /// A connection counts for `ip` from now on, if these are limited, unless that would be one too many.
    fn count(&self, ip: IpAddr) -> bool {
        if !self.addresses.are_limited() {
            return true;
        }
        let fits = self.addresses.enter(ip);
        if !fits {
            self.addresses.leave(ip);
        }
        fits
    }

    /// The client is at `ip`, from where it was let in just now.
    pub fn place(&self, origin: &mut Origin, ip: IpAddr) {
        (origin.counted, origin.is_among) = (Some(ip), self.addresses.are_limited());
    }

    /// A connection that is there counts as well, if any do and it does not yet, however many there are.
    pub fn count_in(&self, origin: &mut Origin) {
        if self.addresses.are_limited()
            && !origin.is_among
            && let Some(ip) = origin.counted
        {
            self.addresses.enter(ip);
            origin.is_among = true;
        }
    }

    /// A connection is gone for good.
    pub fn forget(&self, origin: &Origin) {
        if let Some(ip) = origin.counted.filter(|_| origin.is_among) {
            self.addresses.leave(ip);
        }
    }

    /// These networks are not served from now on.
    pub fn ban(&mut self, networks: Arc<BannedNetworks>) {
        self.banned = networks;
    }

    /// The network that counts as an address.
    pub fn network(&self, ip: IpAddr) -> IpNet {
        self.addresses.counted_as(ip)
    }

    /// Whether an address is not served.
    pub fn is_banned(&self, ip: IpAddr) -> bool {
        self.banned.contain(ip)
    }
}

impl Shell {
    /// Listeners that come, go, or are other ones from now on.
    pub(super) fn renew_listeners(&mut self, ring: &mut Ring, opening: &Opening) {
        for &number in &*opening.closed {
            self.begin_drain(ring, Some(number), opening.drain_rate);
        }
        self.admission.renew(&opening.setups);
        let opened = opening.take();
        for (number, _) in &opened {
            // Somebody else may have had it.
            self.drainage.forget(*number);
            self.admission.forget_listener(*number);
        }
        for (number, socket) in opened {
            self.admission.open(ring, number, socket);
        }
    }

    /// Another limit of connections from one address: who is there stays, and counts.
    pub(super) fn limit_addresses(&mut self, max: usize) {
        if self.admission.addresses.set_max(max) {
            self.sweep.begin(self.sockets.places());
        }
    }

    /// Accepts connections as the core may take them, after a turn that took so long.
    pub(super) fn admit(&mut self, ring: &mut Ring, lag: Duration) {
        let now = self.clock.now();
        let accepts = self.core.may_accept(now, lag.as_millis() as u64);
        self.admission.accept(ring, accepts);
        self.tell_backoffs(ring, self.clock.turn_at(), false);
    }

    /// Says that descriptors have run out.
    pub(super) fn tell_backoffs(&mut self, ring: &Ring, now: Instant, is_end: bool) {
        let backoffs = ring.counters().accept_backoffs;
        if let Some(line) = self.admission.backoffs_line(backoffs, now, is_end) {
            warn!("{line}");
        }
    }

    /// Counts one more connection from an address by a listener.
    ///
    /// # Errors
    /// It is not to be listened to, and not counted.
    pub(super) fn let_in(&mut self, ip: IpAddr, listener: u16) -> Result<(), TurnedAway> {
        if self.admission.is_banned(ip) {
            return Err(TurnedAway::Banned);
        }
        let network = self.admission.network(ip);
        self.core.may_connect_from(network, listener)?;
        if !self.admission.count(ip) {
            return Err(TurnedAway::TooMany);
        }
        Ok(())
    }

    /// It is known now where a client is: counts its address, or closes its connection.
    pub(super) fn check_address(&mut self, ring: &mut Ring, socket: SocketKey) {
        let Some(entry) = self.sockets.entry(socket) else {
            return;
        };
        let (State::Open(connection), Some(ip), None) =
            (&entry.state, entry.origin.peer.ip(), entry.origin.counted)
        else {
            return;
        };
        let (connection, listener) = (*connection, entry.origin.listener);
        if let Err(why) = self.let_in(ip, listener) {
            self.core.turn_away_unheard(connection, why);
            return self.carry_out(ring);
        }
        if let Some(entry) = self.sockets.entry(socket) {
            self.admission.place(&mut entry.origin, ip);
        }
        self.core.locate(connection, self.admission.network(ip));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::peer::Peer;

    #[test]
    fn an_address_counts_once_and_networks_are_banned_whatever_their_form() {
        let banned: Arc<BannedNetworks> =
            Arc::new(BannedNetworks::new(["10.1.0.0/16".parse().unwrap()]));
        let admission = Admission::new(vec![], vec![], Addresses::new(1, 64), banned);
        let first = IpAddr::from([192, 0, 2, 1]);
        let second = IpAddr::from([192, 0, 2, 2]);
        assert!(admission.count(first) && admission.count(second));
        assert!(!admission.count(first) && !admission.count(first));
        // Who was not let in does not count.
        let mut origin = Origin {
            listener: 0,
            peer: Peer::internet((first, 1).into()),
            counted: None,
            is_among: false,
        };
        admission.place(&mut origin, first);
        admission.forget(&origin);
        assert!(admission.count(first) && !admission.count(second));
        assert!(admission.is_banned(IpAddr::from([10, 1, 2, 3])));
        assert!(admission.is_banned("::ffff:10.1.2.3".parse().unwrap()));
        assert!(!admission.is_banned(IpAddr::from([10, 2, 0, 1])));
    }

    #[test]
    fn who_was_there_before_a_limit_counts_once_and_goes_once() {
        let mut admission = Admission::new(vec![], vec![], Addresses::new(0, 64), Arc::default());
        let ip = IpAddr::from([192, 0, 2, 1]);
        let mut origin = Origin {
            listener: 0,
            peer: Peer::internet((ip, 1).into()),
            counted: None,
            is_among: false,
        };
        assert!(admission.count(ip));
        admission.place(&mut origin, ip);
        admission.count_in(&mut origin);
        assert!(!origin.is_among);
        assert!(admission.addresses.set_max(1));
        for _ in 0..2 {
            admission.count_in(&mut origin);
        }
        assert!(origin.is_among && !admission.count(ip));
        // Without a limit it goes all the same.
        admission.addresses.set_max(0);
        admission.forget(&origin);
        admission.addresses.set_max(1);
        assert!(admission.count(ip));
    }

    #[test]
    fn a_lack_of_descriptors_is_told_once_in_a_while() {
        let mut admission = Admission::new(vec![], vec![], Addresses::new(0, 64), Arc::default());
        let now = Instant::now();
        let mut tell = |backoffs, at, is_end| {
            let line = admission.backoffs_line(backoffs, at, is_end);
            line.map(|line| line.contains(&format!("({} more times)", backoffs)))
        };
        assert_eq!(tell(0, now, true), None);
        assert_eq!(tell(1, now, false), Some(true));
        assert_eq!(tell(9, now + BACKOFFS_INTERVAL / 2, false), None);
        assert!(tell(9, now + BACKOFFS_INTERVAL, false).is_some());
        assert_eq!(tell(9, now + 3 * BACKOFFS_INTERVAL, true), None);
        assert!(tell(10, now + BACKOFFS_INTERVAL, true).is_some(), "the end");
    }
}
