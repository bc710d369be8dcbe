//! Who is turned away before its CONNECT: by where it comes from. It is closed at once and not told why,
//! since to wait for what it says would take a place from somebody who says something.

use super::refusals::{BY_ADDRESS, beyond};
use super::{Settings, ShardCore};
use crate::engine::codec::Reason;
use crate::engine::keys::ConnectionKey;
use crate::engine::session::connection::Surplus;
use std::borrow::Cow;
use std::fmt::Display;

/// Why an address is not listened to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TurnedAway {
    /// It is banned.
    Banned,
    /// Too many connections come from it.
    TooMany,
    /// Too many connections from it are not let in yet.
    TooManyConnecting(ConnectingPart),
}

/// Of what the connections of an address that are not let in yet have as much as they may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectingPart {
    /// Of the places of those that are not.
    OfConnecting,
    /// Of the same, all together of which no address is known.
    OfUnlocated,
    /// Of all connections that may be, so many.
    InAll(usize),
    /// Of those for which there are descriptors, so many.
    InDescriptors(usize),
    /// Of those that may be by their listener, so many.
    OfListener(usize),
}

/// The connections of an address that are not let in yet are half of what a limit allows.
fn half_of(limit: impl Display) -> Cow<'static, str> {
    format!(
        "half of all connections that may be come from its address and are not let in yet, \
         or were refused and are not gone ({limit}); limits.connecting_per_address_max allows more"
    )
    .into()
}

impl TurnedAway {
    /// The reason code of 5.0 that it would be told.
    #[must_use]
    pub const fn reason(self) -> Reason {
        match self {
            TurnedAway::Banned => Reason::Banned,
            TurnedAway::TooMany | TurnedAway::TooManyConnecting(_) => Reason::QuotaExceeded,
        }
    }
}

impl Settings {
    fn why_unheard(&self, why: TurnedAway) -> Cow<'static, str> {
        match why {
            TurnedAway::Banned => BY_ADDRESS.into(),
            TurnedAway::TooMany => self.too_many_connections(u16::MAX, Surplus::OfAddress),
            TurnedAway::TooManyConnecting(ConnectingPart::InAll(max)) => {
                half_of(format_args!("limits.connections_max = {max}"))
            }
            TurnedAway::TooManyConnecting(ConnectingPart::OfListener(max)) => {
                half_of(format_args!("listener.connections_max = {max}"))
            }
            TurnedAway::TooManyConnecting(ConnectingPart::InDescriptors(max)) => half_of(
                format_args!("{max}, as many as `ulimit -n` or LimitNOFILE= leaves"),
            ),
            TurnedAway::TooManyConnecting(ConnectingPart::OfUnlocated) => beyond(
                "half of those that may be let in later come by proxies that have not named them",
                "limits.connecting_max",
                self.limits.connecting_max,
            ),
            TurnedAway::TooManyConnecting(ConnectingPart::OfConnecting) => beyond(
                "as many connections from its address as may be are not let in yet",
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

    /// A connection was not even taken in.
    pub fn note_turned_away(&mut self, why: TurnedAway) {
        let counters = &mut self.clients.counters;
        match why {
            TurnedAway::Banned => counters.connections_banned += 1,
            TurnedAway::TooMany => counters.connections_refused_full += 1,
            TurnedAway::TooManyConnecting(_) => counters.connections_refused_connecting += 1,
        }
    }

    /// It turned out where a connection without CONNECT comes from: it is closed.
    pub fn turn_away_unheard(&mut self, key: ConnectionKey, why: TurnedAway) {
        self.note_turned_away(why);
        let text = self.why_unheard(why);
        self.note_nameless(key, why.reason().byte(), &text);
        self.abort_connection(key);
    }
}
