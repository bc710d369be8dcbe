//! The scenarios of `rumqttc`, the same for its 3.1.1 and its 5.0 client.

use crate::support::{PATIENCE, unique};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

/// A message as a scenario sees it.
#[derive(Debug, PartialEq, Eq)]
pub struct Got {
    pub payload: Vec<u8>,
    pub qos: u8,
    pub retain: bool,
}

/// What a client's event loop reports.
pub enum Event {
    Connected { session_present: bool },
    Subscribed,
    Message(Got),
}

/// The event loop of a client in its thread; ends without DISCONNECT when told.
pub struct Loop {
    events: Receiver<Event>,
    messages: Vec<Got>,
    stop: Arc<AtomicBool>,
    wake: Box<dyn Fn()>,
    thread: Option<JoinHandle<()>>,
}

impl Loop {
    /// Runs `turn` until told to stop or until it answers false. `turn` may block; `wake` ends that.
    pub fn start(
        wake: impl Fn() + 'static,
        mut turn: impl FnMut(&Sender<Event>) -> bool + Send + 'static,
    ) -> Self {
        let (sender, events) = channel();
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = std::thread::spawn(
            move || {
                while !told.load(Ordering::Relaxed) && turn(&sender) {}
            },
        );
        Loop {
            events,
            messages: Vec::new(),
            stop,
            wake: Box::new(wake),
            thread: Some(thread),
        }
    }

    /// The session present flag of the CONNACK.
    pub fn connected(&mut self) -> bool {
        self.until(|event| match event {
            Event::Connected { session_present } => Ok(session_present),
            other => Err(other),
        })
    }

    pub fn subscribed(&mut self) {
        self.until(|event| match event {
            Event::Subscribed => Ok(()),
            other => Err(other),
        });
    }

    pub fn get(&mut self) -> Got {
        if !self.messages.is_empty() {
            return self.messages.remove(0);
        }
        self.until(|event| match event {
            Event::Message(got) => Ok(got),
            other => Err(other),
        })
    }

    fn until<T>(&mut self, pick: impl Fn(Event) -> Result<T, Event>) -> T {
        loop {
            let event = self
                .events
                .recv_timeout(PATIENCE)
                .expect("an event in time");
            match pick(event) {
                Ok(found) => return found,
                Err(Event::Message(got)) => self.messages.push(got),
                Err(_) => {}
            }
        }
    }

    /// Drops the connection as a killed process would.
    pub fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        (self.wake)();
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the client's thread ends well");
        }
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.end();
        }
    }
}

/// A client of either version.
pub trait Peer: Sized {
    fn open(port: u16, id: &str, persistent: bool, will: Option<&str>) -> (Self, bool);
    fn events(&mut self) -> &mut Loop;
    fn into_events(self) -> Loop;
    fn send_subscribe(&mut self, filter: &str, qos: u8);
    fn publish(&mut self, topic: &str, qos: u8, retain: bool, payload: &[u8]);

    fn fresh(port: u16) -> Self {
        Self::open(port, &unique("rumqttc"), false, None).0
    }

    fn subscribe(&mut self, filter: &str, qos: u8) {
        self.send_subscribe(filter, qos);
        self.events().subscribed();
    }

    fn get(&mut self) -> Got {
        self.events().get()
    }

    fn text(&mut self) -> String {
        String::from_utf8(self.get().payload).expect("the payload is text")
    }
}

pub fn round_trips<P: Peer>(port: u16) {
    let (mut a, mut b, topic) = (P::fresh(port), P::fresh(port), unique("rumqttc"));
    a.subscribe(&topic, 2);
    for qos in 0..=2 {
        b.publish(&topic, qos, false, b"hello");
        let wanted = Got {
            payload: b"hello".to_vec(),
            qos,
            retain: false,
        };
        assert_eq!(a.get(), wanted);
    }
}

pub fn retained<P: Peer>(port: u16) {
    let (mut a, mut b, topic) = (P::fresh(port), P::fresh(port), unique("rumqttc"));
    a.subscribe(&topic, 1);
    for payload in ["old", "kept"] {
        a.publish(&topic, 1, true, payload.as_bytes());
        assert_eq!(a.text(), payload);
    }
    b.subscribe(&topic, 1);
    let got = b.get();
    assert!(got.retain && got.payload == b"kept", "{got:?}");
    a.publish(&topic, 1, true, b"");
    assert_eq!(a.text(), "");
    let mut c = P::fresh(port);
    c.subscribe(&topic, 1);
    a.publish(&topic, 1, false, b"live");
    assert_eq!(c.text(), "live");
}

pub fn will<P: Peer>(port: u16) {
    let (mut watcher, topic) = (P::fresh(port), unique("rumqttc"));
    watcher.subscribe(&topic, 1);
    let (doomed, _) = P::open(port, &unique("rumqttc"), false, Some(&topic));
    doomed.into_events().kill();
    assert_eq!(watcher.text(), "gone");
}

pub fn resume<P: Peer>(port: u16) {
    let (mut sender, topic, id) = (P::fresh(port), unique("rumqttc"), unique("rumqttc"));
    sender.subscribe(&topic, 1);
    let (mut first, present) = P::open(port, &id, true, None);
    assert!(!present);
    first.subscribe(&topic, 2);
    first.into_events().kill();
    for n in 0..20 {
        sender.publish(&topic, 2, false, n.to_string().as_bytes());
        assert_eq!(sender.text(), n.to_string());
    }
    let (mut again, present) = P::open(port, &id, true, None);
    assert!(present);
    for n in 0..20 {
        assert_eq!(again.text(), n.to_string());
    }
}

pub fn shared<P: Peer>(port: u16) {
    let (mut sender, topic) = (P::fresh(port), unique("rumqttc"));
    let mut members: Vec<P> = (0..4).map(|_| P::fresh(port)).collect();
    for member in &mut members {
        member.subscribe(&format!("$share/g/{topic}"), 1);
        member.subscribe(&format!("{topic}/end"), 1);
    }
    for n in 0..100 {
        sender.publish(&topic, 1, false, n.to_string().as_bytes());
    }
    sender.publish(&format!("{topic}/end"), 1, false, b"end");
    let mut seen = Vec::new();
    for member in &mut members {
        loop {
            let text = member.text();
            if text == "end" {
                break;
            }
            seen.push(text.parse::<u32>().expect("a number"));
        }
    }
    seen.sort_unstable();
    assert_eq!(seen, Vec::from_iter(0..100));
}

pub fn large<P: Peer>(port: u16) {
    let (mut a, mut b, topic) = (P::fresh(port), P::fresh(port), unique("rumqttc"));
    let payload: Vec<u8> = (0..10 * 1024 * 1024u32).map(|n| n as u8).collect();
    a.subscribe(&topic, 1);
    b.publish(&topic, 1, false, &payload);
    assert!(a.get().payload == payload, "the payload is whole");
}

pub fn thousand<P: Peer>(port: u16) {
    let (mut a, mut b) = (P::fresh(port), P::fresh(port));
    for qos in 0..=2 {
        let topic = unique("rumqttc");
        a.subscribe(&topic, qos);
        for n in 0..1000 {
            b.publish(&topic, qos, false, n.to_string().as_bytes());
        }
        for n in 0..1000 {
            assert_eq!(a.text(), n.to_string(), "at QoS {qos}");
        }
    }
}
