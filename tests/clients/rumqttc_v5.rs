//! The 5.0 client of `rumqttc`.

use super::broker;
use super::rumqttc_scenarios::{self as scenarios, Event, Got, Loop, Peer};
use crate::support::{PATIENCE, unique};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{ConnectProperties, LastWill, Packet, PublishProperties};
use rumqttc::v5::{Client, MqttOptions};
use std::sync::mpsc::channel;

pub struct V5 {
    client: Client,
    events: Loop,
}

fn qos(level: u8) -> QoS {
    rumqttc::v5::mqttbytes::qos(level).expect("QoS 0 to 2")
}

fn options(port: u16, id: &str) -> MqttOptions {
    let mut options = MqttOptions::new(id, "127.0.0.1", port);
    options.set_max_packet_size(Some(16 << 20));
    options
}

impl Peer for V5 {
    fn open(port: u16, id: &str, persistent: bool, will: Option<&str>) -> (Self, bool) {
        let mut options = options(port, id);
        options.set_clean_start(!persistent);
        if persistent {
            let mut properties = ConnectProperties::new();
            properties.session_expiry_interval = Some(600);
            properties.max_packet_size = Some(16 << 20);
            options.set_connect_properties(properties);
        }
        if let Some(topic) = will {
            options.set_last_will(LastWill::new(topic, "gone", QoS::AtLeastOnce, false, None));
        }
        let (client, mut connection) = Client::new(options, 10);
        let waker = client.clone();
        let wake = move || {
            // Any request makes the event loop turn once.
            let _ = waker.try_publish("wake", QoS::AtMostOnce, false, "");
        };
        let events = Loop::start(wake, move |out| {
            let event = match connection.recv() {
                Ok(Ok(rumqttc::v5::Event::Incoming(packet))) => packet,
                Ok(Ok(_)) => return true,
                _ => return false,
            };
            let event = match event {
                Packet::ConnAck(ack) => Event::Connected {
                    session_present: ack.session_present,
                },
                Packet::SubAck(_) => Event::Subscribed,
                Packet::Publish(publish) => Event::Message(Got {
                    payload: publish.payload.to_vec(),
                    qos: publish.qos as u8,
                    retain: publish.retain,
                }),
                _ => return true,
            };
            out.send(event).is_ok()
        });
        let mut peer = V5 { client, events };
        let present = peer.events.connected();
        (peer, present)
    }

    fn events(&mut self) -> &mut Loop {
        &mut self.events
    }

    fn into_events(self) -> Loop {
        self.events
    }

    fn send_subscribe(&mut self, filter: &str, level: u8) {
        self.client
            .subscribe(filter, qos(level))
            .expect("subscribe");
    }

    fn publish(&mut self, topic: &str, level: u8, retain: bool, payload: &[u8]) {
        self.client
            .publish(topic, qos(level), retain, payload.to_vec())
            .expect("publish");
    }
}

fn properties(shards: usize) {
    // It stops when nobody holds it any more.
    let broker = broker(shards);
    let port = broker.address().port();
    let topic = unique("rumqttc");
    let (client, mut connection) = Client::new(options(port, &unique("rumqttc")), 10);
    let (sender, received) = channel();
    let thread = std::thread::spawn(move || {
        for event in connection.iter() {
            match event {
                Ok(rumqttc::v5::Event::Incoming(Packet::Publish(publish))) => {
                    let _ = sender.send(publish.properties);
                }
                Ok(_) => {}
                Err(_) => return,
            }
        }
    });
    let sent = PublishProperties {
        payload_format_indicator: Some(1),
        content_type: Some("text/plain".into()),
        response_topic: Some("answer/here".into()),
        correlation_data: Some(vec![0, 255, 128].into()),
        user_properties: [("b", "1"), ("a", "2"), ("b", "3")]
            .map(|(name, value)| (name.into(), value.into()))
            .to_vec(),
        ..PublishProperties::default()
    };
    client
        .subscribe(&topic, QoS::AtLeastOnce)
        .expect("subscribe");
    client
        .publish_with_properties(&topic, QoS::AtLeastOnce, false, "x", sent.clone())
        .expect("publish");
    let got = received.recv_timeout(PATIENCE).expect("the message");
    assert_eq!(got, Some(sent));
    client.disconnect().expect("disconnect");
    thread.join().expect("the client's thread ends well");
}

macro_rules! scenarios {
    ($($name:ident),+) => {
        $(fn $name(shards: usize) {
            scenarios::$name::<V5>(broker(shards).address().port());
        })+
        crate::on_shards!([1, 2, 4] $($name),+);
    };
}

scenarios!(round_trips, retained, will, resume, shared, large, thousand);
crate::on_shards!([1, 2, 4] properties);
