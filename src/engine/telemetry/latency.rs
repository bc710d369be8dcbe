//! How long clients waited for what a shard did, by samples.

use super::histogram::Histogram;
use crate::engine::message::Qos;

/// Times since the shard began.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Latencies {
    deliveries: [[Histogram; 2]; 3],
    pubacks: Histogram,
}

impl Latencies {
    /// A delivery at this QoS went out so long after its publish came, on this shard or on another one.
    pub fn add_delivery(&mut self, qos: Qos, is_local: bool, us: u64) {
        if let Some(of_qos) = self.deliveries.get_mut(usize::from(qos.bits())) {
            of_qos[usize::from(is_local)].add(us);
        }
    }

    /// A PUBACK went out so long after its publish came.
    pub fn add_puback(&mut self, us: u64) {
        self.pubacks.add(us);
    }

    /// All deliveries: QoS, whether the publish came to this shard, times.
    pub fn deliveries(&self) -> impl Iterator<Item = (u8, bool, &Histogram)> {
        (0..)
            .zip(&self.deliveries)
            .flat_map(|(qos, [other, local])| [(qos, true, local), (qos, false, other)])
    }

    /// All PUBACKs.
    #[must_use]
    pub const fn pubacks(&self) -> &Histogram {
        &self.pubacks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_kept_apart_by_qos_and_way() {
        let mut latencies = Latencies::default();
        latencies.add_delivery(Qos::AtLeastOnce, false, 7);
        latencies.add_puback(3);
        let seen = latencies
            .deliveries()
            .filter(|(.., times)| times.count() > 0);
        let seen: Vec<_> = seen
            .map(|(qos, is_local, times)| (qos, is_local, times.sum_us()))
            .collect();
        assert_eq!(seen, [(1, false, 7)]);
        assert_eq!(latencies.pubacks().sum_us(), 3);
    }
}
