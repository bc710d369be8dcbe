//! Whether a subscriber got what its QoS promises: each message once, in order.

/// What one subscriber has seen of one publisher.
#[derive(Clone, Debug, Default)]
pub struct Verifier {
    next: u64,
    missing: Vec<u64>,
}

/// Breaches over all subscribers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Breaches {
    /// Never came.
    pub lost: u64,
    /// Came again.
    pub duplicated: u64,
    /// Came after a later one.
    pub reordered: u64,
    /// Too short or of an impossible sequence.
    pub corrupt: u64,
}

impl Verifier {
    /// Notes the arrival of message `sequence` out of `total`; returns whether it is new.
    pub fn note(&mut self, sequence: u64, total: u64, breaches: &mut Breaches) -> bool {
        if sequence >= total {
            breaches.corrupt += 1;
            return false;
        }
        if sequence >= self.next {
            self.missing.extend(self.next..sequence);
            self.next = sequence + 1;
            return true;
        }
        match self.missing.iter().position(|missing| *missing == sequence) {
            Some(index) => {
                self.missing.remove(index);
                breaches.reordered += 1;
                true
            }
            None => {
                breaches.duplicated += 1;
                false
            }
        }
    }

    /// What never came, after the last of `total` messages.
    pub fn lost(&self, total: u64) -> u64 {
        self.missing.len() as u64 + (total - self.next)
    }
}

impl Breaches {
    /// Whether `qos` allows what was seen: QoS 0 may lose, QoS 1 may repeat.
    pub const fn are_allowed(&self, qos: u8) -> bool {
        self.reordered == 0
            && self.corrupt == 0
            && (qos == 0 || self.lost == 0)
            && (qos == 1 || self.duplicated == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_repeats_and_reorderings_are_told_apart() {
        let mut verifier = Verifier::default();
        let mut breaches = Breaches::default();
        for sequence in [0, 2, 1, 2, 5, 99] {
            verifier.note(sequence, 10, &mut breaches);
        }
        breaches.lost = verifier.lost(10);
        let seen = Breaches {
            lost: 6,
            duplicated: 1,
            reordered: 1,
            corrupt: 1,
        };
        assert_eq!(breaches, seen);
        assert!(!breaches.are_allowed(0));
        let lost = Breaches {
            lost: 1,
            ..Breaches::default()
        };
        assert!(lost.are_allowed(0) && !lost.are_allowed(1));
        let repeated = Breaches {
            duplicated: 1,
            ..Breaches::default()
        };
        assert!(repeated.are_allowed(1) && !repeated.are_allowed(2));
    }
}
