//! Records as the tests of several files want them.

use crate::engine::codec::Version;
use crate::engine::keys::{Origin, SessionNumber};
use crate::engine::message::{LocalMessage, Message, Qos};
use crate::engine::record::{Opened, Record};
use crate::engine::session::{Delivery, SubscriptionIds};
use std::sync::Arc;

/// A session that lasts for a minute without its client.
pub fn opened(session: SessionNumber, client_id: &str) -> Record {
    Record::Opened(Box::new(Opened {
        session,
        client_id: client_id.into(),
        version: Version::V5,
        user_name: None,
        own_rules: None,
        expiry_seconds: 60,
        queue_bytes_max: 1_000,
        will: None,
    }))
}

/// A message that is not retained and does not expire.
pub fn message(topic: &str, payload: &str, qos: Qos) -> LocalMessage {
    let message = Message::new(topic, b"", payload.as_bytes(), qos, false, None);
    LocalMessage::new(Arc::new(message))
}

/// It is on its way to a session, at its own QoS.
pub fn queued(
    session: SessionNumber,
    entry: u64,
    message: &LocalMessage,
    origin: Option<Origin>,
) -> Record {
    let delivery = Delivery {
        message: message.clone(),
        qos: message.qos,
        retain: false,
        subscription_ids: SubscriptionIds::None,
        group: None,
        entry,
        queued_at_ds: 0,
    };
    Record::Queued {
        session,
        delivery,
        origin,
    }
}
