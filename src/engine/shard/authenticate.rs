//! Who a client is: asked elsewhere, answered here (3.1.4, 4.12).
//!
//! ```text
//!   CONNECT ──► asked ──► allowed ──► goes on as if the CONNECT came now
//!                 │  └──► AUTH to the client ──► AUTH from it ──► asked
//!                 └─────► refused
//! ```
//! While an answer is awaited the connection is not read; what had arrived before waits in `partial`.
//!
//! Not here: the methods (`control::authn`).

use super::arrive::is_line;
use super::refusals::{BY_NAME, Refused};
use super::{Command, ShardCore};
use crate::engine::access::{
    Admitted, Answer, ClientIdRule, EXCHANGE_METHOD, Refusal, Shown, Step, client_id_key,
};
use crate::engine::bridge;
use crate::engine::codec::connect::Connect;
use crate::engine::codec::control::{Auth, encode_auth};
use crate::engine::codec::frame::{Frame, Split, split};
use crate::engine::codec::{Packet, Reason, Version};
use crate::engine::keys::ConnectionKey;
use crate::engine::session::connection::{Awaited, Gate, Turn};
use crate::engine::telemetry::notes::quoted;
use crate::engine::time::Timestamp;
use std::borrow::Cow;

/// What is known of who sent a CONNECT.
pub(super) enum Identified {
    /// Enough.
    Yes,
    /// It is being asked.
    Waits,
    /// It may not connect.
    Refused(Reason, Cow<'static, str>),
}

const SHOWS_NOTHING: &str = "it shows no user name or password, and may not be anonymous here \
                             (allow_anonymous = false)";
pub(super) const NOT_AUTHENTICATED: &str = "not authenticated";
const AUTH_TOO_LARGE: &str = "AUTH is larger than the Maximum Packet Size of its CONNECT";

impl ShardCore {
    /// Finds out who sent a CONNECT, or has that found out. `packet` is the CONNECT as it came.
    pub(super) fn identify(
        &mut self,
        key: ConnectionKey,
        connect: &Connect<'_>,
        packet: &[u8],
    ) -> Identified {
        let Some(connection) = self.clients.connections.get_mut(key) else {
            return Identified::Refused(Reason::UnspecifiedError, "the connection is gone".into());
        };
        if connection.is_identified {
            return Identified::Yes;
        }
        let methods = &self.settings.authentication;
        let policy = self.settings.listener(connection.listener);
        let has_exchange = policy.is_some_and(|policy| policy.has_exchange);
        let method = connect.properties.authentication_method;
        if let Some(method) = method
            && !(has_exchange && method == EXCHANGE_METHOD)
        {
            let text = unserved(method, has_exchange, methods.has_exchange);
            return Identified::Refused(Reason::BadAuthenticationMethod, text.into());
        }
        let shows_nothing = connect.user_name.is_none() && connect.password.is_none();
        let asks = methods.has_methods
            && (!shows_nothing
                || method.is_some()
                || policy.is_some_and(|policy| policy.has_certificates));
        if !asks {
            if policy.is_some_and(|policy| policy.allows_anonymous) {
                connection.is_identified = true;
                return Identified::Yes;
            }
            self.clients.counters.connects_unauthenticated += 1;
            return Identified::Refused(Reason::NotAuthorized, SHOWS_NOTHING.into());
        }
        connection.gate = Some(Box::new(Gate {
            packet: packet.into(),
            awaited: Awaited::Answer,
            exchange_user: None,
        }));
        let may_be_anonymous = policy.is_some_and(|policy| policy.allows_anonymous);
        let shown = Shown {
            client_id: connect.client_id.into(),
            user_name: connect.user_name.map(Into::into),
            password: connect.password.map(crate::engine::access::Secret::new),
            version: connect.version,
            exchange: method.map(|_| {
                connect
                    .properties
                    .authentication_data
                    .unwrap_or_default()
                    .into()
            }),
            may_be_anonymous,
        };
        self.ask(key, Step::Connect(Box::new(shown)));
        Identified::Waits
    }

    fn ask(&mut self, key: ConnectionKey, step: Step) {
        self.clients.counters.authentications += 1;
        self.commands.push(Command::Authenticate {
            connection: key,
            step,
        });
    }

    /// The packet after a CONNECT that began an exchange; it has to go on with it.
    pub(super) fn exchange_packet(&mut self, key: ConnectionKey, frame: Frame<'_>) -> bool {
        if let Some(why) = self.why_banned_at_gate(key) {
            self.turn_away_banned(key, why);
            return false;
        }
        let Some(connection) = self.clients.connections.get_mut(key) else {
            return false;
        };
        let version = connection.version;
        match Packet::decode(frame, version) {
            Ok(Packet::Auth(auth)) if goes_on(&auth) => {
                if let Some(gate) = &mut connection.gate {
                    gate.awaited = Awaited::Answer;
                }
                let bytes = auth.authentication_data.unwrap_or_default().into();
                self.ask(key, Step::Continue(bytes));
                true
            }
            Ok(Packet::Disconnect(_)) => {
                self.drop_connection(key);
                false
            }
            Ok(_) => {
                let text = "another packet than AUTH before the authentication was over";
                self.refuse_exchange(key, version, Reason::ProtocolError, text);
                false
            }
            Err(error) => {
                let text = error.told(Some(version));
                self.refuse_exchange(key, version, error.reason(), &text);
                false
            }
        }
    }

    /// A question found no room in the methods' queue; its answer follows.
    pub fn note_busy_methods(&mut self) {
        self.clients.counters.authentications_busy += 1;
    }

    /// Until when a client waits for the answer to a question that is asked now.
    #[must_use]
    pub fn answer_by(&self, now: Timestamp, key: ConnectionKey) -> Timestamp {
        let connection = self.clients.connections.get(key);
        let connecting = connection.filter(|connection| connection.session.is_none());
        let limit_ms = self.settings.limits.connect_timeout_ms;
        connecting.map_or(now.plus_ms(limit_ms), |connection| connection.connect_by)
    }

    /// A question was not judged, since its client cannot wait for the answer any more.
    pub fn note_late_methods(&mut self) {
        self.clients.counters.authentications_late += 1;
    }

    /// The methods' answer to a step of this connection.
    pub fn authenticated(&mut self, now: Timestamp, key: ConnectionKey, answer: Answer) {
        self.flapping.look_at_clock(now);
        if let Some(why) = self.why_banned_at_gate(key) {
            return self.turn_away_banned(key, why);
        }
        let Some(connection) = self.clients.connections.get_mut(key) else {
            return;
        };
        if connection.session.is_some() {
            return self.reauthenticated(now, key, answer);
        }
        let Some(gate) = &mut connection.gate else {
            return;
        };
        let version = connection.version;
        let allows_anonymous = {
            let policy = self.settings.listener(connection.listener);
            policy.is_some_and(|policy| policy.allows_anonymous)
        };
        let refused = match answer {
            Answer::Allow(admitted) => return self.admit(now, key, Some(admitted)),
            Answer::Banned => return self.ban(now, key),
            Answer::BannedUnseen(identity) => return self.turn_away_unseen(key, *identity),
            Answer::Continue(bytes, user_name) => {
                gate.awaited = Awaited::Client;
                gate.exchange_user = Some(user_name);
                // Before any proof is asked for.
                if let Some(why) = self.why_banned_at_gate(key) {
                    return self.turn_away_banned(key, why);
                }
                if !self.send_auth(key, Reason::ContinueAuthentication, &bytes) {
                    let reason = Reason::ImplementationSpecificError;
                    return self.refuse_exchange(key, version, reason, AUTH_TOO_LARGE);
                }
                return self.go_on_reading(now, key, Vec::new());
            }
            Answer::NotMine if allows_anonymous => {
                return self.admit(now, key, None);
            }
            Answer::NotMine => Refusal::NotAuthorized,
            Answer::Busy => {
                self.note_busy_methods();
                Refusal::Unavailable
            }
            Answer::Late => Refusal::Unavailable,
            Answer::Refuse(refusal) => refusal,
        };
        self.clients.counters.connects_unauthenticated += 1;
        self.note_gate(key, refused.reason(), refused.text());
        self.refuse(key, version, refused.reason(), NOT_AUTHENTICATED);
    }

    /// An exchange breaks off.
    fn refuse_exchange(
        &mut self,
        key: ConnectionKey,
        version: Version,
        reason: Reason,
        text: &str,
    ) {
        self.note_gate(key, reason, text);
        self.refuse(key, version, reason, text);
    }

    /// Notes who did not prove who it is, and why; false if no CONNECT waits at the gate.
    pub(super) fn note_gate(&mut self, key: ConnectionKey, reason: Reason, text: &str) -> bool {
        let noted = self.with_gated(key, |core, connect| {
            core.note_refused(key, connect, reason, text);
        });
        noted.is_some()
    }

    /// Whether a packet that came behind the CONNECT at the gate waits to be handled: half of one says
    /// nothing.
    #[must_use]
    pub fn has_more_to_say(&self, key: ConnectionKey) -> bool {
        let connection = self.clients.connections.get(key);
        connection.is_some_and(|connection| {
            matches!(split(&connection.partial, usize::MAX), Ok(Split::Whole(..)))
        })
    }

    /// A connection has failed: where it is being found out who its client is, what came behind the CONNECT
    /// counts no more.
    pub fn forget_said_at_gate(&mut self, key: ConnectionKey) {
        if let Some(connection) = self.clients.connections.get_mut(key)
            && connection.is_asking()
        {
            drop(connection.take_unparsed());
        }
    }

    /// The client at the gate has gone, and what it may have said behind its CONNECT counts no more: it would
    /// only end the session of who is there.
    pub fn gone_at_gate(&mut self, key: ConnectionKey) {
        let text = "its client has gone before it was let in";
        if self.note_gate(key, Reason::Success, text) {
            self.drop_connection(key);
        }
    }

    /// Goes on with the CONNECT as if it came now.
    fn admit(&mut self, now: Timestamp, key: ConnectionKey, admitted: Option<Box<Admitted>>) {
        if let Some(connection) = self.clients.connections.get_mut(key) {
            connection.is_identified = true;
            connection.admitted = admitted;
        }
        self.go_on_from_gate(now, key);
    }

    /// The CONNECT at the gate goes on.
    pub(super) fn go_on_from_gate(&mut self, now: Timestamp, key: ConnectionKey) {
        let connection = self.clients.connections.get(key);
        if connection.is_some_and(|connection| connection.has_ended) && !self.has_more_to_say(key) {
            return self.gone_at_gate(key);
        }
        let connection = self.clients.connections.get_mut(key);
        if let Some(gate) = connection.and_then(|connection| connection.gate.take()) {
            self.go_on_reading(now, key, gate.packet.into_vec());
        }
    }

    /// Handles `stream` and what waited behind it, then reads again.
    fn go_on_reading(&mut self, now: Timestamp, key: ConnectionKey, mut stream: Vec<u8>) {
        if let Some(connection) = self.clients.connections.get_mut(key) {
            stream.append(&mut connection.partial);
            self.receive(now, key, &stream);
            self.end_or_resume(now, key);
        }
    }

    /// AUTH on an open connection: it begins anew or goes on `[MQTT-4.12.1-1]`.
    pub(super) fn authenticate_again(
        &mut self,
        now: Timestamp,
        key: ConnectionKey,
        auth: &Auth<'_>,
    ) {
        if self.is_banned(key) {
            return self.ban(now, key);
        }
        let Some(connection) = self.clients.connections.get_mut(key) else {
            return;
        };
        let reason = match connection.authentication_method.as_deref() {
            None => Reason::ProtocolError,
            Some(method) if method != auth.method => Reason::BadAuthenticationMethod,
            Some(_) => {
                let bytes = auth.authentication_data.unwrap_or_default().into();
                let step = match (auth.reason, connection.reauthentication) {
                    (Reason::ReAuthenticate, Turn::Nobody) => {
                        let admitted = connection.admitted.as_deref();
                        let identity = admitted.map(|admitted| &admitted.identity);
                        let only = identity.and_then(|identity| identity.user_name.clone());
                        Some(Step::Again(bytes, only))
                    }
                    (Reason::ContinueAuthentication, Turn::Client) => Some(Step::Continue(bytes)),
                    // Once more before the answer, or out of the blue.
                    _ => None,
                };
                if let Some(step) = step {
                    connection.reauthentication = Turn::Broker;
                    return self.ask(key, step);
                }
                Reason::ProtocolError
            }
        };
        self.violation(
            key,
            reason,
            "AUTH out of turn, or of another method than its CONNECT",
            now,
        );
    }

    fn reauthenticated(&mut self, now: Timestamp, key: ConnectionKey, answer: Answer) {
        if self.is_banned(key) {
            return self.ban(now, key);
        }
        let Some(connection) = self.clients.connections.get_mut(key) else {
            return;
        };
        let user_name = |admitted: &Admitted| admitted.identity.user_name.clone();
        match answer {
            Answer::Continue(bytes, _) => {
                connection.reauthentication = Turn::Client;
                if !self.send_auth(key, Reason::ContinueAuthentication, &bytes) {
                    self.disconnect(key, Reason::PacketTooLarge, AUTH_TOO_LARGE, now);
                }
            }
            Answer::Allow(admitted)
                if connection.admitted.as_deref().and_then(user_name) == user_name(&admitted) =>
            {
                connection.reauthentication = Turn::Nobody;
                connection.begin_identity(admitted.ends_at);
                let bytes = admitted.exchange_end.unwrap_or_default();
                self.arm_connection(key);
                if !self.send_auth(key, Reason::Success, &bytes) {
                    self.disconnect(key, Reason::PacketTooLarge, AUTH_TOO_LARGE, now);
                }
            }
            // Somebody else's right password counts as a wrong one, or it could be told apart.
            Answer::Allow(_) | Answer::NotMine | Answer::BannedUnseen(_) => {
                self.fail_again(now, key, Refusal::NotAuthorized);
            }
            Answer::Banned => self.ban(now, key),
            Answer::Busy => {
                self.note_busy_methods();
                self.fail_again(now, key, Refusal::Unavailable);
            }
            Answer::Late => self.fail_again(now, key, Refusal::Unavailable),
            Answer::Refuse(refusal) => self.fail_again(now, key, refusal),
        }
    }

    /// A client that was let in has failed to prove anew who it is.
    fn fail_again(&mut self, now: Timestamp, key: ConnectionKey, refusal: Refusal) {
        self.disconnect(key, refusal.disconnect_reason(), NOT_AUTHENTICATED, now);
    }

    /// Whether somebody waits for an answer of the methods to this connection: else it has ended meanwhile.
    #[must_use]
    pub fn awaits_answer(&self, key: ConnectionKey) -> bool {
        let connection = self.clients.connections.get(key);
        connection.is_some_and(|connection| {
            connection.awaits_answer() || connection.reauthentication == Turn::Broker
        })
    }

    /// Counts who did not wait for an answer that would have refused it; why, for a note.
    pub fn refuse_gone(&mut self, answer: &Answer) -> Option<(Reason, Box<str>)> {
        match answer {
            Answer::Refuse(refusal) if refusal.is_failure() => {
                self.clients.counters.connects_unauthenticated += 1;
                Some((refusal.reason(), refusal.text().into()))
            }
            Answer::BannedUnseen(_) => {
                self.clients.counters.connections_banned += 1;
                Some((Refusal::BadCredentials.reason(), BY_NAME.into()))
            }
            _ => None,
        }
    }

    /// Sends an AUTH, if it is within what the client takes `[MQTT-3.1.2-24]`.
    fn send_auth(&mut self, key: ConnectionKey, reason: Reason, bytes: &[u8]) -> bool {
        let mut packet = Vec::new();
        encode_auth(reason, EXCHANGE_METHOD, bytes, &mut packet);
        let connection = self.clients.connections.get(key);
        let fits = connection.is_some_and(|c| packet.len() <= c.packet_bytes_max as usize);
        if fits {
            self.control(key, |out| out.extend_from_slice(&packet));
        }
        fits
    }

    /// The names of bridges are nobody's who comes in by a listener, however it comes to one.
    pub(super) fn check_not_a_bridges(
        &self,
        key: ConnectionKey,
        client_id: &str,
    ) -> Result<(), Refused> {
        let connection = self.clients.connections.get(key);
        if connection.is_some_and(is_line) || !client_id.starts_with(bridge::CLIENT_ID_PREFIX) {
            return Ok(());
        }
        let text =
            "client identifiers that begin with $bridge/ are those of the broker's own bridges";
        Err((Reason::ClientIdentifierNotValid, text.into()))
    }

    /// Whether the identity of a connection may use a client identifier, and which it gets if it names none.
    pub(super) fn check_client_id(
        &self,
        key: ConnectionKey,
        asked: &str,
    ) -> Result<Option<ClientIdRule>, Refused> {
        let connection = self.clients.connections.get(key);
        if connection.is_some_and(is_line) {
            return Ok(None);
        }
        let identity = connection
            .and_then(|connection| connection.admitted.as_deref())
            .map(|admitted| &admitted.identity);
        let user_name = identity.and_then(|identity| identity.user_name.as_deref());
        let of_identity = identity.and_then(|identity| identity.client_id.clone());
        let of_settings = self.settings.authentication.client_id.for_user(user_name);
        if of_settings == Some(ClientIdRule::Assigned) && of_identity.is_none() && !asked.is_empty()
        {
            let text =
                "clients without a user name no client identifier here (authentication.client_id)";
            return Err((Reason::ClientIdentifierNotValid, text.into()));
        }
        // Who vouches for a client without naming a user may name its identifier.
        let of_settings =
            of_settings.filter(|rule| of_identity.is_none() || *rule != ClientIdRule::Assigned);
        // The identifier that it gets by who vouches for it is judged like one that it names.
        let used = match &of_identity {
            Some(ClientIdRule::Exactly(only)) if asked.is_empty() => only,
            _ => asked,
        };
        let method = identity.map_or("", |identity| identity.method);
        let by_identity = (&of_identity, client_id_key(method));
        for (rule, key) in [by_identity, (&of_settings, "authentication.client_id")] {
            if let Some(rule) = rule
                && !used.is_empty()
                && !rule.allows(used)
            {
                let text = match rule {
                    ClientIdRule::Exactly(only) => {
                        let only = quoted(only);
                        format!("its client identifier is not for its user: that is {only} ({key})")
                    }
                    _ => format!("its client identifier is not for its user ({key})"),
                };
                return Err((Reason::ClientIdentifierNotValid, text.into()));
            }
        }
        let rule = of_identity.or(of_settings);
        if asked.is_empty() && matches!(&rule, Some(ClientIdRule::Exactly(only)) if only.is_empty())
        {
            // [MQTT-3.2.2-16]
            let text = "the client identifier that it has to use is empty: its user name is \
                        (authentication.client_id), or its token or the hook says so";
            return Err((Reason::ClientIdentifierNotValid, text.into()));
        }
        Ok(rule)
    }
}

/// Why an authentication method is not served: it is not known, not by its listener, or by none.
fn unserved(method: &str, by_listener: bool, by_any: bool) -> String {
    let shown = quoted(method);
    let why = match (method == EXCHANGE_METHOD, by_listener, by_any) {
        (false, true, _) => format!("{EXCHANGE_METHOD} is"),
        (true, false, true) => {
            "\"scram\" is not among the methods of its listener (listener.methods)".to_owned()
        }
        (true, false, false) => "authentication.scram is not true".to_owned(),
        _ => "none is by its listener".to_owned(),
    };
    format!("its authentication method {shown} is not served: {why}")
}

/// Whether an AUTH goes on with the exchange that CONNECT began.
fn goes_on(auth: &Auth<'_>) -> bool {
    auth.reason == Reason::ContinueAuthentication && auth.method == EXCHANGE_METHOD
}
