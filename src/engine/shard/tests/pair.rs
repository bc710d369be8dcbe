//! Two shards, letter by letter: what once went wrong between them.

use super::super::{Settings, ShardCore};
use crate::engine::keys::ConnectionKey;
use crate::engine::mail::Mail;
use crate::engine::record::Record;
use crate::engine::route::home_shard;
use crate::engine::shard::ConnectionCounts;
use crate::engine::time::Timestamp;
use std::collections::VecDeque;
use std::sync::Arc;

pub(super) const NOW: Timestamp = Timestamp::from_ms(1_000);

/// Two shards and what is on its way to each.
pub(super) struct Pair {
    pub cores: [ShardCore; 2],
    mail: [VecDeque<Mail>; 2],
    connects: usize,
    /// The last ticket that was written and not stored.
    written: [u64; 2],
}

/// SUBSCRIBE to `t` at QoS 2.
pub(super) const SUBSCRIBE_TO_T: &[u8] = b"\x82\x06\x00\x07\x00\x01t\x02";

/// A session that outlives its connection, or one that does not.
pub(super) const LASTS: u8 = 0;
pub(super) const CLEAN: u8 = 2;

impl Pair {
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    pub fn with(set: impl FnOnce(&mut Settings)) -> Self {
        let connections = Arc::new(ConnectionCounts::new(1));
        let mut settings = Settings::default();
        set(&mut settings);
        let core = |id| ShardCore::new(id, 2, settings.clone(), 1, Arc::clone(&connections));
        Pair {
            cores: [core(0), core(1)],
            mail: [VecDeque::new(), VecDeque::new()],
            connects: 0,
            written: [0; 2],
        }
    }

    /// A 3.1.1 client with a clean session on its home shard.
    pub fn connect(&mut self, shard: usize) -> ConnectionKey {
        self.connect_as(shard, 2)
    }

    /// The same with these flags.
    pub fn connect_as(&mut self, shard: usize, flags: u8) -> ConnectionKey {
        let key = self.open(shard, flags);
        self.connects += 1;
        self.store(shard);
        assert_eq!(self.hear(shard, key), b"\x20\x02\x00\x00");
        key
    }

    /// The last client comes again and resumes its session.
    pub fn connect_again(&mut self, shard: usize) -> ConnectionKey {
        self.connects -= 1;
        let key = self.open(shard, 0);
        self.connects += 1;
        key
    }

    fn open(&mut self, shard: usize, flags: u8) -> ConnectionKey {
        let ids = (b'a'..=b'z').map(|letter| char::from(letter).to_string());
        let mut at_home = ids.filter(|id| usize::from(home_shard(id, 2)) == shard);
        let id = at_home
            .nth(self.connects)
            .expect("an identifier of that shard");
        let key = self.cores[shard].accept(NOW, 0).unwrap();
        let head = [
            b"\x10\x0D\x00\x04MQTT\x04",
            &[flags][..],
            b"\x00\x00\x00\x01",
        ];
        let connect = [&head.concat(), id.as_bytes()].concat();
        self.receive(shard, key, &connect);
        key
    }

    /// All that a shard has told to its store so far is stored.
    pub fn store(&mut self, shard: usize) -> Vec<Record> {
        let told: Vec<_> = self.cores[shard].take_persist().collect();
        let last = told.last().map_or(self.written[shard], |last| last.ticket);
        self.cores[shard].stored(NOW, last);
        told.into_iter().map(|persist| persist.record).collect()
    }

    /// The operating system has all that a shard has told so far; nothing more is stored.
    pub fn write(&mut self, shard: usize) {
        let last = self.cores[shard].take_persist().next_back();
        if let Some(last) = last {
            self.written[shard] = last.ticket;
            self.cores[shard].written(last.ticket);
        }
    }

    pub fn receive(&mut self, shard: usize, key: ConnectionKey, bytes: &[u8]) {
        self.cores[shard].receive(NOW, key, bytes);
    }

    /// All that a shard has to say to the other goes on its way.
    pub fn flush(&mut self, shard: usize) {
        let letters = self.take_mail(shard);
        self.put(1 - shard, letters);
    }

    /// All that a shard has to say to the other.
    pub fn take_mail(&mut self, shard: usize) -> Vec<Mail> {
        let mut letters = Vec::new();
        self.cores[shard].stage_kept();
        loop {
            self.cores[shard].staged().flush(|_, mail| {
                letters.push(mail);
                Ok(())
            });
            if !self.cores[shard].mail_flushed() {
                return letters;
            }
        }
    }

    /// Letters are on their way to a shard.
    pub fn put(&mut self, shard: usize, letters: Vec<Mail>) {
        self.mail[shard].extend(letters);
    }

    /// A turn begins, what was filled before is taken to be sent.
    pub fn turn(&mut self, shard: usize) {
        while self.cores[shard].next_ready().is_some() {}
        self.cores[shard].begin_turn();
    }

    /// A turn's work on what waits.
    pub fn work_off(&mut self, shard: usize) {
        self.turn(shard);
        self.cores[shard].work_off(NOW);
    }

    /// A shard takes its mail.
    pub fn drain(&mut self, shard: usize) {
        self.cores[shard].begin_drain();
        while let Some(mail) = self.mail[shard].pop_front() {
            self.cores[shard].mail(NOW, 1 - shard as u16, mail);
        }
        self.cores[shard].end_drain(NOW);
    }

    pub fn settle(&mut self) {
        for _ in 0..20 {
            for shard in 0..2 {
                self.flush(shard);
                self.drain(shard);
            }
        }
    }

    /// The same, and what both have to keep is stored.
    pub fn settle_all(&mut self) {
        for _ in 0..4 {
            self.settle();
            self.store(0);
            self.store(1);
        }
        self.settle();
    }

    /// What the broker has for a client.
    pub fn hear(&mut self, shard: usize, key: ConnectionKey) -> Vec<u8> {
        let mut heard = Vec::new();
        while let Some(batch) = self.cores[shard].take_outgoing(key) {
            heard.extend(batch.slices().flatten());
            self.cores[shard].sent(NOW, key, batch);
        }
        heard
    }
}

#[test]
fn what_was_routed_for_a_subscription_that_is_gone_is_not_behind_newer_retained_messages() {
    let mut pair = Pair::new();
    let subscriber = pair.connect(0);
    let publisher = pair.connect(1);
    pair.receive(0, subscriber, b"\x82\x06\x00\x01\x00\x01t\x00");
    pair.settle();
    assert_eq!(pair.hear(0, subscriber), b"\x90\x03\x00\x01\x00");
    // The publisher's shard knows that nobody wants it before it hears that somebody does again.
    pair.receive(0, subscriber, b"\xA2\x05\x00\x02\x00\x01t");
    pair.flush(0);
    pair.receive(1, publisher, b"\x31\x04\x00\x01t1");
    pair.flush(1);
    pair.drain(1);
    pair.receive(1, publisher, b"\x31\x04\x00\x01t2");
    pair.receive(0, subscriber, b"\x82\x06\x00\x03\x00\x01+\x00");
    pair.settle();
    let heard = pair.hear(0, subscriber);
    let acks = b"\xB0\x02\x00\x02\x90\x03\x00\x03\x00";
    assert_eq!(heard, [&acks[..], b"\x31\x04\x00\x01t2"].concat());
}

#[test]
fn a_live_message_is_not_followed_by_an_older_retained_one() {
    let mut pair = Pair::new();
    let [subscriber, other] = [pair.connect(0), pair.connect(0)];
    let publisher = pair.connect(1);
    let topic = (b'a'..=b'z').find(|t| home_shard(&char::from(*t).to_string(), 2) == 0);
    let topic = topic.expect("a topic of shard 0");
    pair.receive(0, subscriber, b"\x82\x06\x00\x01\x00\x01#\x00");
    pair.receive(0, other, b"\x82\x06\x00\x01\x00\x01+\x00");
    pair.receive(1, publisher, &[0x31, 4, 0, 1, topic, b'1']);
    pair.settle();
    pair.hear(0, subscriber);
    pair.receive(1, publisher, &[0x31, 4, 0, 1, topic, b'2']);
    // The live message is there, the change of the retained one is not.
    let core = &mut pair.cores[1];
    let mut letters = Vec::new();
    core.staged().flush(|_, mail| {
        if letters.is_empty() {
            letters.push(mail);
            return Ok(());
        }
        Err(mail)
    });
    pair.mail[0].extend(letters);
    pair.drain(0);
    assert_eq!(pair.hear(0, subscriber), [0x30, 4, 0, 1, topic, b'2']);
    pair.receive(0, subscriber, b"\x82\x06\x00\x02\x00\x01+\x00");
    for _ in 0..9 {
        pair.drain(0);
    }
    pair.settle();
    let heard = pair.hear(0, subscriber);
    assert_eq!(heard[5..], [0x31, 4, 0, 1, topic, b'2']);
}

#[test]
fn a_subscription_made_anew_gets_its_retained_messages_once() {
    let mut pair = Pair::new();
    let subscriber = pair.connect(0);
    let publisher = pair.connect(1);
    pair.receive(1, publisher, b"\x31\x04\x00\x01t1");
    pair.settle();
    pair.receive(0, subscriber, b"\x82\x06\x00\x01\x00\x01t\x00");
    pair.receive(0, subscriber, b"\xA2\x05\x00\x02\x00\x01t");
    pair.receive(0, subscriber, b"\x82\x06\x00\x03\x00\x01t\x00");
    pair.settle();
    let acks = b"\x90\x03\x00\x01\x00\xB0\x02\x00\x02\x90\x03\x00\x03\x00";
    let heard = pair.hear(0, subscriber);
    assert_eq!(heard, [&acks[..], b"\x31\x04\x00\x01t1"].concat());
}

#[test]
fn the_answer_of_a_subscription_that_is_gone_begins_nothing_for_the_one_after_it() {
    let mut pair = Pair::new();
    let [subscriber, publisher] = [pair.connect(0), pair.connect(0)];
    let topic = (b'a'..=b'z').find(|t| home_shard(&char::from(*t).to_string(), 2) == 0);
    let topic = topic.expect("a topic of shard 0");
    let retained = [0x31, 4, 0, 1, topic, b'1'];
    pair.receive(0, publisher, &retained);
    pair.settle();
    pair.receive(0, subscriber, &[0x82, 6, 0, 1, 0, 1, topic, 0]);
    pair.flush(0);
    pair.drain(1);
    pair.flush(1);
    // The other shard knows of the first only.
    pair.receive(0, subscriber, &[0xA2, 5, 0, 2, 0, 1, topic]);
    pair.receive(0, subscriber, &[0x82, 6, 0, 3, 0, 1, topic, 0]);
    for _ in 0..9 {
        pair.drain(0);
    }
    assert_eq!(pair.hear(0, subscriber), b"\x90\x03\x00\x01\x00");
    pair.settle();
    let acks = b"\xB0\x02\x00\x02\x90\x03\x00\x03\x00";
    let heard = pair.hear(0, subscriber);
    assert_eq!(heard, [&acks[..], &retained].concat());
}

#[test]
fn a_subscription_made_twice_gets_its_retained_messages_twice_after_all_know_of_it() {
    let mut pair = Pair::new();
    let subscriber = pair.connect(0);
    let publisher = pair.connect(1);
    pair.receive(1, publisher, b"\x31\x04\x00\x01t1");
    pair.settle();
    pair.receive(0, subscriber, b"\x82\x06\x00\x01\x00\x01t\x00");
    pair.receive(0, subscriber, b"\x82\x06\x00\x02\x00\x01t\x00");
    pair.settle();
    let acks = b"\x90\x03\x00\x01\x00\x90\x03\x00\x02\x00";
    let retained = b"\x31\x04\x00\x01t1";
    let heard = pair.hear(0, subscriber);
    assert_eq!(heard, [&acks[..], retained, retained].concat());
    // And once more, since nothing is due any more.
    pair.receive(0, subscriber, b"\x82\x06\x00\x03\x00\x01t\x00");
    pair.settle();
    let heard = pair.hear(0, subscriber);
    assert_eq!(heard, [b"\x90\x03\x00\x03\x00", &retained[..]].concat());
}

#[test]
fn looking_through_subscriptions_that_no_shard_knows_yet_is_work_of_the_turn() {
    const PACKETS: usize = 25;
    const FILTERS: usize = 20;
    let mut pair = Pair::new();
    let (known, publisher) = (pair.connect(0), pair.connect(1));
    pair.receive(0, known, b"\x82\x06\x00\x01\x00\x01t\x00");
    pair.settle();
    let subscriber = pair.connect(0);
    pair.receive(0, subscriber, b"\x82\x06\x00\x01\x00\x01t\x00");
    for packet in 0..PACKETS {
        let number = |n| format!("\0\x03{:03}\0", packet * FILTERS + n);
        let filters = (0..FILTERS).flat_map(|n| number(n).into_bytes());
        let body: Vec<_> = [0, 2].into_iter().chain(filters).collect();
        pair.turn(0);
        pair.receive(
            0,
            subscriber,
            &[&[0x82, body.len() as u8], &body[..]].concat(),
        );
    }
    // None of them is told to the other shard yet, which knows of `t` by another client.
    pair.receive(1, publisher, b"\x31\x04\x00\x01t1");
    pair.flush(1);
    pair.turn(0);
    let begun = pair.cores[0].backlog.work_left();
    pair.drain(0);
    let spent = begun - pair.cores[0].backlog.work_left();
    let looked_through = (PACKETS * FILTERS) as i64;
    assert!(spent >= looked_through, "{spent} of {looked_through}");
}
