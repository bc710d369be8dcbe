//! The 3.1.1 client of `rumqttc`.

use super::broker;
use super::rumqttc_scenarios::{self as scenarios, Event, Got, Loop, Peer};
use rumqttc::{Client, LastWill, MqttOptions, Packet, QoS};

pub struct V4 {
    client: Client,
    events: Loop,
}

fn qos(level: u8) -> QoS {
    rumqttc::qos(level).expect("QoS 0 to 2")
}

impl Peer for V4 {
    fn open(port: u16, id: &str, persistent: bool, will: Option<&str>) -> (Self, bool) {
        let mut options = MqttOptions::new(id, "127.0.0.1", port);
        options.set_clean_session(!persistent);
        options.set_max_packet_size(16 << 20, 16 << 20);
        if let Some(topic) = will {
            options.set_last_will(LastWill::new(topic, "gone", QoS::AtLeastOnce, false));
        }
        let (client, mut connection) = Client::new(options, 10);
        let waker = client.clone();
        let wake = move || {
            // Any request makes the event loop turn once.
            let _ = waker.try_publish("wake", QoS::AtMostOnce, false, "");
        };
        let events = Loop::start(wake, move |out| {
            let event = match connection.recv() {
                Ok(Ok(rumqttc::Event::Incoming(packet))) => packet,
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
        let mut peer = V4 { client, events };
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
            .publish(topic, qos(level), retain, payload)
            .expect("publish");
    }
}

macro_rules! scenarios {
    ($($name:ident),+) => {
        $(fn $name(shards: usize) {
            scenarios::$name::<V4>(broker(shards).address().port());
        })+
        crate::on_shards!([1, 2, 4] $($name),+);
    };
}

scenarios!(round_trips, retained, will, resume, large, thousand);
