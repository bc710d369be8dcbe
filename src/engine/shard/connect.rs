//! CONNECT: whose it is, whether it is welcome, and which session it gets (3.1.4).

use super::authenticate::Identified;
use super::end::WillFate;
use super::{Command, ShardCore};
use crate::engine::access::ClientIdRule;
use crate::engine::access::acl::Access;
use crate::engine::codec::connect::{Connack, Connect, ConnectError, Refusal};
use crate::engine::codec::frame::Frame;
use crate::engine::codec::topic::TopicName;
use crate::engine::codec::{Reason, Version};
use crate::engine::keys::{ConnectionKey, SessionKey};
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
        if frame.first_byte != 0x10 {
            self.drop_connection(key);
            return false;
        }
        let connect = match Connect::decode(frame.body) {
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
        if let Err((reason, text)) = self.check_connect(key, &connect) {
            self.turn_away(key, &connect, reason, text);
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
                self.turn_away(key, &connect, reason, text);
                return false;
            }
        }
        match self.welcome(now, key, &connect, stream) {
            Ok(is_open) => is_open,
            Err((reason, text)) => {
                self.turn_away(key, &connect, reason, text);
                false
            }
        }
    }

    /// Refuses a CONNECT that was understood.
    fn turn_away(
        &mut self,
        key: ConnectionKey,
        connect: &Connect<'_>,
        reason: Reason,
        text: &'static str,
    ) {
        let event = Event::Refused {
            reason: reason.byte(),
            is_login_failure: false,
        };
        self.note(key, connect.client_id, connect.user_name, event);
        let taken = connect.properties.packet_bytes_max.unwrap_or(u32::MAX);
        self.refuse(key, connect.version, reason, text, taken);
    }

    /// It is known who sent the CONNECT: opens the connection here, or sends it home.
    fn welcome(
        &mut self,
        now: Timestamp,
        key: ConnectionKey,
        connect: &Connect<'_>,
        stream: &[u8],
    ) -> Result<bool, (Reason, &'static str)> {
        if self.is_banned_as_seen(key, connect.client_id) {
            self.clients.counters.connections_banned += 1;
            return Err((Reason::Banned, "banned"));
        }
        let rule = self.check_client_id(key, connect.client_id)?;
        let assigned = connect
            .client_id
            .is_empty()
            .then(|| self.assign_client_id(rule.as_ref()));
        let client_id = assigned.as_deref().unwrap_or(connect.client_id);
        let home = home_shard(client_id, self.shards);
        let is_adopted = self
            .clients
            .connections
            .get(key)
            .is_some_and(|c| c.is_adopted);
        if home != self.id && !is_adopted {
            let left = self.clients.connections.remove(key);
            if let Some(left) = &left {
                let never = Timestamp::NEVER;
                self.timers
                    .set(left.timer_at, never, Owner::Connection(key));
            }
            self.admission.settle();
            self.clients.counters.connections_handed_over += 1;
            self.commands.push(Command::Handover {
                connection: key,
                home,
                bytes: stream.to_vec(),
                admitted: left.and_then(|connection| connection.admitted),
            });
            return Ok(false);
        }
        let holder = self.holder(key, client_id);
        if let Some(will) = &connect.will
            && let Some(rights) = holder.as_ref().and_then(|holder| holder.rights.as_ref())
            && !rights.allows(Access::Write, will.topic)
        {
            self.clients.counters.publishes_not_authorized += 1;
            return Err((Reason::NotAuthorized, "will topic"));
        }
        let client_id: Rc<str> = client_id.into();
        self.open(now, key, connect, client_id, assigned.is_some(), holder);
        Ok(true)
    }

    fn refuse_undecoded(&mut self, key: ConnectionKey, refused: ConnectError) {
        self.clients.counters.connects_refused += 1;
        match refused.version {
            Some(version) => {
                let text = refused.error.to_string();
                self.refuse(key, version, refused.error.reason(), &text, u32::MAX);
            }
            None => self.drop_connection(key),
        }
    }

    /// Answers a CONNECT with a failure and closes `[MQTT-3.2.2-7]`.
    pub(super) fn refuse(
        &mut self,
        key: ConnectionKey,
        version: Version,
        reason: Reason,
        text: &str,
        packet_bytes_max: u32,
    ) {
        let refusal = Refusal {
            reason,
            reason_string: Some(text),
            server_reference: None,
        };
        self.control(key, |out| refusal.encode(version, packet_bytes_max, out));
        self.drop_connection(key);
    }

    fn check_connect(
        &mut self,
        key: ConnectionKey,
        connect: &Connect<'_>,
    ) -> Result<(), (Reason, &'static str)> {
        let settings = &self.settings;
        let Some(connection) = self.clients.connections.get(key) else {
            return Err((Reason::UnspecifiedError, "the connection is gone"));
        };
        let policy = settings.listener(connection.listener);
        if policy.is_some_and(|policy| !policy.versions.contains(&connect.version)) {
            let text = "this listener serves other protocol versions";
            return Err((Reason::UnsupportedProtocolVersion, text));
        }
        let user_name = connection
            .admitted
            .as_ref()
            .and_then(|admitted| admitted.identity.user_name.as_deref())
            .or(connect.user_name);
        if connection.is_banned || self.banned.contain(connect.client_id, user_name) {
            self.clients.counters.connections_banned += 1;
            return Err((Reason::Banned, "banned"));
        }
        if connection.is_hasty {
            self.clients.counters.connections_refused_rate += 1;
            let text = "too many connections per second by this listener";
            return Err((Reason::ConnectionRateExceeded, text));
        }
        if connection.is_surplus {
            self.clients.counters.connections_refused_full += 1;
            return Err((Reason::QuotaExceeded, "connections_max is reached"));
        }
        // Who comes back takes or drops what waits for it: that is how memory becomes free.
        let is_known = self.clients.sessions.find(connect.client_id).is_some();
        if self.clients.shortage.stage >= Stage::Refuse && !is_known {
            self.clients.counters.connections_refused_memory += 1;
            return Err((Reason::QuotaExceeded, "limits.memory_max_bytes is near"));
        }
        if connect.client_id.len() > CLIENT_ID_BYTES_MAX {
            return Err((Reason::ClientIdentifierNotValid, "longer than 1024 bytes"));
        }
        if let Some(will) = &connect.will {
            if will.qos > settings.qos_max {
                return Err((Reason::QosNotSupported, "will QoS")); // [MQTT-3.2.2-12]
            }
            if will.retain && !settings.retain_available {
                return Err((Reason::RetainNotSupported, "will retain")); // [MQTT-3.2.2-13]
            }
            let topic = TopicName::new(will.topic, settings.limits.topics())
                .map_err(|_| (Reason::TopicNameInvalid, "will topic"))?;
            if topic.is_dollar() {
                return Err((Reason::NotAuthorized, "will topic begins with $"));
            }
        }
        Ok(())
    }

    /// A client identifier that nobody has and whose session lives here `[MQTT-3.2.2-16]`.
    fn assign_client_id(&mut self, rule: Option<&ClientIdRule>) -> String {
        let prefix = match rule {
            Some(ClientIdRule::Exactly(only)) => return only.to_string(),
            Some(ClientIdRule::OfUser(name)) => name,
            None => "ringmq",
        };
        loop {
            // A step of a full-period generator: no value comes twice in a run.
            self.seed = self.seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut mixed = self.seed;
            mixed = (mixed ^ mixed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
            let id = format!(
                "{prefix}{}{:016x}",
                ClientIdRule::SEPARATOR,
                mixed ^ mixed >> 31
            );
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
        is_assigned: bool,
        holder: Option<Box<Holder>>,
    ) {
        let known = self.clients.sessions.find(&client_id);
        let resumed = known.and_then(|session| {
            // Another user gets nothing of what the session holds.
            let is_clean = connect.clean_start || !self.is_holder(session, holder.as_deref());
            self.take_over(session, is_clean, now)
        });
        let session_key = resumed.unwrap_or_else(|| {
            let session = Session::new(Rc::clone(&client_id), connect.version);
            self.clients.sessions.insert(session)
        });
        self.hand_session_to(session_key, holder);
        let expiry_seconds = self.granted_expiry(connect);
        let keep_alive = self.open_connection(key, session_key, connect);
        let listener = self.clients.connections.get(key).map_or(0, |c| c.listener);
        let queue_bytes_max = self.settings.client_limits(listener).queue_bytes_max;
        if let Some(session) = self.clients.sessions.get_mut(session_key) {
            session.version = connect.version;
            session.connection = Some(key);
            session.queue_bytes_max = queue_bytes_max;
            session.expiry_seconds = expiry_seconds;
            session.expires_at = Timestamp::NEVER;
            session.will_at = Timestamp::NEVER;
            session.will = connect
                .will
                .as_ref()
                .map(|will| Box::new(stored_will(will)));
        }
        let method = self
            .clients
            .connections
            .get(key)
            .and_then(|c| c.admitted.as_ref());
        let method = method.map_or("", |admitted| admitted.identity.method);
        self.note_session(session_key, Event::Connected(method));
        self.arm_connection(key);
        self.connack(
            key,
            connect,
            &client_id,
            is_assigned,
            resumed.is_some(),
            keep_alive,
        );
        if resumed.is_some() {
            self.groups_changed(session_key);
            self.clients.resend(session_key, now);
            self.clients.pump(session_key, now);
            self.pump_replay(session_key, now);
        }
    }

    /// Ends the older connection of a session `[MQTT-3.1.4-3]`, and the session itself if it must not go
    /// on. Returns the session to resume.
    fn take_over(
        &mut self,
        session_key: SessionKey,
        clean_start: bool,
        now: Timestamp,
    ) -> Option<SessionKey> {
        let session = self.clients.sessions.get(session_key)?;
        let ends = clean_start || session.ends_with_connection();
        if let Some(older) = session.connection {
            self.clients.counters.takeovers += 1;
            self.note_session(session_key, Event::TakenOver);
            let text = "another connection with the same client identifier";
            self.say_goodbye(older, Reason::SessionTakenOver, text);
            self.detach(older, WillFate::Due, now);
        }
        if ends {
            self.end_session(session_key, now);
        }
        // A session that ended with its connection is gone by now.
        self.clients.sessions.get(session_key).map(|_| session_key)
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

    /// Sets the connection up; returns the keep alive that the client has to use instead of its own.
    fn open_connection(
        &mut self,
        key: ConnectionKey,
        session: SessionKey,
        connect: &Connect<'_>,
    ) -> Option<u16> {
        let settings = &self.settings;
        let max = settings.keep_alive_seconds_max;
        let asked = connect.keep_alive_seconds;
        // Only 5.0 can be told another keep alive; 3.x keeps the one it knows of.
        let imposed =
            (connect.version.is_v5() && max > 0 && (asked == 0 || asked > max)).then_some(max);
        let connection = self.clients.connections.get_mut(key)?;
        connection.session = Some(session);
        self.admission.settle();
        connection.silence_ms_max = u64::from(imposed.unwrap_or(asked)) * 1500;
        connection.packet_bytes_max = connect.properties.packet_bytes_max.unwrap_or(u32::MAX);
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
        connection.identity_ends_at = connection
            .admitted
            .as_ref()
            .and_then(|admitted| admitted.ends_at)
            .unwrap_or(Timestamp::NEVER);
        connection.authentication_method = connect.properties.authentication_method.map(Into::into);
        imposed
    }

    fn connack(
        &mut self,
        key: ConnectionKey,
        connect: &Connect<'_>,
        client_id: &str,
        is_assigned: bool,
        session_present: bool,
        server_keep_alive_seconds: Option<u16>,
    ) {
        let granted = self.granted_expiry(connect);
        let settings = Rc::clone(&self.settings);
        let response_information = settings
            .response_information
            .as_ref()
            .filter(|_| connect.properties.request_response_information)
            .map(|prefix| format!("{prefix}{client_id}"));
        let exchange_end = self
            .clients
            .connections
            .get_mut(key)
            .and_then(|connection| connection.admitted.as_mut()?.exchange_end.take());
        let limits = &settings.limits;
        let connack = Connack {
            session_present,
            session_expiry_seconds: (granted != connect.properties.session_expiry_seconds)
                .then_some(granted),
            receive_maximum: limits.receive_maximum,
            qos_max: Some(settings.qos_max).filter(|qos| *qos < Qos::ExactlyOnce),
            packet_bytes_max: (limits.max_packet_bytes < crate::engine::limits::PACKET_BYTES_MAX)
                .then_some(limits.max_packet_bytes as u32),
            assigned_client_id: is_assigned.then_some(client_id),
            topic_alias_max: limits.topic_alias_max,
            server_keep_alive_seconds,
            response_information: response_information.as_deref(),
            authentication: connect
                .properties
                .authentication_method
                .zip(exchange_end.as_deref()),
            unavailable: [
                !settings.retain_available,
                !settings.wildcard_subscriptions,
                !settings.subscription_identifiers,
                !settings.shared_subscriptions,
            ],
        };
        self.control(key, |out| connack.encode(connect.version, out));
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
