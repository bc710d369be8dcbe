//! What providers document of their brokers, as presets of a bridge. Each rule stands in the README's table,
//! with the page that says it. What a preset sets is a default; what would be refused there is refused here.

use super::file::BridgePreset;
use crate::engine::bridge::plan::{Known, Protocol};
use crate::engine::message::Qos;
use std::ops::RangeInclusive;

/// What a provider documents of its broker.
pub(super) struct Rules {
    pub name: &'static str,
    pub protocols: &'static [Protocol],
    pub keep_alive_seconds: RangeInclusive<u16>,
    pub client_id_bytes_max: usize,
    pub reconnect_ms_min: Option<u64>,
    pub has_tls_only: bool,
    pub needs_client_id: bool,
    pub needs_user: bool,
    pub known: Known,
}

/// 5.0, else 3.1.1 as clients speak it: a service that does not know the bridge bit may close on it.
const AS_CLIENT: &[Protocol] = &[Protocol::V5, Protocol::V3_1_1];
const AS_BRIDGE: &[Protocol] = &[Protocol::V5, Protocol::V3_1_1_BRIDGE, Protocol::V3_1_1];

/// By TLS, as clients speak, and nothing else.
const CLOUD: Rules = Rules {
    name: "",
    protocols: AS_CLIENT,
    keep_alive_seconds: 0..=65_534,
    client_id_bytes_max: 65_535,
    reconnect_ms_min: None,
    has_tls_only: true,
    needs_client_id: false,
    needs_user: false,
    known: Known::NOTHING,
};

const RABBITMQ: Rules = Rules {
    name: "rabbitmq",
    has_tls_only: false,
    known: Known {
        qos_max: Qos::AtLeastOnce,
        ..Known::NOTHING
    },
    ..CLOUD
};

const NATS: Rules = Rules {
    name: "nats",
    protocols: &[Protocol::V3_1_1],
    has_tls_only: false,
    known: Known {
        // 2.10 takes QoS 2, and dots.
        qos_max: Qos::AtLeastOnce,
        topic_never_has: b" .",
        ..Known::NOTHING
    },
    ..CLOUD
};

impl BridgePreset {
    /// What it documents.
    pub fn rules(self) -> Rules {
        match self {
            BridgePreset::AwsIotCore => Rules {
                name: "aws-iot-core",
                keep_alive_seconds: 30..=1_200,
                client_id_bytes_max: 128,
                // One CONNECT in a second; up to half of the wait is left out.
                reconnect_ms_min: Some(2_000),
                known: Known {
                    qos_max: Qos::AtLeastOnce,
                    payload_bytes_max: 128 * 1024,
                    topic_bytes_max: 256,
                    topic_levels_max: 8,
                    filters_per_subscribe_max: 8,
                    ..Known::NOTHING
                },
                ..CLOUD
            },
            BridgePreset::AzureIotHub => Rules {
                name: "azure-iot-hub",
                protocols: &[Protocol::V3_1_1],
                keep_alive_seconds: 1..=1_177,
                client_id_bytes_max: 128,
                needs_client_id: true,
                known: Known {
                    qos_max: Qos::AtLeastOnce,
                    takes_retained: false,
                    payload_bytes_max: 256 * 1024,
                    ..Known::NOTHING
                },
                ..CLOUD
            },
            BridgePreset::AzureEventGrid => Rules {
                name: "azure-event-grid",
                keep_alive_seconds: 1..=1_160,
                client_id_bytes_max: 128,
                needs_client_id: true,
                known: Known {
                    qos_max: Qos::AtLeastOnce,
                    takes_retained: false,
                    payload_bytes_max: 512 * 1024,
                    ..Known::NOTHING
                },
                ..CLOUD
            },
            BridgePreset::HivemqCloud => Rules {
                name: "hivemq-cloud",
                needs_user: true,
                ..CLOUD
            },
            BridgePreset::EmqxCloud => Rules {
                name: "emqx-cloud",
                needs_user: true,
                known: Known {
                    payload_bytes_max: 1024 * 1024,
                    ..Known::NOTHING
                },
                ..CLOUD
            },
            BridgePreset::Rabbitmq => RABBITMQ,
            BridgePreset::Nats => NATS,
            BridgePreset::Mosquitto => Rules {
                name: "mosquitto",
                protocols: AS_BRIDGE,
                has_tls_only: false,
                ..CLOUD
            },
        }
    }
}
