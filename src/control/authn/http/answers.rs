//! Answers of a hook that are still fresh, by a digest of what was asked.
//!
//! Invariants: at most `max` answers, the oldest goes first; each digest in `order` is in `by_digest` once
//! and the other way round; a password is never kept, only its part in a digest.

use crate::control::authn::{Credentials, Verdict};
use aws_lc_rs::digest::{Context, SHA256};
use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

/// SHA-256 of credentials.
pub(super) type Digest = [u8; 32];

/// Digest of all that the hook is told, except for the client's port, which is another at each connection.
pub(super) fn digest(credentials: &Credentials) -> Digest {
    let certificate = credentials.certificate.as_deref();
    let common_name = certificate.and_then(|names| names.common_name.as_deref());
    let password = credentials.password.as_ref();
    let address = credentials.peer.ip().map(|ip| ip.to_string());
    let version = [credentials.version as u8];
    let parts = [
        Some(credentials.client_id.as_bytes()),
        credentials.user_name.as_deref().map(str::as_bytes),
        password.map(|password| password.reveal()),
        address.as_deref().map(str::as_bytes),
        common_name.map(str::as_bytes),
        Some(&version[..]),
    ];
    let mut context = Context::new(&SHA256);
    for part in parts {
        // Lengths keep neighbours apart: "ab" and "c" are not "a" and "bc", and nothing is not "".
        let length = part.map_or(u64::MAX, |part| part.len() as u64);
        context.update(&length.to_le_bytes());
        context.update(part.unwrap_or_default());
    }
    let mut digest = Digest::default();
    for (to, from) in digest.iter_mut().zip(context.finish().as_ref()) {
        *to = *from;
    }
    digest
}

/// The answers.
pub(super) struct Answers {
    by_digest: HashMap<Digest, (Instant, Verdict)>,
    /// Oldest first; with one lifetime for all, also the first to expire.
    order: VecDeque<Digest>,
    max: usize,
}

impl Answers {
    /// None yet, never more than `max`.
    pub(super) fn new(max: usize) -> Self {
        Answers {
            by_digest: HashMap::new(),
            order: VecDeque::new(),
            max,
        }
    }

    /// The answer, if it is fresh.
    pub(super) fn get(&self, digest: &Digest, now: Instant) -> Option<Verdict> {
        let (expires, verdict) = self.by_digest.get(digest)?;
        (now < *expires).then(|| verdict.clone())
    }

    /// Keeps an answer for `ttl`, which has to be the same at each call.
    pub(super) fn put(&mut self, digest: Digest, verdict: Verdict, now: Instant, ttl: Duration) {
        // A lifetime past the end of time is a mistake that must not make an answer eternal.
        let Some(expires) = now.checked_add(ttl) else {
            return;
        };
        self.drop_stale(now);
        if let Some((_, known)) = self.by_digest.get_mut(&digest) {
            // Its time stays as it is: `order` is by time.
            *known = verdict;
            return;
        }
        while self.order.len() >= self.max {
            let Some(oldest) = self.order.pop_front() else {
                return;
            };
            self.by_digest.remove(&oldest);
        }
        self.by_digest.insert(digest, (expires, verdict));
        self.order.push_back(digest);
    }

    fn drop_stale(&mut self, now: Instant) {
        while let Some(oldest) = self.order.front() {
            if let Some((expires, _)) = self.by_digest.get(oldest)
                && now < *expires
            {
                return;
            }
            self.by_digest.remove(oldest);
            self.order.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::authn::CertificateNames;
    use crate::engine::access::{Refusal, Secret};
    use crate::engine::codec::Version;
    use crate::shard::peer::Peer;
    use std::sync::Arc;

    const TTL: Duration = Duration::from_secs(10);

    fn is_there(answers: &Answers, number: u8, now: Instant) -> bool {
        answers.get(&[number; 32], now).is_some()
    }

    fn check(answers: &Answers) {
        assert_eq!(answers.order.len(), answers.by_digest.len());
        for digest in &answers.order {
            assert!(answers.by_digest.contains_key(digest));
        }
    }

    #[test]
    fn an_answer_is_kept_for_its_lifetime() {
        let start = Instant::now();
        let mut answers = Answers::new(5);
        answers.put([1; 32], Verdict::NotMine, start, TTL);
        assert!(is_there(
            &answers,
            1,
            start + TTL - Duration::from_millis(1)
        ));
        assert!(!is_there(&answers, 1, start + TTL));
        assert!(!is_there(&answers, 2, start));
    }

    #[test]
    fn the_oldest_answer_makes_room() {
        let start = Instant::now();
        let mut answers = Answers::new(2);
        for number in 1..=3 {
            answers.put([number; 32], Verdict::NotMine, start, TTL);
            check(&answers);
        }
        let there = [1, 2, 3].map(|number| is_there(&answers, number, start));
        assert_eq!(there, [false, true, true]);
    }

    #[test]
    fn no_room_is_no_answer() {
        let start = Instant::now();
        let mut answers = Answers::new(0);
        answers.put([1; 32], Verdict::NotMine, start, TTL);
        check(&answers);
        assert!(!is_there(&answers, 1, start));
    }

    #[test]
    fn stale_answers_leave() {
        let start = Instant::now();
        let mut answers = Answers::new(5);
        for number in 1..=3 {
            answers.put([number; 32], Verdict::NotMine, start, TTL);
        }
        answers.put([4; 32], Verdict::NotMine, start + TTL, TTL);
        check(&answers);
        assert_eq!(answers.order.len(), 1);
    }

    #[test]
    fn a_second_answer_replaces_the_first_but_not_its_time() {
        let start = Instant::now();
        let mut answers = Answers::new(5);
        answers.put([1; 32], Verdict::NotMine, start, TTL);
        let refused = || Verdict::Refuse(Refusal::BadCredentials);
        answers.put([1; 32], refused(), start + TTL / 2, TTL);
        check(&answers);
        let kept = answers.get(&[1; 32], start + TTL / 2);
        assert!(matches!(kept, Some(Verdict::Refuse(_))));
        assert!(!is_there(&answers, 1, start + TTL));
        answers.put([1; 32], refused(), start + TTL, TTL);
        check(&answers);
        assert!(is_there(&answers, 1, start + TTL));
    }

    #[test]
    fn other_credentials_have_another_digest() {
        let plain = Credentials {
            client_id: "c".into(),
            user_name: Some("u".into()),
            password: Some(Secret::new(b"p")),
            version: Version::V5,
            peer: Peer::internet("10.0.0.1:1000".parse().unwrap()),
            certificate: None,
        };
        let named = |name: &str| {
            Some(Arc::new(CertificateNames {
                common_name: Some(name.into()),
                ..CertificateNames::default()
            }))
        };
        let mut others = vec![plain.clone(); 11];
        others[0].client_id = "d".into();
        others[1].user_name = Some("v".into());
        others[2].user_name = None;
        others[3].user_name = Some("".into());
        others[4].password = Some(Secret::new(b"q"));
        others[5].password = None;
        others[6].peer = Peer::internet("10.0.0.2:1000".parse().unwrap());
        others[7].certificate = named("pump7");
        others[8].certificate = named("pump8");
        others[9].version = Version::V3_1_1;
        others[10].client_id = "cu".into();
        others[10].user_name = Some("".into());
        let mut digests: Vec<_> = others.iter().map(digest).collect();
        digests.push(digest(&plain));
        digests.sort_unstable();
        digests.dedup();
        assert_eq!(digests.len(), 12);

        let mut again = plain.clone();
        again.peer = Peer::internet("10.0.0.1:2000".parse().unwrap());
        assert_eq!(digest(&again), digest(&plain));
    }
}
