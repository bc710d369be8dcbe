//! CONNECT as a test writes it, and how a connection is opened with it.

use super::broker::Broker;
use super::client::Client;
use super::decode::Packet;
use super::wire::{Props, Version, frame, prop, put_str};

/// A will message.
#[derive(Clone, Debug)]
pub struct Will {
    pub topic: String,
    pub payload: Vec<u8>,
    pub qos: u8,
    pub retain: bool,
    /// Will properties (5.0), will delay included.
    pub props: Props,
}

impl Will {
    pub fn new(topic: &str, payload: impl AsRef<[u8]>) -> Self {
        Will {
            topic: topic.to_owned(),
            payload: payload.as_ref().to_vec(),
            qos: 0,
            retain: false,
            props: Props::new(),
        }
    }

    pub fn qos(mut self, qos: u8) -> Self {
        self.qos = qos;
        self
    }

    pub fn retain(mut self) -> Self {
        self.retain = true;
        self
    }

    /// Sets the will delay in seconds (5.0).
    pub fn delay(mut self, seconds: u32) -> Self {
        self.props = self.props.four(prop::WILL_DELAY, seconds);
        self
    }

    pub fn props(mut self, props: Props) -> Self {
        self.props = props;
        self
    }
}

/// A CONNECT; clean, without keep alive, will or login unless told.
#[derive(Clone, Debug)]
pub struct Connect {
    pub version: Version,
    pub client_id: String,
    pub clean: bool,
    pub keep_alive_seconds: u16,
    pub will: Option<Will>,
    pub user_name: Option<Vec<u8>>,
    pub password: Option<Vec<u8>>,
    pub props: Props,
}

impl Connect {
    pub fn new(version: Version, client_id: &str) -> Self {
        Connect {
            version,
            client_id: client_id.to_owned(),
            clean: true,
            keep_alive_seconds: 0,
            will: None,
            user_name: None,
            password: None,
            props: Props::new(),
        }
    }

    pub fn v4(client_id: &str) -> Self {
        Self::new(Version::V4, client_id)
    }

    pub fn v5(client_id: &str) -> Self {
        Self::new(Version::V5, client_id)
    }

    /// Resumes a session if there is one, and keeps it for an hour (5.0) or for good.
    pub fn persistent(self) -> Self {
        let expiry = self.version == Version::V5 && self.props.find(prop::SESSION_EXPIRY).is_none();
        let mut connect = self.resume();
        if expiry {
            connect.props = connect.props.four(prop::SESSION_EXPIRY, 3600);
        }
        connect
    }

    /// Clears Clean Session or Clean Start and leaves the expiry as it is.
    pub fn resume(mut self) -> Self {
        self.clean = false;
        self
    }

    /// Sets the session expiry in seconds (5.0).
    pub fn expiry(mut self, seconds: u32) -> Self {
        self.props.0.retain(|(id, _)| *id != prop::SESSION_EXPIRY);
        self.props = self.props.four(prop::SESSION_EXPIRY, seconds);
        self
    }

    pub fn keep_alive(mut self, seconds: u16) -> Self {
        self.keep_alive_seconds = seconds;
        self
    }

    pub fn will(mut self, will: Will) -> Self {
        self.will = Some(will);
        self
    }

    pub fn login(mut self, user_name: impl AsRef<[u8]>, password: impl AsRef<[u8]>) -> Self {
        self.user_name = Some(user_name.as_ref().to_vec());
        self.password = Some(password.as_ref().to_vec());
        self
    }

    /// Appends properties (5.0).
    pub fn props(mut self, props: Props) -> Self {
        self.props.0.extend(props.0);
        self
    }

    /// The connect flags this CONNECT has.
    pub fn flags(&self) -> u8 {
        let will = self
            .will
            .as_ref()
            .map_or(0, |will| 0x04 | will.qos << 3 | u8::from(will.retain) << 5);
        u8::from(self.clean) << 1
            | will
            | u8::from(self.password.is_some()) << 6
            | u8::from(self.user_name.is_some()) << 7
    }

    /// The packet's bytes.
    pub fn encode(&self) -> Vec<u8> {
        self.encode_with_flags(self.flags())
    }

    /// The packet's bytes under other connect flags than its fields say.
    pub fn encode_with_flags(&self, flags: u8) -> Vec<u8> {
        let mut body = Vec::new();
        let name = match self.version {
            Version::V3 => "MQIsdp",
            Version::V4 | Version::V5 => "MQTT",
        };
        put_str(&mut body, name);
        body.extend_from_slice(&[self.version as u8, flags]);
        body.extend_from_slice(&self.keep_alive_seconds.to_be_bytes());
        let v5 = self.version == Version::V5;
        if v5 {
            self.props.put(&mut body);
        }
        put_str(&mut body, &self.client_id);
        if let Some(will) = &self.will {
            if v5 {
                will.props.put(&mut body);
            }
            put_str(&mut body, &will.topic);
            put_str(&mut body, &will.payload);
        }
        for field in [&self.user_name, &self.password].into_iter().flatten() {
            put_str(&mut body, field);
        }
        frame(0x10, &body)
    }

    /// Opens a connection that the broker has to accept.
    pub fn open(&self, broker: &Broker) -> Client {
        let (client, answer) = self.attempt(broker);
        match answer {
            Some(Packet::Connack { code: 0, .. }) => client,
            other => panic!("{} was not accepted: {other:?}", self.client_id),
        }
    }

    /// Opens a connection and gives the broker's first packet, `None` if it just closed.
    pub fn attempt(&self, broker: &Broker) -> (Client, Option<Packet>) {
        self.attempt_over(Client::dial(broker, self.version))
    }

    /// The same over a connection that stands already.
    pub fn attempt_over(&self, mut client: Client) -> (Client, Option<Packet>) {
        // Whose address is not served may be closed already.
        client.send_lossy(&self.encode());
        let answer = client.next_packet();
        if let Some(Packet::Connack {
            session_present,
            props,
            ..
        }) = &answer
        {
            client.session_present = *session_present;
            client.connack = props.clone();
        }
        (client, answer)
    }

    /// Opens a connection that the broker has to refuse: by CONNACK with one of `codes`, or by a bare
    /// close where `codes` is empty; then the broker closes.
    pub fn expect_refused(&self, broker: &Broker, codes: &[u8]) {
        let (mut client, answer) = self.attempt(broker);
        match answer {
            None => assert!(codes.is_empty(), "closed without the CONNACK {codes:02x?}"),
            Some(Packet::Connack { code, .. }) => {
                assert!(
                    codes.contains(&code),
                    "CONNACK {code:#04x}, expected {codes:02x?}"
                );
                client.expect_closed();
            }
            Some(other) => panic!("expected a refusal, got {other:?}"),
        }
    }
}
