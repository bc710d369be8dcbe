//! Who is turned away before its CONNECT: by where it comes from. It is closed at once and not told why,
//! since to wait for what it says would take a place from somebody who says something.

use super::refusals::{BY_ADDRESS, beyond};
use super::{Settings, ShardCore};
use crate::engine::codec::Reason;
use crate::engine::keys::ConnectionKey;
use crate::engine::session::connection::Surplus;
use ipnet::IpNet;
use std::borrow::Cow;

/// Why an address is not listened to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TurnedAway {
    /// It is banned.
    Banned,
    /// Too many connections come from it.
    TooMany,
    /// Too many connections from it have not sent their CONNECT.
    TooManyConnecting,
}

impl TurnedAway {
    /// The reason code of 5.0 that it would be told.
    #[must_use]
    pub const fn reason(self) -> Reason {
        match self {
            TurnedAway::Banned => Reason::Banned,
            TurnedAway::TooMany | TurnedAway::TooManyConnecting => Reason::QuotaExceeded,
        }
    }
}

impl Settings {
    fn why_unheard(&self, why: TurnedAway) -> Cow<'static, str> {
        match why {
            TurnedAway::Banned => BY_ADDRESS.into(),
            TurnedAway::TooMany => self.too_many_connections(u16::MAX, Surplus::OfAddress),
            TurnedAway::TooManyConnecting => beyond(
                "as many connections from its address as may be have not sent their CONNECT",
                "limits.connecting_per_address_max",
                self.limits.connecting_of_address_max(),
            ),
        }
    }
}

impl ShardCore {
    /// Why nobody listens to a connection, in an operator's words.
    #[must_use]
    pub fn why_unheard(&self, why: TurnedAway) -> Cow<'static, str> {
        self.settings.why_unheard(why)
    }

    /// Whether one more connection from this network may wait until it has sent its CONNECT: a part of the
    /// places is for others.
    #[must_use]
    pub fn may_connect_from(&self, network: IpNet) -> bool {
        self.admission.may_come_from(network, self.connecting_max())
    }

    /// A connection was not even taken in.
    pub fn note_turned_away(&mut self, why: TurnedAway) {
        let counters = &mut self.clients.counters;
        match why {
            TurnedAway::Banned => counters.connections_banned += 1,
            TurnedAway::TooMany => counters.connections_refused_full += 1,
            TurnedAway::TooManyConnecting => counters.connections_refused_connecting += 1,
        }
    }

    /// It turned out where a connection without CONNECT comes from: it is closed.
    pub fn turn_away_unheard(&mut self, key: ConnectionKey, why: TurnedAway) {
        self.note_turned_away(why);
        let text = self.why_unheard(why);
        self.note_nameless(key, why.reason().byte(), &text);
        self.drop_connection(key);
    }
}
