//! Where a remote broker says to go instead (0x9C, 0x9D): followed as far as what is trusted already vouches
//! for it, and so many times in a row.
//!
//! The other server is spoken to as the one that named it: by the same scheme, user and certificates. So it
//! has to be one of the bridge's addresses, or to prove by TLS that it is who it is called.

use super::{Bridge, tls};
use crate::control::config::Address;
use crate::engine::bridge::line::End;
use crate::engine::telemetry::notes::quoted;
use crate::engine::time::Timestamp;
use crate::shard::transport::remote::RemoteTls;

/// Another server.
#[derive(Debug)]
pub(super) struct Elsewhere {
    pub address: Address,
    pub tls: Option<RemoteTls>,
}

/// What came of a redirect.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Redirect {
    /// There was none.
    None,
    /// The next attempt goes there; in an operator's words.
    Followed(String),
    /// It does not, and why.
    Refused(String),
}

impl Bridge {
    /// A line or attempt has ended: where it says to go instead is where the next attempt goes, if it may.
    pub(super) fn redirect(&mut self, end: &End, now: Timestamp) -> Redirect {
        let Some(reference) = end.server_reference.as_deref() else {
            self.elsewhere = None;
            return Redirect::None;
        };
        let named = format!("; it names another server: {}", quoted(reference));
        match self.follow(reference, now) {
            Ok(there) => {
                let told = format!("{named}, which is followed: {}", there.address);
                self.elsewhere = Some(there);
                Redirect::Followed(told)
            }
            Err(why) => {
                self.elsewhere = None;
                Redirect::Refused(format!("{named}, which is not followed: {why}"))
            }
        }
    }

    fn follow(&mut self, reference: &str, now: Timestamp) -> Result<Elsewhere, String> {
        if !self.config.follows_redirects {
            return Err("bridge.redirect is refuse".into());
        }
        let (from, tls) = self.target().ok_or("its own address is gone")?;
        let address = from
            .elsewhere(reference)
            .ok_or("that is no HOST or HOST:PORT")?;
        let is_known = self.config.addresses.contains(&address);
        if !is_known && !address.is_tls {
            return Err(
                "it is none of bridge.addresses, and without TLS nobody vouches for it".into(),
            );
        }
        let config = tls.map(|tls| tls.config);
        let tls = tls::for_address(&address, config.as_ref(), &self.config.tls)?;
        if !self.dial.redirected(now) {
            let max = self.config.redirects_max;
            return Err(format!("{max} in a row were (bridge.redirects_max)"));
        }
        Ok(Elsewhere { address, tls })
    }
}
