//! How fast one client may go: token buckets, filled by time, emptied by what it does.
//!
//! A bucket holds a second's worth and may be overdrawn by what was on its way already; the debt is waited
//! off. Clients without limits have none of this.

use crate::engine::limits::Limits;
use crate::engine::time::Timestamp;

/// A bucket; counted in thousandths of a token, so that slow rates fill in small steps.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    rate: u64,
    milli_tokens: i64,
    filled_at: Timestamp,
}

impl Bucket {
    /// A full one; `None` for the rate 0, which is no limit.
    #[must_use]
    pub fn new(rate: u64, now: Timestamp) -> Option<Self> {
        (rate > 0).then_some(Bucket {
            rate,
            milli_tokens: (rate * 1000) as i64,
            filled_at: now,
        })
    }

    /// Takes tokens; when the bucket is out of debt again, if it is in debt now.
    pub fn take(&mut self, tokens: u64, now: Timestamp) -> Option<Timestamp> {
        let full = (self.rate * 1000) as i64;
        let earned = now.ms_since(self.filled_at).saturating_mul(self.rate);
        let earned = i64::try_from(earned).unwrap_or(i64::MAX);
        self.filled_at = now;
        let spent = i64::try_from(tokens.saturating_mul(1000)).unwrap_or(i64::MAX);
        let level = self.milli_tokens.saturating_add(earned).min(full);
        self.milli_tokens = level.saturating_sub(spent);
        let debt = self.milli_tokens.checked_neg().filter(|debt| *debt > 0)?;
        Some(now.plus_ms((debt as u64).div_ceil(self.rate)))
    }
}

/// What a client may not do faster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rate {
    /// Messages that it publishes.
    Publishes,
    /// Their bytes.
    PublishBytes,
    /// Filters that it subscribes to or gives up.
    Filters,
}

/// The buckets of one connection.
#[derive(Clone, Copy, Debug)]
pub struct Rates {
    publishes: Option<Bucket>,
    publish_bytes: Option<Bucket>,
    subscribes: Option<Bucket>,
    deliveries: Option<Bucket>,
    /// No QoS 1 or 2 message leaves before this.
    pub delivers_at: Timestamp,
}

impl Rates {
    /// Those that `limits` ask for; `None` if they ask for none.
    #[must_use]
    pub fn new(limits: &Limits, now: Timestamp) -> Option<Box<Self>> {
        let rates = Rates {
            publishes: Bucket::new(limits.publish_rate_max, now),
            publish_bytes: Bucket::new(limits.publish_bytes_rate_max, now),
            subscribes: Bucket::new(limits.subscribe_rate_max, now),
            deliveries: Bucket::new(limits.delivery_rate_max, now),
            delivers_at: Timestamp::default(),
        };
        let any = rates.publishes.is_some()
            || rates.publish_bytes.is_some()
            || rates.subscribes.is_some()
            || rates.deliveries.is_some();
        any.then(|| Box::new(rates))
    }

    /// A publish of so many bytes came: until when the client has to wait, if it was too much of something.
    pub fn published(&mut self, bytes: u64, now: Timestamp) -> Option<(Timestamp, Rate)> {
        let take = |bucket: &mut Option<Bucket>, tokens| bucket.as_mut()?.take(tokens, now);
        let messages = take(&mut self.publishes, 1);
        let bytes = take(&mut self.publish_bytes, bytes);
        let rate = if messages >= bytes {
            Rate::Publishes
        } else {
            Rate::PublishBytes
        };
        Some((messages.max(bytes)?, rate))
    }

    /// So many filters were subscribed to or given up.
    pub fn subscribed(&mut self, filters: u64, now: Timestamp) -> Option<(Timestamp, Rate)> {
        let until = self.subscribes.as_mut()?.take(filters, now)?;
        Some((until, Rate::Filters))
    }

    /// A message is to be delivered: whether it may be now.
    pub fn may_deliver(&mut self, now: Timestamp) -> bool {
        if self.delivers_at > now {
            return false;
        }
        let wait = self
            .deliveries
            .as_mut()
            .and_then(|bucket| bucket.take(1, now));
        self.delivers_at = wait.unwrap_or(self.delivers_at);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_ms(ms)
    }

    #[test]
    fn a_second_at_once_is_free_and_the_debt_is_waited_off() {
        let limits = Limits {
            publish_rate_max: 10,
            ..Limits::default()
        };
        let mut rates = Rates::new(&limits, at(0)).unwrap();
        for _ in 0..10 {
            assert_eq!(rates.published(1, at(0)), None);
        }
        assert_eq!(rates.published(1, at(0)), Some((at(100), Rate::Publishes)));
        assert_eq!(rates.published(1, at(0)), Some((at(200), Rate::Publishes)));
        assert_eq!(rates.published(1, at(300)), None);
        assert!(rates.may_deliver(at(0)));
        // Never more than a second's worth is saved up.
        for _ in 0..10 {
            assert_eq!(rates.published(1, at(1_000_000)), None);
        }
        assert!(rates.published(1, at(1_000_000)).is_some());
    }

    #[test]
    fn bytes_count_as_well() {
        let limits = Limits {
            publish_bytes_rate_max: 1000,
            ..Limits::default()
        };
        let mut rates = Rates::new(&limits, at(0)).unwrap();
        assert_eq!(
            rates.published(3000, at(0)),
            Some((at(2000), Rate::PublishBytes))
        );
        assert!(Rates::new(&Limits::default(), at(0)).is_none());
    }
}
