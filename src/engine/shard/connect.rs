//! CONNECT: whose it is, whether it is welcome, and which session it gets (3.1.4).

use super::authenticate::Identified;
use super::refusals::{Refused, beyond, not_connect, switched_off};
use super::{Command, ShardCore};
use crate::engine::access::{Arrival, ClientIdRule};
use crate::engine::codec::connect::{Connack, Connect, ConnectError, Refusal};
use crate::engine::codec::frame::Frame;
use crate::engine::codec::topic::TopicName;
use crate::engine::codec::{PacketType, Reason, Version};
use crate::engine::keys::{ConnectionKey, SessionKey, ShardId};
use crate::engine::message::Qos;
use crate::engine::overload::Stage;
use crate::engine::route::home_shard;
use crate::engine::session::holder::Holder;
use crate::engine::session::rates::Rates;
use crate::engine::session::will::Will;
use crate::engine::session::{EXPIRY_NEVER, Session};
use crate::engine::telemetry::notes::Event;
use crate::engine::time::Timestamp;
use crate::engine::timer::Owner;
use std::rc::Rc;

/// A will of no more bytes is nothing unusual.
const WILL_BYTES_USUAL: usize = 4 * 1024;
/// Longest client identifier that is accepted.
const CLIENT_ID_BYTES_MAX: usize = 1024;

impl ShardCore {
    /// The first packet of a connection; `stream` begins with it, it takes `bytes` of it. Returns whether
    /// it was taken: the connection is open now, or it is being found out who it is.
    pub(super) fn first_packet(
        &mut self,
        now: Timestamp,
        key: ConnectionKey,
        (frame, bytes): (Frame<'_>, usize),
        stream: &[u8],
    ) -> bool {
        let decoded = match PacketType::from_first_byte(frame.first_byte) {
            Some(PacketType::Connect) => Some(Connect::decode(frame.body)),
            _ => None,
        };
        // 3.1 does not look at the flags.
        let may_have_flags = matches!(&decoded, Some(Ok(c)) if c.version == Version::V3_1);
        let is_well_begun = frame.first_byte == PacketType::Connect.first_byte() || may_have_flags;
        let Some(decoded) = decoded.filter(|_| is_well_begun) else {
            self.drop_nameless(key, &not_connect(stream));
            return false;
        };
        let connect = match decoded {
            Ok(connect) => connect,
            Err(error) => {
                self.refuse_undecoded(key, error);
                return false;
            }
        };
        let Some(connection) = self.clients.connections.get_mut(key) else {
            return false;
        };
        connection.version = connect.version;
        connection.is_bridge = connect.is_bridge;
        connection.packet_bytes_max = connect.properties.packet_bytes_max.unwrap_or(u32::MAX);
        if !connection.is_identified {
            connection.came_at = now;
        }
        self.flapping.look_at_clock(now);
        if let Err((reason, text)) = self.check_connect(key, &connect) {
            self.turn_away(key, &connect, reason, &text);
            return false;
        }
        let packet = stream.get(..bytes).unwrap_or_default();
        match self.identify(key, &connect, packet) {
            Identified::Yes => {}
            Identified::Waits => {
                self.pause(key);
                return true;
            }
            Identified::Refused(reason, text) => {
                self.turn_away(key, &connect, reason, &text);
                return false;
            }
        }
        match self.welcome(now, key, &connect, (stream, bytes)) {
            Ok(is_open) => is_open,
            Err((reason, text)) => {
                self.turn_away(key, &connect, reason, &text);
                false
            }
        }
    }

    /// Refuses a CONNECT that was understood.
    pub(super) fn turn_away(
        &mut self,
        key: ConnectionKey,
        connect: &Connect<'_>,
        reason: Reason,
        text: &str,
    ) {
        self.note_refused(key, connect, reason, text);
        self.refuse(key, connect.version, reason, text);
    }

    /// Notes a refused CONNECT, under the names that its proof has given it, else under the user that it says
    /// to be: in an exchange, if it has begun one.
    pub(super) fn note_refused(
        &mut self,
        key: ConnectionKey,
        connect: &Connect<'_>,
        reason: Reason,
        text: &str,
    ) {
        let event = Event::Refused {
            reason: reason.byte(),
            text: text.into(),
        };
        let connection = self.clients.connections.get(key);
        let gate = connection.and_then(|connection| connection.gate.as_ref());
        let in_exchange = gate.and_then(|gate| gate.exchange_user.clone());
        let admitted = connection.and_then(|connection| connection.admitted.as_ref());
        let identity = admitted.map(|admitted| admitted.identity.clone());
        let identity = identity.unwrap_or_default();
        let said = in_exchange.as_deref().or(connect.user_name);
        let (client_id, user_name) = identity.called(connect.client_id, said);
        self.note(key, client_id, user_name, event);
    }

    /// It is known who sent the CONNECT, the first so many bytes of what came: opens the connection here, or
    /// sends it home. Whether what follows is looked at.
    fn welcome(
        &mut self,
        now: Timestamp,
        key: ConnectionKey,
        connect: &Connect<'_>,
        (stream, bytes): (&[u8], usize),
    ) -> Result<bool, Refused> {
        let rule = self.check_client_id(key, connect.client_id)?;
        let assigned = connect
            .client_id
            .is_empty()
            .then(|| self.assign_client_id(rule.as_ref()));
        let client_id = assigned.as_deref().unwrap_or(connect.client_id);
        self.check_not_a_bridges(key, client_id)?;
        if client_id.len() > CLIENT_ID_BYTES_MAX || client_id.contains('\0') {
            let text = "the client identifier that its user, its token or the hook gives it is longer than \
                        1024 bytes or has a NUL";
            return Err((Reason::ClientIdentifierNotValid, text.into()));
        }
        // By the identifier that it gets, which may be its user's.
        let as_claimed = || self.bans_claimed(self.clients.connections.get(key)?, connect);
        if let Some(why) = self.why_banned_as_seen(key, client_id).or_else(as_claimed) {
            if self.is_unseen(key, connect) {
                self.hide_ban(key, connect, why);
                return Ok(false);
            }
            self.clients.counters.connections_banned += 1;
            return Err((Reason::Banned, why.into()));
        }
        let home = home_shard(client_id, self.shards);
        let is_adopted = self
            .clients
            .connections
            .get(key)
            .is_some_and(|c| c.is_adopted);
        if home != self.id && !is_adopted {
            self.send_home(key, home, stream);
            return Ok(false);
        }
        self.check_memory(client_id)?;
        self.check_later(key, client_id)?;
        let packet = stream.get(..bytes).unwrap_or_default();
        if self.waits_for_older(now, key, client_id, packet) {
            return Ok(true);
        }
        // Nothing is changed for a client that could not be told [MQTT-3.1.2-24].
        if connect.properties.packet_bytes_max.is_some()
            && self.connack(key, connect, client_id, false).is_none()
        {
            self.clients.counters.connects_refused += 1;
            let text = "CONNACK is larger than the Maximum Packet Size of its CONNECT";
            return Err((Reason::ImplementationSpecificError, text.into()));
        }
        self.count_connect(key, client_id);
        let holder = self.holder(key, client_id);
        let client_id: Rc<str> = client_id.into();
        self.open(now, key, connect, client_id, holder);
        Ok(true)
    }

    /// A connection belongs to another shard, which is given what came by it.
    fn send_home(&mut self, key: ConnectionKey, home: ShardId, stream: &[u8]) {
        let Some(left) = self.clients.connections.vacate(key) else {
            return;
        };
        let never = Timestamp::NEVER;
        self.timers
            .set(left.timer_at, never, Owner::Connection(key));
        self.admission.settle(left.connects_from, left.listener);
        self.clients.counters.connections_handed_over += 1;
        self.commands.push(Command::Handover {
            connection: key,
            home,
            bytes: stream.to_vec(),
            arrival: Arrival {
                came_at: Some(left.came_at),
                admitted: left.admitted,
            },
        });
    }

    fn refuse_undecoded(&mut self, key: ConnectionKey, refused: ConnectError) {
        self.clients.counters.connects_refused += 1;
        let text = refused.told();
        let reason = refused.error.reason();
        self.note_nameless(key, reason.byte(), &text);
        let Some(version) = refused.version else {
            return self.drop_connection(key);
        };
        if let Some(connection) = self.clients.connections.get_mut(key) {
            connection.packet_bytes_max = refused.packet_bytes_max;
        }
        self.refuse(key, version, reason, &text);
    }

    /// Answers a CONNECT with a failure and closes `[MQTT-3.2.2-7]`.
    pub(super) fn refuse(
        &mut self,
        key: ConnectionKey,
        version: Version,
        reason: Reason,
        text: &str,
    ) {
        let connection = self.clients.connections.get(key);
        let packet_bytes_max = connection.map_or(0, |connection| connection.packet_bytes_max);
        let refusal = Refusal {
            reason,
            reason_string: Some(text),
            server_reference: None,
        };
        self.control(key, |out| refusal.encode(version, packet_bytes_max, out));
        self.drop_connection(key);
    }

    fn check_connect(&mut self, key: ConnectionKey, connect: &Connect<'_>) -> Result<(), Refused> {
        let Some(connection) = self.clients.connections.get(key) else {
            return Err((Reason::UnspecifiedError, "the connection is gone".into()));
        };
        let policy = self.settings.listener(connection.listener);
        if policy.is_some_and(|policy| !policy.versions.contains(&connect.version)) {
            let text = format!(
                "its listener does not serve MQTT {} (listener.protocols)",
                connect.version
            );
            return Err((Reason::UnsupportedProtocolVersion, text.into()));
        }
        // By what it only claims to be: who is banned is not worth a hash, and learns nothing by it. Who has
        // given its proof at another shard is asked later.
        let was_judged = connection.is_adopted && connection.admitted.is_some();
        let claims = (!was_judged).then(|| self.bans_claimed(connection, connect));
        if let Some(text) = claims.flatten() {
            self.clients.counters.connections_banned += 1;
            return Err((Reason::Banned, text.into()));
        }
        if connection.is_hasty {
            let max = policy.map_or(0, |policy| policy.connect_rate_max);
            let what = "more connections per second by its listener than may be";
            self.clients.counters.connections_refused_rate += 1;
            let text = beyond(what, "listener.connect_rate_max", max);
            return Err((Reason::ConnectionRateExceeded, text));
        }
        if let Some(surplus) = connection.surplus {
            let text = self
                .settings
                .too_many_connections(connection.listener, surplus);
            self.clients.counters.connections_refused_full += 1;
            return Err((Reason::QuotaExceeded, text));
        }
        // Before anybody is asked who it is, where that is known already.
        if !connect.client_id.is_empty() && home_shard(connect.client_id, self.shards) == self.id {
            self.check_memory(connect.client_id)?;
        }
        if connect.client_id.len() > CLIENT_ID_BYTES_MAX {
            let text = "its client identifier is longer than 1024 bytes";
            return Err((Reason::ClientIdentifierNotValid, text.into()));
        }
        self.check_will(connect)
    }

    /// Whether there is memory for a client whose home is here. Who comes back takes or drops what waits for
    /// it: that is how memory becomes free.
    fn check_memory(&mut self, client_id: &str) -> Result<(), Refused> {
        let is_known = self.clients.sessions.find(client_id).is_some();
        if self.clients.shortage.stage < Stage::Refuse || is_known {
            return Ok(());
        }
        self.clients.counters.connections_refused_memory += 1;
        Err((Reason::QuotaExceeded, self.memory.refusal()))
    }

    /// Whether its will is one that may be; whether it may be published is asked when it is due.
    fn check_will(&self, connect: &Connect<'_>) -> Result<(), Refused> {
        let settings = &self.settings;
        let Some(will) = &connect.will else {
            return Ok(());
        };
        if will.qos > settings.qos_max {
            // [MQTT-3.2.2-12]
            let text = beyond("QoS of its will", "mqtt.qos_max", settings.qos_max.bits());
            return Err((Reason::QosNotSupported, text));
        }
        if will.retain && !settings.retain_available {
            // [MQTT-3.2.2-13]
            let text = switched_off("its will is to be retained", "mqtt.retain_available");
            return Err((Reason::RetainNotSupported, text));
        }
        let topic = TopicName::new(will.topic, settings.limits.topics());
        topic.map(drop).map_err(|error| {
            let text = format!("the topic of its will: {}", settings.topic_text(error));
            (Reason::TopicNameInvalid, text.into())
        })
    }

    /// A client identifier that nobody has and whose session lives here `[MQTT-3.2.2-16]`.
    fn assign_client_id(&mut self, rule: Option<&ClientIdRule>) -> String {
        let (prefix, separator) = match rule {
            Some(ClientIdRule::Exactly(only)) => return only.to_string(),
            Some(ClientIdRule::OfUser(name)) => (&**name, Some(ClientIdRule::SEPARATOR)),
            // It must not begin as those of a user do who is called so.
            Some(ClientIdRule::Assigned) => ("ringmq", None),
            None => ("ringmq", Some(ClientIdRule::SEPARATOR)),
        };
        let separator = separator.map_or_else(String::new, String::from);
        loop {
            let id = format!("{prefix}{separator}{:016x}", self.assigned.next());
            let is_free = self.clients.sessions.find(&id).is_none();
            if is_free && home_shard(&id, self.shards) == self.id {
                return id;
            }
        }
    }

    fn open(
        &mut self,
        now: Timestamp,
        key: ConnectionKey,
        connect: &Connect<'_>,
        client_id: Rc<str>,
        holder: Option<Box<Holder>>,
    ) {
        let before = self.clients.journal.last_ticket();
        let known = self.clients.sessions.find(&client_id);
        let resumed = known.and_then(|session| {
            // Another user gets nothing of what the session holds.
            let is_clean = connect.clean_start || !self.is_holder(session, holder.as_deref());
            self.take_over(session, key, is_clean, now)
        });
        let session_key = resumed.unwrap_or_else(|| {
            let session = Session::new(Rc::clone(&client_id), connect.version);
            self.clients.sessions.insert(session)
        });
        self.hand_session_to(session_key, holder);
        let expiry_seconds = self.granted_expiry(connect);
        self.open_connection(key, session_key, connect);
        self.bound_queue(session_key, key, now);
        let mut lives_shorter = false;
        if let Some(session) = self.clients.sessions.get_mut(session_key) {
            lives_shorter = session.number.is_some() && expiry_seconds < session.expiry_seconds;
            session.version = connect.version;
            session.connection = Some(key);
            session.expiry_seconds = expiry_seconds;
            session.expires_at = Timestamp::NEVER;
            session.will_at = Timestamp::NEVER;
            let before_will = session.held_bytes();
            session.will = connect
                .will
                .as_ref()
                .map(|will| Box::new(stored_will(will)));
            // Most wills are small: they make no session that was there before one that has grown.
            if resumed.is_none() || session.held_bytes() > before_will + WILL_BYTES_USUAL {
                self.clients.shortage.note_growth(session);
            }
        }
        self.keep_opened(session_key);
        // What is sent again may not have been sent, or PUBREL is due by a PUBREC that is not stored.
        let may_be_unstored = resumed.is_some() && !self.clients.journal.may_send_again();
        if lives_shorter || may_be_unstored || self.clients.journal.last_ended() > before {
            self.open_when_stored(key);
        }
        let method = self
            .clients
            .connections
            .get(key)
            .and_then(|c| c.admitted.as_ref());
        let method = method.map_or("", |admitted| admitted.identity.method);
        self.note_session(session_key, Event::Connected(method));
        self.arm_connection(key);
        let connack = self.connack(key, connect, &client_id, resumed.is_some());
        self.control(key, |out| out.extend(connack.iter().flatten()));
        self.forget_exchange(key);
        if resumed.is_some() {
            self.groups_changed(session_key);
            self.clients.resend(session_key, now);
            self.clients.pump(session_key, now);
            self.pump_replay(session_key, now);
        }
    }

    fn granted_expiry(&self, connect: &Connect<'_>) -> u32 {
        let asked = if connect.version.is_v5() {
            connect.properties.session_expiry_seconds
        } else if connect.clean_start {
            0
        } else {
            EXPIRY_NEVER
        };
        asked.min(self.settings.session_expiry_seconds_max)
    }

    /// The keep alive that a client has to use instead of its own. 3.x cannot be told, and has to be heard
    /// all the same.
    fn imposed_keep_alive(&self, connect: &Connect<'_>) -> Option<u16> {
        let max = self.settings.keep_alive_seconds_max;
        let asked = connect.keep_alive_seconds;
        (max > 0 && (asked == 0 || asked > max)).then_some(max)
    }

    fn open_connection(&mut self, key: ConnectionKey, session: SessionKey, connect: &Connect<'_>) {
        let imposed = self.imposed_keep_alive(connect);
        let settings = &self.settings;
        let Some(connection) = self.clients.connections.get_mut(key) else {
            return;
        };
        connection.session = Some(session);
        connection.granted = settings.granted();
        let listener = connection.listener;
        self.admission
            .settle(std::mem::take(&mut connection.connects_from), listener);
        let seconds = imposed.unwrap_or(connect.keep_alive_seconds);
        connection.silence_ms_max = u64::from(seconds) * 1500;
        connection.window_max = connect
            .properties
            .receive_maximum
            .min(settings.client_limits(connection.listener).inflight_max);
        connection.rates = Rates::new(
            settings.client_limits(connection.listener),
            connection.heard_at,
        );
        let aliases_max = connect
            .properties
            .topic_alias_max
            .min(settings.limits.topic_alias_out_max);
        connection.take_aliases(aliases_max, &self.clients.aliases_hashed_by);
        connection.asked_expiry_seconds = connect.properties.session_expiry_seconds;
        let admitted = connection.admitted.as_ref();
        let proved = admitted.and_then(|admitted| admitted.identity.user_name.as_deref());
        let said = connect.user_name.filter(|said| proved != Some(said));
        connection.said_user = said.map(Into::into);
        connection.begin_identity(admitted.and_then(|admitted| admitted.ends_at));
        connection.authentication_method = connect.properties.authentication_method.map(Into::into);
    }

    /// CONNACK for a client that is let in; `None` if it would be larger than the client takes.
    fn connack(
        &self,
        key: ConnectionKey,
        connect: &Connect<'_>,
        client_id: &str,
        session_present: bool,
    ) -> Option<Vec<u8>> {
        let granted_expiry = self.granted_expiry(connect);
        let settings = &self.settings;
        let response_information = settings
            .response_information
            .as_ref()
            .filter(|_| connect.properties.request_response_information)
            .map(|prefix| format!("{prefix}{client_id}"));
        let connection = self.clients.connections.get(key);
        let admitted = connection.and_then(|connection| connection.admitted.as_ref());
        let exchange_end = admitted.and_then(|admitted| admitted.exchange_end.as_deref());
        let granted = settings.granted();
        let connack = Connack {
            session_present,
            session_expiry_seconds: (granted_expiry != connect.properties.session_expiry_seconds)
                .then_some(granted_expiry),
            receive_maximum: granted.receive_maximum,
            qos_max: Some(granted.qos_max).filter(|qos| *qos < Qos::ExactlyOnce),
            packet_bytes_max: Some(granted.packet_bytes_max)
                .filter(|max| (*max as usize) < crate::engine::limits::PACKET_BYTES_MAX),
            assigned_client_id: connect.client_id.is_empty().then_some(client_id),
            topic_alias_max: granted.topic_alias_max,
            server_keep_alive_seconds: self.imposed_keep_alive(connect),
            response_information: response_information.as_deref(),
            authentication: connect.properties.authentication_method.zip(exchange_end),
            broker_name: settings
                .broker_name
                .as_deref()
                .filter(|_| connect.properties.is_ringmq_bridge),
            unavailable: [
                !granted.retain,
                !granted.wildcards,
                !granted.identifiers,
                !granted.shares,
            ],
        };
        let taken = connect.properties.packet_bytes_max.unwrap_or(u32::MAX);
        connack.encode_within(connect.version, taken)
    }

    /// The end of an exchange was told with CONNACK.
    fn forget_exchange(&mut self, key: ConnectionKey) {
        let connection = self.clients.connections.get_mut(key);
        if let Some(admitted) = connection.and_then(|connection| connection.admitted.as_mut()) {
            admitted.exchange_end = None;
        }
    }
}

fn stored_will(will: &crate::engine::codec::connect::Will<'_>) -> Will {
    Will {
        topic: will.topic.into(),
        payload: will.payload.into(),
        forwarded: (*will.properties.forwarded).into(),
        qos: will.qos,
        retain: will.retain,
        expiry_seconds: will.properties.expiry_seconds,
        delay_seconds: will.properties.will_delay_seconds,
    }
}
