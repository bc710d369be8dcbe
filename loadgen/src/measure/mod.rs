//! What is measured: latencies in histograms and counts, second by second.

pub mod host;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::ops::AddAssign;

/// Latencies are told apart from this on.
const LATENCY_NS_MIN: u64 = 100;
/// Largest latency that is told apart.
const LATENCY_NS_MAX: u64 = 3_600_000_000_000;

/// Kinds of latency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// Intended send time to arrival at a subscriber.
    Deliver,
    /// Intended send time to PUBACK or PUBCOMP.
    Ack,
    /// Begin of connect() to CONNACK.
    Connect,
    /// SUBSCRIBE to SUBACK.
    Subscribe,
    /// The same as connect, in a storm; retries included.
    Reconnect,
    /// Deliveries while a storm lasts.
    DeliverInStorm,
    /// SUBSCRIBE to each retained message, or coming back to each that was missed.
    Replay,
    /// SUBSCRIBE to the last retained message.
    ReplayWhole,
    /// How late a publish left the generator, by no fault of the broker.
    Lag,
}

impl Measure {
    /// All, in the order of their numbers.
    pub const ALL: [(Measure, &'static str); 9] = [
        (Measure::Deliver, "deliver"),
        (Measure::Ack, "ack"),
        (Measure::Connect, "connect"),
        (Measure::Subscribe, "subscribe"),
        (Measure::Reconnect, "reconnect"),
        (Measure::DeliverInStorm, "deliver_in_storm"),
        (Measure::Replay, "replay"),
        (Measure::ReplayWhole, "replay_whole"),
        (Measure::Lag, "generator_lag"),
    ];
}

/// Counts over a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    pub published: u64,
    pub published_bytes: u64,
    pub acknowledged: u64,
    pub delivered: u64,
    pub delivered_bytes: u64,
    pub received_wire_bytes: u64,
    pub sent_wire_bytes: u64,
    /// Publishes that the broker answered with an error code.
    pub refused: u64,
    pub connected: u64,
    pub connect_failures: u64,
    pub disconnected: u64,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.published += other.published;
        self.published_bytes += other.published_bytes;
        self.acknowledged += other.acknowledged;
        self.delivered += other.delivered;
        self.delivered_bytes += other.delivered_bytes;
        self.received_wire_bytes += other.received_wire_bytes;
        self.sent_wire_bytes += other.sent_wire_bytes;
        self.refused += other.refused;
        self.connected += other.connected;
        self.connect_failures += other.connect_failures;
        self.disconnected += other.disconnected;
    }
}

/// A latency histogram with the bounds that all share.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(LATENCY_NS_MIN, LATENCY_NS_MAX, 3)
        .expect("the bounds are constants that fit")
}

/// Latencies and counts of some time.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Meters {
    #[serde(with = "encoded")]
    histograms: [Option<Box<Histogram<u64>>>; Measure::ALL.len()],
    /// Everything that is only counted.
    pub counts: Counts,
}

impl Meters {
    /// Records one latency in ns.
    pub fn record(&mut self, measure: Measure, ns: u64) {
        let slot = &mut self.histograms[measure as usize];
        slot.get_or_insert_with(|| Box::new(histogram()))
            .saturating_record(ns);
    }

    /// The latencies of one kind, if there are any.
    pub fn latency(&self, measure: Measure) -> Option<&Histogram<u64>> {
        self.histograms[measure as usize].as_deref()
    }

    /// Adds what another has measured.
    pub fn add(&mut self, other: &Meters) {
        self.counts += other.counts;
        for (mine, theirs) in self.histograms.iter_mut().zip(&other.histograms) {
            if let Some(theirs) = theirs {
                let mine = mine.get_or_insert_with(|| Box::new(histogram()));
                mine.add(theirs.as_ref()).expect("all have the same bounds");
            }
        }
    }

    /// Whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.counts == Counts::default()
    }
}

/// Histograms as they travel between machines: HdrHistogram's own form, in base 64.
mod encoded {
    use super::Measure;
    use base64::prelude::{BASE64_STANDARD, Engine};
    use hdrhistogram::Histogram;
    use hdrhistogram::serialization::{Deserializer, Serializer, V2Serializer};
    use serde::de::Error as _;
    use serde::ser::Error as _;
    use serde::{Deserialize, Serialize};

    type Histograms = [Option<Box<Histogram<u64>>>; Measure::ALL.len()];

    pub fn serialize<S: serde::Serializer>(all: &Histograms, to: S) -> Result<S::Ok, S::Error> {
        let mut texts = Vec::new();
        for histogram in all {
            texts.push(match histogram {
                None => None,
                Some(histogram) => {
                    let mut bytes = Vec::new();
                    let written = V2Serializer::new().serialize(histogram, &mut bytes);
                    written.map_err(|error| S::Error::custom(format!("{error:?}")))?;
                    Some(BASE64_STANDARD.encode(bytes))
                }
            });
        }
        texts.serialize(to)
    }

    pub fn deserialize<'a, D: serde::Deserializer<'a>>(from: D) -> Result<Histograms, D::Error> {
        let texts = Vec::<Option<String>>::deserialize(from)?;
        let mut all = Histograms::default();
        for (slot, text) in all.iter_mut().zip(texts) {
            let Some(text) = text else {
                continue;
            };
            let bytes = BASE64_STANDARD.decode(text).map_err(D::Error::custom)?;
            let read = Deserializer::new().deserialize(&mut &bytes[..]);
            let other: Histogram<u64> = read.map_err(|e| D::Error::custom(format!("{e:?}")))?;
            let mut histogram = super::histogram();
            histogram
                .add(&other)
                .map_err(|e| D::Error::custom(format!("{e:?}")))?;
            *slot = Some(Box::new(histogram));
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measures_are_numbered_in_their_order() {
        for (at, (measure, _)) in Measure::ALL.iter().enumerate() {
            assert_eq!(*measure as usize, at);
        }
    }

    #[test]
    fn meters_add_up() {
        let mut one = Meters::default();
        one.record(Measure::Ack, 1000);
        one.counts.published = 1;
        let mut other = Meters::default();
        other.record(Measure::Ack, 3000);
        other.record(Measure::Deliver, 5);
        one.add(&other);
        assert_eq!(one.latency(Measure::Ack).map(Histogram::len), Some(2));
        assert_eq!(one.latency(Measure::Deliver).map(Histogram::len), Some(1));
        assert!(one.latency(Measure::Connect).is_none() && !one.is_empty());
    }

    #[test]
    fn meters_travel_whole() {
        let mut meters = Meters::default();
        for ns in [5, 1_000, 70_000_000_000] {
            meters.record(Measure::Deliver, ns);
        }
        meters.counts.delivered = 3;
        let text = serde_json::to_string(&meters).unwrap();
        let back: Meters = serde_json::from_str(&text).unwrap();
        assert_eq!(
            back.latency(Measure::Deliver),
            meters.latency(Measure::Deliver)
        );
        assert_eq!(back.counts, meters.counts);
        assert!(serde_json::from_str::<Meters>(&text.replace("\"H", "\"!")).is_err());
    }
}
