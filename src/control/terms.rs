//! What to say of certificates and revocation lists that have ended, or will soon.

use crate::engine::telemetry::notes::quoted;
use crate::shard::certificates::{Part, Term};
use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds since 1970.
pub(super) fn now_unix_s() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| i64::try_from(now.as_secs()).unwrap_or(i64::MAX))
}

const DAY_S: i64 = 86_400;
/// From when on it is said that a certificate ends.
const ENDS_SOON_S: i64 = 30 * DAY_S;

/// What it is called, and what follows where it does not serve.
fn called(part: &Part) -> (String, &'static str) {
    let of_ca = |kind: &str, name: &str| format!("the certificate of the {kind} {}", quoted(name));
    match part {
        Part::Own => ("the certificate".to_owned(), "clients will not trust it"),
        Part::Between(name) => (of_ca("CA in the chain,", name), "clients will not trust it"),
        Part::ClientCa(name) => (of_ca("CA of clients,", name), "its clients are refused"),
        Part::RevocationList => (
            "the revocation list".to_owned(),
            "what was revoked later is not in it",
        ),
        Part::ForeignLists => (
            "none of its revocation lists".to_owned(),
            "clients of these CAs are refused, unless a CA between has its list here",
        ),
    }
}

/// What to say of something that has ended.
pub(super) fn ended(term: &Term, now: i64) -> Option<String> {
    let (path, (what, follows)) = (term.path.display(), called(&term.part));
    let days = (now - term.ends_unix_s).div_euclid(DAY_S);
    let when = match days {
        0 => "today".to_owned(),
        1 => "yesterday".to_owned(),
        days => format!("{days} days ago"),
    };
    (term.ends_unix_s <= now).then(|| match term.part {
        Part::ForeignLists => format!("{path}: {what} is of a CA of client_ca: {follows}"),
        Part::RevocationList => {
            format!("{path}: {what} is out of date since {when}: {follows}; get a newer one")
        }
        _ => format!("{path}: {what} ended {when}: {follows}; get a new one"),
    })
}

/// What to say of something that has ended or does not count yet, or of a certificate that will end soon.
pub(super) fn warning(term: &Term, now: i64) -> Option<String> {
    let (path, (what, follows)) = (term.path.display(), called(&term.part));
    let left = term.ends_unix_s - now;
    let is_soon = term.part != Part::RevocationList && (1..=ENDS_SOON_S).contains(&left);
    let soon = || {
        let days = left / DAY_S;
        format!("{path}: {what} ends in {days} days; put a new one in its place")
    };
    let early = || {
        let days = (term.begins_unix_s - now + DAY_S - 1) / DAY_S;
        format!(
            "{path}: {what} does not count before {days} days from now: {follows}; is this machine's \
             clock right?"
        )
    };
    ended(term, now)
        .or_else(|| (term.begins_unix_s > now).then(early))
        .or_else(|| is_soon.then(soon))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_is_told_of_in_time() {
        let term = |part| Term {
            path: "/etc/x.pem".into(),
            part,
            begins_unix_s: 900 * DAY_S,
            ends_unix_s: 1_000 * DAY_S,
        };
        let at = |part, days: i64| warning(&term(part), days * DAY_S);
        let ca = || Part::ClientCa("CN=x".to_owned());
        assert_eq!(at(Part::Own, 969), None);
        assert_eq!(
            at(Part::Own, 970).unwrap(),
            "/etc/x.pem: the certificate ends in 30 days; put a new one in its place"
        );
        assert!(at(Part::Own, 1_000).unwrap().contains("ended today"));
        assert!(at(Part::Own, 1_007).unwrap().contains("ended 7 days ago"));
        assert_eq!(
            at(ca(), 1_007).unwrap(),
            "/etc/x.pem: the certificate of the CA of clients, \"CN=x\" ended 7 days ago: its clients are \
             refused; get a new one"
        );
        let early = at(Part::Between("CN=x".to_owned()), 898).unwrap();
        assert!(
            early.contains("CA in the chain, \"CN=x\" does not count before 2 days"),
            "{early}"
        );
        assert_eq!(at(Part::RevocationList, 999), None);
        assert!(
            at(Part::RevocationList, 1_001)
                .unwrap()
                .contains("out of date since yesterday")
        );
        assert_eq!(ended(&term(Part::Own), 999 * DAY_S), None);
    }
}
