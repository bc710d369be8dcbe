//! The shell's side of the sockets: names of ring and core for each other, and what lies between.

use crate::engine::access::Arrival;
use crate::engine::bridge::line::Line;
use crate::engine::keys::{ConnectionKey, ShardId};
use crate::engine::outbox::outgoing::Outgoing;
use crate::engine::shard::admission::Place;
use crate::shard::handover::Origin;
use crate::shard::link::Link;
use crate::shard::peer::Peer;
use crate::shard::questions::{Exchange, Reply};
use crate::shard::ring::SocketKey;
use crate::shard::transport::Layers;
use std::net::IpAddr;

/// What the shell knows of a socket's connection.
#[derive(Debug)]
pub(super) enum State {
    /// The core has it under this name.
    Open(ConnectionKey),
    /// It leaves for another shard.
    Leaving {
        home: ShardId,
        bytes: Vec<u8>,
        arrival: Arrival,
    },
    /// It is being closed.
    Closing(Box<Closing>),
    /// It is being closed at once.
    Aborted,
}

/// What is left of a connection that is being closed.
#[derive(Debug)]
pub(super) struct Closing {
    /// Waits for the send in flight.
    pub rest: Option<Outgoing>,
    /// What it takes until its socket is gone.
    pub place: Option<Place>,
}

/// One socket.
#[derive(Debug)]
pub(super) struct Socket {
    key: SocketKey,
    pub state: State,
    pub origin: Origin,
    /// The layers under MQTT, if there are any.
    pub under: Option<Box<Under>>,
    /// An authentication of several steps that has begun.
    pub exchange: Option<Box<dyn Exchange>>,
    /// The methods' answer, which waits for the rest of what the client has sent before it closed.
    pub answer: Option<Box<Reply>>,
}

/// What lies under MQTT, and what is on its way through it.
#[derive(Debug)]
pub(super) struct Under {
    pub link: Link,
    /// The core's batch whose bytes the layers have taken and the socket not.
    pub batch: Option<Outgoing>,
}

/// All of a shard's.
#[derive(Default)]
pub(super) struct Sockets {
    by_slot: ByPlace<Socket>,
    by_connection: ByPlace<(ConnectionKey, SocketKey)>,
    pub count: usize,
}

impl Sockets {
    pub fn entry(&mut self, key: SocketKey) -> Option<&mut Socket> {
        let socket = self.by_slot.place_mut(key.slot())?.as_mut()?;
        (socket.key == key).then_some(socket)
    }

    pub fn state(&mut self, key: SocketKey) -> Option<&mut State> {
        self.entry(key).map(|socket| &mut socket.state)
    }

    pub fn link(&mut self, key: SocketKey) -> Option<&mut Link> {
        Some(&mut self.entry(key)?.under.as_mut()?.link)
    }

    pub fn socket(&self, key: ConnectionKey) -> Option<SocketKey> {
        let (known, socket) = *self.by_connection.get(key.slot())?;
        (known == key).then_some(socket)
    }

    /// A bridge's line, where a connection is one.
    pub fn line(&mut self, key: SocketKey) -> Option<&mut Line> {
        self.link(key)?.layers.line()
    }

    /// The layers under MQTT, if there are any.
    pub fn layers(&self, key: SocketKey) -> Option<&Layers> {
        let socket = self.by_slot.get(key.slot())?;
        let under = socket.under.as_ref().filter(|_| socket.key == key)?;
        Some(&under.link.layers)
    }

    /// Who is at the other end.
    pub fn peer(&self, key: SocketKey) -> Option<Peer> {
        let socket = self.by_slot.get(key.slot())?;
        (socket.key == key).then_some(socket.origin.peer)
    }

    pub fn insert(
        &mut self,
        key: SocketKey,
        connection: ConnectionKey,
        origin: Origin,
        link: Option<Link>,
    ) {
        let socket = Socket {
            key,
            state: State::Open(connection),
            origin,
            under: link.map(|link| Box::new(Under { link, batch: None })),
            exchange: None,
            answer: None,
        };
        debug_assert!(
            !self.is_open_at(connection.slot()),
            "what the core wanted done with one is done before another has its name"
        );
        self.by_slot.set(key.slot(), socket);
        self.by_connection.set(connection.slot(), (connection, key));
        self.count += 1;
    }

    /// Places for sockets, taken or not: their number only grows.
    pub fn places(&self) -> usize {
        self.by_slot.places()
    }

    /// The connection of the core at a place, and the address for which it counts, if that is known.
    pub fn open_at(&self, place: usize) -> Option<(ConnectionKey, Option<IpAddr>)> {
        let socket = self.by_slot.get(place)?;
        match socket.state {
            State::Open(connection) => Some((connection, socket.origin.counted)),
            _ => None,
        }
    }

    /// Where the client at a place came from.
    pub fn origin_at(&mut self, place: usize) -> Option<&mut Origin> {
        Some(&mut self.by_slot.place_mut(place)?.as_mut()?.origin)
    }

    /// Whether the core's connection of a place has its socket still.
    fn is_open_at(&self, slot: usize) -> bool {
        let Some((connection, socket)) = self.by_connection.get(slot) else {
            return false;
        };
        let socket = self
            .by_slot
            .get(socket.slot())
            .filter(|it| it.key == *socket);
        socket.is_some_and(|it| matches!(it.state, State::Open(open) if open == *connection))
    }

    pub fn remove(&mut self, key: SocketKey) -> Option<Socket> {
        let slot = self.by_slot.place_mut(key.slot())?;
        let socket = slot.take_if(|socket| socket.key == key)?;
        self.count -= 1;
        Some(socket)
    }
}

/// A table by places that others give, in chunks: nothing is copied when it grows.
struct ByPlace<T>(Vec<Box<[Option<T>]>>);

/// Places of a chunk.
const CHUNK: usize = 256;

impl<T> Default for ByPlace<T> {
    fn default() -> Self {
        ByPlace(Vec::new())
    }
}

impl<T> ByPlace<T> {
    fn places(&self) -> usize {
        self.0.len() * CHUNK
    }

    fn get(&self, place: usize) -> Option<&T> {
        self.0.get(place / CHUNK)?.get(place % CHUNK)?.as_ref()
    }

    fn place_mut(&mut self, place: usize) -> Option<&mut Option<T>> {
        self.0.get_mut(place / CHUNK)?.get_mut(place % CHUNK)
    }

    fn set(&mut self, place: usize, value: T) {
        while place >= self.places() {
            self.0.push((0..CHUNK).map(|_| None).collect());
        }
        if let Some(there) = self.place_mut(place) {
            *there = Some(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::slots::Slots;

    #[test]
    fn names_of_ring_and_core_lead_to_each_other_until_the_socket_is_gone() {
        let mut connections = Slots::default();
        let mut sockets = Sockets::default();
        let origin = |last: u8| Origin {
            listener: 0,
            peer: Peer::internet(([192, 0, 2, last], 1).into()),
            counted: Some(IpAddr::from([192, 0, 2, last])),
            is_among: true,
        };
        for slot in 0..3_u8 {
            let key = SocketKey::for_test(u32::from(slot));
            sockets.insert(key, connections.insert(()), origin(slot), None);
        }
        let (key, connection) = (SocketKey::for_test(1), connections.keys().nth(1).unwrap());
        assert_eq!(sockets.socket(connection), Some(key));
        let ip = IpAddr::from([192, 0, 2, 1]);
        assert_eq!(sockets.places(), CHUNK);
        assert_eq!(sockets.open_at(1), Some((connection, Some(ip))));
        *sockets.state(key).unwrap() = State::Leaving {
            home: 0,
            bytes: Vec::new(),
            arrival: Arrival::default(),
        };
        assert!(sockets.open_at(1).is_none() && sockets.open_at(3).is_none());
        assert!(sockets.remove(key).is_some() && sockets.remove(key).is_none());
        assert!(sockets.entry(key).is_none() && sockets.count == 2);
        connections.remove(connection);
        let next = connections.insert(());
        assert_eq!(
            (next.slot(), sockets.socket(next)),
            (connection.slot(), None)
        );
    }
}
