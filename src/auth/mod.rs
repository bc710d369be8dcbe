//! Who may connect: the seam at which authentication methods attach.
//!
//! Pure: a CONNECT goes in, a decision comes out. There is no method yet, so anyone may connect where
//! the listeners allow it, and an extended authentication is refused as unknown.

use crate::codec::Reason;
use crate::codec::connect::Connect;
use crate::codec::control::Auth;

/// What an authenticator says to a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The client may go on.
    Allow,
    /// It may not; the reason is for CONNACK or DISCONNECT.
    Refuse(Reason),
}

/// Decides on connections.
#[derive(Clone, Debug, Default)]
pub struct Authenticator {}

impl Authenticator {
    /// Judges a CONNECT. An authentication method that is not known is refused `[MQTT-4.12.0-1]`.
    #[must_use]
    pub fn connect(&self, connect: &Connect<'_>) -> Decision {
        match connect.properties.authentication_method {
            Some(_) => Decision::Refuse(Reason::BadAuthenticationMethod),
            None => Decision::Allow,
        }
    }

    /// Judges an AUTH packet on a connection that named `method` in its CONNECT `[MQTT-4.12.0-7]`.
    #[must_use]
    pub fn auth(&self, method: Option<&str>, auth: &Auth<'_>) -> Decision {
        match method {
            None => Decision::Refuse(Reason::ProtocolError),
            Some(method) if method != auth.method => {
                Decision::Refuse(Reason::BadAuthenticationMethod)
            }
            Some(_) => Decision::Refuse(Reason::BadAuthenticationMethod),
        }
    }
}
